"""Writing LeRobotDataset v3.0 with LeRobot's own writer: videos are encoded while frames come in.

Beside LeRobot's own files stands `meta/forcing.json`: what LeRobot has no place for.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from teleop_data.converters.lerobot_columns import (
    IMAGES,
    Column,
    column_specs,
    columns_of,
    losses,
)
from teleop_data.converters.lerobot_layout import read_layout
from teleop_data.converters.lerobot_reading import SIDECAR
from teleop_data.replay_buffer import StoreError
from teleop_data.schema import Schema

Storage = Literal["video", "image"]
LEAST_VIDEO_SIDE = 32  # px: at 24x24 the AV1 encoder ends the whole process by a division by zero
IMAGE_WRITER_THREADS = 2
MAX_BACKLOG = 32  # frames of a camera that wait for their encoder
POLL_S = 0.002


class LeRobotSink:
    """Writes one LeRobotDataset v3.0. Not thread-safe.

    Statistics are LeRobot's own: up to 0.6.1 their quantiles are averages of the episodes', so
    normalise by MIN_MAX or MEAN_STD.
    """

    def __init__(
        self, *, storage: Storage = "video", codec: str = "libsvtav1", crf: int = 30
    ) -> None:
        """A sink for images as LeRobot stores them.

        Args:
            storage: "video" is small and lossy, "image" keeps every bit (PNG).
            codec: of the videos, as LeRobot names it: libsvtav1, h264, hevc.
            crf: their quality, 0 the best and largest.

        Raises:
            ValueError: no such storage.
        """
        if storage not in get_args(Storage):
            raise ValueError(f"storage {storage!r}; one of {', '.join(get_args(Storage))}")
        self.storage, self._codec, self._crf = storage, codec, crf
        self._dataset: Any = None
        self._attributes: list[dict[str, Any]] = []

    def losses(self, schema: Schema) -> Sequence[str]:
        """What LeRobot does not carry of `schema`, one sentence each.

        Raises:
            ValueError: the rate is no whole number, nothing is left to write, or LeRobot cannot
                encode a camera.
        """
        if schema.rate_hz != int(schema.rate_hz):
            raise ValueError(f"LeRobot counts whole frames a second; the rate is {schema.rate_hz}")
        if not columns_of(schema):
            raise ValueError(f"LeRobot can hold none of {', '.join(schema.names)}")
        for camera in schema.with_role("camera"):
            if self.storage == "video" and min(camera.shape[:2]) < LEAST_VIDEO_SIDE:
                raise ValueError(
                    f"camera {camera.name!r} is {camera.shape[0]}x{camera.shape[1]}; video needs "
                    f"at least {LEAST_VIDEO_SIDE} on each side: use storage=image"
                )
        return losses(schema, storage=self.storage)

    def begin(self, path: Path, *, schema: Schema, provenance: Mapping[str, Any]) -> None:
        """Start the dataset in the folder `path`, where nothing is yet.

        Of the provenance, "robot" becomes LeRobot's robot_type and "entry_names" ({feature: names})
        the names of the entries. ValueError as `losses`, or if LeRobot does not know the codec.
        """
        self.losses(schema)
        self._path, self._columns = path, columns_of(schema)
        self._schema, self._provenance = schema, dict(provenance)
        os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder tells its settings for every video
        from lerobot.datasets import LeRobotDataset

        with _quiet():
            self._dataset = LeRobotDataset.create(**self._settings())

    def _settings(self) -> dict[str, Any]:
        """What LeRobot's writer is told."""
        from lerobot.configs import RGBEncoderConfig

        is_video, provenance = self.storage == "video", self._provenance
        return {
            "repo_id": f"local/{self._path.name}",
            "root": self._path,
            "fps": int(self._schema.rate_hz),
            "robot_type": provenance.get("robot"),
            "features": column_specs(
                self._schema, storage=self.storage, entry_names=provenance.get("entry_names", {})
            ),
            "use_videos": is_video,
            "streaming_encoding": is_video,
            "rgb_encoder": RGBEncoderConfig(
                vcodec=self._codec,
                crf=self._crf,
                extra_options={"x265-params": "log-level=error"} if self._codec == "hevc" else {},
            ),
            "encoder_queue_maxsize": 0,  # no bound of LeRobot's own: see _wait_for_encoders
            "image_writer_threads": 0 if is_video else IMAGE_WRITER_THREADS,
            "video_backend": "pyav",
        }

    def add(self, episode: Mapping[str, np.ndarray], *, attributes: Mapping[str, Any]) -> None:
        """Write one episode {name: (T, ...)}, as fast as its images can be encoded.

        The attribute "task" (text), or "tasks" ([[step, text], ...] where it changes), becomes
        LeRobot's task; without it the task is the empty text.

        Raises:
            ValueError: an episode of one step, which LeRobot's video statistics cannot take.
            StoreError: the encoder failed or lost frames.
        """
        length = len(episode[self._schema.names[0]])
        if self._video_keys() and length < 2:
            raise ValueError(
                "one step only, which LeRobot cannot store as video: leave the episode out, or use "
                "storage=image"
            )
        arrays = {column.key: _array(column, episode) for column in self._columns}
        tasks = _task_of_steps(attributes, length=length)
        try:
            for step in range(length):
                frame = {key: values[step] for key, values in arrays.items()}
                self._wait_for_encoders()
                self._dataset.add_frame({**frame, "task": tasks[step]})
            with _quiet():
                self._dataset.save_episode()
        except RuntimeError as error:
            raise StoreError(f"LeRobot's encoder failed: {error}") from error
        self._check_videos(length)
        self._attributes.append(dict(attributes))

    def finish(self) -> None:
        """Complete the dataset. StoreError if LeRobot did not write all episodes."""
        self.close()
        # LeRobot leaves the folders of its PNG files, which the tables hold by now
        shutil.rmtree(self._path / "images", ignore_errors=True)
        written = len(read_layout(self._path).episodes)
        if written != len(self._attributes):
            raise StoreError(f"LeRobot wrote {written} of {len(self._attributes)} episodes")
        held = {name for column in self._columns for name in column.features}
        sidecar = {
            "schema": self._schema.select(n for n in self._schema.names if n in held).to_json(),
            "columns": {column.key: list(column.features) for column in self._columns},
            "provenance": self._provenance,
            "episodes": self._attributes,
        }
        text = json.dumps(sidecar, indent=1, allow_nan=False)
        (self._path / SIDECAR).write_text(text + "\n", encoding="utf-8")

    def close(self) -> None:
        """Stop LeRobot's writer: its destructor would write into a folder that may be gone."""
        if self._dataset is not None:
            dataset, self._dataset = self._dataset, None
            dataset.finalize()

    def _wait_for_encoders(self) -> None:
        """Let the encoders catch up. LeRobot drops frames where its queue is full, and cuts off the
        video of an encoder that has more than 120 s of work left when the episode is saved.
        """
        encoder = self._dataset.writer._streaming_encoder  # no public name for it in 0.6.1
        if encoder is None:
            return
        for key, frames in encoder._frame_queues.items():
            while frames.qsize() > MAX_BACKLOG and encoder._threads[key].is_alive():
                time.sleep(POLL_S)

    def _video_keys(self) -> list[str]:
        keys = [column.key for column in self._columns if column.key.startswith(IMAGES)]
        return keys if self.storage == "video" else []

    def _check_videos(self, length: int) -> None:
        """Raise StoreError unless the newest episode's videos last as long as its rows."""
        newest = self._dataset.meta.latest_episode
        for key in self._video_keys():
            start, end = (newest[f"videos/{key}/{edge}_timestamp"][0] for edge in ("from", "to"))
            frames = round((end - start) * self._schema.rate_hz)
            if frames != length:
                raise StoreError(
                    f"the encoder wrote {frames} of {length} frames of {key}; "
                    "storage=image needs no encoder"
                )


def _array(column: Column, episode: Mapping[str, np.ndarray]) -> np.ndarray:
    """(T, D) numbers, or (T, H, W, 3) images."""
    if not column.key.startswith(IMAGES):
        return column.join(episode)
    images = np.asarray(episode[column.features[0]])
    return images if images.shape[-1] == 3 else np.repeat(images, 3, axis=-1)


def _task_of_steps(attributes: Mapping[str, Any], *, length: int) -> list[str]:
    """The task's text at each of `length` steps."""
    texts = [str(attributes.get("task", ""))] * length
    for start, text in attributes.get("tasks", []):
        texts[int(start) :] = [str(text)] * (length - int(start))
    return texts


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no notices of LeRobot and its encoders for every episode."""
    import av.logging
    import datasets

    logger = logging.getLogger("lerobot")
    level = logger.level
    logger.setLevel(logging.WARNING)

    had_bars = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    av.logging.set_libav_level(av.logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        av.logging.set_libav_level(av.logging.INFO)
        if had_bars:
            datasets.enable_progress_bars()
