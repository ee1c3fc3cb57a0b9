"""Camera sources: where a camera process takes its pictures from."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from deploy.frames import FrameSubscriber
from teleop_data.clock import Clock, MonotonicClock

Picture = tuple[np.ndarray, float]  # (H, W, C) uint8, capture time on `time.monotonic`


class CameraSource(Protocol):
    """Gives pictures one by one. A source that `is_paced` decides itself when the next one comes.

    The others are asked at the rate of whoever asks.
    """

    is_paced: bool

    def read(self) -> Picture | None:
        """The next picture and its capture time; None if there is none yet (0.1 s at most)."""
        ...

    def close(self) -> None:
        """Free the device or the connection."""
        ...


class Pattern:
    """A test picture: a red square that wanders over a grey ramp, (height, width, 3)."""

    is_paced = False

    def __init__(self, *, height: int = 64, width: int = 64, clock: Clock | None = None) -> None:
        self._clock, self._num_read = clock or MonotonicClock(), 0
        ramp = np.linspace(40, 215, width).astype(np.uint8)
        self._ramp = np.broadcast_to(ramp[None, :, None], (height, width, 3))

    def read(self) -> Picture:
        """The next picture of the pattern; no two in a row are equal."""
        image = self._ramp.copy()
        side = max(1, min(image.shape[:2]) // 8)
        row = 3 * self._num_read % max(1, image.shape[0] - side)
        column = 5 * self._num_read % max(1, image.shape[1] - side)
        image[row : row + side, column : column + side] = (200, 30, 30)
        self._num_read += 1
        return image, self._clock.now()

    def close(self) -> None:
        """Nothing to free."""


class Recording:
    """One camera of one recorded episode, over and over.

    Raises:
        ValueError: the episode does not exist, or the feature is not a camera.
    """

    is_paced = False

    def __init__(
        self, *, path: str, camera: str, episode: int = 0, clock: Clock | None = None
    ) -> None:
        from teleop_data.replay_buffer import ReplayBuffer  # zarr: only where it is needed

        buffer = ReplayBuffer.open(path)
        if buffer.schema[camera].role != "camera":
            names = [feature.name for feature in buffer.schema.with_role("camera")]
            raise ValueError(f"{camera!r} in {path} is no camera; its cameras are {names}")
        if not 0 <= episode < buffer.num_episodes:
            raise ValueError(f"no episode {episode} in {path}; it has {buffer.num_episodes}")
        steps = slice(int(buffer.episode_starts[episode]), int(buffer.episode_ends[episode]))
        self._images = buffer[camera][steps]
        self._clock, self._num_read = clock or MonotonicClock(), 0

    def read(self) -> Picture:
        """The next picture of the episode."""
        image = self._images[self._num_read % len(self._images)]
        self._num_read += 1
        return image, self._clock.now()

    def close(self) -> None:
        """Nothing to free."""


class Device:
    """A camera of this machine, through OpenCV; RGB.

    Raises:
        ModuleNotFoundError: OpenCV is not installed.
        OSError: there is no such camera, or it gives no picture.
    """

    is_paced = True

    def __init__(
        self,
        *,
        index: int = 0,
        width: int | None = None,
        height: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        try:
            import cv2
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "a camera device needs OpenCV: pip install opencv-python-headless"
            ) from error
        self._cv2, self._index, self._clock = cv2, index, clock or MonotonicClock()
        self._capture = cv2.VideoCapture(index)
        if not self._capture.isOpened():
            raise OSError(f"no camera device {index}; on Linux, ls /dev/video* lists them")
        if width is not None:
            self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
        if height is not None:
            self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # or it hands out old pictures first

    def read(self) -> Picture:
        """The next picture; waits for the device."""
        is_read, image = self._capture.read()
        captured_s = self._clock.now()
        if not is_read:  # ends the process: silence is what the policy side understands
            raise OSError(f"camera device {self._index} gives no picture; was it unplugged?")
        return self._cv2.cvtColor(image, self._cv2.COLOR_BGR2RGB), captured_s

    def close(self) -> None:
        """Give the device back."""
        self._capture.release()


class Relay:
    """The frames of another process, passed on once each, with their capture times.

    A simulated robot publishes what its camera would see; a relay is then the camera's process,
    which can be covered or killed without touching the robot.
    """

    is_paced = True

    def __init__(self, *, endpoint: str, camera: str) -> None:
        self._subscriber = FrameSubscriber(endpoint, camera)
        self._last_sequence: int | None = None

    def read(self) -> Picture | None:
        """The newest frame if it is a new one; waits 0.1 s for it at most."""
        self._subscriber.wait(0.1)
        frame = self._subscriber.newest()
        if frame is None or frame.sequence == self._last_sequence:
            return None
        self._last_sequence = frame.sequence
        return frame.image, frame.captured_s

    def close(self) -> None:
        """Disconnect."""
        self._subscriber.close()
