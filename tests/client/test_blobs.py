"""Parts of blobs, and connections that are lost: what is missing is asked for again, and no wrong byte gets through."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ociwire import Client, Descriptor, Digest, FunctionTransport, Request, Response, errors
from ociwire.transport import UrllibTransport
from tests.client.test_client import BASE, BLOB, CONTENT, PATH, PULL, Registry, found, refused

SIZE = len(CONTENT)
NAME = "library/alpine"
PATIENCE = 5.0
"""The most that a server waits for its client, in seconds: reached only by what is broken."""


def part(start: int, stop: int, content: bytes = CONTENT, **headers: str) -> Response:
    """A 206 of the bytes from `start` to `stop`."""
    said = {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}", "Content-Length": str(stop - start)}
    return Response(206, {**said, **headers}, content[start:stop])


# --- ranges ---


@pytest.mark.parametrize(
    ("start", "stop", "asked"),
    [(0, 1, "0-0"), (0, 5, "0-4"), (3, 7, "3-6"), (4, None, "4-"), (SIZE - 1, None, f"{SIZE - 1}-"), (2, SIZE, "2-20")],
)
def test_get_blob_range_sends_range_header(start: int, stop: int | None, asked: str) -> None:
    registry = Registry(part(start, stop or SIZE))
    with registry.client.get_blob_range(NAME, BLOB.digest, start, stop) as reader:
        assert reader.descriptor == BLOB  # of the whole
        assert reader.read() == CONTENT[start:stop]
        assert reader.read() == b""
        assert not reader.verified
    assert registry.lines == [f"GET {BASE}{PATH}"]
    assert registry.requests[0].headers.get_all("range") == (f"bytes={asked}",)
    registry.check_done()


@pytest.mark.parametrize(("start", "stop"), [(0, 5), (3, 7), (4, None), (0, SIZE), (0, None), (0, 1000), (4, 1000)])
def test_get_blob_range_answered_200_is_cut_to_range(start: int, stop: int | None) -> None:
    registry = Registry(found())
    with registry.client.get_blob_range(NAME, BLOB.digest, start, stop) as reader:
        assert reader.descriptor == BLOB
        assert reader.read() == CONTENT[start:stop]
    registry.check_done()


def test_get_blob_range_answered_200_skips_to_start() -> None:
    content = bytes(range(256)) * 4096
    start = len(content) - 300_000
    blob = Descriptor.of(content)
    registry = Registry(found(content))
    assert registry.client.get_blob_range(NAME, blob.digest, start, start + 9).read() == content[start : start + 9]
    registry.check_done()


@pytest.mark.parametrize("position", [0, 1, 7, SIZE, 10 * SIZE])
def test_get_blob_range_empty_range_sends_nothing(position: int) -> None:
    registry = Registry()
    with registry.client.get_blob_range(NAME, BLOB.digest, position, position) as reader:
        assert reader.read() == b""
        assert reader.readinto(bytearray(4)) == 0
        assert not reader.verified
    assert registry.requests == []


@pytest.mark.parametrize("stop", [SIZE + 1, 1000, 2**62])
def test_get_blob_range_stop_beyond_end_reads_to_end(stop: int) -> None:
    registry = Registry(part(4, SIZE))
    assert registry.client.get_blob_range(NAME, BLOB.digest, 4, stop).read() == CONTENT[4:]
    assert registry.requests[0].headers["range"] == f"bytes=4-{stop - 1}"
    registry.check_done()


def test_get_blob_range_shorter_206_requests_missing_bytes() -> None:
    """A server may send less than the range (RFC 9110, section 15.3.7): the rest is asked for, not left out."""
    registry = Registry(part(3, 6), part(6, 10))
    with registry.client.get_blob_range(NAME, BLOB.digest, 3, 10) as reader:
        assert reader.read() == CONTENT[3:10]
    assert [request.headers["range"] for request in registry.requests] == ["bytes=3-9", "bytes=6-9"]
    registry.check_done()


def test_get_blob_range_longer_206_is_cut() -> None:
    registry = Registry(part(3, SIZE))
    assert registry.client.get_blob_range(NAME, BLOB.digest, 3, 7).read() == CONTENT[3:7]
    registry.check_done()


def test_get_blob_range_206_of_unknown_size_sends_head() -> None:
    registry = Registry(Response(206, {"Content-Range": "bytes 3-6/*"}, CONTENT[3:7]), found())
    assert registry.client.get_blob_range(NAME, BLOB.digest, 3, 7).read() == CONTENT[3:7]
    assert registry.lines == [f"GET {BASE}{PATH}", f"HEAD {BASE}{PATH}"]
    registry.check_done()


def test_get_blob_range_accept_ranges_header_is_ignored() -> None:
    for accept in ({}, {"Accept-Ranges": "none"}, {"Accept-Ranges": "bytes"}):
        registry = Registry(part(3, 7, **accept))
        assert registry.client.get_blob_range(NAME, BLOB.digest, 3, 7).read() == CONTENT[3:7]


@pytest.mark.parametrize("read", [lambda reader: reader.verify(), lambda reader: (reader.read(), reader.verify())])
def test_get_blob_range_verify_raises_usage_error(read: Callable[[Any], object]) -> None:
    registry = Registry(part(3, 7))
    with registry.client.get_blob_range(NAME, BLOB.digest, 3, 7) as reader:
        with pytest.raises(errors.UsageError, match="part"):
            read(reader)
        assert not reader.verified
    registry.check_done()


def test_get_blob_range_whole_blob_is_verified() -> None:
    registry = Registry(part(0, SIZE), part(0, SIZE, b"X" + CONTENT[1:]))
    with registry.client.get_blob_range(NAME, BLOB.digest, 0, SIZE) as reader:
        assert reader.read() == CONTENT
    with registry.client.get_blob_range(NAME, BLOB.digest, 0, SIZE) as reader, pytest.raises(errors.DigestMismatch):
        reader.read()
    registry.check_done()


@pytest.mark.parametrize(
    "said",
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
def test_get_blob_range_206_of_other_range_raises_protocol_error(said: str | None) -> None:
    registry = Registry(Response(206, {} if said is None else {"Content-Range": said}, CONTENT[3:7]))
    with pytest.raises(errors.ProtocolError) as caught:
        registry.client.get_blob_range(NAME, BLOB.digest, 3, 7)
    assert caught.value.request is registry.requests[0]
    registry.check_done()


@pytest.mark.parametrize("answer", [Response(416, {"Content-Range": f"bytes */{SIZE}"}), refused(416, "RANGE_INVALID")])
def test_get_blob_range_416_raises_range_invalid(answer: Response) -> None:
    registry = Registry(answer)
    with pytest.raises(errors.RangeInvalid) as caught:
        registry.client.get_blob_range(NAME, BLOB.digest, 100, 200)
    assert caught.value.status == 416
    registry.check_done()


@pytest.mark.parametrize(
    ("refusal", "resolved"),
    [
        (Response(416, {"Content-Range": f"bytes */{SIZE}"}), []),
        (refused(416, "RANGE_INVALID"), [found()]),
        (refused(416, "BLOB_UNKNOWN"), [found()]),
    ],
)
def test_get_blob_range_open_range_refused_is_repeated_as_closed_range(
    refusal: Response, resolved: list[Response]
) -> None:
    part = Response(206, {"Content-Range": f"bytes 3-{SIZE - 1}/{SIZE}"}, CONTENT[3:])
    registry = Registry(refusal, *resolved, part)
    assert registry.client.get_blob_range(NAME, BLOB.digest, 3).read() == CONTENT[3:]
    assert [request.headers["range"] for request in registry.requests if request.method == "GET"] == [
        "bytes=3-",
        f"bytes=3-{SIZE - 1}",
    ]
    registry.check_done()


@pytest.mark.parametrize("start", [SIZE, SIZE + 1])
@pytest.mark.parametrize(
    ("refusal", "resolved"),
    [
        (Response(416, {"Content-Range": f"bytes */{SIZE}"}), []),
        (refused(416, "RANGE_INVALID"), [found()]),
        (refused(416, "RANGE_INVALID"), [refused(404), refused(404)]),  # a GET confirms that HEAD is right
    ],
)
def test_get_blob_range_open_range_beyond_end_raises_range_invalid(
    refusal: Response, resolved: list[Response], start: int
) -> None:
    registry = Registry(refusal, *resolved)
    with pytest.raises(errors.RangeInvalid) as caught:
        registry.client.get_blob_range(NAME, BLOB.digest, start)
    assert caught.value.status == 416
    registry.check_done()


@pytest.mark.parametrize("start", [SIZE, SIZE + 1, 10 * SIZE])
def test_get_blob_range_200_shorter_than_start_raises_range_invalid(start: int) -> None:
    registry = Registry(found())
    with pytest.raises(errors.RangeInvalid):
        registry.client.get_blob_range(NAME, BLOB.digest, start, start + 5).close()
    registry.check_done()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refused(404), errors.BlobUnknown),
        (refused(401), errors.Unauthorized),
        (refused(403), errors.Denied),
        (refused(500), errors.RegistryError),
        (Response(204), errors.RegistryError),
    ],
)
def test_get_blob_range_error_status_raises_registry_error(answer: Response, kind: type[errors.RegistryError]) -> None:
    registry = Registry(answer)
    with pytest.raises(errors.RegistryError) as caught:
        registry.client.get_blob_range(NAME, BLOB.digest, 1, 2)
    assert type(caught.value) is kind
    registry.check_done()


def test_get_blob_range_404_after_redirect_raises_blob_unknown() -> None:
    def elsewhere(request: Request) -> Response:
        return Response(404, (), b"<gone>", request.replace(url="https://cdn.example/data?signature=s"))

    registry = Registry(elsewhere)
    with pytest.raises(errors.BlobUnknown):
        registry.client.get_blob_range(NAME, BLOB.digest, 1, 2)


@pytest.mark.parametrize(
    ("start", "stop"),
    [(-1, 5), (5, 4), (0, -1), (1.0, 5), (0, 5.0), (True, 5), (0, True), ("0", 5), (0, "5"), (None, 5), (b"0", None)],
)
def test_get_blob_range_invalid_range_sends_nothing(start: Any, stop: Any) -> None:
    registry = Registry()
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
    registry = Registry()
    with pytest.raises(errors.UsageError):
        registry.client.get_blob_range(name, digest, start, stop)
    assert registry.requests == []


# --- a connection that is lost ---


class Breaking:
    """A response's body that comes to its end, or breaks, before it should.

    Args:
        content: What it would have been.
        count: The bytes that come.
        error: What is raised after them; None is an end like any other.
    """

    def __init__(self, content: bytes, count: int | None = None, error: Exception | None = None) -> None:
        self._file = io.BytesIO(content[:count])
        self._error = error
        self.closed = False

    def readinto(self, buffer: memoryview, /) -> int:
        assert not self.closed, "read after close"
        count = self._file.readinto(buffer)
        if count == 0 and self._error is not None:
            raise self._error
        return count

    def close(self) -> None:
        self.closed = True


class Blobs:
    """A registry of one blob, each answer of which breaks after so many bytes.

    Args:
        content: The blob.
        breaks: After how many bytes the answers break; None, and whatever comes after them, is not at all.
        ranges: Whether it does ranges, or sends the whole whatever was asked for.
        error: Makes what is raised at a break; None is an early end.
        stated: Whether a Content-Length is sent with a 200.
        even_after_all: Whether an answer also breaks after its last byte.
    """

    def __init__(
        self,
        content: bytes,
        breaks: Sequence[int | None],
        *,
        ranges: bool = True,
        error: Callable[[], Exception] | None = lambda: errors.ReadError("reset"),
        stated: bool = True,
        even_after_all: bool = False,
    ) -> None:
        self.blob = Descriptor.of(content)
        self.requests: list[Request] = []
        self.bodies: list[Breaking] = []
        self._content = content
        self._breaks = list(breaks)
        self._ranges = ranges
        self._error = error
        self._stated = stated
        self._even_after_all = even_after_all
        self.client = Client("registry.example", FunctionTransport(self._answer))

    @property
    def asked(self) -> list[str]:
        """The ranges that were asked for."""
        return [request.headers.get("range", "") for request in self.requests if request.method == "GET"]

    def _answer(self, request: Request) -> Response:
        self.requests.append(request)
        size = len(self._content)
        length = {"Content-Length": str(size)}
        if request.method == "HEAD":
            return Response(200, length, b"")
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if wanted is None or not self._ranges:
            return Response(200, length if self._stated else {}, self._body(self._content))
        start, last = int(wanted[1]), min(int(wanted[2] or size - 1), size - 1)
        headers = {"Content-Range": f"bytes {start}-{last}/{size}"}
        return Response(206, headers, self._body(self._content[start : last + 1]))

    def _body(self, content: bytes) -> Breaking:
        count = self._breaks.pop(0) if self._breaks else None
        breaks = count is not None and (count < len(content) or self._even_after_all)
        error = self._error() if breaks and self._error is not None else None
        self.bodies.append(Breaking(content, count, error))
        return self.bodies[-1]

    def check_closed(self) -> None:
        assert [body.closed for body in self.bodies] == [True] * len(self.bodies)


BREAKS: dict[str, Callable[[], Exception] | None] = {
    "reset": lambda: errors.ReadError("reset"),
    "end": None,
}
broken = pytest.mark.parametrize("error", BREAKS.values(), ids=BREAKS)


@broken
def test_get_blob_connection_lost_resumes_at_position(error: Callable[[], Exception] | None) -> None:
    registry = Blobs(CONTENT, [5, 4], error=error)
    with registry.client.get_blob(NAME, registry.blob.digest) as reader:
        assert reader.read(7) == CONTENT[:7]
        assert reader.read() == CONTENT[7:]
        assert reader.verified
    assert registry.asked == ["", "bytes=5-20", "bytes=9-20"]


@broken
def test_get_blob_connection_lost_after_each_byte_resumes_each_time(error: Callable[[], Exception] | None) -> None:
    registry = Blobs(CONTENT, [1] * (SIZE - 1), error=error)
    with registry.client.get_blob(NAME, registry.blob.digest) as reader:
        assert reader.read() == CONTENT
        assert reader.verified
    assert registry.asked == ["", *(f"bytes={start}-20" for start in range(1, SIZE))]
    registry.check_closed()


def test_get_blob_resumed_after_redirect_repeats_original_request() -> None:
    """Registry, scope and info: what a redirect led to may have expired."""

    def redirected(request: Request) -> Response:
        requests.append(request)
        moved = request.replace(url="https://cdn.example/data?signature=expired")
        start = 0 if len(requests) == 1 else 6
        headers = {"Content-Range": f"bytes {start}-20/21"} if start else {"Content-Length": "21"}
        body = Breaking(CONTENT[start:]) if start else Breaking(CONTENT, 6, errors.ReadError("reset"))
        return Response(206 if start else 200, headers, body, moved)

    requests: list[Request] = []
    client = Client("registry.example", FunctionTransport(redirected)).with_options(
        deadline=1e12, timeout=3.0, extra={"tenant": 7}
    )
    assert client.get_blob(NAME, BLOB.digest).read() == CONTENT
    first, again = requests
    assert (again.method, again.url) == ("GET", f"{BASE}{PATH}")
    assert again.info == first.info
    assert (first.info.deadline, first.info.timeout, dict(first.info.extra)) == (1e12, 3.0, {"tenant": 7})
    assert str(again.info.required_scope) == PULL
    assert again.info.operation == "get_blob"
    assert dict(again.headers) == {**first.headers, "range": "bytes=6-20"}


@broken
def test_get_blob_resumed_without_progress_raises_original_error(error: Callable[[], Exception] | None) -> None:
    registry = Blobs(CONTENT, [5, 0, 0, 0, 0], error=error)
    kind = errors.SizeMismatch if error is None else errors.ReadError
    with registry.client.get_blob(NAME, registry.blob.digest) as reader:
        with pytest.raises(kind) as caught:
            reader.read()
        assert not reader.verified
    assert len(registry.asked) == 2
    if isinstance(caught.value, errors.SizeMismatch):
        assert (caught.value.expected, caught.value.actual) == (SIZE, 5)
    registry.check_closed()


@broken
def test_get_blob_connection_lost_before_first_byte_resumes_once(error: Callable[[], Exception] | None) -> None:
    registry = Blobs(CONTENT, [0], error=error)
    assert registry.client.get_blob(NAME, registry.blob.digest).read() == CONTENT
    assert registry.asked == ["", "bytes=0-20"]
    registry.check_closed()


@broken
@pytest.mark.parametrize(("status", "code"), [(416, ""), (404, ""), (404, "BLOB_UNKNOWN"), (403, "DENIED"), (500, "")])
def test_get_blob_resume_refused_raises_original_error(
    status: int, code: str, error: Callable[[], Exception] | None
) -> None:
    lost = None if error is None else error()
    body = Breaking(CONTENT, 5, lost)
    registry = Registry(lambda request: Response(200, {"Content-Length": "21"}, body), refused(status, code))
    with registry.client.get_blob(NAME, BLOB.digest) as reader, pytest.raises(errors.OciwireError) as caught:
        reader.read()
    if lost is None:
        assert isinstance(caught.value, errors.SizeMismatch)
    else:
        assert caught.value is lost
    assert isinstance(caught.value.__cause__, errors.RegistryError)
    assert caught.value.__cause__.status == status
    assert body.closed
    registry.check_done()


def test_get_blob_resume_connect_error_propagates() -> None:
    body = Breaking(CONTENT, 5, errors.ReadError("reset"))
    refusal = errors.ConnectError("refused")
    registry = Registry(lambda request: Response(200, {"Content-Length": "21"}, body), refusal)
    with registry.client.get_blob(NAME, BLOB.digest) as reader, pytest.raises(errors.ConnectError) as caught:
        reader.read()
    assert caught.value is refusal
    assert body.closed


@pytest.mark.parametrize(
    "error",
    [
        errors.TransportTimeout("late"),
        errors.ProtocolError("no chunk"),
        OSError("foreign"),
        ZeroDivisionError("foreign"),
    ],
)
def test_get_blob_other_error_is_not_resumed(error: Exception) -> None:
    body = Breaking(CONTENT, 5, error)
    registry = Registry(lambda request: Response(200, {"Content-Length": "21"}, body))
    with registry.client.get_blob(NAME, BLOB.digest) as reader, pytest.raises(type(error)) as caught:
        reader.read()
    assert caught.value is error
    assert len(registry.requests) == 1
    assert body.closed


@pytest.mark.parametrize(
    "said", [None, "bytes 0-20/21", "bytes 4-20/21", "bytes 6-20/21", "bytes */21", "5-20/21", "bytes 5-20"]
)
def test_get_blob_resumed_at_other_position_raises_protocol_error(said: str | None) -> None:
    body = Breaking(CONTENT, 5, errors.ReadError("reset"))
    headers = {} if said is None else {"Content-Range": said}
    registry = Registry(
        lambda request: Response(200, {"Content-Length": "21"}, body), Response(206, headers, CONTENT[5:])
    )
    with registry.client.get_blob(NAME, BLOB.digest) as reader, pytest.raises(errors.ProtocolError) as caught:
        reader.read()
    assert caught.value.request is registry.requests[1]
    assert body.closed
    registry.check_done()


@broken
def test_get_blob_resumed_without_range_support_skips_to_position(error: Callable[[], Exception] | None) -> None:
    registry = Blobs(CONTENT, [5, 9, 20], ranges=False, error=error)
    with registry.client.get_blob(NAME, registry.blob.digest) as reader:
        assert reader.read() == CONTENT
        assert reader.verified
    assert registry.asked == ["", "bytes=5-20", "bytes=9-20", "bytes=20-20"]
    registry.check_closed()


class Large:
    """A blob of many bytes, all of them nought, that are counted as they are read; or one that breaks after them."""

    def __init__(self, size: int, *, breaks: bool = False) -> None:
        self.left = size
        self._breaks = breaks
        self.read = 0
        self.closed = False

    def readinto(self, buffer: memoryview, /) -> int:
        count = min(len(buffer), self.left)
        buffer[:count] = bytes(count)
        self.left -= count
        self.read += count
        if self._breaks and not count:
            raise errors.ReadError("reset")
        return count

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(("position", "fits"), [(64 * 1024 * 1024, True), (64 * 1024 * 1024 + 1, False)])
def test_get_blob_resumed_without_range_support_skips_at_most_64_mebibytes(position: int, fits: bool) -> None:
    size = position + 3
    bodies = [Large(position, breaks=True), Large(size)]
    hasher = hashlib.sha256()
    for _ in range(size // 4096):
        hasher.update(bytes(4096))
    hasher.update(bytes(size % 4096))
    digest = Digest(f"sha256:{hasher.hexdigest()}")
    answers = iter(bodies)
    client = Client(
        "registry.example",
        FunctionTransport(lambda request: Response(200, {"Content-Length": str(size)}, next(answers))),
    )
    buffer = bytearray(1024 * 1024)
    with client.get_blob(NAME, digest) as reader:
        total = 0
        while total < position:
            total += reader.readinto(buffer)
        if fits:
            assert reader.read() == bytes(3)
            assert reader.verified
        else:
            with pytest.raises(errors.ProtocolError):
                reader.read()
            assert bodies[1].read <= 1024  # not read away first
    assert [body.closed for body in bodies] == [True, True]


@broken
def test_get_blob_range_connection_lost_resumes_at_position(error: Callable[[], Exception] | None) -> None:
    registry = Blobs(CONTENT, [2, 3], error=error)
    with registry.client.get_blob_range(NAME, registry.blob.digest, 4, 15) as reader:
        assert reader.read() == CONTENT[4:15]
    assert registry.asked == ["bytes=4-14", "bytes=6-14", "bytes=9-14"]
    assert {request.info.operation for request in registry.requests} == {"get_blob_range"}
    registry.check_closed()


@broken
def test_get_blob_range_open_range_lost_resumes_with_closed_range(error: Callable[[], Exception] | None) -> None:
    registry = Blobs(CONTENT, [2], error=error)
    assert registry.client.get_blob_range(NAME, registry.blob.digest, 4).read() == CONTENT[4:]
    assert registry.asked == ["bytes=4-", "bytes=6-20"]


@broken
def test_get_blob_range_resumed_without_range_support_skips_to_position(error: Callable[[], Exception] | None) -> None:
    registry = Blobs(CONTENT, [7, 8], ranges=False, error=error)
    assert registry.client.get_blob_range(NAME, registry.blob.digest, 4, 15).read() == CONTENT[4:15]
    assert registry.asked == ["bytes=4-14", "bytes=7-14", "bytes=8-14"]
    registry.check_closed()


def test_get_blob_without_content_length_resumes_with_size_of_head() -> None:
    registry = Blobs(CONTENT, [6], stated=False)
    assert registry.client.get_blob(NAME, registry.blob.digest).read() == CONTENT
    assert registry.asked == ["", "bytes=6-20"]
    registry.check_closed()


def test_get_blob_connection_lost_after_last_byte_succeeds() -> None:
    """As over chunks, whose last mark did not come: what was asked for is there, and its digest is right."""
    registry = Blobs(CONTENT, [SIZE], stated=False, even_after_all=True)
    with registry.client.get_blob(NAME, registry.blob.digest) as reader:
        assert reader.read() == CONTENT
        assert reader.verified
    registry.check_closed()


def test_get_blob_resumed_with_other_bytes_raises_digest_mismatch() -> None:
    body = Breaking(CONTENT, 5, errors.ReadError("reset"))
    other = b"X" * SIZE
    registry = Registry(lambda request: Response(200, {"Content-Length": "21"}, body), part(5, SIZE, other))
    with registry.client.get_blob(NAME, BLOB.digest) as reader, pytest.raises(errors.DigestMismatch):
        reader.read()
    registry.check_done()


def test_get_blob_resumed_with_extra_bytes_raises_size_mismatch() -> None:
    body = Breaking(CONTENT, 5, errors.ReadError("reset"))
    more = Response(206, {"Content-Range": "bytes 5-20/21"}, CONTENT[5:] + b"more")
    registry = Registry(lambda request: Response(200, {"Content-Length": "21"}, body), more)
    with registry.client.get_blob(NAME, BLOB.digest) as reader, pytest.raises(errors.SizeMismatch):
        reader.read()
    registry.check_done()


@given(
    content=st.binary(max_size=300),
    breaks=st.lists(st.none() | st.integers(0, 300), max_size=12),
    ranges=st.booleans(),
    stated=st.booleans(),
    reset=st.booleans(),
    even_after_all=st.booleans(),
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=4),
    bounds=st.none() | st.tuples(st.integers(0, 300), st.integers(0, 300)),
)
def test_get_blob_range_any_breaks_reads_right_bytes_or_raises(
    content: bytes,
    breaks: list[int | None],
    ranges: bool,
    stated: bool,
    reset: bool,
    even_after_all: bool,
    sizes: list[int],
    bounds: tuple[int, int] | None,
) -> None:
    error = (lambda: errors.ReadError("reset")) if reset else None
    registry = Blobs(content, breaks, ranges=ranges, stated=stated, error=error, even_after_all=even_after_all)
    start, stop = (0, None) if bounds is None else (min(bounds, default=0) % (len(content) + 1), max(bounds))
    wanted, read = content[start:stop], b""
    try:
        with registry.client.get_blob_range(NAME, registry.blob.digest, start, stop) as reader:
            while piece := reader.read(sizes[len(read) % len(sizes)]):
                read += piece
    except (errors.ReadError, errors.ContentError, errors.ProtocolError, errors.RangeInvalid):
        assert wanted.startswith(read)  # what came before the error was right
    else:
        assert read == wanted
    registry.check_closed()


@given(
    content=st.binary(min_size=1, max_size=200),
    breaks=st.lists(st.integers(1, 50), max_size=12),
    ranges=st.booleans(),
    reset=st.booleans(),
)
def test_get_blob_any_breaks_with_progress_reads_whole_blob(
    content: bytes, breaks: list[int], ranges: bool, reset: bool
) -> None:
    if not ranges:  # the whole again and again: each time further than before
        breaks = sorted({count for count in breaks if count < len(content)})
    registry = Blobs(content, breaks, ranges=ranges, error=(lambda: errors.ReadError("reset")) if reset else None)
    with registry.client.get_blob(NAME, registry.blob.digest) as reader:
        assert reader.read() == content
        assert reader.verified
    registry.check_closed()


# --- over real sockets ---


@final
class Server:
    """Listens on loopback; each connection is answered once, as the next of the scripts says, and cut.

    Args:
        scripts: The bytes to send after the request's head, and whether the connection then ends in a reset.
    """

    def __init__(self, *scripts: tuple[bytes, bool]) -> None:
        self.heads: list[bytes] = []
        self._scripts = scripts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE)
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)
        self._read = threading.Semaphore(0)
        self._error: BaseException | None = None

    def _run(self) -> None:
        try:
            for data, reset in self._scripts:
                sock, _ = self._listener.accept()
                with sock:
                    self._answer(sock, data, reset=reset)
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            self._error = error

    def _answer(self, sock: socket.socket, data: bytes, *, reset: bool) -> None:
        sock.settimeout(PATIENCE)
        head = b""
        while b"\r\n\r\n" not in head:
            more = sock.recv(65536)
            assert more, "the client has gone"
            head += more
        self.heads.append(head)
        sock.sendall(data)
        if reset:  # it throws away what the other side has not read, and so comes when all has been
            assert self._read.acquire(timeout=PATIENCE)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def was_read(self) -> None:
        """What was sent so far has been read: a reset may come."""
        self._read.release()

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # nobody will come
        self._thread.join(2 * PATIENCE)
        self._listener.close()
        assert not self._thread.is_alive()
        if kind is None and self._error is not None:
            raise self._error

    @property
    def ranges(self) -> list[str]:
        found = [re.search(rb"(?im)^range: *(\S+)\r$", head) for head in self.heads]
        return ["" if match is None else match[1].decode() for match in found]


@pytest.fixture
def transport() -> Iterator[UrllibTransport]:
    transport = UrllibTransport(timeout=PATIENCE, trust_env=False)
    with contextlib.closing(transport):
        yield transport


def sent(status: str, *fields: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode() + body


def whole(count: int, *, framing: str = "Content-Length: 21") -> bytes:
    if framing.startswith("Transfer-Encoding"):
        return sent("200 OK", framing, body=b"15\r\n" + CONTENT[:count])
    return sent("200 OK", framing, body=CONTENT[:count])


def rest(start: int, count: int | None = None) -> bytes:
    stop = SIZE if count is None else start + count
    fields = f"Content-Range: bytes {start}-20/21", f"Content-Length: {SIZE - start}"
    return sent("206 Partial Content", *fields, body=CONTENT[start:stop])


@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
def test_get_blob_socket_closed_resumes_at_position(transport: UrllibTransport, reset: bool) -> None:
    with Server((whole(5), reset), (rest(5, 4), reset), (rest(9), False)) as server:
        client = Client(server.host, transport, insecure=True)
        with client.get_blob(NAME, BLOB.digest) as reader:
            read = b""
            for count in (5, 4, 12):
                while count:
                    piece = reader.read(count)
                    read, count = read + piece, count - len(piece)
                server.was_read()
            assert read == CONTENT
            assert reader.verified
    assert server.ranges == ["", "bytes=5-20", "bytes=9-20"]
    assert all(head.startswith(f"GET {PATH} ".encode()) for head in server.heads)


def test_get_blob_socket_closed_within_chunk_resumes_at_position(transport: UrllibTransport) -> None:
    chunked = whole(5, framing="Transfer-Encoding: chunked")
    head = sent("200 OK", "Content-Length: 21", "Connection: close")
    with Server((chunked, False), (head, False), (rest(5), False)) as server:
        client = Client(server.host, transport, insecure=True)
        assert client.get_blob(NAME, BLOB.digest).read() == CONTENT
    assert server.ranges == ["", "", "bytes=5-20"]
    assert server.heads[1].startswith(b"HEAD ")


def test_get_blob_range_socket_closed_resumes_at_position(transport: UrllibTransport) -> None:
    with Server((rest(4, 3), False), (rest(7), False)) as server:
        client = Client(server.host, transport, insecure=True)
        with client.get_blob_range(NAME, BLOB.digest, 4) as reader:
            assert reader.read() == CONTENT[4:]
    assert server.ranges == ["bytes=4-", "bytes=7-20"]


def test_get_blob_socket_closed_repeatedly_raises_read_error(transport: UrllibTransport) -> None:
    with Server((whole(5), False), (rest(5, 0), False)) as server:
        client = Client(server.host, transport, insecure=True)
        with client.get_blob(NAME, BLOB.digest) as reader, pytest.raises(errors.ReadError):
            reader.read()
    assert server.ranges == ["", "bytes=5-20"]


def test_get_blob_socket_closed_without_range_support_skips_to_position(transport: UrllibTransport) -> None:
    with Server((whole(5), False), (whole(SIZE), False)) as server:
        client = Client(server.host, transport, insecure=True)
        assert client.get_blob(NAME, BLOB.digest).read() == CONTENT
    assert server.ranges == ["", "bytes=5-20"]
