"""Rollouts in lock-step: who runs beside an episode does not matter; delays and truth arrive."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deploy.episode import StepRecord
from deploy.rollout import Conditions, roll_out
from deploy.source_condition import ConditionLimits
from deploy.virtual_time import run_episode
from sim.perturbations.kinds import perturbation
from sim.tasks.pick_place import SCHEMA, pick_place_environment
from tests.deploy.tiny_checkpoint import tiny_policy

MAX_STEPS = 14


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory):
    return tiny_policy(tmp_path_factory.mktemp("policy") / "checkpoint")


def recorded(policy, *, seeds, batch: int, conditions: Conditions | None = None):
    """All records by seed, of episodes carried `batch` at a time."""
    records: dict[int, list[StepRecord]] = {seed: [] for seed in seeds}
    environments = [pick_place_environment(max_steps=MAX_STEPS) for _ in range(batch)]
    results = roll_out(
        policy,
        environments,
        seeds=seeds,
        conditions=conditions,
        on_step=lambda seed, record: records[seed].append(record),
    )
    assert [result.seed for result in results] == list(seeds)
    return records


def actions(records: list[StepRecord]) -> np.ndarray:
    return np.stack(
        [record.decision.action for record in records if record.decision.action is not None]
    )


def levels(records: list[StepRecord], name: str = "top") -> list[float]:
    return [record.source_levels[name] for record in records]


def outage(name: str, *, first: int = 4, length: int | None = 5, **options):
    start = (first, first)
    return lambda: [perturbation(name, schema=SCHEMA, start=start, length=length, **options)]


def test_an_episode_is_the_same_alone_and_in_company(policy):
    together = recorded(policy, seeds=[7, 8, 9], batch=3)
    in_turn = recorded(policy, seeds=[9, 7], batch=1)
    for seed in (7, 9):
        assert len(together[seed]) == MAX_STEPS
        # other batch sizes sum in another order, hence not to the last bit
        np.testing.assert_allclose(actions(together[seed]), actions(in_turn[seed]), atol=1e-5)
    assert np.abs(actions(together[7]) - actions(together[8])).max() > 1e-3


def test_an_episode_goes_on_unchanged_when_another_ends(policy):
    short, long = pick_place_environment(max_steps=5), pick_place_environment(max_steps=MAX_STEPS)
    records: dict[int, list[StepRecord]] = {7: [], 8: []}
    roll_out(policy, [short, long], seeds=[7, 8], on_step=lambda s, r: records[s].append(r))
    assert [len(records[7]), len(records[8])] == [5, MAX_STEPS]
    alone = recorded(policy, seeds=[8], batch=1)[8]
    np.testing.assert_allclose(actions(records[8]), actions(alone), atol=1e-5)


def test_rollouts_agree_with_the_driver_that_runs_one_episode(policy):
    records: list[StepRecord] = []
    environment = pick_place_environment(max_steps=MAX_STEPS)
    run_episode(environment, policy, seed=7, on_step=records.append)
    lock_step = recorded(policy, seeds=[7], batch=1)[7]
    np.testing.assert_array_equal(actions(records), actions(lock_step))


@pytest.mark.parametrize("delay", [0, 2])
def test_a_plan_is_used_delay_steps_after_its_observation(policy, delay: int):
    records = recorded(policy, seeds=[7], batch=1, conditions=Conditions(delay=delay))[7]
    arrived = [None if r.plan is None else r.plan.start_step for r in records]
    expected = [0, *([None] * delay), *range(1, MAX_STEPS - delay)]
    assert arrived == expected[:MAX_STEPS]
    used = [r.decision.slot.start_step for r in records if r.decision.slot is not None]
    assert used == [0, *([0] * delay), *range(1, MAX_STEPS - delay)][:MAX_STEPS]


def test_committed_actions_are_not_changed_by_the_plans_under_way(policy):
    records = recorded(policy, seeds=[7], batch=1, conditions=Conditions(delay=2))[7]
    by_step = {r.decision.step: r.decision.action for r in records}
    for record in records:
        plan = record.plan
        if plan is None or plan.start_step == 0:
            continue
        for slot in range(2):
            np.testing.assert_array_equal(plan.actions[slot], by_step[plan.start_step + slot])


def test_the_oracle_flags_exactly_the_outage(policy):
    told = Conditions(perturb=outage("noise", first=4, length=5), flag="oracle")
    believed = Conditions(perturb=outage("noise", first=4, length=5), flag="none")
    with_flag = recorded(policy, seeds=[7], batch=1, conditions=told)[7]
    without = recorded(policy, seeds=[7], batch=1, conditions=believed)[7]
    assert levels(with_flag) == [0.0] * 4 + [1.0] * 5 + [0.0] * 5
    assert levels(without) == [0.0] * MAX_STEPS
    assert levels(with_flag, "state") == [0.0] * MAX_STEPS
    np.testing.assert_array_equal(actions(with_flag)[:4], actions(without)[:4])
    # the same pictures arrived: what differs later is the level alone
    np.testing.assert_array_equal(with_flag[4].observation["top"], without[4].observation["top"])
    assert np.abs(actions(with_flag)[4:] - actions(without)[4:]).max() > 1e-4


def test_auto_finds_a_black_camera_in_its_first_step(policy):
    conditions = Conditions(perturb=outage("black", first=3, length=4), flag="auto")
    records = recorded(policy, seeds=[7], batch=1, conditions=conditions)[7]
    assert levels(records) == [0.0] * 3 + [1.0] * 4 + [0.0] * 7


def test_a_dropped_source_is_missing_even_where_everything_is_believed(policy):
    conditions = Conditions(perturb=outage("dropped", first=3, length=2), flag="none")
    records = recorded(policy, seeds=[7], batch=1, conditions=conditions)[7]
    assert levels(records) == [0.0] * 3 + [1.0] * 2 + [0.0] * 9
    assert ["top" in record.observation for record in records].count(False) == 2


def test_auto_knows_a_late_frame_by_its_capture_time(policy):
    late = Conditions(perturb=outage("late", first=5, length=None, delay=2), flag="auto")
    records = recorded(policy, seeds=[7], batch=1, conditions=late)[7]
    assert levels(records) == [0.0] * 5 + [1.0] * 9
    believed = replace(late, limits=ConditionLimits(max_age_steps=3))
    records = recorded(policy, seeds=[7], batch=1, conditions=believed)[7]
    assert levels(records) == [0.0] * MAX_STEPS


class Distrustful:
    """A NoveltyDetector to which every picture is strange."""

    def is_strange(self, camera: str, picture: np.ndarray, /, *, tolerance: float) -> bool:
        return True

    def longest_still(self, camera: str, /) -> int:
        return 0


def test_the_policys_novelty_is_asked_in_lock_step_and_by_the_server(policy, monkeypatch):
    monkeypatch.setattr(policy, "novelty", Distrustful())
    assert levels(recorded(policy, seeds=[7], batch=1)[7]) == [1.0] * MAX_STEPS
    believed = Conditions(flag="none")
    records = recorded(policy, seeds=[7], batch=1, conditions=believed)[7]
    assert levels(records) == [0.0] * MAX_STEPS
    served: list[StepRecord] = []  # by the policy server's session
    environment = pick_place_environment(max_steps=4)
    run_episode(environment, policy, seed=7, on_step=served.append)
    assert levels(served) == [1.0] * 4


def test_a_lower_level_reaches_the_policy(policy):
    conditions = Conditions(perturb=outage("noise", first=3, length=2, level=0.4), flag="oracle")
    records = recorded(policy, seeds=[7], batch=1, conditions=conditions)[7]
    assert levels(records) == pytest.approx([0.0] * 3 + [0.4] * 2 + [0.0] * 9)


def test_the_world_executes_late_what_the_controller_was_told(policy):
    """The controller knows nothing of it; the hand does."""
    late = recorded(
        policy, seeds=[7], batch=1, conditions=Conditions(perturb=outage("action_latency"))
    )[7]
    prompt = recorded(policy, seeds=[7], batch=1)[7]
    np.testing.assert_array_equal(actions(late)[:5], actions(prompt)[:5])
    states = [np.stack([r.observation["state"] for r in records]) for records in (late, prompt)]
    np.testing.assert_array_equal(states[0][:5], states[1][:5])
    assert np.abs(states[0][5] - states[1][5]).max() > 1e-3
    assert levels(late) == [0.0] * MAX_STEPS


def test_contact_is_waited_for_and_the_result_tells_what_happened(policy):
    environment = pick_place_environment(max_steps=MAX_STEPS)
    waiting = perturbation("black", schema=SCHEMA, phase="during_contact")
    conditions = Conditions(perturb=lambda: [waiting, *outage("black", first=9, length=8)()])
    (result,) = roll_out(policy, [environment], seeds=[7], conditions=conditions)
    never, at_nine = result.to_json()["perturbations"]
    assert never["window"] is None
    assert at_nine["window"] == [9, 17]
    assert result.is_perturbed
    (result,) = roll_out(policy, [environment], seeds=[7])
    assert result.to_json()["perturbations"] == []
    assert not result.is_perturbed
    too_late = Conditions(perturb=outage("black", first=MAX_STEPS))
    (result,) = roll_out(policy, [environment], seeds=[7], conditions=too_late)
    assert not result.is_perturbed


def test_a_flagged_camera_is_not_looked_at(policy):
    """What the camera shows while it is flagged cannot reach the actions: its token is noise."""
    black = Conditions(perturb=outage("black", first=4, length=5), flag="oracle")
    noise = Conditions(perturb=outage("noise", first=4, length=5), flag="oracle")
    dark = recorded(policy, seeds=[7], batch=1, conditions=black)[7]
    noisy = recorded(policy, seeds=[7], batch=1, conditions=noise)[7]
    assert not np.array_equal(dark[5].observation["top"], noisy[5].observation["top"])
    np.testing.assert_array_equal(actions(dark), actions(noisy))
