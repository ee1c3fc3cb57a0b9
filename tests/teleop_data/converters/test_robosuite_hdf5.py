"""robosuite's states as observations, by playback in robosuite."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from teleop_data.converters.episode_stream import EditedSource, copy_episodes
from teleop_data.converters.robomimic_hdf5 import RobomimicSink, RobomimicSource
from teleop_data.converters.robosuite_hdf5 import RobosuiteSource, import_robosuite, recognize
from teleop_data.replay_buffer import StoreError
from tests.teleop_data.converters.streams import assert_same, real_data

STEPS = 3


@pytest.fixture(scope="module")
def lift(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people's demonstrations of Lift: the first steps of one, the last of another."""
    pytest.importorskip("robosuite")
    path = tmp_path_factory.mktemp("robosuite") / "lift.hdf5"
    with (
        h5py.File(real_data("robosuite_sample_demos/lift_demo.hdf5")) as whole,
        h5py.File(path, "w") as file,
    ):
        data = file.create_group("data")
        data.attrs.update(whole["data"].attrs)
        for name, steps in (("demo_1", slice(STEPS)), ("demo_10", slice(-STEPS, None))):
            demo, source = data.create_group(name), whole["data/demo_2"]
            demo.attrs["model_file"] = "<mujoco/>"
            for array in ("states", "actions"):
                demo[array] = source[array][steps]  # type: ignore[index]
    return path


def test_observations_are_those_of_the_states(lift: Path) -> None:
    source = RobosuiteSource(lift)
    episode = source.episode(1)
    states = episode["states"]  # time, positions of 7 joints, 2 fingers and the cube, velocities
    np.testing.assert_array_equal(episode["robot0_joint_pos"], states[:, 1:8])
    np.testing.assert_array_equal(episode["cube_pos"], states[:, 10:13])
    assert episode["action"].shape == (STEPS, 7)
    assert source.attributes(0) == {"success": False, "model_file": "<mujoco/>"}
    assert source.attributes(1)["success"] is True
    assert source.schema["cube_pos"].role == source.schema["robot0_joint_pos"].role == "state"
    assert source.schema["states"].role == "other"
    assert source.schema.rate_hz == 20.0
    assert any("own model of Lift; recorded with 1.4.0" in note for note in source.notes)
    with pytest.raises(IndexError, match=r"outside 0\.\.1"):
        source.episode(2)
    source.close()


def test_objects_may_be_hidden_and_models_left_out(lift: Path) -> None:
    source = RobosuiteSource(lift, objects="other", model_files=False)
    assert {f.name for f in source.schema.observed} == {
        name for name in source.schema.names if name.startswith("robot0")
    }
    assert source.attributes(0) == {"success": False}
    source.close()


def test_becomes_a_robomimic_file(lift: Path, tmp_path: Path) -> None:
    source = RobosuiteSource(lift)
    copy_episodes(EditedSource(source, episodes=[1]), RobomimicSink(), tmp_path / "a.hdf5")
    written = RobomimicSource(tmp_path / "a.hdf5")
    assert_same(written, EditedSource(source, episodes=[1]))
    with h5py.File(tmp_path / "a.hdf5") as file:
        env_args = json.loads(file["data"].attrs["env_args"])  # type: ignore[arg-type]
        assert (env_args["env_name"], env_args["type"]) == ("Lift", 1)
        assert env_args["env_kwargs"]["controller_configs"]["type"] == "OSC_POSE"
        assert file["data/demo_0/rewards"][:].tolist() == [0, 0, 1]  # type: ignore[index]
    source.close()


def test_another_model_is_refused(lift: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    path.write_bytes(lift.read_bytes())
    with h5py.File(path, "r+") as file:
        info = json.loads(file["data"].attrs["env_info"])  # type: ignore[arg-type]
        file["data"].attrs["env_info"] = json.dumps({**info, "env_name": "Stack"})
    with pytest.raises(StoreError, match=r"states are \(32,\), .* model of Stack has \(45,\)"):
        RobosuiteSource(path)
    with h5py.File(path, "r+") as file:
        file["data"].attrs["env_info"] = json.dumps({**info, "env_name": "Fly"})
    with pytest.raises(StoreError, match="no task 'Fly'; have: .*Lift"):
        RobosuiteSource(path)


def test_recognised_by_states_without_observations(lift: Path, tmp_path: Path) -> None:
    assert recognize(lift) == "an HDF5 file with /data/demo_1/states and no /data/demo_1/obs"
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file["data/demo_1/obs/x"] = [1.0]
    assert recognize(path) is None


def test_a_missing_robosuite_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "robosuite", None)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        import_robosuite()


@pytest.mark.parametrize("size", [(96,), (0, 96)])
def test_a_size_that_is_none(tmp_path: Path, size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="height and width"):
        RobosuiteSource(tmp_path / "a.hdf5", size=size)


@pytest.mark.slow
def test_cameras_are_upright_and_named(lift: Path) -> None:
    """The last steps of a lift: the red cube is seen above the middle, the table is below."""
    with pytest.raises(ValueError, match="no camera top; have: frontview"):
        RobosuiteSource(lift, cameras=["top"])
    source = RobosuiteSource(lift, cameras=["agentview"], size=(48, 64))
    assert source.schema["agentview"].role == "camera"
    assert source.schema["cube_pos"].role == "other"
    images = source.episode(1)["agentview"].astype(int)
    assert images.shape == (STEPS, 48, 64, 3)
    red = images[-1, ..., 0] - images[-1, ..., 1:].max(axis=-1)
    row, _ = np.unravel_index(red.argmax(), red.shape)
    assert red.max() > 60
    assert row < 24
    assert images[-1, 40:].mean() > 150  # the white table is in front, at the bottom
    source.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_human_demonstration_plays_back() -> None:
    pytest.importorskip("robosuite")
    steps, successes = 0, {}
    for path in sorted(real_data("robosuite_sample_demos").glob("*.hdf5")):
        source = RobosuiteSource(path)
        for index in range(source.num_episodes):
            steps += len(source.episode(index)["action"])
            successes[f"{path.stem}:{index}"] = source.attributes(index)["success"]
        source.close()
    assert (len(successes), steps) == (13, 7231)
    assert [name for name, success in successes.items() if not success] == ["wipe_panda_demo:0"]
