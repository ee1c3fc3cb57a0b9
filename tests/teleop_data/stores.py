"""Small stores for the tests: ours, and what Diffusion Policy's code would have written."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr

from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.schema import Feature, Schema

SCHEMA = Schema(
    features=(
        Feature(name="front", shape=(6, 8, 3), dtype="uint8", role="camera"),
        Feature(name="state", shape=(3,), unit="rad", angles=(2,)),
        Feature(name="action", shape=(2,), role="action", unit="rad"),
        Feature(name="contacts", shape=(), dtype="int64", role="other"),
    ),
    rate_hz=20.0,
)
LENGTHS = (5, 1, 12, 7)
PUSHT = Path(__file__).parents[2] / ".." / "shared" / "data" / "pusht"


def episode(length: int, *, seed: int) -> dict[str, np.ndarray]:
    """One episode of `SCHEMA`, a function of the arguments."""
    rng = np.random.default_rng(seed)
    return {
        "front": rng.integers(0, 256, (length, 6, 8, 3)).astype(np.uint8),
        "state": rng.normal(size=(length, 3)).astype(np.float32),
        "action": rng.normal(size=(length, 2)).astype(np.float32),
        "contacts": rng.integers(0, 5, length),
    }


def write_store(path: Path, *, lengths: tuple[int, ...] = LENGTHS) -> ReplayBuffer:
    """Our store with one episode a length, episode i made from seed i."""
    buffer = ReplayBuffer.create(path, SCHEMA, provenance={"operator": "nobody"})
    for seed, length in enumerate(lengths):
        buffer.append_episode(episode(length, seed=seed), attributes={"seed": seed})
    return buffer


def write_v2_store(
    path: Path, *, lengths: tuple[int, ...] = LENGTHS, frame_offset: float = 0.0
) -> dict[str, np.ndarray]:
    """Diffusion Policy's layout: zarr v2, Blosc, float32 images under `img`; returns the arrays.

    The directory store is written at `path`; `frame_offset` is added to the images.
    """
    root = zarr.open_group(path, mode="w", zarr_format=2)
    data, meta = root.create_group("data"), root.create_group("meta")
    parts = [episode(length, seed=seed) for seed, length in enumerate(lengths)]
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    arrays["img"] = arrays.pop("front").astype(np.float32) + np.float32(frame_offset)
    ends = np.cumsum(lengths, dtype=np.int64)
    for group, name, values in [
        *((data, name, values) for name, values in arrays.items()),
        (meta, "episode_ends", ends),
    ]:
        array = group.create_array(
            name,
            shape=values.shape,
            chunks=(min(8, len(values)), *values.shape[1:]),
            dtype=values.dtype,
            compressors=numcodecs.Blosc(cname="zstd", clevel=5, shuffle=2),
        )
        array[:] = values
    return arrays


def zip_store(directory: Path, path: Path) -> Path:
    """The directory store as a zip with the group at its root."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(directory.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(directory).as_posix())
    return path


def real_pusht() -> Path:
    """The human Push-T demonstrations; skips the test where they are not at hand."""
    path = PUSHT / "pusht_cchi_v7_replay.zarr"
    if not path.is_dir():
        pytest.skip("the human Push-T demonstrations are not beside this checkout")
    return path.resolve()
