"""The control loop on a clock moved by hand: deadlines, overruns, and who waits for whom."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.control_loop import ControlLoop, LoopLimits, Ticker
from deploy.controller import Controller
from deploy.inference_session import InferenceSession
from deploy.plan_source import PlanAnswer
from deploy.source_condition import Sample
from deploy.start_gate import StartLimits
from deploy.wire import Timing
from teleop_data.clock import ManualClock
from tests.deploy.planar_environment import PlanarEnvironment
from tests.deploy.tiny_policy import TinyPolicy

RATE_HZ = 20.0


class LocalSource:
    """Answers in process, each `latency_s` after its request; silent while `is_away`.

    Its camera speaks from `camera_from_s` on.
    """

    def __init__(self, policy: TinyPolicy, clock: ManualClock, *, latency_s: float) -> None:
        self.policy, self._clock, self._latency_s = policy, clock, latency_s
        self.is_away = False
        self.camera_from_s = 0.0
        self.num_resets = 0
        self._waiting: list[tuple[float, PlanAnswer]] = []

    def reset(self, *, episode, seed, flag="auto"):
        self.num_resets += 1
        self._session = InferenceSession(self.policy, seed=seed, flag=flag)
        self._waiting = []

    def send_request(self, request, *, captured_s=None):
        if self.is_away:
            return False
        samples = {name: Sample(value=value) for name, value in request.observation.items()}
        if self._clock.now() < self.camera_from_s:
            del samples["front"]
        answer = self._session.answer(request, samples, now_s=self._clock.now())
        self._waiting.append(
            (
                self._clock.now() + self._latency_s,
                PlanAnswer(
                    plan=answer.plan,
                    valid_until=request.step + len(answer.plan.actions),
                    round_trip_s=self._latency_s,
                    source_levels=answer.assessment.levels,
                    reasons=answer.assessment.reasons,
                    timing=Timing(queue_s=0.0, inference_s=0.0),
                ),
            )
        )
        return True

    def poll_reply(self):
        arrived = [a for due_s, a in self._waiting if due_s <= self._clock.now() + 1e-9]
        self._waiting = [(d, a) for d, a in self._waiting if d > self._clock.now() + 1e-9]
        return arrived[-1] if arrived else None


def make_loop(*, latency_s=0.01, step_s=0.0, limits=None, on_publish=None, **policy_arguments):
    """A loop whose environment takes `step_s` per control step."""
    clock = ManualClock(100.0)

    class Timed(PlanarEnvironment):
        def step(self, action):
            clock.advance(step_s() if callable(step_s) else step_s)
            return super().step(action)

    environment = Timed(rate_hz=RATE_HZ)
    source = LocalSource(
        TinyPolicy(rate_hz=RATE_HZ, **policy_arguments), clock, latency_s=latency_s
    )
    loop = ControlLoop(
        environment,
        source,
        controller=Controller(environment.schema),
        clock=clock,
        limits=limits,
        publish=on_publish,
    )
    return loop, environment, source, clock


def test_deadlines_are_absolute_so_that_lateness_never_adds_up():
    clock = ManualClock(5.0)
    ticker = Ticker(clock, period_s=0.01)
    for tick in range(1000):
        lateness_s, num_missed = ticker.wait()
        assert num_missed == 0
        assert clock.now() == pytest.approx(5.0 + 0.01 * tick, abs=1e-9)
        assert lateness_s == pytest.approx(0, abs=1e-9)
        clock.advance(0.0099)  # a relative sleep would end 9.9 s late


def test_a_late_tick_runs_at_once_and_the_next_is_on_time_again():
    clock = ManualClock()
    ticker = Ticker(clock, period_s=0.1)
    ticker.wait()
    clock.advance(0.16)
    assert ticker.wait() == (pytest.approx(0.06), 0)
    assert clock.now() == pytest.approx(0.16)
    assert ticker.wait() == (pytest.approx(0), 0)
    assert clock.now() == pytest.approx(0.2)


def test_missed_ticks_are_skipped_and_the_phase_is_kept():
    clock = ManualClock()
    ticker = Ticker(clock, period_s=0.1)
    ticker.wait()
    clock.advance(0.47)  # 0.1, 0.2 and 0.3 are gone; 0.4 runs late
    lateness_s, num_missed = ticker.wait()
    assert (lateness_s, num_missed) == (pytest.approx(0.07), 3)
    ticker.wait()
    assert clock.now() == pytest.approx(0.5)


def test_one_step_per_period_and_a_plan_one_step_old():
    loop, environment, source, clock = make_loop(latency_s=0.01)
    records = []
    result = loop.run_episode(episode=0, seed=1, on_step=records.append)
    assert result.num_steps == 40
    assert result.statistics.cases == {"newest": 40 - 1, "continued": 1}
    assert [r.decision.slot.start_step for r in records] == [0, 0, *range(1, 39)]
    assert result.statistics.num_missed_ticks == 0
    assert max(result.statistics.lateness_s) == pytest.approx(0, abs=1e-9)
    # rest for one period, 10 ms for the first plan (looked for every 5 ms), then 39 periods
    assert clock.now() == pytest.approx(100.0 + 0.05 + 0.01 + 39 * 0.05, abs=0.0101)


def test_an_overrun_delays_the_plan_and_never_jumps_ahead():
    times = iter([0.0] * 10 + [0.17] + [0.0] * 40)
    loop, environment, _source, _clock = make_loop(step_s=lambda: next(times))
    records = []
    result = loop.run_episode(episode=0, seed=1, on_step=records.append)
    assert result.statistics.num_missed_ticks == 2
    assert [r.step for r in records] == list(range(40))
    # 0.17 s after tick 10: two ticks gone, the third runs 20 ms late
    assert result.statistics.lateness_s[11] == pytest.approx(0.02)
    assert result.statistics.lateness_s[12] == pytest.approx(0)
    changes = np.linalg.norm(np.diff(np.stack(environment.actions), axis=0), axis=1)
    assert changes.max() < 0.15  # a skipped slot of this policy would add its 0.1


def test_the_server_away_means_the_old_plan_then_hold_then_the_newest_again():
    loop, _environment, source, _clock = make_loop()

    def leave(record):
        source.is_away = 10 <= record.step < 25

    records = []
    result = loop.run_episode(episode=0, seed=1, on_step=lambda r: (records.append(r), leave(r)))
    cases = [r.decision.case for r in records]
    # the plan of step 10 arrives at 11 and reaches to step 17
    assert cases[9:12] == ["newest", "newest", "newest"]
    assert cases[12:18] == ["continued"] * 6
    assert cases[18:27] == ["hold"] * 9
    assert cases[27:] == ["newest"] * 13
    held = [r.decision.action for r in records[17:27]]
    np.testing.assert_array_equal(held, [held[0]] * 10)
    # when it is back the policy hears of every action that it has not seen
    executed = source.policy.requests[-14].executed
    assert source.policy.requests[-14].step == 26
    assert len(executed) == 16
    assert result.ending in ("success", "terminated")


def test_an_episode_without_a_plan_does_not_begin():
    loop, environment, source, clock = make_loop(limits=LoopLimits(start=StartLimits(plan_s=3.0)))
    source.is_away = True
    result = loop.run_episode(episode=0, seed=1)
    assert (result.ending, result.num_steps) == ("no_plan", 0)
    assert environment.actions == []
    assert clock.now() == pytest.approx(103.0, abs=0.02)


def test_the_first_plan_is_asked_for_again_with_a_new_reset():
    # a new question voids the one before: 0 s, 2 s, 6 s; the last is given 8 s
    loop, _environment, source, _clock = make_loop(latency_s=4.5)
    result = loop.run_episode(episode=0, seed=1)
    assert result.num_steps == 40
    assert source.num_resets == source.policy.num_sessions == 3


@pytest.mark.parametrize(
    ("camera_from_s", "start_s", "num_flagged"), [(0.0, 0.06, 0), (1.0, 1.0, 0), (9.0, 2.0, 40)]
)
def test_a_missing_source_is_waited_for_at_rest_and_then_done_without(
    camera_from_s, start_s, num_flagged
):
    loop, environment, source, clock = make_loop()
    source.camera_from_s = 100.0 + camera_from_s
    result = loop.run_episode(episode=0, seed=1)
    assert clock.now() - 39 / RATE_HZ == pytest.approx(100.0 + start_s, abs=0.1)
    assert len(environment.actions) == 40
    # the answer to the last request but one is the last that is read
    assert result.statistics.flagged["front: missing"] == max(0, num_flagged - 1)


def test_an_undecided_first_plan_does_not_begin_an_episode():
    loop, environment, source, _clock = make_loop(num_decided=-2)  # its first slot has level 2 / 9
    assert loop.run_episode(episode=0, seed=1).ending == "no_plan"
    assert environment.actions == []


def test_holding_for_too_long_ends_the_episode():
    loop, _environment, source, _clock = make_loop(limits=LoopLimits(max_hold_s=0.5))

    def leave(_record):
        source.is_away = True

    result = loop.run_episode(episode=0, seed=1, on_step=leave)
    assert result.ending == "held_too_long"
    assert result.statistics.cases == {"newest": 1, "continued": 7, "hold": 11}


def test_a_simulated_camera_goes_on_while_the_robot_rests_and_shows_every_step():
    shown = []
    loop, environment, source, clock = make_loop(
        latency_s=0.2, on_publish=lambda o, s: shown.append((o["front"].copy(), s))
    )
    loop.run_episode(episode=0, seed=1)
    assert len(shown) == 5 + 40 or len(shown) == 6 + 40
    times = [captured_s for _, captured_s in shown]
    assert times == sorted(times)
    assert np.diff(times).max() < 0.06


def test_a_second_episode_starts_afresh():
    loop, _environment, source, _clock = make_loop()
    first = loop.run_episode(episode=0, seed=1)
    second = loop.run_episode(episode=1, seed=1)
    assert first.statistics is not second.statistics
    ours, theirs = first.to_json(), second.to_json()
    for row in (ours, theirs):
        del row["statistics"]["lateness_s"]  # a float's breadth
    assert ours == theirs
    assert source.policy.num_sessions == 2
