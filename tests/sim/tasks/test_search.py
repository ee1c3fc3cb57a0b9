"""Search: the contracts, what each camera can tell, what counts, and how the demonstrator looks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from sim.arm.actions import pointing_down, rotation_to_6d
from sim.arm.environment import ArmEnvironment
from sim.experts.scripted_hand import ScriptedHand
from sim.tasks.search import (
    BOX_SEEN,
    BOXES_M,
    FRUIT,
    LOOK_BACK_M,
    LOOK_HEIGHT_M,
    LOWERED_M,
    REST_HEIGHT_M,
    SCATTER_M,
    SHOWN_M,
    START_M,
    Memory,
    Search,
    in_view,
    lowered_into,
    sees,
)
from tests.contracts.environment_contract import EnvironmentContract
from tests.contracts.teleoperator_contract import TeleoperatorContract
from tests.sim.arm.arm_motions import down_at, go, grasp

PIXELS = 96
NOWHERE_M = np.array([0.0, 0.0, -2.0])
BOXES = range(len(BOXES_M))


def search_environment() -> ArmEnvironment:
    """Without cameras, at a start."""
    environment = ArmEnvironment(Search(), features=("state", "objects"), render_pixels=256)
    environment.reset(0)
    return environment


class TestSearchEnvironment(EnvironmentContract):
    def make(self):
        return ArmEnvironment(Search(), features=("state", "objects"), render_pixels=256)

    def typical_action(self, rng):
        position = START_M + rng.uniform(-0.05, 0.05, size=3)
        rotation = rotation_to_6d(pointing_down(rng.uniform(-0.2, 0.2)))
        return np.array([*position, *rotation, rng.uniform(0.0, 0.08)], np.float32)


class TestItsDemonstrator(TeleoperatorContract):
    def make(self):
        environment = search_environment()
        return environment, ScriptedHand(environment)


@pytest.fixture
def environment() -> Iterator[ArmEnvironment]:
    environment = search_environment()
    yield environment
    environment.close()


def hide(environment: ArmEnvironment, box: int, *, off: tuple[float, float] = (0.0, 0.0)) -> None:
    """Put the fruit into `box`, `off` of its place by shares of how far it may lie from it."""
    where = BOXES_M[box] + SCATTER_M * off
    environment.physics.place(FRUIT, np.array([*where, REST_HEIGHT_M]))
    environment.arm_task.memory = Memory(holds=box)


def picture(environment: ArmEnvironment, camera: str) -> np.ndarray:
    """(96, 96, 3) int, as a policy sees it."""
    return environment.physics.picture(camera, height=PIXELS, width=PIXELS).astype(int)


def hover(environment: ArmEnvironment, box: int, *, height: float = LOOK_HEIGHT_M[1]) -> None:
    """Hold the hand over `box`."""
    over = np.array([*BOXES_M[box] - [LOOK_BACK_M, 0.0], height])
    environment.physics.set_hand(over, yaw=0.0)


def num_green(view: np.ndarray) -> int:
    """Pixels that only the fruit can have coloured."""
    return int((view[..., 1] - np.maximum(view[..., 0], view[..., 2]) > 40).sum())


# --- what the cameras tell ---


def test_the_front_camera_sees_the_same_wherever_the_fruit_is(environment: ArmEnvironment):
    environment.physics.place(FRUIT, NOWHERE_M)
    without = picture(environment, "front")
    for box in BOXES:
        for off in ((0, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)):
            hide(environment, box, off=off)
            np.testing.assert_array_equal(picture(environment, "front"), without)


def test_the_front_camera_sees_the_fruit_once_it_is_held_up(environment: ArmEnvironment):
    hide(environment, 1)
    assert num_green(picture(environment, "front")) == 0
    environment.physics.place(FRUIT, np.array([*BOXES_M[1], SHOWN_M]))
    assert num_green(picture(environment, "front")) > 15


@pytest.mark.parametrize("height", LOOK_HEIGHT_M)
def test_the_wrist_camera_tells_over_the_right_box_only(environment: ArmEnvironment, height: float):
    world = environment.physics
    for box in BOXES:
        hover(environment, box, height=height)
        world.place(FRUIT, NOWHERE_M)
        without = picture(environment, "wrist")
        for inside in BOXES:
            hide(environment, inside)
            differs = (picture(environment, "wrist") != without).any(-1)
            if inside == box:
                assert differs.sum() > 150  # of 9,216, which a person notices
                assert num_green(picture(environment, "wrist")) > 100
            else:
                assert not differs.any()


def test_no_start_shows_the_fruit(environment: ArmEnvironment):
    world = environment.physics
    boxes = set()
    for seed in range(60):
        environment.reset(seed)
        holds = environment.arm_task.memory.holds
        boxes.add(holds)
        off = np.abs(world.position(FRUIT)[:2] - BOXES_M[holds])
        assert (off < SCATTER_M + 0.001).all()
        assert world.position(FRUIT)[2] == pytest.approx(REST_HEIGHT_M, abs=0.001)
        assert not world.is_in_contact
        for camera in ("front", "wrist"):
            assert num_green(picture(environment, camera)) == 0
    assert boxes == set(BOXES)


def test_points_are_in_view_where_the_picture_shows_them(environment: ArmEnvironment):
    for box, off in ((0, (1, 1)), (1, (-1, 0)), (2, (0, -1))):
        hide(environment, box, off=off)
        hover(environment, box)
        environment.physics.data.qpos[7:9] = 0.04, -0.04  # the fingers aside
        view = picture(environment, "wrist")
        rows, columns = np.nonzero(view[..., 1] - np.maximum(view[..., 0], view[..., 2]) > 40)
        shown = (columns.mean() + 0.5) / PIXELS * 2 - 1, 1 - (rows.mean() + 0.5) / PIXELS * 2
        told = in_view(environment.physics, "wrist", environment.physics.position(FRUIT))
        np.testing.assert_allclose(told, shown, atol=0.06)


def test_behind_the_camera_nothing_is_in_view(environment: ArmEnvironment):
    world = environment.physics
    above = world.data.camera("wrist").xpos + [0.0, 0.0, 0.1]
    assert np.isinf(in_view(world, "wrist", above)).all()
    assert not sees(world, above, within=BOX_SEEN)


# --- what is remembered, what counts ---


def test_the_oracle_remembers_the_boxes_looked_into(environment: ArmEnvironment):
    hide(environment, 0)
    world, task = environment.physics, environment.arm_task
    np.testing.assert_array_equal(task.oracle(world), [0, 0, 0, 1, 0, 0])
    hover(environment, 2)
    task.advance(world)
    np.testing.assert_array_equal(task.oracle(world), [0, 0, 1, 1, 0, 0])
    moment = environment.save()
    hover(environment, 0)
    task.advance(world)
    np.testing.assert_array_equal(task.oracle(world), [1, 0, 1, 1, 0, 0])
    environment.restore(moment)
    np.testing.assert_array_equal(task.oracle(world), [0, 0, 1, 1, 0, 0])
    environment.reset(0)
    assert task.oracle(world)[:3].sum() == 0


def test_standing_still_never_succeeds(environment: ArmEnvironment):
    action = environment.physics.action_towards(environment.physics.hand)
    results = [environment.step(action) for _ in range(environment.max_steps)]
    assert not any(result.success for result in results)
    assert results[-1].terminated
    assert {result.reward for result in results} == {0.0}


def test_only_a_fruit_held_above_the_boxes_counts(environment: ArmEnvironment):
    world, task = environment.physics, environment.arm_task
    world.place(FRUIT, np.array([*BOXES_M[1], SHOWN_M + 0.05]))
    assert not task.is_success(world)  # it flies there
    hide(environment, 1)
    unseen = task.reward(world)
    hover(environment, 1)
    task.advance(world)
    found = task.reward(world)
    grasp(world, FRUIT, lift_m=SHOWN_M - 0.05)
    assert world.is_holding(FRUIT)
    assert not task.is_success(world)
    held = task.reward(world)
    assert 0 <= unseen < found < held < 1
    go(world, down_at((*BOXES_M[1], SHOWN_M + 0.03), opening=0.0))
    assert task.is_success(world)
    assert environment.task.reward(world) == pytest.approx(1.0)


def test_a_hand_that_was_in_an_empty_box_has_lost(environment: ArmEnvironment):
    world, task = environment.physics, environment.arm_task
    for box, counts in ((1, True), (0, False)):
        hide(environment, 1)
        hover(environment, box, height=LOWERED_M + 0.01)
        task.advance(world)
        assert not task.memory.has_missed
        hover(environment, box, height=LOWERED_M - 0.01)
        task.advance(world)
        assert task.memory.has_missed is not counts
        hover(environment, 1)
        grasp(world, FRUIT, lift_m=SHOWN_M)
        task.advance(world)
        assert task.is_success(world) is counts
        assert (environment.task.reward(world) > 0) is counts


def test_beside_the_boxes_the_hand_may_be_low(environment: ArmEnvironment):
    for position in ([0.36, 0.0, 0.03], [0.48, 0.11, 0.03]):  # before them, between two
        environment.physics.set_hand(np.array(position), yaw=0.0)
        assert lowered_into(environment.physics) is None


@pytest.mark.parametrize("towards", [(1, 0), (-1, 0), (0, 1), (0, -1)])
def test_the_walls_stop_the_fruit(environment: ArmEnvironment, towards: tuple[int, int]):
    hide(environment, 2)
    environment.physics.nudge(FRUIT, velocity=1.5 * np.array([*towards, 0.0]))
    environment.physics.settle(1.0)
    moved = environment.physics.position(FRUIT)[:2] - BOXES_M[2]
    assert -0.055 < moved[0] < 0.112
    assert abs(moved[1]) < 0.10


# --- the demonstrator ---


def first_actions(environment: ArmEnvironment, *, box: int, seed: int) -> list[np.ndarray]:
    """What the demonstrator does until it has seen the fruit in `box`."""
    hand = ScriptedHand(environment)
    observation = environment.reset(seed)
    hide(environment, box)
    hand.reset(seed)
    actions = []
    while not environment.arm_task.memory.is_found:
        actions.append(hand.act(observation))
        assert environment.arm_task.subgoals[int(hand.labels()["subgoal"][0])] == "look"
        observation = environment.step(actions[-1]).observation
    return actions


def test_the_demonstrator_looks_without_knowing(environment: ArmEnvironment):
    orders = set()
    for seed in range(6):
        runs = [first_actions(environment, box=box, seed=seed) for box in BOXES]
        orders.add(tuple(np.argsort([len(run) for run in runs])))
        for run in runs[1:]:
            shorter = min(len(run), len(runs[0]))
            np.testing.assert_array_equal(run[:shorter], runs[0][:shorter])
    assert len(orders) >= 3


def test_the_demonstrator_succeeds_and_names_what_it_does(environment: ArmEnvironment):
    hand, names = ScriptedHand(environment), set()
    for seed in range(5):
        observation = environment.reset(seed)
        hand.reset(seed)
        labels, rewards, result = [], [0.0], None
        while result is None or not result.terminated:
            result = environment.step(hand.act(observation))
            observation = result.observation
            labels.append(int(hand.labels()["subgoal"][0]))
            rewards.append(result.reward)
        assert result.success
        assert min(np.diff(rewards)) > -0.03
        assert (np.diff(labels) >= 0).all()
        names |= {environment.arm_task.subgoals[label] for label in labels}
    assert names == set(environment.arm_task.subgoals)
