"""Fine-tuning: training that begins with a checkpoint's weights and keeps its scales."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from policy.checkpoint import CheckpointError, read_description, weights_to_start_from
from policy.train import DataConfig, TrainConfig, run
from policy.training import TrainingSettings
from tests.policy.tiny_models import CHUNK, CONTEXT, DENOISER, HORIZON, write_store


def config_of(tmp_path: Path, store: str, output: str, **changes) -> TrainConfig:
    return TrainConfig(
        data=DataConfig(
            path=str(tmp_path / store), features=["state", "action"], validation_share=0.0
        ),
        model={
            "horizon": HORIZON,
            "context": CONTEXT,
            "denoiser": DENOISER | changes.pop("denoiser", {}),
            "method": {},
        },
        planning={"chunk": CHUNK},
        training=TrainingSettings(num_steps=2, batch_size=4, num_threads=1, **changes),
        output_dir=str(tmp_path / output),
    )


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A checkpoint of a store of three episodes; beside it stands another store, of one short."""
    write_store(tmp_path / "first.zarr", num_episodes=3)
    write_store(tmp_path / "other.zarr", num_episodes=1, length=9)
    return run(config_of(tmp_path, "first.zarr", "begun"), command="test")


def test_it_begins_with_the_weights_and_keeps_the_scales(tmp_path: Path, begun: Path) -> None:
    config = config_of(tmp_path, "other.zarr", "on", learning_rate=1e-12, seed=1)
    config.start_from = str(begun)
    on = run(config, command="test")
    before, after = load_file(begun / "model.safetensors"), load_file(on / "model.safetensors")
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-6, rtol=0)
    scales = (json.loads((folder / "statistics.json").read_text()) for folder in (begun, on))
    assert next(scales) == next(scales)
    fresh = run(config_of(tmp_path, "other.zarr", "fresh"), command="test")
    assert read_description(fresh).statistics != read_description(begun).statistics


def test_a_run_that_was_cut_off_goes_on_from_its_own_state(tmp_path: Path, begun: Path) -> None:
    config = config_of(tmp_path, "other.zarr", "on", learning_rate=0.1)
    config.start_from = str(begun)
    first = load_file(run(config, command="test") / "model.safetensors")
    again = load_file(run(config, command="test") / "model.safetensors")
    before = load_file(begun / "model.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not all(torch.equal(value, before[name]) for name, value in first.items())


def test_another_model_is_refused(tmp_path: Path, begun: Path) -> None:
    config = config_of(tmp_path, "other.zarr", "on", denoiser={"plan_layers": 1})
    config.start_from = str(begun)
    with pytest.raises(CheckpointError, match="do not fit the model to be trained"):
        run(config, command="test")
    assert not (tmp_path / "on" / "checkpoint").exists()


def test_what_is_no_checkpoint_is_refused(tmp_path: Path, begun: Path) -> None:
    config = config_of(tmp_path, "other.zarr", "on")
    config.start_from = str(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no checkpoint folder at .*nowhere"):
        run(config, command="test")


def test_another_schema_is_refused(begun: Path) -> None:
    there = read_description(begun)
    other = replace(there, schema=there.schema.with_angles({"state": ()}))
    with pytest.raises(CheckpointError, match="trained on another schema: .*angles"):
        weights_to_start_from(begun, other, given={})


def test_another_encoder_is_refused(begun: Path) -> None:
    there = read_description(begun)
    name, value = next(iter(load_file(begun / "model.safetensors").items()))
    assert weights_to_start_from(begun, there, given={name: value}).keys()
    with pytest.raises(CheckpointError, match=f"another encoder: {name} differs"):
        weights_to_start_from(begun, there, given={name: value + 1})
