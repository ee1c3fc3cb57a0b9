"""What can be done to a table scene from outside: distractors, an occluder, light and colour.

Nothing here touches what the arm or the task's things feel; only pictures change. The model is the
world's own, so another world of the same scene does not notice.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from sim.arm.table import (
    DISTRACTORS,
    HIDDEN_M,
    NUM_DISTRACTORS,
    OCCLUDER,
    TABLE_HIGH_M,
    TABLE_LOW_M,
)

OCCLUDER_DISTANCE_M = 0.12  # before the camera; nearer than the fingers of the wrist camera


@dataclass(frozen=True, kw_only=True)
class Plate:
    """The occluder before a camera: (2,) m from the middle of its view, and half a side in m."""

    camera: int
    offset: np.ndarray
    half_side: float


@dataclass(frozen=True, kw_only=True)
class Look:
    """What of the pictures is in no state of the physics; opaque, see `Disturbances.save`."""

    light: np.ndarray
    ambient: np.ndarray
    table_color: np.ndarray
    plate: Plate | None


class Disturbances:
    """Changes of the pictures of one world; `reset` undoes all of them."""

    num_distractors = NUM_DISTRACTORS
    table_bounds = (TABLE_LOW_M, TABLE_HIGH_M)  # (2,) m each, where things may lie

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Disturb the world of `model` and `data`, made by `sim.arm.table`."""
        self._model, self._data = model, data
        self._distractors = [int(model.body(name).mocapid[0]) for name in DISTRACTORS]
        self._occluder = int(model.body(OCCLUDER).mocapid[0])
        self._occluder_geom, self._table = model.geom(OCCLUDER).id, model.geom("table").id
        self._lamp = model.light("lamp").id
        self._plate: Plate | None = None
        self._made = self.save()

    def save(self) -> Look:
        """Light, colour and plate as they are; where distractors lie is in the physics' state."""
        return Look(
            light=self._model.light_diffuse[self._lamp].copy(),
            ambient=self._model.vis.headlight.ambient.copy(),
            table_color=self._model.geom_rgba[self._table].copy(),
            plate=self._plate,
        )

    def restore(self, look: Look) -> None:
        """Light, colour and plate as they were; also those of another world of the same scene."""
        self._model.light_diffuse[self._lamp] = look.light
        self._model.vis.headlight.ambient = look.ambient
        self._model.geom_rgba[self._table] = look.table_color
        self._set_plate(look.plate)

    def reset(self) -> None:
        """Everything as the scene was made."""
        self.hide_distractors()
        self.restore(self._made)

    def show_distractor(self, index: int, *, position: np.ndarray, yaw: float) -> None:
        """Put distractor `index`, 0 to `num_distractors` - 1, at `position` (3,) m."""
        body = self._distractors[index]
        self._data.mocap_pos[body] = position
        self._data.mocap_quat[body] = Rotation.from_euler("z", yaw).as_quat(scalar_first=True)
        self.refresh()

    def hide_distractors(self) -> None:
        """Take all distractors out of sight."""
        self._data.mocap_pos[self._distractors] = HIDDEN_M
        self.refresh()

    def show_occluder(self, camera: str, *, offset: np.ndarray, share: float) -> None:
        """A dark plate before `camera`, which it follows.

        Args:
            camera: name in the scene; KeyError if there is none.
            offset: (2,) of its middle, right and up, in half picture sides: -1 to 1.
            share: of the picture's height that the plate is high and wide.
        """
        index = self._model.camera(camera).id
        half_view = OCCLUDER_DISTANCE_M * np.tan(np.deg2rad(self._model.cam_fovy[index]) / 2)
        offset = half_view * np.asarray(offset, np.float64)
        self._set_plate(Plate(camera=index, offset=offset, half_side=share * half_view))

    def hide_occluder(self) -> None:
        """Take the plate out of sight."""
        self._set_plate(None)

    def _set_plate(self, plate: Plate | None) -> None:
        self._plate = plate
        if plate is None:
            self._data.mocap_pos[self._occluder] = HIDDEN_M
        else:
            self._model.geom_size[self._occluder_geom, :2] = plate.half_side
        self.refresh()

    def set_light(self, *, brightness: float, tint: np.ndarray) -> None:
        """Scale all light by `brightness` and by `tint` (3,); 1 and ones are as made."""
        factor = brightness * np.asarray(tint, np.float64)
        self._model.light_diffuse[self._lamp] = self._made.light * factor
        self._model.vis.headlight.ambient = self._made.ambient * factor

    def set_table_color(self, rgb: np.ndarray | None) -> None:
        """Colour the table `rgb` (3,) in 0..1; None is its own colour."""
        color = self._made.table_color if rgb is None else np.array([*rgb, 1.0])
        self._model.geom_rgba[self._table] = color

    def refresh(self) -> None:
        """Carry the plate along with its camera; to be called when the world has moved."""
        model, data, plate = self._model, self._data, self._plate
        if plate is not None:
            axes = data.cam_xmat[plate.camera].reshape(3, 3)
            ahead = axes @ np.array([*plate.offset, -OCCLUDER_DISTANCE_M])
            data.mocap_pos[self._occluder] = data.cam_xpos[plate.camera] + ahead
            mujoco.mju_mat2Quat(data.mocap_quat[self._occluder], data.cam_xmat[plate.camera])
        # positions only, which are all that pictures need
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
