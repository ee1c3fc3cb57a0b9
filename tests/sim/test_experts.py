"""Experts: the teleoperator contract, their success, and that a policy can imitate them."""

from __future__ import annotations

import numpy as np

from sim.experts.planar_pick_place import PickPlaceExpert
from sim.planar_arm import STRIDE_M
from sim.tasks.pick_place import pick_place_environment
from teleop_data.recorder import record_episode
from tests.contracts.teleoperator_contract import TeleoperatorContract


class TestPickPlaceExpert(TeleoperatorContract):
    def make(self):
        environment = pick_place_environment()
        return environment, PickPlaceExpert(environment)


def test_it_succeeds_in_good_time():
    environment = pick_place_environment()
    expert = PickPlaceExpert(environment)
    episodes = [record_episode(environment, expert, seed=seed) for seed in range(20)]
    assert [episode.seed for episode in episodes if not episode.success] == []
    assert max(episode.num_steps for episode in episodes) <= 65
    assert 20 <= np.median([episode.num_steps for episode in episodes]) <= 45


def test_seeds_drive_the_same_start_differently():
    environment = pick_place_environment()
    expert = PickPlaceExpert(environment)
    actions = []
    for seed in range(10):
        observation = environment.reset(0)
        expert.reset(seed)
        actions.append(expert.act(observation))
    assert len(np.unique(actions, axis=0)) == 10


def test_it_opens_a_gripper_that_closed_around_nothing():
    environment = pick_place_environment()
    expert = PickPlaceExpert(environment)
    observation = environment.reset(0)
    environment.physics.hand = environment.physics.object_position.copy()
    environment.physics.gripper = 1.0
    assert expert.act(observation)[2] == 0.0


def test_it_recovers_from_being_pushed_away_and_from_an_empty_grasp():
    environment = pick_place_environment(max_steps=200)
    expert = PickPlaceExpert(environment)
    for seed in range(10):
        observation = environment.reset(seed)
        expert.reset(seed)
        rng = np.random.default_rng(seed)
        environment.physics.gripper = 1.0  # closed around nothing
        result = None
        for _ in range(environment.max_steps):
            if rng.uniform() < 0.1:  # a shove
                environment.physics.hand = environment.physics.hand + rng.normal(0, 0.03, 2)
            result = environment.step(expert.act(observation))
            observation = result.observation
            if result.terminated:
                break
        assert result is not None
        assert result.success, f"seed {seed}"


def test_it_dwells_at_most_three_steps():
    """A policy sees no timer: long stays in one place could not be imitated."""
    environment = pick_place_environment()
    expert = PickPlaceExpert(environment)
    for seed in range(10):
        observation, stay = environment.reset(seed), 0
        expert.reset(seed)
        for _ in range(environment.max_steps):
            before = observation["state"][:2]
            result = environment.step(expert.act(observation))
            observation = result.observation
            moved = np.linalg.norm(observation["state"][:2] - before)
            stay = stay + 1 if moved < 0.1 * STRIDE_M else 0
            assert stay <= 3
            if result.terminated:
                break
