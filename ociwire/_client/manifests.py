"""Requests that read, resolve and store manifests.

The module `referrers` handles the tags and the subject of a pushed manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from .._argument_checks import safe_repr
from .._http.body import Body
from .._http.headers import content_length, content_type
from .._http.messages import Response, redactor_of
from .._oci.descriptor import Descriptor, Platform, is_media_type
from .._oci.digest import Digest, is_empty_digest, verify_digest
from .._oci.host import redact_url
from .._oci.image_manifest import Index, Manifest
from .._oci.manifest import check_schema, detect_media_type, parse_manifest
from .._oci.scope import Scope
from ..errors import ContentError, ProtocolError, RegistryError, UsageError
from ..media_types import DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, MANIFEST_TYPES, OCI_INDEX, OCI_MANIFEST
from .error_mapping import HTML_HINT, check_digest_header, digest_from_header, is_html_body, is_labelled_html
from .repository import Repository, add_query
from .request_sender import read_with_retry, treat_refusal_as_missing

__all__ = [
    "ACCEPT",
    "ReceivedManifest",
    "build_descriptor",
    "fetch_manifest",
    "find_manifest",
    "is_stored",
    "put_manifest",
    "resolve_manifest",
    "serialize",
]

ACCEPT = {"Accept": ", ".join((OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, "*/*"))}
"""Accept header for any manifest. Without it, some registries convert images to Docker schema 1."""


class ReceivedManifest(NamedTuple):
    """A manifest that was received from a registry and verified.

    Attributes:
        descriptor: Descriptor of the manifest.
        content: The bytes of the manifest.
        response: The closed response.
    """

    descriptor: Descriptor
    content: bytes
    response: Response


def fetch_manifest(
    repository: Repository, reference: str, digest: Digest | None, scope: Scope | None = None
) -> ReceivedManifest:
    """GET a manifest and verify it. If the connection is lost, the request is repeated.

    Args:
        repository: The repository.
        reference: A tag or a digest.
        digest: The requested digest. For a tag, it may be `None`: the digest is then read from Docker-Content-Digest
            or, without this header, is the sha256 of the content.
        scope: Scope that a token must grant. Defaults to pull.

    Raises:
        DigestMismatch: The digest of the content differs.
        ContentError: The manifest is larger than `Client(max_manifest_size=)`, contradicts its Content-Type, or is an
            HTML page.
        Unsupported: The content is a Docker schema 1 manifest.
        RegistryError: The registry responded with an error.
        TransportError: No usable response was received.
    """
    if digest is not None:
        digest.hasher()  # raises for an unsupported algorithm before anything is sent
    url, limit = repository.manifest_url(reference), repository.sender.max_manifest_size
    scope = repository.pull_scope if scope is None else scope
    response, content = read_with_retry(
        lambda: repository.send("GET", url, scope, ok=(200,), headers=ACCEPT), limit=limit
    )
    if len(content) > limit:
        raise ContentError(
            f"the manifest is larger than the limit of {limit} bytes: raise it with Client(max_manifest_size=...)"
        )
    parsed, stated_type = parse_manifest(content), content_type(response.headers)
    # Check the schema before the digest. The digest of a signed schema 1 manifest does not cover its signatures, so
    # that the digest of the content would not match.
    check_schema(parsed, stated_type)
    is_page = is_html_body(response, content)
    expected = digest or digest_from_header(response) or Digest.of(content)
    hasher = expected.hasher()
    hasher.update(content)
    verify_digest(hasher, expected, subject="manifest", hint=HTML_HINT if is_page else "")
    if digest is None and not parsed and is_page:
        raise ContentError(f"expected a manifest at {redact_url(url)}{HTML_HINT}")
    try:
        media_type = detect_media_type(parsed, stated_type)
    except ContentError as error:
        redactor_of(response.request).redact_error(error)  # the message quotes the content
        raise
    return ReceivedManifest(Descriptor(media_type, expected, len(content)), content, response)


def resolve_manifest(repository: Repository, reference: str, digest: Digest | None) -> Descriptor:
    """Return the descriptor of a manifest. Sends a HEAD and, if its response is inconclusive, a GET.

    A GET is sent if the HEAD may not be supported (`Repository.needs_confirmation`), if its response has no digest or
    size, or if its Content-Type is not a manifest type.

    Raises:
        DigestMismatch: The registry states another digest of the same algorithm.
        OciwireError: See `fetch_manifest`.
    """
    can_verify = digest is None or digest.known
    try:
        response = repository.head(repository.manifest_url(reference), repository.pull_scope, ACCEPT)
    except RegistryError as refusal:
        if not can_verify or not repository.needs_confirmation(refusal):
            raise
        return fetch_manifest(repository, reference, digest).descriptor
    check_digest_header(digest, response)
    headers, actual = response.headers, digest or digest_from_header(response)
    size, media_type = content_length(headers), content_type(headers)
    if not can_verify and not size:
        raise ProtocolError(f"the registry does not state the size of {actual}", request=response.request)
    # Registries may omit the Content-Type in response to a HEAD. If the Content-Type is not a manifest type, it is
    # wrong, or the response is an HTML page.
    has_type = media_type in MANIFEST_TYPES or "content-type" not in headers
    has_size = bool(size) or (size == 0 and actual is not None and is_empty_digest(actual))
    # ECR and older registries send no Docker-Content-Digest in response to a HEAD, so that the content must be hashed.
    if actual is None or size is None or (can_verify and not (has_type and has_size)):
        return fetch_manifest(repository, reference, digest).descriptor
    return Descriptor(media_type, actual, size)


def find_manifest(repository: Repository, reference: str) -> Digest | None:
    """Return the digest of a manifest that is about to be pushed; `None` if it is missing or the HEAD is refused.

    A refusal is not confirmed by a GET: at worst, an existing manifest is pushed again.

    Raises:
        DigestMismatch: The registry states another digest of the same algorithm.
        RegistryError: The registry is temporarily unavailable.
        TransportError: No usable response was received.
    """
    digest = Digest(reference) if ":" in reference else None
    with treat_refusal_as_missing():
        response = repository.head(repository.manifest_url(reference), repository.push_scope, ACCEPT)
        check_digest_header(digest, response)
        stated_digest = digest_from_header(response)
        if stated_digest is not None:
            return digest or stated_digest
        if digest is not None:  # Docker-Content-Digest is optional, but an HTML page is not a manifest
            return None if is_labelled_html(response) else digest
        return fetch_manifest(repository, reference, None, repository.push_scope).descriptor.digest
    return None


def put_manifest(
    repository: Repository, reference: str, content: bytes, descriptor: Descriptor, query_tags: list[str]
) -> Response:
    """PUT a manifest under a tag or its digest, and return the closed response.

    Args:
        repository: The repository.
        reference: A tag or the digest.
        content: The manifest.
        descriptor: Descriptor of the manifest.
        query_tags: Additional tags, sent as ``tag=`` query parameters (specification, "Pushing Manifests").

    Raises:
        DigestMismatch: The registry states another digest.
        RegistryError: The registry responded with an error.
        TransportError: No usable response was received.
    """
    url = repository.manifest_url(reference)
    for tag in query_tags:
        url = add_query(url, {"tag": tag})
    response = repository.put(
        url,
        descriptor.digest,
        Body.of(content),
        is_stored=lambda: is_stored(repository, reference, descriptor.digest),
        headers={"Content-Type": descriptor.media_type},
    )
    check_digest_header(descriptor.digest, response)
    return response


def is_stored(repository: Repository, reference: str, digest: Digest) -> bool:
    """Return whether a GET of a manifest, by tag or digest, returns the content with the given digest."""
    try:
        fetch_manifest(repository, reference, digest, repository.push_scope)
    except (RegistryError, ContentError):
        return False
    return True


def serialize(content: bytes | Mapping[str, Any] | Manifest | Index) -> bytes:
    """Return the bytes of a manifest that a user pushes.

    Raises:
        UsageError: The content has another type, or cannot be written as JSON.
    """
    if isinstance(content, (Manifest, Index)):
        return content.to_bytes()
    if isinstance(content, (bytes, bytearray, memoryview)):
        return bytes(content)
    if not isinstance(content, Mapping):
        raise UsageError(f"content must be bytes, a mapping, a Manifest or an Index, got {type(content).__name__}")
    try:
        return json.dumps(
            dict(content), ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_to_json
        ).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot write the manifest as JSON: {error}") from None


def _to_json(value: object) -> object:
    """Return the JSON value of an object that `json` does not know, such as a descriptor among the layers."""
    if isinstance(value, (Descriptor, Platform)):
        return value.to_dict()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"expected JSON values and descriptors, got {type(value).__name__}")


def build_descriptor(content: bytes, media_type: str | None, digest: str | None) -> Descriptor:
    """Return the descriptor of a manifest that a user pushes.

    Raises:
        UsageError: The media type is invalid, missing, or differs from the ``mediaType`` of the content; or the digest
            differs.
    """
    parsed = parse_manifest(content)
    stated_type = parsed.get("mediaType")
    if media_type is None:
        guess = OCI_INDEX if "manifests" in parsed else OCI_MANIFEST if "config" in parsed else None
        media_type = guess if stated_type is None else stated_type
        if media_type is None:
            raise UsageError(
                "the media type of the manifest is unknown: expected a JSON object with the field mediaType, config or"
                " manifests, or the argument media_type"
            )
    if not is_media_type(media_type):
        is_like_tag = isinstance(media_type, str) and "/" not in media_type  # other clients accept a tag here
        hint = "; for a tag, use tags=[...]" if is_like_tag else ""
        raise UsageError(
            f"invalid media type {safe_repr(media_type, 200)}: expected type/subtype without parameters{hint}"
        )
    if stated_type is not None and stated_type != media_type:
        raise UsageError(
            f"invalid media type {safe_repr(media_type)}: expected {stated_type!r:.200}, the mediaType of the manifest"
        )
    expected = Digest.of(content) if digest is None else Digest(digest)
    actual = Digest.of(content, expected.algorithm)
    if actual != expected:
        raise UsageError(f"invalid digest {expected}: expected {actual}, the digest of the manifest")
    return Descriptor(media_type, expected, len(content))
