"""Joint angles for a hand pose, by damped least squares.

Wampler, Manipulator inverse kinematic solutions based on vector formulations and damped
least-squares methods (IEEE Trans. SMC 1986). With the Jacobian J (6, 7), the error e (6,) and what
is left of seven joints pulled home in J's null space:

    dq = J^T (J J^T + damping^2 I)^-1 (e - J g) + g,    g = PULL * (home - q)
"""

from __future__ import annotations

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from sim.arm.panda import JOINTS, TCP_SITE, panda

HOME_RAD = np.array([0.0, 0.10, 0.0, -2.35, 0.0, 2.45, 0.785])
DAMPING = 0.01
PULL = 0.05  # share of the way home that an iteration goes in the null space,
PULLED_ITERATIONS = 2  # the first ones only: the damping lets a little of it spoil the pose
MAX_ITERATIONS = 30
TOLERANCE = 1e-4  # m, and rad times ROTATION_WEIGHT_M
ROTATION_WEIGHT_M = 0.2  # a turn by 1 rad counts like this way
LOST = 1e-3  # with more error than this left, another start is tried
MAX_CHANGE_RAD = 0.4  # in one iteration: the Jacobian holds near by only


class InverseKinematics:
    """The arm alone, in a world of its own. Not thread-safe."""

    def __init__(self) -> None:
        self._model = panda().compile()
        self._data = mujoco.MjData(self._model)
        self._site = self._model.site(TCP_SITE).id
        self.low, self.high = self._model.jnt_range[: len(JOINTS)].T

    def pose(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) m and rotation (3, 3) of the tool centre point at `joints` (7,) rad."""
        self._data.qpos[: len(JOINTS)] = joints
        mujoco.mj_kinematics(self._model, self._data)
        rotation = self._data.site_xmat[self._site].reshape(3, 3).copy()
        return self._data.site_xpos[self._site].copy(), rotation

    def solve(
        self, position: np.ndarray, rotation: np.ndarray, *, start: np.ndarray
    ) -> tuple[np.ndarray, float]:
        """Joints (7,) rad that bring the tool centre point nearest to the pose, and the error left.

        Args:
            position: (3,) m in the arm's base frame.
            rotation: (3, 3), the tool's axes as columns.
            start: (7,) rad, where to search from; of several solutions, one near it is found.

        The error is a length in m in which a turn by 1 rad counts 0.2 m. Joint limits are kept.
        """
        joints, error = self._descend(position, rotation, start=start)
        if error > LOST:
            # stuck at a joint limit; the way home does not depend on where the arm is now, so
            # control steps that ask again get the same answer
            others, less = self._descend(position, rotation, start=HOME_RAD)
            if less < error / 2:
                return others, less
        return joints, error

    def _descend(
        self, position: np.ndarray, rotation: np.ndarray, *, start: np.ndarray
    ) -> tuple[np.ndarray, float]:
        """The best of a descent from `start`."""
        joints = np.clip(start, self.low, self.high)
        best, least = joints, np.inf
        for iteration in range(MAX_ITERATIONS):
            here, axes = self.pose(joints)
            turn = Rotation.from_matrix(rotation @ axes.T).as_rotvec()
            error = np.concatenate([position - here, ROTATION_WEIGHT_M * turn])
            size = float(np.linalg.norm(error))
            if size < least:
                best, least = joints, size
            if size < TOLERANCE:
                break
            pull = PULL * (HOME_RAD - joints) * (iteration < PULLED_ITERATIONS)
            joints = np.clip(joints + self._change(joints, error, pull), self.low, self.high)
        return best, least

    def _change(self, joints: np.ndarray, error: np.ndarray, pull: np.ndarray) -> np.ndarray:
        """(7,) rad, one step of damped least squares from `joints`, of which `pose` was asked last.

        Joints that are at a limit and would go beyond it are left out, and the others do without.
        """
        jacobian = np.empty((6, self._model.nv))
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_jacSite(self._model, self._data, jacobian[:3], jacobian[3:], self._site)
        jacobian = jacobian[:, : len(JOINTS)]
        jacobian[3:] *= ROTATION_WEIGHT_M
        change = _least_squares(jacobian, error, pull)
        is_blocked = ((joints <= self.low) & (change < 0)) | ((joints >= self.high) & (change > 0))
        if is_blocked.any():
            change = _least_squares(jacobian * ~is_blocked, error, pull * ~is_blocked)
        return change * min(1.0, MAX_CHANGE_RAD / max(float(np.abs(change).max()), 1e-9))


def _least_squares(jacobian: np.ndarray, error: np.ndarray, pull: np.ndarray) -> np.ndarray:
    """(7,) the equation at the top of this file."""
    square = jacobian @ jacobian.T + DAMPING**2 * np.eye(6)
    return jacobian.T @ np.linalg.solve(square, error - jacobian @ pull) + pull
