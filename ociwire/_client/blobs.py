"""Opens blobs for reading, whole or in part, and finds out how long they are.

RFC 9110, section 14, has the ranges. Those that take up a lost connection are closed: some registries refuse open ones.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import NamedTuple

from .._arguments import show
from .._http.headers import content_length
from .._http.messages import Response
from .._oci.descriptor import Descriptor
from .._oci.digest import Digest
from .._oci.scope import Scope
from ..errors import ContentError, ProtocolError, RangeInvalid, RegistryError
from ..media_types import OCTET_STREAM
from . import manifests
from .blob_reader import BlobReader
from .error_mapping import error_from_response, is_labelled_html, names_digest
from .session import Session, refusal_means_missing

__all__ = ["blob_path", "find_blob", "open_blob", "resolve_blob"]

MAX_SKIP = 64 * 1024 * 1024
"""The most that is read away, in bytes, to get on in a whole blob where a part was asked for to go on with."""

_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18}|\*)")
_PIECE = 256 * 1024


def blob_path(repository: str, digest: Digest) -> str:
    """Where a blob is."""
    return f"/v2/{repository}/blobs/{digest}"


class _Blob(NamedTuple):
    """A blob, as an operation asks for it."""

    session: Session
    operation: str
    repository: str
    digest: Digest
    scope: Scope

    def ask(self, method: str, *, ok: tuple[int, ...], headers: dict[str, str] | None = None) -> Response:
        path = blob_path(self.repository, self.digest)
        return self.session.send(self.operation, method, path, self.scope, ok=ok, headers=headers)

    def head(self) -> Response:
        path = blob_path(self.repository, self.digest)
        return self.session.head(self.operation, path, self.scope)


def open_blob(
    session: Session, operation: str, repository: str, digest: Digest, start: int, stop: int | None
) -> BlobReader:
    """A reader of a blob, or of a part of it; see `Client.get_blob_range`."""
    digest.hasher()  # an algorithm that cannot be verified is refused before anything is sent
    if start == stop:  # nothing is read, and nobody is asked: the size is at least that
        return BlobReader(Response(200), Descriptor(OCTET_STREAM, digest, start), start=start, stop=stop, part=True)
    blob = _Blob(session, operation, repository, digest, Scope.repository(repository, "pull"))
    whole = start == 0 and stop is None
    response = blob.ask("GET", ok=(200,)) if whole else _open_range(blob, start, stop)
    opened = False
    try:
        size = _stated_size(response, start)
        if size is None:
            size = _resolve(blob, exists=True).size
        _skip_to(response, start, size, max_skip=None)
        end = size if stop is None else min(stop, size)

        def reopen(position: int) -> Response:
            # The request as it was first sent, through all layers: what it was redirected to may have expired.
            again = blob.ask("GET", ok=(200, 206), headers=_range(position, end))
            try:
                _skip_to(again, position, size, max_skip=MAX_SKIP)
            except BaseException:
                again.close()
                raise
            return again

        described = Descriptor(manifests.media_type_of(response), digest, size)
        reader = BlobReader(response, described, start=start, stop=end, part=(start, end) != (0, size), reopen=reopen)
        opened = True
    finally:
        if not opened:
            response.close()
    return reader


def _open_range(blob: _Blob, start: int, stop: int | None) -> Response:
    """GET a range of a blob. An open-ended range that is refused (416) is requested again with its end.

    Some registries refuse open-ended ranges. The 416 states the size (RFC 9110, section 14.4), or else a HEAD does.
    """
    try:
        return blob.ask("GET", ok=(200, 206), headers=_range(start, stop))
    except RangeInvalid as error:
        if stop is not None:
            raise
        size = _content_range(Response(error.status, error.headers or ()))[2]
        if size is None:
            with suppress(RegistryError, ContentError):  # then the 416 is raised
                size = _resolve(blob, exists=True).size
        if size is None or size <= start:
            raise
    return blob.ask("GET", ok=(200, 206), headers=_range(start, size))


def resolve_blob(session: Session, operation: str, repository: str, digest: Digest, scope: Scope) -> Descriptor:
    """The descriptor of a blob, for any operation that needs it; see `Client.resolve_blob`."""
    return _resolve(_Blob(session, operation, repository, digest, scope))


def find_blob(session: Session, operation: str, repository: str, digest: Digest, scope: Scope) -> Descriptor | None:
    """Get the descriptor of a blob before it is uploaded; None if it is not there or the registry refuses to tell.

    A refusal is not confirmed by a GET: at worst, an existing blob is uploaded again. A size of 0 is confirmed; if the
    GET finds no bytes either, a blob whose digest is not that of empty content counts as missing.

    Raises:
        DigestMismatch: The registry claims another digest of the same algorithm.
        RegistryError: The registry cannot answer at the moment.
        TransportError: There is no usable answer.
    """
    blob = _Blob(session, operation, repository, digest, scope)
    # A ProtocolError: the registry does not state the size. The check only decides whether to upload.
    with refusal_means_missing(), suppress(ProtocolError):
        found = _described(blob, blob.head())
        is_lost = found.size == 0 and digest.known and not manifests.is_empty(digest)
        return None if is_lost else found
    return None


def _resolve(blob: _Blob, *, exists: bool = False) -> Descriptor:
    """Get a blob's descriptor by a HEAD, confirmed by a GET of the first byte where the HEAD is not conclusive.

    Args:
        blob: The blob.
        exists: Whether the blob is known to exist, so that a 404 is confirmed, too.
    """
    try:
        head = blob.head()
    except RegistryError as refusal:
        if not (blob.session.needs_confirmation(refusal) or (exists and refusal.status == 404)):
            raise
        return _first_byte(blob)
    return _described(blob, head)


def _described(blob: _Blob, head: Response) -> Descriptor:
    """Build a blob's descriptor from the response to a HEAD. A GET confirms a size that is absent or 0."""
    manifests.check_claim(blob.digest, head)
    size, media_type = content_length(head.headers), manifests.media_type_of(head)
    if size is None or _is_doubtful_page(blob, head) or (size == 0 and not manifests.is_empty(blob.digest)):
        found = _first_byte(blob)
        return found if media_type in manifests.VAGUE else found.replace(media_type=media_type)
    return Descriptor(media_type, blob.digest, size)


def _first_byte(blob: _Blob) -> Descriptor:
    """Get a blob's descriptor by a GET of its first byte. The size is in Content-Range or Content-Length."""
    response = blob.ask("GET", ok=(200, 206, 416), headers=_range(0, 1))
    with response:
        size = content_length(response.headers) if response.status == 200 else _content_range(response)[2]
        if response.status == 416:
            if size:  # the blob has bytes, but the registry refuses the first one
                raise error_from_response(response)
            size = 0  # only empty content has no first byte (RFC 9110, section 15.5.17)
        elif response.status == 200 and _is_doubtful_page(blob, response):
            raise ContentError(f"expected the blob {blob.digest}{manifests.PAGE}")
        else:
            manifests.check_claim(blob.digest, response)
        response.drain()
    if size is None:
        raise ProtocolError(
            f"the registry does not tell the size of {blob.digest}: neither Content-Length nor Content-Range",
            request=response.request,
        )
    return Descriptor(manifests.media_type_of(response), blob.digest, size)


def _is_doubtful_page(blob: _Blob, response: Response) -> bool:
    """Whether a response is labelled as a web page, and does not name the digest of the blob."""
    return is_labelled_html(response) and not names_digest(response, blob.digest)


def _stated_size(response: Response, start: int) -> int | None:
    """The size of the whole, as the answer to a Range request states it; it begins where it was asked to."""
    if response.status != 206:
        return content_length(response.headers)
    first, last, size = _content_range(response)
    if first != start or last is None or last < first or (size is not None and size <= last):
        said = response.headers.get("content-range", "no Content-Range")
        raise ProtocolError(f"asked for bytes from {start} on, got {show(said)}", request=response.request)
    return size


def _skip_to(response: Response, start: int, size: int, *, max_skip: int | None) -> None:
    """Read the answer to a Range request on to the byte that was asked for.

    Args:
        response: A 206, or the whole in a 200.
        start: The first byte that was asked for.
        size: The size of the whole.
        max_skip: The most to read away of a 200, in bytes; None is as much as it takes.

    Raises:
        RangeInvalid: There is no such byte.
        ProtocolError: A 206 begins elsewhere, the size is another one, or there is more to skip than that.
        TransportError: The connection failed.
    """
    stated = _stated_size(response, start)
    if stated is not None and stated != size:
        raise ProtocolError(f"the blob had {size} bytes, and now has {stated}", request=response.request)
    if size <= start and start > 0:
        raise RangeInvalid(
            f"the blob has {size} bytes, and none at {start}",
            status=response.status,
            headers=response.headers,
            request=response.request,
        )
    if response.status == 206:
        return
    if max_skip is not None and start > max_skip:
        raise ProtocolError(
            f"the server does not do ranges, and {start} bytes are too many to read again", request=response.request
        )
    buffer = memoryview(bytearray(min(start, _PIECE)))
    left = start
    while left:
        count = response.readinto(buffer[: min(left, len(buffer))])
        if count == 0:
            raise ProtocolError(f"the content ends before byte {start}", request=response.request)
        left -= count


def _content_range(response: Response) -> tuple[int | None, int | None, int | None]:
    """First and last byte, and the size of the whole, as Content-Range has them; None for what it does not say."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", "").strip())
    if match is None:
        return None, None, None
    first, last, size = (None if part in (None, "*") else int(part) for part in match.groups())
    return first, last, size


def _range(start: int, stop: int | None) -> dict[str, str]:
    return {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"}
