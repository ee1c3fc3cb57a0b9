"""Parts: some entries of a stored feature under a name of their own.

A store may keep in one array what a policy must see in part: Push-T's `state` holds the agent,
which a robot knows, and the block, which only the camera may tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from teleop_data.schema import Feature, Schema

Index = slice | int | np.ndarray


class Rows(Protocol):
    """One feature over time: (N, *shape), read by rows."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, *shape)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Index, /) -> np.ndarray: ...


class Episodes(Protocol):
    """What training reads: a `ReplayBuffer`, or one seen through `with_parts`."""

    @property
    def schema(self) -> Schema:
        """The features."""
        ...

    @property
    def episode_ends(self) -> np.ndarray:
        """(E,) one past each episode's last row."""
        ...

    @property
    def episode_starts(self) -> np.ndarray:
        """(E,) each episode's first row."""
        ...

    @property
    def num_episodes(self) -> int:
        """E."""
        ...

    def __getitem__(self, name: str) -> Rows: ...


@dataclass(frozen=True, kw_only=True)
class Part:
    """Entries `entries` of the one-dimensional state feature `feature`."""

    feature: str
    entries: tuple[int, ...]


def with_parts(episodes: Episodes, parts: Mapping[str, Part]) -> Episodes:
    """`episodes` with every part as a feature more, named by its key.

    Raises:
        KeyError: a part of a feature that is not there.
        ValueError: entries outside the feature, of a camera, or a name that is taken.
    """
    return _WithParts(episodes, parts) if parts else episodes


class _WithParts:
    """`Episodes` with parts."""

    def __init__(self, episodes: Episodes, parts: Mapping[str, Part]) -> None:
        self._episodes, self._parts = episodes, dict(parts)
        new = [part_of(episodes.schema[p.feature], p.entries, name=n) for n, p in parts.items()]
        self.schema = replace(episodes.schema, features=(*episodes.schema.features, *new))

    @property
    def episode_ends(self) -> np.ndarray:
        """(E,)."""
        return self._episodes.episode_ends

    @property
    def episode_starts(self) -> np.ndarray:
        """(E,)."""
        return self._episodes.episode_starts

    @property
    def num_episodes(self) -> int:
        """E."""
        return self._episodes.num_episodes

    def __getitem__(self, name: str) -> Rows:
        if name not in self._parts:
            return self._episodes[name]
        part = self._parts[name]
        return _Columns(self._episodes[part.feature], list(part.entries))


@dataclass(frozen=True)
class _Columns:
    """Some columns of rows (N, D)."""

    rows: Rows
    columns: list[int]

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, number of columns)."""
        return (len(self.rows), len(self.columns))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Index, /) -> np.ndarray:
        return self.rows[index][..., self.columns]


def part_of(feature: Feature, entries: tuple[int, ...], *, name: str) -> Feature:
    """The feature that holds `entries` of `feature`; angles stay angles."""
    if len(feature.shape) != 1 or any(not 0 <= i < feature.shape[0] for i in entries):
        raise ValueError(
            f"part {name!r}: entries {list(entries)} of {feature.name!r}, which has shape "
            f"{feature.shape}; a part takes entries of a one-dimensional feature"
        )
    angles = tuple(i for i, entry in enumerate(entries) if entry in feature.angles)
    return replace(feature, name=name, shape=(len(entries),), angles=angles)
