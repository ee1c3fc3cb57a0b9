"""robosuite's HDF5 of simulator states: observations by playback, one way.

Such a file keeps what the simulator was, and what it was told, at every step:

    data            attributes env, env_info (JSON), repository_version
    data/demo_1     states (T, S)   actions (T, A)   attribute model_file

robosuite sets each state in its own model of the task and tells the observations; the model in the
file is not loaded, since a later robosuite cannot find its meshes. robosuite and h5py are imported
where a file is opened.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from teleop_data.converters.episode_stream import Format
from teleop_data.converters.hdf5_file import (
    demo_number,
    first_demo,
    is_hdf5,
    json_ready,
    open_hdf5,
    told,
)
from teleop_data.replay_buffer import StoreError
from teleop_data.schema import DTYPES, Feature, Role, Schema

DEFAULT_RATE_HZ = 20.0
ROBOMIMIC_ROBOSUITE = 1  # robomimic's number for environments of robosuite
# What env_info says about rendering and control, which playback does otherwise.
OVERRIDDEN = (
    *("controller_configs", "has_renderer", "has_offscreen_renderer", "use_camera_obs", "horizon"),
    *("camera_names", "camera_heights", "camera_widths", "camera_depths", "camera_segmentations"),
    *("ignore_done", "control_freq", "render_gpu_device_id", "seed", "reward_shaping"),
)


class RobosuiteSource:
    """The demonstrations of a robosuite file, seen by playing back their states."""

    def __init__(
        self,
        path: str | Path,
        *,
        cameras: Sequence[str] = (),
        size: Sequence[int] = (96, 96),
        objects: Role | None = None,
        model_files: bool = True,
    ) -> None:
        """The file at `path`, its task built in robosuite.

        Args:
            path: the file.
            cameras: names of robosuite's cameras to render, agentview say; () renders none.
            size: height and width of their images, pixels.
            objects: role of what robosuite tells of the objects. None: "state" where no camera is
                asked for, else "other", since a camera is there to find them.
            model_files: give each episode's simulator model as its attribute `model_file`.

        Raises:
            FileNotFoundError: nothing there.
            ModuleNotFoundError: robosuite or h5py is not installed.
            StoreError: no such file, cut off, or recorded with another model of the task.
            ValueError: no such camera, or a size that is none.
        """
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"size {list(size)}: expected height and width in pixels")
        self._path, self._cameras, self._size = Path(path), tuple(cameras), tuple(size)
        self._model_files = model_files
        self._file = open_hdf5(self._path)
        with told(self._path):
            self._data = self._file["data"]
            self._demos = sorted(self._data, key=demo_number)
            self._said = {key: json_ready(value) for key, value in self._data.attrs.items()}
            self._info = json.loads(self._said.get("env_info", "{}"))
            self._info.setdefault("env_name", self._said["env"])
            first = self._data[self._demos[0]]
            state = np.asarray(first["states"][0])
        self._robosuite = import_robosuite()
        self._environment = self._make_environment()
        self._check_cameras()
        self._set_state(state)
        objects = objects or ("other" if self._cameras else "state")
        self._schema = self._read_schema(first, objects=objects)

    @property
    def schema(self) -> Schema:
        """Observations, cameras, `states` (the simulator's) and `action`."""
        return self._schema

    @property
    def num_episodes(self) -> int:
        """Demonstrations in the file."""
        return len(self._demos)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What the file says of itself, and `env_args` from which robomimic makes the task."""
        kwargs = {key: value for key, value in self._info.items() if key != "env_name"}
        version = self._said.get("repository_version", "")
        return {
            "format": "robosuite HDF5 of states",
            "file": self._path.name,
            "played_back_in": f"robosuite {self._robosuite.__version__}",
            **{key: self._said[key] for key in ("date", "time") if key in self._said},
            "env_args": {
                "env_name": self._info["env_name"],
                "type": ROBOMIMIC_ROBOSUITE,
                "env_version": version,
                "env_kwargs": kwargs,
            },
        }

    @property
    def notes(self) -> Sequence[str]:
        """What was guessed, one sentence each."""
        notes = [
            f"Observations are played back in robosuite {self._robosuite.__version__}'s own model "
            f"of {self._info['env_name']}; recorded with "
            f"{self._said.get('repository_version', 'an unknown version')}. What stands still and "
            "is placed at random (a door's frame, dirt to wipe) is not in the states and stands "
            "elsewhere.",
            "The attribute success is robosuite's own check at the last state.",
        ]
        if "control_freq" not in self._info:
            notes.append(f"The file says no rate; {DEFAULT_RATE_HZ:g} Hz is robosuite's default.")
        return notes

    def episode(self, index: int) -> dict[str, np.ndarray]:
        """All features of one demonstration, observed by playback. StoreError if it is damaged."""
        demo = self._demo(index)
        with told(self._path):
            recorded = {name: np.asarray(demo[name]) for name in _recorded(demo)}
        arrays = {
            feature.name: np.empty((len(recorded["states"]), *feature.shape), feature.dtype)
            for feature in self.schema.features
            if feature.name not in ("action", *recorded)
        }
        for step, state in enumerate(recorded["states"]):
            self._set_state(state)
            for name, value in self._observe().items():
                arrays[name][step] = value
        arrays |= {"action": recorded.pop("actions"), **recorded}
        return {name: arrays[name] for name in self.schema.names}

    def attributes(self, index: int) -> Mapping[str, Any]:
        """`success` at the last state, and what stands beside the demonstration's arrays."""
        demo = self._demo(index)
        with told(self._path):
            said = {key: json_ready(value) for key, value in demo.attrs.items()}
            self._set_state(np.asarray(demo["states"][-1]))
        if not self._model_files:
            said.pop("model_file", None)
        return {"success": bool(self._environment._check_success()), **said}

    def close(self) -> None:
        """Close the file and the simulator."""
        self._file.close()
        self._environment.close()

    def _demo(self, index: int) -> Any:
        if not 0 <= index < len(self._demos):
            raise IndexError(f"episode {index} outside 0..{len(self._demos) - 1}")
        return self._data[self._demos[index]]

    def _make_environment(self) -> Any:
        have = sorted(self._robosuite.ALL_ENVIRONMENTS)
        if self._info["env_name"] not in have:
            raise StoreError(
                f"{self._path}: robosuite {self._robosuite.__version__} has no task "
                f"{self._info['env_name']!r}; have: {', '.join(have)}"
            )
        chosen = {key: value for key, value in self._info.items() if key not in OVERRIDDEN}
        try:
            environment = self._robosuite.make(
                **chosen,
                has_renderer=False,
                has_offscreen_renderer=bool(self._cameras),
                use_camera_obs=False,
                ignore_done=True,
            )
        except (TypeError, AssertionError) as error:
            raise StoreError(
                f"{self._path}: robosuite {self._robosuite.__version__} cannot make the task that "
                f"the file names, {chosen} ({type(error).__name__}: {error})"
            ) from error
        # robosuite places things with numpy's global generator: at least the same way every time
        before = np.random.get_state()
        np.random.seed(0)
        environment.reset()
        np.random.set_state(before)
        return environment

    def _check_cameras(self) -> None:
        have = tuple(self._environment.sim.model.camera_names)
        if unknown := [name for name in self._cameras if name not in have]:
            raise ValueError(f"no camera {', '.join(unknown)}; have: {', '.join(have)}")

    def _set_state(self, state: np.ndarray) -> None:
        sim = self._environment.sim
        expected = sim.get_state().flatten().shape
        if state.shape != expected:
            raise StoreError(
                f"{self._path}: states are {state.shape}, robosuite's model of "
                f"{self._info['env_name']} has {expected}; it was recorded with another model"
            )
        sim.set_state_from_flattened(state)
        sim.forward()

    def _observe(self) -> dict[str, np.ndarray]:
        """What robosuite observes in the state just set, and the cameras' images, upright."""
        told_by_robosuite = self._environment._get_observations(force_update=True)
        observed = {
            name: np.asarray(value)
            for name, value in told_by_robosuite.items()
            # not all of the others once more in one vector, nor the joints of no gripper
            if not name.endswith("-state") and np.size(value)
        }
        height, width = self._size
        for camera in self._cameras:
            image = self._environment.sim.render(camera_name=camera, height=height, width=width)
            observed[camera] = image[::-1]  # OpenGL's first row is the lowest
        return observed

    def _read_schema(self, demo: Any, *, objects: Role) -> Schema:
        features = []
        for name, value in self._observe().items():
            role: Role = "state" if name.startswith("robot") else objects
            if name in self._cameras:
                role = "camera"
            features.append(
                Feature(name=name, shape=value.shape, dtype=value.dtype.name, role=role)
            )
        for name in _recorded(demo):
            shape, dtype = tuple(demo[name].shape[1:]), demo[name].dtype.name
            if name == "actions":
                features.append(Feature(name="action", shape=shape, dtype=dtype, role="action"))
            else:
                features.append(Feature(name=name, shape=shape, dtype=dtype, role="other"))
        rate_hz = float(self._info.get("control_freq", DEFAULT_RATE_HZ))
        return Schema(features=tuple(features), rate_hz=rate_hz)


def _recorded(demo: Any) -> list[str]:
    """Names of the arrays that the file keeps for every step."""
    return [
        name for name, item in demo.items() if hasattr(item, "dtype") and item.dtype.name in DTYPES
    ]


def import_robosuite() -> Any:
    """The module robosuite, without its talk on import.

    Raises:
        ModuleNotFoundError: it is not installed; the message says what to install.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import robosuite
    except ModuleNotFoundError as error:
        if error.name != "robosuite":
            raise
        raise ModuleNotFoundError(
            "observations of a robosuite file come from playing it back in robosuite, which is not "
            "installed: pip install 'lerobot_policy_diffusion_forcing[sim]'",
            name="robosuite",
        ) from error
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    return robosuite


def recognize(path: Path) -> str | None:
    """The sign that `path` is a robosuite file of states, or None."""
    if not is_hdf5(path):
        return None
    file = open_hdf5(path)
    try:
        demo = first_demo(file)
        if demo is None or "obs" in demo or "states" not in demo or "actions" not in demo:
            return None
        return f"an HDF5 file with {demo.name}/states and no {demo.name}/obs"
    finally:
        file.close()


ROBOSUITE = Format(
    name="robosuite",
    title="robosuite's HDF5 of states",
    recognize=recognize,
    open=RobosuiteSource,
)
