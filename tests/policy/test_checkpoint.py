"""Checkpoint folders: whole, exact, without pickle, and clear about what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import policy.checkpoint
from policy.checkpoint import (
    CheckpointError,
    LoadedPolicy,
    check_schema,
    load_policy,
    merge,
    read_description,
    save_checkpoint,
)
from policy.construction import build
from policy.interface import Request
from policy.planning import ChunkPlanning
from teleop_data.schema import Feature, Schema
from tests.contracts.policy_contract import assert_same_plans
from tests.policy.tiny_models import FULL_SCHEMA, ROLLING, SCHEMA, description, observation, shake

FILES = {"config.json", "model.safetensors", "schema.json", "statistics.json", "provenance.json"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint over camera and state."""
    save(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def save(folder: Path, *, seed: int = 0) -> LoadedPolicy:
    described = description(FULL_SCHEMA)
    model = described.build()
    shake(model.denoiser, seed=seed)
    save_checkpoint(folder, described, model.state_dict(), provenance={"seed": seed})
    return LoadedPolicy(model, build(ROLLING))


def plans(policy: LoadedPolicy) -> list:
    session = policy.start_session(3)
    return [
        session.step(Request(step=t, observation=observation(FULL_SCHEMA, seed=t)))
        for t in range(5)
    ]


def test_round_trip_to_the_bit(folder: Path) -> None:
    saved, loaded = save(folder, seed=7), load_policy(folder)
    expected = saved.model.state_dict()
    weights = loaded.model.state_dict()
    assert list(weights) == list(expected)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert not loaded.model.training
    assert_same_plans(plans(saved), plans(loaded))
    described = read_description(folder)
    assert described.schema == FULL_SCHEMA
    assert described.model == json.loads(json.dumps(description(FULL_SCHEMA).model))
    assert described.task == "tiny"
    assert json.loads((folder / "provenance.json").read_text()) == {"seed": 7}
    for name, values in description(FULL_SCHEMA).statistics.items():
        for key, value in vars(values).items():
            np.testing.assert_array_equal(getattr(described.statistics[name], key), value)


def test_a_folder_holds_json_and_safetensors_only(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == FILES
    for path in folder.iterdir():
        start = path.read_bytes()[:9]
        # safetensors: the header's length in 8 bytes, then JSON. A pickle starts with 0x80 or PK.
        assert start[8:9] == b"{" if path.suffix == ".safetensors" else start[:1] == b"{"


def test_inference_modes_and_overrides(folder: Path) -> None:
    chunk = load_policy(folder, inference="chunk", num_calls=7)
    assert chunk.planning == ChunkPlanning(num_calls=7, execution_horizon=3)
    rolling = load_policy(folder, staircase={"block": 2})
    assert rolling.planning.staircase.block == 2  # type: ignore[attr-defined]
    assert rolling.planning.staircase.ramp == 3  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match="no inference mode 'fast'.*; have: rolling, chunk"):
        load_policy(folder, inference="fast")
    with pytest.raises(ValueError, match=r"ChunkPlanning refuses .*'calls'"):
        load_policy(folder, inference="chunk", calls=7)


def test_merge_goes_into_nested_nodes_and_changes_neither_side() -> None:
    node = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert merge(node, {"a": {"c": {"d": 5}}, "f": 6}) == {
        "a": {"b": 1, "c": {"d": 5}}, "e": 3, "f": 6,
    }  # fmt: skip
    assert node == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint folder at .*nowhere"):
        load_policy(tmp_path / "nowhere")


@pytest.mark.parametrize("name", sorted(FILES - {"provenance.json"}))
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_policy(folder)


@pytest.mark.parametrize("name", ["config.json", "schema.json", "statistics.json"])
def test_broken_json_is_named(folder: Path, name: str) -> None:
    text = (folder / name).read_text()
    (folder / name).write_text(text[: len(text) // 2])
    with pytest.raises(CheckpointError, match=f"{name} is not JSON"):
        load_policy(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", {}, "holds no description of a model.*'model'"),
        ("config.json", [1, 2], "holds no description of a model"),
        ("schema.json", {"rate_hz": 10}, "not a schema"),
        ("statistics.json", {"state": {"count": 3}}, "not statistics"),
        ("statistics.json", {}, r"no statistics of \['action', 'state'\]"),
    ],
)
def test_other_json_is_refused(folder: Path, name: str, content, message: str) -> None:
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=message):
        load_policy(folder)


def change_config(folder: Path, change) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_a_config_cannot_name_code_from_elsewhere(folder: Path) -> None:
    change_config(folder, lambda c: c["planning"].update(rolling={"_target_": "os.getcwd"}))
    with pytest.raises(ValueError, match="'os.getcwd' lies outside the package"):
        load_policy(folder)


def test_a_config_of_another_model_is_refused(folder: Path) -> None:
    change_config(folder, lambda c: c["model"]["denoiser"].update(width=64))
    with pytest.raises(CheckpointError, match=r"model\.safetensors do not fit config\.json"):
        load_policy(folder)
    change_config(folder, lambda c: c["model"]["denoiser"].update(depth=64))
    with pytest.raises(CheckpointError, match=r"no model that exists.*'depth'"):
        load_policy(folder)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_weights_that_were_cut_off(folder: Path, share: float) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match="weights missing or broken"):
        load_policy(folder)


def test_the_schema_offered_must_fit(folder: Path) -> None:
    extra = Feature(name="wrist", shape=(8, 8, 3), dtype="uint8", role="camera")
    richer = Schema(features=(extra, *FULL_SCHEMA.features), rate_hz=10.0)
    load_policy(folder, schema=richer.with_angles({"state": ()}))
    with pytest.raises(
        CheckpointError, match=r"needs \['front'\].*not among \['action', 'state'\]"
    ):
        load_policy(folder, schema=SCHEMA)
    with pytest.raises(CheckpointError, match="another schema: rate: 10.0 Hz against 20.0 Hz"):
        load_policy(folder, schema=replace(FULL_SCHEMA, rate_hz=20.0))
    other = replace(FULL_SCHEMA["state"], shape=(4,))
    features = (FULL_SCHEMA["front"], other, FULL_SCHEMA["action"])
    with pytest.raises(CheckpointError, match="another schema: state"):
        check_schema(FULL_SCHEMA, offered=replace(FULL_SCHEMA, features=features))


def test_a_save_that_fails_leaves_the_old_checkpoint(folder: Path, monkeypatch) -> None:
    expected = plans(load_policy(folder))

    def no_space(*_) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(policy.checkpoint, "save_file", no_space)
    with pytest.raises(OSError, match="no space"):
        save(folder, seed=8)
    assert_same_plans(expected, plans(load_policy(folder)))
    monkeypatch.undo()
    save(folder, seed=8)  # what the failure left lying is no obstacle
    assert {path.name for path in folder.parent.iterdir()} == {"checkpoint"}
    assert json.loads((folder / "provenance.json").read_text()) == {"seed": 8}


@pytest.mark.timeout(600)
def test_loading_needs_no_training_library(folder: Path) -> None:
    code = (
        "import sys\n"
        "from policy.checkpoint import load_policy\n"
        f"load_policy({str(folder)!r})\n"
        "heavy = {'hydra', 'omegaconf', 'lerobot', 'accelerate', 'matplotlib', 'zarr', 'pandas'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
