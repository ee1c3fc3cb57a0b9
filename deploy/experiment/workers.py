"""Workers: processes that evaluate cells, each one cell at a time on one thread.

    parent  --cell--> worker: evaluate -> <folder>.partial-<pid> -> <folder>
            <-outcome-

A worker that fails, or dies, costs its cell only. None outlives its parent: one that was killed
cannot end them, so each looks for itself.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from deploy.evaluate import EvaluateConfig, evaluate

logger = logging.getLogger(__name__)
PARTIAL, PREVIOUS = ".partial-", ".previous"
POLL_S = 0.5
TERMINATION_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """A cell to be evaluated.

    Attributes:
        name: of the cell, for messages.
        evaluation: what is called; its output_dir is where everything shall be.
        command: that is told to the results.
        cell: what `cell.json` shall hold.
    """

    name: str
    evaluation: EvaluateConfig
    command: str
    cell: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a job.

    Attributes:
        name: of the cell.
        error: why there are no results; "" if there are.
        success_rate, success_interval: of the results.
        seconds: that it took.
    """

    name: str
    error: str = ""
    success_rate: float = 0.0
    success_interval: tuple[float, float] = (0.0, 1.0)
    seconds: float = 0.0


class Workers:
    """Some processes; a context manager that ends them."""

    def __init__(self, num_processes: int) -> None:
        """ValueError if there is to be none."""
        if num_processes < 1:
            raise ValueError(f"num_processes is {num_processes}, expected at least 1")
        self._num = num_processes
        self._context = multiprocessing.get_context("spawn")  # OpenGL does not survive a fork
        self._processes: dict[Connection, BaseProcess] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_error: object) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.join(TERMINATION_S)
            process.kill()

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Outcomes as they come; jobs begin in their order."""
        waiting, busy = list(jobs), dict[Connection, Job]()
        while waiting or busy:
            while waiting and len(busy) < self._num:
                connection = self._idle(busy)
                busy[connection] = waiting.pop(0)
                connection.send(busy[connection])
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                job = busy.pop(ready)
                try:
                    yield ready.recv()
                except EOFError:
                    process = self._processes.pop(ready)
                    process.join()
                    yield Outcome(name=job.name, error=f"its process died ({process.exitcode})")

    def _idle(self, busy: dict[Connection, Job]) -> Connection:
        for connection in self._processes:
            if connection not in busy:
                return connection
        connection, theirs = self._context.Pipe()
        process = self._context.Process(
            target=work, args=(theirs, os.getpid()), name="experiment worker", daemon=True
        )
        process.start()
        theirs.close()  # so that the worker's death is the end of the pipe
        self._processes[connection] = process
        return connection


def work(connection: Connection, parent: int) -> None:
    """Evaluate one job after the other until the parent hangs up. The process's main."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    while True:
        try:
            job: Job = connection.recv()
        except EOFError:
            return
        began_s = time.monotonic()
        try:
            results = evaluate_job(job)
        except Exception as error:  # whatever it is, the other cells go on
            logger.exception("%s failed", job.name)
            last = traceback.extract_tb(error.__traceback__)[-1]
            words = f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
            connection.send(Outcome(name=job.name, error=words))
            continue
        connection.send(
            Outcome(
                name=job.name,
                success_rate=results["success_rate"],
                success_interval=tuple(results["success_interval"]),
                seconds=time.monotonic() - began_s,
            )
        )


def evaluate_job(job: Job) -> dict[str, Any]:
    """Evaluate, and put the folder in its place once it is whole; returns the results."""
    folder = Path(job.evaluation.output_dir)
    partial = folder.with_name(f"{folder.name}{PARTIAL}{os.getpid()}")
    previous = folder.with_name(folder.name + PREVIOUS)
    try:
        results = evaluate(replace(job.evaluation, output_dir=str(partial)), command=job.command)
        (partial / "cell.json").write_text(json.dumps(job.cell, indent=1) + "\n")
        if folder.exists():  # of another key; a folder cannot be replaced in one go
            shutil.rmtree(previous, ignore_errors=True)
            folder.rename(previous)
        partial.rename(folder)
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return results


def remove_partial(output_dir: Path) -> None:
    """Remove what workers that were killed have left."""
    for path in (*output_dir.glob(f"*/*{PARTIAL}*"), *output_dir.glob(f"*/*{PREVIOUS}")):
        shutil.rmtree(path, ignore_errors=True)


def _leave_with(parent: int) -> None:
    """End this process once its parent is gone."""
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os._exit(1)
