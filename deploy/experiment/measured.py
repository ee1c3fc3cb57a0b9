"""What was measured: the cells of a results folder, to be looked up by what they are of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from deploy.experiment.cells import Cell, expand
from deploy.experiment.plan import CLEAN, ExperimentPlan, PolicyPlan, Role, read_plan
from deploy.experiment.workers import PARTIAL, PREVIOUS
from deploy.report import read_results


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One cell with its results.

    Attributes:
        policy, task, condition, phase, flag: what it is of.
        folder: that holds it.
        results: what its results.json holds.
        cell: what its cell.json holds.
    """

    policy: str
    task: str
    condition: str
    phase: str
    flag: str
    folder: Path
    results: Mapping[str, Any]
    cell: Mapping[str, Any]

    @property
    def num(self) -> int:
        """Number of episodes."""
        return len(self.results["episodes"])

    @cached_property
    def successes(self) -> dict[int, bool]:
        """Whether each episode succeeded, by its seed."""
        return {row["seed"]: bool(row["success"]) for row in self.results["episodes"]}

    @property
    def rate(self) -> float:
        """Share of the episodes that succeeded."""
        return float(self.results["success_rate"])

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of `rate`."""
        low, high = self.results["success_interval"]
        return low, high

    @property
    def is_clean(self) -> bool:
        """Whether nothing went wrong."""
        return self.condition == CLEAN


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A plan and all that was measured of it, in the plan's order."""

    plan: ExperimentPlan
    cells: tuple[Measured, ...]
    missing: tuple[Cell, ...]

    def find(
        self,
        policy: str,
        condition: str = CLEAN,
        *,
        flag: str = "none",
        phase: str = "anytime",
        task: str = "",
    ) -> Measured | None:
        """That cell, None if it was not measured. In a healthy world an oracle says nothing."""
        if condition == CLEAN:
            phase, flag = "anytime", "none" if flag == "oracle" else flag
        wanted = (policy, task or self.plan.task, condition, phase, flag)
        return self._by_name.get(wanted)

    @cached_property
    def _by_name(self) -> dict[tuple[str, ...], Measured]:
        return {(m.policy, m.task, m.condition, m.phase, m.flag): m for m in self.cells}

    def of(self, *policies: str, perturbed: bool = False) -> list[Measured]:
        """Cells of these policies on the plan's task; only those of a perturbed world if asked."""
        return [
            m
            for m in self.cells
            if m.policy in policies and m.task == self.plan.task and not (perturbed and m.is_clean)
        ]

    def names(self, *roles: Role) -> list[str]:
        """Names of the policies of these roles."""
        return [name for name, policy in self.plan.policies.items() if policy.role in roles]

    def policy(self, name: str) -> PolicyPlan:
        """The plan of a policy."""
        return self.plan.policies[name]

    def label(self, name: str) -> str:
        """A policy's name in tables."""
        return self.plan.policies[name].label

    @property
    def ours(self) -> str:
        """Name of the policy that the others are compared with. ValueError if there is none."""
        names = self.names(Role.ours)
        if not names:
            raise ValueError("the plan has no policy of role ours to compare the others with")
        return names[0]


def read_experiment(folder: Path) -> Experiment:
    """What forcing-experiment wrote into `folder`.

    Raises:
        ValueError: it wrote nothing there, or a file is broken; says which.
    """
    if not (folder / "plan.yaml").is_file():
        raise ValueError(f"no plan.yaml in {folder}; forcing-experiment writes one")
    plan = read_plan(str(folder / "plan.yaml"))
    there = [_read_cell(path.parent) for path in sorted(folder.glob("*/*/cell.json"))]
    planned = expand(plan)
    rank = {(c.policy, c.task, c.condition, c.phase, c.flag): i for i, c in enumerate(planned)}
    found = {(m.policy, m.task, m.condition, m.phase, m.flag): m for m in there if m is not None}
    cells = [found[name] for name in sorted(set(rank) & set(found), key=rank.__getitem__)]
    if not cells:
        raise ValueError(f"no cell of the plan was evaluated in {folder} yet")
    missing = [cell for name, cell in zip(rank, planned, strict=True) if name not in found]
    return Experiment(plan=plan, cells=tuple(cells), missing=tuple(missing))


def _read_cell(folder: Path) -> Measured | None:
    """None if a worker is still at it."""
    if PARTIAL in folder.name or folder.name.endswith(PREVIOUS):
        return None
    try:
        cell = json.loads((folder / "cell.json").read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / 'cell.json'} is not JSON: {error}") from error
    names = ("policy", "task", "condition", "phase", "flag")
    return Measured(
        **{name: cell[name] for name in names},
        folder=folder,
        results=read_results(folder / "results.json"),
        cell=cell,
    )


def paired(one: Measured, other: Measured) -> tuple[np.ndarray, np.ndarray]:
    """Successes (n,) bool of both, seed by seed, of the seeds that both have."""
    return pooled([(one, other)])


def pooled(pairs: Iterable[tuple[Measured, Measured]]) -> tuple[np.ndarray, np.ndarray]:
    """Successes (n,) bool of the first and second of all pairs, each by their common seeds."""
    rows = [
        (one.successes[seed], other.successes[seed])
        for one, other in pairs
        for seed in one.successes
        if seed in other.successes
    ]
    both = np.array(rows, bool).reshape(-1, 2)
    return both[:, 0], both[:, 1]
