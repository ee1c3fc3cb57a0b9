"""Time: one Protocol, the machine's monotonic clock, and one that tests move by hand."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where time comes from. Seconds from an arbitrary origin that never jumps."""

    def now(self) -> float:
        """Seconds since the clock's origin."""
        ...

    def sleep_until(self, deadline_s: float) -> None:
        """Return at `deadline_s`, at once if it has passed."""
        ...


class MonotonicClock:
    """The machine's `time.monotonic`. On Linux its origin is the same for all processes."""

    def now(self) -> float:
        """Seconds since boot."""
        return time.monotonic()

    def sleep_until(self, deadline_s: float) -> None:
        """Sleep to an absolute deadline, so that lateness does not add up."""
        remaining_s = deadline_s - time.monotonic()
        if remaining_s > 0:
            time.sleep(remaining_s)


class ManualClock:
    """A clock that moves only when told to. For tests and for virtual time."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s

    def now(self) -> float:
        """Seconds since the origin."""
        return self._now_s

    def sleep_until(self, deadline_s: float) -> None:
        """Jump to the deadline."""
        self._now_s = max(self._now_s, deadline_s)

    def advance(self, duration_s: float) -> None:
        """Move forward by `duration_s` (not negative)."""
        if duration_s < 0:
            raise ValueError(f"time does not run backwards: {duration_s} s")
        self._now_s += duration_s
