"""forcing-generate: every YAML makes what it names, and the command line end to end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException
from hydra.utils import instantiate

from sim.experts.planar_pick_place import PickPlaceExpert
from sim.generate_demonstrations import GenerateConfig, generate_demonstrations
from sim.tasks.pick_place import pick_place_environment
from teleop_data.recorder import Recorder
from teleop_data.replay_buffer import ReplayBuffer

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / "sim" / "configs"
TASKS = sorted(path.stem for path in (CONFIGS / "task").glob("*.yaml"))


def composed(*overrides: str):
    ConfigStore.instance().store(name="generate_schema", node=GenerateConfig)
    with initialize_config_module(config_module="sim.configs", version_base="1.3"):
        return compose("generate_demonstrations", overrides=list(overrides))


def generate(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sim.generate_demonstrations", *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        timeout=100,
        env={"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PATH": ""},
    )


def test_no_yaml_is_left_out_here():
    every = {str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml")}
    assert every == {"generate_demonstrations.yaml", *(f"task/{name}.yaml" for name in TASKS)}


@pytest.mark.parametrize("name", TASKS)
def test_every_task_makes_an_environment_that_runs(name: str):
    config = composed(f"task={name}", "output=unused")
    assert config.task.name == name
    environment = instantiate(config.task.environment)
    environment.schema.check_observation(environment.reset(0))
    if config.task.expert is not None:
        expert = instantiate(config.task.expert, environment)
        expert.reset(0)
        environment.schema.action.check(expert.act(environment.reset(0)))
    environment.close()


def test_unknown_keys_and_wrong_types_are_refused():
    for wrong in ("num_episodes=many", "num_episode=3", "task.colour=red"):
        with pytest.raises(ConfigCompositionException):
            composed(wrong)


def test_the_command_records_demonstrations_and_refuses_to_overwrite_them(tmp_path: Path):
    done = generate("output=demos.zarr", "num_episodes=3", "first_seed=40", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 demonstrations" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["demos.zarr"]

    buffer = ReplayBuffer.open(tmp_path / "demos.zarr")
    assert buffer.num_episodes == 3
    assert [a["seed"] for a in buffer.episode_attributes] == [40, 41, 42]
    assert all(a["success"] for a in buffer.episode_attributes)
    command = "forcing-generate output=demos.zarr num_episodes=3 first_seed=40"
    assert buffer.provenance["command"] == command
    assert buffer.provenance["version"]
    assert buffer.schema == pick_place_environment().schema
    first = pick_place_environment().reset(40)
    for name, value in first.items():
        np.testing.assert_array_equal(buffer.episode(0)[name][0], value)

    again = generate("output=demos.zarr", "num_episodes=3", cwd=tmp_path)
    assert again.returncode != 0
    assert "demos.zarr exists" in again.stderr
    assert "Traceback" not in again.stderr
    assert ReplayBuffer.open(tmp_path / "demos.zarr").num_episodes == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "output is not given"),
        (("output=x.zarr", "task=push_t_state"), "no scripted expert"),
        (("output=x.zarr", "num_episodes=0"), "at least 1"),
        (("output=x.zarr", "task=juggle"), "pick_place"),
    ],
)
def test_misuse_is_refused_in_a_sentence(tmp_path: Path, arguments: tuple[str, ...], message: str):
    done = generate(*arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


class Fickle(PickPlaceExpert):
    """Stands still in episodes of odd seeds."""

    def reset(self, seed: int) -> None:
        super().reset(seed)
        self._is_idle = seed % 2 == 1

    def act(self, observation) -> np.ndarray:
        return observation["state"] if self._is_idle else super().act(observation)


def test_failures_are_counted_and_left_out(tmp_path: Path):
    environment = pick_place_environment()
    recorder = Recorder(ReplayBuffer.create(tmp_path / "d.zarr", environment.schema))
    num_dropped = generate_demonstrations(
        environment, Fickle(environment), recorder=recorder, num_episodes=3, first_seed=1
    )
    assert num_dropped == 3
    assert [a["seed"] for a in recorder.buffer.episode_attributes] == [2, 4, 6]


def test_an_expert_that_never_succeeds_is_given_up_on(tmp_path: Path):
    environment = pick_place_environment(max_steps=3)
    recorder = Recorder(ReplayBuffer.create(tmp_path / "d.zarr", environment.schema))
    with pytest.raises(RuntimeError, match="does not solve"):
        generate_demonstrations(
            environment,
            PickPlaceExpert(environment),
            recorder=recorder,
            num_episodes=2,
            first_seed=0,
        )
    assert recorder.buffer.num_episodes == 0
