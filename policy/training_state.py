"""What a run needs to go on exactly: weights, averaged weights, optimizer, step. No pickle.

Written beside its place and renamed, so an interrupted save leaves the one before.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

FILE = "state.safetensors"


def save_training_state(
    folder: Path,
    step: int,
    model: nn.Module,
    ema: AveragedModel,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write the state after `step` optimizer steps."""
    tensors: dict[str, Tensor] = {}
    tensors |= {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / (FILE + ".partial")
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    save_file(tensors, partial, metadata={"step": str(step)})
    os.replace(partial, folder / FILE)


def load_training_state(
    folder: Path,
    model: nn.Module,
    ema: AveragedModel,
    optimizer: torch.optim.Optimizer,
) -> int:
    """Restore all three and return the step to go on with; 0 if there is no saved state.

    Raises:
        ValueError: the saved state is broken, or belongs to another model.
    """
    path = folder / FILE
    if not path.exists():
        return 0
    try:
        with safe_open(path, framework="pt") as file:
            step = int(file.metadata()["step"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        model.load_state_dict(_with_prefix(tensors, "model."))
        ema.load_state_dict(_with_prefix(tensors, "ema."))
    except (SafetensorError, RuntimeError, TypeError, KeyError) as error:
        raise ValueError(
            f"cannot resume from {path}: {error}. Choose another output_dir to start afresh"
        ) from error
    per_parameter: dict[int, dict[str, Tensor]] = {}
    for key, value in _with_prefix(tensors, "optimizer.").items():
        index, _, name = key.partition(".")
        per_parameter.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": per_parameter})
    return step


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
