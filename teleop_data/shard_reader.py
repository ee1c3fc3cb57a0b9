"""Frames of a camera straight from its shards, at a thirtieth of what a read costs through zarr.

    shard's file   | chunk 0 | chunk 1 | ... | index: (offset, length) of each, as u64 | crc32c |

Only the layout that `array_layout` writes is read here (zarr v3 in a directory, uint8, one
compressor, index at the end); `ShardReader.of` says None to every other, and zarr reads it.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numcodecs
import numpy as np
import zarr
import zarr.storage
from google_crc32c import value as crc32c
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

INDEX_CHECKSUM_BYTES = 4
ABSENT = np.uint64(2**64 - 1)  # offset of a chunk that was never written: it is all zeros
MAX_OPEN_SHARDS = 256


class Decoder(Protocol):
    """A compressor of numcodecs."""

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Bytes of `buf` into `out`."""
        ...


class ShardReader:
    """Rows of one camera's shards. Threads may share it; a pickled one opens its files again."""

    def __init__(
        self, folder: Path, *, chunk: int, shard: int, frame: tuple[int, ...], decoder: Decoder
    ) -> None:
        """The shards below `folder`, of `shard` frames (H, W, C) uint8 in chunks of `chunk`."""
        self._folder, self._chunk, self._frame, self._decoder = folder, chunk, frame, decoder
        self._chunks_per_shard = shard // chunk
        self._shards: dict[int, _Shard] = {}
        self._scratch = threading.local()

    @classmethod
    def of(cls, array: zarr.Array) -> ShardReader | None:
        """The reader of `array`, or None if its layout is another than ours."""
        store = array.store_path.store
        if not isinstance(store, zarr.storage.LocalStore) or array.metadata.zarr_format != 3:
            return None
        if array.dtype != np.uint8 or array.shards is None:
            return None
        if array.chunks[1:] != array.shape[1:] or array.fill_value != 0:
            return None
        decoder = _decoder(array.metadata.codecs)
        if decoder is None or array.metadata.encode_chunk_key((1, 0)) != "c/1/0":
            return None
        return cls(
            store.root / array.path / "c",
            chunk=array.chunks[0],
            shard=array.shards[0],
            frame=array.shape[1:],
            decoder=decoder,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_shards": {}, "_scratch": None}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._scratch = threading.local()

    def read(self, rows: np.ndarray) -> np.ndarray:
        """(n, H, W, C) the frames at `rows` (n,), in any order; each chunk is decoded once.

        Raises:
            OSError: a shard is not there or cut off.
            ValueError, RuntimeError: its bytes are not what was written.
        """
        out = np.empty((len(rows), *self._frame), np.uint8)
        chunks = rows // self._chunk
        order = np.argsort(chunks, kind="stable")
        edges = np.flatnonzero(np.diff(chunks[order], prepend=-1))
        for places in np.split(order, edges[1:]) if len(rows) else []:
            self._take(int(chunks[places[0]]), rows[places] % self._chunk, out, places)
        return out

    def _take(self, chunk: int, steps: np.ndarray, out: np.ndarray, places: np.ndarray) -> None:
        """Frames `steps` of `chunk` to `places` of `out`, without a copy if it is all of them."""
        first, num = int(places[0]), len(places)
        in_a_row = int(places[-1]) - first == num - 1
        if in_a_row and num == self._chunk and np.array_equal(steps, np.arange(num)):
            self._decode(chunk, out[first : first + num])
            return
        frames = self._scratch_frames()
        self._decode(chunk, frames)
        if in_a_row and np.array_equal(steps - steps[0], np.arange(num)):
            out[first : first + num] = frames[steps[0] : steps[0] + num]
        else:
            out[places] = frames[steps]

    def _decode(self, chunk: int, frames: np.ndarray) -> None:
        shard, position = divmod(chunk, self._chunks_per_shard)
        data = self._open(shard).chunk(position)
        if data is None:
            frames[...] = 0
        else:
            self._decoder.decode(data, out=frames)

    def _open(self, number: int) -> _Shard:
        if number not in self._shards:
            if len(self._shards) >= MAX_OPEN_SHARDS:
                self._shards = {}  # readers that hold one keep it
            path = self._folder / str(number) / "/".join("0" * len(self._frame))
            self._shards[number] = _Shard(path, num_chunks=self._chunks_per_shard)
        return self._shards[number]

    def _scratch_frames(self) -> np.ndarray:
        """(chunk, H, W, C) memory of this thread: fresh pages would cost as much as decoding."""
        if not hasattr(self._scratch, "frames"):
            self._scratch.frames = np.empty((self._chunk, *self._frame), np.uint8)
        return self._scratch.frames


class _Shard:
    """One shard's file, mapped, and its index."""

    def __init__(self, path: Path, *, num_chunks: int) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._bytes = memoryview(self._map)
        start = len(self._bytes) - 16 * num_chunks - INDEX_CHECKSUM_BYTES
        index = bytes(self._bytes[max(start, 0) : -INDEX_CHECKSUM_BYTES])
        told = int.from_bytes(self._bytes[-INDEX_CHECKSUM_BYTES:], "little")
        if start < 0 or crc32c(index) != told:
            raise OSError(f"{path}: the index at its end does not match its checksum")
        self._index = np.frombuffer(index, "<u8").reshape(num_chunks, 2)

    def chunk(self, position: int) -> memoryview | None:
        """Compressed bytes of one chunk; None if it is all zeros."""
        offset, length = self._index[position]
        if offset == ABSENT:
            return None
        return self._bytes[int(offset) : int(offset + length)]


def _decoder(codecs: Any) -> Decoder | None:
    """The decoder of chunks that nothing but one known compressor has changed, or None."""
    if len(codecs) != 1 or not isinstance(sharding := codecs[0], ShardingCodec):
        return None
    index = [type(codec) for codec in sharding.index_codecs]
    inner = list(sharding.codecs)
    if index != [BytesCodec, Crc32cCodec] or sharding.index_location != "end":
        return None
    if len(inner) != 2 or not isinstance(inner[0], BytesCodec):
        return None
    if isinstance(inner[1], ZstdCodec):
        return numcodecs.Zstd()
    return numcodecs.Blosc() if isinstance(inner[1], BloscCodec) else None
