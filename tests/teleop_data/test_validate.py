"""forcing-validate: every finding fires on a store spoiled in that way, and none on a good one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException

from teleop_data.action_lag import action_lags
from teleop_data.capture_times import episode_rates
from teleop_data.check_plots import lag_plot, timing_plot
from teleop_data.episode_trouble import idle_edges
from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.schema import Feature, Schema
from teleop_data.validate import VERDICTS, ValidateConfig, is_good, run, table, validate
from tests.teleop_data.stores import real_pusht, write_v2_store

REPOSITORY = Path(__file__).parents[2]
RATE_HZ, NUM_EPISODES, NUM_STEPS = 10.0, 6, 80
SCHEMA = Schema(
    features=(
        Feature(name="front", shape=(6, 8, 3), dtype="uint8", role="camera"),
        Feature(name="state", shape=(2,), unit="m"),
        Feature(name="action", shape=(2,), role="action", unit="m"),
        Feature(name="late_s", shape=(), dtype="float64", role="other", unit="s"),
        Feature(name="missed_steps", shape=(), dtype="int64", role="other"),
        Feature(name="captured_s_front", shape=(), dtype="float64", role="other", unit="s"),
    ),
    rate_hz=RATE_HZ,
)
Episode = dict[str, np.ndarray]
Spoil = Callable[[list[Episode]], object]


def good_episode(seed: int) -> Episode:
    """An arm that follows its target one step later and comes to rest, seen by a camera."""
    rng = np.random.default_rng(seed)
    moving = np.sin(np.pi * np.arange(NUM_STEPS) / (NUM_STEPS - 1)) ** 2
    wander = np.cumsum(rng.normal(size=(NUM_STEPS, 2)) * moving[:, None], axis=0)
    action = (wander + 0.003 * rng.normal(size=wander.shape)).astype(np.float32)
    return {
        "front": rng.integers(0, 256, (NUM_STEPS, 6, 8, 3)).astype(np.uint8),
        "state": np.concatenate([action[:1], action[:-1]]),
        "action": action,
        "late_s": np.abs(rng.normal(scale=1e-3, size=NUM_STEPS)),
        "missed_steps": np.zeros(NUM_STEPS, np.int64),
        "captured_s_front": np.arange(NUM_STEPS) / RATE_HZ + rng.normal(scale=2e-3, size=NUM_STEPS),
    }


def write(
    path: Path, spoil: Spoil = lambda episodes: None, *, schema: Schema = SCHEMA
) -> ReplayBuffer:
    """A store of good episodes that `spoil` has changed."""
    episodes = [good_episode(seed) for seed in range(NUM_EPISODES)]
    spoil(episodes)
    buffer = ReplayBuffer.create(path, schema)
    for episode in episodes:
        buffer.append_episode(
            {name: episode[name] for name in schema.names}, attributes={"success": True}
        )
    return buffer


def kinds(buffer: ReplayBuffer) -> dict[str, dict]:
    return {finding["kind"]: finding for finding in validate(buffer)["findings"]}


def test_silent_on_a_good_store(tmp_path: Path) -> None:
    verdict = validate(write(tmp_path / "a.zarr"))
    assert verdict["findings"] == []
    assert verdict["not_checked"] == []
    assert is_good(verdict, strict=True)
    assert [lag["lag"] for lag in verdict["lags"].values()] == [1, 1]
    json.dumps(verdict, allow_nan=False)


def hold(episode: Episode, first: int, last: int) -> None:
    for name in ("state", "action"):
        episode[name][first:last] = episode[name][first]


def repeat_frames(episode: Episode) -> None:
    episode["front"][1::2] = episode["front"][::2]


def stop_early(episode: Episode) -> None:
    for name, values in episode.items():
        episode[name] = values[: NUM_STEPS // 2]


SPOILED: dict[str, tuple[Spoil, tuple[int, int] | None]] = {
    "short_episode": (
        lambda e: e.__setitem__(2, {k: v[:15] for k, v in e[2].items()}),
        (2, 0),
    ),
    "ends_in_motion": (lambda e: stop_early(e[3]), (3, NUM_STEPS // 2 - 1)),
    "copied_episode": (lambda e: e[4].update(e[1]), (4, 0)),
    "idle_start": (lambda e: hold(e[1], 0, 20), (1, 0)),
    "idle_end": (lambda e: hold(e[1], 60, 80), (1, 61)),
    "idle_stretch": (lambda e: hold(e[2], 30, 55), (2, 31)),
    "constant": (lambda e: [x["action"].__setitem__((slice(None), 1), 0.5) for x in e], None),
    "outlier": (lambda e: e[5]["state"].__setitem__((40, 0), 900.0), (5, 40)),
    "action_jump": (lambda e: e[2]["action"].__setitem__((33, 1), 60.0), (2, 33)),
    "frozen_camera": (lambda e: e[0]["front"].__setitem__(slice(20, 40), 7), (0, 21)),
    "blank_frame": (lambda e: e[0]["front"].__setitem__(31, 0), (0, 31)),
    "repeated_frames": (lambda e: [repeat_frames(x) for x in e[:3]], (0, 3)),
    "capture_gap": (
        lambda e: e[1]["captured_s_front"].__setitem__(slice(50, None), np.arange(30) / 10 + 5.3),
        (1, 50),
    ),
    "time_backwards": (lambda e: e[1]["captured_s_front"].__setitem__(50, 2.0), (1, 50)),
    "stale_source": (
        lambda e: [
            x["captured_s_front"].__setitem__(slice(1, None, 2), x["captured_s_front"][::2])
            for x in e
        ],
        (0, 1),
    ),
    "wrong_rate": (lambda e: e[2].update(captured_s_front=np.arange(80) / 8.0), (2, 0)),
    "late_steps": (lambda e: e[0]["late_s"].__setitem__(slice(10, 30), 0.08), (0, 10)),
    "missed_steps": (lambda e: e[0]["missed_steps"].__setitem__(10, 3), (0, 10)),
    "action_after_effect": (lambda e: [x.update(state=x["action"].copy()) for x in e], None),
    "slow_answer": (
        lambda e: [x.update(state=np.roll(x["action"], 8, axis=0)) for x in e],
        None,
    ),
    "shifted_episode": (
        lambda e: e[4].update(state=np.roll(e[4]["action"], 5, axis=0)),
        (4, 0),
    ),
    "no_answer": (
        lambda e: [x.update(state=good_episode(90 + i)["state"]) for i, x in enumerate(e)],
        None,
    ),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_a_spoiled_store_is_found(kind: str, tmp_path: Path) -> None:
    spoil, place = SPOILED[kind]
    found = kinds(write(tmp_path / "a.zarr", spoil))
    assert kind in found
    if place is not None:
        assert found[kind]["places"][0] == place
    severity, advice = VERDICTS[kind]
    assert (found[kind]["severity"], found[kind]["advice"]) == (severity, advice)


def spoil_not_finite(buffer: ReplayBuffer) -> None:
    zarr.open_array(buffer.path / "data/state", mode="r+")[99] = np.nan


def spoil_unreadable(buffer: ReplayBuffer) -> None:
    (shard,) = (buffer.path / "data/front/c").rglob("0/0/0/0")
    bytes_ = bytearray(shard.read_bytes())
    bytes_[: len(bytes_) // 2] = bytes(len(bytes_) // 2)
    shard.write_bytes(bytes_)


def spoil_failed(buffer: ReplayBuffer) -> None:
    buffer.append_episode(good_episode(50), attributes={"success": False})


@pytest.mark.parametrize(
    ("kind", "spoil", "place"),
    [
        ("not_finite", spoil_not_finite, (1, 19)),
        ("unreadable", spoil_unreadable, None),
        ("not_successful", spoil_failed, (NUM_EPISODES, 0)),
    ],
)
def test_a_store_spoiled_on_disk_is_found(
    kind: str, spoil: Callable, place: tuple[int, int] | None, tmp_path: Path
) -> None:
    buffer = write(tmp_path / "a.zarr")
    spoil(buffer)
    found = kinds(buffer)[kind]
    assert found["places"][:1] == ((place,) if place else ())


def test_schemas_that_cannot_be_trained_on(tmp_path: Path) -> None:
    for number, (names, kind) in enumerate(
        [(("state", "late_s"), "no_action"), (("action", "late_s"), "no_observation")]
    ):
        buffer = write(tmp_path / f"{number}.zarr", schema=SCHEMA.select(names))
        assert kinds(buffer)[kind]["severity"] == "error"
    two = Schema(
        features=(*SCHEMA.features[:3], Feature(name="more", shape=(2,), role="action")),
        rate_hz=RATE_HZ,
    )
    buffer = write(
        tmp_path / "2.zarr",
        lambda episodes: [e.update(more=e["action"][:, ::-1].copy()) for e in episodes],
        schema=two,
    )
    assert "several_actions" in kinds(buffer)
    write_v2_store(tmp_path / "b.zarr", lengths=(9, 9))
    (tmp_path / "b.zarr/data/state/1.0").unlink()
    assert {"guessed_schema", "missing_file"} <= set(kinds(ReplayBuffer.open(tmp_path / "b.zarr")))


def test_every_verdict_has_a_test() -> None:
    elsewhere = {"not_finite", "unreadable", "not_successful", "no_action", "no_observation"}
    elsewhere |= {"several_actions", "guessed_schema", "missing_file"}
    assert set(VERDICTS) == set(SPOILED) | elsewhere


def test_lag_of_a_velocity(tmp_path: Path) -> None:
    """s[t+1] = s[t] + a[t] is lag 1; three steps of delay make it 4."""
    for delay in (0, 3):

        def drive(episodes: list[Episode], delay: int = delay) -> None:
            for seed, episode in enumerate(episodes):
                action = np.random.default_rng(seed).normal(size=(NUM_STEPS, 2))
                delayed = np.roll(action, delay, axis=0)
                state = np.cumsum(delayed, axis=0) - delayed
                episode.update(action=action.astype(np.float32), state=state.astype(np.float32))

        lags = action_lags(write(tmp_path / f"{delay}.zarr", drive))
        assert [(lag.meaning, lag.lag) for lag in lags] == [("velocity", 1 + delay)] * 2
        assert [lag.state for lag in lags] == ["state[0]", "state[1]"]


def test_idle_edges() -> None:
    assert idle_edges(np.array([False, True, True, False, True, False, True])) == (3, 1)
    assert idle_edges(np.array([False, False, True])) == (0, 1)
    assert idle_edges(np.array([False, True, True])) == (3, 0)
    assert idle_edges(np.array([False])) == (0, 0)


def test_episode_rates() -> None:
    times_s = np.array([0.0, 0.1, 0.2, 5.0, 7.0, 7.0])
    rates = episode_rates(times_s, episode_ends=np.array([3, 4, 6]))
    np.testing.assert_allclose(rates, [10.0, np.nan, np.nan])


def test_plots_draw_what_was_measured(tmp_path: Path) -> None:
    spoil, _ = SPOILED["capture_gap"]
    buffer = write(tmp_path / "a.zarr", spoil)
    curves, episodes = lag_plot(validate(buffer)).axes
    peak = curves.lines[1].get_xydata()
    assert peak[0, 0] == 1
    assert len(episodes.lines[0].get_xdata()) == NUM_EPISODES
    (panel,) = timing_plot(buffer).axes
    crosses = panel.lines[1].get_xydata()
    assert crosses[:, 0].tolist() == [NUM_STEPS + 50]
    assert 350 < crosses[0, 1] < 450
    with pytest.raises(ValueError, match="no features captured_s_"):
        timing_plot(write(tmp_path / "b.zarr", schema=SCHEMA.select(["state", "action"])))


def test_the_yaml_makes_its_config_and_runs(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", SPOILED["capture_gap"][0])
    ConfigStore.instance().store(name="validate_schema", node=ValidateConfig)
    given = [f"path={tmp_path / 'a.zarr'}", f"output_dir={tmp_path / 'out'}"]
    with initialize_config_module(config_module="teleop_data.configs", version_base="1.3"):
        assert run(compose("validate", overrides=given))  # type: ignore[arg-type]
        assert not run(compose("validate", overrides=[*given, "strict=true"]))  # type: ignore[arg-type]
        with pytest.raises(ConfigCompositionException):
            compose("validate", overrides=[*given, "colour=red"])
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert written == {"validate.json", "lag.png", "timing.png"}
    verdict = json.loads((tmp_path / "out/validate.json").read_text())
    assert {f["kind"] for f in verdict["findings"]} == {"capture_gap"}
    assert "cut the episode there" in table(verdict)


@pytest.mark.parametrize(("kind", "status"), [("capture_gap", 0), ("time_backwards", 1)])
def test_exit_status(kind: str, status: int, tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", SPOILED[kind][0])
    done = validate_command(f"path={tmp_path / 'a.zarr'}", cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert kind in done.stdout
    assert {file.name for file in tmp_path.iterdir()} == {"a.zarr"}  # nothing of Hydra's


def test_command_line_refuses(tmp_path: Path) -> None:
    for arguments, message in (
        ([], "forcing-validate: path is not given; say path=..."),
        (["path=none.zarr"], "no replay buffer at none.zarr"),
    ):
        done = validate_command(*arguments, cwd=tmp_path)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def validate_command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "teleop_data.validate", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        timeout=100,
        env={"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PATH": ""},
    )


def test_human_push_t(tmp_path: Path) -> None:
    """States and actions of people: nothing is wrong with them. (The camera takes 20 s.)"""
    pusht = real_pusht()
    for part in (".zgroup", "meta", "data/.zgroup", "data/state", "data/action"):
        (tmp_path / "p.zarr" / part).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p.zarr" / part).symlink_to(pusht / part)
    verdict = validate(ReplayBuffer.open(tmp_path / "p.zarr"))
    assert {f["kind"]: f["count"] for f in verdict["findings"]} == {
        "guessed_schema": 1,
        "action_jump": 10,
    }
    told = {name: (lag["state"], lag["lag"]) for name, lag in verdict["lags"].items()}
    assert told == {"action[0]": ("state[0]", 2), "action[1]": ("state[1]", 2)}
