"""Reading what others wrote: v2.1 and v1, hand-made and real, whole and damaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from teleop_data.converters.lerobot_dataset import FORMAT, LEGACY_FORMAT
from teleop_data.converters.lerobot_legacy import LegacyLeRobotSource
from teleop_data.converters.lerobot_reading import LeRobotSource
from teleop_data.replay_buffer import StoreError
from tests.teleop_data.converters.lerobot_episodes import (
    real,
    smooth_images,
    write_v1,
    write_v3,
    write_v21,
    write_video,
)

VIDEO = "videos/chunk-001/observation.images.top/episode_000001.mp4"


@pytest.fixture(scope="module")
def v21(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A v2.1 dataset of two episodes; not to be changed."""
    path = tmp_path_factory.mktemp("v21") / "dataset"
    write_v21(path)
    return path


def test_v21_opens(v21: Path) -> None:
    source = LeRobotSource(v21)
    assert source.num_episodes == 2
    assert source.schema.rate_hz == 10.0
    assert {f.name: f.role for f in source.schema.features} == {
        "state": "state",
        "top": "camera",
        "side": "camera",
        "environment_state": "other",
        "action": "action",
        "next.done": "other",
    }
    assert source.provenance == {
        "format": "LeRobotDataset v2.1",
        "dataset": "dataset",
        "robot": "cr5",
        "entry_names": {"state": ["a", "b"], "action": ["a", "b"]},
    }
    source.close()


def test_v21_episodes_hold_their_rows_and_frames(v21: Path) -> None:
    source = LeRobotSource(v21)
    for index, length in ((0, 6), (1, 4), (0, 6)):
        episode = source.episode(index)
        assert list(episode) == list(source.schema.names)
        t = np.arange(length)
        np.testing.assert_array_equal(episode["state"], np.stack([t, t + 1], axis=1))
        assert episode["next.done"].tolist() == [[step == length - 1] for step in range(length)]
        side = smooth_images(length, (16, 24, 3), seed=index)
        np.testing.assert_array_equal(episode["side"], side)
        top = smooth_images(length, (48, 64, 3), seed=index).astype(np.float64)
        errors = [[np.abs(frame - other).mean() for other in top] for frame in episode["top"]]
        assert np.argmin(errors, axis=1).tolist() == list(range(length))  # each its own frame
        for name, values in episode.items():
            assert values.shape == (length, *source.schema[name].shape)
            assert values.dtype == np.dtype(source.schema[name].dtype)
    with pytest.raises(IndexError, match=r"episode 2 outside 0\.\.1"):
        source.episode(2)
    source.close()


def test_the_task_and_its_changes_are_attributes(v21: Path) -> None:
    source = LeRobotSource(v21, cameras=())
    assert source.attributes(0) == {"tasks": [[0, "pick"], [2, "place"]]}
    assert source.attributes(1) == {"task": "pick"}


def test_what_is_no_number_is_left_out_and_said(v21: Path) -> None:
    notes = " ".join(LeRobotSource(v21).notes)
    assert "'language_instruction' holds string" in notes
    assert "Roles are guessed" in notes
    assert "times are real" not in notes


def test_real_capture_times_are_kept(tmp_path: Path) -> None:
    write_v21(tmp_path / "late", lateness_s=0.03)
    source = LeRobotSource(tmp_path / "late", cameras=())
    assert "times are real, up to 0.03 s away" in " ".join(source.notes)
    times = np.float32(0.1) * np.arange(6, dtype=np.float32) + np.float32(0.03)
    np.testing.assert_allclose(source.episode(0)["timestamp"], times, atol=1e-6)
    assert (source.schema["timestamp"].role, source.schema["timestamp"].unit) == ("other", "s")


def test_a_missing_video_is_refused_or_left_out(tmp_path: Path) -> None:
    write_v21(tmp_path)
    (tmp_path / VIDEO).unlink()
    with pytest.raises(StoreError, match="1 of 2 episodes have no video, first episode 1"):
        LeRobotSource(tmp_path)
    some = LeRobotSource(tmp_path, missing_videos="leave_out")
    assert some.num_episodes == 1
    assert "left out: 1." in some.notes[-1]
    assert LeRobotSource(tmp_path, cameras=["side"]).num_episodes == 2
    assert LeRobotSource(tmp_path, episodes=[0]).num_episodes == 1
    with pytest.raises(ValueError, match="no episode is left"):
        LeRobotSource(tmp_path, episodes=[1], missing_videos="leave_out")


def test_episodes_and_cameras_are_chosen(v21: Path) -> None:
    source = LeRobotSource(v21, episodes=[1, 0], cameras=["side"])
    assert "top" not in source.schema.names
    assert [len(source.episode(i)["state"]) for i in range(2)] == [4, 6]
    assert source.attributes(0) == {"task": "pick"}
    with pytest.raises(IndexError, match=r"no episodes \[7\]; the dataset has 2"):
        LeRobotSource(v21, episodes=[0, 7])
    with pytest.raises(KeyError, match="no camera wrist; have: top, side"):
        LeRobotSource(v21, cameras=["wrist"])


def test_a_cut_off_video_is_refused_and_not_filled_up(tmp_path: Path) -> None:
    write_v21(tmp_path)
    write_video(tmp_path / VIDEO, smooth_images(3, (48, 64, 3)), rate_hz=10)
    source = LeRobotSource(tmp_path)
    source.episode(0)
    with pytest.raises(StoreError, match="has 3 of the 4 frames"):
        source.episode(1)
    source.close()


def test_a_camera_is_as_large_as_its_video(tmp_path: Path) -> None:
    write_v21(tmp_path)
    path = tmp_path / "meta" / "info.json"
    path.write_text(path.read_text().replace("[3, 48, 64]", "[3, 480, 640]"))
    source = LeRobotSource(tmp_path)
    assert source.schema["top"].shape == (48, 64, 3)
    assert "Camera 'top' is 48x64 in its video, not 480x640" in source.notes[-1]
    assert source.episode(0)["top"].shape == (6, 48, 64, 3)
    source.close()


def test_damage_is_told_by_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"info\.json is missing"):
        LeRobotSource(tmp_path)
    write_v21(tmp_path)
    table = tmp_path / "data" / "chunk-001" / "episode_000001.parquet"
    rows = pq.read_table(table)
    table.write_bytes(table.read_bytes()[:-30])
    with pytest.raises(StoreError, match=r"episode_000001\.parquet cannot be read: cut off"):
        LeRobotSource(tmp_path)
    pq.write_table(rows.slice(0, 3), table)
    with pytest.raises(StoreError, match="has 3 rows, 4 are needed"):
        LeRobotSource(tmp_path).episode(1)
    (tmp_path / "meta" / "episodes.jsonl").unlink()
    with pytest.raises(StoreError, match=r"episodes\.jsonl is missing"):
        LeRobotSource(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"codebase_version": "v4.0"}, "is LeRobotDataset v4.0; v2.0, v2.1 and v3.0 can be read"),
        ({"features": None}, "damaged"),
        ({"fps": None}, "damaged"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(
    tmp_path: Path, change: dict, said: str
) -> None:
    write_v21(tmp_path)
    path = tmp_path / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(StoreError, match=said):
        LeRobotSource(tmp_path)


def test_v3_episodes_are_found_in_several_files(tmp_path: Path) -> None:
    write_v3(tmp_path)
    source = LeRobotSource(tmp_path)
    for index in (2, 0, 1, 2):
        steps = [[0, 1, 2], [3, 4], [5, 6, 7, 8]][index]
        assert source.episode(index)["state"].ravel().tolist() == steps
        assert source.attributes(index) == {"task": "b" if index == 2 else "a"}


def test_v3_that_was_not_finalized_is_refused(tmp_path: Path) -> None:
    write_v3(tmp_path)
    path = tmp_path / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).slice(0, 2), path)
    with pytest.raises(StoreError, match="describes 2 episodes, info.json counts 3"):
        LeRobotSource(tmp_path)


def test_v1_opens(tmp_path: Path) -> None:
    write_v1(tmp_path)
    source = LegacyLeRobotSource(tmp_path)
    assert source.schema.names == ("image", "state", "action")
    assert (source.num_episodes, source.schema.rate_hz) == (2, 5.0)
    assert "5 Hz, is guessed from the times" in source.notes[-1]
    for index, length in ((0, 4), (1, 3)):
        episode = source.episode(index)
        assert episode["state"].tolist() == [[float(t)] for t in range(length)]
        assert episode["image"].shape == (length, 32, 48, 3)
    source.close()
    assert LegacyLeRobotSource(tmp_path, cameras=()).schema.names == ("state", "action")
    (tmp_path / "videos" / "observation.image_episode_000001.mp4").unlink()
    with pytest.raises(StoreError, match=r"observation\.image_episode_000001\.mp4 is missing"):
        LegacyLeRobotSource(tmp_path).episode(1)


def test_only_hf_asks_the_hub(v21: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked = []

    def fetch(repo_id: str, *, repo_type: str) -> str:
        asked.append((repo_id, repo_type))
        return str(v21)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert LeRobotSource(v21, cameras=()).num_episodes == 2
    assert not asked
    assert LeRobotSource(Path("hf:lerobot/pusht"), cameras=()).num_episodes == 2
    assert asked == [("lerobot/pusht", "dataset")]


def test_formats_recognize_their_own(tmp_path: Path, v21: Path) -> None:
    write_v1(tmp_path)
    assert FORMAT.recognize(v21) == "it holds meta/info.json"
    assert FORMAT.recognize(tmp_path) is None
    assert LEGACY_FORMAT.recognize(tmp_path) == "it holds train/data-00000-of-00001.arrow"
    assert LEGACY_FORMAT.recognize(v21) is None


def test_the_real_arm_opens_with_and_without_its_videos() -> None:
    path = real("cr5_banana")
    with pytest.raises(StoreError, match="69 of 81 episodes have no video"):
        LeRobotSource(path)
    source = LeRobotSource(path, missing_videos="leave_out")
    assert source.num_episodes == 12
    episode = source.episode(1)
    assert episode["top"].shape == (215, 480, 640, 3)
    assert source.attributes(1) == {"task": "put the banana on the plate"}
    source.close()
    source = LeRobotSource(path, cameras=())
    episodes = [source.episode(i) for i in range(source.num_episodes)]
    assert sum(len(episode["state"]) for episode in episodes) == 18_039
    # the action is the state's finite difference: rows and columns are where they should be
    state, action = episodes[3]["state"], episodes[3]["action"]
    assert np.abs(np.diff(state, axis=0) * 10 - action[1:, :6]).mean() < 0.01
    assert "times are real" in " ".join(source.notes)


@pytest.mark.parametrize(
    ("name", "length", "size"),
    [
        ("aloha_sim_transfer_cube_human", 400, (480, 640)),
        pytest.param("aloha_sim_transfer_cube_scripted", 400, (480, 640), marks=pytest.mark.slow),
        pytest.param("aloha_sim_insertion_human", 500, (480, 640), marks=pytest.mark.slow),
        pytest.param("aloha_sim_insertion_scripted", 400, (480, 640), marks=pytest.mark.slow),
        ("umi_cup_in_the_wild", 400, (224, 224)),
    ],
)
def test_real_v1_episodes_open(name: str, length: int, size: tuple[int, int]) -> None:
    source = LegacyLeRobotSource(real("lerobot_legacy_fixtures") / name)
    episode = source.episode(0)
    camera = source.schema.with_role("camera")[0]
    assert camera.shape == (*size, 3)
    assert episode[camera.name].shape == (length, *size, 3)
    assert episode["state"].shape == (length, 7 if "umi" in name else 14)
    assert source.schema.rate_hz == (10.0 if "umi" in name else 50.0)
    source.close()
