"""How our features and LeRobot's columns name the same arrays, in both directions.

    camera `front`            observation.images.front
    state `joints`, `grip`    observation.state          side by side, the one LeRobot policies read
    action `action`           action
    other `contacts`          contacts                   under a name that LeRobot gives no meaning

Columns are flat; what a dataset of ours is made of is told by `meta/forcing.json` beside LeRobot's
own files. Of datasets made by others, schema and roles are guessed from LeRobot's conventions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from teleop_data.schema import DTYPES, Feature, Role, Schema

IMAGES = "observation.images."
STATE = "observation.state"
ACTION = "action"
# Filled in by LeRobot itself; a frame that brings them is refused.
INDEX_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a LeRobot dataset.

    Attributes:
        key: LeRobot's name.
        features: names of ours that it holds, flattened and side by side.
    """

    key: str
    features: tuple[str, ...]

    def join(self, episode: Mapping[str, np.ndarray]) -> np.ndarray:
        """(T, D) the features of `episode` side by side."""
        parts = [np.asarray(episode[name]) for name in self.features]
        flat = [part.reshape(len(part), -1) for part in parts]
        return flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)

    def split(self, values: np.ndarray, *, schema: Schema) -> dict[str, np.ndarray]:
        """The features that `join` put side by side: {name: (T, *shape)}, with their dtypes.

        Raises:
            ValueError: `values` (T, ...) has another number of entries than the features.
        """
        flat = values.reshape(len(values), -1)
        features = [schema[name] for name in self.features]
        sizes = [math.prod(feature.shape) for feature in features]
        if flat.shape[1] != sum(sizes):
            raise ValueError(
                f"column {self.key!r} has {flat.shape[1]} entries, expected {sum(sizes)} for "
                f"{', '.join(self.features)}"
            )
        parts = np.split(flat, np.cumsum(sizes)[:-1], axis=1)
        return {
            feature.name: np.ascontiguousarray(part, feature.dtype).reshape(-1, *feature.shape)
            for feature, part in zip(features, parts, strict=True)
        }


def columns_of(schema: Schema) -> tuple[Column, ...]:
    """The columns in which a LeRobot dataset holds `schema`, cameras first.

    State features share `observation.state` as far as they have the first one's dtype, and action
    features `action`; a state of another dtype keeps its own name, outside the observation.
    Cameras that are not RGB or grey have no column.
    """
    columns = [
        Column(key=IMAGES + camera.name, features=(camera.name,))
        for camera in schema.with_role("camera")
        if camera.shape[-1] in (1, 3)
    ]
    apart: list[Feature] = []
    roles: tuple[tuple[str, Role], ...] = ((STATE, "state"), (ACTION, "action"))
    for key, role in roles:
        features = schema.with_role(role)
        together = tuple(f.name for f in features if f.dtype == features[0].dtype)
        if together:
            columns.append(Column(key=key, features=together))
        apart += [f for f in features if f.name not in together]
    for feature in (*apart, *schema.with_role("other")):
        taken = {column.key for column in columns}
        columns.append(Column(key=_free_key(feature.name, taken), features=(feature.name,)))
    return tuple(columns)


def _free_key(name: str, taken: Iterable[str]) -> str:
    """`name`, or `other.<name>` where LeRobot would take the name for something it is not."""
    has_meaning = (
        name in (*INDEX_COLUMNS, "task", "size")
        or name.startswith(("observation", ACTION, "language_"))
        or "_is_pad" in name
    )
    key = f"other.{name}" if has_meaning else name
    while key in taken:
        key = f"other.{key}"
    return key


def keep_cameras(
    schema: Schema, columns: tuple[Column, ...], cameras: Sequence[str] | None
) -> tuple[Schema, tuple[Column, ...], list[str]]:
    """Schema and columns with only `cameras` (None: all), and the names of those left out.

    Raises:
        KeyError: no such camera.
    """
    have = [camera.name for camera in schema.with_role("camera")]
    if unknown := sorted(set(cameras or ()) - set(have)):
        raise KeyError(f"no camera {', '.join(unknown)}; have: {', '.join(have) or 'none'}")
    dropped = [] if cameras is None else [name for name in have if name not in cameras]
    kept = schema.select(name for name in schema.names if name not in dropped)
    return kept, tuple(c for c in columns if c.features[0] not in dropped), dropped


def losses(schema: Schema, *, storage: str) -> list[str]:
    """What a LeRobot dataset does not carry of `schema`, one sentence each."""
    said = [
        "The time of each frame is made up by LeRobot as frame_index / fps; recorded capture times "
        "stay only where a feature holds them.",
        "Units, angles, roles and shapes are not LeRobot's: they are kept in meta/forcing.json, "
        "which only this program reads; LeRobot's own tools drop it when they edit a dataset.",
    ]
    columns = columns_of(schema)
    held = {name for column in columns for name in column.features}
    key_of = {name: column.key for column in columns for name in column.features}
    for camera in schema.with_role("camera"):
        if camera.name not in held:
            said.append(f"Camera {camera.name!r} has {camera.shape[-1]} channels and is left out.")
        elif camera.shape[-1] == 1:
            said.append(f"Camera {camera.name!r} is grey and is stored three times over, as RGB.")
    if storage == "video" and schema.with_role("camera"):
        said.append("Images are compressed as video with loss; storage=image keeps every bit.")
    for feature in schema.features:
        if feature.name in held and feature.role == "state" and key_of[feature.name] != STATE:
            said.append(
                f"State {feature.name!r} is {feature.dtype}, unlike the first state: it gets a "
                f"column {key_of[feature.name]!r} that LeRobot's policies do not read."
            )
        if feature.dtype == "float64":
            said.append(
                f"{feature.name!r} is float64: the file keeps it, LeRobotDataset gives float32."
            )
    return said


def column_specs(
    schema: Schema, *, storage: str, entry_names: Mapping[str, list[str]]
) -> dict[str, dict[str, Any]]:
    """LeRobot's description of every column, as `LeRobotDataset.create` takes it."""
    specs: dict[str, dict[str, Any]] = {}
    for column in columns_of(schema):
        features = [schema[name] for name in column.features]
        if features[0].role == "camera":
            shape = (*features[0].shape[:2], 3)
            names = ["height", "width", "channels"]
            specs[column.key] = {"dtype": storage, "shape": shape, "names": names}
            continue
        names = [name for f in features for name in _entry_names(f, entry_names)]
        specs[column.key] = {"dtype": features[0].dtype, "shape": (len(names),), "names": names}
    return specs


def _entry_names(feature: Feature, known: Mapping[str, list[str]]) -> list[str]:
    """A name for each entry of `feature`."""
    size = math.prod(feature.shape)
    names = known.get(feature.name, [])
    if len(names) == size:
        return [str(name) for name in names]
    return [feature.name] if size == 1 else [f"{feature.name}.{i}" for i in range(size)]


@dataclass(frozen=True, kw_only=True)
class Guess:
    """What a dataset of others seems to hold.

    Attributes:
        schema: the features.
        columns: where each is.
        entry_names: names of the entries, where the dataset gives them.
        notes: what was guessed or left out, one sentence each.
    """

    schema: Schema
    columns: tuple[Column, ...]
    entry_names: dict[str, list[str]]
    notes: tuple[str, ...]


def guess(specs: Mapping[str, Mapping[str, Any]], *, rate_hz: float) -> Guess:
    """Schema of a dataset with LeRobot's column descriptions `specs` (`features` of info.json).

    Raises:
        ValueError: no column can be read.
    """
    features, columns, notes, entry_names = [], [], [], {}
    for key, spec in specs.items():
        if key in INDEX_COLUMNS:
            continue
        taken = {feature.name for feature in features}
        feature = _guess_feature(key, spec, taken)
        if isinstance(feature, str):
            notes.append(feature)
            continue
        features.append(feature)
        columns.append(Column(key=key, features=(feature.name,)))
        if feature.role != "camera" and (names := _flat_names(spec.get("names"))):
            entry_names[feature.name] = names
    if not features:
        raise ValueError(f"no column can be read; the dataset has {', '.join(specs)}")
    roles = ", ".join(f"{feature.name}: {feature.role}" for feature in features)
    notes.append(f"Roles are guessed from LeRobot's names ({roles}).")
    notes.append("LeRobot does not say units, nor which entries are angles: none are set.")
    if not any(feature.role == "action" for feature in features):
        notes.append("There is no column 'action': the episodes cannot train a policy as they are.")
    schema = Schema(features=tuple(features), rate_hz=rate_hz)
    return Guess(schema=schema, columns=tuple(columns), entry_names=entry_names, notes=tuple(notes))


def _guess_feature(key: str, spec: Mapping[str, Any], taken: set[str]) -> Feature | str:
    """The feature of column `key`, or the sentence why it is left out."""
    dtype, shape = str(spec["dtype"]), tuple(int(n) for n in spec.get("shape") or (1,))
    info = {**(spec.get("info") or {}), **(spec.get("video_info") or {})}
    if dtype in ("video", "image"):
        if info.get("is_depth_map") or info.get("video.is_depth_map"):
            return f"Column {key!r} is a depth map, which a uint8 camera cannot hold: left out."
        shape, dtype, role = _image_shape(shape, spec.get("names")), "uint8", "camera"
    elif dtype not in DTYPES:
        return f"Column {key!r} holds {dtype}, not numbers: left out."
    else:
        role = _role(key)
    name = _short_name(key)
    if name in taken:
        name = key
    return Feature(name=name, shape=shape, dtype=dtype, role=role)


def _role(key: str) -> Role:
    """Role of a column of numbers, by LeRobot's conventions."""
    if key == ACTION:
        return "action"
    if key == "observation.environment_state":  # the world's, which no robot knows
        return "other"
    return "state" if key.startswith("observation.") else "other"


def _short_name(key: str) -> str:
    """Our name of column `key`: LeRobot's prefix says what our role says already."""
    for prefix in (IMAGES, STATE + ".", "observation."):
        if key.startswith(prefix) and len(key) > len(prefix):
            return key.removeprefix(prefix)
    return key


def _image_shape(shape: tuple[int, ...], names: Any) -> tuple[int, int, int]:
    """(H, W, 3) of an image column, which may be described channels first."""
    first = str(_flat_names(names)[0]) if _flat_names(names) else ""
    channels_first = first.startswith("channel") or (
        not first and shape[0] in (1, 3) and shape[-1] not in (1, 3)
    )
    height, width = shape[1:] if channels_first else shape[:2]
    return (height, width, 3)


def _flat_names(names: Any) -> list[str]:
    """The entry names, which LeRobot keeps as a list or as {"motors": list}."""
    if isinstance(names, Mapping):
        return [str(name) for part in names.values() if isinstance(part, list) for name in part]
    return [str(name) for name in names] if isinstance(names, list) else []
