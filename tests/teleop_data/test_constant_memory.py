"""Windows of a store that is larger than the memory the process may have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.schema import Feature, Schema

REPOSITORY = Path(__file__).parents[2]
SCHEMA = Schema(
    features=(
        Feature(name="front", shape=(240, 320, 3), dtype="uint8", role="camera"),
        Feature(name="state", shape=(2,)),
        Feature(name="action", shape=(2,), role="action"),
    ),
    rate_hz=10.0,
)
NUM_EPISODES, NUM_STEPS = 10, 160
DECODED_MB = NUM_EPISODES * NUM_STEPS * 240 * 320 * 3 // 2**20  # 351
LIMIT_MB = 150  # beyond what the imports take; RLIMIT_DATA counts memory, not mapped files

READ = """
import resource, sys
import numpy as np
from pathlib import Path
from teleop_data.dataset import WindowDataset
from teleop_data.replay_buffer import ReplayBuffer

path, limit_mb, options = sys.argv[1], int(sys.argv[2]), eval(sys.argv[3])
buffer = ReplayBuffer.open(path)
buffer["front"][0]
used = next(l for l in Path("/proc/self/status").read_text().splitlines() if "VmData" in l)
limit = int(used.split()[1]) * 1024 + limit_mb * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
dataset = WindowDataset(
    buffer, schema=buffer.schema, episodes=np.arange(buffer.num_episodes),
    context=16, horizon=1, **options,
)
for index in np.random.default_rng(0).integers(0, len(dataset), 300):
    window = dataset[int(index)]
    assert (window["front"][-1] == window["state"][-1, 0]).all()
print("read")
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every picture is of one colour, which the state names."""
    path = tmp_path_factory.mktemp("large") / "a.zarr"
    buffer = ReplayBuffer.create(path, SCHEMA)
    for episode in range(NUM_EPISODES):
        colour = (np.arange(NUM_STEPS) + episode) % 250
        pictures = np.broadcast_to(
            colour[:, None, None, None].astype(np.uint8), (NUM_STEPS, 240, 320, 3)
        )
        told = np.repeat(colour[:, None], 2, axis=1).astype(np.float32)
        buffer.append_episode({"front": pictures, "state": told, "action": told})
    return path


def read(store: Path, *, options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", READ, str(store), str(LIMIT_MB), options],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PATH": ""},
    )


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts memory only on Linux")
def test_larger_than_memory(store: Path, tmp_path: Path) -> None:
    """From the store and through a scratch file it is read; held in memory it does not fit."""
    assert DECODED_MB > 2 * LIMIT_MB
    for options in (
        "{'camera_cache_bytes': 0}",
        f"{{'camera_cache_bytes': 0, 'decoded_dir': {str(tmp_path)!r}}}",
    ):
        done = read(store, options=options)
        assert done.stdout == "read\n", done.stderr
    assert not list(tmp_path.iterdir())
    done = read(store, options="{}")
    assert "MemoryError" in done.stderr
