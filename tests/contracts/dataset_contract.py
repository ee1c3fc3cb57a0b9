"""What every replay buffer must give, whoever wrote it. Subclass and say where yours comes from:

class TestMyStore(DatasetContract):
    def make_buffer(self, folder: Path) -> ReplayBuffer:
        return ReplayBuffer.open(convert_my_store(folder))
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from teleop_data.dataset import WindowDataset, epoch_order
from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.schema import Schema


class DatasetContract:
    """Inherit as `Test...` and define `make_buffer`; cameras and state need one episode each."""

    context, horizon = 3, 5

    def make_buffer(self, folder: Path) -> ReplayBuffer:
        """The buffer under test, made in an empty folder or opened elsewhere."""
        raise NotImplementedError

    @pytest.fixture
    def buffer(self, tmp_path: Path) -> ReplayBuffer:
        return self.make_buffer(tmp_path)

    @pytest.fixture
    def episodes(self, buffer: ReplayBuffer) -> np.ndarray:
        """First, middle and last episode: enough to see a boundary, few enough to be quick."""
        return np.unique([0, buffer.num_episodes // 2, buffer.num_episodes - 1])

    @pytest.fixture
    def dataset(self, buffer: ReplayBuffer, episodes: np.ndarray) -> WindowDataset:
        return self.make_dataset(buffer, episodes)

    def make_dataset(self, buffer: ReplayBuffer, episodes: np.ndarray, **options) -> WindowDataset:
        schema = buffer.schema.select(f.name for f in buffer.schema.with_role("camera", "state"))
        schema = Schema(
            features=(*schema.features, buffer.schema.action), rate_hz=buffer.schema.rate_hz
        )
        return WindowDataset(
            buffer,
            schema=schema,
            episodes=episodes,
            context=self.context,
            horizon=self.horizon,
            **options,
        )

    def test_buffer_is_whole(self, buffer: ReplayBuffer) -> None:
        assert buffer.num_episodes >= 1
        assert buffer.num_steps == buffer.episode_ends[-1]
        assert (buffer.episode_ends > buffer.episode_starts).all()
        assert len(buffer.episode_attributes) == buffer.num_episodes
        assert buffer.schema.observed
        for feature in buffer.schema.features:
            assert buffer[feature.name].shape == (buffer.num_steps, *feature.shape)
            assert buffer[feature.name][-1].dtype == np.dtype(feature.dtype)

    def test_every_step_passes_the_schema(self, buffer: ReplayBuffer, episodes: np.ndarray) -> None:
        for e in episodes:
            episode = buffer.episode(int(e))
            buffer.schema.check_observation(
                {f.name: episode[f.name][0] for f in buffer.schema.observed}
            )
            for feature in buffer.schema.features:
                for value in episode[feature.name]:
                    feature.check(value)

    def test_one_window_a_step(
        self, buffer: ReplayBuffer, dataset: WindowDataset, episodes
    ) -> None:
        lengths = (buffer.episode_ends - buffer.episode_starts)[episodes]
        assert len(dataset) == lengths.sum()
        owners = dataset.batch(np.arange(len(dataset)))["episode"]
        np.testing.assert_array_equal(owners, np.repeat(episodes, lengths))

    def test_shapes_and_dtypes(self, dataset: WindowDataset) -> None:
        batch = dataset.batch([0, len(dataset) - 1])
        action = dataset.schema.action
        for feature in dataset.schema.observed:
            assert batch[feature.name].shape == (2, self.context, *feature.shape)
            assert batch[feature.name].dtype == np.dtype(feature.dtype)
        size = int(np.prod(action.shape))
        assert batch["action"].shape == (2, self.context + self.horizon, size)
        assert batch["action"].dtype == np.dtype(action.dtype)
        assert batch["observation_is_padded"].shape == (2, self.context)
        assert batch["action_is_padded"].shape == (2, self.context + self.horizon)
        extra = {"action", "observation_is_padded", "action_is_padded", "episode"}
        assert set(batch) == {f.name for f in dataset.schema.observed} | extra

    def test_windows_hold_their_own_episode(
        self, buffer: ReplayBuffer, dataset: WindowDataset, episodes: np.ndarray
    ) -> None:
        """Each window is rebuilt from `buffer.episode` alone, ends repeated where it is padded."""
        index = 0
        for e in episodes:
            episode = buffer.episode(int(e))
            length = len(episode[buffer.schema.action.name])
            for t in sorted({0, 1, self.context, length // 2, length - 2, length - 1}):
                if not 0 <= t < length:
                    continue
                item = dataset[index + t]
                ticks = np.arange(t + 1 - self.context, t + 1)
                steps = np.arange(t - self.context, t + self.horizon)
                for feature in dataset.schema.observed:
                    expected = episode[feature.name][ticks.clip(0, length - 1)]
                    np.testing.assert_array_equal(item[feature.name], expected)
                action = episode[buffer.schema.action.name][steps.clip(0, length - 1)]
                np.testing.assert_array_equal(item["action"], action.reshape(len(steps), -1))
                np.testing.assert_array_equal(item["observation_is_padded"], ticks < 0)
                is_outside = (steps < 0) | (steps >= length)
                np.testing.assert_array_equal(item["action_is_padded"], is_outside)
                assert item["episode"] == e
            index += length

    def test_cameras_from_disk_equal_cameras_in_memory(
        self, buffer: ReplayBuffer, dataset: WindowDataset, episodes: np.ndarray
    ) -> None:
        from_disk = self.make_dataset(buffer, episodes, camera_cache_bytes=0)
        indices = epoch_order(len(dataset), seed=0, epoch=0)[:8]
        expected = dataset.batch(indices)
        for name, values in from_disk.batch(indices).items():
            np.testing.assert_array_equal(values, expected[name], err_msg=name)
