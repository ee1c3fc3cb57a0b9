"""Bulk video decoding: the frames of whole episodes, each video decoded once from front to back.

LeRobot's item access opens the file, seeks and decodes for every single frame. A conversion reads
episodes in order, so here the decoder stays where it is between two reads:

    file   | episode 0 | episode 1 | episode 2 |
    read    ----------> then        ----------->  the frames in between are skipped
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from teleop_data.replay_buffer import StoreError

if TYPE_CHECKING:
    import av.container

MAX_THREADS = 4  # a decoder keeps a frame or more for each; robots' videos are small
SEEK_GAP = 250  # frames: fewer are decoded, which is cheaper than starting at a key frame


class FrameMemory:
    """Arrays whose memory is used again once nobody holds them nor a view of them.

    Fresh memory is what a conversion would wait for: the system gives and clears it page by page,
    which costs up to twice the decoding (0.4 to 3 ms a 640x480 frame, against 0.25 ms for the copy
    into memory used before).
    """

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """An uninitialised uint8 array of `shape`."""
        size = math.prod(shape)
        for index in range(len(self._blocks)):
            if self._blocks[index].size >= size and _holders(self._blocks, index) == _UNHELD:
                return self._blocks[index][:size].reshape(shape)
        # too small ones that nobody holds are given back
        held = range(len(self._blocks))
        self._blocks = [self._blocks[i] for i in held if _holders(self._blocks, i) != _UNHELD]
        self._blocks.append(np.empty(size, np.uint8))
        return self._blocks[-1][:size].reshape(shape)


def _holders(blocks: list[np.ndarray], index: int) -> int:
    """References to a block: views count, since numpy refers each to the array that owns it."""
    return sys.getrefcount(blocks[index])


_UNHELD = _holders([np.empty(0)], 0)  # what the list and the asking count for


class VideoFrames:
    """Frames of one video file by index. Not thread-safe; close it, or use it with `with`."""

    def __init__(self, path: Path, *, rate_hz: float, memory: FrameMemory | None = None) -> None:
        """Open `path`, in which frame i is shown at i / rate_hz seconds.

        Args:
            path: the video.
            rate_hz: its frames per second.
            memory: where the images come from; None makes fresh ones.

        Raises:
            StoreError: the file is missing or no video.
        """
        self.path, self.rate_hz = path, rate_hz
        self._memory = memory or FrameMemory()
        self._container = _open(path)
        self._stream: Any = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self._stream.codec_context.thread_count = min(os.cpu_count() or 1, MAX_THREADS)
        self._frames = self._decode()
        self._next = 0  # index of the frame that the decoder gives next

    def read(self, first: int, count: int) -> np.ndarray:
        """(count, H, W, 3) uint8 RGB, the frames `first` to `first + count - 1`.

        Raises:
            StoreError: the video does not have them, or cannot be decoded.
        """
        if first < self._next or first - self._next > SEEK_GAP:
            self._seek(first)
        width, height = self._stream.codec_context.width, self._stream.codec_context.height
        images = self._memory.take((count, height, width, 3))
        is_read = np.zeros(count, bool)
        for index, frame in self._frames:
            self._next = index + 1
            if 0 <= index - first < count:
                _copy_rgb(frame, images[index - first])
                is_read[index - first] = True
            if self._next >= first + count:
                break
        if not is_read.all():
            missing = int(np.flatnonzero(~is_read)[0]) + first
            raise StoreError(
                f"{self.path} has {int(is_read.sum())} of the {count} frames from {first} on; "
                f"frame {missing} is the first that is missing: the video was cut off, or its rate "
                f"is not {self.rate_hz:g} Hz"
            )
        return images

    def close(self) -> None:
        """Close the file."""
        self._frames = iter(())  # the generator refers to this object: memory would stay until gc
        self._container.close()

    def __enter__(self) -> VideoFrames:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _seek(self, first: int) -> None:
        """Go to the key frame at or before frame `first`."""
        time_base = float(self._stream.time_base)
        offset = int(first / self.rate_hz / time_base) + (self._stream.start_time or 0)
        self._container.seek(offset, backward=True, any_frame=False, stream=self._stream)
        self._frames = self._decode()

    def _decode(self) -> Iterator[tuple[int, Any]]:
        """(index, frame) from where the decoder stands; the index comes from the frame's time."""
        import av.error

        start = self._stream.start_time or 0
        try:
            for frame in self._container.decode(self._stream):
                if frame.pts is not None:
                    seconds = float((frame.pts - start) * self._stream.time_base)
                    yield round(seconds * self.rate_hz), frame
        except av.error.InvalidDataError as error:
            raise StoreError(f"{self.path} cannot be decoded further: {error}") from error


def _copy_rgb(frame: Any, image: np.ndarray) -> None:
    """Write a decoded frame as RGB into `image` (H, W, 3), with one copy less than to_ndarray."""
    plane = frame.reformat(format="rgb24").planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    image.reshape(len(image), -1)[:] = rows[:, : 3 * plane.width]


class VideoReader:
    """Frames of many video files; keeps the last file of each camera open."""

    def __init__(self, *, rate_hz: float) -> None:
        """Videos that show `rate_hz` frames a second."""
        self.rate_hz = rate_hz
        self._memory = FrameMemory()
        self._open: dict[str, VideoFrames] = {}

    def read(self, camera: str, path: Path, *, first: int, count: int) -> np.ndarray:
        """(count, H, W, 3) uint8 as `VideoFrames.read`; `camera` names what is kept open."""
        video = self._open.get(camera)
        if video is None or video.path != path:
            if video is not None:
                video.close()
            video = self._open[camera] = VideoFrames(
                path, rate_hz=self.rate_hz, memory=self._memory
            )
        return video.read(first, count)

    def close(self) -> None:
        """Close all files and let go of the memory."""
        for video in self._open.values():
            video.close()
        self._open.clear()
        self._memory = FrameMemory()


def video_shape(path: Path) -> tuple[int, int, int]:
    """(H, W, 3) of the frames of a video. StoreError if it is missing or no video."""
    container = _open(path)
    try:
        context = container.streams.video[0].codec_context
        return (context.height, context.width, 3)
    finally:
        container.close()


def _open(path: Path) -> av.container.InputContainer:
    """The container at `path`, with at least one video stream."""
    import av
    import av.error

    try:
        container = av.open(str(path))
    except FileNotFoundError as error:
        raise StoreError(f"the video {path} is missing") from error
    except av.error.InvalidDataError as error:
        raise StoreError(f"{path} is not a video, or was cut off ({error})") from error
    if not container.streams.video:
        container.close()
        raise StoreError(f"{path} holds no video stream")
    return container
