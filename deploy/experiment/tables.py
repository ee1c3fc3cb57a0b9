"""Tables of the report: lines of Markdown, of whatever was measured."""

from __future__ import annotations

from pathlib import Path

from deploy.experiment.comparison import difference, ratio
from deploy.experiment.measured import Experiment, Measured, paired
from deploy.experiment.plan import CLEAN, Role
from deploy.report import markdown_table

NOTHING = "—"
FLAGS = {"none": "unflagged", "oracle": "flagged by the oracle", "auto": "flagged automatically"}
PHASES = {"anytime": "any time", "before_contact": "before", "during_contact": "during contact"}
# Chen et al., Diffusion Forcing, NeurIPS 2024, section 4.4: a real robot, success of its swap
PAPER = (
    ("Paper: Diffusion Forcing", "flagged", "80 %", "76 % occluded or distracted"),
    ("Paper: next-frame diffusion", "unflagged", NOTHING, "48 % occluded or distracted"),
    ("Paper: Diffusion Policy, no memory", "unflagged", "fails", NOTHING),
)


def percent(measured: Measured | None) -> str:
    """Success with its Wilson interval and the number of episodes."""
    if measured is None:
        return NOTHING
    low, high = (100 * x for x in measured.interval)
    return f"{100 * measured.rate:.0f} % [{low:.0f}, {high:.0f}], n {measured.num}"


def condition_words(name: str) -> str:
    """A condition as tables have it."""
    return "clean" if name == CLEAN else name.replace("_", " ")


def headline_table(experiment: Experiment) -> list[str]:
    """Policy by flag, under no perturbation and under those that are to be endured."""
    conditions = [CLEAN, *experiment.plan.targets.retained]
    rows = []
    for policy in experiment.names(Role.ours, Role.baseline):
        for flag, words in FLAGS.items():
            cells = [experiment.find(policy, name, flag=flag) for name in conditions]
            told = [cell for cell in cells if cell is not None and cell.flag == flag]
            if told:
                rows.append([experiment.label(policy), words, *map(percent, cells)])
    width = len(conditions) - 2
    rows += [[*row[:3], row[3], *[NOTHING] * width] for row in PAPER if width >= 0]
    return markdown_table(["policy", "camera", *map(condition_words, conditions)], rows)


FACTORIAL_HEAD = (
    "policy",
    "condition",
    "begins",
    "camera",
    "n",
    "success",
    "95 % interval",
    "retention",
    "moves",
    "time to success",
    "stalls",
    "longest",
    "peak jerk",
)


def factorial_table(experiment: Experiment, *policies: str) -> list[str]:
    """Everything that was measured of these policies, a line a cell."""
    cells = experiment.of(*policies)
    return markdown_table(FACTORIAL_HEAD, [_factorial_row(experiment, cell) for cell in cells])


def _factorial_row(experiment: Experiment, cell: Measured) -> list[str]:
    low, high = (100 * x for x in cell.interval)
    return [
        experiment.label(cell.policy),
        condition_words(cell.condition),
        NOTHING if cell.is_clean else PHASES[cell.phase],
        FLAGS[cell.flag],
        str(cell.num),
        f"{100 * cell.rate:.0f} %",
        f"{low:.0f} to {high:.0f} %",
        retention_words(experiment, cell),
        _number(cell, "mean_num_moves", "{:.1f}"),
        _number(cell, "median_done_time_s", "{:.1f} s"),
        _number(cell, "median_stall_steps", "{:.0f}"),
        _number(cell, "median_longest_stall_steps", "{:.0f}"),
        _number(cell, "median_peak_jerk", "{:.0f} m/s³"),
    ]


def retention_words(experiment: Experiment, cell: Measured) -> str:
    """Success of a perturbed cell over that of the clean one, on the same seeds."""
    clean = experiment.find(cell.policy)
    if cell.is_clean or clean is None:
        return NOTHING
    estimate = ratio(*paired(cell, clean))
    return "clean never succeeds" if estimate is None else estimate.as_ratio()


def _number(cell: Measured, key: str, words: str) -> str:
    value = cell.results.get(key)
    return NOTHING if value is None else words.format(value)


def advantage_table(experiment: Experiment) -> list[str]:
    """Ours, flagged, minus each baseline trained with cameras dropped out, as it does best."""
    rows = []
    names = [
        name for name in experiment.names(Role.baseline) if experiment.policy(name).is_augmented
    ]
    for cell in experiment.of(experiment.ours, perturbed=True):
        if cell.flag == "none":
            continue
        for name in names:
            flags = dict.fromkeys((cell.flag, "oracle", "none"))
            found = (experiment.find(name, cell.condition, flag=f, phase=cell.phase) for f in flags)
            others = [other for other in found if other is not None]
            if not others:
                continue
            other = max(others, key=lambda measured: measured.rate)
            rows.append([
                condition_words(cell.condition), PHASES[cell.phase], FLAGS[cell.flag],
                experiment.label(name), FLAGS[other.flag], percent(cell), percent(other),
                *_difference_words(cell, other),
            ])  # fmt: skip
    head = ["condition", "begins", "ours", "baseline", "its camera", "success of ours"]
    return markdown_table([*head, "of the baseline", "ours minus baseline", "pairs"], rows)


def flag_table(experiment: Experiment) -> list[str]:
    """Automatic flags minus the oracle's, ours."""
    rows = []
    for cell in experiment.of(experiment.ours):
        told = experiment.find(cell.policy, cell.condition, flag="oracle", phase=cell.phase)
        if cell.flag != "auto" or told is None:
            continue
        rows.append([
            condition_words(cell.condition), NOTHING if cell.is_clean else PHASES[cell.phase],
            percent(cell), percent(told), *_difference_words(cell, told),
        ])  # fmt: skip
    return markdown_table(
        ["condition", "begins", "automatic", "oracle", "automatic minus oracle", "pairs"], rows
    )


def _difference_words(one: Measured, other: Measured) -> tuple[str, str]:
    estimate = difference(*paired(one, other))
    return estimate.in_points(), str(estimate.num)


def variants_table(experiment: Experiment, role: Role) -> list[str]:
    """The policies of a role beside ours, under the conditions that they were put through."""
    names = experiment.names(role)
    cells = experiment.of(*names)
    columns = dict.fromkeys((c.condition, c.phase, c.flag) for c in cells)
    columns = sorted(columns, key=lambda column: column[0] != CLEAN)  # clean comes first
    head = [
        "policy",
        *(
            "clean" if c == CLEAN else f"{condition_words(c)}, {FLAGS[flag]}"
            for c, _, flag in columns
        ),
    ]
    rows = []
    for name in [experiment.ours, *names]:
        row = [experiment.label(name)]
        for condition, phase, flag in columns:
            cell = experiment.find(name, condition, flag=flag, phase=phase)
            ours = experiment.find(experiment.ours, condition, flag=flag, phase=phase)
            words = percent(cell)
            if cell is not None and ours is not None and name != experiment.ours:
                words += f"; {_difference_words(cell, ours)[0]} against ours"
            row.append(words)
        if any(words != NOTHING for words in row[1:]):
            rows.append(row)
    return markdown_table(head, rows)


def provenance_table(experiment: Experiment) -> list[str]:
    """A line a checkpoint: how it was trained."""
    rows: dict[str, list[str]] = {}
    for cell in experiment.cells:
        told = cell.cell.get("provenance", {})
        name = Path(cell.results["checkpoint"])
        rows.setdefault(
            cell.cell["weights"],
            [
                name.parent.name if name.name == "checkpoint" else name.name,
                cell.cell["weights"][:12],
                str(told.get("step", NOTHING)),
                str(told.get("training_episodes", NOTHING)),
                str(told.get("command", NOTHING)),
            ],
        )
    head = ["checkpoint", "SHA-256", "steps", "demonstrations", "training command"]
    return markdown_table(head, list(rows.values()))


def command_lines(experiment: Experiment) -> list[str]:
    """A code block with the command of every cell."""
    lines = ["```"]
    for cell in experiment.cells:
        seeds = cell.results["seeds"]
        commit = cell.cell.get("commit") or "unknown"
        lines.append(
            f"# {cell.policy}/{cell.folder.name}: {cell.num} episodes, seeds {seeds[0]} to "
            f"{seeds[-1]}, version {cell.results['version']}, commit {commit[:12]}"
        )
        lines.append(str(cell.results["command"]))
    return [*lines, "```", ""]
