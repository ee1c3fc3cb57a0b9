"""Environment: what observes and acts, simulated or real. Task: goal and reset. Labelled: who tells
facts for the record.

All are Protocols; `sim` implements them for simulators, a robot driver for hardware.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from teleop_data.schema import Feature, Schema

Observation = Mapping[str, np.ndarray]  # every observed feature by name, one control step


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one control step gave.

    Attributes:
        observation: after the action.
        reward: in [0, 1]; 1 is the task's goal.
        success: whether the goal is reached at this step.
        terminated: whether the episode is over.
        info: further named quantities, for logs only.
    """

    observation: Observation
    reward: float
    success: bool
    terminated: bool
    info: dict[str, Any] = field(default_factory=dict)


class Environment(Protocol):
    """A world with time: `reset` starts an episode, `step` applies one action for one control step.

    Observations hold exactly the schema's observed features, with their shapes and dtypes, in
    memory of their own (never a view of the simulator's). Same seed, same actions: same episode.
    """

    @property
    def schema(self) -> Schema:
        """The observed features, the action, and the control rate."""
        ...

    @property
    def max_steps(self) -> int:
        """Control steps after which an episode counts as over."""
        ...

    def reset(self, seed: int) -> Observation:
        """Start the episode that `seed` determines and return its first observation."""
        ...

    def step(self, action: np.ndarray) -> StepResult:
        """Apply `action` (A,) for one control step. ValueError if it is misshapen or not finite."""
        ...

    def render(self) -> np.ndarray:
        """A picture for people, (H, W, 3) uint8."""
        ...

    def close(self) -> None:
        """Free what the simulator holds; the environment is unusable afterwards."""
        ...


@runtime_checkable
class Rewindable(Environment, Protocol):
    """An Environment that can go back to moments of its episodes."""

    def save(self) -> Any:
        """This moment of the episode; opaque. RuntimeError before the first reset."""
        ...

    def restore(self, state: Any, /) -> Observation:
        """Go back to a moment saved here or by an environment made alike; what is seen then."""
        ...


@runtime_checkable
class Labelled(Protocol):
    """Tells facts beside observations and actions, for the record only: no policy sees them.

    An Environment or a Teleoperator may be Labelled as well: a perturbed environment tells the
    truth about what it spoils, an expert tells the sub-goal that it pursues.
    `recorder.record_episode` finds out by itself. A label is numeric, as all that is stored; one
    that stands for a word is its index, and `facts` holds the words: {"subgoals": ["reach", ...]}.
    """

    @property
    def label_features(self) -> tuple[Feature, ...]:
        """What `labels` holds, with role "other"; the same in every episode."""
        ...

    def labels(self) -> dict[str, np.ndarray]:
        """Every label feature's value at this control step, in memory of its own.

        An environment tells about the newest observation, a teleoperator about the action that it
        gave last.
        """
        ...

    def facts(self) -> dict[str, Any]:
        """JSON-ready facts about the whole episode so far; they become its attributes."""
        ...


class Task(Protocol):
    """Start distribution, observation and reward over a physics `P` of named quantities."""

    @property
    def schema(self) -> Schema:
        """What this task observes and commands."""
        ...

    @property
    def max_steps(self) -> int:
        """Length of an episode in control steps."""
        ...

    def initialize(self, physics: Any, rng: np.random.Generator) -> None:
        """Put `physics` into a start state drawn from `rng`."""
        ...

    def advance(self, physics: Any) -> None:
        """Move what the task itself moves, and remember; once after every control step."""
        ...

    def observe(self, physics: Any) -> dict[str, np.ndarray]:
        """The observed features."""
        ...

    def reward(self, physics: Any) -> float:
        """Progress in [0, 1]; 1 is the goal."""
        ...

    def is_success(self, physics: Any) -> bool:
        """Whether the goal is reached."""
        ...
