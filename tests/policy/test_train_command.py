"""`forcing-train`: the command, its YAML, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

import hydra
import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import MissingMandatoryValue, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import policy
from policy.baselines.baseline import Baseline
from policy.checkpoint import ModelDescription, load_policy
from policy.construction import build
from policy.interface import Request
from policy.train import TrainConfig, run
from teleop_data.parts import part_of
from teleop_data.schema import Feature, Schema
from teleop_data.sole_use import InUseError, SoleUse
from tests.policy.tiny_models import CAMERA, DENOISER, observation, statistics, write_store

CONFIGS = Path(next(iter(policy.__path__))) / "configs"
TINY = [
    "data.features=[state,action]",
    "+data.angles={state:[2]}",
    "data.validation_share=0.25",
    "model.horizon=6",
    "model.context=4",
    *(f"model.denoiser.{key}={value}" for key, value in DENOISER.items()),
    "training.batch_size=8",
    "training.num_threads=1",
    "training.save_every=2",
    "training.log_every=2",
]


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def compose(*overrides: str) -> TrainConfig:
    """The config that `forcing-train` would run with."""
    with hydra.initialize_config_dir(str(CONFIGS), version_base=None):
        config = hydra.compose("train", [*overrides], return_hydra_config=True)
        HydraConfig.instance().set_config(config)
    OmegaConf.set_struct(config, False)
    config.pop("hydra")
    return cast(TrainConfig, OmegaConf.to_object(config))


def forcing_train(*overrides: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("forcing-train")), *overrides]
    return subprocess.run(command, capture_output=True, text=True, timeout=500)


@pytest.mark.timeout(600)
def test_the_command_trains_and_goes_on_where_it_was(tmp_path: Path) -> None:
    write_store(tmp_path / "store.zarr", num_episodes=4)
    output = tmp_path / "output"
    arguments = [*TINY, f"data.path={tmp_path / 'store.zarr'}", f"output_dir={output}"]
    first = forcing_train(*arguments, "training.num_steps=4")
    assert first.returncode == 0, first.stderr
    assert f"checkpoint: {output / 'checkpoint'}" in first.stdout
    second = forcing_train(*arguments, "training.num_steps=6")
    assert second.returncode == 0, second.stderr
    assert "4/6" in second.stderr  # the bar begins where the first run ended
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [2, 4, 6]
    provenance = json.loads((output / "checkpoint" / "provenance.json").read_text())
    assert provenance["step"] == 6
    assert provenance["command"].startswith("forcing-train 'data.features=[state,action]'")
    assert provenance["training_episodes"] == 3
    assert len(provenance["held_out_episodes"]) == 1
    with SoleUse(output):
        third = forcing_train(*arguments, "training.num_steps=8")
    assert third.returncode == 1
    assert third.stderr.splitlines()[-1].startswith(f"error: another process writes to {output}")
    assert "Traceback" not in third.stderr
    loaded = load_policy(output / "checkpoint", inference="rolling")
    plan = loaded.start_session(0).step(Request(step=0, observation=observation(seed=0)))
    assert plan.actions.shape == (6, 2)
    assert loaded.schema["state"].angles == (2,)
    assert {path.name for path in tmp_path.iterdir()} == {"store.zarr", "output"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.num_step=3", "num_step"),
        ("data.feature=[state]", "feature"),
        ("outputs=here", "outputs"),
        ("training.num_steps=many", "many"),
        ("model=nonsense", "nonsense"),
        ("recipe=nonsense", "nonsense"),
    ],
)
def test_unknown_keys_and_wrong_types_are_refused(override: str, message: str) -> None:
    with pytest.raises((HydraException, OmegaConfBaseException)) as caught:
        compose("data.path=x", "output_dir=y", "data.features=[state,action]", override)
    assert message in str(caught.value) + str(caught.value.__cause__)


def test_what_must_be_given_is_asked_for() -> None:
    with pytest.raises(MissingMandatoryValue, match="features"):
        compose("data.path=x", "output_dir=y")


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("data.features=[state,wrist,action]", KeyError, "no feature 'wrist'; have: state, action"),
        ("+data.angles.gripper=[0]", KeyError, "no feature 'gripper'"),
        ("data.features=[state]", ValueError, r"expected one action feature, have \[\]"),
        ("+model.depth=3", ValueError, r"unknown model keys \['depth'\]"),
        ("data.validation_share=1.5", ValueError, "validation_share"),
        ("training.batch_size=1000", ValueError, "batch_size 1000"),
    ],
)
def test_what_does_not_fit_the_store_is_named(
    tmp_path: Path, override: str, error: type[Exception], message: str
) -> None:
    write_store(tmp_path / "store.zarr", num_episodes=2)
    store, output = tmp_path / "store.zarr", tmp_path / "output"
    config = compose(*TINY, f"data.path={store}", f"output_dir={output}", override)
    with pytest.raises(error, match=message):
        run(config, command="test")
    assert not (output / "checkpoint").exists()


def test_a_second_training_in_one_folder_is_turned_away(tmp_path: Path) -> None:
    write_store(tmp_path / "store.zarr", num_episodes=4)
    output = tmp_path / "output"
    output.mkdir()
    config = compose(*TINY, f"data.path={tmp_path / 'store.zarr'}", f"output_dir={output}")
    with (
        SoleUse(output),
        pytest.raises(InUseError, match=f"another process writes to {output}"),
    ):
        run(config, command="")
    assert list(output.iterdir()) == []


def test_no_store(tmp_path: Path) -> None:
    config = compose(*TINY, f"data.path={tmp_path / 'nowhere.zarr'}", "output_dir=unused")
    with pytest.raises(FileNotFoundError, match="no replay buffer at .*nowhere.zarr"):
        run(config, command="test")


def schema_for(config: TrainConfig) -> Schema:
    """Features of the names that a recipe asks for: a camera unless it is called otherwise."""
    stored = Feature(name="state", shape=(5,))
    features = []
    for name in config.data.features:
        if name == "action":
            features.append(Feature(name=name, shape=(2,), role="action"))
        elif name in config.data.parts:
            entries = tuple(config.data.parts[name].entries)
            features.append(part_of(stored, entries, name=name))
        elif name == "state":
            features.append(stored)
        elif name == "objects":  # the arm's things
            features.append(Feature(name=name, shape=(18,)))
        else:
            features.append(Feature(name=name, shape=(96, 96, 3), dtype="uint8", role="camera"))
    return Schema(features=tuple(features), rate_hz=10.0).with_angles(config.data.angles)


def check_builds(config: TrainConfig) -> None:
    """Model and planning modes of a composed config exist and fit each other.

    A model without a camera of its own gets the one that `data.encoder` would bring.
    """
    schema = schema_for(config)
    low_dim = schema.with_role("state", "action")
    model = ModelDescription(
        model={"camera": CAMERA, **config.model} if config.data.encoder else config.model,
        planning=config.planning,
        schema=schema,
        statistics={f.name: statistics(f.shape[0]) for f in low_dim},
    ).build()
    assert model.horizon == config.model["horizon"]
    chunk = build(config.planning["chunk"])
    assert chunk.execution_horizon <= model.horizon
    if isinstance(model, Baseline):
        assert set(config.planning) == {"chunk"}
    else:
        assert set(config.planning) == {"chunk", "rolling"}
        assert build(config.planning["rolling"]).cold_calls < model.horizon


def is_ours(model: str) -> bool:
    return "baseline" not in OmegaConf.load(CONFIGS / "model" / f"{model}.yaml")


def plans_in_both_ways(planning: str) -> bool:
    return "rolling" in OmegaConf.load(CONFIGS / "planning" / f"{planning}.yaml")


@pytest.mark.parametrize("model", [*filter(is_ours, names("model"))])
@pytest.mark.parametrize("planning", [*filter(plans_in_both_ways, names("planning"))])
def test_every_model_and_planning_builds(model: str, planning: str) -> None:
    camera = ["img"] if "camera" in OmegaConf.load(CONFIGS / "model" / f"{model}.yaml") else []
    features = ",".join([*camera, "state", "action"])
    check_builds(
        compose(
            "data.path=x", "output_dir=y", f"data.features=[{features}]",
            f"model={model}", f"planning={planning}",
        )
    )  # fmt: skip


def is_on_features(recipe: str) -> bool:
    return recipe.startswith(("swap", "arm_pick_place"))


@pytest.mark.parametrize("recipe", names("recipe"))
def test_every_recipe_builds(recipe: str) -> None:
    encoder = ["data.encoder=z"] if is_on_features(recipe) else []
    config = compose("data.path=x", "output_dir=y", f"recipe={recipe}", *encoder)
    assert config.task
    assert config.training.num_steps > config.training.warmup_steps
    check_builds(config)


@pytest.mark.parametrize("recipe", [*filter(is_on_features, names("recipe"))])
def test_every_recipe_on_features_builds_end_to_end(recipe: str) -> None:
    config = compose("data.path=x", "output_dir=y", f"recipe={recipe}", "size=gpu")
    assert config.data.encoder is None
    assert config.training.num_steps == 40000
    check_builds(config)


def test_every_yaml_is_covered() -> None:
    groups = {path.parent.name for path in CONFIGS.glob("*/*.yaml")}
    assert groups == {"model", "planning", "recipe", "size"}
    assert names("size") == ["gpu"]
    tops = sorted(path.name for path in CONFIGS.glob("*.yaml"))
    assert tops == ["pretrain.yaml", "train.yaml"]  # the former: test_frozen_encoder


def test_a_share_of_the_episodes(tmp_path: Path) -> None:
    write_store(tmp_path / "store.zarr", num_episodes=4)
    store = tmp_path / "store.zarr"
    config = compose(*TINY, f"data.path={store}", f"output_dir={tmp_path / 'output'}")
    config.training = replace(config.training, num_steps=1)
    config.data.max_episodes = 2
    folder = run(config, command="test")
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["training_episodes"] + len(provenance["held_out_episodes"]) == 2
