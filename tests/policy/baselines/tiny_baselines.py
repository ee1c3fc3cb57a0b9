"""Small baselines over one camera's features or pictures, a state and an action."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

# seconds, which no test's time-out should hold
import policy.baselines.lerobot_act
import policy.baselines.lerobot_diffusion
import policy.baselines.robomimic_rnn  # noqa: F401
from policy.baselines.baseline import Baseline
from policy.checkpoint import ModelDescription
from teleop_data.schema import Feature, Schema
from tests.policy.tiny_models import CAMERA, statistics

FEATURES = 16  # of a camera
SCHEMA = Schema(
    features=(
        Feature(name="front", shape=(16, 16, 3), dtype="uint8", role="camera"),
        Feature(name="wrist", shape=(16, 16, 3), dtype="uint8", role="camera"),
        Feature(name="state", shape=(3,), unit="m"),
        Feature(name="action", shape=(2,), role="action", unit="m"),
    ),
    rate_hz=10.0,
)
DROP_OUT = {
    "_target_": "policy.baselines.baseline.DropOut",
    "share": 0.5,
    "share_all": 0.2,
    "mean_length": 3.0,
    "mean_gap": 3.0,
}
U_NET = {
    "_target_": "policy.baselines.lerobot_diffusion.LerobotDiffusion",
    "down_dims": [16, 32],
    "kernel_size": 3,
    "n_groups": 4,
    "diffusion_step_embed_dim": 16,
    "num_train_timesteps": 20,
}
MODELS: dict[str, dict[str, Any]] = {
    "diffusion": {"horizon": 7, "context": 2, "baseline": U_NET},
    "diffusion_long": {"horizon": 8, "context": 7, "baseline": {**U_NET, "stride": 3}},
    "act": {
        "horizon": 8,
        "context": 1,
        "baseline": {
            "_target_": "policy.baselines.lerobot_act.LerobotAct",
            "dim_model": 32,
            "n_heads": 2,
            "dim_feedforward": 64,
            "n_encoder_layers": 1,
            "n_vae_encoder_layers": 1,
        },
    },
    "rnn": {
        "horizon": 1,
        "context": 8,
        "baseline": {
            "_target_": "policy.baselines.robomimic_rnn.RobomimicRnn",
            "rnn_hidden_dim": 32,
            "rnn_num_layers": 1,
            "num_modes": 3,
        },
    },
}
NAMES = list(MODELS)


def described(name: str, *, drop_out: dict[str, Any] | None = None) -> ModelDescription:
    """A tiny baseline of that name."""
    model = MODELS[name]
    execution_horizon = min(4, model["horizon"])
    return ModelDescription(
        model={
            **model,
            "camera": CAMERA,
            "baseline": {**model["baseline"], "drop_out": drop_out},
        },
        planning={
            "chunk": {
                "_target_": "policy.planning.ChunkPlanning",
                "num_calls": 3 if name.startswith("diffusion") else 1,
                "execution_horizon": execution_horizon,
            }
        },
        schema=SCHEMA,
        statistics={f.name: statistics(f.shape[0]) for f in SCHEMA.with_role("state", "action")},
        task="tiny",
    )


def built(name: str, *, drop_out: dict[str, Any] | None = None, seed: int = 0) -> Baseline:
    """It, with weights drawn from the seed."""
    torch.manual_seed(seed)
    model = described(name, drop_out=drop_out).build()
    assert isinstance(model, Baseline)
    return model


def batch_for(
    model: Baseline, *, size: int = 6, padded: int = 0, seed: int = 0
) -> dict[str, Tensor]:
    """Windows of camera features whose actions follow from them; `padded` ticks come first."""
    rng = torch.Generator().manual_seed(seed)
    context, horizon = model.context, model.horizon
    phase = 6 * torch.rand(size, 1, generator=rng) + 0.3 * torch.arange(-context, horizon)
    seen = phase[:, 1 : context + 1]  # the ticks; action row j + 1 belongs to tick j
    batch = {
        "front": torch.stack([(seen + i).sin() for i in range(FEATURES)], dim=-1),
        "wrist": torch.stack([(seen - i).cos() for i in range(FEATURES)], dim=-1),
        "state": torch.stack([seen.sin(), seen.cos(), 0 * seen], dim=-1),
        "action": torch.stack([phase.sin(), phase.cos()], dim=-1),
        "observation_is_padded": (torch.arange(context) < padded).expand(size, -1).clone(),
        "action_is_padded": torch.zeros(size, context + horizon, dtype=torch.bool),
        "episode": torch.arange(size),
    }
    batch["action_is_padded"][:, : padded + 1] = padded > 0
    return batch


def observations(rows: list[int], *, step: int) -> dict[str, np.ndarray]:
    """What the episodes `rows` observe at a control step: pictures and states."""
    drawn: dict[str, list[np.ndarray]] = {"front": [], "wrist": [], "state": []}
    for row in rows:
        rng = np.random.default_rng([row, step])
        for name in ("front", "wrist"):
            drawn[name].append(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8))
        drawn["state"].append(rng.uniform(-2, 2, 3).astype(np.float32))
    return {name: np.stack(values) for name, values in drawn.items()}
