"""The page in a real browser: every way to move the target, and who else cannot."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from teleop_data.environment import Observation
from teleop_data.operator import Command, Status
from teleop_data.schema import Feature, Schema
from teleop_data.teleoperators.browser import BrowserTeleoperator
from teleop_data.teleoperators.hand_target import ArmHand, HandTarget
from tests.deploy.chromium import MISSING, Chromium, find_chromium
from tests.teleop_data.page_person import SPACE, Person

pytestmark = pytest.mark.skipif(find_chromium() is None, reason=MISSING)

SHADE = (200, 40, 90)
MAPPING = ArmHand(low=(0.2, -0.4, 0.0), high=(0.8, 0.4, 0.5), max_opening=0.08)
START = HandTarget(x=0.5, y=0.1, z=0.25)


class StillArm:
    """An arm that stays where it is: a schema and an observation."""

    max_steps = 1
    schema = Schema(
        features=(
            Feature(name="front", shape=(48, 64, 3), dtype="uint8", role="camera"),
            Feature(name="grey", shape=(48, 64, 1), dtype="uint8", role="camera"),
            Feature(name="state", shape=(10,)),
            Feature(name="action", shape=(10,), role="action"),
        ),
        rate_hz=50.0,
    )

    def observe(self) -> Observation:
        return {
            "front": np.full((48, 64, 3), SHADE, np.uint8),
            "grey": np.full((48, 64, 1), 77, np.uint8),
            "state": MAPPING.action_of(START),
        }


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("browser") / "profile") as browser:
        yield browser


@pytest.fixture
def teleoperator() -> Iterator[BrowserTeleoperator]:
    environment: Any = StillArm()
    teleoperator = BrowserTeleoperator(
        environment, mapping=MAPPING, port=0, labels=("good",), speed=50, turn_rad_s=50
    )
    yield teleoperator
    teleoperator.close()


@pytest.fixture
def person(browser: Chromium, teleoperator: BrowserTeleoperator) -> Iterator[Person]:
    teleoperator.reset(0)
    teleoperator.act(StillArm().observe())
    browser.open(teleoperator.url)
    person = Person(browser)
    browser.wait_for(lambda: browser.evaluate("typeof target == 'object' && target != null"))
    yield person
    browser.open("about:blank")


def target_of(teleoperator: BrowserTeleoperator) -> HandTarget:
    """Where the loop would go now."""
    time.sleep(0.1)  # the page tells 30 times a second
    teleoperator.act(StillArm().observe())
    return MAPPING.target_of({"state": teleoperator.act(StillArm().observe())})


def test_a_drag_moves_the_target_as_seen_from_above(person: Person, teleoperator):
    person.drag_to(0.7, -0.2)
    target = target_of(teleoperator)
    assert target.x == pytest.approx(0.7, abs=0.003)  # a pixel is 2 mm
    assert target.y == pytest.approx(-0.2, abs=0.003)
    assert target.z == pytest.approx(START.z, abs=1e-6)
    (x0, y0), (x1, y1) = person._place('{"x": 0.5, "y": 0}'), person._place('{"x": 0.6, "y": 0.1}')
    assert (x1 < x0, y1 < y0) == (True, True)  # x is up, y is left


def test_a_drag_out_of_the_pad_ends_at_its_edge(person: Person, teleoperator):
    person.drag_to(2.0, 0.0)
    assert target_of(teleoperator).x == pytest.approx(0.8)


def test_the_wheel_raises(person: Person, teleoperator):
    person.raise_to(0.4)
    assert target_of(teleoperator).z == pytest.approx(0.4, abs=0.004)


@pytest.mark.parametrize(
    ("key", "code", "name", "sign"),
    [
        ("ArrowUp", "ArrowUp", "x", 1),
        ("ArrowLeft", "ArrowLeft", "y", 1),
        ("f", "KeyF", "z", -1),
        ("q", "KeyQ", "yaw", 1),
    ],
)
def test_keys_move_for_as_long_as_they_are_held(
    person: Person, teleoperator, key: str, code: str, name: str, sign: int
):
    before = target_of(teleoperator).to_json()
    person.press({"key": key, "code": code}, duration_s=0.25)
    after = target_of(teleoperator).to_json()
    changed = {n: after[n] - before[n] for n in after if abs(after[n] - before[n]) > 1e-4}
    assert set(changed) == {name}
    assert sign * changed[name] > 0
    assert target_of(teleoperator).to_json() == after  # and then it stays


def test_space_closes_and_opens(person: Person, teleoperator):
    person.press(SPACE)
    assert target_of(teleoperator).closure == pytest.approx(1.0)
    person.click("Open gripper")
    assert target_of(teleoperator).closure == pytest.approx(0.0, abs=1e-6)


def test_space_does_not_press_the_button_that_was_clicked_last(person: Person, teleoperator):
    person.click("Close gripper")
    person.press(SPACE)
    assert target_of(teleoperator).closure == pytest.approx(0.0, abs=1e-6)


def test_a_gamepad_moves_and_closes(person: Person, teleoperator):
    def hold(axes: list[float], pressed: list[int]) -> None:
        buttons = [{"pressed": number in pressed} for number in range(12)]
        pad = json.dumps({"mapping": "standard", "axes": axes, "buttons": buttons})
        person.browser.evaluate(f"navigator.getGamepads = () => [null, {pad}]")
        time.sleep(0.3)

    hold([0.0, -1.0, 0.0, 0.1], [0])  # left stick up, A; the other stick within its dead zone
    hold([0.0, 0.0, 0.0, 0.0], [])
    target = target_of(teleoperator)
    assert target.x > START.x + 0.03
    assert target.z == pytest.approx(START.z, abs=1e-6)
    assert target.closure == pytest.approx(1.0)
    assert "Gamepad" in person.browser.text


def test_pictures_are_shown(person: Person, tmp_path: Path):
    person.browser.wait_for(lambda: person.picture("grey").any())
    assert np.abs(person.picture("front").astype(int) - SHADE).max() <= 6
    assert np.abs(person.picture("grey").astype(int) - 77).max() <= 6
    person.browser.screenshot(tmp_path / "page.png")


def test_buttons_and_keys_of_the_operator(person: Person, teleoperator):
    def told(phase: Any) -> None:
        teleoperator.tell(Status(phase=phase, seed=1, num_kept=2, trouble="a camera is late"))
        person.wait_for(lambda shown: shown["phase"] == phase)

    def command() -> Command:
        found = person.browser.wait_for(teleoperator.poll, timeout_s=5)
        assert teleoperator.poll() is None
        return found

    told("waiting")
    assert "2 kept" in person.browser.text
    assert "a camera is late" in person.browser.text
    person.click("Drop")  # not to be pressed now
    person.click("Start")
    assert command() == Command(kind="start")
    told("recording")
    person.click("good")
    assert command() == Command(kind="label", text="good")
    person.press({"key": "Enter", "code": "Enter", "text": "\r"})
    assert command() == Command(kind="keep")
    person.press({"key": "Backspace", "code": "Backspace"})
    assert command() == Command(kind="drop")
    told("deciding")
    assert person.look()["ring"] is None  # nothing is driven
    person.click("Stop")
    assert command() == Command(kind="stop")


def test_a_closed_page_holds_and_a_reopened_one_goes_on(person: Person, teleoperator):
    person.drag_to(0.7, -0.2)
    target_of(teleoperator)
    person.browser.open("about:blank")
    person.browser.wait_for(lambda: teleoperator._seat.view().presence == "empty")
    held = target_of(teleoperator)
    assert held.x == pytest.approx(START.x, abs=1e-6)
    person.browser.open(teleoperator.url)
    person.browser.wait_for(lambda: "driving" in person.browser.text)
    person.wait_for(lambda shown: shown["ring"])
    assert person.look()["ring"]["x"] == pytest.approx(START.x, abs=1e-6)


def test_the_page_asks_this_machine_only(person: Person, teleoperator):
    asked = [address for address in person.browser.requests if address != "about:blank"]
    assert any(address.startswith("ws://") for address in asked)
    for address in asked:
        parts = urlsplit(address)
        assert parts.scheme == "data" or parts.hostname == "127.0.0.1", address


def test_another_web_page_cannot_drive_even_with_the_token(browser: Chromium, teleoperator):
    parts = urlsplit(teleoperator.url)
    script = (
        "<script>window.heard = 'nothing yet';"
        f"const s = new WebSocket('ws://{parts.netloc}/socket?{parts.query}');"
        "s.onopen = () => { window.heard = 'open'; };"
        "s.onerror = () => { window.heard = 'refused'; };</script>"
    )

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(script.encode())

        def log_message(self, format: str, *args: Any) -> None: ...

    elsewhere = HTTPServer(("127.0.0.1", 0), Elsewhere)
    thread = threading.Thread(target=elsewhere.serve_forever)
    thread.start()
    try:
        browser.open(f"http://127.0.0.1:{elsewhere.server_port}/")
        browser.wait_for(lambda: browser.evaluate("window.heard") not in (None, "nothing yet"))
        assert browser.evaluate("window.heard") == "refused"
        assert teleoperator._seat.view().presence == "empty"
    finally:
        elsewhere.shutdown()
        thread.join()
        elsewhere.server_close()
        browser.open("about:blank")
