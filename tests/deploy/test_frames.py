"""Frames over real sockets: newest wins, nothing else gets through."""

from __future__ import annotations

import time

import numpy as np
import pytest
import simplejpeg
import zmq
from hypothesis import given
from hypothesis import strategies as st

from deploy.frames import Frame, FramePublisher, FrameSubscriber, pack_frame, unpack_frame
from deploy.wire import WireError

ANY_PORT = "tcp://127.0.0.1:*"


def picture(seed: int = 0, *, side: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)


def wait_for(condition, *, timeout_s: float = 10.0):
    """The first true answer of `condition`; fails after the time-out."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if answer := condition():
            return answer
        time.sleep(0.005)
    raise AssertionError(f"nothing within {timeout_s} s")


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**40))
def test_a_raw_frame_comes_back(height, width, channels, sequence):
    image = np.random.default_rng(sequence).integers(0, 255, (height, width, channels), np.uint8)
    frame = unpack_frame(
        pack_frame(Frame(camera="höhe", sequence=sequence, captured_s=1.25, image=image))
    )
    assert (frame.camera, frame.sequence, frame.captured_s) == ("höhe", sequence, 1.25)
    np.testing.assert_array_equal(frame.image, image)
    assert frame.image.flags.writeable


def test_jpeg_keeps_size_order_of_colours_and_most_of_the_picture():
    image = np.zeros((40, 24, 3), np.uint8)
    image[:, :, 0] = np.linspace(0, 250, 40, dtype=np.uint8)[:, None]
    frame = Frame(camera="wrist", sequence=0, captured_s=0.0, image=image)
    back = unpack_frame(pack_frame(frame, codec="jpeg")).image
    assert back.shape == image.shape
    assert np.abs(back.astype(int) - image).max() <= 8  # swapped channels would give 250


def test_every_truncation_of_a_raw_frame_is_refused():
    data = pack_frame(Frame(camera="front", sequence=1, captured_s=0.0, image=picture(side=4)))
    for length in range(len(data)):
        with pytest.raises(WireError):
            unpack_frame(data[:length])


@given(st.binary(max_size=200))
def test_garbage_is_refused(data):
    with pytest.raises(WireError):
        unpack_frame(data)


def test_a_jpeg_that_is_larger_than_its_header_says_is_refused_before_decoding():
    small = pack_frame(
        Frame(camera="front", sequence=0, captured_s=0.0, image=picture(side=16)), codec="jpeg"
    )
    start = small.index(b"\xff\xd8")
    bomb = simplejpeg.encode_jpeg(np.zeros((4000, 4000, 3), np.uint8), quality=1)
    with pytest.raises(WireError, match=r"JPEG is \(4000, 4000\)"):
        unpack_frame(small[:start] + bomb)
    with pytest.raises(WireError):
        unpack_frame(small[: start + 40])  # cut off in mid-picture


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 5), (0, 4, 3), (5000, 4, 3)])
def test_what_is_no_picture_is_not_sent(shape):
    with pytest.raises(ValueError, match="expected|sides"):
        pack_frame(
            Frame(camera="front", sequence=0, captured_s=0.0, image=np.zeros(shape, np.uint8))
        )


def test_a_slow_subscriber_gets_the_newest_frame_with_its_capture_time():
    with FramePublisher(ANY_PORT, "front") as publisher:
        subscriber = FrameSubscriber(publisher.endpoint, "front")
        assert subscriber.newest() is None
        image = picture(side=96)
        wait_for(lambda: publisher.publish(image, captured_s=-1.0) and subscriber.newest())
        for number in range(300):  # far more than any queue is meant to hold
            last = publisher.publish(image, captured_s=float(number))
        frame = wait_for(lambda: (f := subscriber.newest()) and f.captured_s == 299.0 and f)
        assert frame.sequence == last
        assert subscriber.newest() is frame  # again, and still without blocking
        subscriber.close()


def test_newest_passes_over_everything_older():
    with FramePublisher(ANY_PORT, "front") as publisher:
        subscriber = FrameSubscriber(publisher.endpoint, "front")
        wait_for(lambda: publisher.publish(picture(), captured_s=0.0) and subscriber.newest())
        first = publisher.publish(picture(), captured_s=1.0)
        for _ in range(99):
            publisher.publish(picture(), captured_s=1.0)
            time.sleep(0.001)
        time.sleep(0.2)
        # a queue would give the oldest one first
        frame = subscriber.newest()
        assert frame is not None
        assert frame.sequence == first + 99
        subscriber.close()


def test_cameras_do_not_mix_even_where_one_name_begins_like_the_other():
    with FramePublisher(ANY_PORT, "wrist_left") as publisher:
        wrist = FrameSubscriber(publisher.endpoint, "wrist")  # the wrong endpoint
        left = FrameSubscriber(publisher.endpoint, "wrist_left")
        for seed in range(20):
            publisher.publish(picture(seed), captured_s=0.0)
            time.sleep(0.01)
        wait_for(lambda: publisher.publish(picture(1), captured_s=0.0) and left.newest())
        assert wrist.newest() is None  # no picture rather than another camera's
        wrist.close()
        left.close()


def test_garbage_on_the_socket_is_counted_and_the_last_good_frame_stays():
    socket = zmq.Context.instance().socket(zmq.PUB)
    socket.linger = 0
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    subscriber = FrameSubscriber(f"tcp://127.0.0.1:{port}", "front")
    good = pack_frame(Frame(camera="front", sequence=0, captured_s=0.0, image=picture()))
    wait_for(lambda: socket.send(good) or subscriber.newest())
    wait_for(
        lambda: socket.send(b"front\0nonsense") or (subscriber.newest(), subscriber.num_refused)[1]
    )
    assert subscriber.newest().sequence == 0
    subscriber.close()
    socket.close()
