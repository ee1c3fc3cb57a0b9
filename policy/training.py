"""The training loop.

Learning rate, order of the windows and noise are functions of (seed, step), so a run that is cut
off and resumed ends bit for bit where an uninterrupted one does (same machine, threads, processes).
Accelerate carries the loop from one process to many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from policy.baselines.baseline import Baseline
from policy.checkpoint import ModelDescription, save_checkpoint
from policy.diffusion_forcing import DiffusionForcing, LossTerms
from policy.learning_curves import LearningCurves
from policy.training_state import load_training_state, save_training_state
from teleop_data.dataset import Batch, WindowDataset, batch_indices

Parameters = tuple[Tensor, ...] | list[Tensor]


class NonFiniteLossError(RuntimeError):
    """Loss or gradient is not finite; the message names the step and that batch's episodes."""


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
        mixed_precision: "no" or "bf16", as Accelerate has it; commands take "auto", too, see
            `policy.precision`.
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


def averaging(decay: float) -> Callable[[Parameters, Parameters, Tensor | int], None]:
    """EMA update for `AveragedModel`, with decay min(decay, (1 + n) / (10 + n)) at update n."""

    def update(averaged: Parameters, current: Parameters, num_averaged: Tensor | int) -> None:
        n = int(num_averaged)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averaged, current, num_averaged)

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
    initial: Mapping[str, Tensor] | None = None,
    stop_at: int | None = None,
) -> Path:
    """Train from scratch, or on from `output_dir/training_state` if it exists.

    `initial` are weights that training begins with, by name; others are drawn from the seed.
    `stop_at` ends the run early, as if it had been cut off after that step's save.

    Returns:
        The folder of the newest checkpoint, `output_dir/checkpoint`.

    Raises:
        NonFiniteLossError: a loss or its gradient is not finite.
        ValueError: the saved state is broken or belongs to another model.
    """
    run = _Run(
        description,
        settings=settings,
        output_dir=output_dir,
        provenance=provenance,
        initial=initial or {},
    )
    last_step = min(settings.num_steps, stop_at or settings.num_steps)
    curves = LearningCurves(output_dir, first_step=run.first_step) if run.is_main else None
    bar = tqdm(
        range(run.first_step, last_step),
        initial=run.first_step,
        total=settings.num_steps,
        unit="step",
        disable=not run.is_main,
        mininterval=1.0,
    )
    for step in bar:
        terms, norm = run.optimize(dataset, step)
        done = step + 1
        if curves is None:
            continue
        curves.add(terms)
        if _is_due(done, settings.log_every, last_step):
            rate = learning_rate_at(step, settings)
            bar.set_postfix(curves.log(done, learning_rate=rate, gradient_norm=float(norm)))
        if validation is not None and _is_due(done, settings.validate_every, last_step):
            curves.log_validation(done, validate(run.averaged_model, validation, settings))
        if _is_due(done, settings.save_every, last_step):
            run.save(done)
    if curves is not None:
        curves.close()
    return output_dir / "checkpoint"


def _is_due(done: int, every: int, last_step: int) -> bool:
    return done % every == 0 or done == last_step


class _Run:
    """What a training run carries from step to step: model, its average, optimizer."""

    def __init__(
        self,
        description: ModelDescription,
        *,
        settings: TrainingSettings,
        output_dir: Path,
        provenance: dict,
        initial: Mapping[str, Tensor],
    ) -> None:
        self._description, self._settings = description, settings
        self._output_dir, self._provenance = output_dir, provenance
        if settings.num_threads:
            torch.set_num_threads(settings.num_threads)
        self._accelerator = Accelerator(mixed_precision=settings.mixed_precision)
        torch.manual_seed(settings.seed)
        self._model = description.build()
        self._model.load_state_dict({**self._model.state_dict(), **initial})
        self._average = AveragedModel(self._model, multi_avg_fn=averaging(settings.ema_decay))
        optimizer = torch.optim.AdamW(
            [p for p in self._model.parameters() if p.requires_grad],
            lr=settings.learning_rate,
            betas=(0.9, settings.beta2),
            weight_decay=settings.weight_decay,
            fused=True,
        )
        state = self._model, self._average, optimizer
        self.first_step = load_training_state(output_dir / "training_state", *state)
        if settings.compile:
            compile_stacks(self._model)
        self._wrapped, self._optimizer = self._accelerator.prepare(self._model, optimizer)
        self._average.to(self._accelerator.device)

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self._accelerator.is_main_process

    @property
    def averaged_model(self) -> DiffusionForcing | Baseline:
        """The EMA's model, which is validated and saved."""
        return cast(DiffusionForcing | Baseline, self._average.module)

    def optimize(self, dataset: WindowDataset, step: int) -> tuple[LossTerms, Tensor]:
        """One optimizer step; its loss terms, and the gradient's norm before clipping."""
        accelerator, settings = self._accelerator, self._settings
        batch = batch_of_step(dataset, settings, step, accelerator)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate_at(step, settings)
        generator = step_generator(settings.seed, step, accelerator.process_index)
        with accelerator.autocast():
            terms = self._wrapped(to_tensors(batch, accelerator.device), generator=generator)
        refuse_non_finite(terms.loss.detach(), "loss", step=step, batch=batch)
        self._optimizer.zero_grad()
        accelerator.backward(terms.loss)
        parameters = self._wrapped.parameters()
        norm = torch.as_tensor(accelerator.clip_grad_norm_(parameters, settings.max_gradient_norm))
        refuse_non_finite(norm, "gradient norm", step=step, batch=batch)
        self._optimizer.step()
        self._average.update_parameters(accelerator.unwrap_model(self._wrapped))
        return terms, norm

    def save(self, done: int) -> None:
        """Write the checkpoint and what a resumed run needs, after `done` steps."""
        save_checkpoint(
            self._output_dir / "checkpoint",
            self._description,
            self._average.module.state_dict(),
            provenance={**self._provenance, "step": done},
        )
        save_training_state(
            self._output_dir / "training_state", done, self._model, self._average, self._optimizer
        )


def compile_stacks(model: DiffusionForcing | Baseline) -> None:
    """Compile the model's two stacks; ValueError for a baseline."""
    if isinstance(model, Baseline):
        raise ValueError("a baseline is not compiled; leave training.compile false")
    model.denoiser.compile_stacks()


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


def refuse_non_finite(value: Tensor, name: str, *, step: int, batch: Batch) -> None:
    """Raise before a broken loss or gradient reaches the weights."""
    if not bool(torch.isfinite(value)):
        episodes = sorted(set(batch["episode"].tolist()))
        raise NonFiniteLossError(
            f"{name} {float(value)} at step {step}, with windows of episodes {episodes}; the "
            f"last saved state is unharmed: lower the learning rate, or look at these episodes"
        )


@torch.no_grad()
def validate(
    model: DiffusionForcing | Baseline, dataset: WindowDataset, settings: TrainingSettings
) -> float:
    """Loss on up to 8 fixed batches of held-out episodes, always with the same noise."""
    size = min(settings.batch_size, len(dataset))
    device = next(model.parameters()).device
    model.eval()
    losses = []
    for i in range(min(8, len(dataset) // size)):
        batch = dataset.batch(batch_indices(len(dataset), batch_size=size, seed=0, step=i))
        losses.append(model(to_tensors(batch, device), generator=step_generator(0, i)).loss)
    return float(torch.stack(losses).mean())
