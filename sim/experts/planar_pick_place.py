"""The scripted demonstrator of the planar pick and place."""

from __future__ import annotations

import numpy as np

from sim.environment import TaskEnvironment
from sim.planar_arm import GRASP_THRESHOLD, STRIDE_M, PlanarArm
from teleop_data.environment import Observation

ARRIVAL_M = 0.012  # close enough to close or open the fingers
SETTLE_STEPS = 2  # control steps at rest there before the fingers move, so that a step more or
# less, which nobody can foresee, does not decide whether the grasp succeeds
SLIP_SHARE = 0.3  # of the episodes in which the fingers once close too early
SLIP_M = (0.06, 0.11)  # at a distance to the object drawn from here
EASING = 0.6  # near the aim, at most this share of the remaining way in a control step
WANDER_MEMORY = 0.8  # share of the wander that stays from one control step to the next
WANDER_M = 0.008  # its standard deviation, in either direction
WANDER_FADE_M = 0.10  # it grows to its full size at this distance from the aim


class PickPlaceExpert:
    """Demonstrates pick and place: over the object, close, over the goal, open.

    Its action depends on what the world looks like now and on how long the hand has been at rest:
    where to go next, at most one stride ahead, and whether to close. The seed draws its speed, how
    far off centre it aims, a slow wander on the way, and at times a slip: fingers that close too
    early, open, and try again. So demonstrations differ, and show how to come back.
    """

    def __init__(self, environment: TaskEnvironment[PlanarArm]) -> None:
        """Drive `environment`, whose physics it reads at every step."""
        self._physics = environment.physics
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Forget the previous episode and draw this one's habits from `seed`."""
        # a stream of its own: the environment draws the start from the same seed
        self._rng = np.random.default_rng([seed, 1])
        self._stride_m = STRIDE_M * self._rng.uniform(0.75, 1.0)
        self._grasp_offset = self._rng.normal(0.0, 0.004, size=2)
        self._place_offset = self._rng.normal(0.0, 0.006, size=2)
        self._wander = np.zeros(2)
        slips = self._rng.random() < SLIP_SHARE
        self._slip_m = self._rng.uniform(*SLIP_M) if slips else 0.0
        self._steps_at_aim = 0

    def act(self, observation: Observation) -> np.ndarray:
        """The action (3,) float32 for this control step; `observation` is not needed."""
        physics = self._physics
        if physics.is_holding:
            aim = physics.goal_position + self._place_offset
        else:
            aim = physics.object_position + self._grasp_offset
        is_there = bool(np.linalg.norm(aim - physics.hand) <= ARRIVAL_M)
        self._steps_at_aim = self._steps_at_aim + 1 if is_there else 0
        has_arrived = self._steps_at_aim > SETTLE_STEPS
        # closed around nothing: open first. Otherwise closed means holding, until the goal
        is_empty = physics.gripper >= GRASP_THRESHOLD and not physics.is_holding
        closes = has_arrived != physics.is_holding or self._slips()
        closure = float(closes and not is_empty)
        return np.array([*self._next_target(aim), closure], np.float32)

    def _slips(self) -> bool:
        """Whether the fingers close too early now; over once they are closed."""
        if self._physics.is_holding or self._physics.gripper >= GRASP_THRESHOLD:
            self._slip_m = 0.0
        return self._physics.distance_to_object < self._slip_m

    def _next_target(self, aim: np.ndarray) -> np.ndarray:
        """(2,) a stride towards `aim`, eased near it, wandering far from it."""
        way = aim - self._physics.hand
        distance = float(np.linalg.norm(way))
        stride = min(self._stride_m, max(EASING * distance, ARRIVAL_M / 2), distance)
        innovation = self._rng.normal(0.0, WANDER_M * np.sqrt(1 - WANDER_MEMORY**2), size=2)
        self._wander = WANDER_MEMORY * self._wander + innovation
        fade = float(np.clip((distance - ARRIVAL_M) / WANDER_FADE_M, 0.0, 1.0))
        return self._physics.hand + way * (stride / max(distance, 1e-9)) + fade * self._wander
