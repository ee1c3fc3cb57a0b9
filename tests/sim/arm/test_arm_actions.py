"""What actions mean: rotations in six numbers, and the two ways to name a hand target."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sim.arm.actions import (
    FEATURES,
    WORKSPACE_HIGH_M,
    WORKSPACE_LOW_M,
    ActionMode,
    HandTarget,
    action_towards,
    pointing_down,
    rotation_from_6d,
    rotation_to_6d,
    target_of,
)

numbers = st.floats(-1.0, 1.0, allow_subnormal=False)
vectors = st.tuples(numbers, numbers, numbers).map(np.array)
rotations = vectors.map(lambda v: Rotation.from_rotvec(3.1 * v).as_matrix())
inside = vectors.map(
    lambda v: (
        (WORKSPACE_LOW_M + WORKSPACE_HIGH_M) / 2 + v * (WORKSPACE_HIGH_M - WORKSPACE_LOW_M) / 2
    )
)


@st.composite
def targets(draw: st.DrawFn) -> HandTarget:
    opening = draw(st.floats(0.0, 0.08))
    return HandTarget(position=draw(inside), rotation=draw(rotations), opening=opening)


def check_rotation(matrix: np.ndarray) -> None:
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(3), atol=1e-9)
    assert np.linalg.det(matrix) == pytest.approx(1.0)


@given(rotation=rotations)
def test_any_rotation_survives_six_numbers(rotation: np.ndarray):
    columns = rotation_to_6d(rotation)
    np.testing.assert_array_equal(columns[:3], rotation[:, 0])
    np.testing.assert_array_equal(columns[3:], rotation[:, 1])
    np.testing.assert_allclose(rotation_from_6d(columns), rotation, atol=1e-12)


@given(rotation=rotations, noise=st.lists(numbers, min_size=6, max_size=6).map(np.array))
def test_noisy_columns_give_a_rotation_near_by(rotation: np.ndarray, noise: np.ndarray):
    read = rotation_from_6d(rotation_to_6d(rotation) + 0.2 * noise)
    check_rotation(read)
    assert Rotation.from_matrix(read.T @ rotation).magnitude() < 0.9
    close = rotation_from_6d(rotation_to_6d(rotation) + 0.002 * noise)
    assert Rotation.from_matrix(close.T @ rotation).magnitude() < 0.01


@given(rotation=rotations, scale=st.floats(1e-3, 1e3))
def test_the_length_of_columns_does_not_matter(rotation: np.ndarray, scale: float):
    np.testing.assert_allclose(
        rotation_from_6d(scale * rotation_to_6d(rotation)), rotation, atol=1e-9
    )


@pytest.mark.parametrize(
    "columns",
    [(0, 0, 0, 0, 0, 0), (1, 0, 0, 0, 0, 0), (0, 0, 0, 0, 1, 0), (0, 1, 0, 0, -2, 0), (1e200,) * 6],
)
def test_what_means_no_rotation_is_refused(columns: tuple[float, ...]):
    with pytest.raises(ValueError, match="not a rotation.*entries 3 to 8.*differ in direction"):
        rotation_from_6d(np.array(columns, np.float64))


@pytest.mark.parametrize("mode", ["absolute", "relative"])
@given(target=targets(), hand=targets())
def test_actions_and_targets_are_each_others_inverse(
    mode: ActionMode, target: HandTarget, hand: HandTarget
):
    action = action_towards(target, mode=mode, hand=hand)
    assert action.shape == FEATURES[mode].shape
    back = target_of(action, mode=mode, hand=hand)
    np.testing.assert_allclose(back.to_vector(), target.to_vector(), atol=1e-9)


@given(target=targets(), hand=targets())
def test_only_relative_actions_depend_on_where_the_hand_is(target: HandTarget, hand: HandTarget):
    absolute = action_towards(target, mode="absolute", hand=hand)
    np.testing.assert_array_equal(absolute, target.to_vector())
    stay = action_towards(hand, mode="relative", hand=hand)
    np.testing.assert_allclose(stay[:9], [0, 0, 0, 1, 0, 0, 0, 1, 0], atol=1e-9)


def test_relative_ways_are_along_the_bases_axes_whatever_the_hands_turn():
    hand = HandTarget(position=np.array([0.5, 0, 0.2]), rotation=pointing_down(0.7), opening=0.0)
    turn = Rotation.from_euler("z", 0.3).as_matrix()
    action = np.array([0.01, 0.02, 0.03, *rotation_to_6d(turn), 0.05])
    target = target_of(action, mode="relative", hand=hand)
    np.testing.assert_allclose(target.position, [0.51, 0.02, 0.23])
    np.testing.assert_allclose(target.rotation, turn @ hand.rotation)
    assert target.opening == 0.05  # not relative: how wide, not how much wider


def test_targets_beyond_the_workspace_are_brought_back_to_its_edge():
    action = np.array([9.0, -9.0, -9.0, *rotation_to_6d(pointing_down(0.0)), 1.0])
    target = target_of(action, mode="absolute", hand=target_in_the_middle())
    np.testing.assert_array_equal(target.position, [0.80, -0.45, 0.005])
    assert target.opening == 0.08
    opening = target_of(-action, mode="relative", hand=target_in_the_middle()).opening
    assert opening == 0.0


def target_in_the_middle() -> HandTarget:
    return HandTarget(position=np.array([0.5, 0, 0.2]), rotation=pointing_down(0.0), opening=0.0)


def test_pointing_down_turns_about_the_vertical():
    for yaw in (-1.0, 0.0, 0.4):
        tool = pointing_down(yaw)
        check_rotation(tool)
        np.testing.assert_allclose(tool[:, 2], [0, 0, -1])
        turned = Rotation.from_euler("z", yaw).as_matrix() @ pointing_down(0.0)
        np.testing.assert_allclose(tool, turned, atol=1e-12)
