"""Corruptions: what a source delivers while it is bad.

A corruption is made for one source and one episode. It sees every control step's true value, good
times included (a frozen or late source needs the past), and answers with what arrives:

    true value          o0  o1  o2  o3  o4  o5         bad at steps 2, 3, 4
    frozen              o0  o1  o1  o1  o1  o5
    late by 2           o0  o1  o1  o1  o2  o5
    dropped             o0  o1   .   .   .  o5
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from teleop_data.schema import Feature

Value = np.ndarray | None  # None: nothing arrives


class Corruption(Protocol):
    """One source's fault in one episode."""

    def deliver(self, value: Value, *, is_bad: bool) -> Value:
        """What arrives in place of `value`.

        Called once a control step, in order. Gives `value` itself, the same object, where the fault
        has no effect; never changes it in place. It is None where another fault took it away.
        """
        ...


class Black:
    """All zeros: a covered lens, an encoder that reads nothing."""

    def __init__(self, feature: Feature, rng: np.random.Generator) -> None:
        """Nothing is chosen or drawn."""

    def deliver(self, value: Value, *, is_bad: bool) -> Value:
        """Zeros while bad."""
        return value if value is None or not is_bad else np.zeros_like(value)


class Frozen:
    """The last good value again and again. Bad from the first step on, that step's own value."""

    def __init__(self, feature: Feature, rng: np.random.Generator) -> None:
        """Nothing is chosen or drawn."""
        self._last: Value = None

    def deliver(self, value: Value, *, is_bad: bool) -> Value:
        """The newest value from before the fault while bad."""
        if is_bad and self._last is not None:
            return self._last
        self._last = self._last if value is None else value
        return value


class Noise:
    """Gaussian noise, drawn anew at every control step."""

    def __init__(
        self, feature: Feature, rng: np.random.Generator, *, std: float | Sequence[float] = 0.25
    ) -> None:
        """`std` for all entries or for each: in the feature's unit; for cameras, 1 is the whole
        range from black to white. ValueError if it is negative."""
        if np.any(np.less(std, 0)):
            raise ValueError(f"std is {std}, expected at least 0")
        self._std = np.asarray(std, np.float64) * (255 if feature.role == "camera" else 1)
        self._rng = rng

    def deliver(self, value: Value, *, is_bad: bool) -> Value:
        """The value plus noise while bad, rounded and clipped for cameras."""
        if value is None or not is_bad:
            return value
        noisy = value + self._rng.normal(0.0, self._std, size=value.shape)
        return _picture(noisy) if value.dtype == np.uint8 else noisy.astype(value.dtype)


class Recolored:
    """Another light and white balance: every channel scaled by a factor drawn for the episode."""

    def __init__(
        self,
        feature: Feature,
        rng: np.random.Generator,
        *,
        brightness: float = 0.6,
        tint: float = 0.4,
    ) -> None:
        """Factors uniform in `brightness` times 1 - `tint` to 1 + `tint`, a channel each.
        ValueError if the source is no camera or a number is out of range."""
        _check_is_camera(feature, "another colour")
        if brightness < 0 or not 0 <= tint <= 1:
            raise ValueError(
                f"brightness {brightness}, tint {tint}; expected at least 0, and within [0, 1]"
            )
        self._factors = brightness * rng.uniform(1 - tint, 1 + tint, size=feature.shape[-1])

    def deliver(self, value: Value, *, is_bad: bool) -> Value:
        """The recoloured picture while bad."""
        return value if value is None or not is_bad else _picture(value * self._factors)


class Patch:
    """A grey rectangle before the camera, fixed or moving and bouncing off the borders."""

    def __init__(
        self,
        feature: Feature,
        rng: np.random.Generator,
        *,
        share: float = 0.3,
        speed: float = 0.0,
    ) -> None:
        """A patch over `share` of the picture's area, of the picture's form, at a drawn place; it
        moves by `speed` pixels a control step. ValueError if the source is no camera or a number
        is out of range."""
        _check_is_camera(feature, "a patch")
        if not 0 < share <= 1 or speed < 0:
            raise ValueError(f"share {share}, speed {speed}; expected in (0, 1], and at least 0")
        sides = np.array(feature.shape[:2])  # rows, columns
        self._side = np.maximum(np.rint(np.sqrt(share) * sides), 1)
        self._room = sides - self._side
        self._start = rng.uniform(0, 1, size=2) * self._room
        angle = rng.uniform(0, 2 * np.pi)
        self._velocity = speed * np.array([np.sin(angle), np.cos(angle)])
        self._age = 0

    def deliver(self, value: Value, *, is_bad: bool) -> Value:
        """The picture with the patch over it while bad; the patch moves then only."""
        if value is None or not is_bad:
            return value
        position = _bounce(self._start + self._age * self._velocity, room=self._room)
        (top, left), (height, width) = np.rint(position).astype(int), self._side.astype(int)
        self._age += 1
        covered = value.copy()
        covered[top : top + height, left : left + width] = 127
        return covered


class Swapped:
    """The feed of another camera, which the perturbation hands in as `value`."""

    def __init__(self, feature: Feature, rng: np.random.Generator) -> None:
        """ValueError if the source is no camera."""
        _check_is_camera(feature, "a swapped feed")

    def deliver(self, value: Value, *, is_bad: bool) -> Value:
        """What was handed in."""
        return value


class Dropped:
    """Nothing arrives, at every bad step or at some."""

    def __init__(
        self, feature: Feature, rng: np.random.Generator, *, probability: float = 1.0
    ) -> None:
        """Each bad step is dropped with `probability`. ValueError if that is none."""
        if not 0 < probability <= 1:
            raise ValueError(f"probability is {probability}, expected in (0, 1]")
        self._probability, self._rng = probability, rng

    def deliver(self, value: Value, *, is_bad: bool) -> Value:
        """None at a dropped step."""
        return None if is_bad and self._rng.random() < self._probability else value


class _Late(NamedTuple):
    due: int
    captured: int
    value: np.ndarray


class Late:
    """Each value arrives some control steps after it was taken; the newest that arrived is shown.

    Whatever was shown when the fault began stays until the first late value arrives. Values never
    go back in time, unless `reorders`: then the one that arrived last is shown.

    Attributes:
        age_steps: how old the value delivered last was.
    """

    def __init__(
        self,
        feature: Feature,
        rng: np.random.Generator,
        *,
        delay: int | Sequence[int] = 5,
        reorders: bool = False,
    ) -> None:
        """`delay` in control steps, at least 1, or (low, high), low at least 0: drawn from there
        for each value, both included. ValueError if it is out of range."""
        low, high = (delay, delay) if isinstance(delay, int) else delay
        if not 0 <= low <= high or high < 1:
            raise ValueError(
                f"delay is {delay}, expected at least 1, or (low, high) with 0 <= low <= high"
            )
        self._delay, self._reorders, self._rng = (low, high), reorders, rng
        self._under_way: list[_Late] = []
        self._shown: _Late | None = None
        self._step = -1
        self.age_steps = 0

    def deliver(self, value: Value, *, is_bad: bool) -> Value:
        """The newest value that has arrived by now; the true one while good, and at step 0."""
        self._step += 1
        self.age_steps = 0
        if not is_bad or self._shown is None:
            self._under_way.clear()
            if value is not None:
                self._shown = _Late(self._step, self._step, value)
            return value
        if value is not None:
            low, high = self._delay
            due = self._step + int(self._rng.integers(low, high + 1))
            self._under_way.append(_Late(due, self._step, value))
        arrived = [late for late in self._under_way if late.due <= self._step]
        self._under_way = [late for late in self._under_way if late.due > self._step]
        if not (self._reorders and arrived):
            arrived.append(self._shown)
        self._shown = max(arrived, key=lambda late: late.captured)
        self.age_steps = self._step - self._shown.captured
        return self._shown.value


def _picture(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _bounce(position: np.ndarray, *, room: np.ndarray) -> np.ndarray:
    """`position` folded into [0, room], as a billiard ball's path is."""
    period = np.maximum(2 * room, 1)
    return np.minimum(np.abs((position + room) % period - room), room)


def _check_is_camera(feature: Feature, fault: str) -> None:
    if feature.role != "camera":
        raise ValueError(
            f"{fault} is for pictures; {feature.name!r} is no camera: use black, frozen, noise, "
            "dropped or late there"
        )
