"""A world to record from, in real time: pictures that move, a state that counts steps, and every
fault that a real one has."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from teleop_data.clock import ManualClock
from teleop_data.environment import Observation, StepResult
from teleop_data.schema import Feature, Schema


class MovingPictures:
    """An Environment: cameras that show stripes moving by a pixel a step, and the step's number.

    Its state is (step, seed), from which every picture follows: `picture`.
    """

    def __init__(
        self,
        *,
        rate_hz: float = 50.0,
        height: int = 24,
        width: int = 32,
        cameras: int = 2,
        max_steps: int = 20,
        noise: int = 0,
        prints: bool = False,
        fails_at: int = -1,
        fails_in_seed: int = 0,
        failure: str = "raise",
    ) -> None:
        """Last `max_steps` an episode; at step `fails_at` of `fails_in_seed` raise or freeze."""
        self.schema = Schema(
            features=(
                *(
                    Feature(
                        name=f"camera{i}", shape=(height, width, 3), dtype="uint8", role="camera"
                    )
                    for i in range(cameras)
                ),
                Feature(name="state", shape=(2,)),
                Feature(name="action", shape=(2,), role="action"),
            ),
            rate_hz=rate_hz,
        )
        self.max_steps = max_steps
        self._prints = prints
        self._fails_at, self._fails_in_seed, self._failure = fails_at, fails_in_seed, failure
        self._step, self._seed = 0, 0
        rng = np.random.default_rng(0)  # as a sensor's: a new offset into one field each step
        size = 2 * height * width * 3
        self._noise = rng.integers(0, noise + 1, size).astype(np.uint8)
        row, column = np.mgrid[: 2 * height, : 2 * width]
        pattern = [100 + 60 * np.sin(column / 23) + 40 * np.cos(row / 17), column + row, 2 * row]
        self._pattern = np.stack([values % 240 for values in pattern], -1).astype(np.uint8)
        self._height, self._width = height, width

    def picture(self, camera: int, *, step: int, seed: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        top, left = (camera + seed) % self._height, (step + camera) % self._width
        view = self._pattern[top : top + self._height, left : left + self._width]
        offset = (step * 7919) % (self._height * self._width * 3)
        return view + self._noise[offset:][: view.size].reshape(view.shape)

    def observation(self, *, step: int, seed: int) -> dict[str, np.ndarray]:
        """Of any step."""
        cameras = self.schema.with_role("camera")
        return {
            **{f.name: self.picture(i, step=step, seed=seed) for i, f in enumerate(cameras)},
            "state": np.array([step, seed], np.float32),
        }

    def reset(self, seed: int) -> Observation:
        self._step, self._seed = 0, seed
        if self._prints:
            print(f"reset {seed}", flush=True)
        return self.observation(step=0, seed=seed)

    def step(self, action: np.ndarray) -> StepResult:
        if self._prints:  # the step that this one answers to was handed over before
            print(f"step {self._seed} {self._step}", flush=True)
        if (self._step, self._seed) == (self._fails_at, self._fails_in_seed):
            if self._failure == "freeze":
                time.sleep(1000)
            raise OSError("camera0 is unplugged")
        self._step += 1
        return StepResult(
            observation=self.observation(step=self._step, seed=self._seed),
            reward=self._step / self.max_steps,
            success=self._step == self.max_steps,
            terminated=self._step == self.max_steps,
        )

    def render(self) -> np.ndarray:
        return self.picture(0, step=self._step, seed=self._seed)

    def close(self) -> None:
        pass


class TimedPictures(MovingPictures):
    """Its first camera is always 25 ms late and says so; its step 5 takes 150 ms."""

    def __init__(self, clock: ManualClock, *, max_steps: int) -> None:
        super().__init__(max_steps=max_steps)
        self._clock = clock

    def step(self, action: np.ndarray) -> StepResult:
        self._clock.advance(0.15 if self._step == 5 else 0.004)
        return super().step(action)

    def captured_s(self) -> Mapping[str, float]:
        return {"camera0": self._clock.now() - 0.025}


class Echo:
    """A Teleoperator whose action is the negative state, in a world given or not."""

    def __init__(self, _environment: Any = None) -> None:
        pass

    def reset(self, seed: int) -> None:
        pass

    def act(self, observation: Observation) -> np.ndarray:
        return -observation["state"]
