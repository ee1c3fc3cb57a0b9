"""Novelty: which pictures are unlike those that a policy was trained on.

A picture is cut into 12 x 12 blocks, and for every block is remembered which colours, of 64 levels
a channel, it had in training. What matters is how many pixels have a colour that their block does
not usually have:

    unseen   neither the block nor one beside it ever had this colour
    rare     fewer than one in 10,000 pixels of the block had it, or none

A share of either above its limit makes the picture strange: noise, a covered or half covered lens,
another camera's feed, wrong exposure, a thing that was never there. Limits come from episodes that
were left out for this, with a margin. Where the hand strays from the demonstrations few pixels take
colours that the neighbourhood never had, which is why colours are counted: the error of pictures
built again from their principal components was measured to tell less.

Numpy only: it also runs where no torch is. H, W picture, C colours, N pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from teleop_data.parts import Episodes

FILE_NAME = "novelty.safetensors"
LEVELS_BITS, CHANNELS = 6, 3
NUM_COLORS = 1 << (LEVELS_BITS * CHANNELS)
BLOCKS = 12  # along either side
MAX_SIDE = 96  # larger pictures are looked at in every second, third, ... pixel
UNSEEN, RARE = 1, 2  # bits
RARE_SHARE = 1e-4
TOLERATED = 0.999  # of the pictures in episodes left out have a share below the limit,
MARGIN = 1.5  # which is so much greater still
MIN_LIMITS = (0.002, 0.06)  # of unseen and rare pixels
NUM_PICTURES = 8_000  # looked at in all, to fit
LEFT_OUT = 5  # every fifth episode is left out for the limits
COUNTED_AT_ONCE = 500

Counts = tuple[np.ndarray, np.ndarray]  # places in the table, ascending, and pixels at each


class NoveltyError(ValueError):
    """A file that holds no novelty, or nothing to fit one on."""


@dataclass(frozen=True)
class CameraNovelty:
    """What one camera's pictures were like.

    Attributes:
        seen: places in the (block, colour) table that occurred, ascending, int32.
        usual: those of them that are not rare.
        limits: (2,) greatest share of unseen and of rare pixels of a picture that is not strange.
        longest_still: longest run of pictures, in training, that each equalled the one before.
    """

    seen: np.ndarray
    usual: np.ndarray
    limits: np.ndarray
    longest_still: int

    @cached_property
    def _kinds(self) -> np.ndarray:
        """(blocks * colours,) uint8: the bits of what each place of the table is."""
        kinds = np.full((BLOCKS, BLOCKS, NUM_COLORS), UNSEEN | RARE, np.uint8)
        block, color = np.divmod(self.seen, NUM_COLORS)
        for shift in np.ndindex(3, 3):  # the block and the eight around it
            row, column = block // BLOCKS + shift[0] - 1, block % BLOCKS + shift[1] - 1
            inside = (row >= 0) & (row < BLOCKS) & (column >= 0) & (column < BLOCKS)
            kinds[row[inside], column[inside], color[inside]] = RARE
        kinds = kinds.reshape(-1)
        kinds[self.usual] = 0
        return kinds

    def shares(self, picture: np.ndarray) -> np.ndarray:
        """(2,) shares of the pixels of `picture` (H, W, channels) that are unseen and rare."""
        kinds = self._kinds[places(picture[None])[0]]
        return np.array([np.count_nonzero(kinds & bit) for bit in (UNSEEN, RARE)]) / kinds.size

    def is_strange(self, picture: np.ndarray, *, tolerance: float = 1.0) -> bool:
        """Whether `picture` (H, W, channels) uint8 is unlike any; `tolerance` scales the limits."""
        return bool(np.any(self.shares(picture) > tolerance * self.limits))


class Novelty:
    """What the pictures of a policy's cameras were like in training."""

    def __init__(self, cameras: Mapping[str, CameraNovelty]) -> None:
        """One `CameraNovelty` by camera."""
        self.cameras = dict(cameras)

    def is_strange(self, camera: str, picture: np.ndarray, *, tolerance: float = 1.0) -> bool:
        """Whether `picture` (H, W, channels) uint8 is unlike those that `camera` gave in training.

        `tolerance` scales the limits.
        """
        return self.cameras[camera].is_strange(picture, tolerance=tolerance)

    def longest_still(self, camera: str) -> int:
        """Longest run of pictures, in training, that each equalled the one before."""
        return self.cameras[camera].longest_still

    def save(self, folder: Path) -> None:
        """Write `novelty.safetensors` into `folder`."""
        arrays = {}
        for name, camera in self.cameras.items():
            still = np.array([camera.longest_still], np.int64)
            parts = {"seen": camera.seen, "usual": camera.usual, "limits": camera.limits}
            arrays |= {
                f"{name}/{part}": a for part, a in (parts | {"longest_still": still}).items()
            }
        save_file(arrays, folder / FILE_NAME)

    @classmethod
    def load(cls, folder: Path) -> Novelty | None:
        """What `save` wrote; None if `folder` has none. NoveltyError if it is broken."""
        path = folder / FILE_NAME
        if not path.exists():
            return None
        try:
            arrays = load_file(path)
            cameras = {
                name: CameraNovelty(
                    seen=arrays[f"{name}/seen"],
                    usual=arrays[f"{name}/usual"],
                    limits=arrays[f"{name}/limits"],
                    longest_still=int(arrays[f"{name}/longest_still"][0]),
                )
                for name in sorted({key.rpartition("/")[0] for key in arrays})
            }
        except (SafetensorError, KeyError) as error:
            raise NoveltyError(f"{path} is broken: {error!r}") from error
        return cls(cameras)


def fit_novelty(
    buffer: Episodes, *, cameras: Iterable[str], episodes: np.ndarray
) -> Novelty | None:
    """What the pictures of `cameras` are like in `episodes` (numbers); None without a camera."""
    fitted = {name: fit_camera(buffer, name, episodes=np.sort(episodes)) for name in cameras}
    return Novelty(fitted) if fitted else None


def fit_camera(buffer: Episodes, name: str, *, episodes: np.ndarray) -> CameraNovelty:
    """One camera of `fit_novelty`. NoveltyError if there are no episodes.

    Limits are set by every fifth episode, seen through the colours of the others; then its own
    colours are added to these.
    """
    if not len(episodes):
        raise NoveltyError("no episodes to fit on")
    starts, ends = buffer.episode_starts[episodes], buffer.episode_ends[episodes]
    stride = max(1, int((ends - starts).sum()) // NUM_PICTURES)
    pictures: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])  # fitted on, left out
    longest_still = 0
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        episode = np.asarray(buffer[name][int(start) : int(end)])
        longest_still = max(longest_still, longest_run(episode))
        is_left_out = i % LEFT_OUT == LEFT_OUT - 1
        pictures[is_left_out].append(thinned(episode[i % stride :: stride]))
    counts = count_colors(np.concatenate(pictures[0]))
    left_out = np.concatenate(pictures[1] or pictures[0])
    limits = limits_of(_camera(counts, np.ones(2), longest_still), left_out)
    if pictures[1]:
        counts = merged([counts, count_colors(left_out)])
    return _camera(counts, limits, longest_still)


def _camera(counts: Counts, limits: np.ndarray, longest_still: int) -> CameraNovelty:
    seen, num = counts
    block = seen // NUM_COLORS
    num_in_block = np.bincount(block, weights=num)
    return CameraNovelty(
        seen=seen,
        usual=seen[num >= RARE_SHARE * num_in_block[block]],
        limits=limits,
        longest_still=longest_still,
    )


def limits_of(camera: CameraNovelty, pictures: np.ndarray) -> np.ndarray:
    """(2,) limits with a margin above the shares of `pictures` (N, H, W, channels)."""
    shares = [camera.shares(picture) for picture in pictures]
    return np.maximum(MARGIN * np.quantile(shares, TOLERATED, axis=0), MIN_LIMITS)


def count_colors(pictures: np.ndarray) -> Counts:
    """Pixels of thinned `pictures` (N, H, W, channels) by place in the (block, colour) table."""
    tables = []
    for first in range(0, len(pictures), COUNTED_AT_ONCE):
        found, num = np.unique(
            places(pictures[first : first + COUNTED_AT_ONCE]), return_counts=True
        )
        tables.append((found, num))
    return merged(tables)


def merged(tables: Sequence[Counts]) -> Counts:
    """The sum of several counts."""
    found = np.concatenate([table[0] for table in tables])
    num = np.concatenate([table[1] for table in tables])
    seen, inverse = np.unique(found, return_inverse=True)
    return seen, np.bincount(inverse, weights=num).astype(np.int64)


def longest_run(pictures: np.ndarray) -> int:
    """Longest run of pictures (N, H, W, channels) that each equal the one before."""
    run = longest = 0
    for before, picture in zip(pictures[:-1], pictures[1:], strict=True):
        run = run + 1 if np.array_equal(before, picture) else 0
        longest = max(longest, run)
    return longest


def places(pictures: np.ndarray) -> np.ndarray:
    """(N, h, w) int32 places of the pixels of (N, H, W, channels) in the (block, colour) table."""
    pictures = thinned(pictures)
    return colors(pictures) + block_of_pixels(*pictures.shape[1:3]) * np.int32(NUM_COLORS)


def thinned(pictures: np.ndarray) -> np.ndarray:
    """Every second, third, ... pixel of large pictures (N, H, W, channels)."""
    rows, columns = (max(1, side // MAX_SIDE) for side in pictures.shape[1:3])
    return pictures[:, ::rows, ::columns]


def colors(pictures: np.ndarray) -> np.ndarray:
    """(N, H, W) int32 colours of (N, H, W, channels) uint8; a fourth channel is left out."""
    levels = (pictures[..., :CHANNELS] >> (8 - LEVELS_BITS)).astype(np.int32)
    color = levels[..., 0]
    for channel in range(1, levels.shape[-1]):
        color = (color << LEVELS_BITS) | levels[..., channel]
    return color


def block_of_pixels(height: int, width: int) -> np.ndarray:
    """(height, width) int32 block of every pixel."""
    row, column = (np.arange(side) * BLOCKS // side for side in (height, width))
    return (row[:, None] * BLOCKS + column).astype(np.int32)
