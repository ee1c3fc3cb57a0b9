"""Statistics of features over the training episodes, gathered block by block.

Mean and variance by Chan's parallel update (Chan, Golub, LeVeque 1983); quantiles from a histogram
of `NUM_BINS` bins in a second pass, so the error is at most one bin, (max - min) / NUM_BINS.
Cameras are counted into 256 values a channel in a single pass: all of their statistics are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from teleop_data.dataset import check_episode_finite
from teleop_data.parts import Episodes

NUM_BINS = 4096
BLOCK_FRAMES = 16  # camera frames counted at once: 40 MB a channel at 640x480


@dataclass(frozen=True, kw_only=True)
class FeatureStatistics:
    """Per-entry statistics of one feature, each flat (D,) float64, in the feature's unit.

    Cameras have D = C, one entry a channel.
    """

    count: int
    minimum: np.ndarray
    maximum: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    q01: np.ndarray
    q99: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dict; `from_json` is its inverse, exactly."""
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FeatureStatistics:
        """What `to_json` wrote. ValueError if a key is unknown or missing."""
        names = {field.name for field in fields(cls)}
        if set(data) != names:
            raise ValueError(f"not statistics: have keys {sorted(data)}, expected {sorted(names)}")
        arrays = {k: np.asarray(v, np.float64) for k, v in data.items() if k != "count"}
        return cls(count=int(data["count"]), **arrays)


def summarize(blocks: Callable[[], Iterable[np.ndarray]]) -> FeatureStatistics:
    """Statistics of the rows of all blocks; `blocks()` is iterated twice, each block (n, D).

    ValueError if there are no rows at all.
    """
    count, mean, squares, minimum, maximum = 0, 0.0, 0.0, np.inf, -np.inf
    for block in blocks():
        rows = np.asarray(block, np.float64)
        if not len(rows):
            continue
        delta = rows.mean(0) - mean
        total = count + len(rows)
        squares = squares + rows.var(0) * len(rows) + delta**2 * (count * len(rows) / total)
        mean = mean + delta * (len(rows) / total)
        minimum, maximum = np.minimum(minimum, rows.min(0)), np.maximum(maximum, rows.max(0))
        count = total
    if count == 0:
        raise ValueError("no rows to summarize: no episode chosen, or none of them has steps")
    minimum, maximum = np.atleast_1d(minimum), np.atleast_1d(maximum)
    histogram = np.zeros((len(minimum), NUM_BINS), np.int64)
    width = np.where(maximum > minimum, maximum - minimum, 1.0)
    for block in blocks():
        bins = np.minimum((np.asarray(block) - minimum) / width * NUM_BINS, NUM_BINS - 1)
        for d, column in enumerate(bins.astype(np.int64).T):
            histogram[d] += np.bincount(column, minlength=NUM_BINS)
    return FeatureStatistics(
        count=count,
        minimum=minimum,
        maximum=maximum,
        mean=np.atleast_1d(mean),
        std=np.sqrt(np.atleast_1d(squares) / count),
        q01=_quantile(histogram, 0.01, minimum=minimum, maximum=maximum),
        q99=_quantile(histogram, 0.99, minimum=minimum, maximum=maximum),
    )


def _quantile(
    histogram: np.ndarray, share: float, *, minimum: np.ndarray, maximum: np.ndarray
) -> np.ndarray:
    """(D,) middle of the bin in which the cumulated count passes `share`."""
    cumulated = np.cumsum(histogram, axis=1)
    bins = np.argmax(cumulated >= share * cumulated[:, -1:], axis=1)
    return minimum + (bins + 0.5) / NUM_BINS * (maximum - minimum)


def summarize_bytes(blocks: Iterable[np.ndarray]) -> FeatureStatistics:
    """Exact statistics by channel of uint8 blocks (..., C). ValueError if there are none."""
    histogram = np.zeros((0, 256), np.int64)
    for block in blocks:
        channels = block.reshape(-1, block.shape[-1]).T
        counts = np.stack([np.bincount(channel, minlength=256) for channel in channels])
        histogram = counts + (histogram if len(histogram) else 0)
    if histogram.sum() == 0:
        raise ValueError("no pixels to summarize: no episode chosen, or none of them has steps")
    values, count = np.arange(256.0), int(histogram[0].sum())
    mean = histogram @ values / count
    cumulated = np.cumsum(histogram, axis=1)
    minimum = np.argmax(cumulated > 0, axis=1)
    maximum = np.argmax(cumulated == count, axis=1)
    return FeatureStatistics(
        count=count,
        minimum=minimum.astype(np.float64),
        maximum=maximum.astype(np.float64),
        mean=mean,
        std=np.sqrt((histogram * (values - mean[:, None]) ** 2).sum(1) / count),
        q01=np.argmax(cumulated >= 0.01 * count, axis=1).astype(np.float64),
        q99=np.argmax(cumulated >= 0.99 * count, axis=1).astype(np.float64),
    )


def buffer_statistics(
    buffer: Episodes, *, names: Iterable[str], episodes: np.ndarray, camera_stride: int = 8
) -> dict[str, FeatureStatistics]:
    """Statistics of the named features over `episodes` only, one episode in memory at a time.

    Cameras use every `camera_stride`-th frame of an episode, per channel in 0..255.

    Raises:
        KeyError: the buffer lacks a name.
        ValueError: a float feature is not finite; the message names the episode and step.
    """
    statistics = {}
    for name in names:
        if buffer.schema[name].role == "camera":
            frames = _camera_blocks(buffer, name, episodes=episodes, stride=camera_stride)
            statistics[name] = summarize_bytes(frames)
        else:
            statistics[name] = summarize(
                lambda name=name: _episode_blocks(buffer, name, episodes=episodes)
            )
    return statistics


def _episode_blocks(buffer: Episodes, name: str, *, episodes: np.ndarray) -> Iterator[np.ndarray]:
    """(T, D) of one episode after the other."""
    for episode in episodes:
        start, end = int(buffer.episode_starts[episode]), int(buffer.episode_ends[episode])
        values = buffer[name][start:end]
        check_episode_finite(name, values, episode=int(episode))
        yield values.reshape(len(values), -1)


def _camera_blocks(
    buffer: Episodes, name: str, *, episodes: np.ndarray, stride: int
) -> Iterator[np.ndarray]:
    """(n, H, W, C) every `stride`-th frame of one episode after the other, a block at a time."""
    array, block = buffer[name], stride * BLOCK_FRAMES
    for episode in episodes:
        start, end = int(buffer.episode_starts[episode]), int(buffer.episode_ends[episode])
        for first in range(start, end, block):
            yield array[first : min(first + block, end)][::stride]
