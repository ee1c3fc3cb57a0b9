"""The arm's tasks as gymnasium environments, for tools that expect those.

    environment of teleop_data          gymnasium
    observation, by feature             Dict space of boxes
    action                              Box space, in the action's own units
    success                             terminated, info["success"]
    the end of the episode without it   truncated

Actions are the same numbers as everywhere else here; who wants them in -1..1 wraps the environment
in `gymnasium.wrappers.RescaleAction`.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from hydra.utils import instantiate

from sim.arm.actions import WORKSPACE_HIGH_M, WORKSPACE_LOW_M, ActionMode
from sim.arm.panda import JOINT_HIGH_RAD, JOINT_LOW_RAD, MAX_OPENING_M
from sim.task_descriptions import arm_task_names, describe_task
from teleop_data.environment import Environment
from teleop_data.schema import Feature

REACH_M = 1.3  # of the hand from the arm's base
AWAY_M = 10.0  # things that were thrown off the table lie nearer than this
GIVE_M, GIVE_RAD = 0.01, 0.1  # limits of fingers and joints give way by so much
TURN = np.ones(6)  # a rotation's two columns lie in -1..1


class GymnasiumEnvironment(gymnasium.Env[Any, np.ndarray]):
    """An arm environment, perturbed or not, with gymnasium's interface.

    `reset(seed=7)` starts the episode that seed 7 determines everywhere else, too; without a seed
    one is drawn, and `info["seed"]` tells which.

    Attributes:
        environment: what is adapted; scripted demonstrators need it.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        environment: Environment,
        *,
        action: ActionMode = "absolute",
        render_mode: str | None = None,
    ) -> None:
        """Adapt `environment`.

        Args:
            environment: with the features and actions of `sim.arm.environment`.
            action: what its actions mean.
            render_mode: "rgb_array", or None to render nothing.

        Raises:
            KeyError: it observes a feature that no arm environment has.
            ValueError: the render mode is another.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode is {render_mode!r}, expected 'rgb_array' or None")
        self.environment, self.render_mode = environment, render_mode
        schema = environment.schema
        self.metadata = {**self.metadata, "render_fps": schema.rate_hz}
        self.action_space = action_space(action)
        self.observation_space = spaces.Dict(
            {feature.name: observation_space(feature) for feature in schema.observed}
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The first observation of the episode of `seed`, and info. ValueError for any option."""
        super().reset(seed=seed)
        if options:
            raise ValueError(f"got options {sorted(options)}; there are none")
        episode = int(self.np_random.integers(2**31)) if seed is None else seed
        observation = self.environment.reset(episode)
        return dict(observation), {"seed": episode, "success": False}

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Observation, reward, terminated, truncated, info after one control step.

        Raises:
            ValueError: the action is misshapen, not finite, or its rotation is none.
        """
        result = self.environment.step(action)
        info = {**result.info, "success": result.success}
        is_late = result.terminated and not result.success
        return dict(result.observation), result.reward, result.success, is_late, info

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A picture for people, (H, W, 3) uint8; None without a render mode."""
        return None if self.render_mode is None else self.environment.render()

    def close(self) -> None:
        """Free what the environment holds."""
        self.environment.close()


def make_arm_task(
    *, name: str, render_mode: str | None = None, **options: Any
) -> GymnasiumEnvironment:
    """The arm task `name` of sim/configs/task.

    Args:
        name: of its YAML.
        render_mode: see `GymnasiumEnvironment`.
        options: in place of what the YAML says: features, action, pixels, rate_hz, backend,
            render_pixels, or task={...} for the task's own, such as duration_s.

    Raises:
        ValueError: there is no such task of the arm.
    """
    if name not in arm_task_names():
        raise ValueError(f"no arm task {name!r}; have: {', '.join(arm_task_names())}")
    description = describe_task(name).environment
    environment = instantiate(description, **options)
    action = options.get("action", description.get("action", "absolute"))
    return GymnasiumEnvironment(environment, action=action, render_mode=render_mode)


def action_space(action: ActionMode) -> spaces.Box:
    """The actions that make a difference: what lies beyond is clipped."""
    if action == "joints":
        low, high = JOINT_LOW_RAD, JOINT_HIGH_RAD
    elif action == "absolute":
        low, high = np.append(WORKSPACE_LOW_M, -TURN), np.append(WORKSPACE_HIGH_M, TURN)
    else:
        high = np.append(WORKSPACE_HIGH_M - WORKSPACE_LOW_M, TURN)
        low = -high
    return _box(np.append(low, 0.0), np.append(high, MAX_OPENING_M))


def observation_space(feature: Feature) -> spaces.Box:
    """What an arm environment's `feature` may be. KeyError if it has no such feature."""
    if feature.role == "camera":
        return spaces.Box(0, 255, feature.shape, np.uint8)
    pose = np.append(np.full(3, AWAY_M), TURN)
    num_things = feature.shape[0] // len(pose)
    ranges = {
        "state": (
            np.concatenate([np.full(3, -REACH_M), -TURN, [-GIVE_M]]),
            np.concatenate([np.full(3, REACH_M), TURN, [MAX_OPENING_M + GIVE_M]]),
        ),
        "joints": (JOINT_LOW_RAD - GIVE_RAD, JOINT_HIGH_RAD + GIVE_RAD),
        "objects": (-np.tile(pose, num_things), np.tile(pose, num_things)),
        "oracle": (-np.ones(feature.shape), np.ones(feature.shape)),
    }
    if feature.name not in ranges:
        raise KeyError(f"no range of feature {feature.name!r}; have: {', '.join(ranges)}")
    return _box(*ranges[feature.name])


def _box(low: np.ndarray, high: np.ndarray) -> spaces.Box:
    return spaces.Box(low.astype(np.float32), high.astype(np.float32))
