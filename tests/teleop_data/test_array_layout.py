"""How features lie on disk: sizes of chunks and shards, and codecs that lose nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from teleop_data.array_layout import SHARD_BYTES, CameraCodec, chunk_and_shard
from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.schema import Feature, Schema
from tests.teleop_data.stores import SCHEMA, episode


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(96, 96, (16, 512)), (240, 320, (16, 128)), (480, 640, (4, 32)), (4000, 4000, (1, 1))],
)
def test_shards_of_large_pictures_are_bounded_in_bytes(
    height: int, width: int, expected: tuple[int, int]
):
    camera = Feature(name="front", shape=(height, width, 3), dtype="uint8", role="camera")
    chunk, shard = chunk_and_shard(camera)
    assert (chunk, shard) == expected
    assert shard % chunk == 0
    assert shard == 1 or shard * height * width * 3 <= SHARD_BYTES


@pytest.mark.parametrize("codec", ["zstd", "bitshuffle"])
def test_codecs_lose_nothing_across_shards(tmp_path: Path, codec: CameraCodec):
    camera = Feature(name="front", shape=(480, 640, 3), dtype="uint8", role="camera")
    buffer = ReplayBuffer.create(
        tmp_path / "a.zarr", Schema(features=(camera,), rate_hz=30.0), camera_codec=codec
    )
    frames = np.random.default_rng(0).integers(0, 256, (41, 480, 640, 3), np.uint8)
    buffer.append_episode({"front": frames[:7]})
    buffer.append_episode({"front": frames[7:]})  # from within the first shard into the second
    np.testing.assert_array_equal(ReplayBuffer.open(tmp_path / "a.zarr")["front"][:], frames)


def test_rows_that_do_not_fit_are_refused_before_anything_is_written(tmp_path: Path):
    buffer = ReplayBuffer.create(tmp_path / "a.zarr", SCHEMA)
    whole = episode(5, seed=0)
    with pytest.raises(ValueError, match="same number of steps"):
        buffer.append_episode({**whole, "state": whole["state"][:4]})
    assert buffer["front"].shape[0] == buffer.num_episodes == 0
