"""forcing-convert: what it recognises, what it says, what it refuses, what it leaves behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from teleop_data.convert import (
    FORMATS,
    ConvertConfig,
    format_of_target,
    parse_episodes,
    recognize,
    run,
)
from teleop_data.converters.replay_buffer_zarr import ReplayBufferSource
from teleop_data.converters.stop_request import StopRequest
from tests.teleop_data.converters.streams import real_data
from tests.teleop_data.stores import LENGTHS, SCHEMA, episode, write_store, write_v2_store

REPOSITORY = Path(__file__).parents[3]
ENVIRONMENT = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PATH": ""}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "teleop_data.convert", *arguments]


def convert_command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        timeout=100,
        env=ENVIRONMENT,
    )


def config(**changes: Any) -> ConvertConfig:
    return ConvertConfig(**{"source": "a.zarr", "target": "b.hdf5", **changes})


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_store(tmp_path / "a.zarr")
    return tmp_path / "a.zarr"


def test_the_yaml_makes_its_config() -> None:
    ConfigStore.instance().store(name="convert_schema", node=ConvertConfig)
    given = [
        *("source=a.zarr", "target=b.hdf5", "episodes=[0-2,3]", "dry_run=true"),
        *("names={observation.images.top: img}", "source_options={cameras: [agentview]}"),
    ]
    with initialize_config_module("teleop_data.configs", version_base="1.3"):
        composed: Any = OmegaConf.to_container(compose("convert", overrides=given))
    made = ConvertConfig(**composed)
    assert parse_episodes(made.episodes) == [0, 1, 2, 3]
    assert made.names == {"observation.images.top": "img"}
    assert made.source_options == {"cameras": ["agentview"]}
    assert (made.rate_hz, made.dry_run) == (None, True)


def test_there_and_back_by_the_command_line(tmp_path: Path) -> None:
    there = convert_command(
        *("source=a.zarr", "target=b.hdf5", "episodes=[2,0-1]", "names={front: img}"),
        "target_options={compression: gzip}",
        cwd=tmp_path,
    )
    assert there.returncode == 0, there.stderr
    assert "source a.zarr: replay buffer" in there.stdout
    assert "a zarr directory with data and meta/episode_ends" in there.stdout
    assert "target b.hdf5: robomimic's HDF5 (its name ends in .hdf5)" in there.stdout
    assert "rewards and dones where there are none" in there.stdout
    assert "written to b.hdf5: 3 episodes, 18 steps" in there.stdout
    assert "3/3" in there.stderr  # the progress bar
    back = convert_command("source=b.hdf5", "target=c.zarr", "names={img: front}", cwd=tmp_path)
    assert back.returncode == 0, back.stderr
    written = ReplayBufferSource(tmp_path / "c.zarr")
    assert written.schema == SCHEMA
    assert [written.attributes(i) for i in range(3)] == [{"seed": seed} for seed in (2, 0, 1)]
    for index, seed in enumerate((2, 0, 1)):
        for name, values in episode(LENGTHS[seed], seed=seed).items():
            np.testing.assert_array_equal(written.episode(index)[name], values)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "b.hdf5", "c.zarr"]


def test_a_dry_run_says_what_is_guessed_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_v2_store(tmp_path / "dp.zarr")
    run(config(source="dp.zarr", target="b.zarr", dry_run=True, rate_hz=25.0, episodes=0))
    said = capsys.readouterr().out
    assert "1 episodes at 25 Hz" in said
    assert "img                      camera  6x8x3        uint8" in said
    assert "10 Hz is assumed" in said
    assert "The rate is 25 Hz as asked" in said
    assert "the target carries everything" in said
    assert "nothing was written" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "dp.zarr"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"target": "a.zarr"}, FileExistsError, "target a.zarr exists; give another"),
        ({"source": "no.zarr"}, FileNotFoundError, "nothing at no.zarr"),
        ({"source": "."}, ValueError, r"(?s)is none of:.*robosuite: .*source=a.zarr"),
        ({"target": "b"}, ValueError, r"\.hdf5 \(robomimic\).*target_format=, one of.*lerobot"),
        ({"target_format": "hdf5"}, ValueError, "no format 'hdf5'; have: replay_buffer, diff"),
        ({"target_format": "d4rl"}, ValueError, "only read, not written"),
        ({"source_format": "robosuite"}, ValueError, "cannot be read|Is a directory"),
        ({"episodes": [0, "x"]}, ValueError, "'x' is no number or range"),
        ({"episodes": ["2-1"]}, ValueError, "ends before it begins"),
        ({"episodes": "0-4"}, IndexError, "the source has 4"),
        ({"names": {"frnt": "x"}}, KeyError, "no feature 'frnt'; have: front"),
        ({"names": "front"}, ValueError, r"say names=\{old: new\}"),
        ({"target_options": {"gzip": 1}}, ValueError, "has no gzip; .* takes: compression"),
        ({"source_options": {"size": 1}}, ValueError, "has no size; this format takes: none"),
        ({"source_options": "size"}, ValueError, r"say source_options=\{name: value\}"),
    ],
)
def test_refusals_say_what_would_work(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(config(**changes))
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["source=a.zarr"], "forcing-convert: target is not given; say target=..."),
        (["source=a.zarr", "target=b.zarr", "names={x: y}"], "forcing-convert: no feature 'x'; h"),
        (["source=a.zarr", "target=b.zarr", "rate=3"], "Key 'rate' not in 'ConvertConfig'"),
        (["source=a.zarr", "target=a.zarr"], "forcing-convert: target a.zarr exists"),
    ],
)
def test_command_line_refuses(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = convert_command(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_stopped_midway_the_target_is_complete_or_absent(
    tmp_path: Path, how: signal.Signals
) -> None:
    write_store(tmp_path / "long.zarr", lengths=(1,) * 80)
    arguments = command("source=long.zarr", "target=b.zarr")
    with subprocess.Popen(
        arguments,
        cwd=tmp_path,
        env=ENVIRONMENT,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        # a shell's background jobs ignore Ctrl-C, and so would what they start
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as run:
        deadline_s = time.monotonic() + 60
        while not list(tmp_path.glob(".b.zarr.*.partial/b.zarr/data")):
            assert run.poll() is None, "it ended before it was stopped"
            assert time.monotonic() < deadline_s
            time.sleep(0.005)
        run.send_signal(how)
        code = run.wait(timeout=60)
    is_there = (tmp_path / "b.zarr").exists()
    assert is_there == (code == 0)  # 0: the last episode was over before the signal was heeded
    if is_there:
        assert ReplayBufferSource(tmp_path / "b.zarr").num_episodes == 80
    left = [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert len(left) == (how == signal.SIGKILL)


def test_a_stop_is_heeded_after_the_episode(tmp_path: Path) -> None:
    stop = StopRequest()
    stop.check()
    stop._ask()
    with pytest.raises(KeyboardInterrupt):
        run(config(target="b.zarr"), stop=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
    with pytest.raises(KeyboardInterrupt):
        stop._ask()


def test_endings_of_targets() -> None:
    names = {name: format_of_target(Path(name))[0].name for name in ("a.zarr", "a.zarr.zip")}
    assert names == {"a.zarr": "replay_buffer", "a.zarr.zip": "diffusion_policy"}
    assert format_of_target(Path("a.h5"))[0].name == "robomimic"
    assert len({known.name for known in FORMATS}) == len(FORMATS)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("pusht/pusht_cchi_v7_replay.zarr", "replay_buffer"),
        ("pusht/pusht_cchi_v7_replay_lowdim.npz", "d4rl"),
        ("adroit_pen/pen_human_v0.npz", "d4rl"),
        ("robosuite_sample_demos/lift_demo.hdf5", "robosuite"),
        ("cr5_banana", "lerobot"),
        ("lerobot_legacy_fixtures/umi_cup_in_the_wild", "lerobot_v1"),
        ("lerobot_legacy_fixtures/aloha_sim_insertion_human", "lerobot_v1"),
    ],
)
def test_real_data_is_recognised(path: str, name: str) -> None:
    assert recognize(real_data(path))[0].name == name
