"""How one feature lies on disk: zarr v3 with sharding, chunks and shards sized by the frame.

A chunk is what one read decodes, a shard is one file. Small frames: 16 and 512 of them, so that a
window touches one or two chunks. Large ones: fewer, since a whole shard is put together in one go
while it is written, which keeps every other thread waiting (128 MB: a recording loop for 50 ms).

Losslessly, measured on one core: zstd writes 640x480 pictures at 400 MB/s or more and finds again
what did not move between frames, but gains nothing on camera noise; there "bitshuffle" (Blosc, zstd
1) is a third smaller at 200 to 400 MB/s.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from teleop_data.schema import Feature

CameraCodec = Literal["zstd", "bitshuffle"]

CAMERA_CHUNK, CAMERA_SHARD = 16, 512  # frames, at most
CHUNK_BYTES, SHARD_BYTES = 4 << 20, 32 << 20  # at most, unless one frame is larger
LOWDIM_CHUNK, LOWDIM_SHARD = 1024, 16384


def chunk_and_shard(feature: Feature) -> tuple[int, int]:
    """Control steps in a chunk and in a shard; the second is a multiple of the first."""
    if feature.role != "camera":
        return LOWDIM_CHUNK, LOWDIM_SHARD
    frame_bytes = int(np.prod(feature.shape))
    chunk = min(CAMERA_CHUNK, _power_of_two(CHUNK_BYTES // frame_bytes))
    return chunk, max(chunk, min(CAMERA_SHARD, _power_of_two(SHARD_BYTES // frame_bytes)))


def create_array(data: zarr.Group, feature: Feature, *, codec: CameraCodec = "zstd") -> None:
    """An empty array for `feature` in the group `data`; `codec` is for cameras."""
    chunk, shard = chunk_and_shard(feature)
    is_shuffled = codec == "bitshuffle" and feature.role == "camera"
    data.create_array(
        feature.name,
        shape=(0, *feature.shape),
        chunks=(chunk, *feature.shape),
        shards=(shard, *feature.shape),
        dtype=feature.dtype,
        compressors=(
            BloscCodec(typesize=1, cname="zstd", clevel=1, shuffle="bitshuffle")
            if is_shuffled
            else ZstdCodec()
        ),
    )


def _power_of_two(limit: int) -> int:
    """The greatest power of two up to `limit`, at least 1."""
    return 1 << max(0, limit.bit_length() - 1)
