"""Cells: a plan as evaluations, each of one policy under one condition with one flag.

A cell's `cell.json` says what its results are of; its key tells whether they still are:

key            of all that the numbers depend on: weights, planning, condition, flag and seeds
policy, task, condition, phase, flag
group          of the plan
num_videos     films that were asked for
weights        SHA-256 of the checkpoint's files
provenance     of the checkpoint: how it was trained
commit         of the code, null if it is in no repository
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any

from deploy.evaluate import EvaluateConfig, Flagging
from deploy.experiment.plan import CellGroup, ExperimentPlan, Phase, condition, policies_of
from sim.perturbations.conditions import PerturbationConfig, read_condition

PLAIN = re.compile(r"[A-Za-z/][\w\-/.+]*")  # what Hydra takes for a string as it stands
UNFLAGGED = "unflagged"  # the flag none, where the condition none has that name
NEEDED = ("config.json", "schema.json", "statistics.json", "model.safetensors")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One evaluation.

    Attributes:
        group: of the plan.
        policy, task, condition: names.
        phase, flag: values of `Phase` and `Flagging`.
        num_episodes: of the seeds first_seed, first_seed + 1, ...
        num_videos: episodes filmed, as `EvaluateConfig` has it.
        folder: below the results folder.
        seconds: rough time that it takes.
    """

    group: str
    policy: str
    task: str
    condition: str
    phase: str
    flag: str
    num_episodes: int
    num_videos: int
    folder: str
    seconds: float


def expand(plan: ExperimentPlan) -> list[Cell]:
    """All cells, each once, in the order of the groups that ask for them first.

    One that several groups ask for has the most episodes and films of any. In a healthy world
    phases do not matter, and an oracle has nothing to say: those cells are the unflagged one.
    Automatic flags are a cell of their own there, since they may be false alarms.
    """
    cells: dict[str, Cell] = {}
    for group in plan.groups:
        for cell in _cells_of(plan, group):
            there = cells.get(cell.folder)
            if there is not None:
                cell = replace(
                    there,
                    num_episodes=max(there.num_episodes, cell.num_episodes),
                    num_videos=max(there.num_videos, cell.num_videos),
                    seconds=max(there.seconds, cell.seconds),
                )
            cells[cell.folder] = cell
    return list(cells.values())


def _cells_of(plan: ExperimentPlan, group: CellGroup) -> list[Cell]:
    task = group.task or plan.task
    per_episode = group.seconds_per_episode or plan.seconds_per_episode
    cells = []
    for name in group.conditions:
        is_clean = condition(plan, name).kind == "none"
        for policy in policies_of(plan, group):
            for phase in [Phase.anytime] if is_clean else group.phases:
                for flag in group.flags:
                    if is_clean and flag is Flagging.oracle:
                        flag = Flagging.none
                    row = f"{name}-{phase.value}-{flag.value}"
                    cells.append(
                        Cell(
                            group=group.name,
                            policy=policy,
                            task=task,
                            condition=name,
                            phase=phase.value,
                            flag=flag.value,
                            num_episodes=group.num_episodes,
                            num_videos=group.num_videos,
                            folder=f"{policy}/{row}"
                            if task == plan.task
                            else f"{policy}/{task}-{row}",
                            seconds=per_episode * group.num_episodes,
                        )
                    )
    return cells


def chosen(cells: Sequence[Cell], *, only: Sequence[str]) -> list[Cell]:
    """The cells of the policies, conditions, flags, phases and groups named in `only`.

    Names of one kind add up, kinds restrict each other: [ours, act, black_2s] are those two
    policies under that one condition. "none" is the condition; the flag none is "unflagged".

    Raises:
        ValueError: a name is of no kind; lists those there are.
    """
    kept = list(cells)
    known: set[str] = set()
    for kind in ("policy", "condition", "flag", "phase", "group", "task"):
        values = {_name(cell, kind) for cell in cells} - known  # the first kind has the name
        wanted = values & set(only)
        known |= values
        if wanted:
            kept = [cell for cell in kept if _name(cell, kind) in wanted]
    if unknown := [name for name in only if name not in known]:
        raise ValueError(f"only: nothing is called {unknown}; have: {', '.join(sorted(known))}")
    return kept


def _name(cell: Cell, kind: str) -> str:
    """What `only` calls it."""
    name = getattr(cell, kind)
    return UNFLAGGED if (kind, name) == ("flag", "none") else name


def evaluation_of(
    cell: Cell, *, plan: ExperimentPlan, checkpoint: Path, output_dir: Path
) -> EvaluateConfig:
    """The call of forcing-evaluate that gives the cell."""
    policy = plan.policies[cell.policy]
    return EvaluateConfig(
        checkpoint=str(checkpoint),
        inference=policy.inference,
        planning=policy.planning,
        task=cell.task,
        num_episodes=cell.num_episodes,
        first_seed=plan.first_seed,
        perturbation=replace(condition(plan, cell.condition), phase=cell.phase),
        flag=Flagging(cell.flag),
        mark=policy.mark,
        batch_size=min(plan.batch_size, cell.num_episodes),
        num_videos=cell.num_videos,
        num_threads=1,
        output_dir=str(output_dir),
    )


def key_of(evaluation: EvaluateConfig, *, weights: str) -> str:
    """Equal if and only if the numbers must be equal."""
    content = asdict(evaluation) | {"weights": weights}
    for name in ("checkpoint", "output_dir", "batch_size", "num_videos", "num_threads"):
        del content[name]
    text = json.dumps(content, sort_keys=True, default=lambda value: value.value)
    return hashlib.sha256(text.encode()).hexdigest()


def weights_of(checkpoint: Path) -> str:
    """SHA-256 of what a checkpoint computes. ValueError if it is not whole."""
    for name in NEEDED:
        if not (checkpoint / name).is_file():
            raise ValueError(f"it lacks {name}")
    digest = hashlib.sha256()
    for path in sorted(checkpoint.iterdir()):
        if path.name != "provenance.json" and path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def is_done(folder: Path, *, key: str, num_videos: int) -> bool:
    """Whether `folder` holds the results that `key` stands for, and as many films."""
    try:
        there = json.loads((folder / "cell.json").read_text())
    except FileNotFoundError:
        return False
    return there["key"] == key and there["num_videos"] >= num_videos


def command_of(evaluation: EvaluateConfig, *, base: str) -> str:
    """The command line that gives the same; `base` is a condition of sim/configs/perturbation."""
    parts = ["forcing-evaluate", f"checkpoint={_word(evaluation.checkpoint)}"]
    parts += [f"++planning.{path}={value}" for path, value in _leaves(evaluation.planning)]
    parts.append(f"perturbation={base}")
    parts += _changes(evaluation.perturbation, since=read_condition(base))
    for name in (
        *("inference", "task", "flag", "mark", "num_episodes", "first_seed"),
        *("batch_size", "num_videos", "num_threads", "output_dir"),
    ):
        parts.append(f"{name}={_word(getattr(evaluation, name))}")
    return shlex.join(parts)


def _changes(present: PerturbationConfig, *, since: PerturbationConfig) -> list[str]:
    arguments = []
    for field in fields(present):
        value = getattr(present, field.name)
        if field.name == "options":
            changed = [(k, v) for k, v in value.items() if since.options.get(k) != v]
            arguments += [f"++perturbation.options.{k}={_word(v)}" for k, v in changed]
        elif value != getattr(since, field.name):
            arguments.append(f"perturbation.{field.name}={_word(value)}")
    return arguments


def _leaves(node: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Dotted path and word of everything in nested mappings."""
    leaves = []
    for key, value in node.items():
        if isinstance(value, Mapping):
            leaves += _leaves(value, f"{prefix}{key}.")
        else:
            leaves.append((f"{prefix}{key}", _word(value)))
    return leaves


def _word(value: Any) -> str:
    """`value` as Hydra's command line has it."""
    if isinstance(value, Enum):
        return str(value.value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_word, value)) + "]"
    if isinstance(value, str) and not PLAIN.fullmatch(value):
        return "'" + value.replace("'", r"\'") + "'"
    return str(value)
