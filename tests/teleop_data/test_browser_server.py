"""The page's server over real sockets, without a browser: whom it serves and whom it refuses."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from sim.tasks.pick_place import pick_place_environment
from teleop_data.teleoperators.browser import BrowserTeleoperator
from teleop_data.teleoperators.hand_target import PlanarHand
from tests.teleop_data.browser_client import PageClient, open_page

REACH = {"low": (-0.26, 0.10), "high": (0.26, 0.56)}


@pytest.fixture
def environment():
    return pick_place_environment()


@pytest.fixture
def teleoperator(environment) -> Iterator[BrowserTeleoperator]:
    teleoperator = BrowserTeleoperator(
        environment, mapping=PlanarHand(**REACH), port=0, labels=("good",)
    )
    yield teleoperator
    teleoperator.close()


@pytest.fixture
def page(teleoperator: BrowserTeleoperator) -> Iterator[PageClient]:
    page = open_page(teleoperator.url)
    with page.socket:
        yield page


@pytest.mark.parametrize(
    "message",
    [
        "{",
        "[1]",
        '{"kind": "drive", "epoch": 1, "target": {"x": 0}}',
        '{"kind": "drive", "epoch": null, "target": {"x":0,"y":0,"z":0,"yaw":0,"closure":0}}',
        '{"kind": "label", "text": "unheard of"}',
        '{"kind": "shutdown"}',
        "x" * 5000,
    ],
)
def test_what_no_page_of_ours_sends_ends_its_connection(teleoperator, page, message: str):
    page.socket.send(message)
    with pytest.raises(ConnectionClosed):
        page.read_until(lambda words: False)
    other = open_page(teleoperator.url)  # the server lives on
    with other.socket:
        assert other.read()["phase"] == "driving"


def request(url: str, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def test_the_page_is_served_to_who_has_the_token(teleoperator):
    parts = urlsplit(teleoperator.url)
    reply = request(teleoperator.url, f"/?{parts.query}")
    assert reply.status == 200
    assert reply.getheader("Content-Type") == "text/html; charset=utf-8"
    assert "frame-ancestors 'none'" in (reply.getheader("Content-Security-Policy") or "")
    assert b"page.js" in reply.read()
    for path, kind in (("/page.js", "text/javascript"), ("/style.css", "text/css")):
        assert (request(teleoperator.url, path).getheader("Content-Type") or "").startswith(kind)
    for path in ("/", "/?token=", "/?token=wrong"):
        reply = request(teleoperator.url, path)
        assert reply.status == 403
        assert b"wrong token" in reply.read()
    assert request(teleoperator.url, "/../browser.py").status == 404


def test_a_name_that_only_leads_here_is_refused(teleoperator):
    """DNS rebinding: another site's name that has this machine's address."""
    parts = urlsplit(teleoperator.url)
    reply = request(teleoperator.url, f"/?{parts.query}", Host=f"evil.example:{parts.port}")
    assert reply.status == 403
    assert (
        request(teleoperator.url, f"/?{parts.query}", Host=f"localhost:{parts.port}").status == 200
    )


def test_other_web_pages_and_strangers_cannot_drive(teleoperator):
    url = teleoperator.url
    port = urlsplit(url).port
    for origin in ("https://evil.example", f"http://evil.example:{port}", "null", None):
        with pytest.raises(InvalidStatus, match="403"):
            open_page(url, origin=origin)
    with pytest.raises(InvalidStatus, match="403"):
        open_page(url.replace("token=", "token=x"))


def test_other_machines_find_nothing(teleoperator):
    """127.0.0.2 is this machine as well, but not the address that is listened at."""
    port = urlsplit(teleoperator.url).port or 0
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=5)


def test_two_servers_do_not_share_a_port(environment, teleoperator):
    port = urlsplit(teleoperator.url).port
    with pytest.raises(OSError, match=f"port {port} of 127.0.0.1 cannot be had"):
        BrowserTeleoperator(environment, mapping=PlanarHand(**REACH), port=port or 0)


def test_close_frees_the_port(environment, teleoperator):
    port = urlsplit(teleoperator.url).port or 0
    teleoperator.close()
    BrowserTeleoperator(environment, mapping=PlanarHand(**REACH), port=port).close()
