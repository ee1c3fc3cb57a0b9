"""Camera sources and what covers them; every YAML of the group is made into its source."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.utils import instantiate

import deploy.configs
from deploy.camera_sources import Device, Pattern, Recording, Relay
from deploy.frames import FramePublisher, camera_endpoints
from deploy.stream_cameras import Cover, Covering, StreamConfig, stream
from teleop_data.clock import ManualClock
from teleop_data.replay_buffer import ReplayBuffer
from tests.deploy.test_frames import ANY_PORT, picture, wait_for
from tests.deploy.tiny_policy import planar_schema


@pytest.fixture
def store(tmp_path) -> tuple[str, np.ndarray]:
    """A replay buffer of two episodes, and the pictures of the second."""
    path = tmp_path / "episodes.zarr"
    buffer = ReplayBuffer.create(path, planar_schema())
    for length in (3, 4):
        images = np.stack([picture(10 * length + t, side=32) for t in range(length)])
        zeros = np.zeros((length, 2), np.float32)
        buffer.append_episode({"front": images, "position": zeros, "action": zeros})
    return str(path), images


def make_source(*overrides: str):
    """What `forcing-stream` would make of these arguments."""
    ConfigStore.instance().store(name="stream_schema", node=StreamConfig)
    folder = str(Path(deploy.configs.__file__).parent)
    with initialize_config_dir(folder, version_base="1.3"):
        return instantiate(compose("stream_cameras", ["camera=front", *overrides]).source)


def test_a_pattern_changes_from_picture_to_picture_and_has_contrast():
    source = Pattern(height=24, width=48, clock=ManualClock(3.0))
    images = [source.read()[0] for _ in range(30)]
    assert images[0].shape == (24, 48, 3)
    assert source.read()[1] == 3.0
    assert all(not np.array_equal(a, b) for a, b in itertools.pairwise(images))
    assert images[0].std() > 20


def test_a_recorded_episode_is_played_over_and_over(store):
    path, images = store
    source = make_source("source=recording", f"source.path={path}", "source.episode=1")
    assert isinstance(source, Recording)
    played = np.stack([source.read()[0] for _ in range(8)])
    np.testing.assert_array_equal(played, np.concatenate([images, images]))


def test_a_recording_that_is_not_there_is_refused(store):
    path, _ = store
    with pytest.raises(ValueError, match="'position' in .* is no camera; its cameras are"):
        Recording(path=path, camera="position")
    with pytest.raises(ValueError, match="no episode 2 .* it has 2"):
        Recording(path=path, camera="front", episode=2)
    with pytest.raises(KeyError, match="no feature 'wrsit'; have: front"):
        Recording(path=path, camera="wrsit")


def test_a_relay_passes_every_new_frame_on_once():
    with FramePublisher(ANY_PORT, "front") as world:
        source = make_source("source=relay", f"source.endpoint={world.endpoint}")
        assert isinstance(source, Relay)
        wait_for(lambda: world.publish(picture(), captured_s=2.5) + 1 and source.read())
        while source.read() is not None:  # frames that were under way
            pass
        assert source.read() is None
        world.publish(picture(1), captured_s=7.5)
        image, captured_s = wait_for(source.read)
        np.testing.assert_array_equal(image, picture(1))
        assert captured_s == 7.5
        source.close()


def test_a_device_that_is_not_there_is_a_clear_error():
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    with pytest.raises(OSError, match="no camera device 93"):
        Device(index=93)


@pytest.mark.parametrize(
    ("cover", "expected"),
    [
        (Cover.none, [0, 1, 2, 3, 4, 5]),
        (Cover.black, [0, 1, None, None, 4, 5]),
        (Cover.frozen, [0, 1, 1, 1, 4, 5]),
    ],
)
def test_a_cover_lasts_as_long_as_it_was_told(cover, expected):
    covering = Covering(cover, start_s=2.0, length_s=2.0)
    for second, seed in enumerate(expected):
        shown = covering.apply(picture(second), now_s=100.0 + second)
        assert np.array_equal(shown, np.zeros_like(shown) if seed is None else picture(seed))


def test_a_cover_without_an_end_lasts_for_ever_and_one_from_the_start_shows_nothing_good():
    covering = Covering(Cover.black)
    assert covering.apply(picture(), now_s=0.0).max() == 0
    assert covering.apply(picture(), now_s=1e9).max() == 0


def test_a_source_without_a_pace_is_read_at_the_rate():
    clock, stopped = ManualClock(), threading.Event()

    class Counting(Pattern):
        def read(self):
            if clock.now() >= 1.0:
                stopped.set()
            return super().read()

    with FramePublisher(ANY_PORT, "front") as publisher:
        num_frames = stream(
            Counting(clock=clock),
            publisher,
            covering=Covering(Cover.none),
            rate_hz=10.0,
            clock=clock,
            stopped=stopped,
        )
    assert num_frames == 11
    assert clock.now() == pytest.approx(1.0)


def test_endpoints_are_a_dict_of_names():
    assert camera_endpoints(None, key="cameras") == {}
    assert camera_endpoints({"front": "tcp://a:1"}, key="cameras") == {"front": "tcp://a:1"}
    for wrong in ("front", ["front"], {"front": 1}):
        with pytest.raises(ValueError, match="expected cameras={wrist:tcp"):
            camera_endpoints(wrong, key="cameras")
