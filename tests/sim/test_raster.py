"""The canvas: coverage sums to the shape's area, edges are smooth, borders clip."""

from __future__ import annotations

import numpy as np
import pytest

from sim.raster import Canvas


def white_share(canvas: Canvas) -> float:
    """Painted area in pixels of a white shape on black."""
    return float(canvas.to_image()[..., 0].astype(float).sum() / 255)


def blank() -> Canvas:
    canvas = Canvas(64, left=0.0, bottom=0.0, side=64.0)  # one metre a pixel
    canvas.fill((0, 0, 0))
    return canvas


WHITE = (255, 255, 255)


def test_a_disc_covers_its_area():
    canvas = blank()
    canvas.disc(np.array([31.3, 20.8]), radius=10.0, color=WHITE)
    assert white_share(canvas) == pytest.approx(np.pi * 100, rel=0.01)


def test_a_ring_covers_its_area():
    canvas = blank()
    canvas.ring(np.array([31.3, 20.8]), radius=10.0, width=3.0, color=WHITE)
    assert white_share(canvas) == pytest.approx(np.pi * (11.5**2 - 8.5**2), rel=0.01)


def test_a_segment_covers_its_area():
    canvas = blank()
    canvas.segment(np.array([10.0, 10.0]), np.array([40.0, 50.0]), width=4.0, color=WHITE)
    assert white_share(canvas) == pytest.approx(50 * 4 + np.pi * 4, rel=0.01)


def test_y_points_up_and_an_aligned_edge_is_exact():
    canvas = blank()
    canvas.segment(np.array([-9.0, 60.0]), np.array([99.0, 60.0]), width=3.0, color=WHITE)
    rows = canvas.to_image()[:, 30, 0]
    # the line is y in [58.5, 61.5]: rows 3 and 4 whole, rows 2 and 5 half
    np.testing.assert_array_equal(rows[:8], [0, 0, 128, 255, 255, 128, 0, 0])


def test_shapes_outside_change_nothing_and_shapes_across_the_border_are_clipped():
    canvas = blank()
    canvas.disc(np.array([-30.0, 200.0]), radius=5.0, color=WHITE)
    assert white_share(canvas) == 0
    canvas.disc(np.array([0.0, 0.0]), radius=10.0, color=WHITE)
    assert white_share(canvas) == pytest.approx(np.pi * 25, rel=0.01)


def test_a_point_is_drawn_as_a_dot():
    canvas = blank()
    canvas.segment(np.array([30.5, 30.5]), np.array([30.5, 30.5]), width=6.0, color=WHITE)
    assert white_share(canvas) == pytest.approx(np.pi * 9, rel=0.03)


def test_images_own_their_memory():
    canvas = blank()
    before = canvas.to_image()
    canvas.fill(WHITE)
    assert before.max() == 0
