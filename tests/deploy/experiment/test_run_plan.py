"""forcing-experiment: resumes, survives being killed, and a failing cell costs only itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from deploy.experiment.run_plan import ExperimentConfig, run
from deploy.experiment.workers import PARTIAL
from teleop_data.sole_use import SoleUse
from tests.deploy.experiment.tiny_plan import PLAN, write_plan

ROOT = Path(__file__).parents[3]
NUM_CELLS = 5


def config(folder: Path, **changes: Any) -> ExperimentConfig:
    values: dict[str, Any] = {
        "plan": str(folder / "plan.yaml"),
        "checkpoints": str(folder / "checkpoints"),
        "output_dir": str(folder / "results"),
        "num_processes": 1,
    }
    return ExperimentConfig(**(values | changes))


def written(folder: Path) -> dict[str, float]:
    """When each cell was written, by its folder."""
    paths = (folder / "results").glob("*/*/results.json")
    paths = [path for path in paths if PARTIAL not in path.parent.name]
    return {str(p.parent.relative_to(folder / "results")): p.stat().st_mtime_ns for p in paths}


@pytest.mark.timeout(400)
def test_all_cells_are_evaluated_once_and_only_what_changed_again(tmp_path: Path):
    folder = write_plan(tmp_path)
    assert run(config(folder)) == {}
    first = written(folder)
    assert len(first) == NUM_CELLS
    cell = folder / "results" / "ours" / "black_now-anytime-oracle"
    results = json.loads((cell / "results.json").read_text())
    assert results["seeds"] == [50, 51, 52]
    assert (results["perturbation"], results["flag"]) == ("black_now", "oracle")
    assert results["command"].endswith(f" output_dir={cell}")
    told = json.loads((cell / "cell.json").read_text())
    assert (told["policy"], told["condition"], told["flag"]) == ("ours", "black_now", "oracle")
    assert told["provenance"] == {"step": 0}
    mark = json.loads((folder / "results/blind/black_now-anytime-oracle/results.json").read_text())
    assert mark["mark"] == "zeros"
    assert (folder / "results" / "other" / "none-anytime-none" / "rollout_50.mp4").exists()

    assert run(config(folder)) == {}
    assert written(folder) == first

    # another condition, and one film more: those two are evaluated again
    text = PLAN.replace("length: 4}", "length: 5}").replace("num_videos: 1}", "num_videos: 2}")
    (folder / "plan.yaml").write_text(text)
    assert run(config(folder, only=["other", "none", "blind", "black_now"])) == {}
    second = written(folder)
    again = {name for name in first if first[name] != second[name]}
    assert again == {"other/none-anytime-none", "blind/black_now-anytime-oracle"}
    assert not list((folder / "results").glob("*/*.p*"))  # nothing partial, nothing previous


@pytest.mark.timeout(400)
def test_a_failing_cell_is_told_of_and_the_others_go_on(tmp_path: Path):
    text = PLAN.replace("start: [1, 2], length: 4", "sources: [wrsit]").replace(
        "{label: Other, checkpoint: tiny", "{label: Other, checkpoint: missing"
    )
    folder = write_plan(tmp_path, text=text)
    failures = run(config(folder, num_processes=2))
    assert list(written(folder)) == ["ours/none-anytime-none"]
    assert set(failures) == {
        "other/none-anytime-none",
        "ours/black_now-anytime-none",
        "ours/black_now-anytime-oracle",
        "blind/black_now-anytime-oracle",
    }
    assert "no whole checkpoint at" in failures["other/none-anytime-none"]
    assert "wrsit" in failures["ours/black_now-anytime-none"]


def command(folder: Path, *arguments: str) -> list[str]:
    return [
        *(sys.executable, "-m", "deploy.experiment.run_plan", f"plan={folder / 'plan.yaml'}"),
        *(f"checkpoints={folder / 'checkpoints'}", f"output_dir={folder / 'results'}"),
        *arguments,
    ]


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.timeout(500)
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_killed_in_the_middle_it_goes_on(tmp_path: Path, number: signal.Signals):
    folder = write_plan(tmp_path)
    process = subprocess.Popen(
        command(folder, "num_processes=1"), cwd=ROOT, stdout=subprocess.DEVNULL
    )
    deadline_s = time.monotonic() + 200
    while len(written(folder)) < 2 and time.monotonic() < deadline_s:
        time.sleep(0.02)
    workers = children_of(process.pid)
    os.kill(process.pid, number)
    assert process.wait(60) != 0
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline_s + 60, "a worker outlives its parent"
        time.sleep(0.05)
    first = written(folder)
    assert workers
    assert 2 <= len(first) < NUM_CELLS
    for name in first:
        json.loads((folder / "results" / name / "cell.json").read_text())
    assert run(config(folder)) == {}
    second = written(folder)
    assert len(second) == NUM_CELLS
    assert {name: second[name] for name in first} == first


@pytest.mark.timeout(300)
def test_a_dry_run_lists_and_writes_nothing(tmp_path: Path):
    folder = write_plan(tmp_path)
    process = subprocess.run(
        command(folder, "dry_run=true", "+changes.seconds_per_episode=60", "only=[ours]"),
        cwd=ROOT, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert lines[0] == "ours/none-anytime-none: 3 episodes, group clean: 3.0 min"
    assert lines[-1].startswith("3 cells, 3 to be evaluated: 9 min of one core, 4 min with")
    assert not (folder / "results").exists()


def test_two_calls_do_not_work_on_one_folder(tmp_path: Path):
    folder = write_plan(tmp_path)
    (folder / "results").mkdir()
    with SoleUse(folder / "results"), pytest.raises(ValueError, match="another"):
        run(config(folder))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("argument", "words"), [("plan=swop", "have: pick_place, swap"), ("only=[x]", "nothing")]
)
def test_misuse_is_told_in_a_sentence(tmp_path: Path, argument: str, words: str):
    process = subprocess.run(
        command(write_plan(tmp_path), "dry_run=true", argument)
        if argument != "plan=swop"
        else [*command(tmp_path)[:3], "plan=swop", "checkpoints=x", "output_dir=y"],
        cwd=ROOT, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert process.returncode != 0
    assert words in process.stderr
    assert "Traceback" not in process.stderr
