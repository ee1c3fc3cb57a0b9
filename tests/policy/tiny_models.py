"""Small models, stores and windows for the tests of `policy`; all functions of their arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from policy.checkpoint import ModelDescription
from policy.diffusion_forcing import DiffusionForcing
from teleop_data.dataset import WindowDataset
from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.schema import Feature, Schema
from teleop_data.statistics import FeatureStatistics, buffer_statistics

CONTEXT, HORIZON, MEMORY = 4, 6, 3
FULL_SCHEMA = Schema(
    features=(
        Feature(name="front", shape=(16, 16, 3), dtype="uint8", role="camera"),
        Feature(name="state", shape=(3,), unit="m", angles=(2,)),
        Feature(name="action", shape=(2,), role="action", unit="m"),
    ),
    rate_hz=10.0,
)
SCHEMA = FULL_SCHEMA.select(["state", "action"])
DENOISER = {
    "memory": MEMORY, "width": 32, "heads": 2,
    "context_layers": 1, "plan_layers": 2, "level_size": 16,
}  # fmt: skip
CAMERA = {
    "backbone": {"_target_": "policy.observation_encoder.SmallCnn", "width": 8},
    "crop": [12, 12],
    "feature_size": 16,
}
ROLLING = {
    "_target_": "policy.planning.RollingPlanning",
    "staircase": {"_target_": "policy.scheduling_matrix.Staircase", "ramp": 3},
    "cold_calls": 3,
}
CHUNK = {"_target_": "policy.planning.ChunkPlanning", "num_calls": 2, "execution_horizon": 3}


def statistics(size: int, *, scale: float = 2.0) -> FeatureStatistics:
    """Of a feature whose entries lie in [-scale, scale]."""
    ends = np.full(size, scale)
    return FeatureStatistics(
        count=100, minimum=-ends, maximum=ends, mean=0 * ends, std=ends / 2, q01=-ends, q99=ends
    )


def description(schema: Schema = SCHEMA, **model: Any) -> ModelDescription:
    """A tiny model over `schema`; keywords replace keys of the model's config."""
    config = {"horizon": HORIZON, "context": CONTEXT, "denoiser": DENOISER, "method": {}}
    if schema.with_role("camera"):
        config["camera"] = CAMERA
    return ModelDescription(
        model=config | model,
        planning={"rolling": ROLLING, "chunk": CHUNK},
        schema=schema,
        statistics={f.name: statistics(f.shape[0]) for f in schema.with_role("state", "action")},
        task="tiny",
    )


def shake(module: nn.Module, *, seed: int = 0) -> None:
    """Give every parameter a random value: a fresh denoiser says zero whatever it is told."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter.shape[-1] if parameter.ndim > 1 else 10
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)


def shaken_model(schema: Schema = SCHEMA, *, seed: int = 0, **model: Any) -> DiffusionForcing:
    """A model with random weights that says something."""
    built = description(schema, **model).build().eval()
    shake(built.denoiser, seed=seed)
    return built


def observation(schema: Schema = SCHEMA, *, seed: int) -> dict[str, np.ndarray]:
    """One observation of the schema's observed features."""
    rng = np.random.default_rng(seed)
    values = {}
    for feature in schema.observed:
        if feature.role == "camera":
            values[feature.name] = rng.integers(0, 256, feature.shape).astype(np.uint8)
        else:
            values[feature.name] = rng.uniform(-2, 2, feature.shape).astype(np.float32)
    return values


def write_store(path: Path, *, num_episodes: int = 5, length: int = 20) -> ReplayBuffer:
    """Episodes whose action is a fixed function of the state, so that there is much to learn."""
    buffer = ReplayBuffer.create(path, SCHEMA)
    for seed in range(num_episodes):
        phase = np.random.default_rng(seed).uniform(0, 2 * np.pi) + 0.3 * np.arange(length)
        state = np.stack([np.sin(phase), np.cos(phase), phase % (2 * np.pi)], axis=1)
        action = np.stack([np.cos(phase), -np.sin(phase)], axis=1)
        buffer.append_episode(
            {"state": state.astype(np.float32), "action": action.astype(np.float32)}
        )
    return buffer


def windows(buffer: ReplayBuffer, episodes: list[int]) -> WindowDataset:
    """Windows of some episodes, in the tiny model's lengths."""
    return WindowDataset(
        buffer,
        schema=SCHEMA,
        episodes=np.array(episodes),
        context=CONTEXT,
        horizon=HORIZON,
    )


def described(buffer: ReplayBuffer, **model: Any) -> ModelDescription:
    """A tiny model with the statistics of that store."""
    tiny = description(**model)
    names = [feature.name for feature in SCHEMA.features]
    episodes = np.arange(buffer.num_episodes)
    return ModelDescription(
        model=tiny.model,
        planning=tiny.planning,
        schema=SCHEMA,
        statistics=buffer_statistics(buffer, names=names, episodes=episodes),
        task="tiny",
    )


def batch_of(dataset: WindowDataset, indices: list[int]) -> dict[str, torch.Tensor]:
    """Windows as tensors."""
    return {name: torch.from_numpy(values) for name, values in dataset.batch(indices).items()}
