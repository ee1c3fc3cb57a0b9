"""One feature of a store: rows of a zarr array as numpy, with the store's faults made visible.

zarr reads a chunk that is not there as zeros, and a damaged one with the codec's own exception;
both become a `StoreError` that names the array.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.errors
import zarr.storage
from zarr.abc.store import Store
from zarr.core.sync import sync

from teleop_data.schema import Feature
from teleop_data.shard_reader import ShardReader

CAST_ROWS = 256  # rows of a block in which float images are cast: all of Push-T's are 2.8 GB

# What zarr's stores and codecs raise for bytes that are not what was written.
READ_ERRORS = (ValueError, RuntimeError, OSError, KeyError, TypeError, zarr.errors.BaseZarrError)


class StoreError(ValueError):
    """A store that cannot be read as a replay buffer; the message says what is wrong with it."""


class StoredArray:
    """One feature of a store: slices to numpy, ends where the finished episodes end.

    Cameras that the store keeps as floats holding integers (as Diffusion Policy's do) are cast to
    uint8 on the way out.
    """

    def __init__(self, array: zarr.Array, *, feature: Feature, num_steps: int) -> None:
        self._array, self._feature, self._num_steps = array, feature, num_steps
        self._shards = ShardReader.of(array) if feature.role == "camera" else None

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, *feature.shape), N steps in finished episodes."""
        return (self._num_steps, *self._feature.shape)

    def __len__(self) -> int:
        return self._num_steps

    def __getitem__(self, index: slice | int | np.ndarray) -> np.ndarray:
        """Rows at a forward slice, an integer, or (n,) integers, in the feature's dtype.

        Raises:
            IndexError: a row outside the finished episodes, or an index of another kind.
            StoreError: the rows cannot be read, or a camera's floats are not integers 0..255.
        """
        if isinstance(index, slice):
            return self._slice(index)
        rows = np.asarray(index)
        if rows.dtype.kind not in "iu" or rows.ndim > 1:
            raise IndexError(
                f"feature {self._feature.name!r}: index with a slice, an integer or (n,) integers, "
                f"got {rows.dtype} of shape {rows.shape}"
            )
        if np.any(rows >= self._num_steps) or np.any(rows < -self._num_steps):
            raise IndexError(f"step {index} outside 0..{self._num_steps - 1}")
        if rows.ndim == 0:
            row = int(rows) % self._num_steps
            return self._read(slice(row, row + 1))[0]
        return self._read(rows % max(self._num_steps, 1))

    def _slice(self, index: slice) -> np.ndarray:
        start, stop, step = index.indices(self._num_steps)
        if step < 1:
            raise IndexError(f"feature {self._feature.name!r}: slices go forward, got step {step}")
        stop = max(start, stop)
        if self._array.dtype == np.dtype(self._feature.dtype) or stop - start <= CAST_ROWS:
            return self._read(slice(start, stop))[::step]
        rows = np.empty((stop - start, *self._feature.shape), self._feature.dtype)
        chunk = self._array.chunks[0]
        block = chunk * max(1, CAST_ROWS // chunk)  # whole chunks, so that none is decoded twice
        first = start
        while first < stop:
            last = min((first // block + 1) * block, stop)
            rows[first - start : last - start] = self._read(slice(first, last))
            first = last
        return rows[::step]

    def _read(self, rows: slice | np.ndarray) -> np.ndarray:
        try:
            values = self._values(rows)
        except StoreError:  # says already what is wrong
            raise
        except READ_ERRORS as error:
            where = f"{rows.start}..{rows.stop - 1}" if isinstance(rows, slice) else str(rows)
            raise StoreError(
                f"steps {where} of {self._array.store_path} cannot be read "
                f"({type(error).__name__}: {error}); a file of the store is damaged or cut off"
            ) from error
        return cast_exactly(np.asarray(values), self._feature)

    def _values(self, rows: slice | np.ndarray) -> Any:
        if self._shards is not None:
            try:
                in_order = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
                return self._shards.read(in_order)
            except FileNotFoundError:
                pass  # others leave out shards of zeros; zarr knows what they hold
        if isinstance(rows, slice):
            return self._array[rows]
        unique, inverse = np.unique(rows, return_inverse=True)  # no chunk is decoded twice
        return np.asarray(self._array.oindex[unique])[inverse]


def cast_exactly(values: np.ndarray, feature: Feature) -> np.ndarray:
    """`values` as the feature's dtype; StoreError if a camera's floats are not integers 0..255."""
    dtype = np.dtype(feature.dtype)
    if values.dtype == dtype:
        return values
    with np.errstate(invalid="ignore"):  # nan and 300.0 have no uint8; the comparison finds them
        cast_values = values.astype(dtype)
    if not np.array_equal(cast_values, values):
        raise StoreError(
            f"{feature.role} {feature.name!r} holds {values.dtype} that {dtype} cannot hold "
            f"exactly (range {values.min()} to {values.max()}); convert the store to integers "
            "0..255 first"
        )
    return cast_values


async def _keys(store: Store, prefix: str) -> list[str]:
    return [key async for key in store.list_prefix(prefix)]


def missing_chunks(array: zarr.Array, *, path: Path, num_steps: int) -> list[str]:
    """Keys of the files (shards, or chunks where there are none) that the first `num_steps` rows
    need and the store at `path` (directory or zip) lacks.

    Our own stores write every file. Others may leave out chunks of nothing but zeros.
    """
    sizes = array.shards or array.chunks
    shape = (num_steps, *array.shape[1:])
    grid = [-(-length // size) for length, size in zip(shape, sizes, strict=True)]
    keys = [f"{array.path}/{array.metadata.encode_chunk_key(at)}" for at in np.ndindex(*grid)]
    store = array.store_path.store
    if not isinstance(store, zarr.storage.LocalStore | zarr.storage.ZipStore):
        there = set(sync(_keys(store, f"{array.path}/")))
        return [key for key in keys if key not in there]
    if path.is_file():
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
        return [key for key in keys if key not in names]
    return [key for key in keys if not (path / key).is_file()]
