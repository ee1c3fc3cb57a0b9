"""Parallel episodes: order, how far ahead, and that no process outlives its use."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sim.demonstrations.parallel_episodes import AHEAD, WorkerError, parallel_episodes

REPOSITORY = Path(__file__).parents[3]
LONG = 1000  # the seed that takes longest
RUNS_FOR_EVER = """
from sim.demonstrations.parallel_episodes import parallel_episodes
from tests.sim.demonstrations.test_parallel_episodes import make_endless

next(parallel_episodes(make_endless, [0], num_processes=1))
"""


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def make_uneven() -> Callable[[int], tuple[int, int]]:
    """(seed, process): even seeds take their time, so that later ones overtake them."""

    def run(seed: int) -> tuple[int, int]:
        time.sleep(1.5 if seed == LONG else 0.15 if seed % 2 == 0 else 0.0)
        return seed, os.getpid()

    return run


def make_failing() -> Callable[[int], int]:
    """Raises at seed 3, is killed at seed 13."""

    def run(seed: int) -> int:
        if seed == 3:
            raise ZeroDivisionError("the arm is divided by nothing")
        if seed == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        return seed

    return run


def make_broken() -> Callable[[int], int]:
    raise ZeroDivisionError("no arm in this process")


def make_endless() -> Callable[[int], None]:
    """Tells its process and never ends."""

    def run(seed: int) -> None:
        print(os.getpid(), flush=True)
        time.sleep(600)

    return run


def make_surroundings() -> Callable[[int], tuple[str | None, bool]]:
    """(threads for arithmetic, whether Ctrl-C is heard)."""
    hears = signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return lambda seed: (os.environ.get("OMP_NUM_THREADS"), hears)


def test_results_come_in_the_order_of_the_seeds():
    seeds = [4, 7, 5, 0, 9, 1, 2, 3]
    results = list(parallel_episodes(make_uneven, seeds, num_processes=2))
    assert [seed for seed, _ in results] == seeds
    pids = {pid for _, pid in results}
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert not any(is_running(pid) for pid in pids)


def test_more_processes_than_seeds_and_no_seeds_at_all():
    results = parallel_episodes(make_uneven, [5], num_processes=2)
    assert [seed for seed, _ in results] == [5]
    assert list(parallel_episodes(make_uneven, [], num_processes=1)) == []


def test_seeds_are_begun_only_so_far_ahead():
    drawn: list[int] = []

    def seeds() -> Iterator[int]:
        for seed in itertools.chain([LONG], itertools.count(1, 2)):  # odd ones are quick
            drawn.append(seed)
            yield seed

    with closing(parallel_episodes(make_uneven, seeds(), num_processes=2)) as results:
        next(results)  # while the other process has had the time for many
        assert len(drawn) <= 2 * AHEAD
        for _ in range(5):
            next(results)
        assert len(drawn) <= 6 + 2 * AHEAD


def test_leaving_early_ends_the_processes_at_once():
    with closing(parallel_episodes(make_uneven, itertools.count(), num_processes=2)) as results:
        pids = {next(results)[1] for _ in range(4)}
        assert any(is_running(pid) for pid in pids)
    assert not any(is_running(pid) for pid in pids)


@pytest.mark.parametrize(
    ("first", "message"),
    [(0, "at seed 3, ended with status 1; its own words"), (10, "at seed 13, .* by SIGKILL")],
)
def test_a_process_that_dies_is_named_after_what_was_finished(
    first: int, message: str, capfd: pytest.CaptureFixture[str]
):
    handed_out: list[int] = []
    episodes = parallel_episodes(make_failing, itertools.count(first), num_processes=1)
    with pytest.raises(WorkerError, match=message):
        handed_out.extend(episodes)
    assert handed_out == [first, first + 1, first + 2]
    assert ("the arm is divided by nothing" in capfd.readouterr().err) == (first == 0)


def test_a_process_that_cannot_begin_is_no_endless_wait(capfd: pytest.CaptureFixture[str]):
    with pytest.raises(WorkerError, match="at seed 0, ended with status 1"):
        next(parallel_episodes(make_broken, itertools.count(), num_processes=1))
    assert "no arm in this process" in capfd.readouterr().err


def test_processes_use_one_thread_and_leave_ctrl_c_to_their_parent(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert list(parallel_episodes(make_surroundings, [0], num_processes=1)) == [("1", False)]
    assert "OMP_NUM_THREADS" not in os.environ  # of this process, nothing has changed
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert list(parallel_episodes(make_surroundings, [0], num_processes=1)) == [("3", False)]
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_a_killed_parent_is_not_survived_by_an_episode():
    command = [sys.executable, "-c", RUNS_FOR_EVER]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
    deadline_s = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not is_running(pid)
