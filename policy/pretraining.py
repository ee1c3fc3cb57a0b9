"""Pre-training of picture encoders, so that two cores can train on their features afterwards.

    picture -> encoder -> features -> decoder   -> the picture, small     (squared error)
                                  `-> regressor -> the targets            (absolute error)

One encoder a camera. Targets are low-dimensional features of the store at the same control step:
the robot's state, and in a simulator also where things are. Policies never see the targets. What is
left afterwards are the encoders, with the mean and deviation of their features over the training
pictures, so that a noise level means the same for each.

B batch, F feature size, T size of all targets together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from policy.observation_encoder import CameraEncoder
from policy.training import TrainingSettings, averaging, learning_rate_at
from policy.training_state import load_training_state, save_training_state
from teleop_data.dataset import Batch, WindowDataset, batch_indices
from teleop_data.statistics import FeatureStatistics

SMALL = 24  # side of the reconstructed pictures
PRECISE = 0.02  # target errors below this, in standard deviations, no longer pull with full force
MIN_STD = 0.02  # features that hardly vary are not blown up


class PictureDecoder(nn.Module):
    """Features (B, F) -> a picture (B, 3, 24, 24) in [-1, 1]."""

    def __init__(self, feature_size: int, *, width: int = 32) -> None:
        super().__init__()
        side = SMALL // 4
        self.layers = nn.Sequential(
            nn.Linear(feature_size, width * side * side),
            nn.ReLU(),
            nn.Unflatten(1, (width, side, side)),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(width, 3, 3, padding=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, 3, 24, 24)."""
        return self.layers(features)


class Pretraining(nn.Module):
    """The encoders with what they are trained by.

    Args:
        cameras: encoders by name.
        target_mean, target_std: (T,) of the targets over the training episodes.
        reconstruction: weight of the pictures' error beside the targets'.
    """

    target_mean: Tensor
    target_std: Tensor

    def __init__(
        self,
        cameras: Mapping[str, CameraEncoder],
        *,
        target_mean: np.ndarray,
        target_std: np.ndarray,
        reconstruction: float = 1.0,
    ) -> None:
        super().__init__()
        self.cameras = nn.ModuleDict(cameras)
        sizes = {name: encoder.feature_size for name, encoder in cameras.items()}
        self.decoders = nn.ModuleDict({name: PictureDecoder(size) for name, size in sizes.items()})
        self.regressors = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(size, 128), nn.ReLU(), nn.Linear(128, len(target_mean))
                )
                for name, size in sizes.items()
            }
        )
        self.register_buffer("target_mean", torch.as_tensor(target_mean, dtype=torch.float32))
        std = torch.as_tensor(target_std, dtype=torch.float32)
        self.register_buffer("target_std", torch.where(std > 1e-6, std, 1.0))
        self.reconstruction = reconstruction

    def forward(self, pictures: Mapping[str, Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """The two errors, summed over cameras and of unit scale.

        Args:
            pictures: (B, 1, H, W, 3) uint8 by camera.
            targets: (B, T).

        Returns:
            Squared error of the pictures, and absolute error of the targets.
        """
        wanted = (targets - self.target_mean) / self.target_std
        picture_error = target_error = torch.zeros((), device=targets.device)
        for name, images in pictures.items():
            features = self.cameras[name](images).squeeze(1)
            small = shrink(images.squeeze(1))
            picture_error = picture_error + F.mse_loss(self.decoders[name](features).float(), small)
            target_error = target_error + F.smooth_l1_loss(
                self.regressors[name](features).float(), wanted, beta=PRECISE
            )
        return picture_error, target_error


def shrink(images: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, 24, 24) in [-1, 1], averaged down."""
    x = rearrange(images, "b h w c -> b c h w").contiguous().float() / 127.5 - 1
    return F.interpolate(x, size=(SMALL, SMALL), mode="area")


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """What a pre-training gave.

    Attributes:
        cameras: encoders by name, not yet frozen.
        moments: (2, F) mean and standard deviation of the features by camera.
        errors: root mean squared error of each target entry by camera, in the targets' units.
    """

    cameras: dict[str, CameraEncoder]
    moments: dict[str, Tensor]
    errors: dict[str, list[float]]


def pretrain(
    cameras: Mapping[str, CameraEncoder],
    dataset: WindowDataset,
    held_out: WindowDataset,
    *,
    targets: Mapping[str, FeatureStatistics],
    settings: TrainingSettings,
    reconstruction: float,
    output_dir: Path,
) -> Pretrained:
    """Train the encoders of `cameras`, or go on where the run in `output_dir` was cut off.

    Args:
        cameras: untrained encoders by name of the camera.
        dataset, held_out: windows with a context of one step.
        targets: statistics of low-dimensional observed features of the windows, by name.
        settings: as for a policy.
        reconstruction: weight of the pictures' error.
        output_dir: where the state of the run is saved.
    """
    torch.manual_seed(settings.seed)
    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    names = list(targets)
    model = Pretraining(
        cameras,
        target_mean=np.concatenate([statistics.mean for statistics in targets.values()]),
        target_std=np.concatenate([statistics.std for statistics in targets.values()]),
        reconstruction=reconstruction,
    )
    average = AveragedModel(model, multi_avg_fn=averaging(settings.ema_decay))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    folder = output_dir / "training_state"
    bar = tqdm(range(load_training_state(folder, model, average, optimizer), settings.num_steps))
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, settings)
        indices = batch_indices(
            len(dataset), batch_size=settings.batch_size, seed=settings.seed, step=step
        )
        picture_error, target_error = _errors(model, dataset, indices, names, settings)
        optimizer.zero_grad()
        (reconstruction * picture_error + target_error).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_gradient_norm)
        optimizer.step()
        average.update_parameters(model)
        if (step + 1) % settings.log_every == 0:
            bar.set_postfix(pictures=f"{picture_error:.4f}", targets=f"{target_error:.4f}")
        if (step + 1) % settings.save_every == 0 or step + 1 == settings.num_steps:
            save_training_state(folder, step + 1, model, average, optimizer)
    return _measure(average.module.eval(), dataset, held_out, names)  # type: ignore[arg-type]


def _errors(
    model: Pretraining,
    dataset: WindowDataset,
    indices: np.ndarray,
    targets: list[str],
    settings: TrainingSettings,
) -> tuple[Tensor, Tensor]:
    batch = dataset.batch(indices)
    pictures = {name: torch.from_numpy(batch[name]) for name in model.cameras}
    is_mixed = settings.mixed_precision == "bf16"
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_mixed):
        return model(pictures, _targets(batch, targets))


def _targets(batch: Mapping[str, np.ndarray], names: list[str]) -> Tensor:
    """(B, T) the targets one after the other."""
    return torch.cat([torch.from_numpy(batch[n]).float().flatten(1) for n in names], dim=1)


@torch.no_grad()
def _measure(
    model: Pretraining, dataset: WindowDataset, held_out: WindowDataset, targets: list[str]
) -> Pretrained:
    """Moments of the features over training pictures, errors over held-out ones."""
    moments, errors = {}, {}
    for name, encoder in model.cameras.items():
        features = torch.cat(
            [encoder(torch.from_numpy(batch[name])).squeeze(1) for batch in _spread(dataset)]
        )
        std = features.std(0).clamp(min=MIN_STD)
        moments[name] = torch.stack([features.mean(0), std])
        squares = []
        for batch in _spread(held_out):
            wanted = (_targets(batch, targets) - model.target_mean) / model.target_std
            told = model.regressors[name](encoder(torch.from_numpy(batch[name])).squeeze(1))
            squares.append((told - wanted).square())
        rms = torch.cat(squares).mean(0).sqrt() * model.target_std
        errors[name] = [round(float(x), 5) for x in rms]
    cameras = dict(model.cameras.items())
    return Pretrained(cameras=cameras, moments=moments, errors=errors)  # type: ignore[arg-type]


def _spread(dataset: WindowDataset, *, num: int = 4000, size: int = 250) -> Iterator[Batch]:
    """Batches of `num` items spread evenly over the dataset."""
    indices = np.linspace(0, len(dataset) - 1, min(len(dataset), num)).astype(int)
    for first in range(0, len(indices), size):
        yield dataset.batch(indices[first : first + size])
