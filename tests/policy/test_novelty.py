"""Novelty: pictures like the training's are believed, others are strange; limits; files."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policy.checkpoint import CheckpointError, load_policy, save_checkpoint
from policy.novelty import (
    BLOCKS,
    LEFT_OUT,
    NUM_COLORS,
    CameraNovelty,
    Novelty,
    NoveltyError,
    fit_novelty,
    longest_run,
    thinned,
)
from teleop_data.schema import Feature, Schema
from tests.policy.tiny_models import FULL_SCHEMA, description

SIDE, LENGTH = 48, 20


def scene(rng: np.random.Generator, *, side: int = SIDE, channels: int = 3) -> np.ndarray:
    """A table lit from the left, a little differently each time, with a red thing somewhere."""
    light = np.linspace(120, 200, side)[None, :, None] + rng.normal(0, 2)
    picture = np.broadcast_to(
        light * np.array([1, 0.8, 0.6, 0.5])[:channels], (side, side, channels)
    )
    picture = picture + rng.normal(0, 1, picture.shape)
    row, column = rng.integers(side // 4, 3 * side // 4 - side // 8, size=2)
    picture[row : row + side // 8, column : column + side // 8] = (200, 30, 30, 90)[:channels]
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


class Recorded:
    """Episodes of equal length in memory."""

    def __init__(self, pictures: np.ndarray) -> None:
        """`pictures` (N, H, W, channels) of the camera "top", `LENGTH` an episode."""
        camera = Feature(name="top", shape=pictures.shape[1:], dtype="uint8", role="camera")
        action = Feature(name="action", shape=(1,), role="action")
        self.schema = Schema(features=(camera, action), rate_hz=10.0)
        self.num_episodes = len(pictures) // LENGTH
        self.episode_ends = LENGTH * np.arange(1, self.num_episodes + 1)
        self.episode_starts = self.episode_ends - LENGTH
        self._pictures = pictures

    def __getitem__(self, name: str) -> np.ndarray:
        assert name == "top"
        return self._pictures


def recorded(*, num_episodes: int = 20, side: int = SIDE, channels: int = 3) -> Recorded:
    rng = np.random.default_rng(0)
    num = num_episodes * LENGTH
    return Recorded(np.stack([scene(rng, side=side, channels=channels) for _ in range(num)]))


def fitted(episodes: Recorded) -> Novelty:
    novelty = fit_novelty(episodes, cameras=["top"], episodes=np.arange(episodes.num_episodes))
    assert novelty is not None
    return novelty


@pytest.fixture(scope="module")
def novelty() -> Novelty:
    return fitted(recorded())


def fresh(num: int = 100) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [scene(rng) for _ in range(num)]


def with_patch(picture: np.ndarray) -> np.ndarray:
    patched = picture.copy()
    patched[10:25, 10:25] = 127  # a tenth of the area
    return patched


def with_noise(picture: np.ndarray) -> np.ndarray:
    noisy = picture + np.random.default_rng(2).normal(0, 25, picture.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def test_new_pictures_of_the_same_scene_are_not_strange(novelty: Novelty) -> None:
    assert {novelty.is_strange("top", picture) for picture in fresh()} == {False}


@pytest.mark.parametrize(
    "spoil",
    [
        with_patch,
        with_noise,
        np.zeros_like,
        lambda picture: (picture * 0.6).astype(np.uint8),
        lambda picture: picture[..., ::-1],
        lambda picture: picture[:, ::-1],
    ],
    ids=["patch", "noise", "black", "dark", "channels swapped", "mirrored"],
)
def test_spoiled_pictures_are_strange(novelty: Novelty, spoil) -> None:
    spoiled = [spoil(picture) for picture in fresh(20)]
    assert {novelty.is_strange("top", picture, tolerance=1.5) for picture in spoiled} == {True}
    assert {novelty.is_strange("top", picture, tolerance=np.inf) for picture in spoiled} == {False}


def test_a_small_thing_makes_a_picture_strange(novelty: Novelty) -> None:
    for picture in fresh(20):
        picture[20:29, 20:29] = (20, 20, 200)  # 3.5 % of the area
        assert novelty.is_strange("top", picture)


def test_limits_come_from_episodes_left_out() -> None:
    episodes = recorded()
    pictures = episodes["top"].copy()
    left_out = slice((LEFT_OUT - 1) * LENGTH, LEFT_OUT * LENGTH)
    pictures[left_out] = [with_patch(picture) for picture in pictures[left_out]]
    usual, warned = fitted(episodes), fitted(Recorded(pictures))
    assert np.all(warned.cameras["top"].limits > 2 * usual.cameras["top"].limits)
    assert {warned.is_strange("top", with_patch(picture)) for picture in fresh(20)} == {False}


def test_one_episode_is_enough_to_fit_and_none_is_refused() -> None:
    episodes = recorded(num_episodes=1)
    assert fitted(episodes).is_strange("top", np.zeros((SIDE, SIDE, 3), np.uint8))
    with pytest.raises(NoveltyError, match="no episodes"):
        fit_novelty(episodes, cameras=["top"], episodes=np.arange(0))
    assert fit_novelty(episodes, cameras=[], episodes=np.arange(1)) is None


def test_a_colour_is_unseen_unless_its_block_or_one_beside_it_had_it() -> None:
    grey = int("0b100000_100000_100000", 2)  # 128 to 131 in every channel
    camera = CameraNovelty(
        seen=np.array([0 * NUM_COLORS + grey], np.int32),  # the block in the upper left corner
        usual=np.array([0 * NUM_COLORS + grey], np.int32),
        limits=np.array([0.5, 0.5]),
        longest_still=0,
    )
    picture = np.full((BLOCKS, BLOCKS, 3), 128, np.uint8)  # a pixel a block
    unseen, rare = camera.shares(picture)
    num = BLOCKS**2
    assert unseen == (num - 4) / num  # the corner has three blocks beside it
    assert rare == (num - 1) / num
    assert camera.is_strange(picture)
    assert not camera.is_strange(picture, tolerance=1.99)
    never_usual = replace(camera, usual=np.zeros(0, np.int32))
    np.testing.assert_array_equal(never_usual.shares(picture), [unseen, 1.0])


def test_a_colour_of_one_pixel_in_10000_is_seen_and_rare() -> None:
    episodes = recorded(num_episodes=40)  # 12,800 pixels of each block
    plain = fitted(episodes).cameras["top"]
    episodes["top"][0, 0, 0] = (0, 0, 255)
    episodes["top"][:2, 0, 4] = (0, 0, 255)  # in two pictures of the block beside it
    camera = fitted(episodes).cameras["top"]
    blue = np.array([0b111111, NUM_COLORS + 0b111111])
    assert not np.isin(blue, plain.seen).any()
    assert np.isin(blue, camera.seen).all()
    assert np.isin(blue, camera.usual).tolist() == [False, True]


@pytest.mark.parametrize(("side", "channels"), [(200, 3), (48, 1), (48, 4), (20, 3)])
def test_pictures_of_other_shapes(side: int, channels: int) -> None:
    episodes = recorded(num_episodes=5, side=side, channels=channels)
    novelty, picture = fitted(episodes), episodes["top"][0]
    assert not novelty.is_strange("top", picture)
    assert novelty.is_strange("top", np.zeros_like(picture))


def test_large_pictures_are_thinned_and_small_ones_are_not() -> None:
    assert thinned(np.zeros((1, 480, 640, 3))).shape == (1, 96, 107, 3)
    assert thinned(np.zeros((1, 96, 96, 3))).shape == (1, 96, 96, 3)


def test_the_longest_run_of_equal_pictures() -> None:
    pictures = np.array([0, 1, 1, 2, 2, 2, 2, 3])[:, None, None, None]
    assert [longest_run(pictures), longest_run(pictures[:3]), longest_run(pictures[:1])] == [
        3,
        1,
        0,
    ]
    episodes = recorded(num_episodes=2)
    episodes["top"][5:8] = episodes["top"][5]
    episodes["top"][LENGTH] = episodes["top"][LENGTH - 1]  # the next episode's first: no repeat
    assert fitted(episodes).longest_still("top") == 2


def test_files_keep_all_of_it(novelty: Novelty, tmp_path: Path) -> None:
    assert Novelty.load(tmp_path) is None
    novelty.save(tmp_path)
    loaded = Novelty.load(tmp_path)
    assert loaded is not None
    for picture in (*fresh(3), with_noise(fresh(1)[0])):
        shares = loaded.cameras["top"].shares(picture)
        np.testing.assert_array_equal(shares, novelty.cameras["top"].shares(picture))
    np.testing.assert_array_equal(loaded.cameras["top"].limits, novelty.cameras["top"].limits)
    assert loaded.longest_still("top") == novelty.longest_still("top")


def test_a_checkpoint_carries_it(novelty: Novelty, tmp_path: Path) -> None:
    described = description(FULL_SCHEMA)
    weights = described.build().state_dict()
    for carried in (novelty, None):  # the second folder replaces the first
        save_checkpoint(tmp_path / "c", replace(described, novelty=carried), weights, provenance={})
        loaded = load_policy(tmp_path / "c").novelty
        assert (loaded is None) == (carried is None)
    save_checkpoint(tmp_path / "c", replace(described, novelty=novelty), weights, provenance={})
    path = tmp_path / "c" / "novelty.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=r"novelty\.safetensors is broken"):
        load_policy(tmp_path / "c")


def test_it_needs_no_torch() -> None:
    code = "import sys, policy.novelty; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
