"""Our features as LeRobot's columns, and LeRobot's conventions as our schema."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from teleop_data.converters.lerobot_columns import (
    Column,
    column_specs,
    columns_of,
    guess,
    keep_cameras,
    losses,
)
from teleop_data.schema import Feature, Schema
from tests.teleop_data.converters.lerobot_episodes import SCHEMA, Episodes


def test_states_of_one_dtype_share_the_column_that_policies_read() -> None:
    keys = {column.key: column.features for column in columns_of(SCHEMA)}
    assert keys == {
        "observation.images.front": ("front",),
        "observation.images.wrist": ("wrist",),
        "observation.state": ("joints", "grip"),
        "action": ("action",),
        "pose": ("pose",),
        "keypoints": ("keypoints",),
        "capture_time": ("capture_time",),
        "other.action_is_valid": ("action_is_valid",),
    }


@pytest.mark.parametrize(
    "name", ["timestamp", "index", "task", "action_old", "observation.x", "x_is_pad", "language_x"]
)
def test_what_lerobot_would_misread_gets_another_name(name: str) -> None:
    schema = Schema(features=(Feature(name=name, shape=(1,), role="other"),), rate_hz=10)
    assert columns_of(schema)[0].key == f"other.{name}"


def test_no_two_columns_share_a_name() -> None:
    features = [Feature(name=n, shape=(1,), role="other") for n in ("other.index", "index")]
    keys = [column.key for column in columns_of(Schema(features=tuple(features), rate_hz=10))]
    assert keys == ["other.index", "other.other.index"]


def test_join_and_split_are_inverse_bit_for_bit() -> None:
    episode = Episodes().episode(2)
    for column in columns_of(SCHEMA):
        if not column.key.startswith("observation.images"):
            joined = column.join(episode)
            assert joined.ndim == 2
            for name, values in column.split(joined, schema=SCHEMA).items():
                assert values.dtype == episode[name].dtype
                assert values.shape == episode[name].shape
                assert values.tobytes() == episode[name].tobytes()


def test_split_refuses_another_number_of_entries() -> None:
    column = Column(key="observation.state", features=("joints", "grip"))
    with pytest.raises(ValueError, match="has 3 entries, expected 4 for joints, grip"):
        column.split(np.zeros((5, 3), np.float32), schema=SCHEMA)


def test_losses_name_what_is_lost() -> None:
    rgba = Feature(name="masked", shape=(32, 32, 4), dtype="uint8", role="camera")
    schema = replace(SCHEMA, features=(rgba, *SCHEMA.features))
    text = " ".join(losses(schema, storage="video"))
    for said in (
        "frame_index / fps",
        "'masked' has 4 channels and is left out",
        "'wrist' is grey",
        "compressed as video with loss",
        "State 'pose' is float64, unlike the first state",
    ):
        assert said in text
    assert "with loss" not in " ".join(losses(schema, storage="image"))
    assert "masked" not in [name for column in columns_of(schema) for name in column.features]


def test_specs_are_flat_and_name_every_entry() -> None:
    specs = column_specs(SCHEMA, storage="video", entry_names={"joints": ["a", "b", "c"]})
    assert specs["observation.state"] == {
        "dtype": "float32",
        "shape": (4,),
        "names": ["a", "b", "c", "grip"],
    }
    assert specs["keypoints"]["shape"] == (8,)
    assert specs["observation.images.wrist"]["shape"] == (32, 40, 3)


SPECS = {
    "observation.state": {"dtype": "float32", "shape": [2], "names": {"motors": ["a", "b"]}},
    "observation.velocity": {"dtype": "float32", "shape": [2]},
    "observation.environment_state": {"dtype": "float32", "shape": [3]},
    "observation.images.top": {
        "dtype": "video",
        "shape": [3, 48, 64],
        "names": ["channels", "height", "width"],
    },
    "observation.image": {"dtype": "image", "shape": [48, 64, 3]},
    "observation.images.depth": {
        "dtype": "video",
        "shape": [48, 64, 1],
        "info": {"is_depth_map": True},
    },
    "action": {"dtype": "float64", "shape": [2]},
    "next.reward": {"dtype": "float32", "shape": [1]},
    "subtask": {"dtype": "string", "shape": [1]},
    "timestamp": {"dtype": "float32", "shape": [1]},
}


def test_roles_and_names_are_guessed_from_lerobots_conventions() -> None:
    guessed = guess(SPECS, rate_hz=30.0)
    assert {f.name: (f.role, f.shape) for f in guessed.schema.features} == {
        "state": ("state", (2,)),
        "velocity": ("state", (2,)),
        "environment_state": ("other", (3,)),
        "top": ("camera", (48, 64, 3)),
        "image": ("camera", (48, 64, 3)),
        "action": ("action", (2,)),
        "next.reward": ("other", (1,)),
    }
    assert guessed.schema.action.dtype == "float64"
    assert guessed.entry_names == {"state": ["a", "b"]}


def test_what_is_left_out_is_said() -> None:
    notes = " ".join(guess(SPECS, rate_hz=30.0).notes)
    assert "'observation.images.depth' is a depth map" in notes
    assert "'subtask' holds string" in notes
    assert "cannot train" not in notes
    without = {key: spec for key, spec in SPECS.items() if key != "action"}
    assert "cannot train" in " ".join(guess(without, rate_hz=30.0).notes)


def test_two_columns_that_would_share_a_name_keep_lerobots() -> None:
    specs = {
        "observation.images.state": {"dtype": "image", "shape": [32, 32, 3]},
        "observation.state": {"dtype": "float32", "shape": [2]},
    }
    assert guess(specs, rate_hz=10).schema.names == ("state", "observation.state")


def test_cameras_are_chosen_by_name() -> None:
    guessed = guess(SPECS, rate_hz=30.0)
    schema, columns, dropped = keep_cameras(guessed.schema, guessed.columns, ["top"])
    assert dropped == ["image"]
    assert [camera.name for camera in schema.with_role("camera")] == ["top"]
    assert "observation.image" not in [column.key for column in columns]
    with pytest.raises(KeyError, match="no camera tpo; have: top, image"):
        keep_cameras(guessed.schema, guessed.columns, ["tpo"])
