"""The arm's physics is a function of start and actions, and can be gone back to."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from sim.arm.physics import ArmPhysics
from tests.sim.arm.arm_motions import down_at, fruit_world, grasp, trajectory, wild_actions


def contacts(world: ArmPhysics) -> np.ndarray:
    """Which geoms touch how deeply, in MuJoCo's order."""
    return np.column_stack([world.data.contact.geom, world.data.contact.dist])


def test_same_start_and_actions_give_the_same_states_to_the_bit():
    one, two = fruit_world(seed=3), fruit_world(seed=3)
    actions = wild_actions(one, num=40)
    first = trajectory(one, actions)
    np.testing.assert_array_equal(first, trajectory(two, actions))
    assert not np.array_equal(first[-1], trajectory(fruit_world(seed=4), actions)[-1])


DIGEST = """
from tests.sim.arm.test_arm_states import digest
print(digest())
"""


def digest() -> str:
    """Of a trajectory."""
    world = fruit_world(seed=5)
    states = trajectory(world, wild_actions(world, num=20))
    return hashlib.sha256(states.tobytes()).hexdigest()


def test_another_process_gives_the_same_states_to_the_bit():
    answer = subprocess.run(
        [sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == digest()


@pytest.mark.parametrize("in_another_world", [False, True])
def test_a_restored_state_goes_on_to_the_bit_while_a_fruit_is_held(in_another_world: bool):
    world = fruit_world(seed=2)
    grasp(world, "orange", lift_m=0.03)
    saved, touching = world.save(), contacts(world)
    assert len(touching) >= 2
    actions = wild_actions(world, num=25)
    expected = trajectory(world, actions)
    hand, things = world.hand, [world.position(name) for name in world.movable_names]

    again = fruit_world(seed=9) if in_another_world else world
    again.restore(saved)
    np.testing.assert_array_equal(contacts(again), touching)
    assert again.is_holding("orange")
    np.testing.assert_array_equal(trajectory(again, actions), expected)
    np.testing.assert_array_equal(again.hand.to_vector(), hand.to_vector())
    for name, position in zip(again.movable_names, things, strict=True):
        np.testing.assert_array_equal(again.position(name), position)


def test_a_saved_state_is_not_changed_by_what_comes_later():
    world = fruit_world()
    saved = world.save()
    actions = wild_actions(world, num=5)
    runs = []
    for _ in range(3):
        world.restore(saved)
        runs.append(trajectory(world, actions))
    for one, two in pairwise(runs):
        np.testing.assert_array_equal(one, two)


def test_reading_a_state_changes_nothing():
    """Whoever restores right after saving, or looks at anything, does not disturb the physics."""
    quiet, nosy = fruit_world(), fruit_world()
    actions = wild_actions(quiet, num=15)
    expected = trajectory(quiet, actions)
    for action, state in zip(actions, expected, strict=True):
        nosy.restore(nosy.save())
        nosy.step(action)
        assert nosy.action_towards(down_at((0.5, 0.0, 0.3))).shape == (10,)
        assert nosy.is_in_contact in (True, False)
        np.testing.assert_array_equal(np.concatenate([nosy.data.qpos, nosy.data.qvel]), state)


def test_reset_forgets_the_past():
    fresh, used = fruit_world(), fruit_world()
    grasp(used, "apple")
    used.reset()
    fresh.reset()
    actions = wild_actions(fresh, num=10)
    np.testing.assert_array_equal(trajectory(used, actions), trajectory(fresh, actions))
