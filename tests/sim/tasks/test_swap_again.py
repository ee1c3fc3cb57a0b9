"""Swap after swap in one episode: what the end of a period changes, and how each swap is judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sim.arm.environment import ArmEnvironment
from sim.arm.physics import HOME_M, ArmPhysics
from sim.experts.scripted_hand import ScriptedHand
from sim.task_descriptions import describe_task
from sim.tasks.swap import Memory, Swap
from sim.tasks.swap_scene import FRUITS, PLATES_M, REST_HEIGHT_M
from tests.contracts.teleoperator_contract import TeleoperatorContract

PERIOD = 180  # control steps
NUM_SWAPS = 3


class TestItsDemonstrator(TeleoperatorContract):
    def make(self):
        environment = ArmEnvironment(Swap(num_swaps=2), features=("state",))
        return environment, ScriptedHand(environment)


class Played:
    """An episode, with the memory before each step and at its end."""

    def __init__(
        self,
        *,
        seed: int = 0,
        intrude: Callable[[ArmEnvironment, int], None] = lambda environment, step: None,
    ) -> None:
        environment = ArmEnvironment(Swap(num_swaps=NUM_SWAPS), features=("state", "oracle"))
        expert = ScriptedHand(environment)
        observation, done = environment.reset(seed), expert.facts()["subgoals"].index("done")
        expert.reset(seed)
        self.memories: list[Memory] = [environment.arm_task.memory]
        self.oracles, self.rewards, self.is_resting = [observation["oracle"]], [], []
        self.facts: list[dict[str, Any]] = []
        while True:
            intrude(environment, len(self.rewards))
            action = expert.act(observation)
            self.is_resting.append(int(expert.labels()["subgoal"][0]) == done)
            result = environment.step(action)
            observation = result.observation
            self.memories.append(environment.arm_task.memory)
            self.oracles.append(observation["oracle"])
            self.rewards.append(result.reward)
            self.facts.append(environment.facts())
            if result.terminated:
                break
        self.success = result.success
        environment.close()


@pytest.fixture(scope="module")
def good() -> Played:
    return Played()


def test_every_swap_of_a_demonstration_is_right_and_so_is_the_episode(good: Played):
    assert good.success
    assert len(good.rewards) == NUM_SWAPS * PERIOD
    facts = good.facts[-1]
    assert facts["swaps"] == facts["swaps_on_time"] == [True] * NUM_SWAPS
    assert (facts["swaps_done"], facts["swaps_failed"]) == (NUM_SWAPS, 0)


def test_a_period_ends_with_the_clock_and_starts_from_the_layout_there_is(good: Played):
    for number in range(1, NUM_SWAPS):
        before, after = good.memories[number * PERIOD - 1], good.memories[number * PERIOD]
        assert (before.num_moves, len(before.swaps_on_time)) == (3, number - 1)
        assert (after.num_moves, len(after.swaps_on_time)) == (0, number)
        assert after.start == after.lies_on == before.start[::-1]
        np.testing.assert_array_equal(good.oracles[number * PERIOD][6:], [1, 0, 0, 0])
        np.testing.assert_array_equal(good.oracles[number * PERIOD - 1][6:], [0, 0, 0, 1])
    assert good.memories[-1].num_moves == 3  # the last one's are told at the end


def test_the_demonstrator_rests_until_the_period_is_over_and_then_starts_at_once(good: Played):
    resting = np.array(good.is_resting).reshape(NUM_SWAPS, PERIOD)
    assert not resting[:, 0].any()
    assert resting[:, -1].all()
    assert (np.diff(resting.astype(int), axis=1) != 0).sum() == NUM_SWAPS  # once a period
    assert 10 <= resting.sum(1).min() <= resting.sum(1).max() <= 60


def test_swaps_are_counted_as_they_are_made(good: Played):
    done = [facts["swaps_done"] for facts in good.facts]
    for number in range(1, NUM_SWAPS):
        assert (number - 1) * PERIOD + 120 < done.index(number) < number * PERIOD
    assert np.all(np.diff(done) >= 0)


def test_reward_grows_with_the_swaps(good: Played):
    at_ends = [good.rewards[number * PERIOD - 1] for number in range(1, NUM_SWAPS + 1)]
    assert at_ends == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert np.all(np.diff(good.rewards) > -1e-9)


def test_a_hand_that_is_ahead_of_the_clock_makes_its_swaps_all_the_same():
    ghost = Ghost(num_swaps=3)
    for _ in range(3):
        ghost.swap()
        ghost.stay(12)  # 18 steps in all, of 30
    ghost.stay(90 - 3 * 18)
    facts = ghost.task.facts(ghost.world)
    assert facts["swaps"] == [True, True, True]
    assert facts["swaps_on_time"] == [False, True, False]  # two swaps, one, none
    assert ghost.task.is_success(ghost.world)


def test_a_swap_too_many_after_the_last_is_no_success_of_one_but_of_several():
    for num_swaps in (1, 2):
        ghost = Ghost(num_swaps=num_swaps)
        for _ in range(num_swaps + 1):
            ghost.swap()
            ghost.stay(10)
        ghost.stay(30 * num_swaps - 16 * (num_swaps + 1))
        assert ghost.task.is_success(ghost.world) == (num_swaps > 1)


def test_a_move_too_many_fails_its_swap_only():
    ghost = Ghost(num_swaps=3)
    ghost.swap()
    ghost.move("apple")
    ghost.stay(12)
    ghost.swap()
    ghost.stay(12)
    assert ghost.task.facts(ghost.world)["swaps"] == [False, True]
    ghost.stay(90 - 38)
    facts = ghost.task.facts(ghost.world)
    assert facts["swaps"] == [False, True, False]  # the third was not made by the end
    assert not ghost.task.is_success(ghost.world)


def test_the_last_swap_needs_no_rest_before_the_end():
    ghost = Ghost(num_swaps=2)
    ghost.swap()
    ghost.stay(60 - 6 - 6 - 2)
    ghost.swap()
    ghost.stay(2)
    assert ghost.task.memory.step == 60
    assert ghost.task.is_success(ghost.world)


class Ghost:
    """Makes a move in two control steps, with periods of 30: apple on plate 0, orange on 1."""

    def __init__(self, *, num_swaps: int) -> None:
        self.task = Swap(num_swaps=num_swaps, duration_s=3.0)
        self.world = ArmPhysics(self.task.build)
        self.task.initialize(self.world, np.random.default_rng(0))
        for plate, name in enumerate(FRUITS):
            self.world.place(name, np.array([*PLATES_M[plate], REST_HEIGHT_M]))
        self.task.memory = Memory.of((0, 1))

    def swap(self) -> None:
        for name in ("apple", "orange", "apple"):
            self.move(name)

    def move(self, name: str) -> None:
        """Bring `name` to the free plate, away from home."""
        (free,) = {0, 1, 2} - set(self.task.memory.lies_on)
        self.world.set_hand(HOME_M + [0.0, 0.0, 0.1], yaw=0.0)
        for height in (0.1, 0.0):
            self.world.place(name, np.array([*PLATES_M[free], REST_HEIGHT_M + height]))
            self.task.advance(self.world)

    def stay(self, steps: int) -> None:
        self.world.set_hand(HOME_M, yaw=0.0)
        for _ in range(steps):
            self.task.advance(self.world)


def test_a_fruit_on_the_floor_fails_that_swap_and_all_later_ones():
    def drop(environment: ArmEnvironment, step: int) -> None:
        if step >= PERIOD:
            environment.physics.place("apple", np.array([0.35, 0.25, REST_HEIGHT_M]))

    episode = Played(intrude=drop)
    facts = episode.facts[-1]
    assert facts["swaps"] == facts["swaps_on_time"] == [True, False, False]
    assert facts["swaps_failed"] == 2
    assert not episode.success


def test_how_many_swaps_must_make_sense():
    with pytest.raises(ValueError, match="num_swaps is 0, expected at least 1"):
        Swap(num_swaps=0)


@pytest.mark.parametrize("num_swaps", [2, 4, 10])
def test_the_named_tasks_are_swap_with_a_number(num_swaps: int):
    once, again = describe_task("swap"), describe_task(f"swap_{num_swaps}")
    assert again.name == f"swap_{num_swaps}"
    assert again.environment.task.pop("num_swaps") == num_swaps
    again.name = "swap"
    assert again == once
