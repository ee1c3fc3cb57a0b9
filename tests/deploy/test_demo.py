"""forcing-demo: children that die or hang, what is reused, and (slow) all of it in small."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.children import Child, ChildError, exit_on_signal, free_endpoint, run_child
from deploy.demo import DemoConfig, demonstrate, is_trained, run
from teleop_data.replay_buffer import ReplayBuffer
from tests.deploy.tiny_checkpoint import MODEL

ROOT = Path(__file__).parents[2]
# small modules that act as entry points, written where children find them
ENTRY_POINTS = {
    "talker": "import time; print('words', flush=True); time.sleep(60)",
    "failure": "import sys; print('the reason', flush=True); sys.exit(3)",
    "stubborn": (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('words', flush=True); time.sleep(60)"
    ),
    "parent": (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-m', 'talker']); "
        "print('child', child.pid, flush=True); child.wait()"
    ),
}


@pytest.fixture(autouse=True)
def entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "modules"
    folder.mkdir()
    for name, text in ENTRY_POINTS.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{ROOT}")


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_does_not_outlive_the_block_whatever_happens_in_it(tmp_path: Path):
    child = Child("talker", log=tmp_path / "log")

    def be_interrupted() -> None:
        with child:
            assert child.wait_for("words", timeout_s=60) == "words"
            assert child.status is None
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    assert child.status == -signal.SIGTERM


def test_what_a_child_started_ends_with_it(tmp_path: Path):
    with Child("parent", log=tmp_path / "log") as child:
        grandchild = int(child.wait_for("child", timeout_s=60).split()[1])
        assert is_running(grandchild)
    deadline_s = time.monotonic() + 10
    while is_running(grandchild) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not is_running(grandchild)


def test_a_child_that_ignores_the_signal_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("deploy.children.TERMINATION_S", 0.2)
    with Child("stubborn", log=tmp_path / "log") as child:
        child.wait_for("words", timeout_s=60)
    assert child.status == -signal.SIGKILL


def test_a_failed_child_is_quoted(tmp_path: Path):
    with pytest.raises(ChildError, match=r"failure failed with status 3; .*\n    the reason"):
        run_child("failure", log=tmp_path / "log")
    with (
        pytest.raises(ChildError, match=r"ended \(status 3\) before it said 'ready'"),
        Child("failure", log=tmp_path / "log") as child,
    ):
        child.wait_for("ready", timeout_s=60)


def test_a_silent_child_is_not_waited_for_for_ever(tmp_path: Path):
    with (
        pytest.raises(ChildError, match=r"did not say 'ready' within 0 s"),
        Child("talker", log=tmp_path / "log") as child,
    ):
        child.wait_for("ready", timeout_s=0.2)


def test_another_child_that_dies_ends_the_wait(tmp_path: Path):
    with (
        pytest.raises(ChildError, match="failure ended .status 3. while talker ran"),
        Child("failure", log=tmp_path / "failure.log") as other,
        Child("talker", log=tmp_path / "talker.log") as child,
    ):
        child.wait(besides=[other])
    assert child.status is not None


def test_sigterm_becomes_an_exit_and_only_meanwhile():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as exit_info, exit_on_signal():
        signal.raise_signal(signal.SIGTERM)
    assert exit_info.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_free_endpoints_can_be_bound():
    assert free_endpoint().startswith("tcp://127.0.0.1:")
    assert free_endpoint() != free_endpoint()


def provenance(folder: Path, *, step: int, num_steps: int) -> Path:
    folder.mkdir()
    content = {"step": step, "settings": {"num_steps": num_steps}}
    (folder / "provenance.json").write_text(json.dumps(content))
    return folder


def test_a_training_is_reused_only_if_it_came_to_its_end(tmp_path: Path):
    assert not is_trained(tmp_path / "nothing", num_steps=None)
    whole = provenance(tmp_path / "whole", step=100, num_steps=100)
    part = provenance(tmp_path / "part", step=50, num_steps=100)
    assert is_trained(whole, num_steps=None)
    assert is_trained(whole, num_steps=100)
    assert not is_trained(whole, num_steps=200)
    assert not is_trained(part, num_steps=None)
    assert is_trained(part, num_steps=50)


def test_demonstrations_are_reused_and_never_mixed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    path, partial = tmp_path / "demonstrations.zarr", tmp_path / "demonstrations.zarr.partial"
    # what a call that was cut off has left
    run_child("sim.generate_demonstrations", f"output={partial}", "num_episodes=1")
    changed_at = (partial / "zarr.json").stat().st_mtime_ns  # it is written at the creation
    capfd.readouterr()
    assert demonstrate(path, num=2) == path
    assert "; 1 made in" in capfd.readouterr().out
    assert ReplayBuffer.open(path).num_episodes == 2
    assert not partial.exists()
    capfd.readouterr()
    assert demonstrate(path, num=2) == path
    assert "reused" in capfd.readouterr().out
    assert (path / "zarr.json").stat().st_mtime_ns == changed_at
    with pytest.raises(ValueError, match="holds 2 demonstrations, 3 are wanted"):
        demonstrate(path, num=3)


def tiny_arguments() -> list[str]:
    """A network that trains in seconds, instead of the recipe's."""
    denoiser = [f"model.denoiser.{key}={value}" for key, value in MODEL["denoiser"].items()]
    return [
        *denoiser,
        "model.context=2",
        "model.camera.backbone.width=8",
        "model.camera.feature_size=8",
        "training.batch_size=8",
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_in_small_and_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    config = DemoConfig(
        output_dir=str(tmp_path / "demo"),
        num_demonstrations=4,
        num_steps=2,
        num_live_episodes=1,
        num_episodes=2,
        training=tiny_arguments(),
    )
    report = run(config)
    assert report == tmp_path / "demo" / "report" / "report.html"
    markdown = (report.parent / "report.md").read_text()
    assert markdown.count("| chunk | 2 |") == 5
    for name in ("healthy", "flagged", "believed"):
        (row,) = json.loads((tmp_path / f"demo/live/{name}_100000.json").read_text())["episodes"]
        statistics = row["statistics"]
        assert statistics["num_newest"] > 10
        assert ("top: covered" in statistics["flagged"]) == (name == "flagged")
    capfd.readouterr()
    weights = tmp_path / "demo" / "training" / "checkpoint" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    run(config)
    assert capfd.readouterr().out.count("reused") == 2
    assert weights.stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ctrl_c_ends_the_demo_and_its_children(tmp_path: Path):
    demo = subprocess.Popen(
        [sys.executable, "-m", "deploy.demo", f"output_dir={tmp_path / 'demo'}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    partial = tmp_path / "demo" / "demonstrations.zarr.partial"
    try:
        deadline_s = time.monotonic() + 120
        while not partial.exists() and time.monotonic() < deadline_s:
            time.sleep(0.1)
        assert partial.exists()
        children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()
        assert len(children) == 1
        demo.send_signal(signal.SIGINT)
        words, _ = demo.communicate(timeout=60)
    finally:
        demo.kill()
        demo.wait()
    assert demo.returncode == 1
    assert "forcing-demo: stopped" in words
    assert not is_running(int(children[0]))
