"""Source conditions: what is wrong with a source becomes the noise level of its tokens.

    missing  it never spoke              level 1
    stale    its newest value is old     level 1
    frozen   a picture that stands still although the robot moved, or that is the same frame again
    covered  a picture without contrast
    strange  a picture unlike those that the policy was trained on
    healthy                              level 0

Knows neither sockets nor policies; time is whatever the caller counts it in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from deploy.wire import Flag
from teleop_data.schema import Feature, Schema

Condition = Literal["healthy", "missing", "stale", "frozen", "covered", "strange"]


class NoveltyDetector(Protocol):
    """What a policy knows of the pictures it was trained on, see `policy.novelty`."""

    def is_strange(self, camera: str, picture: np.ndarray, /, *, tolerance: float) -> bool:
        """Whether `picture` (H, W, channels) is unlike any in training.

        A greater `tolerance` than 1 believes more pictures.
        """
        ...

    def longest_still(self, camera: str, /) -> int:
        """Longest run of pictures, in training, that each equalled the one before."""
        ...


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The newest value of one source.

    Attributes:
        value: the array, a picture for a camera.
        captured_s: when it was taken, on the clock of `assess`; None = just now.
        sequence: frame number, None where the source has none.
    """

    value: np.ndarray
    captured_s: float | None = None
    sequence: int | None = None


@dataclass(frozen=True, kw_only=True)
class ConditionLimits:
    """When a source stops being believed.

    Attributes:
        max_age_steps: older than this many control steps is stale. Above 2, since a camera that
            runs at the control rate is up to one step old, and its transport may cost another.
        num_frozen: as many unchanged pictures in a row are frozen. Fewer are, among pictures
            without frame numbers, if in training no run was as long.
        min_contrast: a picture whose grey values (0..255) deviate less than this from their mean,
            as a standard deviation in every channel, is covered.
        min_motion: a state entry that changed by more than this (in the state's unit) since the
            picture before means that the robot moved. A still picture is suspicious only then.
        tolerance: of unusual pictures: scales what a policy's training makes the limit between
            usual and strange; infinite believes all.
    """

    max_age_steps: float = 3.0
    num_frozen: int = 3
    min_contrast: float = 4.0
    min_motion: float = 1e-3
    tolerance: float = 1.0

    def __post_init__(self) -> None:
        if not (self.max_age_steps > 0 and self.num_frozen > 0 and self.tolerance > 0):
            raise ValueError(
                f"max_age_steps, num_frozen and tolerance must be positive, got {self}"
            )


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What `assess` found: a condition and a noise level in [0, 1] for every observed feature."""

    conditions: dict[str, Condition]
    levels: dict[str, float]

    @property
    def reasons(self) -> dict[str, str]:
        """Condition by source, for those above level 0."""
        return {name: self.conditions[name] for name, level in self.levels.items() if level > 0}


@dataclass
class _CameraMemory:
    """The previous picture of one camera and how often it came again."""

    image: np.ndarray | None = None
    sequence: int | None = None
    num_repeats: int = 0


class SourceCondition:
    """Assesses the sources of one episode, step by step.

    Args:
        schema: the policy's; its observed features are the sources.
        limits: when a source stops being believed.
        flag: "none" believes everything that exists, so only a missing source has level 1.
        novelty: of the policy; None = no picture is strange. Asked only if the flag is "auto".
    """

    def __init__(
        self,
        schema: Schema,
        *,
        limits: ConditionLimits | None = None,
        flag: Flag = "auto",
        novelty: NoveltyDetector | None = None,
    ) -> None:
        self._schema, self._flag = schema, flag
        self._limits = limits or ConditionLimits()
        self._novelty = novelty if flag == "auto" else None
        self._cameras = {f.name: _CameraMemory() for f in schema.with_role("camera")}
        self._state: dict[str, np.ndarray] = {}

    def assess(self, samples: Mapping[str, Sample], *, now_s: float) -> Assessment:
        """The condition of every observed feature at `now_s`, and its noise level.

        Call once per observation, in order. Without clocks, give step / rate_hz as `now_s`.
        """
        may_move = self._robot_moved(samples)
        conditions: dict[str, Condition] = {}
        levels: dict[str, float] = {}
        for feature in self._schema.observed:
            name, sample = feature.name, samples.get(feature.name)
            if sample is None:
                conditions[name], levels[name] = "missing", 1.0
                continue
            condition = self._condition(feature, sample, now_s, may_move)
            if condition == "healthy" and feature.role == "camera":
                condition = "strange" if self._is_strange(name, sample.value) else "healthy"
            conditions[name] = condition
            levels[name] = 0.0 if condition == "healthy" or self._flag == "none" else 1.0
        return Assessment(conditions=conditions, levels=levels)

    def _condition(
        self, feature: Feature, sample: Sample, now_s: float, may_move: bool
    ) -> Condition:
        """What is wrong, whatever the picture shows."""
        num_repeats = 0
        if feature.role == "camera":
            memory = self._cameras[feature.name]
            num_repeats = memory.num_repeats = count_repeats(memory, sample, may_move=may_move)
            memory.image, memory.sequence = sample.value, sample.sequence
        age_s = 0.0 if sample.captured_s is None else now_s - sample.captured_s
        if age_s > self._limits.max_age_steps / self._schema.rate_hz:
            return "stale"
        if feature.role != "camera":
            return "healthy"
        if contrast(sample.value) < self._limits.min_contrast:
            return "covered"
        return "frozen" if num_repeats >= self._num_frozen(feature.name, sample) else "healthy"

    def _num_frozen(self, camera: str, sample: Sample) -> int:
        """Unchanged pictures that are too many. A frame number says that a frame came again, which
        a slow camera's do; without one, an equal picture may be a new one, if training had any."""
        if self._novelty is None or sample.sequence is not None:
            return self._limits.num_frozen
        return min(self._limits.num_frozen, self._novelty.longest_still(camera) + 1)

    def _is_strange(self, camera: str, picture: np.ndarray) -> bool:
        if self._novelty is None:
            return False
        return self._novelty.is_strange(camera, picture, tolerance=self._limits.tolerance)

    def _robot_moved(self, samples: Mapping[str, Sample]) -> bool:
        """Whether a state changed since last time; True where no state is there to tell."""
        states = {
            f.name: samples[f.name].value
            for f in self._schema.with_role("state")
            if f.name in samples
        }
        known = [name for name in states if name in self._state]
        moved = any(
            float(np.max(np.abs(states[n] - self._state[n]), initial=0)) > self._limits.min_motion
            for n in known
        )
        self._state = states
        return moved or not known


def count_repeats(memory: _CameraMemory, sample: Sample, *, may_move: bool) -> int:
    """How often in a row the remembered picture has come again, this sample included.

    The same frame number again counts always; an equal picture under a new number counts only if
    the robot may have moved, and leaves the count as it is otherwise.
    """
    if memory.image is None:
        return 0
    if sample.sequence is not None and sample.sequence == memory.sequence:
        return memory.num_repeats + 1
    if not np.array_equal(sample.value, memory.image):
        return 0
    return memory.num_repeats + int(may_move)


def contrast(image: np.ndarray) -> float:
    """Largest standard deviation over the channels of a picture (H, W, C), in grey values."""
    # channel by channel: nine times as fast as a standard deviation over the last axis but one
    channels = np.ascontiguousarray(image.reshape(-1, image.shape[-1]).T).astype(np.float32)
    channels -= channels.mean(axis=1, keepdims=True)
    squares = np.einsum("cn,cn->c", channels, channels)
    return float(np.sqrt(squares.max() / channels.shape[1]))
