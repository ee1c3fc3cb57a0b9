"""forcing-stream: be a camera's process, which publishes its frames.

    forcing-stream camera=top source=pattern endpoint=tcp://127.0.0.1:5600
    forcing-stream camera=top source=relay source.endpoint=tcp://127.0.0.1:5601 cover=black

`cover` spoils the pictures for a while, as a hand before the lens would. Ends cleanly on SIGTERM
and Ctrl-C.
"""

from __future__ import annotations

import logging
import sys
import threading
from dataclasses import dataclass
from enum import Enum
from typing import Any

import hydra
import numpy as np
import zmq
from hydra.core.config_store import ConfigStore
from hydra.utils import instantiate
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from deploy.camera_sources import CameraSource
from deploy.control_loop import Ticker
from deploy.frames import FramePublisher
from deploy.stop_signal import stop_on_signal
from teleop_data.clock import Clock, MonotonicClock

logger = logging.getLogger(__name__)


class Cover(Enum):
    """How the pictures are spoilt."""

    none = "none"
    black = "black"  # a hand before the lens
    frozen = "frozen"  # the last good picture, under new numbers and times


class FrameCodec(Enum):
    """How pictures travel."""

    raw = "raw"
    jpeg = "jpeg"


@dataclass
class StreamConfig:
    """What `forcing-stream` is told.

    Attributes:
        camera: name of the camera feature.
        source: where pictures come from: pattern, recording, device or relay.
        endpoint: where to publish.
        codec: raw on one host, jpeg across a network.
        rate_hz: pictures per second, for sources that have no pace of their own.
        cover: how pictures are spoilt.
        cover_start_s: seconds after the first picture at which that begins.
        cover_length_s: seconds that it lasts; null = for ever.
    """

    camera: str = MISSING
    source: dict[str, Any] = MISSING
    endpoint: str = "tcp://127.0.0.1:5600"
    codec: FrameCodec = FrameCodec.raw
    rate_hz: float = 30.0
    cover: Cover = Cover.none
    cover_start_s: float = 0.0
    cover_length_s: float | None = None


class Covering:
    """Spoils pictures during one stretch of time.

    Args:
        cover: how.
        start_s: seconds after the first picture.
        length_s: seconds; None = for ever.
    """

    def __init__(self, cover: Cover, *, start_s: float = 0.0, length_s: float | None = None):
        self._cover, self._start_s, self._length_s = cover, start_s, length_s
        self._first_s: float | None = None
        self._good: np.ndarray | None = None

    def apply(self, image: np.ndarray, *, now_s: float) -> np.ndarray:
        """The picture that is published in place of `image` (H, W, C) at `now_s`."""
        if self._first_s is None:
            self._first_s = now_s
        since_s = now_s - self._first_s - self._start_s
        is_covered = since_s >= 0 and (self._length_s is None or since_s < self._length_s)
        if self._cover is Cover.black and is_covered:
            return np.zeros_like(image)
        if self._cover is Cover.frozen and is_covered and self._good is not None:
            return self._good
        self._good = image
        return image


def stream(
    source: CameraSource,
    publisher: FramePublisher,
    *,
    covering: Covering,
    rate_hz: float,
    clock: Clock,
    stopped: threading.Event,
) -> int:
    """Publish until `stopped`; returns the number of frames."""
    ticker, num_frames = Ticker(clock, period_s=1 / rate_hz), 0
    while not stopped.is_set():
        if not source.is_paced:
            ticker.wait()
        picture = source.read()
        if picture is not None:
            image, captured_s = picture
            publisher.publish(covering.apply(image, now_s=clock.now()), captured_s=captured_s)
            num_frames += 1
    return num_frames


def run(config: StreamConfig) -> None:
    """Stream until a signal comes. ValueError or OSError if that cannot be."""
    stopped = stop_on_signal()
    source: CameraSource = instantiate(config.source)
    try:
        publisher = FramePublisher(
            config.endpoint, config.camera, codec="jpeg" if config.codec.value == "jpeg" else "raw"
        )
    except zmq.ZMQError as error:
        raise OSError(f"cannot publish at {config.endpoint}: {error}") from error
    with publisher:
        print(f"camera {config.camera} at {publisher.endpoint}", flush=True)
        num_frames = stream(
            source,
            publisher,
            covering=Covering(
                config.cover, start_s=config.cover_start_s, length_s=config.cover_length_s
            ),
            rate_hz=config.rate_hz,
            clock=MonotonicClock(),
            stopped=stopped,
        )
    source.close()
    logger.info("%d frames published", num_frames)


def main() -> None:
    """Console entry point: reads the command line, exits with a message on misuse."""
    ConfigStore.instance().store(name="stream_schema", node=StreamConfig)
    hydra.main(version_base="1.3", config_path="configs", config_name="stream_cameras")(_main)()


def _main(config: Any) -> None:
    try:
        run(OmegaConf.to_object(config))  # pyright: ignore[reportArgumentType]
    except MissingMandatoryValue as error:
        sys.exit(f"forcing-stream: {error.full_key} is not given; say {error.full_key}=...")
    except (ValueError, KeyError, OSError, ModuleNotFoundError) as error:
        sys.exit(f"forcing-stream: {error}")


if __name__ == "__main__":
    main()
