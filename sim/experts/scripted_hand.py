"""The demonstrator of every arm task: a hand that follows the task's script as a person would.

It walks towards the current way-point from where it is, a stride at a time, slower near the aim,
wandering on the way and hardly at all near contact. What it does is what is recorded, so the
demonstrations show how to come back. `careful_wander_m` lets it stray on careful ways, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.arm.actions import HandTarget, pointing_down
from sim.arm.environment import ArmEnvironment
from sim.arm.waypoints import Waypoint
from teleop_data.environment import Observation
from teleop_data.schema import Feature

SPEED_M_S = (0.40, 0.55)  # drawn for each episode
CAREFUL_SPEED_M_S = 0.30
EASING = 0.75  # near the aim, at most this share of the remaining way in 0.1 s
TURN_RAD_S = 2.0
WANDER_M, CAREFUL_WANDER_M = 0.010, 0.002  # standard deviation in each direction
WANDER_LIMIT = 2.2  # deviations in all; else it stays out of reach of a way-point for long
WANDER_MEMORY_S = 0.45  # it forgets itself within this time
WANDER_FADE_M = 0.08  # it has its full size at this distance from either way-point
SERVO_LAG_S = 0.03  # the hand is so late behind what it is told


class ScriptedHand:
    """A Teleoperator for any arm environment. Labels each step with its sub-goal."""

    label_features = (Feature(name="subgoal", shape=(1,), dtype="int64", role="other"),)

    def __init__(
        self, environment: ArmEnvironment, *, wander: float = 1.0, careful_wander_m: float = 0.0
    ) -> None:
        """Drive `environment`, whose world it reads.

        Args:
            environment: of an arm task.
            wander: scales how far it strays.
            careful_wander_m: standard deviation in each direction on careful ways with open
                fingers, far from either end of them; near contact, or with something in the hand,
                it is CAREFUL_WANDER_M, whatever this is.

        Raises:
            ValueError: `careful_wander_m` is negative.
        """
        if careful_wander_m < 0:
            raise ValueError(f"careful_wander_m is {careful_wander_m}, expected 0 or more")
        self._environment, self._wander_scale = environment, wander
        self._careful_wander_m = careful_wander_m
        self._subgoals = environment.arm_task.subgoals
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Forget the previous episode and draw this one's habits from `seed`."""
        # a stream of its own: the environment draws the start from the same seed
        self._rng = np.random.default_rng([seed, 1])
        self._speed_m_s = self._rng.uniform(*SPEED_M_S)
        self._wander = np.zeros(3)
        world = self._environment.physics
        self._script = self._environment.arm_task.script(world, self._rng)
        self._waypoint: Waypoint | None = None
        self._left_from = np.zeros(3)
        self._subgoal, self._is_over = 0, False

    def act(self, observation: Observation) -> np.ndarray:
        """The action (A,) float32 for this control step; `observation` is not needed."""
        world = self._environment.physics
        while not self._is_over and (self._waypoint is None or self._is_reached(self._waypoint)):
            following = next(self._script, None)
            self._is_over = following is None
            self._waypoint = following or self._waypoint
            self._left_from = world.tcp_position
        waypoint = self._waypoint
        if waypoint is None:
            raise RuntimeError("the task's script has no way-point at all")
        self._subgoal = self._subgoals.index(waypoint.label)
        target = HandTarget(
            position=self._stride_towards(waypoint),
            rotation=pointing_down(self._turn_towards(waypoint.yaw)),
            opening=waypoint.opening,
        )
        return world.action_towards(target).astype(np.float32)

    def labels(self) -> dict[str, np.ndarray]:
        """The sub-goal that the last action pursued, as an index into the names."""
        return {"subgoal": np.array([self._subgoal], np.int64)}

    def facts(self) -> dict[str, Any]:
        """The sub-goals' names."""
        return {"subgoals": list(self._subgoals)}

    def _is_reached(self, waypoint: Waypoint) -> bool:
        distance = np.linalg.norm(waypoint.position() - self._environment.physics.tcp_position)
        is_done = waypoint.until is None or waypoint.until()
        return bool(distance <= waypoint.tolerance_m) and is_done

    def _stride_towards(self, waypoint: Waypoint) -> np.ndarray:
        """(3,) a stride from here towards the way-point, eased near it, wandering far from it."""
        here, rate_hz = self._environment.physics.tcp_position, self._environment.schema.rate_hz
        pace = self._pace
        way = waypoint.position() - here
        distance = float(np.linalg.norm(way))
        speed = CAREFUL_SPEED_M_S if waypoint.is_careful else self._speed_m_s
        eased = (1 - (1 - EASING) ** pace) * distance
        stride = min(0.1 * pace * speed, max(eased, 0.006 * pace), distance)
        since = float(np.linalg.norm(here - self._left_from))
        fade = np.clip(min(distance, since) / WANDER_FADE_M, 0.0, 1.0)
        std = pace * max(CAREFUL_WANDER_M, fade * self._far_wander_m(waypoint))
        return here + way * (stride / max(distance, 1e-9)) + std * self._next_wander(rate_hz)

    def _far_wander_m(self, waypoint: Waypoint) -> float:
        """Standard deviation of its wander far from either end of the way, m."""
        if not waypoint.is_careful:
            return WANDER_M
        return self._careful_wander_m if waypoint.opening > 0 else 0.0

    @property
    def _pace(self) -> float:
        """Length of a stride against one at 10 Hz; the hand lags behind by a part of each."""
        return (1 / self._environment.schema.rate_hz + SERVO_LAG_S) / (0.1 + SERVO_LAG_S)

    def _next_wander(self, rate_hz: float) -> np.ndarray:
        """(3,) of unit deviation, correlated over time (Ornstein-Uhlenbeck), limited in length."""
        memory = np.exp(-1 / (rate_hz * WANDER_MEMORY_S))
        innovation = self._rng.normal(size=3) * np.sqrt(1 - memory**2)
        self._wander = memory * self._wander + innovation
        limited = min(1.0, WANDER_LIMIT / max(float(np.linalg.norm(self._wander)), 1e-9))
        return self._wander_scale * limited * self._wander

    def _turn_towards(self, yaw: float) -> float:
        """The hand's yaw a control step from now, rad."""
        rotation = self._environment.physics.tcp_rotation
        here = float(np.arctan2(-rotation[0, 0], rotation[1, 0]))
        way = (yaw - here + np.pi) % (2 * np.pi) - np.pi
        limit = 0.1 * self._pace * TURN_RAD_S
        return here + float(np.clip(way, -limit, limit))
