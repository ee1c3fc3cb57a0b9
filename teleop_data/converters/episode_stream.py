"""Episodes on their way from one format to another, one in memory at a time.

    Format.open(path) -> EpisodeSource --copy_episodes--> EpisodeSink.begin, add, ..., finish

A source says what it had to guess (`notes`), a sink what its format cannot carry (`losses`). The
target appears under its name when it is complete, and not before.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from teleop_data.schema import Schema


class EpisodeSource(Protocol):
    """Episodes of one schema, wherever they lie. Not thread-safe."""

    @property
    def schema(self) -> Schema:
        """The features of every episode."""
        ...

    @property
    def num_episodes(self) -> int:
        """Episodes given."""
        ...

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where the episodes come from, JSON-ready."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What was guessed or left out, one sentence each."""
        ...

    def episode(self, index: int) -> dict[str, np.ndarray]:
        """All features of one episode, {name: (T, *shape)}, T >= 1, in the schema's dtypes.

        Raises:
            IndexError: outside 0..E-1.
            StoreError: part of it cannot be read.
        """
        ...

    def attributes(self, index: int) -> Mapping[str, Any]:
        """JSON-ready facts about one episode; empty where there are none."""
        ...

    def close(self) -> None:
        """Close the files."""
        ...


class EpisodeSink(Protocol):
    """Writes one new store. Calls come in this order: losses, begin, add (any number), finish.

    Whoever calls (`copy_episodes`) gives `begin` a path of its own and moves the result to the
    target's place, so a sink need not clean up what it wrote when something fails.
    """

    def losses(self, schema: Schema) -> Sequence[str]:
        """What the format cannot carry of `schema`, one sentence each; writes nothing.

        Raises:
            ValueError: `schema` cannot be written at all.
        """
        ...

    def begin(self, path: Path, *, schema: Schema, provenance: Mapping[str, Any]) -> None:
        """Start the store at `path`, where nothing is yet; its last part is the target's name."""
        ...

    def add(self, episode: Mapping[str, np.ndarray], *, attributes: Mapping[str, Any]) -> None:
        """Write one episode as `EpisodeSource.episode` and `attributes` give it."""
        ...

    def finish(self) -> None:
        """Complete the store and close it."""
        ...

    def close(self) -> None:
        """Let go of files and processes, complete or not; after `finish` it does nothing."""
        ...


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format that `forcing-convert` knows.

    Attributes:
        name: its name on the command line.
        title: its name for people.
        recognize: given an existing path, the sign by which the path is of this format, as half a
            sentence ("it holds meta/info.json"), or None. Opens no more than it needs.
        open: the source at a path; options are its keyword arguments.
        sink: an empty sink, options are its keyword arguments; None where it is only read.
        suffixes: endings of a target's name that mean this format, none if it must be named.
    """

    name: str
    title: str
    recognize: Callable[[Path], str | None]
    open: Callable[..., EpisodeSource]
    sink: Callable[..., EpisodeSink] | None = None
    suffixes: tuple[str, ...] = ()


class EditedSource:
    """A source seen with other names, another rate, or only some of its episodes."""

    def __init__(
        self,
        source: EpisodeSource,
        *,
        episodes: Sequence[int] | None = None,
        names: Mapping[str, str] | None = None,
        rate_hz: float | None = None,
    ) -> None:
        """`source`, changed.

        Args:
            source: what to read from.
            episodes: numbers of the episodes to give, in this order; None gives all.
            names: new names by old; features that are not in it keep theirs.
            rate_hz: control steps per second; None keeps the source's.

        Raises:
            IndexError: no such episode.
            KeyError: no such feature.
            ValueError: two features get the same name, or the rate is not positive.
        """
        self._source = source
        self._names = dict(names or {})
        self._episodes = list(range(source.num_episodes) if episodes is None else episodes)
        if unknown := [i for i in self._episodes if not 0 <= i < source.num_episodes]:
            raise IndexError(
                f"no episodes {unknown[:5]}: the source has {source.num_episodes}, from 0 on"
            )
        for name in self._names:
            source.schema[name]
        features = tuple(
            replace(feature, name=self._names.get(feature.name, feature.name))
            for feature in source.schema.features
        )
        rate_hz = source.schema.rate_hz if rate_hz is None else rate_hz
        self._schema = Schema(features=features, rate_hz=rate_hz)

    @property
    def schema(self) -> Schema:
        """The features under their new names."""
        return self._schema

    @property
    def num_episodes(self) -> int:
        """Episodes chosen."""
        return len(self._episodes)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The source's."""
        return self._source.provenance

    @property
    def notes(self) -> Sequence[str]:
        """The source's, and the rate where it was set."""
        said = self._source.schema.rate_hz
        if self.schema.rate_hz == said:
            return self._source.notes
        rate = f"The rate is {self.schema.rate_hz:g} Hz as asked, not the source's {said:g} Hz."
        return [*self._source.notes, rate]

    def episode(self, index: int) -> dict[str, np.ndarray]:
        """All features of one chosen episode under their new names."""
        episode = self._source.episode(self._at(index))
        return {self._names.get(name, name): values for name, values in episode.items()}

    def attributes(self, index: int) -> Mapping[str, Any]:
        """Facts about one chosen episode."""
        return self._source.attributes(self._at(index))

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _at(self, index: int) -> int:
        if not 0 <= index < len(self._episodes):
            raise IndexError(f"episode {index} outside 0..{len(self._episodes) - 1}")
        return self._episodes[index]


def copy_episodes(
    source: EpisodeSource,
    sink: EpisodeSink,
    target: Path,
    *,
    progress: Callable[[int], None] = lambda num_steps: None,
) -> int:
    """Number of control steps written: all episodes of `source`, at `target` through `sink`.

    Args:
        source: what to read from.
        sink: a fresh sink.
        target: where the store is to be; it appears there when it is complete.
        progress: called after each episode with its number of control steps.

    Raises:
        FileExistsError: something is at `target`.
        ValueError: the source has no episodes, or an episode is not as the schema says.
    """
    if not source.num_episodes:
        raise ValueError("the source holds no finished episode: nothing to convert")
    total = 0
    with staged(target) as path:
        try:
            sink.begin(path, schema=source.schema, provenance=source.provenance)
            for index in range(source.num_episodes):
                episode = source.episode(index)
                try:
                    num_steps = check_episode(episode, schema=source.schema)
                    sink.add(episode, attributes=source.attributes(index))
                except (KeyError, ValueError) as error:
                    raise ValueError(f"episode {index}: {error}") from error
                total += num_steps
                progress(num_steps)
            sink.finish()
        finally:
            sink.close()
    return total


def check_episode(episode: Mapping[str, np.ndarray], *, schema: Schema) -> int:
    """Number of control steps of a whole episode.

    Raises:
        ValueError: it has other features than `schema`, of other shapes or dtypes, or their
            lengths differ or are 0.
    """
    if set(episode) != set(schema.names):
        raise ValueError(f"has {sorted(episode)}, the schema wants {sorted(schema.names)}")
    for feature in schema.features:
        values = episode[feature.name]
        if values.shape[1:] != feature.shape or values.dtype != np.dtype(feature.dtype):
            raise ValueError(
                f"feature {feature.name!r} is {values.shape} {values.dtype}, expected "
                f"(T, {', '.join(map(str, feature.shape))}) {feature.dtype}"
            )
    lengths = {name: len(values) for name, values in episode.items()}
    if len(set(lengths.values())) != 1 or not min(lengths.values()):
        raise ValueError(f"every feature needs the same number of steps, at least 1: {lengths}")
    return next(iter(lengths.values()))


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A path to write to, in a hidden folder beside `target`, where the result is moved at the end.

    Whatever is raised inside, nothing is left; a killed process leaves the hidden folder, whose
    name ends in `.partial`, and nothing at `target`.

    Raises:
        FileExistsError: something is at `target`, before or after.
    """
    _refuse_existing(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".partial"))
    try:
        yield folder / target.name
        _refuse_existing(target)
        (folder / target.name).rename(target)
    finally:
        shutil.rmtree(folder)


def _refuse_existing(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise FileExistsError(f"{target} exists; give another target, or remove it")
