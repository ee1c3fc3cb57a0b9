"""What every task must do, found by its YAML: a new one is tested without a line here.

Tasks of the arm are tested with all their features and under every perturbation there is; what a
task has beyond that is tested in a file of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from sim.arm.environment import ArmEnvironment
from sim.perturbations.conditions import (
    PerturbationConfig,
    condition_names,
    perturbed,
    read_condition,
)
from sim.perturbations.environment import PerturbedEnvironment
from sim.task_descriptions import arm_task_names, task_names
from teleop_data.environment import Labelled
from teleop_data.recorder import record_episode
from tests.sim.played_tasks import (
    Played,
    check_same,
    make,
    make_expert,
    play,
    recorded,
)

SEEDS = (0, 1)
NUM_STARTS = 30  # drawn to see what varies between episodes
PIXELS = 32
# Entries that do not vary, and need not: (task, feature) -> indices
CONSTANT = {
    ("arm_pick_place", "objects"): {11, 14, 17},  # the tray's height and tilt: it is heavy
}
VARIES = 1e-4  # by so much at least, in the feature's unit
LONG = {"swap_4", "swap_10", "swap_20"}  # swap_2 with other numbers, see test_swap_again
TASKS = [name for name in task_names() if name not in LONG]
CONDITIONS = [name for name in condition_names() if name != "none"]


@pytest.fixture(scope="module", params=TASKS)
def played(request: pytest.FixtureRequest) -> Iterator[Played]:
    environment = make(request.param)
    expert = make_expert(request.param, environment)
    episodes = [play(environment, expert, seed=seed) for seed in SEEDS]
    yield Played(request.param, environment, episodes)
    environment.close()


of_the_arm = pytest.mark.parametrize(
    "played", sorted(set(arm_task_names()) - LONG), indirect=True, scope="module"
)


@pytest.fixture
def arm(played: Played) -> ArmEnvironment:
    assert isinstance(played.environment, ArmEnvironment)
    return played.environment


# --- every task ---


def test_observations_match_their_schema_and_are_finite(played: Played):
    for episode in played.episodes:
        for observation in episode.observations:
            played.environment.schema.check_observation(observation)
        for action in episode.actions:
            played.environment.schema.action.check(action)


def test_the_expert_succeeds_in_time_and_not_at_once(played: Played):
    for episode in played.episodes:
        assert [result.success for result in episode.results[-1:]] == [True]
        assert 5 < len(episode.results) <= played.environment.max_steps


def test_rewards_tell_progress_from_nothing_to_everything(played: Played):
    for episode in played.episodes:
        rewards = [result.reward for result in episode.results]
        assert all(0.0 <= reward <= 1.0 for reward in rewards)
        assert rewards[0] < 0.75
        assert rewards[-1] == 1.0
        assert max(rewards[:-1]) < 1.0
        assert len(set(rewards)) > 3, "too coarse to tell progress"


def test_nothing_is_constant(played: Played):
    starts = [played.environment.reset(100 + seed) for seed in range(NUM_STARTS)]
    seen = [o for episode in played.episodes for o in episode.observations]
    for feature in played.environment.schema.observed:
        if feature.role == "camera":
            continue
        values = np.array([o[feature.name] for o in (*seen, *starts)])
        still = set(np.flatnonzero(np.ptp(values, axis=0).ravel() < VARIES).tolist())
        assert still == CONSTANT.get((played.task, feature.name), set()), feature.name


def test_every_camera_sees_what_happens(played: Played):
    for camera in played.environment.schema.with_role("camera"):
        first, second = (
            np.array([o[camera.name] for o in episode.observations]).astype(int)
            for episode in played.episodes
        )
        assert (np.abs(first - first[0]).max((0, 3)) > 30).mean() > 0.01  # share of pixels
        assert np.abs(first[0] - second[0]).max() > 30, f"{camera.name}: starts look alike"
        assert first.std() > 10, f"{camera.name}: nothing to be seen"


def test_no_two_observations_share_memory(played: Played):
    for episode in played.episodes:
        for one, two in pairwise(episode.observations[:10]):
            for name in one:
                assert one[name].flags.writeable
                assert not np.shares_memory(one[name], two[name])


def test_same_seed_and_actions_give_the_same_states_and_pixels(played: Played):
    episode = played.episodes[0]
    for environment in (make(played.task), played.environment):
        check_same(environment.reset(SEEDS[0]), episode.observations[0])
        for action, result in list(zip(episode.actions, episode.results, strict=True))[:60]:
            again = environment.step(action)
            check_same(again.observation, result.observation)
            assert (again.reward, again.success) == (result.reward, result.success)
        if environment is not played.environment:
            environment.close()


def test_standing_still_is_no_success(played: Played):
    """Nor is a start."""
    environment = played.environment
    for seed in range(3):
        observation = environment.reset(seed)
        action = played.episodes[0].actions[0]
        if isinstance(environment, ArmEnvironment):
            action = environment.physics.action_towards(environment.physics.hand)
        for _ in range(15):
            result = environment.step(action)
            assert not result.success
        assert observation.keys() == result.observation.keys()


# --- tasks of the arm ---


@of_the_arm
def test_a_restored_moment_goes_on_as_the_episode_did(played: Played):
    """To the bit, in another environment, with what the task remembers."""
    episode, other = played.episodes[0], make(played.task)
    assert isinstance(other, ArmEnvironment)
    num = len(episode.actions)
    for at in (0, num // 3, 2 * num // 3, num - 4):
        check_same(other.restore(episode.moments[at]), episode.observations[at])
        for step in range(at, min(at + 8, num)):
            again, result = other.step(episode.actions[step]), episode.results[step]
            check_same(again.observation, result.observation)
            assert (again.reward, again.terminated) == (result.reward, result.terminated)
        if at + 8 < num:
            assert other.arm_task.memory == episode.moments[at + 8].memory
    other.close()


@of_the_arm
def test_oracles_stay_within_their_range(arm: ArmEnvironment):
    task, world = arm.arm_task, arm.physics
    for seed in range(5):
        arm.reset(seed)
        told = task.oracle(world)
        assert told.shape == (task.oracle_size,)
        assert (np.abs(told) <= 1).all()


@of_the_arm
@pytest.mark.parametrize(("action", "rate_hz"), [("relative", 20.0), ("joints", 50.0)])
def test_the_expert_drives_other_actions_at_other_rates(
    played: Played, action: str, rate_hz: float
):
    environment = make(played.task, features=["state"], action=action, rate_hz=rate_hz)
    summary = record_episode(environment, make_expert(played.task, environment), seed=1)
    assert summary.success
    environment.close()


@of_the_arm
def test_wild_actions_break_nothing(arm: ArmEnvironment):
    rng = np.random.default_rng(0)
    arm.reset(0)
    for _ in range(40):
        action = np.array([*rng.uniform(-1, 1, 3), *rng.normal(size=6), rng.uniform(-0.1, 0.2)])
        result = arm.step(action)
        arm.schema.check_observation(result.observation)
        assert 0 <= result.reward <= 1


@of_the_arm
def test_sub_goals_are_recorded(played: Played, arm: ArmEnvironment):
    environment = make(played.task, features=["state"])
    expert = make_expert(played.task, environment)
    assert isinstance(expert, Labelled)
    memory = recorded(environment, expert, seed=SEEDS[0])
    names = memory.attributes["subgoals"]
    assert names == list(arm.arm_task.subgoals)
    assert len(set(names)) == len(names)
    pursued = memory.episode["subgoal"][:, 0]
    assert pursued[0] == 0
    assert len(np.unique(pursued)) > 2
    assert memory.attributes["success"]


def short(condition: str) -> PerturbationConfig:
    """`condition` from step 2 or 3 on, for 5 steps."""
    return replace(read_condition(condition), start=[2, 3], length=5)


@of_the_arm
@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_perturbation_is_survived_and_recorded(
    played: Played, arm: ArmEnvironment, condition: str
):
    disturbed = perturbed(arm, short(condition))
    assert isinstance(disturbed, PerturbedEnvironment)
    memory = recorded(disturbed, make_expert(played.task, arm), seed=3, max_steps=9)
    (row,) = memory.attributes["perturbations"]
    assert row["kind"] == short(condition).kind
    begin, end = row["window"]
    assert begin in (2, 3)
    assert end == begin + 5
    told = memory.episode
    bad = sum(np.abs(told[f"bad_{source}"][:, 0]) for source in row["sources"])
    active = (np.asarray(bad) > 0) | told["world_is_perturbed"][:, 0]
    assert active.any()
    assert not active[:begin].any()
    assert not active[end:].any()
    for feature in arm.schema.features:
        assert told[feature.name].shape == (9, *feature.shape)
        assert told[feature.name].dtype == np.dtype(feature.dtype)
    # and nothing of it is left for the next episode
    check_same(arm.reset(3), {f.name: told[f.name][0] for f in arm.schema.observed})


@of_the_arm
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_whole_episodes_under_every_perturbation_are_the_same_again(
    played: Played, arm: ArmEnvironment, condition: str
):
    disturbed = perturbed(arm, read_condition(condition))
    expert = make_expert(played.task, arm)
    one, two = (recorded(disturbed, expert, seed=5) for _ in range(2))
    assert one.attributes == two.attributes
    for feature, value in one.episode.items():
        np.testing.assert_array_equal(value, two.episode[feature], err_msg=feature)
