"""Encoders trained beforehand: from pictures to features in the store to a policy, for real."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from safetensors.torch import load_file

from policy.checkpoint import load_policy
from policy.frozen_encoder import EncoderError, encode_episodes, encode_rows, load_encoders
from policy.pretrain import PretrainConfig
from policy.pretrain import run as pretrain
from policy.train import DataConfig, TrainConfig
from policy.train import run as train
from policy.training import TrainingSettings
from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.schema import Feature, Schema
from tests.policy.tiny_models import CAMERA, CHUNK, DENOISER, HORIZON

CAMERA_NODE = {k: v for k, v in CAMERA.items() if k != "crop"}
SCHEMA = Schema(
    features=(
        Feature(name="front", shape=(16, 16, 3), dtype="uint8", role="camera"),
        Feature(name="state", shape=(2,), unit="m"),
        Feature(name="action", shape=(2,), role="action", unit="m"),
    ),
    rate_hz=10.0,
)
LENGTH, NUM_EPISODES = 12, 6


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bright square moves about; the state says where it is, the action where it goes."""
    path = tmp_path_factory.mktemp("squares") / "store.zarr"
    buffer = ReplayBuffer.create(path, SCHEMA)
    for seed in range(NUM_EPISODES):
        walk = np.random.default_rng(seed).integers(0, 12, (LENGTH, 2))
        front = np.zeros((LENGTH, 16, 16, 3), np.uint8)
        for step, (y, x) in enumerate(walk):
            front[step, y : y + 4, x : x + 4] = 255
        state = walk.astype(np.float32) / 12
        buffer.append_episode({"front": front, "state": state, "action": state[::-1].copy()})
    return path


def settings(num_steps: int) -> TrainingSettings:
    return TrainingSettings(
        num_steps=num_steps, batch_size=6, learning_rate=3e-3, warmup_steps=2, ema_decay=0.9
    )


def encoder_folder(store: Path, folder: Path, *, num_steps: int = 3) -> dict[str, list[float]]:
    data = DataConfig(path=str(store), features=["front", "state", "action"], validation_share=0.2)
    config = PretrainConfig(
        data=data, camera=CAMERA_NODE, training=settings(num_steps), output_dir=str(folder)
    )
    return pretrain(config, command="test")


@pytest.fixture(scope="module")
def encoders(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders") / "encoder"
    encoder_folder(store, folder)
    return folder


def test_pretraining_learns_where_things_are(store: Path, tmp_path: Path) -> None:
    little = encoder_folder(store, tmp_path / "little", num_steps=1)["front"]
    much = encoder_folder(store, tmp_path / "much", num_steps=150)["front"]
    assert max(much) < 0.5 * min(little)


def test_features_have_zero_mean_and_unit_variance(store: Path, encoders: Path) -> None:
    episodes = ReplayBuffer.open(store)
    encoded = encode_episodes(episodes, load_encoders(encoders, schema=SCHEMA), store=store)
    features = np.asarray(encoded["front"])
    assert features.shape == (NUM_EPISODES * LENGTH, CAMERA["feature_size"])
    assert np.abs(features.mean(0)).max() < 0.5  # the moments are those of the training episodes
    assert encoded.schema["front"].shape == (CAMERA["feature_size"],)
    assert np.array_equal(encoded["state"][:], episodes["state"][:])


def test_features_are_made_once(
    store: Path, encoders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = load_encoders(encoders, schema=SCHEMA)
    first = encode_episodes(ReplayBuffer.open(store), frozen, store=store)["front"]
    monkeypatch.setattr("policy.frozen_encoder.encode_rows", None)
    again = encode_episodes(ReplayBuffer.open(store), frozen, store=store)["front"]
    assert np.array_equal(np.asarray(first), np.asarray(again))


def test_who_comes_while_they_are_made_waits_and_finds_them(
    store: Path, encoders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(store, tmp_path / "store.zarr")
    shutil.rmtree(tmp_path / "store.zarr" / "features", ignore_errors=True)
    frozen = load_encoders(encoders, schema=SCHEMA)
    began = []

    def slow_rows(*arguments: Any) -> np.ndarray:
        began.append(time.monotonic())
        time.sleep(0.5)  # long enough for the other to come
        return encode_rows(*arguments)

    def features(_number: int) -> np.ndarray:
        path = tmp_path / "store.zarr"
        return np.asarray(encode_episodes(ReplayBuffer.open(path), frozen, store=path)["front"])

    monkeypatch.setattr("policy.frozen_encoder.encode_rows", slow_rows)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(features, range(2))
    assert len(began) == 1
    assert np.array_equal(first, second)


def test_half_written_features_are_made_again(store: Path, encoders: Path) -> None:
    frozen = load_encoders(encoders, schema=SCHEMA)
    whole = np.asarray(encode_episodes(ReplayBuffer.open(store), frozen, store=store)["front"])
    array = zarr.open_group(store, mode="a")[f"features/{frozen.fingerprint}/front"]
    del array.attrs["is_done"]
    array[:] = 0  # type: ignore[index]
    again = encode_episodes(ReplayBuffer.open(store), frozen, store=store)["front"]
    assert np.array_equal(np.asarray(again), whole)


def test_a_policy_trains_on_features_and_acts_on_pictures(
    store: Path, encoders: Path, tmp_path: Path
) -> None:
    config = TrainConfig(
        data=DataConfig(
            path=str(store),
            features=["front", "state", "action"],
            encoder=str(encoders),
            whole_episodes=True,
            validation_share=0.2,
        ),
        model={
            "horizon": HORIZON,
            "context": LENGTH,
            "denoiser": DENOISER | {"pooled": True},
            "method": {"starts_empty": True},
        },
        planning={"chunk": CHUNK},
        training=TrainingSettings(num_steps=3, batch_size=2),
        output_dir=str(tmp_path / "run"),
    )
    folder = train(config, command="test")
    policy = load_policy(folder, inference="chunk")
    assert policy.novelty is not None
    before = load_file(encoders / "model.safetensors")
    after = load_file(folder / "model.safetensors")
    assert all(torch.equal(after[name], value) for name, value in before.items())
    pictures = torch.from_numpy(ReplayBuffer.open(store)["front"][:3])
    kept = zarr.open_group(store, mode="r")[
        f"features/{load_encoders(encoders, schema=SCHEMA).fingerprint}/front"
    ]
    seen = policy.model.cameras["front"](pictures[:, None])[:, 0]
    np.testing.assert_allclose(seen.detach().numpy(), kept[:3], atol=2e-2)  # type: ignore[index]
    assert json.loads((folder / "config.json").read_text())["model"]["camera"]["is_frozen"]


def test_other_cameras_are_refused(encoders: Path) -> None:
    other = Schema(
        features=(Feature(name="wrist", shape=(16, 16, 3), dtype="uint8", role="camera"),
                  SCHEMA["action"]), rate_hz=10.0,
    )  # fmt: skip
    with pytest.raises(EncoderError, match=r"no encoder of camera 'wrist'.*have: front"):
        load_encoders(encoders, schema=other)


def test_a_folder_without_encoders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="forcing-pretrain writes such a folder"):
        load_encoders(tmp_path, schema=SCHEMA)


def test_the_yaml_pretrains(store: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "policy.pretrain", f"data.path={store}", f"output_dir={tmp_path}/e",
        "data.features=[front,state,action]", "~data.parts.positions", "data.validation_share=0.2",
        "training.num_steps=2", "training.batch_size=4", "camera.backbone.width=8",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "front: root mean squared errors" in done.stdout
    assert set(load_encoders(tmp_path / "e", schema=SCHEMA).cameras) == {"front"}


def test_held_out_episodes_are_needed(store: Path, tmp_path: Path) -> None:
    data = DataConfig(path=str(store), features=["front", "state", "action"], validation_share=0.0)
    config = PretrainConfig(data=data, camera=CAMERA_NODE, output_dir=str(tmp_path))
    with pytest.raises(ValueError, match="raise data.validation_share"):
        pretrain(config, command="test")
