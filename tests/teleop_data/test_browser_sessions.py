"""Whole sessions of forcing-record in a headless browser: three successful episodes each, kept, and
good to train from. To look at the pages: `pytest -m slow tests/teleop_data/test_browser_sessions.py
--basetemp=<folder>`.

In the plane the person sees what the camera's picture on the page shows, red block and green ring,
and nothing else. At the arm the person is told where block and tray lie at the start, by an
environment of the test's own that was reset with the seed that the page names; where the hand is,
whether the goal is reached and everything else is read from the page.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from sim.arm.environment import ArmEnvironment
from sim.tasks.arm_pick_place import BLOCK, TRAY, ArmPickPlace, grasp_yaw
from teleop_data.replay_buffer import ReplayBuffer
from tests.deploy.chromium import MISSING, Chromium, find_chromium
from tests.deploy.processes import EntryPoint, entry_point
from tests.policy.test_train_command import TINY, forcing_train
from tests.teleop_data.page_person import SPACE, Person

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(find_chromium() is None, reason=MISSING),
]
NUM_EPISODES = 3
MAX_ATTEMPTS = 6


@pytest.fixture
def person(tmp_path: Path):
    with Chromium(tmp_path / "profile") as browser:
        yield Person(browser)


def record(person: Person, session: EntryPoint, attempt, *, folder: Path) -> None:
    """Sit down at the page of `session` and keep three episodes that `attempt` brings off."""
    url = session.wait_for("drive at ").split()[-1]
    person.browser.open(url)
    person.browser.wait_for(lambda: "waiting for Start" in person.browser.text)
    for number in range(MAX_ATTEMPTS):
        shown = person.wait_for(lambda shown: shown["phase"] == "waiting" and shown["is_driver"])
        seed = int(shown["progress"].rsplit(" ", 1)[1])
        num_kept = int(shown["kept"].split()[0])
        person.click("Start")
        person.wait_for(lambda shown: shown["phase"] == "recording" and shown["ring"])
        attempt(person, seed, folder / f"recording{number}.png")
        shown = person.wait_for(lambda shown: shown["phase"] == "deciding", timeout_s=20)
        person.browser.screenshot(folder / f"over{number}.png")
        is_good = "goal reached" in shown["state"]
        person.click("Keep" if is_good else "Drop")
        if is_good and num_kept + 1 == NUM_EPISODES:
            break
    assert session.wait() == 0, session.lines
    person.browser.wait_for(lambda: "disconnected" in person.browser.text)


def check_and_train(store: Path, *, output: Path, cameras: list[str], pixels: int) -> None:
    """Three successful episodes by hand, from which the policy can be trained."""
    buffer = ReplayBuffer.open(store)
    assert buffer.num_episodes == NUM_EPISODES
    for index, facts in enumerate(buffer.episode_attributes):
        assert facts["success"], facts
        episode = buffer.episode(index)
        assert len(np.unique(episode["action"], axis=0)) > 10
        for camera in cameras:
            assert len(np.unique(episode[camera].reshape(len(episode[camera]), -1), axis=0)) > 10
    crop = pixels - 8
    result = forcing_train(
        *(option for option in TINY if "data" not in option),
        f"data.features=[{','.join(cameras)},state,action]",
        "data.validation_share=0.34",
        "model=image_small",
        "model.camera.backbone={_target_:policy.observation_encoder.SmallCnn,width:8}",
        f"model.camera.crop=[{crop},{crop}]",
        f"data.path={store}",
        f"output_dir={output}",
        "training.num_steps=2",
    )
    assert result.returncode == 0, result.stderr
    assert (output / "checkpoint" / "model.safetensors").exists()


def centre(mask: np.ndarray) -> tuple[float, float]:
    """(column, row) of the middle of what is marked."""
    rows, columns = np.nonzero(mask)
    assert len(rows) > 5, "not in sight"
    return float(columns.mean()), float(rows.mean())


def planar_attempt(person: Person, _seed: int, screenshot: Path) -> None:
    """Red object into green ring, both as the page's picture shows them; a pixel is 1 cm."""
    picture = person.picture("top").astype(int)
    red, green, blue = np.moveaxis(picture, -1, 0)

    def place(mask: np.ndarray) -> tuple[float, float]:
        column, row = centre(mask)
        return -0.32 + 0.01 * (column + 0.5), 0.64 - 0.01 * (row + 0.5)

    thing = place((red > 170) & (green < 100) & (blue < 100))
    ring = place((green > 130) & (red < 110))
    for where in (thing, ring):
        person.drag_to(*where)
        if not person.wait_until_there(tolerance=0.008):
            return
        if where is thing:
            person.browser.screenshot(screenshot)
        person.press(SPACE)
        time.sleep(0.4)


def test_three_episodes_in_the_plane_by_mouse_and_keys(person: Person, tmp_path: Path):
    store = tmp_path / "by_hand.zarr"
    with entry_point(
        "teleop_data.record",
        f"output={store}",
        "task=pick_place",
        "teleoperator=browser_planar",
        "teleoperator.port=0",
        f"num_episodes={NUM_EPISODES}",
    ) as session:
        record(person, session, planar_attempt, folder=tmp_path)
    check_and_train(store, output=tmp_path / "trained", cameras=["top"], pixels=64)


class ArmPerson:
    """Picks and places; knows from `world` where things lie when the episode starts."""

    def __init__(self) -> None:
        self.world = ArmEnvironment(ArmPickPlace(), features=("state",), backend="gl")

    def attempt(self, person: Person, seed: int, screenshot: Path) -> None:
        self.world.reset(seed)
        physics = self.world.physics
        block, tray = physics.position(BLOCK), physics.position(TRAY)
        person.drag_to(*block[:2])
        person.turn_to(grasp_yaw(physics.yaw(BLOCK)))
        if not person.wait_until_there(tolerance=0.01):
            return
        person.raise_to(0.022)
        if not person.wait_until_there(tolerance=0.006):
            return
        person.press(SPACE)  # close
        time.sleep(0.5)
        person.browser.screenshot(screenshot)
        person.raise_to(0.15)
        time.sleep(0.3)
        person.drag_to(*tray[:2])
        if not person.wait_until_there(tolerance=0.01):
            return
        person.raise_to(0.035)
        if not person.wait_until_there(tolerance=0.006):
            return
        person.press(SPACE)  # open
        time.sleep(0.4)
        person.click("clean")
        person.raise_to(0.15)


def test_three_episodes_with_the_arm_by_mouse_and_keys(person: Person, tmp_path: Path):
    store = tmp_path / "by_hand.zarr"
    with entry_point(
        "teleop_data.record",
        f"output={store}",
        "task=arm_pick_place",
        "++task.environment.backend=gl",
        "teleoperator=browser_arm",
        "teleoperator.port=0",
        f"num_episodes={NUM_EPISODES}",
    ) as session:
        record(person, session, ArmPerson().attempt, folder=tmp_path)
    check_and_train(store, output=tmp_path / "trained", cameras=["front", "wrist"], pixels=96)
