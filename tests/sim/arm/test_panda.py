"""The arm's model: what moves, what carries it, what touches, and how much there is to draw."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sim.arm.inverse_kinematics import HOME_RAD
from sim.arm.panda import (
    FINE_GROUP,
    FINGER_PADS,
    FINGER_SERVOS,
    GRIP_FORCE_N,
    HAND_BODY,
    JOINT_HIGH_RAD,
    JOINT_LOW_RAD,
    JOINTS,
    TCP_SITE,
    Visuals,
    panda,
    robosuite_assets,
)


def model(visuals: Visuals = "fast") -> mujoco.MjModel:
    return panda(visuals=visuals).compile()


@pytest.fixture(scope="module")
def fast() -> mujoco.MjModel:
    return model()


@pytest.fixture(scope="module")
def fine() -> mujoco.MjModel:
    return model("fine")


def at_home(model: mujoco.MjModel) -> mujoco.MjData:
    data = mujoco.MjData(model)
    data.qpos[:7] = HOME_RAD
    data.ctrl[[model.actuator(name).id for name in JOINTS]] = HOME_RAD
    return data


def num_triangles(model: mujoco.MjModel, *, fine: bool) -> int:
    shown = (model.geom_group == FINE_GROUP) == fine
    meshes = model.geom_dataid[shown & (model.geom_type == mujoco.mjtGeom.mjGEOM_MESH)]
    return int(model.mesh_facenum[meshes].sum())


def test_seven_joints_and_two_fingers_each_with_a_position_servo(fast: mujoco.MjModel):
    assert (fast.nq, fast.nv, fast.nu) == (9, 9, 9)
    assert [fast.joint(i).name for i in range(7)] == list(JOINTS)
    for name, low, high in zip(JOINTS, JOINT_LOW_RAD, JOINT_HIGH_RAD, strict=True):
        servo, joint = fast.actuator(name), fast.joint(name)
        np.testing.assert_array_equal(joint.range, [low, high])
        assert servo.trnid[0] == joint.id
        np.testing.assert_array_equal(servo.ctrlrange, joint.range)
        assert servo.gainprm[0] == -servo.biasprm[1] > 0  # force = stiffness (ctrl - q) - ...
        assert servo.biasprm[2] < 0  # ... damping q'
    for name in FINGER_SERVOS:
        np.testing.assert_array_equal(fast.actuator(name).forcerange, [-GRIP_FORCE_N, GRIP_FORCE_N])


def test_the_tool_centre_point_lies_between_the_pads(fast: mujoco.MjModel):
    data = mujoco.MjData(fast)
    data.qpos[:7] = HOME_RAD
    data.qpos[7:] = 0.04, -0.04
    mujoco.mj_kinematics(fast, data)
    site = data.site_xpos[fast.site(TCP_SITE).id]
    axes = data.site_xmat[fast.site(TCP_SITE).id].reshape(3, 3)
    pads = np.array([data.geom_xpos[fast.geom(name).id] for name in FINGER_PADS])
    middle, apart = axes.T @ (pads.mean(0) - site), axes.T @ (pads[0] - pads[1])
    np.testing.assert_allclose(middle, 0, atol=0.008)
    assert abs(apart).max() == pytest.approx(np.linalg.norm(apart), rel=1e-3)  # along one axis
    assert np.linalg.norm(apart) == pytest.approx(0.08 + 2 * 0.004, abs=0.012)
    assert np.linalg.norm(site - data.body(HAND_BODY).xpos) == pytest.approx(0.1, abs=0.03)


def test_it_stands_still_under_its_own_weight(fast: mujoco.MjModel):
    data = at_home(fast)
    mujoco.mj_step(fast, data, nstep=2000)
    np.testing.assert_allclose(data.qpos[:7], HOME_RAD, atol=2e-4)


def test_only_the_palm_and_the_pads_touch_anything(fast: mujoco.MjModel):
    touching = {
        fast.geom(i).name for i in np.flatnonzero(fast.geom_contype | fast.geom_conaffinity)
    }
    assert touching == {*FINGER_PADS, "hand_hand_collision"}


def test_looks_do_not_change_the_physics(fast: mujoco.MjModel, fine: mujoco.MjModel):
    bodies = [fast.body(i).name for i in range(fast.nbody)]
    assert bodies == [fine.body(i).name for i in range(fine.nbody)]
    np.testing.assert_array_equal(fast.body_mass, fine.body_mass)
    np.testing.assert_array_equal(fast.body_inertia, fine.body_inertia)
    positions = []
    for one in (fast, fine):
        data = at_home(one)
        data.ctrl += 0.1
        mujoco.mj_step(one, data, nstep=200)
        positions.append(data.qpos)
    np.testing.assert_array_equal(*positions)


def test_fast_visuals_have_few_triangles_and_fine_ones_many(
    fast: mujoco.MjModel, fine: mujoco.MjModel
):
    assert num_triangles(fast, fine=False) < 3_000
    assert num_triangles(fast, fine=True) == 0
    assert num_triangles(fine, fine=True) > 100_000


def test_a_hull_reaches_as_far_as_its_link(fast: mujoco.MjModel):
    hull = fast.mesh("link1_hull")
    first, num = int(hull.vertadr[0]), int(hull.vertnum[0])
    # MuJoCo has moved the mesh to its middle
    to_link = Rotation.from_quat(fast.mesh_quat[hull.id], scalar_first=True)
    corners = to_link.apply(fast.mesh_vert[first : first + num]) + fast.mesh_pos[hull.id]
    triangle = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    file = robosuite_assets() / "robots" / "panda" / "meshes" / "link1.stl"
    link = np.fromfile(file, triangle, offset=84)["corners"].reshape(-1, 3)
    directions = np.random.default_rng(0).normal(size=(50, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    reaches = [(points @ directions.T).max(0) for points in (corners, link)]
    np.testing.assert_allclose(*reaches, atol=0.01)


def test_robosuite_is_found_but_not_imported():
    code = "import sys, sim.arm.panda; sim.arm.panda.panda(); print('robosuite' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "False"


def test_a_missing_robosuite_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lerobot_policy.*\[sim\]'"):
        robosuite_assets()
