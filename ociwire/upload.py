"""The steps of an upload, as requests: opened by a POST, asked how far it is, closed by a PUT.

Follows the OCI distribution specification, "Pushing blobs", and what registries do instead of it.
"""

from __future__ import annotations

import re
from contextlib import suppress
from urllib.parse import urlencode

from .body import Body
from .descriptor import OCTET_STREAM
from .digest import Digest
from .errors import BlobUploadInvalid, BlobUploadUnknown, NotFound, ProtocolError
from .message import Response
from .scope import Scope
from .session import Session

__all__ = ["cancel", "is_there", "open_upload", "push", "put", "smallest_chunk", "uploaded"]

MAX_CHUNK = 1024 * 1024 * 1024
"""The largest chunk that a registry may ask for, in bytes: a chunk is held in memory."""

# 0-99, bytes=0-99, bytes 0-99, 0-99/*, 0-99/100: what counts is the last byte.
_RANGE = re.compile(r"(?:bytes[= ])?\s*[0-9]{1,18}-([0-9]{1,18})(?:/.*)?")


def open_upload(session: Session, operation: str, repository: str, algorithm: str) -> Response:
    """Open an upload with a POST (specification, "Pushing blobs"); returns its answer, closed.

    An algorithm other than sha256 is announced (``digest-algorithm=``), so that the registry hashes with it.
    """
    path = f"/v2/{repository}/blobs/uploads/"
    url = path if algorithm == "sha256" else query(path, {"digest-algorithm": algorithm})
    scope = Scope.repository(repository, "pull", "push")
    opened = session.send(operation, "POST", url, scope, ok=(202,), idempotent=True)
    opened.discard()
    return opened


def query(url: str, parameters: dict[str, str]) -> str:
    """A URL with more parameters in its query."""
    return f"{url}{'&' if '?' in url else '?'}{urlencode(parameters, safe=':')}"


def smallest_chunk(response: Response) -> int:
    """What OCI-Chunk-Min-Length demands, in bytes; 0 where it is absent or garbage.

    Raises:
        ProtocolError: It is more than a client can be asked to hold in memory.
    """
    stated = response.headers.get("oci-chunk-min-length", "").strip()
    least = int(stated) if re.fullmatch(r"[0-9]{1,18}", stated) else 0
    if least > MAX_CHUNK:
        raise ProtocolError(f"the registry wants chunks of {least} bytes, too many to hold", request=response.request)
    return least


def uploaded(response: Response) -> int:
    """How many bytes an upload has, by its Range; 0 where there is none, and for ``0-0``, which may be 0 or 1."""
    match = _RANGE.fullmatch(response.headers.get("range", "").strip())
    last = int(match[1]) if match else 0
    return last + 1 if last else 0


def put(
    session: Session, operation: str, repository: str, url: str, digest: Digest, body: Body | None, first: int = 0
) -> None:
    """Close an upload with a PUT of the whole, or of what is left of it.

    Args:
        session: What sends.
        operation: The client's operation.
        repository: Where.
        url: The upload.
        digest: What the registry is to find the content to be.
        body: The content that goes with the PUT.
        first: The position of its first byte. At 0 there is no Content-Range, which some registries refuse.

    Raises:
        RegistryError: The registry said no.
        TransportError: There is no usable answer.
    """
    headers = {"Content-Type": OCTET_STREAM}
    if first and body is not None and body.length:
        headers["Content-Range"] = f"{first}-{first + body.length - 1}"
    scope = Scope.repository(repository, "pull", "push")
    closing = query(url, {"digest": digest})
    session.send(operation, "PUT", closing, scope, ok=(201,), headers=headers, body=body).discard()


def push(session: Session, repository: str, digest: Digest, body: Body) -> None:
    """Upload a blob with a POST and a PUT; see `Client.push_blob`.

    Where the registry has given the upload up, because the first attempt at the PUT broke in the middle of it, a body
    that can be sent again is sent to a new one, once.
    """
    for tries_left in (1, 0):
        location = session.location(open_upload(session, "push_blob", repository, digest.algorithm))
        try:
            put(session, "push_blob", repository, location, digest, body)
        except (BlobUploadUnknown, BlobUploadInvalid):
            if is_there(session, "push_blob", repository, digest):
                return
            if not body.resendable or not tries_left:
                raise
        else:
            return


def cancel(session: Session, operation: str, repository: str, url: str) -> None:
    """Give an upload up (specification, "Canceling an upload"); if it is gone, that is what was wanted."""
    scope = Scope.repository(repository, "pull", "push")
    with suppress(NotFound):
        session.send(operation, "DELETE", url, scope, ok=(200, 202, 204), idempotent=True).discard()


def is_there(session: Session, operation: str, repository: str, digest: Digest) -> bool:
    """Whether a blob is there after all, where its upload is unknown.

    An upload that is over is unknown: a PUT that was sent twice, from here or below, may have succeeded the first time.
    """
    scope = Scope.repository(repository, "pull", "push")
    try:
        session.send(operation, "HEAD", f"/v2/{repository}/blobs/{digest}", scope, ok=(200,)).discard()
    except NotFound:
        return False
    return True
