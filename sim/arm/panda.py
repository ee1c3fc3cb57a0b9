"""The Franka Panda as a MuJoCo model, made from the files of robosuite's wheel.

robosuite (MIT, Zhu et al., arXiv 2009.12293) ships the arm and its hand as MJCF with meshes. The
files are found without importing it, which would take seconds; its torque motors are replaced by
joint-position servos with gravity compensation.

    geom group  1 things, table, hand    2 fine visuals    3 fast visuals    4 collision only
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Literal

import mujoco
import numpy as np
from scipy.spatial import ConvexHull

Visuals = Literal["fast", "fine"]

THINGS_GROUP, FINE_GROUP, FAST_GROUP, COLLISION_GROUP = 1, 2, 3, 4
HIDDEN_SITES_GROUP = 4

JOINTS = tuple(f"joint{i}" for i in range(1, 8))
FINGER_JOINTS = ("hand_finger_joint1", "hand_finger_joint2")
FINGER_SERVOS = ("hand_gripper_finger_joint1", "hand_gripper_finger_joint2")
FINGER_PADS = ("hand_finger1_pad_collision", "hand_finger2_pad_collision")
TCP_SITE = "hand_grip_site"
HAND_BODY = "right_hand"

# Servo gains, N m / rad: soft ones (600) let the hand lag by 5 to 8 mm, and a round object pinched
# off its centre is squeezed out
STIFFNESS = (4500.0, 4500.0, 3500.0, 3500.0, 2000.0, 2000.0, 2000.0)
# Franka's data sheet, rad and rad/s
JOINT_LOW_RAD = np.array([-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973])
JOINT_HIGH_RAD = np.array([2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973])
MAX_JOINT_SPEED = np.array([2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61])
MAX_OPENING_M, MAX_OPENING_SPEED_M_S = 0.08, 0.1
GRIP_STIFFNESS, GRIP_FORCE_N = 4000.0, 30.0
GRIP_LEAD_M = 0.010  # the set-point leads the fingers by so much at most: they squeeze with 20 N
PAD_HALF_SIZE_M = (0.014, 0.004, 0.012)  # wider than the 8 mm delivered: a held cylinder creeps out


def panda(*, visuals: Visuals = "fast") -> mujoco.MjSpec:
    """The arm with its hand attached, base at the origin, x forward, z up; ready to be attached.

    Args:
        visuals: "fast" shows the collision hulls (2,000 triangles), "fine" the real surfaces
            (150,000), with the same physics.

    Raises:
        ModuleNotFoundError: robosuite is not installed.
    """
    assets = robosuite_assets()
    arm = mujoco.MjSpec.from_file(str(assets / "robots" / "panda" / "robot.xml"))
    hand = mujoco.MjSpec.from_file(str(assets / "grippers" / "panda_gripper.xml"))
    for motor in list(arm.actuators):
        arm.delete(motor)
    for sensor in list(hand.sensors):
        hand.delete(sensor)
    for site in hand.sites:
        site.group = HIDDEN_SITES_GROUP
    _prepare_fingers(hand)
    arm.body(HAND_BODY).add_frame().attach_body(hand.body("right_gripper"), "hand_", "")
    for camera in list(arm.cameras):
        arm.delete(camera)
    _prepare_geoms(arm, visuals=visuals)
    if visuals == "fast":
        _show_hull(arm, "link1", file=assets / "robots" / "panda" / "meshes" / "link1.stl")
    _add_servos(arm)
    return arm


def robosuite_assets() -> Path:
    """robosuite's folder of models, found without importing it."""
    found = importlib.util.find_spec("robosuite")
    if found is None or found.origin is None:
        raise ModuleNotFoundError(
            "the Panda's files come with robosuite, which is not installed: "
            "pip install 'lerobot_policy_diffusion_forcing[sim]'"
        )
    return Path(found.origin).parent / "models" / "assets"


def _add_servos(arm: mujoco.MjSpec) -> None:
    """Joint-position servos, critically damped; the arm carries its own weight."""
    for name, stiffness in zip(JOINTS, STIFFNESS, strict=True):
        joint = arm.joint(name)
        joint.armature = 0.1
        servo = arm.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        servo.set_to_position(kp=stiffness, dampratio=1.0)
        servo.ctrllimited, servo.ctrlrange = True, joint.range
    for body in arm.bodies:
        body.gravcomp = 1.0


def _prepare_fingers(hand: mujoco.MjSpec) -> None:
    """Quick fingers with wide pads."""
    for joint in hand.joints:
        joint.armature = 0.2
        joint.damping = np.array([40.0, 0.0, 0.0])
        joint.frictionloss = 0.0
    for actuator in hand.actuators:
        actuator.set_to_position(kp=GRIP_STIFFNESS)
        actuator.forcelimited, actuator.forcerange = True, (-GRIP_FORCE_N, GRIP_FORCE_N)
    for geom in hand.geoms:
        if geom.name.endswith("pad_collision"):
            geom.size = PAD_HALF_SIZE_M


def _prepare_geoms(arm: mujoco.MjSpec, *, visuals: Visuals) -> None:
    """Sort geoms into groups, colour them, and let only the hand and its pads touch things.

    Links and finger meshes touch nothing, which saves a quarter of a physics step.
    """
    for geom in list(arm.geoms):
        is_visual = geom.contype == 0 and geom.conaffinity == 0
        if is_visual and geom.type == mujoco.mjtGeom.mjGEOM_MESH:
            if visuals == "fine":
                geom.group = FINE_GROUP
            else:
                arm.delete(geom)
            continue
        is_pad = geom.name in FINGER_PADS
        geom.group = COLLISION_GROUP if is_pad else FAST_GROUP
        touches = is_pad or geom.name == "hand_hand_collision"
        geom.contype = geom.conaffinity = int(touches)
        geom.rgba = (0.30, 0.31, 0.34, 1) if "finger" in geom.name else (0.88, 0.89, 0.92, 1)
    if visuals == "fast":
        used = {geom.meshname for geom in arm.geoms}
        for mesh in list(arm.meshes):
            if mesh.name not in used:
                arm.delete(mesh)


def _show_hull(arm: mujoco.MjSpec, mesh_name: str, *, file: Path) -> None:
    """Replace a mesh by its convex hull: link1 alone has six times the others' triangles."""
    corners, faces = _hull(file)
    arm.add_mesh(name=f"{mesh_name}_hull", uservert=corners, userface=faces)
    for geom in arm.geoms:
        if geom.meshname == mesh_name:
            geom.meshname = f"{mesh_name}_hull"
    arm.delete(arm.mesh(mesh_name))


@functools.cache  # most of the time that a world takes to be made
def _hull(file: Path) -> tuple[list[float], list[int]]:
    """Corners and faces, wound outwards, of the convex hull of an STL file's mesh."""
    triangle = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    corners = np.fromfile(file, triangle, offset=84)["corners"].reshape(-1, 3)
    hull = ConvexHull(np.unique(corners.round(2), axis=0))  # to 1 cm: it is for the eye only
    a, b, c = (hull.points[hull.simplices[:, i]] for i in range(3))
    inwards = (np.cross(b - a, c - a) * hull.equations[:, :3]).sum(-1) < 0
    faces = np.where(inwards[:, None], hull.simplices[:, ::-1], hull.simplices)
    return hull.points.ravel().tolist(), faces.ravel().tolist()
