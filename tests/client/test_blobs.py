"""`get_blob_range`, and downloads that resume after a lost connection."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ociwire import Client, Descriptor, Digest, FunctionTransport, Request, Response, errors
from ociwire.transport import UrllibTransport
from tests._support.doubles import PATIENCE, FakeReader, RecordingTransport
from tests.client.support import (
    BASE,
    BLOB,
    BLOB_PATH,
    CONTENT,
    HOST,
    NAME,
    PULL,
    ScriptedRegistry,
    blob_response,
    error_response,
    send_and_close,
)
from tests.transport.urllib3.scripted_server import Peer, Script, Server

SIZE = len(CONTENT)
MEBIBYTE = 1024 * 1024


def range_response(start: int, stop: int, content: bytes = CONTENT, **headers: str) -> Response:
    """Return a 206 response with the bytes from `start` to `stop`."""
    range_headers = {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}", "Content-Length": str(stop - start)}
    return Response(206, {**range_headers, **headers}, content[start:stop])


def broken_response(body: FakeReader) -> Callable[[Request], Response]:
    """Return a 200 response with the size of the blob, and a body that may be truncated."""
    return lambda request: Response(200, {"Content-Length": str(SIZE)}, body)


# --- ranges ---


@pytest.mark.parametrize(
    ("start", "stop", "range_header"),
    [(0, 1, "0-0"), (0, 5, "0-4"), (3, 7, "3-6"), (4, None, "4-"), (SIZE - 1, None, f"{SIZE - 1}-"), (2, SIZE, "2-20")],
)
def test_get_blob_range_sends_range_header(start: int, stop: int | None, range_header: str) -> None:
    registry = ScriptedRegistry(range_response(start, stop or SIZE))
    with registry.client.get_blob_range(NAME, BLOB.digest, start, stop) as reader:
        assert reader.descriptor == BLOB  # the descriptor of the complete blob
        assert reader.read() == CONTENT[start:stop]
        assert reader.read() == b""
        assert not reader.verified
    assert registry.lines == [f"GET {BASE}{BLOB_PATH}"]
    assert registry.requests[0].headers.get_all("range") == (f"bytes={range_header}",)
    registry.assert_done()


@pytest.mark.parametrize(("start", "stop"), [(0, 5), (3, 7), (4, None), (0, SIZE), (0, None), (0, 1000), (4, 1000)])
def test_get_blob_range_answered_200_is_truncated_to_range(start: int, stop: int | None) -> None:
    registry = ScriptedRegistry(blob_response())
    with registry.client.get_blob_range(NAME, BLOB.digest, start, stop) as reader:
        assert reader.descriptor == BLOB
        assert reader.read() == CONTENT[start:stop]
    registry.assert_done()


def test_get_blob_range_answered_200_skips_to_start() -> None:
    content = bytes(range(256)) * 4096
    start = len(content) - 300_000
    blob = Descriptor.of(content)
    registry = ScriptedRegistry(blob_response(content))
    assert registry.client.get_blob_range(NAME, blob.digest, start, start + 9).read() == content[start : start + 9]
    registry.assert_done()


@pytest.mark.parametrize("position", [0, 1, 7, SIZE, 10 * SIZE])
def test_get_blob_range_empty_range_sends_nothing(position: int) -> None:
    registry = ScriptedRegistry()
    with registry.client.get_blob_range(NAME, BLOB.digest, position, position) as reader:
        assert reader.read() == b""
        assert reader.readinto(bytearray(4)) == 0
        assert not reader.verified
    assert registry.requests == []


@pytest.mark.parametrize("stop", [SIZE + 1, 1000, 2**62])
def test_get_blob_range_stop_beyond_end_reads_to_end(stop: int) -> None:
    registry = ScriptedRegistry(range_response(4, SIZE))
    assert registry.client.get_blob_range(NAME, BLOB.digest, 4, stop).read() == CONTENT[4:]
    assert registry.requests[0].headers["range"] == f"bytes=4-{stop - 1}"
    registry.assert_done()


def test_get_blob_range_shorter_206_requests_missing_bytes() -> None:
    """A server may send a part of the range (RFC 9110, section 15.3.7)."""
    registry = ScriptedRegistry(range_response(3, 6), range_response(6, 10))
    with registry.client.get_blob_range(NAME, BLOB.digest, 3, 10) as reader:
        assert reader.read() == CONTENT[3:10]
    assert [request.headers["range"] for request in registry.requests] == ["bytes=3-9", "bytes=6-9"]
    registry.assert_done()


def test_get_blob_range_longer_206_is_truncated() -> None:
    registry = ScriptedRegistry(range_response(3, SIZE))
    assert registry.client.get_blob_range(NAME, BLOB.digest, 3, 7).read() == CONTENT[3:7]
    registry.assert_done()


def test_get_blob_range_206_of_unknown_size_sends_head() -> None:
    registry = ScriptedRegistry(Response(206, {"Content-Range": "bytes 3-6/*"}, CONTENT[3:7]), blob_response())
    assert registry.client.get_blob_range(NAME, BLOB.digest, 3, 7).read() == CONTENT[3:7]
    assert registry.lines == [f"GET {BASE}{BLOB_PATH}", f"HEAD {BASE}{BLOB_PATH}"]
    registry.assert_done()


def test_get_blob_range_accept_ranges_header_is_ignored() -> None:
    for accept in ({}, {"Accept-Ranges": "none"}, {"Accept-Ranges": "bytes"}):
        registry = ScriptedRegistry(range_response(3, 7, **accept))
        assert registry.client.get_blob_range(NAME, BLOB.digest, 3, 7).read() == CONTENT[3:7]


@pytest.mark.parametrize("read", [lambda reader: reader.verify(), lambda reader: (reader.read(), reader.verify())])
def test_get_blob_range_verify_raises_usage_error(read: Callable[[Any], object]) -> None:
    registry = ScriptedRegistry(range_response(3, 7))
    with registry.client.get_blob_range(NAME, BLOB.digest, 3, 7) as reader:
        with pytest.raises(errors.UsageError, match="part"):
            read(reader)
        assert not reader.verified
    registry.assert_done()


def test_get_blob_range_whole_blob_is_verified() -> None:
    registry = ScriptedRegistry(range_response(0, SIZE), range_response(0, SIZE, b"X" + CONTENT[1:]))
    with registry.client.get_blob_range(NAME, BLOB.digest, 0, SIZE) as reader:
        assert reader.read() == CONTENT
    with registry.client.get_blob_range(NAME, BLOB.digest, 0, SIZE) as reader, pytest.raises(errors.DigestMismatch):
        reader.read()
    registry.assert_done()


@pytest.mark.parametrize(
    "content_range",
    [
        None,
        "",
        "bytes 0-6/21",
        "bytes 2-6/21",
        "bytes 4-6/21",
        "bytes */21",
        "bytes=3-6/21",
        "3-6/21",
        "items 3-6/21",
        "bytes 3-6",
        "bytes 3-/21",
        "bytes -3-6/21",
        "bytes \xb3-6/21",
        f"bytes {'9' * 30}-6/21",
    ],
)
def test_get_blob_range_206_of_other_range_raises_protocol_error(content_range: str | None) -> None:
    headers = {} if content_range is None else {"Content-Range": content_range}
    registry = ScriptedRegistry(Response(206, headers, CONTENT[3:7]))
    with pytest.raises(errors.ProtocolError) as caught:
        registry.client.get_blob_range(NAME, BLOB.digest, 3, 7)
    assert caught.value.request is registry.requests[0]
    registry.assert_done()


@pytest.mark.parametrize(
    "answer",
    [
        Response(416, {"Content-Range": f"bytes */{SIZE}"}),
        error_response(416, "RANGE_INVALID"),
    ],
)
def test_get_blob_range_416_raises_range_invalid(answer: Response) -> None:
    registry = ScriptedRegistry(answer)
    with pytest.raises(errors.RangeInvalid) as caught:
        registry.client.get_blob_range(NAME, BLOB.digest, 100, 200)
    assert caught.value.status == 416
    registry.assert_done()


@pytest.mark.parametrize(
    ("refusal", "lookups"),
    [
        (Response(416, {"Content-Range": f"bytes */{SIZE}"}), []),
        (error_response(416, "RANGE_INVALID"), [blob_response()]),
        (error_response(416, "BLOB_UNKNOWN"), [blob_response()]),
    ],
)
def test_get_blob_range_open_range_refused_is_repeated_as_closed_range(
    refusal: Response, lookups: list[Response]
) -> None:
    response = Response(206, {"Content-Range": f"bytes 3-{SIZE - 1}/{SIZE}"}, CONTENT[3:])
    registry = ScriptedRegistry(refusal, *lookups, response)
    assert registry.client.get_blob_range(NAME, BLOB.digest, 3).read() == CONTENT[3:]
    assert [request.headers["range"] for request in registry.requests if request.method == "GET"] == [
        "bytes=3-",
        f"bytes=3-{SIZE - 1}",
    ]
    registry.assert_done()


@pytest.mark.parametrize("start", [SIZE, SIZE + 1])
@pytest.mark.parametrize(
    ("refusal", "lookups"),
    [
        (Response(416, {"Content-Range": f"bytes */{SIZE}"}), []),
        (error_response(416, "RANGE_INVALID"), [blob_response()]),
        (error_response(416, "RANGE_INVALID"), [error_response(404), error_response(404)]),  # a GET confirms the HEAD
    ],
)
def test_get_blob_range_open_range_beyond_end_raises_range_invalid(
    refusal: Response, lookups: list[Response], start: int
) -> None:
    registry = ScriptedRegistry(refusal, *lookups)
    with pytest.raises(errors.RangeInvalid) as caught:
        registry.client.get_blob_range(NAME, BLOB.digest, start)
    assert caught.value.status == 416
    registry.assert_done()


@pytest.mark.parametrize("start", [SIZE, SIZE + 1, 10 * SIZE])
def test_get_blob_range_200_shorter_than_start_raises_range_invalid(start: int) -> None:
    registry = ScriptedRegistry(blob_response())
    with pytest.raises(errors.RangeInvalid):
        registry.client.get_blob_range(NAME, BLOB.digest, start, start + 5).close()
    registry.assert_done()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error_response(404), errors.BlobUnknown),
        (error_response(401), errors.Unauthorized),
        (error_response(403), errors.Denied),
        (error_response(500), errors.RegistryError),
        (Response(204), errors.RegistryError),
    ],
)
def test_get_blob_range_error_status_raises_registry_error(answer: Response, kind: type[errors.RegistryError]) -> None:
    registry = ScriptedRegistry(answer)
    with pytest.raises(errors.RegistryError) as caught:
        registry.client.get_blob_range(NAME, BLOB.digest, 1, 2)
    assert type(caught.value) is kind
    registry.assert_done()


def test_get_blob_range_404_after_redirect_raises_blob_unknown() -> None:
    def redirect(request: Request) -> Response:
        return Response(404, (), b"<gone>", request.replace(url="https://cdn.example/data?signature=s"))

    registry = ScriptedRegistry(redirect)
    with pytest.raises(errors.BlobUnknown):
        registry.client.get_blob_range(NAME, BLOB.digest, 1, 2)


@pytest.mark.parametrize(
    ("start", "stop"),
    [(-1, 5), (5, 4), (0, -1), (1.0, 5), (0, 5.0), (True, 5), (0, True), ("0", 5), (0, "5"), (None, 5), (b"0", None)],
)
def test_get_blob_range_invalid_range_sends_nothing(start: Any, stop: Any) -> None:
    registry = ScriptedRegistry()
    with pytest.raises(errors.UsageError):
        registry.client.get_blob_range(NAME, BLOB.digest, start, stop)
    assert registry.requests == []


@pytest.mark.parametrize(
    ("name", "digest"), [("Upper", BLOB.digest), ("", BLOB.digest), (NAME, "latest"), (NAME, "md5:abc"), (NAME, None)]
)
@pytest.mark.parametrize(("start", "stop"), [(0, 5), (3, 3), (3, None)])
def test_get_blob_range_invalid_repository_or_digest_sends_nothing(
    name: str, digest: Any, start: int, stop: int | None
) -> None:
    registry = ScriptedRegistry()
    with pytest.raises(errors.UsageError):
        registry.client.get_blob_range(name, digest, start, stop)
    assert registry.requests == []


# --- lost connections ---


class BreakingRegistry:
    """Registry with one blob, whose responses are interrupted after a number of bytes.

    Args:
        content: The blob.
        breaks: The number of bytes after which each response is interrupted, in order. None means that the response is
            complete, as all responses after the last number are.
        ranges: Whether the registry supports ranges. If not, it sends the complete blob. Defaults to true.
        error: Creates the exception that an interrupted response raises. None ends its body early. Defaults to
            `ReadError`.
        has_length: Whether a 200 has a Content-Length. Defaults to true.
        breaks_at_end: Whether a response is also interrupted after its last byte. Defaults to false.
    """

    def __init__(
        self,
        content: bytes,
        breaks: Sequence[int | None],
        *,
        ranges: bool = True,
        error: Callable[[], Exception] | None = lambda: errors.ReadError("reset"),
        has_length: bool = True,
        breaks_at_end: bool = False,
    ) -> None:
        self.blob = Descriptor.of(content)
        self.bodies: list[FakeReader] = []
        self._content = content
        self._breaks = list(breaks)
        self._ranges = ranges
        self._error = error
        self._has_length = has_length
        self._breaks_at_end = breaks_at_end
        self.transport = RecordingTransport(self._answer)
        self.client = Client(HOST, self.transport)

    @property
    def ranges(self) -> list[str]:
        """The Range header of each GET, or an empty string."""
        return [request.headers.get("range", "") for request in self.transport.requests if request.method == "GET"]

    def _answer(self, request: Request) -> Response:
        size = len(self._content)
        length = {"Content-Length": str(size)}
        if request.method == "HEAD":
            return Response(200, length, b"")
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if match is None or not self._ranges:
            return Response(200, length if self._has_length else {}, self._body(self._content))
        start, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
        headers = {"Content-Range": f"bytes {start}-{last}/{size}"}
        return Response(206, headers, self._body(self._content[start : last + 1]))

    def _body(self, content: bytes) -> FakeReader:
        count = self._breaks.pop(0) if self._breaks else None
        breaks = count is not None and (count < len(content) or self._breaks_at_end)
        error = self._error() if breaks and self._error is not None else None
        self.bodies.append(FakeReader(content[:count], error=error))
        return self.bodies[-1]

    def assert_closed(self) -> None:
        assert [body.closed for body in self.bodies] == [True] * len(self.bodies)


FAULTS: dict[str, Callable[[], Exception] | None] = {
    "reset": lambda: errors.ReadError("reset"),
    "early end": None,
}
with_each_fault = pytest.mark.parametrize("error", FAULTS.values(), ids=FAULTS)


@with_each_fault
def test_get_blob_connection_lost_resumes_at_position(error: Callable[[], Exception] | None) -> None:
    registry = BreakingRegistry(CONTENT, [5, 4], error=error)
    with registry.client.get_blob(NAME, registry.blob.digest) as reader:
        assert reader.read(7) == CONTENT[:7]
        assert reader.read() == CONTENT[7:]
        assert reader.verified
    assert registry.ranges == ["", "bytes=5-20", "bytes=9-20"]


@with_each_fault
def test_get_blob_connection_lost_after_each_byte_resumes_each_time(error: Callable[[], Exception] | None) -> None:
    registry = BreakingRegistry(CONTENT, [1] * (SIZE - 1), error=error)
    with registry.client.get_blob(NAME, registry.blob.digest) as reader:
        assert reader.read() == CONTENT
        assert reader.verified
    assert registry.ranges == ["", *(f"bytes={start}-20" for start in range(1, SIZE))]
    registry.assert_closed()


def test_get_blob_resumed_after_redirect_repeats_original_request() -> None:
    """The URL in a redirect may have expired."""

    def redirect(request: Request) -> Response:
        redirected = request.replace(url="https://cdn.example/data?signature=expired")
        if "range" in request.headers:
            return range_response(6, SIZE).replace(request=redirected)
        body = FakeReader(CONTENT[:6], error=errors.ReadError("reset"))
        return Response(200, {"Content-Length": str(SIZE)}, body, redirected)

    transport = RecordingTransport(redirect)
    client = Client(HOST, transport).with_options(deadline=1e12, timeout=3.0, extra={"tenant": 7})
    assert client.get_blob(NAME, BLOB.digest).read() == CONTENT
    first, resumed = transport.requests
    assert (resumed.method, resumed.url) == ("GET", f"{BASE}{BLOB_PATH}")
    assert resumed.info == first.info
    assert (first.info.deadline, first.info.timeout, dict(first.info.extra)) == (1e12, 3.0, {"tenant": 7})
    assert str(resumed.info.required_scope) == PULL
    assert resumed.info.operation == "get_blob"
    assert dict(resumed.headers) == {**first.headers, "Range": "bytes=6-20"}


@with_each_fault
def test_get_blob_resumed_without_progress_raises_original_error(error: Callable[[], Exception] | None) -> None:
    registry = BreakingRegistry(CONTENT, [5, 0, 0, 0, 0], error=error)
    kind = errors.SizeMismatch if error is None else errors.ReadError
    with registry.client.get_blob(NAME, registry.blob.digest) as reader:
        with pytest.raises(kind) as caught:
            reader.read()
        assert not reader.verified
    assert len(registry.ranges) == 2
    if isinstance(caught.value, errors.SizeMismatch):
        assert (caught.value.expected, caught.value.actual) == (SIZE, 5)
    registry.assert_closed()


@with_each_fault
def test_get_blob_connection_lost_before_first_byte_resumes_once(error: Callable[[], Exception] | None) -> None:
    registry = BreakingRegistry(CONTENT, [0], error=error)
    assert registry.client.get_blob(NAME, registry.blob.digest).read() == CONTENT
    assert registry.ranges == ["", "bytes=0-20"]
    registry.assert_closed()


@with_each_fault
@pytest.mark.parametrize(("status", "code"), [(416, ""), (404, ""), (404, "BLOB_UNKNOWN"), (403, "DENIED"), (500, "")])
def test_get_blob_resume_refused_raises_original_error(
    status: int, code: str, error: Callable[[], Exception] | None
) -> None:
    original = None if error is None else error()
    body = FakeReader(CONTENT[:5], error=original)
    registry = ScriptedRegistry(broken_response(body), error_response(status, code))
    with registry.client.get_blob(NAME, BLOB.digest) as reader, pytest.raises(errors.OciwireError) as caught:
        reader.read()
    if original is None:
        assert isinstance(caught.value, errors.SizeMismatch)
    else:
        assert caught.value is original
    assert isinstance(caught.value.__cause__, errors.RegistryError)
    assert caught.value.__cause__.status == status
    assert body.closed
    registry.assert_done()


def test_get_blob_resume_connect_error_propagates() -> None:
    body = FakeReader(CONTENT[:5], error=errors.ReadError("reset"))
    refusal = errors.ConnectError("refused")
    registry = ScriptedRegistry(broken_response(body), refusal)
    with registry.client.get_blob(NAME, BLOB.digest) as reader, pytest.raises(errors.ConnectError) as caught:
        reader.read()
    assert caught.value is refusal
    assert body.closed


@pytest.mark.parametrize(
    "error",
    [
        errors.TransportTimeout("late"),
        errors.ProtocolError("invalid chunk"),
        OSError("foreign"),
        ZeroDivisionError("foreign"),
    ],
)
def test_get_blob_other_error_is_not_resumed(error: Exception) -> None:
    body = FakeReader(CONTENT[:5], error=error)
    registry = ScriptedRegistry(broken_response(body))
    with registry.client.get_blob(NAME, BLOB.digest) as reader, pytest.raises(type(error)) as caught:
        reader.read()
    assert caught.value is error
    assert len(registry.requests) == 1
    assert body.closed


@pytest.mark.parametrize(
    "content_range", [None, "bytes 0-20/21", "bytes 4-20/21", "bytes 6-20/21", "bytes */21", "5-20/21", "bytes 5-20"]
)
def test_get_blob_resumed_at_other_position_raises_protocol_error(content_range: str | None) -> None:
    body = FakeReader(CONTENT[:5], error=errors.ReadError("reset"))
    headers = {} if content_range is None else {"Content-Range": content_range}
    registry = ScriptedRegistry(broken_response(body), Response(206, headers, CONTENT[5:]))
    with registry.client.get_blob(NAME, BLOB.digest) as reader, pytest.raises(errors.ProtocolError) as caught:
        reader.read()
    assert caught.value.request is registry.requests[1]
    assert body.closed
    registry.assert_done()


@with_each_fault
def test_get_blob_resumed_without_range_support_skips_to_position(error: Callable[[], Exception] | None) -> None:
    registry = BreakingRegistry(CONTENT, [5, 9, 20], ranges=False, error=error)
    with registry.client.get_blob(NAME, registry.blob.digest) as reader:
        assert reader.read() == CONTENT
        assert reader.verified
    assert registry.ranges == ["", "bytes=5-20", "bytes=9-20", "bytes=20-20"]
    registry.assert_closed()


def zero_body(size: int, error: Exception | None = None) -> FakeReader:
    """Return a body of zero bytes, which are created when they are read."""
    pieces = itertools.chain(itertools.repeat(bytes(MEBIBYTE), size // MEBIBYTE), [bytes(size % MEBIBYTE)])
    return FakeReader(pieces, error=error)


@pytest.mark.parametrize(("position", "is_allowed"), [(64 * MEBIBYTE, True), (64 * MEBIBYTE + 1, False)])
def test_get_blob_resumed_without_range_support_skips_at_most_64_mebibytes(position: int, is_allowed: bool) -> None:
    size = position + 3
    bodies = [zero_body(position, errors.ReadError("reset")), zero_body(size)]
    digest = Digest.of(bytes(size))
    responses = (Response(200, {"Content-Length": str(size)}, body) for body in bodies)
    client = Client(HOST, FunctionTransport(lambda request: next(responses)))
    buffer = bytearray(MEBIBYTE)
    with client.get_blob(NAME, digest) as reader:
        total = 0
        while total < position:
            total += reader.readinto(buffer)
        if is_allowed:
            assert reader.read() == bytes(3)
            assert reader.verified
        else:
            with pytest.raises(errors.ProtocolError):
                reader.read()
            assert bodies[1].bytes_read <= 1024
    assert [body.closed for body in bodies] == [True, True]


@with_each_fault
def test_get_blob_range_connection_lost_resumes_at_position(error: Callable[[], Exception] | None) -> None:
    registry = BreakingRegistry(CONTENT, [2, 3], error=error)
    with registry.client.get_blob_range(NAME, registry.blob.digest, 4, 15) as reader:
        assert reader.read() == CONTENT[4:15]
    assert registry.ranges == ["bytes=4-14", "bytes=6-14", "bytes=9-14"]
    assert {request.info.operation for request in registry.transport.requests} == {"get_blob_range"}
    registry.assert_closed()


@with_each_fault
def test_get_blob_range_open_range_lost_resumes_with_closed_range(error: Callable[[], Exception] | None) -> None:
    registry = BreakingRegistry(CONTENT, [2], error=error)
    assert registry.client.get_blob_range(NAME, registry.blob.digest, 4).read() == CONTENT[4:]
    assert registry.ranges == ["bytes=4-", "bytes=6-20"]


@with_each_fault
def test_get_blob_range_resumed_without_range_support_skips_to_position(error: Callable[[], Exception] | None) -> None:
    registry = BreakingRegistry(CONTENT, [7, 8], ranges=False, error=error)
    assert registry.client.get_blob_range(NAME, registry.blob.digest, 4, 15).read() == CONTENT[4:15]
    assert registry.ranges == ["bytes=4-14", "bytes=7-14", "bytes=8-14"]
    registry.assert_closed()


def test_get_blob_without_content_length_resumes_with_size_of_head() -> None:
    registry = BreakingRegistry(CONTENT, [6], has_length=False)
    assert registry.client.get_blob(NAME, registry.blob.digest).read() == CONTENT
    assert registry.ranges == ["", "bytes=6-20"]
    registry.assert_closed()


def test_get_blob_connection_lost_after_last_byte_succeeds() -> None:
    """The blob is complete, but the last chunk of the chunked body is missing."""
    registry = BreakingRegistry(CONTENT, [SIZE], has_length=False, breaks_at_end=True)
    with registry.client.get_blob(NAME, registry.blob.digest) as reader:
        assert reader.read() == CONTENT
        assert reader.verified
    registry.assert_closed()


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (range_response(5, SIZE, b"X" * SIZE), errors.DigestMismatch),
        (Response(206, {"Content-Range": "bytes 5-20/21"}, CONTENT[5:] + b"more"), errors.SizeMismatch),
    ],
    ids=["other bytes", "extra bytes"],
)
def test_get_blob_resumed_with_wrong_bytes_raises_content_error(response: Response, error: type[Exception]) -> None:
    body = FakeReader(CONTENT[:5], error=errors.ReadError("reset"))
    registry = ScriptedRegistry(broken_response(body), response)
    with registry.client.get_blob(NAME, BLOB.digest) as reader, pytest.raises(error):
        reader.read()
    registry.assert_done()


@given(
    content=st.binary(max_size=300),
    breaks=st.lists(st.none() | st.integers(0, 300), max_size=12),
    ranges=st.booleans(),
    has_length=st.booleans(),
    reset=st.booleans(),
    breaks_at_end=st.booleans(),
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=4),
    bounds=st.none() | st.tuples(st.integers(0, 300), st.integers(0, 300)),
)
def test_get_blob_range_any_breaks_reads_correct_bytes_or_raises(
    content: bytes,
    breaks: list[int | None],
    ranges: bool,
    has_length: bool,
    reset: bool,
    breaks_at_end: bool,
    sizes: list[int],
    bounds: tuple[int, int] | None,
) -> None:
    error = (lambda: errors.ReadError("reset")) if reset else None
    registry = BreakingRegistry(
        content,
        breaks,
        ranges=ranges,
        has_length=has_length,
        error=error,
        breaks_at_end=breaks_at_end,
    )
    start, stop = (0, None) if bounds is None else (min(bounds, default=0) % (len(content) + 1), max(bounds))
    expected, read = content[start:stop], b""
    try:
        with registry.client.get_blob_range(NAME, registry.blob.digest, start, stop) as reader:
            while piece := reader.read(sizes[len(read) % len(sizes)]):
                read += piece
    except (errors.ReadError, errors.ContentError, errors.ProtocolError, errors.RangeInvalid):
        assert expected.startswith(read)  # the bytes before the error are correct
    else:
        assert read == expected
    registry.assert_closed()


@given(
    content=st.binary(min_size=1, max_size=200),
    breaks=st.lists(st.integers(1, 50), max_size=12),
    ranges=st.booleans(),
    reset=st.booleans(),
)
def test_get_blob_any_breaks_with_progress_reads_whole_blob(
    content: bytes, breaks: list[int], ranges: bool, reset: bool
) -> None:
    if not ranges:  # each response starts at 0, and so must be longer than the previous one
        breaks = sorted({count for count in breaks if count < len(content)})
    error = (lambda: errors.ReadError("reset")) if reset else None
    registry = BreakingRegistry(content, breaks, ranges=ranges, error=error)
    with registry.client.get_blob(NAME, registry.blob.digest) as reader:
        assert reader.read() == content
        assert reader.verified
    registry.assert_closed()


# --- over real sockets ---


def send_and_reset(data: bytes, may_reset: threading.Semaphore) -> Script:
    """Return a script that sends `data` and resets the connection, which discards unread bytes."""

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(data)
        assert may_reset.acquire(timeout=PATIENCE)
        peer.reset()

    return script


def ranges_of(server: Server) -> list[str]:
    """Return the Range header of each request, or an empty string."""
    return [(peer.field("range") or b"").decode() for peer in server.peers]


def raw_response(status: str, *fields: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode() + body


def raw_200(count: int) -> bytes:
    """Return a 200 response whose body ends after `count` bytes of the blob."""
    return raw_response("200 OK", f"Content-Length: {SIZE}", body=CONTENT[:count])


def raw_206(start: int, count: int | None = None) -> bytes:
    """Return a 206 response from `start` to the end of the blob, whose body ends after `count` bytes."""
    stop = SIZE if count is None else start + count
    fields = f"Content-Range: bytes {start}-20/21", f"Content-Length: {SIZE - start}"
    return raw_response("206 Partial Content", *fields, body=CONTENT[start:stop])


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
def test_get_blob_socket_closed_resumes_at_position(transport: UrllibTransport, reset: bool) -> None:
    may_reset = threading.Semaphore(0)
    script = partial(send_and_reset, may_reset=may_reset) if reset else send_and_close
    with closing(Server(script(raw_200(5)), script(raw_206(5, 4)), send_and_close(raw_206(9)))) as server:
        client = Client(server.netloc, transport, insecure=True)
        with client.get_blob(NAME, BLOB.digest) as reader:
            read = b""
            for count in (5, 4, 12):
                while count:
                    piece = reader.read(count)
                    read, count = read + piece, count - len(piece)
                may_reset.release()
            assert read == CONTENT
            assert reader.verified
    assert ranges_of(server) == ["", "bytes=5-20", "bytes=9-20"]
    assert all(peer.line().startswith(f"GET {BLOB_PATH} ".encode()) for peer in server.peers)


def test_get_blob_socket_closed_within_chunk_resumes_at_position(transport: UrllibTransport) -> None:
    chunked = raw_response("200 OK", "Transfer-Encoding: chunked", body=b"15\r\n" + CONTENT[:5])
    head = raw_response("200 OK", "Content-Length: 21", "Connection: close")
    with closing(Server(send_and_close(chunked), send_and_close(head), send_and_close(raw_206(5)))) as server:
        client = Client(server.netloc, transport, insecure=True)
        assert client.get_blob(NAME, BLOB.digest).read() == CONTENT
    assert ranges_of(server) == ["", "", "bytes=5-20"]
    assert server.peers[1].line().startswith(b"HEAD ")


def test_get_blob_range_socket_closed_resumes_at_position(transport: UrllibTransport) -> None:
    with closing(Server(send_and_close(raw_206(4, 3)), send_and_close(raw_206(7)))) as server:
        client = Client(server.netloc, transport, insecure=True)
        with client.get_blob_range(NAME, BLOB.digest, 4) as reader:
            assert reader.read() == CONTENT[4:]
    assert ranges_of(server) == ["bytes=4-", "bytes=7-20"]


def test_get_blob_socket_closed_repeatedly_raises_read_error(transport: UrllibTransport) -> None:
    with closing(Server(send_and_close(raw_200(5)), send_and_close(raw_206(5, 0)))) as server:
        client = Client(server.netloc, transport, insecure=True)
        with client.get_blob(NAME, BLOB.digest) as reader, pytest.raises(errors.ReadError):
            reader.read()
    assert ranges_of(server) == ["", "bytes=5-20"]


def test_get_blob_socket_closed_without_range_support_skips_to_position(transport: UrllibTransport) -> None:
    with closing(Server(send_and_close(raw_200(5)), send_and_close(raw_200(SIZE)))) as server:
        client = Client(server.netloc, transport, insecure=True)
        assert client.get_blob(NAME, BLOB.digest).read() == CONTENT
    assert ranges_of(server) == ["", "bytes=5-20"]
