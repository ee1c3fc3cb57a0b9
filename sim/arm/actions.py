"""What an action of the arm means: absolute or relative hand poses, or joint angles.

    absolute   x y z | two columns of the rotation matrix | opening     (10,)  base frame
    relative   the same, from the hand's pose at this control step       (10,)
    joints     seven angles | opening                                    (8,)

Rotations are 6-D (Zhou et al., On the continuity of rotation representations in neural networks,
CVPR 2019): the first two columns of the matrix, made orthonormal where they are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sim.arm.panda import MAX_OPENING_M
from teleop_data.schema import Feature

ActionMode = Literal["absolute", "relative", "joints"]

WORKSPACE_LOW_M = np.array([0.20, -0.45, 0.005])  # hand targets are clipped to these
WORKSPACE_HIGH_M = np.array([0.80, 0.45, 0.60])

FEATURES: dict[ActionMode, Feature] = {
    "absolute": Feature(name="action", shape=(10,), role="action", unit="m"),
    "relative": Feature(name="action", shape=(10,), role="action", unit="m"),
    "joints": Feature(name="action", shape=(8,), role="action", unit="rad"),
}


@dataclass(frozen=True, kw_only=True)
class HandTarget:
    """Where the hand shall be at the end of a control step.

    Attributes:
        position: (3,) m of the tool centre point, base frame.
        rotation: (3, 3), the tool's axes as columns.
        opening: between the fingers, m.
    """

    position: np.ndarray
    rotation: np.ndarray
    opening: float

    def clipped(self) -> HandTarget:
        """The nearest target within workspace and opening."""
        return HandTarget(
            position=np.clip(self.position, WORKSPACE_LOW_M, WORKSPACE_HIGH_M),
            rotation=self.rotation,
            opening=float(np.clip(self.opening, 0.0, MAX_OPENING_M)),
        )

    def to_vector(self) -> np.ndarray:
        """(10,) as an absolute action holds it."""
        return np.array([*self.position, *rotation_to_6d(self.rotation), self.opening])


def target_of(action: np.ndarray, *, mode: ActionMode, hand: HandTarget) -> HandTarget:
    """The target that an absolute or relative `action` (10,) names; `hand` is the pose now.

    Raises:
        ValueError: its rotation's columns are zero or parallel.
    """
    position, rotation = action[:3], rotation_from_6d(action[3:9])
    if mode == "relative":
        position, rotation = hand.position + position, rotation @ hand.rotation
    return HandTarget(position=position, rotation=rotation, opening=float(action[9])).clipped()


def action_towards(target: HandTarget, *, mode: ActionMode, hand: HandTarget) -> np.ndarray:
    """(10,) the absolute or relative action that names `target`; the inverse of `target_of`."""
    if mode == "absolute":
        return target.to_vector()
    relative = HandTarget(
        position=target.position - hand.position,
        rotation=target.rotation @ hand.rotation.T,
        opening=target.opening,
    )
    return relative.to_vector()


def rotation_to_6d(rotation: np.ndarray) -> np.ndarray:
    """(6,) the first two columns of `rotation` (3, 3), one after the other."""
    return np.concatenate([rotation[:, 0], rotation[:, 1]])


def rotation_from_6d(columns: np.ndarray) -> np.ndarray:
    """(3, 3) the rotation that `columns` (6,) mean: the first keeps its direction, the second is
    turned until it is perpendicular (Gram-Schmidt).

    Raises:
        ValueError: they are zero or parallel, so that no rotation is meant.
    """
    first, second = columns[:3], columns[3:]
    first = first / max(float(np.linalg.norm(first)), 1e-9)
    second = second - (first @ second) * first
    length = float(np.linalg.norm(second))
    if length < 1e-6 or float(np.linalg.norm(first)) < 0.5:
        raise ValueError(
            f"not a rotation: {columns}; entries 3 to 8 of a hand action are the first two columns "
            "of a rotation matrix, which must differ in direction"
        )
    second = second / length
    return np.stack([first, second, np.cross(first, second)], axis=1)


def pointing_down(yaw: float) -> np.ndarray:
    """(3, 3) the tool pointing down, turned by `yaw` rad about the vertical from how it is at home.

    At 0 the fingers open along the base's y.
    """
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array([[-sin, cos, 0.0], [cos, sin, 0.0], [0.0, 0.0, -1.0]])
