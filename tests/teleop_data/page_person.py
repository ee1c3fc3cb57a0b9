"""A person at the page: looks at what it shows, and moves a real mouse and real keys over it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.deploy.chromium import Chromium

SPACE = {"key": " ", "code": "Space", "text": " "}


class Person:
    """Drives by mouse and keys alone; whatever it knows stands on the page."""

    def __init__(self, browser: Chromium) -> None:
        self.browser = browser

    # what is seen

    def look(self) -> dict[str, Any]:
        """The page's words, and the `ring`, which is where the target is drawn."""
        shown = "JSON.stringify({...words, ring: target, state: $('state').innerText})"
        return json.loads(self.browser.evaluate(shown))

    def wait_for(
        self, is_so: Callable[[dict[str, Any]], object], *, timeout_s: float = 60.0
    ) -> dict[str, Any]:
        """What the page shows once `is_so` is true of it."""
        deadline_s = time.monotonic() + timeout_s
        while not is_so(shown := self.look()):
            assert time.monotonic() < deadline_s, f"waited in vain: {shown}"
            time.sleep(0.05)
        return shown

    def picture(self, camera: str) -> np.ndarray:
        """(H, W, 3) uint8 as the page draws it."""
        canvas = f"$('camera-{camera}')"
        values = self.browser.evaluate(
            f"JSON.stringify([{canvas}.height, {canvas}.width, ...{canvas}.getContext('2d')"
            f".getImageData(0, 0, {canvas}.width, {canvas}.height).data])"
        )
        height, width, *pixels = json.loads(values)
        return np.array(pixels, np.uint8).reshape(height, width, 4)[..., :3]

    # what is done

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        held = {"button": "left", "buttons": 1, "clickCount": 1}
        self.browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **{**held, **more})

    def click(self, label: str) -> None:
        """Click the button of that label, in its middle."""
        find = f"[...document.querySelectorAll('button')].find(b => b.innerText == '{label}')"
        box = json.loads(self.browser.evaluate(f"JSON.stringify({find}.getBoundingClientRect())"))
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.mouse("mousePressed", x, y)
        self.mouse("mouseReleased", x, y)

    def press(self, key: dict[str, str], *, duration_s: float = 0.0) -> None:
        """Hold a key down for so long."""
        self.browser.call("Input.dispatchKeyEvent", type="keyDown", **key)
        time.sleep(duration_s)
        self.browser.call("Input.dispatchKeyEvent", type="keyUp", **key)

    def drag_to(self, x: float, y: float, *, num_moves: int = 6) -> None:
        """Take the ring and pull it to (x, y) of the environment."""
        (x0, y0), (x1, y1) = self._place("target"), self._place(json.dumps({"x": x, "y": y}))
        self.mouse("mousePressed", x0, y0)
        for part in np.linspace(0, 1, num_moves + 1)[1:]:
            self.mouse("mouseMoved", x0 + part * (x1 - x0), y0 + part * (y1 - y0))
        self.mouse("mouseReleased", x1, y1)

    def _place(self, where: str) -> tuple[float, float]:
        """Of something on the pad, in the window."""
        script = (
            f"(() => {{ const box = $('pad').getBoundingClientRect(), [x, y] = padPoint({where});"
            " return JSON.stringify([box.x + $('pad').clientLeft + x,"
            " box.y + $('pad').clientTop + y]); })()"
        )
        x, y = json.loads(self.browser.evaluate(script))
        return x, y

    def raise_to(self, z: float) -> None:
        """Turn the wheel over the pad until the target is at z."""
        shown = self.look()
        share = self.browser.evaluate("WHEEL_SHARE * (reach.high.z - reach.low.z)")
        x, y = self._place("target")
        turn = -(z - shown["ring"]["z"]) / share
        more = {"deltaX": 0, "deltaY": turn, "button": "none", "buttons": 0}
        self.mouse("mouseWheel", x, y, **more)
        self.wait_for(lambda shown: abs(shown["ring"]["z"] - z) < 0.004)

    def turn_to(self, yaw: float) -> None:
        """Hold Q or E until the target is turned so far."""
        way = yaw - self.look()["ring"]["yaw"]
        rate = self.browser.evaluate("(reach.high.yaw - reach.low.yaw) / SECONDS_ACROSS")
        key = "q" if way > 0 else "e"
        self.press(
            {"key": key, "code": f"Key{key.upper()}", "text": key}, duration_s=abs(way) / rate
        )

    def wait_until_there(self, *, tolerance: float, timeout_s: float = 8.0) -> bool:
        """Whether the dot has come to the ring; False if the episode is over before."""

        def is_there(shown: dict[str, Any]) -> bool:
            if shown["phase"] != "recording":
                return True
            way = [shown["hand"][name] - shown["ring"][name] for name in ("x", "y", "z")]
            return float(np.linalg.norm(way)) < tolerance

        return self.wait_for(is_there, timeout_s=timeout_s)["phase"] == "recording"
