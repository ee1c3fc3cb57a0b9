"""Pictures of what `forcing-validate` measured: the lag of the actions, the intervals of captures.

lag      correlation |     /\\          timing    interval [ms] |  .
                     |____/  \\__                               |......|.....
                      -1 s 0 1 s                                  episode 0 | 1
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from teleop_data.capture_times import capture_intervals, capture_names
from teleop_data.recorded_timing import CAPTURED
from teleop_data.replay_buffer import ReplayBuffer

MAX_CURVES = 10  # matplotlib's colours repeat after that
MAX_POINTS = 20_000  # of one source; beyond, the worst of each stretch is drawn


def lag_plot(verdict: dict[str, Any]) -> Figure:
    """Correlation of each action entry with the state entry that follows it best, over the lag, and
    beside it the lags of the single episodes. The verdict is `validate`'s, with lags."""
    lags, rate_hz = verdict["lags"], verdict["rate_hz"]
    figure = Figure(figsize=(12.0, 4.2), dpi=110, layout="constrained")
    curves, episodes = figure.subplots(1, 2, width_ratios=[3, 2])
    for number, (action, lag) in enumerate(list(lags.items())[:MAX_CURVES]):
        colour, label = f"C{number}", f"{action} \u2192 {lag['state']} ({lag['meaning']})"
        curves.plot(lag["lags"], lag["curve"], color=colour, linewidth=1.2, label=label)
        curves.plot([lag["lag"]], [lag["correlation"]], "o", color=colour, markersize=5)
        known = [(e, at) for e, at in enumerate(lag["episode_lags"]) if at is not None]
        if known:
            index, at = np.array(known).T
            spread = 0.06 * (number - (min(len(lags), MAX_CURVES) - 1) / 2)
            episodes.plot(index, at + spread, ".", color=colour, markersize=4)
    first, last = min(curves.get_xlim()[0], 0), curves.get_xlim()[1]
    curves.set_xlim(first, last)
    curves.axvspan(first, 0.5, color="0.92", linewidth=0, zorder=0)
    curves.set_xlabel(
        f"steps from the action to the state's answer (1 step = {1e3 / rate_hz:g} ms)"
    )
    curves.set_ylabel("correlation")
    curves.set_title("grey: the action would come after its effect", fontsize=10)
    curves.legend(fontsize=7, frameon=False, loc="upper left")
    episodes.set_xlabel("episode")
    episodes.set_ylabel("lag [steps]")
    episodes.set_title("each episode alone", fontsize=10)
    low, high = episodes.get_ylim()
    episodes.set_ylim(min(math.floor(low), 0) - 0.5, max(math.ceil(high), 2) + 0.5)
    episodes.yaxis.set_major_locator(MaxNLocator(integer=True))
    for panel in (curves, episodes):
        panel.grid(alpha=0.3)
        panel.tick_params(labelsize=8)
    return figure


def timing_plot(buffer: ReplayBuffer) -> Figure:
    """Interval between captures over the store, a panel a source; the schema's period is dashed.

    ValueError if the buffer has no capture times.
    """
    names = capture_names(buffer.schema)
    if not names:
        raise ValueError(f"{buffer.path} has no features {CAPTURED}*: no times to draw")
    period_ms = 1e3 / buffer.schema.rate_hz
    size = (12.0, 1.0 + 2.2 * len(names))
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    panels = figure.subplots(len(names), 1, squeeze=False, sharex=True)[:, 0]
    for panel, name in zip(panels, names, strict=True):
        times_s = buffer[name][:]
        intervals_ms = capture_intervals(times_s, episode_ends=buffer.episode_ends) * 1e3
        steps, worst = _thinned(np.nan_to_num(intervals_ms, nan=period_ms))
        panel.plot(steps, worst, ".", color="C0", markersize=2.5)
        late = worst > 2 * period_ms
        panel.plot(steps[late], worst[late], "x", color="C3", markersize=5)
        panel.axhline(period_ms, color="0.3", linestyle="--", linewidth=0.8)
        panel.set_ylabel(f"{name.removeprefix(CAPTURED)} [ms]", fontsize=9)
        panel.set_ylim(bottom=min(0.0, float(worst.min())))
        panel.grid(alpha=0.3)
        panel.tick_params(labelsize=8)
    panels[0].set_title("time since the capture before; crosses: over two periods", fontsize=10)
    panels[-1].set_xlabel("step of the store", fontsize=9)
    return figure


def _thinned(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most `MAX_POINTS` steps and the largest value of the stretch that each stands for."""
    stretch = -(-len(values) // MAX_POINTS)
    starts = np.arange(0, len(values), stretch)
    return starts, np.maximum.reduceat(values, starts)
