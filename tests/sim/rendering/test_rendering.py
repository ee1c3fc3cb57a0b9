"""Renderers: what either backend must do."""

from __future__ import annotations

import threading

import mujoco
import numpy as np
import pytest

from sim.rendering.camera_renderer import open_renderer
from sim.rendering.gl_drawer import GlDrawer
from tests.sim.rendering.small_arm import needs_gl, small_arm

SIZE = {"height": 48, "width": 64}


@pytest.fixture(params=[pytest.param("gl", marks=needs_gl), "rays"])
def world(request: pytest.FixtureRequest):
    model, data = small_arm()
    renderer = open_renderer(model, scene="arm", backend=request.param)
    yield model, data, renderer
    renderer.close()


@pytest.fixture
def other(world):
    """A second world of the same scene and its renderer."""
    _, _, renderer = world
    model, data = small_arm()
    backend = "gl" if isinstance(renderer._drawer, GlDrawer) else "rays"
    second = open_renderer(model, scene="arm", backend=backend)
    yield model, data, second
    second.close()


class TestEveryBackend:
    def test_a_picture_has_its_size_its_memory_and_shows_something(self, world):
        _, data, renderer = world
        for height, width in ((64, 64), (97, 131), (224, 224), (360, 480), (1, 1)):
            picture = renderer.render(data, "front", height=height, width=width)
            assert picture.shape == (height, width, 3)
            assert picture.dtype == np.uint8
        first = renderer.render(data, "front", **SIZE)
        before = first.copy()
        assert first.std() > 10
        renderer.render(data, "wrist", **SIZE)[:] = 0
        np.testing.assert_array_equal(first, before)

    def test_same_input_same_pixels_whatever_was_drawn_before(self, world, other):
        _, data, renderer = world
        model2, data2, renderer2 = other
        before = {c: renderer.render(data, c, **SIZE) for c in ("front", "side", "wrist")}
        model2.geom_rgba[:, :3] = 0
        model2.light_diffuse[:] = 0
        renderer2.render(data2, "front", height=600, width=700)
        renderer.render(data, "side", height=31, width=1000)
        for camera, picture in before.items():
            np.testing.assert_array_equal(renderer.render(data, camera, **SIZE), picture)

    def test_worlds_of_one_scene_look_as_their_own_models_say(self, world, other):
        _, data, renderer = world
        model2, data2, renderer2 = other
        ours = renderer.render(data, "front", **SIZE)
        np.testing.assert_array_equal(renderer2.render(data2, "front", **SIZE), ours)
        model2.light_diffuse[:] *= 0.2
        darker = renderer2.render(data2, "front", **SIZE)
        assert darker.mean() < ours.mean() - 5
        np.testing.assert_array_equal(renderer.render(data, "front", **SIZE), ours)

    def test_larger_pictures_show_the_same_in_finer_pixels(self, world):
        _, data, renderer = world
        small = renderer.render(data, "front", height=240, width=320).astype(int)
        large = renderer.render(data, "front", height=720, width=960).astype(int)
        difference = np.abs(large[1::3, 1::3] - small).max(-1)  # their pixels' centres coincide
        assert (difference > 8).mean() < 0.01

    def test_row_0_is_the_top_and_column_0_the_left(self, world):
        model, data, renderer = world
        model.geom_rgba[:, :3] = 0  # a black world with one yellow ball
        model.geom_rgba[model.geom("ball").id] = 1, 1, 0, 1
        data.mocap_pos[0] = 0, 0.35, 0.6  # right and up, as front looks along -x
        mujoco.mj_forward(model, data)
        picture = renderer.render(data, "front", height=80, width=80).astype(int)
        is_ball = (picture[..., 0] > 50) & (picture[..., 2] < 20)
        rows, columns = np.nonzero(is_ball)
        assert len(rows) > 20
        assert rows.max() < 40
        assert columns.min() > 40  # y points right in this camera

    def test_a_camera_moves_with_its_body(self, world):
        model, data, renderer = world
        before = {c: renderer.render(data, c, **SIZE) for c in ("wrist", "side")}
        model.geom_group[model.geom("tool").id] = 5  # seen from neither
        model.geom_group[model.geom("link").id] = 5
        before = {c: renderer.render(data, c, **SIZE) for c in ("wrist", "side")}
        data.qpos[1] += 0.5
        mujoco.mj_forward(model, data)
        assert not np.array_equal(renderer.render(data, "wrist", **SIZE), before["wrist"])
        np.testing.assert_array_equal(renderer.render(data, "side", **SIZE), before["side"])

    def test_the_field_of_view_is_the_models(self, world):
        model, data, renderer = world
        wide = renderer.render(data, "front", height=90, width=90)
        model.cam_fovy[model.camera("front").id] = np.rad2deg(
            2 * np.arctan(np.tan(np.deg2rad(25)) / 3)
        )
        near = renderer.render(data, "front", height=90, width=90)
        middle = near.reshape(30, 3, 30, 3, 3)[:, 1, :, 1]  # every third pixel
        assert (np.abs(wide[30:60, 30:60].astype(int) - middle).max(-1) < 12).mean() > 0.95

    def test_mocap_bodies_are_seen_where_they_are(self, world):
        model, data, renderer = world
        empty = renderer.render(data, "front", **SIZE)
        data.mocap_pos[0] = 0.8, 0, 0.5
        mujoco.mj_forward(model, data)
        with_ball = renderer.render(data, "front", **SIZE)
        assert (with_ball != empty).any(-1).mean() > 0.02
        data.mocap_pos[0] = 0, 0, -3
        mujoco.mj_forward(model, data)
        np.testing.assert_array_equal(renderer.render(data, "front", **SIZE), empty)

    @pytest.mark.parametrize("name", ["hull", "post"])  # without and with a material
    def test_colours_may_change_and_without_alpha_a_geom_is_gone(self, world, name: str):
        model, data, renderer = world
        model.geom_group[model.geom(name).id] = 0
        seen = renderer.render(data, "front", **SIZE)
        model.geom_rgba[model.geom(name).id] = 0.1, 0.1, 1, 1
        blue = renderer.render(data, "front", **SIZE)
        is_geom = (blue != seen).any(-1)
        assert is_geom.mean() > 0.003
        assert (blue[is_geom, 2] > blue[is_geom, 0]).mean() > 0.9
        model.geom_rgba[model.geom(name).id, 3] = 0
        gone = renderer.render(data, "front", **SIZE)
        model.geom_group[model.geom(name).id] = 5
        np.testing.assert_array_equal(gone, renderer.render(data, "front", **SIZE))

    def test_only_the_groups_asked_for_are_drawn(self, world):
        model, data, renderer = world
        backend = "gl" if isinstance(renderer._drawer, GlDrawer) else "rays"
        red = {}
        for groups in ((0, 2), (0, 3), (0,)):
            some = open_renderer(model, scene="arm", backend=backend, geom_groups=groups)
            picture = some.render(data, "front", **SIZE).astype(int)
            some.close()
            red[groups] = (picture[..., 0] > picture[..., 1] + 60).mean()
        assert red[0, 3] > 0.01  # the hull
        assert red[0, 2] == red[0,] == 0

    def test_any_thread_may_draw(self, world):
        _, data, renderer = world
        expected = renderer.render(data, "front", **SIZE)
        pictures = []

        def draw() -> None:
            for _ in range(5):
                pictures.append(renderer.render(data, "front", **SIZE))

        threads = [threading.Thread(target=draw) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(pictures) == 15
        assert all(np.array_equal(picture, expected) for picture in pictures)

    def test_misuse_is_refused_with_what_would_have_worked(self, world):
        _, data, renderer = world
        with pytest.raises(KeyError, match="no camera 'wrsit'; have: front, side, wrist"):
            renderer.render(data, "wrsit", **SIZE)
        for size in ((0, 64), (64, -1), (64, 5000), (64.0, 64)):
            with pytest.raises(ValueError, match="expected 1 to 4096 whole pixels"):
                renderer.render(data, "front", height=size[0], width=size[1])
        _, theirs = small_arm()
        with pytest.raises(ValueError, match="another model"):
            renderer.render(theirs, "front", **SIZE)

    def test_closed_is_closed(self, world):
        _, data, renderer = world
        renderer.close()
        renderer.close()
        with pytest.raises(RuntimeError, match="closed"):
            renderer.render(data, "front", **SIZE)


def test_arguments_are_checked():
    model, _ = small_arm()
    with pytest.raises(ValueError, match="no backend 'opengl'; have: auto, gl, rays"):
        open_renderer(model, scene="arm", backend="opengl")  # pyright: ignore[reportArgumentType]
    for groups in ((), (6,), (-1,)):
        with pytest.raises(ValueError, match="expected some of 0 to 5"):
            open_renderer(model, scene="arm", backend="rays", geom_groups=groups)
