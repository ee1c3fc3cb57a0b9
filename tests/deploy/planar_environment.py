"""A point on a table that goes where it is told; its camera sees it as a square."""

from __future__ import annotations

import numpy as np

from teleop_data.environment import StepResult
from teleop_data.schema import Schema
from tests.deploy.tiny_policy import planar_schema


class PlanarEnvironment:
    """Position control with a stride of at most 0.1 m; the goal is the origin.

    Every action is kept in `actions`.
    """

    def __init__(self, *, max_steps: int = 40, camera: bool = True, rate_hz: float = 20.0) -> None:
        self._schema = planar_schema(camera=camera, rate_hz=rate_hz)
        self._max_steps = max_steps
        self.actions: list[np.ndarray] = []

    @property
    def schema(self) -> Schema:
        return self._schema

    @property
    def max_steps(self) -> int:
        return self._max_steps

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        self._rng = np.random.default_rng(seed)
        self._position = self._rng.uniform(0.5, 1.0, 2)
        self.actions = []
        return self._observe()

    def step(self, action: np.ndarray) -> StepResult:
        action = np.array(action, np.float64)
        if action.shape != (2,) or not np.isfinite(action).all():
            raise ValueError(f"action {action}; expected two finite numbers")
        self.actions.append(action.astype(np.float32))
        self._position = self._position + np.clip(action - self._position, -0.1, 0.1)
        distance = float(np.linalg.norm(self._position))
        return StepResult(
            observation=self._observe(),
            reward=max(0.0, 1 - distance),
            success=distance < 0.02,
            terminated=len(self.actions) >= self._max_steps,
        )

    def render(self) -> np.ndarray:
        image = np.full((32, 32, 3), 255, np.uint8)
        column, row = np.clip((self._position * 28).astype(int), 0, 28)
        image[row : row + 4, column : column + 4] = (200, 30, 30)
        return image

    def close(self) -> None:
        pass

    def _observe(self) -> dict[str, np.ndarray]:
        observation = {"position": self._position.astype(np.float32)}
        if "front" in self._schema.names:
            noise = self._rng.integers(0, 3, (32, 32, 3), dtype=np.uint8)  # a sensor's
            observation["front"] = self.render() - noise
        return observation
