"""The schema: what it refuses, what it finds, JSON in and out."""

from __future__ import annotations

import json
import string
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleop_data.schema import DTYPES, Feature, Schema, first_difference
from tests.teleop_data.stores import SCHEMA


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    """Any valid schema of up to five features."""
    names = draw(st.lists(st.text(string.ascii_letters, min_size=1), max_size=5, unique=True))
    features = []
    for name in names:
        if draw(st.booleans()):
            shape = draw(st.tuples(*[st.integers(1, 640)] * 3))
            features.append(Feature(name=name, shape=shape, dtype="uint8", role="camera"))
            continue
        shape = tuple(draw(st.lists(st.integers(1, 9), max_size=3)))
        features.append(
            Feature(
                name=name,
                shape=shape,
                dtype=draw(st.sampled_from(DTYPES)),
                role=draw(st.sampled_from(["state", "action", "other"])),
                unit=draw(st.sampled_from(["", "rad", "m", "px"])),
                angles=tuple(
                    draw(st.sets(st.integers(0, int(np.prod(shape)) - 1), max_size=3)),
                ),
            )
        )
    rate_hz = draw(st.floats(1e-3, 1e4))
    return Schema(features=tuple(features), rate_hz=rate_hz)


@given(schemas())
def test_json_round_trip(schema: Schema) -> None:
    through_text = json.loads(json.dumps(schema.to_json()))
    assert through_text == schema.to_json()
    assert Schema.from_json(through_text) == schema
    assert first_difference(schema, Schema.from_json(through_text)) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"role": "sensor"}, "role 'sensor'; one of"),
        ({"role": "camera"}, r"\(H, W, C\) uint8, got \(3,\) float32"),
        ({"role": "camera", "shape": (4, 4, 3)}, "uint8, got .* float32"),
        ({"angles": (3,)}, r"angles \(3,\) outside 0\.\.2"),
        ({"angles": (-1,)}, "outside"),
        ({"dtype": "float33"}, "dtype 'float33'; one of .*float32"),
        ({"dtype": "object"}, "dtype 'object'"),
        ({"shape": (0,)}, "positive integers"),
        ({"shape": (2.0,)}, "positive integers"),
        ({"name": ""}, "must not be empty"),
        ({"name": "arm/joints"}, "'/'"),
    ],
)
def test_feature_refuses(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Feature(**{"name": "arm", "shape": (3,), **arguments})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros(2, np.float32), r"'state': got shape \(2,\) float32, expected \(3,\) float32"),
        (np.zeros(3), r"got shape \(3,\) float64"),
        (np.array([0, np.nan, 0], np.float32), "not finite"),
        (np.array([0, 0, -np.inf], np.float32), "not finite"),
        ([0.0, 0.0, 0.0], "float64, expected"),
    ],
)
def test_check_refuses(value: np.ndarray, message: str) -> None:
    SCHEMA["state"].check(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=message):
        SCHEMA["state"].check(value)


def observation() -> dict[str, np.ndarray]:
    return {"front": np.zeros((6, 8, 3), np.uint8), "state": np.zeros(3, np.float32)}


def test_check_observation() -> None:
    SCHEMA.check_observation(observation())
    with pytest.raises(KeyError, match=r"unknown \['wrist'\] and lacks \[\]"):
        SCHEMA.check_observation({**observation(), "wrist": np.zeros(1)})
    with pytest.raises(KeyError, match=r"lacks \['front'\]; expected \['front', 'state'\]"):
        SCHEMA.check_observation({"state": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match="'front'"):
        SCHEMA.check_observation({**observation(), "front": np.zeros((6, 8, 4), np.uint8)})


def test_roles_and_selection() -> None:
    assert SCHEMA.names == ("front", "state", "action", "contacts")
    assert [feature.name for feature in SCHEMA.observed] == ["front", "state"]
    assert [feature.name for feature in SCHEMA.with_role("other", "camera")] == [
        "front",
        "contacts",
    ]
    assert SCHEMA.action.name == "action"
    assert SCHEMA.select(["action", "state"]).names == ("action", "state")
    assert SCHEMA.select(["state"]).rate_hz == 20.0
    with pytest.raises(KeyError, match="no feature 'wrsit'; have: front, state"):
        SCHEMA.select(["wrsit"])
    with pytest.raises(ValueError, match="one action feature, have \\[\\]"):
        _ = SCHEMA.select(["state"]).action


def test_with_angles() -> None:
    schema = SCHEMA.with_angles({"action": [1]})
    assert schema["action"].angles == (1,)
    assert schema["state"].angles == (2,)
    with pytest.raises(KeyError, match="no feature 'arm'"):
        SCHEMA.with_angles({"arm": [0]})
    with pytest.raises(ValueError, match="outside"):
        SCHEMA.with_angles({"action": [2]})


def test_schema_refuses() -> None:
    twice = (SCHEMA["state"], SCHEMA["state"])
    with pytest.raises(ValueError, match="names must differ"):
        Schema(features=twice, rate_hz=10.0)
    for rate_hz in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="rate_hz must be positive"):
            Schema(features=(), rate_hz=rate_hz)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"rate_hz": 10.0},
        {"rate_hz": 10.0, "features": [{"name": "a"}]},
        {"rate_hz": 10.0, "features": ["a"]},
        {"rate_hz": 10.0, "features": [{"name": "a", "shape": [1], "colour": "red"}]},
        {"rate_hz": 10.0, "features": [], "version": 2},
    ],
)
def test_from_json_refuses(data: dict) -> None:
    with pytest.raises(ValueError, match="schema"):
        Schema.from_json(data)


def test_first_difference() -> None:
    assert first_difference(SCHEMA, replace(SCHEMA)) is None
    assert (
        first_difference(SCHEMA, replace(SCHEMA, rate_hz=10.0)) == "rate: 20.0 Hz against 10.0 Hz"
    )
    fewer = first_difference(SCHEMA, SCHEMA.select(["state", "action"]))
    assert fewer is not None
    assert fewer.startswith("features: ")
    other = first_difference(SCHEMA, SCHEMA.with_angles({"action": [0]}))
    assert other is not None
    assert other.startswith("action: ")
