"""Scheduling matrices: the noise level of each token at each sampling step, (S + 1, T) in [0, 1].

Row 0 is pure noise, the last row clean; a column never rises. A row is one network call.

    full sequence      pyramid            autoregressive
    1  1  1            1  1  1            1  1  1
    .5 .5 .5           .5 1  1            .5 1  1
    0  0  0            0  .5 1            0  1  1  ...

And the staircase that a rolling plan stands on between calls (`Staircase`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def scheduling_matrix(
    num_levels: int, num_tokens: int, *, uncertainty_scale: float = 0.0
) -> np.ndarray:
    """K[m, t] = clip(S + floor(t u) - m, 0, S) / S (Diffusion Forcing, appendix and code).

    Args:
        num_levels: S, levels from pure noise to clean.
        num_tokens: T.
        uncertainty_scale: u; 0 is full sequence, 1 the pyramid, S autoregressive.

    Returns:
        (S + floor((T - 1) u) + 1, T) float64.
    """
    return _matrix(num_levels, np.floor(np.arange(num_tokens) * uncertainty_scale))


def full_sequence(num_levels: int, num_tokens: int) -> np.ndarray:
    """All tokens together: (S + 1, T)."""
    return scheduling_matrix(num_levels, num_tokens)


def pyramid(num_levels: int, num_tokens: int, *, uncertainty_scale: float = 1.0) -> np.ndarray:
    """Later tokens later: (S + T, T) at scale 1."""
    return scheduling_matrix(num_levels, num_tokens, uncertainty_scale=uncertainty_scale)


def autoregressive(num_levels: int, num_tokens: int) -> np.ndarray:
    """One token after the other: (S T + 1, T)."""
    return scheduling_matrix(num_levels, num_tokens, uncertainty_scale=num_levels)


def trapezoid(num_levels: int, num_tokens: int, *, uncertainty_scale: float = 1.0) -> np.ndarray:
    """Both ends first, the middle last: for a known start and a known goal."""
    t = np.arange(num_tokens)
    return _matrix(num_levels, np.floor(np.minimum(t, num_tokens - 1 - t) * uncertainty_scale))


def _matrix(num_levels: int, wait: np.ndarray) -> np.ndarray:
    """Levels over S + max(wait) calls when token t waits `wait[t]` calls before it starts."""
    if num_levels < 1 or len(wait) < 1:
        raise ValueError(f"need at least 1 level and 1 token, got {num_levels} and {len(wait)}")
    m = np.arange(num_levels + int(wait.max()) + 1)[:, None]
    return np.clip(num_levels + wait[None, :] - m, 0, num_levels) / num_levels


@dataclass(frozen=True, kw_only=True)
class Staircase:
    """Levels of a rolling plan before a call, u_p = clip((q_p - c + o) / R, 0, 1).

    q_p is slot p's distance from now, rounded down to the start of its block of `block` control
    steps; with block 1 it is p. One family holds RNR-DP (c=0, e=1, o=1, R=H), pi R^2 (c=e=d, o=0,
    R=H-2d), training-time RTC (d=H/2), and, with larger blocks, streaming chunks (SDP).

    block 1, R 8:  |.1 .2 .4 .5 .6 .8 .9 1 |   block 4, R 4, one step into it:  |0 0 0 1 1 1 1|

    Attributes:
        ramp: R, slots over which the level rises from clean to pure noise.
        committed: c, slots in flight at the front that are already decided.
        per_call: e, control steps between calls; each call moves every slot by e places.
        offset: o; 1 decides slot c in the very call before it is used, 0 one call earlier.
        block: control steps that are decided together.
        last_level: level from which a slot is decided in its last call, 1 / R if None. A higher one
            lets the newest observation still move a plan whose mode was chosen calls before.
    """

    ramp: int
    committed: int = 0
    per_call: int = 1
    offset: int = 1
    block: int = 1
    last_level: float | None = None

    def __post_init__(self) -> None:
        if min(self.ramp, self.per_call, self.block) < 1 or self.committed < 0:
            raise ValueError(f"need ramp, per_call, block >= 1 and committed >= 0, got {self}")
        if self.offset not in (0, 1):
            raise ValueError(f"offset is 0 or 1, got {self.offset}")
        if self.last_level is not None and not 0 < self.last_level <= 1:
            raise ValueError(f"last_level lies in (0, 1], got {self.last_level}")

    def levels(self, horizon: int, *, step: int) -> np.ndarray:
        """(H,) levels before the call at control step `step`, which fixes where blocks begin."""
        return self._levels_at(np.arange(horizon), step=step)

    def targets(self, horizon: int, *, step: int) -> np.ndarray:
        """(H,) levels of the same slots after that call: where they will stand at step + e."""
        after = self._levels_at(np.arange(horizon) - self.per_call, step=step + self.per_call)
        after[: self.committed + self.per_call] = 0.0
        return after

    def _levels_at(self, p: np.ndarray, *, step: int) -> np.ndarray:
        phase = step % self.block
        q = np.floor_divide(p + phase, self.block) * self.block - phase
        return ramp_levels(
            q - self.committed + self.offset, ramp=self.ramp, last_level=self.last_level
        )


def ramp_levels(calls_left: np.ndarray, *, ramp: int, last_level: float | None) -> np.ndarray:
    """Level of a slot with so many calls left: 0 at none, `last_level` at one, 1 from `ramp` on."""
    if last_level is None or ramp == 1:
        return np.clip(calls_left / ramp, 0.0, 1.0)
    rising = last_level + (1 - last_level) * (calls_left - 1) / (ramp - 1)
    return np.where(calls_left <= 0, 0.0, np.clip(rising, 0.0, 1.0))
