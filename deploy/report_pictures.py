"""Pictures of reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # the backend comes first

FLAG_COLORS = {"none": "#ea580c", "auto": "#2563eb", "oracle": "#0f766e"}
FLAG_LABELS = {
    "none": "none: what arrives is believed",
    "auto": "auto: found out as the policy server does",
    "oracle": "oracle: the truth is known",
}


def draw_success(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Success rates with 95 % Wilson intervals: one group a perturbation, one bar a flag.

    Args:
        results: what results.json files hold; a later one replaces an earlier one of the same
            perturbation, inference mode and flag.
        path: of the PNG.
    """
    bars = {(r["perturbation"], r["inference"], r["flag"]): r for r in results}
    groups = list(dict.fromkeys((perturbation, mode) for perturbation, mode, _ in bars))
    figure, axes = plt.subplots(figsize=(1.6 + 1.7 * len(groups), 4), layout="constrained")
    shown: set[str] = set()
    for x, (perturbation, mode) in enumerate(groups):
        flags = [flag for flag in FLAG_COLORS if (perturbation, mode, flag) in bars]
        for i, flag in enumerate(flags):
            row = bars[perturbation, mode, flag]
            rate, (low, high) = row["success_rate"], row["success_interval"]
            place = x + 0.3 * (i - (len(flags) - 1) / 2)
            axes.bar(
                place, rate, width=0.27, color=FLAG_COLORS[flag],
                label=None if flag in shown else FLAG_LABELS[flag],
            )  # fmt: skip
            error = [[max(0.0, rate - low)], [max(0.0, high - rate)]]
            axes.errorbar(place, rate, yerr=error, color="black", capsize=4)
            shown.add(flag)
    names = ["clean" if name == "none" else name for name, _ in groups]
    modes = [f"{name}\n{mode}" for name, (_, mode) in zip(names, groups, strict=True)]
    axes.set(
        xticks=range(len(groups)), xticklabels=modes, ylim=(0, 1.02),
        xlim=(-0.6, len(groups) - 0.4), ylabel="success rate, 95 % interval",
    )  # fmt: skip
    axes.legend(title="flag of a bad source", loc="lower left", fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)
