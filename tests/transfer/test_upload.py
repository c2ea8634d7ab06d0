"""`ociwire.transfer.upload`: all kinds of sources, all faults at all requests, and refusals of registries."""

from __future__ import annotations

import contextlib
import contextvars
import io
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ociwire import Body, Client, Descriptor, Digest, Request, Response, Transport, default_transport
from ociwire.auth import Anonymous
from ociwire.errors import (
    AuthError,
    BlobUploadUnknown,
    DigestInvalid,
    OciwireError,
    RangeInvalid,
    ReadError,
    RegistryError,
    SizeInvalid,
    SizeMismatch,
    TransportTimeout,
    UsageError,
)
from ociwire.testing import MemoryRegistry
from ociwire.transfer import _content as hashing
from ociwire.transfer._progress import Progress, ProgressReporter
from ociwire.transfer._upload import upload
from ociwire.transfer._workers import Cancelled
from tests._support.fault_world import (
    CREDENTIALS,
    FAULT_NAMES,
    HOST,
    NAME,
    Numbered,
    World,
    blob,
    check_whole,
    faults_of,
    warm,
)

pytestmark = pytest.mark.usefixtures("no_threads_left")

MIB = 1024 * 1024
SMALL = blob(11, 3000)
STREAMED = blob(14, 4 * MIB + 5)
LARGE = blob(12, 9 * MIB + 5)
HUGE = blob(13, 33 * MIB)
MOST_REQUESTS = 40


class Recorder:
    """Layer that records requests, and forwards them unless `intercept` returns a response.

    Attributes:
        methods: The methods of the requests.
        sizes: The lengths of their bodies in bytes.
    """

    def __init__(
        self, inner: Transport, intercept: Callable[[Request, Transport], Response | None] = lambda request, inner: None
    ) -> None:
        self.inner = inner
        self.methods: list[str] = []
        self.sizes: list[int] = []
        self._intercept = intercept

    def round_trip(self, request: Request, /) -> Response:
        self.methods.append(request.method)
        self.sizes.append((request.body.length or 0) if request.body is not None else 0)
        response = self._intercept(request, self.inner)
        return self.inner.round_trip(request) if response is None else response

    def close(self) -> None:
        self.inner.close()


def pieces(content: bytes, size: int = 700_001) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


KINDS = ("path", "file", "bytes", "bytearray", "list", "reader", "single-use", "body", "single-use body")
SINGLE_USE = ("reader", "single-use", "single-use body")


def source_of(kind: str, content: bytes, folder: Path) -> Any:
    if kind == "path":
        path = folder / "content"
        path.write_bytes(content)
        return path
    if kind == "file":
        file = io.BytesIO(b"before" + content)
        file.seek(6)
        return file
    if kind == "reader":
        return Reader(content)
    return {
        "bytes": content,
        "bytearray": bytearray(content),
        "list": list(pieces(content)),
        "single-use": pieces(content),
        "body": Body.of(content).map(bytes),
        "single-use body": Body.of(pieces(content), len(content)),
    }[kind]


class Reader:
    """Reader that has no `seek`."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
def recorder(registry: MemoryRegistry) -> Recorder:
    return Recorder(registry)


@pytest.fixture
def client(recorder: Recorder) -> Client:
    return Client(HOST, recorder)


def check_stored(registry: MemoryRegistry, content: bytes, algorithm: str = "sha256") -> None:
    assert Client(HOST, registry).get_blob(NAME, Digest.of(content, algorithm)).read() == content
    assert registry.open_uploads == 0


# Requests and stored content


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [b"", b"x", SMALL, LARGE], ids=["empty", "one byte", "small", "large"])
@pytest.mark.parametrize("known", [False, True], ids=["hashed", "digest known"])
def test_upload_any_source_stores_content(
    kind: str, content: bytes, known: bool, registry: MemoryRegistry, client: Client, tmp_path: Path
) -> None:
    source = source_of(kind, content, tmp_path)
    digest = Digest.of(content) if known else None
    assert upload(client, NAME, source, digest=digest) == Descriptor.of(content)
    check_stored(registry, content)
    if kind == "file":
        assert not source.closed


@pytest.mark.parametrize(
    ("kind", "content", "known", "methods"),
    [
        ("path", SMALL, False, ["POST", "PUT"]),
        ("path", SMALL, True, ["HEAD", "POST", "PUT"]),
        ("path", LARGE, False, ["POST", "PATCH", "PUT"]),
        ("path", LARGE, True, ["HEAD", "POST", "PUT"]),
        ("path", HUGE, True, ["HEAD", "POST", "PATCH", "PUT"]),
        ("single-use", SMALL, False, ["POST", "PUT"]),
        ("single-use", LARGE, False, ["POST", "PATCH", "PATCH", "PUT"]),
    ],
)
def test_upload_takes_the_fewest_requests(
    kind: str, content: bytes, known: bool, methods: list[str], client: Client, recorder: Recorder, tmp_path: Path
) -> None:
    upload(client, NAME, source_of(kind, content, tmp_path), digest=Digest.of(content) if known else None)
    assert recorder.methods == methods


def test_upload_path_as_str_stores_content(client: Client, registry: MemoryRegistry, tmp_path: Path) -> None:
    upload(client, NAME, str(source_of("path", SMALL, tmp_path)))
    check_stored(registry, SMALL)


def test_upload_blob_exists_sends_only_head(client: Client, recorder: Recorder) -> None:
    client.push_blob(NAME, Descriptor.of(LARGE), LARGE)
    recorder.methods.clear()
    events: list[Progress] = []
    digest = Digest.of(LARGE)
    unread = iter(lambda: pytest.fail("the source is read"), b"")
    descriptor = upload(client, NAME, unread, digest=digest, media_type="a/b", progress=events.append)
    assert descriptor == Descriptor.of(LARGE, "a/b")
    assert recorder.methods == ["HEAD"]
    assert events == [Progress("upload", digest, len(LARGE), len(LARGE))]


def test_upload_requests_one_token() -> None:
    world = World()
    world.fail(rate=0.0)
    upload(world.client, NAME, SMALL, digest=Digest.of(SMALL))
    assert len(world.guard.asked) == 1


def test_upload_mount_from_mounts_the_blob(client: Client, registry: MemoryRegistry, recorder: Recorder) -> None:
    client.push_blob("team/base", Descriptor.of(LARGE), LARGE)
    recorder.methods.clear()
    upload(client, NAME, LARGE, digest=Digest.of(LARGE), mount_from="team/base")
    assert recorder.methods == ["HEAD", "POST", "HEAD"]
    check_stored(registry, LARGE)


@pytest.mark.parametrize("answer", [AuthError("no token"), 400, 401, 403, 404, 405, 501], ids=str)
def test_upload_mount_refused_sends_the_blob(answer: int | Exception, registry: MemoryRegistry) -> None:
    recorder = Recorder(registry, refusal_of_mounts(answer))
    upload(Client(HOST, recorder), NAME, LARGE, digest=Digest.of(LARGE), mount_from="team/base")
    check_stored(registry, LARGE)
    assert recorder.methods == ["HEAD", "POST", "POST", "PUT"]


@pytest.mark.parametrize("answer", [408, 429, 500, 503])
def test_upload_mount_fails_temporarily_raises(answer: int, registry: MemoryRegistry) -> None:
    recorder = Recorder(registry, refusal_of_mounts(answer))
    with pytest.raises(RegistryError):
        upload(Client(HOST, recorder), NAME, LARGE, digest=Digest.of(LARGE), mount_from="team/base")
    assert recorder.methods == ["HEAD", "POST"]


def refusal_of_mounts(answer: int | Exception) -> Callable[[Request, Transport], Response | None]:
    def refuse(request: Request, inner: Transport) -> Response | None:
        if "mount=" not in request.url:
            return None
        if isinstance(answer, Exception):
            raise answer
        return Response(answer)

    return refuse


@pytest.mark.parametrize("kind", ["path", "single-use"])
def test_upload_session_opened_by_mount_is_used(kind: str, tmp_path: Path) -> None:
    registry = MemoryRegistry(mounts=False, min_chunk_length=5 * MIB)
    recorder = Recorder(registry)
    source = source_of(kind, LARGE, tmp_path)
    upload(Client(HOST, recorder), NAME, source, digest=Digest.of(LARGE), mount_from="team/base")
    check_stored(registry, LARGE)
    assert recorder.methods == ["HEAD", "POST", *(["PATCH"] if kind == "single-use" else []), "PUT"]


def test_upload_session_opened_by_mount_is_cancelled(tmp_path: Path) -> None:
    registry = MemoryRegistry(mounts=False)
    with pytest.raises(DigestInvalid):
        upload(Client(HOST, registry), NAME, SMALL, digest=Digest.of(LARGE), mount_from="team/base")
    assert registry.open_uploads == 0


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
@pytest.mark.parametrize("kind", ["path", "single-use"])
def test_upload_other_algorithm_stores_content(
    algorithm: str, kind: str, client: Client, registry: MemoryRegistry, tmp_path: Path
) -> None:
    digest = Digest.of(LARGE, algorithm)
    assert upload(client, NAME, source_of(kind, LARGE, tmp_path), digest=digest).digest == digest
    check_stored(registry, LARGE, algorithm)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_upload_wrong_digest_raises_digest_invalid(
    kind: str, content: bytes, client: Client, registry: MemoryRegistry, recorder: Recorder, tmp_path: Path
) -> None:
    with pytest.raises(DigestInvalid):
        upload(client, NAME, source_of(kind, content, tmp_path), digest=Digest.of(b"other"))
    assert registry.open_uploads == registry.stored_bytes == 0
    assert recorder.methods.count("POST") == 1  # a wrong digest is not retried


# Chunks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk_size", [1, 999, 1000, 3000, 3001])
def test_upload_chunk_size_limits_requests(
    kind: str, chunk_size: int, client: Client, registry: MemoryRegistry, recorder: Recorder, tmp_path: Path
) -> None:
    content = SMALL if chunk_size > 1 else SMALL[:20]
    upload(client, NAME, source_of(kind, content, tmp_path), chunk_size=chunk_size)
    check_stored(registry, content)
    assert max(recorder.sizes) == min(chunk_size, len(content))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
def test_upload_min_chunk_length_is_respected(kind: str, content: bytes, tmp_path: Path) -> None:
    registry = MemoryRegistry(min_chunk_length=5 * MIB)
    for chunk_size in (None, 1000):
        upload(Client(HOST, registry), NAME, source_of(kind, content, tmp_path), chunk_size=chunk_size)
    check_stored(registry, content)


@pytest.mark.parametrize("status", [413, 416])
@pytest.mark.parametrize("limit", [4 * MIB, 3 * MIB, MIB])
@pytest.mark.parametrize("kind", ["path", "bytearray", "single-use"])
def test_upload_request_too_large_halves_and_remembers_the_size(
    status: int, limit: int, kind: str, registry: MemoryRegistry, tmp_path: Path
) -> None:
    refused = []

    def refuse(request: Request, inner: Transport) -> Response | None:
        if request.body is None or (request.body.length or 0) <= limit:
            return None
        refused.append(request.body.length)
        return Response(status)

    client = Client(HOST, Recorder(registry, refuse))
    upload(client, NAME, source_of(kind, LARGE, tmp_path))
    check_stored(registry, LARGE)
    refused.clear()
    upload(client, NAME, source_of(kind, LARGE[1:], tmp_path))
    check_stored(registry, LARGE[1:])
    assert not refused


@pytest.mark.parametrize("kind", ["path", "single-use"])
def test_upload_every_size_refused_raises(kind: str, registry: MemoryRegistry, tmp_path: Path) -> None:
    def refuse(request: Request, inner: Transport) -> Response | None:
        return Response(413) if request.body is not None else None

    with pytest.raises(SizeInvalid):
        upload(Client(HOST, Recorder(registry, refuse)), NAME, source_of(kind, LARGE, tmp_path))
    assert registry.open_uploads == 0


# Faults


Case = tuple[bytes, "int | None", bool]
CASES: tuple[Case, ...] = ((SMALL, None, False), (SMALL, 1000, False), (SMALL, 1000, True), (STREAMED, None, False))
"""Content, chunk size, and whether the digest is known. Together the cases send all kinds of requests."""


def outcome_of(kind: str, fault: str, number: int, case: Case, folder: Path) -> bool:
    """Upload with a fault at the request with this number. Return false if the upload has no such request."""
    content, chunk_size, known = case
    world, where = World(), Numbered(number)
    world.fail(rate=1.0, faults=[faults_of(world)[fault]], where=where)
    warm(world)
    where.begin()
    digest = Digest.of(content) if known else None
    counts: list[int] = []
    try:
        descriptor = upload(
            world.client,
            NAME,
            source_of(kind, content, folder),
            digest=digest,
            chunk_size=chunk_size,
            progress=lambda event: counts.append(event.done),
        )
    except OciwireError:
        pass
    else:
        assert descriptor == Descriptor.of(content)
        assert world.direct.get_blob(NAME, descriptor.digest).read() == content
        assert counts[-1] == len(content)
    assert counts == sorted(set(counts)) or counts[:-1] == sorted(set(counts))
    # A POST whose response was lost leaves a session that the client cannot cancel.
    orphans = sum(1 for request in world.faults.injected if request.method == "POST")
    assert world.registry.open_uploads <= orphans
    assert not world.watch.open
    check_whole(world)
    return bool(world.faults.injected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["path", "file", "bytes", "single-use"])
@pytest.mark.parametrize("fault", FAULT_NAMES)
def test_upload_fault_at_each_request_completes_or_raises(kind: str, fault: str, tmp_path: Path) -> None:
    for case in CASES:
        for number in range(MOST_REQUESTS):
            if not outcome_of(kind, fault, number, case, tmp_path):
                assert number > 0
                break
        else:
            pytest.fail("the requests do not end")


class BrokenUpload:
    """Layer whose first PATCH requests fail after the registry has stored the first `stored` bytes of the body."""

    def __init__(self, inner: Transport, stored: int, times: int = 1) -> None:
        self._inner = inner
        self._stored = stored
        self.times = times
        self.requests: list[tuple[str, str | None]] = []

    def round_trip(self, request: Request, /) -> Response:
        self.requests.append((request.method, request.headers.get("content-range")))
        if self.times and request.method == "PATCH" and request.body is not None:
            self.times -= 1
            part = b"".join(request.body.open())[: self._stored]
            if part:
                self._inner.round_trip(Request("PATCH", request.url, body=part)).drain()
            raise ReadError("connection lost", request=request)
        return self._inner.round_trip(request)

    def close(self) -> None:
        self._inner.close()


@pytest.mark.parametrize("stored", [0, 1, 5 * MIB, len(LARGE) - 1, len(LARGE)])
@pytest.mark.parametrize("kind", ["path", "file", "bytes", "bytearray", "list", "body"])
def test_upload_connection_lost_resumes_at_offset(
    kind: str, stored: int, registry: MemoryRegistry, tmp_path: Path
) -> None:
    broken = BrokenUpload(registry, stored)
    upload(Client(HOST, broken), NAME, source_of(kind, LARGE, tmp_path))
    check_stored(registry, LARGE)
    assert [method for method, _ in broken.requests[:3]] == ["POST", "PATCH", "GET"]
    ranges = [range_ for _, range_ in broken.requests if range_]
    if 1 < stored < len(LARGE):
        assert ranges[0].startswith(f"{stored}-")
    assert sum(method == "POST" for method, _ in broken.requests) == 1


@pytest.mark.parametrize("kind", ["path", "single-use"])
def test_upload_faults_with_progress_are_tolerated(kind: str, registry: MemoryRegistry, tmp_path: Path) -> None:
    state = {"number": 0}

    def fail_every_second(request: Request, inner: Transport) -> Response | None:
        if request.method in ("PATCH", "PUT"):
            state["number"] += 1
            if state["number"] % 2:
                raise ReadError("connection lost", request=request)
        return None

    upload(Client(HOST, Recorder(registry, fail_every_second)), NAME, source_of(kind, SMALL, tmp_path), chunk_size=100)
    check_stored(registry, SMALL)


@pytest.mark.parametrize("kind", SINGLE_USE)
def test_upload_single_use_connection_lost_resumes(kind: str, registry: MemoryRegistry, tmp_path: Path) -> None:
    upload(Client(HOST, BrokenUpload(registry, MIB)), NAME, source_of(kind, LARGE, tmp_path))
    check_stored(registry, LARGE)


def test_upload_consumed_body_raises_usage_error(client: Client, recorder: Recorder) -> None:
    body = Body.of(pieces(LARGE))
    next(body.open())
    with pytest.raises(UsageError, match="only once"):
        upload(client, NAME, body)
    assert not recorder.methods


@pytest.mark.parametrize("length", [len(LARGE) - 1, len(LARGE) + 1])
def test_upload_body_length_wrong_raises_size_mismatch(length: int, registry: MemoryRegistry, client: Client) -> None:
    with pytest.raises(SizeMismatch):
        upload(client, NAME, Body.of(pieces(LARGE), length))
    assert registry.open_uploads == registry.stored_bytes == 0


@pytest.mark.parametrize("kind", ["path", "single-use"])
def test_upload_faults_without_progress_raise(kind: str, registry: MemoryRegistry, tmp_path: Path) -> None:
    error = ReadError("connection lost")

    def fail_always(request: Request, inner: Transport) -> Response | None:
        if request.method == "PATCH":
            raise error
        return None

    recorder = Recorder(registry, fail_always)
    with pytest.raises(ReadError) as raised:
        upload(Client(HOST, recorder), NAME, source_of(kind, LARGE, tmp_path))
    assert raised.value is error
    assert registry.open_uploads == 0
    assert recorder.methods.count("PATCH") == 4
    assert recorder.methods[-1] == "DELETE"


@pytest.mark.parametrize("status", [404, 400])
def test_upload_session_lost_restarts(status: int, registry: MemoryRegistry) -> None:
    code = "BLOB_UPLOAD_UNKNOWN" if status == 404 else "BLOB_UPLOAD_INVALID"
    answers = [Response(status, (), f'{{"errors": [{{"code": "{code}"}}]}}'.encode())]

    def lose(request: Request, inner: Transport) -> Response | None:
        return answers.pop() if request.method == "PATCH" and answers else None

    recorder = Recorder(registry, lose)
    upload(Client(HOST, recorder), NAME, LARGE)
    check_stored(registry, LARGE)
    assert recorder.methods == ["POST", "PATCH", "DELETE", "POST", "PATCH", "PUT"]


def test_upload_session_always_lost_raises(registry: MemoryRegistry, tmp_path: Path) -> None:
    def lose(request: Request, inner: Transport) -> Response | None:
        return Response(404) if request.method == "PATCH" else None

    recorder = Recorder(registry, lose)
    with pytest.raises(BlobUploadUnknown):
        upload(Client(HOST, recorder), NAME, LARGE)
    assert recorder.methods.count("POST") == 3
    assert registry.open_uploads == 0
    with pytest.raises(BlobUploadUnknown):
        upload(Client(HOST, recorder), NAME, pieces(LARGE))
    assert recorder.methods.count("POST") == 4


def test_upload_response_of_put_lost_is_found_by_head(registry: MemoryRegistry) -> None:
    remaining_faults = [True]

    def lose(request: Request, inner: Transport) -> Response | None:
        if request.method == "PUT" and remaining_faults:
            remaining_faults.pop()
            inner.round_trip(request).drain()
            raise ReadError("connection lost", request=request)
        return None

    recorder = Recorder(registry, lose)
    upload(Client(HOST, recorder), NAME, LARGE)
    check_stored(registry, LARGE)
    assert recorder.methods == ["POST", "PATCH", "PUT", "HEAD"]


def test_upload_refused_is_not_repeated(registry: MemoryRegistry) -> None:
    recorder = Recorder(registry, lambda request, inner: Response(403) if request.method == "PATCH" else None)
    with pytest.raises(RegistryError):
        upload(Client(HOST, recorder), NAME, LARGE)
    assert recorder.methods == ["POST", "PATCH", "DELETE"]


@pytest.mark.parametrize("late", [SMALL, LARGE[: 8 * MIB]], ids=["little", "more than a chunk"])
def test_upload_offset_grows_after_status_resumes_again(late: bytes, registry: MemoryRegistry, tmp_path: Path) -> None:
    """The registry stores more bytes after it has reported its offset, and before the next chunk."""
    content = late + LARGE
    state = ["stream", "status"]

    def store_after_status(request: Request, inner: Transport) -> Response | None:
        if request.method == "PATCH" and state[0] == "stream" and request.body is not None:
            state.pop(0)
            for _ in request.body.open():
                pass
            raise ReadError("connection lost", request=request)
        if request.method == "GET" and state[0] == "status":
            state[0] = "over"
            status = inner.round_trip(request)
            inner.round_trip(Request("PATCH", request.url, body=late)).drain()
            return status
        return None

    recorder = Recorder(registry, store_after_status)
    upload(Client(HOST, recorder), NAME, content)
    check_stored(registry, content)
    assert recorder.methods.count("POST") == 1


@pytest.mark.parametrize("kind", ["path", "single-use"])
def test_upload_registry_reports_wrong_offset_raises(kind: str, registry: MemoryRegistry, tmp_path: Path) -> None:
    def report_wrong_offset(request: Request, inner: Transport) -> Response | None:
        if request.method == "GET":
            return Response(204, {"Range": "0-9999999"})
        return Response(416) if request.method == "PATCH" else None

    recorder = Recorder(registry, report_wrong_offset)
    source = source_of(kind, LARGE, tmp_path)
    with pytest.raises(OciwireError):
        upload(Client(HOST, recorder), NAME, source, chunk_size=MIB)
    assert registry.open_uploads == registry.stored_bytes == 0
    assert len(recorder.methods) < 20


@pytest.mark.parametrize("known", [False, True], ids=["hashed", "digest known"])
@pytest.mark.parametrize(
    "answer", [503, 429, TransportTimeout("timed out"), ReadError("reset")], ids=["503", "429", "timeout", "reset"]
)
def test_upload_patch_that_was_stored_and_refused_is_not_repeated(
    answer: int | Exception, known: bool, registry: MemoryRegistry
) -> None:
    """Some servers store the body before they send 503. A repeated PATCH without Content-Range would be appended."""
    content = blob(17, 40 * MIB)
    state = ["PATCH"]

    def store_and_refuse(request: Request, inner: Transport) -> Response | None:
        if request.method in state:
            state.remove(request.method)
            inner.round_trip(request).drain()
            if isinstance(answer, Exception):
                raise answer
            return Response(answer, {"Retry-After": "1"})
        return None

    recorder = Recorder(registry, store_and_refuse)
    client = Client(HOST, default_transport(base=recorder, credentials=Anonymous()))
    upload(client, NAME, content, digest=Digest.of(content) if known else None)
    check_stored(registry, content)
    assert recorder.methods[-4:] == ["POST", "PATCH", "GET", "PUT"]


def test_upload_registry_without_upload_status_restarts(registry: MemoryRegistry) -> None:
    state = ["PATCH"]

    def refuse(request: Request, inner: Transport) -> Response | None:
        if request.method in state:
            state.remove(request.method)
            inner.round_trip(request).drain()
            return Response(503)
        return Response(405) if request.method == "GET" else None

    recorder = Recorder(registry, refuse)
    upload(Client(HOST, recorder), NAME, LARGE)
    check_stored(registry, LARGE)
    assert recorder.methods == ["POST", "PATCH", "GET", "DELETE", "POST", "PATCH", "PUT"]


def test_upload_status_request_fails_is_repeated(registry: MemoryRegistry) -> None:
    state = {"GET": 2, "PATCH": 1}

    def fail_first(request: Request, inner: Transport) -> Response | None:
        state[request.method] = state.get(request.method, 0) - 1
        if state[request.method] >= 0:
            raise ReadError("connection lost", request=request)
        return None

    upload(Client(HOST, Recorder(registry, fail_first)), NAME, LARGE)
    check_stored(registry, LARGE)


@pytest.mark.parametrize("range_", [f"0-{len(LARGE)}", f"0-{len(LARGE) - 2}"])
def test_upload_offset_beyond_content_raises_protocol_error(
    range_: str, registry: MemoryRegistry, tmp_path: Path
) -> None:
    def report_offset(request: Request, inner: Transport) -> Response | None:
        if request.method == "PATCH":
            raise ReadError("connection lost", request=request)
        if request.method == "GET":
            return Response(204, {"Location": request.url, "Range": range_})
        return None

    with pytest.raises(OciwireError, match="the registry has"):
        upload(Client(HOST, Recorder(registry, report_offset)), NAME, LARGE)
    assert registry.open_uploads == 0


# Errors of the caller


@pytest.mark.parametrize(
    "error",
    [
        ValueError("from the caller"),
        OSError("from the caller"),
        ReadError("from the caller"),
        DigestInvalid("from the caller"),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
@pytest.mark.parametrize("after", [0, 1, 8])
def test_upload_content_raises_is_raised_unchanged(
    error: BaseException, after: int, registry: MemoryRegistry, client: Client
) -> None:
    def failing() -> Iterator[bytes]:
        yield from [bytes(MIB)] * after
        raise error

    with pytest.raises(type(error)) as raised:
        upload(client, NAME, failing())
    assert raised.value is error
    assert registry.open_uploads == registry.stored_bytes == 0


class UnreliableFile(io.BytesIO):
    """File that returns the result of `on_exhausted` instead of its content after `reads` reads."""

    def __init__(self, content: bytes, reads: int, on_exhausted: Callable[[], bytes]) -> None:
        super().__init__(content)
        self._reads = reads
        self._on_exhausted = on_exhausted

    def read(self, size: int | None = -1, /) -> bytes:
        if size:
            self._reads -= 1
        return self._on_exhausted() if self._reads < 0 else super().read(size)


def fail() -> bytes:
    raise OSError("the disk is broken")


@pytest.mark.parametrize(
    "error", [ReadError("from the caller"), DigestInvalid("from the caller"), RangeInvalid("from the caller")], ids=repr
)
@pytest.mark.parametrize("chunk_size", [None, MIB])
def test_upload_file_raises_transport_error_is_not_retried(
    error: OciwireError, chunk_size: int | None, registry: MemoryRegistry, client: Client, recorder: Recorder
) -> None:
    def fail() -> bytes:
        raise error

    with pytest.raises(type(error)) as raised:
        upload(client, NAME, UnreliableFile(LARGE, 2, fail), chunk_size=chunk_size)
    assert raised.value is error
    assert registry.open_uploads == 0
    assert recorder.methods.count("POST") == 1


def test_upload_computed_digest_refused_hashes_again(registry: MemoryRegistry) -> None:
    """The stack may have resent a part after a 503, and the registry may have stored it twice."""
    twice = [LARGE[:MIB]]

    def store_twice(request: Request, inner: Transport) -> Response | None:
        if request.method == "PATCH" and twice:
            inner.round_trip(Request("PATCH", request.url, body=twice.pop())).drain()
        return None

    upload(Client(HOST, Recorder(registry, store_twice)), NAME, LARGE)
    check_stored(registry, LARGE)


def fail_streams_and_modify(path: Path, content: bytes, times: int) -> Callable[[Request, Transport], Response | None]:
    """Return a function that fails the first `times` streams and then modifies the file."""
    changes = list(range(times))

    def lose(request: Request, inner: Transport) -> Response | None:
        if request.method != "PATCH" or request.body is None or "content-range" in request.headers or not changes:
            return None
        for _ in request.body.open():
            pass
        path.write_bytes(bytes([changes.pop()]) + content[1:])
        raise ReadError("lost", request=request)

    return lose


def test_upload_file_modified_hashes_again(registry: MemoryRegistry, tmp_path: Path) -> None:
    path = tmp_path / "content"
    path.write_bytes(LARGE)
    recorder = Recorder(registry, fail_streams_and_modify(path, LARGE, times=1))
    assert upload(Client(HOST, recorder), NAME, path) == Descriptor.of(path.read_bytes())
    check_stored(registry, path.read_bytes())
    assert recorder.methods.count("POST") == 2
    assert sum(recorder.sizes) <= 3 * len(LARGE)  # one lost, one refused and one complete upload


def test_upload_file_modified_each_time_raises(registry: MemoryRegistry, tmp_path: Path) -> None:
    path = tmp_path / "content"
    path.write_bytes(LARGE)
    recorder = Recorder(registry, fail_streams_and_modify(path, LARGE, times=9))
    with pytest.raises(DigestInvalid):
        upload(Client(HOST, recorder), NAME, path)
    assert recorder.methods.count("POST") == 3
    assert registry.open_uploads == registry.stored_bytes == 0


@pytest.mark.parametrize("chunk_size", [None, MIB])
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_upload_file_unreadable_raises_os_error(
    content: bytes, chunk_size: int | None, registry: MemoryRegistry, client: Client
) -> None:
    with pytest.raises(OSError, match="the disk is broken"):
        upload(client, NAME, UnreliableFile(content, len(content) // MIB // 2, fail), chunk_size=chunk_size)
    assert registry.open_uploads == registry.stored_bytes == 0


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("chunk_size", [None, MIB])
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("change", ["shrinks", "grows"])
def test_upload_file_size_changes_raises_size_mismatch(
    content: bytes, chunk_size: int | None, known: bool, change: str, registry: MemoryRegistry, client: Client
) -> None:
    reads = len(content) // MIB // 2 if change == "shrinks" else len(content) // MIB + 1
    additional = [b"more", b""]
    on_exhausted = (lambda: b"") if change == "shrinks" else (lambda: additional.pop(0))
    digest = Digest.of(content) if known else None
    with pytest.raises(SizeMismatch):
        upload(client, NAME, UnreliableFile(content, reads, on_exhausted), chunk_size=chunk_size, digest=digest)
    assert registry.open_uploads == registry.stored_bytes == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_upload_progress_grows_to_the_total(kind: str, content: bytes, client: Client, tmp_path: Path) -> None:
    events: list[Progress] = []
    source = source_of(kind, content, tmp_path)
    upload(client, NAME, source, progress=events.append)
    counts = [event.done for event in events]
    assert counts == sorted(counts)
    assert all(event.operation == "upload" for event in events)
    assert {event.total for event in events[:-1]} <= {None if kind in SINGLE_USE else len(content)}
    assert events[-1] == Progress("upload", Digest.of(content), len(content), len(content))
    assert len(set(events)) == len(events)


@pytest.mark.parametrize("kind", ["path", "single-use"])
@pytest.mark.parametrize("chunk_size", [None, MIB])
@pytest.mark.parametrize(
    "error",
    [
        ValueError("from the caller"),
        KeyboardInterrupt(),
        StopIteration("from the caller"),
        ReadError("from the caller"),
        RangeInvalid("from the caller"),
        DigestInvalid("from the caller"),
    ],
    ids=repr,
)
def test_upload_progress_raises_ends_the_upload(
    kind: str,
    error: BaseException,
    chunk_size: int | None,
    registry: MemoryRegistry,
    client: Client,
    tmp_path: Path,
) -> None:
    calls = []

    def failing(event: Progress) -> None:
        if event.done > MIB:
            calls.append(event)
            raise error

    with pytest.raises(type(error)) as raised:
        upload(client, NAME, source_of(kind, LARGE, tmp_path), progress=failing, chunk_size=chunk_size)
    assert raised.value is error
    assert len(calls) == 1
    assert registry.open_uploads == registry.stored_bytes == 0


def test_upload_progress_raises_keeps_its_cause(client: Client) -> None:
    cause, error = KeyError("from the caller"), StopIteration("from the caller")

    def failing(event: Progress) -> None:
        raise error from cause

    with pytest.raises(StopIteration) as raised:
        upload(client, NAME, LARGE, progress=failing)
    assert raised.value is error
    assert error.__cause__ is cause


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "GET"])
def test_upload_interrupted_in_a_request_is_cancelled(method: str, registry: MemoryRegistry) -> None:
    def interrupt(request: Request, inner: Transport) -> Response | None:
        if request.method == method:
            raise KeyboardInterrupt
        if request.method == "PATCH" and method == "GET":
            raise ReadError("connection lost", request=request)
        return None

    with pytest.raises(KeyboardInterrupt):
        upload(Client(HOST, Recorder(registry, interrupt)), NAME, LARGE)
    assert registry.open_uploads == 0


@pytest.mark.parametrize("kind", ["path", "single-use"])
def test_upload_deadline_ends_the_upload(kind: str, registry: MemoryRegistry, tmp_path: Path) -> None:
    def time_out(request: Request, inner: Transport) -> Response | None:
        if request.method == "PATCH":
            raise TransportTimeout("the deadline has passed", request=request)
        return None

    recorder = Recorder(registry, time_out)
    with pytest.raises(TransportTimeout):
        upload(Client(HOST, recorder).with_options(within=0), NAME, source_of(kind, LARGE, tmp_path))
    assert recorder.methods == ["POST", "PATCH", "DELETE"]


def test_upload_cancel_has_its_own_deadline(registry: MemoryRegistry) -> None:
    deadlines = []

    def refuse(request: Request, inner: Transport) -> Response | None:
        if request.method == "DELETE":
            deadlines.append(request.info.deadline)
            raise ReadError("connection lost", request=request)
        return Response(403) if request.method == "PATCH" else None

    with pytest.raises(RegistryError):
        upload(Client(HOST, Recorder(registry, refuse)), NAME, LARGE)
    assert deadlines[0] is not None
    assert deadlines[0] <= time.monotonic() + 10


def test_upload_deadline_passed_cancels_the_session(registry: MemoryRegistry) -> None:
    def late(request: Request, inner: Transport) -> Response | None:
        """Time out all requests with the deadline, beginning with the first PATCH."""
        if request.method == "PATCH":
            sent.append(request)
        if sent and request.info.deadline == deadline:
            raise TransportTimeout("the deadline has passed", request=request)
        return None

    sent: list[Request] = []
    client = Client(HOST, Recorder(registry, late)).with_options(within=0)
    deadline = client._checked_sender.defaults.deadline
    with pytest.raises(TransportTimeout):
        upload(client, NAME, LARGE)
    assert registry.open_uploads == 0


@pytest.mark.parametrize(
    "invalid",
    [
        {"source": "no such file", "error": FileNotFoundError},
        {"source": "/", "error": IsADirectoryError},
        {"source": io.StringIO("text")},
        {"source": 1},
        {"source": "a\0b"},
        {"source": ""},
        {"progress": 5},
        {"client": None},
        {"client": "registry.example"},
        {"repository": "NO"},
        {"digest": "no"},
        {"digest": "blake3:" + "0" * 64},
        {"chunk_size": 0},
        {"chunk_size": True},
        {"chunk_size": 1.0},
        {"mount_from": "team/base"},
        {"mount_from": "NO", "digest": Digest.of(b"")},
        {"media_type": "no"},
    ],
    ids=lambda call: ", ".join(call),
)
def test_upload_invalid_arguments_send_nothing(invalid: dict[str, Any], client: Client, recorder: Recorder) -> None:
    error = invalid.get("error", UsageError)
    arguments = {"client": client, "repository": NAME, "source": b"", **invalid}
    arguments.pop("error", None)
    with pytest.raises(error):
        upload(**arguments)
    assert recorder.methods == []


# Hashing thread


def test_upload_hashing_runs_in_the_callers_context(monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    contexts = []

    class Hasher:
        def update(self, data: Any) -> None:
            contexts.append((variable.get(), threading.current_thread() is threading.main_thread()))

        def hexdigest(self) -> str:
            return Digest.of(LARGE).encoded

    monkeypatch.setattr(hashing, "new_hasher", lambda algorithm: Hasher())
    variable.set("tenant")
    upload(client, NAME, LARGE)
    assert set(contexts) == {("tenant", False)}


def test_upload_hashing_fails_raises_its_error(
    monkeypatch: pytest.MonkeyPatch, client: Client, registry: MemoryRegistry
) -> None:
    class Hasher:
        def update(self, data: Any) -> None:
            raise MemoryError("from the caller")

    monkeypatch.setattr(hashing, "new_hasher", lambda algorithm: Hasher())
    with pytest.raises(MemoryError):
        upload(client, NAME, LARGE)
    assert registry.open_uploads == 0


def test_hashing_thread_join_interrupted_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    join, interrupts = threading.Thread.join, [KeyboardInterrupt(), KeyboardInterrupt()]

    def interrupted_join(self: threading.Thread, timeout: float | None = None) -> None:
        if interrupts:
            raise interrupts.pop()
        join(self, timeout)

    thread = hashing.HashingThread("sha256")
    thread.start()
    monkeypatch.setattr(threading.Thread, "join", interrupted_join)
    # So that the thread is joined even if it has already ended.
    monkeypatch.setattr(threading.Thread, "is_alive", lambda self: True)
    with pytest.raises(KeyboardInterrupt):
        thread.stop()
    assert not interrupts


def test_hashing_thread_overlapping_chunks_are_hashed_once() -> None:
    thread = hashing.HashingThread("sha256")
    with contextlib.closing(SimpleNamespace(close=thread.stop)):
        thread.start()
        thread.feed(0, b"abc")
        thread.feed(0, b"ab")
        thread.feed(1, b"bcde")
        with pytest.raises(ValueError, match="cannot hash from byte 6: only 5 bytes were fed"):
            thread.feed(6, b"f")
        assert thread.digest() == Digest.of(b"abcde")
        thread.feed(5, bytes(3 * MIB))
        thread.feed(5 + 3 * MIB, b"x")
        assert thread.digest() == Digest.of(b"abcde" + bytes(3 * MIB) + b"x")


def test_hashing_thread_failed_does_not_block(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hasher:
        def update(self, data: Any) -> None:
            raise MemoryError("from the caller")

    monkeypatch.setattr(hashing, "new_hasher", lambda algorithm: Hasher())
    thread = hashing.HashingThread("sha256")
    thread.start()
    thread.feed(0, b"a")
    for _ in range(3):
        with pytest.raises(Cancelled):
            thread.feed(1, b"b")
    with pytest.raises(Cancelled):
        thread.digest()
    with pytest.raises(MemoryError, match="from the caller"):
        thread.stop()


def test_progress_reporter_same_event_is_reported_once() -> None:
    events: list[Progress] = []
    reporter = ProgressReporter(events.append, "upload")
    for done in (1, 1, 2, 1):
        reporter.report(None, done, None)
    assert [event.done for event in events] == [1, 2, 1]


def test_upload_with_default_stack_stores_content(registry: MemoryRegistry) -> None:
    client = Client(HOST, default_transport(base=registry, credentials=CREDENTIALS))
    for content in (SMALL, LARGE):
        upload(client, NAME, pieces(content))
        check_stored(registry, content)


# Special files


@pytest.mark.parametrize("kind", ["fifo", "device", "socket", "link to a fifo"])
def test_upload_path_is_not_a_regular_file_raises_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("/dev/zero") if kind == "device" else Path("source")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "link to a fifo":
        os.mkfifo("fifo")
        path.symlink_to("fifo")
    recorder = Recorder(MemoryRegistry())
    with pytest.raises(UsageError, match=r"not a regular file; open .* pass the file object"):
        upload(Client(HOST, recorder), NAME, path)
    assert recorder.methods == []


def test_upload_path_without_posix_flags_stores_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has neither of these flags."""
    monkeypatch.delattr(os, "O_NONBLOCK")
    monkeypatch.delattr(os, "O_CLOEXEC")
    (tmp_path / "content").write_bytes(SMALL)
    assert upload(Client(HOST, MemoryRegistry()), NAME, tmp_path / "content").digest == Digest.of(SMALL)


def test_upload_path_is_a_link_to_a_regular_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "content").write_bytes(SMALL)
    (tmp_path / "link").symlink_to("content")
    assert upload(Client(HOST, MemoryRegistry()), NAME, tmp_path / "link").digest == Digest.of(SMALL)


def test_upload_opened_fifo_is_read_as_a_stream(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    def write() -> None:
        (tmp_path / "fifo").write_bytes(SMALL)

    writer = threading.Thread(target=write)
    writer.start()
    with open(tmp_path / "fifo", "rb") as source:
        assert upload(Client(HOST, MemoryRegistry()), NAME, source).digest == Digest.of(SMALL)
    writer.join()
