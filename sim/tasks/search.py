"""Search: a fruit lies in one of three boxes and is to be found, picked and held up.

The boxes' backs hide it from the front camera, so that only the wrist camera, held over a box,
tells whether it is there; and only a memory tells which boxes are empty already. Who lowers the
hand into an empty box has lost, so that groping in each without looking does not count.

        arm
      _______   _______   _______       open above, low towards the arm
     |       | |       | |   o   |
     |=======| |=======| |=======|      high towards the front camera

The hand starts where its camera sees into none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import mujoco
import numpy as np

from sim.arm.panda import THINGS_GROUP
from sim.arm.physics import ArmPhysics
from sim.arm.table import Color, add_fruit
from sim.arm.waypoints import PICK, Script, Waypoint, at, pick

FRUIT, FRUIT_COLOR = "lime", (0.45, 0.78, 0.10)
FRUIT_RADIUS_M = 0.024
REST_HEIGHT_M = 0.93 * FRUIT_RADIUS_M

BOXES_M = np.array([[0.48, -0.22], [0.48, 0.0], [0.48, 0.22]])  # where a fruit lies, at the middle
BOX_COLOR: Color = (0.36, 0.40, 0.52)
SCATTER_M = np.array([0.012, 0.030])  # of the fruit in its box, either way
# Behind it, the hand with its camera must fit between fruit and back; aside, the open fingers
BACK_M, SIDE_M, NEAR_M = 0.112, 0.10, 0.055  # from the fruit's place to the walls
BACK_HEIGHT_M, LOW_HEIGHT_M, WALL_HALF_M = 0.17, 0.035, 0.003

START_M, START_SCATTER_M = np.array([0.30, 0.0, 0.19]), np.array([0.01, 0.20, 0.01])
LOOK_HEIGHT_M = (0.10, 0.125)  # of the fingers: higher, the neighbouring box is seen too
LOOK_BACK_M = 0.02  # they hang so much nearer to the arm than where the fruit lies
# Seen is what lies this far from the wrist picture's middle, in half picture sides:
BOX_SEEN = 0.6  # a box's middle, so that a fruit anywhere in it would be noticed
FRUIT_SEEN = 0.95  # the fruit's middle, so that half of it shows
LOWERED_M = 0.06  # the fingers in a box
SHOWN_M, SHOW_M = BACK_HEIGHT_M + 0.03, BACK_HEIGHT_M + 0.08  # above the boxes' backs
FAR_M = 0.4  # from here, coming nearer to the fruit counts


@dataclass(frozen=True)
class Memory:
    """What the episode was so far.

    Attributes:
        holds: index of the box with the fruit.
        is_seen: whether each box was looked into.
        has_missed: whether the hand was lowered into another box.
    """

    holds: int
    is_seen: tuple[bool, ...] = (False,) * len(BOXES_M)
    has_missed: bool = False

    @property
    def is_found(self) -> bool:
        """Whether the box with the fruit was looked into."""
        return self.is_seen[self.holds]


class Search:
    """The task. The oracle tells the boxes that were looked into, and the one with the fruit."""

    subgoals: tuple[str, ...] = ("look", *PICK, "show")
    oracle_size = 2 * len(BOXES_M)

    def __init__(self, *, duration_s: float = 8.0) -> None:
        """An episode lasts at most `duration_s`; a demonstration needs about half of it."""
        self.duration_s = duration_s
        self.memory = Memory(holds=0)

    def build(self, scene: mujoco.MjSpec) -> None:
        """Three boxes that do not move, and a fruit."""
        for index, middle in enumerate(BOXES_M):
            add_box(scene, f"box{index}", middle=middle)
        add_fruit(scene, FRUIT, radius=FRUIT_RADIUS_M, color=FRUIT_COLOR)

    def initialize(self, world: ArmPhysics, rng: np.random.Generator) -> None:
        """The fruit in any box, the hand before them."""
        start = START_M + rng.uniform(-START_SCATTER_M, START_SCATTER_M)
        world.set_hand(start, yaw=rng.uniform(-0.05, 0.05))
        holds = int(rng.integers(len(BOXES_M)))
        where = BOXES_M[holds] + rng.uniform(-SCATTER_M, SCATTER_M)
        world.place(FRUIT, np.array([*where, REST_HEIGHT_M]), yaw=rng.uniform(-np.pi, np.pi))
        world.settle()
        self.memory = Memory(holds=holds)

    def advance(self, world: ArmPhysics) -> None:
        """Remember the boxes that the wrist camera sees to be empty, or not, and a wrong reach."""
        memory, is_seen = self.memory, list(self.memory.is_seen)
        for box, middle in enumerate(BOXES_M):
            is_seen[box] |= sees(world, np.array([*middle, REST_HEIGHT_M]), within=BOX_SEEN)
        is_seen[memory.holds] |= sees(world, world.position(FRUIT), within=FRUIT_SEEN)
        self.memory = replace(
            memory,
            is_seen=tuple(is_seen),
            has_missed=memory.has_missed or lowered_into(world) not in (None, memory.holds),
        )

    def reward(self, world: ArmPhysics) -> float:
        """Up to 0.2 for looking, 0.3 once found, 0.5 on the way to it, 0.6 to 0.95 lifting it.

        0 once the hand was in a wrong box.
        """
        if self.memory.has_missed:
            return 0.0
        height = world.position(FRUIT)[2] - REST_HEIGHT_M
        if world.is_holding(FRUIT):
            return 0.6 + 0.35 * float(np.clip(height / SHOWN_M, 0.0, 1.0))
        if not self.memory.is_found:
            return 0.1 * sum(self.memory.is_seen)
        distance = float(np.linalg.norm(world.position(FRUIT) - world.tcp_position))
        return 0.3 + 0.2 * max(0.0, 1.0 - distance / FAR_M)

    def is_success(self, world: ArmPhysics) -> bool:
        """Whether the hand holds the fruit above the boxes and was in no other box."""
        is_shown = world.is_holding(FRUIT) and bool(world.position(FRUIT)[2] > SHOWN_M)
        return is_shown and not self.memory.has_missed

    def oracle(self, world: ArmPhysics) -> np.ndarray:
        """(6,) whether each box was looked into, and the box with the fruit, one-hot."""
        return np.array([*self.memory.is_seen, *np.eye(len(BOXES_M))[self.memory.holds]])

    def facts(self, world: ArmPhysics) -> dict[str, Any]:
        """None beside success."""
        return {}

    def script(self, world: ArmPhysics, rng: np.random.Generator) -> Script:
        """Look into one box after the other until the fruit is seen, then pick it and show it."""
        order = rng.permutation(len(BOXES_M))
        yield from self._look(order, height=rng.uniform(*LOOK_HEIGHT_M))
        while True:
            yield from pick(world, FRUIT, rng=rng, yaw=rng.uniform(-0.2, 0.2))
            x, y, _ = world.tcp_position
            high = np.array([x, 0.7 * y, SHOW_M])  # well within the front camera's view
            yield Waypoint(label="show", position=at(high), opening=0.0, tolerance_m=0.03)

    def _look(self, order: np.ndarray, *, height: float) -> Script:
        """Hover over the boxes in this order, without those seen in passing."""
        for box in order:
            if not self.memory.is_found and not self.memory.is_seen[box]:
                yield Waypoint(
                    label="look",
                    position=self._towards(box, height=height),
                    tolerance_m=0.04,
                    until=partial(self._is_seen_or_found, box),
                )

    def _towards(self, box: int, *, height: float) -> Callable[[], np.ndarray]:
        """Over `box`, or at once over the one in which the fruit has been seen."""

        def place() -> np.ndarray:
            goal = self.memory.holds if self.memory.is_found else box
            return np.array([*BOXES_M[goal] - [LOOK_BACK_M, 0.0], height])

        return place

    def _is_seen_or_found(self, box: int) -> bool:
        return self.memory.is_found or self.memory.is_seen[box]


def add_box(scene: mujoco.MjSpec, name: str, *, middle: np.ndarray) -> None:
    """Four walls round the fruit's place at `middle` (2,) m; the table is their floor."""
    half_depth, centre = (BACK_M + NEAR_M) / 2, middle[0] + (BACK_M - NEAR_M) / 2
    walls = {  # middle x, y and half sizes x, y, z
        "back": (middle[0] + BACK_M, middle[1], WALL_HALF_M, SIDE_M, BACK_HEIGHT_M / 2),
        "near": (middle[0] - NEAR_M, middle[1], WALL_HALF_M, SIDE_M, LOW_HEIGHT_M / 2),
        "left": (centre, middle[1] + SIDE_M, half_depth, WALL_HALF_M, LOW_HEIGHT_M / 2),
        "right": (centre, middle[1] - SIDE_M, half_depth, WALL_HALF_M, LOW_HEIGHT_M / 2),
    }
    for wall, (x, y, *half_size) in walls.items():
        scene.worldbody.add_geom(
            name=f"{name}_{wall}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=half_size,
            pos=(x, y, half_size[2]),
            rgba=(*BOX_COLOR, 1),
            group=THINGS_GROUP,
        )


def lowered_into(world: ArmPhysics) -> int | None:
    """Index of the box in which the fingers are, None if in none."""
    x, y, height = world.tcp_position
    is_along = (x > BOXES_M[:, 0] - NEAR_M) & (x < BOXES_M[:, 0] + BACK_M)
    is_in = is_along & (np.abs(y - BOXES_M[:, 1]) < SIDE_M)
    return int(is_in.argmax()) if height < LOWERED_M and is_in.any() else None


def sees(world: ArmPhysics, point: np.ndarray, *, within: float) -> bool:
    """Whether `point` (3,) m in a box is in the wrist camera's view, `within` half sides."""
    is_over = world.data.camera("wrist").xpos[0] < BOXES_M[0, 0] + BACK_M  # not beyond the backs
    return bool(is_over and np.abs(in_view(world, "wrist", point)).max() < within)


def in_view(world: ArmPhysics, camera: str, point: np.ndarray) -> np.ndarray:
    """(2,) where `camera` sees `point` (3,): right and up of its middle, in half picture sides.

    Infinite behind the camera. What stands between is not asked.
    """
    pose, angle = world.data.camera(camera), np.deg2rad(world.model.camera(camera).fovy[0])
    right, up, backward = (point - pose.xpos) @ pose.xmat.reshape(3, 3)
    if backward >= 0:
        return np.full(2, np.inf)
    half = -backward * np.tan(angle / 2)
    return np.array([right, up]) / half
