"""PerturbedEnvironment: the contract under every fault, labels, composition, action latency."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sim.experts.planar_pick_place import PickPlaceExpert
from sim.perturbations.environment import PerturbedEnvironment
from sim.perturbations.kinds import Perturbation, perturbation
from sim.tasks.pick_place import ACTION_HIGH, ACTION_LOW, SCHEMA, pick_place_environment
from teleop_data.environment import Labelled
from teleop_data.recorder import Recorder, record_episode, recording_schema
from teleop_data.replay_buffer import ReplayBuffer
from tests.contracts.environment_contract import EnvironmentContract


def fault(kind: str, **options) -> Perturbation:
    return perturbation(kind, schema=SCHEMA, **options)


def perturbed(*perturbations: Perturbation) -> PerturbedEnvironment:
    return PerturbedEnvironment(pick_place_environment(), perturbations)


def action(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(ACTION_LOW, ACTION_HIGH).astype(np.float32)


class TestUnperturbed(EnvironmentContract):
    def make(self):
        return perturbed()

    def typical_action(self, rng):
        return action(rng)


class TestFaultySources(TestUnperturbed):
    """Old values come again, some never come, and the state is not what it was."""

    def make(self):
        return perturbed(
            fault("late", delay=(0, 4), sources=["top", "state"]),
            fault("frozen", start=(2, 6), length=3),
            fault("dropped", probability=0.4),
            fault("noise", sources=["state"], std=0.01),
        )


class TestLateActions(TestUnperturbed):
    def make(self):
        return perturbed(fault("action_latency", delay=(1, 4)))


def play(environment: PerturbedEnvironment, *, seed: int = 3, num_steps: int = 12):
    """What was handed out and known at every step."""
    told = [(environment.reset(seed), environment.sight, environment.labels())]
    rng = np.random.default_rng(0)
    for _ in range(num_steps):
        result = environment.step(action(rng))
        told.append((result.observation, environment.sight, environment.labels()))
    return told


def test_without_perturbations_it_changes_nothing():
    plain, rng = pick_place_environment(), np.random.default_rng(0)
    expected = [plain.reset(3), *(plain.step(action(rng)).observation for _ in range(12))]
    environment = perturbed()
    for (observation, sight, labels), true in zip(play(environment), expected, strict=True):
        for name, value in true.items():
            np.testing.assert_array_equal(observation[name], value)
            np.testing.assert_array_equal(sight.true[name], value)
        assert labels == {"world_is_perturbed": np.array([False])}
    assert environment.facts() == {"perturbations": []}


def test_a_dropped_source_is_absent_from_sight_and_zeros_on_schema():
    environment = perturbed(fault("dropped", start=(4, 4), length=3, sources=["state"]))
    for step, (observation, sight, labels) in enumerate(play(environment)):
        environment.schema.check_observation(observation)
        is_gone = 4 <= step < 7
        assert ("state" in sight.arrived) is not is_gone
        assert labels["missing_state"] == [is_gone]
        assert labels["bad_state"] == [is_gone]
        assert (observation["state"] == 0).all() == is_gone
        assert (sight.true["state"] != 0).any()


def test_several_faults_work_one_after_the_other_and_the_worst_is_told():
    environment = perturbed(
        fault("patch", share=0.2, start=(2, 2), length=4, level=0.3),
        fault("noise", std=0.02, start=(4, 4), length=4, level=0.8),
    )
    told = play(environment)
    levels = [sight.truth["top"] for _, sight, _ in told]
    assert levels == pytest.approx([0, 0, 0.3, 0.3, 0.8, 0.8, 0.8, 0.8, *[0] * 5])
    covered = [(sight.arrived["top"] == 127).all(-1).mean() for _, sight, _ in told]
    np.testing.assert_allclose(covered[2:4], 0.2, atol=0.02)
    assert max(covered[4:]) < 0.01  # the noise lies over the patch
    patch = (told[3][1].arrived["top"] == 127).all(-1)
    assert np.abs(told[5][1].arrived["top"][patch].mean() - 127) < 1


def test_faults_of_one_kind_draw_for_themselves():
    environment = perturbed(*(fault("black", start=(0, 30), length=2) for _ in range(2)))
    is_same = []
    for seed in range(8):
        environment.reset(seed)
        one, other = (row["window"] for row in environment.facts()["perturbations"])
        is_same.append(one == other)
    assert is_same.count(True) < 3


def test_late_pictures_tell_their_age():
    environment = perturbed(fault("late", delay=2, start=(5, 5)))
    ages = [sight.ages["top"] for _, sight, _ in play(environment)]
    assert ages == [0, 0, 0, 0, 0, 1, *[2] * 7]


def test_the_world_executes_what_it_was_told_before():
    """By 2, in steps 4 to 8: the last one is held until the first late one arrives."""
    rng = np.random.default_rng(0)
    told = [action(rng) for _ in range(12)]
    executed = [*told[:4], told[3], told[3], *told[4:7], *told[9:]]
    plain = pick_place_environment()
    expected = [plain.reset(3), *(plain.step(a).observation for a in executed)]
    environment = perturbed(fault("action_latency", delay=2, start=(4, 4), length=5))
    for step, ((observation, sight, labels), true) in enumerate(
        zip(play(environment), expected, strict=True)
    ):
        np.testing.assert_array_equal(observation["state"], true["state"])
        np.testing.assert_array_equal(observation["top"], true["top"])
        assert sight.truth == {}
        assert labels["world_is_perturbed"] == [4 <= step < 9]


def test_planar_contact_is_holding():
    environment = perturbed(fault("black", phase="during_contact", offset=(1, 1), length=5))
    inner = environment._environment
    expert = PickPlaceExpert(inner)
    observation = environment.reset(0)
    expert.reset(0)
    holds, bad = [inner.physics.is_holding], [environment.sight.truth["top"]]
    for _ in range(25):
        observation = environment.step(expert.act(observation)).observation
        holds.append(inner.physics.is_holding)
        bad.append(environment.sight.truth["top"])
    first = holds.index(True)
    assert [step for step, level in enumerate(bad) if level] == list(range(first + 1, first + 6))
    assert environment.facts()["perturbations"][0]["window"] == [first + 1, first + 6]


def test_the_truth_is_recorded_with_the_episode(tmp_path: Path):
    inner = pick_place_environment()
    expert = PickPlaceExpert(inner)
    faults = [fault("black", start=(3, 8), length=4), fault("action_latency", delay=1, length=2)]
    environment = PerturbedEnvironment(inner, faults)
    assert isinstance(environment, Labelled)
    schema = recording_schema(environment, expert)
    recorder = Recorder(ReplayBuffer.create(tmp_path / "p.zarr", schema))
    record_episode(environment, expert, seed=5, recorder=recorder)
    buffer = ReplayBuffer.open(tmp_path / "p.zarr")
    episode, (row, latency) = buffer.episode(0), buffer.episode_attributes[0]["perturbations"]
    begin, end = row["window"]
    is_bad = np.zeros(len(episode["top"]), bool)
    is_bad[begin:end] = True
    np.testing.assert_array_equal(episode["bad_top"][:, 0], is_bad)
    np.testing.assert_array_equal(episode["top"].reshape(len(is_bad), -1).max(1) == 0, is_bad)
    assert not episode["missing_top"].any()
    np.testing.assert_array_equal(episode["world_is_perturbed"][:3, 0], [True, True, False])
    assert row["kind"] == "black"
    assert row["start"] == [3, 8]
    assert row["spoiled"] == row["sources"] == ["top"]
    assert latency["options"] == {"delay": 1, "reorders": False}


def test_labels_of_the_environment_itself_are_kept():
    class Told(PerturbedEnvironment):
        """Another labelled environment, as a task with memory may be."""

    inner = Told(pick_place_environment(), [fault("black", sources=["state"])])
    environment = PerturbedEnvironment(inner, [fault("black")])
    names = [feature.name for feature in environment.label_features]
    assert names[:2] == ["bad_state", "missing_state"]
    environment.reset(0)
    assert environment.labels()["bad_state"] == [1.0]
    assert environment.labels()["bad_top"] == [1.0]
