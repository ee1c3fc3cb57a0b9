"""Timing of a recording as data: when each step was due, how late it began, how old its pictures
are.

    late_s          how long after its deadline a control step began; deadlines lie 1 / rate apart
    missed_steps    control steps between the one recorded before and this one that are not recorded
    captured_s_x    when source x was captured, in the seconds in which the episode began at 0

All are features of role "other": recorded, never observed. A deadline that passed by a whole period
is not made up for, since steps in quick succession would be a motion that nobody made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from teleop_data.clock import Clock
from teleop_data.parts import Rows
from teleop_data.schema import Feature, Schema

LATE, MISSED, CAPTURED = "late_s", "missed_steps", "captured_s_"


@runtime_checkable
class CaptureTimed(Protocol):
    """An Environment that knows when its sources were captured."""

    def captured_s(self) -> Mapping[str, float]:
        """Capture time by observed feature, of the newest observation, on the machine's monotonic
        clock; what is left out counts as captured when the observation came."""
        ...


def timing_features(schema: Schema) -> tuple[Feature, ...]:
    """What is recorded about the timing of episodes of `schema`."""
    return (
        Feature(name=LATE, shape=(), dtype="float64", role="other", unit="s"),
        Feature(name=MISSED, shape=(), dtype="int64", role="other"),
        *(
            Feature(name=CAPTURED + f.name, shape=(), dtype="float64", role="other", unit="s")
            for f in schema.observed
        ),
    )


def with_timing(schema: Schema) -> Schema:
    """`schema` with its timing features. ValueError if it has a feature of such a name."""
    return replace(schema, features=(*schema.features, *timing_features(schema)))


@dataclass(frozen=True, kw_only=True)
class Tick:
    """The beginning of a control step.

    Attributes:
        late_s: how long after its deadline, below one period.
        num_missed: deadlines before it that were let go.
    """

    late_s: float
    num_missed: int


class Pace:
    """Absolute deadlines at a fixed rate, the first one a period after `start`.

    So the first observation is as old as every other when it is acted on, and captures lie a period
    apart from the beginning.

    Attributes:
        start_s: on the clock, when the episode began.
    """

    def __init__(self, clock: Clock, *, rate_hz: float) -> None:
        self._clock, self._period_s, self._next = clock, 1 / rate_hz, 1
        self.start_s = 0.0

    def start(self) -> None:
        """The episode begins now."""
        self.start_s, self._next = self._clock.now(), 1

    def tick(self) -> Tick:
        """Sleep to the next deadline that has not passed by a period or more."""
        behind_s = self._clock.now() - self.start_s - self._next * self._period_s
        num_missed = max(0, int(behind_s / self._period_s))
        self._next += num_missed
        deadline_s = self.start_s + self._next * self._period_s
        self._clock.sleep_until(deadline_s)
        self._next += 1
        return Tick(late_s=max(0.0, self._clock.now() - deadline_s), num_missed=num_missed)


def timing_values(
    tick: Tick,
    *,
    missed_steps: int,
    start_s: float,
    captured_s: Mapping[str, float],
) -> dict[str, np.ndarray]:
    """Values of the timing features at one step; `captured_s` by source, on the clock."""
    values = {LATE: np.float64(tick.late_s), MISSED: np.int64(missed_steps)}
    values |= {CAPTURED + name: np.float64(at_s - start_s) for name, at_s in captured_s.items()}
    return {name: np.asarray(value) for name, value in values.items()}


def timing_summary(episode: Mapping[str, Rows]) -> dict[str, Any]:
    """JSON-ready: percentiles of the lateness in s and missed steps of an episode of >= 1 steps;
    empty if it was recorded without timing."""
    if LATE not in episode:
        return {}
    p50, p95, p99, most = np.percentile(episode[LATE][:], [50, 95, 99, 100]).tolist()
    missed = int(episode[MISSED][:].sum())
    return {
        "late_s": {"p50": p50, "p95": p95, "p99": p99, "max": most},
        "num_missed_steps": missed,
    }
