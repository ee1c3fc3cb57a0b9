"""Way-points: what a demonstrator does next, and the phrases that most tasks are made of.

A task's script is a generator of way-points. It reads the world whenever the next one is asked for,
so it can look, decide and try again:

    def script(self, world, rng):
        yield from pick(world, "cube", rng=rng)
        yield from place(world, "cube", at=..., rng=rng)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from sim.arm.panda import MAX_OPENING_M
from sim.arm.physics import HOME_M, ArmPhysics

OPEN_M = 0.07  # between the fingers before a grasp
HOVER_M = (0.10, 0.13)  # above a thing before going down to it, and with it: clear of others
FUNNEL_M = 0.02  # a hand less far off to a thing's side goes straight down to it
MAX_TRIES = 4
MISS_ASIDE_M, MISS_ABOVE_M = (0.010, 0.025), (0.035, 0.050)  # of a first try that fails

PICK = ("reach", "descend", "grasp", "lift")  # the sub-goals of each phrase
PLACE = ("carry", "lower", "release", "retreat")
HOME = ("home",)


@dataclass(frozen=True, kw_only=True)
class Waypoint:
    """Where the hand goes next.

    Attributes:
        label: the sub-goal's name.
        position: (3,) m, asked anew at every control step, as things move.
        yaw: of the hand pointing down, rad.
        opening: between the fingers, m.
        tolerance_m: it is reached within this distance.
        is_careful: slower, and almost without wander: near contact.
        until: also needed to be reached; asked once a control step.
    """

    label: str
    position: Callable[[], np.ndarray]
    yaw: float = 0.0
    opening: float = OPEN_M
    tolerance_m: float = 0.02
    is_careful: bool = False
    until: Callable[[], bool] | None = None


Script = Iterator[Waypoint]


def at(position: np.ndarray) -> Callable[[], np.ndarray]:
    """A place that does not move."""
    return lambda: position


def above(place: Callable[[], np.ndarray], height: float) -> Callable[[], np.ndarray]:
    """The place `height` m above another."""
    return lambda: place() + np.array([0.0, 0.0, height])


def funnel(world: ArmPhysics, place: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
    """The place, or above it while the hand is off to its side: it may have jumped away."""

    def entry() -> np.ndarray:
        there = place()
        off = float(np.linalg.norm((there - world.tcp_position)[:2]))
        return there + np.array([0.0, 0.0, np.clip(2 * (off - FUNNEL_M), 0.0, HOVER_M[0])])

    return entry


def pick(
    world: ArmPhysics,
    name: str,
    *,
    rng: np.random.Generator,
    yaw: float | Callable[[], float] | None = None,
    grasp_height: float = 0.0,
    misses: float = 0.0,
    label: str = "",
) -> Script:
    """Grasp the thing `name` and lift it, trying again if it slips.

    Args:
        world: the world; the thing is followed if it moves.
        name: a movable body.
        rng: for the height of the approach, the yaw, and where exactly to grasp.
        yaw: of the hand; a function is asked before each try, None draws one for all.
        grasp_height: of the fingers above the thing's origin, m.
        misses: share of the grasps whose first try closes above the thing and beside its middle,
            to show what to do then.
        label: put before the sub-goals' names.
    """
    yaw = float(rng.uniform(-0.5, 0.5)) if yaw is None else yaw
    for number in range(MAX_TRIES):
        hand_yaw = yaw() if callable(yaw) else yaw
        offset = np.array([*rng.normal(0.0, 0.002, size=2), grasp_height])
        if is_miss := number == 0 and misses > 0 and rng.random() < misses:
            offset += _miss(rng)
        thing = _moving(world, name, offset)
        reach = Waypoint(
            label=f"{label}reach",
            position=above(thing, rng.uniform(*HOVER_M)),
            yaw=hand_yaw,
            tolerance_m=0.03,
        )
        yield reach
        yield replace(
            reach,
            label=f"{label}descend",
            position=funnel(world, thing),
            tolerance_m=0.02 if is_miss else 0.006,  # it may lie on the thing, and come no nearer
            is_careful=True,
        )
        yield Waypoint(
            label=f"{label}grasp",
            position=at(here := world.tcp_position),
            yaw=hand_yaw,
            opening=0.0,
            is_careful=True,
            until=fingers_at_rest(world),
        )
        yield Waypoint(
            label=f"{label}lift",
            position=at(here + [0.0, 0.0, rng.uniform(*HOVER_M)]),
            yaw=hand_yaw,
            opening=0.0,
            tolerance_m=0.04,
        )
        if world.is_holding(name):
            return


def place(
    world: ArmPhysics,
    name: str,
    *,
    position: np.ndarray,
    rng: np.random.Generator,
    label: str = "",
) -> Script:
    """Set down the held thing `name` so that its origin comes to `position` (3,) m, and let go."""
    yaw = float(np.arctan2(-world.tcp_rotation[0, 0], world.tcp_rotation[1, 0]))
    goal = position + (world.tcp_position - world.position(name))
    carry = Waypoint(
        label=f"{label}carry",
        position=at(goal + [0.0, 0.0, rng.uniform(*HOVER_M)]),
        yaw=yaw,
        opening=0.0,
        tolerance_m=0.03,
    )
    yield carry
    yield replace(
        carry,
        label=f"{label}lower",
        position=at(goal),
        tolerance_m=0.015,  # sideways: what stands already is not pushed about
        is_careful=True,
        until=lambda: world.position(name)[2] < position[2] + 0.004,
    )
    yield Waypoint(
        label=f"{label}release",
        position=at(goal),
        yaw=yaw,
        is_careful=True,
        until=lambda: world.opening > OPEN_M - 0.01,
    )
    yield Waypoint(
        label=f"{label}retreat", position=at(goal + [0.0, 0.0, 0.10]), yaw=yaw, tolerance_m=0.04
    )


def go_home(
    *,
    label: str = "",
    tolerance_m: float = 0.012,
    rng: np.random.Generator | None = None,
) -> Script:
    """Back to where the hand rests, open; with `rng`, to a pose drawn as `near_home` does."""
    position, yaw = (HOME_M, 0.0) if rng is None else near_home(rng)
    yield Waypoint(
        label=f"{label}home",
        position=at(position),
        yaw=yaw,
        opening=MAX_OPENING_M,
        tolerance_m=tolerance_m,
    )


def near_home(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Position (3,) m within a centimetre of home and yaw in rad of a hand at rest."""
    return HOME_M + rng.uniform(-0.01, 0.01, size=3), float(rng.uniform(-0.05, 0.05))


def fingers_at_rest(world: ArmPhysics) -> Callable[[], bool]:
    """Whether the fingers have moved by less than half a millimetre in 0.1 s; asked once a step."""
    openings: list[float] = []
    num_steps = round(0.1 * world.rate_hz)

    def at_rest() -> bool:
        openings.append(world.opening)
        return len(openings) > num_steps and abs(openings[-1] - openings[-1 - num_steps]) < 0.0005

    return at_rest


def _miss(rng: np.random.Generator) -> np.ndarray:
    """(3,) m from where a grasp should be to where it closes around nothing."""
    direction, aside = rng.uniform(-np.pi, np.pi), rng.uniform(*MISS_ASIDE_M)
    return np.array(
        [aside * np.cos(direction), aside * np.sin(direction), rng.uniform(*MISS_ABOVE_M)]
    )


def _moving(world: ArmPhysics, name: str, offset: np.ndarray) -> Callable[[], np.ndarray]:
    return lambda: world.position(name) + offset
