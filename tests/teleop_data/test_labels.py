"""Labels: what an environment and a teleoperator tell for the record; no policy sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.experts.planar_pick_place import PickPlaceExpert
from sim.tasks.pick_place import pick_place_environment
from teleop_data.dataset import WindowDataset
from teleop_data.describe import describe, report
from teleop_data.environment import Observation, StepResult
from teleop_data.recorder import Recorder, record_episode, recording_schema
from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.schema import Feature, Role


class CountingTable:
    """The pick-and-place environment, telling how often it has been stepped in this episode."""

    label_features = (Feature(name="steps_before", shape=(1,), dtype="int64", role="other"),)

    def __init__(self) -> None:
        self._environment, self._count = pick_place_environment(), 0
        self.schema, self.max_steps = self._environment.schema, self._environment.max_steps

    def reset(self, seed: int) -> Observation:
        self._count = 0
        return self._environment.reset(seed)

    def step(self, action: np.ndarray) -> StepResult:
        self._count += 1
        return self._environment.step(action)

    def labels(self) -> dict[str, np.ndarray]:
        return {"steps_before": np.array([self._count])}

    def facts(self) -> dict[str, Any]:
        return {"num_counted": self._count}


class AnnouncingExpert(PickPlaceExpert):
    """Tells its sub-goal as an index, and the closure of the action that it gave last."""

    SUBGOALS = ("fetch", "carry")
    label_features = (
        Feature(name="subgoal", shape=(), dtype="int64", role="other"),
        Feature(name="closure", shape=(), role="other"),
    )

    def __init__(self, environment: CountingTable) -> None:
        super().__init__(environment._environment)

    def act(self, observation: Observation) -> np.ndarray:
        self._subgoal = int(self._physics.is_holding)
        action = super().act(observation)
        self._closure = action[2]
        return action

    def labels(self) -> dict[str, np.ndarray]:
        return {"subgoal": np.array(self._subgoal), "closure": np.array(self._closure)}

    def facts(self) -> dict[str, Any]:
        return {"subgoals": list(self.SUBGOALS)}


def labelled_recorder(path: Path) -> tuple[CountingTable, AnnouncingExpert, Recorder]:
    environment = CountingTable()
    expert = AnnouncingExpert(environment)
    schema = recording_schema(environment, expert)
    return environment, expert, Recorder(ReplayBuffer.create(path, schema))


def test_labels_and_facts_are_recorded_beside_what_policies_see(tmp_path: Path):
    environment, expert, recorder = labelled_recorder(tmp_path / "labelled.zarr")
    summary = record_episode(environment, expert, seed=3, recorder=recorder)

    stored = ReplayBuffer.open(tmp_path / "labelled.zarr")
    names = ["top", "state", "action", "steps_before", "subgoal", "closure"]
    assert list(stored.schema.names) == names
    assert [f.name for f in stored.schema.observed] == ["top", "state"]
    episode = stored.episode(0)
    # the environment's label is of before the step, the teleoperator's of its answer
    np.testing.assert_array_equal(episode["steps_before"][:, 0], np.arange(summary.num_steps))
    np.testing.assert_array_equal(episode["closure"], episode["action"][:, 2])
    assert (np.diff(episode["subgoal"]) == 1).sum() == 1  # fetched once, carried to the end
    (attributes,) = stored.episode_attributes
    assert attributes["subgoals"] == ["fetch", "carry"]
    assert attributes["num_counted"] == attributes["num_steps"] == summary.num_steps


def test_labels_change_nothing_for_who_does_not_record_them(tmp_path: Path):
    environment, expert, labelled = labelled_recorder(tmp_path / "labelled.zarr")
    record_episode(environment, expert, seed=3, recorder=labelled)
    plain = Recorder(ReplayBuffer.create(tmp_path / "plain.zarr", environment.schema))
    record_episode(environment, expert, seed=3, recorder=plain)
    with_labels, without = labelled.buffer.episode(0), plain.buffer.episode(0)
    assert set(without) == {"top", "state", "action"}
    for name, values in without.items():
        np.testing.assert_array_equal(values, with_labels[name])


def test_steps_need_exactly_the_labels_of_the_schema(tmp_path: Path):
    *_, recorder = labelled_recorder(tmp_path / "labelled.zarr")
    good = {"steps_before": np.array([0]), "subgoal": np.array(1), "closure": np.float32(0)}
    observation, action = pick_place_environment().reset(0), np.zeros(3, np.float32)
    recorder.start()
    for wrong, error, message in [
        (None, KeyError, "lack \\['closure', 'steps_before', 'subgoal'\\]"),
        ({**good, "mood": np.array(1)}, KeyError, "unknown \\['mood'\\]"),
        ({**good, "subgoal": np.array(1.0)}, ValueError, "'subgoal'.*float64"),
        ({**good, "closure": np.float32(np.nan)}, ValueError, "'closure': not finite"),
    ]:
        with pytest.raises(error, match=message):
            recorder.add(observation, action, labels=wrong)
    assert recorder.num_steps == 0
    recorder.add(observation, action, labels=good)
    good["steps_before"][:] = 7  # what is given is copied
    recorder.save()
    assert recorder.buffer.episode(0)["steps_before"].tolist() == [[0]]


def test_who_tells_no_labels_cannot_be_recorded_where_they_are_needed(tmp_path: Path):
    *_, recorder = labelled_recorder(tmp_path / "labelled.zarr")
    environment = pick_place_environment()
    with pytest.raises(KeyError, match="lack .*'subgoal'"):
        record_episode(environment, PickPlaceExpert(environment), seed=0, recorder=recorder)
    assert recorder.buffer.num_episodes == 0


@pytest.mark.parametrize(
    ("name", "role", "message"),
    [
        ("state", "other", "'state' of AnnouncingExpert has the name of another"),
        ("steps_before", "other", "top, state, action, steps_before are taken"),
        ("subgoal", "state", "'subgoal' of AnnouncingExpert has role 'state'; expected 'other'"),
    ],
)
def test_labels_that_clash_or_could_be_observed_are_refused(
    name: str, role: Role, message: str, monkeypatch: pytest.MonkeyPatch
):
    features = (Feature(name=name, shape=(), role=role),)
    monkeypatch.setattr(AnnouncingExpert, "label_features", features)
    environment = CountingTable()
    with pytest.raises(ValueError, match=message):
        recording_schema(environment, AnnouncingExpert(environment))


@pytest.mark.parametrize("name", ["seed", "num_counted"])
def test_facts_told_twice_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    environment, expert, recorder = labelled_recorder(tmp_path / "labelled.zarr")
    monkeypatch.setattr(expert, "facts", lambda: {name: 0})
    with pytest.raises(ValueError, match=f"AnnouncingExpert tells {name}, which"):
        record_episode(environment, expert, seed=0, recorder=recorder)
    assert recorder.buffer.num_episodes == 0


def test_labels_are_described_and_kept_out_of_training_windows(tmp_path: Path):
    environment, expert, recorder = labelled_recorder(tmp_path / "labelled.zarr")
    record_episode(environment, expert, seed=0, recorder=recorder)
    buffer = ReplayBuffer.open(tmp_path / "labelled.zarr")
    facts = describe(buffer)
    assert facts["statistics"]["subgoal"]["maximum"] == [1.0]
    assert "subgoal              other" in report(facts)
    windows = WindowDataset(
        buffer, schema=buffer.schema, episodes=np.array([0]), context=2, horizon=4
    )
    assert not {"subgoal", "closure", "steps_before"} & set(windows[0])
