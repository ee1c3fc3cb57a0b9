"""Statistics equal numpy's on the concatenation of the chosen episodes, and of no other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.statistics import NUM_BINS, FeatureStatistics, buffer_statistics, summarize
from tests.teleop_data.stores import real_pusht, write_store


def assert_equals_numpy(statistics: FeatureStatistics, rows: np.ndarray) -> None:
    rows = rows.astype(np.float64)
    assert statistics.count == len(rows)
    np.testing.assert_array_equal(statistics.minimum, rows.min(0))
    np.testing.assert_array_equal(statistics.maximum, rows.max(0))
    scale = np.abs(rows).max() + 1e-300
    np.testing.assert_allclose(statistics.mean, rows.mean(0), rtol=1e-9, atol=1e-12 * scale)
    np.testing.assert_allclose(statistics.std, rows.std(0), rtol=1e-9, atol=1e-7 * scale)
    bin_width = (rows.max(0) - rows.min(0)) / NUM_BINS
    for quantile, share in ((statistics.q01, 0.01), (statistics.q99, 0.99)):
        exact = np.quantile(rows, share, axis=0, method="inverted_cdf")
        assert (np.abs(quantile - exact) <= bin_width * 1.001 + 1e-12 * scale).all()


@given(
    st.integers(1, 4).flatmap(
        lambda d: st.lists(
            hnp.arrays(
                np.float32,
                st.tuples(st.integers(0, 30), st.just(d)),
                elements=st.floats(-1000, 1000, width=32),
            ),
            min_size=1,
            max_size=6,
        )
    )
)
def test_blocks_equal_their_concatenation(blocks: list[np.ndarray]) -> None:
    rows = np.concatenate(blocks)
    if len(rows):
        assert_equals_numpy(summarize(lambda: iter(blocks)), rows)
    else:
        with pytest.raises(ValueError, match="no rows to summarize"):
            summarize(lambda: iter(blocks))


def test_many_rows_far_from_zero() -> None:
    """A mean 1e6 times the deviation: squares summed the naive way would lose it."""
    rows = np.random.default_rng(0).normal(1e6, 1.0, (10_000, 2))
    statistics = summarize(lambda: iter(np.array_split(rows, 37)))
    np.testing.assert_allclose(statistics.std, rows.std(0), rtol=1e-9)
    assert_equals_numpy(statistics, rows)


def test_only_the_chosen_episodes(tmp_path: Path) -> None:
    buffer = write_store(tmp_path / "a.zarr")
    chosen = np.array([0, 2])
    statistics = buffer_statistics(buffer, names=["state", "action", "contacts"], episodes=chosen)
    assert list(statistics) == ["state", "action", "contacts"]
    for name, result in statistics.items():
        rows = np.concatenate([buffer.episode(e)[name] for e in chosen])
        assert_equals_numpy(result, rows.reshape(len(rows), -1))


@pytest.mark.parametrize("camera_stride", [1, 3, 8])
def test_cameras_by_channel(tmp_path: Path, camera_stride: int) -> None:
    buffer = write_store(tmp_path / "a.zarr", lengths=(5, 200))
    statistics = buffer_statistics(
        buffer, names=["front"], episodes=np.array([0, 1]), camera_stride=camera_stride
    )
    frames = [buffer.episode(e)["front"][::camera_stride].reshape(-1, 3) for e in (0, 1)]
    assert_equals_numpy(statistics["front"], np.concatenate(frames))


def test_not_finite_names_episode_and_step(tmp_path: Path) -> None:
    buffer = write_store(tmp_path / "a.zarr")
    zarr.open_array(tmp_path / "a.zarr/data/action", mode="r+")[8, 1] = np.nan
    with pytest.raises(ValueError, match="'action' is not finite in episode 2, step 2"):
        buffer_statistics(buffer, names=["action"], episodes=np.arange(4))
    rest = buffer_statistics(buffer, names=["action"], episodes=np.array([0, 1, 3]))
    assert np.isfinite(rest["action"].mean).all()


def test_constant_feature() -> None:
    statistics = summarize(lambda: [np.full((7, 2), 3.25, np.float32)])
    for value in (statistics.minimum, statistics.mean, statistics.q01, statistics.q99):
        assert value.tolist() == [3.25, 3.25]
    assert statistics.std.tolist() == [0.0, 0.0]


def test_json_round_trip() -> None:
    rows = np.random.default_rng(1).normal(size=(100, 3))
    statistics = summarize(lambda: [rows])
    again = FeatureStatistics.from_json(json.loads(json.dumps(statistics.to_json())))
    assert again.to_json() == statistics.to_json()
    assert again.mean.dtype == np.float64
    np.testing.assert_array_equal(again.std, statistics.std)


def test_from_json_refuses() -> None:
    good = summarize(lambda: [np.zeros((2, 1))]).to_json()
    missing = {key: value for key, value in good.items() if key != "q01"}
    for bad in (missing, {**good, "median": [0.0]}):
        with pytest.raises(ValueError, match="not statistics: have keys .* expected .*q01"):
            FeatureStatistics.from_json(bad)


def test_unknown_feature(tmp_path: Path) -> None:
    buffer = write_store(tmp_path / "a.zarr")
    with pytest.raises(KeyError, match="no feature 'wrist'; have"):
        buffer_statistics(buffer, names=["wrist"], episodes=np.array([0]))


def test_human_push_t() -> None:
    buffer = ReplayBuffer.open(real_pusht())
    statistics = buffer_statistics(buffer, names=["action", "state"], episodes=np.arange(206))
    assert_equals_numpy(statistics["action"], buffer["action"][:])
    assert_equals_numpy(statistics["state"], buffer["state"][:])
