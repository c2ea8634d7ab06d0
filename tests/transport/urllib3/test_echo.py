"""Secrets that a server repeats in invalid responses are masked in errors and logs."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from urllib.parse import quote

import pytest

from ociwire import LogTransport, Request, RequestInfo, RetryTransport, Transport, error_from_response
from ociwire.errors import OciwireError, TransportError
from tests._support.leaks import ENCODINGS, assert_no_leak, assert_no_leak_in_records
from tests.transport.urllib3.conftest import Wire
from tests.transport.urllib3.scripted_server import Peer, get, respond_early

TOKEN, COOKIE, SIGNATURE = "t0k3n+of/the=registry", "session-c00kie", "0123456789abcdef+/"
PASSWORD = "pr0xy+pass/w=rd"
PAIR = b64encode(f"me:{PASSWORD}".encode()).decode()
pytestmark = pytest.mark.parametrize("kind", ["http"])
SECRETS = (TOKEN, COOKIE, SIGNATURE)
QUERY = f"X-Amz-Signature={quote(SIGNATURE, safe='')}&n=1"

POSITIONS: dict[str, Callable[[str], bytes]] = {
    "instead of a head": lambda secret: f"{secret}\r\n\r\n".encode(),
    "status line": lambda secret: f"HTTP/1.1 {secret}\r\n\r\n".encode(),
    "version": lambda secret: f"HTTP/{secret} 200 OK\r\n\r\n".encode(),
    "reason": lambda secret: f"HTTP/1.1 403 {secret}\r\nContent-Length: 0\r\n\r\n".encode(),
    "reason and body": lambda secret: (
        f"HTTP/1.1 403 {secret}\r\nContent-Length: {len(secret)}\r\n\r\n{secret}".encode()
    ),
    "field name": lambda secret: f"HTTP/1.1 200 OK\r\n{secret}: x\r\n\r\n".encode(),
    "field without a colon": lambda secret: f"HTTP/1.1 200 OK\r\n{secret}\r\n\r\n".encode(),
    "field cut off": lambda secret: f"HTTP/1.1 200 OK\r\n{secret}".encode(),
    "Content-Length": lambda secret: f"HTTP/1.1 200 OK\r\nContent-Length: {secret}\r\n\r\n".encode(),
    "Transfer-Encoding": lambda secret: f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {secret}\r\n\r\n".encode(),
    "chunk size": lambda secret: f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{secret}\r\n".encode(),
    "end of chunk": lambda secret: f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na{secret}\r\n".encode(),
    "chunk size without an end": lambda secret: (
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{secret * 200}".encode()
    ),
    "body cut off": lambda secret: f"HTTP/1.1 403 No\r\nContent-Length: 99999\r\n\r\n{secret}".encode(),
    "interim": lambda secret: f"HTTP/1.1 101 {secret}\r\n\r\n".encode(),
}


def send_raw(data: bytes) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(data)
        peer.close()

    return script


def get_error(transport: Transport, request: Request) -> OciwireError:
    """Return the error of the transport or of the body, or the error for the response."""
    try:
        with transport.round_trip(request) as response:
            body = response.read()
            return error_from_response(response.replace(body=body))
    except OciwireError as error:
        return error


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("position", POSITIONS)
def test_error_text_secret_of_request_is_masked(
    wire: Wire, position: str, encoding: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    secret = ENCODINGS[encoding](" ".join(SECRETS))
    server = wire.serve(send_raw(POSITIONS[position](secret)))
    headers = {"Authorization": f"Bearer {TOKEN}", "Cookie": f"id={COOKIE}"}
    request = Request("GET", f"{server.url}/blob?{QUERY}", headers, info=RequestInfo(anonymous=True))
    transport = RetryTransport(LogTransport(wire.transport(timeout=2)), retry=False)
    assert_no_leak(get_error(transport, request), (*SECRETS, QUERY))
    assert_no_leak_in_records(caplog.records, (*SECRETS, QUERY))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("position", ["instead of a head", "status line", "version", "reason", "field cut off"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxy_error_text_repeated_credentials_are_masked(
    wire: Wire, scheme: str, position: str, encoding: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    secret = ENCODINGS[encoding](f"{PASSWORD} {PAIR}")
    proxy = wire.serve(send_raw(POSITIONS[position](secret)), kind="http")
    userinfo = f"me:{quote(PASSWORD, safe='')}"
    transport = LogTransport(wire.transport(proxy=proxy.url.replace("://", f"://{userinfo}@")))
    assert_no_leak(get_error(transport, get(f"{scheme}://registry.test/v2/")), (PASSWORD, PAIR))
    assert_no_leak_in_records(caplog.records, (PASSWORD, PAIR))


def test_proxy_407_page_repeated_password_is_masked(wire: Wire) -> None:
    body = f"{PASSWORD} {PAIR}"
    head = f"HTTP/1.1 407 No\r\nX-Said: {PAIR}\r\nContent-Length: {len(body)}\r\n\r\n"
    proxy = wire.serve(respond_early((head + body).encode()), kind="http")
    userinfo = f"me:{quote(PASSWORD, safe='')}"
    transport = wire.transport(proxy=proxy.url.replace("://", f"://{userinfo}@"))
    with transport.round_trip(get("http://registry.test/v2/")) as response:
        error = error_from_response(response)
    assert error.status == 407
    assert_no_leak(error, (PASSWORD, PAIR))


def test_proxy_error_text_without_secret_is_kept_and_chained(wire: Wire) -> None:
    proxy = wire.serve(respond_early(b"HTTP/1.1 407 Log in first\r\nContent-Length: 0\r\n\r\n"), kind="http")
    with pytest.raises(TransportError, match="407 Log in first") as raised:
        wire.transport(proxy=proxy.url).round_trip(get("https://registry.test/v2/"))
    assert raised.value.__cause__ is not None
