"""The browser's teleoperator over real sockets, without a browser: who drives, and how."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
import simplejpeg

from sim.tasks.pick_place import pick_place_environment
from teleop_data.clock import ManualClock
from teleop_data.operator import Command, Status
from teleop_data.teleoperators.browser import BrowserTeleoperator
from teleop_data.teleoperators.hand_target import PlanarHand
from tests.contracts.teleoperator_contract import TeleoperatorContract
from tests.teleop_data.browser_client import PageClient, open_page

REACH = {"low": (-0.26, 0.10), "high": (0.26, 0.56)}
STRIDE_M = 0.02  # at 0.2 m/s and 10 Hz


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def environment():
    return pick_place_environment()


@pytest.fixture
def teleoperator(environment, clock: ManualClock) -> Iterator[BrowserTeleoperator]:
    teleoperator = BrowserTeleoperator(
        environment,
        mapping=PlanarHand(**REACH),
        port=0,
        speed=0.2,
        labels=("good", "clumsy"),
        clock=clock,
    )
    yield teleoperator
    teleoperator.close()


@pytest.fixture
def page(teleoperator: BrowserTeleoperator) -> Iterator[PageClient]:
    page = open_page(teleoperator.url)
    with page.socket:
        yield page


def start(environment, teleoperator: BrowserTeleoperator, page: PageClient) -> np.ndarray:
    """The action (3,) of the first step; the page has seen its target."""
    observation = environment.reset(0)
    teleoperator.reset(0)
    action = teleoperator.act(observation)
    page.read_until(lambda words: words["target"])
    return action


def drive(page: PageClient, **entries: float) -> None:
    """Point there, and wait until the server knows."""
    page.drive(**entries)
    page.read_until(lambda words: all(words["target"][k] == v for k, v in entries.items()))


class TestBrowserTeleoperator(TeleoperatorContract):
    """Nobody drives here: the hand is held still."""

    @pytest.fixture(autouse=True)
    def _close(self) -> Iterator[None]:
        self.opened: list[BrowserTeleoperator] = []
        yield
        for teleoperator in self.opened:
            teleoperator.close()

    def make(self):
        environment = pick_place_environment()
        self.opened.append(BrowserTeleoperator(environment, mapping=PlanarHand(**REACH), port=0))
        return environment, self.opened[-1]


def test_the_hand_strides_to_where_a_page_points(environment, teleoperator, page):
    first = start(environment, teleoperator, page)
    observation = environment.reset(0)
    np.testing.assert_allclose(first, observation["state"], atol=1e-6)
    drive(page, x=0.2, y=0.5, closure=1.0)
    way = np.array([0.2, 0.5]) - first[:2]
    for step in range(1, 4):
        action = teleoperator.act(observation)
        expected = first[:2] + step * STRIDE_M * way / np.linalg.norm(way)
        np.testing.assert_allclose(action, [*expected, 1.0], atol=1e-6)


def test_targets_are_clipped_to_the_reach(environment, teleoperator, page):
    start(environment, teleoperator, page)
    page.drive(x=5.0)
    page.read_until(lambda words: words["target"]["x"] == 0.26)


def test_act_waits_for_nobody(environment, teleoperator, page):
    observation = environment.reset(0)
    teleoperator.reset(0)
    durations_s = []
    for _ in range(50):  # the page reads and says nothing meanwhile
        start_s = time.perf_counter()
        teleoperator.act(observation)
        durations_s.append(time.perf_counter() - start_s)
    assert float(np.median(durations_s)) < 0.005


def test_a_page_that_does_not_read_is_given_the_newest_picture_next(
    environment, teleoperator, page
):
    observation = environment.reset(0)
    teleoperator.reset(0)
    for shade in range(10, 200, 10):
        observation = {**observation, "top": np.full((64, 64, 3), shade, np.uint8)}
        teleoperator.act(observation)
        time.sleep(0.01)  # enough for a server that would send each
    shades = []
    while not shades or shades[-1] != 190:
        page.read()
        if page.pictures:
            shades.append(round(float(simplejpeg.decode_jpeg(page.pictures["top"]).mean())))
    assert len(shades) <= 3  # the one under way, and the newest; not all nineteen


def test_a_reset_forgets_where_the_page_pointed(environment, teleoperator, page):
    start(environment, teleoperator, page)
    drive(page, x=0.2, y=0.5)
    stale = dict(page.words)
    observation = environment.reset(1)
    teleoperator.reset(1)
    teleoperator.act(observation)
    page.send("drive", epoch=stale["epoch"], target=stale["target"])  # sent before it knew
    page.read()
    page.read()  # came after what was "seen" before, which came after "drive"
    action = teleoperator.act(observation)
    np.testing.assert_allclose(action[:2], observation["state"][:2], atol=1e-6)


def test_without_a_page_the_hand_is_held_where_it_is(
    environment, teleoperator, page, caplog: pytest.LogCaptureFixture
):
    start(environment, teleoperator, page)
    drive(page, x=0.2, y=0.5, closure=1.0)
    observation = environment.reset(0)
    teleoperator.act(observation)
    page.socket.close()
    _wait_for(lambda: teleoperator._seat.view().presence == "empty")
    here = observation["state"]
    for _ in range(3):
        held = teleoperator.act(observation)
        np.testing.assert_allclose(held, [*here[:2], 1.0], atol=1e-6)  # the grip is kept
    assert [record.message for record in caplog.records].count(
        "Nobody drives: no page is open. The hand is held still."
    ) == 1

    again = open_page(teleoperator.url)  # it goes on from there, not from where it had pointed
    with again.socket:
        again.read_until(lambda words: words["is_driver"])
        np.testing.assert_allclose(again.words["target"]["x"], here[0], atol=1e-6)
        drive(again, x=float(here[0]) + 0.1)
        assert teleoperator.act(observation)[0] == pytest.approx(here[0] + STRIDE_M, abs=1e-5)


def test_a_silent_page_drives_no_more(environment, teleoperator, page, clock: ManualClock):
    start(environment, teleoperator, page)
    drive(page, x=0.2, y=0.5)
    observation = environment.reset(0)
    clock.advance(1.5)
    np.testing.assert_allclose(
        teleoperator.act(observation)[:2], observation["state"][:2], atol=1e-6
    )
    page.read_until(lambda words: words["epoch"] == 2)
    drive(page, x=0.2, y=0.5)
    assert teleoperator.act(observation)[0] > observation["state"][0] + 0.005


def test_of_two_pages_the_first_drives(environment, teleoperator, page):
    start(environment, teleoperator, page)
    second = open_page(teleoperator.url)
    with second.socket:
        second.read_until(lambda words: words["is_taken"])
        assert "Another page drives" in second.words["watching"]
        second.drive(x=0.25)
        second.send("take")
        second.send("start")
        second.read()
        second.read()
        assert second.words["target"] == page.words["target"]
        assert not second.words["is_driver"]
        page.socket.close()
        second.read_until(lambda words: words["is_driver"])


def test_buttons_are_commands_when_they_are_offered(environment, teleoperator, page):
    page.read_until(lambda words: words["is_driver"])
    page.send("start")  # not offered: nothing is recorded
    page.read()
    page.read()  # came after what was "seen" before, which came after "start"
    observation = environment.reset(3)
    waiting = Status(phase="waiting", seed=3, num_kept=5, observation=observation)
    teleoperator.tell(waiting)
    page.read_until(lambda words: words["phase"] == "waiting")
    assert page.words["kept"] == "5 kept"
    assert page.words["target"] is None
    assert "top" in page.pictures
    page.send("keep")
    page.send("start")
    _wait_for(lambda: teleoperator._screen._commands)
    assert teleoperator.poll() == Command(kind="start")
    assert teleoperator.poll() is None

    teleoperator.tell(Status(phase="recording", seed=3, num_kept=5, num_steps=12, trouble="late"))
    page.read_until(lambda words: words["phase"] == "recording")
    assert page.words["progress"] == "episode 3, step 12, 1.2 s, at most 0 ms late"
    assert page.words["trouble"] == "late"
    page.send("label", text="clumsy")
    page.send("keep")
    _wait_for(lambda: len(teleoperator._screen._commands) == 2)
    assert teleoperator.poll() == Command(kind="label", text="clumsy")
    assert teleoperator.poll() == Command(kind="keep")

    teleoperator.tell(Status(phase="deciding", seed=3, num_kept=5, num_steps=12, success=True))
    page.read_until(lambda words: words["state"] == "over, goal reached: keep or drop?")


def test_lateness_is_of_the_last_second(environment, teleoperator, page, clock: ManualClock):
    observation = environment.reset(0)
    teleoperator.reset(0)
    for period_s in (0.1, 0.1, 0.13, 0.1):
        teleoperator.act(observation)
        clock.advance(period_s)
    teleoperator.act(observation)
    teleoperator.tell(Status(phase="recording", seed=0, num_kept=0, num_steps=5))
    page.read_until(lambda words: words["progress"].endswith("at most 30 ms late"))


def test_speeds_must_be_positive(environment):
    with pytest.raises(ValueError, match="positive"):
        BrowserTeleoperator(environment, mapping=PlanarHand(**REACH), port=0, speed=0.0)


def _wait_for(what) -> None:
    deadline_s = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
