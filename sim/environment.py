"""TaskEnvironment: a physics and a task, given time, make an environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from teleop_data.environment import Observation, StepResult, Task
from teleop_data.schema import Feature, Schema


class Physics(Protocol):
    """A world of named quantities; what they are is between it and its tasks."""

    def reset(self) -> None:
        """Put everything where it rests; the task then draws the start."""
        ...

    def step(self, action: np.ndarray) -> None:
        """Advance by one control step under `action` (A,), finite."""
        ...


class TaskEnvironment[P: Physics]:
    """An Environment made of a physics and a task over it.

    Attributes:
        physics: the world; public, as scripted demonstrators may see what policies may not.
        task: start distribution, observation and reward.
    """

    def __init__(
        self, physics: P, task: Task, *, renderer: Callable[[P], np.ndarray] | None = None
    ) -> None:
        """Compose `physics` and `task`; `renderer` draws it for people, (H, W, 3) uint8."""
        self.physics, self.task = physics, task
        self._renderer = renderer
        self._step: int | None = None  # None before the first reset

    @property
    def schema(self) -> Schema:
        """The task's features and rate."""
        return self.task.schema

    @property
    def max_steps(self) -> int:
        """Control steps after which an episode counts as over."""
        return self.task.max_steps

    def reset(self, seed: int) -> Observation:
        """Start the episode that `seed` determines and return its first observation."""
        self.physics.reset()
        self.task.initialize(self.physics, np.random.default_rng(seed))
        self._step = 0
        return self._observe()

    def step(self, action: np.ndarray) -> StepResult:
        """Apply `action` (A,) for one control step; it is never changed in place.

        Raises:
            RuntimeError: before the first reset.
            ValueError: the action is misshapen or not finite. The world has not moved then.
        """
        if self._step is None:
            raise RuntimeError("step before reset: call reset(seed) first")
        self.physics.step(checked_action(action, self.schema.action))
        self.task.advance(self.physics)
        self._step += 1
        success = self.task.is_success(self.physics)
        return StepResult(
            observation=self._observe(),
            reward=self.task.reward(self.physics),
            success=success,
            terminated=success or self._step >= self.max_steps,
        )

    def observe(self) -> Observation:
        """The observation of this moment, anew: for whoever changed the world between two steps.

        Raises:
            RuntimeError: before the first reset.
        """
        if self._step is None:
            raise RuntimeError("observe before reset: call reset(seed) first")
        return self._observe()

    def render(self) -> np.ndarray:
        """A picture for people, (H, W, 3) uint8. RuntimeError if no renderer was given."""
        if self._renderer is None:
            raise RuntimeError("this environment has no renderer; pass renderer= to draw it")
        return self._renderer(self.physics)

    def close(self) -> None:
        """Refuse further steps; there is nothing else to free."""
        self._step = None

    def _observe(self) -> dict[str, np.ndarray]:
        # copies, so that an observation kept in a history does not change under its holder
        return {name: np.array(value) for name, value in self.task.observe(self.physics).items()}


def checked_action(action: np.ndarray, feature: Feature) -> np.ndarray:
    """`action` as a float64 copy of the feature's shape. ValueError if misshapen or not finite."""
    values = np.array(action, dtype=np.float64)
    if values.shape != feature.shape:
        raise ValueError(
            f"action has shape {values.shape}, expected {feature.shape}; "
            "give one action, without batch or time"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"action is not finite: {values}; hold the last good one instead")
    return values
