"""forcing-describe: trouble planted in a store is found, and the command line end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException
from matplotlib.image import imread

from teleop_data.contact_sheet import contact_sheet, evenly_spaced, traces
from teleop_data.describe import DescribeConfig, describe, report, run
from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.schema import Feature, Schema
from teleop_data.statistics import FeatureStatistics
from tests.teleop_data.stores import (
    SCHEMA,
    episode,
    real_pusht,
    write_store,
    write_v2_store,
    zip_store,
)

REPOSITORY = Path(__file__).parents[2]


def describe_command(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "teleop_data.describe", *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        timeout=100,
        env={"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PATH": ""},
    )


def kinds(buffer: ReplayBuffer) -> dict[str, dict]:
    """Trouble by kind; each kind at most once."""
    found = describe(buffer)["trouble"]
    assert len({trouble["kind"] for trouble in found}) == len(found)
    return {trouble["kind"]: trouble for trouble in found}


def test_the_yaml_makes_its_config(tmp_path: Path) -> None:
    """Composed, it is the dataclass of its entry point and that entry point runs on it."""
    ConfigStore.instance().store(name="describe_schema", node=DescribeConfig)
    write_store(tmp_path / "a.zarr")
    given = [f"path={tmp_path / 'a.zarr'}", f"output_dir={tmp_path / 'out'}"]
    with initialize_config_module(config_module="teleop_data.configs", version_base="1.3"):
        config = compose("describe", overrides=given)
        assert config == {
            **vars(DescribeConfig()),
            "path": str(tmp_path / "a.zarr"),
            "output_dir": str(tmp_path / "out"),
        }
        run(config)
        for wrong in ("colour=red", "num_episodes=many"):
            with pytest.raises(ConfigCompositionException):
                compose("describe", overrides=[*given, wrong])
    assert (tmp_path / "out/describe.json").is_file()


def test_facts_of_a_healthy_store(tmp_path: Path) -> None:
    buffer = write_store(tmp_path / "a.zarr", lengths=(8, 12, 10, 7))
    facts = json.loads(json.dumps(describe(buffer, camera_stride=1), allow_nan=False))
    assert Schema.from_json(facts["schema"]) == SCHEMA
    assert facts["provenance"] == {"operator": "nobody"}
    assert facts["episodes"] == {
        "count": 4,
        "steps": 37,
        "duration_s": 1.85,
        "length": {"min": 7, "q25": 7.75, "median": 9, "q75": 10.5, "max": 12},
    }
    assert facts["idle"]["action"]["share"] == 0.0
    assert facts["trouble"] == []
    assert list(facts["statistics"]) == list(SCHEMA.names)
    state = FeatureStatistics.from_json(facts["statistics"]["state"])
    np.testing.assert_allclose(state.mean, buffer["state"][:].astype(np.float64).mean(0))
    front = FeatureStatistics.from_json(facts["statistics"]["front"])
    np.testing.assert_allclose(front.mean, buffer["front"][:].mean((0, 1, 2)))
    text = report(facts)
    assert "4 episodes, 37 steps at 20 Hz" in text
    assert "no trouble found" in text


def test_not_finite(tmp_path: Path) -> None:
    buffer = write_store(tmp_path / "a.zarr", lengths=(8, 12))
    stored = zarr.open_array(tmp_path / "a.zarr/data/state", mode="r+")
    stored[11, 0], stored[12, 2] = np.nan, np.inf
    facts = describe(buffer)
    (trouble,) = facts["trouble"]
    assert (trouble["kind"], trouble["feature"], trouble["count"]) == ("not_finite", "state", 2)
    assert trouble["places"] == ((1, 3), (1, 4))
    assert "first in episode 1, step 3" in trouble["text"]
    finite = np.delete(buffer["state"][:], [11, 12], axis=0)
    assert facts["statistics"]["state"]["count"] == 18
    assert facts["statistics"]["state"]["maximum"] == finite.max(0).tolist()
    stored[:] = np.nan
    assert describe(buffer)["statistics"]["state"] is None
    assert "never finite" in report(describe(buffer))


def test_constant_and_short_and_jump_and_idle(tmp_path: Path) -> None:
    buffer = ReplayBuffer.create(tmp_path / "a.zarr", SCHEMA)
    for seed, length in enumerate((40, 41, 9, 42)):
        data = episode(length, seed=seed)
        data["state"][:, 1] = 0.25
        data["action"][:, 0] = np.arange(length)  # steady, one a step
        data["action"][:, 1] = np.arange(length) % 2  # a gripper that switches
        if seed == 1:
            data["action"][10:16] = data["action"][10]  # still at steps 11 to 15
            data["action"][30:, 0] += 7.0  # step 30 changes by 8
        buffer.append_episode(data)
    found = kinds(buffer)
    assert set(found) == {"constant", "short_episode", "action_jump"}
    assert "1 of 3 entries never change: [1] = 0.25" in found["constant"]["text"]
    assert found["short_episode"]["places"] == ((2, 0),)
    # 9 and 10 steps are as short as a quarter of the median allows
    assert "shorter than 10.125 steps" in found["short_episode"]["text"]
    # the other jump is step 16, which makes up for six still steps
    assert found["action_jump"]["places"] == ((1, 16), (1, 30))
    idle = describe(buffer)["idle"]["action"]
    assert idle == {"share": 5 / 132, "longest_run": 5, "episode": 1, "step": 11}


def test_angles_wrap_without_a_jump(tmp_path: Path) -> None:
    schema = SCHEMA.select(["state", "action"])
    angle = np.mod(np.arange(80) * 0.1, 2 * np.pi).astype(np.float32)[:, None]
    data = {"state": np.repeat(angle, 3, axis=1), "action": np.repeat(angle, 2, axis=1)}
    for name, wraps in (("bare", ()), ("known", (0, 1))):
        buffer = ReplayBuffer.create(tmp_path / name, schema.with_angles({"action": wraps}))
        buffer.append_episode(data)
        assert ("action_jump" in kinds(buffer)) == (name == "bare")


def test_frozen_and_blank_frames(tmp_path: Path) -> None:
    buffer = ReplayBuffer.create(tmp_path / "a.zarr", SCHEMA)
    data = [episode(30, seed=seed) for seed in range(3)]
    data[0]["front"][4:9] = data[0]["front"][4]  # 4 repeats: at 20 Hz, 0.3 s are 6
    data[1]["front"][10:20] = data[1]["front"][10]  # 9 repeats, steps 11 to 19
    data[2]["front"][10:20] = data[2]["front"][10]  # as many, but nothing moves
    data[2]["state"][10:20] = data[2]["state"][10]
    data[2]["front"][25] = 0
    for one in data:
        buffer.append_episode(one)
    found = kinds(buffer)
    assert set(found) == {"frozen_camera", "blank_frame"}
    assert found["frozen_camera"]["places"] == ((1, 11),)
    assert "frozen for up to 9 steps" in found["frozen_camera"]["text"]
    assert found["blank_frame"]["places"] == ((2, 25),)


def test_lost_file_of_another_store(tmp_path: Path) -> None:
    """Their writers may leave out zeros, so the store opens; but one is told."""
    write_v2_store(tmp_path / "b.zarr", lengths=(9, 9))
    (tmp_path / "b.zarr/data/state/1.0").unlink()
    assert kinds(ReplayBuffer.open(tmp_path / "b.zarr"))["missing_file"]["count"] == 1
    packed = zip_store(tmp_path / "b.zarr", tmp_path / "b.zip")
    trouble = kinds(ReplayBuffer.open(packed))["missing_file"]
    assert "data/state/1.0" in trouble["text"]


def test_contact_sheet_shows_the_frames_it_names(tmp_path: Path) -> None:
    buffer = write_store(tmp_path / "a.zarr", lengths=(5, 1, 12))
    figure = contact_sheet(buffer, num_episodes=2, num_frames=3)
    (panel,) = figure.axes
    assert [text.get_text() for text in panel.texts] == ["0", "2", "4", "0", "6", "11"]
    labels = [label.get_text() for label in panel.get_yticklabels()]
    assert labels == ["episode 0\n0.2 s", "episode 2\n0.6 s"]
    canvas = panel.images[0].get_array()
    assert canvas is not None
    height, width = canvas.shape[0] // 2, canvas.shape[1] // 3
    for row, column, index, step in ((0, 1, 0, 2), (1, 2, 2, 11)):
        shown = canvas[row * height :, column * width :][:6, :8]
        np.testing.assert_array_equal(shown, buffer.episode(index)["front"][step])


def test_evenly_spaced() -> None:
    assert evenly_spaced(10, 4).tolist() == [0, 3, 6, 9]
    assert evenly_spaced(3, 6).tolist() == [0, 1, 2]
    assert evenly_spaced(1, 6).tolist() == [0]


def test_traces_draw_every_entry(tmp_path: Path) -> None:
    buffer = write_store(tmp_path / "a.zarr", lengths=(5, 6))
    panels = traces(buffer, num_episodes=2).axes
    assert [len(panel.lines) for panel in panels] == [3, 3, 2, 2]
    np.testing.assert_allclose(panels[0].lines[1].get_ydata(), buffer.episode(0)["state"][:, 1])
    np.testing.assert_allclose(panels[0].lines[1].get_xdata(), np.arange(5) / 20.0)


def test_command_line_on_a_store_without_cameras(tmp_path: Path) -> None:
    schema = Schema(
        features=(
            Feature(name="state", shape=(2,)),
            Feature(name="act", shape=(1,), role="action"),
        ),
        rate_hz=10.0,
    )
    buffer = ReplayBuffer.create(tmp_path / "a.zarr", schema)
    wave = np.sin(np.arange(30, dtype=np.float32))[:, None]
    buffer.append_episode({"state": np.repeat(wave, 2, axis=1), "act": wave})
    done = describe_command("path=a.zarr", "output_dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 episodes, 30 steps at 10 Hz" in done.stdout
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"describe.json", "traces.png"}
    facts = json.loads((tmp_path / "out/describe.json").read_text())
    assert facts["episodes"]["steps"] == 30
    assert imread(tmp_path / "out/traces.png").shape[1] > 1000
    assert {file.name for file in tmp_path.iterdir()} == {"a.zarr", "out"}  # nothing of Hydra's


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["output_dir=out"], "forcing-describe: path is not given; say path=..."),
        (["path=none.zarr", "output_dir=out"], "no replay buffer at none.zarr"),
        (["path=empty.zarr", "output_dir=out"], "holds no finished episode"),
        (["path=empty.zarr", "output_dir=out", "sheet=3"], "Key 'sheet' not in 'DescribeConfig'"),
    ],
)
def test_command_line_refuses(tmp_path: Path, arguments: list[str], message: str) -> None:
    ReplayBuffer.create(tmp_path / "empty.zarr", SCHEMA)
    done = describe_command(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_human_push_t(tmp_path: Path) -> None:
    """The low-dimensional part: the camera's 25,650 frames take a quarter of a minute."""
    pusht = real_pusht()
    for part in (".zgroup", "meta", "data/.zgroup", "data/state", "data/action"):
        (tmp_path / "p.zarr" / part).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p.zarr" / part).symlink_to(pusht / part)
    facts = describe(ReplayBuffer.open(tmp_path / "p.zarr"))
    assert facts["episodes"]["count"] == 206
    assert facts["episodes"]["length"] == {
        "min": 49,
        "q25": 99,
        "median": 122,
        "q75": 148,
        "max": 246,
    }
    assert facts["statistics"]["action"]["maximum"] == [511.0, 511.0]
    assert 0.02 < facts["idle"]["action"]["share"] < 0.05
    assert {trouble["kind"] for trouble in facts["trouble"]} == {"action_jump"}
