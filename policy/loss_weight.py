"""Loss weights on the squared error of the clean value, per token.

Whatever the network predicts, its loss is a weight on |x - x0_hat|^2, because
|eps - eps_hat|^2 = SNR |x - x0_hat|^2 and |v - v_hat|^2 = (SNR + 1) |x - x0_hat|^2 (flow: 1 / k^2).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from policy.noise_schedule import NoiseSchedule, Prediction, snr

TINY_LEVEL = 1e-3  # below this SNR would overflow; such tokens carry no loss


class LossWeight(Protocol):
    """(schedule, levels (B, T)) -> weights (B, T) on the clean value's squared error."""

    def __call__(self, schedule: NoiseSchedule, k: Tensor) -> Tensor:
        """The weights."""
        ...


class CappedVelocity:
    """The velocity's loss, 1 / sigma^2, held inside [floor, cap].

    Pure-noise tokens keep weight `floor`, on which one-step and rolling sampling depend.
    """

    def __init__(self, cap: float = 25.0, floor: float = 1.0) -> None:
        self.cap, self.floor = cap, floor

    def __call__(self, schedule: NoiseSchedule, k: Tensor) -> Tensor:
        """1 / sigma^2, clamped."""
        sigma = schedule.sigma(k.clamp(min=TINY_LEVEL))
        return (1 / sigma**2).clamp(self.floor, self.cap)


class Constant:
    """One weight for every level: the paper's choice for planning and imitation."""

    def __init__(self, value: float = 1.0) -> None:
        self.value = value

    def __call__(self, schedule: NoiseSchedule, k: Tensor) -> Tensor:
        """`value` everywhere."""
        return torch.full_like(k, self.value)


class MinSnr:
    """min(SNR, cap) (Hang et al. 2023). Gives pure-noise tokens no gradient."""

    def __init__(self, cap: float = 5.0) -> None:
        self.cap = cap

    def __call__(self, schedule: NoiseSchedule, k: Tensor) -> Tensor:
        """min(SNR, cap)."""
        return snr(schedule, k.clamp(min=TINY_LEVEL)).clamp(max=self.cap)


def fused_snr(signal: Tensor, clipped: Tensor, *, gamma: float) -> tuple[Tensor, Tensor]:
    """(F_clip, F_raw), both (B, T): each token's SNR fused with its past's, as the code has it.

    `signal` is SNR / cap, `clipped` is min(signal, 1). The released code multiplies the running
    mean by gamma once more than the paper's appendix B.1; this follows the code.
    """
    mean = torch.zeros_like(clipped)  # of the past only, token 0 has none
    running = clipped[..., 0]
    for t in range(1, clipped.shape[-1]):
        mean[..., t] = running
        running = gamma * running + (1 - gamma) * clipped[..., t]
    past = 1 - gamma * mean
    return 1 - past * (1 - clipped), 1 - past * (1 - signal)


class FusedSnr:
    """Diffusion Forcing's fused SNR weight (as in its code), for each prediction type."""

    def __init__(self, prediction: Prediction, cap: float = 5.0, gamma: float = 0.9) -> None:
        self.prediction, self.cap, self.gamma = prediction, cap, gamma

    def __call__(self, schedule: NoiseSchedule, k: Tensor) -> Tensor:
        """The weight, moved from the prediction's own error to the clean value's."""
        ratio = snr(schedule, k.clamp(min=TINY_LEVEL))
        signal = ratio / self.cap
        fused, raw = fused_snr(signal, signal.clamp(max=1), gamma=self.gamma)
        if self.prediction == "x0":
            return self.cap * fused
        if self.prediction == "epsilon":
            return ratio * fused / raw.clamp(min=1e-12)
        return (ratio + 1) * self.cap * fused / (self.cap * raw + 1)
