"""Ways round a polygon, and following them."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from sim.experts.route import Route, way_round

SQUARE = shapely.box(100, 100, 200, 200)
WORLD = shapely.box(0, 0, 512, 512)


def length(way: np.ndarray | None) -> float:
    assert way is not None
    return float(np.linalg.norm(np.diff(way, axis=0), axis=1).sum())


def find(start: tuple[float, float], goal: tuple[float, float], *, bounds=WORLD):
    return way_round(np.array(start), np.array(goal), obstacle=SQUARE, bounds=bounds)


def test_the_way_is_the_shortest():
    assert length(find((50, 50), (50, 300))) == pytest.approx(250)  # nothing between
    below = 2 * np.hypot(50, 40) + 100
    assert length(find((50, 140), (250, 140))) == pytest.approx(below)
    assert length(find((50, 160), (250, 160))) == pytest.approx(below)  # above, as far


def test_the_way_stays_out_of_the_obstacle_and_inside_the_bounds():
    narrow = shapely.box(0, 90, 512, 512)
    way = find((50, 95), (250, 130), bounds=shapely.box(0, 120, 512, 512))
    assert length(way) > length(find((50, 95), (250, 130), bounds=narrow))
    assert way is not None
    assert not shapely.LineString(way).intersects(SQUARE.buffer(-1))
    assert find((50, 150), (250, 150), bounds=shapely.box(0, 120, 512, 180)) is None


def test_an_end_in_the_obstacle_is_left_by_the_nearest_edge():
    way = find((110, 150), (190, 150))
    assert way is not None
    np.testing.assert_allclose(
        way[[0, 1, -2, -1]], [(110, 150), (100, 150), (200, 150), (190, 150)]
    )
    assert find((110, 150), (190, 150), bounds=shapely.box(0, 0, 195, 512)) is None


def test_a_route_is_followed_forwards_only():
    route = Route(np.array([(0.0, 0.0), (100.0, 0.0), (100.0, 50.0)]))
    assert (route.turn, route.end) == (100.0, 150.0)
    np.testing.assert_allclose(route.points_at(np.array([30.0, 120.0])), [(30, 0), (100, 20)])
    route.follow(np.array([12.0, 3.0]))
    assert route.place == pytest.approx(12.0)
    route.follow(np.array([5.0, 0.0]))  # pushed back
    assert 12.0 < route.place < 16.0
    np.testing.assert_allclose(route.points_at(160.0), (100, 60))  # straight on beyond its end


def test_a_route_that_turns_back_is_followed_to_its_end():
    route = Route(np.array([(0.0, 0.0), (50.0, 0.0), (0.0, 0.1)]))
    agent = np.array([47.0, 0.0])  # cuts the corner: on both branches at once
    for _ in range(60):
        route.follow(agent)
        agent = agent + 0.4 * (route.points_at(route.place + 6.0) - agent)
    assert route.place >= route.end
