"""A watch over calls that may never return: a camera whose driver hangs, a robot that is silent."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

from teleop_data.clock import MonotonicClock


class FrozenError(OSError):
    """A call that did not return in time."""


class StepWatch:
    """Interrupts calls of the main thread that take too long. A context manager, main thread only.

    A thread looks at the clock, reports at once, and sends the main thread a signal whose handler
    raises. Where the call is in code that no signal can interrupt, the report is all that can be
    done: the process has to be killed, and what is recorded is in its journal.
    """

    def __init__(self, patience_s: float, *, report: Callable[[str], None] = print) -> None:
        """Interrupt after `patience_s`, positive."""
        if patience_s <= 0:
            raise ValueError(f"patience_s must be positive, got {patience_s}")
        self._patience_s, self._report = patience_s, report
        self._call, self._since_s = "", 0.0  # "": nothing is awaited
        self._frozen = ""  # the call that is to be interrupted
        self._is_open = True
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._watch, name="step watch", daemon=True)

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGUSR1, self._interrupt)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_open = False
            self._changed.notify()
        self._thread.join()
        signal.signal(signal.SIGUSR1, self._before)

    @contextmanager
    def awaiting(self, call: str) -> Iterator[None]:
        """Watch what happens inside; `call` names it. FrozenError if it takes too long."""
        self._since_s = MonotonicClock().now()
        self._call = call
        try:
            yield
        finally:
            self._call = ""

    def _watch(self) -> None:
        with self._changed:
            while self._is_open:
                self._changed.wait(self._patience_s / 10)
                call, now_s = self._call, MonotonicClock().now()
                if call and now_s - self._since_s > self._patience_s and not self._frozen:
                    self._report(f"{call} has not returned for {self._patience_s:g} s")
                    self._frozen = call
                    main = threading.main_thread().ident
                    assert main is not None
                    signal.pthread_kill(main, signal.SIGUSR1)

    def _interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        frozen, self._frozen = self._frozen, ""
        if frozen and self._call == frozen:
            raise FrozenError(f"{frozen} has not returned for {self._patience_s:g} s")
