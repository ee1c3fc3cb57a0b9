"""The Push-T planner: the teleoperator contract, its success, its manner, and its copy's truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import shapely

from sim.experts.push_t_copy import PushTCopy, draw_starts, placed
from sim.experts.push_t_planner import SUBGOALS, PushTPlanner
from sim.push_t import AGENT_RADIUS, PushT
from teleop_data.environment import Labelled, StepResult
from teleop_data.recorder import record_episode
from tests.contracts.teleoperator_contract import TeleoperatorContract


class TestPushTPlanner(TeleoperatorContract):
    def make(self):
        environment = PushT()
        return environment, PushTPlanner(environment)


@dataclass(frozen=True, kw_only=True)
class Drive:
    """One episode: T control steps, T + 1 places."""

    actions: np.ndarray  # (T, 2)
    subgoals: np.ndarray  # (T,)
    agent: np.ndarray  # (T + 1, 2)
    block: np.ndarray  # (T + 1, 3)
    results: list[StepResult]

    @property
    def num_steps(self) -> int:
        return len(self.actions)

    @property
    def speeds(self) -> np.ndarray:
        """(T,) px that the agent went in each control step."""
        return np.linalg.norm(np.diff(self.agent, axis=0), axis=1)

    @property
    def block_speeds(self) -> np.ndarray:
        """(T,) px that the block's corners went in each control step."""
        corners = placed(PushTCopy(PushT()).corners, self.block)
        return np.linalg.norm(np.diff(corners, axis=0), axis=-1).mean(axis=-1)


def drive(environment: PushT, expert: PushTPlanner, seed: int) -> Drive:
    observation = environment.reset(seed)
    expert.reset(seed)
    agent, block = [environment.agent_position], [environment.block_pose]
    actions, subgoals, results = [], [], []
    while not results or not results[-1].terminated:
        actions.append(expert.act(observation))
        subgoals.append(expert.labels()["subgoal"][0])
        results.append(environment.step(actions[-1]))
        observation = results[-1].observation
        agent.append(environment.agent_position)
        block.append(environment.block_pose)
    return Drive(
        actions=np.array(actions),
        subgoals=np.array(subgoals),
        agent=np.array(agent),
        block=np.array(block),
        results=results,
    )


@pytest.fixture(scope="module")
def drives() -> list[Drive]:
    environment = PushT()
    expert = PushTPlanner(environment)
    return [drive(environment, expert, seed) for seed in range(10)]


def test_it_succeeds_in_good_time(drives: list[Drive]):
    assert [seed for seed, d in enumerate(drives) if not d.results[-1].success] == []
    assert 80 <= np.median([d.num_steps for d in drives]) <= 180  # people: 122
    assert max(d.num_steps for d in drives) <= 270


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_succeeds_in_98_of_100():
    environment = PushT()
    expert = PushTPlanner(environment)
    episodes = [record_episode(environment, expert, seed=seed) for seed in range(100)]
    assert sum(episode.success for episode in episodes) >= 98


def test_it_moves_as_people_do(drives: list[Drive]):
    speeds = np.concatenate([d.speeds for d in drives])
    assert 4.7 <= np.median(speeds) <= 12.8  # half of the human demonstrations' control steps
    assert speeds.max() < 30.0  # their 99th percentile
    actions = np.concatenate([d.actions for d in drives])
    assert actions.min() >= 0.0
    assert actions.max() <= 512.0


def test_it_never_stands_still(drives: list[Drive]):
    """A policy sees no timer: long stays in one place could not be imitated."""
    for d in drives:
        for slowest, most_steps in ((1.0, 2), (2.0, 4)):
            is_moving = np.concatenate([[True], d.speeds >= slowest, [True]])
            longest_stay = np.diff(np.flatnonzero(is_moving)).max() - 1
            assert longest_stay <= most_steps
    speeds = np.concatenate([d.speeds for d in drives])
    assert np.percentile(speeds, 5) > 2.2  # nor does it creep; people: 1.8


def test_it_goes_round_the_block_and_pushes_when_it_says_so(drives: list[Drive]):
    corners = PushTCopy(PushT()).corners
    touches, pushes = [], []
    for d in drives:
        block = shapely.Polygon(placed(corners, d.block[0]))
        overlaps_at_first = block.distance(shapely.Point(d.agent[0])) < AGENT_RADIUS
        # a start may have the agent in the block, and a push goes on a little after its end
        is_told = d.subgoals == SUBGOALS.index("approach")
        is_fresh = is_told & np.concatenate([[not overlaps_at_first], is_told[:-1]])
        touches.append(d.block_speeds[is_fresh] > 0.5)
        pushes.append(d.block_speeds[d.subgoals == SUBGOALS.index("push")] > 0.5)
    assert np.concatenate(touches).mean() < 0.005
    assert np.concatenate(pushes).mean() > 0.6


def test_it_changes_nothing_in_the_environment(drives: list[Drive]):
    environment = PushT()
    environment.reset(3)
    for action, result in zip(drives[3].actions, drives[3].results, strict=True):
        alone = environment.step(action)
        np.testing.assert_array_equal(alone.observation["state"], result.observation["state"])
        assert alone.reward == result.reward


@pytest.mark.parametrize("features", [("agent_position",), ("img", "agent_position")])
def test_what_is_observed_does_not_matter(drives: list[Drive], features: tuple[str, ...]):
    environment = PushT(features=features)
    expert = PushTPlanner(environment)
    observation = environment.reset(0)
    expert.reset(0)
    for expected in drives[0].actions[:40]:
        action = expert.act(observation)
        np.testing.assert_array_equal(action, expected)
        observation = environment.step(action).observation


def test_seeds_drive_the_same_start_differently():
    environment = PushT()
    expert = PushTPlanner(environment)
    ways = []
    for seed in range(6):
        observation = environment.reset(0)
        expert.reset(seed)
        for _ in range(10):
            observation = environment.step(expert.act(observation)).observation
        ways.append(environment.agent_position)
    apart = [np.linalg.norm(a - b) for i, a in enumerate(ways) for b in ways[:i]]
    assert min(apart) > 1.0


def test_it_notices_at_once_that_the_block_was_moved():
    actions = []
    for moved_px in (0.0, 4.0, 40.0):
        environment = PushT()
        expert = PushTPlanner(environment)
        # nothing between the agent and the block, and far to go
        state = np.array([60.0, 60.0, 380.0, 380.0, 0.0])
        observation = environment.restore(state)
        expert.reset(0)
        for _ in range(4):
            observation = environment.step(expert.act(observation)).observation
        state[:2], state[2] = environment.agent_position, state[2] - moved_px
        actions.append(expert.act(environment.restore(state)))
    np.testing.assert_array_equal(actions[0], actions[1])  # too little to matter
    assert not np.array_equal(actions[0], actions[2])


def test_it_succeeds_though_the_block_is_moved():
    environment = PushT()
    expert = PushTPlanner(environment)
    rng = np.random.default_rng(0)
    for seed in range(3):
        observation, result = environment.reset(seed), None
        expert.reset(seed)
        for step in range(500):
            if step in (20, 45, 70):  # in the midst of a way or of a push
                agent, block = environment.agent_position, environment.block_pose
                block[:2] = np.clip(block[:2] + rng.normal(0.0, 40.0, size=2), 120, 390)
                block[2] += rng.normal(0.0, 1.0)
                observation = environment.restore(np.concatenate([agent, block]))
            result = environment.step(expert.act(observation))
            observation = result.observation
            if result.success:
                break
        assert result is not None
        assert result.success, f"seed {seed}"


def test_its_labels_are_what_a_recorder_takes():
    environment = PushT()
    expert = PushTPlanner(environment)
    assert isinstance(expert, Labelled)
    assert [feature.role for feature in expert.label_features] == ["other"]
    expert.act(environment.reset(0))
    labels = expert.labels()
    assert list(labels) == [feature.name for feature in expert.label_features]
    expert.label_features[0].check(labels["subgoal"])
    assert expert.facts() == {"subgoals": ["approach", "push"]}


@pytest.mark.parametrize("middle", [(256.0, 256.0), (256.0, 420.0)])  # in the open, at a wall
def test_the_copy_pushes_as_push_t_does(middle: tuple[float, float]):
    environment, rng = PushT(), np.random.default_rng(0)
    copy = PushTCopy(environment)
    for _ in range(8):
        heading = rng.uniform(0.0, np.pi / 3)  # in the second case, slantwise into the wall
        ahead = np.array([np.cos(heading), np.sin(heading)])
        block = np.array([*middle, rng.uniform(0.0, 2 * np.pi)])
        start = block[:2] - 150.0 * ahead + rng.uniform(-40, 40) * np.array([-ahead[1], ahead[0]])
        environment.restore(np.concatenate([start, block]))
        while (way := environment.agent_position - start) @ ahead < 145.0:
            environment.step(environment.agent_position + 15.0 * ahead)
        for stride, furthest in ((1.0, 1.0), (3.0, 4.0)):
            num_strides = round(float(np.linalg.norm(way)) / stride)
            pushed = copy.push(block, start, way=way, num_strides=num_strides)[-1]
            told, true = (placed(copy.corners, p) for p in (pushed, environment.block_pose))
            assert np.linalg.norm(told - true, axis=1).max() < furthest


def test_the_copy_forgets_what_was_tried_before():
    environment = PushT()
    copy, fresh = PushTCopy(environment), PushTCopy(environment)
    block, start = np.array([256.0, 256.0, 0.3]), np.array([256.0, 200.0])
    for _ in range(3):
        copy.push(block, np.array([100.0, 300.0]), way=np.array([180.0, 0.0]), num_strides=60)
    way = np.array([5.0, 90.0])
    first, second = (w.push(block, start, way=way, num_strides=40) for w in (copy, fresh))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first[0], block)  # not touched yet
    assert np.linalg.norm(first[-1] - block) > 10.0


def test_pushes_start_clear_of_the_block_all_round_it():
    corners = placed(PushTCopy(PushT()).corners, np.array([256.0, 256.0, 1.0]))
    starts, directions = draw_starts(corners, num_starts=300, rng=np.random.default_rng(0))
    block = shapely.Polygon(corners)
    assert shapely.distance(block, shapely.points(starts)).min() > AGENT_RADIUS
    ends = starts + 25.0 * directions
    assert (shapely.distance(block, shapely.points(ends)) < AGENT_RADIUS).all()
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0)
    nearest = np.linalg.norm(starts[:, None] - corners, axis=-1).argmin(axis=1)
    assert set(nearest) == set(range(8))
    with pytest.raises(RuntimeError, match="no place to push the block from"):
        draw_starts(corners + 900.0, num_starts=10, rng=np.random.default_rng(0))
