"""A two-link arm over a table, seen from above: the physics of pick-and-place.

The table is the square [-0.32, 0.32] x [0, 0.64] m, the arm's base is in the middle of its lower
edge. The hand follows a position target with limited speed; fingers close and open with limited
speed. Closing over the object grasps it and centres it; opening lets go where it is. The arm moves
above the table, so it touches nothing else.
"""

from __future__ import annotations

import numpy as np

RATE_HZ = 10.0
TABLE_LEFT_M, TABLE_BOTTOM_M, TABLE_SIDE_M = -0.32, 0.0, 0.64
WORKSPACE_LOW_M = np.array([-0.26, 0.10])  # where hand targets are clipped to
WORKSPACE_HIGH_M = np.array([0.26, 0.56])
STRIDE_M = 0.025  # the hand's way in one control step at most (0.25 m/s)
GRIPPER_STRIDE = 0.5  # opening or closing takes two control steps
GRASP_THRESHOLD = 0.6  # the fingers hold from this closure on
GRASP_RADIUS_M = 0.05  # object centre to hand, at most, to be grasped
OBJECT_RADIUS_M = 0.04

BASE_M = np.array([0.0, 0.015])
LINK_LENGTHS_M = (0.31, 0.31)  # just reaches the workspace's far corners


class PlanarArm:
    """Hand, gripper, one object, one goal. Positions are (2,) float64 in m.

    Attributes:
        hand: where the fingers meet.
        gripper: closure, 0 open to 1 closed.
        object_position: centre of the object.
        goal_position: centre of the goal, a mark on the table.
        is_holding: whether the object moves with the hand.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Hand in the middle, open; object and goal at fixed places."""
        self.place(
            hand=np.array([0.0, 0.30]),
            object_position=np.array([-0.15, 0.40]),
            goal_position=np.array([0.15, 0.40]),
        )

    def place(
        self, *, hand: np.ndarray, object_position: np.ndarray, goal_position: np.ndarray
    ) -> None:
        """Put everything there, with the gripper open and empty."""
        self.hand, self.gripper, self.is_holding = np.array(hand), 0.0, False
        self.object_position = np.array(object_position)
        self.goal_position = np.array(goal_position)

    def step(self, action: np.ndarray) -> None:
        """One control step towards `action` = (x, y, closure); targets are clipped to limits."""
        target = np.clip(action[:2], WORKSPACE_LOW_M, WORKSPACE_HIGH_M)
        way = target - self.hand
        distance = float(np.linalg.norm(way))
        self.hand = self.hand + way * min(1.0, STRIDE_M / max(distance, 1e-9))
        was_closed = self.gripper >= GRASP_THRESHOLD
        change = float(np.clip(action[2], 0.0, 1.0)) - self.gripper
        self.gripper += float(np.clip(change, -GRIPPER_STRIDE, GRIPPER_STRIDE))
        self._update_grasp(was_closed=was_closed)

    def _update_grasp(self, *, was_closed: bool) -> None:
        is_closed = self.gripper >= GRASP_THRESHOLD
        if not is_closed:
            self.is_holding = False
        elif not was_closed:  # only fingers that close now can take hold
            self.is_holding = self.distance_to_object <= GRASP_RADIUS_M
        if self.is_holding:
            self.object_position = self.hand.copy()

    @property
    def distance_to_object(self) -> float:
        """Hand to object, m."""
        return float(np.linalg.norm(self.hand - self.object_position))

    @property
    def distance_to_goal(self) -> float:
        """Object to goal, m."""
        return float(np.linalg.norm(self.object_position - self.goal_position))


def elbow(hand: np.ndarray) -> np.ndarray:
    """(2,) where the elbow is when the hand is at `hand`, m, bent to the right.

    Two circles, of the link lengths around base and hand, meet there; a hand out of reach stretches
    the arm towards it.
    """
    upper, lower = LINK_LENGTHS_M
    way = hand - BASE_M
    distance = float(np.clip(np.linalg.norm(way), abs(upper - lower) + 1e-6, upper + lower))
    direction = way / max(float(np.linalg.norm(way)), 1e-9)
    along = (distance**2 + upper**2 - lower**2) / (2 * distance)
    across = np.sqrt(max(upper**2 - along**2, 0.0))
    return BASE_M + along * direction + across * np.array([direction[1], -direction[0]])
