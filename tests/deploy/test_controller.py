"""The controller: three named cases, executed actions as they really were, delays as measured."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.controller import Controller
from deploy.latency import DelayEstimator, percentiles
from deploy.safety import SafetyLimits
from policy.interface import Plan
from tests.deploy.test_action_queue import plan
from tests.deploy.tiny_policy import planar_schema

SCHEMA = planar_schema()
OBSERVATION = {"position": np.array([0.5, 0.5], np.float32)}


def started(**arguments) -> Controller:
    controller = Controller(SCHEMA, **arguments)
    controller.start_episode(OBSERVATION)
    return controller


def test_newest_plan_then_old_plan_continued_then_hold():
    controller = started()
    controller.accept(plan(0, horizon=3), 0)
    decisions = [controller.act(0), controller.act(1)]
    controller.accept(plan(1, horizon=3), 2)
    decisions += [controller.act(step) for step in range(2, 6)]
    assert [d.case for d in decisions] == [
        "newest", "continued", "newest", "continued", "hold", "hold",
    ]  # fmt: skip
    assert [tuple(d.action) for d in decisions] == [
        (0, 0), (1, 0), (2, 1), (3, 1), (3, 1), (3, 1),
    ]  # fmt: skip
    assert controller.statistics.cases == {"newest": 2, "continued": 2, "hold": 2}
    assert controller.statistics.horizons == [3, 2, 2, 1, 0, 0]


def test_a_request_repeats_what_was_executed_since_the_newest_plan_that_arrived():
    controller = started()
    assert controller.make_request(0, OBSERVATION).executed is None
    controller.accept(plan(0), 0)
    controller.act(0)
    np.testing.assert_array_equal(controller.make_request(1, OBSERVATION).executed, [(0, 0)])
    controller.act(1)
    np.testing.assert_array_equal(
        controller.make_request(2, OBSERVATION).executed, [(0, 0), (1, 0)]
    )
    controller.accept(plan(1), 2)
    controller.act(2)
    np.testing.assert_array_equal(
        controller.make_request(3, OBSERVATION).executed, [(1, 0), (2, 1)]
    )


def test_executed_is_what_the_safety_filter_let_through():
    controller = started(limits=SafetyLimits(high=(0.5, 9.0)))
    controller.accept(plan(1, horizon=4), 1)
    controller.act(1)
    np.testing.assert_array_equal(controller.act(2).action, [0.5, 1.0])
    executed = controller.make_request(3, OBSERVATION).executed
    np.testing.assert_array_equal(executed, [(0.5, 1.0), (0.5, 1.0)])
    assert controller.statistics.interventions == {"limit": 2}


def test_the_announced_delay_follows_what_is_measured_but_not_the_first_plan():
    controller = started(delay=1)
    controller.make_request(0, OBSERVATION)
    controller.accept(plan(0), 0)  # waited for at rest
    assert controller.statistics.delays == []
    for step in range(1, 6):
        controller.make_request(step, OBSERVATION)
        controller.act(step)
        if step >= 3:
            controller.accept(plan(step - 2), step + 1)
    assert controller.statistics.delays == [3, 3, 3]
    assert controller.statistics.num_late_plans == 3
    assert controller.make_request(6, OBSERVATION).delay == 3


def test_a_plan_older_than_the_held_one_changes_nothing():
    controller = started()
    controller.accept(plan(4), 4)
    assert not controller.accept(plan(3), 4)
    controller.act(4)
    assert controller.act(5).case == "continued"
    assert controller.statistics.num_outdated_plans == 1


def test_a_plan_from_the_future_is_of_another_episode():
    controller = started()
    assert not controller.accept(plan(7), 0)
    assert controller.accept(plan(0), 0)


def test_a_stale_plan_is_held_against():
    controller = started(limits=SafetyLimits(max_plan_age_steps=1))
    controller.accept(plan(0), 0)
    decisions = [controller.act(step) for step in range(3)]
    assert [d.case for d in decisions] == ["newest", "continued", "hold"]
    assert decisions[2].interventions == ("stale_plan",)


def test_start_from_makes_the_first_action_speed_limited_and_a_hold_possible():
    limits = SafetyLimits(max_change=(0.1, 0.1))
    controller = started(limits=limits, start_from="position")
    controller.accept(plan(0), 0)
    np.testing.assert_allclose(controller.act(0).action, [0.4, 0.4])
    held = started(start_from="position").act(0)
    np.testing.assert_array_equal(held.action, [0.5, 0.5])
    assert held.case == "hold"
    assert started().act(0).action is None
    with pytest.raises(ValueError, match="must be the position"):
        Controller(SCHEMA, start_from="front")


def test_a_broken_plan_is_counted_and_the_old_one_continues():
    controller = started()
    controller.accept(plan(0), 0)
    controller.act(0)
    broken = Plan(
        start_step=1,
        actions=np.full((3, 2), np.nan, np.float32),
        levels=np.zeros(3, np.float32),
        network_calls=1,
    )
    assert not controller.accept(broken, 1)
    assert controller.act(1).case == "continued"
    assert controller.statistics.num_refused_plans == 1
    assert controller.statistics.num_network_calls == 2  # both were paid for


def test_an_episode_forgets_the_one_before():
    controller = started()
    controller.accept(plan(0), 0)
    controller.act(0)
    controller.start_episode(OBSERVATION)
    assert not controller.can_start
    assert controller.statistics.num_steps == 0
    assert controller.make_request(0, OBSERVATION).executed is None


def test_the_delay_estimate_is_a_high_quantile_of_the_recent_ones():
    estimator = DelayEstimator(2, quantile=0.95, window=20)
    assert estimator.estimate == 2
    for delay in [1] * 19 + [9]:
        estimator.add(delay)
    assert estimator.estimate == 1  # one stall in twenty is within the quantile
    estimator.add(9)
    assert estimator.estimate == 9
    for _ in range(20):
        estimator.add(1)
    assert estimator.estimate == 1  # and nothing lasts for ever
    with pytest.raises(ValueError, match="does not come before"):
        estimator.add(-1)


def test_percentiles_of_known_samples():
    found = percentiles([float(i) for i in range(101)])
    assert found == {"p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0, "num": 101}
    assert percentiles([])["num"] == 0
