"""Films: they decode, show what happened, and cost less than a control step."""

from __future__ import annotations

import functools
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from deploy.film_frame import HEIGHT, STRIP_TOP, WIDTH, FilmedStep, draw_frame
from deploy.level_picture import LevelHistory, draw_levels
from deploy.rollout import Conditions, roll_out
from deploy.video import FINAL_PAUSE_S, EpisodeFilms
from sim.perturbations.kinds import perturbation
from sim.tasks.pick_place import SCHEMA, pick_place_environment
from tests.deploy.tiny_checkpoint import tiny_policy

MAX_STEPS = 12


def decoded(path: Path) -> tuple[np.ndarray, float]:
    """All frames (N, H, W, 3), and frames per second."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.pix_fmt == "yuv420p"
        rate = float(stream.average_rate or 0)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    return np.stack(frames), rate


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films of two of three episodes, two at a time, whose camera is black in steps 4 to 8."""
    folder = tmp_path_factory.mktemp("films")
    environments = [pick_place_environment(max_steps=MAX_STEPS) for _ in range(2)]
    recorder = EpisodeFilms(environments, seeds=[7, 8, 9], num_films=2)
    black = functools.partial(perturbation, "black", schema=SCHEMA, start=(4, 4), length=5)
    policy = tiny_policy(folder / "checkpoint")
    conditions = Conditions(perturb=lambda: [black()])
    roll_out(policy, environments, seeds=[7, 8, 9], conditions=conditions, on_step=recorder.add)
    paths = recorder.write(folder / "out")
    assert paths == [folder / "out" / "rollout_7.mp4", folder / "out" / "rollout_8.mp4"]
    return folder / "out"


def test_the_first_few_episodes_are_filmed_and_no_other(films: Path):
    assert sorted(path.name for path in films.iterdir()) == [
        "levels_7.png",
        "levels_8.png",
        "rollout_7.mp4",
        "rollout_8.mp4",
    ]


@pytest.mark.parametrize("seed", [7, 8])
def test_a_film_has_a_frame_a_step_and_a_pause_at_the_end(films: Path, seed: int):
    frames, rate = decoded(films / f"rollout_{seed}.mp4")
    assert rate == SCHEMA.rate_hz
    assert frames.shape == (MAX_STEPS + FINAL_PAUSE_S * rate, HEIGHT, WIDTH, 3)


def test_a_film_shows_its_own_world_and_the_covered_camera(films: Path):
    for seed in (7, 8):
        environment = pick_place_environment(max_steps=MAX_STEPS)
        environment.reset(seed)
        frames, _ = decoded(films / f"rollout_{seed}.mp4")
        # the goal never moves: it is where this seed put it (video is lossy)
        world = environment.render().astype(int)
        is_goal = (np.abs(world - (38, 166, 91)).sum(-1) < 30)[: STRIP_TOP - 20]
        shown = frames[0, : is_goal.shape[0], : is_goal.shape[1]][is_goal].astype(int)
        assert np.abs(shown.mean(0) - (38, 166, 91)).max() < 30
        camera = frames[:MAX_STEPS, 40:180, 440:580].astype(int).mean(axis=(1, 2, 3))
        assert (camera < 20).tolist() == [4 <= step < 9 for step in range(MAX_STEPS)]


def filmed(**changes) -> FilmedStep:
    environment = pick_place_environment()
    values = {
        "seed": 1,
        "step": 0,
        "reward": 0.5,
        "is_success": False,
        "observation": environment.reset(1),
        "world": environment.render(),
        "source_levels": {"top": 0.0, "state": 0.0},
        "plan_levels": np.zeros(16, np.float32),
        "is_new_plan": True,
    }
    return FilmedStep(**(values | changes))


def draw(**changes) -> np.ndarray:
    return draw_frame(filmed(**changes), schema=SCHEMA, horizon=16)


def orange(frame: np.ndarray) -> np.ndarray:
    """(H, W) where the colour of noise is."""
    return np.abs(frame.astype(int) - (234, 88, 12)).sum(-1) < 10


def test_the_plan_strip_is_as_high_as_the_levels_say():
    num_orange = [
        int(orange(draw(plan_levels=np.full(16, level, np.float32)))[STRIP_TOP:].sum())
        for level in (0.0, 1.0)
    ]
    half = np.repeat([0.0, 1.0], 8).astype(np.float32)
    num_half = int(orange(draw(plan_levels=half))[STRIP_TOP:].sum())
    assert num_orange[0] == 0
    assert num_orange[1] > 16 * 30 * 60
    assert abs(num_half - num_orange[1] / 2) <= num_orange[1] / 100
    right = orange(draw(plan_levels=half))[STRIP_TOP:]
    assert right[:, : WIDTH // 2 - 4].sum() == 0


def test_a_flagged_or_missing_camera_is_marked():
    healthy = draw()
    flagged = draw(source_levels={"top": 1.0, "state": 0.0})
    assert orange(healthy)[:STRIP_TOP].sum() == 0
    assert orange(flagged)[:STRIP_TOP, 384:].sum() > 4 * 192 * 4
    observation = dict(filmed().observation)
    del observation["top"]
    missing = draw(observation=observation)
    assert not np.array_equal(missing[12:204, 416:608], healthy[12:204, 416:608])


def test_a_world_of_another_size_and_no_camera_still_fit():
    schema = SCHEMA.select(["state", "action"])
    frame = draw_frame(filmed(world=np.zeros((96, 96, 3), np.uint8)), schema=schema, horizon=16)
    assert frame.shape == (HEIGHT, WIDTH, 3)
    assert frame[:384, :384].max() == 0


def test_a_frame_costs_less_than_drawing_and_encoding_may():
    step = filmed()
    draw_frame(step, schema=SCHEMA, horizon=16)  # fonts are loaded once
    began_s = time.process_time()
    for _ in range(5):
        draw_frame(step, schema=SCHEMA, horizon=16)
    assert (time.process_time() - began_s) / 5 < 0.05  # about 0.005 on an idle machine


def test_the_level_history_stands_where_the_steps_are():
    history = LevelHistory()
    history.add(0, plan_levels=np.array([0, 0.5, 1.0]), source_levels={"top": 0.0})
    history.add(1, plan_levels=np.array([0.25, 0.75, 1.0]), source_levels={"top": 1.0})
    expected = [[0, 0.5, 1.0, np.nan], [np.nan, 0.25, 0.75, 1.0]]
    np.testing.assert_array_equal(history.plan_matrix(), np.array(expected, np.float32))
    names, sources = history.source_matrix()
    assert names == ["top"]
    np.testing.assert_array_equal(sources, [[0.0, 1.0]])


def test_the_level_picture_is_a_picture(tmp_path: Path):
    history = LevelHistory()
    for step in range(6):
        history.add(step, plan_levels=np.linspace(0, 1, 8), source_levels={})
    draw_levels(history, tmp_path / "levels.png")
    with Image.open(tmp_path / "levels.png") as picture:
        assert np.asarray(picture.convert("RGB")).std() > 10


def test_a_film_without_a_step_says_so(tmp_path: Path):
    films = EpisodeFilms([pick_place_environment()], seeds=[5], num_films=1)
    with pytest.raises(ValueError, match="nothing was filmed of episode 5"):
        films.write(tmp_path)
