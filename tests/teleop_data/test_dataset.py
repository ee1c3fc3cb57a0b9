"""The dataset: contract, order as a function of (seed, epoch), refusals."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from teleop_data.dataset import (
    WindowDataset,
    batch_indices,
    check_finite,
    epoch_order,
    iterate_batches,
)
from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.schema import Feature, Schema
from tests.contracts.dataset_contract import DatasetContract
from tests.teleop_data.stores import SCHEMA, real_pusht, write_store, write_v2_store, zip_store


class TestOurs(DatasetContract):
    def make_buffer(self, folder: Path) -> ReplayBuffer:
        return write_store(folder / "a.zarr")


class TestOursOverSeveralShards(DatasetContract):
    def make_buffer(self, folder: Path) -> ReplayBuffer:
        return write_store(folder / "a.zarr", lengths=(400, 300, 2))


class TestDirectoryV2(DatasetContract):
    def make_buffer(self, folder: Path) -> ReplayBuffer:
        write_v2_store(folder / "b.zarr")
        return ReplayBuffer.open(folder / "b.zarr")


class TestZipV2(DatasetContract):
    def make_buffer(self, folder: Path) -> ReplayBuffer:
        write_v2_store(folder / "b.zarr")
        return ReplayBuffer.open(zip_store(folder / "b.zarr", folder / "b.zip"))


class TestHumanPushT(DatasetContract):
    def make_buffer(self, folder: Path) -> ReplayBuffer:
        return ReplayBuffer.open(real_pusht())


OBSERVED_AND_ACTION = SCHEMA.select(["front", "state", "action"])


def make_dataset(buffer: ReplayBuffer, *, episodes: tuple[int, ...] = (0, 1, 2, 3), **options):
    arguments = {"schema": OBSERVED_AND_ACTION, "context": 2, "horizon": 4, **options}
    return WindowDataset(buffer, episodes=np.array(episodes), **arguments)


@given(st.integers(1, 200), st.data(), st.integers(0, 2**31))
def test_an_epoch_visits_every_window_once(num_items: int, data: st.DataObject, seed: int) -> None:
    batch_size = data.draw(st.integers(1, num_items))
    steps = num_items // batch_size
    for epoch in (0, 1):
        order = epoch_order(num_items, seed=seed, epoch=epoch)
        assert sorted(order) == list(range(num_items))
        batches = [
            batch_indices(num_items, batch_size=batch_size, seed=seed, step=epoch * steps + step)
            for step in range(steps)
        ]
        np.testing.assert_array_equal(np.concatenate(batches), order[: steps * batch_size])


def test_order_depends_on_seed_and_epoch_alone() -> None:
    np.testing.assert_array_equal(
        epoch_order(1000, seed=3, epoch=7), epoch_order(1000, seed=3, epoch=7)
    )
    orders = {tuple(epoch_order(50, seed=s, epoch=e)) for s in range(4) for e in range(4)}
    assert len(orders) == 16


def test_a_changed_batch_does_not_change_the_next_run() -> None:
    first = batch_indices(20, batch_size=5, seed=0, step=0)
    wanted = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(batch_indices(20, batch_size=5, seed=0, step=0), wanted)


def test_resume_in_mid_epoch_is_identical(tmp_path: Path) -> None:
    dataset = make_dataset(write_store(tmp_path / "a.zarr"))
    options = {"batch_size": 4, "seed": 11}  # 25 windows: six batches an epoch
    whole = list(islice(iterate_batches(dataset, **options, first_step=0), 15))
    again = make_dataset(ReplayBuffer.open(tmp_path / "a.zarr"), camera_cache_bytes=0)
    for step, batch in enumerate(islice(iterate_batches(again, **options, first_step=9), 6), 9):
        assert set(batch) == set(whole[step])
        for name, values in batch.items():
            np.testing.assert_array_equal(values, whole[step][name])


@pytest.mark.parametrize("batch_size", [0, 26])
def test_batch_size_is_checked(batch_size: int) -> None:
    with pytest.raises(ValueError, match=rf"batch_size {batch_size} outside 1\.\.25"):
        batch_indices(25, batch_size=batch_size, seed=0, step=0)


def test_index_outside(tmp_path: Path) -> None:
    dataset = make_dataset(write_store(tmp_path / "a.zarr"), episodes=(0, 1))
    assert len(list(dataset)) == len(dataset) == 6  # iteration ends with an IndexError
    with pytest.raises(IndexError):
        dataset[6]


def test_nan_names_episode_and_step_and_can_be_left_out(tmp_path: Path) -> None:
    buffer = write_store(tmp_path / "a.zarr")
    zarr.open_array(tmp_path / "a.zarr/data/state", mode="r+")[8, 1] = np.nan
    with pytest.raises(ValueError, match="'state' is not finite in episode 2, step 2: .*nan"):
        make_dataset(buffer)
    assert len(make_dataset(buffer, episodes=(0, 1, 3))) == 13
    zarr.open_array(tmp_path / "a.zarr/data/action", mode="r+")[0, 0] = -np.inf
    with pytest.raises(ValueError, match="'action' is not finite in episode 0, step 0"):
        make_dataset(buffer, episodes=(0, 1, 3))


def test_check_finite_over_a_whole_array() -> None:
    values = np.zeros((9, 2))
    values[6, 1] = np.inf
    with pytest.raises(ValueError, match="'arm' is not finite in episode 1, step 2"):
        check_finite("arm", values, episode_ends=np.array([4, 9]))
    check_finite("arm", values, episode_ends=np.array([4, 9]), episodes=np.array([0]))


def with_feature(feature: Feature) -> Schema:
    others = (f for f in OBSERVED_AND_ACTION.features if f.name != feature.name)
    return replace(OBSERVED_AND_ACTION, features=(*others, feature))


@pytest.mark.parametrize(
    ("feature", "error", "message"),
    [
        (Feature(name="wrist", shape=(3,)), KeyError, "no feature 'wrist'; have: front, state"),
        (Feature(name="state", shape=(4,)), ValueError, r"'state': .* \(4,\) .* holds \(3,\)"),
        (
            Feature(name="state", shape=(3,), dtype="float64"),
            ValueError,
            r"schema says \(3,\) float64, the replay buffer holds \(3,\) float32",
        ),
    ],
)
def test_another_schema_is_refused(
    tmp_path: Path, feature: Feature, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_dataset(write_store(tmp_path / "a.zarr"), schema=with_feature(feature))


def test_units_and_angles_may_be_set_afterwards(tmp_path: Path) -> None:
    schema = OBSERVED_AND_ACTION.with_angles({"state": (0, 1)})
    assert len(make_dataset(write_store(tmp_path / "a.zarr"), schema=schema)) == 25


def test_names_of_the_batch_are_reserved(tmp_path: Path) -> None:
    feature = Feature(name="episode", shape=(1,))
    buffer = ReplayBuffer.create(tmp_path / "a.zarr", with_feature(feature))
    with pytest.raises(ValueError, match="'episode': batches use that name"):
        make_dataset(buffer, schema=buffer.schema, episodes=())


def test_missing_episode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no episodes \[4\]; have 0\.\.3"):
        make_dataset(write_store(tmp_path / "a.zarr"), episodes=(0, 4))
