"""Reading LeRobotDataset v1: all rows in Arrow tables, one video for each episode and camera.

data.arrow, or train/data-*.arrow     rows; a frame is {"path": ..., "timestamp": ...}
videos/<camera>_episode_000000.mp4    found by its name, beside the table or under videos/
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from teleop_data.converters.lerobot_columns import guess, keep_cameras
from teleop_data.converters.lerobot_reading import TIMESTAMP, capture_times
from teleop_data.converters.lerobot_tables import numbers
from teleop_data.converters.lerobot_video import VideoReader, video_shape
from teleop_data.replay_buffer import StoreError
from teleop_data.schema import Schema

BOOKKEEPING = ("episode_data_index_from", "episode_data_index_to")


def find_table(path: Path) -> Path | None:
    """The (first) Arrow table of a v1 dataset in the folder `path`, None if there is none."""
    shards = sorted(path.glob("train/data-*.arrow"))
    return next((p for p in (path / "data.arrow", *shards) if p.is_file()), None)


class LegacyLeRobotSource:
    """The episodes of a LeRobotDataset v1 in a local folder. Not thread-safe."""

    def __init__(self, path: str | Path, *, cameras: Sequence[str] | None = None) -> None:
        """The dataset in the folder `path`; its rows are read at once, its videos are not.

        Args:
            path: the folder.
            cameras: names of the cameras to give; None gives all, () none.

        Raises:
            FileNotFoundError: no dataset there.
            KeyError: no such camera.
            StoreError: a part is missing or damaged.
        """
        self._root = Path(path)
        table = _read_rows(self._root)
        episodes = numbers(table["episode_index"], key="episode_index")[:, 0]
        self._starts = np.flatnonzero(np.diff(episodes, prepend=episodes[0] - 1))
        self._ends = np.append(self._starts[1:], len(episodes))
        times = numbers(table[TIMESTAMP], key=TIMESTAMP)[:, 0].astype(np.float64)
        rate_hz, rate_note = _rate(self._root, np.diff(times[: self._ends[0]]))
        self._table, self._videos = table, VideoReader(rate_hz=rate_hz)
        guessed = guess(self._specs(), rate_hz=rate_hz)
        self._notes = [*guessed.notes, rate_note]
        self._schema, self._columns, dropped = keep_cameras(
            guessed.schema, guessed.columns, cameras
        )
        if dropped:
            self._notes.append(f"Cameras left out as asked: {', '.join(dropped)}.")
        made_up = (np.arange(len(times)) - np.repeat(self._starts, self._lengths)) / rate_hz
        furthest_s = float(np.abs(times - made_up).max())
        if kept := capture_times(self._schema, furthest_s):
            self._schema, column, note = kept
            self._columns += (column,)
            self._notes.append(note)

    @property
    def schema(self) -> Schema:
        """The features of every episode."""
        return self._schema

    @property
    def num_episodes(self) -> int:
        """Episodes given."""
        return len(self._ends)

    @property
    def notes(self) -> Sequence[str]:
        """What was guessed or left out, one sentence each."""
        return tuple(self._notes)

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the episodes come from."""
        return {"format": "LeRobotDataset v1", "dataset": self._root.resolve().name}

    def episode(self, index: int) -> dict[str, np.ndarray]:
        """All features of one episode, {name: (T, ...)}.

        Raises:
            IndexError: outside 0..E-1.
            StoreError: a frame is missing or damaged.
        """
        rows = self._rows(index)
        arrays: dict[str, np.ndarray] = {}
        for column in self._columns:
            if self._schema[column.features[0]].role == "camera":
                values = self._images(column.key, rows[column.key])
            else:
                values = numbers(rows[column.key], key=column.key)
            arrays |= column.split(values, schema=self._schema)
        return {name: arrays[name] for name in self._schema.names}

    def attributes(self, index: int) -> dict[str, Any]:
        """Nothing: v1 says nothing about an episode."""
        self._rows(index)
        return {}

    def close(self) -> None:
        """Close the videos."""
        self._videos.close()

    @property
    def _lengths(self) -> np.ndarray:
        return self._ends - self._starts

    def _rows(self, index: int) -> Any:
        if not 0 <= index < self.num_episodes:
            raise IndexError(f"episode {index} outside 0..{self.num_episodes - 1}")
        return self._table.slice(int(self._starts[index]), int(self._lengths[index]))

    def _specs(self) -> dict[str, dict[str, Any]]:
        """Descriptions of the columns as v2 and v3 give them, from the table's own types."""
        specs: dict[str, dict[str, Any]] = {}
        for name in self._table.column_names:
            if name in BOOKKEEPING:
                continue
            value = self._table[name][0].as_py()
            if isinstance(value, dict):
                shape = video_shape(self._video_path(value["path"]))
                specs[name] = {"dtype": "video", "shape": shape, "names": ["height"]}
            else:
                values = numbers(self._table[name].slice(0, 1), key=name)
                specs[name] = {"dtype": values.dtype.name, "shape": values.shape[1:]}
        return specs

    def _images(self, key: str, column: Any) -> np.ndarray:
        """(T, H, W, 3) the frames that `column` of {"path", "timestamp"} speaks of."""
        frames = column.to_pylist()
        indices = [round(frame["timestamp"] * self._videos.rate_hz) for frame in frames]
        first, count = indices[0], len(indices)
        if {frame["path"] for frame in frames} != {frames[0]["path"]} or indices != list(
            range(first, first + count)
        ):
            raise StoreError(f"column {key!r}: an episode's frames do not follow one another")
        path = self._video_path(frames[0]["path"])
        return self._videos.read(key, path, first=first, count=count)

    def _video_path(self, said: str) -> Path:
        """Where the video is that the table calls `said`."""
        places = (self._root / said, self._root / Path(said).name)
        found = next((path for path in places if path.is_file()), None)
        if found is None:
            raise StoreError(
                f"the video {said} is missing; looked for {', '.join(map(str, places))}"
            )
        return found


def _read_rows(root: Path) -> Any:
    """All rows of the dataset."""
    import pyarrow
    import pyarrow.ipc
    import pyarrow.lib

    first = find_table(root)
    if first is None:
        raise FileNotFoundError(f"no LeRobotDataset v1 at {root}: no data.arrow, no train/*.arrow")
    shards = [first] if first.name == "data.arrow" else sorted(first.parent.glob("data-*.arrow"))
    try:
        tables = [pyarrow.ipc.open_stream(str(shard)).read_all() for shard in shards]
    except pyarrow.lib.ArrowInvalid as error:
        raise StoreError(f"{first.parent}: the Arrow table is damaged: {error}") from error
    table = pyarrow.concat_tables(tables)
    if not table.num_rows:
        raise StoreError(f"{first} holds no rows")
    return table


def _rate(root: Path, steps_s: np.ndarray) -> tuple[float, str]:
    """Frames per second, and the sentence that says where it comes from."""
    info = root / "meta_data" / "info.json"
    if info.is_file():
        rate_hz = float(json.loads(info.read_text(encoding="utf-8"))["fps"])
        return rate_hz, f"The rate, {rate_hz:g} Hz, is the one in {info.name}."
    if not len(steps_s):
        raise StoreError(f"{root} does not say its rate: one step, and no meta_data/info.json")
    rate_hz = float(round(1 / float(np.median(steps_s)), 3))
    return rate_hz, f"The rate, {rate_hz:g} Hz, is guessed from the times of the first episode."
