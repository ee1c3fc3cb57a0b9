"""Moving target: the contracts, the jumps, what counts as success, and how soon the hand turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
import pytest

from sim.arm.actions import HandTarget, pointing_down
from sim.arm.environment import ArmEnvironment
from sim.arm.physics import HOME_M
from sim.experts.scripted_hand import ScriptedHand
from sim.tasks.moving_target import (
    ACROSS_RAD,
    CUBE,
    HALF_SIZE_M,
    HIGH_M,
    JUMP_M,
    LIFTED_M,
    LOW_M,
    SPARED_M,
    TOP_M,
    MovingTarget,
    distance_to_cube,
)
from tests.contracts.environment_contract import EnvironmentContract
from tests.contracts.teleoperator_contract import TeleoperatorContract


def moving_target_environment(*, rate_hz: float = 10.0) -> ArmEnvironment:
    return ArmEnvironment(
        MovingTarget(), features=("state", "objects"), rate_hz=rate_hz, render_pixels=256
    )


class TestMovingTargetEnvironment(EnvironmentContract):
    def make(self):
        return moving_target_environment()

    def typical_action(self, rng):
        position = HOME_M + rng.uniform(-0.04, 0.04, size=3)
        target = HandTarget(
            position=position, rotation=pointing_down(rng.uniform(-0.3, 0.3)), opening=0.07
        )
        return target.to_vector().astype(np.float32)


class TestMovingTargetExpert(TeleoperatorContract):
    def make(self):
        environment = moving_target_environment()
        return environment, ScriptedHand(environment)


@pytest.fixture(scope="module")
def environment() -> ArmEnvironment:
    return moving_target_environment()


def task_of(environment: ArmEnvironment) -> MovingTarget:
    assert isinstance(environment.arm_task, MovingTarget)
    return environment.arm_task


def drive(
    environment: ArmEnvironment,
    *,
    seed: int,
    wander: float = 1.0,
    delay: int = 0,
    until: Callable[[], bool] = lambda: False,
) -> bool:
    """Let the demonstrator act, each action `delay` steps late; whether it succeeded."""
    expert = ScriptedHand(environment, wander=wander)
    observation = environment.reset(seed)
    expert.reset(seed)
    waiting: deque[np.ndarray] = deque()
    while not until():
        waiting.append(expert.act(observation))
        result = environment.step(waiting[0] if len(waiting) <= delay else waiting.popleft())
        observation = result.observation
        if result.terminated:
            return result.success
    return False


def go_to_the_old_place(environment: ArmEnvironment, *, num_steps: int) -> None:
    """Drive the hand to where the cube was at the start, and hold it there."""
    world = environment.physics
    goal = world.position(CUBE) + [0.0, 0.0, 0.11]
    for _ in range(num_steps):
        way = goal - world.tcp_position
        stride = way * min(1.0, 0.04 / float(np.linalg.norm(way)))
        target = HandTarget(
            position=world.tcp_position + stride, rotation=pointing_down(0.0), opening=0.07
        )
        environment.step(target.to_vector())


def test_starts_and_jumps_lie_within_bounds(environment: ArmEnvironment):
    kinematics, task = environment.physics.kinematics, task_of(environment)
    num_leaps = []
    for seed in range(60):
        environment.reset(seed)
        world, leaps = environment.physics, task.memory.leaps
        places = np.array([task.memory.place, *(leap.place for leap in leaps)])
        num_leaps.append(len(leaps))
        np.testing.assert_allclose(world.position(CUBE)[:2], places[0], atol=1e-3)
        assert world.position(CUBE)[2] == pytest.approx(TOP_M + HALF_SIZE_M, abs=1e-3)
        assert np.linalg.norm(world.velocity(CUBE)) < 1e-3
        assert ((places >= LOW_M) & (places <= HIGH_M)).all()
        lengths = np.linalg.norm(np.diff(places, axis=0), axis=1)
        assert ((lengths >= JUMP_M[0] - 1e-9) & (lengths <= JUMP_M[1] + 1e-9)).all()
        assert distance_to_cube(world) > leaps[0].trigger_m
        for place in places:
            grasp = np.array([*place, TOP_M + HALF_SIZE_M])
            _, error = kinematics.solve(grasp, pointing_down(0.3), start=world.joint_positions)
            assert error < 0.001
    assert set(num_leaps) == {1, 2}


def test_the_first_jump_is_across_the_way_of_the_hand(environment: ArmEnvironment):
    for seed in range(30):
        environment.reset(seed)
        memory, hand = task_of(environment).memory, environment.physics.tcp_position[:2]
        way, leap = memory.place - hand, np.subtract(memory.leaps[0].place, memory.place)
        sine = abs(way @ leap) / np.linalg.norm(way) / np.linalg.norm(leap)
        assert sine <= np.sin(ACROSS_RAD) + 0.01


def test_only_the_cube_is_a_movable_thing(environment: ArmEnvironment):
    assert environment.physics.movable_names == (CUBE,)


@pytest.mark.parametrize("rate_hz", [10.0, 50.0])
def test_the_cube_rides_along_smoothly(rate_hz: float):
    """At any control rate alike: on its carriage, at rest again half a second later."""
    environment = moving_target_environment(rate_hz=rate_hz)
    task, world = task_of(environment), environment.physics
    for seed in range(4):
        drive(environment, seed=seed, until=lambda: len(task.memory.jumps) == 1)
        jump = task.memory.jumps[0]
        length = np.linalg.norm(np.subtract(jump.to, jump.from_))
        np.testing.assert_allclose(world.position(CUBE)[:2], jump.from_, atol=2e-3)
        gone = []
        for _ in range(round(0.6 * rate_hz)):
            environment.step(world.hand.to_vector())
            carriage, cube = world.position("carriage"), world.position(CUBE)
            assert np.linalg.norm(cube[:2] - carriage[:2]) < 0.004
            assert cube[2] == pytest.approx(TOP_M + HALF_SIZE_M, abs=2e-3)
            gone.append(np.linalg.norm(cube[:2] - jump.from_) / length)
        at_100_ms, at_500_ms = gone[round(0.1 * rate_hz) - 1], gone[round(0.5 * rate_hz) - 1]
        assert at_100_ms == pytest.approx(0.17, abs=0.04)
        assert at_500_ms > 0.95


def test_a_jump_waits_until_the_hand_is_near(environment: ArmEnvironment):
    task, world = task_of(environment), environment.physics
    for seed in range(4):
        environment.reset(seed)
        for _ in range(10):
            environment.step(world.hand.to_vector())
        assert task.memory.jumps == ()
        drive(environment, seed=seed, until=lambda: len(task.memory.jumps) == 1)
        assert SPARED_M < distance_to_cube(world) < task.memory.leaps[0].trigger_m


def test_a_moment_within_a_jump_is_gone_back_to_exactly(environment: ArmEnvironment):
    task, world = task_of(environment), environment.physics
    drive(environment, seed=3, until=lambda: len(task.memory.jumps) == 1)
    state, action = environment.save(), world.hand.to_vector()
    first = [environment.step(action).observation["objects"] for _ in range(5)]
    environment.reset(8)
    environment.restore(state)
    again = [environment.step(action).observation["objects"] for _ in range(5)]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[4])


def test_success_is_the_cube_held_high(environment: ArmEnvironment):
    task, world = task_of(environment), environment.physics
    environment.reset(1)
    start = task.reward(world)
    lifted = world.position(CUBE) + [0.0, 0.0, LIFTED_M + 0.01]
    world.place(CUBE, lifted)
    assert not task.is_success(world)  # thrown up is not held
    drive(environment, seed=1, until=lambda: world.is_holding(CUBE))
    held = task.reward(world)
    assert not task.is_success(world)
    assert 0 < start < 0.5 < held < 0.8
    assert drive(environment, seed=1)
    assert world.is_holding(CUBE)
    assert task.is_success(world)


def test_who_stands_still_never_succeeds(environment: ArmEnvironment):
    environment.reset(1)
    action = environment.physics.hand.to_vector()
    result = environment.step(action)
    while not result.terminated:
        assert not result.success
        result = environment.step(action)
    assert task_of(environment).reaction_times_s(environment.physics) == ()


def test_the_demonstrator_succeeds(environment: ArmEnvironment):
    for seed in range(5):
        assert drive(environment, seed=seed), f"seed {seed}"
        assert len(task_of(environment).memory.commanded) <= 0.6 * environment.max_steps


def test_a_hand_that_goes_to_the_old_place_in_the_simulator_has_none(environment: ArmEnvironment):
    for seed in range(3):
        environment.reset(seed)
        go_to_the_old_place(environment, num_steps=25)
        assert task_of(environment).reaction_times_s(environment.physics) == (None,)


def test_reaction_time_grows_with_the_delay_of_the_actions(environment: ArmEnvironment):
    task, world = task_of(environment), environment.physics

    def reaction_s(seed: int, delay: int) -> float:
        def is_known() -> bool:
            return any(task.reaction_times_s(world))

        drive(environment, seed=seed, wander=0.0, delay=delay, until=is_known)
        first, *_ = task.reaction_times_s(world)
        assert first is not None
        return first

    medians = [np.median([reaction_s(seed, delay) for seed in range(4)]) for delay in (0, 1, 2)]
    np.testing.assert_allclose(medians, [0.2, 0.3, 0.4], atol=1e-9)
