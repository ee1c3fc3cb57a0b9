"""The replay buffer: episodes on disk, concatenated in time, as zarr.

    data/<feature>   | episode 0 | episode 1 | ... |   (N, ...)
    meta/episode_ends            e0          e1        (E,) int64, written last

The layout is Diffusion Policy's and UMI's, so their v2 stores (directory or zip) open here. Ours are
written as zarr v3 with sharding; schema, rate and provenance are attributes of the root group.

An append writes the arrays first and `episode_ends` last, so whatever interrupts it, every finished
episode stays readable and a half-written one does not exist. One writer at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import zarr
import zarr.errors
import zarr.storage

from teleop_data.schema import Feature, Role, Schema

SCHEMA_KEY = "forcing_schema"
PROVENANCE_KEY = "forcing_provenance"
EPISODES_KEY = "forcing_episodes"  # one JSON object an episode, in meta's attributes

CAMERA_CHUNK, CAMERA_SHARD = 16, 512  # frames: one window touches one or two chunks
LOWDIM_CHUNK, LOWDIM_SHARD = 1024, 16384


class StoreError(ValueError):
    """A store that cannot be read as a replay buffer; the message says what is wrong with it."""


class StoredArray:
    """One feature of a store: slices to numpy, ends where the finished episodes end.

    Cameras that the store keeps as floats holding integers (as Diffusion Policy's do) are cast to
    uint8 on the way out.
    """

    def __init__(self, array: zarr.Array, *, feature: Feature, num_steps: int) -> None:
        self._array, self._feature, self._num_steps = array, feature, num_steps

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, *feature.shape), N steps in finished episodes."""
        return (self._num_steps, *self._feature.shape)

    def __len__(self) -> int:
        return self._num_steps

    def __getitem__(self, index: slice | int | np.ndarray) -> np.ndarray:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._num_steps)
            values = np.asarray(self._array[start:stop])[::step]
        else:
            if np.any(np.asarray(index) >= self._num_steps) or np.any(
                np.asarray(index) < -self._num_steps
            ):
                raise IndexError(f"step {index} outside 0..{self._num_steps - 1}")
            index = np.asarray(index) % self._num_steps
            values = np.asarray(self._array.oindex[index])
        return _cast_exactly(values, self._feature)


def _cast_exactly(values: np.ndarray, feature: Feature) -> np.ndarray:
    """`values` as the feature's dtype; StoreError if a camera's floats are not integers 0..255."""
    dtype = np.dtype(feature.dtype)
    if values.dtype == dtype:
        return values
    cast_values = values.astype(dtype)
    if feature.role == "camera" and not np.array_equal(cast_values, values):
        raise StoreError(
            f"camera {feature.name!r} holds floats that are not integers in 0..255 "
            f"(range {values.min()} to {values.max()}); convert it to uint8 first"
        )
    return cast_values


class ReplayBuffer:
    """Episodes of one schema on disk. Make one with `create` or `open`."""

    def __init__(self, root: zarr.Group, *, schema: Schema, path: Path) -> None:
        self._root, self.schema, self.path = root, schema, path
        self.episode_ends = _finished_ends(root, path=path)
        self._check_lengths()

    @classmethod
    def create(
        cls, path: str | Path, schema: Schema, *, provenance: Mapping[str, Any] | None = None
    ) -> ReplayBuffer:
        """An empty buffer at a path that must not exist yet (FileExistsError otherwise)."""
        path = Path(path)
        if path.exists():
            raise FileExistsError(f"{path} exists; open it with mode='r+' to append, or remove it")
        root = zarr.open_group(store=path, mode="w-", zarr_format=3)
        root.attrs[PROVENANCE_KEY] = dict(provenance or {})
        data, meta = root.create_group("data"), root.create_group("meta")
        for feature in schema.features:
            _create_array(data, feature)
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
        store = zarr.storage.ZipStore(path, mode="r") if path.is_file() else path
        try:
            root = zarr.open_group(store=store, mode=mode)
            data = cast(zarr.Group, root["data"])
            schema_json = root.attrs.get(SCHEMA_KEY)
            schema = (
                Schema.from_json(cast(dict, schema_json)) if schema_json else infer_schema(data)
            )
        except (KeyError, FileNotFoundError, zarr.errors.BaseZarrError) as error:
            raise StoreError(
                f"{path} is not a replay buffer: expected a zarr group with data/* and "
                f"meta/episode_ends ({error})"
            ) from error
        return cls(root, schema=schema, path=path)

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
        stored = cast(list, self._root["meta"].attrs.get(EPISODES_KEY, []))[: self.num_episodes]
        return stored + [{}] * (self.num_episodes - len(stored))

    def __getitem__(self, name: str) -> StoredArray:
        feature = self.schema[name]
        array = cast(zarr.Array, self._root[f"data/{name}"])
        return StoredArray(array, feature=feature, num_steps=self.num_steps)

    def episode(self, index: int) -> dict[str, np.ndarray]:
        """All features of one episode, {name: (T, ...)}. IndexError outside 0..E-1."""
        if not 0 <= index < self.num_episodes:
            raise IndexError(f"episode {index} outside 0..{self.num_episodes - 1}")
        steps = slice(int(self.episode_starts[index]), int(self.episode_ends[index]))
        return {name: self[name][steps] for name in self.schema.names}

    def append_episode(
        self, episode: Mapping[str, np.ndarray], *, attributes: Mapping[str, Any] | None = None
    ) -> None:
        """Add one finished episode.

        Args:
            episode: {name: (T, ...)} for every feature of the schema, T >= 1, all alike.
            attributes: JSON-ready facts about it (seed, success, operator's label).

        Raises:
            KeyError: a feature is missing or unknown.
            ValueError: a shape or dtype differs, lengths differ, or a float is not finite.
                Nothing has been written then.
        """
        length = _check_episode(episode, self.schema)
        start, stop = self.num_steps, self.num_steps + length
        for name in self.schema.names:
            array = cast(zarr.Array, self._root[f"data/{name}"])
            array.resize((stop, *array.shape[1:]))
            array[start:stop] = episode[name]
        meta = cast(zarr.Group, self._root["meta"])
        meta.attrs[EPISODES_KEY] = [*self.episode_attributes, dict(attributes or {})]
        ends = np.append(self.episode_ends, stop)
        stored_ends = cast(zarr.Array, meta["episode_ends"])
        stored_ends.resize((len(ends),))
        stored_ends[:] = ends
        self.episode_ends = ends

    def _check_lengths(self) -> None:
        for feature in self.schema.features:
            try:
                array = cast(zarr.Array, self._root[f"data/{feature.name}"])
            except KeyError as error:
                raise StoreError(f"{self.path}: array data/{feature.name} is missing") from error
            if array.shape[0] < self.num_steps or array.shape[1:] != feature.shape:
                raise StoreError(
                    f"{self.path}: data/{feature.name} has shape {array.shape}, episodes need "
                    f"({self.num_steps}, {', '.join(map(str, feature.shape))}); "
                    "the store was cut off while it was written or copied"
                )


def _finished_ends(root: zarr.Group, *, path: Path) -> np.ndarray:
    """(E,) episode ends that rise; a trailing entry that does not was never finished."""
    try:
        ends = np.asarray(cast(zarr.Array, root["meta/episode_ends"])[:], dtype=np.int64)
    except KeyError as error:
        raise StoreError(f"{path}: meta/episode_ends is missing") from error
    rising = np.diff(ends, prepend=0) > 0
    num_finished = len(ends) if rising.all() else int(np.argmin(rising))
    if rising[num_finished:].any():
        raise StoreError(f"{path}: meta/episode_ends does not rise: {ends}")
    return ends[:num_finished]


def _check_episode(episode: Mapping[str, np.ndarray], schema: Schema) -> int:
    """Length T of a valid episode; raises as `append_episode` says."""
    if set(episode) != set(schema.names):
        raise KeyError(
            f"episode has {sorted(episode)}, the schema wants {sorted(schema.names)}"
        )
    lengths = {name: len(values) for name, values in episode.items()}
    if len(set(lengths.values())) != 1 or min(lengths.values()) == 0:
        raise ValueError(f"every feature needs the same number of steps, at least 1: {lengths}")
    for name, values in episode.items():
        feature = schema[name]
        if values.shape[1:] != feature.shape or values.dtype != np.dtype(feature.dtype):
            raise ValueError(
                f"feature {name!r}: got {values.shape} {values.dtype}, "
                f"expected (T, {', '.join(map(str, feature.shape))}) {feature.dtype}"
            )
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            step = int(np.argwhere(~np.isfinite(values.reshape(len(values), -1)).all(1))[0, 0])
            raise ValueError(f"feature {name!r}: not finite at step {step}: {values[step]}")
    return next(iter(lengths.values()))


def _create_array(data: zarr.Group, feature: Feature) -> None:
    is_camera = feature.role == "camera"
    chunk, shard = (CAMERA_CHUNK, CAMERA_SHARD) if is_camera else (LOWDIM_CHUNK, LOWDIM_SHARD)
    data.create_array(
        feature.name,
        shape=(0, *feature.shape),
        chunks=(chunk, *feature.shape),
        shards=(shard, *feature.shape),
        dtype=feature.dtype,
    )


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
        dtype = "uint8" if role == "camera" else str(array.dtype)
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
