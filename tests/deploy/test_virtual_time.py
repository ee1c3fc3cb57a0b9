"""Virtual time: with no delay the direct loop to the bit, with delay the plan of that long ago."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.controller import Controller
from deploy.inference_session import InvalidPlanError
from deploy.virtual_time import Sensing, run_episode
from policy.interface import Request
from tests.deploy.planar_environment import PlanarEnvironment
from tests.deploy.tiny_policy import TinyPolicy


def direct_loop(environment, policy, *, seed):
    """The plainest loop: ask, do the first action, look."""
    session, executed = policy.start_session(seed), None
    observation = environment.reset(seed)
    for step in range(environment.max_steps):
        plan = session.step(Request(step=step, observation=observation, executed=executed))
        result = environment.step(plan.actions[0])
        executed, observation = plan.actions[:1], result.observation
    return environment.actions


def test_without_delay_it_is_the_direct_loop_bit_for_bit():
    expected = direct_loop(PlanarEnvironment(), (direct := TinyPolicy()), seed=3)
    environment, policy = PlanarEnvironment(), TinyPolicy()
    result = run_episode(environment, policy, seed=3, delay=0)
    assert np.stack(environment.actions).tobytes() == np.stack(expected).tobytes()
    assert result.statistics.cases == {"newest": 40}
    assert result.statistics.network_calls_per_step == 1
    for ours, theirs in zip(policy.requests, direct.requests, strict=True):
        assert (ours.step, ours.delay) == (theirs.step, theirs.delay)
        np.testing.assert_array_equal(ours.executed, theirs.executed)  # None equals None


@pytest.mark.parametrize("delay", [1, 2, 4])
def test_the_answer_of_step_t_is_used_at_step_t_plus_delay(delay):
    records = []
    environment, policy = PlanarEnvironment(), TinyPolicy()
    result = run_episode(environment, policy, seed=0, delay=delay, on_step=records.append)
    sources = [record.decision.slot.start_step for record in records]
    assert sources == [max(0, step - delay) for step in range(40)]
    assert result.statistics.cases["hold"] == 0
    assert result.statistics.cases["continued"] == delay - 1 + 1 if delay else 0
    assert [r.delay for r in policy.requests] == [delay] * 40
    assert set(result.statistics.delays) == {delay}


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_the_policy_is_told_every_executed_action_exactly_once(delay):
    environment, policy = PlanarEnvironment(), TinyPolicy()
    run_episode(environment, policy, seed=1, delay=delay)
    told = [r.executed for r in policy.requests if r.executed is not None]
    assert policy.requests[0].executed is None
    np.testing.assert_array_equal(np.concatenate(told), np.stack(environment.actions)[:-1])


def test_a_delay_beyond_the_decided_slots_holds():
    records = []
    policy = TinyPolicy(horizon=4)
    result = run_episode(
        PlanarEnvironment(),
        policy,
        seed=0,
        delay=lambda rng: 6,
        controller=Controller(policy.schema, delay=1),
        on_step=records.append,
    )
    cases = [record.decision.case for record in records]
    # 4 slots of the first plan; then each plan is over before it can be used
    assert cases == ["newest"] + ["continued"] * 3 + ["hold"] * 36
    held = [record.decision.action for record in records[3:]]
    np.testing.assert_array_equal(held, [held[0]] * len(held))
    assert result.statistics.cases == {"newest": 1, "continued": 3, "hold": 36}


def test_random_delays_repeat_with_the_seed_and_never_go_back():
    def play(seed):
        environment, records = PlanarEnvironment(), []
        run_episode(
            environment,
            TinyPolicy(),
            seed=seed,
            delay=lambda rng: int(rng.integers(0, 4)),
            on_step=records.append,
        )
        starts = [r.decision.slot.start_step for r in records if r.decision.slot]
        assert starts == sorted(starts)
        return np.stack(environment.actions)

    np.testing.assert_array_equal(play(5), play(5))
    assert not np.array_equal(play(5), play(6))


@pytest.mark.parametrize(("flag", "expected"), [("none", 0.0), ("auto", 1.0), ("oracle", 0.7)])
def test_who_decides_about_a_black_picture(flag, expected):
    def black_from_3(step, observation):
        if step < 3:
            return observation, {"front": 0.0}
        return {**observation, "front": np.zeros((32, 32, 3), np.uint8)}, {"front": 0.7}

    policy, records = TinyPolicy(), []
    sensing = Sensing(flag=flag, perceive=black_from_3)
    run_episode(
        PlanarEnvironment(max_steps=6), policy, seed=0, sensing=sensing, on_step=records.append
    )
    assert [r.levels["front"] for r in policy.requests] == [0.0] * 3 + [expected] * 3
    assert [record.source_levels["front"] for record in records] == [0.0] * 3 + [expected] * 3
    assert policy.requests[4].observation["front"].max() == 0
    assert all(r.levels["position"] == 0.0 for r in policy.requests)


@pytest.mark.parametrize("flag", ["none", "auto", "oracle"])
def test_a_dropped_picture_is_absent_and_flagged_whatever_the_mode(flag):
    def drop(_step, observation):
        return {"position": observation["position"]}, {"front": 1.0}

    policy = TinyPolicy()
    sensing = Sensing(flag=flag, perceive=drop)
    run_episode(PlanarEnvironment(max_steps=4), policy, seed=0, sensing=sensing)
    assert [r.levels["front"] for r in policy.requests] == [1.0] * 4
    assert all("front" not in r.observation for r in policy.requests)


def test_capture_times_make_a_late_picture_stale():
    policy, step = TinyPolicy(rate_hz=20.0), iter(range(99))
    sensing = Sensing(captured_s=lambda: {"front": next(step) / 20 - 0.2})  # 4 steps ago
    run_episode(PlanarEnvironment(max_steps=3), policy, seed=0, sensing=sensing)
    assert [r.levels["front"] for r in policy.requests] == [1.0] * 3


def test_a_frozen_picture_is_flagged_after_three_repeats():
    first = {}

    def freeze(_step, observation):
        first.setdefault("front", observation["front"])
        return {**observation, **first}, {}

    policy = TinyPolicy()
    sensing = Sensing(perceive=freeze)
    result = run_episode(PlanarEnvironment(max_steps=6), policy, seed=0, sensing=sensing)
    assert [r.levels["front"] for r in policy.requests] == [0, 0, 0, 1, 1, 1]
    assert result.statistics.flagged == {"front: frozen": 3}


def test_without_an_executable_slot_it_says_so():
    with pytest.raises(RuntimeError, match="no slot that may be executed"):
        run_episode(PlanarEnvironment(), TinyPolicy(num_decided=0), seed=0)


def test_an_episode_ends_where_the_environment_says_and_knows_its_best():
    result = run_episode(PlanarEnvironment(max_steps=40), TinyPolicy(), seed=2)
    assert (result.ending, result.num_steps) == ("success", 40)
    assert result.is_success
    assert 0.9 < result.max_reward <= 1
    assert result.to_json()["statistics"]["num_newest"] == 40


def test_a_policy_that_lies_about_its_plan_is_caught():
    class Liar(TinyPolicy):
        def start_session(self, seed):
            session = super().start_session(seed)
            honest = session.step

            def step(request):
                plan = honest(request)
                plan.actions[3, 0] = np.nan
                return plan

            session.step = step
            return session

    with pytest.raises(InvalidPlanError, match="not finite"):
        run_episode(PlanarEnvironment(), Liar(), seed=0)


def test_an_observation_off_the_schema_is_refused_by_name():
    def shrink(_step, observation):
        return {**observation, "front": observation["front"][:4]}, {}

    with pytest.raises(ValueError, match=r"'front': got shape \(4, 32, 3\)"):
        run_episode(PlanarEnvironment(), TinyPolicy(), seed=0, sensing=Sensing(perceive=shrink))
