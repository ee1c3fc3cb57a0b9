"""Demonstrations in an npz, as D4RL's and Adroit's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from teleop_data.converters.d4rl_npz import D4rlSource, recognize
from teleop_data.converters.episode_stream import copy_episodes
from teleop_data.converters.replay_buffer_zarr import ReplayBufferSink, ReplayBufferSource
from teleop_data.replay_buffer import StoreError
from tests.teleop_data.converters.streams import assert_same, real_data

OBSERVATIONS = np.arange(24, dtype=np.float32).reshape(12, 2)
ARRAYS = {"observations": OBSERVATIONS, "actions": -OBSERVATIONS, "rewards": OBSERVATIONS[:, 0]}


def write(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **{**ARRAYS, **arrays})  # type: ignore[arg-type]
    return path


def test_episode_ends(tmp_path: Path) -> None:
    source = D4rlSource(write(tmp_path / "a.npz", episode_ends=np.array([5, 6, 10])))
    roles = {feature.name: feature.role for feature in source.schema.features}
    assert roles == {"state": "state", "action": "action", "rewards": "other"}
    assert [len(source.episode(i)["state"]) for i in range(3)] == [5, 1, 4]
    np.testing.assert_array_equal(source.episode(2)["action"], -OBSERVATIONS[6:10])
    notes = " ".join(source.notes)
    assert "25 Hz is assumed" in notes
    assert "The last 2 steps belong to no finished episode" in notes


def test_d4rls_flags(tmp_path: Path) -> None:
    flags = np.zeros((2, 12), bool)
    flags[0, 3] = flags[1, 8] = True
    path = write(tmp_path / "a.npz", terminals=flags[0], timeouts=flags[1], version=np.array(2))
    source = D4rlSource(path)
    assert [len(source.episode(i)["state"]) for i in range(source.num_episodes)] == [4, 5]
    assert any("Left out, not one row a step: version" in note for note in source.notes)
    assert recognize(path) == "an npz with terminals"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "expected episode_ends, or terminals and timeouts"),
        ({"episode_ends": np.array([5, 5])}, "must rise"),
        ({"episode_ends": np.array([5, 13])}, "at most 12 steps"),
        ({"episode_ends": np.array([5.0])}, "expected .E,. int"),
        ({"terminals": np.zeros(12, bool)}, "expected .E,. int"),
    ],
)
def test_ends_that_are_none(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(StoreError, match=message):
        D4rlSource(write(tmp_path / "a.npz", **arrays))


def test_files_that_are_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", episode_ends=np.array([5]))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match="cannot be read as an npz"):
        D4rlSource(path)
    assert recognize(path) is None
    np.savez(path, words=np.array(["a", None], dtype=object), episode_ends=np.array([1]))
    with pytest.raises(StoreError, match="npz of numbers"):
        D4rlSource(path)
    with pytest.raises(FileNotFoundError, match="no file"):
        D4rlSource(tmp_path / "none.npz")


def test_human_adroit_pen(tmp_path: Path) -> None:
    source = D4rlSource(real_data("adroit_pen/pen_human_v0.npz"))
    assert source.num_episodes == 25
    assert {len(source.episode(i)["action"]) for i in range(25)} == {200}
    assert (source.schema["state"].shape, source.schema["action"].shape) == ((45,), (24,))
    copy_episodes(source, ReplayBufferSink(), tmp_path / "a.zarr")
    assert_same(ReplayBufferSource(tmp_path / "a.zarr"), source)


def test_human_push_t_without_images() -> None:
    source = D4rlSource(real_data("pusht/pusht_cchi_v7_replay_lowdim.npz"))
    stored = ReplayBufferSource(real_data("pusht/pusht_cchi_v7_replay.zarr"))
    assert source.num_episodes == stored.num_episodes == 206
    assert source.schema.rate_hz == 10.0
    for name in ("state", "action"):
        np.testing.assert_array_equal(source.episode(205)[name], stored.episode(205)[name])
