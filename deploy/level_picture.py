"""A picture of one episode's noise levels: of the plan's slots over time, and of every source.

control step |. . . # # @          row t: the plan as it stood at control step t, slot for step
             |  . . . # # @        t in column t; . decided, @ pure noise
             |    . . . # # @
                step that the slot is for
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # the backend comes first


class LevelHistory:
    """Noise levels of one episode, step by step."""

    def __init__(self) -> None:
        self._plans: list[np.ndarray] = []
        self._sources: list[dict[str, float]] = []
        self._first_step: int | None = None

    def add(
        self, step: int, *, plan_levels: np.ndarray, source_levels: Mapping[str, float]
    ) -> None:
        """Take in control step `step`: the plan's levels (n,) from it on, and the sources'."""
        if self._first_step is None:
            self._first_step = step
        self._plans.append(np.array(plan_levels, np.float32))
        self._sources.append(dict(source_levels))

    def plan_matrix(self) -> np.ndarray:
        """(T, T + H - 1) levels: row = control step, column = step of the slot; NaN = none."""
        num = len(self._plans)
        matrix = np.full((num, num + max(map(len, self._plans), default=1) - 1), np.nan, np.float32)
        for row, levels in enumerate(self._plans):
            matrix[row, row : row + len(levels)] = levels
        return matrix

    def source_matrix(self) -> tuple[list[str], np.ndarray]:
        """Names of the sources and their levels (S, T); 0 where nothing was said."""
        names = list(dict.fromkeys(name for levels in self._sources for name in levels))
        rows = [[levels.get(name, 0.0) for levels in self._sources] for name in names]
        return names, np.array(rows, np.float32).reshape(len(names), len(self._sources))


def draw_levels(history: LevelHistory, path: Path) -> None:
    """Write the picture to `path`."""
    plan = history.plan_matrix()
    names, sources = history.source_matrix()
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(7, 6), layout="constrained", sharex=True,
        height_ratios=[max(1, len(names)), 12],
    )  # fmt: skip
    scale = {"cmap": "viridis", "vmin": 0.0, "vmax": 1.0, "aspect": "auto"}
    if names:
        extent = (-0.5, sources.shape[1] - 0.5, len(names) - 0.5, -0.5)
        top.imshow(sources, extent=extent, **scale)
    top.set(yticks=range(len(names)), yticklabels=names, title="Sources")
    shown = bottom.imshow(plan, **scale)
    bottom.set(xlabel="step that the slot is for", ylabel="control step", title="Plan")
    figure.colorbar(shown, ax=[top, bottom], label="noise level: 0 clean, 1 pure noise")
    figure.savefig(path, dpi=110)
    plt.close(figure)
