"""An upload endpoint with the quirks of registries, and a hypothesis state machine that writes to an upload.

`UploadMachine` works with any registry, because it only uses the client that `begin_with` sets.
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
from tests._support.doubles import content_of

HOST = "registry.example"
REPOSITORY = "machine/uploads"
UPLOADS = f"/v2/{REPOSITORY}/blobs/uploads/"
BLOBS = f"/v2/{REPOSITORY}/blobs/"

PUSH = Scope.repository(REPOSITORY, "pull", "push")
PULL = Scope.repository(REPOSITORY, "pull")

LOST_REQUEST = "lost request"
"""The request does not reach the registry."""
BROKEN_REQUEST = "broken request"
"""The first half of the request body is received and stored."""
LOST_RESPONSE = "lost response"
"""The request is processed, and the response is lost."""
FAULTS = (None, LOST_REQUEST, BROKEN_REQUEST, LOST_RESPONSE)

RANGE_FORMS: dict[str, Callable[[int], str | None]] = {
    "0-99": lambda size: f"0-{max(size - 1, 0)}",
    "bytes=0-99": lambda size: f"bytes=0-{max(size - 1, 0)}",
    "0-99/*": lambda size: f"0-{size - 1}/*" if size else None,
    "per chunk": lambda size: f"{max(size - 3, 0)}-{size - 1}" if size else "0--1",
}


@dataclass(frozen=True)
class Quirks:
    """Deviations of an upload endpoint.

    Attributes:
        minimum: OCI-Chunk-Min-Length in bytes. Defaults to 0, which is no header.
        maximum: Maximum number of bytes in a request. None means no limit.
        too_large: Status for larger requests: 413, or 416 as GHCR sends.
        code: Error code of a 416.
        repeats_first_range: Whether the response to a PATCH repeats the Range of the first chunk, as ECR does.
        patch_status: Status of the response to a PATCH.
        absolute: Whether the Location is an absolute URL.
        range_form: Form of the Range header, a key of `RANGE_FORMS`.
        checks_put: Whether a closing PUT must match its Content-Range. If false, its body is appended, as
            docker-registry does.
    """

    minimum: int = 0
    maximum: int | None = None
    too_large: int = 413
    code: str = "RANGE_INVALID"
    repeats_first_range: bool = False
    patch_status: int = 202
    absolute: bool = False
    range_form: str = "0-99"
    checks_put: bool = True


@dataclass
class Endpoint:
    """Upload endpoint of one repository, which follows the specification except for its quirks.

    Attributes:
        quirks: See `Quirks`.
        faults: Faults of the next requests, in order.
        uploads: Content of each open upload.
        blobs: Committed blobs.
        patch_sizes: Lengths of the chunks, including refused ones.
    """

    quirks: Quirks = field(default_factory=Quirks)
    faults: list[str | None] = field(default_factory=list)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    patch_sizes: list[int] = field(default_factory=list)
    _responses: int = 0
    _first_range: dict[str, str | None] = field(default_factory=dict)

    def __call__(self, request: Request) -> Response:
        reads = request.method in ("GET", "HEAD") and UPLOADS not in request.url
        assert request.info.required_scope in ({PUSH, PULL} if reads else {PUSH}), request
        body = content_of(request.body)
        fault = self.faults.pop(0) if self.faults else None
        if fault == BROKEN_REQUEST:
            self._append_half(request, body)
        response = self._answer(request, body) if fault in (None, LOST_RESPONSE) else None
        if fault is not None or response is None:
            raise errors.ReadError(f"{fault}: {request.method} {request.url}", request=request)
        return response

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
            self.patch_sizes.append(len(body))
        if name not in self.uploads:
            return error_response(404, "BLOB_UPLOAD_UNKNOWN")
        if request.method == "DELETE":
            del self.uploads[name]
            return Response(204)
        if request.method == "PUT" and not self.uploads[name]:
            assert "content-range" not in request.headers, (
                "some registries refuse a Content-Range with the complete blob"
            )
        if request.method == "GET":
            return self._accepted(204, name, self._range(name))
        return self._append(request, name, body) or self._finish(request, name, parse_qs(url.query))

    def _blob(self, digest: str) -> Response:
        content = self.blobs.get(digest)
        if content is None:
            return error_response(404, "BLOB_UNKNOWN")
        return Response(200, {"Content-Length": str(len(content))}, content)

    def _append(self, request: Request, name: str, body: bytes) -> Response | None:
        """Append the body to the upload. Return an error response, or None."""
        if self.quirks.maximum is not None and len(body) > self.quirks.maximum:
            return error_response(self.quirks.too_large, "" if self.quirks.too_large == 413 else self.quirks.code)
        content_range, size = request.headers.get("content-range"), len(self.uploads[name])
        checked = request.method == "PATCH" or (self.quirks.checks_put and content_range is not None)
        if checked and content_range != f"{size}-{size + len(body) - 1}":
            return error_response(416, self.quirks.code)
        self.uploads[name] += body
        return None

    def _finish(self, request: Request, name: str, query: dict[str, list[str]]) -> Response:
        """Return the response to a PATCH or a PUT whose body has been appended."""
        if request.method == "PATCH":
            self._first_range[name] = self._first_range[name] or self._range(name)
            range_ = self._first_range[name] if self.quirks.repeats_first_range else self._range(name)
            return self._accepted(self.quirks.patch_status, name, range_)
        assert request.method == "PUT"
        content, (digest,) = bytes(self.uploads.pop(name)), query["digest"]
        if Digest.of(content) != digest:
            return error_response(400, "DIGEST_INVALID")
        self.blobs[digest] = content
        return Response(201)

    def _append_half(self, request: Request, body: bytes) -> None:
        name = urlsplit(request.url).path.removeprefix(UPLOADS)
        if request.method in ("PATCH", "PUT") and name in self.uploads:
            size, content_range = len(self.uploads[name]), request.headers.get("content-range", "0-")
            if content_range.startswith(f"{size}-") and len(body) <= (self.quirks.maximum or len(body)):
                self.uploads[name] += body[: len(body) // 2]

    def _accepted(self, status: int, name: str, range_: str | None) -> Response:
        self._responses += 1
        base = f"https://{HOST}" if self.quirks.absolute else ""
        headers = {"Location": f"{base}{UPLOADS}{name}?_state={self._responses}"}
        if range_ is not None:
            headers["Range"] = range_
        if self.quirks.minimum:
            headers["OCI-Chunk-Min-Length"] = str(self.quirks.minimum)
        return Response(status, headers)

    def _range(self, name: str) -> str | None:
        return RANGE_FORMS[self.quirks.range_form](len(self.uploads[name]))


def error_response(status: int, code: str = "") -> Response:
    return Response(status, (), f'{{"errors": [{{"code": "{code}"}}]}}'.encode() if code else b"<html>")


class UploadMachine(RuleBasedStateMachine):
    """State machine that writes `content` to an upload in order, with faults. Only these bytes may be committed.

    Attributes:
        unit: Sizes and chunk sizes are multiples of this number of bytes.
        content: The bytes to write.
        detects_one_byte: Whether an upload of one byte differs from an empty one, by its status or by a later 416.
    """

    unit = 1
    content = hashlib.shake_256(b"noise").digest(4000)
    detects_one_byte = True

    writer: BlobWriter | None = None
    closed = False
    finishing = False  # a commit has failed, and may have been processed by the registry
    offset_uncertain = False  # the registry may have stored more than it has acknowledged
    offset_wrong = False  # the writer was resumed at an acknowledged offset while the offset was uncertain
    resumed = False
    offset_given = False  # the writer was resumed at a given offset
    start = 0
    written = 0  # the largest number of bytes that a writer of this upload has written

    def begin_with(self, client: Client, faults: list[str | None]) -> None:
        """Set the client, and the list from which its transport takes faults."""
        self.client = client
        self.faults = faults

    def check_chunks(self, *, full: bool) -> None:
        """Check the chunks that a call has sent. `full` is true if all must have the minimum length."""

    @property
    def current_writer(self) -> BlobWriter:
        assert self.writer is not None
        return self.writer

    @contextmanager
    def with_faults(self, faults: list[str | None]) -> Iterator[None]:
        """Run a call with faults. If a request or a response is lost, the upload must still be resumable."""
        self.faults[:] = faults
        try:
            yield
        except errors.ReadError:
            assert any(faults)
            self.offset_uncertain = True
        except errors.RangeInvalid:
            assert self.offset_wrong
            self.faults.clear()
            self.check_chunks(full=False)  # the chunks so far were sent at the given offset
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
        with self.with_faults(faults):
            self.writer = self.client.push_blob_chunked(REPOSITORY, chunk and chunk * self.unit)
            assert (self.writer.size, self.writer.flushed) == (0, 0)
        self.closed = self.finishing = self.resumed = False
        self.offset_uncertain = self.offset_wrong = self.offset_given = False
        self.start = self.written = 0
        if self.writer is not None:
            self.write(size, [])

    @precondition(lambda self: self.writer is not None and not self.closed and not self.finishing)
    @rule(size=st.integers(0, 40), faults=st.lists(st.sampled_from(FAULTS), max_size=4))
    def write(self, size: int, faults: list[str | None]) -> None:
        writer, before = self.current_writer, self.current_writer.size
        data = self.content[before : before + size * self.unit]
        with self.with_faults(faults):
            assert writer.write(data) == len(data)
            assert writer.size == before + len(data)
        assert before <= writer.size <= before + len(data)
        self.check_chunks(full=True)

    @precondition(lambda self: self.writer is not None and not self.finishing)
    @rule(faults=st.lists(st.sampled_from(FAULTS), max_size=4), by_exit=st.booleans())
    def close(self, faults: list[str | None], by_exit: bool) -> None:
        writer, size, was_closed = self.current_writer, self.current_writer.size, self.closed
        self.closed = True
        with self.with_faults(faults):
            if by_exit:
                with writer:
                    pass
            else:
                writer.close()
            assert was_closed or writer.flushed == size
        assert writer.size == size
        self.check_chunks(full=False)
        with pytest.raises(errors.UsageError):
            writer.write(b"more")

    @precondition(lambda self: self.writer is not None and not self.closed)
    @rule()
    def exit_by_exception(self) -> None:
        writer, flushed = self.current_writer, self.current_writer.flushed
        self.closed = True
        with pytest.raises(KeyError), writer:
            raise KeyError
        assert writer.flushed == flushed

    @precondition(lambda self: self.writer is not None)
    @rule(chunk=st.none() | st.integers(1, 16), at_offset=st.booleans())
    def resume(self, chunk: int | None, at_offset: bool) -> None:
        offset = self.current_writer.flushed if at_offset and not self.finishing else None
        self.resume_at(offset, chunk and chunk * self.unit)

    def resume_at(self, offset: int | None, chunk: int | None) -> None:
        old = self.current_writer
        if not self.detects_one_byte and old.flushed == 1:
            offset = 1
        try:
            new = self.client.push_blob_chunked_resume(REPOSITORY, old.id, offset, chunk)
        except errors.BlobUploadUnknown:
            assert self.finishing, "only a commit may end the upload"
            if self.offset_wrong:
                self.writer = None  # committed or refused, see try_commit
            else:
                self.assert_committed(old.size)
            return
        min_size = 0 if old.flushed == 1 else old.flushed
        assert new.size == new.flushed
        assert min_size <= new.size <= max(self.written, old.size)
        if new.size:
            with pytest.raises(errors.UsageError):
                new.commit()
        is_uncertain = self.offset_uncertain or self.offset_wrong
        self.offset_wrong = offset is not None and is_uncertain
        self.writer, self.start, self.resumed, self.offset_given = new, new.size, True, offset is not None
        # A status of 0-0 may mean 0 bytes or 1 byte: the offset remains as uncertain as it was.
        self.offset_uncertain = is_uncertain and offset is None and new.size == 0
        self.closed = self.finishing = False

    @precondition(lambda self: self.writer is not None)
    @rule(faults=st.lists(st.sampled_from(FAULTS), max_size=1))
    def cancel(self, faults: list[str | None]) -> None:
        writer, self.writer = self.current_writer, None
        with self.with_faults(faults):
            writer.cancel()
        with pytest.raises(errors.UsageError):
            writer.write(b"more")
        writer.cancel()
        with pytest.raises(errors.BlobUploadUnknown):
            self.client.push_blob_chunked_resume(REPOSITORY, writer.id)

    # a status of 0 bytes may mean one byte, which only a writer that has written a byte detects
    @precondition(lambda self: self.writer is not None and (self.writer.size or not self.resumed))
    @rule(
        attempts=st.lists(st.lists(st.sampled_from(FAULTS), max_size=3), min_size=1, max_size=4),
        with_digest=st.booleans(),
    )
    def commit(self, attempts: list[list[str | None]], with_digest: bool) -> None:
        for faults in attempts:
            if self.writer is not None and (self.writer.size or not self.resumed):
                self.try_commit(faults, with_digest)

    def try_commit(self, faults: list[str | None], with_digest: bool) -> None:
        writer, size = self.current_writer, self.current_writer.size
        digest = Digest.of(self.content[:size])
        self.finishing = True
        try:
            with self.with_faults(faults):
                committed = writer.commit(digest if with_digest or self.start else None)
                assert (committed.digest, committed.size) == (digest, size)
                self.faults.clear()
                self.assert_committed(size)
                with pytest.raises(errors.UsageError):
                    writer.commit()
                writer.cancel()
        except (errors.DigestInvalid, errors.BlobUploadUnknown):
            # a registry that ignores the Content-Range of a PUT detects a wrong offset only by the digest
            assert self.offset_wrong
            self.writer = None
        self.check_chunks(full=False)

    def assert_committed(self, size: int) -> None:
        blob = Descriptor.of(self.content[:size])
        assert self.client.resolve_blob(REPOSITORY, blob.digest).size == size
        assert self.client.get_blob(REPOSITORY, blob.digest).read() == self.content[:size]
        self.writer = None

    @invariant()
    def sizes_are_consistent(self) -> None:
        if self.writer is not None:
            assert self.start <= self.writer.flushed <= self.writer.size
            self.written = max(self.written, self.writer.size)
            assert str(self.writer.size) in repr(self.writer)

    def teardown(self) -> None:
        """Check that the upload can be resumed, continued and committed."""
        if self.writer is not None:
            self.faults.clear()
            self.resume_at(None, None)
        if self.writer is not None:
            self.write(8, [])
            self.try_commit([], True)
            assert self.writer is None
