"""forcing-generate for its tests: the command, what it wrote, and an expert that often fails."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sim.experts.planar_pick_place import PickPlaceExpert
from sim.generate_demonstrations import GenerateConfig, TaskConfig
from teleop_data.environment import Observation
from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.schema import Feature

REPOSITORY = Path(__file__).parents[3]


@contextmanager
def started(*arguments: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """The command, running in a session of its own, as from a terminal; killed in the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sim.generate_demonstrations", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell's background jobs ignore Ctrl-C, and so would what they start
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env={"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PATH": ""},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def generate(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command, run to its end."""
    with started(*arguments, cwd=cwd) as process:
        output, errors = process.communicate(timeout=100)
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below, by its relative path."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def seeds(path: Path) -> list[int]:
    """Of the demonstrations in a store."""
    return [a["seed"] for a in ReplayBuffer.open(path).episode_attributes]


class Fickle(PickPlaceExpert):
    """Stands still in episodes of odd seeds, and tells whether it carries or fetches."""

    label_features = (Feature(name="subgoal", shape=(), dtype="int64", role="other"),)

    def reset(self, seed: int) -> None:
        super().reset(seed)
        self._is_idle = seed % 2 == 1

    def act(self, observation: Observation) -> np.ndarray:
        self._is_carrying = self._physics.is_holding
        return observation["state"] if self._is_idle else super().act(observation)

    def labels(self) -> dict[str, np.ndarray]:
        return {"subgoal": np.array(self._is_carrying, np.int64)}

    def facts(self) -> dict[str, Any]:
        return {"subgoals": ["fetch", "carry"]}


def fickle(
    output: Path, *, num_episodes: int, max_steps: int = 70, **others: Any
) -> GenerateConfig:
    """Demonstrations of `Fickle` from seed 1 on; three steps are too few for anybody."""
    environment = {
        "_target_": "sim.tasks.pick_place.pick_place_environment",
        "max_steps": max_steps,
    }
    expert = {"_target_": "tests.sim.demonstrations.generating.Fickle"}
    task = TaskConfig(name="pick_place", environment=environment, expert=expert)
    told = {"first_seed": 1, "num_processes": 1, **others}
    return GenerateConfig(output=str(output), num_episodes=num_episodes, task=task, **told)
