"""serve: plain and over TLS. Raw sockets are used where an HTTP client would hide a difference."""

from __future__ import annotations

import contextlib
import gc
import http.client
import io
import json
import logging
import os
import socket
import ssl
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from ociwire import Body, Client, Descriptor, Digest, FunctionTransport, Request, Response, Scope, default_transport
from ociwire.auth import Credential, StaticCredentials
from ociwire.errors import UsageError
from ociwire.testing import AuthGuard, FaultTransport, MemoryRegistry, serve
from ociwire.testing.server import ServerURL
from ociwire.transport import Transport, UrllibTransport
from tests._support.doubles import FakeReader

PATIENCE = 10.0
"""Timeout in seconds of waits that only fail if the server hangs."""
LOGGER = "ociwire.testing.serve"
Answer = Callable[[Request], Response]


# --- helpers ---


class Backend:
    """Transport that answers with a function's result or echoes the body, and records requests, bodies and exceptions.

    Attributes:
        entered: Set when `round_trip` is first called.
        done: Set when `round_trip` first ends.
    """

    def __init__(self, answer: Answer | None = None) -> None:
        self._answer = answer
        self.requests: list[Request] = []
        self.bodies: list[bytes] = []
        self.errors: list[BaseException] = []
        self.entered = threading.Event()
        self.done = threading.Event()
        self.closed = False

    def round_trip(self, request: Request, /) -> Response:
        self.requests.append(request)
        self.entered.set()
        try:
            return self._echo(request) if self._answer is None else self._answer(request)
        except BaseException as error:
            self.errors.append(error)
            raise
        finally:
            self.done.set()

    def _echo(self, request: Request) -> Response:
        self.bodies.append(b"" if request.body is None else b"".join(request.body.open()))
        return Response(200, {"X-Method": request.method}, self.bodies[-1])

    def close(self) -> None:
        self.closed = True


@dataclass
class Received:
    """A response as a client received it."""

    status: int
    fields: dict[str, str]
    body: bytes


class Truncated(Exception):
    """The connection was closed before the response was complete."""


class Peer:
    """Client on a raw socket that sends arbitrary bytes and parses responses strictly."""

    def __init__(self, url: ServerURL, context: ssl.SSLContext | None) -> None:
        host, _, port = url.host.partition(":")
        self.sock = socket.create_connection((host, int(port)), PATIENCE)
        if context is not None:
            self.sock = context.wrap_socket(self.sock, server_hostname=host)
        self._buffer = b""

    def send(self, data: bytes | str) -> None:
        self.sock.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def ask(self, target: str = "/", *fields: str, method: str = "GET", body: bytes = b"") -> None:
        head = [f"{method} {target} HTTP/1.1", "Host: registry.test", *fields]
        if body and not any(field.lower().startswith("content-length") for field in fields):
            head.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*head, "", ""]).encode() + body)

    def _more(self) -> None:
        try:
            data = self.sock.recv(65536)
        except TimeoutError:
            raise AssertionError(f"nothing comes any more after {self._buffer[-100:]!r}") from None
        except OSError:
            data = b""  # a reset, and each error of TLS, counts as the end of the connection
        if not data:
            raise Truncated(self._buffer)
        self._buffer += data

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._more()
        found, _, self._buffer = self._buffer.partition(mark)
        return found

    def take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def head(self) -> Received:
        first, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        pairs = [line.split(": ", 1) for line in lines]
        fields = {name.lower(): value for name, value in pairs}
        assert len(fields) == len(pairs), "a field came twice"
        return Received(int(status), fields, b"")

    def answer(self, method: str = "GET") -> Received:
        """Return the next response with its body. 100 (Continue) is a response, too."""
        response = self.head()
        if method == "HEAD" or response.status < 200 or response.status in (204, 304):
            return response
        if response.fields.get("transfer-encoding") == "chunked":
            assert "content-length" not in response.fields
            while size := int(self._until(b"\r\n"), 16):
                response.body += self.take(size)
                assert self.take(2) == b"\r\n"
            assert self.take(2) == b"\r\n"
        else:
            response.body = self.take(int(response.fields["content-length"]))
        return response

    def heard(self) -> bytes:
        """Return the data that has been received so far."""
        self.sock.setblocking(False)
        with contextlib.suppress(Truncated):
            self._more()
        self.sock.settimeout(PATIENCE)
        return self._buffer

    def assert_ended(self) -> None:
        """Check that the server has closed the connection and sent nothing else."""
        with pytest.raises(Truncated) as caught:
            self.take(1)
        assert caught.value.args[0] == b""

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self.sock.close()


class Site:
    """Starts servers with or without TLS, and clients that are closed after the test."""

    def __init__(self, kind: str, authority: Authority) -> None:
        self.kind = kind
        self.server_context = authority.server if kind == "https" else None
        self.context = authority.client if kind == "https" else None
        self.closing = ExitStack()

    def serve(self, transport: Transport) -> AbstractContextManager[ServerURL]:
        return serve(transport, tls=self.server_context)

    def dial(self, url: ServerURL) -> Peer:
        peer = Peer(url, self.context)
        self.closing.callback(peer.close)
        return peer

    def client(self, url: ServerURL) -> http.client.HTTPConnection:
        connection = (
            http.client.HTTPConnection(url.host, timeout=PATIENCE)
            if self.context is None
            else http.client.HTTPSConnection(url.host, timeout=PATIENCE, context=self.context)
        )
        self.closing.callback(connection.close)
        return connection

    def stack(self, **options: Any) -> Transport:
        transport = default_transport(
            tls=self.context, trust_env=False, timeout=PATIENCE, expect_timeout=PATIENCE, **options
        )
        self.closing.callback(transport.close)
        return transport


class Authority:
    """A CA that the server and the client trust."""

    def __init__(self, folder: Path) -> None:
        ca = trustme.CA()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certify = ca.issue_cert("127.0.0.1").configure_cert
        self.certify(self.server)
        ca.cert_pem.write_to_path(str(folder / "ca.pem"))
        self.client = ssl.create_default_context(cafile=str(folder / "ca.pem"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def open_sockets() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return {link for link in found if link.startswith("socket:")}


@pytest.fixture(scope="module")
def _exclude_earlier_garbage() -> Iterator[None]:
    """Exclude the objects of other tests from the garbage collections of this module, which would be slow."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def no_sockets_left(_exclude_earlier_garbage: None) -> Iterator[None]:
    """Fail if the test leaves a thread or a socket. A leaked socket raises its ResourceWarning as an error."""
    threads, sockets = set(threading.enumerate()), open_sockets()
    yield
    gc.collect()
    assert set(threading.enumerate()) <= threads
    assert open_sockets() <= sockets


@pytest.fixture(params=["http", "https"])
def site(request: pytest.FixtureRequest, authority: Authority, no_sockets_left: None) -> Iterator[Site]:
    site = Site(request.param, authority)
    with site.closing:
        yield site


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[logging.LogRecord]]:
    return lambda: [record for record in caplog.records if record.name == LOGGER]


def wait(event: threading.Event) -> None:
    assert event.wait(PATIENCE), "what was waited for never happened"


def answer_always(status: int, *args: Any) -> Answer:
    return lambda request: Response(status, *args)


def assert_exit_ends(block: AbstractContextManager[ServerURL]) -> None:
    """Leave the block. Fail if that hangs."""
    thread = threading.Thread(target=block.__exit__, args=(None, None, None), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "the server does not end"


# --- connections, and the end of responses on them


def test_connection_many_requests_are_answered(site: Site) -> None:
    backend = Backend()
    with site.serve(backend) as url:
        peer = site.dial(url)
        for number in range(5):
            peer.ask(f"/{number}", method="POST", body=b"x" * number)
            response = peer.answer()
            assert (response.status, response.body) == (200, b"x" * number)
            assert "connection" not in response.fields
    assert [request.url for request in backend.requests] == [f"{site.kind}://registry.test/{n}" for n in range(5)]


def test_connection_pipelined_requests_are_answered_in_order(site: Site) -> None:
    backend = Backend()
    request = "POST /{0} HTTP/1.1\r\nHost: r\r\n{1}\r\n\r\n{2}"
    with site.serve(backend) as url:
        peer = site.dial(url)
        peer.send(
            request.format(1, "Content-Length: 3", "one")
            + "HEAD /2 HTTP/1.1\r\nHost: r\r\n\r\n"
            + request.format(3, "Transfer-Encoding: chunked", "5\r\nthree\r\n0\r\n\r\n")
            + request.format(4, "Content-Length: 4", "four")
        )
        assert peer.answer().body == b"one"
        assert peer.answer("HEAD").fields["x-method"] == "HEAD"
        assert peer.answer().body == b"three"
        assert peer.answer().body == b"four"


def test_request_byte_by_byte_is_read(site: Site) -> None:
    with site.serve(Backend()) as url:
        peer = site.dial(url)
        for (
            byte
        ) in b"PUT / HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n":
            peer.send(bytes([byte]))
        assert peer.answer().body == b"abc"


def test_connection_close_requested_is_closed(site: Site) -> None:
    with site.serve(Backend()) as url:
        peer = site.dial(url)
        peer.ask("/", "Connection: close")
        assert peer.answer().fields["connection"] == "close"
        peer.assert_ended()


@pytest.mark.parametrize(
    ("answer", "length"),
    [
        (answer_always(200, (), b"hello"), "5"),
        (answer_always(200, {"Content-Length": "7340032"}), "7340032"),
        (answer_always(404, {"Content-Length": "0"}), "0"),
        (answer_always(200), None),
        (answer_always(200, (), [b"streamed"]), None),
    ],
    ids=["of the body", "as stated", "zero as stated", "unknown", "chunked"],
)
def test_response_to_head_has_length_and_no_body(site: Site, answer: Answer, length: str | None) -> None:
    with site.serve(Backend(answer)) as url:
        peer = site.dial(url)
        for _ in range(2):  # a body after the first head would be parsed as the second response
            peer.ask("/", method="HEAD")
            response = peer.answer("HEAD")
            assert response.fields.get("content-length") == length
            assert "transfer-encoding" not in response.fields


@pytest.mark.parametrize(("status", "stated"), [(204, None), (304, None), (304, "12")])
def test_response_204_or_304_has_no_body(site: Site, status: int, stated: str | None) -> None:
    """A response without a body may have a Content-Length (RFC 9110, section 8.6)."""
    fields = {"ETag": '"x"', **({"Content-Length": stated} if stated else {})}
    with site.serve(Backend(answer_always(status, fields))) as url:
        peer = site.dial(url)
        for _ in range(2):
            peer.ask()
            response = peer.answer()
            assert (response.status, response.fields["etag"]) == (status, '"x"')
            assert response.fields.get("content-length") == stated
            assert "transfer-encoding" not in response.fields


def test_response_201_without_body_has_length_0(site: Site) -> None:
    with site.serve(Backend(answer_always(201, {"Location": "/there"}))) as url:
        peer = site.dial(url)
        peer.ask(method="PUT")
        response = peer.answer()
        assert (response.fields["content-length"], response.fields["location"]) == ("0", "/there")


def test_response_body_of_unknown_length_is_chunked(site: Site) -> None:
    pieces = [b"a" * 100_000, b"b", b"c" * 70_000]
    with site.serve(Backend(lambda request: Response(200, (), iter(pieces)))) as url:
        peer = site.dial(url)
        for _ in range(2):
            peer.ask()
            response = peer.answer()
            assert response.fields["transfer-encoding"] == "chunked"
            assert response.body == b"".join(pieces)


def test_response_pieces_are_sent_as_they_come(site: Site) -> None:
    heads, first = threading.Event(), threading.Event()
    body = FakeReader([lambda: wait(heads), b"one", lambda: wait(first), b"two"])
    with site.serve(Backend(answer_always(200, {"Content-Length": "6"}, body))) as url:
        peer = site.dial(url)
        peer.ask()
        assert peer.head().status == 200
        heads.set()
        assert peer.take(3) == b"one"
        first.set()
        assert peer.take(3) == b"two"
    assert body.closes


def test_headers_repeated_fields_are_kept(site: Site) -> None:
    backend = Backend(lambda request: Response(200, [("X-One", "a"), ("Warning", "1"), ("Warning", "2")]))
    with site.serve(backend) as url:
        connection = site.client(url)
        connection.putrequest("GET", "/")
        connection.putheader("Accept", "a/a")
        connection.putheader("Accept", "b/b")
        connection.endheaders()
        response = connection.getresponse()
        assert response.headers.get_all("Warning") == ["1", "2"]
        response.read()
    assert backend.requests[0].headers.get_all("accept") == ("a/a", "b/b")


def test_headers_of_connection_are_hidden_from_transport(site: Site) -> None:
    backend = Backend(answer_always(200, {"Connection": "close", "Keep-Alive": "x", "X-End": "1"}))
    with site.serve(backend) as url:
        peer = site.dial(url)
        for _ in range(2):
            peer.ask("/", "Connection: keep-alive", "Expect: 100-continue", "X-End: 2", method="PUT", body=b"")
            assert set(peer.answer().fields) == {"x-end", "content-length"}
    assert list(backend.requests[0].headers) == ["X-End"]


# --- request bodies


def test_request_body_length_is_content_length(site: Site) -> None:
    backend = Backend()
    with site.serve(backend) as url:
        peer = site.dial(url)
        peer.ask(method="PUT", body=b"12345")
        peer.answer()
        peer.ask("/", "Content-Length: 0", method="PUT")
        peer.answer()
        peer.ask("/", "Transfer-Encoding: chunked", method="PUT")
        peer.send(b"0\r\n\r\n")
        peer.answer()
    bodies = [request.body for request in backend.requests]
    assert bodies[0] is not None and bodies[0].length == 5 and bodies[0].single_use  # noqa: PT018
    assert bodies[1] is None
    assert bodies[2] is not None and bodies[2].length is None  # noqa: PT018


@pytest.mark.parametrize(
    "chunks",
    [
        b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        b"00B\r\nhello world\r\n000\r\n\r\n",
        b'b;name=value;other="quoted; text"\r\nhello world\r\n0;last\r\n\r\n',
        b"B \r\nhello world\r\n0\r\nX-Trailer: 1\r\nX-Other: 2\r\n\r\n",
        b"5\nhello\n6\n world\n0\n\n",
    ],
    ids=["plain", "zeros", "extensions", "trailers", "bare line feeds"],
)
def test_request_chunks_extensions_and_trailers_are_dropped(site: Site, chunks: bytes) -> None:
    backend = Backend()
    with site.serve(backend) as url:
        peer = site.dial(url)
        for _ in range(2):
            peer.ask("/", "Transfer-Encoding: Chunked", method="POST")
            peer.send(chunks)
            assert peer.answer().body == b"hello world"
    assert not [name for request in backend.requests for name in request.headers if name.lower().startswith("x-")]


@pytest.mark.parametrize(
    "chunks",
    [
        b"xyz\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"0_5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello world\r\n0\r\n\r\n",
        b"5\r\nhello5\r\nworld\r\n0\r\n\r\n",
        b"5" * 40 + b"\r\nhello\r\n0\r\n\r\n",
        b"5;" + b"x" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
        b"0\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"\xff\r\n",
    ],
    ids=lambda chunks: repr(chunks[:12]),
)
def test_request_malformed_chunk_is_400_and_closes(
    site: Site, chunks: bytes, logged: Callable[[], list[Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    backend = Backend()
    with site.serve(backend) as url:
        peer = site.dial(url)
        peer.ask("/", "Transfer-Encoding: chunked", method="POST")
        peer.send(chunks)
        response = peer.answer()
        assert (response.status, response.fields["connection"]) == (400, "close")
        assert json.loads(response.body)["errors"]
        peer.assert_ended()
    assert len(backend.errors) == 1, "the transport must not take the part for the whole"
    assert len(backend.requests) == 1, "what follows a broken body is no request"
    assert logged() == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("retold", [RuntimeError("told otherwise"), None], ids=["as another error", "passed over"])
def test_request_broken_body_is_400_not_500(
    site: Site, retold: Exception | None, logged: Callable[[], list[Any]]
) -> None:
    def answer(request: Request) -> Response:
        assert request.body is not None
        try:
            b"".join(request.body.open())
        except Exception as error:  # as a custom layer might do
            if retold is not None:
                raise retold from error
        return Response(202)

    with site.serve(Backend(answer)) as url:
        peer = site.dial(url)
        peer.ask("/", "Transfer-Encoding: chunked", method="POST")
        peer.send(b"zzz\r\n")
        response = peer.answer()
        assert (response.status, response.fields["connection"]) == (202 if retold is None else 400, "close")
        peer.assert_ended()
    assert logged() == []


@pytest.mark.parametrize(
    "fields",
    [
        ["Content-Length: nine"],
        ["Content-Length: -1"],
        ["Content-Length: +5"],
        ["Content-Length: \xb2"],
        ["Content-Length: 5, 5"],
        ["Content-Length: " + "9" * 5000],
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: identity"],
    ],
    ids=lambda fields: " and ".join(fields)[:40],
)
def test_request_ambiguous_framing_is_400(site: Site, fields: list[str], logged: Callable[[], list[Any]]) -> None:
    """Ambiguous framing allows request smuggling (RFC 9112, section 6.3)."""
    backend = Backend()
    with site.serve(backend) as url:
        peer = site.dial(url)
        peer.send("\r\n".join(["POST / HTTP/1.1", "Host: r", *fields, "", "GET /smuggled HTTP/1.1", "Host: r", "", ""]))
        assert peer.answer().status == 400
        peer.assert_ended()
    assert backend.requests == []
    assert logged() == []


# --- Expect


def test_continue_is_sent_when_transport_reads_body(site: Site) -> None:
    entered, may_read = threading.Event(), threading.Event()

    def answer(request: Request) -> Response:
        assert request.body is not None
        body = request.body.open()
        entered.set()
        wait(may_read)
        return Response(201, (), b"".join(body))

    with site.serve(Backend(answer)) as url:
        peer = site.dial(url)
        peer.ask("/", "Expect: 100-continue", "Content-Length: 5", method="PUT")
        wait(entered)
        assert peer.heard() == b""
        may_read.set()
        assert peer.answer().status == 100
        peer.send(b"hello")
        response = peer.answer()
        assert (response.status, response.body) == (201, b"hello")
        peer.ask(method="HEAD")  # the connection can be reused
        may_read.set()


def test_continue_chunked_body_is_sent_once(site: Site) -> None:
    with site.serve(Backend()) as url:
        peer = site.dial(url)
        peer.ask("/", "expect: 100-Continue", "Transfer-Encoding: chunked", method="PUT")
        assert peer.answer().status == 100
        peer.send(b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n")
        assert peer.answer().body == b"ab"
        peer.ask(method="PUT", body=b"cd")
        assert peer.answer().body == b"cd"


def test_continue_http_1_0_or_no_body_is_not_sent(site: Site) -> None:
    """A server must ignore Expect of an HTTP/1.0 client (RFC 9110, section 10.1.1)."""
    with site.serve(Backend()) as url:
        peer = site.dial(url)
        peer.ask("/", "Expect: 100-continue", "Content-Length: 0", method="PUT")
        assert peer.answer().status == 200
        peer.send("PUT / HTTP/1.0\r\nHost: r\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi")
        assert peer.answer().body == b"hi"


def test_continue_refused_body_is_not_sent_and_connection_closes(site: Site) -> None:
    backend = Backend(answer_always(401, {"WWW-Authenticate": "Basic"}, b"who?"))
    with site.serve(backend) as url:
        peer = site.dial(url)
        peer.ask("/", "Expect: 100-continue", "Content-Length: 1000000", method="PUT")
        response = peer.answer()  # not 100 (Continue)
        assert (response.status, response.body, response.fields["connection"]) == (401, b"who?", "close")
        peer.assert_ended()
    (body,) = [request.body for request in backend.requests]
    assert body is not None
    assert body.resendable


def test_continue_after_response_began_is_not_sent(site: Site) -> None:
    """Transport that echoes the request body in its response."""

    def answer(request: Request) -> Response:
        assert request.body is not None
        return Response(200, {"Content-Length": "5"}, request.body.open())

    with site.serve(Backend(answer)) as url:
        peer = site.dial(url)
        peer.ask("/", "Expect: 100-continue", "Content-Length: 5", method="PUT")
        assert peer.head().status == 200
        peer.send(b"hello")
        assert peer.take(5) == b"hello"
        peer.assert_ended()


@pytest.mark.parametrize("scheme", ["bearer", "basic"])
@pytest.mark.parametrize("length", ["known", "chunked"])
def test_single_use_body_after_challenge_arrives_whole(
    site: Site, scheme: str, length: str, logged: Callable[[], list[Any]]
) -> None:
    pieces = [b"first", b"x" * 300_000, b"last"]
    data = b"".join(pieces)
    challenged: list[int] = []
    guards: list[AuthGuard] = []

    def content() -> Iterator[bytes]:
        challenged.append(guards[0].challenged)
        yield from pieces

    registry = MemoryRegistry()
    with site.serve(FunctionTransport(lambda request: guards[0].round_trip(request))) as url:
        guards.append(AuthGuard(registry, users={"me": "secret"}, scheme=scheme, realm=f"{url}/token"))
        me = StaticCredentials(url.host, Credential(username="me", password="secret"))
        client = Client(url.host, site.stack(credentials=me), insecure=site.kind == "http")
        body = Body.of(content(), length=len(data) if length == "known" else None)
        with client.do(
            Request("POST", f"/v2/a/b/blobs/uploads/?digest={Digest.of(data)}", (), body),
            scope=Scope.repository("a/b", "pull", "push"),
        ) as response:
            assert response.status == 201
        assert challenged == [1]
        assert client.get_blob("a/b", Digest.of(data)).read() == data
    assert logged() == []


# --- clients that disconnect


HALVES = {
    "sized": (["Content-Length: 1000"], b"only this"),
    "chunked": (["Transfer-Encoding: chunked"], b"400\r\nonly this"),
    "between chunks": (["Transfer-Encoding: chunked"], b"4\r\nonly\r\n"),
    "in a size": (["Transfer-Encoding: chunked"], b"4\r\nonly\r\n4"),
    "before the last line": (["Transfer-Encoding: chunked"], b"4\r\nonly\r\n0\r\n"),
    "before its body": (["Content-Length: 1000", "Expect: 100-continue"], b""),
}


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("way", ["closes", "resets"])
def test_client_disconnects_in_blob_body_stores_nothing(
    site: Site, way: str, half: str, logged: Callable[[], list[Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    registry = MemoryRegistry()
    backend = Backend(registry.round_trip)
    fields, data = HALVES[half]
    with site.serve(backend) as url:
        peer = site.dial(url)
        peer.ask(f"/v2/a/b/blobs/uploads/?digest={Digest.of(b'only')}", *fields, method="POST")
        if "Expect: 100-continue" in fields:
            assert peer.answer().status == 100
        peer.send(data)
        wait(backend.entered)  # otherwise the reset could overtake the data
        peer.close() if way == "closes" else peer.reset()
        wait(backend.done)
        peer = site.dial(url)  # other clients are still served
        peer.ask("/v2/")
        assert peer.answer().status == 200
    assert len(backend.errors) == 1
    assert (registry.stored_bytes, registry.open_uploads) == (0, 0)
    assert logged() == []
    assert capfd.readouterr().err == ""


def test_client_disconnects_in_chunk_keeps_upload_unchanged(site: Site) -> None:
    registry = MemoryRegistry()
    backend = Backend(registry.round_trip)
    with site.serve(backend) as url:
        peer = site.dial(url)
        peer.ask("/v2/a/b/blobs/uploads/", "Content-Length: 0", method="POST")
        location = peer.answer().fields["location"]
        peer.ask(location, method="PATCH", body=b"first")
        assert peer.answer().status == 202
        backend.done.clear()
        peer.ask(location, "Content-Length: 100", method="PATCH", body=b"second")
        peer.close()
        wait(backend.done)
        peer = site.dial(url)
        peer.ask(location)
        assert peer.answer().fields["range"] == "0-4"


def test_client_half_closes_in_body_gets_400(authority: Authority) -> None:
    site = Site("http", authority)
    with site.closing, site.serve(Backend()) as url:
        peer = site.dial(url)
        peer.ask("/", "Content-Length: 100", method="PUT", body=b"short")
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.answer().status == 400
        peer.assert_ended()


@pytest.mark.parametrize("fields", [{}, {"Content-Length": str(1 << 40)}], ids=["chunked", "sized"])
def test_client_disconnects_in_response_closes_it(
    site: Site, fields: dict[str, str], logged: Callable[[], list[Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    gone, closed = threading.Event(), threading.Event()
    body = FakeReader([b"x" * 60_000, lambda: wait(gone), *[b"y" * 60_000] * 2000], on_close=closed.set)
    with site.serve(Backend(answer_always(200, fields, body))) as url:
        peer = site.dial(url)
        peer.ask()
        peer.head()
        assert peer.take(1000)
        peer.reset()
        gone.set()
        wait(closed)
    assert logged() == []
    assert capfd.readouterr().err == ""


def test_response_streaming_broken_request_body_is_not_logged(site: Site, logged: Callable[[], list[Any]]) -> None:
    closed = threading.Event()

    def answer(request: Request) -> Response:
        assert request.body is not None
        return Response(200, (), FakeReader(request.body.open(), on_close=closed.set))

    with site.serve(Backend(answer)) as url:
        peer = site.dial(url)
        peer.ask("/", "Content-Length: 100", method="PUT", body=b"part")
        assert peer.head().status == 200
        peer.close()
        wait(closed)
    assert logged() == []


# --- transports that raise exceptions


def test_transport_raises_is_500_and_logged(
    site: Site, logged: Callable[[], list[Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    def answer(request: Request) -> Response:
        if request.url.endswith("/bad"):
            raise ZeroDivisionError("the secret of it")
        return Response(200, (), b"good")

    with site.serve(Backend(answer)) as url:
        peer = site.dial(url)
        for _ in range(2):
            peer.ask("/bad")
            response = peer.answer()
            assert (response.status, response.fields["content-type"]) == (500, "application/json")
            assert "connection" not in response.fields
            (error,) = json.loads(response.body)["errors"]
            assert "ZeroDivisionError" in error["message"]
            assert "secret" not in error["message"]
            peer.ask("/good")
            assert peer.answer().body == b"good"
    assert [(record.levelname, record.exc_info[0]) for record in logged()] == [("ERROR", ZeroDivisionError)] * 2
    assert f"GET {site.kind}://registry.test/bad" in logged()[0].getMessage()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("error", [OSError("disk"), TimeoutError("slow"), UsageError("closed"), BrokenPipeError()])
def test_transport_raises_oserror_is_500(site: Site, error: Exception, logged: Callable[[], list[Any]]) -> None:
    def answer(request: Request) -> Response:
        raise error

    with site.serve(Backend(answer)) as url:
        peer = site.dial(url)
        peer.ask()
        assert peer.answer().status == 500
    assert [record.exc_info[1] for record in logged()] == [error]


def test_transport_raises_with_unread_body_closes_connection(site: Site) -> None:
    def answer(request: Request) -> Response:
        assert request.body is not None
        next(request.body.open())
        raise RuntimeError

    backend = Backend(answer)
    with site.serve(backend) as url:
        peer = site.dial(url)
        peer.ask("/", "Content-Length: 40", method="PUT", body=b"DELETE /v2/ HTTP/1.1\r\n")
        response = peer.answer()
        assert (response.status, response.fields["connection"]) == (500, "close")
        peer.assert_ended()
    assert len(backend.requests) == 1


def test_transport_returns_other_type_is_logged(site: Site, logged: Callable[[], list[Any]]) -> None:
    with site.serve(Backend(lambda request: None)) as url:  # type: ignore[arg-type, return-value]
        peer = site.dial(url)
        peer.ask()
        peer.assert_ended()
    assert len(logged()) == 1


@pytest.mark.parametrize("fields", [{}, {"Content-Length": "11"}], ids=["chunked", "sized"])
@pytest.mark.parametrize("error", [ValueError("bad"), OSError("disk"), TimeoutError("slow")], ids=repr)
@pytest.mark.parametrize("pieces", [[], [b"hello"]], ids=["at once", "half-way"])
def test_response_body_raises_breaks_connection(
    site: Site, fields: dict[str, str], error: Exception, pieces: list[bytes], logged: Callable[[], list[Any]]
) -> None:
    body = FakeReader([*pieces, error])
    with site.serve(Backend(answer_always(200, fields, body))) as url:
        connection = site.client(url)
        connection.request("GET", "/")
        response = connection.getresponse()
        with pytest.raises((http.client.IncompleteRead, ssl.SSLError)):
            response.read()
        response.close()
    assert body.closes
    assert [record.exc_info[1] for record in logged()] == [error]


def test_response_body_raises_http_1_0_is_not_complete(site: Site, logged: Callable[[], list[Any]]) -> None:
    answers = [Response(200, (), [b"all ", b"of it"]), Response(200, (), FakeReader([b"a part", ValueError()]))]
    with site.serve(Backend(lambda request: answers.pop(0))) as url:
        peer = site.dial(url)
        peer.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        response = peer.answer()
        assert (response.body, response.fields["content-length"]) == (b"all of it", "9")
        peer.send("GET / HTTP/1.0\r\n\r\n")
        peer.assert_ended()
    assert len(logged()) == 1


def test_response_shorter_than_length_closes_connection(site: Site, logged: Callable[[], list[Any]]) -> None:
    with site.serve(Backend(answer_always(200, {"Content-Length": "10"}, [b"short"]))) as url:
        peer = site.dial(url)
        peer.ask()
        assert peer.head().fields["content-length"] == "10"
        assert peer.take(5) == b"short"
        peer.assert_ended()
    assert "the response body has 5 bytes, expected 10" in logged()[0].getMessage()


def test_response_longer_than_length_is_cut_and_closes_connection(site: Site) -> None:
    with site.serve(Backend(lambda request: Response(200, {"Content-Length": "5"}, [b"hello", b" world"]))) as url:
        peer = site.dial(url)
        peer.ask()
        assert peer.answer().body == b"hello"
        peer.assert_ended()


def test_response_in_memory_sends_own_length(site: Site) -> None:
    with site.serve(Backend(answer_always(200, {"Content-Length": "10"}, b"short"))) as url:
        peer = site.dial(url)
        for _ in range(2):
            peer.ask()
            assert peer.answer().body == b"short"


# --- invalid requests


BAD = {
    "not a request": (b"garbage\r\n\r\n", 400),
    "three words": (b"GET / FTP/1.1\r\n\r\n", 400),
    "four words": (b"GET /a b HTTP/1.1\r\nHost: r\r\n\r\n", 400),
    "no number": (b"GET / HTTP/x.y\r\n\r\n", 400),
    "two words": (b"POST /\r\n\r\n", 400),
    "binary": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400),
    "another version": (b"GET / HTTP/2.0\r\nHost: r\r\n\r\n", 505),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "no Host, absolute": (b"GET http://r/ HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (b"GET / HTTP/1.1\r\nHost: r\r\nHost: s\r\n\r\n", 400),
    "an empty Host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    "a Host with a path": (b"GET / HTTP/1.1\r\nHost: r/x y\r\n\r\n", 400),
    "a method that is no token": (b"G(T / HTTP/1.1\r\nHost: r\r\n\r\n", 400),
    "a control character": (b"GET /\x01 HTTP/1.1\r\nHost: r\r\n\r\n", 400),
    "an asterisk": (b"OPTIONS * HTTP/1.1\r\nHost: r\r\n\r\n", 400),
    "a tunnel": (b"CONNECT r:443 HTTP/1.1\r\nHost: r:443\r\n\r\n", 400),
    "another scheme": (b"GET ftp://r/ HTTP/1.1\r\nHost: r\r\n\r\n", 400),
    "a NUL in a field": (b"GET / HTTP/1.1\r\nHost: r\r\nX: a\0b\r\n\r\n", 400),
    "a fold": (b"GET / HTTP/1.1\r\nHost: r\r\nX: a\r\n b\r\n\r\n", 400),
    "a fold first": (b"GET / HTTP/1.1\r\n X: a\r\nHost: r\r\n\r\n", 400),
    "no colon": (b"GET / HTTP/1.1\r\nHost: r\r\nnonsense\r\nContent-Length: 3\r\n\r\nabc", 400),
    "a space before the colon": (b"GET / HTTP/1.1\r\nHost: r\r\nContent-Length : 3\r\n\r\nabc", 400),
    "many fields": (b"GET / HTTP/1.1\r\nHost: r\r\n" + b"X-Field: %b\r\n" % (b"x" * 1000) * 400 + b"\r\n", 431),
    "a long field": (b"GET / HTTP/1.1\r\nHost: r\r\nX: " + b"x" * 300_000 + b"\r\n\r\n", 431),
    "a long target": (b"GET /" + b"x" * 300_000 + b" HTTP/1.1\r\nHost: r\r\n\r\n", 414),
}


@pytest.mark.parametrize("case", BAD)
def test_invalid_request_is_refused_with_json(
    site: Site, case: str, logged: Callable[[], list[Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    data, status = BAD[case]
    backend = Backend()
    with site.serve(backend) as url:
        peer = site.dial(url)
        peer.send(data)
        response = peer.answer()
        assert (response.status, response.fields["connection"]) == (status, "close")
        assert json.loads(response.body)["errors"][0]["message"]
        peer.assert_ended()
    assert backend.requests == []
    assert logged() == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("data", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: r\r\nX-"], ids=["nothing", "a word", "a head"])
def test_client_disconnects_in_head_is_ignored(
    site: Site, data: bytes, logged: Callable[[], list[Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    with site.serve(Backend()) as url:
        for way in (Peer.close, Peer.reset):
            peer = site.dial(url)
            peer.send(data)
            way(peer)
        peer = site.dial(url)
        peer.ask()
        assert peer.answer().status == 200
    assert logged() == []
    assert capfd.readouterr().err == ""


def test_tls_server_plain_http_client_is_harmless(authority: Authority, capfd: pytest.CaptureFixture[str]) -> None:
    backend = Backend()
    site = Site("https", authority)
    with site.closing, site.serve(backend) as url:
        with contextlib.closing(Peer(url, None)) as peer:
            peer.ask()
            with pytest.raises(Truncated):
                peer.answer()
        peer = site.dial(url)
        peer.ask()
        assert peer.answer().status == 200
    assert len(backend.requests) == 1
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("framing", ["sized", "chunked"])
def test_unread_body_response_reaches_client(site: Site, framing: str) -> None:
    size = 8 * 1024 * 1024
    with site.serve(Backend(answer_always(413, (), b"too large"))) as url:
        peer = site.dial(url)
        peer.ask("/", "Transfer-Encoding: chunked" if framing == "chunked" else f"Content-Length: {size}", method="PUT")
        peer.send((b"%x\r\n" % size if framing == "chunked" else b"") + bytes(size))
        response = peer.answer()
        assert (response.status, response.body, response.fields["connection"]) == (413, b"too large", "close")
        peer.assert_ended()


def test_target_absolute_overrides_host(site: Site) -> None:
    backend = Backend()
    with site.serve(backend) as url:
        peer = site.dial(url)
        peer.ask("http://other.test:5000/v2/?n=1")
        assert peer.answer().status == 200
    assert [request.url for request in backend.requests] == ["http://other.test:5000/v2/?n=1"]


def test_target_is_passed_unchanged(site: Site) -> None:
    backend = Backend()
    target = "/v2/a%2Fb/%7e;x?last=%20&n=1&n=%C3%A4"
    with site.serve(backend) as url:
        peer = site.dial(url)
        peer.ask(target)
        peer.answer()
    assert [request.url for request in backend.requests] == [f"{site.kind}://registry.test{target}"]


@pytest.mark.parametrize("method", ["PATCH", "PURGE", "OPTIONS", "get", "M-SEARCH", "X_Y"])
def test_method_of_any_name_reaches_transport(site: Site, method: str) -> None:
    with site.serve(Backend()) as url:
        peer = site.dial(url)
        peer.ask(method=method)
        assert peer.answer().fields["x-method"] == method


def test_http_1_0_without_host_is_served_and_closed(site: Site) -> None:
    backend = Backend()
    with site.serve(backend) as url:
        peer = site.dial(url)
        peer.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        peer.answer()
        peer.send("GET /b HTTP/1.0\r\n\r\n")
        peer.answer()
        peer.assert_ended()
        assert [request.url for request in backend.requests] == [f"{url}/a", f"{url}/b"]


# --- the server as a whole


def test_serve_fifty_clients_are_served_concurrently(site: Site) -> None:
    together = threading.Barrier(50)
    registry = MemoryRegistry()

    def answer(request: Request) -> Response:
        if request.method == "POST":
            together.wait(PATIENCE)
        return registry.round_trip(request)

    def push(number: int) -> bytes:
        connection = site.client(url)
        data = b"blob %d" % number
        connection.request("POST", f"/v2/a/b/blobs/uploads/?digest={Digest.of(data)}", data)
        with connection.getresponse() as response:
            assert response.status == 201
            response.read()
        connection.request("GET", f"/v2/a/b/blobs/{Digest.of(data)}")
        with connection.getresponse() as response:
            return response.read()

    with site.serve(Backend(answer)) as url, ThreadPoolExecutor(50) as pool:
        assert list(pool.map(push, range(50))) == [b"blob %d" % number for number in range(50)]


def test_exit_with_idle_connections_ends(site: Site) -> None:
    before = set(threading.enumerate())
    block = site.serve(Backend())
    url = block.__enter__()
    peers = [site.dial(url) for _ in range(5)]
    for peer in peers:
        peer.ask()
        peer.answer()
    fresh = site.dial(url)
    assert_exit_ends(block)
    assert set(threading.enumerate()) <= before
    for peer in [*peers, fresh]:
        peer.assert_ended()


def test_exit_with_request_body_under_way_ends(site: Site, logged: Callable[[], list[Any]]) -> None:
    entered = threading.Event()

    def answer(request: Request) -> Response:
        assert request.body is not None
        body = request.body.open()
        next(body)
        entered.set()
        return Response(200, (), b"".join(body))

    backend = Backend(answer)
    block = site.serve(backend)
    peer = site.dial(block.__enter__())
    peer.ask("/", "Content-Length: 1000", method="PUT", body=b"part")
    wait(entered)
    assert_exit_ends(block)
    assert len(backend.errors) == 1
    assert logged() == []


def test_exit_with_unread_response_ends(site: Site) -> None:
    started = threading.Event()
    body = FakeReader([b"x", started.set, *[b"y" * 60_000] * 2000])
    block = site.serve(Backend(answer_always(200, (), body)))
    peer = site.dial(block.__enter__())
    peer.ask()
    wait(started)
    assert_exit_ends(block)
    assert body.closes


def test_exit_with_client_lingering_after_refusal_ends(site: Site) -> None:
    block = site.serve(Backend(answer_always(413)))
    peer = site.dial(block.__enter__())
    peer.ask("/", "Content-Length: 1000", method="PUT")
    assert peer.answer().status == 413
    assert_exit_ends(block)


@pytest.mark.parametrize("data", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], ids=repr)
def test_exit_with_clients_in_handshake_ends(
    authority: Authority, no_sockets_left: None, data: bytes, logged: Callable[[], list[Any]]
) -> None:
    site = Site("https", authority)
    with site.closing:
        block = site.serve(Backend())
        url = block.__enter__()
        slow = Peer(url, None)
        site.closing.callback(slow.close)
        slow.send(data)
        peer = site.dial(url)  # not blocked by the stalled handshake
        peer.ask()
        assert peer.answer().status == 200
        assert_exit_ends(block)
    assert logged() == []


def test_tls_client_gone_before_handshake_leaves_no_socket(authority: Authority) -> None:
    class Late(ssl.SSLContext):
        failures: list[OSError]

        def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
            if self.failures:
                raise self.failures.pop()
            return super().wrap_socket(*args, **options)

    context = Late(ssl.PROTOCOL_TLS_SERVER)
    context.failures = [ConnectionResetError("gone")]
    authority.certify(context)
    site = Site("https", authority)
    site.server_context = context
    with site.closing, site.serve(Backend()) as url:
        before = open_sockets()
        with contextlib.closing(Peer(url, None)) as gone:
            gone.assert_ended()
        peer = site.dial(url)
        peer.ask()
        assert peer.answer().status == 200
        peer.close()
    assert open_sockets() <= before
    assert context.failures == []


def test_exit_with_exception_ends_server(site: Site) -> None:
    with pytest.raises(ZeroDivisionError), site.serve(Backend()) as url:
        raise ZeroDivisionError
    with pytest.raises(ConnectionRefusedError):
        site.dial(url)


def test_exit_with_transport_that_keeps_requests_leaves_no_connection(site: Site) -> None:
    backend = Backend(answer_always(200))
    before = open_sockets()
    with site.serve(backend) as url:
        peer = site.dial(url)
        peer.ask("/", "Content-Length: 1000", method="PUT", body=b"unread")
        assert peer.answer().status == 200
        peer.reset()
    assert open_sockets() <= before
    (body,) = [request.body for request in backend.requests]
    assert body is not None
    with pytest.raises(Exception, match="the connection was closed"):
        next(body.open())


def test_server_url_host_is_accepted_by_client(site: Site) -> None:
    with site.serve(MemoryRegistry()) as url:
        assert url == f"{site.kind}://{url.host}"
        name, _, port = url.host.partition(":")
        assert name == "127.0.0.1"
        assert int(port) > 0
        client = Client(url.host, site.stack(), insecure=site.kind == "http")
        pushed = client.push_blob("a/b", Descriptor.of(b"content"), b"content")
        assert client.get_blob("a/b", pushed.digest).read() == b"content"


def test_serve_two_servers_are_independent(site: Site) -> None:
    with (
        site.serve(Backend(answer_always(200, (), b"one"))) as first,
        site.serve(Backend(answer_always(200, (), b"two"))) as second,
    ):
        assert first.host != second.host
        for url, expected in ((first, b"one"), (second, b"two"), (first, b"one")):
            peer = site.dial(url)
            peer.ask()
            assert peer.answer().body == expected


def test_serve_transport_again_works(site: Site) -> None:
    backend = Backend()
    for _ in range(2):
        with site.serve(backend) as url:
            peer = site.dial(url)
            peer.ask()
            assert peer.answer().status == 200
    assert not backend.closed
    assert len(backend.requests) == 2


def test_urllib_transport_reads_413_to_unread_body(site: Site) -> None:
    with (
        site.serve(Backend(answer_always(413, (), b"too large"))) as url,
        contextlib.closing(UrllibTransport(timeout=PATIENCE, tls=site.context, trust_env=False)) as transport,
    ):
        body = Body.of(iter([bytes(1024 * 1024)] * 8))
        with transport.round_trip(Request("PUT", f"{url}/", (), body)) as response:
            assert (response.status, response.read()) == (413, b"too large")


def test_serve_fault_transport_breaks_connections(site: Site) -> None:
    faulty = ["429", "503", "short body", "reset in body"]
    faults = FaultTransport(MemoryRegistry(), seed=3, rate=0.3, faults=faulty)
    blobs = [b"%d" % number * 1000 for number in range(20)]
    with site.serve(faults) as url:
        client = Client(url.host, site.stack(), insecure=site.kind == "http")
        for blob in blobs:
            client.push_blob("a/b", Descriptor.of(blob), blob)
            assert client.get_blob("a/b", Digest.of(blob)).read() == blob
    assert {injected.fault for injected in faults.injected} == set(faulty)


# --- clients of other packages


def test_serve_urllib_request_works(site: Site) -> None:
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), *([urllib.request.HTTPSHandler(context=site.context)] if site.context else [])
    )
    data = b"from urllib" * 10_000
    with site.serve(MemoryRegistry()) as url:
        put = urllib.request.Request(f"{url}/v2/a/b/blobs/uploads/?digest={Digest.of(data)}", data, method="POST")
        with opener.open(put, timeout=PATIENCE) as response:
            assert response.status == 201
        with opener.open(f"{url}/v2/a/b/blobs/{Digest.of(data)}", timeout=PATIENCE) as response:
            assert response.read() == data
        with pytest.raises(urllib.error.HTTPError) as caught:
            opener.open(f"{url}/v2/a/b/blobs/{Digest.of(b'')}", timeout=PATIENCE)
        with caught.value as error:
            assert error.code == 404
            assert json.load(error)["errors"][0]["code"] == "BLOB_UNKNOWN"


def test_serve_http_client_reuses_connection(site: Site) -> None:
    data = b"from http.client"
    content: Iterable[bytes] = (data[i : i + 5] for i in range(0, len(data), 5))
    with site.serve(MemoryRegistry()) as url:
        connection = site.client(url)
        connection.connect()
        sock = connection.sock

        def ask(method: str, path: str, body: Any = None) -> tuple[int, bytes]:
            connection.request(method, path, body, encode_chunked=body is not None)
            with connection.getresponse() as response:
                return response.status, response.read()

        blob = f"/v2/a/b/blobs/{Digest.of(data)}"
        assert ask("HEAD", blob) == (404, b"")
        connection.request(
            "POST",
            f"/v2/a/b/blobs/uploads/?digest={Digest.of(data)}",
            content,
            {"Transfer-Encoding": "chunked"},
            encode_chunked=True,
        )
        with connection.getresponse() as response:
            assert (response.status, response.read()) == (201, b"")
        assert ask("HEAD", blob) == (200, b"")
        assert ask("GET", blob) == (200, data)
        assert ask("DELETE", blob)[0] == 202
        assert ask("GET", blob)[0] == 404
        connection.request("PUT", "/v2/a/b/manifests/v1", io.BytesIO(b"{}"), {"Content-Length": "2"})
        with connection.getresponse() as response:
            assert response.status == 400
            response.read()
        assert connection.sock is sock
