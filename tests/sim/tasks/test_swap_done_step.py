"""Swap tells when it was done, though success is judged at the end of the episode only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sim.arm.environment import ArmEnvironment
from sim.arm.physics import HOME_M
from sim.tasks.swap import Swap
from sim.tasks.swap_scene import FRUITS, PLATES_M, REST_HEIGHT_M
from sim.tasks.swap_tally import Tally


def crafted(*, num_moves: int = 3, swapped: bool = True, step: int = 40) -> ArmEnvironment:
    """At `step` of an episode that began with the apple on plate 0; the hand is not at home."""
    environment = ArmEnvironment(Swap(), features=("state",))
    environment.reset(0)
    world, task = environment.physics, environment.arm_task
    lies_on = (1, 0) if swapped else (0, 1)
    for name, plate in zip(FRUITS, lies_on, strict=True):
        world.place(name, np.array([*PLATES_M[plate], REST_HEIGHT_M]))
    world.set_hand(HOME_M + [0.0, 0.0, 0.1], yaw=0.0)
    tally = Tally((0, 1), num_moves=num_moves)
    task.memory = replace(
        task.memory, step=step, start=(0, 1), lies_on=lies_on, num_moves=num_moves, tally=tally
    )
    return environment


def stay(environment: ArmEnvironment, num: int = 1) -> int | None:
    """What `done_step` is after `num` more control steps without motion."""
    world = environment.physics
    for _ in range(num):
        environment.step(world.action_towards(world.hand))
    return environment.facts()["done_step"]


def test_it_is_done_at_the_first_step_that_ends_at_home_and_stays_so():
    environment = crafted(step=40)
    assert stay(environment, 3) is None
    environment.physics.set_hand(HOME_M, yaw=0.0)
    assert stay(environment) == 43
    assert stay(environment, 5) == 43
    environment.physics.set_hand(HOME_M + [0.0, 0.0, 0.1], yaw=0.0)
    assert stay(environment, 2) == 43


def test_it_is_not_done_by_another_number_of_moves_nor_unswapped():
    for environment in (crafted(num_moves=4), crafted(num_moves=2), crafted(swapped=False)):
        environment.physics.set_hand(HOME_M, yaw=0.0)
        assert stay(environment, 2) is None


def test_a_new_episode_knows_nothing_of_it():
    environment = crafted()
    environment.physics.set_hand(HOME_M, yaw=0.0)
    assert stay(environment) is not None
    environment.reset(1)
    assert stay(environment) is None
