"""Tasks by the name of their YAML, played by their experts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from hydra.utils import instantiate

from sim.arm.environment import CAMERAS, ArmEnvironment, EpisodeState
from sim.task_descriptions import arm_task_names, describe_task
from teleop_data.environment import Environment, Observation, StepResult
from teleop_data.recorder import Recorder, record_episode, recording_schema
from teleop_data.schema import Schema
from teleop_data.teleoperator import Teleoperator

PIXELS = 32


def is_of_arm(task: str) -> bool:
    return task in arm_task_names()


def make(task: str, **options: Any) -> Environment:
    """With all features, if it is the arm's."""
    description = describe_task(task)
    if is_of_arm(task):
        features = [*CAMERAS, "state", "joints", "objects"]
        if instantiate(description.environment.task).oracle_size:
            features.append("oracle")
        options = {"features": features, "pixels": PIXELS, **options}
    return instantiate(description.environment, **options)


def make_expert(task: str, environment: Environment) -> Teleoperator:
    return instantiate(describe_task(task).expert, environment)


@dataclass(frozen=True)
class Episode:
    """A demonstration, and for the arm the moments before each action."""

    observations: list[Observation]
    actions: list[np.ndarray]
    results: list[StepResult]
    moments: list[EpisodeState]


@dataclass(frozen=True)
class Played:
    """A task's demonstrations of some seeds."""

    task: str
    environment: Environment
    episodes: list[Episode]


def play(environment: Environment, expert: Teleoperator, *, seed: int) -> Episode:
    observation = environment.reset(seed)
    expert.reset(seed)
    episode = Episode([observation], [], [], [])
    while not episode.results or not episode.results[-1].terminated:
        if isinstance(environment, ArmEnvironment):
            episode.moments.append(environment.save())
        episode.actions.append(expert.act(observation))
        episode.results.append(environment.step(episode.actions[-1]))
        observation = episode.results[-1].observation
        episode.observations.append(observation)
    return episode


def check_same(one: Observation, other: Observation) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


class Memory:
    """Where the newest episode goes."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema

    def append_episode(
        self, episode: Mapping[str, np.ndarray], *, attributes: Mapping[str, Any] | None = None
    ) -> None:
        self.episode, self.attributes = dict(episode), json.loads(json.dumps(attributes))


def recorded(
    environment: Environment, expert: Teleoperator, *, seed: int, max_steps: int | None = None
) -> Memory:
    """The recorder refuses what is off schema or not finite."""
    memory = Memory(recording_schema(environment, expert))
    record_episode(environment, expert, seed=seed, recorder=Recorder(memory), max_steps=max_steps)
    return memory
