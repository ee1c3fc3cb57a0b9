"""Reaction time to a target that jumps, from where the hand was sent at each control step.

Double-step experiments measure it alike: the onset of the sideways correction, found backwards from
where the correction is certain (Oostwoud Wijdenes, Brenner and Smeets, Analysis of methods to
determine the latency of online movement adjustments, Behavior Research Methods 2014).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FOLLOWED = 0.5  # share of the jump's sideways part after which the hand has surely followed
ONSET = 0.5  # share of the correction's greatest speed at which it begins
ON_THE_SPOT_M = 0.02  # nearer than this to the old place, every motion away from it is sideways
MIN_ACROSS = 0.3  # share of the jump that must be across the way


@dataclass(frozen=True, kw_only=True)
class Jump:
    """A target's jump on the table.

    Attributes:
        step: control step at whose beginning it starts; the action of this step cannot know.
        from_, to: (2,) m.
    """

    step: int
    from_: tuple[float, float]
    to: tuple[float, float]


def reaction_time_s(commanded: np.ndarray, *, jump: Jump, rate_hz: float) -> float | None:
    """From the jump's start to the start of the control step that turns towards the new place, s.

    Only what is commanded across the straight way to the old place counts: along that way a hand
    that noticed nothing moves too. With c_t (2,) where the hand is sent by control step t, s the
    jump's step, and n (2,) the unit vector across the way from c_{s-1} to the old place, on the
    side of the new one:

        sideways      y_t = n . (c_t - c_{s-1})
        followed      the first step f with y_f >= FOLLOWED * n . (new - old)
        speed         v_t = y_t - y_{t-1},  V = max of v_s .. v_f
        reaction      the first step r such that v_r .. v_f' >= ONSET * V, f' the step of V

    The time is (r - s) / rate_hz: 0 would be foresight, one control step is the least that who sees
    can do, and sensing, inference and waiting add to it. A correction that is itself spread out,
    as a hand near by follows the target's own motion, counts from its half speed.

    Args:
        commanded: (T, 2) m; row 0 is the start, row t what control step t commands.
        jump: what to react to.
        rate_hz: control steps per second.

    Returns:
        None if the hand was never sent far enough to the new place's side, or if the jump was so
        nearly along its way that nothing would tell.
    """
    before = commanded[jump.step - 1]
    across = _across(before, jump)
    length = float(np.linalg.norm(across))
    sideways = (commanded[jump.step - 1 :] - before) @ across / max(length, 1e-9)
    followed = np.flatnonzero(sideways >= FOLLOWED * length)
    if length < MIN_ACROSS * np.linalg.norm(np.subtract(jump.to, jump.from_)) or not len(followed):
        return None
    speed = np.diff(sideways[: followed[0] + 1])
    fastest = int(speed.argmax())
    slow = np.flatnonzero(speed[:fastest] < ONSET * speed[fastest])
    onset = slow[-1] + 1 if len(slow) else 0
    return float(onset / rate_hz)


def _across(hand: np.ndarray, jump: Jump) -> np.ndarray:
    """(2,) m, the part of the jump that is across the way from `hand` to the old place."""
    leap, way = np.subtract(jump.to, jump.from_), np.subtract(jump.from_, hand)
    distance = float(np.linalg.norm(way))
    if distance < ON_THE_SPOT_M:
        return leap
    return leap - (leap @ way) / distance**2 * way
