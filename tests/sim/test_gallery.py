"""The gallery: pictures of tasks and perturbations for people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from sim.gallery import GalleryConfig, moment, page_of, run, side_by_side
from sim.perturbations.conditions import condition_names
from sim.rendering.camera_renderer import gl_is_available
from sim.task_descriptions import arm_task_names, describe_task, task_names

needs_gl = pytest.mark.skipif(not gl_is_available(), reason="no OpenGL here: rays take minutes")


def test_tasks_are_found_and_an_unknown_one_is_refused():
    assert {"swap", "push", "search", "moving_target", "arm_pick_place"} <= set(arm_task_names())
    assert {"pick_place", "push_t_image"} <= set(task_names()) - set(arm_task_names())
    assert set(arm_task_names()) - set(arm_task_names(variants=False)) == {
        "swap_2",
        "swap_4",
        "swap_10",
        "swap_20",
    }
    assert describe_task("swap").name == "swap"
    with pytest.raises(ValueError, match=r"no task 'juggle'; have: .*swap"):
        describe_task("juggle")


@needs_gl
def test_a_moment_shows_the_condition():
    plain, black = (moment(name, task="swap", seed=0, pixels=64) for name in ("none", "black_0.5s"))
    occluded = moment("occluder", task="swap", seed=0, pixels=64)
    assert plain["front"].max() > 100
    assert black["front"].max() == 0
    assert (occluded["front"] != plain["front"]).any(-1).mean() > 0.05
    np.testing.assert_array_equal(occluded["state"], plain["state"])


def test_cameras_stand_side_by_side():
    observation = {name: np.full((48, 48, 3), 9, np.uint8) for name in ("front", "wrist")}
    picture = side_by_side(observation)
    assert picture.shape == (48, 48 + 2 + 48, 3)
    assert picture[0, 48].min() == 255


def test_the_page_names_everything_and_is_safe():
    page = page_of(["swap", "<push>"], ["black"])
    assert "swap, &lt;push&gt;" in page
    assert 'src="perturbations.png"' in page


@pytest.mark.slow
@pytest.mark.timeout(900)
@needs_gl
def test_the_whole_gallery_is_drawn(tmp_path: Path):
    page = run(GalleryConfig(output_dir=str(tmp_path), pixels=64)).read_text()
    for name in (*arm_task_names(variants=False), *condition_names()):
        assert name in page
    for name in ("tasks", "perturbations"):
        picture = imread(tmp_path / f"{name}.png")
        assert min(picture.shape[:2]) > 400
        assert picture.std() > 0.1
