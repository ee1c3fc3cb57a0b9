"""The arm as an Environment: what is observed, what is refused, and moments to go back to."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from sim.arm.actions import FEATURES, ActionMode, rotation_to_6d
from sim.arm.environment import ArmEnvironment
from sim.experts.scripted_hand import ScriptedHand
from sim.tasks.swap import Swap
from sim.tasks.swap_scene import FRUITS
from teleop_data.environment import Observation, StepResult
from tests.contracts.environment_contract import EnvironmentContract
from tests.sim.arm.arm_motions import down_at

LOW_DIMENSIONAL = ("state", "joints", "objects", "oracle")


def swap(features: Iterable[str] = LOW_DIMENSIONAL, **options) -> ArmEnvironment:
    return ArmEnvironment(Swap(), features=features, **options)


def observed(environment: ArmEnvironment, actions: list[np.ndarray]) -> list[StepResult]:
    return [environment.step(action) for action in actions]


def check_same(one: Observation, other: Observation) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name])


class TestWithCameras(EnvironmentContract):
    def make(self):
        return ArmEnvironment(Swap(duration_s=4.0), pixels=48, render_pixels=256)

    def typical_action(self, rng):
        place = rng.uniform([0.35, -0.2, 0.05], [0.55, 0.2, 0.25])
        target = down_at(place, yaw=rng.uniform(-1, 1), opening=rng.uniform(0, 0.08))
        return target.to_vector().astype(np.float32)


class TestInJoints(EnvironmentContract):
    def make(self):
        return ArmEnvironment(
            Swap(duration_s=2.0),
            features=LOW_DIMENSIONAL,
            action="joints",
            rate_hz=25.0,
            render_pixels=256,
        )

    def typical_action(self, rng):
        joints = np.array([0.0, 0.1, 0.0, -2.35, 0.0, 2.45, 0.785]) + rng.uniform(-0.5, 0.5, 7)
        return np.array([*joints, rng.uniform(0, 0.08)], np.float32)


def test_features_are_a_choice_and_mean_what_they_say():
    environment = swap(("front", *LOW_DIMENSIONAL), pixels=40)
    shapes = {f.name: f.shape for f in environment.schema.observed}
    expected = {"state": (10,), "joints": (7,), "objects": (18,), "oracle": (10,)}
    assert shapes == {"front": (40, 40, 3), **expected}
    environment.reset(4)
    world = environment.physics
    now = environment.step(down_at((0.45, 0.1, 0.2), yaw=0.3, opening=0.02).to_vector()).observation
    np.testing.assert_array_equal(now["state"][:3], world.tcp_position.astype(np.float32))
    np.testing.assert_allclose(now["state"][3:9], rotation_to_6d(world.tcp_rotation), atol=1e-6)
    assert now["state"][9] == pytest.approx(world.opening)
    np.testing.assert_array_equal(now["joints"], world.joint_positions.astype(np.float32))
    for index, name in enumerate(FRUITS):
        told = now["objects"][9 * index : 9 * index + 9]
        np.testing.assert_allclose(told[:3], world.position(name), atol=1e-6)
        np.testing.assert_allclose(told[3:], rotation_to_6d(world.rotation(name)), atol=1e-6)
    np.testing.assert_array_equal(now["front"], world.picture("front", height=40, width=40))
    environment.close()


def test_the_state_is_the_absolute_action_that_holds_it():
    environment = swap()
    observation = environment.reset(0)
    start = observation["state"]
    for _ in range(10):
        observation = environment.step(observation["state"]).observation
    np.testing.assert_allclose(observation["state"], start, atol=2e-3)


@pytest.mark.parametrize("action", FEATURES)
def test_the_action_is_a_choice(action: ActionMode):
    environment = swap(action=action, rate_hz=20.0)
    assert environment.schema.action == FEATURES[action]
    assert environment.schema.rate_hz == 20.0
    assert environment.max_steps == 20 * 18


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"features": ("state", "side")}, KeyError, "expected some of front, wrist, state"),
        ({"features": ()}, KeyError, "expected some of front, wrist, state"),
        ({"features": ("state", "state")}, ValueError, "must differ"),
        ({"action": "velocity"}, KeyError, "no action 'velocity'; have: absolute, relative"),
        ({"pixels": 16}, ValueError, "pixels is 16, expected 32 to 512"),
        ({"pixels": 1024}, ValueError, "pixels is 1024, expected 32 to 512"),
        ({"rate_hz": 30.0}, ValueError, "rate_hz is 30.0.*no whole number"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(options, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        swap(**options)


def test_a_task_without_secrets_offers_no_oracle():
    class Open(Swap):
        oracle_size = 0

    with pytest.raises(KeyError, match="wrist, state, joints, objects.$"):
        ArmEnvironment(Open(), features=("oracle",))


def test_a_refused_action_is_no_step():
    environment, other = swap(), swap()
    first = environment.reset(0)
    action = first["state"].astype(np.float64)
    nonsense = np.array([*action[:3], *np.zeros(6), 0.0])
    other.reset(0)
    for _ in range(3):
        with pytest.raises(ValueError, match="not a rotation"):
            environment.step(nonsense)
    assert environment.arm_task.memory == other.arm_task.memory
    check_same(environment.step(action).observation, other.step(action).observation)


def expert_actions(environment: ArmEnvironment, *, seed: int, num: int) -> list[np.ndarray]:
    """Of the episode of `seed`."""
    expert, observation, actions = ScriptedHand(environment), environment.reset(seed), []
    expert.reset(seed)
    for _ in range(num):
        actions.append(expert.act(observation))
        observation = environment.step(actions[-1]).observation
    return actions


@pytest.mark.parametrize("in_another", [False, True])
def test_a_restored_moment_goes_on_as_the_episode_did(in_another: bool):
    environment = swap(("front", *LOW_DIMENSIONAL), pixels=32)
    actions = expert_actions(environment, seed=1, num=60)
    at = 25  # a fruit is in the air: the task has something to remember
    observation = environment.reset(1)
    for action in actions[:at]:
        observation = environment.step(action).observation
    saved = environment.save()
    assert any(environment.arm_task.memory.is_lifted)
    expected = observed(environment, actions[at:])
    memory = environment.arm_task.memory
    assert memory.num_moves == 1

    again = swap(("front", *LOW_DIMENSIONAL), pixels=32) if in_another else environment
    check_same(again.restore(saved), observation)
    for action, result in zip(actions[at:], expected, strict=True):
        other = again.step(action)
        check_same(other.observation, result.observation)
        assert (other.reward, other.terminated) == (result.reward, result.terminated)
    assert again.arm_task.memory == memory
    for one in (environment, again):
        one.close()


def test_a_restored_moment_ends_when_the_episode_would_have_ended():
    environment = ArmEnvironment(Swap(duration_s=1.0), features=("state",))
    action = environment.reset(0)["state"]
    observed(environment, [action] * 4)
    saved = environment.save()
    observed(environment, [action] * 6)
    environment.restore(saved)
    assert [r.terminated for r in observed(environment, [action] * 6)] == [False] * 5 + [True]


def test_the_first_moment_can_be_restored_too():
    environment = swap()
    first = environment.reset(3)
    saved = environment.save()
    environment.step(first["state"])
    check_same(environment.restore(saved), first)


def test_saving_before_the_first_reset_is_refused():
    with pytest.raises(RuntimeError, match="save before reset"):
        swap().save()


def test_only_success_is_worth_everything():
    class Certain(Swap):
        done = False

        def reward(self, world):
            return 1.0

        def is_success(self, world):
            return self.done

    task = Certain()
    environment = ArmEnvironment(task, features=("state",))
    action = environment.reset(0)["state"]
    assert environment.step(action).reward == 0.99
    task.done = True
    result = environment.step(action)
    assert (result.reward, result.success, result.terminated) == (1.0, True, True)
