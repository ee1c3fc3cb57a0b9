"""The arm's physics: commands, limits, grasping."""

from __future__ import annotations

import numpy as np
import pytest

from sim.arm.actions import FEATURES, WORKSPACE_HIGH_M, ActionMode, rotation_to_6d
from sim.arm.panda import MAX_JOINT_SPEED, MAX_OPENING_M
from sim.arm.physics import HOME_M
from tests.sim.arm.arm_motions import down_at, fruit_world, go, grasp, trajectory, wild_actions

MODES: tuple[ActionMode, ...] = ("absolute", "relative", "joints")
RATES_HZ = (10.0, 20.0, 25.0, 50.0)


# --- commands ---


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_every_mode_brings_the_hand_to_the_same_place(rate_hz: float):
    target = down_at((0.52, -0.11, 0.14), yaw=0.6, opening=0.03)
    for mode in MODES:
        world = fruit_world(mode=mode, rate_hz=rate_hz)
        assert world.action_towards(target).shape == FEATURES[mode].shape
        go(world, target)
        np.testing.assert_allclose(world.tcp_position, target.position, atol=1e-3)
        np.testing.assert_allclose(world.tcp_rotation, target.rotation, atol=4e-3)
        assert world.opening == pytest.approx(0.03, abs=1e-3)


def test_a_control_step_lasts_as_long_as_the_rate_says():
    for rate_hz in (*RATES_HZ, 12.5, 15.625):
        world = fruit_world(rate_hz=rate_hz)
        before = world.data.time
        world.step(world.action_towards(world.hand))
        assert world.data.time - before == pytest.approx(1 / rate_hz)


@pytest.mark.parametrize("rate_hz", [0.0, 9.0, 60.0, float("nan"), 30.0, 15.0])
def test_rates_that_do_not_fit_are_refused(rate_hz: float):
    with pytest.raises(ValueError, match=r"expected 10 to 50|no whole number.*10, 20, 25 and 50"):
        fruit_world(rate_hz=rate_hz)


@pytest.mark.parametrize("rate_hz", [10.0, 50.0])
def test_no_joint_is_faster_than_franka_allows_and_none_leaves_its_range(rate_hz: float):
    world = fruit_world(mode="joints", rate_hz=rate_hz)
    low, high = world.kinematics.low, world.kinematics.high
    rng = np.random.default_rng(1)
    set_points = [world.data.ctrl.copy()]
    for _ in range(40):
        for _ in range(round(rate_hz / 10)):
            world.step(np.array([*rng.uniform(2 * low, 2 * high), 0.08]))
            set_points.append(world.data.ctrl.copy())
        assert (world.joint_positions > low - 0.03).all()
        assert (world.joint_positions < high + 0.03).all()
    servos = [world.model.actuator(f"joint{i}").id for i in range(1, 8)]
    sent = np.array(set_points)[:, servos]
    speeds = np.abs(np.diff(sent, axis=0)) * rate_hz
    assert (speeds <= MAX_JOINT_SPEED * (1 + 1e-9)).all()
    assert speeds.max() > 0.99 * MAX_JOINT_SPEED.min()  # the limit is what slowed it
    for _ in range(round(4 * rate_hz)):
        world.step(np.array([*high + 1.0, 0.08]))
    np.testing.assert_allclose(world.data.ctrl[servos], high)


def test_a_far_target_is_approached_without_detours():
    """All joints are slowed alike; slowed one by one, the hand would wave about."""
    world = fruit_world(mode="joints")
    start = world.joint_positions
    goal = start + np.array([1.2, 0.3, 0.0, -0.4, 0.0, 0.2, 0.0])
    for _ in range(4):
        world.step(np.array([*goal, 0.08]))
        share = (world.joint_positions - start)[[0, 1, 3, 5]] / (goal - start)[[0, 1, 3, 5]]
        assert np.ptp(share) < 0.06


def test_the_hand_stays_in_the_workspace():
    world = fruit_world()
    rotation = rotation_to_6d(world.tcp_rotation)
    for corner in ((0.5, 9.0, 0.2), (0.5, 0.0, -9.0), (0.5, 0.0, 9.0)):
        for _ in range(20):
            world.step(np.array([*corner, *rotation, 0.08]))
        inside = np.clip(corner, [0.2, -0.45, 0.005], WORKSPACE_HIGH_M)
        np.testing.assert_allclose(world.tcp_position, inside, atol=0.012)


@pytest.mark.parametrize("mode", ["absolute", "relative"])
def test_an_action_without_a_rotation_moves_nothing(mode: ActionMode):
    world, other = fruit_world(mode=mode), fruit_world(mode=mode)
    with pytest.raises(ValueError, match="not a rotation"):
        world.step(np.array([0.5, 0, 0.2, 1, 0, 0, 1, 0, 0, 0.0]))
    actions = wild_actions(other, num=3)
    np.testing.assert_array_equal(trajectory(world, actions), trajectory(other, actions))


def test_standing_still_is_possible_in_every_mode():
    for mode in MODES:
        world = fruit_world(mode=mode)
        here = world.hand
        for _ in range(50):
            world.step(world.action_towards(world.hand))
        np.testing.assert_allclose(world.tcp_position, here.position, atol=5e-4)


def test_what_is_read_is_of_this_moment():
    """MuJoCo's own step leaves positions a physics step behind."""
    world = fruit_world()
    world.nudge("apple", velocity=np.array([0.3, 0.0, 0.0]))
    world.step(world.action_towards(down_at((0.5, 0.1, 0.2))))
    first = world.model.joint("apple").qposadr[0]
    np.testing.assert_array_equal(world.position("apple"), world.data.qpos[first : first + 3])
    position, _ = world.kinematics.pose(world.joint_positions)
    np.testing.assert_allclose(world.tcp_position, position, atol=1e-12)
    np.testing.assert_allclose(fruit_world().position("apple")[2], 0.028, atol=5e-4)


# --- grasping ---


@pytest.mark.parametrize("rate_hz", [10.0, 50.0])
def test_a_fruit_held_for_five_seconds_stays_where_it_is_in_the_hand(rate_hz: float):
    world = fruit_world(rate_hz=rate_hz)
    lifted = grasp(world, "apple")
    assert world.is_holding("apple")
    assert not world.is_touching("orange")
    height, in_hand = world.position("apple")[2], world.position("apple") - world.tcp_position
    assert height > 0.1
    go(world, lifted, duration_s=5.0)
    assert world.is_holding("apple")
    creep = world.position("apple") - world.tcp_position - in_hand
    assert np.linalg.norm(creep) < 1e-3


def test_the_grip_is_as_strong_at_every_rate():
    forces = []
    for rate_hz in (10.0, 50.0):
        world = fruit_world(rate_hz=rate_hz)
        grasp(world, "apple")
        forces.append(np.abs(world.data.actuator("hand_gripper_finger_joint1").force[0]))
    assert forces == pytest.approx([20.0, 20.0], abs=1.0)


def test_letting_go_takes_no_longer_than_opening():
    world = fruit_world()
    grasp(world, "apple")
    width = world.opening
    world.step(world.action_towards(down_at(world.tcp_position, opening=0.08)))
    assert world.opening - width > 0.007
    assert not world.is_holding("apple")


def test_touch_and_hold_are_told_apart():
    world = fruit_world()
    assert not world.is_in_contact
    start = world.position("apple")
    beside = start + [0, 0.06, 0]
    go(world, down_at(beside + [0, 0, 0.1], opening=0.0))
    go(world, down_at(beside, opening=0.0))
    assert not world.is_in_contact
    touched = []
    for way in np.linspace(0.0, 0.06, 12):  # one pad pushes from the side
        world.step(world.action_towards(down_at(beside - [0, way, 0], opening=0.0)))
        touched.append(world.is_touching("apple"))
        assert world.is_in_contact == touched[-1]
        assert not world.is_holding("apple")
    assert any(touched)
    assert world.position("apple")[1] < start[1] - 0.01
    with pytest.raises(KeyError, match="pear"):
        world.is_touching("pear")


def test_what_leaves_the_table_lands_on_the_floor():
    world = fruit_world()
    world.place("apple", np.array([1.1, 0.2, 0.1]))
    for _ in range(20):
        world.step(world.action_towards(world.hand))
    assert world.position("apple")[2] == pytest.approx(-0.72, abs=0.02)


def test_home_is_where_it_is_said_to_be():
    world = fruit_world()
    world.reset()
    np.testing.assert_allclose(world.tcp_position, HOME_M, atol=1e-4)
    assert world.opening == pytest.approx(MAX_OPENING_M)
    np.testing.assert_array_equal(world.joint_velocities, 0)


def test_things_are_put_and_turned_as_told():
    world = fruit_world()
    world.place("orange", np.array([0.45, 0.1, 0.03]), yaw=0.7)
    np.testing.assert_allclose(world.position("orange"), [0.45, 0.1, 0.03])
    assert world.yaw("orange") == pytest.approx(0.7)
    np.testing.assert_array_equal(world.velocity("orange"), 0)
    world.nudge("orange", velocity=np.array([0.1, -0.2, 0.0]))
    np.testing.assert_allclose(world.velocity("orange"), [0.1, -0.2, 0.0])
