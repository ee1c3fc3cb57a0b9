"""The arm and what is on its table as nodes of a viser page: built once, then only poses travel.

    /world/<body>              a frame that moves
    /world/<body>/<number>     what is seen of it, at rest in that frame

Two threads: `capture` copies the world's state, in microseconds, where the world lives; `draw`
sends what has changed to the page, anywhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
import viser

from sim.arm.panda import FAST_GROUP, FINE_GROUP, THINGS_GROUP, Visuals, panda
from sim.arm.physics import ArmPhysics

HIDDEN_BELOW_M = -1.0  # bodies that wait out of sight do so below this height
SAME_PLACE = 1e-5  # m, and parts of a quaternion: a smaller change is not worth a message
MERGE_M = 1e-5  # vertices nearer than this are one, so that surfaces look smooth

Kind = mujoco.mjtGeom


@dataclass(frozen=True, kw_only=True)
class WorldState:
    """What is to be seen of a world at one moment, in memory of its own.

    Attributes:
        positions: (B, 3) m of the bodies.
        rotations: (B, 4) of the bodies, quaternions w x y z.
        colors: (G, 4) of the things' geoms, 0 to 1; perturbations change them.
        sizes: (G, 3) of the things' geoms, m, as MuJoCo has them.
    """

    positions: np.ndarray
    rotations: np.ndarray
    colors: np.ndarray
    sizes: np.ndarray


class ArmScene:
    """The nodes of one world. Pictures on the page have no part in what cameras see."""

    def __init__(
        self, scene: viser.SceneApi, physics: ArmPhysics, *, visuals: Visuals = "fine"
    ) -> None:
        """Add the world of `physics` to `scene`; fine `visuals` of the arm take two seconds."""
        self._scene, self._physics = scene, physics
        model = physics.model
        self._things = np.flatnonzero(model.geom_group == THINGS_GROUP)
        self._bodies = [
            scene.add_frame(f"/world/{model.body(i).name}", show_axes=False)
            for i in range(model.nbody)
        ]
        self._add_arm(panda(visuals=visuals).compile(), visuals=visuals)
        self._shown: WorldState | None = None
        self.draw(self.capture())

    def capture(self) -> WorldState:
        """The world as it is now. To be called on the thread that steps it."""
        model, data = self._physics.model, self._physics.data
        return WorldState(
            positions=data.xpos.copy(),
            rotations=data.xquat.copy(),
            colors=model.geom_rgba[self._things],
            sizes=model.geom_size[self._things],
        )

    def draw(self, state: WorldState) -> None:
        """Send what differs from the state drawn last."""
        before, self._shown = self._shown, state
        for index, body in enumerate(self._bodies):
            position, rotation = state.positions[index], state.rotations[index]
            body.visible = bool(position[2] > HIDDEN_BELOW_M)
            if before is None or _differs(position, before.positions[index]):
                body.position = position
            if before is None or _differs(rotation, before.rotations[index]):
                body.wxyz = rotation
        looks = np.hstack([state.colors, state.sizes])
        looks_before = None if before is None else np.hstack([before.colors, before.sizes])
        for row, geom in enumerate(self._things):
            if looks_before is None or _differs(looks[row], looks_before[row]):
                self._add_thing(int(geom), color=state.colors[row], size=state.sizes[row])

    def _add_arm(self, arm: mujoco.MjModel, *, visuals: Visuals) -> None:
        """The arm's surfaces: for each body one mesh a colour."""
        parts: dict[tuple[int, tuple[float, ...]], list[np.ndarray]] = {}
        group = FINE_GROUP if visuals == "fine" else FAST_GROUP
        for geom in np.flatnonzero(arm.geom_group == group):
            material = arm.geom_matid[geom]
            color = arm.geom_rgba[geom] if material < 0 else arm.mat_rgba[material]
            key = (int(arm.geom_bodyid[geom]), tuple(np.round(color, 2)))
            parts.setdefault(key, []).append(_triangles(arm, int(geom)))
        for number, ((body, color), triangles) in enumerate(parts.items()):
            corners = np.concatenate(triangles).reshape(-1, 3)
            _, first, faces = np.unique(
                np.round(corners / MERGE_M).astype(np.int64),
                axis=0,
                return_index=True,
                return_inverse=True,
            )
            self._scene.add_mesh_simple(
                f"/world/{arm.body(body).name}/{number}",
                corners[first],
                faces.reshape(-1, 3),
                color=_rgb(color),
                flat_shading=visuals == "fast",
            )

    def _add_thing(self, geom: int, *, color: np.ndarray, size: np.ndarray) -> None:
        """One geom of a thing; one that is there already is replaced."""
        model, scene = self._physics.model, self._scene
        name = f"/world/{model.body(int(model.geom_bodyid[geom])).name}/thing{geom}"
        place = {"position": model.geom_pos[geom], "wxyz": model.geom_quat[geom]}
        place["opacity"] = None if color[3] == 1 else float(color[3])
        rgb, kind = _rgb(color), Kind(int(model.geom_type[geom]))
        if kind == Kind.mjGEOM_BOX:
            scene.add_box(name, rgb, dimensions=tuple(2 * size), **place)
        elif kind == Kind.mjGEOM_SPHERE:
            scene.add_icosphere(name, radius=size[0], color=rgb, **place)
        elif kind in (Kind.mjGEOM_CYLINDER, Kind.mjGEOM_CAPSULE):  # a capsule's ends are flat here
            scene.add_cylinder(name, size[0], 2 * size[1], color=rgb, **place)
        elif kind == Kind.mjGEOM_PLANE:
            scene.add_box(name, rgb, dimensions=(2 * size[0], 2 * size[1], 0.001), **place)
        else:
            raise ValueError(f"{name}: cannot show a {kind.name}; add it to deploy/arm_scene.py")


def _triangles(model: mujoco.MjModel, geom: int) -> np.ndarray:
    """(F, 3, 3) m, corners of the triangles of a mesh geom in its body's frame."""
    mesh = int(model.geom_dataid[geom])
    first, num = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    vertices = model.mesh_vert[first : first + num]
    first, num = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
    faces = model.mesh_face[first : first + num]
    axes = np.empty(9)
    mujoco.mju_quat2Mat(axes, model.geom_quat[geom])
    return (vertices @ axes.reshape(3, 3).T + model.geom_pos[geom])[faces]


def _differs(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a - b).max() > SAME_PLACE)


def _rgb(color: np.ndarray | tuple[float, ...]) -> tuple[int, int, int]:
    red, green, blue = (round(255 * float(c)) for c in color[:3])
    return red, green, blue
