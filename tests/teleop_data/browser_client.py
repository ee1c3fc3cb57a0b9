"""What the page does, without a browser: a socket to a BrowserTeleoperator."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from websockets.sync.client import ClientConnection, connect


@dataclass
class PageClient:
    """One page. `words` are the newest, `pictures` the newest of each camera."""

    socket: ClientConnection
    words: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)

    def read(self) -> dict[str, Any]:
        """The next update, pictures and all; it is acknowledged."""
        message: dict[str, Any] = {}
        while message.get("kind") != "update":
            message = json.loads(self.socket.recv(timeout=10))
        self.words = message
        for name in message["pictures"]:
            picture = self.socket.recv(timeout=10)
            assert isinstance(picture, bytes)
            self.pictures[name] = picture
        self.send("seen")
        return message

    def read_until(self, is_so: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """The first update of which `is_so` is true."""
        for _ in range(50):
            if is_so(self.read()):
                return self.words
        raise AssertionError(f"never came; the last one was {self.words}")

    def send(self, kind: str, **more: Any) -> None:
        self.socket.send(json.dumps({"kind": kind, **more}))

    def drive(self, **entries: float) -> None:
        """Point to where the last update's target is but for `entries`."""
        target = {**self.words["target"], **entries}
        self.send("drive", epoch=self.words["epoch"], target=target)


def open_page(url: str, **options: Any) -> PageClient:
    """A page of the server at `url`, as its own browser would connect."""
    parts = urlsplit(url)
    options = {"origin": f"{parts.scheme}://{parts.netloc}", **options}
    return PageClient(connect(f"ws://{parts.netloc}/socket?{parts.query}", **options))
