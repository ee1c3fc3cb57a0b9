"""The recorder: what is saved, what is not, and what an interruption leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sim.experts.planar_pick_place import PickPlaceExpert
from sim.tasks.pick_place import pick_place_environment
from teleop_data.clock import ManualClock
from teleop_data.recorder import Recorder, record_episode
from teleop_data.replay_buffer import ReplayBuffer

ENVIRONMENT = pick_place_environment()


@pytest.fixture
def buffer(tmp_path: Path) -> ReplayBuffer:
    return ReplayBuffer.create(tmp_path / "demonstrations.zarr", ENVIRONMENT.schema)


@pytest.fixture
def recorder(buffer: ReplayBuffer) -> Recorder:
    return Recorder(buffer)


def step_of(value: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    observation = {
        "top": np.full((64, 64, 3), int(value), np.uint8),
        "state": np.full(3, value, np.float32),
    }
    return observation, np.full(3, -value, np.float32)


def record_values(recorder: Recorder, values: list[float]) -> None:
    recorder.start()
    for value in values:
        recorder.add(*step_of(value))


def test_saved_episodes_hold_what_was_added(recorder: Recorder):
    record_values(recorder, [1, 2, 3])
    assert recorder.num_steps == 3
    recorder.save({"operator": "left hand"})
    record_values(recorder, [4])
    recorder.save()
    assert recorder.num_steps == 0

    stored = ReplayBuffer.open(recorder.buffer.path)
    np.testing.assert_array_equal(stored.episode_ends, [3, 4])
    assert stored.episode_attributes == [{"operator": "left hand"}, {}]
    first = stored.episode(0)
    np.testing.assert_array_equal(first["state"][:, 0], [1, 2, 3])
    np.testing.assert_array_equal(first["action"][:, 2], [-1, -2, -3])
    np.testing.assert_array_equal(first["top"][:, 63, 63, 0], [1, 2, 3])
    np.testing.assert_array_equal(stored.episode(1)["state"], [[4, 4, 4]])


def test_discarded_episodes_leave_nothing(recorder: Recorder):
    record_values(recorder, [1, 2])
    recorder.discard()
    recorder.discard()  # nothing is open: nothing to do
    record_values(recorder, [9])
    recorder.save()
    np.testing.assert_array_equal(ReplayBuffer.open(recorder.buffer.path)["state"][:], [[9, 9, 9]])


def test_steps_are_copied(recorder: Recorder):
    observation, action = step_of(1)
    recorder.start()
    recorder.add(observation, action)
    observation["state"][:] = 7
    action[:] = 7
    recorder.add(observation, action)
    recorder.save()
    np.testing.assert_array_equal(recorder.buffer["state"][:][:, 0], [1, 7])
    np.testing.assert_array_equal(recorder.buffer["action"][:][:, 0], [-1, 7])


def test_wrong_order_of_calls_is_refused(recorder: Recorder):
    for call in (lambda: recorder.add(*step_of(1)), recorder.save):
        with pytest.raises(RuntimeError, match="call start"):
            call()
    recorder.start()
    with pytest.raises(ValueError, match="no steps"):
        recorder.save()
    recorder.add(*step_of(1))
    with pytest.raises(RuntimeError, match="an episode of 1 steps is open"):
        recorder.start()


def test_bad_steps_are_refused_and_not_added(recorder: Recorder):
    recorder.start()
    observation, action = step_of(1)
    with pytest.raises(KeyError, match="lacks \\['top'\\]"):
        recorder.add({"state": observation["state"]}, action)
    with pytest.raises(ValueError, match="'action'.*shape \\(2,\\)"):
        recorder.add(observation, action[:2])
    with pytest.raises(ValueError, match="'state': not finite"):
        recorder.add({**observation, "state": np.full(3, np.nan, np.float32)}, action)
    assert recorder.num_steps == 0
    recorder.add(observation, action)
    recorder.save()
    assert recorder.buffer.num_steps == 1


def test_an_expert_is_recorded_step_by_step(recorder: Recorder):
    environment = pick_place_environment()
    summary = record_episode(environment, PickPlaceExpert(environment), seed=3, recorder=recorder)
    assert summary.success
    stored = ReplayBuffer.open(recorder.buffer.path)
    assert stored.num_steps == summary.num_steps
    assert stored.episode_attributes == [
        {"seed": 3, "num_steps": summary.num_steps, "success": True, "max_reward": 1.0}
    ]
    # action t was answered to observation t: replaying them gives the same episode
    episode = stored.episode(0)
    observation = environment.reset(3)
    for step, action in enumerate(episode["action"]):
        np.testing.assert_array_equal(observation["state"], episode["state"][step])
        np.testing.assert_array_equal(observation["top"], episode["top"][step])
        result = environment.step(action)
        observation = result.observation
    assert result.success


def test_only_episodes_worth_keeping_are_saved(recorder: Recorder):
    environment = pick_place_environment()
    expert = PickPlaceExpert(environment)
    cut_off = record_episode(
        environment, expert, seed=0, recorder=recorder, max_steps=5, keep=lambda s: s.success
    )
    assert (cut_off.num_steps, cut_off.success) == (5, False)
    assert recorder.buffer.num_episodes == 0
    record_episode(environment, expert, seed=0, recorder=recorder, keep=lambda s: s.success)
    assert recorder.buffer.num_episodes == 1


class Interrupted:
    """A person who presses Ctrl-C at a step of the second episode."""

    def __init__(self, expert: PickPlaceExpert) -> None:
        self._expert, self._episode, self._step = expert, 0, 0

    def reset(self, seed: int) -> None:
        self._expert.reset(seed)
        self._episode, self._step = self._episode + 1, 0

    def act(self, observation) -> np.ndarray:
        self._step += 1
        if (self._episode, self._step) == (2, 7):
            raise KeyboardInterrupt
        return self._expert.act(observation)


def test_an_interruption_leaves_every_finished_episode(recorder: Recorder):
    environment = pick_place_environment()
    person = Interrupted(PickPlaceExpert(environment))
    first = record_episode(environment, person, seed=0, recorder=recorder)
    with pytest.raises(KeyboardInterrupt):
        record_episode(environment, person, seed=1, recorder=recorder)
    stored = ReplayBuffer.open(recorder.buffer.path)
    assert (stored.num_episodes, stored.num_steps) == (1, first.num_steps)

    third = record_episode(environment, person, seed=2, recorder=recorder)
    stored = ReplayBuffer.open(recorder.buffer.path)
    assert stored.num_steps == first.num_steps + third.num_steps
    assert [a["seed"] for a in stored.episode_attributes] == [0, 2]


class WatchedClock(ManualClock):
    """Notes every deadline."""

    def __init__(self) -> None:
        super().__init__(start_s=100.0)
        self.deadlines: list[float] = []

    def sleep_until(self, deadline_s: float) -> None:
        self.deadlines.append(deadline_s)
        super().sleep_until(deadline_s)


def test_a_clock_paces_the_steps_by_absolute_deadlines():
    environment, clock = pick_place_environment(), WatchedClock()
    record_episode(environment, PickPlaceExpert(environment), seed=0, max_steps=4, clock=clock)
    np.testing.assert_allclose(clock.deadlines, [100.1, 100.2, 100.3, 100.4])


def test_an_episode_needs_a_step():
    environment = pick_place_environment()
    with pytest.raises(ValueError, match="max_steps must be at least 1"):
        record_episode(environment, PickPlaceExpert(environment), seed=0, max_steps=0)
