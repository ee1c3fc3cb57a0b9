"""forcing-rerun: the files, read back with Rerun's own reader."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore

from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.rerun_export import RerunConfig, export_episode, run
from teleop_data.schema import Feature, Schema
from tests.teleop_data.stores import LENGTHS, SCHEMA, episode, write_store

pytest.importorskip("rerun")
REPOSITORY = Path(__file__).parents[2]


def read_back(path: Path) -> tuple[dict[str, dict[str, list[Any]]], list[Any]]:
    """Columns by entity, and the recordings of the file."""
    from rerun.chunk import RrdReader

    reader = RrdReader(path)
    entities: dict[str, dict[str, list[Any]]] = {}
    for chunk in reader.stream():
        columns = entities.setdefault(chunk.entity_path.strip("/"), {})
        batch = chunk.to_record_batch()
        for name in batch.schema.names:
            columns.setdefault(name, []).extend(batch.column(name).to_pylist())
    return entities, reader.recordings()


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    buffer = write_store(tmp_path / "a.zarr")
    export_episode(buffer, 2, tmp_path / "e.rrd", jpeg_quality=100)
    entities, recordings = read_back(tmp_path / "e.rrd")
    assert len(recordings) == 1
    data, steps = episode(LENGTHS[2], seed=2), list(range(LENGTHS[2]))
    for path, name in (("state", "state"), ("action", "action"), ("labels", "contacts")):
        columns = entities[f"{path}/{name}"]
        assert columns["step"] == steps
        seconds = np.array([at.total_seconds() for at in columns["time"]])
        np.testing.assert_allclose(seconds, np.arange(LENGTHS[2]) / SCHEMA.rate_hz)
        values = np.array(columns["Scalars:scalars"])
        np.testing.assert_array_equal(values, data[name].reshape(LENGTHS[2], -1))
    assert entities["state/state"]["SeriesLines:names"] == [
        ["state[0] [rad]", "state[1] [rad]", "state[2] [rad]"]
    ]
    pictures = entities["cameras/front"]["EncodedImage:blob"]
    assert entities["cameras/front"]["step"] == steps
    for (blob,), frame in zip(pictures, data["front"], strict=True):
        seen = simplejpeg.decode_jpeg(bytes(blob), colorspace="RGB")
        assert np.abs(seen.astype(int) - frame).mean() < 40  # random pixels, chroma halved
        assert seen.shape == frame.shape
    (text,) = entities["episode"]["TextDocument:text"]
    assert '"seed": 2' in text[0]


def test_a_grey_camera_and_one_that_cannot_be_shown(tmp_path: Path) -> None:
    for channels in (1, 2):
        schema = Schema(
            features=(Feature(name="depth", shape=(8, 8, channels), dtype="uint8", role="camera"),),
            rate_hz=10.0,
        )
        buffer = ReplayBuffer.create(tmp_path / f"{channels}.zarr", schema)
        buffer.append_episode({"depth": np.full((3, 8, 8, channels), 90, np.uint8)})
        if channels == 1:
            export_episode(buffer, 0, tmp_path / "e.rrd")
            (blob,) = read_back(tmp_path / "e.rrd")[0]["cameras/depth"]["EncodedImage:blob"][0]
            seen = simplejpeg.decode_jpeg(bytes(blob), colorspace="GRAY")
            assert np.abs(seen.astype(int) - 90).max() <= 1
        else:
            with pytest.raises(ValueError, match="camera 'depth' has 2 channels"):
                export_episode(buffer, 0, tmp_path / "e.rrd")
    with pytest.raises(ValueError, match=r"jpeg_quality must lie in 1..100, got 0"):
        export_episode(buffer, 0, tmp_path / "e.rrd", jpeg_quality=0)


def test_the_yaml_makes_its_config_and_runs(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr")
    ConfigStore.instance().store(name="rerun_schema", node=RerunConfig)
    given = [f"path={tmp_path / 'a.zarr'}", f"output_dir={tmp_path / 'out'}"]
    with initialize_config_module(config_module="teleop_data.configs", version_base="1.3"):
        run(compose("rerun", overrides=[*given, "episodes=[0,3]"]))  # type: ignore[arg-type]
        assert {f.name for f in (tmp_path / "out").iterdir()} == {
            "episode_0000.rrd",
            "episode_0003.rrd",
        }
        run(compose("rerun", overrides=given))  # type: ignore[arg-type]
    assert len(list((tmp_path / "out").iterdir())) == len(LENGTHS)


def test_command_line_refuses(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr")
    for arguments, message in (
        (["path=a.zarr"], "output_dir is not given"),
        (["path=a.zarr", "output_dir=out", "episodes=[9]"], "episode 9 outside 0..3"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "teleop_data.rerun_export", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
            timeout=100,
            env={"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PATH": ""},
        )
        assert done.returncode == 1
        assert f"forcing-rerun: {message}" in done.stderr
        assert "Traceback" not in done.stderr
