"""Open blobs or parts of blobs for reading, and look up their descriptors.

Ranges are specified by RFC 9110, section 14. The range request that resumes a download after the connection was lost
includes the end of the range, because some registries refuse open-ended ranges.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from .._argument_checks import safe_repr
from .._http.headers import content_length, content_range, content_type
from .._http.messages import Response
from .._oci.descriptor import Descriptor
from .._oci.digest import Digest, is_empty_digest
from .._oci.manifest import GENERIC_MEDIA_TYPES
from .._oci.scope import Scope
from ..errors import ContentError, ProtocolError, RangeInvalid, RegistryError
from ..media_types import OCTET_STREAM
from .blob_reader import BlobReader
from .error_mapping import HTML_HINT, check_digest_header, error_from_response, is_html_instead_of
from .repository import Repository
from .request_sender import treat_refusal_as_missing

__all__ = ["find_blob", "open_blob", "resolve_blob"]

MAX_SKIP = 64 * 1024 * 1024
"""Maximum number of bytes to skip in a 200 response to the range request that resumes a download."""

_BUFFER_SIZE = 256 * 1024


def open_blob(
    repository: Repository,
    digest: Digest,
    start: int = 0,
    stop: int | None = None,
    *,
    verify: bool = True,
    size: int | None = None,
    max_skip: int | None = None,
    before_reopen: Callable[[], object] = lambda: None,
) -> BlobReader:
    """Open a blob, or a part of it, for reading; see `Client.get_blob_range`.

    Args:
        repository: The repository.
        digest: Digest of the blob.
        start: Position of the first byte. Defaults to 0.
        stop: Position after the last byte. `None` means the end of the blob.
        verify: Whether the reader verifies the whole blob. If false, the caller has to verify it.
        size: Size of the blob in bytes, if known. A response that states another size is refused.
        max_skip: Maximum number of bytes to skip if the registry responds to a range request with the whole blob.
            `None` means no limit; 0 refuses such a response.
        before_reopen: Called before the download is resumed after a lost connection. Its exceptions are propagated.
    """
    digest.hasher()  # raises for an unsupported algorithm before anything is sent
    if start == stop:  # nothing to read: send no request, and use `start` as a lower bound of the size
        return BlobReader(Response(200), Descriptor(OCTET_STREAM, digest, start), start=start, stop=stop, part=True)
    if start == 0 and stop is None:
        response = repository.send("GET", repository.blob_url(digest), repository.pull_scope, ok=(200,))
    else:
        response = _open_range(repository, digest, start, stop)
    try:
        if size is None:
            size = _stated_size(response, start)
        if size is None:
            size = resolve_blob(repository, digest, exists=True).size
        _skip_to(response, start, size, max_skip=max_skip)
        end, known_size = size if stop is None else min(stop, size), size

        def reopen(position: int) -> Response:
            before_reopen()
            # Send the original request again, because the URL of a redirect may have expired.
            return _request_range(repository, digest, position, end, known_size)

        descriptor = Descriptor(content_type(response.headers), digest, size)
        is_part = not verify or (start, end) != (0, size)
        return BlobReader(response, descriptor, start=start, stop=end, part=is_part, reopen=reopen)
    except BaseException:
        response.close()
        raise


def _open_range(repository: Repository, digest: Digest, start: int, stop: int | None) -> Response:
    """GET a range of a blob. If an open-ended range is refused (416), request it again with its end.

    Some registries refuse open-ended ranges. The size of the blob is taken from the Content-Range of the 416 (RFC 9110,
    section 14.4), or requested with a HEAD.
    """
    url, scope = repository.blob_url(digest), repository.pull_scope
    try:
        return repository.send("GET", url, scope, ok=(200, 206), headers=_range_header(start, stop))
    except RangeInvalid as error:
        if stop is not None:
            raise
        size = content_range(Response(error.status, error.headers or ()).headers).size
        if size is None:
            with suppress(RegistryError, ContentError):  # without a size, the 416 is raised below
                size = resolve_blob(repository, digest, exists=True).size
        if size is None or size <= start:
            raise
    return repository.send("GET", url, scope, ok=(200, 206), headers=_range_header(start, size))


def _request_range(repository: Repository, digest: Digest, start: int, stop: int, size: int) -> Response:
    """GET a range of a blob of known size, and return a response that is positioned at `start`."""
    response = repository.send(
        "GET", repository.blob_url(digest), repository.pull_scope, ok=(200, 206), headers=_range_header(start, stop)
    )
    try:
        _skip_to(response, start, size, max_skip=MAX_SKIP)
    except BaseException:
        response.close()
        raise
    return response


def resolve_blob(
    repository: Repository, digest: Digest, scope: Scope | None = None, *, exists: bool = False
) -> Descriptor:
    """Return the descriptor of a blob, from a HEAD or, if it is inconclusive, from a GET of the first byte.

    See `Client.resolve_blob`.

    Args:
        repository: The repository.
        digest: Digest of the blob.
        scope: Scope that a token must grant. Defaults to pull.
        exists: Whether the blob is known to exist. If true, a GET confirms any 404 to the HEAD.
    """
    scope = repository.pull_scope if scope is None else scope
    try:
        head = repository.head(repository.blob_url(digest), scope)
    except RegistryError as refusal:
        if not (repository.needs_confirmation(refusal) or (exists and refusal.status == 404)):
            raise
        return _descriptor_from_first_byte(repository, digest, scope)
    return _descriptor_from_head(repository, digest, scope, head)


def find_blob(repository: Repository, digest: Digest) -> Descriptor | None:
    """Return the descriptor of a blob that is about to be uploaded; `None` if it is missing or the HEAD is refused.

    A refusal is not confirmed by a GET: at worst, an existing blob is uploaded again. A size of 0 is confirmed by a
    GET. If the GET returns no bytes either, but the digest is not the digest of empty content, the blob counts as
    missing.

    Raises:
        DigestMismatch: The registry states another digest of the same algorithm.
        RegistryError: The registry is temporarily unavailable.
        TransportError: No usable response was received.
    """
    # A ProtocolError means that the registry does not state the size. In this case, the blob is uploaded.
    with treat_refusal_as_missing(), suppress(ProtocolError):
        head = repository.head(repository.blob_url(digest), repository.push_scope)
        descriptor = _descriptor_from_head(repository, digest, repository.push_scope, head)
        is_lost = descriptor.size == 0 and digest.known and not is_empty_digest(digest)
        return None if is_lost else descriptor
    return None


def _descriptor_from_head(repository: Repository, digest: Digest, scope: Scope, head: Response) -> Descriptor:
    """Return the descriptor of a blob from the response to a HEAD. A GET confirms a size that is absent or 0."""
    check_digest_header(digest, head)
    size, media_type = content_length(head.headers), content_type(head.headers)
    if size is None or is_html_instead_of(head, digest) or (size == 0 and not is_empty_digest(digest)):
        descriptor = _descriptor_from_first_byte(repository, digest, scope)
        return descriptor if media_type in GENERIC_MEDIA_TYPES else descriptor.replace(media_type=media_type)
    return Descriptor(media_type, digest, size)


def _descriptor_from_first_byte(repository: Repository, digest: Digest, scope: Scope) -> Descriptor:
    """Return the descriptor of a blob from a GET of its first byte, which states the size."""
    response = repository.get_first_byte(digest, scope)
    with response:
        headers = response.headers
        size = content_length(headers) if response.status == 200 else content_range(headers).size
        if response.status == 416:
            if size:  # the blob is not empty, but the registry refuses to send its first byte
                raise error_from_response(response)
            size = 0  # a range of the first byte is only unsatisfiable for empty content (RFC 9110, section 15.5.17)
        elif response.status == 200 and is_html_instead_of(response, digest):
            raise ContentError(f"expected the blob {digest}{HTML_HINT}")
        else:
            check_digest_header(digest, response)
        response.drain()
    if size is None:
        raise ProtocolError(
            f"the registry does not state the size of {digest}: expected Content-Length or Content-Range",
            request=response.request,
        )
    return Descriptor(content_type(headers), digest, size)


def _stated_size(response: Response, start: int) -> int | None:
    """Return the size of the whole blob from a response to a range request. The range must begin at `start`."""
    if response.status != 206:
        return content_length(response.headers)
    first, last, size = content_range(response.headers)
    if first != start or last is None or last < first or (size is not None and size <= last):
        content_range_header = response.headers.get("content-range", "no Content-Range")
        raise ProtocolError(
            f"invalid Content-Range {safe_repr(content_range_header)}: expected bytes from {start} on",
            request=response.request,
        )
    return size


def _skip_to(response: Response, start: int, size: int, *, max_skip: int | None) -> None:
    """Skip the bytes of a response that precede the requested range.

    Args:
        response: A 206, or a 200 with the whole blob.
        start: Position of the first requested byte.
        size: Size of the blob in bytes.
        max_skip: Maximum number of bytes to skip in a 200. `None` means no limit.

    Raises:
        RangeInvalid: The blob is not longer than `start`.
        ProtocolError: A 206 has another range, the size has changed, or more than `max_skip` bytes had to be skipped.
        TransportError: The connection failed.
    """
    stated_size = _stated_size(response, start)
    if stated_size is not None and stated_size != size:
        raise ProtocolError(
            f"the size of the blob changed from {size} to {stated_size} bytes", request=response.request
        )
    if size <= start and start > 0:
        raise RangeInvalid(
            f"invalid range from byte {start}: the blob has {size} bytes",
            status=response.status,
            headers=response.headers,
            request=response.request,
        )
    if response.status == 206:
        return
    if max_skip is not None and start > max_skip:
        raise ProtocolError(
            f"the server does not support ranges: refusing to skip {start} bytes, more than {max_skip}",
            request=response.request,
        )
    buffer = memoryview(bytearray(min(start, _BUFFER_SIZE)))
    remaining = start
    while remaining:
        count = response.readinto(buffer[: min(remaining, len(buffer))])
        if count == 0:
            raise ProtocolError(f"the response ended before byte {start}", request=response.request)
        remaining -= count


def _range_header(start: int, stop: int | None) -> dict[str, str]:
    return {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"}
