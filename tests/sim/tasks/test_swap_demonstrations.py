"""Swap's demonstrations: starts that look like later moments, and an expert that never dwells."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pytest

from sim.arm.environment import ArmEnvironment
from sim.experts.scripted_hand import ScriptedHand
from sim.tasks.swap import Swap
from sim.tasks.swap_scene import FRUITS, PLATES_M, REST_HEIGHT_M, SCATTER_M, on_plate
from tests.contracts.teleoperator_contract import TeleoperatorContract

NUM_EPISODES = 5
MAX_STALL = 4  # control steps without a move before all is done


class TestItsDemonstrator(TeleoperatorContract):
    def make(self):
        environment = ArmEnvironment(Swap(), features=("state",))
        return environment, ScriptedHand(environment)


@dataclass(frozen=True)
class Home:
    """The hand at home: what the policy sees there."""

    lies_on: tuple[int, ...]
    state: np.ndarray
    offsets_m: np.ndarray  # (fruits, 2) of the fruits from their plates
    picture: np.ndarray

    @classmethod
    def of(cls, environment: ArmEnvironment) -> Home:
        world, memory = environment.physics, environment.arm_task.memory
        offsets = [
            world.position(name)[:2] - PLATES_M[plate]
            for name, plate in zip(FRUITS, memory.lies_on, strict=True)
        ]
        return cls(
            lies_on=memory.lies_on,
            state=world.hand.to_vector(),
            offsets_m=np.array(offsets),
            picture=world.picture("front", height=48, width=48).astype(int),
        )


@pytest.fixture(scope="module")
def homes() -> tuple[list[Home], list[Home]]:
    """Starts, and first moments at home after one move, of 30 episodes."""
    environment = ArmEnvironment(Swap(), features=("state",))
    expert = ScriptedHand(environment)
    starts, afters = [], []
    for seed in range(30):
        observation = environment.reset(seed)
        expert.reset(seed)
        starts.append(Home.of(environment))
        while True:
            action = expert.act(observation)
            if expert.facts()["subgoals"][expert.labels()["subgoal"][0]] == "move 2: reach":
                break
            observation = environment.step(action).observation
        afters.append(Home.of(environment))
    environment.close()
    return starts, afters


def test_fruits_lie_alike_at_the_start_and_after_a_move(homes: tuple[list[Home], list[Home]]):
    """A policy must not read from the scatter how often a fruit was moved."""
    starts, afters = (np.array([home.offsets_m for home in one]) for one in homes)
    for offsets in (starts, afters):
        assert np.abs(offsets).max() < SCATTER_M + 0.006
        np.testing.assert_allclose(offsets.mean((0, 1)), 0, atol=0.005)
    np.testing.assert_allclose(starts.std((0, 1)), afters.std((0, 1)), rtol=0.25)


def test_the_hand_rests_alike_at_the_start_and_after_a_move(homes: tuple[list[Home], list[Home]]):
    starts, afters = (np.array([home.state for home in one]) for one in homes)
    np.testing.assert_allclose(starts[:, :3].mean(0), afters[:, :3].mean(0), atol=0.004)
    np.testing.assert_allclose(starts[:, 3:].mean(0), afters[:, 3:].mean(0), atol=0.025)
    np.testing.assert_allclose(starts[:, :5].std(0), afters[:, :5].std(0), rtol=0.5)
    np.testing.assert_allclose(afters[:, 9], 0.08, atol=1e-3)


def test_a_picture_after_a_move_is_as_near_to_starts_as_starts_are_to_each_other(
    homes: tuple[list[Home], list[Home]],
):
    """Of the same layout, by mean difference of grey levels to the nearest."""
    starts, afters = homes

    def nearest(home: Home) -> float:
        others = [s for s in starts if s is not home and s.lies_on == home.lies_on]
        return min(np.abs(home.picture - other.picture).mean() for other in others)

    among_starts = np.median([nearest(home) for home in starts])
    to_starts = np.median([nearest(home) for home in afters])
    assert to_starts < 1.25 * among_starts


def test_starts_cover_all_layouts(homes: tuple[list[Home], list[Home]]):
    assert {home.lies_on for home in homes[0]} == {
        (a, b) for a in (0, 1, 2) for b in {0, 1, 2} - {a}
    }


def test_places_on_a_plate_are_scattered_evenly():
    places = np.array([on_plate(1, np.random.default_rng(seed)) for seed in range(300)])
    offsets = places[:, :2] - PLATES_M[1]
    assert np.abs(offsets).max() <= SCATTER_M
    np.testing.assert_allclose(offsets.std(0), SCATTER_M / np.sqrt(3), rtol=0.1)
    assert (places[:, 2] == REST_HEIGHT_M).all()


def test_the_expert_succeeds_runs_through_its_sub_goals_in_order_and_never_stalls():
    environment = ArmEnvironment(Swap(), features=("state",))
    expert = ScriptedHand(environment)
    names = expert.facts()["subgoals"]
    for seed in range(NUM_EPISODES):
        observation, pursued, stall = environment.reset(seed), [], 0
        expert.reset(seed)
        for _ in range(environment.max_steps):
            action = expert.act(observation)
            pursued.append(names[expert.labels()["subgoal"][0]])
            result = environment.step(action)
            moved = np.abs(result.observation["state"] - observation["state"]).max() >= 0.002
            stall = 0 if moved or pursued[-1] == "done" else stall + 1
            assert stall <= MAX_STALL, f"seed {seed}: stands still in {pursued[-1]}"
            observation = result.observation
        assert result.success, f"seed {seed}"
        assert result.terminated
        in_order = [name for name, _ in groupby(pursued)]
        assert in_order == names, f"seed {seed}: a way-point was tried again or left out"
        assert 110 <= pursued.index("done") <= 170


def test_detours_lead_elsewhere_first_and_still_succeed() -> None:
    straight = ArmEnvironment(Swap(apple_first=True), features=("state",))
    curious = ArmEnvironment(Swap(apple_first=True, detours=1.0), features=("state",))
    lengths = []
    for environment in (straight, curious):
        expert = ScriptedHand(environment)
        observation = environment.reset(4)
        expert.reset(4)
        path, succeeded = [], False
        for _ in range(environment.max_steps):
            outcome = environment.step(expert.act(observation))
            observation, succeeded = outcome.observation, outcome.success
            path.append(environment.physics.tcp_position)
        assert succeeded
        lengths.append(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())
    assert lengths[1] > 1.1 * lengths[0]


@pytest.mark.parametrize("name", ["detours", "misses"])
def test_detours_and_misses_must_be_shares(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} is 1\.5, expected a share from 0 to 1"):
        Swap(**{name: 1.5})
