"""Trouble with time: what the capture times of a recording say about its rate.

A recording carries `captured_s_<source>`, the time at which each source was read, `late_s`, by how
much each control step missed its deadline, and `missed_steps`, how many before it were left out. A
store without them has times that were made up
from the step number, about which nothing can be found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from teleop_data.recorded_timing import CAPTURED, LATE, MISSED
from teleop_data.schema import Schema
from teleop_data.trouble import MAX_PLACES, Trouble, at_rows

GAP_PERIODS = 2.0  # between two captures
RATE_TOLERANCE = 0.05
STALE_SHARE = 0.05  # of the steps, with the capture of the step before
LATE_PERIODS, LATE_SHARE = 0.5, 0.01


def capture_names(schema: Schema) -> tuple[str, ...]:
    """Features that hold capture times."""
    return tuple(name for name in schema.names if name.startswith(CAPTURED))


def capture_intervals(times_s: np.ndarray, *, episode_ends: np.ndarray) -> np.ndarray:
    """(N,) float64 seconds since the capture before; nan at an episode's first step."""
    intervals_s = np.diff(times_s.astype(np.float64).reshape(len(times_s)), prepend=np.nan)
    intervals_s[episode_ends[:-1]] = np.nan
    return intervals_s


def time_trouble(
    labels: Mapping[str, np.ndarray], *, rate_hz: float, episode_ends: np.ndarray
) -> Iterator[Trouble]:
    """Trouble in the capture times and lateness among `labels` {name: (N,)}, all finite.

    Kinds: time_backwards, capture_gap, stale_source, wrong_rate (by episode), late_steps,
    missed_steps.
    """
    for name, values in labels.items():
        if name.startswith(CAPTURED):
            yield from _capture_trouble(name, values, rate_hz=rate_hz, episode_ends=episode_ends)
        elif name == LATE:
            late = np.flatnonzero(values.reshape(-1) > LATE_PERIODS / rate_hz)
            if len(late) > LATE_SHARE * len(values):
                text = (
                    f"{len(late)} of {len(values)} control steps were late by over half a period, "
                    f"at most {values.max() * 1e3:.0f} ms"
                )
                yield at_rows("late_steps", late, text, name=name, episode_ends=episode_ends)
        elif name == MISSED and values.any():
            text = f"{int(values.sum())} control steps are not recorded"
            rows = np.flatnonzero(values.reshape(-1))
            yield at_rows("missed_steps", rows, text, name=name, episode_ends=episode_ends)


def timing_names(schema: Schema) -> list[str]:
    """Features that tell when a step was captured, how late it was and how many were missed."""
    return [name for name in schema.names if name in (*capture_names(schema), LATE, MISSED)]


def _capture_trouble(
    name: str, times_s: np.ndarray, *, rate_hz: float, episode_ends: np.ndarray
) -> Iterator[Trouble]:
    intervals_s = capture_intervals(times_s, episode_ends=episode_ends)
    backwards = np.flatnonzero(intervals_s < 0)
    if len(backwards):
        text = f"{len(backwards)} captures are older than the one before"
        yield at_rows("time_backwards", backwards, text, name=name, episode_ends=episode_ends)
    gaps = np.flatnonzero(intervals_s > GAP_PERIODS / rate_hz)
    if len(gaps):
        longest_ms = np.nanmax(intervals_s) * 1e3
        text = f"{len(gaps)} gaps of over {GAP_PERIODS:g} periods, the longest {longest_ms:.0f} ms"
        yield at_rows("capture_gap", gaps, text, name=name, episode_ends=episode_ends)
    stale = np.flatnonzero(intervals_s == 0)
    if len(stale) > STALE_SHARE * len(times_s):
        text = f"{len(stale)} of {len(times_s)} steps have the capture of the step before"
        yield at_rows("stale_source", stale, text, name=name, episode_ends=episode_ends)
    yield from _wrong_rate(name, times_s, rate_hz=rate_hz, episode_ends=episode_ends)


def _wrong_rate(
    name: str, times_s: np.ndarray, *, rate_hz: float, episode_ends: np.ndarray
) -> Iterator[Trouble]:
    """Episodes whose captures came at another rate than the schema's, from first to last."""
    rates_hz = episode_rates(times_s, episode_ends=episode_ends)
    wrong = np.flatnonzero(np.abs(rates_hz / rate_hz - 1) > RATE_TOLERANCE)
    if len(wrong):
        first = int(wrong[0])
        yield Trouble(
            kind="wrong_rate",
            text=f"{name}: {len(wrong)} of {len(rates_hz)} episodes were captured at another rate "
            f"than {rate_hz:g} Hz, first episode {first}: {rates_hz[first]:.2f} Hz",
            feature=name,
            count=len(wrong),
            places=tuple((int(e), 0) for e in wrong[:MAX_PLACES]),
        )


def episode_rates(times_s: np.ndarray, *, episode_ends: np.ndarray) -> np.ndarray:
    """(E,) captures a second of each episode; nan where it has one step or no time passes."""
    times_s = times_s.astype(np.float64).reshape(-1)
    starts = np.concatenate([[0], episode_ends[:-1]]).astype(np.int64)
    durations_s = times_s[episode_ends - 1] - times_s[starts]
    intervals = episode_ends - starts - 1.0
    usable = (durations_s > 0) & (intervals > 0)
    return np.where(usable, intervals / np.where(usable, durations_s, 1.0), np.nan)
