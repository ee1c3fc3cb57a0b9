"""Sampling: a function over a scheduling matrix, every token at its own level.

`denoise` is the only thing here that costs a network call: (plan (B, H, A), levels (B, H)) ->
the clean estimate (B, H, A).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from policy.noise_schedule import NoiseSchedule, log_ratio, to_noise

Denoise = Callable[[Tensor, Tensor], Tensor]


def ddim_step(
    schedule: NoiseSchedule,
    *,
    x_k: Tensor,
    clean: Tensor,
    k: Tensor,
    k_next: Tensor,
    eta: float = 0.0,
    noise: Tensor | None = None,
) -> Tensor:
    """One step per token from level k to k_next <= k (Song et al. 2021, eq. 12, per token).

    Args:
        x_k: (B, H, A) plan at levels `k` (B, H).
        clean: (B, H, A) the network's clean estimate.
        k_next: (B, H); a token that does not move is copied.
        eta: 0 deterministic, 1 as stochastic as DDPM.
        noise: (B, H, A), needed if eta > 0.
    """
    alpha_next, sigma_next = (f(k_next).unsqueeze(-1) for f in (schedule.alpha, schedule.sigma))
    eps = to_noise(schedule, clean=clean, x_k=x_k, k=k)
    churn = torch.zeros_like(sigma_next)
    if eta > 0:
        if noise is None:
            raise ValueError("eta > 0 needs noise")
        alpha, sigma = (f(k).unsqueeze(-1) for f in (schedule.alpha, schedule.sigma))
        ratio = (alpha * sigma_next / (sigma * alpha_next)).clamp(max=1)
        churn = eta * sigma_next * (1 - ratio**2).clamp(min=0).sqrt()
        churn = torch.nan_to_num(churn)
    x_next = alpha_next * clean + (sigma_next**2 - churn**2).clamp(min=0).sqrt() * eps
    if noise is not None:
        x_next = x_next + churn * noise
    return torch.where((k_next < k).unsqueeze(-1), x_next, x_k)


def second_order_step(
    schedule: NoiseSchedule,
    *,
    x_k: Tensor,
    clean: Tensor,
    previous: Tensor,
    k_previous: Tensor,
    k: Tensor,
    k_next: Tensor,
) -> Tensor:
    """DPM-Solver++(2M) per token (Lu et al. 2022), from each slot's last clean estimate.

    `previous` (B, H, A) was estimated at level `k_previous` (B, H); slots that have none carry
    k_previous = k and take the first-order step, as does the last step to clean.
    """
    lam, lam_next = log_ratio(schedule, k), log_ratio(schedule, k_next)
    h, h_previous = lam_next - lam, lam - log_ratio(schedule, k_previous)
    has_previous = (h_previous > 1e-6) & (k_previous < 1) & (k_next > 0) & (h > 1e-6)
    r = torch.where(has_previous, h_previous / h.clamp(min=1e-6), torch.ones_like(h))
    corrected = clean + (clean - previous) / (2 * r.unsqueeze(-1))
    estimate = torch.where(has_previous.unsqueeze(-1), corrected, clean)
    return ddim_step(schedule, x_k=x_k, clean=estimate, k=k, k_next=k_next)


def sample(denoise: Denoise, x: Tensor, matrix: np.ndarray, *, schedule: NoiseSchedule) -> Tensor:
    """Carry x (B, H, A) at the matrix's first row of levels down to its last, one call a row.

    Args:
        denoise: the network.
        x: (B, H, A), tokens at `matrix[0]`; a token that is clean in row 0 stays as it is.
        matrix: (S + 1, H) levels in [0, 1].
        schedule: noise schedule of the levels.
    """
    rows = torch.as_tensor(matrix, dtype=x.dtype, device=x.device)
    if rows.ndim != 2 or rows.shape[1] != x.shape[1]:
        raise ValueError(f"matrix {tuple(rows.shape)} does not fit a plan of {x.shape[1]} slots")
    for k, k_next in zip(rows[:-1], rows[1:], strict=True):
        k, k_next = k.expand(x.shape[:2]), k_next.expand(x.shape[:2])
        x = ddim_step(schedule, x_k=x, clean=denoise(x, k), k=k, k_next=k_next)
    return x
