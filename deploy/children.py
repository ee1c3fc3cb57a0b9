"""Children: entry points run as processes of their own, none of which outlives its parent.

Each child leads a session of its own, so Ctrl-C reaches the parent only, which then ends its
children in the order it likes; what a child has started itself is ended with it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self

POLL_S = 0.05
TERMINATION_S = 10.0  # a child that takes longer to end after SIGTERM is killed
NUM_LAST_LINES = 15


class ChildError(RuntimeError):
    """A child that ended in failure, or before its time; the message holds its last words."""


class Child:
    """A running entry point, a context manager that ends it.

    Args:
        module: with a `main`, run as `python -m <module>`.
        arguments: its command line.
        log: file for what it prints; None = the terminal.
    """

    def __init__(self, module: str, *arguments: str, log: Path | None = None) -> None:
        self.module, self.log = module, log
        command = [sys.executable, "-m", module, *arguments]
        if log is None:
            self._process = subprocess.Popen(command, start_new_session=True)
            return
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as file:
            self._process = subprocess.Popen(
                command, start_new_session=True, stdout=file, stderr=subprocess.STDOUT
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.poll()

    def wait_for(self, text: str, *, timeout_s: float) -> str:
        """The first line of its log that contains `text`.

        Raises:
            ChildError: it ended first, or was silent for too long.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            has_ended = self.status is not None  # before reading, or its last words are missed
            for line in self._lines():
                if text in line:
                    return line
            if has_ended:
                raise self.error(f"ended (status {self.status}) before it said {text!r}")
            if time.monotonic() > deadline_s:
                raise self.error(f"did not say {text!r} within {timeout_s:.0f} s")
            time.sleep(POLL_S)

    def wait(self, *, besides: Sequence[Child] = ()) -> None:
        """Wait until it has ended well, while all of `besides` are alive.

        Raises:
            ChildError: it failed, or another ended meanwhile.
        """
        while self.status is None:
            for other in besides:
                if other.status is not None:
                    raise other.error(f"ended (status {other.status}) while {self.module} ran")
            time.sleep(POLL_S)
        if self.status != 0:
            raise self.error(f"failed with status {self.status}")

    def end(self) -> None:
        """End it and what it has started: SIGTERM, and SIGKILL if that does not help."""
        if self.status is None:
            self._signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(TERMINATION_S)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def error(self, happened: str) -> ChildError:
        """A ChildError that says what happened and quotes the log's end."""
        if self.log is None:
            return ChildError(f"{self.module} {happened}; its own words are above")
        last = "\n".join(f"    {line}" for line in self._lines()[-NUM_LAST_LINES:])
        return ChildError(f"{self.module} {happened}; the end of {self.log}:\n{last}")

    def _lines(self) -> list[str]:
        return [] if self.log is None else self.log.read_text(errors="replace").splitlines()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # nobody of its group is left
            os.killpg(self._process.pid, number)


def run_child(module: str, *arguments: str, log: Path | None = None) -> None:
    """Run an entry point to its end. ChildError if it fails."""
    with Child(module, *arguments, log=log) as child:
        child.wait()


@contextmanager
def exit_on_signal() -> Iterator[None]:
    """SIGTERM and SIGHUP become SystemExit meanwhile, so that children are ended on the way out."""

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, leave) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def free_endpoint() -> str:
    """A loopback endpoint that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"
