"""Bulk video decoding: the frames of whole episodes, each video decoded once from front to back.

LeRobot's item access opens the file, seeks and decodes for every single frame. A conversion reads
episodes in order, so here the decoder stays where it is between two reads:

    file   | episode 0 | episode 1 | episode 2 |
    read    ----------> then        ----------->  the frames in between are skipped
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from teleop_data.replay_buffer import StoreError

if TYPE_CHECKING:
    import av.container

MAX_THREADS = 4  # a decoder keeps a frame or more for each; robots' videos are small
SEEK_GAP = 250  # frames: fewer are decoded, which is cheaper than starting at a key frame


class VideoFrames:
    """Frames of one video file by index. Not thread-safe; close it, or use it with `with`."""

    def __init__(self, path: Path, *, rate_hz: float) -> None:
        """Open `path`, in which frame i is shown at i / rate_hz seconds.

        Raises:
            StoreError: the file is missing or no video.
        """
        self.path, self.rate_hz = path, rate_hz
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
        images = np.empty((count, height, width, 3), np.uint8)
        is_read = np.zeros(count, bool)
        for index, frame in self._frames:
            self._next = index + 1
            if 0 <= index - first < count:
                images[index - first] = frame.to_ndarray(format="rgb24")
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


class VideoReader:
    """Frames of many video files; keeps the last file of each camera open."""

    def __init__(self, *, rate_hz: float) -> None:
        """Videos that show `rate_hz` frames a second."""
        self.rate_hz = rate_hz
        self._open: dict[str, VideoFrames] = {}

    def read(self, camera: str, path: Path, *, first: int, count: int) -> np.ndarray:
        """(count, H, W, 3) uint8 as `VideoFrames.read`; `camera` names what is kept open."""
        video = self._open.get(camera)
        if video is None or video.path != path:
            if video is not None:
                video.close()
            video = self._open[camera] = VideoFrames(path, rate_hz=self.rate_hz)
        return video.read(first, count)

    def close(self) -> None:
        """Close all files."""
        for video in self._open.values():
            video.close()
        self._open.clear()


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
