"""Safety: the last word on every action, on the robot's side, whoever proposed it.

Pure functions without memory. What is refused becomes a hold, which is the last safe command again:
under position control the robot stays where it was sent. Never zeros, which would be a pose.

    proposed -> stale? -> shape and finite? -> position limits -> speed limit -> commanded
                  \\____________\\________________________________________________ hold
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Intervention = Literal["stale_plan", "no_action", "misshapen", "not_finite", "limit", "speed"]


@dataclass(frozen=True, kw_only=True)
class SafetyLimits:
    """What the robot may be told; None switches a check off, which only a simulation should.

    Attributes:
        low: (A,) least value per entry, in the action's unit.
        high: (A,) greatest value per entry.
        max_change: (A,) greatest change per entry from one control step to the next.
        max_plan_age_steps: an action whose plan was made from an observation older than this many
            control steps is not executed.
        angles: entries in rad that wrap at 2 pi, so that their change is the short way round.
    """

    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    max_change: tuple[float, ...] | None = None
    max_plan_age_steps: int | None = None
    angles: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("low", "high", "max_change"):  # lists from YAML become tuples
            value: Sequence[float] | None = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tuple(map(float, value)))
        if self.low and self.high and not np.all(np.less_equal(self.low, self.high)):
            raise ValueError(f"low {self.low} above high {self.high}")
        if self.max_change and min(self.max_change) <= 0:
            raise ValueError(f"max_change must be positive, got {self.max_change}")

    def check_size(self, num_entries: int) -> None:
        """ValueError unless every limit has one value per action entry."""
        for name in ("low", "high", "max_change"):
            value = getattr(self, name)
            if value is not None and len(value) != num_entries:
                raise ValueError(
                    f"safety limit {name} has {len(value)} values; the action has {num_entries}"
                )


@dataclass(frozen=True, kw_only=True)
class SafeAction:
    """What may be commanded, and what was done to it.

    Attributes:
        action: (A,) float32, or None: nothing was ever commanded, so there is nothing to hold.
        interventions: in the order of the checks; empty if the proposal passed unchanged.
    """

    action: np.ndarray | None
    interventions: tuple[Intervention, ...]

    @property
    def is_hold(self) -> bool:
        """Whether the proposal was refused."""
        return bool({"stale_plan", "no_action", "misshapen", "not_finite"} & {*self.interventions})


def filter_action(
    proposed: np.ndarray | None,
    *,
    last: np.ndarray | None,
    limits: SafetyLimits,
    plan_age_steps: int = 0,
) -> SafeAction:
    """The action to command at this control step.

    Args:
        proposed: (A,), or None if nobody proposed anything.
        last: (A,) last safe command; None at the start, which then is free of the speed limit.
        limits: what the robot may be told.
        plan_age_steps: control steps since the observation behind `proposed`.
    """
    if proposed is not None:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes inf, and is refused
            proposed = proposed.astype(np.float32)
    refusal = _refusal(proposed, last=last, limits=limits, plan_age_steps=plan_age_steps)
    if refusal is not None or proposed is None:
        held = None if last is None else last.copy()
        return SafeAction(action=held, interventions=(refusal or "no_action",))
    interventions: list[Intervention] = []
    action = clip_to_limits(proposed, limits)
    if not np.array_equal(action, proposed):
        interventions.append("limit")
    if last is not None and limits.max_change is not None:
        slowed = clip_change(action, last=last, limits=limits)
        if not np.array_equal(slowed, action):
            interventions.append("speed")
        action = slowed
    return SafeAction(action=action, interventions=tuple(interventions))


def _refusal(
    proposed: np.ndarray | None,
    *,
    last: np.ndarray | None,
    limits: SafetyLimits,
    plan_age_steps: int,
) -> Intervention | None:
    if proposed is None:
        return "no_action"
    if limits.max_plan_age_steps is not None and plan_age_steps > limits.max_plan_age_steps:
        return "stale_plan"
    sizes = [len(v) for v in (limits.low, limits.high, limits.max_change, last) if v is not None]
    if proposed.ndim != 1 or any(size != len(proposed) for size in sizes):
        return "misshapen"
    return None if np.isfinite(proposed).all() else "not_finite"


def clip_to_limits(action: np.ndarray, limits: SafetyLimits) -> np.ndarray:
    """`action` (A,) with every entry inside [low, high]."""
    if limits.low is not None:
        action = np.maximum(action, np.asarray(limits.low, action.dtype))
    if limits.high is not None:
        action = np.minimum(action, np.asarray(limits.high, action.dtype))
    return action


def clip_change(action: np.ndarray, *, last: np.ndarray, limits: SafetyLimits) -> np.ndarray:
    """`action` (A,) moved towards `last` where it is more than `max_change` away from it."""
    if limits.max_change is None:
        return action
    allowed = np.asarray(limits.max_change, action.dtype)
    change = action - last
    for i in limits.angles:
        change[i] = (change[i] + np.pi) % (2 * np.pi) - np.pi
    # entries within the limit stay bit for bit what they were
    return np.where(np.abs(change) > allowed, last + np.sign(change) * allowed, action)
