"""Push: a puck too wide to be grasped is pushed onto a mark on the table.

What a narrow finger pushes runs off sideways, the faster the further off its middle it is touched
(Mason, Mechanics and planning of manipulator pushing operations, IJRR 1986), so the line of push
must be corrected all the way.

    from above    hand o   (  puck  )  - - ->  ( mark )        the hand stays behind the puck,
                          off |                                 and comes nearer to the dashed line

Success: the puck lies at rest wholly within the mark, and the hand has let go of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from sim.arm.panda import MAX_OPENING_M
from sim.arm.physics import HOME_M, ArmPhysics
from sim.arm.table import THINGS_GROUP, add_plate
from sim.arm.waypoints import Script, Waypoint, at

PUCK = "puck"
PUCK_RADIUS_M, PUCK_HALF_HEIGHT_M = 0.05, 0.02  # 10 cm wide; the fingers open to 8 cm
PUCK_MASS_KG = 0.25
FRICTION = 0.5  # with table and fingers: it stops at once, within 6 mm at 0.25 m/s
PUCK_COLOR, MARK_COLOR = (0.10, 0.25, 0.65), (0.45, 0.78, 0.45)
MARK_M = np.array([0.50, 0.0])
TOLERANCE_M = 0.025  # of the puck's middle; the mark is so much wider than the puck
AT_REST_M_S = 0.01
# Where the puck starts: within the front camera's view, and so far from the mark
LOW_M, HIGH_M = np.array([0.34, -0.21]), np.array([0.64, 0.21])
MIN_WAY_M = 0.12

PUSH_HEIGHT_M = 0.025  # of the tool centre point
CLEAR_M = (0.08, 0.11)  # above the table, on the way round
BEHIND_M = (0.02, 0.04)  # between hand and puck before a stroke
FINGERS_M = 0.012  # half the width of the closed fingers
TOUCH_M = PUCK_RADIUS_M + FINGERS_M  # between the middles of hand and puck when they touch
STEER = 3.0  # how sharply the hand turns back to the line; 0 is not at all
MAX_OFF_M = 0.03  # further off the line than this, it goes round again
STRIDE_M = 0.03
ARRIVED_M = 0.006
MAX_STROKES = 12


@dataclass(frozen=True)
class Memory:
    """How far the puck was from the mark at the start, m."""

    way_m: float


class Push:
    """The task. Nothing is hidden: the oracle is empty."""

    subgoals: tuple[str, ...] = ("go behind", "lower", "push", "back off", "done")
    oracle_size = 0

    def __init__(self, *, duration_s: float = 8.0) -> None:
        """An episode lasts at most `duration_s`; a demonstration needs about 3 s of it."""
        self.duration_s = duration_s
        self.memory = Memory(way_m=MIN_WAY_M)

    def build(self, scene: mujoco.MjSpec) -> None:
        """The mark and the puck."""
        radius = PUCK_RADIUS_M + TOLERANCE_M
        add_plate(scene, "mark", position=MARK_M, radius=radius, color=MARK_COLOR)
        body = scene.worldbody.add_body(name=PUCK, pos=(*MARK_M, PUCK_HALF_HEIGHT_M))
        body.add_freejoint(name=PUCK)
        body.add_geom(
            name=f"{PUCK}_body",
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            size=(PUCK_RADIUS_M, PUCK_HALF_HEIGHT_M, 0),
            mass=PUCK_MASS_KG,
            friction=(FRICTION, 0.005, 0.0001),
            priority=1,  # its friction counts; otherwise the larger one does, which is the table's
            rgba=(*PUCK_COLOR, 1),
            group=THINGS_GROUP,
        )

    def initialize(self, world: ArmPhysics, rng: np.random.Generator) -> None:
        """The puck anywhere on the table but near the mark, the hand above, off home by 4 cm."""
        world.set_hand(HOME_M + rng.uniform(-0.04, 0.04, size=3), yaw=rng.uniform(-0.3, 0.3))
        place = MARK_M
        while np.linalg.norm(place - MARK_M) < MIN_WAY_M:
            place = rng.uniform(LOW_M, HIGH_M)
        world.place(PUCK, np.array([*place, PUCK_HALF_HEIGHT_M]), yaw=rng.uniform(-np.pi, np.pi))
        world.settle()
        self.memory = Memory(way_m=distance_to_mark(world))

    def advance(self, world: ArmPhysics) -> None:
        """Nothing moves by itself."""

    def reward(self, world: ArmPhysics) -> float:
        """The share of the way to the mark that the puck has been brought nearer, times 0.95."""
        return 0.95 * float(np.clip(1 - distance_to_mark(world) / self.memory.way_m, 0.0, 1.0))

    def is_success(self, world: ArmPhysics) -> bool:
        """Whether the puck lies on the mark, untouched and at rest."""
        is_on_mark = distance_to_mark(world) < TOLERANCE_M
        is_at_rest = float(np.linalg.norm(world.velocity(PUCK))) < AT_REST_M_S
        is_flat = abs(world.position(PUCK)[2] - PUCK_HALF_HEIGHT_M) < 0.005
        return is_on_mark and is_at_rest and is_flat and not world.is_touching(PUCK)

    def oracle(self, world: ArmPhysics) -> np.ndarray:
        """(0,) nothing is hidden."""
        return np.zeros(0)

    def facts(self, world: ArmPhysics) -> dict[str, Any]:
        """None beside success."""
        return {}

    def script(self, world: ArmPhysics, rng: np.random.Generator) -> Script:
        """Strokes: go behind the puck, push, back off, until it lies on the mark."""
        yaw, clear = float(rng.uniform(-0.4, 0.4)), float(rng.uniform(*CLEAR_M))

        def waypoint(
            label: str, place: np.ndarray, *, height: float, tolerance_m: float
        ) -> Waypoint:
            position = at(np.array([*place, height]))
            return Waypoint(
                label=label, position=position, yaw=yaw, opening=0.0, tolerance_m=tolerance_m
            )

        for _ in range(MAX_STROKES):
            behind = puck_place(world) - (TOUCH_M + rng.uniform(*BEHIND_M)) * push_direction(world)
            yield waypoint("go behind", behind, height=clear, tolerance_m=0.03)
            yield waypoint("lower", behind, height=PUSH_HEIGHT_M, tolerance_m=0.012)
            yield Waypoint(
                label="push",
                position=lambda: steer(world),
                yaw=yaw,
                opening=0.0,
                tolerance_m=ARRIVED_M,
                is_careful=True,
            )
            here = world.tcp_position[:2]
            away = here + 0.05 * unit(here - puck_place(world))
            yield waypoint("back off", away, height=PUSH_HEIGHT_M + 0.03, tolerance_m=0.03)
            if distance_to_mark(world) < TOLERANCE_M:
                break
        yield Waypoint(
            label="done", position=at(HOME_M), yaw=yaw, opening=MAX_OPENING_M, tolerance_m=0.0
        )


def puck_place(world: ArmPhysics) -> np.ndarray:
    """(2,) m, the puck's middle on the table."""
    return world.position(PUCK)[:2]


def distance_to_mark(world: ArmPhysics) -> float:
    """From the puck's middle to the mark's, m."""
    return float(np.linalg.norm(puck_place(world) - MARK_M))


def push_direction(world: ArmPhysics) -> np.ndarray:
    """(2,) from the puck to the mark, of length 1."""
    return unit(MARK_M - puck_place(world))


def steer(world: ArmPhysics) -> np.ndarray:
    """(3,) where the hand shall go now to push the puck on, m; where it is if the stroke is over.

    The hand is `off` the line that goes through the puck to the mark. It moves along the line and
    back to it at once, more quickly than the puck turns away under its push:

        direction = along - STEER * off / TOUCH_M
    """
    here, along = world.tcp_position, push_direction(world)
    back = puck_place(world) - here[:2]
    off = (back @ along) * along - back
    if float(np.linalg.norm(off)) > MAX_OFF_M:
        return here
    direction = along - STEER * off / TOUCH_M
    gap = max(float(np.linalg.norm(back)) - TOUCH_M, 0.0)
    way = (distance_to_mark(world) + gap) * unit(direction)
    # its height is mended within a stride, not only by the end of the way
    strides = max(1.0, float(np.linalg.norm(way)) / STRIDE_M)
    return np.array([*(here[:2] + way), here[2] + strides * (PUSH_HEIGHT_M - here[2])])


def unit(vector: np.ndarray) -> np.ndarray:
    """`vector` at length 1; zeros stay zeros."""
    return vector / max(float(np.linalg.norm(vector)), 1e-9)
