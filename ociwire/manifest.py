"""Manifests: small enough to be read whole, and read whole before any of it is believed.

Follows the OCI distribution specification, "Pulling manifests" and "Pushing Manifests".
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from .arguments import show
from .body import Body
from .descriptor import (
    DOCKER_MANIFEST,
    DOCKER_MANIFEST_LIST,
    OCI_INDEX,
    OCI_MANIFEST,
    OCTET_STREAM,
    Descriptor,
    is_media_type,
)
from .digest import Digest
from .errors import ContentError, DigestMismatch, ProtocolError, RegistryError, Unsupported, UsageError
from .headers import content_length
from .message import Response, redactor_of
from .scope import Scope
from .session import Session, read_anew

__all__ = [
    "VAGUE",
    "Manifest",
    "check_claim",
    "described",
    "fetch",
    "is_stored",
    "media_type_of",
    "parse",
    "put",
    "resolve",
]

MAX_SIZE = 4 * 1024 * 1024
"""The most that a manifest may have, in bytes (specification, "Pushing Manifests": at least that is to be taken)."""
ACCEPT = {"Accept": ", ".join((OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, "*/*"))}
VAGUE = frozenset({OCTET_STREAM, "application/json", "text/plain"})
"""What a server says that does not know what it serves."""


class Manifest(NamedTuple):
    """A manifest as it was served, verified.

    Attributes:
        descriptor: What it is.
        content: Its bytes.
        response: The response that it came with, closed.
    """

    descriptor: Descriptor
    content: bytes
    response: Response


def fetch(session: Session, operation: str, url: str, scope: Scope, digest: Digest | None) -> Manifest:
    """GET a manifest; anew, from its beginning, if the connection is lost in the middle of it.

    Args:
        session: What sends.
        operation: The client's operation.
        url: Where it is.
        scope: What it needs.
        digest: What was asked for; None, for a tag, leaves it to the header, or else to the content.

    Raises:
        DigestMismatch: The content is not that of the digest.
        ContentError: It is larger than 4 MiB, or contradicts its Content-Type.
        RegistryError: The registry said no.
        TransportError: There is no usable answer.
    """
    if digest is not None:
        digest.hasher()  # what cannot be verified is refused before anything is sent
    response, content = _read(session, operation, url, scope)
    expected = digest or _claimed(response) or Digest.of(content)
    actual = Digest.of(content, expected.algorithm)
    if actual != expected:
        raise DigestMismatch(
            f"the manifest is not what was asked for: its digest is {actual}, not {expected}",
            expected=expected,
            actual=actual,
        )
    return Manifest(Descriptor(_media_type(response, content), expected, len(content)), content, response)


def resolve(session: Session, operation: str, url: str, scope: Scope, digest: Digest | None) -> Descriptor:
    """HEAD a manifest; GET it where the registry does not do that (405), or does not tell digest and length.

    Raises:
        DigestMismatch: The registry claims another digest of the same algorithm.
        OciwireError: As `fetch`.
    """
    try:
        response = session.send(operation, "HEAD", url, scope, ok=(200,), headers=ACCEPT)
    except Unsupported:
        if digest is not None and not digest.known:
            raise
        return fetch(session, operation, url, scope, digest).descriptor
    response.close()
    claimed = _claimed(response)
    check_claim(digest, response)
    size = content_length(response.headers)
    found = digest or claimed
    if found is not None and size is None and not found.known:
        raise ProtocolError(f"the registry does not tell the size of {found}", request=response.request)
    if found is None or size is None:
        return fetch(session, operation, url, scope, digest).descriptor
    return Descriptor(media_type_of(response), found, size)


def put(session: Session, url: str, scope: Scope, descriptor: Descriptor, content: bytes) -> Response:
    """PUT a manifest; returns the answer, closed.

    Raises:
        DigestMismatch: The registry has taken it for another.
        RegistryError: The registry said no.
        TransportError: There is no usable answer.
    """
    operation, path = "push_manifest", url.partition("?")[0]
    response = session.put(
        operation,
        url,
        scope,
        descriptor.digest,
        Body.of(content),
        is_stored=lambda: is_stored(session, operation, path, scope, descriptor.digest),
        headers={"Content-Type": descriptor.media_type},
    )
    check_claim(descriptor.digest, response)
    return response


def is_stored(session: Session, operation: str, url: str, scope: Scope, digest: Digest) -> bool:
    """Return whether a GET of a manifest, by tag or digest, finds the content of a digest."""
    try:
        fetch(session, operation, url, scope, digest)
    except (RegistryError, ContentError):
        return False
    return True


def described(content: bytes, media_type: str, digest: str | None) -> Descriptor:
    """The descriptor of a manifest that is to be pushed.

    Raises:
        UsageError: It has another digest, or says that it is of another media type, or the media type is not valid.
    """
    if not is_media_type(media_type):
        raise UsageError(f"not a media type: {show(media_type, 200)} (it reads type/subtype, without parameters)")
    own = parse(content).get("mediaType")
    if own is not None and own != media_type:
        raise UsageError(f"the manifest says that it is {own!r:.200}, and is pushed as {show(media_type)}")
    wanted = Digest.of(content) if digest is None else Digest(digest)
    actual = Digest.of(content, wanted.algorithm)
    if actual != wanted:
        raise UsageError(f"the manifest's digest is {actual}, not {wanted}")
    return Descriptor(media_type, wanted, len(content))


def check_claim(digest: Digest | None, response: Response) -> None:
    """Refuse a Docker-Content-Digest of the same algorithm as what was asked for, and another value."""
    claimed = response.headers.get("docker-content-digest", "")
    if digest is not None and claimed != digest and claimed.partition(":")[0] == digest.algorithm:
        claimed = redactor_of(response.request).text(claimed)
        raise DigestMismatch(
            f"the registry answers for {digest} with {claimed!r:.200}", expected=digest, actual=claimed
        )


def media_type_of(response: Response) -> str:
    """The Content-Type without its parameters; ``application/octet-stream`` where it is not valid."""
    stated = response.headers.get("content-type", "").partition(";")[0].strip()
    return stated if is_media_type(stated) else OCTET_STREAM


def parse(content: bytes) -> dict[str, Any]:
    """The JSON object that a manifest is; empty if it is not one."""
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _read(session: Session, operation: str, url: str, scope: Scope) -> tuple[Response, bytes]:
    response, content = read_anew(
        lambda: session.send(operation, "GET", url, scope, ok=(200,), headers=ACCEPT), limit=MAX_SIZE
    )
    if len(content) > MAX_SIZE:
        raise ContentError(f"a manifest of more than {MAX_SIZE} bytes is not read")
    return response, content


def _claimed(response: Response) -> Digest | None:
    """The digest of the header, if it is one that can be verified."""
    try:
        claimed = Digest(response.headers.get("docker-content-digest", ""))
        claimed.hasher()
    except UsageError:
        return None
    return claimed


def _media_type(response: Response, content: bytes) -> str:
    stated = media_type_of(response)
    own = parse(content).get("mediaType")
    if not is_media_type(own) or own == stated:
        return stated
    if stated not in VAGUE:
        said = f"a manifest says that it is {own}, and its Content-Type that it is {stated}"
        raise ContentError(redactor_of(response.request).text(said))
    return str(own)
