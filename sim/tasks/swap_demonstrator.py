"""How a demonstrator swaps: park one fruit, bring the other to its plate, bring the first back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.arm.physics import ArmPhysics
from sim.arm.waypoints import OPEN_M, Script, Waypoint, at, go_home, pick, place
from sim.tasks.swap_scene import FRUITS, PLATES_M, on_plate
from sim.tasks.swap_tally import Layout

DETOUR_M = np.array([[0.42, -0.25, 0.14], [0.58, 0.25, 0.22]])  # corners of where detours lead
DETOUR_STEPS = (2, 7)


@dataclass(frozen=True)
class Demonstrator:
    """Makes one swap at a time.

    Attributes:
        apple_first: it parks the apple; else either fruit, at random.
        detours: share of the ways to a fruit or a plate on which it first sets out for somewhere
            else.
        misses: share of the grasps whose first try closes around nothing.
        is_careful: it passes over the plate in the middle. In one or two of a hundred swaps the
            straight way is so low that it knocks the other fruit off its plate. One swap can spare
            that; of several, all that follow would be lost.
    """

    apple_first: bool
    detours: float
    misses: float
    is_careful: bool

    def swap(self, world: ArmPhysics, start: Layout, rng: np.random.Generator) -> Script:
        """The three moves from `start`, the hand home after each."""
        first, second = (0, 1) if self.apple_first else rng.permutation(len(FRUITS))
        (free,) = set(range(len(PLATES_M))) - set(start)
        moves = ((first, free), (second, start[first]), (first, start[second]))
        names = list(FRUITS)
        for number, (fruit, plate) in enumerate(moves, start=1):
            label = f"move {number}: "
            yield from self._detour(f"{label}reach", rng)
            yield from pick(world, names[fruit], rng=rng, misses=self.misses, label=label)
            yield from self._detour(f"{label}carry", rng, opening=0.0)
            goal = on_plate(plate, rng)
            if self.is_careful and is_far(world, goal):
                yield from pass_over(world, goal, label=label)
            yield from place(world, names[fruit], position=goal, rng=rng, label=label)
            yield from go_home(label=label, rng=rng, tolerance_m=0.008)

    def _detour(self, label: str, rng: np.random.Generator, *, opening: float = OPEN_M) -> Script:
        """Sometimes a few control steps towards anywhere above the plates."""
        if self.detours == 0 or rng.random() >= self.detours:
            return
        anywhere = np.array([*rng.uniform(*DETOUR_M[:, :2]), rng.uniform(*DETOUR_M[:, 2])])
        steps = iter(range(int(rng.integers(*DETOUR_STEPS, endpoint=True))))
        yield Waypoint(
            label=label, position=at(anywhere), opening=opening, tolerance_m=np.inf,
            until=lambda: next(steps, None) is None,
        )  # fmt: skip


def is_far(world: ArmPhysics, goal: np.ndarray) -> bool:
    """Whether the way to `goal` (3,) leads over the plate in the middle."""
    return bool(np.linalg.norm(goal[:2] - world.tcp_position[:2]) > 0.3)


def pass_over(world: ArmPhysics, goal: np.ndarray, *, label: str) -> Script:
    """Up and almost to `goal` (3,), so high that what is held passes over the other fruit."""
    yaw = float(np.arctan2(-world.tcp_rotation[0, 0], world.tcp_rotation[1, 0]))
    for name, spot, height in (("lift", world.tcp_position, 0.14), ("carry", goal, 0.18)):
        position = at(np.array([*spot[:2], height]))
        yield Waypoint(
            label=f"{label}{name}", position=position, yaw=yaw, opening=0.0, tolerance_m=0.03
        )
