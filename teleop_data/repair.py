"""forcing-repair: a new store with what was wrong cut out of an old one.

    forcing-repair path=old.zarr target=new.zarr drop_idle=true
    forcing-repair path=old.zarr target=new.zarr drop=[3,17] keep_steps=[[5,0,120]] \\
        attributes=[[5,task,stack]] labels=[[5,goal,0,60,1],[5,goal,60,120,2]]

The old store is only read. In the new one every row that is kept is bit for bit what it was, each
episode's attributes say what was done to it (`repaired`), and the provenance says from where and
with which options.

    old    |idle| 0 . . . . . . . |idle|   1   |   2   |
    new          | 0 . . . . . . . |   2   |              drop_idle=true drop=[1]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from teleop_data.converters.episode_stream import copy_episodes
from teleop_data.converters.replay_buffer_zarr import ReplayBufferSink
from teleop_data.episode_trouble import idle_edges, is_idle
from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.schema import Schema

REPAIRED = "repaired"  # attribute of a repaired episode


@dataclass
class RepairConfig:
    """What `forcing-repair` is told. Episodes and steps are numbered as in the old store.

    Attributes:
        path: the store to repair: ours, or a Diffusion Policy or UMI store.
        target: where the repaired store is to be; nothing may be there.
        drop: episodes to leave out.
        drop_unsuccessful: leave out the episodes whose attributes say success: false.
        drop_idle: cut the steps at the start and end of each episode in which nothing moves.
        idle_margin_s: of those, this much is kept on each side.
        keep_steps: [episode, first, end]: of this episode only the steps first..end-1 are kept.
        attributes: [episode, name, value] to set; the value null removes it.
        labels: [episode, feature of role "other", first, end, value] to overwrite with.
    """

    path: str = MISSING
    target: str = MISSING
    drop: list[int] = field(default_factory=list)
    drop_unsuccessful: bool = False
    drop_idle: bool = False
    idle_margin_s: float = 0.2
    keep_steps: list[list[int]] = field(default_factory=list)
    attributes: list[list[Any]] = field(default_factory=list)
    labels: list[list[Any]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class EpisodeRepair:
    """What becomes of one episode.

    Attributes:
        episode: its number in the old store.
        first: first step that is kept.
        end: one past the last.
        attributes: to set; None removes one.
        labels: (feature, first, end, value) to overwrite with, in steps of the old episode.
        reasons: what was done, one sentence each; empty if nothing was.
    """

    episode: int
    first: int
    end: int
    attributes: Mapping[str, Any] = field(default_factory=dict)
    labels: Sequence[tuple[str, int, int, float]] = ()
    reasons: tuple[str, ...] = ()


def plan_repairs(buffer: ReplayBuffer, config: RepairConfig) -> list[EpisodeRepair]:
    """The episodes that are kept, in order, and what becomes of each.

    Raises:
        ValueError: an episode, range, label or option that does not fit the store; no episode is
            left.
    """
    _check(buffer, config)
    dropped = set(config.drop)
    if config.drop_unsuccessful:
        told = enumerate(buffer.episode_attributes)
        dropped |= {e for e, attributes in told if attributes.get("success") is False}
    idle = is_idle(buffer) if config.drop_idle else np.zeros(buffer.num_steps, bool)
    repairs = [
        _plan(buffer, config, episode, idle=idle)
        for episode in range(buffer.num_episodes)
        if episode not in dropped
    ]
    kept = [repair for repair in repairs if repair.end > repair.first]
    if not kept:
        raise ValueError(f"no episode of {buffer.path} would be left; nothing is written")
    return kept


def _plan(
    buffer: ReplayBuffer, config: RepairConfig, episode: int, *, idle: np.ndarray
) -> EpisodeRepair:
    start, stop = int(buffer.episode_starts[episode]), int(buffer.episode_ends[episode])
    kept = {of: (first, end) for of, first, end in config.keep_steps}
    first, end = kept.get(episode, (0, stop - start))
    reasons = []
    if (first, end) != (0, stop - start):
        reasons.append(f"kept steps {first} to {end - 1} of {stop - start}")
    if config.drop_idle:
        margin = round(config.idle_margin_s * buffer.schema.rate_hz)
        head, tail = idle_edges(idle[start + first : start + end])
        if head == end - first:
            return EpisodeRepair(episode=episode, first=0, end=0)
        head, tail = max(0, head - margin), max(0, tail - margin)
        if head or tail:
            reasons.append(f"cut {head} idle steps at the start and {tail} at the end")
        first, end = first + head, end - tail
    attributes = {name: value for of, name, value in config.attributes if of == episode}
    labels = [(name, *rest) for of, name, *rest in config.labels if of == episode]
    if attributes:
        reasons.append(f"set attributes {', '.join(attributes)}")
    reasons += [f"steps {a} to {b - 1} relabelled {name} = {to}" for name, a, b, to in labels]
    return EpisodeRepair(
        episode=episode,
        first=first,
        end=end,
        attributes=attributes,
        labels=labels,
        reasons=tuple(reasons),
    )


def _check(buffer: ReplayBuffer, config: RepairConfig) -> None:
    for option, size in (("keep_steps", 3), ("attributes", 3), ("labels", 5)):
        if wrong := [entry for entry in getattr(config, option) if len(entry) != size]:
            raise ValueError(f"{option}: {wrong[0]} has {len(wrong[0])} parts, expected {size}")
    entries = [*config.keep_steps, *config.attributes, *config.labels]
    named = {*config.drop, *(entry[0] for entry in entries)}
    if unknown := sorted(e for e in named if e not in range(buffer.num_episodes)):
        raise ValueError(f"no episodes {unknown}; {buffer.path} has 0..{buffer.num_episodes - 1}")
    if not config.idle_margin_s >= 0:
        raise ValueError(f"idle_margin_s must be at least 0, got {config.idle_margin_s}")
    if config.drop_idle and not buffer.schema.with_role("action"):
        raise ValueError(
            "drop_idle needs an action: without one it is not known when nothing moves"
        )
    for episode, first, end in config.keep_steps:
        _check_range(buffer, episode, first, end, option="keep_steps")
    for episode, name, first, end, value in config.labels:
        _check_range(buffer, episode, first, end, option="labels")
        _check_label(buffer.schema, name, value)


def _check_range(buffer: ReplayBuffer, episode: int, first: int, end: int, *, option: str) -> None:
    length = int(buffer.episode_ends[episode] - buffer.episode_starts[episode])
    if not 0 <= first < end <= length:
        raise ValueError(
            f"{option}: steps {first}..{end} of episode {episode}, expected first < end in "
            f"0..{length}"
        )


def _check_label(schema: Schema, name: str, value: float) -> None:
    others = [feature.name for feature in schema.with_role("other")]
    if name not in others:
        raise ValueError(
            f"labels: {name!r}, but only features of role 'other' are relabelled, what was seen "
            f"and done stays; have: {', '.join(others) or 'none'}"
        )
    if np.dtype(schema[name].dtype).type(value) != value:
        raise ValueError(f"labels: {value} is not a value of {name!r}, {schema[name].dtype}")


class RepairedSource:
    """A replay buffer as it is after repairs; nothing of it is changed."""

    notes: Sequence[str] = ()

    def __init__(
        self, buffer: ReplayBuffer, repairs: Sequence[EpisodeRepair], *, options: Mapping[str, Any]
    ) -> None:
        """`buffer` after `repairs`; `options` are noted in the provenance."""
        self._buffer, self._repairs, self._options = buffer, list(repairs), dict(options)

    @property
    def schema(self) -> Schema:
        """The buffer's."""
        return self._buffer.schema

    @property
    def num_episodes(self) -> int:
        """Episodes that are kept."""
        return len(self._repairs)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The buffer's, and what was done."""
        kept = {repair.episode for repair in self._repairs}
        dropped = [e for e in range(self._buffer.num_episodes) if e not in kept]
        done = {"from": str(self._buffer.path), "options": self._options, "dropped": dropped}
        earlier = self._buffer.provenance.get("repairs", [])
        return {**self._buffer.provenance, "repairs": [*earlier, done]}

    def episode(self, index: int) -> dict[str, np.ndarray]:
        """All features of one repaired episode."""
        repair = self._repairs[index]
        start = int(self._buffer.episode_starts[repair.episode])
        rows = slice(start + repair.first, start + repair.end)
        episode = {name: self._buffer[name][rows] for name in self.schema.names}
        for name, first, end, value in repair.labels:
            at = slice(max(0, first - repair.first), max(0, end - repair.first))
            episode[name][at] = value
        return episode

    def attributes(self, index: int) -> Mapping[str, Any]:
        """The episode's, with those that were set, and `repaired`: what was done to it."""
        repair = self._repairs[index]
        told = {**self._buffer.episode_attributes[repair.episode], **repair.attributes}
        told = {name: value for name, value in told.items() if value is not None}
        if repair.reasons:
            of = f"episode {repair.episode} of {self._buffer.path.name}"
            told[REPAIRED] = [*told.get(REPAIRED, []), f"{of}: {'; '.join(repair.reasons)}"]
        return told

    def close(self) -> None:
        """Nothing is open between two reads."""


def run(config: RepairConfig) -> None:
    """Write the repaired store and print what was done. ValueError or OSError if it cannot be."""
    buffer = ReplayBuffer.open(config.path)
    repairs = plan_repairs(buffer, config)
    options = {
        name: value
        for name, value in vars(config).items()
        if name not in ("path", "target") and value != vars(RepairConfig())[name]
    }
    source = RepairedSource(buffer, repairs, options=options)
    num_steps = copy_episodes(source, ReplayBufferSink(), Path(config.target))
    for repair in repairs:
        if repair.reasons:
            print(f"episode {repair.episode}: {'; '.join(repair.reasons)}")
    num_dropped = buffer.num_episodes - len(repairs)
    print(
        f"{config.target}: {len(repairs)} episodes, {num_steps} steps; "
        f"left out {num_dropped} episodes, {buffer.num_steps - num_steps} steps"
    )


def main() -> None:
    """Console entry point: reads the command line, exits with a message on misuse."""
    ConfigStore.instance().store(name="repair_schema", node=RepairConfig)
    hydra.main(version_base="1.3", config_path="configs", config_name="repair")(_main)()


def _main(config: Any) -> None:
    try:
        told = OmegaConf.to_container(config, throw_on_missing=True)
        run(RepairConfig(**told))  # type: ignore[arg-type] - checked by the schema
    except MissingMandatoryValue as error:
        sys.exit(f"forcing-repair: {error.full_key} is not given; say {error.full_key}=...")
    except (FileNotFoundError, FileExistsError, ValueError) as error:
        sys.exit(f"forcing-repair: {error}")


if __name__ == "__main__":
    main()
