"""Entry point `forcing-experiment`: evaluates a plan's cells, as far as they are not there yet.

    forcing-experiment plan=swap checkpoints=<folder with a folder per policy> output_dir=<folder>

    dry_run=true             lists the cells, which are there, and how long the others may take
    only=[ours,black_2s]     names of policies, conditions, flags, phases, groups, tasks
    num_processes=2          cells evaluated side by side, each on one thread
    +changes.sizes.quoted=20 any part of the plan

It can be killed and called again: cells appear whole, and one is evaluated again only if its
weights, its condition or its seeds have changed. A cell that fails does not stop the others.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from deploy.children import exit_on_signal
from deploy.experiment.cells import (
    Cell,
    chosen,
    command_of,
    evaluation_of,
    expand,
    is_done,
    key_of,
    weights_of,
)
from deploy.experiment.plan import ExperimentPlan, read_plan, to_yaml
from deploy.experiment.workers import Job, Outcome, Workers, remove_partial
from teleop_data.sole_use import SoleUse


@dataclass
class ExperimentConfig:
    """What `forcing-experiment` is told.

    Attributes:
        plan: name in deploy/configs/experiment, or a YAML file.
        changes: parts of the plan to be replaced.
        checkpoints: folder that holds the checkpoints; one is <name> or <name>/checkpoint.
        output_dir: folder for the results.
        num_processes: cells evaluated side by side.
        only: names of what is to be evaluated, see `deploy.experiment.cells.chosen`; [] = all.
        dry_run: list the cells and evaluate none.
    """

    plan: str = "swap"
    changes: dict[str, Any] = field(default_factory=dict)
    checkpoints: str = MISSING
    output_dir: str = MISSING
    num_processes: int = 2
    only: list[str] = field(default_factory=list)
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class Task:
    """A cell with what is known about it: its job, and whether it is there; or why it cannot be."""

    cell: Cell
    job: Job | None = None
    is_done: bool = False
    error: str = ""


ConfigStore.instance().store(name="run_plan_schema", node=ExperimentConfig)


@hydra.main(version_base=None, config_path="../configs", config_name="run_plan")
def main(config: ExperimentConfig) -> None:
    """Evaluate as the config says; exits with a message if a cell failed."""
    plain = cast(ExperimentConfig, OmegaConf.to_object(config))  # type: ignore[arg-type]
    try:
        with exit_on_signal():
            failures = run(plain)
    except ValueError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("forcing-experiment: stopped; the same command goes on where it was")
    if failures:
        sys.exit("\n".join([f"{len(failures)} cells failed:", *reasons(failures)]))


def run(config: ExperimentConfig) -> Mapping[str, str]:
    """Evaluate what is missing; returns the errors of the cells that failed, by folder.

    Raises:
        ValueError: the plan is none, or another call works on the same results.
    """
    plan = read_plan(config.plan, changes=config.changes)
    output_dir = Path(config.output_dir)
    cells = chosen(expand(plan), only=config.only)
    tasks = tasks_of(cells, plan=plan, checkpoints=Path(config.checkpoints), results=output_dir)
    if config.dry_run:
        print("\n".join(listing(tasks, results=output_dir, num_processes=config.num_processes)))
        return {}
    failures = {task.cell.folder: task.error for task in tasks if task.error}
    output_dir.mkdir(parents=True, exist_ok=True)
    with SoleUse(output_dir):
        remove_partial(output_dir)
        (output_dir / "plan.yaml").write_text(to_yaml(plan))
        jobs = [task.job for task in tasks if task.job is not None and not task.is_done]
        print(f"{len(cells)} cells, {sum(task.is_done for task in tasks)} are there", flush=True)
        os.environ["OMP_NUM_THREADS"] = "1"  # for the workers: one core each
        began_s = time.monotonic()
        with Workers(config.num_processes) as workers:
            for number, outcome in enumerate(workers.run(jobs), start=1):
                if outcome.error:
                    failures[outcome.name] = outcome.error
                left_s = (time.monotonic() - began_s) * (len(jobs) / number - 1)
                print(
                    f"[{number}/{len(jobs)}] {sentence(outcome)}, {_hours(left_s)} left", flush=True
                )
    return failures


def tasks_of(
    cells: Sequence[Cell], *, plan: ExperimentPlan, checkpoints: Path, results: Path
) -> list[Task]:
    """Each cell with its job, or with the reason why it has none."""
    described: dict[str, tuple[str, Any]] = {}
    tasks, commit = [], git_commit()
    for cell in cells:
        checkpoint = checkpoint_at(checkpoints / plan.policies[cell.policy].checkpoint)
        evaluation = evaluation_of(
            cell, plan=plan, checkpoint=checkpoint, output_dir=results / cell.folder
        )
        try:
            if str(checkpoint) not in described:
                weights = weights_of(checkpoint)
                provenance = json.loads((checkpoint / "provenance.json").read_text())
                described[str(checkpoint)] = weights, provenance
        except ValueError as error:
            tasks.append(Task(cell=cell, error=f"no whole checkpoint at {checkpoint}: {error}"))
            continue
        weights, provenance = described[str(checkpoint)]
        key = key_of(evaluation, weights=weights)
        base = plan.conditions.get(cell.condition, {}).get("base", cell.condition)
        job = Job(
            name=cell.folder,
            evaluation=evaluation,
            command=command_of(evaluation, base=base),
            cell={
                "key": key,
                "policy": cell.policy,
                "task": cell.task,
                "condition": cell.condition,
                "phase": cell.phase,
                "flag": cell.flag,
                "group": cell.group,
                "num_videos": cell.num_videos,
                "weights": weights,
                "provenance": provenance,
                "commit": commit,
            },
        )
        done = is_done(results / cell.folder, key=key, num_videos=cell.num_videos)
        tasks.append(Task(cell=cell, job=job, is_done=done))
    return tasks


def checkpoint_at(folder: Path) -> Path:
    """`folder`, or the checkpoint in it if that is what forcing-train was given."""
    inner = folder / "checkpoint"
    return inner if inner.is_dir() else folder


def listing(tasks: Sequence[Task], *, results: Path, num_processes: int) -> list[str]:
    """A line a cell, then the sum; times are of cells that were timed where there are any."""
    timed = _seconds_per_episode(tasks, results=results)
    lines, total_s = [], 0.0
    for task in tasks:
        cell = task.cell
        per_episode = timed.get((cell.policy, cell.task), cell.seconds / cell.num_episodes)
        seconds = per_episode * cell.num_episodes
        state = "there" if task.is_done else f"{seconds / 60:.1f} min"
        state += f" ({task.error})" * bool(task.error)
        total_s += seconds * (not task.is_done)
        lines.append(f"{cell.folder}: {cell.num_episodes} episodes, group {cell.group}: {state}")
    num = sum(not task.is_done for task in tasks)
    lines.append(
        f"{len(tasks)} cells, {num} to be evaluated: {_hours(total_s)} of one core, "
        f"{_hours(total_s / num_processes)} with num_processes={num_processes}"
    )
    return lines


def _seconds_per_episode(tasks: Sequence[Task], *, results: Path) -> dict[tuple[str, str], float]:
    """Measured ones, by policy and task."""
    times: dict[tuple[str, str], list[float]] = {}
    for task in tasks:
        if task.is_done:
            row = json.loads((results / task.cell.folder / "results.json").read_text())
            seconds = row["wall_time_s"] / row["num_episodes"]
            times.setdefault((task.cell.policy, task.cell.task), []).append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def reasons(failures: Mapping[str, str]) -> list[str]:
    """A line for every error, with the cells that it kept from being evaluated."""
    cells: dict[str, list[str]] = {}
    for name, error in failures.items():
        cells.setdefault(error, []).append(name)
    return [f"  {error}: {', '.join(names)}" for error, names in cells.items()]


def sentence(outcome: Outcome) -> str:
    """What became of a cell."""
    if outcome.error:
        return f"{outcome.name} FAILED: {outcome.error}"
    low, high = outcome.success_interval
    return (
        f"{outcome.name}: success {outcome.success_rate:.2f} [{low:.2f}, {high:.2f}] "
        f"in {outcome.seconds:.0f} s"
    )


def git_commit() -> str | None:
    """Commit of this code, "+" if files were changed since; None if it is in no repository."""
    folder = Path(__file__).parent
    try:
        words = [
            subprocess.run(
                ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
            ).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno"))
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return words[0] + ("+" if words[1] else "")


def _hours(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    main()
