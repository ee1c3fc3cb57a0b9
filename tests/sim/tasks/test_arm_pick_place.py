"""Pick and place with the arm: the contracts, where it starts, what counts, its demonstrator."""

from __future__ import annotations

import numpy as np
import pytest

from sim.arm.actions import pointing_down, rotation_to_6d
from sim.arm.environment import ArmEnvironment
from sim.arm.physics import HOME_M
from sim.experts.scripted_hand import ScriptedHand
from sim.tasks.arm_pick_place import (
    APART_M,
    BLOCK,
    BLOCK_HALF_M,
    HIGH_M,
    INSIDE_M,
    LOW_M,
    ON_TRAY_M,
    TRAY,
    ArmPickPlace,
    grasp_yaw,
)
from tests.contracts.environment_contract import EnvironmentContract
from tests.contracts.teleoperator_contract import TeleoperatorContract
from tests.sim.arm.arm_motions import down_at, go, grasp


def arm_pick_place() -> ArmEnvironment:
    """Without cameras, at a start."""
    environment = ArmEnvironment(ArmPickPlace(), features=("state", "objects"), render_pixels=256)
    environment.reset(0)
    return environment


class TestArmPickPlaceEnvironment(EnvironmentContract):
    def make(self):
        return ArmEnvironment(ArmPickPlace(), features=("state", "objects"), render_pixels=256)

    def typical_action(self, rng):
        position = HOME_M + rng.uniform(-0.05, 0.05, size=3)
        rotation = rotation_to_6d(pointing_down(rng.uniform(-0.2, 0.2)))
        return np.array([*position, *rotation, rng.uniform(0.0, 0.08)], np.float32)


class TestItsDemonstrator(TeleoperatorContract):
    def make(self):
        environment = arm_pick_place()
        return environment, ScriptedHand(environment)


def test_starts_are_apart_on_the_table_and_turned_anyhow():
    environment = arm_pick_place()
    world, turns = environment.physics, []
    for seed in range(100):
        environment.reset(seed)
        block, tray = world.position(BLOCK)[:2], world.position(TRAY)[:2]
        for thing in (block, tray):
            assert (thing > LOW_M - 0.002).all()
            assert (thing < HIGH_M + 0.002).all()
        assert np.linalg.norm(block - tray) > APART_M - 0.002
        assert not world.is_in_contact
        assert world.position(BLOCK)[2] == pytest.approx(BLOCK_HALF_M, abs=0.001)
        turns.append(grasp_yaw(world.yaw(BLOCK)))
    # evenly over -pi/4 to pi/4
    assert np.mean(np.abs(turns)) == pytest.approx(np.pi / 8, abs=0.08)
    assert np.mean(turns) == pytest.approx(0.0, abs=0.15)


def test_standing_still_never_succeeds():
    environment = arm_pick_place()
    action = environment.physics.action_towards(environment.physics.hand)
    results = [environment.step(action) for _ in range(environment.max_steps)]
    assert not any(result.success for result in results)
    assert results[-1].terminated
    assert max(result.reward for result in results) < 0.25


@pytest.mark.parametrize(("share", "counts"), [(0.0, True), (0.97, True), (1.03, False)])
def test_the_block_counts_wherever_it_lies_on_the_tray(share: float, counts: bool):
    environment = arm_pick_place()
    world, task = environment.physics, environment.arm_task
    aside = world.rotation(TRAY) @ np.array([0.0, share * INSIDE_M, 0.0])
    world.place(BLOCK, world.position(TRAY) + ON_TRAY_M + aside, yaw=1.0)
    world.settle()
    assert task.is_success(world) is counts
    assert environment.task.reward(world) == pytest.approx(1.0) or not counts


def test_above_the_tray_or_sliding_on_it_does_not_count():
    environment = arm_pick_place()
    world, task = environment.physics, environment.arm_task
    world.place(BLOCK, world.position(TRAY) + ON_TRAY_M + [0.0, 0.0, 0.01])
    assert not task.is_success(world)
    world.place(BLOCK, world.position(TRAY) + ON_TRAY_M)
    assert task.is_success(world)
    world.nudge(BLOCK, velocity=np.array([0.1, 0.0, 0.0]))
    assert not task.is_success(world)


def test_a_held_block_counts_only_when_it_is_down_and_the_hand_away():
    environment = arm_pick_place()
    world, task = environment.physics, environment.arm_task
    world.place(TRAY, np.array([0.45, 0.10, world.position(TRAY)[2]]))
    world.place(BLOCK, np.array([0.50, -0.12, BLOCK_HALF_M]))
    far = task.reward(world)
    grasp(world, BLOCK)
    assert world.is_holding(BLOCK)
    held = task.reward(world)
    goal = world.position(TRAY) + ON_TRAY_M
    go(world, down_at(goal + [0.0, 0.0, 0.1], opening=0.0))
    above = task.reward(world)
    assert not task.is_success(world)
    go(world, down_at(goal, opening=0.0))
    down = task.reward(world)
    assert not task.is_success(world)  # it rests there, but in the hand
    assert 0 <= far < held < above < down < 1
    go(world, down_at(goal, opening=0.07))
    assert not world.is_touching(BLOCK)
    assert not task.is_success(world)  # between the open fingers
    go(world, down_at(goal + [0.0, 0.0, 0.08], opening=0.07))
    assert task.is_success(world)


@pytest.mark.parametrize("yaw", [-3.0, -0.8, -0.2, 0.0, 0.7, 0.9, 2.5])
def test_the_hand_turns_to_the_nearest_faces(yaw: float):
    turn = grasp_yaw(yaw)
    assert abs(turn) <= np.pi / 4
    quarters = (turn - yaw) / (np.pi / 2)
    assert quarters == pytest.approx(round(quarters), abs=1e-9)


def test_the_demonstrator_succeeds_with_rising_reward_and_names_what_it_does():
    environment = arm_pick_place()
    hand, world = ScriptedHand(environment), environment.physics
    for seed in range(5):
        observation = environment.reset(seed)
        hand.reset(seed)
        rewards, labels, off = [0.0], [], []
        result = None
        while result is None or not result.terminated:
            result = environment.step(hand.act(observation))
            observation = result.observation
            rewards.append(result.reward)
            labels.append(int(hand.labels()["subgoal"][0]))
            if labels[-1] == environment.arm_task.subgoals.index("grasp"):
                along = world.tcp_rotation[:, 0] @ world.rotation(BLOCK)[:, :2]
                off.append(1 - np.abs(along).max())
        assert result.success
        assert min(np.diff(rewards)) > -0.03
        assert set(labels) == set(range(len(environment.arm_task.subgoals)))
        assert (np.diff(labels) >= 0).all()  # nothing was tried twice
        assert max(off) < 0.02  # the fingers face two faces of the block
