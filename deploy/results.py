"""Results of an evaluation: what `results.json` holds.

command, version           how to get these numbers again
checkpoint, task, inference, planning, flag, mark, delay
perturbation               name of the condition, "none" for a healthy world
outage                     its terms in control steps, see `sim.perturbations.sources`, or null
seeds                      of the episodes, in order
num_episodes
mean_max_reward            mean over episodes of the greatest reward of any step
mean_max_reward_error      its standard error
success_rate               share of episodes that reached the goal
success_interval           [low, high], 95 % Wilson
mean_success_time_s        over the successful episodes; null if none
median_done_time_s         over the successful episodes, until the task was finished, see
                           `deploy.episode.EpisodeResult.done_step`; null if none
mean_num_moves             of the fact `num_moves`, of tasks that tell it, else null
median_stall_steps         over the episodes, of what `deploy.motion.Motion` holds; null where the
median_longest_stall_steps environment has no state to judge motion by
median_peak_jerk           m/s^3
network_calls_per_step     denoiser calls over control steps, all episodes
holds_per_episode          control steps without an action that might be executed
num_perturbed              episodes in which the perturbation's window began
late_plans                 plans that took longer than announced, all episodes
wall_time_s                of the whole evaluation
episodes                   one row each, see `deploy.episode.EpisodeResult.to_json`
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from statsmodels.stats.proportion import proportion_confint

from deploy.episode import EpisodeResult


def success_interval(num_successes: int, num_episodes: int) -> tuple[float, float]:
    """95 % Wilson score interval of a success rate."""
    interval = proportion_confint(num_successes, num_episodes, alpha=0.05, method="wilson")
    low, high = cast(tuple[float, float], interval)  # arrays and frames are for many rates at once
    return float(low), float(high)


def summarize_episodes(episodes: Sequence[EpisodeResult], *, rate_hz: float) -> dict[str, Any]:
    """What the episodes give to `results.json`, JSON-ready. ValueError if there are none."""
    if not episodes:
        raise ValueError("an evaluation needs at least one episode")
    rewards = np.array([episode.max_reward for episode in episodes])
    times_s = [(e.success_step + 1) / rate_hz for e in episodes if e.success_step is not None]
    num = len(episodes)
    statistics = [episode.statistics for episode in episodes]
    calls = sum(s.num_network_calls for s in statistics)
    error = float(rewards.std(ddof=1) / num**0.5) if num > 1 else None
    return {
        "seeds": [episode.seed for episode in episodes],
        "num_episodes": num,
        "mean_max_reward": float(rewards.mean()),
        "mean_max_reward_error": error,
        "success_rate": len(times_s) / num,
        "success_interval": list(success_interval(len(times_s), num)),
        "mean_success_time_s": float(np.mean(times_s)) if times_s else None,
        **_medians(episodes, rate_hz=rate_hz),
        "network_calls_per_step": calls / sum(episode.num_steps for episode in episodes),
        "holds_per_episode": sum(s.cases["hold"] for s in statistics) / num,
        "num_perturbed": sum(episode.is_perturbed for episode in episodes),
        "late_plans": sum(s.num_late_plans for s in statistics),
        "episodes": [episode.to_json() for episode in episodes],
    }


def _medians(episodes: Sequence[EpisodeResult], *, rate_hz: float) -> dict[str, Any]:
    """How fast and how smoothly the task was done, over all episodes that tell it."""
    done = [
        (e.done_step + 1) / rate_hz for e in episodes if e.is_success and e.done_step is not None
    ]
    moves = [e.facts["num_moves"] for e in episodes if "num_moves" in e.facts]
    motions = [e.motion for e in episodes if e.motion is not None]
    jerks = [motion.peak_jerk for motion in motions if motion.peak_jerk is not None]
    return {
        "median_done_time_s": _median(done),
        "mean_num_moves": float(np.mean(moves)) if moves else None,
        "median_stall_steps": _median([motion.stall_steps for motion in motions]),
        "median_longest_stall_steps": _median([motion.longest_stall_steps for motion in motions]),
        "median_peak_jerk": _median(jerks),
    }


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None
