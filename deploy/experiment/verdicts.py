"""Verdicts: which targets are met, and everything that speaks against ours, by rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deploy.experiment.comparison import Estimate, difference, ratio
from deploy.experiment.curves import (
    calibration,
    harmed_by_flags,
    long_horizons,
    rises,
    swap_outcomes,
)
from deploy.experiment.measured import Experiment, Measured, paired, pooled
from deploy.experiment.plan import Role
from deploy.experiment.tables import FLAGS, PHASES, condition_words, percent
from deploy.report import markdown_table

Verdict = Literal["met", "not met", "not measured"]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One target.

    Attributes:
        target: what is aimed at.
        verdict: whether it is met, by the numbers themselves and not by their intervals.
        numbers: behind the verdict.
    """

    target: str
    verdict: Verdict
    numbers: str


def targets_table(experiment: Experiment) -> list[str]:
    """A line a target."""
    rows = [[judged.target, judged.verdict, judged.numbers] for judged in judge(experiment)]
    return markdown_table(["target", "verdict", "numbers"], rows)


def judge(experiment: Experiment) -> list[Judged]:
    """Every target of the plan."""
    targets = experiment.plan.targets
    judged = [
        _judge_rate(
            f"clean: success at least {_whole(targets.clean_success)}",
            experiment.find(experiment.ours),
            least=targets.clean_success,
        )
    ]
    if targets.short_history:
        label = experiment.label(targets.short_history)
        judged.append(
            _judge_rate(
                f"{label}, clean: success at most {_whole(targets.short_history_success)}",
                experiment.find(targets.short_history),
                most=targets.short_history_success,
            )
        )
    judged += [_judge_retention(experiment, flag=flag) for flag in ("oracle", "auto")]
    return [*judged, _judge_gap(experiment), *_judge_long_horizons(experiment)]


def _judge_rate(
    words: str, cell: Measured | None, *, least: float = 0.0, most: float = 1.0
) -> Judged:
    if cell is None:
        return Judged(target=words, verdict="not measured", numbers="")
    return Judged(
        target=words,
        verdict="met" if least <= cell.rate <= most else "not met",
        numbers=percent(cell),
    )


def _judge_retention(experiment: Experiment, *, flag: str) -> Judged:
    """Met if the success under all retained conditions together is high enough."""
    targets = experiment.plan.targets
    words = f"retention, {FLAGS[flag]}: at least {targets.retention:.2f} of clean"
    clean = experiment.find(experiment.ours)
    cells = [experiment.find(experiment.ours, name, flag=flag) for name in targets.retained]
    pairs = [(cell, clean) for cell in cells if cell is not None and clean is not None]
    together = ratio(*pooled(pairs)) if pairs else None
    if together is None:
        return Judged(target=words, verdict="not measured", numbers="")
    each = []
    for cell, reference in pairs:
        estimate = ratio(*paired(cell, reference))
        if estimate is not None:
            each.append(f"{condition_words(cell.condition)} {estimate.as_ratio()}")
    missing = len(targets.retained) - len(pairs)
    numbers = f"together {together.as_ratio()}; " + ", ".join(each)
    return Judged(
        target=words,
        verdict="met" if together.value >= targets.retention else "not met",
        numbers=numbers + f"; {missing} of the conditions not measured" * bool(missing),
    )


def _judge_gap(experiment: Experiment) -> Judged:
    """Met if automatic flags do as well, within the gap, under each of the retained conditions."""
    targets = experiment.plan.targets
    words = f"automatic flags within {100 * targets.flag_gap:.0f} points of the oracle's"
    gaps: list[tuple[str, Estimate]] = []
    for name in targets.retained:
        auto, told = (experiment.find(experiment.ours, name, flag=f) for f in ("auto", "oracle"))
        if auto is not None and told is not None:
            gaps.append((name, difference(*paired(auto, told))))
    if not gaps:
        return Judged(target=words, verdict="not measured", numbers="")
    numbers = ", ".join(f"{condition_words(name)} {gap.in_points()}" for name, gap in gaps)
    is_met = all(abs(gap.value) <= targets.flag_gap + 1e-9 for _, gap in gaps)
    return Judged(target=words, verdict="met" if is_met else "not met", numbers=numbers)


def _judge_long_horizons(experiment: Experiment) -> list[Judged]:
    """Met if the last swap comes out right about as often as the first."""
    most = experiment.plan.targets.long_horizon_drop
    judged = []
    names = experiment.names(Role.ours, Role.repeats)
    for (policy, task), points in long_horizons(experiment).items():
        if policy not in names:
            continue
        drop = points[0].rate - points[-1].rate
        cell = experiment.find(policy, task=task)
        assert cell is not None
        swaps = swap_outcomes(cell)
        by = difference(swaps[:, -1], swaps[:, 0])
        judged.append(
            Judged(
                target=f"{experiment.label(policy)}, {task}: success per swap falls by at most "
                f"{100 * most:.0f} points",
                verdict="met" if drop <= most + 1e-9 else "not met",
                numbers=f"first swap {_whole(points[0].rate)}, last {_whole(points[-1].rate)}, "
                f"n {points[0].num}; last minus first {by.in_points()}",
            )
        )
    return judged


def negative_results(experiment: Experiment) -> list[str]:
    """A sentence for everything that speaks against ours; [] if nothing does."""
    sentences = [
        f"Target not met: {judged.target} ({judged.numbers})."
        for judged in judge(experiment)
        if judged.verdict == "not met"
    ]
    sentences += not_better(experiment)
    for cell, by in harmed_by_flags(experiment):
        sentences.append(
            f"Flagging harms: {condition_words(cell.condition)}, {PHASES[cell.phase]}, "
            f"{FLAGS[cell.flag]} minus unflagged {by.in_points()} ({_sureness(by)})."
        )
    for curve in experiment.plan.curves.values():
        for flag, points in calibration(experiment, curve).items():
            for rise in rises(points):
                sentences.append(
                    f"Success rises with the {curve.label} from {rise.before:g} to "
                    f"{rise.after:g}, {FLAGS[flag]}: {rise.by.in_points()} ({_sureness(rise.by)})."
                )
    for cell in experiment.of(*experiment.names(Role.mechanism)):
        ours = experiment.find(experiment.ours, cell.condition, flag=cell.flag, phase=cell.phase)
        if ours is not None:
            by = difference(*paired(ours, cell))
            if by.value <= 0:
                sentences.append(
                    f"Without the mechanism it is no worse: {experiment.label(cell.policy)}, "
                    f"{condition_words(cell.condition)}; ours minus it {by.in_points()} "
                    f"({_sureness(by)})."
                )
    return sentences


def not_better(experiment: Experiment) -> list[str]:
    """A sentence for every condition in which ours, with its best flag, beats a baseline not."""
    sentences = []
    for other in experiment.of(*experiment.names(Role.baseline)):
        flags = ("none",) if other.flag == "none" and other.is_clean else ("oracle", "auto")
        for flag in flags:
            ours = experiment.find(experiment.ours, other.condition, flag=flag, phase=other.phase)
            if ours is None:
                continue
            by = difference(*paired(ours, other))
            if by.value <= 0:
                sentences.append(
                    f"Not better than {experiment.label(other.policy)} ({FLAGS[other.flag]}): "
                    f"{condition_words(other.condition)}, ours {FLAGS[flag]}, "
                    f"{by.in_points()} ({_sureness(by)})."
                )
    return sentences


def _sureness(by: Estimate) -> str:
    """What the interval says of the difference."""
    words = "the interval contains 0" if by.low <= 0 <= by.high else "the interval excludes 0"
    return f"{words}, {by.num} pairs"


def _whole(share: float) -> str:
    return f"{100 * share:.0f} %"
