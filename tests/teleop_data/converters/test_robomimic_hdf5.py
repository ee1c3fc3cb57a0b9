"""robomimic's HDF5, both ways, and read by robomimic's own dataset class."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings

from teleop_data.converters.episode_stream import EditedSource, copy_episodes
from teleop_data.converters.replay_buffer_zarr import ReplayBufferSink, ReplayBufferSource
from teleop_data.converters.robomimic_hdf5 import RobomimicSink, RobomimicSource, recognize
from teleop_data.replay_buffer import StoreError
from teleop_data.schema import Feature, Schema
from tests.teleop_data.converters.streams import (
    MemorySource,
    assert_same,
    assert_same_arrays,
    sources,
)
from tests.teleop_data.stores import LENGTHS, SCHEMA, real_pusht

ENV_ARGS = {"env_name": "Lift", "type": 1, "env_kwargs": {"robots": "Panda"}}
ATTRIBUTES = ({"masks": ["train"], "success": True}, {"masks": ["short", "train"]}, {}, {"seed": 3})


def write_robomimic(path: Path, *, lengths: tuple[int, ...] = LENGTHS) -> list[dict]:
    """A file as robomimic's own scripts write it; returns each episode's arrays by their path."""
    rng, written = np.random.default_rng(0), []
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(ENV_ARGS)
        for index, length in enumerate(lengths):
            observed = {
                "agentview_image": rng.integers(0, 256, (length + 1, 6, 8, 3)).astype(np.uint8),
                "object": rng.normal(size=(length + 1, 10)),
            }
            arrays = {f"obs/{name}": values[:-1] for name, values in observed.items()}
            arrays |= {f"next_obs/{name}": values[1:] for name, values in observed.items()}
            arrays |= {
                "actions": rng.normal(size=(length, 7)),
                "states": rng.normal(size=(length, 32)),
                "rewards": rng.normal(size=length),
                "dones": (np.arange(length) == length - 1).astype(np.int64),
            }
            demo = data.create_group(f"demo_{index}")
            for place, values in arrays.items():
                demo[place] = values
            demo.attrs["num_samples"] = length
            demo.attrs["model_file"] = f"<mujoco model='{index}'/>"
            written.append(arrays)
        file["mask/train"] = np.array(["demo_0", "demo_2"], dtype="S")
    return written


@settings(max_examples=25)
@given(source=sources())
def test_round_trip(source: MemorySource) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.hdf5"
        copy_episodes(source, RobomimicSink(), path)
        back = RobomimicSource(path)
        assert_same(back, source)
        assert back.notes == []
        back.close()


def test_round_trip_from_store_to_store(tmp_path: Path) -> None:
    provenance = {"operator": "nobody", "env_args": ENV_ARGS}
    source = MemorySource(SCHEMA, lengths=LENGTHS, attributes=ATTRIBUTES, provenance=provenance)
    copy_episodes(source, ReplayBufferSink(), tmp_path / "a.zarr")
    copy_episodes(ReplayBufferSource(tmp_path / "a.zarr"), RobomimicSink(), tmp_path / "b.hdf5")
    copy_episodes(RobomimicSource(tmp_path / "b.hdf5"), ReplayBufferSink(), tmp_path / "c.zarr")
    assert_same(ReplayBufferSource(tmp_path / "c.zarr"), source)


def test_reads_robomimics_own_files(tmp_path: Path) -> None:
    written = write_robomimic(tmp_path / "a.hdf5")
    source = RobomimicSource(tmp_path / "a.hdf5")
    roles = {feature.name: feature.role for feature in source.schema.features}
    assert roles == {
        "agentview_image": "camera",
        "object": "state",
        "action": "action",
        "states": "other",
        "rewards": "other",
        "dones": "other",
    }
    assert source.schema.rate_hz == 20.0
    assert source.provenance["env_args"] == ENV_ARGS
    assert source.attributes(0) == {"masks": ["train"], "model_file": "<mujoco model='0'/>"}
    assert source.attributes(1) == {"model_file": "<mujoco model='1'/>"}
    assert any("next_obs is left out" in note for note in source.notes)
    places = {"action": "actions", "object": "obs/object", "agentview_image": "obs/agentview_image"}
    for index, arrays in enumerate(written):
        expected = {name: arrays[places.get(name, name)] for name in source.schema.names}
        assert_same_arrays(source.episode(index), expected)


def test_next_obs_and_models_come_and_go_as_asked(tmp_path: Path) -> None:
    written = write_robomimic(tmp_path / "a.hdf5")
    source = RobomimicSource(tmp_path / "a.hdf5", next_obs=True, model_files=False)
    assert source.schema["next_obs.object"].role == "other"
    assert source.attributes(1) == {}
    copy_episodes(source, RobomimicSink(next_obs=True), tmp_path / "b.hdf5")
    with h5py.File(tmp_path / "b.hdf5") as file:
        for index, arrays in enumerate(written):
            for place, values in arrays.items():
                np.testing.assert_array_equal(file[f"data/demo_{index}/{place}"], values)
        assert file["mask/train"][:].tolist() == [b"demo_0", b"demo_2"]  # type: ignore[index]
        assert json.loads(file["data"].attrs["env_args"]) == ENV_ARGS  # type: ignore[arg-type]
        assert file["data"].attrs["total"] == sum(LENGTHS)


def test_next_obs_is_made_where_asked_for(tmp_path: Path) -> None:
    source = MemorySource(SCHEMA, lengths=(5,))
    copy_episodes(source, RobomimicSink(next_obs=True, compression="gzip"), tmp_path / "a.hdf5")
    front = source.episodes[0]["front"]
    with h5py.File(tmp_path / "a.hdf5") as file:
        stored = file["data/demo_0/next_obs/front"]
        assert isinstance(stored, h5py.Dataset)
        assert stored.compression == "gzip"
        np.testing.assert_array_equal(stored[:-1], front[1:])
        np.testing.assert_array_equal(stored[-1], front[-1])


def test_episodes_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    write_robomimic(tmp_path / "a.hdf5", lengths=tuple(range(1, 13)))
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        del file["data/demo_0"]
    source = RobomimicSource(tmp_path / "a.hdf5")
    assert [len(source.episode(i)["action"]) for i in range(11)] == list(range(2, 13))
    assert source.attributes(0)["demo"] == "demo_1"


@pytest.mark.parametrize("with_images", [False, True], ids=["low_dim", "images"])
def test_robomimics_own_dataset_yields_the_same_numbers(tmp_path: Path, with_images: bool) -> None:
    ObsUtils = pytest.importorskip("robomimic.utils.obs_utils")
    from robomimic.utils.dataset import SequenceDataset

    source = MemorySource(SCHEMA, lengths=LENGTHS, attributes=ATTRIBUTES)
    copy_episodes(source, RobomimicSink(), tmp_path / "a.hdf5")
    keys = ["state", "front"] if with_images else ["state"]
    specs = {"obs": {"low_dim": ["state"], "rgb": ["front"]}}
    ObsUtils.initialize_obs_utils_with_obs_specs(specs)
    dataset = SequenceDataset(
        hdf5_path=str(tmp_path / "a.hdf5"),
        obs_keys=keys,
        dataset_keys=("actions", "rewards", "dones"),
        frame_stack=1,
        seq_length=1,
        hdf5_cache_mode=None,
        load_next_obs=False,
    )
    items = [dataset[index] for index in range(len(dataset))]
    assert len(items) == sum(LENGTHS)
    for name, got in (("state", "obs"), ("front", "obs"), ("action", "actions")):
        if name == "front" and not with_images:
            continue
        values = [item[got][name] if got == "obs" else item[got] for item in items]
        expected = np.concatenate([episode[name] for episode in source.episodes])
        np.testing.assert_array_equal(np.concatenate(values), expected)
    ends = np.cumsum(LENGTHS) - 1
    assert np.flatnonzero([item["dones"][0] for item in items]).tolist() == ends.tolist()
    assert np.flatnonzero([item["rewards"][0] for item in items]).tolist() == [ends[0]]


def test_robomimics_own_dataset_filters_by_mask(tmp_path: Path) -> None:
    ObsUtils = pytest.importorskip("robomimic.utils.obs_utils")
    from robomimic.utils.dataset import SequenceDataset
    from robomimic.utils.file_utils import get_env_metadata_from_dataset

    path = tmp_path / "a.hdf5"
    copy_episodes(
        MemorySource(SCHEMA, lengths=LENGTHS, attributes=ATTRIBUTES), RobomimicSink(), path
    )
    ObsUtils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": ["state"], "rgb": []}})
    dataset = SequenceDataset(
        hdf5_path=str(path),
        obs_keys=["state"],
        dataset_keys=("actions",),
        hdf5_cache_mode="low_dim",
        load_next_obs=False,
        filter_by_attribute="train",
    )
    assert len(dataset) == LENGTHS[0] + LENGTHS[1]
    assert get_env_metadata_from_dataset(str(path))["env_name"] == "unknown"


def features(*changes: dict[str, Any]) -> Schema:
    action = {"name": "action", "shape": (2,), "role": "action"}
    return Schema(features=tuple(Feature(**{**action, **c}) for c in changes), rate_hz=10.0)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (features({"role": "state"}), "it has none"),
        (features({}, {"name": "b", "dtype": "float64"}), "one dtype; it has action float32, b"),
        (features({}, {"name": "actions", "role": "other"}), "rename it with names"),
        (features({}, {"name": "x"}, {"name": "next_obs.x", "role": "other"}), None),
    ],
)
def test_what_robomimic_cannot_hold(schema: Schema, message: str | None) -> None:
    if message is None:
        assert RobomimicSink().losses(schema)
        return
    with pytest.raises(ValueError, match=message):
        RobomimicSink().losses(schema)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    write_robomimic(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(StoreError, match="cut off, damaged"):
        RobomimicSource(path)
    path.write_bytes(b"no HDF5")
    assert recognize(path) is None
    with pytest.raises(FileNotFoundError, match="no file"):
        RobomimicSource(tmp_path / "none.hdf5")


def test_arrays_that_differ_between_episodes_are_refused(tmp_path: Path) -> None:
    write_robomimic(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        del file["data/demo_1/states"]
        file["data/demo_1/states"] = np.zeros((1, 31))
        del file["data/demo_2/rewards"]
    source = RobomimicSource(tmp_path / "a.hdf5")
    with pytest.raises(StoreError, match="'states' of demo_1 is .1, 31. float64; the first"):
        source.episode(1)
    with pytest.raises(StoreError, match="rewards"):
        source.episode(2)


def test_human_push_t(tmp_path: Path) -> None:
    source = EditedSource(ReplayBufferSource(real_pusht()), episodes=[0, 205, 100])
    copy_episodes(source, RobomimicSink(compression="lzf"), tmp_path / "a.hdf5")
    copy_episodes(RobomimicSource(tmp_path / "a.hdf5"), ReplayBufferSink(), tmp_path / "b.zarr")
    assert_same(ReplayBufferSource(tmp_path / "b.zarr"), source)
