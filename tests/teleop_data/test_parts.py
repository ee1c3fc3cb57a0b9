import numpy as np
import pytest

from teleop_data.dataset import WindowDataset
from teleop_data.parts import Part, part_of, with_parts
from teleop_data.replay_buffer import ReplayBuffer
from teleop_data.schema import Feature, Schema
from teleop_data.statistics import buffer_statistics

SCHEMA = Schema(
    features=(
        Feature(name="state", shape=(3,), role="state", unit="m", angles=(2,)),
        Feature(name="action", shape=(1,), role="action"),
    ),
    rate_hz=10.0,
)


@pytest.fixture
def buffer(tmp_path):
    buffer = ReplayBuffer.create(tmp_path / "store.zarr", SCHEMA)
    for length in (4, 3):
        state = np.arange(3 * length, dtype=np.float32).reshape(length, 3)
        buffer.append_episode({"state": state, "action": np.zeros((length, 1), np.float32)})
    return buffer


def test_a_part_is_a_feature_with_its_own_name_unit_and_angles(buffer):
    view = with_parts(buffer, {"hand": Part(feature="state", entries=(2, 0))})
    expected = Feature(name="hand", shape=(2,), role="state", unit="m", angles=(0,))
    assert view.schema["hand"] == expected
    assert view.schema.names == ("state", "action", "hand")
    assert view["hand"].shape == (7, 2)
    np.testing.assert_array_equal(view["hand"][1:3], [[5, 3], [8, 6]])
    np.testing.assert_array_equal(view["hand"][np.array([0, 4])], [[2, 0], [2, 0]])


def test_training_reads_parts_like_any_feature(buffer):
    view = with_parts(buffer, {"hand": Part(feature="state", entries=(1,))})
    schema = view.schema.select(["hand", "action"])
    episodes = np.array([0])
    dataset = WindowDataset(view, schema=schema, episodes=episodes, context=2, horizon=2)
    np.testing.assert_array_equal(dataset[3]["hand"], [[7], [10]])
    statistics = buffer_statistics(view, names=["hand"], episodes=episodes)
    assert statistics["hand"].maximum.tolist() == [10.0]


def test_no_parts_leave_the_buffer_as_it_is(buffer):
    assert with_parts(buffer, {}) is buffer


def test_entries_outside_the_feature_and_unknown_features_are_refused(buffer):
    with pytest.raises(ValueError, match=r"entries \[3\] of 'state', which has shape \(3,\)"):
        with_parts(buffer, {"hand": Part(feature="state", entries=(3,))})
    with pytest.raises(KeyError, match="no feature 'pose'; have: state, action"):
        with_parts(buffer, {"hand": Part(feature="pose", entries=(0,))})
    with pytest.raises(ValueError, match="features? names must differ|must differ"):
        with_parts(buffer, {"state": Part(feature="state", entries=(0,))})


def test_a_camera_has_no_entries():
    camera = Feature(name="top", shape=(4, 4, 3), dtype="uint8", role="camera")
    with pytest.raises(ValueError, match="one-dimensional"):
        part_of(camera, (0,), name="corner")
