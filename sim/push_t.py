"""Push-T through gym-pusht: push a T-shaped block onto its mark with a round agent.

Lengths are in px of a 512 x 512 world, x right, y down; the angle is in rad. Features are named and
laid out as in the human demonstrations of Chi et al., Diffusion Policy (RSS 2023), so a policy
trained on that store acts here unchanged. That store names no unit, so neither does the schema.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable

import numpy as np
import pymunk
from shapely.geometry import MultiPolygon, Polygon

from sim.environment import checked_action
from teleop_data.environment import StepResult
from teleop_data.schema import Feature, Schema

RATE_HZ = 10.0
MAX_STEPS = 300
ACTION_LOW = np.zeros(2, np.float32)  # px; targets beyond are clipped
ACTION_HIGH = np.full(2, 512, np.float32)
AGENT_RADIUS = 15.0  # px
IMAGE_PIXELS = 96

FULL_SCHEMA = Schema(
    features=(
        Feature(name="img", shape=(IMAGE_PIXELS, IMAGE_PIXELS, 3), dtype="uint8", role="camera"),
        # agent x, y and block x, y in px; block angle in rad, [0, 2 pi)
        Feature(name="state", shape=(5,), role="state", angles=(4,)),
        Feature(name="agent_position", shape=(2,), role="state"),
        # the agent's target x, y in px
        Feature(name="action", shape=(2,), role="action"),
    ),
    rate_hz=RATE_HZ,
)


def _import_push_t() -> type:
    """gym-pusht's environment class, imported without pygame's greeting and its warning.

    pygame greets on import unless an environment variable says otherwise, and its pkg_resources is
    deprecated. Both are silenced for this import only; the variable is put back.
    """
    name = "PYGAME_HIDE_SUPPORT_PROMPT"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from gym_pusht.envs.pusht import PushTEnv
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
    return PushTEnv


class PushT:
    """Push-T as an Environment. Draws nothing unless `img` is observed or `render` is called.

    The reward is the covered share of the mark over 0.95, at most 1; success is reward 1 and ends
    the episode. No window is ever opened.
    """

    max_steps = MAX_STEPS

    def __init__(self, *, features: Iterable[str] = ("state",), render_pixels: int = 384) -> None:
        """Observe `features`, some of state, agent_position and img.

        Raises:
            KeyError: a feature is unknown.
            ValueError: no feature is given, or the action is given as one.
        """
        observed = tuple(features)
        if not observed or "action" in observed:
            raise ValueError(
                f"features are {observed}; expected some of "
                f"{', '.join(f.name for f in FULL_SCHEMA.observed)}"
            )
        self.schema = FULL_SCHEMA.select((*observed, "action"))
        self._world = _import_push_t()(
            obs_type="state",
            observation_width=IMAGE_PIXELS,
            observation_height=IMAGE_PIXELS,
            visualization_width=render_pixels,
            visualization_height=render_pixels,
        )
        self._world._setup()
        self._mark = self._outline(self._world.get_goal_pose_body(self._world.goal_pose))
        # gym-pusht sums the T's two parts in the order of a set, so its coverage differs in the
        # last bit from run to run; and it builds the mark's outline anew at every step
        self._world._get_coverage = self._coverage
        self._step: int | None = None  # None before the first reset

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        """Start the standard evaluation episode of `seed` (gym-pusht's own start distribution)."""
        state, _ = self._world.reset(seed=seed)
        self._step, self._world._last_action = 0, None  # else the old target would be drawn
        return self._observe(state)

    def restore(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Start an episode at a recorded `state` (5,), everything at rest.

        The angle is set before the position: the angle turns the block about its centre of mass,
        which is not its origin, so the other order would move it by up to some 45 px. gym-pusht's
        `reset_to_state` has that other order.

        Raises:
            ValueError: the state is misshapen or not finite.
        """
        FULL_SCHEMA["state"].check(np.asarray(state, np.float32))
        world = self._world
        world._setup()  # a fresh space: no velocities, no contacts remembered
        world.agent.position = tuple(map(float, state[:2]))
        world.block.angle = float(state[4])
        world.block.position = tuple(map(float, state[2:4]))
        for shape in (*world.agent.shapes, *world.block.shapes):
            # else a picture taken now shows the old place. Not reindex_shapes_for_body: after that,
            # recordings in which the bodies overlap at the start replay up to 17 px off
            shape.cache_bb()
        self._step, world._last_action = 0, None
        return self._observe(world.get_obs())

    def step(self, action: np.ndarray) -> StepResult:
        """Move the agent towards `action` (2,) px, clipped to 0..512, for one control step.

        Raises:
            RuntimeError: before the first reset.
            ValueError: the action is misshapen or not finite. The world has not moved then.
        """
        if self._step is None:
            raise RuntimeError("step before reset: call reset(seed) or restore(state) first")
        target = np.clip(checked_action(action, self.schema.action), ACTION_LOW, ACTION_HIGH)
        state, reward, success, _, info = self._world.step(target)
        self._step += 1
        return StepResult(
            observation=self._observe(state),
            reward=float(reward),
            success=bool(success),
            terminated=bool(success) or self._step >= self.max_steps,
            info={"coverage": float(info["coverage"])},
        )

    @property
    def agent_position(self) -> np.ndarray:
        """(2,) float64 x, y in px, whatever is observed: scripted demonstrators may see it."""
        return np.array(self._world.agent.position)

    @property
    def block_pose(self) -> np.ndarray:
        """(3,) float64 x, y in px and the angle in rad, whatever is observed."""
        return np.array([*self._world.block.position, self._world.block.angle])

    @property
    def mark_pose(self) -> np.ndarray:
        """(3,) float64, where the block belongs: x, y in px and the angle in rad."""
        return np.array(self._world.goal_pose)

    def bare_space(self) -> tuple[pymunk.Space, pymunk.Body, pymunk.Body]:
        """A space of its own with walls, an agent and a block as here, to try pushes in.

        Every such space behaves the same. It tells nobody of collisions, so it is quicker.
        """
        space = pymunk.Space()
        space.damping = self._world.space.damping
        walls = [s for s in self._world.space.static_body.shapes if isinstance(s, pymunk.Segment)]
        for wall in sorted(walls, key=lambda wall: (wall.a, wall.b)):  # they come as a set
            space.add(pymunk.Segment(space.static_body, wall.a, wall.b, wall.radius))
        agent = self._world.add_circle(space, (256.0, 400.0), AGENT_RADIUS)
        block, _ = self._world.add_tee(space, (256.0, 300.0), 0.0)
        return space, agent, block

    def render(self) -> np.ndarray:
        """A picture for people with the agent's target as a cross, (H, W, 3) uint8."""
        return np.array(self._world._render(visualize=True))

    def close(self) -> None:
        """Free the simulator; further steps are refused."""
        self._world.close()
        self._step = None

    def _outline(self, body: pymunk.Body) -> MultiPolygon:
        """The T's two parts, in their fixed order, where `body` is."""
        return MultiPolygon(
            [
                Polygon([body.local_to_world(vertex) for vertex in shape.get_vertices()])
                for shape in self._world._block_shapes
            ]
        )

    def _coverage(self) -> float:
        """Share of the mark that the block covers, in [0, 1]."""
        block = self._outline(self._world.block)
        return self._mark.intersection(block).area / self._mark.area

    def _observe(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """The observed features from the simulator's `state` (5,) float64."""
        observation = {}
        for feature in self.schema.observed:
            if feature.name == "state":
                observation["state"] = state.astype(np.float32)
            elif feature.name == "agent_position":
                observation["agent_position"] = state[:2].astype(np.float32)
            else:
                observation["img"] = np.array(self._world._render(visualize=False))
        return observation
