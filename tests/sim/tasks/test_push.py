"""Push: the contracts, what counts as success, and how the demonstrator steers."""

from __future__ import annotations

import numpy as np
import pytest

from sim.arm.actions import HandTarget, pointing_down
from sim.arm.environment import ArmEnvironment
from sim.arm.physics import HOME_M
from sim.experts.scripted_hand import ScriptedHand
from sim.tasks.push import (
    HIGH_M,
    LOW_M,
    MARK_M,
    MIN_WAY_M,
    PUCK,
    PUCK_HALF_HEIGHT_M,
    PUSH_HEIGHT_M,
    STEER,
    TOLERANCE_M,
    TOUCH_M,
    Push,
    distance_to_mark,
    puck_place,
    push_direction,
    steer,
)
from tests.contracts.environment_contract import EnvironmentContract
from tests.contracts.teleoperator_contract import TeleoperatorContract


def push_environment() -> ArmEnvironment:
    return ArmEnvironment(Push(), features=("state", "objects"), render_pixels=256)


class TestPushEnvironment(EnvironmentContract):
    def make(self):
        return push_environment()

    def typical_action(self, rng):
        position = HOME_M + rng.uniform(-0.04, 0.04, size=3)
        target = HandTarget(
            position=position, rotation=pointing_down(rng.uniform(-0.3, 0.3)), opening=0.0
        )
        return target.to_vector().astype(np.float32)


class TestPushExpert(TeleoperatorContract):
    def make(self):
        environment = push_environment()
        return environment, ScriptedHand(environment)


@pytest.fixture(scope="module")
def environment() -> ArmEnvironment:
    return push_environment()


def put_puck(environment: ArmEnvironment, place: np.ndarray, *, height: float = 0.0) -> None:
    height += PUCK_HALF_HEIGHT_M
    environment.physics.place(PUCK, np.array([*place, height]))


def stay(environment: ArmEnvironment) -> np.ndarray:
    """The action that keeps the hand where it is."""
    return environment.physics.hand.to_vector()


def test_the_puck_starts_anywhere_on_the_table_but_near_the_mark(environment: ArmEnvironment):
    places, ways = [], []
    for seed in range(60):
        environment.reset(seed)
        places.append(puck_place(environment.physics))
        ways.append(distance_to_mark(environment.physics))
        assert np.linalg.norm(environment.physics.velocity(PUCK)) < 1e-3
        assert not environment.physics.is_touching(PUCK)
    assert (np.min(places, axis=0) >= LOW_M - 1e-3).all()
    assert (np.max(places, axis=0) <= HIGH_M + 1e-3).all()
    assert min(ways) >= MIN_WAY_M - 1e-3
    spread = np.ptp(places, axis=0) / (HIGH_M - LOW_M)
    assert (spread > 0.9).all()


def test_the_hand_reaches_behind_every_start(environment: ArmEnvironment):
    kinematics = environment.physics.kinematics
    for seed in range(60):
        environment.reset(seed)
        world = environment.physics
        behind = puck_place(world) - (TOUCH_M + 0.04) * push_direction(world)
        position = np.array([*behind, PUSH_HEIGHT_M])
        above, _ = kinematics.solve(
            position + [0, 0, 0.1], pointing_down(0.4), start=world.joint_positions
        )
        _, error = kinematics.solve(position, pointing_down(0.4), start=above)
        assert error < 0.001


def test_the_puck_does_not_fit_between_the_fingers(environment: ArmEnvironment):
    environment.reset(0)
    geom = environment.physics.model.geom(f"{PUCK}_body")
    assert 2 * geom.size[0] > environment.physics.opening + 0.015


def test_who_stands_still_never_succeeds(environment: ArmEnvironment):
    environment.reset(1)
    result = environment.step(stay(environment))
    while not result.terminated:
        assert result.reward < 0.01
        result = environment.step(stay(environment))
    assert not result.success


@pytest.mark.parametrize(("off", "success"), [(0.9, True), (1.1, False)])
def test_success_is_the_puck_within_the_mark(
    environment: ArmEnvironment, off: float, success: bool
):
    environment.reset(2)
    put_puck(environment, MARK_M + [0.0, off * TOLERANCE_M])
    result = environment.step(stay(environment))
    assert result.success is success
    assert (result.reward == 1.0) is success


def test_a_puck_that_slides_hangs_or_is_touched_does_not_count(environment: ArmEnvironment):
    world, task = environment.physics, environment.arm_task
    environment.reset(3)
    put_puck(environment, MARK_M)
    assert task.is_success(world)
    world.nudge(PUCK, velocity=np.array([0.1, 0.0, 0.0]))
    assert not task.is_success(world)
    put_puck(environment, MARK_M, height=0.02)
    assert not task.is_success(world)
    put_puck(environment, MARK_M)
    world.set_hand(np.array([*MARK_M, 2 * PUCK_HALF_HEIGHT_M]), yaw=0.0)  # fingers on it
    assert world.is_touching(PUCK)
    assert not task.is_success(world)


def test_reward_is_the_share_of_the_way(environment: ArmEnvironment):
    world, task = environment.physics, environment.arm_task
    environment.reset(4)
    start, way = puck_place(world), distance_to_mark(world)
    for share in (0.0, 0.3, 0.6):
        put_puck(environment, start + share * way * push_direction(world))
        assert task.reward(world) == pytest.approx(0.95 * share, abs=1e-3)
        put_puck(environment, start)
    put_puck(environment, start - 0.05 * push_direction(world))
    assert task.reward(world) == 0.0


def test_what_is_pushed_neither_slides_away_nor_sticks(environment: ArmEnvironment):
    """Struck at the speed of a push, it slides, and stops within a centimetre."""
    world = environment.physics
    environment.reset(5)
    put_puck(environment, MARK_M)
    world.nudge(PUCK, velocity=np.array([0.0, 0.3, 0.0]))
    world.settle(0.3)
    assert np.linalg.norm(world.velocity(PUCK)) < 1e-3
    assert 0.005 < distance_to_mark(world) < 0.013


def test_the_hand_turns_back_to_the_line_of_push(environment: ArmEnvironment):
    world = environment.physics
    environment.reset(6)
    put_puck(environment, MARK_M + [0.2, 0.0])  # to be pushed along -x
    world.set_hand(np.array([*(MARK_M + [0.2 + TOUCH_M, 0.01]), PUSH_HEIGHT_M]), yaw=0.0)
    way = steer(world) - world.tcp_position
    assert way[0] < 0
    assert way[1] / -way[0] == pytest.approx(-STEER * 0.01 / TOUCH_M, rel=0.05)
    world.set_hand(np.array([*(MARK_M + [0.2 + TOUCH_M, 0.04]), PUSH_HEIGHT_M]), yaw=0.0)
    np.testing.assert_array_equal(steer(world), world.tcp_position)  # lost: go round again


@pytest.mark.parametrize("off", [-0.015, 0.015])
def test_a_stroke_that_begins_off_the_line_brings_the_puck_home(
    environment: ArmEnvironment, off: float
):
    """Unsteered, the puck is lost after half of these 12 cm."""
    world = environment.physics
    environment.reset(7)
    put_puck(environment, MARK_M + [0.12, 0.0])
    world.set_hand(np.array([*(MARK_M + [0.12 + TOUCH_M + 0.02, off]), PUSH_HEIGHT_M]), yaw=0.0)
    down, here = pointing_down(0.0), world.tcp_position
    for _ in range(9):  # the fingers close
        environment.step(HandTarget(position=here, rotation=down, opening=0.0).to_vector())
    for _ in range(15):
        way = steer(world) - world.tcp_position
        stride = way * min(1.0, 0.02 / max(float(np.linalg.norm(way)), 1e-9))
        target = HandTarget(position=world.tcp_position + stride, rotation=down, opening=0.0)
        environment.step(target.to_vector())
    assert distance_to_mark(world) < TOLERANCE_M


def test_the_demonstrator_succeeds_and_sometimes_goes_round_again(environment: ArmEnvironment):
    expert, subgoals = ScriptedHand(environment), environment.arm_task.subgoals
    num_strokes = []
    for seed in range(5):
        observation, pursued, success = environment.reset(seed), [""], False
        expert.reset(seed)
        while not success:
            result = environment.step(expert.act(observation))
            observation, success = result.observation, result.success
            pursued.append(subgoals[int(expert.labels()["subgoal"][0])])
            assert len(pursued) <= 0.75 * environment.max_steps, f"seed {seed}"
        num_strokes.append(
            sum(b == "push" != a for a, b in zip(pursued, pursued[1:], strict=False))
        )
    assert min(num_strokes) >= 1
    assert max(num_strokes) >= 2
