"""Small datasets for the tests: what the sink is given, v1 to v3 as their programs wrote them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from teleop_data.schema import Feature, Schema

SCHEMA = Schema(
    features=(
        Feature(name="front", shape=(48, 64, 3), dtype="uint8", role="camera"),
        Feature(name="wrist", shape=(32, 40, 1), dtype="uint8", role="camera"),
        Feature(name="joints", shape=(3,), unit="rad", angles=(2,)),
        Feature(name="grip", shape=(), unit="m"),
        Feature(name="pose", shape=(2, 2), dtype="float64"),
        Feature(name="action", shape=(2,), role="action", unit="rad"),
        Feature(name="keypoints", shape=(4, 2), dtype="float16", role="other"),
        Feature(name="capture_time", shape=(), dtype="int64", role="other", unit="ns"),
        Feature(name="action_is_valid", shape=(), dtype="bool", role="other"),
    ),
    rate_hz=20.0,
)
LENGTHS = (5, 2, 9)
ATTRIBUTES = (
    {"task": "pick", "seed": 3},
    {"tasks": [[0, "pick"], [1, "place"]], "success": True},
    {"seed": 5},
)
DATA = Path(__file__).parents[3] / ".." / "shared" / "data"


class Episodes:
    """A source of `SCHEMA` with three episodes, a function of nothing."""

    schema, num_episodes = SCHEMA, len(LENGTHS)
    provenance = {"operator": "nobody", "robot": "panda"}
    notes = ()

    def episode(self, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(index)
        return {
            f.name: smooth_images(LENGTHS[index], f.shape, seed=index)
            if f.role == "camera"
            else (100 * rng.normal(size=(LENGTHS[index], *f.shape))).astype(f.dtype)
            for f in SCHEMA.features
        }

    def attributes(self, index: int) -> dict[str, Any]:
        return ATTRIBUTES[index]

    def close(self) -> None: ...


def smooth_images(length: int, shape: tuple[int, ...], *, seed: int = 0) -> np.ndarray:
    """(T, H, W, C) uint8 frames that all differ, and that a codec keeps well."""
    t, y, x, c = np.ogrid[:length, : shape[0], : shape[1], : shape[2]]
    wave = np.sin(y / 15 + t / 3 + seed) + np.cos(x / 20 - t / 4 + c)
    return (128 + 50 * wave).astype(np.uint8)


def write_video(path: Path, images: np.ndarray, *, rate_hz: int, key_frame_every: int = 5) -> None:
    """`images` (T, H, W, 3) as an h264 video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        options = {"crf": "10", "g": str(key_frame_every)}
        stream = container.add_stream("h264", rate_hz, options=options)
        stream.width, stream.height, stream.pix_fmt = images.shape[2], images.shape[1], "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def write_v21(root: Path, *, lengths: tuple[int, ...] = (6, 4), lateness_s: float = 0.0) -> None:
    """A LeRobotDataset v2.1 at 10 Hz: a video `top`, images `side` in the table, two tasks.

    Step t of every episode has the state [t, t + 1]; its time is t / 10 + lateness_s.
    """
    meta = root / "meta"
    meta.mkdir(parents=True)
    vector = {"dtype": "float32", "shape": [2], "names": {"motors": ["a", "b"]}}
    image = {"shape": [3, 16, 24], "names": ["channels", "height", "width"]}
    features = {
        "observation.state": vector,
        "observation.images.top": {**image, "dtype": "video", "shape": [3, 48, 64]},
        "observation.images.side": {**image, "dtype": "image"},
        "observation.environment_state": {**vector, "names": None},
        "action": vector,
        "next.done": {"dtype": "bool", "shape": [1], "names": None},
        "language_instruction": {"dtype": "string", "shape": [1], "names": None},
        **{key: {"dtype": "int64", "shape": [1], "names": None} for key in ("task_index", "index")},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    }
    folder = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    video = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    info = {"codebase_version": "v2.1", "fps": 10, "chunks_size": 1, "robot_type": "cr5"}
    info |= {"data_path": folder, "video_path": video, "features": features}
    (meta / "info.json").write_text(json.dumps(info))
    tasks = [{"task_index": 0, "task": "pick"}, {"task_index": 1, "task": "place"}]
    (meta / "tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)))
    rows = [{"episode_index": i, "length": n, "tasks": []} for i, n in enumerate(lengths)]
    (meta / "episodes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for index, length in enumerate(lengths):
        names = {"episode_chunk": index, "episode_index": index}
        path = root / folder.format(**names)
        path.parent.mkdir(parents=True)
        pq.write_table(_v21_rows(index, length, lateness_s), path)
        images = smooth_images(length, (48, 64, 3), seed=index)
        path = root / video.format(video_key="observation.images.top", **names)
        write_video(path, images, rate_hz=10)


def _v21_rows(index: int, length: int, lateness_s: float) -> pa.Table:
    """Episode 0 changes its task at step 2."""
    t = np.arange(length, dtype=np.float32)
    pairs = pa.FixedSizeListArray.from_arrays(np.stack([t, t + 1], axis=1).ravel(), 2)
    side = smooth_images(length, (16, 24, 3), seed=index)
    return pa.table(
        {
            "observation.state": pairs,
            "observation.images.side": [{"bytes": png(image), "path": None} for image in side],
            "observation.environment_state": pairs,
            "action": pairs,
            "next.done": t == length - 1,
            "language_instruction": ["do it"] * length,
            "timestamp": t / np.float32(10) + np.float32(lateness_s),
            "task_index": ((t >= 2) * (index == 0)).astype(np.int64),
            "index": t.astype(np.int64),
        }
    )


def write_v3(root: Path) -> None:
    """A v3.0 dataset of numbers: episodes of 3, 2 and 4 steps in two files, state [global step]."""
    features = {
        "observation.state": {"dtype": "float64", "shape": [1], "names": None},
        "task_index": {"dtype": "int64", "shape": [1], "names": None},
    }
    info = {"codebase_version": "v3.0", "fps": 10, "total_episodes": 3, "features": features}
    info["data_path"] = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    starts, files = [0, 3, 5, 9], [0, 0, 1]
    episodes = {
        "episode_index": [0, 1, 2],
        "length": np.diff(starts),
        "data/chunk_index": [0, 0, 0],
        "data/file_index": files,
        "dataset_from_index": starts[:-1],
        "stats/observation.state/min": [0.0, 0.0, 0.0],
    }
    for path in ("meta/episodes/chunk-000", "data/chunk-000"):
        (root / path).mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps(info))
    pq.write_table(
        pa.table({"task_index": [1, 0], "task": ["b", "a"]}), root / "meta/tasks.parquet"
    )
    pq.write_table(pa.table(episodes), root / "meta/episodes/chunk-000/file-000.parquet")
    for file, (start, end) in enumerate([(0, 5), (5, 9)]):
        steps = np.arange(start, end, dtype=np.float64)
        rows = pa.table({"observation.state": steps, "task_index": (steps >= 5).astype(np.int64)})
        path = root / info["data_path"].format(chunk_index=0, file_index=file)
        pq.write_table(rows, path, row_group_size=2)  # which episodes need not keep to


def write_v1(root: Path) -> None:
    """A v1 dataset at 5 Hz of two episodes, 4 and 3 steps; state [t]."""
    t = np.concatenate([np.arange(4), np.arange(3)]).astype(np.float32)
    owners = np.repeat([0, 1], [4, 3])
    paths = [f"videos/observation.image_episode_{i:06d}.mp4" for i in owners]
    frames = [{"path": p, "timestamp": s / 5} for p, s in zip(paths, t.tolist(), strict=True)]
    rows = {
        "observation.image": frames,
        "observation.state": pa.FixedSizeListArray.from_arrays(t, 1),
        "action": pa.FixedSizeListArray.from_arrays(t, 1),
        "episode_index": owners,
        "frame_index": t.astype(np.int64),
        "timestamp": t / np.float32(5),
        "episode_data_index_from": owners * 4,
    }
    (root / "train").mkdir(parents=True)
    table = pa.table(rows)
    path = root / "train" / "data-00000-of-00001.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    for index, length in enumerate((4, 3)):
        images = smooth_images(length, (32, 48, 3), seed=index)
        write_video(root / paths[4 * index], images, rate_hz=5)


def png(image: np.ndarray) -> bytes:
    """The image (H, W, 3) as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def real(name: str) -> Path:
    """A folder of the real demonstrations; skips the test where it is not at hand."""
    if not (DATA / name).is_dir():
        pytest.skip(f"the real demonstrations {name} are not beside this checkout")
    return (DATA / name).resolve()
