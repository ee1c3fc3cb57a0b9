"""The sections of the report on an experiment: markdown lines each, pictures beside the report."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from deploy.experiment import tables
from deploy.experiment.charts import draw_calibration, draw_headline, draw_lines
from deploy.experiment.curves import (
    Point,
    calibration,
    flagged_pairs,
    harmed_by_flags,
    long_horizons,
    memory_points,
    rises,
)
from deploy.experiment.filmstrip import chosen_films, draw_strip, words_of
from deploy.experiment.measured import Experiment
from deploy.experiment.plan import CLEAN, Role
from deploy.experiment.verdicts import negative_results, targets_table
from deploy.report import markdown_table

Section = Callable[[Experiment, Path], list[str]]  # of an experiment, for the report's folder


def introduction(experiment: Experiment) -> list[str]:
    """How to read the report, and how far the experiment has come."""
    plan = experiment.plan
    seconds = sum(cell.results["wall_time_s"] for cell in experiment.cells)
    lines = [
        f"Task {plan.task}. Every cell runs its policy on the seeds {plan.first_seed}, "
        f"{plan.first_seed + 1}, ...; the demonstrations have others. Cells of as many episodes "
        "are therefore paired, seed by seed; two of unlike sizes are compared on the seeds that "
        "both have. Intervals in brackets hold with 95 %: Wilson's for a success rate, Newcombe's "
        "for paired proportions for a difference of two, a bootstrap over seeds for a ratio "
        "(10 000 resamples, seeded), which knows no uncertainty where every episode succeeds.",
        "",
        "Unflagged: what arrives from a camera is believed. Flagged by the oracle: the policy is "
        "told the truth about each camera. Flagged automatically: it finds out by the rules of the "
        "policy server.",
        "",
        f"{len(experiment.cells)} evaluations, "
        f"{sum(cell.num for cell in experiment.cells)} episodes, {seconds / 3600:.1f} hours of one "
        f"core; {len(experiment.missing)} cells of the plan were not evaluated.",
        "",
        "## Targets",
        "",
        "Judged by the numbers themselves; their intervals say how sure that is.",
        "",
    ]
    return lines + targets_table(experiment)


def headline(experiment: Experiment, folder: Path) -> list[str]:
    """Policy by flag under the conditions that are to be endured, with the paper's numbers."""
    draw_headline(experiment, folder / "headline.png")
    return [
        "## Success, clean and perturbed",
        "",
        *tables.headline_table(experiment),
        "The paper's numbers are of a real robot, few trials and another scene; they are here to "
        "compare the pattern, not the percentages.",
        "",
        "![success of every policy](headline.png)",
        "",
    ]


def factorial(experiment: Experiment, _folder: Path) -> list[str]:
    """Everything that was measured of ours."""
    return [
        "## Every condition, ours",
        "",
        "Retention is success over clean success on the same seeds. Medians over episodes: time to "
        "success over the successful ones, from the first step to the one that finished the task; "
        "stalls are control steps in which neither hand nor gripper moved by more than 1 mm, until "
        "the task was finished, in all and in a row, and peak jerk is that of the hand, both from "
        "the simulator's true states. Moves are a mean.",
        "",
        *tables.factorial_table(experiment, experiment.ours),
    ]


def baselines(experiment: Experiment, _folder: Path) -> list[str]:
    """Everything that was measured of the baselines."""
    names = experiment.names(Role.baseline)
    if not experiment.of(*names):
        return []
    return [
        "## Every condition, baselines",
        "",
        *tables.factorial_table(experiment, *names),
    ]


def advantage(experiment: Experiment, _folder: Path) -> list[str]:
    """Ours minus the baselines that were trained with cameras dropped out."""
    return [
        "## Ours minus the baselines trained with camera drop-out, where flagged",
        "",
        "Whether the gain is more than that of the augmentation. A baseline counts with the camera "
        "that it does better with, flagged or not. Differences on the same seeds, with Newcombe's "
        "interval for paired proportions.",
        "",
        *_or_words(tables.advantage_table(experiment)),
    ]


def flags(experiment: Experiment, _folder: Path) -> list[str]:
    """Automatic flags beside the oracle's."""
    return [
        "## Automatic flags minus the oracle's, ours",
        "",
        *_or_words(tables.flag_table(experiment)),
    ]


def _or_words(table: list[str]) -> list[str]:
    """The table, or that there is nothing in it."""
    num_around = 3  # head, rule and the empty line
    return table if len(table) > num_around else ["Not measured.", ""]


def curves(experiment: Experiment, folder: Path) -> list[str]:
    """Success against strength, whether it falls, and where flagging harms."""
    lines = ["## Calibration: success against what is injected", ""]
    drawn = {
        curve.label: calibration(experiment, curve) for curve in experiment.plan.curves.values()
    }
    drawn = {label: found for label, found in drawn.items() if found}
    if drawn:
        draw_calibration(drawn, folder / "calibration.png")
        lines += ["![success against strength](calibration.png)", ""]
        lines += [
            f"- {label}, {tables.FLAGS[flag]}: {_monotonic(points)}"
            for label, found in drawn.items()
            for flag, points in found.items()
        ]
        lines.append("")
    harmed = [
        f"{tables.condition_words(cell.condition)} ({tables.PHASES[cell.phase]}, "
        f"{tables.FLAGS[cell.flag]}, {by.in_points()}, {by.num} pairs)"
        for cell, by in harmed_by_flags(experiment)
    ]
    words = "; ".join(harmed) if harmed else "none"
    num = len(flagged_pairs(experiment))
    return [
        *lines,
        f"Conditions in which flagged is worse than unflagged, of {num} compared: {words}.",
        "",
    ]


def _monotonic(points: Sequence[Point]) -> str:
    """Whether success never rises, and where it does."""
    values = ", ".join(f"{point.x:g}: {100 * point.rate:.0f} %" for point in points)
    found = rises(points)
    if not found:
        words = "falls monotonically"
    else:
        steps = (f"from {r.before:g} to {r.after:g} by {r.by.in_points()}" for r in found)
        words = f"does not fall monotonically, it rises {', '.join(steps)}"
    return f"{words} ({values}; n {min(point.num for point in points)})"


def mechanism(experiment: Experiment, folder: Path) -> list[str]:
    """Ours with a part of it taken away, with other memories, trained from other seeds, longer."""
    lines: list[str] = []
    for role, title in (
        (Role.mechanism, "What the mechanism is worth"),
        (Role.memory, "What the memory is worth"),
        (Role.training, "What seed and length of a training are worth"),
    ):
        if experiment.of(*experiment.names(role)):
            lines += [f"## {title}", "", *tables.variants_table(experiment, role)]
    points = memory_points(experiment)
    if points:
        named = {
            (
                "clean"
                if name == CLEAN
                else f"{tables.condition_words(name)}, {tables.FLAGS[flag]}"
            ): p
            for (name, flag), p in points.items()
        }
        draw_lines(named, folder / "memory.png", xlabel="memory in control steps")
        lines += ["![success against memory](memory.png)", ""]
    return lines


def long_horizon(experiment: Experiment, folder: Path) -> list[str]:
    """Success of the first, second, ... swap without a reset in between."""
    horizons = long_horizons(experiment)
    if not horizons:
        return []
    longest = max(map(len, horizons.values()))
    rows = [
        [
            experiment.label(policy), task, str(points[0].num),
            *(f"{100 * p.rate:.0f} % [{100 * p.low:.0f}, {100 * p.high:.0f}]" for p in points),
            *[tables.NOTHING] * (longest - len(points)),
        ]
        for (policy, task), points in horizons.items()
    ]  # fmt: skip
    head = ["policy", "task", "n", *(f"swap {i + 1}" for i in range(longest))]
    named = {f"{experiment.label(name)}, {task}": p for (name, task), p in horizons.items()}
    draw_lines(named, folder / "long_horizon.png", xlabel="swap, one after the other")
    return [
        "## Long horizon: swap after swap, without a reset",
        "",
        "Each swap is judged by itself, from wherever the one before ended; what was not begun by "
        "the end counts as wrong.",
        "",
        *markdown_table(head, rows),
        "![success per swap](long_horizon.png)",
        "",
    ]


def films(experiment: Experiment, folder: Path) -> list[str]:
    """A typical success and failure of every filmed cell."""
    lines: list[str] = []
    for filmed in chosen_films(experiment):
        name = f"{filmed.cell.policy}_{filmed.cell.folder.name}_{filmed.path.stem}"
        draw_strip(filmed.path, folder / f"{name}.jpg")
        shutil.copyfile(filmed.path, folder / f"{name}.mp4")
        words = words_of(filmed, experiment=experiment)
        lines += [f"### {words}", "", f"![{words}]({name}.jpg)", "", f"[film]({name}.mp4)", ""]
    if not lines:
        return []
    return [
        "## Typical successes and failures",
        "",
        "Eight moments from the first step to the last, read like text: the world, what the first "
        "camera gave, the noise level of every source, and that of the plan's next actions.",
        "",
        *lines,
    ]


def negative(experiment: Experiment, _folder: Path) -> list[str]:
    """Everything that speaks against ours."""
    sentences = negative_results(experiment) or ["None of the rules found any."]
    return [
        "## Negative results",
        "",
        "By rule, not by choice: targets not met, baselines that ours does not beat, flags that "
        "harm, success that rises with the corruption, parts of the method that are not missed.",
        "",
        *(f"- {sentence}" for sentence in sentences),
        "",
    ]


def provenance(experiment: Experiment, _folder: Path) -> list[str]:
    """How to get every number again."""
    return [
        "## Checkpoints",
        "",
        *tables.provenance_table(experiment),
        "## Commands and seeds",
        "",
        *tables.command_lines(experiment),
    ]


SECTIONS: tuple[Section, ...] = (
    headline, factorial, baselines, advantage, flags, curves, mechanism, long_horizon, films,
    negative, provenance,
)  # fmt: skip
