"""Real processes for tests: the entry points, started as a user starts them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
# instead of a checkpoint; `checkpoint` is named since the arguments to delete refer to it
TINY = (
    "checkpoint=none",
    "~policy.folder",
    "~policy.inference",
    "policy._target_=tests.deploy.tiny_policy.TinyPolicy",
)


class EntryPoint:
    """A running entry point; `lines` is what it printed so far."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._changed, self._has_ended = threading.Condition(), False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip())
                self._changed.notify_all()
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def wait_for(self, text: str, *, timeout_s: float = 60.0) -> str:
        """The first line that contains `text`."""

        def found() -> list[str]:
            return [line for line in self.lines if text in line]

        with self._changed:
            self._changed.wait_for(lambda: found() or self._has_ended, timeout_s)
            assert found(), f"never said {text!r}:\n" + "\n".join(self.lines)
            return found()[0]

    @property
    def endpoint(self) -> str:
        """What the process says it is bound to."""
        return self.wait_for(" at tcp://").rsplit(" ", 1)[1]

    def kill(self) -> None:
        """SIGKILL: no clean-up whatever."""
        self.process.kill()
        self.process.wait()

    def terminate(self, *, timeout_s: float = 30.0) -> int:
        """SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout_s=timeout_s)

    def wait(self, *, timeout_s: float = 60.0) -> int:
        """The exit status."""
        status = self.process.wait(timeout_s)
        self._reader.join()
        return status

    def close(self) -> None:
        """Make sure that it is gone."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def entry_point(module: str, *arguments: str) -> Iterator[EntryPoint]:
    """An entry point that does not outlive the test."""
    process = EntryPoint(module, *arguments)
    try:
        yield process
    finally:
        process.close()
