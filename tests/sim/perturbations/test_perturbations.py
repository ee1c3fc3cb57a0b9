"""Perturbations of sources: window, truth, seeds, who goes bad, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from sim.perturbations.kinds import perturbation
from teleop_data.schema import Feature, Schema
from tests.sim.perturbations.faulty_sources import (
    SCHEMA,
    observations,
    outage,
    play,
    source_perturbation,
)

FAULTS = ("black", "frozen", "noise", "recolored", "patch", "dropped", "late")
TWINS = Schema(
    features=(
        Feature(name="left", shape=(8, 8, 3), dtype="uint8", role="camera"),
        Feature(name="right", shape=(8, 8, 3), dtype="uint8", role="camera"),
        Feature(name="action", shape=(2,), role="action"),
    ),
    rate_hz=10.0,
)


@pytest.mark.parametrize("kind", FAULTS)
def test_only_the_window_and_the_source_are_touched_and_the_truth_says_so(kind: str):
    for step, ((arrived, truth), true) in enumerate(
        zip(play(outage(kind), seed=0), observations(), strict=True)
    ):
        is_bad = 10 <= step < 15
        assert truth == {"front": float(is_bad)}
        np.testing.assert_array_equal(arrived["wrist"], true["wrist"])
        np.testing.assert_array_equal(arrived["state"], true["state"])
        untouched = "front" in arrived and np.array_equal(arrived["front"], true["front"])
        assert untouched is not is_bad


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("start", [(0, 0), (3, 20)])
def test_it_is_a_function_of_the_seed(kind: str, start: tuple[int, int]):
    options = {"patch": {"speed": 2.0}, "late": {"delay": (0, 4)}, "dropped": {"probability": 0.5}}
    fault, other = (
        source_perturbation(kind, start=start, length=9, **options.get(kind, {})) for _ in range(2)
    )
    first = play(fault, seed=5)
    play(fault, seed=6)
    for again in (play(fault, seed=5), play(other, seed=5)):
        for (one, truth_one), (two, truth_two) in zip(first, again, strict=True):
            assert truth_one == truth_two
            assert one.keys() == two.keys()
            for key, value in one.items():
                np.testing.assert_array_equal(value, two[key])


@pytest.mark.parametrize("kind", ["noise", "patch", "recolored"])
def test_seeds_ranks_and_sources_differ(kind: str):
    fault = source_perturbation(kind)
    grey = np.full((24, 32, 3), 90, np.uint8)
    shown = []
    for seed, rank in [*((seed, 0) for seed in range(6)), (0, 1)]:
        fault.reset(seed, rank=rank)
        fault.window.advance(0, touches=lambda: False)
        shown.append(fault.apply({"front": grey, "wrist": grey[:16, :16]})[0])
    assert len({frame["front"].tobytes() for frame in shown}) == 7
    if kind != "patch":
        assert all((f["front"].ravel()[:768] != f["wrist"].ravel()).any() for f in shown)


def test_observations_given_are_never_changed():
    for kind in FAULTS:
        true = observations()
        play(source_perturbation(kind), seed=0, given=true)
        for given_one, before in zip(true, observations(), strict=True):
            for key, value in given_one.items():
                np.testing.assert_array_equal(value, before[key])


def test_swapped_cameras_show_each_others_pictures():
    fault = source_perturbation("swapped", schema=TWINS, start=(2, 2), length=3)
    true = observations(8, schema=TWINS)
    for step, (arrived, truth) in enumerate(play(fault, 0, true)):
        is_bad = 2 <= step < 5
        names = ("right", "left") if is_bad else ("left", "right")
        for name, shown in zip(("left", "right"), names, strict=True):
            np.testing.assert_array_equal(arrived[name], true[step][shown])
            assert truth[name] == float(is_bad)


def test_one_of_several_sources_is_drawn_anew_each_episode():
    fault = source_perturbation("black", num_sources=1)
    drawn = []
    for seed in range(60):
        arrived, truth = play(fault, seed, observations(1))[0]
        (name,) = fault.spoiled
        assert truth == {n: float(n == name) for n in ("front", "wrist")}
        assert arrived[name].max() == 0
        drawn.append(name)
    assert 15 < drawn.count("front") < 45


def test_the_oracle_may_be_told_a_lower_level():
    truths = [truth["front"] for _, truth in play(outage("noise", level=0.4), seed=0)]
    assert sorted(set(truths)) == [0.0, 0.4]


def test_faults_go_on_where_another_has_taken_the_source_away():
    """A frozen camera whose pictures were lost before the fault keeps the one from before that; a
    late one does not take a lost picture for one that is under way."""
    gaps = [{k: v for k, v in o.items() if k != "front"} for o in observations()]
    given_ones = [*observations()[:9], *gaps[9:]]
    true = observations()
    frozen, late = (play(outage(kind), 0, given_ones) for kind in ("frozen", "late"))
    for shown in (frozen, late):
        np.testing.assert_array_equal(shown[8][0]["front"], true[8]["front"])
        assert "front" not in shown[9][0]
        np.testing.assert_array_equal(shown[14][0]["front"], true[8]["front"])
        assert "front" not in shown[15][0]
    for kind in ("black", "noise", "patch", "recolored", "dropped"):
        assert "front" not in play(outage(kind), 0, given_ones)[12][0]


def test_every_beginning_is_drawn_about_equally_often():
    fault = source_perturbation("black", start=(4, 7), length=1)
    counts = dict.fromkeys(range(4, 8), 0)
    for seed in range(400):
        fault.reset(seed)
        assert fault.window.bounds is not None
        counts[fault.window.bounds[0]] += 1
    assert min(counts.values()) > 70


def test_the_default_sources_are_the_cameras_or_else_everything_observed():
    assert perturbation("black", schema=SCHEMA).terms.sources == ("front", "wrist")
    fault = source_perturbation("black", schema=SCHEMA.select(["state", "action"]))
    arrived, truth = play(fault, 0, [{"state": np.ones(3, np.float32)}])[0]
    np.testing.assert_array_equal(arrived["state"], np.zeros(3, np.float32))
    assert truth == {"state": 1.0}


def test_durations_may_be_seconds():
    terms = perturbation(
        "black", schema=SCHEMA, start=("0.5 s", 15), length="0.25s", offset=(0, "1 s")
    ).terms
    assert terms.to_json() == {
        "kind": "black",
        "options": {},
        "sources": ["front", "wrist"],
        "level": 1.0,
        "start": (5, 15),
        "length": 3,
        "phase": "anytime",
        "offset": (0, 10),
    }


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("blak", {}, "no perturbation 'blak'; have: black, frozen, noise"),
        ("patch", {"sources": ["state"]}, "no camera"),
        ("recolored", {"sources": ["state"]}, "no camera"),
        ("black", {"length": 0}, "length is 0"),
        ("black", {"start": (5, 3)}, "0 <= first <= last"),
        ("black", {"start": (5,)}, r"expected \[first, last\]"),
        ("black", {"length": "2 min"}, "seconds as '0.5 s'"),
        ("black", {"phase": "later"}, "expected one of .'anytime'"),
        ("black", {"level": 1.5}, r"within \[0, 1\]"),
        ("black", {"num_sources": 2}, "fewer than there are"),
        ("black", {"std": 0.1}, r"black has no option \['std'\]; have: none"),
        ("noise", {"sdt": 0.1}, r"noise has no option \['sdt'\]; have: std"),
        ("noise", {"std": -1.0}, "expected at least 0"),
        ("patch", {"share": 0.0}, r"expected in \(0, 1\]"),
        ("patch", {"speed": -1.0}, "at least 0"),
        ("late", {"delay": 0}, "delay is 0"),
        ("late", {"delay": (3, 1)}, "low <= high"),
        ("dropped", {"probability": 0.0}, "probability is 0"),
        ("recolored", {"tint": 2.0}, "within"),
        ("swapped", {}, "two cameras of one shape .*wrist"),
        ("nudge", {"sources": ["front"]}, "spoils no source"),
        ("light", {"sources": ["state"]}, "expected cameras"),
        ("occluder", {"sources": ["front", "wrist"]}, "expected one camera"),
        ("occluder", {"camera": "wrist"}, "no option"),
        ("light", {"num_sources": 1}, "faults of sources, not for light"),
    ],
)
def test_misuse_is_refused_with_what_would_have_worked(kind: str, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        perturbation(kind, schema=SCHEMA, **options)


def test_an_unknown_source_is_refused():
    with pytest.raises(KeyError, match="have: front, wrist, state"):
        perturbation("black", schema=SCHEMA, sources=["side"])
