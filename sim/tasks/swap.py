"""Swap: an apple and an orange change places among three plates.

After the paper's robot experiment (Chen et al., Diffusion Forcing, NeurIPS 2024, section 4.4). The
hand goes home between the three moves, so the pictures there tell neither how the fruits lay at
first nor how many moves were made: only a memory does.

    start   A B .     move 1   . B A     move 2   B . A     (move 3 brings a fruit that was parked)

Success is judged at the end of the episode only, with the hand at home and exactly three moves
made, so that moving fruits at random does not count when it happens to pass the goal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import mujoco
import numpy as np

from sim.arm.physics import HOME_M, ArmPhysics
from sim.arm.table import PLATE_COLOR, add_fruit, add_plate
from sim.arm.waypoints import (
    HOME,
    PICK,
    PLACE,
    Script,
    Waypoint,
    at,
    go_home,
    near_home,
    pick,
    place,
)

FRUITS = {"apple": (0.80, 0.10, 0.10), "orange": (0.95, 0.55, 0.05)}
PLATES_M = np.array([[0.50, -0.20], [0.50, 0.0], [0.50, 0.20]])
PLATE_RADIUS_M, FRUIT_RADIUS_M = 0.075, 0.03
REST_HEIGHT_M = 0.93 * FRUIT_RADIUS_M
SCATTER_M = 0.018  # of a fruit on its plate, either way
ON_PLATE_M, AT_HOME_M = 0.06, 0.05
LIFTED_M = 0.03  # a fruit this far above its rest is being moved
NUM_MOVES = 3
NO_PLATE = -1


@dataclass(frozen=True)
class Memory:
    """What the episode was so far.

    Attributes:
        step: control steps made.
        start: plate of each fruit at the start.
        lies_on: plate on which each fruit lay last.
        num_moves: times a fruit was brought to another plate.
        is_lifted: whether each fruit is in the air.
    """

    step: int
    start: tuple[int, ...]
    lies_on: tuple[int, ...]
    num_moves: int = 0
    is_lifted: tuple[bool, ...] = (False, False)


class Swap:
    """The task. The oracle tells the plates of the start and the number of moves made."""

    subgoals = (
        *(f"move {i + 1}: {name}" for i in range(NUM_MOVES) for name in (*PICK, *PLACE, *HOME)),
        "done",
    )
    oracle_size = 2 * len(PLATES_M) + NUM_MOVES + 1

    def __init__(self, *, duration_s: float = 18.0, apple_first: bool = False) -> None:
        """The task.

        Args:
            duration_s: an episode lasts exactly so long; a demonstration needs about 14 s of it.
            apple_first: demonstrators park the apple; else either fruit, at random.
        """
        self.duration_s, self._apple_first = duration_s, apple_first
        self.memory = Memory(step=0, start=(0, 1), lies_on=(0, 1))

    def build(self, scene: mujoco.MjSpec) -> None:
        """Three plates in a row, an apple and an orange."""
        for index, position in enumerate(PLATES_M):
            add_plate(
                scene,
                f"plate{index}",
                position=position,
                radius=PLATE_RADIUS_M,
                color=PLATE_COLOR,
            )
        for name, color in FRUITS.items():
            add_fruit(scene, name, radius=FRUIT_RADIUS_M, color=color)

    def initialize(self, world: ArmPhysics, rng: np.random.Generator) -> None:
        """Each fruit on a plate of its own, off its middle by up to 18 mm."""
        position, yaw = near_home(rng)
        world.set_hand(position, yaw=yaw)
        start = tuple(int(i) for i in rng.permutation(len(PLATES_M))[: len(FRUITS)])
        for name, plate in zip(FRUITS, start, strict=True):
            world.place(name, on_plate(plate, rng), yaw=rng.uniform(-np.pi, np.pi))
        world.settle()
        self.memory = Memory(step=0, start=start, lies_on=start)

    def advance(self, world: ArmPhysics) -> None:
        """Count the moves: a fruit that was lifted and lies on another plate."""
        memory = self.memory
        lies_on, num_moves = list(memory.lies_on), memory.num_moves
        is_lifted = list(memory.is_lifted)
        for index, name in enumerate(FRUITS):
            height = world.position(name)[2] - REST_HEIGHT_M
            if height > LIFTED_M:
                is_lifted[index] = True
            elif is_lifted[index] and height < 0.01 and not world.is_touching(name):
                is_lifted[index] = False
                plate = plate_under(world.position(name))
                if plate not in (NO_PLATE, lies_on[index]):
                    num_moves += 1
                    lies_on[index] = plate
        self.memory = replace(
            memory,
            step=memory.step + 1,
            lies_on=tuple(lies_on),
            num_moves=num_moves,
            is_lifted=tuple(is_lifted),
        )

    def reward(self, world: ArmPhysics) -> float:
        """0.3 a move, as long as they are the right ones."""
        memory = self.memory
        if memory.num_moves > NUM_MOVES or memory.lies_on not in layouts(memory)[memory.num_moves]:
            return 0.0
        return 0.3 * memory.num_moves + 0.05 * self.is_swapped(world)

    def is_swapped(self, world: ArmPhysics) -> bool:
        """Whether each fruit stands upright on the plate that was the other's."""
        places = [plate_under(world.position(name)) for name in FRUITS]
        upright = [world.rotation(name)[2, 2] > 0.9 for name in FRUITS]
        low = [world.position(name)[2] < REST_HEIGHT_M + 0.01 for name in FRUITS]
        return tuple(places) == self.memory.start[::-1] and all(upright) and all(low)

    def is_success(self, world: ArmPhysics) -> bool:
        """At the end: swapped by exactly three moves, the hand back home."""
        is_over = self.memory.step >= round(self.duration_s * world.rate_hz)
        is_home = float(np.linalg.norm(world.tcp_position - HOME_M)) < AT_HOME_M
        return is_over and is_home and self.memory.num_moves == NUM_MOVES and self.is_swapped(world)

    def oracle(self, world: ArmPhysics) -> np.ndarray:
        """(10,) plates at the start, one-hot for each fruit, and moves made, one-hot."""
        plates = np.eye(len(PLATES_M))[list(self.memory.start)].ravel()
        moves = np.eye(NUM_MOVES + 1)[min(self.memory.num_moves, NUM_MOVES)]
        return np.concatenate([plates, moves])

    def facts(self, world: ArmPhysics) -> dict[str, Any]:
        """Moves made, and whether the fruits are swapped now."""
        return {"num_moves": self.memory.num_moves, "is_swapped": self.is_swapped(world)}

    def script(self, world: ArmPhysics, rng: np.random.Generator) -> Script:
        """Park one fruit, bring the other to its plate, bring the first to the other's."""
        first, second = (0, 1) if self._apple_first else rng.permutation(len(FRUITS))
        start = self.memory.start
        (free,) = set(range(len(PLATES_M))) - set(start)
        moves = ((first, free), (second, start[first]), (first, start[second]))
        names = list(FRUITS)
        for number, (fruit, plate) in enumerate(moves, start=1):
            label = f"move {number}: "
            yield from pick(world, names[fruit], rng=rng, label=label)
            goal = on_plate(plate, rng)
            yield from place(world, names[fruit], position=goal, rng=rng, label=label)
            yield from go_home(label=label, rng=rng, tolerance_m=0.008)
        yield Waypoint(label="done", position=at(HOME_M), opening=0.08, tolerance_m=0.0)


def on_plate(plate: int, rng: np.random.Generator) -> np.ndarray:
    """(3,) a fruit's place on `plate`, scattered alike at the start and after a move."""
    return np.array([*(PLATES_M[plate] + rng.uniform(-SCATTER_M, SCATTER_M, 2)), REST_HEIGHT_M])


def layouts(memory: Memory) -> tuple[set[tuple[int, ...]], ...]:
    """The plates of apple and orange after 0, 1, 2 and 3 moves that lead to the swap."""
    apple, orange = memory.start
    (free,) = set(range(len(PLATES_M))) - {apple, orange}
    return (
        {(apple, orange)},
        {(free, orange), (apple, free)},
        {(free, apple), (orange, free)},
        {(orange, apple)},
    )


def plate_under(position: np.ndarray) -> int:
    """Index of the plate on which a fruit at `position` (3,) lies, NO_PLATE if on none."""
    distances = np.linalg.norm(PLATES_M - position[:2], axis=1)
    nearest = int(distances.argmin())
    return nearest if distances[nearest] < ON_PLATE_M else NO_PLATE
