"""Pictures of the report: success with its 95 % Wilson interval against whatever was varied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # the backend comes first
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from deploy.experiment.curves import Point
from deploy.experiment.measured import Experiment, Measured
from deploy.experiment.plan import CLEAN, Role
from deploy.experiment.tables import FLAGS, condition_words
from deploy.report_pictures import FLAG_COLORS

PALETTE = ("#2563eb", "#ea580c", "#0f766e", "#9333ea", "#65a30d", "#be123c", "#64748b")
DPI = 110


def draw_headline(experiment: Experiment, path: Path) -> None:
    """Ours and the baselines: a panel a condition, a row a policy, a mark a flag."""
    conditions = [CLEAN, *experiment.plan.targets.retained]
    policies = [
        name
        for name in experiment.names(Role.ours, Role.baseline)
        if any(cell.condition in conditions for cell in experiment.of(name))
    ]
    figure, grid = plt.subplots(
        1, len(conditions), figsize=(3.4 + 2.1 * len(conditions), 1.3 + 0.42 * len(policies)),
        layout="constrained", squeeze=False, sharey=True, sharex=True,
    )  # fmt: skip
    for axes, condition in zip(grid[0], conditions, strict=True):
        for row, policy in enumerate(policies):
            for index, flag in enumerate(FLAGS):
                cell = experiment.find(policy, condition, flag=flag)
                if cell is not None and cell.flag == flag:
                    _draw_mark(axes, cell, place=row + 0.24 * (index - 1))
        axes.set(title=condition_words(condition), xlim=(-0.03, 1.03))
        axes.set_yticks(range(len(policies)), map(experiment.label, policies))
        axes.grid(axis="x", alpha=0.3)
        for row in range(1, len(policies)):
            axes.axhline(row - 0.5, color="#d6d8dc", linewidth=0.6)
    grid[0][0].set_ylim(len(policies) - 0.5, -0.5)
    figure.supxlabel("success rate, 95 % Wilson interval", fontsize="medium")
    _draw_legend(figure, FLAGS)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def _draw_legend(figure: Figure, flags: Iterable[str]) -> None:
    """What the colours of `flags` mean, above the plots, where it covers no point."""
    marks = [
        Line2D([], [], marker="o", linestyle="", color=FLAG_COLORS[flag], label=FLAGS[flag])
        for flag in flags
    ]
    figure.legend(handles=marks, loc="outside upper center", ncols=len(marks), fontsize="small")


def _draw_mark(axes: Axes, cell: Measured, *, place: float) -> None:
    low, high = cell.interval
    color = FLAG_COLORS[cell.flag]
    axes.plot([low, high], [place, place], color=color, linewidth=1.4)
    axes.plot(cell.rate, place, marker="o", markersize=5, color=color)


def draw_calibration(curves: Mapping[str, Mapping[str, Sequence[Point]]], path: Path) -> None:
    """One plot a curve, by the label of its strength; a line a flag."""
    figure, grid = plt.subplots(
        1, len(curves), figsize=(4.2 * len(curves), 3.8), layout="constrained", squeeze=False,
        sharey=True,
    )  # fmt: skip
    for axes, (label, lines) in zip(grid[0], curves.items(), strict=True):
        for flag, points in lines.items():
            _draw_line(axes, points, label=FLAGS[flag], color=FLAG_COLORS[flag])
        axes.set(xlabel=label, ylim=(-0.03, 1.03))
    drawn = {flag for lines in curves.values() for flag in lines}
    _draw_legend(figure, [flag for flag in FLAGS if flag in drawn])
    grid[0][0].set_ylabel("success rate, 95 % Wilson interval")
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def draw_lines(lines: Mapping[str, Sequence[Point]], path: Path, *, xlabel: str) -> None:
    """A line a key of `lines`."""
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for index, (label, points) in enumerate(lines.items()):
        _draw_line(axes, points, label=label, color=PALETTE[index % len(PALETTE)])
    places = sorted({point.x for points in lines.values() for point in points})
    axes.set(
        xlabel=xlabel,
        ylabel="success rate, 95 % Wilson interval",
        ylim=(-0.03, 1.03),
        xticks=places,
    )
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def _draw_line(axes: Axes, points: Sequence[Point], *, label: str, color: str) -> None:
    x, rates = [point.x for point in points], [point.rate for point in points]
    axes.plot(x, rates, marker="o", color=color, label=label)
    axes.fill_between(
        x, [point.low for point in points], [point.high for point in points],
        color=color, alpha=0.12, linewidth=0,
    )  # fmt: skip
    axes.grid(alpha=0.3)
