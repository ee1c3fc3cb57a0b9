"""Pick and place: the contract, the physics rule by rule, and what the camera shows."""

from __future__ import annotations

import numpy as np
import pytest

from sim.planar_arm import (
    BASE_M,
    GRASP_RADIUS_M,
    LINK_LENGTHS_M,
    STRIDE_M,
    WORKSPACE_HIGH_M,
    WORKSPACE_LOW_M,
    PlanarArm,
    elbow,
)
from sim.tasks.pick_place import (
    ACTION_HIGH,
    ACTION_LOW,
    GOAL_TOLERANCE_M,
    PickPlace,
    draw,
    pick_place_environment,
)
from tests.contracts.environment_contract import EnvironmentContract


class TestPickPlaceEnvironment(EnvironmentContract):
    def make(self):
        return pick_place_environment()

    def typical_action(self, rng):
        return rng.uniform(ACTION_LOW, ACTION_HIGH).astype(np.float32)


def placed(hand, thing, goal=(0.2, 0.5)) -> PlanarArm:
    arm = PlanarArm()
    arm.place(hand=np.array(hand), object_position=np.array(thing), goal_position=np.array(goal))
    return arm


def test_the_hand_follows_its_target_at_limited_speed():
    arm = placed((0.0, 0.3), (0.2, 0.2))
    arm.step(np.array([0.03, 0.34, 0.0]))  # 5 cm away
    np.testing.assert_allclose(arm.hand, [0.015, 0.32], atol=1e-12)  # half of it: one stride
    assert np.hypot(0.015, 0.02) == pytest.approx(STRIDE_M)
    arm.step(np.array([0.03, 0.34, 0.0]))
    arm.step(np.array([0.03, 0.34, 0.0]))
    np.testing.assert_allclose(arm.hand, [0.03, 0.34], atol=1e-12)


def test_targets_outside_the_workspace_are_clipped():
    arm = placed((0.0, 0.3), (0.2, 0.2))
    for _ in range(100):
        arm.step(np.array([5.0, -5.0, 7.0]))
    np.testing.assert_allclose(arm.hand, [WORKSPACE_HIGH_M[0], WORKSPACE_LOW_M[1]])
    assert arm.gripper == 1.0


@pytest.mark.parametrize(("distance", "grasped"), [(0.99, True), (1.01, False)])
def test_closing_grasps_within_the_radius_only(distance: float, grasped: bool):
    arm = placed((0.0, 0.3), (distance * GRASP_RADIUS_M, 0.3))
    close = np.array([0.0, 0.3, 1.0])
    arm.step(close)
    assert (arm.gripper, arm.is_holding) == (0.5, False)
    arm.step(close)
    assert (arm.gripper, arm.is_holding) == (1.0, grasped)


def test_a_closed_gripper_that_arrives_does_not_grasp():
    arm = placed((0.0, 0.3), (0.2, 0.3))
    for _ in range(10):
        arm.step(np.array([0.2, 0.3, 1.0]))
    assert arm.distance_to_object < 1e-9
    assert not arm.is_holding


def test_a_held_object_moves_with_the_hand_and_stays_where_it_is_let_go():
    arm = placed((0.0, 0.3), (0.01, 0.3))
    for _ in range(2):
        arm.step(np.array([0.0, 0.3, 1.0]))
    arm.step(np.array([0.0, 0.4, 1.0]))
    np.testing.assert_array_equal(arm.object_position, arm.hand)
    arm.step(np.array([0.0, 0.4, 0.0]))  # half open lets go
    assert not arm.is_holding
    where = arm.object_position.copy()
    arm.step(np.array([0.2, 0.2, 0.0]))
    np.testing.assert_array_equal(arm.object_position, where)


@pytest.mark.parametrize(("distance", "success"), [(0.99, True), (1.01, False)])
def test_success_is_the_object_in_the_goal_and_let_go(distance: float, success: bool):
    task = PickPlace()
    arm = placed((0.0, 0.3), (0.1, 0.4), (0.1, 0.4 + distance * GOAL_TOLERANCE_M))
    assert task.is_success(arm) is success
    assert (task.reward(arm) == 1.0) is success
    arm.is_holding = True
    assert not task.is_success(arm)
    assert task.reward(arm) < 1.0


def test_reward_rises_with_each_stage():
    task = PickPlace()
    far = task.reward(placed((-0.2, 0.2), (0.2, 0.2), (0.2, 0.5)))
    near = task.reward(placed((0.18, 0.2), (0.2, 0.2), (0.2, 0.5)))
    arm = placed((0.2, 0.2), (0.2, 0.2), (0.2, 0.5))
    arm.is_holding = True
    held = task.reward(arm)
    arm.hand = arm.object_position = np.array([0.2, 0.4])
    carried = task.reward(arm)
    assert 0 <= far < near < held < carried < 1


def test_starts_are_apart_and_inside_the_workspace():
    task, arm = PickPlace(), PlanarArm()
    for seed in range(200):
        task.initialize(arm, np.random.default_rng(seed))
        for place in (arm.hand, arm.object_position, arm.goal_position):
            assert (place >= WORKSPACE_LOW_M).all()
            assert (place <= WORKSPACE_HIGH_M).all()
        assert arm.distance_to_object >= 0.16
        assert arm.distance_to_goal >= 0.16


def test_object_and_goal_are_seen_but_not_told():
    one, two = placed((0, 0.3), (0.2, 0.2)), placed((0, 0.3), (-0.2, 0.4), (0.1, 0.2))
    told_one, told_two = PickPlace().observe(one), PickPlace().observe(two)
    np.testing.assert_array_equal(told_one["state"], told_two["state"])
    assert not np.array_equal(told_one["top"], told_two["top"])


def test_the_camera_shows_the_object_where_it_is():
    arm = placed((-0.2, 0.5), (0.105, 0.205), (0.2, 0.5))
    picture = draw(arm, num_pixels=64).astype(int)
    red = (picture[..., 0] - picture[..., 1] > 120) & (picture[..., 0] - picture[..., 2] > 120)
    rows, columns = np.nonzero(red)
    # 1 px is 1 cm, x from -0.32 m at the left, y from 0 at the bottom
    assert columns.mean() == pytest.approx((0.105 + 0.32) * 100 - 0.5, abs=0.3)
    assert rows.mean() == pytest.approx((0.64 - 0.205) * 100 - 0.5, abs=0.3)
    assert red.sum() == pytest.approx(np.pi * 4**2, rel=0.15)


def test_links_keep_their_lengths_over_the_workspace():
    for x in np.linspace(WORKSPACE_LOW_M[0], WORKSPACE_HIGH_M[0], 7):
        for y in np.linspace(WORKSPACE_LOW_M[1], WORKSPACE_HIGH_M[1], 7):
            joint = elbow(np.array([x, y]))
            assert np.linalg.norm(joint - BASE_M) == pytest.approx(LINK_LENGTHS_M[0])
            assert np.linalg.norm(np.array([x, y]) - joint) == pytest.approx(LINK_LENGTHS_M[1])
