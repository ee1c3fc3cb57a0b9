"""Windows of a replay buffer as a map-style dataset, and batches whose order is a function of
(seed, epoch).

Low-dimensional features are read once and kept in memory; cameras are kept too if they fit
`camera_cache_bytes`. Those that do not are decoded once to a scratch file in `decoded_dir`, which
the system pages in and out, or, without one, read from the store by each window: memory stays the
same however large the store. Images stay uint8: converting to float costs twenty times the copy, so
the device does it.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from teleop_data.parts import Episodes, Rows
from teleop_data.schema import Schema
from teleop_data.windows import rows_of_episodes, window_indices

DECODED_AT_ONCE = 256  # frames: 236 MB at 640x480
Batch = dict[str, np.ndarray]
RESERVED_NAMES = ("action", "observation_is_padded", "action_is_padded", "episode")


class WindowDataset:
    """Windows of the chosen episodes; index i is the i-th control step of those episodes, or with
    `only_last` the i-th episode.

    An item, with W context ticks and horizon H (a batch has a leading B):
        <observed feature>: (W, *shape)
        action: (W + H, A), starting one step before the first tick (see `windows`)
        observation_is_padded: (W,) bool, action_is_padded: (W + H,) bool
        episode: () int64, for error messages
    """

    def __init__(
        self,
        buffer: Episodes,
        *,
        schema: Schema,
        episodes: np.ndarray,
        context: int,
        horizon: int,
        camera_cache_bytes: int = 4 << 30,
        decoded_dir: str | Path | None = None,
        only_last: bool = False,
    ) -> None:
        """Windows of `episodes` with the features of `schema` (a selection of the buffer's).

        Args:
            buffer: where from.
            schema: what each window holds.
            episodes: numbers of the episodes.
            context: W control steps of observations.
            horizon: H steps of plan.
            camera_cache_bytes: memory for decoded cameras.
            decoded_dir: folder for a scratch file of each camera that does not fit: as large as its
                frames as bytes, gone with the dataset. None: such cameras are read from the store.
            only_last: one window an episode, that of its last step, instead of one a step.

        Raises:
            KeyError: the schema names a feature that the buffer lacks.
            ValueError: a feature's shape or dtype is not the buffer's, or its name is one of the
                batch's own; a float in `episodes` is not finite (the message names the episode
                and step); an episode does not exist.
            OSError: no such `decoded_dir`, or too little space in it.
        """
        _check_features(schema, buffer.schema)
        self.schema, self.context, self.horizon = schema, context, horizon
        self._ends, self._starts = buffer.episode_ends, buffer.episode_starts
        self._rows, self._owners = rows_of_episodes(episodes, episode_ends=self._ends)
        self._arrays: dict[str, np.ndarray | Rows] = {}
        for feature in (*schema.observed, schema.action):
            array = buffer[feature.name]
            if feature.role == "camera":
                num_bytes = len(self._rows) * math.prod(feature.shape)
                if num_bytes <= camera_cache_bytes:
                    camera_cache_bytes -= num_bytes
                    values = np.zeros(array.shape, np.uint8)
                    self._arrays[feature.name] = _read_rows(array, self._rows, into=values)
                elif decoded_dir is not None:
                    values = scratch_array(array.shape, folder=Path(decoded_dir))
                    self._arrays[feature.name] = _read_rows(array, self._rows, into=values)
                else:
                    self._arrays[feature.name] = array
            else:
                values = array[:]
                check_finite(feature.name, values, episode_ends=self._ends, episodes=episodes)
                self._arrays[feature.name] = values
        if only_last:
            self._rows, self._owners = self._ends[episodes] - 1, np.asarray(episodes)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Batch:
        return {name: values[0] for name, values in self.batch(np.array([index])).items()}

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The windows at `indices`, stacked: every array of an item with a leading B."""
        indices = np.asarray(indices)
        owners = self._owners[indices]
        window = window_indices(
            self._rows[indices],
            starts=self._starts[owners],
            ends=self._ends[owners],
            context=self.context,
            horizon=self.horizon,
        )
        batch = {f.name: self._take(f.name, window.observation) for f in self.schema.observed}
        action = self.schema.action
        flat = self._take(action.name, window.action)
        batch["action"] = flat.reshape(*window.action.shape, -1)
        batch["observation_is_padded"] = window.observation_is_padded
        batch["action_is_padded"] = window.action_is_padded
        batch["episode"] = owners
        return batch

    def _take(self, name: str, rows: np.ndarray) -> np.ndarray:
        array = self._arrays[name]
        if isinstance(array, np.ndarray):
            return array[rows]
        return array[rows.ravel()].reshape(*rows.shape, *array.shape[1:])


def _read_rows(array: Rows, rows: np.ndarray, *, into: np.ndarray) -> np.ndarray:
    """`into` (N, ...), all zeros, with the array's frames at `rows`, a block at a time.

    Rows left zero take no memory: the system gives a page when it is first written.
    """
    rows = np.unique(rows)
    for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
        for first in range(0, len(run), DECODED_AT_ONCE):
            part = run[first : first + DECODED_AT_ONCE]
            into[part[0] : part[-1] + 1] = array[part[0] : part[-1] + 1]
    return into


def scratch_array(shape: tuple[int, ...], *, folder: Path) -> np.ndarray:
    """Zeros uint8 of `shape` in a file of `folder` without a name, which ends with the array.

    OSError if there is no such folder, or less space in it than they take.
    """
    num_bytes, free = math.prod(shape), shutil.disk_usage(folder).free
    if num_bytes > free:
        raise OSError(
            f"{folder} has {free / 1e9:.1f} GB left, the decoded frames take {num_bytes / 1e9:.1f} "
            "GB; name another decoded_dir, or none to read from the store"
        )
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, np.uint8, mode="w+", shape=shape)


def _check_features(schema: Schema, stored: Schema) -> None:
    """Raise KeyError or ValueError unless the features of `schema` are in the store as it says."""
    for feature in schema.features:
        theirs = stored[feature.name]
        if (feature.shape, feature.dtype) != (theirs.shape, theirs.dtype):
            raise ValueError(
                f"feature {feature.name!r}: the schema says {feature.shape} {feature.dtype}, "
                f"the replay buffer holds {theirs.shape} {theirs.dtype}"
            )
    for feature in schema.observed:
        if feature.name in RESERVED_NAMES:
            raise ValueError(f"observed feature {feature.name!r}: batches use that name themselves")


def check_finite(
    name: str, values: np.ndarray, *, episode_ends: np.ndarray, episodes: np.ndarray | None = None
) -> None:
    """Raise ValueError if `values` (N, ...) are not finite in `episodes` (None: in any)."""
    for episode in range(len(episode_ends)) if episodes is None else episodes:
        start = episode_ends[episode - 1] if episode else 0
        check_episode_finite(name, values[start : episode_ends[episode]], episode=int(episode))


def check_episode_finite(name: str, values: np.ndarray, *, episode: int) -> None:
    """Raise ValueError naming the first step of one episode's `values` (T, ...) not finite."""
    if values.dtype.kind != "f":
        return
    is_bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if is_bad.any():
        step = int(np.argmax(is_bad))
        raise ValueError(
            f"feature {name!r} is not finite in episode {episode}, step {step}: "
            f"{values[step]}; leave that episode out or repair the recording"
        )


def epoch_order(num_items: int, *, seed: int, epoch: int) -> np.ndarray:
    """(N,) the order in which epoch `epoch` visits the items."""
    return np.random.default_rng([seed, epoch]).permutation(num_items)


def batch_indices(num_items: int, *, batch_size: int, seed: int, step: int) -> np.ndarray:
    """(B,) items of training step `step`, a function of (seed, step) alone, so that a resumed run
    sees what an uninterrupted one would. Each epoch drops its last incomplete batch."""
    if not 1 <= batch_size <= num_items:
        raise ValueError(f"batch_size {batch_size} outside 1..{num_items} (number of windows)")
    epoch, position = divmod(step, num_items // batch_size)
    order = _remembered_order(num_items, seed, epoch)
    return order[position * batch_size : (position + 1) * batch_size].copy()


@lru_cache(maxsize=2)
def _remembered_order(num_items: int, seed: int, epoch: int) -> np.ndarray:
    """`epoch_order`, drawn once an epoch: a million windows take 45 ms to shuffle."""
    return epoch_order(num_items, seed=seed, epoch=epoch)


def iterate_batches(
    dataset: WindowDataset, *, batch_size: int, seed: int, first_step: int
) -> Iterator[Batch]:
    """Batches of training steps `first_step`, `first_step` + 1, ... without end."""
    step = first_step
    while True:
        yield dataset.batch(
            batch_indices(len(dataset), batch_size=batch_size, seed=seed, step=step)
        )
        step += 1
