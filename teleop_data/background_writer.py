"""Writing behind the loop: one thread for the journal, one for the store.

    loop --bounded queue--> journal thread --finished journals--> store thread --> replay buffer
                            a write a step                        compresses, while the next episode
                                                                  is recorded

The loop never waits for the disk. Where the queue is full a step is lost, which `add` tells at
once. A failure of the disk ends the writing and is kept in `failure`; what was written before stays
in the journal.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from teleop_data.journal import JournalWriter
from teleop_data.recording_store import RecordingStore
from teleop_data.schema import Schema

NICENESS = 10  # of the store thread: it has time until the end of the session


class BackgroundWriter:
    """Takes steps from one thread, writes them in others. `close` must be called.

    Attributes:
        failure: why nothing more can be written; "" while all is well.
    """

    def __init__(
        self, store: RecordingStore, *, capacity: int, report: Callable[[str], None] = print
    ) -> None:
        """Write into `store`; at most `capacity` steps wait in memory.

        `report` is told of finished episodes and of failures, from the writing threads.
        """
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1 step, got {capacity}")
        self._store, self._capacity, self._report = store, capacity, report
        self.failure = ""
        self._journal: JournalWriter | None = None
        self._num_waiting, self._lock = 0, threading.Lock()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._finished: queue.SimpleQueue[tuple[Path, Mapping[str, Any]] | None] = (
            queue.SimpleQueue()
        )
        self._threads = [
            threading.Thread(target=self._write_journals, name="journal", daemon=True),
            threading.Thread(target=self._store_episodes, name="store", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def num_waiting(self) -> int:
        """Steps that were added and are not in the journal yet."""
        return self._num_waiting

    def start(self, schema: Schema, facts: Mapping[str, Any]) -> None:
        """Begin the journal of an episode; the one before is finished or dropped."""
        self._jobs.put(lambda: self._start(schema, facts))

    def add(self, values: Mapping[str, np.ndarray]) -> bool:
        """Whether the step will be written: there was room. `values` must not change any more."""
        with self._lock:
            if self._num_waiting >= self._capacity:
                return False
            self._num_waiting += 1
        self._jobs.put(lambda: self._add(values))
        return True

    def note(self, note: Mapping[str, Any]) -> None:
        """Write something JSON-ready that happened after the steps so far."""
        self._jobs.put(lambda: self._note(note))

    def finish(self, attributes: Mapping[str, Any], *, summary: str) -> None:
        """End the episode, keep it, and report `summary` when that is certain."""
        self._jobs.put(lambda: self._finish(attributes, summary=summary))

    def drop(self) -> None:
        """Remove the episode."""
        self._jobs.put(self._drop)

    def close(self) -> None:
        """Return when everything is written, or has failed."""
        self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _write_journals(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except OSError as error:
                self._fail(f"cannot write the journal in {self._store.folder}: {error}")
        if self._journal is not None:
            self._journal.close()
        self._finished.put(None)

    def _store_episodes(self) -> None:
        if sys.platform == "linux":  # there, a thread has a niceness of its own
            before = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), before + NICENESS)
        while (finished := self._finished.get()) is not None:
            path, attributes = finished
            try:
                self._store.take_in(path, attributes=attributes)
            except (OSError, ValueError) as error:
                self._fail(f"cannot store {path}, which the next recording takes in: {error}")

    def _fail(self, text: str) -> None:
        self.failure = self.failure or text
        self._report(text)

    def _start(self, schema: Schema, facts: Mapping[str, Any]) -> None:
        self._journal = self._store.begin(schema, facts)

    def _add(self, values: Mapping[str, np.ndarray]) -> None:
        with self._lock:
            self._num_waiting -= 1
        if self._journal is not None and not self.failure:
            self._journal.add_step(values)

    def _note(self, note: Mapping[str, Any]) -> None:
        if self._journal is not None:
            self._journal.add_note(note)

    def _finish(self, attributes: Mapping[str, Any], *, summary: str) -> None:
        if self._journal is None:
            return
        journal, self._journal = self._journal, None
        attributes = {**attributes, "num_steps": journal.num_steps}
        try:
            journal.end(attributes)
        except OSError as error:
            self._fail(f"cannot end {journal.path}: {error}")
            summary += ", not certain before it is stored"
        journal.close()
        self._report(summary)
        self._finished.put((journal.path, attributes))

    def _drop(self) -> None:
        if self._journal is None:
            return
        journal, self._journal = self._journal, None
        journal.close()
        journal.path.unlink()
