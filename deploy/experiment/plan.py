"""Plans of experiments: the policies to compare and what each is to go through.

A plan is a YAML of deploy/configs/experiment; unknown keys and wrong types are refused.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, cast

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deploy.evaluate import Flagging, Inference, Marking
from sim.perturbations.conditions import PerturbationConfig, condition_names, read_condition

CLEAN = "none"  # name of the condition that perturbs nothing


class Role(Enum):
    """What a policy is compared for."""

    ours = "ours"
    baseline = "baseline"
    mechanism = "mechanism"  # ours with a part of the method taken away or replaced
    memory = "memory"  # ours with another memory length
    repeats = "repeats"  # ours trained on repeats of the task, for the long horizon
    training = "training"  # trained from another seed, or longer


class Phase(Enum):
    """When a perturbation begins, see `sim.perturbations.window`."""

    anytime = "anytime"
    before_contact = "before_contact"
    during_contact = "during_contact"


@dataclass
class PolicyPlan:
    """One policy.

    Attributes:
        label: name in tables and plots.
        checkpoint: name of its folder; several policies may be of one checkpoint.
        role: what it is compared for.
        inference, planning, mark: as forcing-evaluate has them.
        is_augmented: whether it was trained with cameras dropped out at random.
        memory_steps: control steps that it remembers, where that is what is compared.
    """

    label: str = MISSING
    checkpoint: str = MISSING
    role: Role = Role.baseline
    inference: Inference = Inference.chunk
    planning: dict[str, Any] = field(default_factory=dict)
    mark: Marking = Marking.noise
    is_augmented: bool = False
    memory_steps: int | None = None


@dataclass
class CellGroup:
    """Cells: every policy under every condition, with every flag, in every phase.

    Attributes:
        name: of the group.
        policies: names of policies, or of roles, which stand for all policies of that role.
        conditions: names of sim/configs/perturbation, or of the plan's own conditions.
        flags, phases: all combinations are run.
        num_episodes: in each cell.
        num_videos: films of each cell, of successes and failures.
        task: "" is the plan's.
        seconds_per_episode: None is the plan's.
    """

    name: str = MISSING
    policies: list[str] = MISSING
    conditions: list[str] = field(default_factory=lambda: [CLEAN])
    flags: list[Flagging] = field(default_factory=lambda: [Flagging.none])
    phases: list[Phase] = field(default_factory=lambda: [Phase.anytime])
    num_episodes: int = MISSING
    num_videos: int = 0
    task: str = ""
    seconds_per_episode: float | None = None


@dataclass
class Curve:
    """Success against the strength of what is injected.

    Attributes:
        label: what the strength is, for the axis.
        strengths: the condition of each strength, by the strength as text ("0.1").
    """

    label: str = MISSING
    strengths: dict[str, str] = field(default_factory=dict)


@dataclass
class Targets:
    """What is aimed at; each is reported as met or not met.

    Attributes:
        clean_success: least success of ours where nothing goes wrong.
        short_history: policy without memory, "" for none, and
        short_history_success: its greatest success.
        retention: least success under the flagged conditions, relative to clean.
        retained: the conditions that this is asked for.
        flag_gap: greatest difference between automatic flags and the oracle's.
        long_horizon_drop: greatest fall of success per swap, from the first to the last.
    """

    clean_success: float = 0.80
    short_history: str = ""
    short_history_success: float = 0.20
    retention: float = 0.95
    retained: list[str] = field(default_factory=list)
    flag_gap: float = 0.05
    long_horizon_drop: float = 0.05


@dataclass
class ExperimentPlan:
    """A whole plan.

    Attributes:
        title: headline of the report.
        sizes: numbers of episodes by name, for groups to refer to as ${sizes.<name>}.
        task: name in sim/configs/task.
        first_seed: of the episodes of every cell, so that cells are paired.
        batch_size: episodes carried together.
        seconds_per_episode: rough CPU time, for estimates only, until cells were timed.
        targets: what is aimed at.
        policies: by name.
        conditions: the plan's own, by name: fields of `PerturbationConfig` to be changed, and
            `base`, the name of the condition in which they are changed.
        curves: by name.
        groups: in order of priority.
    """

    title: str = MISSING
    sizes: dict[str, int] = field(default_factory=dict)
    task: str = MISSING
    first_seed: int = 100_000
    batch_size: int = 20
    seconds_per_episode: float = 1.2
    targets: Targets = field(default_factory=Targets)
    policies: dict[str, PolicyPlan] = field(default_factory=dict)
    conditions: dict[str, dict[str, Any]] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    groups: list[CellGroup] = field(default_factory=list)


def plan_names() -> list[str]:
    """Names of the plans that come with the package."""
    folder = importlib.resources.files("deploy.configs") / "experiment"
    files = sorted(path.name for path in folder.iterdir())
    return [name.removesuffix(".yaml") for name in files if name.endswith(".yaml")]


def read_plan(name: str, *, changes: Mapping[str, Any] | None = None) -> ExperimentPlan:
    """The plan `name`, or the one in the file `name` if that ends in .yaml.

    Args:
        name: see above.
        changes: parts of the plan to be replaced, nested as the plan is.

    Raises:
        ValueError: there is no such plan, or it holds what it must not; says what.
    """
    if name.endswith(".yaml"):
        if not Path(name).is_file():
            raise ValueError(f"no plan at {name}")
        text = Path(name).read_text()
    elif name in plan_names():
        file = importlib.resources.files("deploy.configs") / "experiment" / f"{name}.yaml"
        text = file.read_text()
    else:
        raise ValueError(f"no plan {name!r}; have: {', '.join(plan_names())}, or give a .yaml file")
    try:
        node = OmegaConf.merge(ExperimentPlan, OmegaConf.create(text), dict(changes or {}))
        plan = cast(ExperimentPlan, OmegaConf.to_object(node))
    except OmegaConfBaseException as error:
        raise ValueError(f"plan {name!r}: {error}") from error
    check_plan(plan)
    return plan


def to_yaml(plan: ExperimentPlan) -> str:
    """The plan as a YAML that `read_plan` reads."""
    return OmegaConf.to_yaml(OmegaConf.structured(plan))


def check_plan(plan: ExperimentPlan) -> None:
    """ValueError if a group, curve or target names what there is not."""
    roles = {role.value for role in Role}
    for group in plan.groups:
        _check_known("policy", group.policies, {*plan.policies, *roles}, where=group.name)
        if group.num_episodes < 1:
            raise ValueError(f"group {group.name!r}: num_episodes is {group.num_episodes}, want 1")
    short = plan.targets.short_history
    _check_known("policy", [short] if short else [], set(plan.policies), where="targets")
    for name in plan.conditions:
        condition(plan, name)
    curves = [(f"curve {name}", list(c.strengths.values())) for name, c in plan.curves.items()]
    named = [(group.name, group.conditions) for group in plan.groups]
    for where, names in (*named, *curves, ("targets", plan.targets.retained)):
        _check_known("condition", names, {*condition_names(), *plan.conditions}, where=where)


def policies_of(plan: ExperimentPlan, group: CellGroup) -> list[str]:
    """Names of a group's policies, in its order; roles are replaced by their policies."""
    names: list[str] = []
    for entry in group.policies:
        if entry in plan.policies:
            names.append(entry)
        else:
            names += [name for name, policy in plan.policies.items() if policy.role.value == entry]
    return list(dict.fromkeys(names))


def condition(plan: ExperimentPlan, name: str) -> PerturbationConfig:
    """The condition `name`: the plan's own, or the one of sim/configs/perturbation.

    Raises:
        ValueError: there is none, or the plan changes what a condition does not have.
    """
    if name not in plan.conditions:
        return read_condition(name)
    changes = dict(plan.conditions[name])
    base = read_condition(str(changes.pop("base", CLEAN)))
    try:
        node = OmegaConf.merge(OmegaConf.structured(base), changes, {"name": name})
    except OmegaConfBaseException as error:
        raise ValueError(f"condition {name!r}: {error}") from error
    return cast(PerturbationConfig, OmegaConf.to_object(node))


def _check_known(what: str, names: list[str], known: set[str], *, where: str) -> None:
    if unknown := [name for name in names if name not in known]:
        raise ValueError(
            f"{where}: no {what} {', '.join(map(repr, unknown))}; have: {', '.join(sorted(known))}"
        )
