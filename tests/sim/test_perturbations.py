"""Perturbations: each fault's defining property, the window, the oracle's truth, determinism."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.perturbations import Perturbation, perturbation
from teleop_data.schema import Feature, Schema

SCHEMA = Schema(
    features=(
        Feature(name="front", shape=(24, 32, 3), dtype="uint8", role="camera"),
        Feature(name="wrist", shape=(16, 16, 3), dtype="uint8", role="camera"),
        Feature(name="state", shape=(3,)),
        Feature(name="action", shape=(2,), role="action"),
    ),
    rate_hz=10.0,
)
NUM_STEPS = 30
FAULTS = ("black", "frozen", "noise", "patch", "dropped", "late")


def observations(num_steps: int = NUM_STEPS) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        {
            "front": rng.integers(1, 255, size=(24, 32, 3), dtype=np.uint8),
            "wrist": rng.integers(1, 255, size=(16, 16, 3), dtype=np.uint8),
            "state": rng.normal(size=3).astype(np.float32),
        }
        for _ in range(num_steps)
    ]


def play(fault: Perturbation, seed: int, num_steps: int = NUM_STEPS):
    fault.reset(seed)
    return [fault.apply(step, value) for step, value in enumerate(observations(num_steps))]


def outage(name: str, **options) -> Perturbation:
    """Bad at steps 10 to 14, front camera only."""
    return perturbation(name, schema=SCHEMA, sources=["front"], start=(10, 10), length=5, **options)


@pytest.mark.parametrize("name", FAULTS)
def test_only_the_window_and_the_source_are_touched_and_the_truth_says_so(name: str):
    for step, ((arrived, truth), true) in enumerate(
        zip(play(outage(name), seed=0), observations(), strict=True)
    ):
        is_bad = 10 <= step < 15
        assert truth == {"front": float(is_bad)}
        np.testing.assert_array_equal(arrived["wrist"], true["wrist"])
        np.testing.assert_array_equal(arrived["state"], true["state"])
        untouched = "front" in arrived and np.array_equal(arrived["front"], true["front"])
        assert untouched is not is_bad


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("start", [(0, 0), (3, 20)])
def test_it_is_a_function_of_the_seed(name: str, start: tuple[int, int]):
    fault = perturbation(name, schema=SCHEMA, start=start, length=6, speed=2.0)
    first = play(fault, seed=5)
    play(fault, seed=6)
    for again in (
        play(fault, seed=5),
        play(perturbation(name, schema=SCHEMA, start=start, length=6, speed=2.0), seed=5),
    ):
        for (one, truth_one), (two, truth_two) in zip(first, again, strict=True):
            assert truth_one == truth_two
            assert one.keys() == two.keys()
            for key, value in one.items():
                np.testing.assert_array_equal(value, two[key])


@pytest.mark.parametrize("name", ["noise", "patch"])
def test_seeds_and_sources_differ(name: str):
    fault = perturbation(name, schema=SCHEMA, share=0.3)
    black = np.zeros((24, 32, 3), np.uint8)
    shown = []
    for seed in range(6):
        fault.reset(seed)
        shown.append(fault.apply(0, {"front": black, "wrist": black[:16, :16]})[0])
    assert len({frame["front"].tobytes() for frame in shown}) == 6
    if name == "noise":
        assert all((f["front"].ravel()[:768] != f["wrist"].ravel()).any() for f in shown)


def test_observations_given_are_never_changed():
    for name in FAULTS:
        fault = perturbation(name, schema=SCHEMA, speed=3.0)
        fault.reset(0)
        for step, (given_one, before) in enumerate(
            zip(observations(), observations(), strict=True)
        ):
            fault.apply(step, given_one)
            for key, value in given_one.items():
                np.testing.assert_array_equal(value, before[key])


def test_black_is_black():
    for arrived, truth in play(outage("black"), seed=0):
        assert (arrived["front"].max() == 0) == bool(truth["front"])


def test_frozen_repeats_the_last_good_frame_and_recovers():
    shown = play(outage("frozen"), seed=0)
    true = observations()
    for step in range(10, 15):
        np.testing.assert_array_equal(shown[step][0]["front"], true[9]["front"])
    np.testing.assert_array_equal(shown[15][0]["front"], true[15]["front"])


def test_frozen_from_the_start_shows_the_first_frame_which_is_not_bad_yet():
    shown = play(perturbation("frozen", schema=SCHEMA, sources=["front"]), seed=0)
    for arrived, truth in shown[1:]:
        np.testing.assert_array_equal(arrived["front"], observations(1)[0]["front"])
        assert truth == {"front": 1.0}
    assert shown[0][1] == {"front": 0.0}


@given(delay=st.integers(1, 12), begin=st.integers(0, 15), length=st.integers(1, 20))
def test_late_is_exactly_the_frame_of_so_many_steps_ago(delay: int, begin: int, length: int):
    fault = perturbation(
        "late", schema=SCHEMA, sources=["front"], start=(begin, begin), length=length, delay=delay
    )
    true = observations()
    for step, (arrived, truth) in enumerate(play(fault, seed=0)):
        is_bad = begin <= step < begin + length
        expected = max(step - delay, 0) if is_bad else step
        np.testing.assert_array_equal(arrived["front"], true[expected]["front"])
        assert truth["front"] == float(is_bad and step > 0)


def test_dropped_is_absent():
    for step, (arrived, _) in enumerate(play(outage("dropped"), seed=0)):
        assert ("front" in arrived) is not (10 <= step < 15)


def test_noise_has_its_deviation_and_is_new_each_step():
    fault = perturbation("noise", schema=SCHEMA, sources=["state"], std=0.25)
    shown, true = play(fault, seed=0, num_steps=4000), observations(4000)
    noise = np.array([a["state"] - o["state"] for (a, _), o in zip(shown, true, strict=True)])
    assert noise.std() == pytest.approx(0.25, rel=0.03)
    assert noise.mean() == pytest.approx(0.0, abs=0.01)
    assert abs(np.corrcoef(noise[:-1, 0], noise[1:, 0])[0, 1]) < 0.05
    assert shown[0][0]["state"].dtype == np.float32


def test_noise_on_cameras_stays_a_picture_and_may_differ_by_entry():
    arrived, _ = play(perturbation("noise", schema=SCHEMA, std=1000.0), seed=0)[0]
    assert arrived["front"].dtype == np.uint8
    assert set(np.unique(arrived["front"])) > {0, 255}
    fault = perturbation("noise", schema=SCHEMA, sources=["state"], std=(0.0, 0.0, 1.0))
    state = play(fault, seed=0, num_steps=1)[0][0]["state"]
    np.testing.assert_array_equal(state[:2], observations(1)[0]["state"][:2])
    assert state[2] != observations(1)[0]["state"][2]


@given(share=st.floats(0.05, 1.0), speed=st.floats(0.0, 50.0), seed=st.integers(0, 1000))
def test_a_patch_covers_its_share_and_nothing_else(share: float, speed: float, seed: int):
    fault = perturbation("patch", schema=SCHEMA, sources=["front"], share=share, speed=speed)
    corners = set()
    for (arrived, _), true in zip(play(fault, seed, 12), observations(12), strict=True):
        is_grey = (arrived["front"] == 127).all(-1)
        rows, columns = np.nonzero(is_grey)
        height, width = max(round(share * 24), 1), max(round(share * 32), 1)
        top, left = rows.min(), columns.min()
        corners.add((int(top), int(left)))
        assert is_grey[top : top + height, left : left + width].all()
        assert (is_grey.sum()) == pytest.approx(height * width, abs=1)  # a true pixel may be grey
        np.testing.assert_array_equal(arrived["front"][~is_grey], true["front"][~is_grey])
    if speed == 0.0:
        assert len(corners) == 1


def test_a_moving_patch_moves_by_its_speed():
    fault = perturbation("patch", schema=SCHEMA, sources=["front"], share=0.2, speed=2.0)
    corners = []
    for arrived, _ in play(fault, seed=1, num_steps=20):
        rows, columns = np.nonzero((arrived["front"] == 127).all(-1))
        corners.append((rows.min(), columns.min()))
    steps = np.linalg.norm(np.diff(np.array(corners), axis=0), axis=1)
    assert steps.max() <= 2.0 + np.sqrt(2)  # rounding to pixels
    assert np.median(steps) == pytest.approx(2.0, abs=0.6)


@given(seed=st.integers(0, 2**31), first=st.integers(0, 30), more=st.integers(0, 30))
def test_windows_begin_within_their_range(seed: int, first: int, more: int):
    fault = perturbation("black", schema=SCHEMA, start=(first, first + more), length=7)
    fault.reset(seed)
    begin, end = fault.window
    assert first <= begin <= first + more
    assert end == begin + 7


def test_every_beginning_is_drawn_about_equally_often():
    fault = perturbation("black", schema=SCHEMA, start=(4, 7), length=1)
    counts = dict.fromkeys(range(4, 8), 0)
    for seed in range(400):
        fault.reset(seed)
        counts[fault.window[0]] += 1
    assert min(counts.values()) > 70


def test_none_hands_everything_through():
    fault = perturbation("none", schema=SCHEMA)
    for (arrived, truth), true in zip(play(fault, seed=0), observations(), strict=True):
        assert truth == {"front": 0.0, "wrist": 0.0}
        assert arrived.keys() == true.keys()
        for key, value in true.items():
            np.testing.assert_array_equal(arrived[key], value)


def test_the_default_sources_are_the_cameras_or_else_everything_observed():
    assert perturbation("black", schema=SCHEMA).sources == ("front", "wrist")
    lowdim = SCHEMA.select(["state", "action"])
    fault = perturbation("black", schema=lowdim)
    assert fault.sources == ("state",)
    arrived, truth = fault.apply(0, {"state": np.ones(3, np.float32)})
    np.testing.assert_array_equal(arrived["state"], np.zeros(3, np.float32))
    assert truth == {"state": 1.0}


def test_misuse_is_refused_with_what_would_have_worked():
    with pytest.raises(ValueError, match="no perturbation 'blak'; have: none, black, frozen"):
        perturbation("blak", schema=SCHEMA)
    with pytest.raises(KeyError, match="have: front, wrist, state"):
        perturbation("black", schema=SCHEMA, sources=["side"])
    with pytest.raises(ValueError, match="no camera"):
        perturbation("patch", schema=SCHEMA, sources=["state"])
    with pytest.raises(ValueError, match="length is 0"):
        perturbation("black", schema=SCHEMA, length=0)
    with pytest.raises(ValueError, match="0 <= first <= last"):
        perturbation("black", schema=SCHEMA, start=(5, 3))
    for wrong in ({"std": -1.0}, {"share": 0.0}, {"delay": 0}, {"speed": -1.0}):
        with pytest.raises(ValueError, match="delay at least 1"):
            perturbation("late", schema=SCHEMA, **wrong)


def test_skipped_and_repeated_steps_are_refused():
    fault = perturbation("late", schema=SCHEMA)
    frame = observations(1)[0]
    fault.apply(0, frame)
    for step in (0, 2):
        with pytest.raises(ValueError, match="expected 1"):
            fault.apply(step, frame)
