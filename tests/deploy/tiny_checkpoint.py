"""A checkpoint of an untrained policy: real files, real network, small enough for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from policy.checkpoint import LoadedPolicy, ModelDescription, load_policy, save_checkpoint
from sim.tasks.pick_place import SCHEMA
from teleop_data.statistics import FeatureStatistics

HORIZON = 16
MODEL: Mapping[str, Any] = {
    "horizon": HORIZON,
    "context": 2,
    "denoiser": {
        "memory": 2,
        "width": 16,
        "heads": 2,
        "context_layers": 1,
        "plan_layers": 1,
        "level_size": 8,
    },
    "camera": {
        "backbone": {"_target_": "policy.observation_encoder.SmallCnn", "width": 8},
        "feature_size": 8,
    },
}
PLANNING: Mapping[str, Any] = {
    "chunk": {"_target_": "policy.planning.ChunkPlanning", "num_calls": 2, "execution_horizon": 4},
    "rolling": {
        "_target_": "policy.planning.RollingPlanning",
        "staircase": {"_target_": "policy.scheduling_matrix.Staircase", "ramp": 8},
        "cold_calls": 4,
    },
}


def statistics_over(low: list[float], high: list[float]) -> FeatureStatistics:
    """Statistics of something that fills [low, high] evenly."""
    a, b = np.array(low), np.array(high)
    return FeatureStatistics(
        count=1000, minimum=a, maximum=b, mean=(a + b) / 2, std=(b - a) / 12**0.5, q01=a, q99=b
    )


def write_tiny_checkpoint(folder: Path, *, task: str = "pick_place") -> Path:
    """A checkpoint for pick and place at `folder`, with random weights, always the same."""
    description = ModelDescription(
        model=MODEL,
        planning=PLANNING,
        schema=SCHEMA,
        statistics={
            name: statistics_over([-0.26, 0.1, 0.0], [0.26, 0.56, 1.0])
            for name in ("state", "action")
        },
        task=task,
    )
    torch.manual_seed(0)
    model = description.build()
    for parameter in model.parameters():  # heads and gates start at zero: they would see nothing
        torch.nn.init.normal_(parameter, std=0.3)
    save_checkpoint(folder, description, model.state_dict(), provenance={"step": 0})
    return folder


def tiny_policy(folder: Path, *, inference: str = "rolling") -> LoadedPolicy:
    """The loaded policy of a tiny checkpoint written at `folder`."""
    return load_policy(write_tiny_checkpoint(folder), inference=inference)
