"""Two 640x480 cameras at 30 Hz into the store, on two cores beside the world that is recorded.

    pytest -m benchmark tests/benchmarks/test_recording.py -s

Lateness: the same loop for as long, with the writer and with one that throws every step away; the
episode before is compressed meanwhile. Size and speed: the same frames through our journal and
store, LeRobotDataset (videos encoded while they are recorded) and Diffusion Policy's layout (zarr
v2, Blosc, an append an episode), in one run. What a loop has to wait for is given for each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr

from teleop_data import background_writer
from teleop_data.array_layout import CameraCodec
from teleop_data.background_writer import BackgroundWriter
from teleop_data.clock import MonotonicClock
from teleop_data.operator import Automatic
from teleop_data.record import SWITCH_S
from teleop_data.recorded_timing import LATE, MISSED
from teleop_data.recording_loop import RecordingLoop
from teleop_data.recording_store import RecordingStore
from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.step_watch import StepWatch
from tests.teleop_data.recording_world import Echo, MovingPictures

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore"),  # the peer's
]
RATE_HZ, HEIGHT, WIDTH = 30.0, 480, 640
NUM_STEPS, NUM_EPISODES = 150, 3  # 5 s each
NUM_FRAMES = 90  # for the peers, which are slower
LATE_S = 0.2 / RATE_HZ  # reported as late


def world(*, noise: int, max_steps: int) -> MovingPictures:
    return MovingPictures(
        rate_hz=RATE_HZ, height=HEIGHT, width=WIDTH, max_steps=max_steps, noise=noise
    )


class Forgetful:
    """A writer that writes nothing and remembers when each step began."""

    failure = ""

    def __init__(self) -> None:
        self.late_s: list[float] = []
        self.num_missed = 0

    def add(self, values: Mapping[str, np.ndarray]) -> bool:
        self.late_s.append(float(values[LATE]))
        self.num_missed += int(values[MISSED])
        return True

    def start(self, *_: Any) -> None: ...
    def note(self, *_: Any) -> None: ...
    def drop(self) -> None: ...
    def finish(self, *_: Any, **__: Any) -> None: ...


@pytest.fixture(autouse=True)
def switch_as_the_command_does() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    yield
    sys.setswitchinterval(before)


def drive(writer: Any, *, noise: int) -> None:
    environment = world(noise=noise, max_steps=NUM_STEPS)
    with StepWatch(5.0) as watch:
        loop = RecordingLoop(
            environment,
            Echo(),
            operator=Automatic(),
            writer=writer,
            watch=watch,
            clock=MonotonicClock(),
        )
        loop.run(first_seed=0, num_episodes=NUM_EPISODES)


def told(late_s: np.ndarray, *, num_missed: int, name: str) -> str:
    p50, p99, most = 1e3 * np.percentile(late_s, [50, 99, 100])
    return (
        f"{name}: late by p50 {p50:.2f}, p99 {p99:.2f}, max {most:.2f} ms; "
        f"{np.sum(late_s > LATE_S)} of {len(late_s)} steps late, {num_missed} missed"
    )


@pytest.mark.parametrize("codec", ["zstd", "bitshuffle"])
def test_writing_makes_no_step_late(tmp_path: Path, codec: CameraCodec):
    without = Forgetful()
    drive(without, noise=8)
    store = RecordingStore(tmp_path / "a.zarr", provenance={}, camera_codec=codec)
    with closing(store):
        writer = BackgroundWriter(store, capacity=60)
        began_s = time.monotonic()
        try:
            drive(writer, noise=8)
            recorded_s = time.monotonic() - began_s
        finally:
            writer.close()
        stored_s = time.monotonic() - began_s
    buffer = ReplayBuffer.open(tmp_path / "a.zarr")
    late_s, missed = buffer[LATE][:], int(buffer[MISSED][:].sum())
    raw = buffer.num_steps * 2 * HEIGHT * WIDTH * 3
    print(
        f"\n{codec}: {raw / recorded_s / 1e6:.0f} MB/s for {recorded_s:.1f} s, "
        f"all stored {stored_s - recorded_s:.1f} s later\n"
        + told(np.array(without.late_s), num_missed=without.num_missed, name="without writing")
        + "\n"
        + told(late_s, num_missed=missed, name="with writing   ")
    )
    lost = [a["num_lost_steps"] for a in buffer.episode_attributes]
    assert lost == [0] * NUM_EPISODES
    late_without = np.sum(np.array(without.late_s) > LATE_S) + without.num_missed
    assert np.sum(late_s > LATE_S) + missed <= late_without + 0.01 * len(late_s)


def frames(environment: MovingPictures) -> Iterator[dict[str, np.ndarray]]:
    for step in range(NUM_FRAMES):
        observation = environment.observation(step=step, seed=0)
        yield {**observation, "action": -observation["state"]}


def num_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# seconds: that the loop waits for, each step; until the episode outlives a kill; until it is stored
Result = tuple[list[float], float, float]


def ours(environment: MovingPictures, folder: Path, codec: CameraCodec) -> Result:
    waits, began_s = [], time.perf_counter()
    safe_s: list[float] = []
    with closing(RecordingStore(folder, provenance={}, camera_codec=codec)) as store:
        writer = BackgroundWriter(
            store,
            capacity=NUM_FRAMES,
            report=lambda text: safe_s.append(time.perf_counter() - began_s),
        )
        writer.start(environment.schema, {"seed": 0})
        for frame in frames(environment):
            start_s = time.perf_counter()
            writer.add(frame)
            waits.append(time.perf_counter() - start_s)
        writer.finish({}, summary="kept")
        writer.close()
    return waits, safe_s[0], time.perf_counter() - began_s


def diffusion_policys(environment: MovingPictures, folder: Path) -> Result:
    """Steps in a list; an episode is appended at its end, as its ReplayBuffer does."""
    waits, began_s = [], time.perf_counter()
    steps = []
    for frame in frames(environment):
        start_s = time.perf_counter()
        steps.append({name: value.copy() for name, value in frame.items()})
        waits.append(time.perf_counter() - start_s)
    root = zarr.open_group(folder, mode="w", zarr_format=2)
    data, meta = root.create_group("data"), root.create_group("meta")
    for name in steps[0]:
        values = np.stack([step[name] for step in steps])
        array = data.create_array(
            name,
            shape=values.shape,
            chunks=(1 if values.ndim == 4 else NUM_FRAMES, *values.shape[1:]),
            dtype=values.dtype,
            compressors=numcodecs.Blosc(cname="zstd", clevel=5, shuffle=numcodecs.Blosc.BITSHUFFLE),
        )
        array[:] = values
    ends = meta.create_array("episode_ends", shape=(1,), dtype="int64")
    ends[:] = [NUM_FRAMES]
    total_s = time.perf_counter() - began_s
    return waits, total_s, total_s


def lerobots(environment: MovingPictures, folder: Path) -> Result:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    shapes = {
        "observation.state": {"dtype": "float32", "shape": (2,), "names": None},
        "action": {"dtype": "float32", "shape": (2,), "names": None},
    } | {
        f"observation.images.camera{i}": {
            "dtype": "video",
            "shape": (HEIGHT, WIDTH, 3),
            "names": ["height", "width", "channels"],
        }
        for i in range(2)
    }
    dataset = LeRobotDataset.create(
        "local/recording", int(RATE_HZ), shapes, root=folder, streaming_encoding=True
    )
    waits, began_s = [], time.perf_counter()
    for frame in frames(environment):
        start_s = time.perf_counter()
        dataset.add_frame(
            {
                "observation.images.camera0": frame["camera0"],
                "observation.images.camera1": frame["camera1"],
                "observation.state": frame["state"],
                "action": frame["action"],
                "task": "stripes",
            }
        )
        waits.append(time.perf_counter() - start_s)
    dataset.save_episode()
    dataset.finalize()
    total_s = time.perf_counter() - began_s
    return waits, total_s, total_s


@pytest.mark.parametrize("noise", [0, 8])
def test_frames_a_second_and_bytes_beside_the_peers(
    tmp_path: Path, noise: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(background_writer, "NICENESS", 0)  # the peers make way for nobody
    monkeypatch.setenv("SVT_LOG", "1")  # the video encoder's errors only
    environment = world(noise=noise, max_steps=NUM_FRAMES)
    lerobot = "LeRobotDataset, streaming video"
    contenders: dict[str, Callable[[Path], Result]] = {
        "ours, zstd": lambda folder: ours(environment, folder, "zstd"),
        "ours, bitshuffle": lambda folder: ours(environment, folder, "bitshuffle"),
        "Diffusion Policy's layout": lambda folder: diffusion_policys(environment, folder),
        lerobot: lambda folder: lerobots(environment, folder),
    }
    raw = NUM_FRAMES * 2 * HEIGHT * WIDTH * 3
    safe, waits_ms, table = {}, {}, []
    for number, (name, write) in enumerate(contenders.items()):
        folder = tmp_path / str(number)
        waits, safe_s, total_s = write(folder)
        safe[name], waits_ms[name] = 2 * NUM_FRAMES / safe_s, 1e3 * float(np.mean(waits))
        size = num_bytes(folder)
        table.append(
            f"{name:<32} {safe[name]:5.0f} frames/s until safe, {2 * NUM_FRAMES / total_s:5.0f} "
            f"until stored, {size / 1e6:6.1f} MB (1/{raw / size:.2f}), the loop waits "
            f"{waits_ms[name]:.2f} ms a step, at most {1e3 * max(waits):.1f}"
        )
    print(f"\n{NUM_FRAMES} steps of two {WIDTH}x{HEIGHT} pictures, noise 0 to {noise}")
    print("\n".join(table))
    assert safe["ours, zstd"] > 2 * RATE_HZ
    assert safe["ours, zstd"] > safe[lerobot]
    assert waits_ms["ours, zstd"] < waits_ms[lerobot] / 5
