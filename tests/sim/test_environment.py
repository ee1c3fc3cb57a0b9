"""TaskEnvironment: what it adds to a physics and a task, over the smallest real ones."""

from __future__ import annotations

import numpy as np
import pytest

from sim.environment import TaskEnvironment, checked_action
from teleop_data.schema import Feature, Schema
from tests.contracts.environment_contract import EnvironmentContract


class Cart:
    """A point on a line; its quantity is one array, changed in place."""

    def __init__(self) -> None:
        self.position = np.zeros(1, np.float32)

    def reset(self) -> None:
        self.position[:] = 0

    def step(self, action: np.ndarray) -> None:
        self.position += np.clip(action - self.position, -0.25, 0.25)


class Reach:
    """Bring the cart to 1. Observes the cart's own array, as a careless task might."""

    schema = Schema(
        features=(
            Feature(name="state", shape=(1,), unit="m"),
            Feature(name="action", shape=(1,), role="action", unit="m"),
        ),
        rate_hz=10.0,
    )
    max_steps = 20

    def initialize(self, physics: Cart, rng: np.random.Generator) -> None:
        physics.position[:] = rng.uniform(-1, 0)

    def advance(self, physics: Cart) -> None:
        pass

    def observe(self, physics: Cart) -> dict[str, np.ndarray]:
        return {"state": physics.position}

    def reward(self, physics: Cart) -> float:
        return float(np.clip(physics.position[0], 0, 1))

    def is_success(self, physics: Cart) -> bool:
        return bool(physics.position[0] >= 1)


def picture(physics: Cart) -> np.ndarray:
    image = np.zeros((256, 256, 3), np.uint8)
    image[:, int(128 + 60 * physics.position[0])] = 255
    return image


class TestCart(EnvironmentContract):
    def make(self):
        return TaskEnvironment(Cart(), Reach(), renderer=picture)

    def typical_action(self, rng):
        return rng.uniform(-1, 0.9, size=1).astype(np.float32)


def test_success_ends_the_episode_and_the_limit_does_too():
    environment = TaskEnvironment(Cart(), Reach())
    environment.reset(0)
    results = [environment.step(np.array([1.0])) for _ in range(8)]
    first = next(i for i, result in enumerate(results) if result.success)
    assert [r.terminated for r in results[: first + 1]] == [False] * first + [True]
    assert results[first].reward == 1.0

    environment.reset(0)
    ends = [environment.step(np.array([-1.0])).terminated for _ in range(20)]
    assert ends == [False] * 19 + [True]


def test_an_environment_without_renderer_says_so():
    environment = TaskEnvironment(Cart(), Reach())
    environment.reset(0)
    with pytest.raises(RuntimeError, match="no renderer"):
        environment.render()


def test_a_world_changed_between_two_steps_can_be_observed_anew():
    environment = TaskEnvironment(Cart(), Reach())
    with pytest.raises(RuntimeError, match="observe before reset"):
        environment.observe()
    environment.reset(0)
    environment.physics.position[:] = 0.5
    observation = environment.observe()
    environment.physics.position[:] = 0.7
    assert observation["state"] == [0.5]
    environment.close()
    with pytest.raises(RuntimeError, match="observe before reset"):
        environment.observe()


def test_checked_actions_are_float64_copies():
    action = np.array([0.5], np.float32)
    checked = checked_action(action, Reach.schema.action)
    checked[:] = 3
    assert checked.dtype == np.float64
    assert action[0] == 0.5
    with pytest.raises(ValueError, match=r"shape \(2,\), expected \(1,\)"):
        checked_action(np.zeros(2), Reach.schema.action)
