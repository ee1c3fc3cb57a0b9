"""The journal: one episode while it is being recorded, an append-only file of framed records.

    FORCING1 | header | step | step | note | step | ... | end        length, CRC-32, kind, body each

Every record is one write to the operating system, so a process killed at any moment leaves every
record that it has written, and at most the last one torn: its length or CRC tells. An episode whose
journal has no end was interrupted. `end` is flushed to the disk itself, so a kept episode also
survives a power cut; of one in progress, a power cut takes what the system had not yet written.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from teleop_data.schema import Feature, Schema

MAGIC = b"FORCING1"
FRAME = struct.Struct("<IIc")  # length of the body, CRC-32 of kind and body, kind
HEADER, STEP, NOTE, END = b"H", b"S", b"N", b"E"


class JournalError(ValueError):
    """A file that is not a journal, or one without a whole header: it holds no episode."""


class JournalWriter:
    """Writes one journal. Not thread-safe; after an OSError the whole records are still there."""

    def __init__(self, path: Path, *, schema: Schema, header: Mapping[str, Any]) -> None:
        """Begin a journal for an episode of `schema` with JSON-ready facts known beforehand.

        Raises:
            OSError: it exists, or cannot be written; nothing is left of it then.
        """
        self.path, self._schema, self.num_steps = path, schema, 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._end = 0
        try:
            self._write([MAGIC])
            self._add(HEADER, _packed({"schema": schema.to_json(), "facts": dict(header)}))
        except OSError:
            self.close()
            path.unlink()
            raise

    def add_step(self, values: Mapping[str, np.ndarray]) -> None:
        """Add one step: one value, of its shape and dtype, for every feature of the schema.

        Raises:
            OSError: the disk is full or gone; the step is not there then.
        """
        parts = [np.ascontiguousarray(values[name]) for name in self._schema.names]
        self._add(STEP, *(memoryview(part.reshape(-1)).cast("B") for part in parts))
        self.num_steps += 1

    def add_note(self, note: Mapping[str, Any]) -> None:
        """Add something JSON-ready that happened after the steps so far. OSError as `add_step`."""
        self._add(NOTE, _packed(note))

    def end(self, attributes: Mapping[str, Any]) -> None:
        """Finish the episode with its attributes, on the disk itself. OSError as `add_step`."""
        self._add(END, _packed(attributes))
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file; without `end` before, the episode counts as interrupted."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _add(self, kind: bytes, *parts: bytes | memoryview) -> None:
        crc = zlib.crc32(kind)
        for part in parts:
            crc = zlib.crc32(part, crc)
        self._write([FRAME.pack(sum(len(part) for part in parts), crc, kind), *parts])

    def _write(self, parts: Sequence[bytes | memoryview]) -> None:
        """All of `parts` or nothing."""
        size = sum(len(part) for part in parts)
        try:
            written = os.writev(self._file, parts)
            if written < size:  # the disk fills up just here: once more, to hear its error
                rest = b"".join(parts)[written:]
                while rest:
                    rest = rest[os.write(self._file, rest) :]
        except OSError:
            os.ftruncate(self._file, self._end)
            raise
        self._end += size


class JournalRows:
    """One feature of a journal's steps, (T, *shape): read by slices, never whole unless asked."""

    def __init__(self, content: memoryview, *, starts: np.ndarray, feature: Feature) -> None:
        self._content, self._starts, self._feature = content, starts, feature

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, *feature.shape)."""
        return (len(self._starts), *self._feature.shape)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: slice | int | np.ndarray) -> np.ndarray:
        starts, dtype = self._starts[index], np.dtype(self._feature.dtype)
        size = int(np.prod(self._feature.shape))
        rows = [
            np.frombuffer(self._content, dtype, size, int(start)) for start in np.atleast_1d(starts)
        ]
        stacked = np.stack(rows) if rows else np.empty((0, size), dtype)
        return stacked.reshape((*np.shape(starts), *self._feature.shape))


class Journal:
    """A journal that is read: every whole record up to the first that is not.

    Attributes:
        path: of the file.
        schema: of the episode.
        facts: that were known before it.
        notes: (number of steps before it, note) in order.
        attributes: that it ended with; None if it was interrupted.
        num_steps: whole steps.
        num_torn_bytes: after the last whole record; not 0 where a write was cut off.
    """

    def __init__(self, path: Path) -> None:
        """Read and check the records of the file at `path`.

        Raises:
            JournalError: there is no whole header.
            OSError: the file cannot be read.
        """
        self.path = path
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        self._content = memoryview(content)
        if self._content[: len(MAGIC)] != MAGIC:
            raise JournalError(f"{path} is not a journal: it does not begin with {MAGIC.decode()}")
        records, end = _whole_records(self._content)
        if not records or records[0][0] != HEADER:
            raise JournalError(f"{path} has no whole header: it was cut off before its episode")
        header = self._unpacked(records[0])
        self.schema = Schema.from_json(header["schema"])
        self.facts: dict[str, Any] = header["facts"]
        self.notes: list[tuple[int, dict[str, Any]]] = []
        self.attributes: dict[str, Any] | None = None
        starts = []
        for record in records[1:]:
            if record[0] == STEP:
                starts.append(record[1])
            elif record[0] == NOTE:
                self.notes.append((len(starts), self._unpacked(record)))
            elif record[0] == END:
                self.attributes = self._unpacked(record)
        self._starts, self.num_steps = np.array(starts, np.int64), len(starts)
        self.num_torn_bytes = size - end

    def episode(self) -> dict[str, JournalRows]:
        """The steps by feature, to be read piece by piece while this journal is at hand."""
        rows, offset = {}, 0
        for feature in self.schema.features:
            starts = self._starts + offset
            rows[feature.name] = JournalRows(self._content, starts=starts, feature=feature)
            offset += int(np.prod(feature.shape)) * np.dtype(feature.dtype).itemsize
        return rows

    def _unpacked(self, record: tuple[bytes, int, int]) -> dict[str, Any]:
        _, start, stop = record
        return msgspec.msgpack.decode(self._content[start:stop])


def _whole_records(content: memoryview) -> tuple[list[tuple[bytes, int, int]], int]:
    """(kind, start and stop of the body) of every whole record, and where the last one stops."""
    records, end = [], len(MAGIC)
    while end + FRAME.size <= len(content):
        length, crc, kind = FRAME.unpack_from(content, end)
        start, stop = end + FRAME.size, end + FRAME.size + length
        if stop > len(content) or zlib.crc32(content[start:stop], zlib.crc32(kind)) != crc:
            break
        records.append((kind, start, stop))
        end = stop
    return records, end


def _packed(value: Mapping[str, Any]) -> bytes:
    return msgspec.msgpack.encode(dict(value))
