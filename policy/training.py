"""The training loop.

Learning rate, order of the windows and noise are functions of (seed, step), so a run that is cut
off and resumed ends bit for bit where an uninterrupted one does (same machine, threads, processes).
Accelerate carries the loop from one process to many.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from policy.checkpoint import ModelDescription, save_checkpoint
from policy.diffusion_forcing import DiffusionForcing, LossTerms
from policy.learning_curves import LearningCurves
from policy.training_state import load_training_state, save_training_state
from teleop_data.dataset import Batch, WindowDataset, batch_indices


class NonFiniteLossError(RuntimeError):
    """The loss is not finite; the message names the step and the episodes of that batch."""


@dataclass(kw_only=True)  # not frozen: Hydra makes frozen nodes read-only
class TrainingSettings:
    """How long and how fast.

    Attributes:
        num_steps: optimizer steps of the whole run.
        batch_size: windows per step, over all processes.
        learning_rate: its peak; linear warm-up over `warmup_steps`, then a cosine down to 0.
        warmup_steps: see there.
        weight_decay, beta2: of AdamW.
        max_gradient_norm: gradients are scaled down to it.
        ema_decay: of the averaged weights that are evaluated and saved.
        mixed_precision: "no" or "bf16", as Accelerate has it.
        compile: torch.compile the two stacks (needs a C++ compiler on CPUs; a minute at the start).
        num_threads: torch's threads, 0 for its own choice.
        log_every, validate_every, save_every: steps.
        seed: of weights, order and noise.
    """

    num_steps: int = 10_000
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup_steps: int = 300
    weight_decay: float = 1e-3
    beta2: float = 0.95
    max_gradient_norm: float = 1.0
    ema_decay: float = 0.999
    mixed_precision: str = "no"
    compile: bool = False
    num_threads: int = 0
    log_every: int = 50
    validate_every: int = 1000
    save_every: int = 1000
    seed: int = 0


def learning_rate_at(step: int, settings: TrainingSettings) -> float:
    """Linear warm-up, then half a cosine to zero at `num_steps`."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.num_steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def averaging(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor | int], None]:
    """EMA update for `AveragedModel`, with decay min(decay, (1 + n) / (10 + n)) at update n."""

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], num_averaged: Tensor | int) -> None:
        n = int(num_averaged)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

    return update


def step_generator(seed: int, step: int, process: int = 0) -> torch.Generator:
    """The generator of one training step's noise, a function of its arguments alone."""
    entropy = np.random.SeedSequence([seed, step, process]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(entropy >> np.uint64(1)))


def train(
    description: ModelDescription,
    dataset: WindowDataset,
    validation: WindowDataset | None,
    *,
    settings: TrainingSettings,
    output_dir: Path,
    provenance: dict,
    stop_at: int | None = None,
) -> Path:
    """Train from scratch, or on from `output_dir/training_state` if it exists.

    `stop_at` ends the run early, as if it had been cut off after that step's save.

    Returns:
        The folder of the newest checkpoint, `output_dir/checkpoint`.
    """
    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    accelerator = Accelerator(mixed_precision=settings.mixed_precision)
    torch.manual_seed(settings.seed)
    model = description.build()
    ema = AveragedModel(model, multi_avg_fn=averaging(settings.ema_decay))
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        betas=(0.9, settings.beta2),
        weight_decay=settings.weight_decay,
    )
    first_step = load_training_state(output_dir / "training_state", model, ema, optimizer)
    if settings.compile:
        model.denoiser.compile_stacks()
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    ema.to(accelerator.device)
    last_step = min(settings.num_steps, stop_at or settings.num_steps)
    is_main = accelerator.is_main_process
    curves = LearningCurves(output_dir, first_step=first_step) if is_main else None
    bar = tqdm(range(first_step, last_step), initial=first_step, total=settings.num_steps, unit="step",
               disable=not is_main, mininterval=1.0)  # fmt: skip
    for step in bar:
        batch = batch_of_step(dataset, settings, step, accelerator)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, settings)
        generator = step_generator(settings.seed, step, accelerator.process_index)
        with accelerator.autocast():
            terms = wrapped(to_tensors(batch, accelerator.device), generator=generator)
        refuse_non_finite(terms, step=step, batch=batch)
        optimizer.zero_grad()
        accelerator.backward(terms.loss)
        norm = accelerator.clip_grad_norm_(wrapped.parameters(), settings.max_gradient_norm)
        optimizer.step()
        ema.update_parameters(accelerator.unwrap_model(wrapped))
        done = step + 1
        if curves is None:
            continue
        curves.add(terms)
        if done % settings.log_every == 0 or done == last_step:
            rate = learning_rate_at(step, settings)
            bar.set_postfix(curves.log(done, learning_rate=rate, gradient_norm=float(norm)))
        if validation is not None and (done % settings.validate_every == 0 or done == last_step):
            curves.log_validation(done, validate(ema.module, validation, settings))
        if done % settings.save_every == 0 or done == last_step:
            save_checkpoint(
                output_dir / "checkpoint", description, ema.module.state_dict(),
                provenance={**provenance, "step": done},
            )  # fmt: skip
            state = accelerator.unwrap_model(wrapped), ema, optimizer
            save_training_state(output_dir / "training_state", done, *state)
    if curves is not None:
        curves.close()
    return output_dir / "checkpoint"


def batch_of_step(
    dataset: WindowDataset, settings: TrainingSettings, step: int, accelerator: Accelerator
) -> Batch:
    """This process's share of the step's windows."""
    indices = batch_indices(
        len(dataset), batch_size=settings.batch_size, seed=settings.seed, step=step
    )
    return dataset.batch(indices[accelerator.process_index :: accelerator.num_processes])


def to_tensors(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """The batch as tensors on the device; pictures stay uint8."""
    return {name: torch.from_numpy(values).to(device) for name, values in batch.items()}


def refuse_non_finite(terms: LossTerms, *, step: int, batch: Batch) -> None:
    """Raise before a broken loss reaches the weights."""
    if not bool(torch.isfinite(terms.loss)):
        episodes = sorted(set(batch["episode"].tolist()))
        raise NonFiniteLossError(
            f"loss {float(terms.loss)} at step {step}, with windows of episodes {episodes}; the "
            f"last saved state is unharmed: lower the learning rate, or look at these episodes"
        )


@torch.no_grad()
def validate(model: DiffusionForcing, dataset: WindowDataset, settings: TrainingSettings) -> float:
    """Loss on up to 8 fixed batches of held-out episodes, always with the same noise."""
    size = min(settings.batch_size, len(dataset))
    device = next(model.parameters()).device
    model.eval()
    losses = []
    for i in range(min(8, len(dataset) // size)):
        batch = dataset.batch(batch_indices(len(dataset), batch_size=size, seed=0, step=i))
        losses.append(model(to_tensors(batch, device), generator=step_generator(0, i)).loss)
    return float(torch.stack(losses).mean())
