"""Hand targets: limits, strides, and the actions of three kinds of hand."""

from __future__ import annotations

import numpy as np
import pytest

from sim.arm.actions import HandTarget as ArmTarget
from sim.arm.actions import pointing_down, rotation_to_6d
from sim.push_t import FULL_SCHEMA
from sim.tasks.pick_place import SCHEMA
from teleop_data.clock import ManualClock
from teleop_data.schema import Feature, Schema
from teleop_data.teleoperators.driver_seat import DriverSeat
from teleop_data.teleoperators.hand_target import (
    ArmHand,
    HandTarget,
    PlanarHand,
    Reach,
    stride_towards,
)

ARM_SCHEMA = Schema(
    features=(
        Feature(name="state", shape=(10,)),
        Feature(name="action", shape=(10,), role="action"),
    ),
    rate_hz=10.0,
)


def arm_hand() -> ArmHand:
    return ArmHand(low=(0.2, -0.4, 0.0), high=(0.8, 0.4, 0.6), max_opening=0.08)


@pytest.mark.parametrize("yaw", [-1.4, 0.0, 0.3, 1.2])
def test_an_arms_action_is_the_simulated_arms(yaw: float):
    action = arm_hand().action_of(HandTarget(x=0.5, y=-0.1, z=0.2, yaw=yaw, closure=0.25))
    meant = ArmTarget(
        position=np.array([0.5, -0.1, 0.2]), rotation=pointing_down(yaw), opening=0.06
    )
    np.testing.assert_allclose(action, meant.to_vector(), atol=1e-6)
    assert action.dtype == np.float32


@pytest.mark.parametrize("yaw", [-1.4, 0.0, 0.9])
@pytest.mark.parametrize("columns", [(0, 1, 0, 1, 0, 0), (0, 0, -1, 0, 1, 0)])
def test_where_the_hand_is_would_hold_it_still(yaw: float, columns: tuple[int, ...]):
    hand = ArmHand(low=(0, -1, 0), high=(1, 1, 1), max_opening=0.08, columns=columns)
    target = HandTarget(x=0.5, y=-0.1, z=0.2, yaw=yaw, closure=0.5)
    found = hand.target_of({"state": hand.action_of(target)})
    np.testing.assert_allclose(
        list(found.to_json().values()), list(target.to_json().values()), atol=1e-6
    )


def test_a_tilted_hand_has_the_yaw_it_is_turned_by():
    tilt = np.array([[1, 0, 0], [0, np.cos(0.2), -np.sin(0.2)], [0, np.sin(0.2), np.cos(0.2)]])
    columns = rotation_to_6d(tilt @ pointing_down(0.4))
    found = arm_hand().target_of({"state": np.array([0.5, 0, 0.2, *columns, 0.08])})
    assert found.yaw == pytest.approx(0.4, abs=0.02)


def test_a_planar_hand_with_and_without_gripper():
    target = HandTarget(x=0.1, y=0.3, closure=1.0)
    gripper = PlanarHand(low=(-0.2, 0.1), high=(0.2, 0.5))
    gripper.check(SCHEMA)
    np.testing.assert_allclose(gripper.action_of(target), np.float32([0.1, 0.3, 1]))
    state = np.array([0.1, 0.3, 1.0], np.float32)
    assert gripper.target_of({"state": state}).closure == 1.0

    push_t = PlanarHand(low=(0, 0), high=(512, 512), gripper=False, up="-y", unit="")
    push_t.check(FULL_SCHEMA.select(("state", "action")))
    np.testing.assert_array_equal(push_t.action_of(HandTarget(x=30, y=40)), [30, 40])
    found = push_t.target_of({"state": np.array([30, 40, 9, 9, 1], np.float32)})
    assert (found.x, found.y, found.closure) == (30, 40, 0)


def test_a_mapping_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"'action' has shape \(3,\), expected \(10,\)"):
        arm_hand().check(SCHEMA)
    with pytest.raises(ValueError, match=r"'action' has shape \(10,\), expected \(3,\)"):
        PlanarHand(low=(0, 0), high=(1, 1)).check(ARM_SCHEMA)
    with pytest.raises(KeyError, match="no feature 'hand'"):
        PlanarHand(low=(0, 0), high=(1, 1), state="hand").check(SCHEMA)


def test_targets_are_clipped_to_the_reach():
    clipped = arm_hand().reach.clip(HandTarget(x=2, y=-2, z=-1, yaw=9, closure=3))
    assert clipped == HandTarget(x=0.8, y=-0.4, z=0.0, yaw=1.5, closure=1.0)


@pytest.mark.parametrize(
    ("low", "high", "options", "message"),
    [
        ((0, 1), (1, 0), {}, "y: low 1 is above high 0"),
        ((0, 0), (0, 1), {}, "room"),
        ((0, 0), (1, 1), {"right": "x", "up": "-x"}, "the same axis"),
        ((0, 0), (1, 1), {"right": "z"}, "each one of"),
    ],
)
def test_a_reach_that_makes_no_pad_is_refused(low, high, options, message: str):
    with pytest.raises(ValueError, match=message):
        Reach(low=HandTarget(x=low[0], y=low[1]), high=HandTarget(x=high[0], y=high[1]), **options)


def test_a_stride_goes_straight_and_not_too_far():
    now, aim = HandTarget(x=0, y=0, z=0), HandTarget(x=3, y=0, z=4, yaw=-1, closure=1)
    stride = stride_towards(now, aim, stride=0.5, turn_rad=0.2)
    np.testing.assert_allclose(stride.position, [0.3, 0, 0.4])
    assert stride.yaw == pytest.approx(-0.2)
    assert stride.closure == 1
    assert stride_towards(now, aim, stride=50, turn_rad=2) == aim
    assert stride_towards(aim, aim, stride=0.5, turn_rad=0.2) == aim


@pytest.mark.parametrize(
    "data", [None, [], {"x": 1}, {"x": 1, "y": 2, "z": 0, "yaw": 0, "closure": None}]
)
def test_what_is_no_target_is_refused(data: object):
    with pytest.raises(ValueError, match="hand target"):
        HandTarget.from_json(data)


def test_infinity_is_no_target():
    data = {**HandTarget(x=0, y=0).to_json(), "y": float("inf")}
    with pytest.raises(ValueError, match="y is inf"):
        HandTarget.from_json(data)


HERE, THERE = HandTarget(x=0, y=0), HandTarget(x=1, y=1)


def test_the_first_page_drives_until_it_leaves():
    seat = DriverSeat(ManualClock(), max_silence_s=1.0)
    seat.place(HERE)
    assert seat.view().presence == "empty"
    assert seat.take(1)
    assert not seat.take(2)
    assert not seat.drive(2, epoch=1, target=THERE)
    assert seat.drive(1, epoch=1, target=THERE)
    seat.leave(2)
    assert seat.view().driver == 1
    seat.leave(1)
    assert seat.take(2)
    assert seat.view().target == THERE


def test_a_silent_driver_is_noticed_and_may_be_replaced():
    clock = ManualClock()
    seat = DriverSeat(clock, max_silence_s=1.0)
    seat.take(1)
    clock.advance(0.9)
    seat.hear(1)
    clock.advance(0.9)
    assert seat.view().presence == "present"
    clock.advance(0.2)
    assert seat.view().presence == "silent"
    assert seat.take(2)
    assert seat.view().presence == "present"


def test_targets_from_before_the_loop_placed_one_count_no_more():
    seat = DriverSeat(ManualClock(), max_silence_s=1.0)
    seat.take(1)
    assert not seat.drive(1, epoch=0, target=THERE)  # nothing placed yet
    seat.place(HERE)
    seat.place(HERE)
    assert not seat.drive(1, epoch=1, target=THERE)
    assert seat.view().target == HERE
    assert seat.drive(1, epoch=2, target=THERE)
    assert seat.view().target == THERE
