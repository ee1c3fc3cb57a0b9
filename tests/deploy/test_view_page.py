"""The page as a person sees it: in a real browser, from which nothing but this machine exists.

A browser without a GPU draws one or two pictures a second, hence the patience and the mark. To look
at the pictures: `pytest -m slow tests/deploy/test_view_page.py --basetemp=<folder>`.
"""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from deploy.film_frame import CLEAN, NOISE
from deploy.live_view import LiveView
from sim.arm.environment import ArmEnvironment
from sim.experts.scripted_hand import ScriptedHand
from sim.tasks.swap import Swap
from tests.deploy.chromium import MISSING, Chromium, find_chromium
from tests.deploy.processes import entry_point
from tests.deploy.test_live_view import record, rising_plan

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(find_chromium() is None, reason=MISSING),
]
PANEL_LEFT = 940  # the panel lies right of it, the scene left
WHITE = (255, 255, 255)


def num_pixels(picture: np.ndarray, color: tuple[int, int, int], *, within: int = 6) -> int:
    """How many pixels differ from `color` by at most `within` in every channel."""
    return int((np.abs(picture.astype(int) - color).max(-1) <= within).sum())


def num_changed(before: np.ndarray, after: np.ndarray) -> int:
    """How many pixels differ by more than noise."""
    return int((np.abs(before.astype(int) - after).max(-1) > 12).sum())


def settled(browser: Chromium, *, left: int, right: int) -> np.ndarray:
    """The columns of a screenshot that is like the one before: nothing fades in any more."""
    before = browser.screenshot()[:, left:right]
    for _ in range(60):
        time.sleep(0.5)
        after = browser.screenshot()[:, left:right]
        is_blank = num_pixels(after, WHITE) > 0.9 * after.shape[0] * after.shape[1]
        if num_changed(before, after) < 20 and not is_blank:
            return after
        before = after
    raise AssertionError(f"the page never came to rest; it says {browser.text!r}")


@pytest.fixture
def browser(tmp_path):
    with Chromium(tmp_path / "profile") as browser:
        yield browser


def open_page(browser: Chromium, url: str) -> None:
    """Open the view, away with the browser's own remark that it has no GPU."""
    browser.open(url)
    browser.wait_for(lambda: "episode" in browser.text)
    browser.evaluate("document.querySelector('.mantine-Notification-closeButton')?.click()")


def assert_offline(browser: Chromium) -> None:
    """Whatever the page asked for came from this machine or from the page itself."""
    assert len(browser.requests) > 1
    for address in browser.requests:
        parts = urlsplit(address.removeprefix("blob:"))
        assert parts.scheme == "data" or parts.hostname == "127.0.0.1", address


def test_arm_plan_pictures_and_words_are_seen(browser: Chromium, tmp_path: Path):
    arm = ArmEnvironment(Swap())
    expert = ScriptedHand(arm)
    view = LiveView(arm, title="swap, a plan to look at", port=0, visuals="fast")
    try:
        observation = arm.reset(3)
        expert.reset(3)
        result = arm.step(expert.act(observation))
        view.start_episode(3)
        view.show(record(result, step=0))
        open_page(browser, view.url)
        without_plan = settled(browser, left=0, right=PANEL_LEFT)
        for _ in range(8):
            result = arm.step(expert.act(result.observation))
        view.show(record(result, step=8, plan=rising_plan(arm, start_step=8)))
        browser.wait_for(lambda: "step 9 of 180" in browser.text)
        seen = settled(browser, left=0, right=PANEL_LEFT)
        browser.screenshot(tmp_path / "plan.png")
        # the plan: its two ends in their colours, and nothing of them where there is no plan
        for color in (CLEAN, NOISE):
            assert num_pixels(without_plan, color) == 0
            assert num_pixels(seen, color) > 20, color
        assert num_changed(without_plan, seen) > 5000  # the arm has moved

        # the arm is what it takes away when it is hidden
        for number in range(1, 8):
            node = view._server.scene.get_handle_by_name(f"/world/link{number}")
            assert node is not None
            node.visible = False
        assert num_changed(seen, settled(browser, left=0, right=PANEL_LEFT)) > 20_000

        # the panel: both pictures as they were observed, JPEG's noise apart
        panel = browser.screenshot()[:, PANEL_LEFT:]
        image = browser.evaluate(
            "JSON.stringify([...document.querySelectorAll('img')].map(i => "
            "i.getBoundingClientRect()).find(r => r.width > 250))"
        )
        assert image is not None
        for name in ("front", "wrist"):
            typical = np.median(result.observation[name].reshape(-1, 3), axis=0)
            assert num_pixels(panel, tuple(typical), within=12) > 500, name
        assert "swap, a plan to look at" in browser.text
        assert "pure noise" in browser.text
        assert_offline(browser)
    finally:
        view.close()
        arm.close()


def test_the_buttons_of_forcing_view_are_heeded(browser: Chromium, tmp_path: Path):
    with entry_point("deploy.view", "task=swap", "port=0", "surfaces=fast", "first_seed=8") as view:
        url = view.wait_for("view at http://").split()[2].rstrip(",")
        open_page(browser, url)
        assert "swap, scripted expert" in browser.text
        browser.wait_for(lambda: "sub-goal: move 1" in browser.text)

        browser.press("Pause")
        browser.wait_for(lambda: "Go on" in browser.text)
        time.sleep(1.0)
        paused = browser.text
        settled(browser, left=0, right=PANEL_LEFT)
        browser.screenshot(tmp_path / "paused.png")
        time.sleep(1.0)
        assert browser.text == paused

        browser.press("Go on")
        browser.wait_for(lambda: browser.text.replace("Pause", "Go on") != paused)
        browser.press("Next episode")
        browser.wait_for(lambda: "episode 9" in browser.text)
        assert view.wait_for("episode 8: left")
        assert_offline(browser)
        assert view.terminate() == 0
