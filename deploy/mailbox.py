"""Mailbox: what waits for the inference thread; per session only the newest observation."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from deploy.wire import Observation, Reset


@dataclass(frozen=True, kw_only=True)
class Job:
    """An observation with its arrival on the server's monotonic clock."""

    observation: Observation
    received_s: float


@dataclass(kw_only=True)
class Work:
    """What one session wants, to be done in the order of the fields."""

    is_closed: bool = False
    reset: Reset | None = None
    job: Job | None = None


class Mailbox:
    """Hands work from the socket thread to the inference thread. Thread-safe.

    Sessions wait in the order in which they first asked, so none can starve another.
    """

    def __init__(self) -> None:
        self._work: dict[bytes, Work] = {}  # insertion order is the queue
        self._condition = threading.Condition()

    def put_reset(self, session: bytes, reset: Reset) -> Job | None:
        """A new episode; returns the old one's observation that nobody needs any more."""
        with self._condition:
            work = self._work.setdefault(session, Work())
            superseded, work.job, work.reset = work.job, None, reset
            self._condition.notify()
            return superseded

    def put_job(self, session: bytes, job: Job) -> Job | None:
        """An observation; returns the older one that it replaces, if that was still waiting."""
        with self._condition:
            work = self._work.setdefault(session, Work())
            superseded, work.job = work.job, job
            self._condition.notify()
            return superseded

    def close_session(self, session: bytes) -> None:
        """Whatever the session wanted is void; its state may be freed."""
        with self._condition:
            self._work[session] = Work(is_closed=True)
            self._condition.notify()

    def take(self, timeout_s: float) -> tuple[bytes, Work] | None:
        """The session that has waited longest and its work; None if none came in time."""
        with self._condition:
            if not self._condition.wait_for(lambda: self._work, timeout_s):
                return None
            session = next(iter(self._work))
            return session, self._work.pop(session)
