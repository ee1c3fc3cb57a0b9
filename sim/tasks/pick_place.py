"""Pick and place: take the red object, carry it into the green ring, let go.

The policy's state is the hand alone; object and goal are seen by the camera only, so a covered
camera matters. Learnable from some 150 demonstrations by a small network.
"""

from __future__ import annotations

import numpy as np

from sim.environment import TaskEnvironment
from sim.planar_arm import (
    BASE_M,
    OBJECT_RADIUS_M,
    RATE_HZ,
    TABLE_BOTTOM_M,
    TABLE_LEFT_M,
    TABLE_SIDE_M,
    WORKSPACE_HIGH_M,
    WORKSPACE_LOW_M,
    PlanarArm,
    elbow,
)
from sim.raster import Canvas, Color
from teleop_data.schema import Feature, Schema

SCHEMA = Schema(
    features=(
        # one pixel of the camera is 1 cm; x right, y up
        Feature(name="top", shape=(64, 64, 3), dtype="uint8", role="camera"),
        # hand x, y in m; gripper closure, 0 open to 1 closed
        Feature(name="state", shape=(3,), role="state", unit="m"),
        # targets of the same three
        Feature(name="action", shape=(3,), role="action", unit="m"),
    ),
    rate_hz=RATE_HZ,
)
ACTION_LOW = np.array([*WORKSPACE_LOW_M, 0.0], np.float32)  # (3,) targets beyond are clipped
ACTION_HIGH = np.array([*WORKSPACE_HIGH_M, 1.0], np.float32)

GOAL_RADIUS_M = 0.065
GOAL_TOLERANCE_M = 0.05  # object centre to goal centre, at most
START_LOW_M, START_HIGH_M = np.array([-0.22, 0.14]), np.array([0.22, 0.52])
MIN_START_DISTANCE_M = 0.16
FAR_M = 0.40  # a distance that earns nothing yet

TABLE: Color = (236, 233, 226)
GOAL: Color = (38, 166, 91)
OBJECT: Color = (214, 48, 39)
ARM: Color = (52, 58, 70)
JOINT: Color = (120, 128, 140)


class PickPlace:
    """The task over a `PlanarArm`. Places are drawn from the seed, apart from each other."""

    schema = SCHEMA

    def __init__(self, *, max_steps: int = 70) -> None:
        """An episode lasts at most `max_steps` control steps; a demonstration takes about 30."""
        self.max_steps = max_steps

    def initialize(self, physics: PlanarArm, rng: np.random.Generator) -> None:
        """Draw hand, object and goal uniformly, each at least 16 cm from the others."""
        while True:
            hand, thing, goal = rng.uniform(START_LOW_M, START_HIGH_M, size=(3, 2))
            gaps = [np.linalg.norm(a - b) for a, b in ((hand, thing), (thing, goal), (goal, hand))]
            if min(gaps) >= MIN_START_DISTANCE_M:
                break
        physics.place(hand=hand, object_position=thing, goal_position=goal)

    def advance(self, physics: PlanarArm) -> None:
        """Nothing moves by itself, and nothing is to be remembered."""

    def observe(self, physics: PlanarArm) -> dict[str, np.ndarray]:
        """`state` (3,) float32 and `top` (64, 64, 3) uint8."""
        return {
            "top": draw(physics, num_pixels=64),
            "state": np.array([*physics.hand, physics.gripper], np.float32),
        }

    def reward(self, physics: PlanarArm) -> float:
        """A quarter for reaching, a quarter for holding, 0.4 for carrying, the rest for success."""
        if self.is_success(physics):
            return 1.0
        reach = 1 - min(physics.distance_to_object / FAR_M, 1.0)
        carry = 1 - min(physics.distance_to_goal / FAR_M, 1.0)
        return 0.25 * reach + 0.25 * physics.is_holding + 0.4 * carry

    def is_success(self, physics: PlanarArm) -> bool:
        """Whether the object lies in the goal and the hand has let go."""
        return not physics.is_holding and physics.distance_to_goal <= GOAL_TOLERANCE_M


def pick_place_environment(
    *, max_steps: int = 70, render_pixels: int = 384
) -> TaskEnvironment[PlanarArm]:
    """The pick-and-place environment; `render_pixels` is the side of the picture for people."""
    return TaskEnvironment(
        PlanarArm(),
        PickPlace(max_steps=max_steps),
        renderer=lambda physics: draw(physics, num_pixels=render_pixels),
    )


def draw(physics: PlanarArm, *, num_pixels: int) -> np.ndarray:
    """The table from above, (num_pixels, num_pixels, 3) uint8; the arm hides little."""
    canvas = Canvas(num_pixels, left=TABLE_LEFT_M, bottom=TABLE_BOTTOM_M, side=TABLE_SIDE_M)
    canvas.fill(TABLE)
    canvas.ring(physics.goal_position, radius=GOAL_RADIUS_M, width=0.016, color=GOAL)
    canvas.disc(physics.object_position, radius=OBJECT_RADIUS_M, color=OBJECT)
    _draw_arm(canvas, physics)
    return canvas.to_image()


def _draw_arm(canvas: Canvas, physics: PlanarArm) -> None:
    """Two links and a fork around the hand whose opening is the gripper's."""
    joint = elbow(physics.hand)
    forward = physics.hand - joint
    forward = forward / max(float(np.linalg.norm(forward)), 1e-9)
    sideways = np.array([-forward[1], forward[0]])
    closed_m = OBJECT_RADIUS_M if physics.is_holding else 0.008
    opening = sideways * (0.055 + physics.gripper * (closed_m - 0.055))
    palm = physics.hand - 0.045 * forward
    canvas.segment(BASE_M, joint, width=0.018, color=ARM)
    canvas.segment(joint, palm, width=0.014, color=ARM)
    canvas.segment(palm - opening, palm + opening, width=0.012, color=ARM)
    for side in (opening, -opening):
        canvas.segment(palm + side, physics.hand + side + 0.015 * forward, width=0.012, color=ARM)
    canvas.disc(BASE_M, radius=0.028, color=JOINT)
    canvas.disc(joint, radius=0.014, color=JOINT)
