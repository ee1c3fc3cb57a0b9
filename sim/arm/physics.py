"""The physics of the arm over its table: named quantities, hand and joint commands, saved states.

A task says what stands on the table; everything else about the world is here. One control step is
`1 / rate_hz` seconds: the servos' set-point runs evenly to its new value, no joint faster than
Franka allows, while MuJoCo steps every 2 ms.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from sim.arm.actions import ActionMode, HandTarget, action_towards, pointing_down, target_of
from sim.arm.disturbances import Disturbances, Look
from sim.arm.gripper import Gripper
from sim.arm.hand_contacts import HandContacts
from sim.arm.inverse_kinematics import HOME_RAD, InverseKinematics
from sim.arm.panda import (
    FINGER_JOINTS,
    JOINTS,
    MAX_JOINT_SPEED,
    TCP_SITE,
)
from sim.arm.table import TIMESTEP_S, Build, table_scene
from sim.arm.views import Views
from sim.rendering.camera_renderer import Backend

HOME_M = np.array([0.42, 0.0, 0.25])  # where the hand rests, m
NUM_RAMPS = 5  # set-points within a control step at 10 Hz
STATE = mujoco.mjtState.mjSTATE_INTEGRATION
NUM_JOINTS = len(JOINTS)


@dataclass(frozen=True, kw_only=True)
class ArmState:
    """Everything that the future and its pictures depend on; opaque, see `ArmPhysics.save`."""

    integration: np.ndarray
    look: Look


class ArmPhysics:
    """The arm, the table and a task's things. Lengths in m, angles in rad, the base's frame.

    Attributes:
        model, data: MuJoCo's; a task may read what has no name here.
        rate_hz: control steps per second.
        movable_names: bodies that move freely, in the order in which the task added them.
        disturbances: what perturbations may change about the scene.
    """

    def __init__(
        self,
        build: Build,
        *,
        mode: ActionMode = "absolute",
        rate_hz: float = 10.0,
        backend: Backend = "auto",
    ) -> None:
        """A table on which `build` has put a task's things.

        Args:
            build: adds bodies to the scene, with the functions of `sim.arm.table`.
            mode: what an action means, see `sim.arm.actions`.
            rate_hz: 10 to 50, such that a control step is a whole number of 2 ms steps.
            backend: what draws the pictures, see `sim.rendering.camera_renderer`.

        Raises:
            ValueError: the rate is out of range or does not fit.
        """
        self._num_substeps = _num_substeps(rate_hz)
        self.mode: ActionMode = mode
        self.rate_hz = rate_hz
        spec = table_scene()
        build(spec)
        self.model: mujoco.MjModel = spec.compile()
        self.data = mujoco.MjData(self.model)
        scene = hashlib.sha256(spec.to_xml().encode()).hexdigest()
        self.kinematics = InverseKinematics()
        self._home, _ = self.kinematics.solve(HOME_M, pointing_down(0.0), start=HOME_RAD)
        model = self.model
        free = np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE)
        self.movable_names = tuple(model.body(int(model.jnt_bodyid[j])).name for j in free)
        self._address = {name: int(model.joint(name).qposadr[0]) for name in self.movable_names}
        self._velocity = {name: int(model.joint(name).dofadr[0]) for name in self.movable_names}
        self._servos = [model.actuator(name).id for name in JOINTS]
        self._gripper = Gripper(model, self.data)
        self._site = model.site(TCP_SITE).id
        self._contacts = HandContacts(model, self.data, movable=self.movable_names)
        self.disturbances = Disturbances(model, self.data)
        self._views = Views(self.model, self.data, build=build, scene=scene, backend=backend)
        self.reset()

    # --- time ---

    def reset(self) -> None:
        """Everything where the scene says, the hand open and at rest at home."""
        mujoco.mj_resetData(self.model, self.data)
        self.disturbances.reset()
        self.set_hand(HOME_M, yaw=0.0)

    def step(self, action: np.ndarray) -> None:
        """One control step under `action`, (10,) or (8,) as the mode says.

        Raises:
            ValueError: a hand action whose rotation is none. Nothing has moved then.
        """
        if self.mode == "joints":
            joints, opening = action[:NUM_JOINTS], float(action[NUM_JOINTS])
        else:
            target = target_of(action, mode=self.mode, hand=self.hand)
            joints, opening = self._joints_of(target), target.opening
        self._servo(joints, opening=opening)

    def settle(self, duration_s: float = 0.2) -> None:
        """Let things come to rest while the arm stands still."""
        mujoco.mj_step(self.model, self.data, nstep=round(duration_s / TIMESTEP_S))
        self._catch_up()

    def _servo(self, joints: np.ndarray, *, opening: float) -> None:
        """Run the set-point to `joints` (7,), within limits of angle and speed, and step."""
        kinematics, start, num_done = self.kinematics, self._set_point, 0
        way = np.clip(joints, kinematics.low, kinematics.high) - start
        haste = float((np.abs(way) * self.rate_hz / MAX_JOINT_SPEED).max())
        way = way / max(haste, 1.0)  # all joints slowed alike, so that the hand keeps its direction
        opening_start, opening_way = self._gripper.way_to(opening, duration_s=1 / self.rate_hz)
        for ramp in range(1, NUM_RAMPS + 1):
            share, num_due = ramp / NUM_RAMPS, round(self._num_substeps * ramp / NUM_RAMPS)
            self.data.ctrl[self._servos] = start + share * way
            self._gripper.tell(opening_start + share * opening_way)
            mujoco.mj_step(self.model, self.data, nstep=num_due - num_done)
            num_done = num_due
        self._catch_up()

    @property
    def _set_point(self) -> np.ndarray:
        """(7,) rad, where the servos were sent."""
        return self.data.ctrl[self._servos]

    def _catch_up(self) -> None:
        """Make what is read and drawn that of this moment: MuJoCo leaves it a step behind."""
        mujoco.mj_forward(self.model, self.data)
        self.disturbances.refresh()

    def _joints_of(self, target: HandTarget) -> np.ndarray:
        joints, _ = self.kinematics.solve(target.position, target.rotation, start=self._set_point)
        return joints

    # --- the hand ---

    @property
    def tcp_position(self) -> np.ndarray:
        """(3,) m, the point between the finger tips."""
        return self.data.site_xpos[self._site].copy()

    @property
    def tcp_rotation(self) -> np.ndarray:
        """(3, 3), the tool's axes as columns."""
        return self.data.site_xmat[self._site].reshape(3, 3).copy()

    @property
    def opening(self) -> float:
        """Between the fingers, m, 0 to 0.08."""
        return self._gripper.opening

    @property
    def joint_positions(self) -> np.ndarray:
        """(7,) rad."""
        return self.data.qpos[:NUM_JOINTS].copy()

    @property
    def joint_velocities(self) -> np.ndarray:
        """(7,) rad/s."""
        return self.data.qvel[:NUM_JOINTS].copy()

    @property
    def hand(self) -> HandTarget:
        """Pose and opening as they are now."""
        return HandTarget(
            position=self.tcp_position, rotation=self.tcp_rotation, opening=self.opening
        )

    def action_towards(self, target: HandTarget) -> np.ndarray:
        """The action (A,), in this world's mode, that brings the hand to `target`."""
        target = target.clipped()
        if self.mode == "joints":
            return np.array([*self._joints_of(target), target.opening])
        return action_towards(target, mode=self.mode, hand=self.hand)

    def set_hand(self, position: np.ndarray, *, yaw: float) -> None:
        """Put the open hand there, pointing down and at rest; for starts only."""
        joints, _ = self.kinematics.solve(position, pointing_down(yaw), start=self._home)
        data = self.data
        data.qpos[:NUM_JOINTS] = data.ctrl[self._servos] = joints
        data.qvel[: NUM_JOINTS + len(FINGER_JOINTS)] = 0.0
        self._gripper.open_now()
        mujoco.mj_forward(self.model, data)

    # --- things ---

    def position(self, name: str) -> np.ndarray:
        """(3,) m of the body `name`. KeyError if there is none."""
        return self.data.body(name).xpos.copy()

    def rotation(self, name: str) -> np.ndarray:
        """(3, 3) of the body `name`, its axes as columns."""
        return self.data.body(name).xmat.reshape(3, 3).copy()

    def yaw(self, name: str) -> float:
        """Turn of the body `name` about the vertical, rad."""
        rotation = self.rotation(name)
        return float(np.arctan2(rotation[1, 0], rotation[0, 0]))

    def velocity(self, name: str) -> np.ndarray:
        """(3,) m/s of the movable body `name`."""
        first = self._velocity[name]
        return self.data.qvel[first : first + 3].copy()

    def place(self, name: str, position: np.ndarray, *, yaw: float = 0.0) -> None:
        """Put the movable body `name` at `position` (3,) m, upright and at rest."""
        first, velocity = self._address[name], self._velocity[name]
        self.data.qpos[first : first + 3] = position
        upright = Rotation.from_euler("z", yaw)
        self.data.qpos[first + 3 : first + 7] = upright.as_quat(scalar_first=True)
        self.data.qvel[velocity : velocity + 6] = 0.0
        mujoco.mj_forward(self.model, self.data)

    def nudge(self, name: str, *, velocity: np.ndarray) -> None:
        """Add `velocity` (3,) m/s to the movable body `name`."""
        first = self._velocity[name]
        self.data.qvel[first : first + 3] += velocity

    def is_touching(self, name: str) -> bool:
        """Whether the hand touches the movable body `name`."""
        return self._contacts.is_touching(name)

    def is_holding(self, name: str) -> bool:
        """Whether the movable body `name` is between the fingers, both of which touch it."""
        return self._contacts.is_holding(name)

    @property
    def is_in_contact(self) -> bool:
        """Whether the hand touches any movable body."""
        return any(self.is_touching(name) for name in self.movable_names)

    # --- states and pictures ---

    def save(self) -> ArmState:
        """The state, to go on from later exactly as now."""
        integration = np.empty(mujoco.mj_stateSize(self.model, STATE))
        mujoco.mj_getState(self.model, self.data, integration, STATE)
        return ArmState(integration=integration, look=self.disturbances.save())

    def restore(self, state: ArmState) -> None:
        """Go back to a saved state of a world with the same things."""
        mujoco.mj_setState(self.model, self.data, state.integration, STATE)
        self.disturbances.restore(state.look)
        mujoco.mj_forward(self.model, self.data)

    def picture(self, camera: str, *, height: int, width: int) -> np.ndarray:
        """(H, W, 3) uint8, what `camera` sees, drawn fast, for learning."""
        return self._views.fast(camera, height=height, width=width)

    def fine_picture(self, camera: str, *, height: int, width: int) -> np.ndarray:
        """(H, W, 3) uint8 with real surfaces and shadows, 50 times slower, for people."""
        return self._views.fine(camera, height=height, width=width)

    def close(self) -> None:
        """Free the renderers."""
        self._views.close()


def _num_substeps(rate_hz: float) -> int:
    """MuJoCo's steps in a control step; ValueError if they are no whole number."""
    if not 10 <= rate_hz <= 50:
        raise ValueError(f"rate_hz is {rate_hz}, expected 10 to 50")
    num = 1 / (rate_hz * TIMESTEP_S)
    if abs(num - round(num)) > 1e-6:
        raise ValueError(
            f"rate_hz is {rate_hz}: a control step of {1000 / rate_hz:.3f} ms is no whole number "
            f"of physics steps of {1000 * TIMESTEP_S:.0f} ms; 10, 20, 25 and 50 are"
        )
    return round(num)
