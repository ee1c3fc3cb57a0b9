"""What every Environment must do. Inherit `EnvironmentContract` and give `make`.

class TestMyWorld(EnvironmentContract):
    def make(self):
        return MyWorld()
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from teleop_data.environment import Environment, Observation, StepResult

NUM_STEPS = 12


class EnvironmentContract:
    """The suite. `typical_action` may be overridden where the state is not an action target."""

    def make(self) -> Environment:
        raise NotImplementedError("give the environment under test")

    def typical_action(self, rng: np.random.Generator) -> np.ndarray:
        """An action (A,) within limits."""
        raise NotImplementedError("give an action within limits")

    @pytest.fixture
    def environment(self) -> Iterator[Environment]:
        environment = self.make()
        yield environment
        environment.close()

    def actions(self) -> list[np.ndarray]:
        rng = np.random.default_rng(0)
        return [self.typical_action(rng) for _ in range(NUM_STEPS)]

    def rollout(
        self, environment: Environment, seed: int
    ) -> tuple[list[Observation], list[StepResult]]:
        first = environment.reset(seed)
        results = [environment.step(action) for action in self.actions()]
        return [first, *(result.observation for result in results)], results

    def test_observations_follow_the_schema(self, environment: Environment) -> None:
        for observation in self.rollout(environment, seed=0)[0]:
            environment.schema.check_observation(observation)

    def test_schema_has_one_action_and_a_rate(self, environment: Environment) -> None:
        assert environment.schema.action.role == "action"
        assert environment.schema.rate_hz > 0
        assert environment.schema.observed

    def test_same_seed_and_actions_give_the_same_episode(self, environment: Environment) -> None:
        first, first_results = self.rollout(environment, seed=3)
        self.rollout(environment, seed=4)  # whatever happened in between must not matter
        second, second_results = self.rollout(environment, seed=3)
        third, _ = self.rollout(self.make(), seed=3)
        for one, two, three in zip(first, second, third, strict=True):
            for name, value in one.items():
                np.testing.assert_array_equal(value, two[name])
                np.testing.assert_array_equal(value, three[name])
        assert [r.reward for r in first_results] == [r.reward for r in second_results]

    def test_seeds_differ(self, environment: Environment) -> None:
        one, two = environment.reset(0), environment.reset(1)
        assert any(not np.array_equal(one[name], two[name]) for name in one)

    def test_observations_own_their_memory(self, environment: Environment) -> None:
        first = environment.reset(0)
        before = {name: value.copy() for name, value in first.items()}
        for action in self.actions():
            result = environment.step(action)
            for value in result.observation.values():
                value[...] = 0  # must be writable, and must not reach into the simulator
        for name, value in first.items():
            np.testing.assert_array_equal(value, before[name])
        untouched, _ = self.rollout(self.make(), seed=0)
        environment.reset(0)
        for action, expected in zip(self.actions(), untouched[1:], strict=True):
            observation = environment.step(action).observation
            for name, value in observation.items():
                np.testing.assert_array_equal(value, expected[name])
                value[...] = 0

    def test_actions_are_not_changed(self, environment: Environment) -> None:
        environment.reset(0)
        for action in self.actions():
            before = action.copy()
            environment.step(action)
            np.testing.assert_array_equal(action, before)

    def test_float32_and_float64_actions_are_accepted(self, environment: Environment) -> None:
        environment.reset(0)
        environment.step(self.actions()[0].astype(np.float32))
        environment.step(self.actions()[1].astype(np.float64))

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_actions_that_are_not_finite_are_refused(
        self, environment: Environment, bad: float
    ) -> None:
        environment.reset(0)
        action = self.actions()[0].copy()
        action[-1] = bad
        with pytest.raises(ValueError, match="finite"):
            environment.step(action)
        self.check_world_stood_still(environment)

    def test_misshapen_actions_are_refused(self, environment: Environment) -> None:
        environment.reset(0)
        action = self.actions()[0]
        for wrong in (action[None], action[:-1], np.append(action, 0.0)):
            with pytest.raises(ValueError, match="shape"):
                environment.step(wrong)
        self.check_world_stood_still(environment)

    def check_world_stood_still(self, environment: Environment) -> None:
        expected = self.rollout(self.make(), seed=0)[0][1]
        observation = environment.step(self.actions()[0]).observation
        for name, value in observation.items():
            np.testing.assert_array_equal(value, expected[name])

    def test_step_before_reset_is_refused(self, environment: Environment) -> None:
        with pytest.raises(RuntimeError, match="reset"):
            environment.step(self.actions()[0])

    def test_rewards_lie_in_the_unit_interval(self, environment: Environment) -> None:
        for result in self.rollout(environment, seed=0)[1]:
            assert 0.0 <= result.reward <= 1.0
            assert isinstance(result.reward, float)
            assert isinstance(result.success, bool)
            assert isinstance(result.terminated, bool)
            assert not result.success or (result.reward == 1.0 and result.terminated)

    def test_episodes_end_by_max_steps(self, environment: Environment) -> None:
        environment.reset(0)
        rng = np.random.default_rng(1)
        num_steps, result = 0, None
        while result is None or not result.terminated:
            result = environment.step(self.typical_action(rng))
            num_steps += 1
            assert num_steps <= environment.max_steps
        assert result.success or num_steps == environment.max_steps

    def test_render_is_a_picture_of_its_own_memory(self, environment: Environment) -> None:
        environment.reset(0)
        picture = environment.render()
        height, width, channels = picture.shape
        assert picture.dtype == np.uint8
        assert channels == 3
        assert min(height, width) >= 256
        before = picture.copy()
        for action in self.actions():
            environment.step(action)
        later = environment.render()
        np.testing.assert_array_equal(picture, before)
        assert not np.array_equal(picture, later)

    def test_render_changes_nothing(self, environment: Environment) -> None:
        expected, _ = self.rollout(self.make(), seed=0)
        environment.reset(0)
        for action, after in zip(self.actions(), expected[1:], strict=True):
            environment.render()
            observation = environment.step(action).observation
            for name, value in observation.items():
                np.testing.assert_array_equal(value, after[name])

    def test_steps_after_close_are_refused(self) -> None:
        environment = self.make()
        environment.reset(0)
        environment.close()
        with pytest.raises(RuntimeError):
            environment.step(self.actions()[0])
