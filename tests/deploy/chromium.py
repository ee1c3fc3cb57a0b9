"""A headless Chromium for tests, driven through its DevTools protocol. Nothing but 127.0.0.1 exists
for it."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from websockets.sync.client import connect

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
MISSING = (
    "no Chromium found; apt-get install -y --no-install-recommends chromium-headless-shell "
    f"(any of {', '.join(NAMES)} will do)"
)
WIDTH, HEIGHT = 1280, 800
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",
    "--remote-debugging-port=0",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    f"--window-size={WIDTH},{HEIGHT}",
)


def find_chromium() -> str | None:
    """Path of a Chromium, None if there is none."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Chromium:
    """One tab. `requests` are the addresses that the page has asked for, sockets included."""

    def __init__(self, profile: Path) -> None:
        program = find_chromium()
        assert program is not None, MISSING
        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # what it starts ends with it
        )
        assert self._process.stderr is not None
        line = next(line for line in self._process.stderr if "DevTools listening on" in line)
        devtools = line.split("ws://")[1].split("/")[0]
        with urllib.request.urlopen(f"http://{devtools}/json/list") as reply:
            page = next(tab for tab in json.load(reply) if tab["type"] == "page")
        self._socket = connect(page["webSocketDebuggerUrl"], max_size=None)
        self._num_calls = 0
        self.requests: list[str] = []
        for domain in ("Network", "Page", "Runtime"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._socket.close()
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The protocol's answer to `method`."""
        self._num_calls += 1
        number = self._num_calls
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            self._note(message)
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif message.get("method") == "Network.webSocketCreated":
            self.requests.append(parameters["url"])

    def open(self, url: str) -> None:
        """Go to a page."""
        self.call("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """The value of a piece of JavaScript."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    @property
    def text(self) -> str:
        """All text of the page."""
        return self.evaluate("document.body?.innerText") or ""

    def press(self, label: str) -> None:
        """Press the button of that label."""
        find = f"[...document.querySelectorAll('button')].find(b => b.innerText == '{label}')"
        assert self.evaluate(f"{find} != null"), f"no button {label!r} in {self.text!r}"
        self.evaluate(f"{find}.click()")

    def screenshot(self, path: Path | None = None) -> np.ndarray:
        """(800, 1280, 3) uint8 of the page, written to `path` as well."""
        png = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        if path is not None:
            path.write_bytes(png)
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))

    def wait_for(self, what: Callable[[], Any], *, timeout_s: float = 90.0) -> Any:
        """What `what` gives once it is true; AssertionError if it never is."""
        deadline_s = time.monotonic() + timeout_s
        while not (found := what()):
            assert time.monotonic() < deadline_s, f"waited in vain; the page says {self.text!r}"
            time.sleep(0.2)
        return found
