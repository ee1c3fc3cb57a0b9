"""Swap: what counts as a move and as success."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim.arm.environment import ArmEnvironment
from sim.arm.physics import HOME_M, ArmPhysics
from sim.tasks.swap import Memory, Swap
from sim.tasks.swap_scene import FRUITS, PLATES_M, REST_HEIGHT_M, plate_under
from sim.tasks.swap_tally import NO_PLATE, Tally, layouts
from teleop_data.environment import StepResult
from tests.contracts.environment_contract import EnvironmentContract
from tests.sim.arm.arm_motions import down_at, go

FREE = 2  # plate of no fruit in the crafted starts


class TestSwap(EnvironmentContract):
    def make(self):
        return ArmEnvironment(
            Swap(duration_s=3.0), features=("state", "objects", "oracle"), render_pixels=256
        )

    def typical_action(self, rng):
        place = rng.uniform([0.35, -0.2, 0.03], [0.55, 0.2, 0.25])
        return down_at(place, opening=rng.uniform(0, 0.08)).to_vector()


# --- what counts ---


def last_step(
    *, num_moves: int = 3, swapped: bool = True, hand_m: float = 0.0, steps_left: int = 1
) -> StepResult:
    """Of an episode that began with apple on plate 0, orange on 1, brought to a state by hand."""
    environment = ArmEnvironment(Swap(), features=("state",))
    environment.reset(0)
    world, task = environment.physics, environment.arm_task
    for name, plate in zip(FRUITS, (1, 0) if swapped else (0, 1), strict=True):
        world.place(name, np.array([*PLATES_M[plate], REST_HEIGHT_M]))
    world.set_hand(HOME_M + [0.0, 0.0, hand_m], yaw=0.0)
    lies_on = (1, 0) if swapped else (0, 1)
    task.memory = replace(
        task.memory,
        step=environment.max_steps - steps_left,
        start=(0, 1),
        lies_on=lies_on,
        num_moves=num_moves,
        tally=Tally((0, 1), num_moves=num_moves),
    )
    return environment.step(world.action_towards(world.hand))


def test_swapped_by_three_moves_and_home_at_the_end_is_success():
    result = last_step()
    assert result.success
    assert result.terminated
    assert result.reward == 1.0


@pytest.mark.parametrize("num_moves", [0, 2, 4, 5])
def test_another_number_of_moves_is_none(num_moves: int):
    assert not last_step(num_moves=num_moves).success


def test_before_the_end_it_is_not_success_yet():
    result = last_step(steps_left=2)
    assert not result.success
    assert not result.terminated
    assert 0.9 < result.reward < 1.0


def test_a_hand_that_is_not_home_is_no_success():
    assert not last_step(hand_m=0.06).success
    assert last_step(hand_m=-0.04).success


def test_fruits_that_are_not_swapped_are_no_success():
    assert not last_step(swapped=False).success


def world_with(task: Swap) -> ArmPhysics:
    """Apple on plate 0, orange on plate 1, none on plate 2."""
    world = ArmPhysics(task.build)
    task.initialize(world, np.random.default_rng(0))
    for plate, name in enumerate(FRUITS):
        world.place(name, np.array([*PLATES_M[plate], REST_HEIGHT_M]))
    task.memory = Memory.of((0, 1))
    return world


def carry(task: Swap, world: ArmPhysics, name: str, place: tuple[float, float]) -> None:
    """Lift `name` and set it down at `place`, as a ghost would."""
    for height in (0.1, 0.0):
        world.place(name, np.array([*place, REST_HEIGHT_M + height]))
        task.advance(world)


def test_a_move_is_a_lifted_fruit_on_another_plate():
    task = Swap()
    world = world_with(task)
    carry(task, world, "apple", tuple(PLATES_M[0] + 0.01))  # back where it was
    assert task.memory.num_moves == 0
    world.place("apple", np.array([*PLATES_M[FREE], REST_HEIGHT_M]))  # slid, never lifted
    task.advance(world)
    assert task.memory.num_moves == 0
    carry(task, world, "apple", tuple(PLATES_M[FREE]))
    assert task.memory.num_moves == 1
    assert task.memory.lies_on == (2, 1)
    carry(task, world, "orange", (0.5, 0.1))  # dropped between the plates: under way still
    assert task.memory.num_moves == 1
    carry(task, world, "orange", tuple(PLATES_M[0]))
    assert task.memory.num_moves == 2
    assert task.memory.lies_on == (2, 0)


def test_a_fruit_in_the_hand_has_not_been_moved_yet():
    task = Swap()
    world = world_with(task)
    here = world.position("apple")
    go(world, down_at(here + [0, 0, 0.1], opening=0.07))
    go(world, down_at(here, opening=0.07))
    go(world, down_at(here, opening=0.0), duration_s=0.5)
    go(world, down_at(here + [0, 0, 0.08], opening=0.0))
    task.advance(world)
    assert task.memory.is_lifted == (True, False)
    above = np.array([*PLATES_M[FREE], here[2]])
    for waypoint in (above + [0, 0, 0.08], above):
        go(world, down_at(waypoint, opening=0.0), duration_s=2.0)
        task.advance(world)
    assert task.memory.num_moves == 0  # on the plate, but held
    go(world, down_at(above, opening=0.08), duration_s=0.6)
    task.advance(world)
    assert task.memory.num_moves == 1


def test_only_the_right_moves_are_progress():
    task = Swap()
    world = world_with(task)
    rewards = [task.reward(world)]
    for name, plate in (("apple", FREE), ("orange", 0), ("apple", 1)):
        carry(task, world, name, tuple(PLATES_M[plate]))
        rewards.append(task.reward(world))
    assert rewards == pytest.approx([0.0, 0.3, 0.6, 0.95])
    carry(task, world, "apple", tuple(PLATES_M[FREE]))
    assert task.reward(world) == 0.0

    task = Swap()
    world = world_with(task)
    for name, plate in (("apple", FREE), ("apple", 0)):  # there and back leads nowhere
        carry(task, world, name, tuple(PLATES_M[plate]))
    assert task.reward(world) == 0.0


def test_a_fruit_that_lies_down_is_not_swapped():
    task = Swap()
    world = world_with(task)
    for name, plate in (("apple", 1), ("orange", 0)):
        world.place(name, np.array([*PLATES_M[plate], REST_HEIGHT_M]))
    assert task.is_swapped(world)
    first = world.model.joint("apple").qposadr[0]
    world.data.qpos[first + 3 : first + 7] = np.sqrt(0.5) * np.array([1, 1, 0, 0])
    world.restore(world.save())
    assert not task.is_swapped(world)


def test_every_start_has_its_layouts():
    for start in ((0, 1), (2, 0), (1, 2)):
        (free,) = {0, 1, 2} - set(start)
        begin, parked, crossed, swapped = layouts(start)
        assert begin == {start}
        assert swapped == {start[::-1]}
        assert all(free in layout for layout in parked | crossed)


def test_plates_are_told_apart_from_the_table():
    for plate, place in enumerate(PLATES_M):
        assert plate_under(np.array([*place + 0.04, REST_HEIGHT_M])) == plate
    assert plate_under(np.array([0.5, 0.1, REST_HEIGHT_M])) == NO_PLATE


def test_the_oracle_tells_the_start_and_the_moves():
    task = Swap()
    world = world_with(task)
    np.testing.assert_array_equal(task.oracle(world), [1, 0, 0, 0, 1, 0, 1, 0, 0, 0])
    carry(task, world, "apple", tuple(PLATES_M[FREE]))
    np.testing.assert_array_equal(task.oracle(world), [1, 0, 0, 0, 1, 0, 0, 1, 0, 0])
