"""Random windows of 16 control steps a second and bytes on disk: ours and the peers', same data.

    pytest -m benchmark tests/benchmarks/test_window_reading.py -s

Each store is written from the same episodes by the converters, then the readers take turns, five
rounds of fresh random windows each; the best round counts, since other work only slows one down.
A window is 16 frames, 16 states and 16 actions, copied out, one item at a time from all of them.
Times are the process's own, all threads together.

robomimic's cache mode "all" is not read here: it keeps every window as an object, 16 times the
data, and hands out references.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from teleop_data.converters.episode_stream import EpisodeSink, copy_episodes
from teleop_data.converters.lerobot_writing import LeRobotSink
from teleop_data.converters.replay_buffer_zarr import DiffusionPolicySink, ReplayBufferSink
from teleop_data.converters.robomimic_hdf5 import RobomimicSink
from teleop_data.dataset import WindowDataset
from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.schema import Feature, Schema
from tests.teleop_data.stores import real_pusht

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore"),  # the peers' imports
]
WINDOW, NUM_ROUNDS, ROUND_S = 16, 5, 0.5
NUM_DRAWN = 600
Read = Callable[[int], object]  # the window at a row


def schema_of(shape: tuple[int, ...]) -> Schema:
    return Schema(
        features=(
            Feature(name="front", shape=shape, dtype="uint8", role="camera"),
            Feature(name="state", shape=(5,)),
            Feature(name="action", shape=(2,), role="action"),
        ),
        rate_hz=10.0,
    )


@dataclass
class Recorded:
    """Episodes in memory, as a source."""

    schema: Schema
    episodes: list[dict[str, np.ndarray]]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def num_episodes(self) -> int:
        return len(self.episodes)

    def episode(self, index: int) -> dict[str, np.ndarray]:
        return self.episodes[index]

    def attributes(self, index: int) -> Mapping[str, Any]:
        return {}

    def close(self) -> None:
        pass


def push_t(num_episodes: int = 24) -> Recorded:
    """The first human Push-T demonstrations, 96x96."""
    buffer = ReplayBuffer.open(real_pusht())
    named = {"front": "img", "state": "state", "action": "action"}
    episodes = []
    for start, end in list(zip(buffer.episode_starts, buffer.episode_ends, strict=True)):
        if len(episodes) < num_episodes:
            episodes.append({ours: buffer[theirs][start:end] for ours, theirs in named.items()})
    return Recorded(schema_of((96, 96, 3)), episodes)


def drawn(*, noise: float) -> Recorded:
    """Pictures of 240x320: two soft discs that move over a smooth ground; noise of a camera."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:240, 0:320].astype(np.float32)
    ground = np.stack(
        [110 + 60 * np.sin(x / 70 + c) + 40 * np.cos(y / 50 - c) for c in range(3)], -1
    )
    states, frames = [], np.empty((NUM_DRAWN, 240, 320, 3), np.uint8)
    for step in range(NUM_DRAWN):
        angle = step / 25
        at = 160 + 110 * np.cos(angle), 120 + 80 * np.sin(1.7 * angle), 90 + 60 * np.sin(angle)
        picture = ground
        for centre, colour in (((at[0], at[1]), (220, 60, 40)), ((at[2], 150), (40, 90, 200))):
            near = np.exp(-((((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / 900) ** 3))[..., None]
            picture = picture * (1 - near) + near * np.array(colour, np.float32)
        grain = noise * rng.normal(size=picture.shape).astype(np.float32) if noise else 0.0
        frames[step] = np.clip(picture + grain, 0, 255)
        states.append([*at, np.cos(angle), np.sin(angle)])
    state = np.array(states, np.float32)
    ends = range(60, NUM_DRAWN + 1, 60)
    episodes = [
        {"front": frames[e - 60 : e], "state": state[e - 60 : e], "action": state[e - 60 : e, :2]}
        for e in ends
    ]
    return Recorded(schema_of((240, 320, 3)), episodes)


def ours(path: Path, source: Recorded) -> dict[str, Read]:
    buffer = ReplayBuffer.open(path)
    readers: dict[str, Read] = {}
    for name, options in {
        "ours, as by default": {},
        "ours, from the store": {"camera_cache_bytes": 0},
        "ours, scratch file": {"camera_cache_bytes": 0, "decoded_dir": path.parent},
    }.items():
        dataset = WindowDataset(
            buffer,
            schema=source.schema,
            episodes=np.arange(source.num_episodes),
            context=WINDOW,
            horizon=1,
            **options,  # type: ignore[arg-type]
        )
        readers[name] = dataset.__getitem__
    return readers


def memory_map(path: Path, source: Recorded) -> Read:
    arrays = {}
    for name in source.schema.names:
        whole = np.concatenate([episode[name] for episode in source.episodes])
        np.save(path.with_name(f"{path.name}_{name}.npy"), whole)
        arrays[name] = np.load(path.with_name(f"{path.name}_{name}.npy"), mmap_mode="r")
    return lambda row: [np.array(array[row : row + WINDOW]) for array in arrays.values()]


def diffusion_policy(path: Path) -> Read:
    data = zarr.open_group(path, mode="r")["data"]
    arrays = [data[name] for name in ("front", "state", "action")]  # type: ignore[index]
    return lambda row: [array[row : row + WINDOW] for array in arrays]  # type: ignore[index]


def robomimic(path: Path) -> Read:
    import robomimic.utils.obs_utils as obs_utils
    from robomimic.utils.dataset import SequenceDataset

    modalities = {"obs": {"low_dim": ["state"], "rgb": ["front"]}}
    obs_utils.initialize_obs_utils_with_obs_specs(modalities)
    dataset = SequenceDataset(
        str(path),
        ["front", "state"],
        ["actions"],
        load_next_obs=False,
        frame_stack=1,
        seq_length=WINDOW,
        pad_frame_stack=True,
        pad_seq_length=True,
        get_pad_mask=True,
        hdf5_cache_mode="low_dim",
        hdf5_use_swmr=True,
    )
    return lambda row: dataset[row]


def lerobot(path: Path, *, rate_hz: float) -> Read:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    names = ("observation.images.front", "observation.state", "action")
    delta_s = [step / rate_hz for step in range(WINDOW)]
    dataset = LeRobotDataset(
        f"local/{path.name}", root=path, delta_timestamps={name: delta_s for name in names}
    )
    return lambda row: dataset[row]


def best_rates(readers: Mapping[str, Read], *, num_steps: int) -> dict[str, float]:
    """Windows a second of each reader in its best round."""
    rng = np.random.default_rng(1)
    rates = dict.fromkeys(readers, 0.0)
    for read in readers.values():
        read(0)
    for _ in range(NUM_ROUNDS):
        for name, read in readers.items():
            rows = rng.integers(0, num_steps - WINDOW, 20_000).tolist()
            start_s, count = time.process_time(), 0
            while (taken_s := time.process_time() - start_s) < ROUND_S and count < len(rows):
                read(rows[count])
                count += 1
            rates[name] = max(rates[name], count / taken_s)
    return rates


def bytes_at(folder: Path, prefix: str) -> int:
    files = [f for f in folder.rglob("*") if f.is_file()]
    return sum(f.stat().st_size for f in files if f.relative_to(folder).parts[0].startswith(prefix))


@pytest.mark.parametrize("data", ["Push-T 96x96", "drawn 240x320", "drawn 240x320, camera noise"])
def test_windows_a_second(data: str, tmp_path: Path) -> None:
    source = push_t() if data.startswith("Push-T") else drawn(noise=2.0 * ("noise" in data))
    sinks: dict[str, EpisodeSink] = {
        "ours.zarr": ReplayBufferSink(),
        "dp.zarr": DiffusionPolicySink(),
        "robomimic.hdf5": RobomimicSink(),
        "lerobot_video": LeRobotSink(),
        "lerobot_image": LeRobotSink(storage="image"),
    }
    for name, sink in sinks.items():
        copy_episodes(source, sink, tmp_path / name)
    rate_hz = source.schema.rate_hz
    readers = ours(tmp_path / "ours.zarr", source) | {
        "memory map": memory_map(tmp_path / "raw", source),
        "robomimic SequenceDataset": robomimic(tmp_path / "robomimic.hdf5"),
        "Diffusion Policy's zarr": diffusion_policy(tmp_path / "dp.zarr"),
        "LeRobotDataset, image": lerobot(tmp_path / "lerobot_image", rate_hz=rate_hz),
        "LeRobotDataset, video": lerobot(tmp_path / "lerobot_video", rate_hz=rate_hz),
    }
    prefixes = dict(zip(readers, ["ours"] * 3 + ["raw", "robomimic", "dp"], strict=False))
    prefixes |= {"LeRobotDataset, image": "lerobot_i", "LeRobotDataset, video": "lerobot_v"}
    num_steps = sum(len(episode["action"]) for episode in source.episodes)
    rates = best_rates(readers, num_steps=num_steps)
    print(f"\n{data}, {num_steps} steps: {'windows/s':>20} {'to the map':>10} {'MB':>8}")
    for name, rate in rates.items():
        size = bytes_at(tmp_path, prefixes[name]) / 1e6
        print(f"  {name:<36} {rate:>11.1f} {rate / rates['memory map']:>10.2f} {size:>8.2f}")
    peers = [rate for name, rate in rates.items() if "ours" not in name and name != "memory map"]
    ratio = rates["ours, as by default"] / max(peers)
    print(f"  ours to the best peer: {ratio:.1f}")
    assert ratio >= 2
