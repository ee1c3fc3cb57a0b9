"""Demonstrations in one npz of arrays concatenated in time, as D4RL's and Adroit's: one way.

observations (N, D)   actions (N, A)   rewards (N,) ...   and where the episodes end:
episode_ends (E,), or terminals and timeouts (N,), as D4RL has them
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from teleop_data.converters.episode_stream import Format
from teleop_data.replay_buffer import StoreError
from teleop_data.schema import DTYPES, Feature, Role, Schema

# No such file says its rate; these are the tasks' that most of them hold.
ADROIT_RATE_HZ, PUSH_T_RATE_HZ = 25.0, 10.0
ENDS = "episode_ends"
FLAGS = ("terminals", "timeouts")
RENAMED = {"observations": "state", "actions": "action"}


class D4rlSource:
    """The episodes of an npz file, which is read whole."""

    def __init__(self, path: str | Path) -> None:
        """The file at `path`.

        Raises:
            FileNotFoundError: nothing there.
            StoreError: no npz of numbers, cut off, or without episodes.
        """
        self._path = Path(path)
        if not self._path.exists():
            raise FileNotFoundError(f"no file at {path}")
        try:
            with self._path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                self._arrays: dict[str, np.ndarray] = {n: stored[n] for n in stored.files}
        except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
            raise StoreError(
                f"{path} cannot be read as an npz of numbers ({type(error).__name__}: {error})"
            ) from error
        self._ends, self._ends_note = self._read_ends()
        num_steps = int(self._ends[-1])
        kept = {
            name: values
            for name, values in self._arrays.items()
            if name != ENDS and values.ndim and len(values) >= num_steps
        }
        self._left_out = sorted(set(self._arrays) - set(kept) - {ENDS})
        rate_hz = ADROIT_RATE_HZ if "observations" in kept else PUSH_T_RATE_HZ
        self._arrays = {RENAMED.get(name, name): kept[name] for name in kept}
        features = tuple(_guess(name, values) for name, values in self._arrays.items())
        self._schema = Schema(features=features, rate_hz=rate_hz)

    @property
    def schema(self) -> Schema:
        """The features, guessed from the names."""
        return self._schema

    @property
    def num_episodes(self) -> int:
        """Episodes in the file."""
        return len(self._ends)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The file's name."""
        return {"format": "npz", "file": self._path.name}

    @property
    def notes(self) -> Sequence[str]:
        """What was guessed or left out, one sentence each."""
        roles = ", ".join(f"{f.name} {f.role}" for f in self.schema.features)
        notes = [
            f"The file says no roles; guessed from names: {roles}.",
            f"The file says no rate; {self.schema.rate_hz:g} Hz is assumed.",
            self._ends_note,
        ]
        if self._left_out:
            notes.append(f"Left out, not one row a step: {', '.join(self._left_out)}.")
        rest = len(next(iter(self._arrays.values()))) - int(self._ends[-1])
        if rest > 0:
            notes.append(f"The last {rest} steps belong to no finished episode and are left out.")
        return [note for note in notes if note]

    def episode(self, index: int) -> dict[str, np.ndarray]:
        """All features of one episode."""
        steps = self._steps(index)
        return {name: self._arrays[name][steps] for name in self.schema.names}

    def attributes(self, index: int) -> Mapping[str, Any]:
        """Nothing: such files say nothing about episodes."""
        self._steps(index)
        return {}

    def close(self) -> None:
        """Nothing is open."""

    def _steps(self, index: int) -> slice:
        if not 0 <= index < len(self._ends):
            raise IndexError(f"episode {index} outside 0..{len(self._ends) - 1}")
        start = int(self._ends[index - 1]) if index else 0
        return slice(start, int(self._ends[index]))

    def _read_ends(self) -> tuple[np.ndarray, str]:
        """(E,) one past each episode's last row, and how they were found where not written."""
        if ENDS in self._arrays:
            ends, note = np.asarray(self._arrays[ENDS]), ""
        elif flags := [self._arrays[name] for name in FLAGS if name in self._arrays]:
            is_last = np.any([flag.astype(bool).reshape(-1) for flag in flags], axis=0)
            ends = np.flatnonzero(is_last) + 1
            note = (
                f"Episodes end where {' or '.join(n for n in FLAGS if n in self._arrays)} is set."
            )
        else:
            raise StoreError(
                f"{self._path} has {', '.join(self._arrays) or 'nothing'}; expected {ENDS}, or "
                f"{' and '.join(FLAGS)}, to tell where episodes end"
            )
        if ends.ndim != 1 or ends.dtype.kind not in "iu" or not len(ends):
            raise StoreError(
                f"{self._path}: {ENDS} is {ends.shape} {ends.dtype}, expected (E,) int"
            )
        longest = max(len(values) for values in self._arrays.values() if values.ndim)
        if np.any(np.diff(ends, prepend=0) <= 0) or ends[-1] > longest:
            raise StoreError(f"{self._path}: {ENDS} must rise, to at most {longest} steps: {ends}")
        return ends.astype(np.int64), note


def _guess(name: str, values: np.ndarray) -> Feature:
    if values.dtype.name not in DTYPES:
        raise StoreError(f"array {name!r} holds {values.dtype}; expected one of {DTYPES}")
    role: Role = "other"
    if name in ("action", "state"):
        role = name
    if values.ndim == 4 and values.shape[-1] in (1, 3) and values.dtype == np.uint8:
        role = "camera"
    return Feature(name=name, shape=values.shape[1:], dtype=values.dtype.name, role=role)


def recognize(path: Path) -> str | None:
    """The sign that `path` is such a file, or None."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
    for sign in (ENDS, *FLAGS):
        if sign in names:
            return f"an npz with {sign}"
    return None


D4RL = Format(name="d4rl", title="D4RL's and Adroit's npz", recognize=recognize, open=D4rlSource)
