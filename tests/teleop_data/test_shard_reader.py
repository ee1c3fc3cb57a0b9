"""Shards read directly: the same frames as zarr's, its faults told, other layouts left to zarr."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from teleop_data.array_layout import create_array
from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.schema import Feature
from teleop_data.shard_reader import ShardReader
from tests.teleop_data.stores import SCHEMA, write_store, write_v2_store, zip_store

FRAME = (6, 8, 3)
NUM_FRAMES = 1100  # three shards of 512, the last one cut


def stored_frames(path: Path, *, codec: str = "zstd") -> tuple[zarr.Array, np.ndarray]:
    """An array with random frames and, in between, a chunk of zeros that is not stored."""
    frames = np.random.default_rng(0).integers(0, 256, (NUM_FRAMES, *FRAME)).astype(np.uint8)
    frames[32:48] = 0
    group = zarr.open_group(path, mode="w", zarr_format=3)
    create_array(
        group,
        Feature(name="front", shape=FRAME, dtype="uint8", role="camera"),
        codec=codec,  # type: ignore[arg-type]
    )
    array = group["front"]
    assert isinstance(array, zarr.Array)
    array.resize((NUM_FRAMES, *FRAME))
    array[:] = frames
    return array, frames


def reader(array: zarr.Array) -> ShardReader:
    found = ShardReader.of(array)
    assert found is not None
    return found


@pytest.fixture(scope="module", params=["zstd", "bitshuffle"])
def stored(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ShardReader, np.ndarray]:
    path = tmp_path_factory.mktemp("store") / request.param
    array, frames = stored_frames(path, codec=request.param)
    return reader(array), frames


@given(rows=st.lists(st.integers(0, NUM_FRAMES - 1), max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_rows(stored: tuple[ShardReader, np.ndarray], rows: list[int]) -> None:
    """Repeated, backwards, across chunks and shards."""
    shards, frames = stored
    indices = np.array(rows, np.int64)
    np.testing.assert_array_equal(shards.read(indices), frames[indices])


@given(first=st.integers(0, NUM_FRAMES - 1), length=st.integers(1, 80))
@settings(max_examples=60, deadline=None)
def test_any_window(stored: tuple[ShardReader, np.ndarray], first: int, length: int) -> None:
    """In a row, as windows are, with whole chunks in between and the last step repeated."""
    shards, frames = stored
    rows = np.minimum(np.arange(first, first + length), NUM_FRAMES - 1)
    np.testing.assert_array_equal(shards.read(rows), frames[rows])


def test_a_copy_in_another_process_opens_its_own_files(tmp_path: Path) -> None:
    array, frames = stored_frames(tmp_path / "a")
    shards = reader(array)
    shards.read(np.array([0]))
    sent = copy.copy(shards)  # by the state that a worker process would be sent
    assert not sent._shards
    np.testing.assert_array_equal(sent.read(np.arange(20)), frames[:20])


def test_the_replay_buffer_reads_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is appended later is there for whoever asks later."""
    buffer = write_store(tmp_path / "a.zarr", lengths=(5, 12))
    before = buffer["front"]
    expected = np.concatenate([buffer.episode(i)["front"] for i in range(2)])
    buffer.append_episode({**buffer.episode(1)})
    read: list[int] = []
    real = ShardReader.read

    def counted(self: ShardReader, rows: np.ndarray) -> np.ndarray:
        read.append(len(rows))
        return real(self, rows)

    monkeypatch.setattr(ShardReader, "read", counted)
    np.testing.assert_array_equal(before[np.array([3, 16, 3])], expected[[3, 16, 3]])
    np.testing.assert_array_equal(buffer["front"][17:], expected[5:])
    assert read == [3, 12]


def test_damage_is_told(tmp_path: Path) -> None:
    array, _ = stored_frames(tmp_path / "a")
    shard = tmp_path / "a/front/c/1/0/0/0"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-40])
    with pytest.raises(OSError, match="does not match its checksum"):
        reader(array).read(np.array([600]))
    shard.write_bytes(whole[:10])
    with pytest.raises(OSError, match="does not match its checksum"):
        reader(array).read(np.array([600]))
    shard.write_bytes(bytes(200) + whole[200:])
    with pytest.raises(RuntimeError):
        reader(array).read(np.array([512]))
    shard.unlink()
    with pytest.raises(FileNotFoundError):
        reader(array).read(np.array([512]))


def test_other_layouts_are_left_to_zarr(tmp_path: Path) -> None:
    write_v2_store(tmp_path / "b.zarr")
    zip_store(write_store(tmp_path / "a.zarr").path, tmp_path / "a.zip")
    group = zarr.open_group(tmp_path / "c", mode="w", zarr_format=3)
    shape = (8, *FRAME)
    plain = group.create_array("plain", shape=shape, chunks=(4, *FRAME), dtype="uint8")
    halves = group.create_array(
        "halves", shape=shape, chunks=(4, 3, 8, 3), shards=(8, *FRAME), dtype="uint8"
    )
    floats = group.create_array(
        "floats", shape=shape, chunks=(4, *FRAME), shards=(8, *FRAME), dtype="float32"
    )
    ones = group.create_array(
        "ones", shape=shape, chunks=(4, *FRAME), shards=(8, *FRAME), dtype="uint8", fill_value=1
    )
    zipped = zarr.open_array(
        store=zarr.storage.ZipStore(tmp_path / "a.zip", mode="r"), path="data/front", mode="r"
    )
    v2 = zarr.open_array(tmp_path / "b.zarr/data/img", mode="r")
    for array in (plain, halves, floats, ones, zipped, v2):
        assert ShardReader.of(array) is None
    expected = ReplayBuffer.open(tmp_path / "a.zarr").episode(2)["front"]
    packed = ReplayBuffer.open(tmp_path / "a.zip")["front"]
    np.testing.assert_array_equal(packed[np.array([17, 6, 6])], expected[[11, 0, 0]])


def test_shards_of_zeros_that_others_leave_out(tmp_path: Path) -> None:
    buffer = write_store(tmp_path / "a.zarr")
    root = zarr.open_group(tmp_path / "a.zarr", mode="r+")
    del root.attrs["forcing_schema"], root.attrs["forcing_provenance"]
    (tmp_path / "a.zarr/data/front/c/0/0/0/0").unlink()
    frames = ReplayBuffer.open(tmp_path / "a.zarr")["front"][:]
    assert frames.shape == (buffer.num_steps, *SCHEMA["front"].shape)
    assert not frames.any()
