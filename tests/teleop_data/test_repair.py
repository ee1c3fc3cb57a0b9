"""forcing-repair: what is kept is bit for bit what it was, and the old store is not touched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from teleop_data.repair import RepairConfig, plan_repairs, run
from teleop_data.replay_buffer import ReplayBuffer
from tests.teleop_data.stores import LENGTHS, episode, write_store, write_v2_store

REPOSITORY = Path(__file__).parents[2]


def bytes_of(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def repaired(tmp_path: Path, **options: object) -> ReplayBuffer:
    """The store of `write_store` or what is at old.zarr, repaired; the old one is untouched."""
    old = tmp_path / "old.zarr"
    if not old.exists():
        write_store(old)
    before = bytes_of(old)
    run(RepairConfig(path=str(old), target=str(tmp_path / "new.zarr"), **options))  # type: ignore[arg-type]
    assert bytes_of(old) == before
    return ReplayBuffer.open(tmp_path / "new.zarr")


def assert_rows(buffer: ReplayBuffer, index: int, *, seed: int, rows: slice) -> None:
    """Episode `index` is the rows of the episode of that seed, bit for bit."""
    for name, values in episode(LENGTHS[seed], seed=seed).items():
        np.testing.assert_array_equal(buffer.episode(index)[name], values[rows], strict=True)


def test_drop_and_cut(tmp_path: Path) -> None:
    buffer = repaired(tmp_path, drop=[1], keep_steps=[[2, 3, 10]])
    assert buffer.episode_ends.tolist() == [5, 12, 19]
    assert_rows(buffer, 0, seed=0, rows=slice(None))
    assert_rows(buffer, 1, seed=2, rows=slice(3, 10))
    assert_rows(buffer, 2, seed=3, rows=slice(None))
    assert buffer.episode_attributes == [
        {"seed": 0},
        {"seed": 2, "repaired": ["episode 2 of old.zarr: kept steps 3 to 9 of 12"]},
        {"seed": 3},
    ]
    assert buffer.provenance == {
        "operator": "nobody",
        "repairs": [
            {
                "from": str(tmp_path / "old.zarr"),
                "options": {"drop": [1], "keep_steps": [[2, 3, 10]]},
                "dropped": [1],
            }
        ],
    }


def test_a_second_repair_adds_to_the_first(tmp_path: Path) -> None:
    repaired(tmp_path, drop=[0]).path.rename(tmp_path / "once.zarr")
    run(
        RepairConfig(
            path=str(tmp_path / "once.zarr"),
            target=str(tmp_path / "twice.zarr"),
            keep_steps=[[1, 0, 4]],
        )
    )
    buffer = ReplayBuffer.open(tmp_path / "twice.zarr")
    assert [done["dropped"] for done in buffer.provenance["repairs"]] == [[0], []]
    assert_rows(buffer, 1, seed=2, rows=slice(0, 4))


def test_idle_starts_and_ends_are_cut(tmp_path: Path) -> None:
    """At 20 Hz a margin of 0.1 s is two steps; an episode that never moves is left out."""
    buffer = write_store(tmp_path / "old.zarr", lengths=(6,))
    moving, idle = episode(40, seed=7), episode(9, seed=8)
    for name in ("state", "action"):
        moving[name][:10] = moving[name][9]
        moving[name][30:] = moving[name][30]
        idle[name][:] = idle[name][0]
    buffer.append_episode(moving)
    buffer.append_episode(idle)
    new = repaired(tmp_path, drop_idle=True, idle_margin_s=0.1)
    assert new.num_episodes == 2
    # still up to step 9 and from step 31 on: kept are 8 to 32
    for name, values in moving.items():
        np.testing.assert_array_equal(new.episode(1)[name], values[8:33], strict=True)
    reason = "episode 1 of old.zarr: cut 8 idle steps at the start and 7 at the end"
    assert new.episode_attributes[1]["repaired"] == [reason]
    assert new.provenance["repairs"][0]["dropped"] == [2]


def test_relabel(tmp_path: Path) -> None:
    """Labels are given in old steps, also where steps are cut away before them."""
    buffer = repaired(
        tmp_path,
        keep_steps=[[2, 2, 12]],
        attributes=[[2, "seed", None], [2, "task", "swap"]],
        labels=[[2, "contacts", 0, 4, 7], [2, "contacts", 10, 12, 9]],
    )
    told = buffer.episode_attributes[2]
    assert (told["task"], "seed" in told) == ("swap", False)
    expected = episode(LENGTHS[2], seed=2)["contacts"]
    expected[:4], expected[10:] = 7, 9
    np.testing.assert_array_equal(buffer.episode(2)["contacts"], expected[2:])
    state = episode(LENGTHS[2], seed=2)["state"]
    np.testing.assert_array_equal(buffer.episode(2)["state"], state[2:], strict=True)


def test_drop_unsuccessful(tmp_path: Path) -> None:
    buffer = write_store(tmp_path / "old.zarr")
    buffer.append_episode(episode(4, seed=9), attributes={"success": False})
    assert repaired(tmp_path, drop_unsuccessful=True).num_episodes == len(LENGTHS)


def test_a_store_of_others(tmp_path: Path) -> None:
    arrays = write_v2_store(tmp_path / "old.zarr")
    buffer = repaired(tmp_path, drop=[0])
    np.testing.assert_array_equal(buffer["img"][:], arrays["img"][LENGTHS[0] :].astype(np.uint8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop": [4]}, r"no episodes \[4\]; .* has 0..3"),
        ({"drop": [0, 1, 2, 3]}, "no episode of .* would be left"),
        ({"keep_steps": [[0, 2, 6]]}, r"steps 2..6 of episode 0, expected .* in 0..5"),
        ({"keep_steps": [[0, 2]]}, r"keep_steps: \[0, 2\] has 2 parts, expected 3"),
        ({"labels": [[0, "state", 0, 1, 2]]}, "only features of role 'other' .* contacts"),
        ({"labels": [[0, "contacts", 0, 6, 2]]}, r"labels: steps 0..6 of episode 0"),
        ({"labels": [[0, "contacts", 0, 1, 2.5]]}, "2.5 is not a value of 'contacts', int64"),
        ({"idle_margin_s": -1.0}, "idle_margin_s must be at least 0"),
    ],
)
def test_refuses(tmp_path: Path, options: dict, message: str) -> None:
    buffer = write_store(tmp_path / "old.zarr")
    with pytest.raises(ValueError, match=message):
        plan_repairs(buffer, RepairConfig(**options))


def repair_command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "teleop_data.repair", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        timeout=100,
        env={"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PATH": ""},
    )


def test_command_line(tmp_path: Path) -> None:
    write_store(tmp_path / "old.zarr")
    arguments = ["path=old.zarr", "target=new.zarr", "drop=[0]", "keep_steps=[[2,0,7]]"]
    arguments += ["attributes=[[3,task,push]]", "labels=[[3,contacts,0,7,4]]"]
    done = repair_command(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "new.zarr: 3 episodes, 15 steps; left out 1 episodes, 10 steps" in done.stdout
    buffer = ReplayBuffer.open(tmp_path / "new.zarr")
    assert buffer.episode(2)["contacts"].tolist() == [4] * 7
    assert buffer.episode_attributes[2]["task"] == "push"
    for wrong, message in (
        (arguments, "new.zarr exists"),
        (["path=old.zarr", "target=b.zarr", "drop=[9]"], "no episodes [9]"),
        (["path=old.zarr"], "target is not given; say target=..."),
    ):
        done = repair_command(*wrong, cwd=tmp_path)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert {file.name for file in tmp_path.iterdir()} == {"old.zarr", "new.zarr"}
