"""Stop signal: SIGTERM and SIGINT become an event that loops look at."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable


def stop_on_signal(also: Callable[[], None] | None = None) -> threading.Event:
    """An event that SIGTERM or SIGINT sets; `also` is called then too. Main thread only."""
    stopped = threading.Event()

    def stop(_signal: int, _frame: object) -> None:
        stopped.set()
        if also is not None:
            also()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return stopped
