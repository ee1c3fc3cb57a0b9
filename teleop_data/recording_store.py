"""Where recordings go: a replay buffer, and beside it the journals that are not in it yet.

    pick_place.zarr           every episode that was taken in
    pick_place.zarr.journal/  the episode in progress, and finished ones on their way into the store

Whatever ends a recording, the next one takes in what it left: finished episodes as they are, an
unfinished one marked {"interrupted": true}. A journal is removed after its episode is in the store,
and an episode that is in the store already, as its `recording` tells, is not taken in twice.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from teleop_data.array_layout import CameraCodec
from teleop_data.journal import Journal, JournalError, JournalWriter
from teleop_data.recorded_timing import timing_summary
from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.schema import Schema, first_difference
from teleop_data.sole_use import InUseError, SoleUse

RECORDING = "recording"  # in an episode's attributes: which journal it comes from


class RecordingStore:
    """A store that is recorded into; one process at a time. The methods are not thread-safe, but
    `begin` may be called from another thread than the others."""

    def __init__(
        self,
        path: Path,
        *,
        provenance: Mapping[str, Any],
        camera_codec: CameraCodec = "zstd",
        report: Callable[[str], None] = print,
    ) -> None:
        """Open what is at `path`, or begin there with the first episode.

        Args:
            path: of the replay buffer.
            provenance: of a new one, JSON-ready.
            camera_codec: of a new one.
            report: told, a sentence at a time, what was left by an earlier recording.

        Raises:
            StoreError: what is there is no whole replay buffer.
            ValueError: another process records into it.
        """
        self.path, self._provenance = path, dict(provenance)
        self._codec: CameraCodec = camera_codec
        self._report = report
        self.folder = path.with_name(path.name + ".journal")
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._use = SoleUse(self.folder)
        except InUseError as error:
            raise ValueError(
                f"another process records into {path}; wait for its end, or choose another output"
            ) from error
        self._buffer = ReplayBuffer.open(path, mode="r+") if path.exists() else None

    @property
    def num_episodes(self) -> int:
        """Episodes in the store."""
        return self._buffer.num_episodes if self._buffer else 0

    @property
    def num_finished(self) -> int:
        """Episodes in the store that were not interrupted."""
        return sum(not attributes.get("interrupted") for attributes in self._attributes)

    def next_seed(self, first_seed: int) -> int:
        """One more than the greatest seed in the store; `first_seed` if that is less or none is."""
        return max([first_seed, *(a["seed"] + 1 for a in self._attributes if "seed" in a)])

    def expect(self, schema: Schema) -> None:
        """Say what will be recorded. ValueError if what is there has other features."""
        difference = first_difference(self._buffer.schema, schema) if self._buffer else None
        if difference:
            raise ValueError(
                f"{self.path} holds other features than this recording ({difference}); choose "
                "another output, or record with what it was recorded with"
            )

    def begin(self, schema: Schema, facts: Mapping[str, Any]) -> JournalWriter:
        """The journal of a new episode with the `facts` that are known beforehand. OSError if it
        cannot be written."""
        names = [path.stem for path in self.folder.glob("*.journal")]
        number = 1 + max((int(name.split("_")[0]) for name in names), default=-1)
        recording = uuid.uuid4().hex
        path = self.folder / f"{number:06d}_{recording}.journal"
        return JournalWriter(path, schema=schema, header={**facts, RECORDING: recording})

    def recover(self) -> None:
        """Take in every journal that an earlier recording left, and report each."""
        for path in sorted(self.folder.glob("*.journal")):
            try:
                text = self.take_in(path)
            except (OSError, ValueError) as error:
                text = f"cannot be taken in and stays where it is ({error})"
            self._report(f"recovered {path.name}: {text}")

    def take_in(self, path: Path, *, attributes: Mapping[str, Any] | None = None) -> str:
        """Append the episode of the journal at `path`, remove the journal, and say what it was.

        Args:
            path: of the journal.
            attributes: of the episode, if they are known although the journal may have no end.

        Raises:
            OSError, ValueError: it cannot be appended; the journal stays.
        """
        try:
            journal = Journal(path)
        except JournalError as error:
            path.unlink()
            return f"holds no episode ({error})"
        if journal.num_steps == 0 or self._is_there(journal):
            path.unlink()
            return "is in the store already" if journal.num_steps else "holds no step"
        episode = journal.episode()
        ending = journal.attributes or attributes or {"interrupted": True}
        attributes = {**journal.facts, **ending}
        attributes |= timing_summary(episode)
        attributes["labels"] = [{"step": step, **note} for step, note in journal.notes]
        if self._buffer is None:
            self._buffer = self._created(journal.schema)
        self.expect(journal.schema)
        self._buffer.append_episode(episode, attributes=attributes)
        path.unlink()
        word = "interrupted" if attributes.get("interrupted") else "finished"
        return f"episode {self.num_episodes - 1} of the store, {journal.num_steps} steps, {word}"

    def close(self) -> None:
        """Let others record into it."""
        if not any(self.folder.glob("*.journal")):
            shutil.rmtree(self.folder)  # before the lock goes: nobody else can be in it
        self._use.close()

    @property
    def _attributes(self) -> list[dict[str, Any]]:
        return self._buffer.episode_attributes if self._buffer else []

    def _is_there(self, journal: Journal) -> bool:
        """Whether a kill came between appending the episode and removing its journal."""
        recording = journal.facts[RECORDING]
        return any(attributes.get(RECORDING) == recording for attributes in self._attributes)

    def _created(self, schema: Schema) -> ReplayBuffer:
        """A new buffer that appears when it is whole."""
        unfinished = self.folder / "new.zarr"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        ReplayBuffer.create(
            unfinished, schema, provenance=self._provenance, camera_codec=self._codec
        )
        unfinished.rename(self.path)
        return ReplayBuffer.open(self.path, mode="r+")
