"""The endpoints of the registry in memory for blobs, and for the uploads by which they come.

Follows the OCI distribution specification 1.1, "Pulling blobs", "Pushing blobs" and "Deleting Blobs". Whatever can be
refused is refused before a chunk of the body is pulled; a body that fails leaves its upload as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import final

from .._http.messages import Response
from .._oci.digest import Digest, new_hasher
from ..errors import UsageError
from ..media_types import OCTET_STREAM
from ._responses import Call, Refused, answer, created, read_digest
from ._store import Received, Store, Upload

__all__ = ["Blobs"]

_CONTENT_RANGE = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")
# RFC 9110, section 14.1.2: one range of bytes; more than one are ignored, as a server may.
_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*", re.IGNORECASE)


@final
class Blobs:
    """Answers for blobs and uploads.

    Args:
        store: Where they are kept.
        mounts: Whether blobs are mounted from other repositories.
        min_chunk_length: How many bytes a chunk that is not the last has at least; 0 is any number.
        digest_header: Whether Docker-Content-Digest is sent.
    """

    def __init__(self, store: Store, *, mounts: bool, min_chunk_length: int, digest_header: bool) -> None:
        self._store = store
        self._mounts = mounts
        self._min_chunk_length = min_chunk_length
        self._digest_header = digest_header

    def get(self, call: Call) -> Response:
        """``GET /v2/NAME/blobs/DIGEST``, whole or in part."""
        digest = read_digest(call.reference)
        content = self._store.blob(call.name, digest)
        if content is None:
            raise _unknown(call)
        headers = {"Accept-Ranges": "bytes", **self._digest(digest)}
        part = _part(call, len(content))
        if part is None:
            return answer(200, headers, content, OCTET_STREAM)
        first, last = part
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return answer(206, headers, content[first : last + 1], OCTET_STREAM)

    def delete(self, call: Call) -> Response:
        """``DELETE /v2/NAME/blobs/DIGEST``."""
        if not self._store.remove_blob(call.name, read_digest(call.reference)):
            raise _unknown(call)
        return answer(202)

    def start(self, call: Call) -> Response:
        """``POST /v2/NAME/blobs/uploads/``: mount a blob, take one whole, or open an upload."""
        mount, whole = call.first("mount"), call.first("digest")
        _check_algorithm(call.first("digest-algorithm"))
        if mount is not None:
            digest = read_digest(mount, verifies=True)
            if self._mounts and self._store.mount(call.name, digest, call.first("from") or None):
                return created(call, "blobs", digest, self._digest(digest))
        if whole is not None:
            digest = read_digest(whole, verifies=True)
            with self._store.receive(call.request.body) as received:
                _verify(digest, [received.content])
                received.stored = self._store.add_blob(call.name, digest, received.content)
            return created(call, "blobs", digest, self._digest(digest))
        return answer(202, self._place(self._store.open_upload(call.name)))

    def status(self, call: Call) -> Response:
        """``GET`` of an upload: how far it is."""
        return answer(204, self._place(self._upload(call)))

    def extend(self, call: Call) -> Response:
        """``PATCH`` of an upload: a chunk that goes where the last one ended, with a Content-Range or without."""
        upload = self._upload(call)
        position = upload.size
        with self._take(call, upload, position) as received:
            content = received.content
            if not self._store.extend(upload, position, content, last=len(content) < self._min_chunk_length):
                raise self._out_of_order(self._upload(call))
            received.stored = len(content)
        return answer(202, self._place(upload))

    def finish(self, call: Call) -> Response:
        """``PUT`` of an upload: the whole, what is left of it, or nothing, and the digest of the whole."""
        upload, digest = self._upload(call), read_digest(call.first("digest"), verifies=True)
        chunks = list(upload.chunks)
        position = sum(map(len, chunks))
        with self._take(call, upload, position) as received:
            _verify(digest, [*chunks, received.content])
            stored = self._store.finish(upload, position, digest, received.content)
            if stored is None:
                raise self._out_of_order(self._upload(call))
            received.stored = stored
        return created(call, "blobs", digest, self._digest(digest))

    def cancel(self, call: Call) -> Response:
        """``DELETE`` of an upload."""
        self._store.cancel(self._upload(call))
        return answer(204)

    def _digest(self, digest: Digest) -> dict[str, str]:
        return {"Docker-Content-Digest": digest} if self._digest_header else {}

    def _upload(self, call: Call) -> Upload:
        upload = self._store.upload(call.name, call.reference)
        if upload is None:
            raise Refused(404, "BLOB_UPLOAD_UNKNOWN", f"{call.name} has no upload {call.reference}, or it is over")
        return upload

    def _place(self, upload: Upload) -> dict[str, str]:
        """Where an upload goes on, and how far it is. Empty is 0-0, as is one byte: the header must be there.

        Whoever goes on with it in another process has to know of the smallest chunk too.
        """
        return {
            "Location": f"/v2/{upload.name}/blobs/uploads/{upload.id}",
            "Docker-Upload-UUID": upload.id,
            "Range": f"0-{max(upload.size - 1, 0)}",
            **({"OCI-Chunk-Min-Length": str(self._min_chunk_length)} if self._min_chunk_length else {}),
        }

    def _out_of_order(self, upload: Upload) -> Refused:
        return Refused(416, "", f"the next chunk of the upload begins at {upload.size}", headers=self._place(upload))

    @contextmanager
    def _take(self, call: Call, upload: Upload, position: int) -> Iterator[Received]:
        """The content of a request, which is pulled only if it fits into the upload at this position."""
        body = call.request.body
        length = self._ranged(call, upload, position)
        if upload.ended and (body is not None and body.length != 0):
            raise Refused(
                400,
                "BLOB_UPLOAD_INVALID",
                f"a chunk of less than {self._min_chunk_length} bytes was the last, and another one comes",
            )
        if length is not None and body is not None and body.length is not None:
            _check_length(length, body.length)
        with self._store.receive(body) as received:
            if length is not None:
                _check_length(length, len(received.content))
            yield received

    def _ranged(self, call: Call, upload: Upload, position: int) -> int | None:
        """How many bytes the Content-Range of a chunk announces; None without one."""
        stated = call.request.headers.get("content-range")
        if stated is None:
            return None
        match = _CONTENT_RANGE.fullmatch(stated)
        if match is None or int(match[1]) > int(match[2]):
            raise Refused(
                400, "BLOB_UPLOAD_INVALID", f"not the Content-Range of a chunk: {stated!r:.100} (it reads 0-99)"
            )
        if int(match[1]) != position:
            raise self._out_of_order(upload)
        return int(match[2]) + 1 - position


def _unknown(call: Call) -> Refused:
    return Refused(404, "BLOB_UNKNOWN", f"{call.name} has no blob {call.reference}")


def _check_length(announced: int, length: int) -> None:
    if announced != length:
        reason = f"the Content-Range announces {announced} bytes, and the body has {length}"
        raise Refused(400, "SIZE_INVALID", reason)


def _check_algorithm(algorithm: str | None) -> None:
    try:
        if algorithm is not None:
            new_hasher(algorithm)
    except UsageError as error:
        raise Refused(400, "DIGEST_INVALID", str(error)) from None


def _verify(digest: Digest, chunks: Iterable[bytes]) -> None:
    hasher = digest.hasher()
    for chunk in chunks:
        hasher.update(chunk)
    actual = f"{digest.algorithm}:{hasher.hexdigest()}"
    if actual != digest:
        raise Refused(400, "DIGEST_INVALID", f"the content has the digest {actual}, not {digest}")


def _part(call: Call, size: int) -> tuple[int, int] | None:
    """The first and last byte that a GET asks for; None for the whole (RFC 9110, sections 14.1.2 and 14.2).

    An If-Range never holds, as blobs have no validators: then it is the whole (section 13.1.5).
    """
    match = _RANGE.fullmatch(call.request.headers.get("range", ""))
    if call.request.method != "GET" or match is None or "if-range" in call.request.headers:
        return None
    first, last = match.groups()
    if (not first and not last) or (first and last and int(last) < int(first)):
        return None  # it is not a range, and ignored
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last), size - 1) if first and last else size - 1
    if not size and not first and int(last):
        return None  # the last bytes of nothing can be had, but there is no Content-Range that says so
    if start > end:
        reason = f"there are no such bytes: the blob has {size}"
        raise Refused(416, "", reason, headers={"Content-Range": f"bytes */{size}"})
    return start, end
