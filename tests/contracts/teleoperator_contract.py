"""What every Teleoperator must do. Inherit `TeleoperatorContract` and give `make`."""

from __future__ import annotations

import numpy as np

from teleop_data.environment import Environment
from teleop_data.teleoperator import Teleoperator

NUM_STEPS = 15


class TeleoperatorContract:
    """The suite, over a teleoperator and the environment that it drives."""

    def make(self) -> tuple[Environment, Teleoperator]:
        raise NotImplementedError("give the environment and the teleoperator under test")

    def drive(
        self, environment: Environment, teleoperator: Teleoperator, seed: int
    ) -> list[np.ndarray]:
        observation = environment.reset(seed)
        teleoperator.reset(seed)
        actions = []
        for _ in range(NUM_STEPS):
            actions.append(teleoperator.act(observation))
            observation = environment.step(actions[-1]).observation
        return actions

    def test_actions_follow_the_schema(self) -> None:
        environment, teleoperator = self.make()
        for action in self.drive(environment, teleoperator, seed=0):
            environment.schema.action.check(action)

    def test_same_seed_gives_the_same_actions(self) -> None:
        environment, teleoperator = self.make()
        first = self.drive(environment, teleoperator, seed=5)
        self.drive(environment, teleoperator, seed=6)
        np.testing.assert_array_equal(first, self.drive(environment, teleoperator, seed=5))
        np.testing.assert_array_equal(first, self.drive(*self.make(), seed=5))

    def test_actions_own_their_memory(self) -> None:
        environment, teleoperator = self.make()
        actions = self.drive(environment, teleoperator, seed=0)
        assert not any(np.shares_memory(a, b) for a, b in zip(actions, actions[1:], strict=False))

    def test_observations_are_not_changed(self) -> None:
        environment, teleoperator = self.make()
        observation = environment.reset(0)
        before = {name: value.copy() for name, value in observation.items()}
        teleoperator.reset(0)
        teleoperator.act(observation)
        for name, value in observation.items():
            np.testing.assert_array_equal(value, before[name])
