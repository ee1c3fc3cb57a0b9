"""An arm task as an Environment: what is observed of it, at which rate, with which actions.

arm task --things--> ArmPhysics --named quantities--> features --observation--> who acts
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol

import mujoco
import numpy as np

from sim.arm.actions import FEATURES, ActionMode, rotation_to_6d
from sim.arm.physics import ArmPhysics, ArmState
from sim.arm.waypoints import Script
from sim.environment import TaskEnvironment
from sim.rendering.camera_renderer import Backend
from teleop_data.environment import Observation
from teleop_data.schema import Feature, Schema

CAMERAS = ("front", "wrist")
MIN_PIXELS, MAX_PIXELS = 32, 512


class ArmTask(Protocol):
    """What stands on the table, how an episode starts, what counts, how it is demonstrated.

    Attributes:
        duration_s: an episode lasts at most so long.
        subgoals: every label that the script's way-points have.
        oracle_size: length of `oracle`.
        memory: what the task remembers of the episode; a plain value that can be copied.
    """

    duration_s: float
    subgoals: tuple[str, ...]
    oracle_size: int
    memory: Any

    def build(self, scene: mujoco.MjSpec) -> None:
        """Add the task's things to the table."""
        ...

    def initialize(self, world: ArmPhysics, rng: np.random.Generator) -> None:
        """Put the things into a start state drawn from `rng`; the hand is at home, open."""
        ...

    def advance(self, world: ArmPhysics) -> None:
        """Move what the task itself moves, and remember; once after every control step."""
        ...

    def reward(self, world: ArmPhysics) -> float:
        """Progress in [0, 1]; 1 is the goal."""
        ...

    def is_success(self, world: ArmPhysics) -> bool:
        """Whether the goal is reached."""
        ...

    def oracle(self, world: ArmPhysics) -> np.ndarray:
        """(oracle_size,) in -1..1: what no sensor tells, to be remembered or looked for."""
        ...

    def facts(self, world: ArmPhysics) -> dict[str, Any]:
        """JSON-ready: what else is worth knowing about the episode so far, for the record."""
        ...

    def script(self, world: ArmPhysics, rng: np.random.Generator) -> Script:
        """The way-points of a demonstration that varies with `rng`."""
        ...


class ObservedArmTask:
    """An arm task with a choice of features: a Task for `TaskEnvironment`.

    front, wrist    (pixels, pixels, 3)  the cameras
    state           (10,)                the hand as an absolute action holds it
    joints          (7,)                 rad
    objects         (9 n,)               position and 6-D rotation of the n movable things
    oracle          (m,)                 what no sensor tells, see `ArmTask.oracle`
    """

    def __init__(
        self, task: ArmTask, world: ArmPhysics, *, features: Iterable[str], pixels: int
    ) -> None:
        """Observe `features` of `world`. KeyError for an unknown one, with those there are."""
        offered = {
            **{name: _camera(name, pixels) for name in CAMERAS},
            "state": Feature(name="state", shape=(10,), unit="m"),
            "joints": Feature(name="joints", shape=(7,), unit="rad"),
        }
        if num_things := len(world.movable_names):
            offered["objects"] = Feature(name="objects", shape=(9 * num_things,), unit="m")
        if task.oracle_size:
            offered["oracle"] = Feature(name="oracle", shape=(task.oracle_size,))
        chosen = tuple(features)
        unknown = [name for name in chosen if name not in offered]
        if unknown or not chosen:
            raise KeyError(f"features {list(chosen)}: expected some of {', '.join(offered)}")
        self._task = task
        self.schema = Schema(
            features=(*(offered[name] for name in chosen), FEATURES[world.mode]),
            rate_hz=world.rate_hz,
        )
        self.max_steps = round(task.duration_s * world.rate_hz)

    def initialize(self, physics: ArmPhysics, rng: np.random.Generator) -> None:
        """Draw the start."""
        self._task.initialize(physics, rng)

    def advance(self, physics: ArmPhysics) -> None:
        """Let the task move what it moves, and remember."""
        self._task.advance(physics)

    def observe(self, physics: ArmPhysics) -> dict[str, np.ndarray]:
        """The chosen features."""
        observation = {}
        for feature in self.schema.observed:
            if feature.role == "camera":
                height, width, _ = feature.shape
                value = physics.picture(feature.name, height=height, width=width)
            else:
                value = self._low_dimensional(feature.name, physics).astype(np.float32)
            observation[feature.name] = value
        return observation

    def _low_dimensional(self, name: str, physics: ArmPhysics) -> np.ndarray:
        if name == "state":
            return physics.hand.to_vector()
        if name == "joints":
            return physics.joint_positions
        if name == "oracle":
            return self._task.oracle(physics)
        things = physics.movable_names
        poses = [(physics.position(n), rotation_to_6d(physics.rotation(n))) for n in things]
        return np.concatenate([part for pose in poses for part in pose])

    def reward(self, physics: ArmPhysics) -> float:
        """Progress in [0, 1]."""
        return 1.0 if self.is_success(physics) else min(float(self._task.reward(physics)), 0.99)

    def is_success(self, physics: ArmPhysics) -> bool:
        """Whether the goal is reached."""
        return bool(self._task.is_success(physics))


@dataclass(frozen=True, kw_only=True)
class EpisodeState:
    """A moment of an episode; opaque, see `ArmEnvironment.save`."""

    physics: ArmState
    memory: Any
    step: int


class ArmEnvironment(TaskEnvironment[ArmPhysics]):
    """The Environment of an arm task. Moments can be saved and gone back to.

    It is `Labelled` with the task's facts.

    Attributes:
        arm_task: the task, for demonstrators.
    """

    label_features: tuple[Feature, ...] = ()

    def __init__(
        self,
        task: ArmTask,
        *,
        features: Iterable[str] = ("front", "wrist", "state"),
        action: ActionMode = "absolute",
        pixels: int = 96,
        rate_hz: float = 10.0,
        backend: Backend = "auto",
        render_pixels: int = 480,
    ) -> None:
        """`task` on the table.

        Args:
            task: one of `sim.tasks`.
            features: what is observed, see `ObservedArmTask`.
            action: absolute, relative or joints, see `sim.arm.actions`.
            pixels: side of the cameras' pictures.
            rate_hz: control steps per second, 10 to 50.
            backend: what draws: auto, gl or rays, see `sim.rendering.camera_renderer`.
            render_pixels: side of the picture for people.

        Raises:
            KeyError: a feature or the action is unknown.
            ValueError: sizes or rate are out of range.
        """
        if action not in FEATURES:
            raise KeyError(f"no action {action!r}; have: {', '.join(FEATURES)}")
        if not MIN_PIXELS <= pixels <= MAX_PIXELS:
            raise ValueError(f"pixels is {pixels}, expected {MIN_PIXELS} to {MAX_PIXELS}")
        self.arm_task = task
        world = ArmPhysics(task.build, mode=action, rate_hz=rate_hz, backend=backend)
        observed = ObservedArmTask(task, world, features=features, pixels=pixels)
        super().__init__(
            world,
            observed,
            renderer=lambda w: w.fine_picture("front", height=render_pixels, width=render_pixels),
        )

    def labels(self) -> dict[str, np.ndarray]:
        """Nothing that changes from step to step."""
        return {}

    def facts(self) -> dict[str, Any]:
        """What the task knows about the episode so far."""
        return self.arm_task.facts(self.physics)

    def save(self) -> EpisodeState:
        """This moment of the episode. RuntimeError before the first reset."""
        if self._step is None:
            raise RuntimeError("save before reset: call reset(seed) first")
        return EpisodeState(
            physics=self.physics.save(), memory=deepcopy(self.arm_task.memory), step=self._step
        )

    def restore(self, state: EpisodeState) -> Observation:
        """Go back to a moment saved here or by an environment made alike; what is seen then."""
        self.physics.restore(state.physics)
        self.arm_task.memory = deepcopy(state.memory)
        self._step = state.step
        return self._observe()

    def close(self) -> None:
        """Free the renderers; further steps are refused."""
        super().close()
        self.physics.close()


def _camera(name: str, pixels: int) -> Feature:
    return Feature(name=name, shape=(pixels, pixels, 3), dtype="uint8", role="camera")
