"""forcing-record as a process that is killed, that runs out of disk, whose camera goes."""

from __future__ import annotations

import json
import random
import re
import resource
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teleop_data.recording_store import RecordingStore
from teleop_data.replay_buffer import ReplayBuffer
from tests.teleop_data.recording_world import MovingPictures

ROOT = Path(__file__).parents[2]
WORLD = MovingPictures()


def start(
    output: Path, *arguments: str, max_bytes: int | None = None, **world: object
) -> subprocess.Popen[str]:
    """The command over a `MovingPictures` of such arguments, as a task in a folder of the user's;
    with a limit on the size of files if one is given."""
    target = {"_target_": "tests.teleop_data.recording_world.MovingPictures"}
    expert = {"_target_": "tests.teleop_data.recording_world.Echo"}
    task = {"name": "moving", "environment": target | world, "expert": expert}
    configs = output.with_name("configs")
    (configs / "task").mkdir(parents=True, exist_ok=True)
    (configs / "task" / "moving.yaml").write_text(json.dumps(task))  # JSON is YAML

    def limit() -> None:
        if max_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, max_bytes))

    return subprocess.Popen(
        [
            *(sys.executable, "-m", "teleop_data.record", f"--config-dir={configs}"),
            *("task=moving", f"output={output}", *arguments),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )


def record(output: Path, *arguments: str, **options: Any) -> tuple[int, str, str]:
    """Exit status, output and errors of the command, run to its end."""
    process = start(output, *arguments, **options)
    text, errors = process.communicate(timeout=60)
    return process.returncode, text, errors


def assert_is_true(episode: dict[str, np.ndarray], seed: int) -> None:
    """Every step of a recorded episode holds what the world showed then, in order."""
    for step in range(len(episode["state"])):
        for name, value in WORLD.observation(step=step, seed=seed).items():
            np.testing.assert_array_equal(episode[name][step], value)
        np.testing.assert_array_equal(episode["action"][step], -episode["state"][step])


def kill_at_random(output: Path, *, rng: random.Random) -> tuple[list[int], dict[int, int]]:
    """Kill the command some time after its first step; seeds of the episodes that it said it kept,
    and how many steps of each seed were handed over, as the world has told."""
    process = start(output, prints=True)
    assert process.stdout is not None
    with process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("step"):
                break
        time.sleep(rng.uniform(0.0, 1.2))
        process.kill()
        lines += process.stdout.readlines()
    text = "".join(lines)
    kept = [int(seed) for seed in re.findall(r"^kept the episode of seed (\d+):", text, re.M)]
    steps = {int(s): int(n) + 1 for s, n in re.findall(r"^step (\d+) (\d+)$", text, re.M)}
    return kept, steps


def kill_and_check(output: Path, *, num_kills: int) -> list[int]:
    """Kill that often, each time going on; returns the missing steps at each kill."""
    rng = random.Random(20)
    all_kept: list[int] = []
    handed_over: dict[int, int] = {}
    missing = []
    for _ in range(num_kills):
        kept, steps = kill_at_random(output, rng=rng)
        all_kept += kept
        handed_over |= steps
        with closing(RecordingStore(output, provenance={})) as store:
            store.recover()  # what the command begins with
        buffer = ReplayBuffer.open(output)
        at = {a["seed"]: i for i, a in enumerate(buffer.episode_attributes)}
        assert len(at) == buffer.num_episodes  # none twice
        last = max(steps)
        found = len(buffer.episode(at[last])["state"]) if last in at else 0
        missing.append(steps[last] - found)
        is_marked = last not in at or buffer.episode_attributes[at[last]].get("interrupted", False)
        assert is_marked == (last not in kept)
    buffer = ReplayBuffer.open(output)
    attributes = buffer.episode_attributes
    assert {a["seed"] for a in attributes if not a.get("interrupted")} >= set(all_kept)
    for index, facts in enumerate(attributes):
        episode = buffer.episode(index)
        assert_is_true(episode, facts["seed"])
        if facts["seed"] in all_kept:
            assert len(episode["state"]) == facts["num_steps"] == WORLD.max_steps
    assert not list(output.parent.glob("*.journal"))
    return missing


def test_killed_three_times_it_keeps_every_episode_and_misses_one_frame_at_most(tmp_path: Path):
    missing = kill_and_check(tmp_path / "killed.zarr", num_kills=3)
    assert max(missing) <= 1, missing


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_twenty_times_it_keeps_every_episode_and_misses_one_frame_at_most(tmp_path: Path):
    missing = kill_and_check(tmp_path / "killed.zarr", num_kills=20)
    print(f"\nframes missing at each of 20 kills: {missing}")
    assert max(missing) <= 1, missing


def test_a_full_disk_is_told_at_once_and_what_was_recorded_stays(tmp_path: Path):
    output = tmp_path / "full.zarr"
    # an episode of 20 steps of 2 x 2304 bytes fits; a second one, twenty times as long, does not
    status, text, _ = record(output, "num_episodes=1")
    assert status == 0, text
    status, text, errors = record(output, "num_episodes=3", max_bytes=300_000, max_steps=400)
    assert status == 1
    assert "File too large" in errors
    assert text.index("cannot write the journal") < text.index("interrupted, kept what there is of")
    buffer = ReplayBuffer.open(output)
    first, second = buffer.episode_attributes
    assert not first.get("interrupted")
    assert second["interrupted"]
    assert "File too large" in second["trouble"][-1]
    num_steps = len(buffer.episode(1)["state"])
    assert num_steps == pytest.approx(300_000 / (2 * 2304), abs=3)
    for index in range(2):
        assert_is_true(buffer.episode(index), seed=index)


@pytest.mark.parametrize(("failure", "words"), [("raise", "unplugged"), ("freeze", "not returned")])
def test_a_camera_that_goes_ends_the_session_and_what_was_recorded_stays(
    tmp_path: Path, failure: str, words: str
):
    output = tmp_path / "gone.zarr"
    began_s = time.monotonic()
    status, text, errors = record(
        output,
        *("num_episodes=9", "patience_s=0.5"),
        fails_at=7,
        fails_in_seed=1,
        failure=failure,
    )
    assert time.monotonic() - began_s < 30
    assert (status, words in errors) == (1, True), text + errors
    buffer = ReplayBuffer.open(output)
    first, second = buffer.episode_attributes
    assert not first.get("interrupted")
    assert second["interrupted"]
    assert words in second["trouble"][-1]
    assert len(buffer.episode(1)["state"]) == 8  # also the step whose answer never came
    for index in range(2):
        assert_is_true(buffer.episode(index), seed=index)
    status, text, _ = record(output, "num_episodes=2")  # the same command, camera back in
    assert (status, ReplayBuffer.open(output).episode_attributes[-1]["seed"]) == (0, 2)


def test_other_features_than_those_of_the_store_are_refused(tmp_path: Path):
    record(tmp_path / "a.zarr", "num_episodes=1")
    status, _, errors = record(tmp_path / "a.zarr", "num_episodes=2", rate_hz=40.0)
    assert status == 1
    assert "rate: 50.0 Hz against 40.0 Hz" in errors
    assert ReplayBuffer.open(tmp_path / "a.zarr").num_episodes == 1


def test_ctrl_c_keeps_what_there_is(tmp_path: Path):
    process = start(tmp_path / "a.zarr", prints=True, max_steps=5000)
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            if line.startswith("step 0 9"):
                break
        process.terminate()
        rest = process.stdout.read()
    assert process.returncode == 0
    assert "interrupted, kept what there is of the episode of seed 0" in rest
    buffer = ReplayBuffer.open(tmp_path / "a.zarr")
    assert buffer.episode_attributes[0]["trouble"][-1] == "stopped by the operator"
    assert len(buffer.episode(0)["state"]) >= 10


def test_what_cannot_be_is_refused_in_one_sentence(tmp_path: Path):
    output = tmp_path / "a.zarr"
    for arguments, world, words in [
        (("teleoperator=keyboard",), {}, "expected (3,)"),
        ((), {"height": 0}, "needs positive integers"),
    ]:
        status, _, errors = record(output, *arguments, **world)
        assert (status, words in errors, "Traceback" in errors) == (1, True, False), errors
        assert len(errors.splitlines()) == 1
    assert not output.exists()
