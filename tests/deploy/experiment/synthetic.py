"""Results that nobody measured, for formats and statistics only."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploy.control_statistics import ControlStatistics
from deploy.episode import EpisodeResult
from deploy.experiment.cells import Cell, expand
from deploy.experiment.plan import ExperimentPlan, to_yaml
from deploy.motion import Motion
from deploy.results import summarize_episodes


def episode(seed: int, *, success: bool, swaps: Sequence[bool] = ()) -> EpisodeResult:
    """One that took 100 control steps or did not succeed within 180."""
    statistics = ControlStatistics(num_network_calls=180)
    statistics.cases.update({"newest": 180})
    facts: dict[str, Any] = {"num_moves": 3 if success else 2, "done_step": 99 if success else None}
    return EpisodeResult(
        seed=seed,
        ending="success" if success else "max_steps",
        num_steps=180,
        max_reward=1.0 if success else 0.6,
        success_step=179 if success else None,
        facts=facts | ({"swaps": list(swaps)} if swaps else {}),
        statistics=statistics,
        motion=Motion(stall_steps=12, longest_stall_steps=5, peak_jerk=31.5),
    )


def write_cell(
    folder: Path, cell: Cell, *, plan: ExperimentPlan, episodes: Sequence[EpisodeResult]
) -> Path:
    """A cell's two files below the results folder `folder`."""
    path = folder / cell.folder
    path.mkdir(parents=True)
    results = {
        "command": f"forcing-evaluate perturbation={cell.condition} flag={cell.flag}",
        "version": "0.1.0",
        "checkpoint": f"runs/{plan.policies[cell.policy].checkpoint}/checkpoint",
        "task": cell.task,
        "perturbation": cell.condition,
        "flag": cell.flag,
        **summarize_episodes(episodes, rate_hz=10.0),
        "wall_time_s": 60.0,
    }
    (path / "results.json").write_text(json.dumps(results))
    told = {
        **{n: getattr(cell, n) for n in ("policy", "task", "condition", "phase", "flag", "group")},
        "key": "k",
        "num_videos": 0,
        "weights": plan.policies[cell.policy].checkpoint.ljust(64, "0"),
        "provenance": {"step": 2500, "training_episodes": 380, "command": "forcing-train recipe=x"},
        "commit": "0123456789abcdef",
    }
    (path / "cell.json").write_text(json.dumps(told))
    return path


def write_experiment(folder: Path, plan: ExperimentPlan, *, rate: Callable[[Cell], float]) -> Path:
    """All cells of `plan`; seeds that are easy in one are easy in all."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.yaml").write_text(to_yaml(plan))
    ease = np.random.default_rng(0).uniform(size=1000)
    for cell in expand(plan):
        episodes = []
        for i in range(cell.num_episodes):
            rng = np.random.default_rng([i, len(cell.folder)])
            difficulty = 0.7 * ease[i] + 0.3 * rng.uniform()
            swaps = rng.uniform(size=int(num)) < rate(cell) if (num := cell.task[5:]) else []
            success = bool(difficulty < rate(cell))
            episodes.append(
                episode(plan.first_seed + i, success=success, swaps=[*map(bool, swaps)])
            )
        write_cell(folder, cell, plan=plan, episodes=episodes)
    return folder
