"""What a manifest references, and which entries of an index are for a platform.

Follows the OCI image specification, "Image Manifest" and "Image Index", and Docker's manifests, from which they were
derived. What does not is a `ContentError`: it comes from a registry, and is not a mistake of the caller.
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
# What Go programs assume if an architecture has no variant.
_DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7"}


class References(NamedTuple):
    """What a manifest references.

    Attributes:
        blobs: Its layers, blobs and config, each once; the base layer first, the config last.
        manifests: The entries of an index, each once.
        subject: Digest of the manifest that it refers to, which need not exist; `None` if there is none.
        skipped: Number of entries without a valid digest, which reference nothing.
    """

    blobs: tuple[Descriptor, ...]
    manifests: tuple[Descriptor, ...]
    subject: Digest | None
    skipped: int


def read_references(content: bytes) -> References:
    """Read what a manifest references.

    Raises:
        ContentError: It is not a JSON object, an entry is not a descriptor, or a digest cannot be verified.
        Unsupported: It is a Docker schema 1 manifest.
    """
    parsed = parse_manifest(content)
    check_schema(parsed)
    if not _FIELDS & parsed.keys():
        raise ContentError(f"not a manifest: {safe_repr(content)}")
    entries = _descriptors(parsed, "manifests")
    return References(
        _unique(blob for field in ("layers", "blobs", "config") for blob in _descriptors(parsed, field)),
        _unique(entries),
        subject_digest(content),
        len(parsed.get("manifests") or ()) - len(entries),
    )


def media_type_to_push(content: bytes, stated: str, expected: str | None) -> str:
    """Return the media type as which a manifest is to be pushed.

    Args:
        content: The manifest.
        stated: Media type that the registry states.
        expected: Media type of the descriptor that references the manifest, if there is one.

    Raises:
        ContentError: Its own ``mediaType`` is not valid: no registry would accept it.
    """
    parsed = parse_manifest(content)
    own = parsed.get("mediaType")
    if own not in (None, ""):
        media_type = parse_media_type(own)
        if media_type is None:
            raise ContentError(f"not a manifest: its mediaType is {safe_repr(own)}, which is not type/subtype")
        return media_type
    if expected is not None and (expected in MANIFEST_TYPES or stated in GENERIC_MEDIA_TYPES):
        return expected
    guess = OCI_INDEX if "manifests" in parsed else OCI_MANIFEST
    return guess if stated in GENERIC_MEDIA_TYPES else stated


def parse_platform(text: str | Platform) -> Platform:
    """Parse ``os/architecture`` or ``os/architecture/variant``; a `Platform` is returned unchanged.

    Raises:
        UsageError: It is neither.
    """
    if isinstance(text, Platform):
        return text
    parts = text.split("/") if isinstance(text, str) else []
    if len(parts) not in (2, 3) or not all(parts):
        raise UsageError(
            f"not a platform: {safe_repr(text, 200)} (it reads os/architecture or os/architecture/variant)"
        )
    return Platform(parts[1], parts[0], variant=parts[2] if len(parts) == 3 else "")


def matches_platform(descriptor: Descriptor, platforms: Iterable[Platform]) -> bool:
    """Whether an entry of an index is for one of the platforms. An empty field of those matches anything."""
    own = descriptor.platform
    return own is not None and any(
        (own.os, own.architecture) == (wanted.os, wanted.architecture)
        and (not wanted.variant or (own.variant or _DEFAULT_VARIANTS.get(wanted.architecture, "")) == wanted.variant)
        and wanted.os_version in ("", own.os_version)
        and set(wanted.os_features) <= set(own.os_features)
        for wanted in platforms
    )


def index_entries(content: bytes) -> list[tuple[Descriptor, str]]:
    """Return the entries of an index that reference something: as descriptors, and as JSON text with all fields."""
    descriptors = _descriptors(parse_manifest(content), "manifests")
    texts = IndexText.split(content).entries if descriptors else ()
    return list(zip(descriptors, (text for text in texts if _has_digest(json.loads(text))), strict=True))


def _unique(descriptors: Iterable[Descriptor]) -> tuple[Descriptor, ...]:
    by_digest: dict[Digest, Descriptor] = {}
    for descriptor in descriptors:
        if by_digest.setdefault(descriptor.digest, descriptor).size != descriptor.size:
            raise ContentError(f"a manifest names {descriptor.digest} with two sizes")
    return tuple(by_digest.values())


def _descriptors(parsed: dict[str, Any], field: str) -> list[Descriptor]:
    """The descriptors of a field: a list, or one for ``config``. Go programs write null for none."""
    value = parsed.get(field)
    if value is None:
        return []
    entries = [value] if field == "config" else value
    if not isinstance(entries, list):
        raise ContentError(f"not a manifest: {field} is a list of descriptors, not {safe_repr(value)}")
    if field == "manifests":
        entries = [entry for entry in entries if _has_digest(entry)]
    try:
        descriptors = [Descriptor.from_dict(entry) for entry in entries]
        for descriptor in descriptors:
            descriptor.digest.hasher()  # refuses an algorithm that cannot be verified
    except UsageError as error:
        raise ContentError(f"not a manifest: {field}: {error}") from None
    return descriptors


def _has_digest(entry: Any) -> bool:
    """Whether an entry of an index references anything."""
    try:
        Digest(entry["digest"])
    except (KeyError, TypeError, UsageError):
        return False
    return True
