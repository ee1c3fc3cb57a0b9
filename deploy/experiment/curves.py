"""Numbers behind the report's plots: success against strength, memory, and the number of swaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deploy.experiment.comparison import Estimate, difference
from deploy.experiment.measured import Experiment, Measured, paired
from deploy.experiment.plan import CLEAN, Curve, Role
from deploy.results import success_interval


@dataclass(frozen=True, kw_only=True)
class Point:
    """Success at one place of a plot's axis.

    Attributes:
        x: the place.
        rate, low, high: success with its 95 % Wilson interval.
        num: episodes behind it.
        cell: that it is of, if it is of one.
    """

    x: float
    rate: float
    low: float
    high: float
    num: int
    cell: Measured | None = None


@dataclass(frozen=True, kw_only=True)
class Rise:
    """Success that rises although more is injected."""

    before: float
    after: float
    by: Estimate


def point_of(x: float, cell: Measured) -> Point:
    """A cell's success at `x`."""
    low, high = cell.interval
    return Point(x=x, rate=cell.rate, low=low, high=high, num=cell.num, cell=cell)


def calibration(experiment: Experiment, curve: Curve) -> dict[str, list[Point]]:
    """Success of ours by strength, for each flag of which there are at least two points."""
    lines: dict[str, list[Point]] = {}
    for flag in ("none", "oracle", "auto"):
        points = []
        for strength, condition in curve.strengths.items():
            cell = experiment.find(experiment.ours, condition, flag=flag)
            if cell is None and condition == CLEAN:
                cell = experiment.find(experiment.ours)
            if cell is not None:
                points.append(point_of(float(strength), cell))
        if len(points) > 1:
            lines[flag] = sorted(points, key=lambda point: point.x)
    return lines


def rises(points: Sequence[Point]) -> list[Rise]:
    """Where a calibration line rises from one strength to the next, on the same seeds."""
    found = []
    for one, other in zip(points, points[1:], strict=False):
        assert one.cell is not None
        assert other.cell is not None
        by = difference(*paired(other.cell, one.cell))
        if by.value > 0:
            found.append(Rise(before=one.x, after=other.x, by=by))
    return found


def memory_points(experiment: Experiment) -> dict[tuple[str, str], list[Point]]:
    """Success by memory length, for each (condition, flag) measured at more than one length."""
    lines: dict[tuple[str, str], list[Point]] = {}
    names = [n for n in experiment.names(Role.memory) if experiment.policy(n).memory_steps]
    asked = {(c.condition, c.flag) for c in experiment.of(*names) if c.phase == "anytime"}
    for condition, flag in sorted(asked, key=lambda name: (name[0] != CLEAN, name)):
        points = []
        for name in [*names, experiment.ours]:
            cell, steps = experiment.find(name, condition, flag=flag), experiment.policy(name)
            if cell is not None and steps.memory_steps is not None:
                points.append(point_of(steps.memory_steps, cell))
        if len(points) > 1:
            lines[condition, flag] = sorted(points, key=lambda point: point.x)
    return lines


def swap_outcomes(cell: Measured) -> np.ndarray:
    """(n, swaps) bool: which swaps of each episode were right; none are of a single swap."""
    rows = [row["facts"].get("swaps", []) for row in cell.results["episodes"]]
    length = max(map(len, rows), default=0)
    outcomes = np.zeros((len(rows), length if length > 1 else 0), bool)
    for outcome, row in zip(outcomes, rows, strict=True):
        outcome[: len(row)] = row[: len(outcome)]  # an episode cut short made none of the others
    return outcomes


def swap_points(cell: Measured) -> list[Point]:
    """Success of the first, second, ... swap of a repeated task; [] if it is none."""
    points = []
    for index, right in enumerate(swap_outcomes(cell).T):
        low, high = success_interval(int(right.sum()), len(right))
        points.append(
            Point(x=index + 1, rate=float(right.mean()), low=low, high=high, num=len(right))
        )
    return points


def long_horizons(experiment: Experiment) -> dict[tuple[str, str], list[Point]]:
    """Success by swap, for each (policy, task) of several swaps that was measured clean."""
    found = {
        (cell.policy, cell.task): swap_points(cell)
        for cell in experiment.cells
        if cell.is_clean and cell.flag == "none" and cell.task != experiment.plan.task
    }
    shortest_first = sorted(found.items(), key=lambda item: len(item[1]))
    return {name: points for name, points in shortest_first if points}


def flagged_pairs(experiment: Experiment) -> list[tuple[Measured, Measured]]:
    """Perturbed and flagged cells of ours, each with the same one unflagged."""
    pairs = []
    for cell in experiment.of(experiment.ours, perturbed=True):
        believed = experiment.find(cell.policy, cell.condition, phase=cell.phase)
        if cell.flag != "none" and believed is not None:
            pairs.append((cell, believed))
    return pairs


def harmed_by_flags(experiment: Experiment) -> list[tuple[Measured, Estimate]]:
    """Perturbed cells of ours in which flagging is worse than believing, with the difference."""
    compared = [(c, difference(*paired(c, b))) for c, b in flagged_pairs(experiment)]
    return [(cell, by) for cell, by in compared if by.value < 0]
