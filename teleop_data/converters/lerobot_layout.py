"""Where a LeRobotDataset keeps each episode: rows in a table, frames in a video.

    v3.0   data/chunk-000/file-000.parquet   | ep 0 | ep 1 | ...   many episodes in a file
           videos/<camera>/chunk-000/file-000.mp4   likewise; meta/episodes/*.parquet says where
    v2.x   data/chunk-000/episode_000000.parquet    one file each; meta/episodes.jsonl counts them

Both are read with pyarrow alone: LeRobot 0.6.1 refuses v2, and its import takes many seconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from teleop_data.converters.lerobot_tables import open_table
from teleop_data.replay_buffer import StoreError

INFO = Path("meta") / "info.json"
HUB = "hf:"


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Consecutive frames of one video file.

    Attributes:
        path: the video.
        first: index of the first frame in it.
    """

    path: Path
    first: int


@dataclass(frozen=True, kw_only=True)
class EpisodeFiles:
    """Where one episode is.

    Attributes:
        index: the episode's number in the dataset.
        length: control steps.
        table: parquet file with its rows.
        first_row: its first row in that file.
        clips: its frames, by the camera's column.
    """

    index: int
    length: int
    table: Path
    first_row: int
    clips: Mapping[str, Clip]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A LeRobotDataset's own description of itself.

    Attributes:
        root: its folder.
        version: "v3.0", "v2.1" or "v2.0".
        rate_hz: frames per second.
        robot_type: as recorded, None where it is not said.
        specs: description of every column.
        tasks: task texts by task index.
        episodes: all episodes, in order.
    """

    root: Path
    version: str
    rate_hz: float
    robot_type: str | None
    specs: dict[str, dict[str, Any]]
    tasks: dict[int, str]
    episodes: tuple[EpisodeFiles, ...]


def local_folder(source: str) -> Path:
    """The folder `source`, or, for "hf:owner/name", where the Hub's dataset was fetched to.

    By the function that LeRobot itself calls, since LeRobot's own class refuses versions below 3.
    """
    if not source.startswith(HUB):
        return Path(source)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(source.removeprefix(HUB), repo_type="dataset"))


def read_layout(root: Path) -> Layout:
    """The layout of the dataset in the folder `root`.

    Raises:
        FileNotFoundError: there is no meta/info.json.
        StoreError: it cannot be read, or is of a version other than 2 and 3.
    """
    path = root / INFO
    if not path.is_file():
        raise FileNotFoundError(f"no LeRobotDataset at {root}: {path} is missing")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        version, specs = str(info["codebase_version"]), dict(info["features"])
        read = {"v3": _read_v3, "v2": _read_v2}.get(version.split(".")[0])
        if read is None:
            raise StoreError(f"{root} is LeRobotDataset {version}; v2.0, v2.1 and v3.0 can be read")
        tasks, episodes = read(root, info)
        return Layout(
            root=root,
            version=version,
            rate_hz=float(info["fps"]),
            robot_type=info.get("robot_type"),
            specs=specs,
            tasks=tasks,
            episodes=tuple(sorted(episodes, key=lambda episode: episode.index)),
        )
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise StoreError(f"{root}: the description under meta is damaged ({error!r})") from error


def _read_v2(root: Path, info: Mapping[str, Any]) -> tuple[dict[int, str], list[EpisodeFiles]]:
    """Tasks and episodes of v2.0 and v2.1."""
    videos = _video_columns(info)
    episodes = []
    for row in _read_lines(root / "meta" / "episodes.jsonl"):
        index = int(row["episode_index"])
        names = {"episode_chunk": index // int(info["chunks_size"]), "episode_index": index}
        clips = {
            key: Clip(path=root / info["video_path"].format(video_key=key, **names), first=0)
            for key in videos
        }
        table = root / info["data_path"].format(**names)
        episodes.append(
            EpisodeFiles(
                index=index, length=int(row["length"]), table=table, first_row=0, clips=clips
            )
        )
    tasks = {int(r["task_index"]): str(r["task"]) for r in _read_lines(root / "meta/tasks.jsonl")}
    return tasks, episodes


def _read_v3(root: Path, info: Mapping[str, Any]) -> tuple[dict[int, str], list[EpisodeFiles]]:
    """Tasks and episodes of v3.0."""
    if not int(info["total_episodes"]):
        return {}, []
    rows: list[dict[str, Any]] = []
    for path in sorted((root / "meta" / "episodes").glob("*/*.parquet")):
        table = open_table(path)
        wanted = [name for name in table.schema_arrow.names if not name.startswith("stats/")]
        rows += table.read(wanted).to_pylist()
    if len(rows) != int(info["total_episodes"]):
        raise StoreError(
            f"{root}: meta/episodes describes {len(rows)} episodes, info.json counts "
            f"{info['total_episodes']}; the recording was not finalized or the copy is incomplete"
        )
    first_of_file: dict[tuple[int, int], int] = {}
    for row in rows:
        file = (row["data/chunk_index"], row["data/file_index"])
        start = row["dataset_from_index"]
        first_of_file[file] = min(start, first_of_file.get(file, start))
    episodes = [_v3_episode(root, info, row=row, first_of_file=first_of_file) for row in rows]
    tasks = open_table(root / "meta" / "tasks.parquet").read().to_pydict()
    indices = tasks.pop("task_index")
    texts = next(iter(tasks.values()))  # pandas' index, under a name that changed over time
    return {int(i): str(text) for i, text in zip(indices, texts, strict=True)}, episodes


def _v3_episode(
    root: Path,
    info: Mapping[str, Any],
    *,
    row: Mapping[str, Any],
    first_of_file: Mapping[tuple[int, int], int],
) -> EpisodeFiles:
    """One row of meta/episodes."""
    file = (row["data/chunk_index"], row["data/file_index"])
    clips = {}
    for key in _video_columns(info):
        path = info["video_path"].format(
            video_key=key,
            chunk_index=row[f"videos/{key}/chunk_index"],
            file_index=row[f"videos/{key}/file_index"],
        )
        first = round(row[f"videos/{key}/from_timestamp"] * float(info["fps"]))
        clips[key] = Clip(path=root / path, first=first)
    return EpisodeFiles(
        index=int(row["episode_index"]),
        length=int(row["length"]),
        table=root / info["data_path"].format(chunk_index=file[0], file_index=file[1]),
        first_row=int(row["dataset_from_index"]) - first_of_file[file],
        clips=clips,
    )


def _video_columns(info: Mapping[str, Any]) -> list[str]:
    return [key for key, spec in info["features"].items() if spec["dtype"] == "video"]


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file."""
    if not path.is_file():
        raise StoreError(f"{path} is missing; the copy of the dataset is incomplete")
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]
