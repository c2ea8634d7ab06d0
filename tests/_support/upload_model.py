"""An upload endpoint with the quirks of registries, and the machine that writes to one, in whatever order.

The machine holds for every registry: `UploadMachine` is given a client in `begin_with`, and knows nothing else of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ociwire import BlobWriter, Client, Descriptor, Digest, Request, Response, Scope, errors

HOST = "registry.example"
REPOSITORY = "machine/uploads"
UPLOADS = f"/v2/{REPOSITORY}/blobs/uploads/"
BLOBS = f"/v2/{REPOSITORY}/blobs/"

PUSH = Scope.repository(REPOSITORY, "pull", "push")
PULL = Scope.repository(REPOSITORY, "pull")

LOST_REQUEST = "lost request"
"""Nothing of the request arrives."""
BROKEN_REQUEST = "broken request"
"""Half of its body arrives, and is kept."""
LOST_ANSWER = "lost answer"
"""All of it arrives and is done; the answer does not come."""
FAULTS = (None, LOST_REQUEST, BROKEN_REQUEST, LOST_ANSWER)

SPELLINGS: dict[str, Callable[[int], str | None]] = {
    "0-99": lambda size: f"0-{max(size - 1, 0)}",
    "bytes=0-99": lambda size: f"bytes=0-{max(size - 1, 0)}",
    "0-99/*": lambda size: f"0-{size - 1}/*" if size else None,
    "per chunk": lambda size: f"{max(size - 3, 0)}-{size - 1}" if size else "0--1",
}


@dataclass(frozen=True)
class Quirks:
    """What registries do in one way or another.

    Attributes:
        minimum: OCI-Chunk-Min-Length; 0 is none.
        maximum: The most bytes in a request; None is any number.
        too_large: The status for more: 413, or the 416 of GHCR.
        code: The error code of a 416.
        stuck: The Range of a PATCH's answer stays that of the first, as ECR's does.
        patched: The status of a PATCH's answer.
        absolute: The Location is an absolute URL.
        spelling: How a Range is spelled.
        checks_put: A closing PUT must fit its Content-Range; else what it has is appended, as by docker-registry.
    """

    minimum: int = 0
    maximum: int | None = None
    too_large: int = 413
    code: str = "RANGE_INVALID"
    stuck: bool = False
    patched: int = 202
    absolute: bool = False
    spelling: str = "0-99"
    checks_put: bool = True


@dataclass
class Endpoint:
    """Answers for the uploads and blobs of one repository, to the letter but for its quirks.

    Attributes:
        quirks: See `Quirks`.
        faults: What goes wrong with the next requests, in order.
        uploads: What each upload has.
        blobs: What was committed.
        patched: The lengths of the chunks that came, those that were refused included.
    """

    quirks: Quirks = field(default_factory=Quirks)
    faults: list[str | None] = field(default_factory=list)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    patched: list[int] = field(default_factory=list)
    _answers: int = 0
    _first_range: dict[str, str | None] = field(default_factory=dict)

    def __call__(self, request: Request) -> Response:
        reads = request.method in ("GET", "HEAD") and UPLOADS not in request.url
        assert request.info.required_scope in ({PUSH, PULL} if reads else {PUSH}), request
        body = b"" if request.body is None else b"".join(request.body.open())
        fault = self.faults.pop(0) if self.faults else None
        if fault == BROKEN_REQUEST:
            self._take_half(request, body)
        answer = self._answer(request, body) if fault in (None, LOST_ANSWER) else None
        if fault is not None or answer is None:
            raise errors.ReadError(f"{fault}: {request.method} {request.url}", request=request)
        return answer

    def _answer(self, request: Request, body: bytes) -> Response:
        url = urlsplit(request.url)
        assert f"{url.scheme}://{url.netloc}" == f"https://{HOST}"
        if request.method == "POST":
            assert url.path == UPLOADS
            name = str(len(self._first_range) + 1)
            self.uploads[name] = bytearray()
            self._first_range[name] = None
            return self._accepted(202, name, self._range(name))
        if not url.path.startswith(UPLOADS):
            return self._blob(url.path.removeprefix(BLOBS))
        name = url.path.removeprefix(UPLOADS)
        if request.method == "PATCH":
            self.patched.append(len(body))
        if name not in self.uploads:
            return refused(404, "BLOB_UPLOAD_UNKNOWN")
        if request.method == "DELETE":
            del self.uploads[name]
            return Response(204)
        if request.method == "PUT" and not self.uploads[name]:
            assert "content-range" not in request.headers, "some refuse it with the whole"
        if request.method == "GET":
            return self._accepted(204, name, self._range(name))
        return self._take(request, name, body) or self._go_on(request, name, parse_qs(url.query))

    def _blob(self, digest: str) -> Response:
        content = self.blobs.get(digest)
        if content is None:
            return refused(404, "BLOB_UNKNOWN")
        return Response(200, {"Content-Length": str(len(content))}, content)

    def _take(self, request: Request, name: str, body: bytes) -> Response | None:
        """Append the body to the upload; or the answer that refuses it."""
        if self.quirks.maximum is not None and len(body) > self.quirks.maximum:
            return refused(self.quirks.too_large, "" if self.quirks.too_large == 413 else self.quirks.code)
        place, size = request.headers.get("content-range"), len(self.uploads[name])
        checked = request.method == "PATCH" or (self.quirks.checks_put and place is not None)
        if checked and place != f"{size}-{size + len(body) - 1}":
            return refused(416, self.quirks.code)
        self.uploads[name] += body
        return None

    def _go_on(self, request: Request, name: str, query: dict[str, list[str]]) -> Response:
        if request.method == "PATCH":
            self._first_range[name] = self._first_range[name] or self._range(name)
            told = self._first_range[name] if self.quirks.stuck else self._range(name)
            return self._accepted(self.quirks.patched, name, told)
        assert request.method == "PUT"
        content, (digest,) = bytes(self.uploads.pop(name)), query["digest"]
        if Digest.of(content) != digest:
            return refused(400, "DIGEST_INVALID")
        self.blobs[digest] = content
        return Response(201)

    def _take_half(self, request: Request, body: bytes) -> None:
        name = urlsplit(request.url).path.removeprefix(UPLOADS)
        if request.method in ("PATCH", "PUT") and name in self.uploads:
            size, place = len(self.uploads[name]), request.headers.get("content-range", "0-")
            if place.startswith(f"{size}-") and len(body) <= (self.quirks.maximum or len(body)):
                self.uploads[name] += body[: len(body) // 2]

    def _accepted(self, status: int, name: str, told: str | None) -> Response:
        self._answers += 1
        base = f"https://{HOST}" if self.quirks.absolute else ""
        headers = {"Location": f"{base}{UPLOADS}{name}?_state={self._answers}"}
        if told is not None:
            headers["Range"] = told
        if self.quirks.minimum:
            headers["OCI-Chunk-Min-Length"] = str(self.quirks.minimum)
        return Response(status, headers)

    def _range(self, name: str) -> str | None:
        return SPELLINGS[self.quirks.spelling](len(self.uploads[name]))


def refused(status: int, code: str = "") -> Response:
    return Response(status, (), f'{{"errors": [{{"code": "{code}"}}]}}'.encode() if code else b"<html>")


class UploadMachine(RuleBasedStateMachine):
    """Writes the bytes of `content` to an upload, in order, whatever happens; what is committed must be these.

    Attributes:
        unit: What sizes and chunk sizes are multiples of.
        content: What is written.
        tells_one: Whether an upload of one byte can be told from an empty one: by its status, or by a 416 later.
    """

    unit = 1
    content = hashlib.shake_256(b"noise").digest(4000)
    tells_one = True

    writer: BlobWriter | None = None
    closed = False
    finishing = False  # a commit has failed; it may have been done all the same
    unsure = False  # the registry may have more than it has acknowledged
    behind = False  # ... and the writer was told otherwise
    resumed = False
    told = False  # ... at an offset that was given
    start = 0
    given = 0  # how much any writer of this upload was given

    def begin_with(self, client: Client, faults: list[str | None]) -> None:
        """Give the client, and the list that what answers it takes its faults from."""
        self.client = client
        self.faults = faults

    def check_chunks(self, *, full: bool) -> None:
        """After each call that sends chunks: what must hold of them; `full` if they had to be filled."""

    @property
    def now(self) -> BlobWriter:
        assert self.writer is not None
        return self.writer

    @contextmanager
    def going_wrong(self, faults: list[str | None]) -> Iterator[None]:
        """Within it, what is lost is no failure: the upload can be gone on with."""
        self.faults[:] = faults
        try:
            yield
        except errors.ReadError:
            assert any(faults)
            self.unsure = True
        except errors.RangeInvalid:
            assert self.behind
            self.faults.clear()
            self.check_chunks(full=False)  # those so far were sent at the given offset
            self.resume_at(None, None)
        finally:
            self.faults.clear()

    @precondition(lambda self: self.writer is None)
    @rule(
        chunk=st.none() | st.integers(1, 16),
        faults=st.lists(st.sampled_from(FAULTS), max_size=1),
        size=st.integers(0, 40),
    )
    def begin(self, chunk: int | None, faults: list[str | None], size: int) -> None:
        with self.going_wrong(faults):
            self.writer = self.client.push_blob_chunked(REPOSITORY, chunk and chunk * self.unit)
            assert (self.writer.size, self.writer.flushed) == (0, 0)
        self.closed = self.finishing = self.unsure = self.behind = self.resumed = self.told = False
        self.start = self.given = 0
        if self.writer is not None:
            self.write(size, [])

    @precondition(lambda self: self.writer is not None and not self.closed and not self.finishing)
    @rule(size=st.integers(0, 40), faults=st.lists(st.sampled_from(FAULTS), max_size=4))
    def write(self, size: int, faults: list[str | None]) -> None:
        writer, before = self.now, self.now.size
        data = self.content[before : before + size * self.unit]
        with self.going_wrong(faults):
            assert writer.write(data) == len(data)
            assert writer.size == before + len(data)
        assert before <= writer.size <= before + len(data)
        self.check_chunks(full=True)

    @precondition(lambda self: self.writer is not None and not self.finishing)
    @rule(faults=st.lists(st.sampled_from(FAULTS), max_size=4), plainly=st.booleans())
    def close(self, faults: list[str | None], plainly: bool) -> None:
        writer, size, again = self.now, self.now.size, self.closed
        self.closed = True
        with self.going_wrong(faults):
            if plainly:
                writer.close()
            else:
                with writer:
                    pass
            assert again or writer.flushed == size
        assert writer.size == size
        self.check_chunks(full=False)
        with pytest.raises(errors.UsageError):
            writer.write(b"more")

    @precondition(lambda self: self.writer is not None and not self.closed)
    @rule()
    def leave_by_an_exception(self) -> None:
        writer, flushed = self.now, self.now.flushed
        self.closed = True
        with pytest.raises(KeyError), writer:
            raise KeyError
        assert writer.flushed == flushed

    @precondition(lambda self: self.writer is not None)
    @rule(chunk=st.none() | st.integers(1, 16), told=st.booleans())
    def resume(self, chunk: int | None, told: bool) -> None:
        offset = self.now.flushed if told and not self.finishing else None
        self.resume_at(offset, chunk and chunk * self.unit)

    def resume_at(self, offset: int | None, chunk: int | None) -> None:
        old = self.now
        if not self.tells_one and old.flushed == 1:
            offset = 1
        try:
            new = self.client.push_blob_chunked_resume(REPOSITORY, old.id, offset, chunk)
        except errors.BlobUploadUnknown:
            assert self.finishing, "only what was committed is over"
            if self.behind:
                self.writer = None  # or refused: see try_to_commit
            else:
                self.is_committed(old.size)
            return
        least = 0 if old.flushed == 1 else old.flushed
        assert new.size == new.flushed
        assert least <= new.size <= max(self.given, old.size)
        if new.size:
            with pytest.raises(errors.UsageError):
                new.commit()
        is_uncertain = self.unsure or self.behind
        self.behind = offset is not None and is_uncertain
        self.writer, self.start, self.resumed, self.told = new, new.size, True, offset is not None
        # An answer of 0-0 may mean 0 bytes or 1: the offset stays as uncertain as it was.
        self.unsure = is_uncertain and offset is None and new.size == 0
        self.closed = self.finishing = False

    @precondition(lambda self: self.writer is not None)
    @rule(faults=st.lists(st.sampled_from(FAULTS), max_size=1))
    def cancel(self, faults: list[str | None]) -> None:
        writer, self.writer = self.now, None
        with self.going_wrong(faults):
            writer.cancel()
        with pytest.raises(errors.UsageError):
            writer.write(b"more")
        writer.cancel()
        with pytest.raises(errors.BlobUploadUnknown):
            self.client.push_blob_chunked_resume(REPOSITORY, writer.id)

    # that 0 may be 1 is known only to who has written the first byte again
    @precondition(lambda self: self.writer is not None and (self.writer.size or not self.resumed))
    @rule(attempts=st.lists(st.lists(st.sampled_from(FAULTS), max_size=3), min_size=1, max_size=4), knows=st.booleans())
    def commit(self, attempts: list[list[str | None]], knows: bool) -> None:
        for faults in attempts:
            if self.writer is not None and (self.writer.size or not self.resumed):
                self.try_to_commit(faults, knows)

    def try_to_commit(self, faults: list[str | None], knows: bool) -> None:
        writer, size = self.now, self.now.size
        digest = Digest.of(self.content[:size])
        self.finishing = True
        try:
            with self.going_wrong(faults):
                done = writer.commit(digest if knows or self.start else None)
                assert (done.digest, done.size) == (digest, size)
                self.faults.clear()
                self.is_committed(size)
                with pytest.raises(errors.UsageError):
                    writer.commit()
                writer.cancel()
        except (errors.DigestInvalid, errors.BlobUploadUnknown):
            # where the Content-Range of a PUT is not looked at, a wrong offset is only found out by the digest
            assert self.behind
            self.writer = None
        self.check_chunks(full=False)

    def is_committed(self, size: int) -> None:
        blob = Descriptor.of(self.content[:size])
        assert self.client.resolve_blob(REPOSITORY, blob.digest).size == size
        assert self.client.get_blob(REPOSITORY, blob.digest).read() == self.content[:size]
        self.writer = None

    @invariant()
    def it_counts(self) -> None:
        if self.writer is not None:
            assert self.start <= self.writer.flushed <= self.writer.size
            self.given = max(self.given, self.writer.size)
            assert str(self.writer.size) in repr(self.writer)

    def teardown(self) -> None:
        """Whatever happened, the upload can be resumed, written to and committed."""
        if self.writer is not None:
            self.faults.clear()
            self.resume_at(None, None)
        if self.writer is not None:
            self.write(8, [])
            self.try_to_commit([], True)
            assert self.writer is None
