"""The replay buffer: episodes on disk, concatenated in time, as zarr.

    data/<feature>   | episode 0 | episode 1 | ... |   (N, ...)
    meta/episode_ends            e0          e1        (E,) int64, written last

The layout is Diffusion Policy's and UMI's, so their v2 stores (directory or zip) open here. Ours
are written as zarr v3 with sharding; schema, rate and provenance are attributes of the root group.

An append writes the arrays first and `episode_ends` last, so whatever interrupts it, every finished
episode stays readable and a half-written one does not exist (zarr replaces a shard's file in one
move, so finished episodes that share it survive too). One writer at a time.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import zarr
import zarr.errors
import zarr.storage

from teleop_data.array_layout import CameraCodec, create_array
from teleop_data.parts import Rows
from teleop_data.schema import Feature, Role, Schema
from teleop_data.stored_array import READ_ERRORS, StoredArray, StoreError, missing_chunks

__all__ = ["ReplayBuffer", "StoreError", "StoredArray", "infer_schema"]

SCHEMA_KEY = "forcing_schema"
PROVENANCE_KEY = "forcing_provenance"
EPISODES_KEY = "forcing_episodes"  # one JSON object an episode, in meta's attributes


class ReplayBuffer:
    """Episodes of one schema on disk. Make one with `create` or `open`."""

    def __init__(self, root: zarr.Group, *, schema: Schema, path: Path) -> None:
        self._root, self.schema, self.path = root, schema, path
        if not isinstance(meta := root.get("meta"), zarr.Group):
            raise StoreError("the group meta is missing")
        self._meta = meta
        self.episode_ends = _finished_ends(root, path=path)
        for feature in schema.features:
            self._check_array(feature)

    @classmethod
    def create(
        cls,
        path: str | Path,
        schema: Schema,
        *,
        provenance: Mapping[str, Any] | None = None,
        camera_codec: CameraCodec = "zstd",
    ) -> ReplayBuffer:
        """An empty buffer at a path that must not exist yet (FileExistsError otherwise)."""
        path = Path(path)
        if path.exists():
            raise FileExistsError(f"{path} exists; open it with mode='r+' to append, or remove it")
        root = zarr.open_group(store=path, mode="w-", zarr_format=3)
        root.attrs[PROVENANCE_KEY] = dict(provenance or {})
        data, meta = root.create_group("data"), root.create_group("meta")
        for feature in schema.features:
            create_array(data, feature, codec=camera_codec)
        meta.create_array("episode_ends", shape=(0,), chunks=(4096,), dtype="int64")
        meta.attrs[EPISODES_KEY] = []
        root.attrs[SCHEMA_KEY] = schema.to_json()  # last: without it the store is not a buffer
        return cls(root, schema=schema, path=path)

    @classmethod
    def open(cls, path: str | Path, *, mode: Literal["r", "r+"] = "r") -> ReplayBuffer:
        """The buffer at `path`: ours, or a Diffusion Policy or UMI store (directory or zip).

        Raises:
            FileNotFoundError: nothing there.
            StoreError: not a replay buffer, or cut off in mid-write beyond what can be read.
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"no replay buffer at {path}")
        if path.is_file() and mode != "r":
            raise StoreError(f"{path} is a zip: read-only; convert it to a directory to append")
        try:
            store = zarr.storage.ZipStore(path, mode="r") if path.is_file() else path
            root = zarr.open_group(store=store, mode=mode)
            return cls(root, schema=_read_schema(root), path=path)
        except StoreError as error:
            raise StoreError(f"{path}: {error}") from error
        except (*READ_ERRORS, zipfile.BadZipFile) as error:
            raise StoreError(
                f"{path} is not a whole replay buffer: expected a zarr group with data/* and "
                f"meta/episode_ends at its root ({type(error).__name__}: {error})"
            ) from error

    @property
    def num_episodes(self) -> int:
        """Finished episodes."""
        return len(self.episode_ends)

    @property
    def num_steps(self) -> int:
        """Control steps in all finished episodes."""
        return int(self.episode_ends[-1]) if len(self.episode_ends) else 0

    @property
    def episode_starts(self) -> np.ndarray:
        """(E,) int64, first step of each episode."""
        return np.concatenate([[0], self.episode_ends[:-1]]).astype(np.int64)[: self.num_episodes]

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the episodes come from, as the creator said."""
        return dict(cast(dict, self._root.attrs.get(PROVENANCE_KEY, {})))

    @property
    def episode_attributes(self) -> list[dict[str, Any]]:
        """One dict per finished episode, empty where the store has none."""
        stored = cast(list, self._meta.attrs.get(EPISODES_KEY, []))[: self.num_episodes]
        return stored + [{}] * (self.num_episodes - len(stored))

    def __getitem__(self, name: str) -> StoredArray:
        feature = self.schema[name]
        array = _array(self._root, f"data/{name}")
        return StoredArray(array, feature=feature, num_steps=self.num_steps)

    def missing_files(self, name: str) -> list[str]:
        """Files of one feature that are not there; of others' stores, they may be all zeros."""
        array = _array(self._root, f"data/{name}")
        return missing_chunks(array, path=self.path, num_steps=self.num_steps)

    def episode(self, index: int) -> dict[str, np.ndarray]:
        """All features of one episode, {name: (T, ...)}. IndexError outside 0..E-1."""
        if not 0 <= index < self.num_episodes:
            raise IndexError(f"episode {index} outside 0..{self.num_episodes - 1}")
        steps = slice(int(self.episode_starts[index]), int(self.episode_ends[index]))
        return {name: self[name][steps] for name in self.schema.names}

    def append_episode(
        self, episode: Mapping[str, Rows], *, attributes: Mapping[str, Any] | None = None
    ) -> None:
        """Add one finished episode, a shard at a time.

        Args:
            episode: {name: (T, ...)} for every feature of the schema, T >= 1, all alike: arrays, or
                rows of a file that need not fit into memory.
            attributes: JSON-ready facts about it (seed, success, operator's label).

        Raises:
            KeyError: a feature is missing or unknown.
            ValueError: a shape or dtype differs, lengths differ, or a float is not finite.
            TypeError: the attributes are not JSON-ready.
                Nothing has been written after any of these.
            StoreError: the buffer was opened for reading only.
        """
        if self._root.read_only:
            raise StoreError(f"{self.path} is open for reading; open it with mode='r+' to append")
        length = _check_episode(episode, self.schema)
        json.dumps(dict(attributes or {}))  # refused here, not between two writes
        start, stop = self.num_steps, self.num_steps + length
        for name in self.schema.names:
            # Every shard becomes a file, also one of nothing but zeros: so a lost file is noticed.
            array = _array(self._root, f"data/{name}").with_config({"write_empty_chunks": True})
            array.resize((stop, *array.shape[1:]))
            shard = (array.shards or array.chunks)[0]
            edges = [start, *range((start // shard + 1) * shard, stop, shard), stop]
            for first, last in pairwise(edges):
                array[first:last] = episode[name][first - start : last - start]
        self._meta.attrs[EPISODES_KEY] = [*self.episode_attributes, dict(attributes or {})]
        ends = np.append(self.episode_ends, stop)
        stored_ends = _array(self._meta, "episode_ends")
        stored_ends.resize((len(ends),))
        stored_ends[:] = ends
        self.episode_ends = ends

    def _check_array(self, feature: Feature) -> None:
        """Raise StoreError unless the store has all rows of `feature` that its episodes need."""
        array = _array(self._root, f"data/{feature.name}")
        if array.shape[0] < self.num_steps or array.shape[1:] != feature.shape:
            raise StoreError(
                f"data/{feature.name} has shape {array.shape}, episodes need "
                f"({self.num_steps}, {', '.join(map(str, feature.shape))}); "
                "the store was cut off while it was written or copied"
            )
        if feature.role != "camera" and array.dtype != np.dtype(feature.dtype):
            raise StoreError(
                f"data/{feature.name} holds {array.dtype}, its schema says {feature.dtype}"
            )
        if SCHEMA_KEY in self._root.attrs:  # ours: every file was written
            missing = self.missing_files(feature.name)
            if missing:
                raise StoreError(
                    f"files are missing: {', '.join(missing[:4])} ({len(missing)} in all); "
                    "the store was cut off while it was copied"
                )


def _array(group: zarr.Group, path: str) -> zarr.Array:
    """The array at `path` below `group`; StoreError if there is none."""
    try:
        array = group[path]
    except KeyError as error:
        raise StoreError(f"array {path} is missing") from error
    if not isinstance(array, zarr.Array):
        raise StoreError(f"{path} is a group, expected an array")
    return array


def _read_schema(root: zarr.Group) -> Schema:
    """The schema a store carries, or one inferred for the stores of others."""
    attributes = dict(root.attrs)
    if SCHEMA_KEY in attributes:
        return Schema.from_json(cast(dict, attributes[SCHEMA_KEY]))
    if PROVENANCE_KEY in attributes:  # `create` writes it first and the schema last
        raise StoreError("the store was cut off while it was created; remove it, it holds nothing")
    data = root["data"]
    if not isinstance(data, zarr.Group):
        raise StoreError("data is an array, expected a group of arrays")
    return infer_schema(data)


def _finished_ends(root: zarr.Group, *, path: Path) -> np.ndarray:
    """(E,) episode ends that rise; a single last entry that does not was never finished."""
    array = _array(root, "meta/episode_ends")
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise StoreError(f"meta/episode_ends must be (E,) integers, is {array.shape} {array.dtype}")
    ends = np.asarray(array[:]).astype(np.int64)
    rising = np.diff(ends, prepend=0) > 0
    if rising[:-1].all():
        return ends if rising.all() else ends[:-1]
    raise StoreError(
        f"meta/episode_ends does not rise: {ends}"
        + ("; its file is lost" if missing_chunks(array, path=path, num_steps=len(ends)) else "")
    )


def _check_episode(episode: Mapping[str, Rows], schema: Schema) -> int:
    """Length T of a valid episode; raises as `append_episode` says."""
    if set(episode) != set(schema.names):
        raise KeyError(f"episode has {sorted(episode)}, the schema wants {sorted(schema.names)}")
    lengths = {name: values.shape[0] if values.shape else 0 for name, values in episode.items()}
    if len(set(lengths.values())) != 1 or min(lengths.values()) == 0:
        raise ValueError(f"every feature needs the same number of steps, at least 1: {lengths}")
    for name, values in episode.items():
        feature = schema[name]
        dtype = values[:1].dtype
        if values.shape[1:] != feature.shape or dtype != np.dtype(feature.dtype):
            raise ValueError(
                f"feature {name!r}: got {values.shape} {dtype}, "
                f"expected (T, {', '.join(map(str, feature.shape))}) {feature.dtype}"
            )
        if dtype.kind == "f" and not np.isfinite(rows := values[:]).all():
            step = int(np.argwhere(~np.isfinite(rows.reshape(len(rows), -1)).all(1))[0, 0])
            raise ValueError(f"feature {name!r}: not finite at step {step}: {rows[step]}")
    return next(iter(lengths.values()))


def infer_schema(data: zarr.Group, *, rate_hz: float = 10.0) -> Schema:
    """Schema of a store that carries none, guessed from names and shapes.

    (N, H, W, 1 or 3) is a camera; a name with "action" is the action; a name with "state", "pos",
    "rot", "pose" or "width" is state; the rest is "other". The rate is not in such stores either:
    Push-T's is 10 Hz.
    """
    features = []
    for name, array in sorted(_open_arrays(data).items()):
        shape = array.shape[1:]
        role: Role = "other"
        if len(shape) == 3 and shape[-1] in (1, 3):
            role = "camera"
        elif "action" in name:
            role = "action"
        elif any(word in name for word in ("state", "pos", "rot", "pose", "width")):
            role = "state"
        dtype = "uint8" if role == "camera" else array.dtype.name
        features.append(Feature(name=name, shape=shape, dtype=dtype, role=role))
    if not features:
        raise StoreError("the group data/ holds no arrays")
    return Schema(features=tuple(features), rate_hz=rate_hz)


def _open_arrays(data: zarr.Group) -> dict[str, zarr.Array]:
    """Arrays by name; registers the image codecs that UMI's stores need if one asks for them."""
    try:
        return dict(data.arrays())
    except (ValueError, zarr.errors.BaseZarrError) as error:
        if "imagecodecs" not in str(error):
            raise
        from imagecodecs.numcodecs import register_codecs

        register_codecs(verbose=False)
        return dict(data.arrays())
