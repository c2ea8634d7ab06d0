"""A response that is received while the body is sent is returned, not lost behind a broken pipe."""

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


class Gated:
    """Single-use content that waits for the response after a number of chunks.

    Args:
        before: Number of chunks before the wait.
        after: Number of chunks after it. Pulling all of them is an error.
    """

    def __init__(self, before: int, after: int) -> None:
        self.answered = threading.Event()
        self._before = before
        self._after = after
        self.pulled = 0

    def __iter__(self) -> Any:
        for _ in range(self._before):
            self.pulled += 1
            yield CHUNK
        wait(self.answered)
        for _ in range(self._after):
            self.pulled += 1
            yield CHUNK
        raise AssertionError("the whole body was pulled although a response was received")

    def body(self, framing: str) -> Body:
        """Return a single-use body, ``sized`` or ``chunked``."""
        return Body.of(self, length=len(CHUNK) * (self._before + self._after) if framing == "sized" else None)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("before", [(CONTINUE,), ()], ids=["after 100", "unasked"])
@pytest.mark.parametrize("end", ["close", "notify", "reset", "read on"])
def test_early_response_during_body_is_returned(wire: Wire, framing: str, before: tuple[bytes, ...], end: str) -> None:
    given = Gated(3, 200)

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(*before)
        peer.read(len(CHUNK))
        peer.send(TOO_LARGE)
        if end == "reset":
            peer.reset()
        elif end != "read on":
            peer.close(notify=end == "notify")
        given.answered.set()

    server = wire.serve(script, respond(reply(200, b"next")))
    transport = wire.transport(expect_timeout=60 if before else 0)
    body = given.body(framing)
    response = transport.round_trip(put(server.url, body))
    assert (response.status, response.read()) == (413, b"too large, really")
    assert given.pulled < 100
    assert not body.resendable
    with pytest.raises(BodyConsumedError):
        body.open()
    assert read(transport.round_trip(get(server.url))) == (200, b"next")


@pytest.mark.parametrize("framing", FRAMINGS)
def test_early_response_with_100_is_returned(wire: Wire, framing: str) -> None:
    # In one TLS record with it, so that no socket says that there is more to read.
    given = Gated(1, 200)
    given.answered.set()

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(CONTINUE + reply(413, b"too large"))

    server = wire.serve(script)
    assert read(wire.transport().round_trip(put(server.url, given.body(framing)))) == (413, b"too large")
    assert given.pulled < 100


@pytest.mark.parametrize("framing", FRAMINGS)
def test_early_response_bytewise_during_body_is_returned(wire: Wire, framing: str) -> None:
    given = Gated(3, 200)

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(CONTINUE)
        peer.read(len(CHUNK))
        peer.send_bytewise(reply(102, b"", "X: y") + TOO_LARGE)
        given.answered.set()

    server = wire.serve(script)
    response = wire.transport().round_trip(put(server.url, given.body(framing)))
    assert read(response) == (413, b"too large, really")
    assert given.pulled < 100


@pytest.mark.parametrize("framing", FRAMINGS)
def test_early_response_of_server_that_stops_reading_is_returned(wire: Wire, framing: str) -> None:
    # The client finds it when a send has timed out, at the latest.
    given = Gated(0, 1000)
    given.answered.set()
    over = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(CONTINUE)
        peer.read(len(CHUNK))
        peer.send(TOO_LARGE)
        wait(over)

    server = wire.serve(script)
    try:
        response = wire.transport(timeout=0.2).round_trip(put(server.url, given.body(framing)))
        assert read(response) == (413, b"too large, really")
    finally:
        over.set()
    assert given.pulled < 1000


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
    # The request went out whole, so the connection is as good as any.
    answered = threading.Event()
    send = http.client.HTTPConnection.send

    def send_and_wait(connection: http.client.HTTPConnection, data: Any) -> None:
        send(connection, data)
        if bytes(data).endswith((b"the very end", b"0\r\n\r\n")):
            wait(answered)

    def script(peer: Peer) -> None:
        respond_after_body(CONTINUE, response=reply(201, b"done"))(peer)
        answered.set()
        respond(reply(200, b"next"))(peer)

    monkeypatch.setattr(http.client.HTTPConnection, "send", send_and_wait)
    server = wire.serve(script)
    transport = wire.transport()
    given = Content(b"the beginning", b"the very end")
    assert read(transport.round_trip(put(server.url, given.body(framing)))) == (201, b"done")
    assert read(transport.round_trip(get(server.url))) == (200, b"next")
