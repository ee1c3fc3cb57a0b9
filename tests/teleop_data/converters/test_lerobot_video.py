"""Frames of videos: the right ones in any order, none missing unseen, memory of their own."""

from __future__ import annotations

import weakref
from pathlib import Path

import av
import numpy as np
import pytest

from teleop_data.converters import lerobot_video
from teleop_data.converters.lerobot_video import FrameMemory, VideoFrames, VideoReader, video_shape
from teleop_data.replay_buffer import StoreError
from tests.teleop_data.converters.lerobot_episodes import smooth_images, write_video

NUM_FRAMES = 40


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A video at 20 Hz, and its frames as PyAV itself gives them."""
    path = tmp_path_factory.mktemp("video") / "a.mp4"
    write_video(path, smooth_images(NUM_FRAMES, (46, 62, 3)), rate_hz=20)
    with av.open(str(path)) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    return path, np.stack(frames)


def test_all_frames_are_what_the_decoder_gives(video: tuple[Path, np.ndarray]) -> None:
    path, expected = video
    assert len({frame.tobytes() for frame in expected}) == NUM_FRAMES  # a mix-up would be seen
    with VideoFrames(path, rate_hz=20) as frames:
        np.testing.assert_array_equal(frames.read(0, NUM_FRAMES), expected)
    assert video_shape(path) == (46, 62, 3)


@pytest.mark.parametrize("seek_gap", [0, 1000])
def test_reads_in_any_order(
    video: tuple[Path, np.ndarray], seek_gap: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lerobot_video, "SEEK_GAP", seek_gap)
    path, expected = video
    with VideoFrames(path, rate_hz=20) as frames:
        for first, count in [(3, 4), (7, 2), (21, 10), (0, 1), (38, 2), (12, 20), (12, 20)]:
            np.testing.assert_array_equal(
                frames.read(first, count), expected[first : first + count]
            )


def test_frames_beyond_the_end_are_refused(video: tuple[Path, np.ndarray]) -> None:
    path, expected = video
    with VideoFrames(path, rate_hz=20) as frames:
        with pytest.raises(StoreError, match="2 of the 5 frames from 38 on; frame 40 is the first"):
            frames.read(38, 5)
        np.testing.assert_array_equal(frames.read(5, 2), expected[5:7])  # and it goes on


def test_a_video_of_another_rate_is_refused(video: tuple[Path, np.ndarray]) -> None:
    with (
        VideoFrames(video[0], rate_hz=30) as frames,
        pytest.raises(StoreError, match="its rate is not 30 Hz"),
    ):
        frames.read(0, 10)


def test_what_is_no_video_is_refused(tmp_path: Path, video: tuple[Path, np.ndarray]) -> None:
    with pytest.raises(StoreError, match=r"none\.mp4 is missing"):
        VideoFrames(tmp_path / "none.mp4", rate_hz=10)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(StoreError, match="is not a video"):
        VideoFrames(tmp_path / "text.mp4", rate_hz=10)
    data = video[0].read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(StoreError, match="is not a video, or was cut off"):
        VideoFrames(tmp_path / "cut.mp4", rate_hz=20)


def test_what_is_held_is_never_written_over(video: tuple[Path, np.ndarray]) -> None:
    path, expected = video
    reader = VideoReader(rate_hz=20)
    held = [reader.read("a", path, first=first, count=4)[1:, ::2] for first in range(0, 36, 4)]
    for first, images in zip(range(0, 36, 4), held, strict=True):
        np.testing.assert_array_equal(images, expected[first + 1 : first + 4, ::2])
    reader.close()


def test_memory_that_nobody_holds_is_used_again() -> None:
    memory = FrameMemory()
    first = memory.take((5, 4, 3))
    address = first.__array_interface__["data"][0]
    view = first[1:3]
    del first
    assert memory.take((5, 4, 3)).__array_interface__["data"][0] != address  # the view holds it
    del view
    assert memory.take((2, 4, 3)).__array_interface__["data"][0] == address


def test_what_is_closed_holds_no_memory(video: tuple[Path, np.ndarray]) -> None:
    reader = VideoReader(rate_hz=20)
    images = weakref.ref(reader.read("a", video[0], first=0, count=4).base)
    assert images() is not None  # kept for the next episode
    reader.close()
    assert images() is None
