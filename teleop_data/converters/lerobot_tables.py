"""Rows of LeRobot's parquet tables as arrays, one episode at a time."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from teleop_data.replay_buffer import StoreError


class TableReader:
    """Rows of parquet files; keeps the last row groups read, since neighbours come from them."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._file: Any = None
        self._ends = np.zeros(0, np.int64)  # (row groups,) one past the last row of each
        self._groups: tuple[int, int] = (0, 0)  # the row groups in `_table`
        self._table: Any = None

    def read(self, path: Path, *, first: int, count: int) -> Any:
        """The pyarrow table of `count` rows from `first` on.

        Raises:
            StoreError: the file is missing or damaged, or has fewer rows.
        """
        if path != self._path:
            self._file = open_table(path)
            metadata = self._file.metadata
            sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            self._ends = np.cumsum(sizes, dtype=np.int64)
            self._path, self._table = path, None
        num_rows = int(self._ends[-1]) if len(self._ends) else 0
        if first + count > num_rows:
            raise StoreError(f"{path} has {num_rows} rows, {first + count} are needed")
        start = int(np.searchsorted(self._ends, first, side="right"))
        stop = int(np.searchsorted(self._ends, first + count, side="left")) + 1
        if self._table is None or self._groups != (start, stop):
            with _told(path):
                self._table = self._file.read_row_groups(list(range(start, stop)))
            self._groups = (start, stop)
        offset = int(self._ends[start - 1]) if start else 0
        return self._table.slice(first - offset, count)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what pyarrow raises about `path` into a StoreError."""
    import pyarrow.lib

    try:
        yield
    except FileNotFoundError as error:
        raise StoreError(f"{path} is missing; the copy of the dataset is incomplete") from error
    except (pyarrow.lib.ArrowInvalid, OSError) as error:
        raise StoreError(
            f"{path} cannot be read: cut off, or LeRobot's recording was not finalized ({error})"
        ) from error


def open_table(path: Path) -> Any:
    """The pyarrow ParquetFile at `path`. StoreError if it is missing or damaged."""
    import pyarrow.parquet

    with _told(path):
        return pyarrow.parquet.ParquetFile(path)


def numbers(column: Any, *, key: str) -> np.ndarray:
    """(T, D) the values of a column of numbers or of (nested) lists of numbers.

    Raises:
        StoreError: a value is missing, or the lists differ in length.
    """
    import pyarrow

    array = column.combine_chunks()
    if isinstance(array, pyarrow.ChunkedArray):  # of no chunk, where there is no row
        array = pyarrow.concat_arrays(array.chunks) if array.num_chunks else pyarrow.array([])
    num_rows = len(array)
    while not pyarrow.types.is_primitive(array.type) and not pyarrow.types.is_boolean(array.type):
        if isinstance(array, pyarrow.ExtensionArray):
            array = array.storage
        elif array.null_count:
            break
        else:
            array = array.flatten()
    if array.null_count or (num_rows and len(array) % num_rows):
        raise StoreError(f"column {key!r} has missing values or lists that differ in length")
    return np.asarray(array.to_numpy(zero_copy_only=False)).reshape(num_rows, -1)


def pictures(column: Any, *, root: Path, key: str) -> np.ndarray:
    """(T, H, W, 3) uint8 of a column of compressed images, each with its bytes or its path.

    Raises:
        StoreError: an image is missing or damaged, or sizes differ.
    """
    from PIL import Image, UnidentifiedImageError

    images = []
    for step, value in enumerate(column.to_pylist()):
        try:
            data = value["bytes"]
            source = io.BytesIO(data) if data is not None else root / value["path"]
            with Image.open(source) as image:
                images.append(np.asarray(image.convert("RGB")))
        except (UnidentifiedImageError, FileNotFoundError, TypeError) as error:
            raise StoreError(f"column {key!r}: the image of row {step} is lost: {error}") from error
    if len({image.shape for image in images}) > 1:
        raise StoreError(f"column {key!r}: images differ in size")
    return np.stack(images)
