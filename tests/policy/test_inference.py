"""Running episodes: in lock-step, one by one, and what they make of missing sources."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from policy.checkpoint import LoadedPolicy
from policy.construction import build
from policy.diffusion_forcing import DiffusionForcing
from policy.history import History
from policy.inference import LockStep, complete
from policy.interface import Plan, Policy, Request
from policy.planning import Planning
from tests.contracts.policy_contract import PolicyContract, assert_same_plans
from tests.policy.tiny_models import (
    CHUNK,
    FULL_SCHEMA,
    HORIZON,
    ROLLING,
    SCHEMA,
    observation,
    shaken_model,
)

PLANNINGS = {"rolling": ROLLING, "chunk": CHUNK}


class TestRolling(PolicyContract):
    def make_policy(self) -> Policy:
        return LoadedPolicy(shaken_model(), build(ROLLING))


class TestRollingWithDelay(PolicyContract):
    delay = 2

    def make_policy(self) -> Policy:
        planning = ROLLING | {
            "second_order": True,
            "staircase": {**ROLLING["staircase"], "block": 2},
        }
        return LoadedPolicy(shaken_model(), build(planning))


class TestChunk(PolicyContract):
    def make_policy(self) -> Policy:
        return LoadedPolicy(shaken_model(), build(CHUNK))


class TestChunkWithDelayAndCamera(PolicyContract):
    delay = 2

    def make_policy(self) -> Policy:
        return LoadedPolicy(shaken_model(FULL_SCHEMA), build(CHUNK))


@pytest.fixture
def model() -> DiffusionForcing:
    return shaken_model()


@pytest.fixture(params=PLANNINGS)
def planning(request: pytest.FixtureRequest) -> Planning:
    return build(PLANNINGS[request.param])


def run(episode: LockStep, rows: list[int], *, steps: list[int], last: int = 0) -> list[np.ndarray]:
    """Plans at each of `steps`; what a row sees and executed is a function of row and step."""
    results = []
    for step in steps:
        seen = [observation(seed=100 * row + step)["state"] for row in rows]
        is_missing = [[float((row + step) % 5 == 0)] for row in rows]
        executed = [[[np.sin(row + t), 0.5] for t in range(last, step)] for row in rows]
        actions, _, _ = episode.step(
            step,
            observation={"state": np.stack(seen)},
            levels=np.array(is_missing, np.float32),
            executed=np.array(executed, np.float32).reshape(len(rows), step - last, 2),
        )
        results.append(actions)
        last = step
    return results


STEPS = [0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 25, 26, 27]


def test_three_in_lock_step_are_three_alone(model, planning) -> None:
    together = run(LockStep(model, planning, seeds=[4, 5, 6]), [0, 1, 2], steps=STEPS)
    for row in range(3):
        alone = run(LockStep(model, planning, seeds=[4 + row]), [row], steps=STEPS)
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[row], b[0], atol=1e-5, rtol=1e-4)


def test_episodes_that_are_over_leave_the_others_as_they_are(model, planning) -> None:
    expected = run(LockStep(model, planning, seeds=[4, 5, 6]), [0, 1, 2], steps=STEPS)
    episode = LockStep(model, planning, seeds=[4, 5, 6])
    run(episode, [0, 1, 2], steps=STEPS[:4])
    episode.keep([2, 0])
    rest = run(episode, [2, 0], steps=STEPS[4:], last=STEPS[3])
    for a, b in zip(expected[4:], rest, strict=True):
        np.testing.assert_allclose(a[[2, 0]], b, atol=1e-5, rtol=1e-4)


def test_the_cache_makes_no_difference(model, planning) -> None:
    cached = run(LockStep(model, planning, seeds=[4]), [0], steps=STEPS)
    uncached = run(LockStep(model, planning, seeds=[4], cached=False), [0], steps=STEPS)
    for a, b in zip(cached, uncached, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4, rtol=1e-3)


def test_steps_must_rise(model, planning) -> None:
    episode = LockStep(model, planning, seeds=[0])
    run(episode, [0], steps=[0, 1, 2])
    with pytest.raises(ValueError, match="step 1 after step 2: steps must rise from 0"):
        run(episode, [0], steps=[1], last=1)


def test_executed_actions_stand_before_the_step_that_they_led_to(
    model, planning, monkeypatch
) -> None:
    """After a gap the history gets every step: the last `memory`, each with its action if known."""
    taken, append = [], History.append

    def spy(history: History, step: int, *, features, levels, executed) -> None:
        action = None if executed is None else executed[0, 0].item()
        taken.append((step, levels[0, 0].item(), action))
        append(history, step, features=features, levels=levels, executed=executed)

    monkeypatch.setattr(History, "append", spy)
    episode = LockStep(model, planning, seeds=[0])
    taken.clear()  # what is unknown before the reset
    for step, known in [(0, []), (1, [0]), (4, [1, 2, 3]), (6, [5]), (20, [18, 19])]:
        # 0.1 at unit scale is 0.2 m here; the action of step t is 0.1 t
        actions = np.array([[[0.2 * t, 0.0] for t in known]], np.float32).reshape(1, -1, 2)
        episode.step(
            step,
            observation={"state": np.zeros((1, 3), np.float32)},
            levels=np.zeros((1, 1), np.float32),
            executed=actions,
        )
    expected = [
        (0, 0.0, None), (1, 0.0, 0.0), (2, 1.0, 0.1), (3, 1.0, 0.2), (4, 0.0, 0.3),
        (5, 1.0, None), (6, 0.0, 0.5), (18, 1.0, None), (19, 1.0, 1.8), (20, 0.0, 1.9),
    ]  # fmt: skip
    assert [step for step, _, _ in taken] == [step for step, _, _ in expected]
    for got, wanted in zip(taken, expected, strict=True):
        assert got == pytest.approx(wanted, abs=1e-6) if wanted[2] is not None else got == wanted


def plans_of(policy: LoadedPolicy, change) -> list[Plan]:
    """An episode of 8 steps whose requests go through `change`."""
    session, executed = policy.start_session(0), None
    plans = []
    for step in range(8):
        seen = observation(policy.schema, seed=step)
        plan = session.step(change(Request(step=step, observation=seen, executed=executed)))
        plans.append(plan)
        executed = plan.actions[:1]
    return plans


def absent(request: Request) -> Request:
    if not 2 <= request.step < 5:
        return request
    return replace(
        request, observation={k: v for k, v in request.observation.items() if k != "front"}
    )


def at_level(level: float, *, brightness: int | None = None):
    def change(request: Request) -> Request:
        if not 2 <= request.step < 5:
            return request
        seen = dict(request.observation)
        if brightness is not None:
            seen["front"] = np.full_like(seen["front"], brightness)
        return replace(request, observation=seen, levels={"front": level})

    return change


@pytest.fixture
def seeing() -> LoadedPolicy:
    return LoadedPolicy(shaken_model(FULL_SCHEMA), build(ROLLING))


def test_an_absent_source_is_one_at_level_1(seeing: LoadedPolicy) -> None:
    assert_same_plans(plans_of(seeing, absent), plans_of(seeing, at_level(1.0)))


def test_what_is_at_level_1_is_not_looked_at(seeing: LoadedPolicy) -> None:
    dark, bright = (plans_of(seeing, at_level(1.0, brightness=b)) for b in (0, 200))
    assert_same_plans(dark, bright)
    is_different = [
        not np.array_equal(a.actions, b.actions)
        for a, b in zip(
            plans_of(seeing, at_level(0.9, brightness=0)),
            plans_of(seeing, at_level(0.9, brightness=200)),
            strict=True,
        )
    ]
    assert is_different.index(True) == 3  # the first network call after the cold start


def test_the_camera_is_seen(seeing: LoadedPolicy) -> None:
    plans = plans_of(seeing, lambda request: request)
    blind = plans_of(seeing, at_level(1.0))
    np.testing.assert_array_equal(plans[2].actions, blind[2].actions)
    assert np.abs(plans[3].actions - blind[3].actions).max() > 1e-3


def test_actions_are_in_the_schemas_unit(model) -> None:
    """Estimates are clipped at 1.2 of the recorded range, which is 2 m either way."""
    for seed in range(3):
        session = LoadedPolicy(model, build(CHUNK)).start_session(seed)
        plan = session.step(Request(step=0, observation=observation(seed=seed)))
        assert np.abs(plan.actions).max() <= 2.4 + 1e-5
        assert np.abs(plan.actions).max() > 0.2


def test_completion() -> None:
    seen = observation(FULL_SCHEMA, seed=0)
    full, levels = complete(FULL_SCHEMA, {"state": seen["state"]}, {"state": 0.25, "front": 0.5})
    assert (full["front"] == 0).all()
    assert full["front"].shape == (16, 16, 3)
    assert levels.tolist() == [1.0, 0.25]  # absent is missing, whatever level was given
    with pytest.raises(KeyError, match=r"no observed feature \['wrsit'\]; have: front, state"):
        complete(FULL_SCHEMA, seen | {"wrsit": seen["front"]}, {})
    with pytest.raises(ValueError, match=r"level of 'state' must lie in \[0, 1\], got -0.1"):
        complete(SCHEMA, {}, {"state": -0.1})


def test_plans_are_as_long_as_the_horizon(model, planning) -> None:
    actions, levels, calls = LockStep(model, planning, seeds=[0, 1]).step(
        0,
        observation={"state": np.zeros((2, 3), np.float32)},
        levels=np.zeros((2, 1), np.float32),
        executed=np.zeros((2, 0, 2), np.float32),
    )
    assert actions.shape == (2, HORIZON, 2)
    assert levels.shape == (HORIZON,)
    assert (
        calls
        == {ROLLING["_target_"]: 3, CHUNK["_target_"]: 2}[
            f"policy.planning.{type(planning).__name__}"
        ]
    )
