"""Moving target: a cube is grasped and lifted that jumps aside while the hand is on its way.

The cube stands on a carriage. When the hand has come near enough, the carriage springs 8 to 15 cm
across the hand's way; in some episodes it does so once more. How soon the hand turns after it is
the reaction time, see `sim.arm.reaction_time`.

    from above    hand o - - - - - > [cube]      the jump is at most 35 degrees off
                              `        |         the perpendicular of the way
                                `      v
                                  ` >[cube]

Success: the cube is held 8 cm above the carriage.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import mujoco
import numpy as np

from sim.arm.panda import JOINTS
from sim.arm.physics import ArmPhysics
from sim.arm.reaction_time import Jump, reaction_time_s
from sim.arm.table import THINGS_GROUP, add_block
from sim.arm.waypoints import HOME, PICK, Script, go_home, pick

CUBE, CUBE_COLOR = "cube", (0.85, 0.15, 0.12)
HALF_SIZE_M = 0.022
SLIDES = ("carriage_x", "carriage_y")
CARRIAGE_COLOR = (0.20, 0.21, 0.24)
CARRIAGE_HALF_M = (0.05, 0.05, 0.012)
CARRIAGE_KG = 10.0  # the hand cannot shove it
CARRIAGE_FRICTION = 1.5  # the cube stays on it: a jump of 15 cm needs 0.7
GAP_M = 0.003  # between carriage and table
TOP_M = GAP_M + 2 * CARRIAGE_HALF_M[2]
# A low-pass filter with three equal poles: 17 % of a jump is done after 0.1 s, 95 % after 0.45 s
POLE_PER_S = 14.0

# Where the carriage may be: within the front camera's view
LOW_M, HIGH_M = np.array([0.36, -0.21]), np.array([0.64, 0.21])
JUMP_M = (0.08, 0.15)
ACROSS_RAD = 0.6  # off the perpendicular of the hand's way, either way
TRIGGER_M = (0.15, 0.28)  # between hand and cube
SECOND_TRIGGER_M, SECOND_SHARE = (0.12, 0.18), 0.4
SPARED_M = 0.09  # a cube that is nearer does not jump: it would run against the fingers
LIFTED_M, REACH_M = 0.08, 0.5


@dataclass(frozen=True, kw_only=True)
class Leap:
    """What is drawn of a jump at the start of the episode.

    Attributes:
        place: (2,) m, where it leads.
        trigger_m: the distance between hand and cube at which it starts.
    """

    place: tuple[float, float]
    trigger_m: float


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What the episode was so far.

    Attributes:
        leaps: the jumps of this episode, in order.
        place: where the carriage is sent (2,) m.
        commanded: where the hand was sent on the table (2,) m, at the start and by each step.
        jumps: those that have begun.
    """

    leaps: tuple[Leap, ...]
    place: tuple[float, float]
    commanded: tuple[tuple[float, float], ...]
    jumps: tuple[Jump, ...] = ()


class MovingTarget:
    """The task. Nothing is hidden: the oracle is empty."""

    subgoals: tuple[str, ...] = (*PICK, *HOME)
    oracle_size = 0

    def __init__(self, *, duration_s: float = 8.0) -> None:
        """An episode lasts at most `duration_s`; a demonstration needs about 3 s of it."""
        self.duration_s = duration_s
        place = (0.5, 0.0)
        self.memory = Memory(leaps=(), place=place, commanded=(place,))

    def build(self, scene: mujoco.MjSpec) -> None:
        """The carriage on its two slides, and the cube on top."""
        body = scene.worldbody.add_body(name="carriage", pos=(0, 0, GAP_M + CARRIAGE_HALF_M[2]))
        for name, axis in zip(SLIDES, np.eye(3)[:2], strict=True):
            body.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis)
            servo = scene.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
            stiffness = CARRIAGE_KG * POLE_PER_S**2
            servo.set_to_position(kp=stiffness, kv=2 * CARRIAGE_KG * POLE_PER_S)
            servo.dyntype = mujoco.mjtDyn.mjDYN_FILTEREXACT
            servo.dynprm[0] = 1 / POLE_PER_S
        body.add_geom(
            name="carriage",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=CARRIAGE_HALF_M,
            mass=CARRIAGE_KG,
            friction=(CARRIAGE_FRICTION, 0.01, 0.001),
            rgba=(*CARRIAGE_COLOR, 1),
            group=THINGS_GROUP,
        )
        half = HALF_SIZE_M
        add_block(scene, CUBE, half_size=(half, half, half), color=CUBE_COLOR)

    def initialize(self, world: ArmPhysics, rng: np.random.Generator) -> None:
        """The hand on one side, the cube on the other; one jump, or two."""
        side = rng.choice([-1.0, 1.0])
        hand = np.array([rng.uniform(0.36, 0.50), side * rng.uniform(0.14, 0.28)])
        world.set_hand(np.array([*hand, rng.uniform(0.25, 0.35)]), yaw=rng.uniform(-0.1, 0.1))
        place = np.array([rng.uniform(0.42, 0.58), -side * rng.uniform(0.06, 0.20)])
        leaps, from_, here = [], hand, place
        for triggers in (TRIGGER_M, SECOND_TRIGGER_M)[: 1 + (rng.uniform() < SECOND_SHARE)]:
            # a hand that follows the first jump comes along it to the second
            from_, here = here, landing(here, way=here - from_, rng=rng)
            leaps.append(Leap(place=_pair(here), trigger_m=float(rng.uniform(*triggers))))
        for name, value in zip(SLIDES, place, strict=True):
            world.data.joint(name).qpos = world.data.actuator(name).ctrl = value
            world.data.act[world.model.actuator(name).actadr] = value
        world.place(CUBE, np.array([*place, TOP_M + HALF_SIZE_M]), yaw=rng.uniform(-0.3, 0.3))
        world.settle()
        self.memory = Memory(
            leaps=tuple(leaps), place=_pair(place), commanded=(commanded_place(world),)
        )

    def advance(self, world: ArmPhysics) -> None:
        """Start the next jump if the hand is near enough; the carriage moves from now on."""
        memory = self.memory
        self.memory = memory = replace(
            memory, commanded=(*memory.commanded, commanded_place(world))
        )
        if self._is_due(world):
            leap, step = memory.leaps[len(memory.jumps)], len(memory.commanded)
            jump = Jump(step=step, from_=memory.place, to=leap.place)
            self.memory = replace(memory, jumps=(*memory.jumps, jump), place=leap.place)
            for name, value in zip(SLIDES, leap.place, strict=True):
                world.data.actuator(name).ctrl = value

    def _is_due(self, world: ArmPhysics) -> bool:
        """Whether the hand is near, and has followed the jump before."""
        memory, num_begun = self.memory, len(self.memory.jumps)
        if num_begun == len(memory.leaps):
            return False
        is_near = SPARED_M < distance_to_cube(world) < memory.leaps[num_begun].trigger_m
        return is_near and None not in self.reaction_times_s(world)

    def reaction_times_s(self, world: ArmPhysics) -> tuple[float | None, ...]:
        """From each jump's start to the control step that turns the hand, None where none did."""
        memory, rate_hz = self.memory, world.rate_hz
        commanded = np.array(memory.commanded)
        # until the next jump, if there is one
        ends = [*(jump.step for jump in memory.jumps), len(commanded)][1:]
        return tuple(
            reaction_time_s(commanded[:end], jump=jump, rate_hz=rate_hz)
            for jump, end in zip(memory.jumps, ends, strict=True)
        )

    def reward(self, world: ArmPhysics) -> float:
        """Half for coming near, a fifth for holding the cube, the rest for lifting it."""
        near = 1 - np.clip(distance_to_cube(world) / REACH_M, 0.0, 1.0)
        if not world.is_holding(CUBE):
            return 0.5 * float(near)
        return 0.5 * float(near) + 0.2 + 0.29 * float(np.clip(lifted(world) / LIFTED_M, 0.0, 1.0))

    def is_success(self, world: ArmPhysics) -> bool:
        """Whether the cube is held well above the carriage."""
        return world.is_holding(CUBE) and lifted(world) > LIFTED_M

    def oracle(self, world: ArmPhysics) -> np.ndarray:
        """(0,) nothing is hidden."""
        return np.zeros(0)

    def facts(self, world: ArmPhysics) -> dict[str, Any]:
        """Reaction times, null where the hand did not turn or a jump could not be timed."""
        return {"reaction_times_s": list(self.reaction_times_s(world))}

    def script(self, world: ArmPhysics, rng: np.random.Generator) -> Script:
        """Follow the cube, grasp it, lift it, and bring it along."""
        askew = rng.normal(0.0, 0.05)
        yield from pick(world, CUBE, rng=rng, yaw=lambda: world.yaw(CUBE) + askew)
        yield replace(next(go_home(tolerance_m=0.0)), opening=0.0)


def landing(start: np.ndarray, *, way: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(2,) m where a jump from `start` across `way` (2,) leads, within the carriage's bounds."""
    end = start
    for _ in range(100):
        angle = np.arctan2(way[1], way[0]) + rng.choice([-1, 1]) * np.pi / 2
        angle += rng.uniform(-ACROSS_RAD, ACROSS_RAD)
        end = start + rng.uniform(*JUMP_M) * np.array([np.cos(angle), np.sin(angle)])
        if (end >= LOW_M).all() and (end <= HIGH_M).all():
            return end
    return np.clip(end, LOW_M, HIGH_M)


def distance_to_cube(world: ArmPhysics) -> float:
    """Between the fingers' middle and the cube's, m."""
    return float(np.linalg.norm(world.tcp_position - world.position(CUBE)))


def lifted(world: ArmPhysics) -> float:
    """How far the cube is above where it stood, m."""
    return float(world.position(CUBE)[2] - TOP_M - HALF_SIZE_M)


def commanded_place(world: ArmPhysics) -> tuple[float, float]:
    """Where on the table the servos' set-point would bring the hand, m; for any kind of action."""
    joints = np.array([world.data.actuator(name).ctrl[0] for name in JOINTS])
    return _pair(world.kinematics.pose(joints)[0])


def _pair(place: np.ndarray) -> tuple[float, float]:
    return float(place[0]), float(place[1])
