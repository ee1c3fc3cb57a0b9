"""The recording loop: deadlines, capture times, what the operator says, what is too slow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teleop_data.background_writer import BackgroundWriter
from teleop_data.clock import Clock, ManualClock, MonotonicClock
from teleop_data.journal import JournalWriter
from teleop_data.operator import Automatic, Command, Status
from teleop_data.recorded_timing import Pace
from teleop_data.recording_loop import RecordingLoop
from teleop_data.recording_store import RecordingStore
from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.step_watch import FrozenError, StepWatch
from tests.teleop_data.recording_world import Echo, MovingPictures, TimedPictures

Says = Callable[[Status], Command | None]


class Person:
    """An operator that answers to how things stand."""

    def __init__(self, says: Says) -> None:
        self._says = says

    def tell(self, status: Status) -> None:
        self._status = status

    def poll(self) -> Command | None:
        return self._says(self._status)


def record(
    path: Path,
    environment: MovingPictures,
    *,
    says: Says | None = None,
    num_episodes: int | None = 1,
    first_seed: int = 0,
    capacity: int = 100,
    clock: Clock | None = None,
) -> tuple[ReplayBuffer | None, list[str]]:
    """The store and what was reported."""
    reports: list[str] = []
    with (
        closing(RecordingStore(path, provenance={}, report=reports.append)) as store,
        StepWatch(5.0, report=reports.append) as watch,
    ):
        writer = BackgroundWriter(store, capacity=capacity, report=reports.append)
        try:
            RecordingLoop(
                environment,
                Echo(),
                operator=Person(says) if says else Automatic(),
                writer=writer,
                watch=watch,
                clock=clock or MonotonicClock(),
                report=reports.append,
            ).run(first_seed=first_seed, num_episodes=num_episodes)
        finally:
            writer.close()
    return (ReplayBuffer.open(path) if path.exists() else None), reports


def test_deadlines_are_absolute_and_what_has_passed_is_not_made_up_for():
    clock = ManualClock(100.0)
    pace = Pace(clock, rate_hz=10.0)
    pace.start()
    began_s, late_s, missed = [], [], []
    for work_s in (0.02, 0.13, 0.02, 0.35, 0.02, 0.0):
        tick = pace.tick()
        began_s.append(clock.now() - 100.0)
        late_s.append(tick.late_s)
        missed.append(tick.num_missed)
        clock.advance(work_s)
    np.testing.assert_allclose(began_s, [0.1, 0.2, 0.33, 0.4, 0.75, 0.8])
    np.testing.assert_allclose(late_s, [0, 0, 0.03, 0, 0.05, 0], atol=1e-9)
    assert missed == [0, 0, 0, 0, 2, 0]


def test_capture_times_are_the_sources_own_or_when_the_observation_came(tmp_path: Path):
    clock = ManualClock(50.0)
    buffer, _ = record(tmp_path / "a.zarr", TimedPictures(clock, max_steps=5), clock=clock)
    assert buffer is not None
    episode = buffer.episode(0)
    # steps begin every 20 ms and the observation comes 4 ms after
    came_s = np.array([0.0, 0.024, 0.044, 0.064, 0.084])
    np.testing.assert_allclose(episode["captured_s_camera1"], came_s, atol=1e-9)
    np.testing.assert_allclose(episode["captured_s_state"], came_s, atol=1e-9)
    np.testing.assert_allclose(episode["captured_s_camera0"], came_s - 0.025, atol=1e-9)
    timing = [f for f in buffer.schema.features if f.name.startswith(("captured_s_", "late_s"))]
    assert {(f.role, f.dtype, f.unit) for f in timing} == {("other", "float64", "s")}


def test_a_late_loop_is_told_and_marked(tmp_path: Path):
    clock = ManualClock()
    environment = TimedPictures(clock, max_steps=12)
    buffer, reports = record(tmp_path / "a.zarr", environment, clock=clock)
    assert buffer is not None
    attributes, episode = buffer.episode_attributes[0], buffer.episode(0)
    told = "step 6 began 130 ms late (1 late steps since the episode began)"
    assert told in reports
    assert attributes["trouble"] == [told]
    # six deadlines are let go, of the seventh it is 10 ms late, and from there on in time
    np.testing.assert_array_equal(episode["missed_steps"], [0] * 6 + [6] + [0] * 5)
    np.testing.assert_allclose(episode["late_s"], [0] * 6 + [0.01] + [0] * 5, atol=1e-9)
    assert (attributes["num_late_steps"], attributes["num_missed_steps"]) == (1, 6)
    assert attributes["late_s"]["max"] == pytest.approx(0.01)
    assert attributes["success"]
    assert not attributes.get("interrupted")


def test_the_operator_keeps_drops_and_labels(tmp_path: Path):
    said: list[str] = []

    def says(status: Status) -> Command | None:
        if status.phase == "waiting":
            return Command(kind="stop" if status.num_kept == 2 else "start")
        if status.phase == "recording" and status.num_steps == 4 and status.seed == 1:
            return Command(kind="drop")
        if status.phase == "recording" and status.num_steps == 3 and not said:
            said.append("slow")
            return Command(kind="label", text="slow")
        if status.phase == "recording" and status.num_steps == 6 and status.seed == 2:
            return Command(kind="keep")
        return Command(kind="keep") if status.phase == "deciding" else None

    world = MovingPictures(max_steps=8)
    buffer, reports = record(tmp_path / "a.zarr", world, says=says, num_episodes=None)
    assert buffer is not None
    assert [a["seed"] for a in buffer.episode_attributes] == [0, 2]
    np.testing.assert_array_equal(buffer.episode_ends, [8, 14])
    assert buffer.episode_attributes[0]["labels"] == [{"step": 3, "text": "slow"}]
    assert [a["success"] for a in buffer.episode_attributes] == [True, False]
    assert any("dropped the episode of seed 1: 4 steps" in text for text in reports)
    assert not list(tmp_path.glob("*.journal"))


def test_an_episode_starts_from_a_fresh_observation_however_long_the_wait(tmp_path: Path):
    resets: list[int] = []

    class Counting(MovingPictures):
        def reset(self, seed: int):
            resets.append(seed)
            return super().reset(seed)

    polls: list[Status] = []

    def says(status: Status) -> Command | None:
        polls.append(status)
        if status.phase == "waiting":
            return Command(kind="start") if len(polls) > 5 else None
        return Command(kind="keep") if status.phase == "deciding" else None

    record(tmp_path / "a.zarr", Counting(max_steps=3), says=says)
    assert resets == [0, 0]
    assert polls[0].observation is not None


def test_a_disk_that_is_too_slow_loses_steps_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    add_step = JournalWriter.add_step

    def slowly(self: JournalWriter, values: Mapping[str, np.ndarray]) -> None:
        time.sleep(0.06)
        add_step(self, values)

    monkeypatch.setattr(JournalWriter, "add_step", slowly)
    buffer, reports = record(tmp_path / "a.zarr", MovingPictures(max_steps=12), capacity=2)
    assert buffer is not None
    attributes, episode = buffer.episode_attributes[0], buffer.episode(0)
    lost = attributes["num_lost_steps"]
    assert lost > 0
    assert attributes["num_steps"] == len(episode["state"]) == 12 - lost
    # a step's number tells which are gone; each gap is marked at the step after it
    gaps = np.diff(episode["state"][:, 0], prepend=-1) - 1
    assert gaps.sum() + (11 - episode["state"][-1, 0]) == lost
    assert np.all(episode["missed_steps"] >= gaps)
    assert any("the disk is too slow" in text for text in reports)
    assert any("the disk is too slow" in text for text in attributes["trouble"])


def test_a_step_that_does_not_fit_the_schema_ends_the_episode(tmp_path: Path):
    class Broken(MovingPictures):
        def observation(self, *, step: int, seed: int) -> dict[str, Any]:
            broken = np.array([np.nan if step == 4 else step, seed], np.float32)
            return super().observation(step=step, seed=seed) | {"state": broken}

    with pytest.raises(ValueError, match="'state': not finite"):
        record(tmp_path / "a.zarr", Broken(max_steps=9))
    buffer = ReplayBuffer.open(tmp_path / "a.zarr")
    (attributes,) = buffer.episode_attributes
    assert (attributes["interrupted"], buffer.num_steps) == (True, 4)
    assert "not finite" in attributes["trouble"][-1]


def test_two_processes_do_not_record_into_one_store(tmp_path: Path):
    with (
        closing(RecordingStore(tmp_path / "a.zarr", provenance={})),
        pytest.raises(ValueError, match="another process records"),
    ):
        RecordingStore(tmp_path / "a.zarr", provenance={})
    RecordingStore(tmp_path / "a.zarr", provenance={}).close()


def test_an_episode_is_not_taken_in_twice(tmp_path: Path):
    """As after a kill between appending an episode and removing its journal."""
    world = MovingPictures()
    with closing(RecordingStore(tmp_path / "a.zarr", provenance={})) as store:
        journal = store.begin(world.schema, {"seed": 0})
        journal.add_step({**world.observation(step=0, seed=0), "action": np.zeros(2, np.float32)})
        journal.end({})
        journal.close()
        content = journal.path.read_bytes()
        store.take_in(journal.path)
        journal.path.write_bytes(content)
        store.recover()
        assert store.num_episodes == 1
        assert not journal.path.exists()


def test_a_call_that_returns_in_time_is_left_alone():
    with StepWatch(0.2, report=lambda text: None) as watch:
        for _ in range(3):
            with watch.awaiting("a step"):
                time.sleep(0.12)  # in all longer than its patience
        expected = pytest.raises(FrozenError, match="a step has not returned for 0.2 s")
        with expected, watch.awaiting("a step"):
            threading.Event().wait(20)
