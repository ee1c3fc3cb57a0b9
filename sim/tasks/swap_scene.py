"""The table of the swap: two fruits on three plates, where each stands, and what is swapped."""

from __future__ import annotations

import numpy as np

from sim.arm.physics import HOME_M, ArmPhysics
from sim.tasks.swap_tally import NO_PLATE, Layout

FRUITS = {"apple": (0.80, 0.10, 0.10), "orange": (0.95, 0.55, 0.05)}
PLATES_M = np.array([[0.50, -0.20], [0.50, 0.0], [0.50, 0.20]])
PLATE_RADIUS_M, FRUIT_RADIUS_M = 0.075, 0.03
REST_HEIGHT_M = 0.93 * FRUIT_RADIUS_M
SCATTER_M = 0.018  # of a fruit on its plate, either way
ON_PLATE_M, AT_HOME_M = 0.06, 0.05


def on_plate(plate: int, rng: np.random.Generator) -> np.ndarray:
    """(3,) a fruit's place on `plate`, scattered alike at the start and after a move."""
    return np.array([*(PLATES_M[plate] + rng.uniform(-SCATTER_M, SCATTER_M, 2)), REST_HEIGHT_M])


def stands_on(world: ArmPhysics) -> Layout:
    """The plate on which each fruit stands, NO_PLATE for one in the air or on the table."""
    places = [world.position(name) for name in FRUITS]
    is_low = [place[2] < REST_HEIGHT_M + 0.01 for place in places]
    return tuple(
        plate_under(place) if low else NO_PLATE for place, low in zip(places, is_low, strict=True)
    )


def are_upright(world: ArmPhysics) -> bool:
    """Whether no fruit lies on its side."""
    return all(bool(world.rotation(name)[2, 2] > 0.9) for name in FRUITS)


def are_swapped(world: ArmPhysics, start: Layout) -> bool:
    """Whether each fruit stands upright on the plate that was the other's in `start`."""
    return stands_on(world) == start[::-1] and are_upright(world)


def is_home(world: ArmPhysics) -> bool:
    """Whether the hand is where it rests."""
    return float(np.linalg.norm(world.tcp_position - HOME_M)) < AT_HOME_M


def plate_under(position: np.ndarray) -> int:
    """Index of the plate on which a fruit at `position` (3,) lies, NO_PLATE if on none."""
    distances = np.linalg.norm(PLATES_M - position[:2], axis=1)
    nearest = int(distances.argmin())
    return nearest if distances[nearest] < ON_PLATE_M else NO_PLATE
