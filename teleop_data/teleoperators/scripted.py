"""A scripted expert as the teleoperator: any class that drives an environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate

from teleop_data.environment import Environment
from teleop_data.teleoperator import Teleoperator


def scripted(environment: Environment, *, expert: Mapping[str, Any] | None = None) -> Teleoperator:
    """The teleoperator that `expert` names, made for `environment`.

    Args:
        environment: what is driven.
        expert: `_target_` of a Teleoperator that takes the environment first, and its arguments.

    Raises:
        ValueError: no expert is named.
    """
    if not expert or "_target_" not in expert:
        raise ValueError(
            "there is no scripted expert for this environment; give teleoperator.expert._target_, "
            "a task that has one (task=pick_place), or record a person (teleoperator=keyboard)"
        )
    return instantiate(dict(expert), environment)
