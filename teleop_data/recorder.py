"""Recording: control steps gathered in memory, written as whole episodes.

A person's device and a script are recorded by the same `record_episode`. An episode reaches the
disk only when it is over, so whatever interrupts a recording, every finished episode stays and the
unfinished one does not exist.

    observation_t --teleoperator--> action_t      one recorded step: both, and the labels of both
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np

from teleop_data.clock import Clock
from teleop_data.environment import Environment, Labelled, Observation
from teleop_data.schema import Schema
from teleop_data.teleoperator import Teleoperator


def recording_schema(environment: Environment, teleoperator: Teleoperator) -> Schema:
    """The environment's schema and, with role "other", the labels that the two of them tell.

    Raises:
        ValueError: a label has another role, or the name of another feature.
    """
    features = environment.schema.features
    for source in labelled(environment, teleoperator):
        for label in source.label_features:
            teller = type(source).__name__
            if label.role != "other":
                raise ValueError(
                    f"label {label.name!r} of {teller} has role {label.role!r}; expected 'other', "
                    "or a policy would be given it"
                )
            if label.name in {feature.name for feature in features}:
                raise ValueError(
                    f"label {label.name!r} of {teller} has the name of another feature; rename it: "
                    f"{', '.join(feature.name for feature in features)} are taken"
                )
            features += (label,)
    return replace(environment.schema, features=features)


def labelled(*sources: object) -> list[Labelled]:
    """Those of `sources` that tell labels and facts."""
    return [source for source in sources if isinstance(source, Labelled)]


class EpisodeStore(Protocol):
    """Where a recorder's episodes go: a `ReplayBuffer`, mostly."""

    schema: Schema

    def append_episode(
        self, episode: Mapping[str, np.ndarray], *, attributes: Mapping[str, Any] | None = None
    ) -> None:
        """Add one finished episode, as `ReplayBuffer.append_episode` does."""
        ...


class Recorder:
    """Appends episodes to a replay buffer, one after the other. Not thread-safe."""

    def __init__(self, buffer: EpisodeStore) -> None:
        """Record into `buffer`, opened for writing, every feature of its schema."""
        self.buffer = buffer
        self._labels = {feature.name for feature in buffer.schema.with_role("other")}
        self._steps: dict[str, list[np.ndarray]] | None = None  # None: no episode is open

    @property
    def num_steps(self) -> int:
        """Control steps of the open episode; 0 if none is open."""
        return len(next(iter(self._steps.values()))) if self._steps else 0

    def start(self) -> None:
        """Open an episode. RuntimeError if one is open already."""
        if self._steps is not None:
            raise RuntimeError(
                f"an episode of {self.num_steps} steps is open; save() or discard() it first"
            )
        self._steps = {name: [] for name in self.buffer.schema.names}

    def add(
        self,
        observation: Observation,
        action: np.ndarray,
        *,
        labels: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Add one control step: what was observed, the action (A,) answered to it and, exactly, the
        schema's features of role "other" (None: it has none); all are copied.

        Raises:
            RuntimeError: no episode is open.
            KeyError: a feature is missing or unknown.
            ValueError: a shape or dtype differs, or a float is not finite.
                Nothing has been added then.
        """
        steps = self._open_steps()
        schema, labels = self.buffer.schema, labels or {}
        schema.check_observation(observation)
        schema.action.check(action)
        if set(labels) != self._labels:
            raise KeyError(
                f"labels have unknown {sorted(set(labels) - self._labels)} and lack "
                f"{sorted(self._labels - set(labels))}; expected {sorted(self._labels)}"
            )
        for name, value in labels.items():
            schema[name].check(value)
        for name, value in {**observation, schema.action.name: action, **labels}.items():
            steps[name].append(np.array(value))

    def save(self, attributes: Mapping[str, Any] | None = None) -> None:
        """Append the open episode to the buffer with JSON-ready `attributes` and close it.

        Raises:
            RuntimeError: no episode is open.
            ValueError: it has no steps; it stays open.
        """
        steps = self._open_steps()
        if self.num_steps == 0:
            raise ValueError("the open episode has no steps; add() some or discard() it")
        episode = {name: np.stack(values) for name, values in steps.items()}
        self.buffer.append_episode(episode, attributes=attributes)
        self._steps = None

    def discard(self) -> None:
        """Forget the open episode, if there is one."""
        self._steps = None

    def _open_steps(self) -> dict[str, list[np.ndarray]]:
        if self._steps is None:
            raise RuntimeError("no episode is open; call start() first")
        return self._steps


@dataclass(frozen=True, kw_only=True)
class EpisodeSummary:
    """How an episode went.

    Attributes:
        seed: of its start and of the teleoperator.
        num_steps: control steps taken.
        success: whether the goal was reached at any step.
        max_reward: the greatest reward of a step, in [0, 1].
    """

    seed: int
    num_steps: int
    success: bool
    max_reward: float


def record_episode(
    environment: Environment,
    teleoperator: Teleoperator,
    *,
    seed: int,
    recorder: Recorder | None = None,
    max_steps: int | None = None,
    keep: Callable[[EpisodeSummary], bool] = lambda summary: True,
    clock: Clock | None = None,
) -> EpisodeSummary:
    """Let `teleoperator` drive one episode, record it if `keep` says so, and sum it up.

    Args:
        environment: it is reset with `seed`. It and the teleoperator may be `Labelled`.
        teleoperator: reset with the same seed.
        seed: of the episode.
        recorder: where to; None only drives. Labels that its buffer has no feature for are left
            out. The summary and the facts of both become the episode's attributes.
        max_steps: at most this many control steps; None means the environment's own limit.
        keep: whether the finished episode is saved; the default keeps all.
        clock: paces the steps at the schema's rate by absolute deadlines, as a person needs; None
            goes as fast as it can, as a script may.

    Whatever interrupts the episode (an error, Ctrl-C) is raised on; the recorder has then forgotten
    the unfinished episode and can start the next.

    Raises:
        ValueError: `max_steps` is less than 1, or a fact is told twice or has a summary's name.
        KeyError: the recorder's buffer has a feature of role "other" that nobody tells.
    """
    limit = environment.max_steps if max_steps is None else min(max_steps, environment.max_steps)
    if limit < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}")
    if recorder is not None:
        recorder.start()
    try:
        summary = _drive(
            environment, teleoperator, seed=seed, recorder=recorder, limit=limit, clock=clock
        )
        if recorder is not None and keep(summary):
            recorder.save(episode_attributes(environment, teleoperator, summary=summary))
    finally:
        if recorder is not None:
            recorder.discard()
    return summary


def episode_attributes(
    environment: Environment, teleoperator: Teleoperator, *, summary: EpisodeSummary
) -> dict[str, Any]:
    """The summary and what both tell about the episode. ValueError if a name comes twice."""
    attributes = asdict(summary)
    for source in labelled(environment, teleoperator):
        facts = source.facts()
        if twice := sorted(set(facts) & set(attributes)):
            raise ValueError(
                f"{type(source).__name__} tells {', '.join(twice)}, which the episode's attributes "
                "have already; give the fact another name"
            )
        attributes |= facts
    return attributes


def _drive(
    environment: Environment,
    teleoperator: Teleoperator,
    *,
    seed: int,
    recorder: Recorder | None,
    limit: int,
    clock: Clock | None,
) -> EpisodeSummary:
    """The control loop of `record_episode`."""
    sources = labelled(environment, teleoperator)
    observation = environment.reset(seed)
    teleoperator.reset(seed)
    start_s = clock.now() if clock is not None else 0.0
    max_reward, success, num_steps = 0.0, False, 0
    for step in range(limit):
        action = teleoperator.act(observation)
        if recorder is not None:
            # before the step: then the environment's labels are about this observation
            labels = told(sources, schema=recorder.buffer.schema)
            recorder.add(observation, action, labels=labels)
        result = environment.step(action)
        observation, num_steps = result.observation, step + 1
        max_reward, success = max(max_reward, result.reward), success or result.success
        if result.terminated:
            break
        if clock is not None:
            clock.sleep_until(start_s + num_steps / environment.schema.rate_hz)
    return EpisodeSummary(
        seed=seed, num_steps=num_steps, success=bool(success), max_reward=float(max_reward)
    )


def told(sources: list[Labelled], *, schema: Schema) -> dict[str, np.ndarray]:
    """{label: value} of `sources` at this control step, less those that `schema` does not have."""
    told: dict[str, np.ndarray] = {}
    for source in sources:
        left_out = {feature.name for feature in source.label_features} - set(schema.names)
        told |= {name: value for name, value in source.labels().items() if name not in left_out}
    return told
