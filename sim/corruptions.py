"""Corruptions: what a source delivers while it is bad.

A corruption belongs to one source and one episode. It sees every control step's true value, good
times included (a frozen or late source needs the past), and answers with what arrives:

    true value   o0  o1  o2  o3  o4  o5         bad at steps 2, 3, 4
    frozen       o0  o1  o1  o1  o1  o5
    late by 2    o0  o1  o0  o1  o2  o5
    dropped      o0  o1   .   .   .  o5
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from teleop_data.schema import Feature


class Corruption(Protocol):
    """One source's fault in one episode."""

    def deliver(self, value: np.ndarray, *, is_bad: bool) -> np.ndarray | None:
        """What arrives in place of the true `value`; None if nothing does.

        Called once a control step, in order. Gives `value` itself, the same object, where the fault
        has no effect yet; never changes it in place.
        """
        ...


class Black:
    """All zeros: a covered lens, an encoder that reads nothing."""

    def deliver(self, value: np.ndarray, *, is_bad: bool) -> np.ndarray:
        """Zeros while bad."""
        return np.zeros_like(value) if is_bad else value


class Frozen:
    """The last good value again and again. Bad from the first step on, that step's own value."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None

    def deliver(self, value: np.ndarray, *, is_bad: bool) -> np.ndarray:
        """The newest value from before the fault while bad."""
        if not is_bad or self._last is None:
            self._last = value
        return self._last


class Noise:
    """Gaussian noise, drawn anew at every control step."""

    def __init__(self, *, std: float | Sequence[float], rng: np.random.Generator) -> None:
        """`std` in the feature's unit (grey levels for cameras), for all entries or each."""
        self._std, self._rng = np.asarray(std, np.float64), rng

    def deliver(self, value: np.ndarray, *, is_bad: bool) -> np.ndarray:
        """The value plus noise while bad, rounded and clipped for cameras."""
        if not is_bad:
            return value
        noisy = value + self._rng.normal(0.0, self._std, size=value.shape)
        if value.dtype == np.uint8:
            noisy = np.clip(np.rint(noisy), 0, 255)
        return noisy.astype(value.dtype)


class Patch:
    """A grey rectangle before the camera, fixed or moving and bouncing off the borders."""

    def __init__(
        self, feature: Feature, *, share: float, speed: float, rng: np.random.Generator
    ) -> None:
        """A patch with `share` of each side's length, moving by `speed` pixels a control step."""
        self._side = np.maximum(np.rint(share * np.array(feature.shape[:2])), 1)  # rows, columns
        self._room = np.array(feature.shape[:2]) - self._side
        self._start = rng.uniform(0, 1, size=2) * self._room
        angle = rng.uniform(0, 2 * np.pi)
        self._velocity = speed * np.array([np.sin(angle), np.cos(angle)])
        self._age = 0

    def deliver(self, value: np.ndarray, *, is_bad: bool) -> np.ndarray:
        """The picture with the patch over it while bad; the patch moves then only."""
        if not is_bad:
            return value
        position = _bounce(self._start + self._age * self._velocity, room=self._room)
        (top, left), (height, width) = np.rint(position).astype(int), self._side.astype(int)
        self._age += 1
        covered = value.copy()
        covered[top : top + height, left : left + width] = 127
        return covered


def _bounce(position: np.ndarray, *, room: np.ndarray) -> np.ndarray:
    """`position` folded into [0, room], as a billiard ball's path is."""
    period = np.maximum(2 * room, 1)
    return np.minimum(np.abs((position + room) % period - room), room)


class Dropped:
    """Nothing arrives."""

    def deliver(self, value: np.ndarray, *, is_bad: bool) -> np.ndarray | None:
        """None while bad."""
        return None if is_bad else value


class Late:
    """The value of `delay` control steps ago; the episode's first where there is none so old.

    `age_steps` says how old the value delivered last was.
    """

    def __init__(self, *, delay: int) -> None:
        """`delay` in control steps, at least 1."""
        self._past: deque[np.ndarray] = deque(maxlen=delay + 1)
        self.age_steps = 0

    def deliver(self, value: np.ndarray, *, is_bad: bool) -> np.ndarray:
        """The old value while bad."""
        self._past.append(value)
        self.age_steps = len(self._past) - 1 if is_bad else 0
        return self._past[0] if is_bad else value
