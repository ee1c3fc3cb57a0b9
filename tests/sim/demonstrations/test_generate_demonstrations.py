"""forcing-generate: every YAML makes what it names, and the command line end to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from sim.generate_demonstrations import ExpertError, GenerateConfig, run
from sim.tasks.pick_place import pick_place_environment
from teleop_data.replay_buffer import ReplayBuffer
from tests.sim.demonstrations.generating import contents, fickle, generate, seeds

REPOSITORY = Path(__file__).parents[3]
CONFIGS = REPOSITORY / "sim" / "configs"
TASKS = sorted(path.stem for path in (CONFIGS / "task").glob("*.yaml"))


def composed(*overrides: str):
    ConfigStore.instance().store(name="generate_schema", node=GenerateConfig)
    with initialize_config_module(config_module="sim.configs", version_base="1.3"):
        return compose("generate_demonstrations", overrides=list(overrides))


def test_no_yaml_is_left_out_here():
    every = {str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml")}
    here = {"generate_demonstrations.yaml", *(f"task/{name}.yaml" for name in TASKS)}
    here.add("gallery.yaml")  # test_gallery
    assert {name for name in every if not name.startswith("perturbation/")} == here


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


def test_the_command_records_demonstrations_once(tmp_path: Path):
    arguments = ("output=demos.zarr", "num_episodes=3", "first_seed=40")
    done = generate(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "demos.zarr: 3 demonstrations" in done.stdout
    assert "3/3 [" in done.stderr  # the progress bar
    assert "a minute, 0 failed" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["demos.zarr"]

    buffer = ReplayBuffer.open(tmp_path / "demos.zarr")
    assert buffer.num_episodes == 3
    assert [a["seed"] for a in buffer.episode_attributes] == [40, 41, 42]
    assert all(a["success"] for a in buffer.episode_attributes)
    command = "forcing-generate output=demos.zarr num_episodes=3 first_seed=40"
    assert buffer.provenance["command"] == command
    assert buffer.provenance["version"]
    assert buffer.provenance["settings"]["environment"]["max_steps"] == 70
    assert buffer.schema == pick_place_environment().schema
    first = pick_place_environment().reset(40)
    for name, value in first.items():
        np.testing.assert_array_equal(buffer.episode(0)[name][0], value)

    before = contents(tmp_path)
    again = generate(*arguments, cwd=tmp_path)
    assert again.returncode == 0
    assert "demos.zarr has its 3 demonstrations already: nothing to do" in again.stdout
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "output is not given"),
        (("output=x.zarr", "task.expert=null"), "no scripted expert"),
        (("output=x.zarr", "num_episodes=0"), "num_episodes is 0, expected at least 1"),
        (("output=x.zarr", "num_processes=0"), "num_processes is 0, expected at least 1"),
        (("output=x.zarr", "task=juggle"), "pick_place"),
    ],
)
def test_misuse_is_refused_in_a_sentence(tmp_path: Path, arguments: tuple[str, ...], message: str):
    done = generate(*arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_failures_are_counted_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO"):
        run(fickle(tmp_path / "d.zarr", num_episodes=3))
    assert seeds(tmp_path / "d.zarr") == [2, 4, 6]
    assert "3 demonstrations" in caplog.text
    assert "3 failed attempts left out" in caplog.text


def test_what_the_expert_tells_is_recorded(tmp_path: Path):
    run(fickle(tmp_path / "d.zarr", num_episodes=1))
    buffer = ReplayBuffer.open(tmp_path / "d.zarr")
    assert set(buffer.episode(0)["subgoal"]) == {0, 1}
    assert buffer.episode_attributes[0]["subgoals"] == ["fetch", "carry"]


def test_the_number_of_processes_changes_nothing(tmp_path: Path):
    for num_processes in (1, 2, 3):
        output = tmp_path / f"{num_processes}" / "d.zarr"
        run(fickle(output, num_episodes=4, num_processes=num_processes))
    alone = contents(tmp_path / "1")
    assert alone == contents(tmp_path / "2") == contents(tmp_path / "3")
    assert seeds(tmp_path / "1" / "d.zarr") == [2, 4, 6, 8]


def test_an_expert_that_never_succeeds_is_given_up_on_and_leaves_nothing(tmp_path: Path):
    with pytest.raises(ExpertError, match="13 attempts failed against 0 .* does not solve"):
        run(fickle(tmp_path / "d.zarr", num_episodes=2, max_steps=3))
    assert list(tmp_path.iterdir()) == []


def test_a_perturbation_is_recorded_with_its_truth(tmp_path: Path):
    config = composed(f"output={tmp_path / 'd.zarr'}", "num_episodes=2", "perturbation=black_0.5s")
    run(OmegaConf.to_object(config))
    buffer = ReplayBuffer.open(tmp_path / "d.zarr")
    assert buffer.provenance["settings"]["perturbation"]["kind"] == "black"
    for index, attributes in enumerate(buffer.episode_attributes):
        episode = buffer.episode(index)
        begin, end = attributes["perturbations"][0]["window"]
        is_bad = episode["bad_top"].ravel() > 0
        np.testing.assert_array_equal(np.flatnonzero(is_bad), np.arange(begin, end))
        assert episode["top"][is_bad].max() == 0
        assert all(picture.max() > 100 for picture in episode["top"][~is_bad])
