"""The table before the arm, and what can stand on it; tasks build their scene from these parts.

The table's top is z = 0 m, the arm stands on it at the origin, x points away from the arm, y to its
left. Bodies for perturbations wait out of sight below: distractors and an occluding plate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from sim.arm.panda import COLLISION_GROUP, HAND_BODY, THINGS_GROUP, Visuals, panda

Build = Callable[[mujoco.MjSpec], None]  # adds a task's things to the scene
Color = tuple[float, float, float]  # red, green, blue in 0..1

TABLE_COLOR: Color = (0.80, 0.66, 0.48)
TABLE_LOW_M, TABLE_HIGH_M = np.array([0.30, -0.32]), np.array([0.70, 0.32])  # where things lie
PLATE_COLOR: Color = (0.95, 0.95, 0.93)

NUM_DISTRACTORS = 4
DISTRACTORS = tuple(f"distractor{i}" for i in range(NUM_DISTRACTORS))
OCCLUDER = "occluder"
HIDDEN_M = (0.0, 0.0, -3.0)  # where hidden bodies wait

TIMESTEP_S = 0.002


def table_scene(*, visuals: Visuals = "fast") -> mujoco.MjSpec:
    """The arm on a table with two cameras and lights, nothing on it yet."""
    scene = mujoco.MjSpec()
    option = scene.option
    option.timestep = TIMESTEP_S
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC  # with impratio: what is held does not creep out
    option.impratio = 10.0
    scene.visual.global_.offwidth, scene.visual.global_.offheight = 1280, 960
    scene.visual.headlight.ambient = np.full(3, 0.45)
    scene.visual.headlight.diffuse = np.full(3, 0.15)
    scene.visual.headlight.specular = np.full(3, 0.0)
    scene.stat.extent = 1.0  # m; what the two planes of view are given in
    scene.visual.map.znear, scene.visual.map.zfar = 0.01, 8.0
    _add_surroundings(scene)
    scene.worldbody.add_frame().attach_body(panda(visuals=visuals).body("base"), "", "")
    _add_cameras(scene)
    _add_hidden_bodies(scene)
    return scene


def add_plate(
    scene: mujoco.MjSpec, name: str, *, position: np.ndarray, radius: float, color: Color
) -> None:
    """A flat round plate on the table at `position` (2,) m: to be seen, not to be felt."""
    scene.worldbody.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=(radius, 0.001, 0),
        pos=(*position, 0.001),
        rgba=(*color, 1),
        contype=0,
        conaffinity=0,
        group=THINGS_GROUP,
    )


def add_fruit(scene: mujoco.MjSpec, name: str, *, radius: float, color: Color) -> None:
    """A ball to look at, on a hidden upright cylinder that collides, so that it does not roll."""
    body = scene.worldbody.add_body(name=name, pos=(0.5, 0, radius))
    body.add_freejoint(name=name)
    body.add_geom(
        name=f"{name}_body",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=(0.9 * radius, 0.93 * radius, 0),
        mass=0.08,
        friction=(1.0, 0.01, 0.001),
        rgba=(0, 0, 0, 0),
        group=COLLISION_GROUP,
    )
    looks: dict[str, Any] = {"contype": 0, "conaffinity": 0, "mass": 0, "group": THINGS_GROUP}
    body.add_geom(
        name=f"{name}_skin",
        type=mujoco.mjtGeom.mjGEOM_SPHERE,
        size=(radius, 0, 0),
        pos=(0, 0, 0.07 * radius),
        rgba=(*color, 1),
        **looks,
    )
    body.add_geom(
        name=f"{name}_stem",
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        fromto=(0, 0, 0.9 * radius, 0.1 * radius, 0, 1.3 * radius),
        size=(0.09 * radius, 0, 0),
        rgba=(0.25, 0.35, 0.12, 1),
        **looks,
    )


def add_block(
    scene: mujoco.MjSpec,
    name: str,
    *,
    half_size: tuple[float, float, float],
    color: Color,
    mass: float = 0.08,
    friction: float = 1.0,
) -> None:
    """A free box of `half_size` m and `mass` kg."""
    body = scene.worldbody.add_body(name=name, pos=(0.5, 0, half_size[2]))
    body.add_freejoint(name=name)
    body.add_geom(
        name=f"{name}_body",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=half_size,
        mass=mass,
        friction=(friction, 0.01, 0.001),
        rgba=(*color, 1),
        group=THINGS_GROUP,
    )


def _add_surroundings(scene: mujoco.MjSpec) -> None:
    """Floor, table top and a light from above; no shadows, which cost most of a picture's time."""
    scene.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=(0.75, 0.80, 0.86),
        rgb2=(0.45, 0.48, 0.54),
        width=64,
        height=384,
    )
    world = scene.worldbody
    world.add_light(
        name="lamp",
        pos=(0.9, 0.5, 1.8),
        dir=(-0.25, -0.3, -1),
        diffuse=(0.55,) * 3,
        castshadow=True,
    )
    world.add_geom(
        name="floor",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=(4, 4, 0.1),
        pos=(0, 0, -0.75),
        rgba=(0.42, 0.45, 0.50, 1),
        group=THINGS_GROUP,
    )
    world.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=(0.55, 0.75, 0.02),
        pos=(0.35, 0, -0.02),
        rgba=(*TABLE_COLOR, 1),
        friction=(1.0, 0.01, 0.001),
        group=THINGS_GROUP,
    )


def _add_cameras(scene: mujoco.MjSpec) -> None:
    """`front` looks at the table from the far side, `wrist` rides on the hand."""
    scene.worldbody.add_camera(
        name="front",
        pos=(1.12, 0.0, 0.62),
        quat=looking(at=(0.46, 0.0, 0.09), from_=(1.12, 0.0, 0.62), up=(0, 0, 1)).tolist(),
        fovy=40,
    )
    # the fingers open along the hand's y, so the camera sits beside them on its x
    scene.body(HAND_BODY).add_camera(
        name="wrist",
        pos=(0.085, 0.0, 0.04),
        quat=looking(at=(0.022, 0.0, 0.16), from_=(0.085, 0.0, 0.04), up=(1, 0, 0)).tolist(),
        fovy=80,
    )


def _add_hidden_bodies(scene: mujoco.MjSpec) -> None:
    """Distractors and an occluder, moved by perturbations; they touch nothing."""
    looks: dict[str, Any] = {"contype": 0, "conaffinity": 0, "group": THINGS_GROUP}
    box, ball, can = (
        mujoco.mjtGeom.mjGEOM_BOX,
        mujoco.mjtGeom.mjGEOM_SPHERE,
        mujoco.mjtGeom.mjGEOM_CYLINDER,
    )
    kinds = (
        (box, (0.025, 0.025, 0.03), (0.12, 0.35, 0.85)),
        (ball, (0.03, 0.03, 0.03), (0.18, 0.70, 0.30)),
        (can, (0.02, 0.035, 0.0), (0.85, 0.80, 0.15)),
        (box, (0.035, 0.02, 0.02), (0.55, 0.20, 0.60)),
    )
    for name, (kind, size, color) in zip(DISTRACTORS, kinds, strict=True):
        body = scene.worldbody.add_body(name=name, mocap=True, pos=HIDDEN_M)
        height = size[0] if kind == ball else size[1] if kind == can else size[2]
        body.add_geom(type=kind, size=size, pos=(0, 0, height), rgba=(*color, 1), **looks)
    plate = scene.worldbody.add_body(name=OCCLUDER, mocap=True, pos=HIDDEN_M)
    plate.add_geom(
        name=OCCLUDER, type=box, size=(0.1, 0.1, 0.0005), rgba=(0.13, 0.13, 0.14, 1), **looks
    )


def looking(
    *, at: tuple[float, ...], from_: tuple[float, ...], up: tuple[float, ...]
) -> np.ndarray:
    """(4,) quaternion w x y z of a camera: it looks along its -z, its y points up."""
    backward = np.subtract(from_, at)
    backward = backward / np.linalg.norm(backward)
    right = np.cross(up, backward)
    right = right / np.linalg.norm(right)
    axes = np.stack([right, np.cross(backward, right), backward], axis=1)
    return Rotation.from_matrix(axes).as_quat(scalar_first=True)
