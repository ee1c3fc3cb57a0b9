"""Motion: exact values on hand-made tracks, and that rollouts hand over what really happened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy.episode import EpisodeResult
from deploy.motion import Motion, has_hand, longest_run, motion_of, peak_jerk, stalled_steps
from deploy.results import summarize_episodes
from deploy.rollout import Conditions, roll_out
from sim.perturbations.kinds import perturbation
from sim.tasks.pick_place import SCHEMA, pick_place_environment
from teleop_data.schema import Feature
from tests.deploy.planar_environment import PlanarEnvironment
from tests.deploy.tiny_checkpoint import tiny_policy
from tests.deploy.tiny_policy import planar_schema

RATE_HZ = 10.0


def track(positions_x: list[float], openings: list[float] | None = None) -> np.ndarray:
    """States of a hand that moves along x."""
    states = np.zeros((len(positions_x), 10), np.float32)
    states[:, 0] = positions_x
    if openings is not None:
        states[:, 9] = openings
    return states


def test_a_step_is_stalled_if_neither_hand_nor_gripper_moves_by_a_millimetre():
    states = track(
        [0.0, 0.01, 0.0105, 0.0105, 0.0105, 0.02], [0.08, 0.08, 0.08, 0.05, 0.0499, 0.0499]
    )
    assert stalled_steps(states).tolist() == [False, True, False, True, False]


def test_rest_after_the_task_is_done_is_no_stall():
    states = track([0.0, 0.01, 0.01, 0.01, 0.02, 0.03, 0.03, 0.03, 0.03, 0.03])
    assert motion_of(states, rate_hz=RATE_HZ, done_step=None).stall_steps == 6
    assert motion_of(states, rate_hz=RATE_HZ, done_step=None).longest_stall_steps == 4
    done = motion_of(states, rate_hz=RATE_HZ, done_step=5)
    assert (done.stall_steps, done.longest_stall_steps) == (3, 2)


def test_the_longest_run():
    assert longest_run(np.array([1, 1, 0, 1, 1, 1, 0, 1], bool)) == 3
    assert longest_run(np.zeros(4, bool)) == longest_run(np.zeros(0, bool)) == 0


def test_the_jerk_of_a_cubic_is_its_third_derivative():
    t = np.arange(20) / RATE_HZ
    positions = np.stack([0.5 * t**3, t**2, 2.0 - t], axis=1)  # third derivatives 3, 0, 0
    assert peak_jerk(positions, rate_hz=RATE_HZ) == pytest.approx(3.0)
    bumped = positions.copy()
    bumped[10, 1] += 0.001  # differences of a bump are 1, -3, 3, -1 times it
    assert peak_jerk(bumped, rate_hz=RATE_HZ) == pytest.approx(np.hypot(3.0, 3.0))
    assert peak_jerk(positions[:3], rate_hz=RATE_HZ) is None


def test_states_of_another_shape_are_refused_and_recognized():
    with pytest.raises(ValueError, match=r"\(5, 3\), expected \(T \+ 1, 10\)"):
        motion_of(np.zeros((5, 3)), rate_hz=RATE_HZ, done_step=None)
    assert not has_hand(SCHEMA)  # the planar hand has a state of three
    assert not has_hand(planar_schema())


class StatefulEnvironment(PlanarEnvironment):
    """The planar point with an arm's state: it is at its position, at height 0."""

    def __init__(self) -> None:
        super().__init__(max_steps=12)
        state = Feature(name="state", shape=(10,), role="state")
        self._schema = replace(self._schema, features=(state, *self._schema.features))

    def _observe(self):
        state = np.zeros(10, np.float32)
        state[:2] = self._position
        return {"state": state} | super()._observe()


def test_the_true_states_are_judged_whatever_arrives():
    """A frozen state hides motion from the policy, not from the judge."""
    environment = StatefulEnvironment()
    states: list[np.ndarray] = []

    class Blind:
        """Acts at random and keeps the true states; stands in for a network."""

        schema = environment.schema
        novelty = None

        def start_lock_step(self, seeds):
            return self

        def step(self, step, *, observation, levels, executed, delay):
            states.append(environment._observe()["state"])
            rng = np.random.default_rng(step // 2)  # the same target twice: some steps stall
            return rng.uniform(-0.06, 0.06, (1, 1, 2)) + 0.6, np.zeros(1, np.float32), 1

    frozen = Conditions(
        perturb=lambda: [
            perturbation("frozen", schema=environment.schema, sources=["state"], start=(2, 2))
        ]
    )
    (result,) = roll_out(Blind(), [environment], seeds=[3], conditions=frozen)  # type: ignore[arg-type]
    states.append(environment._observe()["state"])
    expected = motion_of(np.stack(states), rate_hz=20.0, done_step=None)
    assert result.motion == expected
    assert 0 < expected.stall_steps < 12
    assert result.to_json()["motion"] == expected.to_json()


def test_without_an_arms_state_there_is_no_motion(tmp_path: Path):
    (result,) = roll_out(
        tiny_policy(tmp_path / "p"), [pick_place_environment(max_steps=4)], seeds=[3]
    )
    assert result.motion is None
    assert result.to_json()["motion"] is None


def test_what_a_summary_says_about_motion():
    def episode(seed: int, *, done: int | None, stalls: int, moves: int) -> EpisodeResult:
        return EpisodeResult(
            seed=seed,
            num_steps=180,
            success_step=None if done is None else 179,
            facts={"done_step": done, "num_moves": moves},
            motion=Motion(
                stall_steps=stalls, longest_stall_steps=stalls // 2, peak_jerk=2.0 * stalls
            ),
        )

    summary = summarize_episodes(
        [
            episode(1, done=99, stalls=4, moves=3),
            episode(2, done=119, stalls=8, moves=3),
            episode(3, done=None, stalls=60, moves=1),
        ],
        rate_hz=RATE_HZ,
    )
    assert summary["median_done_time_s"] == pytest.approx(11.0)
    assert summary["mean_success_time_s"] == pytest.approx(18.0)
    assert summary["mean_num_moves"] == pytest.approx(7 / 3)
    assert summary["median_stall_steps"] == 8
    assert summary["median_longest_stall_steps"] == 4
    assert summary["median_peak_jerk"] == 16.0
    plain = summarize_episodes([EpisodeResult(seed=1, num_steps=5, success_step=3)], rate_hz=10.0)
    assert plain["median_done_time_s"] == pytest.approx(0.4)
    assert plain["mean_num_moves"] is plain["median_peak_jerk"] is None
