"""Copying episodes: what is chosen and renamed, and that the target is complete or absent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teleop_data.converters.episode_stream import EditedSource, check_episode, copy_episodes, staged
from teleop_data.converters.replay_buffer_zarr import ReplayBufferSink, ReplayBufferSource
from teleop_data.schema import Schema
from tests.teleop_data.converters.streams import MemorySource, assert_same_arrays
from tests.teleop_data.stores import LENGTHS, SCHEMA


class FailingSink:
    """Writes one episode and fails at the next."""

    def __init__(self) -> None:
        self.is_closed = False

    def losses(self, schema: Schema) -> tuple[str, ...]:
        return ()

    def begin(self, path: Path, *, schema: Schema, provenance: Mapping[str, Any]) -> None:
        self._path = path
        path.mkdir()

    def add(self, episode: Mapping[str, np.ndarray], *, attributes: Mapping[str, Any]) -> None:
        if (self._path / "one").exists():
            raise OSError("no space left on device")
        (self._path / "one").touch()

    def finish(self) -> None:
        raise AssertionError("finish comes after the last episode only")

    def close(self) -> None:
        self.is_closed = True


def test_a_failure_leaves_nothing_and_closes_the_sink(tmp_path: Path) -> None:
    sink = FailingSink()
    with pytest.raises(OSError, match="no space"):
        copy_episodes(MemorySource(SCHEMA, lengths=LENGTHS), sink, tmp_path / "new" / "a")
    assert sink.is_closed
    assert list((tmp_path / "new").iterdir()) == []


def test_the_target_appears_at_the_end_only(tmp_path: Path) -> None:
    target, seen = tmp_path / "a.zarr", []
    source = MemorySource(SCHEMA, lengths=LENGTHS)

    def progress(num_steps: int) -> None:
        seen.append(num_steps)
        assert not target.exists()
        assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]

    assert copy_episodes(source, ReplayBufferSink(), target, progress=progress) == 25
    assert tuple(seen) == LENGTHS
    assert list(tmp_path.iterdir()) == [target]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "a.zarr"
    target.write_text("precious")
    with pytest.raises(FileExistsError, match="give another target"):
        copy_episodes(MemorySource(SCHEMA, lengths=LENGTHS), ReplayBufferSink(), target)
    assert target.read_text() == "precious"


def test_a_target_that_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "a"
    staging = staged(target)
    staging.__enter__().write_text("ours")
    target.write_text("theirs")
    with pytest.raises(FileExistsError, match="exists"):
        staging.__exit__(None, None, None)
    assert target.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [target]


def test_an_empty_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no finished episode"):
        copy_episodes(MemorySource(SCHEMA, lengths=()), ReplayBufferSink(), tmp_path / "a.zarr")
    assert list(tmp_path.iterdir()) == []


def test_chosen_renamed_and_retimed(tmp_path: Path) -> None:
    source = MemorySource(SCHEMA, lengths=LENGTHS, attributes=[{"seed": i} for i in range(4)])
    names = {"front": "state", "state": "front"}
    edited = EditedSource(source, episodes=[2, 0], names=names, rate_hz=5.0)
    assert edited.schema.names == ("state", "front", "action", "contacts")
    assert edited.schema["state"].role == "camera"
    assert any("5 Hz as asked" in note for note in edited.notes)
    copy_episodes(edited, ReplayBufferSink(), tmp_path / "a.zarr")
    written = ReplayBufferSource(tmp_path / "a.zarr")
    assert written.schema == edited.schema
    assert [written.attributes(i) for i in range(written.num_episodes)] == [
        {"seed": 2},
        {"seed": 0},
    ]
    expected = {names.get(name, name): values for name, values in source.episodes[2].items()}
    assert_same_arrays(written.episode(0), expected)
    edited.close()
    assert source.num_closed == 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"episodes": [0, 4]}, IndexError, r"no episodes \[4\]: the source has 4"),
        ({"episodes": [-1]}, IndexError, r"no episodes \[-1\]"),
        ({"names": {"frnt": "x"}}, KeyError, "no feature 'frnt'; have: front"),
        ({"names": {"front": "state"}}, ValueError, "names must differ"),
        ({"rate_hz": 0.0}, ValueError, "rate_hz"),
    ],
)
def test_edits_that_cannot_be(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        EditedSource(MemorySource(SCHEMA, lengths=LENGTHS), **changes)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("state", None, "schema wants"),
        ("state", np.zeros((5, 3)), "float64, expected .* float32"),
        ("state", np.zeros((5, 2), np.float32), r"expected \(T, 3\)"),
        ("state", np.zeros((4, 3), np.float32), "same number of steps"),
    ],
)
def test_episodes_that_are_not_as_the_schema_says(
    tmp_path: Path, name: str, values: np.ndarray | None, message: str
) -> None:
    source = MemorySource(SCHEMA, lengths=(5, 5))
    assert check_episode(source.episodes[1], schema=SCHEMA) == 5
    del source.episodes[1][name]
    if values is not None:
        source.episodes[1][name] = values
    with pytest.raises(ValueError, match=f"episode 1: .*{message}"):
        copy_episodes(source, ReplayBufferSink(), tmp_path / "a.zarr")
