"""LeRobotDataset as formats of `forcing-convert`: v3.0 both ways, v2.x and v1 to read.

| module            | what                                                                       |
|-------------------|----------------------------------------------------------------------------|
| lerobot_columns   | our features and LeRobot's columns: names, roles, what is lost              |
| lerobot_layout    | where v2.x and v3.0 keep an episode                                         |
| lerobot_tables    | rows of parquet files                                                       |
| lerobot_video     | frames of videos, each video decoded once                                   |
| lerobot_reading   | `LeRobotSource`                                                             |
| lerobot_legacy    | `LegacyLeRobotSource`, Arrow tables of v1                                   |
| lerobot_writing   | `LeRobotSink`, through LeRobot's own writer: the only one that imports it   |
"""

from __future__ import annotations

from pathlib import Path

from teleop_data.converters.episode_stream import Format
from teleop_data.converters.lerobot_layout import INFO
from teleop_data.converters.lerobot_legacy import LegacyLeRobotSource, find_table
from teleop_data.converters.lerobot_reading import LeRobotSource
from teleop_data.converters.lerobot_writing import LeRobotSink


def _recognize(path: Path) -> str | None:
    return f"it holds {INFO}" if (path / INFO).is_file() else None


def _recognize_legacy(path: Path) -> str | None:
    table = find_table(path)
    return f"it holds {table.relative_to(path)}" if table is not None else None


FORMAT = Format(
    name="lerobot",
    title="LeRobotDataset v3.0 (v2.x to read)",
    recognize=_recognize,
    open=LeRobotSource,
    sink=LeRobotSink,
    suffixes=(".lerobot",),
)
LEGACY_FORMAT = Format(
    name="lerobot_v1",
    title="LeRobotDataset v1 (Arrow)",
    recognize=_recognize_legacy,
    open=LegacyLeRobotSource,
)
