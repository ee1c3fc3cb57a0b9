"""The tasks there are: what sim/configs/task says of each."""

from __future__ import annotations

import importlib.resources
from typing import cast

from omegaconf import DictConfig, OmegaConf

ARM_ENVIRONMENT = "sim.arm.environment.ArmEnvironment"


def task_names() -> list[str]:
    """Names of all tasks."""
    folder = importlib.resources.files("sim.configs") / "task"
    files = sorted(path.name for path in folder.iterdir())
    return [name.removesuffix(".yaml") for name in files if name.endswith(".yaml")]


def arm_task_names(*, variants: bool = True) -> list[str]:
    """Names of the tasks of the arm; without `variants`, which are tasks with arguments."""
    nodes = {name: describe_task(name).environment for name in task_names()}
    of_the_arm = {n: e.task for n, e in nodes.items() if e._target_ == ARM_ENVIRONMENT}
    return [name for name, task in of_the_arm.items() if variants or set(task) == {"_target_"}]


def describe_task(name: str) -> DictConfig:
    """The node of the task `name`: name, environment, expert.

    Raises:
        ValueError: there is no such task; the message lists those there are.
    """
    if name not in task_names():
        raise ValueError(f"no task {name!r}; have: {', '.join(task_names())}")
    file = importlib.resources.files("sim.configs") / "task" / f"{name}.yaml"
    return cast(DictConfig, OmegaConf.create(file.read_text()))
