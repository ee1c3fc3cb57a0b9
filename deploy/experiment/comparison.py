"""Comparisons of two policies, or of two conditions, on the same seeds.

Differences have Newcombe's score interval for paired proportions (Statistics in Medicine 17, 1998,
method 10), which is honest where nearly all episodes succeed. Ratios have a percentile bootstrap
that resamples seeds; where every episode of both succeeds it knows no uncertainty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deploy.results import success_interval

NUM_RESAMPLES, SEED = 10_000, 0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval, from `num` pairs."""

    value: float
    low: float
    high: float
    num: int

    def in_points(self) -> str:
        """A difference of shares in words."""
        value, low, high = (100 * x for x in (self.value, self.low, self.high))
        return f"{value:+.0f} points [{low:+.0f}, {high:+.0f}]"

    def as_ratio(self) -> str:
        """A ratio in words."""
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def difference(one: np.ndarray, other: np.ndarray) -> Estimate:
    """Mean of `one` minus mean of `other`, both (n,) bool, pair by pair. ValueError if n is 0."""
    num = _num_pairs(one, other)
    both, only_one = int((one & other).sum()), int((one & ~other).sum())
    only_other = int((~one & other).sum())
    neither = num - both - only_one - only_other
    p, q = (both + only_one) / num, (both + only_other) / num
    (p_low, p_high), (q_low, q_high) = (
        success_interval(both + only, num) for only in (only_one, only_other)
    )
    phi = _correlation(both, only_one, only_other, neither)
    down = _length(p - p_low, q_high - q, phi)
    up = _length(p_high - p, q - q_low, phi)
    return Estimate(value=p - q, low=p - q - down, high=p - q + up, num=num)


def _correlation(both: int, only_one: int, only_other: int, neither: int) -> float:
    """Of the pairs, corrected for continuity towards 0."""
    num = both + only_one + only_other + neither
    margins = (
        (both + only_one) * (only_other + neither) * (both + only_other) * (only_one + neither)
    )
    if margins == 0:
        return 0.0
    product = both * neither - only_one * only_other
    if product > 0:
        product = max(product - num / 2, 0)
    return product / margins**0.5


def _length(a: float, b: float, phi: float) -> float:
    """Of the sum of two deviations that correlate by `phi`."""
    return max(a * a - 2 * phi * a * b + b * b, 0.0) ** 0.5


def ratio(one: np.ndarray, other: np.ndarray) -> Estimate | None:
    """Mean of `one` over mean of `other`, both (n,) bool; None if `other` never succeeded."""
    num = _num_pairs(one, other)
    if not other.any():
        return None
    rng = np.random.default_rng(SEED)
    rows = rng.integers(num, size=(NUM_RESAMPLES, num))
    above, below = one[rows].mean(axis=1), other[rows].mean(axis=1)
    values = above[below > 0] / below[below > 0]
    low, high = np.percentile(values, [2.5, 97.5])
    value = float(one.mean() / other.mean())
    return Estimate(value=value, low=float(low), high=float(high), num=num)


def _num_pairs(one: np.ndarray, other: np.ndarray) -> int:
    if one.shape != other.shape or one.ndim != 1 or not len(one):
        raise ValueError(f"got {one.shape} and {other.shape}, expected pairs, at least one")
    return len(one)
