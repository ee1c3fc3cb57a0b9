"""Sole use of a folder: of two processes that write the same files, one is turned away, or waits.

The lock is on the folder itself, so nothing is left behind, and the kernel frees it with the
process. Where no folders are locked, on some network file systems and on Windows, nobody is turned
away.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class InUseError(ValueError):
    """Another process, or another part of this one, has the folder."""


class SoleUse:
    """A folder that nobody else may take until `close`; a context manager that closes."""

    def __init__(self, folder: Path, *, waits: bool = False) -> None:
        """Take `folder`, which is there; `waits` until whoever has it is done.

        Raises:
            InUseError: somebody has it, and `waits` is False.
            OSError: it cannot be opened.
        """
        self._descriptor: int | None = None
        if fcntl is None:
            return
        self._descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError as error:
            self.close()
            raise InUseError(f"another process writes to {folder}; wait for its end") from error
        except OSError:
            pass  # no locks here

    def close(self) -> None:
        """Let others take it."""
        if self._descriptor is not None:
            os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
