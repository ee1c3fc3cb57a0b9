"""Swap: an apple and an orange change places among three plates.

After the paper's robot experiment (Chen et al., Diffusion Forcing, NeurIPS 2024, section 4.4). The
hand goes home between the three moves, so the pictures there tell neither how the fruits lay at
first nor how many moves were made: only a memory does.

    start   A B .     move 1   . B A     move 2   B . A     (move 3 brings a fruit that was parked)

Success is judged at the end of the episode only, with the hand at home and exactly three moves
made, so that moving fruits at random does not count when it happens to pass the goal.

An episode can have several swaps, back and forth, and nothing is reset in between. Demonstrators
begin each by the clock, every 18 s, and rest at home till then:

    clock     |0                18 s|                36 s|
    hand       moves 1 2 3, rest . . moves 1 2 3, rest . .

A policy sees no clock, and a rest that is shorter or longer than theirs is no mistake, yet adds up
over ten swaps. So `facts()["swaps"]` and success go by what happens (`sim.tasks.swap_tally`): how
often each swap came out right, comparable from the first to the tenth. What is cut off by the end,
or cannot be made because a fruit fell off the plates, counts as wrong. `swaps_on_time` judges the
same by the clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import mujoco
import numpy as np

from sim.arm.physics import HOME_M, ArmPhysics
from sim.arm.table import PLATE_COLOR, add_fruit, add_plate
from sim.arm.waypoints import HOME, PICK, PLACE, Script, Waypoint, at, near_home
from sim.tasks.swap_demonstrator import Demonstrator
from sim.tasks.swap_scene import (
    FRUIT_RADIUS_M,
    FRUITS,
    PLATE_RADIUS_M,
    PLATES_M,
    REST_HEIGHT_M,
    are_swapped,
    are_upright,
    is_home,
    on_plate,
    plate_under,
    stands_on,
)
from sim.tasks.swap_tally import NO_PLATE, NUM_MOVES, Layout, Tally, is_layout, layouts

REST_S = 1.0  # at home for so long: a swap is over; between moves it is 0.8 s at most
LIFTED_M = 0.03  # a fruit this far above its rest is being moved


@dataclass(frozen=True)
class Memory:
    """What the episode was so far.

    Attributes:
        step: control steps made.
        start: plate of each fruit at the start of the present period.
        lies_on: plate on which each fruit lay last.
        tally: the swaps by what happened.
        num_moves: times a fruit was brought to another plate, in the present period.
        is_lifted: whether each fruit is in the air.
        swaps_on_time: of each period that is over, whether it was one swap.
        done_step: first control step after which all swaps were made; None until then.
    """

    step: int
    start: Layout
    lies_on: Layout
    tally: Tally
    num_moves: int = 0
    is_lifted: tuple[bool, ...] = (False, False)
    swaps_on_time: tuple[bool, ...] = ()
    done_step: int | None = None

    @classmethod
    def of(cls, start: Layout) -> Memory:
        """At the start of an episode."""
        return cls(step=0, start=start, lies_on=start, tally=Tally(start))


class Swap:
    """The task. The oracle tells the plates of the period's start and the moves made since."""

    subgoals = (
        *(f"move {i + 1}: {name}" for i in range(NUM_MOVES) for name in (*PICK, *PLACE, *HOME)),
        "done",
    )
    oracle_size = 2 * len(PLATES_M) + NUM_MOVES + 1

    def __init__(
        self,
        *,
        duration_s: float = 18.0,
        num_swaps: int = 1,
        apple_first: bool = False,
        detours: float = 0.0,
        misses: float = 0.0,
    ) -> None:
        """The task.

        Args:
            duration_s: the period of a swap; a demonstration needs about 14 s of it. An episode
                lasts exactly `num_swaps` periods.
            num_swaps: that are to be made one after the other.
            apple_first: demonstrators park the apple; else either fruit, at random.
            detours: share of the ways to a fruit or a plate on which demonstrators first set out
                for somewhere else, so that where the hand heads does not tell where it should go.
            misses: share of the grasps whose first try closes around nothing, so that
                demonstrators show how to try again.

        Raises:
            ValueError: `num_swaps` is less than 1, or `detours` or `misses` is no share.
        """
        for name, share in (("detours", detours), ("misses", misses)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}, expected a share from 0 to 1")
        if num_swaps < 1:
            raise ValueError(f"num_swaps is {num_swaps}, expected at least 1")
        self.duration_s, self._period_s = num_swaps * duration_s, duration_s
        self._num_swaps = num_swaps
        self._demonstrator = Demonstrator(
            apple_first=apple_first,
            detours=detours,
            misses=misses,
            is_careful=num_swaps > 1,
        )
        self.memory = Memory.of((0, 1))

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
        self.memory = Memory.of(start)

    def advance(self, world: ArmPhysics) -> None:
        """Count the moves, a fruit that was lifted and lies on another plate, and the swaps."""
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
        self._tell_tally(world, moves=num_moves - memory.num_moves)
        if self.memory.done_step is None and self._are_all_made(world):
            self.memory = replace(self.memory, done_step=memory.step)
        if self.memory.step == self._end_of_period(world):
            self._end_period(world)

    def _tell_tally(self, world: ArmPhysics, *, moves: int) -> None:
        """Count on until there are all swaps.

        No rest ends a single swap: none can follow, so what is moved later is a move too many.
        """
        tally = self.memory.tally
        if len(tally.swaps) < self._num_swaps:
            tally = tally.after_step(
                moves=moves,
                layout=stands_on(world),
                is_home=is_home(world),
                is_upright=are_upright(world),
                rest_steps=round(REST_S * world.rate_hz) if self._num_swaps > 1 else None,
            )
            self.memory = replace(self.memory, tally=tally)

    def _end_period(self, world: ArmPhysics) -> None:
        """Judge it by the clock; the present layout is the start of the next, if there is one."""
        memory = self.memory
        is_right = memory.num_moves == NUM_MOVES and is_home(world) and self.is_swapped(world)
        self.memory = replace(memory, swaps_on_time=(*memory.swaps_on_time, is_right))
        if not self._is_over(world):
            start = memory.lies_on if is_layout(memory.lies_on) else memory.start
            self.memory = replace(self.memory, start=start, num_moves=0)

    def _end_of_period(self, world: ArmPhysics) -> int:
        """The control step at which the present period ends."""
        return round((len(self.memory.swaps_on_time) + 1) * self._period_s * world.rate_hz)

    def _are_all_made(self, world: ArmPhysics) -> bool:
        """Whether every swap was right, the last one perhaps just now, and the hand is home."""
        tally = self.memory.tally
        missing = self._num_swaps - len(tally.swaps)
        is_last_right = missing == 0 or (
            missing == 1
            and tally.is_right(layout=stands_on(world), is_upright=are_upright(world))
            and is_home(world)
        )
        return is_last_right and all(tally.swaps)

    def _is_over(self, world: ArmPhysics) -> bool:
        return self.memory.step >= round(self.duration_s * world.rate_hz)

    def reward(self, world: ArmPhysics) -> float:
        """Share of the swaps made; of the present one 0.3 a move, as long as they are right."""
        memory, tally, present = self.memory, self.memory.tally, 0.0
        is_right_so_far = (
            tally.num_moves <= NUM_MOVES and memory.lies_on in layouts(tally.start)[tally.num_moves]
        )
        if len(tally.swaps) < self._num_swaps and is_right_so_far:
            present = 0.3 * tally.num_moves + 0.05 * are_swapped(world, tally.start)
        return (sum(tally.swaps) + present) / self._num_swaps

    def swaps(self, world: ArmPhysics) -> list[bool]:
        """Of each swap that is over, whether it was right; of all at the end of the episode.

        The end needs no rest before it; a swap that was not made by then is wrong.
        """
        tally = self.memory.tally
        swaps, missing = list(tally.swaps), self._num_swaps - len(tally.swaps)
        if missing and self._is_over(world):
            last = tally.is_right(layout=stands_on(world), is_upright=are_upright(world))
            swaps += [last and is_home(world)] + [False] * (missing - 1)
        return swaps

    def is_swapped(self, world: ArmPhysics) -> bool:
        """Whether each fruit stands upright on the plate that was the other's, this period."""
        return are_swapped(world, self.memory.start)

    def is_success(self, world: ArmPhysics) -> bool:
        """At the end: each swap by exactly three moves, the hand back home."""
        return self._is_over(world) and all(self.swaps(world))

    def oracle(self, world: ArmPhysics) -> np.ndarray:
        """(10,) plates at the period's start, one-hot for each fruit, and moves since, one-hot."""
        plates = np.eye(len(PLATES_M))[list(self.memory.start)].ravel()
        moves = np.eye(NUM_MOVES + 1)[min(self.memory.num_moves, NUM_MOVES)]
        return np.concatenate([plates, moves])

    def facts(self, world: ArmPhysics) -> dict[str, Any]:
        """Moves made and whether the fruits are swapped now, both in the present period, and

        swaps             of each swap that is over, whether it was right, irrespective of the
                          clock; at the end of the episode there are `num_swaps` of them
        swaps_done        how many were right
        swaps_failed      how many were wrong
        swaps_on_time     of each period that is over, whether it was one right swap
        done_step         first control step after which all swaps were made and the hand was home,
                          null if there was none; a success at the end only counts what is so then
        """
        swaps = self.swaps(world)
        return {
            "num_moves": self.memory.num_moves,
            "is_swapped": self.is_swapped(world),
            "swaps": swaps,
            "swaps_done": swaps.count(True),
            "swaps_failed": swaps.count(False),
            "swaps_on_time": list(self.memory.swaps_on_time),
            "done_step": self.memory.done_step,
        }

    def script(self, world: ArmPhysics, rng: np.random.Generator) -> Script:
        """Swap after swap; after each a rest at home until the period is over."""
        for number in range(1, self._num_swaps + 1):
            yield from self._demonstrator.swap(world, self.memory.start, rng)
            rest = Waypoint(label="done", position=at(HOME_M), opening=0.08, tolerance_m=0.0)
            if number < self._num_swaps:
                rest = replace(rest, tolerance_m=np.inf, until=self._has_ended(number))
            yield rest

    def _has_ended(self, number: int) -> Callable[[], bool]:
        """Whether `number` periods are over."""
        return lambda: len(self.memory.swaps_on_time) >= number
