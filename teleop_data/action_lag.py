"""How many steps after an action the state answers, by cross-correlation.

An entry of the action is compared with the changes of every entry of the state, once by its own
changes (a position target) and once by its value (a velocity or displacement):

    position target    s[t+1] = a[t]           changes of s repeat those of a one step later
    velocity           s[t+1] = s[t] + a[t]    change of s after step t is a[t]

In both the lag is 1: the state answers at the step after. An answer at lag 0 or before means that
the action was recorded with or after its effect, and a policy would learn to do nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.schema import Feature
from teleop_data.trouble import MAX_PLACES, Trouble, signed_changes

MAX_LAG_S = 1.0
SLOW_LAG_S = 0.6
CLEAR_CORRELATION = 0.4  # below, the lag means nothing
SHIFTED_STEPS, SHIFTED_GAIN = 2, 0.15  # an episode whose own lag differs, and fits so much better
MIN_EPISODE_STEPS = 20
MIN_NUM_LAGS = 4

Meaning = Literal["position", "velocity"]


@dataclass(frozen=True, kw_only=True)
class ActionLag:
    """Where one entry of the action shows in the state.

    Attributes:
        action: "name[entry]".
        state: "name[entry]" of the state whose changes correlate best.
        meaning: what the action's entry is to that state.
        lag: steps after which the state answers.
        correlation: there, in [-1, 1].
        lags: (L,) all lags that were tried.
        curve: (L,) correlation at each of them.
        episode_lags: (E,) lag of each episode alone; -1000 where it cannot be told.
    """

    action: str
    state: str
    meaning: Meaning
    lag: int
    correlation: float
    lags: np.ndarray
    curve: np.ndarray
    episode_lags: np.ndarray


UNKNOWN_LAG = -1000


def action_lags(buffer: ReplayBuffer) -> list[ActionLag]:
    """One for each entry of each action that moves; empty if there is no state that does."""
    ends = buffer.episode_ends
    states = {f.name: _changes(buffer, f) for f in buffer.schema.with_role("state")}
    if not states:
        return []
    named = [f"{name}[{d}]" for name, change in states.items() for d in range(change.shape[1])]
    change = np.concatenate(list(states.values()), axis=1)
    found = []
    for feature in buffer.schema.with_role("action"):
        values = _finite(buffer[feature.name][:].reshape(buffer.num_steps, -1))
        drives: Mapping[Meaning, np.ndarray] = {
            "position": _changes(buffer, feature),
            "velocity": values,
        }
        for entry in range(values.shape[1]):
            drive: Mapping[Meaning, np.ndarray] = {k: v[:, entry] for k, v in drives.items()}
            name = f"{feature.name}[{entry}]"
            lag = _best(name, drive, change, named, ends=ends, rate_hz=buffer.schema.rate_hz)
            found += [lag] if lag is not None else []
    return found


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, 0.0).astype(np.float64)


def _changes(buffer: ReplayBuffer, feature: Feature) -> np.ndarray:
    """(N, D) change of each entry since the step before, 0 where it is not finite."""
    values = buffer[feature.name][:]
    return _finite(signed_changes(values, feature=feature, episode_ends=buffer.episode_ends))


def _best(
    name: str,
    drive: Mapping[Meaning, np.ndarray],
    change: np.ndarray,
    named: list[str],
    *,
    ends: np.ndarray,
    rate_hz: float,
) -> ActionLag | None:
    """The meaning, state entry and lag at which one action entry correlates best; None if it, or
    the whole state, never moves."""
    reach = max(MIN_NUM_LAGS, round(MAX_LAG_S * rate_hz))
    lags = np.arange(-reach, reach + 1)
    curves = {
        meaning: _curves(values, change, lags=lags, ends=ends) for meaning, values in drive.items()
    }
    is_velocity = np.abs(curves["velocity"]).max() > np.abs(curves["position"]).max()
    meaning: Meaning = "velocity" if is_velocity else "position"
    curve = curves[meaning]
    at, entry = np.unravel_index(np.argmax(np.abs(curve)), curve.shape)
    if not np.abs(curve).max() > 0:
        return None
    episode_lags = np.full(len(ends), UNKNOWN_LAG)
    starts = np.concatenate([[0], ends[:-1]])
    for episode, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if end - start >= max(MIN_EPISODE_STEPS, reach):
            own = _curves(
                drive[meaning][start:end],
                change[start:end, entry : entry + 1],
                lags=lags,
                ends=np.array([end - start]),
            )[:, 0]
            own *= np.sign(curve[at, entry])
            if own.max() >= max(CLEAR_CORRELATION, own[at] + SHIFTED_GAIN):
                episode_lags[episode] = lags[int(np.argmax(own))]
            elif own[at] >= CLEAR_CORRELATION:
                episode_lags[episode] = lags[at]
    return ActionLag(
        action=name,
        state=named[entry],
        meaning=meaning,
        lag=int(lags[at]),
        correlation=float(curve[at, entry]),
        lags=lags,
        curve=curve[:, entry],
        episode_lags=episode_lags,
    )


def _curves(
    drive: np.ndarray, change: np.ndarray, *, lags: np.ndarray, ends: np.ndarray
) -> np.ndarray:
    """(L, S) correlation of drive[t] (N,) with change[t + lag] (N, S), within episodes.

    `change[t]` came about between steps t-1 and t, so that lag 1 is the answer of the next step
    whether the drive is a velocity or the change of a target.
    """
    owner = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    curves = np.zeros((len(lags), change.shape[1]))
    for row, lag in enumerate(lags):
        early, late = (0, lag) if lag >= 0 else (-lag, 0)
        length = len(drive) - early - late
        if length < MIN_EPISODE_STEPS // 2:
            continue
        x, y = drive[early : early + length], change[late : late + length]
        same = owner[early : early + length] == owner[late : late + length]
        x, y = x[same], y[same]
        if len(x) < 2:
            continue
        x, y = x - x.mean(), y - y.mean(axis=0)
        size = np.sqrt((x**2).sum() * (y**2).sum(axis=0))
        curves[row] = np.where(size > 0, x @ y / np.where(size > 0, size, 1.0), 0.0)
    return curves


def lag_trouble(lags: list[ActionLag], *, rate_hz: float) -> Iterator[Trouble]:
    """Actions that come after their effect, states that answer slowly, and episodes that differ.

    Kinds: action_after_effect, slow_answer, shifted_episode, no_answer.
    """
    for lag in lags:
        feature = lag.action.split("[")[0]
        pair = f"{lag.state} answers {lag.action} (a {lag.meaning})"
        seen = f"correlation {lag.correlation:.2f}"
        if abs(lag.correlation) < CLEAR_CORRELATION:
            text = f"no entry of the state follows {lag.action}: best is {lag.state}, {seen}"
            yield Trouble(kind="no_answer", text=text, feature=feature, count=1)
            continue
        if lag.lag < 1:
            when = f"{-lag.lag} steps before" if lag.lag else "at the same step as"
            text = f"{pair} {when} it, expected 1 after or more; {seen}"
            yield Trouble(kind="action_after_effect", text=text, feature=feature, count=1)
        if lag.lag > SLOW_LAG_S * rate_hz:
            text = f"{pair} after {lag.lag} steps, {lag.lag / rate_hz:.2f} s; {seen}"
            yield Trouble(kind="slow_answer", text=text, feature=feature, count=1)
        known = lag.episode_lags != UNKNOWN_LAG
        shifted = np.flatnonzero(known & (np.abs(lag.episode_lags - lag.lag) >= SHIFTED_STEPS))
        if len(shifted):
            first = int(shifted[0])
            text = f"{pair} after {lag.lag} steps, but in {len(shifted)} episodes not: first "
            text += f"episode {first}, {lag.episode_lags[first]} steps"
            places = tuple((int(e), 0) for e in shifted[:MAX_PLACES])
            count = len(shifted)
            yield Trouble(
                kind="shifted_episode", text=text, feature=feature, count=count, places=places
            )
