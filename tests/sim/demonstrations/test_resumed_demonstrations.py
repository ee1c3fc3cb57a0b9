"""forcing-generate, stopped in every way and called again: the store of an undisturbed call."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sim.demonstrations.demonstrator import Demonstration, Demonstrator
from sim.demonstrations.store import DemonstrationStore
from sim.generate_demonstrations import provenance_of, run
from sim.tasks.pick_place import pick_place_environment
from teleop_data.replay_buffer import ReplayBuffer, StoreError
from teleop_data.sole_use import SoleUse
from tests.sim.demonstrations.generating import Fickle, contents, fickle, generate, seeds, started
from tests.sim.demonstrations.test_parallel_episodes import is_running


def test_a_greater_number_extends_what_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
):
    run(fickle(tmp_path / "whole" / "d.zarr", num_episodes=4))
    whole = contents(tmp_path / "whole")
    run(fickle(tmp_path / "grown" / "d.zarr", num_episodes=1))
    capsys.readouterr()
    with caplog.at_level("INFO"):
        run(fickle(tmp_path / "grown" / "d.zarr", num_episodes=4))
    assert contents(tmp_path / "grown") == whole
    assert "4 failed attempts left out; 3 made in" in caplog.text  # of both calls
    assert "a minute, 4 failed" in capsys.readouterr().err  # and so the expert is judged by both
    with pytest.raises(ValueError, match="holds 4 demonstrations, more than num_episodes=3"):
        run(fickle(tmp_path / "grown" / "d.zarr", num_episodes=3))
    assert contents(tmp_path / "grown") == whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first_seed": 2}, "first_seed is 1 there and 2 here"),
        ({"max_steps": 60}, "settings.environment.max_steps is 70 there and 60 here"),
    ],
)
def test_another_call_is_not_gone_on_with(tmp_path: Path, changes: dict[str, int], message: str):
    run(fickle(tmp_path / "d.zarr", num_episodes=1))
    before = contents(tmp_path)
    config = fickle(tmp_path / "d.zarr", num_episodes=2, **changes)
    with pytest.raises(ValueError, match=message):
        run(config)
    assert contents(tmp_path) == before


def test_other_features_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run(fickle(tmp_path / "d.zarr", num_episodes=1))
    monkeypatch.setattr(Fickle, "label_features", ())
    with pytest.raises(ValueError, match="other features .*'subgoal'"):
        run(fickle(tmp_path / "d.zarr", num_episodes=2))


def test_a_store_that_no_call_of_ours_made_is_refused(tmp_path: Path):
    ReplayBuffer.create(tmp_path / "d.zarr", pick_place_environment().schema)
    with pytest.raises(ValueError, match="task is None there and 'pick_place' here"):
        run(fickle(tmp_path / "d.zarr", num_episodes=1))


def is_half_created(path: Path) -> bool:
    """Whether a store is there that no episode ever entered, and none can."""
    root = path / "zarr.json"
    return path.exists() and not (root.exists() and "forcing_schema" in root.read_text())


class Remembering(Demonstrator):
    """Demonstrates each seed once and then gives what it remembers: this is about the disk."""

    known: ClassVar[dict[int, Demonstration]] = {}

    def __call__(self, seed: int) -> Demonstration:
        if seed not in self.known:
            self.known[seed] = super().__call__(seed)
        return self.known[seed]


def test_a_full_disk_at_any_file_costs_no_finished_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The n-th file cannot be written, for every n; the same call again makes the same store."""
    monkeypatch.setattr("sim.generate_demonstrations.Demonstrator", Remembering)
    short = {"first_seed": 2, "num_episodes": 2}
    run(fickle(tmp_path / "whole" / "d.zarr", **short))
    whole = contents(tmp_path / "whole")
    replace, num_created, is_whole, limit = os.replace, 0, False, 0
    while not is_whole:
        limit, num_moves = limit + 1, itertools.count(1)

        def replace_or_fail(*places: Any, num_moves=num_moves, limit=limit, **options: Any) -> None:
            if next(num_moves) >= limit:
                raise OSError("the disk is full")
            replace(*places, **options)

        folder = tmp_path / str(limit)
        config = fickle(folder / "d.zarr", **short)
        with monkeypatch.context() as patch, suppress(OSError):
            patch.setattr(os, "replace", replace_or_fail)
            run(config)
            is_whole = True
        if is_half_created(folder / "d.zarr"):
            with pytest.raises(ValueError, match="Remove what is there, or choose another output"):
                run(config)
            num_created = limit
        else:
            run(config)
            assert contents(folder) == whole
    assert num_created > 3
    assert limit > num_created + 10


def wait_for_episodes(path: Path, *, num: int) -> None:
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        if path.exists():
            with suppress(StoreError):  # which is being created
                if ReplayBuffer.open(path).num_episodes >= num:
                    return
        time.sleep(0.01)
    raise TimeoutError(f"{num} episodes in {path}")


def children_of(process: subprocess.Popen[str]) -> list[int]:
    tasks = Path(f"/proc/{process.pid}/task/{process.pid}")
    return [int(pid) for pid in (tasks / "children").read_text().split()]


def wait_for_end(pids: list[int]) -> None:
    deadline_s = time.monotonic() + 10
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline_s, "a process outlives the command"
        time.sleep(0.02)


def test_killed_and_called_again_it_makes_the_store_of_an_undisturbed_call(tmp_path: Path):
    arguments = ("output=d.zarr", "num_episodes=30", "num_processes=2")
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    undisturbed.mkdir()
    disturbed.mkdir()
    with started(*arguments, cwd=disturbed) as command:
        wait_for_episodes(disturbed / "d.zarr", num=5)
        children = children_of(command)
        command.kill()
    wait_for_end(children)
    assert len(children) >= 2
    assert 5 <= ReplayBuffer.open(disturbed / "d.zarr").num_episodes < 30
    assert generate(*arguments, cwd=disturbed).returncode == 0
    assert generate(*arguments, cwd=undisturbed).returncode == 0
    assert contents(disturbed) == contents(undisturbed)
    assert seeds(disturbed / "d.zarr") == list(range(30))


ENDLESS = ("output=d.zarr", "num_episodes=10000", "num_processes=2")


def test_ctrl_c_stops_at_once_and_keeps_what_is_finished(tmp_path: Path):
    with started(*ENDLESS, cwd=tmp_path) as command:
        wait_for_episodes(tmp_path / "d.zarr", num=2)
        children = children_of(command)
        os.killpg(command.pid, signal.SIGINT)  # to all of them, as a terminal does
        _, words = command.communicate(timeout=20)
    wait_for_end(children)
    assert command.returncode == 1
    assert "stopped. Every finished demonstration is kept" in words
    assert "Traceback" not in words
    finished = seeds(tmp_path / "d.zarr")
    assert finished == list(range(len(finished)))


def test_a_killed_process_ends_the_command_with_a_sentence(tmp_path: Path):
    with started(*ENDLESS, cwd=tmp_path) as command:
        wait_for_episodes(tmp_path / "d.zarr", num=1)
        children = children_of(command)
        os.kill(children[-1], signal.SIGKILL)
        _, words = command.communicate(timeout=20)
    wait_for_end(children)
    assert command.returncode == 1
    assert re.search(r"at seed \d+, was killed by SIGKILL. Every finished", words)
    assert "Traceback" not in words
    assert ReplayBuffer.open(tmp_path / "d.zarr").num_episodes >= 1


def test_a_second_call_is_turned_away_while_the_first_is_at_work(tmp_path: Path):
    run(fickle(tmp_path / "d.zarr", num_episodes=1))
    before = contents(tmp_path)
    with (
        SoleUse(tmp_path / "d.zarr"),
        pytest.raises(ValueError, match=r"another process writes to .*d\.zarr.*another output"),
    ):
        run(fickle(tmp_path / "d.zarr", num_episodes=2))
    assert contents(tmp_path) == before
    run(fickle(tmp_path / "d.zarr", num_episodes=2))


def test_a_store_is_taken_with_its_first_demonstration(tmp_path: Path):
    config = fickle(tmp_path / "d.zarr", num_episodes=1)
    with DemonstrationStore(tmp_path / "d.zarr", provenance=provenance_of(config)) as store:
        with closing(Demonstrator(config.task.environment, config.task.expert or {})) as show:
            store.expect(show.schema)
            store.append(show(2))  # an even seed succeeds
        with pytest.raises(ValueError, match="another process writes to"):
            run(config)
