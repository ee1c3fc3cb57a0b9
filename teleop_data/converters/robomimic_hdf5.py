"""robomimic's HDF5, both ways; its own `SequenceDataset` opens what is written here.

    data            attributes env_args (JSON), total
    data/demo_0     attributes num_samples [, model_file]
        obs/<name>        cameras and state            next_obs/<name>   only if asked for
        actions           the action features, flat and side by side
        rewards dones     [states] [<name>]            features of role "other"
    mask/<name>     names of the episodes in a split   attribute `masks` of the episodes

Schema, provenance and the episodes' attributes are JSON in attributes of their own, which robomimic
passes over. h5py is imported where a file is opened.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from teleop_data.converters.episode_stream import Format
from teleop_data.converters.hdf5_file import (
    demo_number,
    first_demo,
    import_h5py,
    is_hdf5,
    json_ready,
    open_hdf5,
    told,
)
from teleop_data.converters.robomimic_layout import (
    ATTRIBUTES_KEY,
    NEXT_OBS,
    PROVENANCE_KEY,
    SCHEMA_KEY,
    UNKNOWN_ENVIRONMENT,
    guess_schema,
    place_of,
    split_actions,
)
from teleop_data.replay_buffer import StoreError
from teleop_data.schema import Schema


class RobomimicSource:
    """The episodes of a robomimic HDF5 file, in the order of their numbers."""

    def __init__(
        self, path: str | Path, *, next_obs: bool = False, model_files: bool = True
    ) -> None:
        """The file at `path`.

        Args:
            path: the file.
            next_obs: give the observations of `next_obs` too, as `next_obs.<name>`, role "other".
            model_files: give each episode's simulator model as its attribute `model_file`.

        Raises:
            FileNotFoundError: nothing there.
            ModuleNotFoundError: h5py is not installed.
            StoreError: no robomimic file, or it is cut off.
        """
        self._path, self._model_files = Path(path), model_files
        self._file = open_hdf5(self._path)
        with told(self._path):
            self._data = self._file["data"]
            self._demos = sorted(self._data, key=demo_number)
            if not self._demos:
                raise StoreError(f"{path}: the group data holds no demo_0, demo_1, ...")
            self._masks = self._read_masks()
            first = self._data[self._demos[0]]
            self._notes: list[str] = []
            if SCHEMA_KEY in self._data.attrs:
                self._schema = Schema.from_json(json.loads(self._data.attrs[SCHEMA_KEY]))
            else:
                guessed = guess_schema(first, next_obs=next_obs)
                self._schema, self._notes = guessed

    @property
    def schema(self) -> Schema:
        """The features, as we wrote them or as guessed."""
        return self._schema

    @property
    def num_episodes(self) -> int:
        """Demonstrations in the file."""
        return len(self._demos)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """As we wrote it, or the file's name; with `env_args` where the environment is known."""
        attributes = self._data.attrs
        said: dict[str, Any] = {"format": "robomimic HDF5", "file": self._path.name}
        if PROVENANCE_KEY in attributes:
            said = json.loads(attributes[PROVENANCE_KEY])
        environment = json.loads(attributes.get("env_args", "null"))
        is_known = environment and environment != UNKNOWN_ENVIRONMENT
        return said | ({"env_args": environment} if is_known else {})

    @property
    def notes(self) -> Sequence[str]:
        """What was guessed or left out, one sentence each; empty for a file of ours."""
        return self._notes

    def episode(self, index: int) -> dict[str, np.ndarray]:
        """All features of one episode."""
        demo = self._demo(index)
        with told(self._path):
            arrays = {
                feature.name: np.asarray(demo[place_of(feature)])
                for feature in self.schema.features
                if feature.role != "action"
            }
            arrays |= split_actions(np.asarray(demo["actions"]), schema=self.schema)
        for name, values in arrays.items():
            feature = self.schema[name]
            if values.shape[1:] != feature.shape or values.dtype != np.dtype(feature.dtype):
                raise StoreError(
                    f"{self._path}: {name!r} of {self._demos[index]} is {values.shape} "
                    f"{values.dtype}; the first episode has (T, *{feature.shape}) {feature.dtype}"
                )
        return {name: arrays[name] for name in self.schema.names}

    def attributes(self, index: int) -> Mapping[str, Any]:
        """Facts about one episode: `masks` (its splits, by name), `demo` (its name, where not
        demo_<index>), `model_file`, and whatever else stands beside its arrays."""
        demo, name = self._demo(index), self._demos[index]
        with told(self._path):
            attributes = json.loads(demo.attrs.get(ATTRIBUTES_KEY, "{}"))
            left_out = {"num_samples", ATTRIBUTES_KEY} | (
                set() if self._model_files else {"model_file"}
            )
            attributes |= {
                key: json_ready(value) for key, value in demo.attrs.items() if key not in left_out
            }
        if masks := [mask for mask, names in self._masks.items() if name in names]:
            attributes["masks"] = masks
        if name != f"demo_{index}":
            attributes["demo"] = name
        return attributes

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _demo(self, index: int) -> Any:
        if not 0 <= index < len(self._demos):
            raise IndexError(f"episode {index} outside 0..{len(self._demos) - 1}")
        return self._data[self._demos[index]]

    def _read_masks(self) -> dict[str, set[str]]:
        masks = self._file.get("mask", {})
        return {
            name: {entry.decode() for entry in np.asarray(masks[name]).tolist()} for name in masks
        }


class RobomimicSink:
    """A robomimic HDF5 file. Splits are not made up: robomimic's `split_train_val.py` adds them."""

    def __init__(self, *, compression: str | None = None, next_obs: bool = False) -> None:
        """How to write.

        Args:
            compression: "gzip" or "lzf" for the cameras; None stores them plainly, as robomimic
                does, which reads fastest.
            next_obs: write each observation again under next_obs one step earlier, the last one
                repeated. Only robomimic's offline reinforcement learning needs it.

        Raises:
            ValueError: another compression.
        """
        if compression not in (None, "gzip", "lzf"):
            raise ValueError(f"compression {compression!r}; expected gzip, lzf or null")
        self._compression, self._next_obs = compression, next_obs
        self._file: Any = None
        self._masks: dict[str, list[str]] = {}
        self._total = self._num_demos = 0

    def losses(self, schema: Schema) -> Sequence[str]:
        """What robomimic will not see, and what it needs and is made up."""
        places = [place_of(feature) for feature in schema.features if feature.role != "action"]
        if twice := sorted({place for place in places if places.count(place) > 1}):
            raise ValueError(f"two features would become {', '.join(twice)}; rename one with names")
        actions = schema.with_role("action")
        if len({action.dtype for action in actions}) != 1:
            raise ValueError(
                "robomimic keeps all actions in one array, so the schema needs action features of "
                f"one dtype; it has {', '.join(f'{a.name} {a.dtype}' for a in actions) or 'none'}"
            )
        losses = [
            "Rate, roles, units and the episodes' attributes: robomimic does not read them; "
            "they are kept in attributes of the file and read back by this program.",
            "env_args: where the provenance has none, robomimic can train on the file and make no "
            "environment from it.",
        ]
        if {"rewards", "dones"} - set(schema.names):
            losses.append(
                "rewards and dones where there are none: dones is 1 at the last step, rewards is 1 "
                "there if the attribute success is true, and both are 0 elsewhere."
            )
        return losses

    def begin(self, path: Path, *, schema: Schema, provenance: Mapping[str, Any]) -> None:
        """Create the file. ModuleNotFoundError if h5py is not installed."""
        self._schema = schema
        self._file = import_h5py().File(path, "w-")
        data = self._file.create_group("data")
        said = dict(provenance)
        data.attrs["env_args"] = json.dumps(said.pop("env_args", UNKNOWN_ENVIRONMENT))
        data.attrs[PROVENANCE_KEY] = json.dumps(said)
        data.attrs[SCHEMA_KEY] = json.dumps(schema.to_json())

    def add(self, episode: Mapping[str, np.ndarray], *, attributes: Mapping[str, Any]) -> None:
        """Write one episode."""
        name = f"demo_{self._num_demos}"
        demo = self._file.create_group(f"data/{name}")
        actions = [episode[action.name] for action in self._schema.with_role("action")]
        num_steps = len(actions[0])
        demo["actions"] = np.concatenate([a.reshape(num_steps, -1) for a in actions], axis=1)
        for feature in self._schema.features:
            if feature.role != "action":
                is_camera = feature.role == "camera"
                self._write(demo, place_of(feature), episode[feature.name], is_camera=is_camera)
        is_last = np.arange(num_steps) == num_steps - 1
        if "dones" not in demo:
            demo["dones"] = is_last.astype(np.int64)
        if "rewards" not in demo:
            demo["rewards"] = (is_last & bool(attributes.get("success"))).astype(np.float64)
        self._write_attributes(demo, name, attributes)
        demo.attrs["num_samples"] = num_steps
        self._num_demos += 1
        self._total += num_steps

    def finish(self) -> None:
        """Write the splits and the number of steps, and close the file."""
        for mask, names in self._masks.items():
            self._file[f"mask/{mask}"] = np.array(names, dtype="S")
        self._file["data"].attrs["total"] = self._total
        self._file.close()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _write(self, demo: Any, place: str, values: np.ndarray, *, is_camera: bool) -> None:
        options: dict[str, Any] = {}
        if is_camera and self._compression is not None:
            options = {"chunks": (1, *values.shape[1:]), "compression": self._compression}
        demo.create_dataset(place, data=values, **options)
        is_told = NEXT_OBS + place.removeprefix("obs/") in self._schema.names
        if self._next_obs and place.startswith("obs/") and not is_told:
            shifted = np.concatenate([values[1:], values[-1:]])
            demo.create_dataset(f"next_{place}", data=shifted, **options)

    def _write_attributes(self, demo: Any, name: str, attributes: Mapping[str, Any]) -> None:
        ours = dict(attributes)
        for mask in ours.pop("masks", ()):
            self._masks.setdefault(mask, []).append(name)
        if "model_file" in ours:
            demo.attrs["model_file"] = ours.pop("model_file")  # where robomimic looks for it
        demo.attrs[ATTRIBUTES_KEY] = json.dumps(ours)


def recognize(path: Path) -> str | None:
    """The sign that `path` is a robomimic file, or None."""
    if not is_hdf5(path):
        return None
    file = open_hdf5(path)
    try:
        demo = first_demo(file)
        if demo is None or "obs" not in demo or "actions" not in demo:
            return None
        return f"an HDF5 file with {demo.name}/obs and {demo.name}/actions"
    finally:
        file.close()


ROBOMIMIC = Format(
    name="robomimic",
    title="robomimic's HDF5",
    recognize=recognize,
    open=RobomimicSource,
    sink=RobomimicSink,
    suffixes=(".hdf5", ".h5"),
)
