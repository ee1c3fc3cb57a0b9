"""The hand's two fingers as one opening, and how they are told to change it."""

from __future__ import annotations

import mujoco
import numpy as np

from sim.arm.panda import (
    FINGER_JOINTS,
    FINGER_SERVOS,
    GRIP_LEAD_M,
    MAX_OPENING_M,
    MAX_OPENING_SPEED_M_S,
)


class Gripper:
    """The fingers of one world; all their state is in its data."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Drive the fingers in `data`."""
        self._data = data
        self._joints = [int(model.joint(name).qposadr[0]) for name in FINGER_JOINTS]
        self._servos = [model.actuator(name).id for name in FINGER_SERVOS]

    @property
    def opening(self) -> float:
        """Between the fingers, m, 0 to 0.08."""
        left, right = self._data.qpos[self._joints]
        return float(left - right)

    @property
    def set_point(self) -> float:
        """The opening that the servos were told last, m."""
        left, right = self._data.ctrl[self._servos]
        return float(left - right)

    def way_to(self, opening: float, *, duration_s: float) -> tuple[float, float]:
        """Where the set-point starts when `opening` is asked for, and how far it goes in that time.

        It never leads the fingers by more than `GRIP_LEAD_M`: so they squeeze what they hold alike
        at every control rate, and let go of it at once.
        """
        here, reach = self.opening, MAX_OPENING_SPEED_M_S * duration_s
        goal = float(np.clip(opening, here - GRIP_LEAD_M, here + GRIP_LEAD_M))
        start = float(np.clip(self.set_point, min(here, goal), max(here, goal)))
        return start, float(np.clip(goal - start, -reach, reach))

    def tell(self, opening: float) -> None:
        """Set the servos to `opening`, clipped to what the fingers can."""
        half = float(np.clip(opening, 0.0, MAX_OPENING_M)) / 2
        self._data.ctrl[self._servos] = half, -half

    def open_now(self) -> None:
        """Put the fingers wide open, for starts only."""
        self._data.qpos[self._joints] = MAX_OPENING_M / 2, -MAX_OPENING_M / 2
        self.tell(MAX_OPENING_M)
