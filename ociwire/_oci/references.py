"""References of a manifest to blobs and other manifests, and selection of index entries by platform.

Supports manifests of the OCI image specification ("OCI Image Manifest" and "OCI Image Index") and the Docker manifests
from which they were derived. Invalid manifests raise `ContentError`, not `UsageError`, because they come from a
registry.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from .._argument_checks import safe_repr
from ..errors import ContentError, UsageError
from ..media_types import MANIFEST_TYPES, OCI_INDEX, OCI_MANIFEST
from .descriptor import Descriptor, Platform, parse_media_type
from .digest import Digest
from .manifest import GENERIC_MEDIA_TYPES, IndexText, check_schema, parse_manifest, subject_digest

__all__ = ["References", "index_entries", "matches_platform", "media_type_to_push", "parse_platform", "read_references"]

_FIELDS = {"schemaVersion", "artifactType", "config", "layers", "blobs", "manifests"}
# The variants that containerd and other Go programs assume if a platform states no variant.
_DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7"}


class References(NamedTuple):
    """References of a manifest, without duplicates.

    Attributes:
        blobs: Descriptors of the layers, blobs and config, in this order.
        manifests: Entries of the index, if the manifest is an index.
        subject: Digest of the subject, which does not have to exist in the registry. `None` without a subject.
        skipped: Number of entries of the index that were skipped because they have no valid digest.
    """

    blobs: tuple[Descriptor, ...]
    manifests: tuple[Descriptor, ...]
    subject: Digest | None
    skipped: int


def read_references(content: bytes) -> References:
    """Return the references of a manifest.

    Raises:
        ContentError: The content is not a manifest, a reference is not a descriptor, or the algorithm of a digest is
            not supported.
        Unsupported: The content is a Docker schema 1 manifest.
    """
    parsed = parse_manifest(content)
    check_schema(parsed)
    if not _FIELDS & parsed.keys():
        raise ContentError(
            f"invalid manifest: expected a JSON object with fields of a manifest or index, got {safe_repr(content)}"
        )
    entries = _descriptors(parsed, "manifests")
    return References(
        _unique(blob for field in ("layers", "blobs", "config") for blob in _descriptors(parsed, field)),
        _unique(entries),
        subject_digest(content),
        len(parsed.get("manifests") or ()) - len(entries),
    )


def media_type_to_push(content: bytes, stated: str, expected: str | None) -> str:
    """Return the media type to use when pushing a manifest that was read from a registry.

    Args:
        content: The manifest. Its ``mediaType`` takes precedence.
        stated: Media type that the registry states.
        expected: Media type in the descriptor that references the manifest; `None` if there is no such descriptor.

    Raises:
        ContentError: The ``mediaType`` of the manifest is invalid. No registry would accept the manifest.
    """
    parsed = parse_manifest(content)
    field = parsed.get("mediaType")
    if field not in (None, ""):
        media_type = parse_media_type(field)
        if media_type is None:
            raise ContentError(f"invalid manifest: mediaType must be type/subtype, got {safe_repr(field)}")
        return media_type
    # Without a `mediaType`, the descriptor is more reliable than the Content-Type, which may be generic (S3, proxies).
    if expected is not None and (expected in MANIFEST_TYPES or stated in GENERIC_MEDIA_TYPES):
        return expected
    guess = OCI_INDEX if "manifests" in parsed else OCI_MANIFEST
    return guess if stated in GENERIC_MEDIA_TYPES else stated


def parse_platform(text: str | Platform) -> Platform:
    """Parse ``os/architecture`` or ``os/architecture/variant``; return a `Platform` unchanged.

    Raises:
        UsageError: The argument has another form.
    """
    if isinstance(text, Platform):
        return text
    parts = text.split("/") if isinstance(text, str) else []
    if len(parts) not in (2, 3) or not all(parts) or "," in "".join(parts):
        raise UsageError(
            f"invalid platform {safe_repr(text, 200)}: expected os/architecture or os/architecture/variant"
        )
    return Platform(parts[1], parts[0], variant=parts[2] if len(parts) == 3 else "")


def matches_platform(descriptor: Descriptor, platforms: Iterable[Platform]) -> bool:
    """Return whether an entry of an index matches one of the platforms. Empty fields of a platform match any value."""
    platform = descriptor.platform
    return platform is not None and any(
        (platform.os, platform.architecture) == (requested.os, requested.architecture)
        and (
            not requested.variant
            or (platform.variant or _DEFAULT_VARIANTS.get(requested.architecture, "")) == requested.variant
        )
        and requested.os_version in ("", platform.os_version)
        and set(requested.os_features) <= set(platform.os_features)
        for requested in platforms
    )


def index_entries(content: bytes) -> list[tuple[Descriptor, str]]:
    """Return the index entries that have a valid digest, each as a descriptor and as JSON text with all fields."""
    descriptors = _descriptors(parse_manifest(content), "manifests")
    texts = IndexText.split(content).entries if descriptors else ()
    return list(zip(descriptors, (text for text in texts if _has_digest(json.loads(text))), strict=True))


def _unique(descriptors: Iterable[Descriptor]) -> tuple[Descriptor, ...]:
    by_digest: dict[Digest, Descriptor] = {}  # in the order of the first occurrence
    for descriptor in descriptors:
        if by_digest.setdefault(descriptor.digest, descriptor).size != descriptor.size:
            raise ContentError(f"invalid manifest: two descriptors of {descriptor.digest} have different sizes")
    return tuple(by_digest.values())


def _descriptors(parsed: dict[str, Any], field: str) -> list[Descriptor]:
    """Return the descriptors in a field. The field ``config`` is a single descriptor, and other fields are lists."""
    value = parsed.get(field)
    if value is None:  # absent, or null: Go serializes an empty list as null
        return []
    entries = [value] if field == "config" else value
    if not isinstance(entries, list):
        raise ContentError(f"invalid manifest: {field} must be a list of descriptors, got {safe_repr(value)}")
    if field == "manifests":
        entries = [entry for entry in entries if _has_digest(entry)]
    try:
        descriptors = [Descriptor.from_dict(entry) for entry in entries]
        for descriptor in descriptors:
            descriptor.digest.hasher()  # raises if the digest cannot be verified (unsupported algorithm)
    except UsageError as error:
        raise ContentError(f"invalid manifest: {field}: {error}") from None
    return descriptors


def _has_digest(entry: Any) -> bool:
    """Return whether an entry of an index has a valid digest."""
    try:
        Digest(entry["digest"])
    except (KeyError, TypeError, UsageError):
        return False
    return True
