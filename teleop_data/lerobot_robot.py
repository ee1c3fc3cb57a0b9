"""Any LeRobot robot as an Environment.

    observation_features  {"a.pos": float, "b.pos": float, "front": (480, 640, 3)}
    schema                 state (2,): a.pos, b.pos     front (480, 640, 3) uint8
    action_features        {"a.pos": float, "b.pos": float}  ->  action (2,): a.pos, b.pos

The order of names is LeRobot's, and is told among the facts of every episode. A real robot has no
seed and judges nothing: episodes differ, reward is 0, and the operator says what is kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from teleop_data.clock import Clock, MonotonicClock
from teleop_data.environment import Observation, StepResult
from teleop_data.lerobot_devices import RobotDevice, make_device, scalar_names, vector_of
from teleop_data.schema import Feature, Schema


class LerobotRobot:
    """An Environment, Labelled with the names of its numbers. It paces itself.

        send_action .......... get_observation | act | send_action ..........
                               begun so early that it is done at the deadline

    So the next action answers to a fresh observation, as in LeRobot's own loop.

    Attributes:
        robot: LeRobot's device.
        state_names, action_names: what each entry of the state and of the action is.
        left_out: observed by the robot but not of this schema, such as depth in 16 bits.
        raw_observation: the newest, as the robot gave it; for LeRobot's own processors.
    """

    label_features: tuple[Feature, ...] = ()

    def __init__(
        self,
        robot: RobotDevice | Mapping[str, Any],
        *,
        rate_hz: float,
        max_steps: int = 100_000,
        units: str = "",
        clock: Clock | None = None,
    ) -> None:
        """Adapt `robot`; it is connected at the first reset.

        Args:
            robot: a device, or what `lerobot_devices.make_device` makes one of.
            rate_hz: control steps per second.
            max_steps: an episode's length at most.
            units: of the state and the action, if the robot has but one.
            clock: paces the steps; None is the machine's.

        Raises:
            ValueError: it observes or commands nothing that a schema can hold, or `max_steps` < 1.
        """
        if max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {max_steps}")
        self.robot: RobotDevice = (
            make_device("robot", robot) if isinstance(robot, Mapping) else robot
        )
        self.max_steps = max_steps
        observed, commanded = self.robot.observation_features, self.robot.action_features
        self.state_names, self.action_names = scalar_names(observed), scalar_names(commanded)
        if not self.action_names:
            raise ValueError(f"{self.robot.name} takes no numbers as an action: {commanded}")
        cameras = _cameras(observed)
        taken = {*self.state_names, *(camera.name for camera in cameras)}
        self.left_out = tuple(name for name in observed if name not in taken)
        state = Feature(name="state", shape=(max(len(self.state_names), 1),), unit=units)
        action = Feature(name="action", shape=(len(self.action_names),), role="action", unit=units)
        states = (state,) if self.state_names else ()
        self.schema = Schema(features=(*cameras, *states, action), rate_hz=rate_hz)
        if not self.schema.observed:
            raise ValueError(f"{self.robot.name} observes nothing of use: {observed}")
        self.raw_observation: Mapping[str, Any] = {}
        self._clock: Clock = clock or MonotonicClock()
        self._start_s, self._num_steps = 0.0, -1  # -1: before the first reset
        self._captured_s = 0.0
        self._reading_s = 0.0  # how long an observation takes, the longest of late

    def reset(self, seed: int) -> Observation:
        """The robot as it stands; connected, if it was not. Nothing is moved, `seed` is unused.

        Raises:
            ConnectionError: it cannot be reached.
            ValueError, KeyError: it observes something else than it says.
        """
        if not self.robot.is_connected:
            self.robot.connect()
        observation = self._observe()
        self._start_s, self._num_steps = self._clock.now(), 0
        return observation

    def step(self, action: np.ndarray) -> StepResult:
        """Send `action` (A,), wait for the end of the control step, observe.

        What the robot really sent on, its own limits heeded, is in `info["sent_action"]` (A,).

        Raises:
            RuntimeError: before the first reset.
            ValueError: the action is misshapen or not finite; nothing has been sent then.
            ConnectionError: the robot has gone.
        """
        if self._num_steps < 0:
            raise RuntimeError("step before reset: call reset(seed) first")
        values = np.array(action, np.float32)
        self.schema.action.check(values)
        named = dict(zip(self.action_names, values.tolist(), strict=True))
        sent = self.robot.send_action(named)
        self._num_steps += 1
        deadline_s = self._next_deadline_s()
        self._clock.sleep_until(deadline_s - min(self._reading_s, 0.5 / self.schema.rate_hz))
        return StepResult(
            observation=self._observe(),
            reward=0.0,
            success=False,
            terminated=self._num_steps >= self.max_steps,
            info={"sent_action": vector_of({**named, **(sent or {})}, self.action_names)},
        )

    def render(self) -> np.ndarray:
        """A picture for people: the newest of the first camera, grey if there is none."""
        cameras = self.schema.with_role("camera")
        if not cameras or not self.raw_observation:
            return np.full((256, 256, 3), 128, np.uint8)
        picture = np.asarray(self.raw_observation[cameras[0].name])
        return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture.copy()

    def close(self) -> None:
        """Disconnect; the robot keeps or drops its torque as its own config says."""
        if self.robot.is_connected:
            self.robot.disconnect()
        self._num_steps = -1

    def labels(self) -> dict[str, np.ndarray]:
        """None; the facts are what is told."""
        return {}

    def facts(self) -> dict[str, Any]:
        """The robot's name and the order of its numbers."""
        return {
            "robot": self.robot.name,
            "state_names": list(self.state_names),
            "action_names": list(self.action_names),
            "left_out": list(self.left_out),
        }

    def captured_s(self) -> dict[str, float]:
        """When the newest observation was asked for, by feature; LeRobot does not tell its age."""
        return {feature.name: self._captured_s for feature in self.schema.observed}

    def _next_deadline_s(self) -> float:
        """The first tick of the clock's grid after now, which is just after another one."""
        rate_hz = self.schema.rate_hz
        # a tenth of a period against rounding: a moment before a tick counts as the tick
        num_passed = math.floor((self._clock.now() - self._start_s) * rate_hz + 0.1)
        return self._start_s + (num_passed + 1) / rate_hz

    def _observe(self) -> dict[str, np.ndarray]:
        self._captured_s = self._clock.now()
        raw = self.robot.get_observation()
        self._reading_s = max(self._clock.now() - self._captured_s, 0.9 * self._reading_s)
        observation = {
            camera.name: np.array(raw[camera.name]) for camera in self.schema.with_role("camera")
        }
        if self.state_names:
            observation["state"] = vector_of(raw, self.state_names)
        self.schema.check_observation(observation)
        self.raw_observation = raw
        return observation


def _cameras(features: Mapping[str, Any]) -> list[Feature]:
    """The pictures of a byte a value among `features`; LeRobot's depth, one channel, has two."""
    return [
        Feature(name=name, shape=tuple(shape), dtype="uint8", role="camera")
        for name, shape in features.items()
        if isinstance(shape, tuple) and len(shape) == 3 and shape[2] == 3
    ]
