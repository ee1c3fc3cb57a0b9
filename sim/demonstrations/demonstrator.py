"""Demonstrator: an expert in its environment, which gives the demonstration of a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from hydra.utils import instantiate

from sim.perturbations.conditions import PerturbationConfig, perturbed
from teleop_data.environment import Environment
from teleop_data.recorder import EpisodeSummary, Recorder, record_episode, recording_schema
from teleop_data.schema import Schema
from teleop_data.teleoperator import Teleoperator


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """What one seed gave.

    Attributes:
        summary: how it went.
        episode: {name: (T, ...)} as `ReplayBuffer.append_episode` takes it; empty if it failed.
        attributes: of the episode, JSON-ready; empty if it failed.
    """

    summary: EpisodeSummary
    episode: dict[str, np.ndarray]
    attributes: dict[str, Any]


class Demonstrator:
    """Called with a seed, it gives that seed's `Demonstration`: always the same one."""

    def __init__(
        self,
        environment: Mapping[str, Any],
        expert: Mapping[str, Any],
        perturbation: PerturbationConfig | None = None,
    ) -> None:
        """Make what the config nodes name.

        Args:
            environment: `_target_` and arguments of an Environment.
            expert: `_target_` of a Teleoperator that takes the environment, and its arguments.
            perturbation: a condition under which it demonstrates; None = none.

        Raises:
            KeyError, ValueError: the environment cannot be perturbed in that way.
        """
        world: Environment = instantiate(environment)
        self.expert: Teleoperator = instantiate(expert, world)
        self.environment = perturbed(world, perturbation or PerturbationConfig())
        self.schema = recording_schema(self.environment, self.expert)
        self._memory = _Memory(self.schema)
        self._recorder = Recorder(self._memory)

    def __call__(self, seed: int) -> Demonstration:
        """Let the expert drive the episode of `seed`."""
        self._memory.clear()
        summary = record_episode(
            self.environment,
            self.expert,
            seed=seed,
            recorder=self._recorder,
            keep=lambda summary: summary.success,
        )
        return Demonstration(
            summary=summary, episode=self._memory.episode, attributes=self._memory.attributes
        )

    def close(self) -> None:
        """Free the environment; nothing can be demonstrated afterwards."""
        self.environment.close()


class _Memory:
    """An `EpisodeStore` that holds the newest episode."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.clear()

    def clear(self) -> None:
        self.episode: dict[str, np.ndarray] = {}
        self.attributes: dict[str, Any] = {}

    def append_episode(
        self, episode: Mapping[str, np.ndarray], *, attributes: Mapping[str, Any] | None = None
    ) -> None:
        self.episode, self.attributes = dict(episode), dict(attributes or {})
