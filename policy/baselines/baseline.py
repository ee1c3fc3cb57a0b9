"""What the baselines share: encoders, normalisers, and drop-out of cameras in training.

They are told nothing of noise levels. A camera that is bad is either left standing at its last good
picture or, for a baseline trained with drop-out, shown as zeros.

B batch, W context steps, H horizon, A action size, F features of a camera.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from policy.baselines.memory import Memory
from policy.diffusion_forcing import LossTerms
from policy.noise_levels import ContextRule
from policy.normalizer import Normalizer
from policy.observation_encoder import CameraEncoder, encode_observation
from teleop_data.schema import Schema


@dataclass(frozen=True, kw_only=True)
class DropOut:
    """Stretches of training episodes in which cameras show nothing: their features are zeros.

    Stretches and gaps are as stationary as in `ContextRule`, so the newest picture is missing as
    often in a window of one step as in one of 180; those that last are not, since they begin within
    the episode. Before the episode's first step its first picture is repeated, and so is whether it
    is missing. The defaults are the shares and lengths of `recipe=swap`, but for what lasts.

    Attributes:
        share: share of windows with such stretches, drawn for each camera by itself.
        share_all: share in which all cameras are out in the same stretches.
        mean_length: mean length of a stretch in control steps.
        mean_gap: mean length between two stretches in control steps.
        lasting: share of the windows with stretches whose first stretch never ends.
        episode: control steps of an episode; windows without padding lie anywhere in it. None: an
            episode is as long as the window.
    """

    share: float = 0.2
    share_all: float = 0.45
    mean_length: float = 40.0
    mean_gap: float = 40.0
    lasting: float = 0.0
    episode: int | None = None

    def draw(self, is_padded: Tensor, cameras: int, *, generator: Generator) -> Tensor:
        """(B, W, cameras) bool, true where a camera shows nothing; `is_padded` (B, W) bool."""
        rule = ContextRule(
            slight=0.0, random=0.0, missing=self.share, missing_all=self.share_all,
            mean_outage=self.mean_length, mean_gap=self.mean_gap, lasting=self.lasting,
            action_slight=0.0, action_random=0.0, action_missing=0.0,
        )  # fmt: skip
        batch, context = is_padded.shape
        steps = max(context, self.episode or 0)
        is_out = rule.draw(batch, steps, cameras + 1, generator=generator)[..., :-1] > 0
        num_padded = is_padded.sum(1, keepdim=True).cpu()  # (B, 1)
        later = torch.randint(0, steps - context + 1, (batch, 1), generator=generator)
        first = torch.where(num_padded > 0, -num_padded, later)  # the window's, in the episode
        row = (first + torch.arange(context)).clamp(min=0)
        return is_out.gather(1, row.unsqueeze(-1).expand(-1, -1, cameras))


class Baseline(nn.Module, ABC):
    """A baseline's network and its loss. Holds no episode state.

    Args:
        schema: observed features and the action.
        normalizers: one per state feature and one for the action, by name.
        cameras: one encoder per camera, by name.
        horizon: H, actions of a plan, the first one for the step of the newest observation.
        context: W, control steps of a window.
        drop_out: of cameras in training; None: cameras are never missing there.

    Attributes:
        denoises: whether a plan begins as noise, which planning may scale by a temperature.
    """

    denoises = False

    def __init__(
        self,
        *,
        schema: Schema,
        normalizers: dict[str, Normalizer],
        cameras: dict[str, CameraEncoder],
        horizon: int,
        context: int,
        drop_out: DropOut | None = None,
    ) -> None:
        super().__init__()
        self.schema, self.horizon, self.context = schema, horizon, context
        self.normalizers, self.cameras = nn.ModuleDict(normalizers), nn.ModuleDict(cameras)
        self.drop_out = drop_out
        self.is_camera = [feature.role == "camera" for feature in schema.observed]
        self.feature_sizes = [
            cameras[f.name].feature_size
            if f.role == "camera"
            else normalizers[f.name].normalized_size
            for f in schema.observed
        ]

    @property
    def action_normalizer(self) -> Normalizer:
        """Of the action feature."""
        return self.normalizers[self.schema.action.name]  # type: ignore[return-value]

    @property
    def action_size(self) -> int:
        """A."""
        return self.action_normalizer.normalized_size

    @property
    def state_size(self) -> int:
        """Entries of all states of one control step."""
        return sum(n for n, is_camera in self._sizes() if not is_camera)

    @property
    def camera_size(self) -> int:
        """Features of all cameras of one control step."""
        return sum(n for n, is_camera in self._sizes() if is_camera)

    def _sizes(self) -> Iterator[tuple[int, bool]]:
        return zip(self.feature_sizes, self.is_camera, strict=True)

    def split(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Per observed source (..., F_s) -> all states and all cameras, each put side by side."""
        kinds: tuple[list[Tensor], list[Tensor]] = ([], [])
        for values, is_camera in zip(features, self.is_camera, strict=True):
            kinds[is_camera].append(values)
        empty = features[0][..., :0]
        return torch.cat([empty, *kinds[0]], dim=-1), torch.cat([empty, *kinds[1]], dim=-1)

    def encode(
        self, observation: dict[str, Tensor], *, generator: Generator | None = None
    ) -> list[Tensor]:
        """Observed features (B, W, *shape) -> one (B, W, F_s) at unit scale per observed source."""
        return encode_observation(
            self.schema,
            cameras=self.cameras,  # type: ignore[arg-type]
            normalizers=self.normalizers,  # type: ignore[arg-type]
            observation=observation,
            generator=generator,
        )

    def training_features(self, batch: dict[str, Tensor], generator: Generator) -> list[Tensor]:
        """`encode`, with cameras dropped out."""
        features = self.encode(batch, generator=generator)
        if self.drop_out is None or not any(self.is_camera):
            return features
        is_out = self.drop_out.draw(
            batch["observation_is_padded"], sum(self.is_camera), generator=generator
        )
        columns = iter(is_out.to(features[0].device).unbind(-1))
        return [
            values.masked_fill(next(columns).unsqueeze(-1), 0.0) if is_camera else values
            for values, is_camera in zip(features, self.is_camera, strict=True)
        ]

    def forward(self, batch: dict[str, Tensor], *, generator: Generator) -> LossTerms:
        """`loss`, under the name that wrappers for many processes call."""
        return self.loss(batch, generator=generator)

    @abstractmethod
    def loss(self, batch: dict[str, Tensor], *, generator: Generator) -> LossTerms:
        """The loss of one batch of windows (see `teleop_data.dataset`)."""

    @abstractmethod
    def start_memory(self, batch: int) -> Memory:
        """What `batch` episodes keep from their start on, and how they plan from it."""


def plain_loss(loss: Tensor) -> LossTerms:
    """A loss that says nothing about noise levels."""
    nothing = torch.zeros(0)
    return LossTerms(loss, nothing, nothing, nothing.bool())


@contextmanager
def global_noise(generator: Generator, device: torch.device) -> Iterator[None]:
    """Torch's global generators follow `generator` inside, for code that draws from them."""
    seed = int(torch.randint(2**62, (), generator=generator))
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
