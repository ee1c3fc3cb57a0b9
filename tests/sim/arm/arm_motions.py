"""Small worlds with the arm, and motions that tests of it are made of."""

from __future__ import annotations

import numpy as np

from sim.arm.actions import ActionMode, HandTarget, pointing_down
from sim.arm.panda import MAX_OPENING_M
from sim.arm.physics import ArmPhysics
from sim.tasks.swap import Swap

FRUIT_HEIGHT_M = 0.028  # of a resting fruit's middle


def fruit_world(
    *, mode: ActionMode = "absolute", rate_hz: float = 10.0, seed: int = 0
) -> ArmPhysics:
    """The swap's table at the start that `seed` draws."""
    task = Swap()
    world = ArmPhysics(task.build, mode=mode, rate_hz=rate_hz)
    task.initialize(world, np.random.default_rng(seed))
    return world


def down_at(
    position: np.ndarray | tuple[float, ...], *, yaw: float = 0.0, opening: float = MAX_OPENING_M
) -> HandTarget:
    """The hand at `position` (3,) m, pointing down."""
    return HandTarget(
        position=np.asarray(position, np.float64), rotation=pointing_down(yaw), opening=opening
    )


def go(world: ArmPhysics, target: HandTarget, *, duration_s: float = 1.5) -> None:
    """Command `target` in the world's own mode for so long."""
    for _ in range(round(duration_s * world.rate_hz)):
        world.step(world.action_towards(target))


def grasp(world: ArmPhysics, name: str, *, lift_m: float = 0.1) -> HandTarget:
    """Close the hand on the thing `name` and lift it; where the hand was sent last."""
    here = world.position(name)
    go(world, down_at(here + [0, 0, 0.1], opening=0.07))
    go(world, down_at(here, opening=0.07))
    go(world, down_at(here, opening=0.0), duration_s=1.0)
    lifted = down_at(here + [0, 0, lift_m], opening=0.0)
    go(world, lifted)
    return lifted


def wild_actions(world: ArmPhysics, *, num: int, seed: int = 0) -> list[np.ndarray]:
    """Actions that send the hand all over the table, gripping at nothing or something."""
    rng = np.random.default_rng(seed)
    high, low = [0.6, 0.25, 0.2], [0.35, -0.25, 0.02]
    actions = []
    for _ in range(num):
        target = down_at(
            rng.uniform(low, high), yaw=rng.uniform(-1, 1), opening=rng.choice([0, 0.08])
        )
        actions.append(world.action_towards(target))
    return actions


def trajectory(world: ArmPhysics, actions: list[np.ndarray]) -> np.ndarray:
    """(T, nq + nv) the whole state after each action."""
    states = []
    for action in actions:
        world.step(action)
        states.append(np.concatenate([world.data.qpos, world.data.qvel]))
    return np.array(states)
