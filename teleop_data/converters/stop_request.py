"""Stopping a conversion where nothing is being written."""

from __future__ import annotations

import signal


class StopRequest:
    """Ctrl-C and SIGTERM, heeded between two episodes; a second one stops at once.

    In mid-write, zarr's threads would go on to write files while the folder is being removed.
    """

    def __init__(self) -> None:
        self._is_asked = False

    def install(self) -> None:
        """Take over both signals, in the main thread."""
        signal.signal(signal.SIGINT, self._ask)
        signal.signal(signal.SIGTERM, self._ask)

    def check(self) -> None:
        """KeyboardInterrupt if a stop was asked for."""
        if self._is_asked:
            raise KeyboardInterrupt

    def _ask(self, *_: object) -> None:
        self.check()
        self._is_asked = True
