"""The scripted demonstrator of Push-T: try pushes on a copy of the physics, do a good one, repeat.

    where the block is -> pushes tried on the copy -> one of the best -> round the block -> push ->

K pushes tried, N strides of a push, C corners of the block. Poses are (3,): x, y in px, rad.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely

from sim.experts.push_t_copy import PushTCopy, draw_starts, placed
from sim.experts.route import Route, way_round
from sim.push_t import ACTION_HIGH, ACTION_LOW, AGENT_RADIUS, PushT
from teleop_data.environment import Observation
from teleop_data.schema import Feature

SUBGOALS = ("approach", "push")

NUM_TRIES = 80
STRIDE = 3.0  # px, of the copy's agent; nearer to the mark than NEAR it takes finer ones
FINE_STRIDE, NEAR = 1.0, 30.0
LENGTHS = (30.0, 200.0)  # px, the longest push tried lies between these, by the way left
DETOUR = 120.0  # px, a guess of what the way round the block adds
STEPS_TO_TURN = 4.0  # control steps that each push costs beyond its way
GOOD_ENOUGH = 2.0  # px from the mark; progress below that hardly counts
MOST_ROUTES = 12  # ways round the block looked for, before the straight one is taken
SQUEEZE = 3.0  # px of room to the block where there is not more

WORLD = shapely.LineString([ACTION_LOW, ACTION_HIGH]).envelope

LEAD = 2.5  # control steps that the agent trails its target by at an even speed
LEAST_LEAD = 6.0  # px; so it never creeps
ARRIVAL = 1.5  # px before the end of a way
SURPRISE = 6.0  # px that the block may be from where the copy had it
WANDER_MEMORY = 0.8  # share of the wander that stays from one control step to the next


@dataclass(frozen=True, kw_only=True)
class Habits:
    """How the demonstrator drives in one episode.

    Attributes:
        transit_speed: px per control step, far from the block.
        push_speed: px per control step, near it and pushing.
        temperature: 0 always does the best push tried; at 0.1 one that makes a tenth less progress
            is done 1 / e times as often.
        room: px that it leaves between itself and the block on its way round.
        wander: px, standard deviation of its target from the route, in either direction.
    """

    transit_speed: float
    push_speed: float
    temperature: float
    room: float
    wander: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Habits:
        """Those of one episode."""
        return cls(
            transit_speed=rng.uniform(10.0, 16.0),
            push_speed=rng.uniform(7.0, 11.0),
            temperature=rng.uniform(0.02, 0.15),
            room=rng.uniform(12.0, 22.0),
            wander=rng.uniform(1.0, 4.0),
        )


@dataclass(frozen=True, kw_only=True)
class Push:
    """What is being done.

    Attributes:
        route: to where the push starts, its last corner, and to where it ends.
        expected: (N + 1, 3) poses of the block before the push and after each stride.
        stride: px.
    """

    route: Route
    expected: np.ndarray
    stride: float

    @property
    def expected_now(self) -> np.ndarray:
        """(3,) the pose of the block when the agent is where it is on the route."""
        strides = round((self.route.place - self.route.turn) / self.stride)
        return self.expected[np.clip(strides, 0, len(self.expected) - 1)]


class PushTPlanner:
    """Demonstrates Push-T by greedy sampling; a `Labelled` Teleoperator.

    It reads the environment's physics, never its observations, so any choice of features will do;
    and it changes nothing there. It follows each push to its end unless the block turns out not to
    be where the copy had it. The seed draws its habits, so demonstrations differ.
    """

    label_features = (Feature(name="subgoal", shape=(1,), dtype="int64", role="other"),)

    def __init__(self, environment: PushT) -> None:
        """Drive `environment`, whose physics it reads at every step."""
        self._environment = environment
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Forget the previous episode and draw this one's habits from `seed`."""
        # a stream of its own: the environment draws the start from the same seed
        self._rng = np.random.default_rng([seed, 1])
        self._habits = Habits.draw(self._rng)
        # a new one: whatever a physics engine remembers must not reach into this episode
        self._copy = PushTCopy(self._environment)
        self._goal = placed(self._copy.corners, self._environment.mark_pose)
        self._push: Push | None = None
        self._wander = np.zeros(2)
        self._subgoal = 0

    def act(self, observation: Observation) -> np.ndarray:
        """The action (2,) float32 for this control step; `observation` is not needed."""
        agent, block = self._environment.agent_position, self._environment.block_pose
        if self._push is not None:
            self._push.route.follow(agent)
        if self._push is None or self._is_over(self._push, block):
            self._push = self._plan(agent, block)
        target = self._target(self._push.route, agent, block)
        return np.clip(target, ACTION_LOW, ACTION_HIGH).astype(np.float32)

    def labels(self) -> dict[str, np.ndarray]:
        """The sub-goal that the last action pursued, as an index into the names."""
        return {"subgoal": np.array([self._subgoal], np.int64)}

    def facts(self) -> dict[str, Any]:
        """The sub-goals' names."""
        return {"subgoals": list(SUBGOALS)}

    def _is_over(self, push: Push, block: np.ndarray) -> bool:
        """Whether the push is done, or the block is not where it should be."""
        if push.route.place >= push.route.end - ARRIVAL:
            return True
        corners = self._copy.corners
        surprise = placed(corners, block) - placed(corners, push.expected_now)
        return bool(np.linalg.norm(surprise, axis=-1).mean() > SURPRISE)

    def _target(self, route: Route, agent: np.ndarray, block: np.ndarray) -> np.ndarray:
        """(2,) px on the route ahead, wandering far from the block."""
        habits = self._habits
        way_left = route.turn - route.place
        self._subgoal = 0 if way_left > ARRIVAL else 1
        clearance = self._outline(block).distance(shapely.Point(agent)) - AGENT_RADIUS
        # 1 on the way, 0 close to the block and to where the push starts
        ease = float(np.clip(min((way_left - 15) / 50, (clearance - 4) / 12), 0.0, 1.0))
        if self._subgoal == 1:
            way_left, ease = route.end - route.place, 0.0
        speed = habits.push_speed + ease * (habits.transit_speed - habits.push_speed)
        lead = max(min(LEAD * speed, way_left), LEAST_LEAD)
        innovation = self._rng.normal(0.0, habits.wander * np.sqrt(1 - WANDER_MEMORY**2), size=2)
        self._wander = WANDER_MEMORY * self._wander + innovation
        return route.points_at(route.place + lead) + ease * self._wander

    def _plan(self, agent: np.ndarray, block: np.ndarray) -> Push:
        """One of the pushes that bring the block to its mark soonest, and the way there."""
        distance = self._distance(block)
        stride = FINE_STRIDE if distance < NEAR else STRIDE
        num_strides = int(np.clip(1.5 * distance + 30.0, *LENGTHS) / stride)
        starts, directions = draw_starts(
            placed(self._copy.corners, block), num_starts=NUM_TRIES, rng=self._rng
        )
        ways = directions * stride * num_strides
        poses = np.stack(
            [
                self._copy.push(block, start, way=way, num_strides=num_strides)
                for start, way in zip(starts, ways, strict=True)
            ]
        )  # (K, N, 3)
        lengths = stride * np.arange(1, num_strides + 1)
        ends = starts[:, None] + directions[:, None] * lengths[:, None]  # (K, N, 2)
        steps = self._steps_to(starts, agent, block)[:, None] + lengths / self._habits.push_speed
        gains = np.log((distance + GOOD_ENOUGH) / (self._distance(poses) + GOOD_ENOUGH)) / steps
        gains[((ends < ACTION_LOW) | (ends > ACTION_HIGH)).any(-1)] = -np.inf
        index, way = self._choose(gains.max(axis=1), starts, agent, block)
        last = gains[index].argmax()
        return Push(
            route=Route(np.concatenate([way, ends[index, last][None]])),
            expected=np.concatenate([block[None], poses[index, : last + 1]]),
            stride=stride,
        )

    def _steps_to(self, starts: np.ndarray, agent: np.ndarray, block: np.ndarray) -> np.ndarray:
        """(K,) about how many control steps it takes from the agent to each start."""
        lines = shapely.linestrings(np.stack([np.broadcast_to(agent, starts.shape), starts], 1))
        is_behind = np.asarray(shapely.intersects(lines, self._outline(block)))
        way = shapely.length(lines) + DETOUR * is_behind
        return way / self._habits.transit_speed + STEPS_TO_TURN

    def _choose(
        self, gains: np.ndarray, starts: np.ndarray, agent: np.ndarray, block: np.ndarray
    ) -> tuple[int, np.ndarray]:
        """One of K pushes, the likelier the more it gains, and the way (M, 2) to its start."""
        likelihood = gains / (abs(gains.max()) * self._habits.temperature + 1e-9)
        # sorting by this draws without replacement (Gumbel)
        order = np.argsort(-(likelihood + self._rng.gumbel(size=len(gains))))
        outline = self._outline(block)
        for index in order[:MOST_ROUTES]:
            for room in (self._habits.room, SQUEEZE):
                obstacle = outline.buffer(AGENT_RADIUS + room, quad_segs=3)
                way = way_round(agent, starts[index], obstacle=obstacle, bounds=WORLD)
                if way is not None:
                    return int(index), way
        return int(order[0]), np.stack([agent, starts[order[0]]])

    def _outline(self, block: np.ndarray) -> shapely.Polygon:
        return shapely.Polygon(placed(self._copy.corners, block))

    def _distance(self, poses: np.ndarray) -> np.ndarray:
        """(...) px, mean distance of the block's corners at `poses` (..., 3) from the mark's."""
        return np.linalg.norm(placed(self._copy.corners, poses) - self._goal, axis=-1).mean(-1)
