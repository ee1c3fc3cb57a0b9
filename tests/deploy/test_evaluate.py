"""forcing-evaluate: the command line end to end on a checkpoint, and every way to misuse it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.evaluate import (
    EvaluateConfig,
    Flagging,
    Inference,
    environment_maker,
    evaluate,
)
from policy.checkpoint import CheckpointError
from sim.perturbations.conditions import PerturbationConfig
from tests.deploy.tiny_checkpoint import write_tiny_checkpoint

ROOT = Path(__file__).parents[2]
START_AND_RUN_S = 280  # some 10 s on an idle machine
KEYS = {
    "command",
    "version",
    "checkpoint",
    "task",
    "inference",
    "planning",
    "perturbation",
    "outage",
    "flag",
    "mark",
    "delay",
    "seeds",
    "num_episodes",
    "mean_max_reward",
    "mean_max_reward_error",
    "success_rate",
    "success_interval",
    "mean_success_time_s",
    "median_done_time_s",
    "mean_num_moves",
    "median_stall_steps",
    "median_longest_stall_steps",
    "median_peak_jerk",
    "network_calls_per_step",
    "holds_per_episode",
    "num_perturbed",
    "late_plans",
    "wall_time_s",
    "episodes",
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("policy") / "checkpoint"))


def run(checkpoint: str, folder: Path, **changes: Any) -> dict[str, Any]:
    """Two short batches of three episodes, without films."""
    values: dict[str, Any] = {
        "checkpoint": checkpoint,
        "num_episodes": 3,
        "first_seed": 50,
        "batch_size": 2,
        "num_videos": 0,
        "num_threads": 1,
        "output_dir": str(folder),
    }
    return evaluate(EvaluateConfig(**(values | changes)), command="forcing-evaluate ...")


@pytest.mark.timeout(300)
def test_the_command_line_end_to_end(checkpoint: str, tmp_path: Path):
    arguments = [
        f"checkpoint={checkpoint}",
        "inference=chunk",
        "task=pick_place",
        "+planning.execution_horizon=3",
        "num_episodes=2",
        "first_seed=70",
        "perturbation=black_0.5s",
        "perturbation.start=[2,0.2s]",
        "perturbation.length=3",
        "flag=auto",
        "num_videos=1",
        "num_threads=1",
        f"output_dir={tmp_path / 'out'}",
    ]
    process = subprocess.run(
        [sys.executable, "-m", "deploy.evaluate", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=START_AND_RUN_S,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results) == KEYS
    assert results["command"] == " ".join(
        ["forcing-evaluate", *(f"'{a}'" if "[" in a else a for a in arguments)]
    )
    assert results["seeds"] == [70, 71]
    assert [row["seed"] for row in results["episodes"]] == [70, 71]
    assert results["perturbation"] == "black_0.5s"
    assert results["outage"] == {
        "kind": "black",
        "options": {},
        "sources": ["top"],
        "level": 1.0,
        "start": [2, 2],
        "length": 3,
        "phase": "anytime",
        "offset": [0, 0],
    }
    windows = [row["perturbations"][0]["window"] for row in results["episodes"]]
    assert windows == [[2, 5], [2, 5]]
    assert results["num_perturbed"] == 2
    assert "execution_horizon=3" in results["planning"]
    # 2 calls every 3 steps of 70
    assert results["network_calls_per_step"] == pytest.approx(2 * 24 / 70)
    assert f"2 episodes: {tmp_path / 'out' / 'results.json'}" in process.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "results.json",
        "rollout_70.mp4",
        "levels_70.png",
    }


def test_the_same_call_gives_the_same_numbers_and_other_seeds_others(
    checkpoint: str, tmp_path: Path
):
    noise = PerturbationConfig(kind="noise", start=[3, 8], length=6)
    options: dict[str, Any] = {"perturbation": noise, "flag": Flagging.none}
    first, second = (run(checkpoint, tmp_path / name, **options) for name in "ab")
    for results in (first, second):
        results.pop("wall_time_s")
    assert first == second
    other = run(checkpoint, tmp_path / "c", **options, first_seed=51)
    assert other["episodes"][0] != first["episodes"][0]
    reward = [row["max_reward"] for row in first["episodes"]]
    assert other["episodes"][0]["max_reward"] == pytest.approx(reward[1], abs=1e-3)


def test_rolling_makes_one_call_a_step_after_its_cold_start(checkpoint: str, tmp_path: Path):
    results = run(checkpoint, tmp_path, inference=Inference.rolling, num_episodes=1)
    # 4 calls at step 0, none in steps 1 to 3, then one a step
    assert results["network_calls_per_step"] == 1.0
    assert results["inference"] == "rolling"
    assert results["holds_per_episode"] == 0


def test_unflagged_and_flagged_runs_differ_by_the_flag_alone(checkpoint: str, tmp_path: Path):
    black = PerturbationConfig(kind="black", start=[3, 3], length=None)
    options: dict[str, Any] = {"perturbation": black, "num_episodes": 1}
    believed = run(checkpoint, tmp_path / "none", flag=Flagging.none, **options)
    told = run(checkpoint, tmp_path / "auto", flag=Flagging.auto, **options)
    assert believed["seeds"] == told["seeds"]
    final_rewards = [r["episodes"][0]["final_reward"] for r in (believed, told)]
    assert final_rewards[0] != final_rewards[1]


def black(**changes: Any) -> dict[str, Any]:
    return {"perturbation": PerturbationConfig(**({"name": "x", "kind": "black"} | changes))}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "pick_plcae"}, r"no task 'pick_plcae'; have: .*\bpick_place, push, push_t_image"),
        ({"num_episodes": 0}, "at least 1, got 0"),
        ({"batch_size": 0}, "at least 1, got 3 and 0"),
        (black(kind="fog"), "no perturbation 'fog'; have: black"),
        (black(start=[5]), r"got \[5\], expected \[first, last\]"),
        (black(start=[9, 5]), "expected .first, last."),
        (black(length=0), "length is 0, expected at least 1"),
        (black(length="soon"), "'soon' is no duration"),
        (black(sources=["wrsit"]), "no observed feature"),
        (black(options={"std": 1.0}), "black has no option"),
        (black(kind="swapped"), "two cameras of one shape"),
        (black(kind="occluder"), "cannot be changed from outside"),
        ({"planning": {"steps": 3}}, "RollingPlanning refuses"),
    ],
)
def test_misuse_is_refused_before_anything_runs(
    checkpoint: str, tmp_path: Path, changes: dict[str, Any], message: str
):
    with pytest.raises((KeyError, ValueError), match=message):
        run(checkpoint, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_a_task_with_another_schema_is_refused(checkpoint: str, tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"needs \['top'\]"):
        run(checkpoint, tmp_path, task="push_t_state")


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        run(str(tmp_path / "nothing"), tmp_path)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("flag=maybe", "maybe"),
        ("num_episodess=3", "num_episodess"),
        ("perturbation=fog", "black_2s"),  # the names that there are
        ("perturbation.lenght=3", "lenght"),
    ],
)
def test_the_command_line_refuses_what_it_does_not_know(argument: str, words: str):
    process = subprocess.run(
        [sys.executable, "-m", "deploy.evaluate", "checkpoint=x", "output_dir=y", argument],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=START_AND_RUN_S,
        check=False,
    )
    assert process.returncode != 0
    assert words in process.stderr
    assert "Traceback" not in process.stderr


def test_every_task_has_a_maker():
    for task in ("pick_place", "push_t_image", "push_t_state"):
        environment = environment_maker(task)()
        assert environment.schema.action.shape
        environment.close()
