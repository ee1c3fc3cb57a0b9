"""Bulk decoding beside LeRobot's item access: the same dataset, the same process."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from teleop_data.converters.episode_stream import EditedSource, copy_episodes
from teleop_data.converters.lerobot_reading import LeRobotSource
from teleop_data.converters.lerobot_writing import LeRobotSink
from teleop_data.converters.replay_buffer_zarr import REPLAY_BUFFER
from tests.teleop_data.converters.lerobot_episodes import real

NUM_ITEMS = 200


@pytest.mark.benchmark
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "least_ratio"), [("pusht", 10), ("cr5_banana", 5)])
def test_an_episode_at_once_is_faster_than_item_by_item(
    name: str, least_ratio: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    if name == "pusht":  # 96x96
        source = REPLAY_BUFFER.open(real("pusht") / "pusht_cchi_v7_replay.zarr")
        source = EditedSource(source, episodes=range(10))
    else:  # 480x640
        source = LeRobotSource(real("cr5_banana"), episodes=range(3))
    num_steps = copy_episodes(source, LeRobotSink(), tmp_path / "dataset")
    from lerobot.datasets import LeRobotDataset

    dataset = LeRobotDataset("local/any", root=tmp_path / "dataset", video_backend="pyav")
    ours = LeRobotSource(tmp_path / "dataset")
    item_s, bulk_s = [], []
    for _ in range(3):
        start_s = time.perf_counter()
        for index in range(NUM_ITEMS):
            dataset[index]
        item_s.append((time.perf_counter() - start_s) / NUM_ITEMS)
        start_s = time.perf_counter()
        for index in range(ours.num_episodes):
            ours.episode(index)
        bulk_s.append((time.perf_counter() - start_s) / num_steps)
    ratios = np.array(item_s) / bulk_s
    with capsys.disabled():
        print(
            f"\n{name}: item {1e3 * min(item_s):.2f} ms, bulk {1e3 * min(bulk_s):.2f} ms a frame, "
            f"ratio {np.median(ratios):.1f} ({ratios.min():.1f} to {ratios.max():.1f})"
        )
    assert np.median(ratios) > least_ratio
