"""Inverse kinematics: poses come back, limits are kept, and what cannot be reached says so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sim.arm.actions import pointing_down
from sim.arm.inverse_kinematics import HOME_RAD, InverseKinematics
from sim.arm.table import TABLE_HIGH_M, TABLE_LOW_M

ARM = InverseKinematics()
LOW, HIGH = [*TABLE_LOW_M, 0.01], [*TABLE_HIGH_M, 0.28]


def within(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_subnormal=False)


positions = st.tuples(*(within(a, b) for a, b in zip(LOW, HIGH, strict=True))).map(np.array)
tilts = st.tuples(*[within(-0.06, 0.06)] * 3).map(lambda v: Rotation.from_rotvec(v).as_matrix())
unit = st.lists(within(0.0, 1.0), min_size=7, max_size=7).map(np.array)


def check_reached(joints: np.ndarray, position: np.ndarray, rotation: np.ndarray) -> None:
    assert (joints >= ARM.low).all()
    assert (joints <= ARM.high).all()
    here, axes = ARM.pose(joints)
    assert np.linalg.norm(here - position) < 0.5e-3
    assert Rotation.from_matrix(axes.T @ rotation).magnitude() < 2e-3


@given(position=positions, yaw=within(-1.5, 1.5), tilt=tilts)
def test_any_grasp_over_the_table_is_found_from_home(
    position: np.ndarray, yaw: float, tilt: np.ndarray
):
    rotation = tilt @ pointing_down(yaw)
    joints, error = ARM.solve(position, rotation, start=HOME_RAD)
    assert error < 0.5e-3
    check_reached(joints, position, rotation)


@given(position=positions, yaw=within(-1.5, 1.5), start=unit)
def test_it_is_found_from_anywhere_else_too(position: np.ndarray, yaw: float, start: np.ndarray):
    joints, error = ARM.solve(
        position, pointing_down(yaw), start=ARM.low + start * (ARM.high - ARM.low)
    )
    assert error < 0.5e-3
    check_reached(joints, position, pointing_down(yaw))


@given(share=unit, aside=unit)
def test_poses_of_joints_are_found_from_near_by(share: np.ndarray, aside: np.ndarray):
    there = ARM.low + share * (ARM.high - ARM.low)
    position, rotation = ARM.pose(there)
    joints, error = ARM.solve(position, rotation, start=there + 0.1 * (aside - 0.5))
    assert error < 0.5e-3
    check_reached(joints, position, rotation)


def test_a_joint_at_its_limit_does_not_trap_the_arm():
    trapped = np.array([-0.335, 0.962, 0.813, -2.019, -0.733, 2.58, -2.897])
    for yaw in (0.64, -0.44, 0.95):
        position, rotation = np.array([0.6, -0.25, 0.2]), pointing_down(yaw)
        check_reached(ARM.solve(position, rotation, start=trapped)[0], position, rotation)


@pytest.mark.parametrize("direction", [(1, 0, 0), (0, 1, 0.3), (0.7, -0.7, 0.5)])
def test_what_is_out_of_reach_gives_the_error_that_is_left(direction: tuple[float, ...]):
    position = 2.0 * np.array(direction) / np.linalg.norm(direction)
    joints, error = ARM.solve(position, pointing_down(0.0), start=HOME_RAD)
    assert (joints >= ARM.low).all()
    assert (joints <= ARM.high).all()
    here, _ = ARM.pose(joints)
    assert 0.9 < np.linalg.norm(here - position) <= error + 1e-9
    # it stretches towards what it cannot reach
    assert here @ position / np.linalg.norm(position) > 0.6


def test_small_ways_of_the_hand_are_small_ways_of_the_joints():
    start, _ = ARM.solve(np.array([0.5, 0.1, 0.15]), pointing_down(0.2), start=HOME_RAD)
    for step in np.eye(3) * 0.002:
        joints, _ = ARM.solve(np.array([0.5, 0.1, 0.15]) + step, pointing_down(0.2), start=start)
        assert np.abs(joints - start).max() < 0.03


def test_the_answer_depends_on_the_question_only():
    other = InverseKinematics()
    other.solve(np.array([0.3, -0.3, 0.4]), pointing_down(1.0), start=HOME_RAD)
    question = np.array([0.55, 0.12, 0.07]), pointing_down(-0.3)
    np.testing.assert_array_equal(
        ARM.solve(*question, start=HOME_RAD)[0], other.solve(*question, start=HOME_RAD)[0]
    )


def test_joints_come_home_as_time_goes_by():
    """Without the pull, elbows would wander off over an episode."""
    aside = HOME_RAD + np.array([0.5, 0.0, -0.5, 0.0, 0.0, 0.0, 0.0])
    position, rotation = ARM.pose(aside)
    joints = aside
    for _ in range(100):
        joints, error = ARM.solve(position, rotation, start=joints)
        # a solved pose needs no descent, so the question moves a little, as a hand does
        position = position + np.array([2e-4, 0, 0])
        assert error < 0.5e-3
    free, _ = ARM.solve(position, rotation, start=HOME_RAD)
    assert np.abs(joints - free).max() < 0.5 * np.abs(aside - free).max()
