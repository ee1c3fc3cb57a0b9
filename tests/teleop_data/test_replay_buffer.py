"""The replay buffer: layout on disk, whole episodes, other people's stores, damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from teleop_data.replay_buffer import ReplayBuffer, StoreError
from teleop_data.stored_array import CAST_ROWS
from tests.teleop_data.stores import (
    LENGTHS,
    SCHEMA,
    episode,
    real_pusht,
    write_store,
    write_v2_store,
    zip_store,
)


def assert_episodes(buffer: ReplayBuffer, *, count: int, front: str = "front") -> None:
    """The buffer holds exactly the first `count` test episodes, values and all."""
    assert buffer.episode_ends.tolist() == np.cumsum(LENGTHS)[:count].tolist()
    for index in range(count):
        stored, written = buffer.episode(index), episode(LENGTHS[index], seed=index)
        written[front] = written.pop("front")
        assert set(stored) == set(written)
        for name, values in written.items():
            assert stored[name].dtype == values.dtype
            np.testing.assert_array_equal(stored[name], values, err_msg=name)


def test_round_trip_through_a_second_opening(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr")
    buffer = ReplayBuffer.open(tmp_path / "a.zarr")
    assert buffer.schema == SCHEMA
    assert buffer.provenance == {"operator": "nobody"}
    assert buffer.episode_attributes == [{"seed": seed} for seed in range(4)]
    assert (buffer.num_episodes, buffer.num_steps) == (4, 25)
    assert buffer.episode_starts.tolist() == [0, 5, 6, 18]
    assert_episodes(buffer, count=4)


def test_written_as_v3_with_shards(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr")
    root = json.loads((tmp_path / "a.zarr/zarr.json").read_text())
    assert root["zarr_format"] == 3
    assert root["attributes"]["forcing_schema"]["rate_hz"] == 20.0
    front = json.loads((tmp_path / "a.zarr/data/front/zarr.json").read_text())
    assert front["zarr_format"] == 3
    assert front["shape"] == [25, 6, 8, 3]
    assert front["chunk_grid"]["configuration"]["chunk_shape"] == [512, 6, 8, 3]  # the shard
    (codec,) = front["codecs"]
    assert codec["name"] == "sharding_indexed"
    assert codec["configuration"]["chunk_shape"] == [16, 6, 8, 3]
    files = [file for file in (tmp_path / "a.zarr/data/front/c").rglob("*") if file.is_file()]
    assert len(files) == 1


def test_layout_is_the_one_diffusion_policy_reads(tmp_path: Path) -> None:
    """Its ReplayBuffer takes root['data'] items and root['meta']['episode_ends'], nothing else."""
    write_store(tmp_path / "a.zarr")
    root = zarr.open_group(tmp_path / "a.zarr", mode="r")
    assert {name for name, _ in root.groups()} == {"data", "meta"}
    data = {name: array[:] for name, array in root["data"].arrays()}
    ends = root["meta"]["episode_ends"][:]
    assert set(data) == set(SCHEMA.names)
    assert ends.dtype == np.int64
    assert all(len(values) == ends[-1] for values in data.values())
    written = episode(LENGTHS[2], seed=2)
    for name, values in data.items():
        np.testing.assert_array_equal(values[ends[1] : ends[2]], written[name])


def test_shards_fill_over_many_episodes(tmp_path: Path) -> None:
    """600 frames in 12 appends: two shard files, the second begun in mid-episode."""
    buffer = write_store(tmp_path / "a.zarr", lengths=(50,) * 12)
    names = sorted(
        file.parents[2].name for file in (tmp_path / "a.zarr/data/front/c").glob("*/0/0/0")
    )
    assert names == ["0", "1"]
    again = ReplayBuffer.open(tmp_path / "a.zarr")
    for index in (0, 10, 11):
        np.testing.assert_array_equal(
            again.episode(index)["front"], episode(50, seed=index)["front"]
        )
    assert buffer.num_steps == again.num_steps == 600


def test_append_after_reopening(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr", lengths=LENGTHS[:2])
    buffer = ReplayBuffer.open(tmp_path / "a.zarr", mode="r+")
    buffer.append_episode(episode(LENGTHS[2], seed=2), attributes={"seed": 2})
    assert_episodes(ReplayBuffer.open(tmp_path / "a.zarr"), count=3)
    with pytest.raises(StoreError, match=r"mode='r\+'"):
        ReplayBuffer.open(tmp_path / "a.zarr").append_episode(episode(2, seed=9))


def test_empty_buffer_is_readable(tmp_path: Path) -> None:
    ReplayBuffer.create(tmp_path / "a.zarr", SCHEMA)
    buffer = ReplayBuffer.open(tmp_path / "a.zarr")
    assert (buffer.num_episodes, buffer.num_steps, len(buffer["front"])) == (0, 0, 0)
    assert buffer["front"][:].shape == (0, 6, 8, 3)
    assert buffer.episode_starts.shape == (0,)


def test_create_refuses_what_exists(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr")
    with pytest.raises(FileExistsError, match=r"mode='r\+'"):
        ReplayBuffer.create(tmp_path / "a.zarr", SCHEMA)
    assert ReplayBuffer.open(tmp_path / "a.zarr").num_episodes == 4


def wrong_episode(**changes: np.ndarray | None) -> dict[str, np.ndarray]:
    good = {**episode(4, seed=0), **changes}
    return {name: values for name, values in good.items() if values is not None}


NAN_AT_2 = np.array([[0, 0], [0, 0], [0, np.nan], [0, np.inf]], np.float32)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"wrist": np.zeros(4)}, KeyError, "wrist"),
        ({"state": None}, KeyError, "schema wants.*state"),
        ({"state": np.zeros((4, 2), np.float32)}, ValueError, r"'state': got \(4, 2\).*\(T, 3\)"),
        ({"state": np.zeros((4, 3))}, ValueError, "float64, expected .* float32"),
        ({"state": np.zeros((5, 3), np.float32)}, ValueError, "same number of steps"),
        ({"action": NAN_AT_2}, ValueError, "'action': not finite at step 2"),
    ],
)
def test_bad_episodes_are_refused_whole(
    tmp_path: Path, changes: dict, error: type[Exception], message: str
) -> None:
    buffer = write_store(tmp_path / "a.zarr")
    with pytest.raises(error, match=message):
        buffer.append_episode(wrong_episode(**changes))
    assert_episodes(ReplayBuffer.open(tmp_path / "a.zarr"), count=4)
    assert buffer["state"]._array.shape[0] == 25


def test_empty_episode_and_unwritable_attributes_are_refused(tmp_path: Path) -> None:
    buffer = write_store(tmp_path / "a.zarr")
    with pytest.raises(ValueError, match="at least 1"):
        buffer.append_episode(episode(0, seed=0))
    with pytest.raises(TypeError, match="int64"):
        buffer.append_episode(episode(2, seed=0), attributes={"seed": np.int64(3)})
    assert zarr.open_array(tmp_path / "a.zarr/data/state").shape[0] == 25


def test_indexing(tmp_path: Path) -> None:
    state = write_store(tmp_path / "a.zarr")["state"]
    whole = state[:]
    for index in (slice(3, 9), slice(None, None, 4), slice(-3, None), slice(9, 3), 0, -1, 24):
        np.testing.assert_array_equal(state[index], whole[index])
    rows = np.array([3, -1, 3, 0])
    np.testing.assert_array_equal(state[rows], whole[rows])
    assert state[np.zeros(0, np.int64)].shape == (0, 3)
    for bad in (25, -26, np.array([0, 25])):
        with pytest.raises(IndexError, match=r"outside 0\.\.24"):
            state[bad]
    for bad in (slice(9, 3, -1), np.array([True] * 25), np.zeros((2, 2), int), np.array([0.5])):
        with pytest.raises(IndexError, match="state"):
            state[bad]


def test_unknown_feature_and_episode(tmp_path: Path) -> None:
    buffer = write_store(tmp_path / "a.zarr")
    with pytest.raises(KeyError, match="no feature 'wrsit'; have: front, state"):
        buffer["wrsit"]
    for index in (4, -1):
        with pytest.raises(IndexError, match=r"outside 0\.\.3"):
            buffer.episode(index)


@pytest.mark.parametrize("packed", [False, True], ids=["directory", "zip"])
def test_reads_v2_stores(tmp_path: Path, packed: bool) -> None:
    write_v2_store(tmp_path / "b.zarr")
    path = tmp_path / "b.zarr"
    if packed:
        path = zip_store(path, tmp_path / "b.zarr.zip")
        shutil.rmtree(tmp_path / "b.zarr")
    buffer = ReplayBuffer.open(path)
    roles = {feature.name: feature.role for feature in buffer.schema.features}
    assert roles == {"action": "action", "contacts": "other", "img": "camera", "state": "state"}
    assert buffer.schema["img"].dtype == "uint8"
    assert buffer.schema.rate_hz == 10.0
    assert_episodes(buffer, count=4, front="img")
    assert buffer.episode_attributes == [{}] * 4


def test_appends_to_a_v2_directory(tmp_path: Path) -> None:
    write_v2_store(tmp_path / "b.zarr", lengths=LENGTHS[:3])
    buffer = ReplayBuffer.open(tmp_path / "b.zarr", mode="r+")
    new = episode(LENGTHS[3], seed=3)
    new["img"] = new.pop("front")
    buffer.append_episode(new)
    assert_episodes(ReplayBuffer.open(tmp_path / "b.zarr"), count=4, front="img")
    assert zarr.open_array(tmp_path / "b.zarr/data/img", mode="r").dtype == np.float32


def test_zip_is_read_only(tmp_path: Path) -> None:
    write_v2_store(tmp_path / "b.zarr")
    with pytest.raises(StoreError, match="read-only"):
        ReplayBuffer.open(zip_store(tmp_path / "b.zarr", tmp_path / "b.zip"), mode="r+")


@pytest.mark.parametrize("frame_offset", [0.5, -1.0, 10.0, np.nan])
def test_floats_that_are_no_bytes_are_refused(tmp_path: Path, frame_offset: float) -> None:
    write_v2_store(tmp_path / "b.zarr", frame_offset=frame_offset)
    buffer = ReplayBuffer.open(tmp_path / "b.zarr")
    with pytest.raises(StoreError, match="camera 'img' holds float32 .* uint8"):
        buffer["img"][:]


def test_long_float_camera_is_cast_block_by_block(tmp_path: Path) -> None:
    lengths = (CAST_ROWS + 45, 2 * CAST_ROWS)
    arrays = write_v2_store(tmp_path / "b.zarr", lengths=lengths)
    img = ReplayBuffer.open(tmp_path / "b.zarr")["img"]
    assert img[:].dtype == np.uint8
    np.testing.assert_array_equal(img[:], arrays["img"])
    np.testing.assert_array_equal(img[7:-3:5], arrays["img"][7:-3:5])


def test_human_push_t() -> None:
    buffer = ReplayBuffer.open(real_pusht())
    assert (buffer.num_episodes, buffer.num_steps) == (206, 25_650)
    assert buffer["img"][100:130].dtype == np.uint8
    assert buffer.schema.action.shape == (2,)
    assert {f.name for f in buffer.schema.observed} == {"img", "state"}
    action = buffer["action"][:]
    assert (action.min(), action.max()) == (12.0, 511.0)
