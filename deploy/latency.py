"""Latency: percentiles for reports, and the delay that the next request announces.

Delay is counted in control steps: from the step of an observation to the step at which its plan
could first be used. What a policy must keep decided is the delay that really comes, so the
estimate is a high percentile of recent ones; neither their mean (half the plans would come late)
nor the maximum ever seen (one stall would last for ever).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np


def percentiles(samples: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99, max and the number of `samples`; all 0 where there are none."""
    if not samples:
        return {"p50": 0.0, "p90": 0.0, "p99": 0.0, "max": 0.0, "num": 0}
    p50, p90, p99 = np.percentile(np.asarray(samples, np.float64), [50, 90, 99])
    return {
        "p50": float(p50),
        "p90": float(p90),
        "p99": float(p99),
        "max": float(max(samples)),
        "num": len(samples),
    }


class DelayEstimator:
    """Estimates the delay of the next plan from those of recent ones.

    Args:
        initial: estimate in control steps before anything was measured. 1 is the least that a loop
            which never waits can see; 0 is for virtual time.
        quantile: share of recent delays that the estimate covers.
        window: how many recent delays count.
    """

    def __init__(self, initial: int = 1, *, quantile: float = 0.95, window: int = 50) -> None:
        if initial < 0 or not 0 < quantile <= 1 or window < 1:
            raise ValueError(
                f"initial {initial} (>= 0), quantile {quantile} in (0, 1], window {window} (>= 1)"
            )
        self._initial, self._quantile = initial, quantile
        self._recent: deque[int] = deque(maxlen=window)

    def add(self, delay: int) -> None:
        """Take in one measured delay in control steps. Leave out the first plan of an episode."""
        if delay < 0:
            raise ValueError(f"a plan does not come before its observation: delay {delay}")
        self._recent.append(delay)

    @property
    def estimate(self) -> int:
        """The smallest recent delay that at least `quantile` of the recent ones do not exceed."""
        if not self._recent:
            return self._initial
        # the epsilon keeps 0.95 * 20 = 19.000000000000004 from becoming the 20th
        rank = math.ceil(self._quantile * len(self._recent) - 1e-9)
        return sorted(self._recent)[rank - 1]
