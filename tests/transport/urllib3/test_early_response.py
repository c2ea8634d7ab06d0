"""A response that is received while the body is sent is returned instead of a broken pipe."""

from __future__ import annotations

import http.client
import threading
from typing import Any

import pytest

from ociwire._http.messages import Body
from ociwire.errors import BodyConsumedError
from tests.transport.urllib3.conftest import Wire
from tests.transport.urllib3.scripted_server import (
    CONTINUE,
    Content,
    Peer,
    get,
    put,
    read,
    reply,
    respond,
    respond_after_body,
    wait,
)

FRAMINGS = ("sized", "chunked")
CHUNK = b"c" * 65536
TOO_LARGE = reply(413, b"too large, really", "Connection: close")


class PausedContent:
    """Single-use content that waits for the response after a number of chunks.

    Args:
        before: Number of chunks before the wait.
        after: Number of chunks after it. Reading all of them is an error.
    """

    def __init__(self, before: int, after: int) -> None:
        self.response_sent = threading.Event()
        self._before = before
        self._after = after
        self.chunks_read = 0

    def __iter__(self) -> Any:
        for _ in range(self._before):
            self.chunks_read += 1
            yield CHUNK
        wait(self.response_sent)
        for _ in range(self._after):
            self.chunks_read += 1
            yield CHUNK
        raise AssertionError("the whole body was read although a response was received")

    def body(self, framing: str) -> Body:
        """Return a single-use body, ``sized`` or ``chunked``."""
        return Body.of(self, length=len(CHUNK) * (self._before + self._after) if framing == "sized" else None)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("before", [(CONTINUE,), ()], ids=["after 100", "without 100"])
@pytest.mark.parametrize("ending", ["close", "notify", "reset", "keep open"])
def test_early_response_during_body_is_returned(
    wire: Wire, framing: str, before: tuple[bytes, ...], ending: str
) -> None:
    content = PausedContent(3, 200)

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(*before)
        peer.read(len(CHUNK))
        peer.send(TOO_LARGE)
        if ending == "reset":
            peer.reset()
        elif ending != "keep open":
            peer.close(notify=ending == "notify")
        content.response_sent.set()

    server = wire.serve(script, respond(reply(200, b"next")))
    transport = wire.transport(expect_timeout=60 if before else 0)
    body = content.body(framing)
    response = transport.round_trip(put(server.url, body))
    assert (response.status, response.read()) == (413, b"too large, really")
    assert content.chunks_read < 100
    assert not body.resendable
    with pytest.raises(BodyConsumedError):
        body.open()
    assert read(transport.round_trip(get(server.url))) == (200, b"next")


@pytest.mark.parametrize("framing", FRAMINGS)
def test_early_response_with_100_is_returned(wire: Wire, framing: str) -> None:
    # Both are in one TLS record, so that the socket is not readable for the second one.
    content = PausedContent(1, 200)
    content.response_sent.set()

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(CONTINUE + reply(413, b"too large"))

    server = wire.serve(script)
    assert read(wire.transport().round_trip(put(server.url, content.body(framing)))) == (413, b"too large")
    assert content.chunks_read < 100


@pytest.mark.parametrize("framing", FRAMINGS)
def test_early_response_bytewise_during_body_is_returned(wire: Wire, framing: str) -> None:
    content = PausedContent(3, 200)

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(CONTINUE)
        peer.read(len(CHUNK))
        peer.send_bytewise(reply(102, b"", "X: y") + TOO_LARGE)
        content.response_sent.set()

    server = wire.serve(script)
    response = wire.transport().round_trip(put(server.url, content.body(framing)))
    assert read(response) == (413, b"too large, really")
    assert content.chunks_read < 100


@pytest.mark.parametrize("framing", FRAMINGS)
def test_early_response_of_server_that_stops_reading_is_returned(wire: Wire, framing: str) -> None:
    # The client looks for a response when a send has timed out, at the latest.
    content = PausedContent(0, 1000)
    content.response_sent.set()
    response_read = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(CONTINUE)
        peer.read(len(CHUNK))
        peer.send(TOO_LARGE)
        wait(response_read)

    server = wire.serve(script)
    try:
        response = wire.transport(timeout=0.2).round_trip(put(server.url, content.body(framing)))
        assert read(response) == (413, b"too large, really")
    finally:
        response_read.set()
    assert content.chunks_read < 1000


@pytest.mark.parametrize("body", [b"abc", b"x" * 3_000_000], ids=["small", "large"])
def test_early_response_resendable_body_is_sent_again(wire: Wire, body: bytes) -> None:
    server = wire.serve(
        lambda peer: (peer.read_head(), peer.send(reply(401, b"log in", "Connection: close"))),
        respond(reply(201)),
    )
    transport = wire.transport(expect_timeout=0)
    assert read(transport.round_trip(put(server.url, body))) == (401, b"log in")
    assert read(transport.round_trip(put(server.url, body))) == (201, b"")
    assert server.peer(1).bodies == [body]


@pytest.mark.parametrize("framing", FRAMINGS)
def test_response_just_after_last_byte_keeps_connection(
    wire: Wire, framing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The request was sent completely, so that the connection can be reused.
    response_sent = threading.Event()
    send = http.client.HTTPConnection.send

    def send_and_wait(connection: http.client.HTTPConnection, data: Any) -> None:
        send(connection, data)
        if bytes(data).endswith((b"the very end", b"0\r\n\r\n")):
            wait(response_sent)

    def script(peer: Peer) -> None:
        respond_after_body(CONTINUE, response=reply(201, b"done"))(peer)
        response_sent.set()
        respond(reply(200, b"next"))(peer)

    monkeypatch.setattr(http.client.HTTPConnection, "send", send_and_wait)
    server = wire.serve(script)
    transport = wire.transport()
    content = Content(b"the beginning", b"the very end")
    assert read(transport.round_trip(put(server.url, content.body(framing)))) == (201, b"done")
    assert read(transport.round_trip(get(server.url))) == (200, b"next")
