"""A copy of Push-T's physics to try pushes on, and where pushes may start.

K pushes, N strides of a push, C corners of the block. Poses are (3,): x, y in px, the angle in rad.
"""

from __future__ import annotations

import numpy as np
import pymunk
import shapely

from sim.push_t import ACTION_HIGH, ACTION_LOW, AGENT_RADIUS, PushT

TIMESTEP_S = 0.01  # the physics' own
FAR_AWAY = (-500.0, -500.0)  # px, where nothing can be touched
ANGLE_STD = 0.35  # rad, between a push and the normal of the edge that it starts on
MOST_DRAWS = 50
STANDOFF = 8.0  # px, from where a push starts to where the agent touches


class PushTCopy:
    """Push-T in a world of its own.

    Nothing there moves by itself, and the agent goes where it is sent whatever it pushes. So where
    a push leads depends on the block's pose and on the agent's way, hardly on its speed: the copy
    sends it there in a few long strides.

    Attributes:
        outline: of the block at pose 0.
        corners: (C, 2) of the outline, anticlockwise where y points up.
    """

    def __init__(self, environment: PushT) -> None:
        """A copy of `environment`'s world; that one is only read."""
        self._space, self._agent, self._block = environment.bare_space()
        parts = [
            shapely.Polygon(shape.get_vertices())
            for shape in self._block.shapes
            if isinstance(shape, pymunk.Poly)
        ]
        # normalised, as the parts come as a set and the first corner would depend on their order
        outline = shapely.union_all(parts).normalize()
        assert isinstance(outline, shapely.Polygon)
        self.outline = shapely.geometry.polygon.orient(outline)
        self.corners = shapely.get_coordinates(self.outline)[:-1]

    def push(
        self, block: np.ndarray, start: np.ndarray, *, way: np.ndarray, num_strides: int
    ) -> np.ndarray:
        """(N, 3) block poses after each stride of the agent from `start` along `way`.

        Args:
            block: (3,) its pose before.
            start: (2,) px, where the agent is before; it should not touch the block there.
            way: (2,) px, of all strides together.
            num_strides: N. With strides of 1 px the block ends within 1 px of where Push-T has it
                after a push of 100 px, with 3 px within 3 px.
        """
        self._rest()
        self._block.angle = float(block[2])  # first: it turns the block about its centre of mass
        self._block.position = float(block[0]), float(block[1])
        self._agent.position = float(start[0]), float(start[1])
        x, y = way / (num_strides * TIMESTEP_S)
        self._agent.velocity = float(x), float(y)
        poses = np.empty((num_strides, 3))
        for pose in poses:
            self._space.step(TIMESTEP_S)
            pose[:2], pose[2] = self._block.position, self._block.angle
        return poses

    def _rest(self) -> None:
        """Forget the last push: it left the block a velocity, and contacts that are remembered."""
        self._block.position, self._agent.position = (256.0, 256.0), FAR_AWAY
        self._agent.velocity = 0.0, 0.0
        for _ in range(self._space.collision_persistence + 1):
            self._space.step(TIMESTEP_S)


def placed(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """(..., C, 2) where `points` (C, 2) of the block are when it is at `pose` (..., 3)."""
    x, y, angle = np.moveaxis(pose[..., None], -2, 0)
    cos, sin = np.cos(angle), np.sin(angle)
    px, py = points.T
    return np.stack([x + cos * px - sin * py, y + sin * px + cos * py], axis=-1)


def draw_starts(
    corners: np.ndarray, *, num_starts: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Where pushes may start, (K, 2) px, and their directions, (K, 2) of length 1.

    They are drawn evenly along the outline through `corners` (C, 2), anticlockwise. From its start,
    clear of the block and within the world, the agent touches after about `STANDOFF` px.

    Raises:
        RuntimeError: there is hardly any such place; the block lies outside the world.
    """
    outline = shapely.Polygon(corners)
    edges = np.roll(corners, -1, axis=0) - corners
    lengths = np.linalg.norm(edges, axis=1)
    outward = np.stack([edges[:, 1], -edges[:, 0]], axis=1) / lengths[:, None]
    drawn: list[np.ndarray] = []  # (2, 2): start and direction
    for _ in range(MOST_DRAWS):
        edge = rng.choice(len(corners), size=num_starts, p=lengths / lengths.sum())
        touched = corners[edge] + rng.uniform(size=(num_starts, 1)) * edges[edge]
        direction = _turned(-outward[edge], rng.normal(0.0, ANGLE_STD, size=num_starts))
        start = touched + AGENT_RADIUS * outward[edge] - STANDOFF * direction
        is_possible = shapely.distance(outline, shapely.points(start)) > AGENT_RADIUS + 1
        is_possible &= (start > ACTION_LOW + AGENT_RADIUS).all(axis=1)
        is_possible &= (start < ACTION_HIGH - AGENT_RADIUS).all(axis=1)
        drawn.extend(np.stack([start, direction], axis=1)[is_possible])
        if len(drawn) >= num_starts:
            starts, directions = np.stack(drawn[:num_starts], axis=1)
            return starts, directions
    raise RuntimeError(
        f"no place to push the block from, with corners at {corners.round().tolist()} px; expected "
        f"most of it within {ACTION_LOW.tolist()} to {ACTION_HIGH.tolist()}"
    )


def _turned(vectors: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """(K, 2) `vectors` (K, 2), each turned by its one of `angles` (K,) rad."""
    (x, y), cos, sin = vectors.T, np.cos(angles), np.sin(angles)
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=1)
