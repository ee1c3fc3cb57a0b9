"""Many episodes written into a zarr store together, which spares most of the compression.

A recorder appends one episode at a time, and each time zarr decodes and encodes again the shards
that the last one left half full. A conversion is complete or absent anyway, so rows may wait:

    episodes  |--|----|---|--|---|-----|      waiting in memory, up to FLUSH_BYTES
    written   |==================|            at once; ends and attributes at the very end
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr

from teleop_data.replay_buffer import EPISODES_KEY
from teleop_data.schema import Schema

FLUSH_BYTES = 128_000_000


class RowWriter:
    """Writes episodes into the arrays of a fresh store: `data/<feature>`, `meta/episode_ends`."""

    def __init__(self, root: zarr.Group, *, schema: Schema) -> None:
        """Write into `root`, whose arrays exist and are empty."""
        self._root, self._schema = root, schema
        self._waiting: list[Mapping[str, np.ndarray]] = []
        self._waiting_bytes = self._num_rows = 0
        self._ends: list[int] = []
        self._attributes: list[dict[str, Any]] = []

    def add(self, episode: Mapping[str, np.ndarray], *, attributes: Mapping[str, Any]) -> None:
        """Take one episode that is as the schema says (`check_episode`).

        Raises:
            ValueError: a float is not finite.
            TypeError: the attributes are no JSON.
        """
        json.dumps(dict(attributes))
        for name, values in episode.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                step = int(np.argwhere(~np.isfinite(values.reshape(len(values), -1)).all(1))[0, 0])
                raise ValueError(f"feature {name!r}: not finite at step {step}: {values[step]}")
        self._waiting.append(episode)
        self._waiting_bytes += sum(values.nbytes for values in episode.values())
        num_steps = len(next(iter(episode.values())))
        self._ends.append(num_steps + (self._ends[-1] if self._ends else 0))
        self._attributes.append(dict(attributes))
        if self._waiting_bytes >= FLUSH_BYTES:
            self._flush()

    def finish(self) -> None:
        """Write what waits, the episodes' attributes and, last, their ends."""
        self._flush()
        meta = self._root["meta"]
        meta.attrs[EPISODES_KEY] = self._attributes
        _extend(self._root["meta/episode_ends"], np.array(self._ends, np.int64), start=0)

    def _flush(self) -> None:
        for name in self._schema.names if self._waiting else ():
            rows = np.concatenate([episode[name] for episode in self._waiting])
            _extend(self._root[f"data/{name}"], rows, start=self._num_rows)
        self._waiting, self._waiting_bytes = [], 0
        self._num_rows = self._ends[-1] if self._ends else 0


def _extend(stored: Any, rows: np.ndarray, *, start: int) -> None:
    """Write `rows` at the end of an array that has `start` of them."""
    # Every chunk becomes a file, also one of nothing but zeros: so a lost file is noticed.
    array = stored.with_config({"write_empty_chunks": True})
    array.resize((start + len(rows), *array.shape[1:]))
    array[start:] = rows
