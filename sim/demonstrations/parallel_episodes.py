"""Episodes of many seeds, run by several processes and handed out in the order of the seeds.

    process A   |0------|    |3---|5------- ...     who is free takes the next seed, while at most
    process B   |1--|2-------|4-------| ...         two a process are begun and not handed out
    handed out          0 1   2   3   4

Processes are spawned, never forked: OpenGL contexts and threads do not survive a fork. They end
with the iteration, however that ends, and also if their parent is killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Self

AHEAD = 2  # seeds begun and not handed out, a process: this bounds what waits in memory
DEATH_S = 10.0  # within which a process whose connection has closed must have ended


class WorkerError(RuntimeError):
    """A process that ended before its time; the message says at which seed and how."""


def parallel_episodes[T](
    make: Callable[[], Callable[[int], T]], seeds: Iterable[int], *, num_processes: int
) -> Generator[T]:
    """`run(seed)` for each of `seeds`, in that order, with a `run = make()` in every process.

    Close it (`contextlib.closing`) if you leave it before its end: that ends the processes.

    Args:
        make: called once in each process. It and the results travel between processes: functions
            and classes of a module, plain values and arrays.
        seeds: may be endless; none comes twice.
        num_processes: at least 1.

    Raises:
        WorkerError: a process was killed, or `make` or `run` raised there, which it has printed.
    """
    upcoming = iter(seeds)
    begun: deque[int] = deque()  # in order, not handed out
    results: dict[int, T] = {}
    with ExitStack() as stack:
        with _what_workers_inherit():
            workers = [stack.enter_context(_Worker(make)) for _ in range(num_processes)]
        while True:
            free = [worker for worker in workers if worker.seed is None]
            room = AHEAD * len(workers) - len(begun)
            # zip asks the workers first, so that no seed is drawn that none of them takes
            for worker, seed in zip(free[:room], upcoming, strict=False):
                worker.begin(seed)
                begun.append(seed)
            if not begun:
                return
            results |= _collect(workers, wait_s=0.0 if begun[0] in results else None)
            if begun[0] in results:
                yield results.pop(begun.popleft())


class _Worker:
    """A process that runs one seed at a time; a context manager that ends it.

    Attributes:
        seed: that it is at; None if it is free.
        connection: has something to read when a result is there, or the process is not.
    """

    def __init__(self, make: Callable[[], Callable[[int], Any]]) -> None:
        context = multiprocessing.get_context("spawn")
        self.seed: int | None = None
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(make, theirs), daemon=True)
        self._process.start()
        theirs.close()  # the process holds the only one now: its end closes the connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()  # it has nothing to save, and may be in the middle of an episode
        self._process.join()
        self.connection.close()

    def begin(self, seed: int) -> None:
        """Give it a seed. WorkerError if it has died."""
        self.seed = seed
        try:
            self.connection.send(seed)
        except OSError as error:
            raise self._death() from error

    def take(self) -> tuple[int, Any]:
        """Its seed and the result; it is free then. WorkerError if it has died."""
        seed = self.seed
        try:
            result = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._death() from error
        assert seed is not None  # who has no seed sends nothing
        self.seed = None
        return seed, result

    def _death(self) -> WorkerError:
        self._process.join(DEATH_S)
        status = self._process.exitcode
        if status is not None and status < 0:
            how = f"was killed by {signal.Signals(-status).name}"
        else:
            how = f"ended with status {status}; its own words are above"
        where = "between two seeds" if self.seed is None else f"at seed {self.seed}"
        return WorkerError(f"a process that runs episodes, {where}, {how}")


def _collect(workers: Sequence[_Worker], *, wait_s: float | None) -> dict[int, Any]:
    """Results by seed that are there within `wait_s`; None waits for one."""
    ready = wait([worker.connection for worker in workers], wait_s)
    return dict(worker.take() for worker in workers if worker.connection in ready)


@contextmanager
def _what_workers_inherit() -> Iterator[None]:
    """Processes started meanwhile do not hear Ctrl-C (their parent does, and ends them), and use
    one thread for arithmetic, as there are several of them."""
    resource_tracker.ensure_running()  # starting it with the first process would unblock signals
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    num_threads = os.environ.get("OMP_NUM_THREADS")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        yield
    finally:
        if num_threads is None:
            del os.environ["OMP_NUM_THREADS"]
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _work(make: Callable[[], Callable[[int], Any]], connection: Connection) -> None:
    """What a process does: seeds in, results out."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    run = make()
    while True:
        connection.send(run(connection.recv()))


def _leave_with_parent() -> None:
    """End this process as soon as its parent has ended, in whatever way."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
