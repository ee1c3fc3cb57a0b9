"""A page of this machine: serves its three files, and a socket for each browser that shows it.

    loop thread --wake--> server thread --update, pictures--> page      one update under way a page:
                                        <--message, seen ----           a slow page skips, none lag

Who has neither the token nor a page of this very server is refused, so no other web page and no
other user of this machine can drive. Nothing here waits for a browser but the server's own thread.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib.resources import files
from itertools import count
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

HOST = "127.0.0.1"
PAGE_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
}
SOCKET_PATH = "/socket"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src blob: data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # or the token would travel with it
    "X-Content-Type-Options": "nosniff",
}
MAX_MESSAGE_BYTES = 4096  # of a page
REST_S = 0.2  # an update at least this often, so that words change while nothing is observed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Update:
    """What a page is shown.

    Attributes:
        words: JSON-ready.
        pictures: JPEG by camera; only those that are newer than `number` said.
        number: of the pictures.
    """

    words: Mapping[str, Any]
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    number: int = 0


class PageContent(Protocol):
    """What a server asks, all from its own thread. None of these may wait."""

    def greeting(self) -> Mapping[str, Any]:
        """JSON-ready: what a page must know once."""
        ...

    def update(self, page: int, *, shown: int) -> Update:
        """The newest words, and the pictures if they are newer than those numbered `shown`."""
        ...

    def hear(self, page: int, message: Mapping[str, Any]) -> None:
        """A page's message. ValueError ends its connection."""
        ...

    def gone(self, page: int) -> None:
        """A page has gone."""
        ...


class PageServer:
    """Serves until `close`.

    Attributes:
        url: of the page, with the token.
    """

    def __init__(self, content: PageContent, *, port: int) -> None:
        """Listen on `port` of this machine, 0 for any that is free. OSError if it is taken."""
        self._content, self._token = content, secrets.token_urlsafe(16)
        self._numbers = count(1)
        self._wakes: set[asyncio.Event] = set()  # touched by the server's thread only
        self._files = {
            path: ((files(__package__) / "browser_page" / name).read_bytes(), kind)
            for path, (name, kind) in PAGE_FILES.items()
        }
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._closing: asyncio.Event = asyncio.Event()
        failure: list[OSError] = []
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(port, ready, failure), name="browser page", daemon=True
        )
        self._thread.start()
        ready.wait()
        if failure:
            self._thread.join()
            raise OSError(
                f"port {port} of {HOST} cannot be had ({failure[0]}); give another, or 0 for any"
            )
        self.url = f"http://{HOST}:{self._port}/?token={self._token}"

    def wake(self) -> None:
        """Tell the pages that there is something new. From any thread, waits for nothing."""
        self._call(lambda: [event.set() for event in self._wakes])

    def close(self) -> None:
        """Take the page down and free the port."""
        self._call(self._closing.set)
        self._thread.join()

    def _call(self, what: Callable[[], Any]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what)

    def _run(self, port: int, ready: threading.Event, failure: list[OSError]) -> None:
        try:
            self._loop.run_until_complete(self._serve(port, ready))
        except OSError as error:
            failure.append(error)
        finally:
            self._loop.close()
            ready.set()

    async def _serve(self, port: int, ready: threading.Event) -> None:
        quiet = logging.getLogger(f"{__name__}.socket")
        quiet.setLevel(logging.ERROR)  # else a line a browser
        async with serve(
            self._attend,
            HOST,
            port,
            process_request=self._answer,
            compression=None,  # JPEG does not shrink
            max_size=MAX_MESSAGE_BYTES,
            max_queue=16,
            open_timeout=5.0,
            close_timeout=1.0,
            server_header=None,
            logger=quiet,
        ) as server:
            self._port = _port_of(server)
            ready.set()
            await self._closing.wait()

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """A file, a refusal, or None: go on to a socket."""
        parts = urlsplit(request.path)
        refusal = self._refusal(request.headers, path=parts.path, query=parts.query)
        if refusal is not None:
            status, reason = refusal
            return connection.respond(status, f"{reason}\n")
        if parts.path == SOCKET_PATH:
            return None
        body, kind = self._files[parts.path]
        headers = Headers(
            {
                **HEADERS,
                "Content-Type": kind,
                "Content-Length": str(len(body)),
                "Connection": "close",
            }
        )
        return Response(HTTPStatus.OK.value, HTTPStatus.OK.phrase, headers, body)

    def _refusal(self, headers: Headers, *, path: str, query: str) -> tuple[HTTPStatus, str] | None:
        """Why a request is refused, None if it is not.

        A name of another machine that leads here (DNS rebinding) shows in Host, another web page's
        script in Origin, which no script can change.
        """
        hosts = [f"{name}:{self._port}" for name in (HOST, "localhost")]
        if headers.get("Host") not in hosts:
            return HTTPStatus.FORBIDDEN, f"this page is at {hosts[0]} only"
        if path not in PAGE_FILES and path != SOCKET_PATH:
            return HTTPStatus.NOT_FOUND, f"no {path}"
        if path == SOCKET_PATH and headers.get("Origin") not in [f"http://{h}" for h in hosts]:
            return HTTPStatus.FORBIDDEN, "only this server's own page may drive"
        token = parse_qs(query).get("token", [""])[0]
        if path in ("/", SOCKET_PATH) and not hmac.compare_digest(
            token.encode(), self._token.encode()
        ):
            return HTTPStatus.FORBIDDEN, "wrong token; open the address that the program printed"
        return None

    async def _attend(self, connection: ServerConnection) -> None:
        """One page, until it goes."""
        page, wake, seen = next(self._numbers), asyncio.Event(), asyncio.Event()
        self._wakes.add(wake)
        sender = asyncio.create_task(self._send(connection, page, wake=wake, seen=seen))
        try:
            async for text in connection:
                message = _message_of(text)
                if message.get("kind") == "seen":
                    seen.set()
                else:
                    self._content.hear(page, message)
                    wake.set()
        except ConnectionClosed:
            pass
        except ValueError as error:
            logger.warning("page %d sent what no page of ours sends: %s", page, error)
            await connection.close(1008, "not understood")
        finally:
            self._wakes.discard(wake)
            self._content.gone(page)
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _send(
        self, connection: ServerConnection, page: int, *, wake: asyncio.Event, seen: asyncio.Event
    ) -> None:
        """Updates, each after the one before has been seen."""
        shown = 0
        try:
            await connection.send(json.dumps({"kind": "greeting", **self._content.greeting()}))
            while True:
                update = self._content.update(page, shown=shown)
                shown = update.number
                seen.clear()
                words = {"kind": "update", **update.words, "pictures": list(update.pictures)}
                await connection.send(json.dumps(words))
                for picture in update.pictures.values():
                    await connection.send(picture)
                await seen.wait()
                await _wait_at_most(wake, REST_S)
                wake.clear()
        except ConnectionClosed:
            return


def _message_of(text: str | bytes) -> Mapping[str, Any]:
    """A page's message as a dict. ValueError if it is none."""
    message = json.loads(text)
    if not isinstance(message, dict):
        raise ValueError(f"expected an object, got {text[:80]!r}")
    return message


def _port_of(server: Server) -> int:
    sockets: Sequence[Any] = list(server.sockets)
    return sockets[0].getsockname()[1]


async def _wait_at_most(event: asyncio.Event, duration_s: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), duration_s)
    except TimeoutError:
        return
