"""Writing LeRobotDataset v3.0: LeRobot itself opens it, and it comes back as it was."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teleop_data.converters import lerobot_writing
from teleop_data.converters.episode_stream import copy_episodes
from teleop_data.converters.lerobot_dataset import FORMAT
from teleop_data.converters.lerobot_reading import SIDECAR, LeRobotSource
from teleop_data.converters.lerobot_writing import LeRobotSink
from teleop_data.converters.replay_buffer_zarr import REPLAY_BUFFER
from teleop_data.replay_buffer import ReplayBuffer, StoreError
from teleop_data.schema import Feature, Schema
from tests.teleop_data.converters.lerobot_episodes import ATTRIBUTES, LENGTHS, SCHEMA, Episodes
from tests.teleop_data.stores import write_store


@pytest.fixture(scope="module", autouse=True)
def no_network() -> Iterator[None]:
    """Any attempt to reach beyond this machine fails the test."""
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_HUB_OFFLINE", "1")

    def refuse(self: socket.socket, address: Any) -> None:
        raise AssertionError(f"somebody calls {address}")

    patch.setattr(socket.socket, "connect", refuse)
    yield
    patch.undo()


@pytest.fixture(scope="module", params=["image", "video"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three episodes as a LeRobotDataset; not to be changed."""
    path = tmp_path_factory.mktemp("lerobot") / request.param
    assert copy_episodes(Episodes(), LeRobotSink(storage=request.param), path) == sum(LENGTHS)
    return path


def test_it_comes_back_as_it_was(written: Path) -> None:
    source = LeRobotSource(written)
    assert source.schema == SCHEMA  # names, roles, units, angles, shapes, dtypes, rate
    assert source.notes == ()
    assert source.provenance == Episodes.provenance
    assert [dict(source.attributes(i)) for i in range(3)] == list(ATTRIBUTES)
    for index in (0, 1, 2):
        original, episode = Episodes().episode(index), source.episode(index)
        for feature in SCHEMA.features:
            ours, theirs = episode[feature.name], original[feature.name]
            assert ours.dtype == theirs.dtype
            assert ours.shape == theirs.shape
            if feature.role != "camera" or written.name == "image":
                assert ours.tobytes() == theirs.tobytes(), feature.name
            else:
                assert np.abs(ours.astype(np.float64) - theirs).mean() < 2.5
    source.close()


def test_lerobot_opens_it_and_gives_the_same(written: Path) -> None:
    from lerobot.datasets import LeRobotDataset

    dataset = LeRobotDataset(
        "local/any", root=written, video_backend="pyav", delta_timestamps={"action": [0.0, 0.05]}
    )
    assert dataset.num_episodes == 3
    assert dataset.meta.episodes["dataset_to_index"] == np.cumsum(LENGTHS).tolist()
    assert dataset.meta.robot_type == "panda"
    source = LeRobotSource(written)
    row = 0
    for index, length in enumerate(LENGTHS):
        episode = source.episode(index)
        for step in range(length):
            item = dataset[row]
            state = np.concatenate([episode["joints"][step], episode["grip"][step, None]])
            assert item["observation.state"].numpy().tobytes() == state.tobytes()
            assert item["action"][0].numpy().tobytes() == episode["action"][step].tobytes()
            image = (item["observation.images.front"] * 255).round().byte().numpy()
            np.testing.assert_array_equal(image.transpose(1, 2, 0), episode["front"][step])
            assert item["action_is_pad"].tolist() == [False, step == length - 1]
            row += 1
    tasks = [dataset[row]["task"] for row in (0, 4, 5, 6, 7)]
    assert tasks == ["pick", "pick", "pick", "place", ""]
    source.close()


def test_nothing_of_the_work_is_left(written: Path) -> None:
    assert [path.name for path in written.parent.iterdir()] == [written.name]
    folders = {"meta", "data"} | ({"videos"} if written.name == "video" else set())
    assert {path.name for path in written.iterdir()} == folders


def test_a_foreign_eye_still_finds_roles(written: Path, tmp_path: Path) -> None:
    """Without our file beside LeRobot's, the conventions of its names are enough for a policy."""
    for file in written.rglob("*"):
        target = tmp_path / file.relative_to(written)
        if file.is_file() and file.name != SIDECAR.name:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, target)
    source = LeRobotSource(tmp_path)
    assert {f.name: (f.role, f.shape) for f in source.schema.features} == {
        "front": ("camera", (48, 64, 3)),
        "wrist": ("camera", (32, 40, 3)),
        "state": ("state", (4,)),
        "action": ("action", (2,)),
        "pose": ("other", (4,)),
        "keypoints": ("other", (8,)),
        "capture_time": ("other", (1,)),
        "other.action_is_valid": ("other", (1,)),
    }
    assert source.attributes(1) == {"tasks": [[0, "pick"], [1, "place"]]}
    (tmp_path / SIDECAR).write_text('{"schema": 3}')
    with pytest.raises(StoreError, match=r"forcing\.json is damaged"):
        LeRobotSource(tmp_path)
    sidecar = json.loads((written / SIDECAR).read_text())
    sidecar["columns"]["gone"] = ["joints"]
    (tmp_path / SIDECAR).write_text(json.dumps(sidecar))
    assert "edited since" in LeRobotSource(tmp_path).notes[0]


def test_our_store_goes_through_lerobot_and_back_bit_for_bit(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a.zarr")
    source = REPLAY_BUFFER.open(tmp_path / "a.zarr")
    copy_episodes(source, LeRobotSink(storage="image"), tmp_path / "b")
    source.close()
    assert REPLAY_BUFFER.sink is not None
    copy_episodes(LeRobotSource(tmp_path / "b"), REPLAY_BUFFER.sink(), tmp_path / "c.zarr")
    back = ReplayBuffer.open(tmp_path / "c.zarr")
    assert back.schema == store.schema
    assert back.episode_ends.tolist() == store.episode_ends.tolist()
    assert back.episode_attributes == store.episode_attributes
    assert back.provenance == store.provenance
    for name in store.schema.names:
        assert back[name][:].tobytes() == store[name][:].tobytes()


class Failing(Episodes):
    """The third episode cannot be read."""

    def episode(self, index: int) -> dict[str, np.ndarray]:
        if index == 2:
            raise StoreError("the disk is gone")
        return super().episode(index)


def test_what_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    import gc

    with pytest.raises(StoreError, match="the disk is gone"):
        copy_episodes(Failing(), LeRobotSink(), tmp_path / "dataset")
    gc.collect()  # LeRobot's writer writes once more when it dies
    assert list(tmp_path.iterdir()) == []


def test_frames_that_the_encoder_loses_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lerobot.datasets.video_utils import StreamingVideoEncoder

    feed, fed = StreamingVideoEncoder.feed_frame, []

    def lose_the_third(self: StreamingVideoEncoder, key: str, image: np.ndarray) -> None:
        fed.append(key)
        if len(fed) != 3:
            feed(self, key, image)

    monkeypatch.setattr(StreamingVideoEncoder, "feed_frame", lose_the_third)
    with pytest.raises(ValueError, match="wrote 4 of 5 frames of observation.images.front"):
        copy_episodes(Episodes(), LeRobotSink(), tmp_path / "dataset")
    assert list(tmp_path.iterdir()) == []


def test_no_queue_grows_while_an_encoder_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lerobot.datasets.video_utils import StreamingVideoEncoder

    feed, waiting = StreamingVideoEncoder.feed_frame, []

    def count(self: StreamingVideoEncoder, key: str, image: np.ndarray) -> None:
        waiting.append(self._frame_queues[key].qsize())
        feed(self, key, image)

    monkeypatch.setattr(StreamingVideoEncoder, "feed_frame", count)
    monkeypatch.setattr(lerobot_writing, "MAX_BACKLOG", 0)
    copy_episodes(Episodes(), LeRobotSink(), tmp_path / "dataset")
    assert len(waiting) == 2 * sum(LENGTHS)
    assert max(waiting) == 0


def test_an_encoder_that_dies_ends_the_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lerobot.datasets import video_utils

    def die(self: Any) -> None:
        self.result_queue.put(("error", "no space left"))

    monkeypatch.setattr(video_utils._CameraEncoderThread, "run", die)
    monkeypatch.setattr(lerobot_writing, "MAX_BACKLOG", 0)
    with pytest.raises(ValueError, match="LeRobot's encoder failed: .*no space left"):
        copy_episodes(Episodes(), LeRobotSink(), tmp_path / "dataset")
    assert list(tmp_path.iterdir()) == []


class OneStep(Episodes):
    """Episodes of a single step."""

    def episode(self, index: int) -> dict[str, np.ndarray]:
        return {name: values[:1] for name, values in super().episode(index).items()}


def test_a_single_step_goes_as_image_but_not_as_video(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one step only"):
        copy_episodes(OneStep(), LeRobotSink(), tmp_path / "video")
    path = tmp_path / "image"
    copy_episodes(OneStep(), LeRobotSink(storage="image"), path)
    np.testing.assert_array_equal(
        LeRobotSource(path).episode(1)["wrist"], Episodes().episode(1)["wrist"][:1]
    )


def camera(height: int, width: int, channels: int) -> Schema:
    shape = (height, width, channels)
    feature = Feature(name="front", shape=shape, dtype="uint8", role="camera")
    return Schema(features=(feature,), rate_hz=10)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (camera(24, 24, 3), "24x24; video needs at least 32 on each side: use storage=image"),
        (camera(48, 48, 4), "can hold none of front"),
        (replace(SCHEMA, rate_hz=12.5), "whole frames a second; the rate is 12.5"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is(schema: Schema, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LeRobotSink().losses(schema)


def test_options() -> None:
    assert FORMAT.sink is not None
    assert FORMAT.sink(storage="image", crf=20).losses(camera(24, 24, 3))
    with pytest.raises(ValueError, match="storage 'png'; one of video, image"):
        FORMAT.sink(storage="png")
