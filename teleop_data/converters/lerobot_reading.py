"""Reading LeRobotDataset v3.0 and v2.x from a local folder, videos decoded in bulk.

A dataset that this program wrote carries `meta/forcing.json` and comes back as it was: names,
roles, units, angles, shapes, attributes. Of any other, `notes` says what had to be guessed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from teleop_data.converters.lerobot_columns import Column, guess, keep_cameras
from teleop_data.converters.lerobot_layout import (
    EpisodeFiles,
    Layout,
    local_folder,
    read_layout,
)
from teleop_data.converters.lerobot_tables import (
    TableReader,
    numbers,
    open_table,
    pictures,
)
from teleop_data.converters.lerobot_video import VideoReader, video_shape
from teleop_data.replay_buffer import StoreError
from teleop_data.schema import Feature, Schema

SIDECAR = Path("meta") / "forcing.json"  # LeRobot reads its files of meta/ by name
TIMESTAMP = "timestamp"
# LeRobot's own tolerance for made-up times is 1e-4 s; float32 holds an hour to 1e-4 s
CAPTURE_TOLERANCE_S = 1e-3


class LeRobotSource:
    """The episodes of a LeRobotDataset v3.0, v2.1 or v2.0 in a local folder. Not thread-safe."""

    def __init__(
        self,
        path: str | Path,
        *,
        episodes: Sequence[int] | None = None,
        cameras: Sequence[str] | None = None,
        missing_videos: Literal["refuse", "leave_out"] = "refuse",
    ) -> None:
        """The dataset in the folder `path`.

        Args:
            path: the folder with meta/info.json; "hf:owner/name" is fetched from the Hub, and
                nothing else ever asks it.
            episodes: numbers of the episodes to give, in this order; None gives all.
            cameras: names of the cameras to give; None gives all, () none.
            missing_videos: what to do with episodes whose video is not there: "refuse" raises,
                "leave_out" gives the others.

        Raises:
            FileNotFoundError: no dataset there.
            KeyError: no such camera.
            IndexError: no such episode.
            StoreError: a part is missing or damaged.
            ValueError: no column can be read, or no episode is left.
        """
        self._layout = read_layout(local_folder(str(path)))
        self._sidecar = _read_sidecar(self._layout)
        self._notes: list[str] = []
        self._columns: tuple[Column, ...]
        self._schema, self._columns, self._entry_names = self._describe()
        self._schema, self._columns, dropped = keep_cameras(self._schema, self._columns, cameras)
        if dropped:
            self._notes.append(f"Cameras left out as asked: {', '.join(dropped)}.")
        self._episodes = self._choose_episodes(episodes, missing_videos)
        self._tables = TableReader()
        self._videos = VideoReader(rate_hz=self._layout.rate_hz)
        self._trust_video_sizes()
        if self._sidecar is None:
            self._keep_capture_times()

    @property
    def schema(self) -> Schema:
        """The features of every episode."""
        return self._schema

    @property
    def num_episodes(self) -> int:
        """Episodes given."""
        return len(self._episodes)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was guessed or left out, one sentence each."""
        return tuple(self._notes)

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the episodes come from."""
        if self._sidecar is not None:
            return dict(self._sidecar["provenance"])
        said: dict[str, Any] = {
            "format": f"LeRobotDataset {self._layout.version}",
            "dataset": self._layout.root.resolve().name,
            "entry_names": self._entry_names,
        }
        return said | ({"robot": self._layout.robot_type} if self._layout.robot_type else {})

    def episode(self, index: int) -> dict[str, np.ndarray]:
        """All features of the index-th episode given, {name: (T, ...)}.

        Reading in order decodes every video once.

        Raises:
            IndexError: outside 0..E-1.
            StoreError: a row or a frame is missing or damaged.
        """
        files = self._files(index)
        table = self._tables.read(files.table, first=files.first_row, count=files.length)
        arrays: dict[str, np.ndarray] = {}
        for column in self._columns:
            if self._schema[column.features[0]].role == "camera":
                values = self._images(column.key, files, table)
                values = values[..., : self._schema[column.features[0]].shape[-1]]
            elif column.key not in table.column_names:
                raise StoreError(f"{files.table} has no column {column.key!r}")
            else:
                values = numbers(table[column.key], key=column.key)
            arrays |= column.split(values, schema=self._schema)
        return {name: arrays[name] for name in self._schema.names}

    def attributes(self, index: int) -> dict[str, Any]:
        """Facts about the index-th episode given.

        Its task as "task", or, where it changes within the episode, as "tasks": [[step, text], ...]
        """
        files = self._files(index)
        stored = self._sidecar["episodes"] if self._sidecar is not None else []
        attributes = dict(stored[files.index]) if files.index < len(stored) else {}
        return attributes | self._tasks(files)

    def close(self) -> None:
        """Close the videos."""
        self._videos.close()

    def _files(self, index: int) -> EpisodeFiles:
        if not 0 <= index < len(self._episodes):
            raise IndexError(f"episode {index} outside 0..{len(self._episodes) - 1}")
        return self._episodes[index]

    def _describe(self) -> tuple[Schema, tuple[Column, ...], dict[str, list[str]]]:
        """Schema, columns and entry names: as we wrote them, or guessed."""
        layout = self._layout
        if self._sidecar is not None:
            columns = tuple(
                Column(key=key, features=tuple(names))
                for key, names in self._sidecar["columns"].items()
            )
            if not (unknown := {column.key for column in columns} - set(layout.specs)):
                return Schema.from_json(self._sidecar["schema"]), columns, {}
            self._notes.append(
                f"{SIDECAR} speaks of columns {sorted(unknown)} that the dataset lacks; "
                "it was edited since, and everything is guessed."
            )
            self._sidecar = None
        guessed = guess(layout.specs, rate_hz=layout.rate_hz)
        self._notes += guessed.notes
        return guessed.schema, guessed.columns, guessed.entry_names

    def _choose_episodes(
        self, episodes: Sequence[int] | None, missing_videos: str
    ) -> tuple[EpisodeFiles, ...]:
        """The files of the episodes to give."""
        have = {files.index: files for files in self._layout.episodes}
        if unknown := [i for i in episodes or () if i not in have]:
            raise IndexError(f"no episodes {unknown[:5]}; the dataset has {len(have)}, from 0 on")
        chosen = list(have.values()) if episodes is None else [have[i] for i in episodes]
        keys = [c.key for c in self._columns if c.key in _video_keys(self._layout)]
        lacking = [f for f in chosen if any(not f.clips[key].path.is_file() for key in keys)]
        if lacking and missing_videos == "refuse":
            key = next(k for k in keys if not lacking[0].clips[k].path.is_file())
            raise StoreError(
                f"{len(lacking)} of {len(chosen)} episodes have no video, first episode "
                f"{lacking[0].index}: {lacking[0].clips[key].path} is missing; "
                "the option missing_videos=leave_out gives the others, cameras=[] all but no images"
            )
        if lacking:
            self._notes.append(
                f"{len(lacking)} of {len(chosen)} episodes have no video and are left out: "
                f"{_ranges([files.index for files in lacking])}."
            )
            chosen = [files for files in chosen if files not in lacking]
        if not chosen:
            raise ValueError(f"{self._layout.root}: no episode is left to give")
        return tuple(chosen)

    def _trust_video_sizes(self) -> None:
        """Take the cameras' size from their videos: it is what will be read."""
        for column in self._columns:
            if column.key in _video_keys(self._layout):
                camera = self._schema[column.features[0]]
                shape = video_shape(self._episodes[0].clips[column.key].path)
                if shape[:2] != camera.shape[:2]:
                    self._notes.append(
                        f"Camera {camera.name!r} is {shape[0]}x{shape[1]} in its video, not "
                        f"{camera.shape[0]}x{camera.shape[1]} as info.json says."
                    )
                    self._replace(replace(camera, shape=(*shape[:2], camera.shape[-1])))

    def _replace(self, feature: Feature) -> None:
        features = tuple(feature if f.name == feature.name else f for f in self._schema.features)
        self._schema = replace(self._schema, features=features)

    def _keep_capture_times(self) -> None:
        """Give the column `timestamp` as a feature where it is more than frame_index / fps."""
        if TIMESTAMP not in self._layout.specs:
            return
        furthest, path, times = 0.0, None, np.zeros(0)
        for files in self._episodes:
            if path != files.table:  # this column alone: others may hold images
                path = files.table
                column = open_table(path).read([TIMESTAMP])[TIMESTAMP]
                times = numbers(column, key=TIMESTAMP)[:, 0].astype(np.float64)
            recorded = times[files.first_row : files.first_row + files.length]
            made_up = np.arange(len(recorded)) / self._layout.rate_hz
            furthest = max(furthest, float(np.abs(recorded - made_up).max(initial=0.0)))
        if kept := capture_times(self._schema, furthest):
            self._schema, column, note = kept
            self._columns += (column,)
            self._notes.append(note)

    def _images(self, key: str, files: EpisodeFiles, table: Any) -> np.ndarray:
        """(T, H, W, 3) of one camera."""
        if key in files.clips:
            clip = files.clips[key]
            return self._videos.read(key, clip.path, first=clip.first, count=files.length)
        return pictures(table[key], root=self._layout.root, key=key)

    def _tasks(self, files: EpisodeFiles) -> dict[str, Any]:
        """The episode's task or tasks as attributes; nothing where the text is empty."""
        table = self._tables.read(files.table, first=files.first_row, count=files.length)
        if "task_index" not in table.column_names:
            return {}
        indices = numbers(table["task_index"], key="task_index")[:, 0]
        starts = np.flatnonzero(np.diff(indices, prepend=indices[0] - 1))
        texts = [(int(start), self._layout.tasks.get(int(indices[start]), "")) for start in starts]
        if len(texts) == 1:
            return {"task": texts[0][1]} if texts[0][1] else {}
        return {"tasks": [[start, text] for start, text in texts]}


def capture_times(schema: Schema, furthest_s: float) -> tuple[Schema, Column, str] | None:
    """`schema` with the column `timestamp` as a feature, that column, and a sentence about it.

    None where the times say nothing: they are `furthest_s` from frame_index / fps at most.
    """
    if furthest_s <= CAPTURE_TOLERANCE_S:
        return None
    name = TIMESTAMP if TIMESTAMP not in schema.names else f"frame_{TIMESTAMP}"
    feature = Feature(name=name, shape=(), dtype="float32", role="other", unit="s")
    note = (
        f"The recorded times are real, up to {furthest_s:.3g} s away from frame_index / fps: "
        f"they are kept as {name!r}."
    )
    schema = replace(schema, features=(*schema.features, feature))
    return schema, Column(key=TIMESTAMP, features=(name,)), note


def _video_keys(layout: Layout) -> set[str]:
    return {key for key, spec in layout.specs.items() if spec["dtype"] == "video"}


def _read_sidecar(layout: Layout) -> dict[str, Any] | None:
    """What we wrote beside LeRobot's own description, None where the dataset is not ours."""
    path = layout.root / SIDECAR
    if not path.is_file():
        return None
    try:
        sidecar = json.loads(path.read_text(encoding="utf-8"))
        Schema.from_json(sidecar["schema"])
        return {key: sidecar[key] for key in ("schema", "columns", "provenance", "episodes")}
    except (json.JSONDecodeError, KeyError, ValueError) as error:
        raise StoreError(f"{path} is damaged ({error}); without it, all is guessed") from error


def _ranges(numbers: Sequence[int]) -> str:
    """Rising numbers as text: 0-2, 5."""
    runs = np.split(np.asarray(numbers), np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
