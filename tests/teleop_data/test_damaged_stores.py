"""Stores cut off in mid-write or in mid-copy: every finished episode, or a clear StoreError."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from teleop_data.replay_buffer import ReplayBuffer, StoreError
from tests.teleop_data.stores import (
    LENGTHS,
    SCHEMA,
    episode,
    write_store,
    write_v2_store,
    zip_store,
)

REPOSITORY = Path(__file__).parents[2]

# For n = 1, 2, ...: a process appends episode 3 to a store of three and dies at the n-th file that
# zarr moves into place. Forked before zarr starts its thread, since importing it takes seconds.
DIES_AT_EVERY_MOVE = """
import os, signal, shutil, sys
from pathlib import Path
from teleop_data.replay_buffer import ReplayBuffer
from tests.teleop_data.stores import LENGTHS, episode

def append_and_die(path, last_move):
    moves, replace = 0, os.replace

    def replace_or_die(source, target, **options):
        nonlocal moves
        moves += 1
        if moves == last_move:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target, **options)

    buffer = ReplayBuffer.open(path, mode="r+")
    os.replace = replace_or_die
    buffer.append_episode(episode(LENGTHS[3], seed=3), attributes={"seed": 3})

whole, status, move = Path(sys.argv[1]), signal.SIGKILL, 0
while status == signal.SIGKILL:
    move += 1
    path = shutil.copytree(whole, whole.with_name(f"killed_at_{move:02}"))
    child = os.fork()
    if child == 0:
        append_and_die(path, move)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
sys.exit(status)
"""

# Appends episodes of 300 steps for ever and says how many are finished.
APPENDS_FOR_EVER = """
import sys
from pathlib import Path
from teleop_data.replay_buffer import ReplayBuffer
from tests.teleop_data.stores import SCHEMA, episode

buffer = ReplayBuffer.create(Path(sys.argv[1]), SCHEMA)
for seed in range(1000):
    buffer.append_episode(episode(300, seed=seed))
    print(seed + 1, flush=True)
"""


def assert_first_episodes(buffer: ReplayBuffer, lengths: tuple[int, ...]) -> None:
    assert buffer.episode_ends.tolist() == np.cumsum(lengths).tolist()
    for seed, length in enumerate(lengths):
        for name, values in episode(length, seed=seed).items():
            np.testing.assert_array_equal(buffer.episode(seed)[name], values)


@pytest.mark.timeout(600)  # a dozen processes, on a machine that may be busy with training
def test_killed_at_every_file_of_an_append(tmp_path: Path) -> None:
    write_store(tmp_path / "whole", lengths=LENGTHS[:3])
    command = [sys.executable, "-c", DIES_AT_EVERY_MOVE, str(tmp_path / "whole")]
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=500)
    *killed, survivor = sorted(tmp_path.glob("killed_at_*"))
    assert_first_episodes(ReplayBuffer.open(survivor), LENGTHS)
    assert len(killed) >= 2 * len(SCHEMA.features) + 2  # metadata and shard each, attributes, ends
    for path in killed:
        assert_first_episodes(ReplayBuffer.open(path), LENGTHS[:3])
        assert ReplayBuffer.open(path).episode_attributes == [{"seed": s} for s in range(3)]
        buffer = ReplayBuffer.open(path, mode="r+")
        buffer.append_episode(episode(LENGTHS[3], seed=3), attributes={"seed": "again"})
        assert_first_episodes(ReplayBuffer.open(path), LENGTHS)
        assert buffer.episode_attributes[-1] == {"seed": "again"}


def test_killed_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    command = [sys.executable, "-c", APPENDS_FOR_EVER, str(path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(4):
            finished = int(writer.stdout.readline())
        time.sleep(0.013)  # into the fifth append
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
    finished = int(rest[-1]) if rest else finished
    buffer = ReplayBuffer.open(path)
    # the last episode may be finished without its writer having lived to say so
    assert finished <= buffer.num_episodes <= finished + 1
    assert_first_episodes(buffer, (300,) * buffer.num_episodes)


def test_first_append_interrupted_leaves_an_empty_buffer(tmp_path: Path) -> None:
    ReplayBuffer.create(tmp_path / "a.zarr", SCHEMA)
    zarr.open_array(tmp_path / "a.zarr/meta/episode_ends", mode="r+").resize((1,))
    assert ReplayBuffer.open(tmp_path / "a.zarr").num_episodes == 0


def test_interrupted_creation_is_named(tmp_path: Path) -> None:
    ReplayBuffer.create(tmp_path / "a.zarr", SCHEMA)
    del zarr.open_group(tmp_path / "a.zarr", mode="r+").attrs["forcing_schema"]
    with pytest.raises(StoreError, match="cut off while it was created"):
        ReplayBuffer.open(tmp_path / "a.zarr")


def all_files(path: Path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def open_and_read(path: Path) -> None:
    buffer = ReplayBuffer.open(path)
    assert buffer.num_steps == sum(LENGTHS)
    for index in range(buffer.num_episodes):
        for name, values in episode(LENGTHS[index], seed=index).items():
            np.testing.assert_array_equal(buffer.episode(index)[name], values)


@pytest.mark.parametrize("damage", ["lost", "emptied", "halved"])
def test_every_damaged_file_is_noticed(tmp_path: Path, damage: str) -> None:
    """Whatever one file suffers, no episode is read wrongly and the error is ours."""
    write_store(tmp_path / "a.zarr")
    files = all_files(tmp_path / "a.zarr")
    assert len(files) == 3 + 2 * len(SCHEMA.features) + 2  # groups, features, episode_ends
    for name in files:
        path = tmp_path / "damaged.zarr"
        shutil.copytree(tmp_path / "a.zarr", path)
        content = (path / name).read_bytes()
        if damage == "lost":
            (path / name).unlink()
        else:
            (path / name).write_bytes(content[: len(content) // 2 if damage == "halved" else 0])
        if name == "data/zarr.json":  # says nothing that the arrays' own metadata does not
            open_and_read(path)
        else:
            with pytest.raises(StoreError, match=str(path)):
                open_and_read(path)
        shutil.rmtree(path)


def test_store_of_zeros_keeps_its_files_and_notices_a_lost_one(tmp_path: Path) -> None:
    buffer = ReplayBuffer.create(tmp_path / "a.zarr", SCHEMA)
    zeros = {name: np.zeros_like(values) for name, values in episode(9, seed=0).items()}
    buffer.append_episode(zeros)
    assert not ReplayBuffer.open(tmp_path / "a.zarr")["front"][:].any()
    (tmp_path / "a.zarr/data/front/c/0/0/0/0").unlink()
    with pytest.raises(StoreError, match="data/front/c/0/0/0/0 .*cut off while it was copied"):
        ReplayBuffer.open(tmp_path / "a.zarr")


def test_metadata_of_a_shorter_array(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr")
    zarr.open_array(tmp_path / "a.zarr/data/action", mode="r+").resize((20, 2))
    with pytest.raises(
        StoreError, match=r"data/action has shape \(20, 2\), episodes need \(25, 2\)"
    ):
        ReplayBuffer.open(tmp_path / "a.zarr")


@pytest.mark.parametrize("ends", [[5, 6, 3, 25], [5, 5, 18, 25], [5, 6, 0, 0], [-5, 6, 18, 25]])
def test_episode_ends_that_do_not_rise(tmp_path: Path, ends: list[int]) -> None:
    write_store(tmp_path / "a.zarr")
    zarr.open_array(tmp_path / "a.zarr/meta/episode_ends", mode="r+")[:] = ends
    with pytest.raises(StoreError, match="does not rise"):
        ReplayBuffer.open(tmp_path / "a.zarr")


def test_halved_zip(tmp_path: Path) -> None:
    write_v2_store(tmp_path / "b.zarr")
    packed = zip_store(tmp_path / "b.zarr", tmp_path / "b.zip")
    packed.write_bytes(packed.read_bytes()[: packed.stat().st_size // 2])
    with pytest.raises(StoreError, match=r"b\.zip is not a whole replay buffer"):
        ReplayBuffer.open(packed)


def test_not_a_store(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no replay buffer at"):
        ReplayBuffer.open(tmp_path / "nothing.zarr")
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("not a zip")
    for name in ("folder", "notes.txt"):
        with pytest.raises(StoreError, match="expected a zarr group"):
            ReplayBuffer.open(tmp_path / name)
    zarr.open_group(tmp_path / "bare.zarr", mode="w").create_group("data")
    with pytest.raises(StoreError, match="no arrays"):
        ReplayBuffer.open(tmp_path / "bare.zarr")
