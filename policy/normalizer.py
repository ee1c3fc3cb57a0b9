"""Normalisation of states and actions to unit scale, and back. Part of the model, saved with it.

Angles become their sine and cosine, everything else is scaled to [-1, 1] by the training episodes'
range (or their 1 to 99 % quantiles, or mean and standard deviation). Pictures are not touched.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from teleop_data.schema import Feature
from teleop_data.statistics import FeatureStatistics

Scaling = Literal["range", "quantile", "standard"]
SMALLEST_SCALE = 1e-6  # an entry that never changes is only shifted
CLIP = 1.5  # quantile scaling leaves outliers; beyond this they carry no more information


class Normalizer(nn.Module):
    """One feature's flat (..., D) values to (..., E) and back; E = D + number of angles."""

    offset: Tensor
    scale: Tensor

    def __init__(
        self, feature: Feature, statistics: FeatureStatistics, *, scaling: Scaling = "range"
    ) -> None:
        super().__init__()
        size = int(np.prod(feature.shape))
        if len(statistics.minimum) != size:
            raise ValueError(
                f"feature {feature.name!r} has {size} entries, its statistics "
                f"{len(statistics.minimum)}"
            )
        self.size, self.scaling = size, scaling
        self.angles = list(feature.angles)
        self.plain = [i for i in range(size) if i not in feature.angles]
        offset, scale = _offset_and_scale(statistics, scaling)
        self.register_buffer("offset", torch.tensor(offset, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    @property
    def normalized_size(self) -> int:
        """E."""
        return self.size + len(self.angles)

    def normalize(self, values: Tensor) -> Tensor:
        """(..., D) in the feature's unit -> (..., E) at unit scale, plain entries first."""
        values = values.float()
        scaled = (values - self.offset) / self.scale
        if self.scaling == "quantile":
            scaled = scaled.clamp(-CLIP, CLIP)
        if not self.angles:
            return scaled
        angles = values[..., self.angles]
        return torch.cat([scaled[..., self.plain], angles.sin(), angles.cos()], dim=-1)

    def unnormalize(self, normalized: Tensor) -> Tensor:
        """The inverse; only for features without angles (ValueError otherwise)."""
        if self.angles:
            raise ValueError("a feature with angles is an input only; it has no inverse")
        return normalized * self.scale + self.offset


def _offset_and_scale(
    statistics: FeatureStatistics, scaling: Scaling
) -> tuple[np.ndarray, np.ndarray]:
    if scaling == "standard":
        std = statistics.std
        return statistics.mean, np.where(std > SMALLEST_SCALE, std, 1.0)
    ends = {
        "range": (statistics.minimum, statistics.maximum),
        "quantile": (statistics.q01, statistics.q99),
    }
    if scaling not in ends:
        raise ValueError(f"no scaling {scaling!r}; have: range, quantile, standard")
    low, high = ends[scaling]
    half = (high - low) / 2
    return (low + high) / 2, np.where(half > SMALLEST_SCALE, half, 1.0)
