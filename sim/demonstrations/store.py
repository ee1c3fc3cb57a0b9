"""The store of forcing-generate: a replay buffer that appears with its first demonstration, and in
which the same call finds again how far it came.

Nothing is kept beside it: its provenance says which call made it, each episode's attributes its
seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from sim.demonstrations.demonstrator import Demonstration
from teleop_data.replay_buffer import ReplayBuffer, StoreError
from teleop_data.schema import Schema, first_difference
from teleop_data.sole_use import InUseError, SoleUse

# What must agree in the provenance. The version may differ: a task that has changed shows in its
# settings or its schema, and a store of hundreds of episodes should outlive an update.
COMPARED = ("task", "demonstrator", "settings", "first_seed")


class DemonstrationStore:
    """Successful demonstrations of one call, in the order of their seeds. A context manager: nobody
    else generates into what is there until its end."""

    def __init__(self, path: Path, *, provenance: Mapping[str, Any]) -> None:
        """Go on with what is at `path`, or begin there with the first demonstration.

        Args:
            path: of the replay buffer.
            provenance: JSON-ready, with the keys `COMPARED`.

        Raises:
            ValueError: what is there belongs to another call, or is no whole store, or another
                call is at work on it.
        """
        self.path, self._provenance = path, dict(provenance)
        self._schema: Schema | None = None
        self._use = _taken(path) if path.exists() else None
        try:
            self._buffer = _opened(path, provenance=provenance) if self._use else None
        except ValueError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others go on with it."""
        if self._use is not None:
            self._use.close()

    @property
    def num_episodes(self) -> int:
        """Demonstrations that are there."""
        return self._buffer.num_episodes if self._buffer else 0

    @property
    def num_steps(self) -> int:
        """Control steps of all of them."""
        return self._buffer.num_steps if self._buffer else 0

    @property
    def next_seed(self) -> int:
        """The first seed that was not tried, as far as is known: failures after the last success
        are not on record, and are met again."""
        if not self._buffer or not self._buffer.num_episodes:
            return self._provenance["first_seed"]
        return self._buffer.episode_attributes[-1]["seed"] + 1

    @property
    def num_failed(self) -> int:
        """Attempts that failed before the last success."""
        return self.next_seed - self._provenance["first_seed"] - self.num_episodes

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def expect(self, schema: Schema) -> None:
        """Say what will be appended. ValueError if what is there has other features."""
        difference = first_difference(self._buffer.schema, schema) if self._buffer else None
        if difference:
            raise ValueError(
                f"{self.path} holds other features than this call records ({difference}); choose "
                "another output"
            )
        self._schema = schema

    def append(self, demonstration: Demonstration) -> None:
        """Add a demonstration that succeeded, of the schema that `expect` was told."""
        if self._buffer is None:  # not before: a store of no episode would be taken for data
            assert self._schema is not None
            self._buffer = ReplayBuffer.create(self.path, self._schema, provenance=self._provenance)
            self._use = _taken(self.path)
        self._buffer.append_episode(demonstration.episode, attributes=demonstration.attributes)


def _taken(path: Path) -> SoleUse:
    try:
        return SoleUse(path)
    except InUseError as error:
        raise ValueError(f"{error}, or choose another output") from error


def _opened(path: Path, *, provenance: Mapping[str, Any]) -> ReplayBuffer:
    """The buffer at `path`, for appending. ValueError unless it has the provenance."""
    try:
        buffer = ReplayBuffer.open(path, mode="r+")
    except StoreError as error:
        raise ValueError(f"{error}. Remove what is there, or choose another output") from error
    differing = [
        words
        for key in COMPARED
        for words in differences(buffer.provenance.get(key), provenance[key], name=key)
    ]
    if differing:
        raise ValueError(
            f"{path} exists and belongs to another call: {'; '.join(differing)}. Choose another "
            "output, or say what was said there to go on with it"
        )
    return buffer


def differences(there: Any, here: Any, *, name: str) -> Iterator[str]:
    """Where two JSON values differ, a phrase for each place."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in {**there, **here}:
            yield from differences(there.get(key), here.get(key), name=f"{name}.{key}")
    elif there != here:
        yield f"{name} is {there!r} there and {here!r} here"
