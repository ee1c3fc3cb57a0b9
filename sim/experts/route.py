"""Ways for a point round a polygon, and the agent's place on its way."""

from __future__ import annotations

import numpy as np
import shapely
from scipy.sparse.csgraph import dijkstra

SLACK = 0.5  # px; a way along the obstacle's edge does not cross it
LEAST_PROGRESS = 2.0  # px in a control step
VIEW = 40.0  # px of the route ahead in which the agent is looked for


class Route:
    """A polyline that an agent follows; places on it are distances along it in px.

    Attributes:
        place: of the agent, as last told by `follow`; never falls.
        turn: of the polyline's last corner, where the approach ends and the push begins.
        end: of its last point; the route itself goes straight on for a while.
    """

    def __init__(self, points: np.ndarray) -> None:
        """Through `points` (N, 2) px, N at least 2, the last two of which differ."""
        ahead = points[-1] - points[-2]
        beyond = points[-1] + ahead * (VIEW / np.linalg.norm(ahead))
        self._points = np.concatenate([points, beyond[None]])
        gaps = np.linalg.norm(np.diff(self._points, axis=0), axis=1)
        self._places = np.concatenate([[0.0], np.cumsum(gaps)])
        self.turn, self.end = map(float, self._places[-3:-1])
        self.place = 0.0

    def points_at(self, places: np.ndarray | float) -> np.ndarray:
        """(..., 2) px, the points at `places` (...)."""
        x, y = self._points.T
        return np.stack(
            [np.interp(places, self._places, x), np.interp(places, self._places, y)], -1
        )

    def follow(self, agent: np.ndarray) -> None:
        """Bring `place` up to where `agent` (2,) is now, one control step later.

        It goes on by a little in any case: where the route turns back on itself, the agent would
        else rest between its two branches.
        """
        ahead = self.place + np.arange(LEAST_PROGRESS, VIEW, 0.5)
        distances = np.linalg.norm(self.points_at(ahead) - agent, axis=1)
        self.place = float(ahead[distances.argmin()])


def way_round(
    start: np.ndarray, goal: np.ndarray, *, obstacle: shapely.Polygon, bounds: shapely.Polygon
) -> np.ndarray | None:
    """(N, 2) the corners of the shortest way from `start` (2,) to `goal` (2,), both included.

    It keeps out of `obstacle` and inside `bounds`, which is convex; an end within the obstacle is
    joined to the nearest point of the obstacle's edge. None if there is no such way.
    """
    ends = np.array([_outside(end, obstacle) for end in (start, goal)])
    if not shapely.contains_xy(bounds, *ends[1]):
        return None
    corners = shapely.get_coordinates(obstacle)[:-1]
    nodes = np.concatenate([ends, corners[shapely.contains_xy(bounds, corners)]])
    one, two = np.triu_indices(len(nodes), k=1)
    lines = shapely.linestrings(np.stack([nodes[one], nodes[two]], axis=1))
    is_free = ~shapely.intersects(obstacle.buffer(-SLACK), lines)
    lengths = np.zeros((len(nodes), len(nodes)))  # 0 stands for no way
    lengths[one, two] = np.where(is_free, np.maximum(shapely.length(lines), 1e-6), 0.0)
    distances, before = dijkstra(lengths, directed=False, indices=0, return_predecessors=True)
    if not np.isfinite(distances[1]):
        return None
    way, node = [goal], 1
    while node >= 0:
        way.append(nodes[node])
        node = before[node]
    return np.array([start, *way[::-1]])


def _outside(point: np.ndarray, obstacle: shapely.Polygon) -> np.ndarray:
    """(2,) `point`, or the nearest point of the obstacle's edge if it lies inside."""
    here = shapely.Point(point)
    if not obstacle.contains(here):
        return point
    edge = obstacle.exterior
    return shapely.get_coordinates(edge.interpolate(edge.project(here)))[0]
