"""Pictures of a replay buffer: frames of its cameras, and traces of its states and actions.

contact sheet    camera a                camera b
episode 0        |t=0 | ... |t=160|      |t=0 | ... |t=160|
episode 41       |t=0 | ... |t=117|      |t=0 | ... |t=117|
"""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.schema import Feature
from teleop_data.trouble import is_still

SHEET_WIDTH_IN = 16.0
GAP_SHARE = 0.03  # of a frame's width, between frames
MAX_FRAME_PX = 240  # larger frames are thinned out: the sheet shows no more anyway
MAX_SCALE_RATIO = 20.0  # entries whose ranges differ by more are each drawn over their own range
MAX_ENTRIES = 10  # traces drawn in one panel; matplotlib's colours repeat after that


def evenly_spaced(count: int, wanted: int) -> np.ndarray:
    """At most `wanted` of the indices 0..count-1, first and last among them."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).round().astype(np.int64))


def contact_sheet(buffer: ReplayBuffer, *, num_episodes: int = 6, num_frames: int = 9) -> Figure:
    """Rows are episodes, columns evenly spaced frames, one panel a camera.

    Raises:
        ValueError: the buffer has no camera or no episode.
    """
    cameras = buffer.schema.with_role("camera")
    if not cameras or not buffer.num_episodes:
        raise ValueError(f"{buffer.path}: a contact sheet needs a camera and an episode")
    num_frames = max(3, num_frames // len(cameras))
    episodes = evenly_spaced(buffer.num_episodes, num_episodes)
    panel_width = SHEET_WIDTH_IN / len(cameras)
    heights = [f.shape[0] / f.shape[1] * panel_width / num_frames for f in cameras]
    size = (SHEET_WIDTH_IN, 1.0 + max(heights) * len(episodes) * (1 + GAP_SHARE))
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    panels = figure.subplots(1, len(cameras), squeeze=False)[0]
    for panel, camera in zip(panels, cameras, strict=True):
        _draw_frames(panel, buffer, camera, episodes=episodes, num_frames=num_frames)
    figure.suptitle(f"{buffer.path.name}: step of each frame in its corner", fontsize=11)
    return figure


def _draw_frames(
    panel: Axes, buffer: ReplayBuffer, camera: Feature, *, episodes: np.ndarray, num_frames: int
) -> None:
    thin = max(1, math.ceil(max(camera.shape[:2]) / MAX_FRAME_PX))
    height, width, _ = np.empty(camera.shape, bool)[::thin, ::thin].shape
    gap = max(1, round(GAP_SHARE * width))
    pitch = np.array([height + gap, width + gap])
    canvas = np.full((len(episodes) * pitch[0], num_frames * pitch[1], 3), 235, np.uint8)
    labels = []
    for row, episode in enumerate(episodes):
        start, end = int(buffer.episode_starts[episode]), int(buffer.episode_ends[episode])
        steps = evenly_spaced(end - start, num_frames)
        frames = buffer[camera.name][start + steps][:, ::thin, ::thin]
        for column, (step, frame) in enumerate(zip(steps, frames, strict=True)):
            top, left = row * pitch[0], column * pitch[1]
            canvas[top : top + height, left : left + width] = frame
            box = {"facecolor": "black", "alpha": 0.6, "pad": 1.0, "edgecolor": "none"}
            at = (left + 0.03 * width, top + 0.03 * height)
            panel.text(*at, str(step), fontsize=7, color="white", va="top", bbox=box)
        labels.append(f"episode {episode}\n{(end - start) / buffer.schema.rate_hz:.1f} s")
    panel.imshow(canvas, interpolation="antialiased")
    panel.set_title(f"{camera.name}  {'x'.join(map(str, camera.shape))}", fontsize=10)
    panel.set_xticks([])
    panel.set_yticks(np.arange(len(episodes)) * pitch[0] + height / 2, labels, fontsize=8)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)


def traces(buffer: ReplayBuffer, *, num_episodes: int = 4) -> Figure:
    """States and actions over time: rows are features, columns episodes; grey where the action
    does not change. Entries of very different ranges are drawn as shares of their own.

    ValueError if the buffer has no episode, or neither state nor action.
    """
    features = buffer.schema.with_role("state", "action")
    if not features or not buffer.num_episodes:
        raise ValueError(f"{buffer.path}: traces need a state or action and an episode")
    episodes = evenly_spaced(buffer.num_episodes, num_episodes)
    size = (SHEET_WIDTH_IN, 0.7 + 2.2 * len(features))
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    panels = figure.subplots(
        len(features), len(episodes), squeeze=False, sharey="row", sharex="col"
    )
    for row, feature in zip(panels, features, strict=True):
        low, span = _ranges(buffer, feature, episodes=episodes)
        own_range = span.max() > MAX_SCALE_RATIO * span.min()
        for panel, episode in zip(row, episodes, strict=True):
            values = _flat(buffer, feature, episode=int(episode))
            values = (values - low) / span if own_range else values
            _draw_traces(panel, values, rate_hz=buffer.schema.rate_hz)
            _shade_idle(panel, buffer, episode=int(episode))
        unit = "share of range" if own_range else feature.unit
        row[0].set_ylabel(f"{feature.name} [{unit}]" if unit else feature.name, fontsize=9)
        if math.prod(feature.shape) > 1:
            row[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7, frameon=False)
    for panel, episode in zip(panels[0], episodes, strict=True):
        panel.set_title(f"episode {episode}", fontsize=10)
    for panel in panels[-1]:
        panel.set_xlabel("time [s]", fontsize=9)
    figure.suptitle(f"{buffer.path.name}: grey where the action does not change", fontsize=11)
    return figure


def _ranges(
    buffer: ReplayBuffer, feature: Feature, *, episodes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(D,) lowest value and (D,) range of each entry over the episodes; 1 where it is constant."""
    values = np.concatenate([_flat(buffer, feature, episode=int(e)) for e in episodes])
    finite = values[np.isfinite(values).all(axis=1)]
    if not len(finite):
        return np.zeros(values.shape[1]), np.ones(values.shape[1])
    low, span = finite.min(axis=0), np.ptp(finite, axis=0)
    return low, np.where(span > 0, span, span.max() or 1.0)


def _flat(buffer: ReplayBuffer, feature: Feature, *, episode: int) -> np.ndarray:
    """(T, D) float64 one episode of one feature."""
    start, end = int(buffer.episode_starts[episode]), int(buffer.episode_ends[episode])
    return buffer[feature.name][start:end].reshape(end - start, -1).astype(np.float64)


def _draw_traces(panel: Axes, values: np.ndarray, *, rate_hz: float) -> None:
    time_s = np.arange(len(values)) / rate_hz
    for entry, column in enumerate(values.T[:MAX_ENTRIES]):
        panel.plot(time_s, column, linewidth=1.0, label=f"[{entry}]")
    if values.shape[1] > MAX_ENTRIES:
        note = f"first {MAX_ENTRIES} of {values.shape[1]}"
        panel.text(0.99, 0.98, note, transform=panel.transAxes, ha="right", va="top", fontsize=7)
    panel.tick_params(labelsize=8)
    panel.grid(alpha=0.3)


def _shade_idle(panel: Axes, buffer: ReplayBuffer, *, episode: int) -> None:
    for action in buffer.schema.with_role("action"):
        taken = _flat(buffer, action, episode=episode)
        still = is_still(taken, feature=action, episode_ends=np.array([len(taken)]))
        edges = np.flatnonzero(np.diff(still.astype(np.int8), prepend=0, append=0))
        for first, last in edges.reshape(-1, 2):
            span_s = np.array([first - 1, last - 1]) / buffer.schema.rate_hz
            panel.axvspan(*span_s, color="0.85", linewidth=0, zorder=0)
