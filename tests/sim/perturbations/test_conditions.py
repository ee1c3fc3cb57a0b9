"""The named conditions: every YAML makes what its name says, and what a config may override."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from sim.arm.environment import CAMERAS, ArmEnvironment
from sim.experts.scripted_hand import ScriptedHand
from sim.perturbations.conditions import (
    PerturbationConfig,
    condition_names,
    perturbations_of,
    perturbed,
    read_condition,
)
from sim.perturbations.environment import PerturbedEnvironment
from sim.perturbations.kinds import KINDS
from sim.perturbations.sources import SourcePerturbation
from sim.perturbations.world import WORLD_KINDS
from sim.tasks.pick_place import pick_place_environment
from sim.tasks.swap import Swap
from teleop_data.recorder import Recorder, record_episode, recording_schema
from teleop_data.schema import Feature, Schema

SCHEMA = Schema(
    features=(
        *(Feature(name=n, shape=(16, 16, 3), dtype="uint8", role="camera") for n in CAMERAS),
        Feature(name="action", shape=(2,), role="action"),
    ),
    rate_hz=20.0,
)
STANDARD = {  # what the experiment needs by name: kind, length in steps at 20 Hz, options
    "black_0.5s": ("black", 10, {}),
    "black_2s": ("black", 40, {}),
    "black_for_good": ("black", None, {}),
    "noise_0.1": ("noise", 40, {"std": 0.1}),
    "noise_0.3": ("noise", 40, {"std": 0.3}),
    "patch_10": ("patch", 40, {"share": 0.1, "speed": 0.0}),
    "patch_30": ("patch", 40, {"share": 0.3, "speed": 0.0}),
    "patch_60": ("patch", 40, {"share": 0.6, "speed": 0.0}),
    "distractors": ("distractors", None, {"num": 3}),
    "nudge": ("nudge", 1, {"speed": 0.8}),
    "action_latency": ("action_latency", None, {"delay": 3, "reorders": False}),
}


@pytest.mark.parametrize("name", condition_names())
def test_every_yaml_makes_what_it_names(name: str):
    config = read_condition(name)
    assert config.name == name
    made = perturbations_of(config, schema=SCHEMA)
    assert [one.terms.kind for one in made] == [] if name == "none" else [config.kind]
    for one in made:
        assert one.terms.rule.start == (10, 30)  # between 0.5 and 1.5 s
        assert json.loads(json.dumps(one.terms.to_json()))["options"].keys() >= set(config.options)


@pytest.mark.parametrize("name", STANDARD)
def test_the_standard_conditions_are_what_their_names_say(name: str):
    (made,) = perturbations_of(read_condition(name), schema=SCHEMA)
    kind, length, options = STANDARD[name]
    assert (made.terms.kind, made.terms.rule.length) == (kind, length)
    assert made.terms.options == options


class Memory:
    """Where the newest episode goes."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema

    def append_episode(self, episode: Any, *, attributes: Any = None) -> None:
        self.episode, self.attributes = dict(episode), json.loads(json.dumps(attributes))


@pytest.fixture(scope="module")
def arm() -> Iterator[ArmEnvironment]:
    environment = ArmEnvironment(Swap(), pixels=32)
    yield environment
    environment.close()


@pytest.mark.parametrize("name", [name for name in condition_names() if name != "none"])
def test_every_condition_runs_on_an_arm_task_and_is_recorded(arm: ArmEnvironment, name: str):
    environment = perturbed(arm, replace(read_condition(name), start=[2, 3], length=6))
    expert = ScriptedHand(arm)
    memory = Memory(recording_schema(environment, expert))
    summary = record_episode(
        environment, expert, seed=3, recorder=Recorder(memory), max_steps=12
    )  # the recorder refuses what is off schema or not finite
    assert 0 <= summary.max_reward <= 1
    (row,) = memory.attributes["perturbations"]
    begin, end = row["window"]
    inside = np.zeros(12, bool)
    inside[begin:end] = True
    told = memory.episode
    bad = np.stack([told[f"bad_{source}"][:, 0] for source in row["spoiled"] or ()] or [inside])
    assert (bad[:, ~inside] == 0).all()
    assert (bad[:, inside] > 0).any(axis=1).all()
    is_of_world = row["kind"] in WORLD_KINDS or row["kind"] == "action_latency"
    np.testing.assert_array_equal(told["world_is_perturbed"][:, 0], inside & is_of_world)
    for source in row["sources"]:
        is_lost = row["kind"] == "dropped"
        assert told[f"missing_{source}"].any() == is_lost
        assert told[f"bad_{source}"].any() == (source in row["spoiled"])
    for feature in environment.schema.features:
        assert len(np.unique(told[feature.name], axis=0)) > 1, f"{feature.name} is constant"


def test_every_kind_has_a_condition():
    assert {read_condition(name).kind for name in condition_names()} == {"none", *KINDS}


def test_one_of_two_covers_one_camera():
    (made,) = perturbations_of(read_condition("one_of_two"), schema=SCHEMA)
    made.reset(0)
    assert isinstance(made, SourcePerturbation)
    assert len(made.spoiled) == 1


def test_the_label_tells_the_phase():
    config = read_condition("black_2s")
    assert config.label == "black_2s"
    assert replace(config, phase="during_contact").label == "black_2s_during_contact"
    assert replace(read_condition("none"), phase="during_contact").label == "none"


def test_an_environment_is_wrapped_only_if_something_perturbs_it():
    environment = pick_place_environment()
    assert perturbed(environment, read_condition("none")) is environment
    wrapped = perturbed(environment, read_condition("frozen"))
    assert isinstance(wrapped, PerturbedEnvironment)
    assert wrapped.schema == environment.schema
    with pytest.raises(ValueError, match="cannot be changed from outside"):
        perturbed(environment, read_condition("occluder"))


def test_unknown_names_and_misplaced_options_are_refused():
    with pytest.raises(ValueError, match="no condition 'fog'; have: action_latency, black"):
        read_condition("fog")
    for wrong in ({"length": 3}, {"kind": "black"}, {"schema": 1}):
        config = PerturbationConfig(name="x", kind="frozen", options=wrong)
        with pytest.raises(ValueError, match=f"are no options.*perturbation.{next(iter(wrong))}"):
            perturbations_of(config, schema=SCHEMA)


def test_defaults_can_be_written_as_yaml_and_read_back():
    text = OmegaConf.to_yaml(OmegaConf.structured(PerturbationConfig))
    again = OmegaConf.to_object(OmegaConf.merge(PerturbationConfig, OmegaConf.create(text)))
    assert again == PerturbationConfig()
