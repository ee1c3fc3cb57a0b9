"""Replay buffers as source and target: ours, Diffusion Policy's and UMI's."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
import zarr.storage
from hypothesis import given, settings

from teleop_data.converters import row_writer
from teleop_data.converters.episode_stream import EditedSource, copy_episodes
from teleop_data.converters.replay_buffer_zarr import (
    DiffusionPolicySink,
    ReplayBufferSink,
    ReplayBufferSource,
    recognize,
)
from teleop_data.replay_buffer import ReplayBuffer, StoreError
from tests.teleop_data.converters.streams import (
    MemorySource,
    assert_same,
    assert_same_arrays,
    sources,
)
from tests.teleop_data.stores import LENGTHS, SCHEMA, episode, real_pusht, write_v2_store, zip_store

# The arguments of the JPEG-XL codec in UMI's code.
UMI_KEYS = {
    *("level", "effort", "distance", "lossless", "decodingspeed", "photometric", "planar"),
    *("usecontainer", "index", "keeporientation", "numthreads"),
}


@settings(max_examples=8)
@given(source=sources())
def test_round_trip_through_diffusion_policys_layout(source: MemorySource) -> None:
    with TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "a.zarr", Path(folder) / "b.zarr.zip"
        copy_episodes(source, ReplayBufferSink(), ours)
        copy_episodes(ReplayBufferSource(ours), DiffusionPolicySink(), theirs)
        assert_same(ReplayBufferSource(theirs), source)


@pytest.mark.parametrize("packed", [False, True], ids=["directory", "zip"])
def test_written_as_their_code_reads(tmp_path: Path, packed: bool) -> None:
    """zarr v2 with Blosc, `data/*` and `meta/episode_ends` of equal length, nothing else."""
    path = tmp_path / ("a.zarr.zip" if packed else "a.zarr")
    source = MemorySource(SCHEMA, lengths=LENGTHS)
    copy_episodes(source, DiffusionPolicySink(), path)
    assert list(tmp_path.iterdir()) == [path]
    store = zarr.storage.ZipStore(path, mode="r") if packed else path
    root = zarr.open_group(store=store, mode="r", zarr_format=2)
    assert {name for name, _ in root.groups()} == {"data", "meta"}
    meta = root["meta"]
    assert isinstance(meta, zarr.Group)
    assert [name for name, _ in meta.arrays()] == ["episode_ends"]
    np.testing.assert_array_equal(root["meta/episode_ends"][:], np.cumsum(LENGTHS))
    for name in SCHEMA.names:
        array = root[f"data/{name}"]
        assert isinstance(array, zarr.Array)
        assert isinstance(array.compressors[0], numcodecs.Blosc)
        expected = np.concatenate([arrays[name] for arrays in source.episodes])
        np.testing.assert_array_equal(array[:], expected)


@pytest.mark.parametrize("level", [None, 99])
def test_jpegxl_says_only_what_umis_codec_knows(tmp_path: Path, level: int | None) -> None:
    path = tmp_path / "a.zarr"
    source = MemorySource(SCHEMA, lengths=LENGTHS)
    sink = DiffusionPolicySink(images="jpegxl", jpegxl_level=level)
    assert any("not exact" in loss for loss in sink.losses(SCHEMA)) == (level is not None)
    copy_episodes(source, sink, path)
    described = json.loads((path / "data/front/.zarray").read_text())
    assert described["compressor"].pop("id") == "imagecodecs_jpegxl"
    assert set(described["compressor"]) == UMI_KEYS
    assert described["compressor"]["lossless"] == (level is None)
    assert described["chunks"][0] == 1
    written = ReplayBufferSource(path).episode(2)
    is_exact = np.array_equal(written.pop("front"), source.episodes[2]["front"])
    assert is_exact == (level is None)
    assert_same_arrays(written, {n: v for n, v in source.episodes[2].items() if n != "front"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": "png"}, "expected blosc or jpegxl"),
        ({"jpegxl_level": 99}, "images=jpegxl beside it"),
        ({"images": "jpegxl", "jpegxl_level": 101}, "0..100"),
    ],
)
def test_unknown_codecs_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiffusionPolicySink(**options)


def test_others_stores_say_what_was_guessed(tmp_path: Path) -> None:
    arrays = write_v2_store(tmp_path / "b.zarr")
    source = ReplayBufferSource(tmp_path / "b.zarr")
    notes = " ".join(source.notes)
    assert "10 Hz is assumed" in notes
    assert "img camera" in notes
    assert "'img' is stored as float32; it is cast to uint8" in notes
    assert source.provenance["store"] == "b.zarr"
    copy_episodes(source, ReplayBufferSink(), tmp_path / "a.zarr")
    written = ReplayBufferSource(tmp_path / "a.zarr")
    assert written.notes == ()
    images = np.concatenate([written.episode(i)["img"] for i in range(4)])
    np.testing.assert_array_equal(images, arrays["img"])


def test_a_lost_file_of_others_is_told(tmp_path: Path) -> None:
    write_v2_store(tmp_path / "b.zarr")
    (tmp_path / "b.zarr/data/state/1.0").unlink()
    assert any("1 files of 'state'" in n for n in ReplayBufferSource(tmp_path / "b.zarr").notes)


def test_floats_that_are_no_bytes_are_refused_at_once(tmp_path: Path) -> None:
    write_v2_store(tmp_path / "b.zarr", frame_offset=0.5)
    with pytest.raises(StoreError, match="camera 'img' holds float32 .* uint8"):
        ReplayBufferSource(tmp_path / "b.zarr")


def test_recognised_by_what_lies_there(tmp_path: Path) -> None:
    write_v2_store(tmp_path / "b.zarr")
    zip_store(tmp_path / "b.zarr", tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "no zarr")
    zarr.open_group(tmp_path / "empty.zarr", mode="w")
    assert recognize(tmp_path / "b.zarr") is not None
    assert recognize(tmp_path / "b.zip") is not None
    assert recognize(tmp_path / "other.zip") is None
    assert recognize(tmp_path / "empty.zarr") is None
    assert recognize(tmp_path) is None


def test_rows_that_do_not_fit_in_memory_are_written_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_writer, "FLUSH_BYTES", 2_000)  # an episode of 12 steps is 1,968 bytes
    source = MemorySource(SCHEMA, lengths=(3, 12, 7, 1, 600), attributes=[{"seed": 0}])
    copy_episodes(source, ReplayBufferSink(), tmp_path / "a.zarr")
    copy_episodes(source, DiffusionPolicySink(), tmp_path / "b.zarr")
    assert_same(ReplayBufferSource(tmp_path / "a.zarr"), source)
    assert_same(ReplayBufferSource(tmp_path / "b.zarr"), source)
    ReplayBuffer.open(tmp_path / "a.zarr", mode="r+").append_episode(episode(4, seed=9))
    assert ReplayBuffer.open(tmp_path / "a.zarr").episode_ends.tolist() == [3, 15, 22, 23, 623, 627]


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    source = MemorySource(SCHEMA, lengths=(3, 4))
    source.episodes[1]["state"][2, 1] = np.nan
    with pytest.raises(ValueError, match="episode 1: feature 'state': not finite at step 2"):
        copy_episodes(source, ReplayBufferSink(), tmp_path / "a.zarr")


def test_a_zero_chunk_is_written_and_its_loss_noticed(tmp_path: Path) -> None:
    source = MemorySource(SCHEMA, lengths=(5,))
    source.episodes[0]["state"][:] = 0
    copy_episodes(source, DiffusionPolicySink(), tmp_path / "a.zarr")
    (tmp_path / "a.zarr/data/state/0.0").unlink()
    with pytest.raises(StoreError, match="files are missing: data/state"):
        ReplayBufferSource(tmp_path / "a.zarr")


def test_our_layout_is_no_zip(tmp_path: Path) -> None:
    source = MemorySource(SCHEMA, lengths=LENGTHS)
    with pytest.raises(ValueError, match="directories; name it without .zip"):
        copy_episodes(source, ReplayBufferSink(), tmp_path / "a.zarr.zip")


def test_human_push_t(tmp_path: Path) -> None:
    """Float images as bytes and back through their layout, bit for bit."""
    opened = ReplayBufferSource(real_pusht())
    assert opened.num_episodes == 206
    source = EditedSource(opened, episodes=[0, 205, 100])
    copy_episodes(source, DiffusionPolicySink(), tmp_path / "a.zarr.zip")
    copy_episodes(ReplayBufferSource(tmp_path / "a.zarr.zip"), ReplayBufferSink(), tmp_path / "b")
    assert_same(ReplayBufferSource(tmp_path / "b"), source)
    assert source.schema["img"].dtype == "uint8"
