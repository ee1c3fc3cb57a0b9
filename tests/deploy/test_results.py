"""Results: exact values of the interval and of every summary."""

from __future__ import annotations

import json
import math

import pytest

from deploy.control_statistics import ControlStatistics
from deploy.episode import EpisodeResult
from deploy.results import success_interval, summarize_episodes


def wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson's formula (1927), with the 97.5 % point of the normal distribution."""
    z = 1.959963984540054
    p = k / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return middle - half, middle + half


@pytest.mark.parametrize(("k", "n"), [(0, 10), (81, 100), (263, 300), (10, 10)])
def test_the_interval_is_wilsons(k: int, n: int):
    low, high = wilson(k, n)
    assert success_interval(k, n) == pytest.approx((low, high), abs=1e-12)


def test_the_interval_of_81_in_100_as_printed_in_tables():
    low, high = success_interval(81, 100)
    assert (round(low, 4), round(high, 4)) == (0.7222, 0.8749)


def episode(seed: int, *, steps: int, success_step: int | None, reward: float) -> EpisodeResult:
    statistics = ControlStatistics(num_network_calls=2 * steps, num_late_plans=seed)
    statistics.cases.update({"newest": steps - 1, "hold": 1})
    return EpisodeResult(
        seed=seed,
        num_steps=steps,
        success_step=success_step,
        max_reward=reward,
        statistics=statistics,
    )


def test_every_number_of_a_summary():
    episodes = [
        episode(3, steps=10, success_step=9, reward=1.0),
        episode(4, steps=30, success_step=None, reward=0.5),
        episode(5, steps=20, success_step=19, reward=1.0),
        episode(6, steps=40, success_step=None, reward=0.25),
    ]
    summary = summarize_episodes(episodes, rate_hz=10.0)
    assert summary["seeds"] == [3, 4, 5, 6]
    assert summary["num_episodes"] == 4
    assert summary["mean_max_reward"] == 0.6875
    # deviations .3125 -.1875 .3125 -.4375, squares sum to .421875, over 3, over 4
    assert summary["mean_max_reward_error"] == pytest.approx((0.421875 / 3 / 4) ** 0.5)
    assert summary["success_rate"] == 0.5
    assert summary["success_interval"] == pytest.approx(list(wilson(2, 4)))
    assert summary["mean_success_time_s"] == pytest.approx(1.5)
    assert summary["network_calls_per_step"] == 2.0
    assert summary["holds_per_episode"] == 1.0
    assert summary["late_plans"] == 18
    rows = json.loads(json.dumps(summary))["episodes"]
    assert [row["success"] for row in rows] == [True, False, True, False]


def test_one_failed_episode_has_no_error_and_no_time():
    summary = summarize_episodes([episode(1, steps=5, success_step=None, reward=0.2)], rate_hz=10)
    assert summary["mean_max_reward_error"] is None
    assert summary["mean_success_time_s"] is None


def test_no_episode_is_refused():
    with pytest.raises(ValueError, match="at least one episode"):
        summarize_episodes([], rate_hz=10.0)
