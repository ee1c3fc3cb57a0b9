"""Corruptions: each one's defining property."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleop_data.schema import Feature, Schema
from tests.sim.perturbations.faulty_sources import (
    SCHEMA,
    observations,
    outage,
    play,
    source_perturbation,
)


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
    shown = play(source_perturbation("frozen", sources=["front"]), seed=0)
    for arrived, truth in shown[1:]:
        np.testing.assert_array_equal(arrived["front"], observations(1)[0]["front"])
        assert truth == {"front": 1.0}
    assert shown[0][1] == {"front": 0.0}


@given(delay=st.integers(1, 12), begin=st.integers(0, 15), length=st.integers(1, 20))
def test_late_holds_what_was_there_and_then_is_so_many_steps_behind(
    delay: int, begin: int, length: int
):
    fault = source_perturbation(
        "late", sources=["front"], start=(begin, begin), length=length, delay=delay
    )
    true = observations()
    for step, (arrived, truth) in enumerate(play(fault, seed=0)):
        is_bad = begin <= step < begin + length
        shown = max(step - delay, begin - 1, 0) if is_bad else step
        np.testing.assert_array_equal(arrived["front"], true[shown]["front"])
        assert truth["front"] == float(shown < step)


def captured(fault_options: dict, *, num_steps: int = 400) -> np.ndarray:
    """The step at which each value that arrived was taken, of a state that counts the steps; the
    fault's own age is checked against it."""
    schema = SCHEMA.select(["state", "action"])
    fault = source_perturbation("late", schema=schema, start=(5, 5), **fault_options)
    fault.reset(3)
    taken = []
    for step in range(num_steps):
        fault.window.advance(step, touches=lambda: False)
        arrived, truth = fault.apply({"state": np.full(3, step, np.float32)})
        taken.append(int(arrived["state"][0]))
        assert fault.age_steps("state") == step - taken[-1]
        assert truth["state"] == float(taken[-1] != step)
    return np.array(taken)


def test_jitter_shows_the_newest_value_that_has_arrived():
    taken = captured({"delay": (0, 6)})
    ages = np.arange(400) - taken
    np.testing.assert_array_equal(ages[:5], 0)
    assert (np.diff(taken) >= 0).all()
    # the newest of several under way: younger than the mean delay, and seldom as old as one can be
    assert set(np.unique(ages[12:])) >= {0, 1, 2}
    assert 0.5 < ages[12:].mean() < 2.5


def test_reordered_values_go_back_in_time_at_times():
    taken = captured({"delay": (0, 6), "reorders": True})
    assert 20 < (np.diff(taken) < 0).sum() < 200
    ages = np.arange(400) - taken
    assert ages.max() <= 6 + 6  # nothing newer may arrive for as long again
    assert ages[12:].mean() > (np.arange(400) - captured({"delay": (0, 6)}))[12:].mean()


def test_dropped_is_absent():
    for step, (arrived, _) in enumerate(play(outage("dropped"), seed=0)):
        assert ("front" in arrived) is not (10 <= step < 15)


def test_frames_are_dropped_as_often_as_asked_and_by_source():
    fault = source_perturbation("dropped", probability=0.3)
    told = play(fault, seed=0, given=[observations(1)[0]] * 2000)
    gone = np.array([[name not in arrived for name in ("front", "wrist")] for arrived, _ in told])
    assert gone.mean(axis=0) == pytest.approx(0.3, abs=0.04)
    assert (gone[:, 0] != gone[:, 1]).any()
    assert [truth["front"] for _, truth in told] == gone[:, 0].astype(float).tolist()


def test_noise_has_its_deviation_and_is_new_each_step():
    fault = source_perturbation("noise", sources=["state"], std=0.25)
    true = observations(4000, schema=SCHEMA.select(["state"]))
    shown = play(fault, seed=0, given=true)
    noise = np.array([a["state"] - o["state"] for (a, _), o in zip(shown, true, strict=True)])
    assert noise.std() == pytest.approx(0.25, rel=0.03)
    assert noise.mean() == pytest.approx(0.0, abs=0.01)
    assert abs(np.corrcoef(noise[:-1, 0], noise[1:, 0])[0, 1]) < 0.05
    assert shown[0][0]["state"].dtype == np.float32


def test_noise_on_cameras_is_in_units_of_their_range_and_stays_a_picture():
    grey = {**observations(1)[0], "front": np.full((24, 32, 3), 128, np.uint8)}
    noisy = play(source_perturbation("noise", std=0.1), seed=0, given=[grey])[0][0]["front"]
    assert noisy.dtype == np.uint8
    assert noisy.std() == pytest.approx(25.5, rel=0.05)
    arrived, _ = play(source_perturbation("noise", std=4.0), seed=0)[0]
    assert set(np.unique(arrived["front"])) > {0, 255}


def test_noise_may_differ_by_entry():
    fault = source_perturbation("noise", sources=["state"], std=(0.0, 0.0, 1.0))
    state = play(fault, seed=0)[0][0]["state"]
    np.testing.assert_array_equal(state[:2], observations(1)[0]["state"][:2])
    assert state[2] != observations(1)[0]["state"][2]


def test_recolored_pictures_are_scaled_channel_by_channel_and_alike_at_every_step():
    fault = source_perturbation("recolored", sources=["front"], brightness=0.8, tint=0.3)
    factors = []
    for (arrived, _), true in zip(play(fault, seed=2), observations(), strict=True):
        ratio = arrived["front"].reshape(-1, 3).sum(0) / true["front"].reshape(-1, 3).sum(0)
        factors.append(ratio)
    np.testing.assert_allclose(factors, factors[:1] * len(factors), atol=0.01)
    assert (factors[0] >= 0.8 * 0.7 - 0.01).all()
    assert (factors[0] <= 0.8 * 1.3 + 0.01).all()
    assert np.ptp(factors[0]) > 0.02


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_a_patch_covers_its_share_of_the_area(share: float):
    schema = Schema(
        features=(
            Feature(name="front", shape=(96, 96, 3), dtype="uint8", role="camera"),
            SCHEMA.action,
        ),
        rate_hz=10.0,
    )
    fault = source_perturbation("patch", schema=schema, share=share)
    arrived, _ = play(fault, 0, observations(1, schema=schema))[0]
    assert (arrived["front"] == 127).all(-1).mean() == pytest.approx(share, abs=0.012)


@given(share=st.floats(0.01, 1.0), speed=st.floats(0.0, 50.0), seed=st.integers(0, 1000))
def test_a_patch_is_a_rectangle_of_the_pictures_form_and_nothing_else(
    share: float, speed: float, seed: int
):
    fault = source_perturbation("patch", sources=["front"], share=share, speed=speed)
    corners = set()
    true = observations(12)
    for (arrived, _), one in zip(play(fault, seed, true), true, strict=True):
        is_grey = (arrived["front"] == 127).all(-1)
        rows, columns = np.nonzero(is_grey)
        height, width = (max(round(share**0.5 * side), 1) for side in (24, 32))
        top, left = rows.min(), columns.min()
        corners.add((int(top), int(left)))
        assert is_grey[top : top + height, left : left + width].all()
        assert (is_grey.sum()) == pytest.approx(height * width, abs=1)  # a true pixel may be grey
        np.testing.assert_array_equal(arrived["front"][~is_grey], one["front"][~is_grey])
    if speed == 0.0:
        assert len(corners) == 1


def test_a_moving_patch_moves_by_its_speed():
    fault = source_perturbation("patch", sources=["front"], share=0.04, speed=2.0)
    corners = []
    for arrived, _ in play(fault, seed=1):
        rows, columns = np.nonzero((arrived["front"] == 127).all(-1))
        corners.append((rows.min(), columns.min()))
    steps = np.linalg.norm(np.diff(np.array(corners), axis=0), axis=1)
    assert steps.max() <= 2.0 + np.sqrt(2)  # rounding to pixels
    assert np.median(steps) == pytest.approx(2.0, abs=0.6)
