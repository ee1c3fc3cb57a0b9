"""Noise schedules: noise level k in [0, 1] -> (alpha, sigma), with x_k = alpha x + sigma eps.

Also what a network may predict (the clean value x0, the noise, the velocity) and the exact
conversions between them. Everything works per token: k has the shape of the tokens.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol

import torch
from torch import Tensor

Prediction = Literal["x0", "v", "epsilon"]


class NoiseSchedule(Protocol):
    """Signal and noise scale at a level, and the velocity's coefficients."""

    def alpha(self, k: Tensor) -> Tensor:
        """Signal scale, 1 at k = 0."""
        ...

    def sigma(self, k: Tensor) -> Tensor:
        """Noise scale, 0 at k = 0."""
        ...

    def velocity_coefficients(self, k: Tensor) -> tuple[Tensor, Tensor]:
        """(a, b) of the velocity v = a eps - b x."""
        ...


class LinearPath:
    """The flow-matching path: alpha = 1 - k, sigma = k, v = eps - x."""

    def alpha(self, k: Tensor) -> Tensor:
        """1 - k."""
        return 1 - k

    def sigma(self, k: Tensor) -> Tensor:
        """k itself."""
        return k

    def velocity_coefficients(self, k: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 1)."""
        return torch.ones_like(k), torch.ones_like(k)


class VariancePreserving:
    """alpha^2 + sigma^2 = 1 from a table of K steps, linear in alpha^2 between its entries.

    The table has K + 1 entries: entry 0 is exactly clean, entry j is the reference code's array
    index j - 1. v = alpha eps - sigma x (Salimans & Ho 2022).
    """

    def __init__(
        self, kind: Literal["cosine", "linear", "sigmoid"] = "cosine", num_levels: int = 1000
    ) -> None:
        tables = {"cosine": _cosine, "linear": _linear, "sigmoid": _sigmoid}
        if kind not in tables:
            raise ValueError(f"no schedule {kind!r}; have: {', '.join(tables)}")
        self.num_levels = num_levels
        clean = torch.ones(1, dtype=torch.float64)
        self.alpha_squared = torch.cat([clean, tables[kind](num_levels)])  # (K + 1,)

    def _alpha_squared_at(self, k: Tensor) -> Tensor:
        position = k.double().clamp(0, 1) * self.num_levels
        low = position.floor().clamp(max=self.num_levels - 1)
        table = self.alpha_squared.to(k.device)
        weight = position - low
        return (1 - weight) * table[low.long()] + weight * table[low.long() + 1]

    def alpha(self, k: Tensor) -> Tensor:
        """Square root of the signal power."""
        return self._alpha_squared_at(k).sqrt().to(k.dtype)

    def sigma(self, k: Tensor) -> Tensor:
        """Square root of the noise power."""
        return (1 - self._alpha_squared_at(k)).clamp(min=0).sqrt().to(k.dtype)

    def velocity_coefficients(self, k: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma)."""
        return self.alpha(k), self.sigma(k)


def _cosine(num_levels: int, s: float = 0.008) -> Tensor:
    """Nichol & Dhariwal 2021, eq. 17, with each step's beta at most 0.999."""
    t = torch.linspace(0, 1, num_levels + 1, dtype=torch.float64)
    return _with_bounded_beta(torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2)


def _linear(num_levels: int) -> Tensor:
    """Ho et al. 2020: beta from 1e-4 to 2e-2 at K = 1000, scaled to other K."""
    scale = 1000 / num_levels
    beta = torch.linspace(scale * 1e-4, scale * 2e-2, num_levels, dtype=torch.float64)
    return torch.cumprod(1 - beta.clamp(max=0.999), 0)


def _sigmoid(num_levels: int, start: float = -3.0, end: float = 3.0) -> Tensor:
    """Jabri et al. 2022, temperature 1."""
    t = torch.linspace(0, 1, num_levels + 1, dtype=torch.float64)
    return _with_bounded_beta(_logistic(end) - torch.sigmoid(t * (end - start) + start))


def _logistic(x: float) -> float:
    """The logistic function of a float."""
    return 1 / (1 + math.exp(-x))


def _with_bounded_beta(curve: Tensor) -> Tensor:
    """(K,) cumulated signal power along a (K + 1,) curve, with beta = 1 - ratio in [0, 0.999]."""
    beta = (1 - curve[1:] / curve[:-1]).clamp(0, 0.999)
    return torch.cumprod(1 - beta, 0)


def snr(schedule: NoiseSchedule, k: Tensor) -> Tensor:
    """Signal-to-noise ratio alpha^2 / sigma^2; infinite at k = 0."""
    return schedule.alpha(k) ** 2 / schedule.sigma(k) ** 2


def log_ratio(schedule: NoiseSchedule, k: Tensor) -> Tensor:
    """lambda = ln(alpha / sigma), clamped to +-15 so that the ends stay finite."""
    tiny = torch.finfo(k.dtype).tiny
    alpha, sigma = schedule.alpha(k).clamp(min=tiny), schedule.sigma(k).clamp(min=tiny)
    return (alpha.log() - sigma.log()).clamp(-15, 15)


def add_noise(schedule: NoiseSchedule, x: Tensor, noise: Tensor, k: Tensor) -> Tensor:
    """x_k for x (..., D) and k (...): exactly x at k = 0; on the linear path the noise at k = 1."""
    alpha, sigma = schedule.alpha(k).unsqueeze(-1), schedule.sigma(k).unsqueeze(-1)
    return alpha * x + sigma * noise


def expected_clean(schedule: NoiseSchedule, x_k: Tensor, k: Tensor) -> Tensor:
    """E[x | x_k] for x_k (..., D) and k (...) if x were unit Gaussian: x at 0, nothing at 1.

    The Wiener filter alpha / (alpha^2 + sigma^2); also the skip scale of Karras et al. 2022,
    table 1, for data of unit variance.
    """
    alpha, sigma = schedule.alpha(k), schedule.sigma(k)
    return (alpha / (alpha**2 + sigma**2)).unsqueeze(-1) * x_k


def prediction_target(
    schedule: NoiseSchedule, prediction: Prediction, *, x: Tensor, noise: Tensor, k: Tensor
) -> Tensor:
    """What a perfect network of this prediction type would output, (..., D)."""
    if prediction == "x0":
        return x
    if prediction == "epsilon":
        return noise
    a, b = schedule.velocity_coefficients(k)
    return a.unsqueeze(-1) * noise - b.unsqueeze(-1) * x


def to_clean(
    schedule: NoiseSchedule, prediction: Prediction, *, output: Tensor, x_k: Tensor, k: Tensor
) -> Tensor:
    """The clean value that a network output stands for, (..., D).

    An epsilon output says nothing about x at pure noise; alpha is floored at 1e-4 there.
    """
    if prediction == "x0":
        return output
    alpha, sigma = schedule.alpha(k).unsqueeze(-1), schedule.sigma(k).unsqueeze(-1)
    if prediction == "epsilon":
        return (x_k - sigma * output) / alpha.clamp(min=1e-4)
    a, b = (c.unsqueeze(-1) for c in schedule.velocity_coefficients(k))
    return (a * x_k - sigma * output) / (a * alpha + b * sigma)


def to_noise(schedule: NoiseSchedule, *, clean: Tensor, x_k: Tensor, k: Tensor) -> Tensor:
    """The noise that x_k and a clean value imply, (..., D); 0 at k = 0, where none is defined."""
    alpha, sigma = schedule.alpha(k).unsqueeze(-1), schedule.sigma(k).unsqueeze(-1)
    noise = (x_k - alpha * clean) / sigma.clamp(min=1e-12)
    return torch.where(sigma > 0, noise, torch.zeros_like(noise))
