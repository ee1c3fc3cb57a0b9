"""Pick and place with the arm: a block, lying anyhow, is to be put on a tray.

    start   .  /\\  .      end   .  .  .     the hand turns to the block's faces before it grasps
            .  \\/  .            .  .  .
            . [  ] .            . [#] .     success: it rests on the tray, the hand is away

Short and without secrets: what a camera shows at any moment says what to do next.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from sim.arm.physics import HOME_M, ArmPhysics
from sim.arm.table import add_block
from sim.arm.waypoints import PICK, PLACE, Script, pick, place

BLOCK, TRAY = "block", "tray"
BLOCK_COLOR, TRAY_COLOR = (0.82, 0.16, 0.12), (0.22, 0.42, 0.70)
BLOCK_HALF_M = 0.022
TRAY_HALF_M, TRAY_HALF_HEIGHT_M = 0.065, 0.004
ON_TRAY_M = np.array([0.0, 0.0, TRAY_HALF_HEIGHT_M + BLOCK_HALF_M])  # from the tray's origin

LOW_M, HIGH_M = np.array([0.38, -0.18]), np.array([0.58, 0.18])  # where the two may lie, in sight
APART_M = 0.17  # more than the sum of their half diagonals, so that the fingers fit between
SCATTER_M = 0.02  # of the block on the tray, where the demonstrator puts it

INSIDE_M = TRAY_HALF_M - 0.01  # the block's middle at most this far from the tray's, either way
FLAT_M = 0.004  # lower or higher than this, it leans or floats
AT_REST_M_S = 0.05
AWAY_M = 0.05  # the hand from the block, more than its open fingers need
FAR_M = 0.6  # from here, coming nearer counts


class ArmPickPlace:
    """The task; nothing needs to be remembered."""

    subgoals: tuple[str, ...] = (*PICK, *PLACE)
    oracle_size = 0
    memory = None

    def __init__(self, *, duration_s: float = 9.0) -> None:
        """An episode lasts at most `duration_s`; a demonstration needs about half of it."""
        self.duration_s = duration_s

    def build(self, scene: mujoco.MjSpec) -> None:
        """A cube and a low square tray, heavy enough to stay when it is brushed."""
        add_block(
            scene, BLOCK, half_size=(BLOCK_HALF_M, BLOCK_HALF_M, BLOCK_HALF_M), color=BLOCK_COLOR
        )
        half_size = (TRAY_HALF_M, TRAY_HALF_M, TRAY_HALF_HEIGHT_M)
        add_block(scene, TRAY, half_size=half_size, color=TRAY_COLOR, mass=0.4)

    def initialize(self, world: ArmPhysics, rng: np.random.Generator) -> None:
        """Block and tray anywhere, turned anyhow, apart."""
        world.set_hand(HOME_M + rng.uniform(-0.02, 0.02, size=3), yaw=rng.uniform(-0.05, 0.05))
        block, tray = rng.uniform(LOW_M, HIGH_M, size=(2, 2))
        while np.linalg.norm(block - tray) < APART_M:
            block, tray = rng.uniform(LOW_M, HIGH_M, size=(2, 2))
        for name, where, height in (
            (BLOCK, block, BLOCK_HALF_M),
            (TRAY, tray, TRAY_HALF_HEIGHT_M),
        ):
            world.place(name, np.array([*where, height]), yaw=rng.uniform(-np.pi, np.pi))
        world.settle()

    def advance(self, world: ArmPhysics) -> None:
        """Nothing moves by itself."""

    def reward(self, world: ArmPhysics) -> float:
        """Up to 0.25 on the way to the block, 0.3 to 0.85 with it to the tray, 0.9 on it."""
        if is_on_tray(world):
            return 0.9
        way = world.position(TRAY) + ON_TRAY_M - world.position(BLOCK)
        if world.is_holding(BLOCK):
            return 0.3 + 0.55 * nearness(way)
        return 0.25 * nearness(world.position(BLOCK) - world.tcp_position)

    def is_success(self, world: ArmPhysics) -> bool:
        """Whether the block rests on the tray and the hand has let it go and left."""
        is_at_rest = float(np.linalg.norm(world.velocity(BLOCK))) < AT_REST_M_S
        is_away = float(np.linalg.norm(world.tcp_position - world.position(BLOCK))) > AWAY_M
        return is_on_tray(world) and is_at_rest and is_away

    def oracle(self, world: ArmPhysics) -> np.ndarray:
        """(0,) as nothing is hidden."""
        return np.zeros(0)

    def facts(self, world: ArmPhysics) -> dict[str, Any]:
        """None beside success."""
        return {}

    def script(self, world: ArmPhysics, rng: np.random.Generator) -> Script:
        """Grasp the block by two of its faces, put it on the tray; again if it fell."""
        while True:
            yield from pick(world, BLOCK, rng=rng, yaw=lambda: grasp_yaw(world.yaw(BLOCK)))
            scatter = np.array([*rng.uniform(-SCATTER_M, SCATTER_M, size=2), 0.0])
            goal = world.position(TRAY) + ON_TRAY_M + scatter
            yield from place(world, BLOCK, position=goal, rng=rng)


def is_on_tray(world: ArmPhysics) -> bool:
    """Whether the block lies flat on the tray, held or not."""
    way = world.position(BLOCK) - world.position(TRAY)
    aside, height = (way @ world.rotation(TRAY))[:2], way[2] - ON_TRAY_M[2]
    return bool(np.abs(aside).max() < INSIDE_M and abs(height) < FLAT_M)


def grasp_yaw(block_yaw: float) -> float:
    """The hand's yaw, -pi/4 to pi/4 rad, at which its fingers face two faces of the block."""
    return (block_yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4


def nearness(way: np.ndarray) -> float:
    """1 at the end of the `way` (3,) m that is left, falling to 0 at `FAR_M`."""
    return max(0.0, 1.0 - float(np.linalg.norm(way)) / FAR_M)
