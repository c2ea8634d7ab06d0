"""What a manifest names, and which of an index's entries are for a platform. Pure: nothing is asked of a registry.

Follows the OCI image specification, "Image Manifest" and "Image Index", and Docker's manifests, which they were made
of. What comes from a registry and is not so is a `ContentError`, never the caller's mistake.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from ..arguments import show
from ..descriptor import (
    DOCKER_MANIFEST,
    DOCKER_MANIFEST_LIST,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Platform,
    is_media_type,
)
from ..digest import Digest
from ..errors import ContentError, UsageError
from ..manifest import VAGUE, parse

__all__ = [
    "Named",
    "entries_of",
    "is_index",
    "is_manifest",
    "matches",
    "media_type_of",
    "names",
    "platform_of",
    "with_entries",
]

_FIELDS = {"schemaVersion", "artifactType", "config", "layers", "blobs", "manifests"}
_INDEXES = frozenset({OCI_INDEX, DOCKER_MANIFEST_LIST})
_MANIFESTS = _INDEXES | {OCI_MANIFEST, DOCKER_MANIFEST}
# What Go programs take to be meant where an architecture comes without its variant.
_USUAL_VARIANTS = {"arm64": "v8", "arm": "v7"}


class Named(NamedTuple):
    """What a manifest names.

    Attributes:
        blobs: Its config, layers and blobs, each once.
        manifests: The entries of an index, each once.
        subject: What it refers to, which need not be there; None if it refers to none.
    """

    blobs: tuple[Descriptor, ...]
    manifests: tuple[Descriptor, ...]
    subject: Digest | None


def names(content: bytes) -> Named:
    """What a manifest names; the layers come before the config, the base first.

    Raises:
        ContentError: It is no JSON object, is of Docker's schema 1, or names what is no descriptor or has a digest that
            cannot be verified.
    """
    parsed = parse(content)
    if parsed.get("schemaVersion") == 1:
        raise ContentError("a manifest of Docker's schema 1 cannot be copied")
    if not _FIELDS & parsed.keys():
        raise ContentError(f"not a manifest: {content[:100]!r}")
    subject = _described(parsed, "subject")
    return Named(
        _once(one for field in ("layers", "blobs", "config") for one in _described(parsed, field)),
        _once(_described(parsed, "manifests")),
        subject[0].digest if subject else None,
    )


def is_manifest(descriptor: Descriptor) -> bool:
    """Whether an index's entry is a manifest for certain; some indexes list blobs too."""
    return descriptor.media_type in _MANIFESTS


def is_index(descriptor: Descriptor) -> bool:
    """Whether it is a list of other manifests."""
    return descriptor.media_type in _INDEXES


def media_type_of(content: bytes, stated: str, expected: str | None) -> str:
    """What a manifest is to be pushed as.

    Args:
        content: The manifest.
        stated: What the registry says that it is, which is not always much.
        expected: What whoever names it says that it is, if anybody does.

    Raises:
        ContentError: It says itself that it is of a media type that is not valid: nobody could push it.
    """
    parsed = parse(content)
    own = parsed.get("mediaType")
    if own is not None:
        if not is_media_type(own):
            raise ContentError(f"not a manifest: its mediaType is {own!r:.100}, which is not type/subtype")
        return str(own)
    if expected is not None:
        return expected
    guessed = OCI_INDEX if "manifests" in parsed else OCI_MANIFEST
    return guessed if stated in VAGUE else stated


def platform_of(text: str | Platform) -> Platform:
    """A platform as ``os/architecture`` or ``os/architecture/variant``, or as it is.

    Raises:
        UsageError: It is neither.
    """
    if isinstance(text, Platform):
        return text
    parts = text.split("/") if isinstance(text, str) else []
    if len(parts) not in (2, 3) or not all(parts):
        raise UsageError(f"not a platform: {show(text, 200)} (it reads os/architecture or os/architecture/variant)")
    return Platform(parts[1], parts[0], variant=parts[2] if len(parts) == 3 else "")


def matches(descriptor: Descriptor, wanted: Iterable[Platform]) -> bool:
    """Whether an index's entry is for one of the platforms; what a wanted platform leaves open, may be anything."""
    platform = descriptor.platform
    return platform is not None and any(_is_for(platform, one) for one in wanted)


def entries_of(content: bytes) -> list[tuple[Descriptor, dict[str, Any]]]:
    """The entries of an index whose names were read: as descriptors, and as they stand there, to the last field."""
    parsed = parse(content)
    return list(zip(_described(parsed, "manifests"), parsed.get("manifests") or (), strict=True))


def with_entries(content: bytes, entries: Iterable[dict[str, Any]]) -> bytes:
    """An index with other entries, and else all that it says, in at most four times as many bytes.

    Raises:
        ContentError: It says what cannot be written: it is too deep, or has a number that is not JSON.
    """
    try:
        return json.dumps({**parse(content), "manifests": list(entries)}, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise ContentError(
            "an index cannot be written with fewer entries: it is too deep, or has a number that is not JSON"
        ) from error


def _is_for(platform: Platform, wanted: Platform) -> bool:
    usual = _USUAL_VARIANTS.get(wanted.architecture, "")
    return (
        (platform.os, platform.architecture) == (wanted.os, wanted.architecture)
        and (not wanted.variant or (platform.variant or usual) == wanted.variant)
        and wanted.os_version in ("", platform.os_version)
        and set(wanted.os_features) <= set(platform.os_features)
    )


def _once(descriptors: Iterable[Descriptor]) -> tuple[Descriptor, ...]:
    found: dict[Digest, Descriptor] = {}
    for one in descriptors:
        if found.setdefault(one.digest, one).size != one.size:
            raise ContentError(f"a manifest names {one.digest} with two sizes")
    return tuple(found.values())


def _described(parsed: dict[str, Any], field: str) -> list[Descriptor]:
    """The descriptors under a field: a list of them, or one alone; null is an absence, as it is to Go."""
    value = parsed.get(field)
    if value is None:
        return []
    listed = [value] if field in ("config", "subject") else value
    if not isinstance(listed, list):
        raise ContentError(f"not a manifest: {field} is a list of descriptors, not {value!r:.100}")
    try:
        found = [Descriptor.from_dict(one) for one in listed]
        for one in found:
            one.digest.hasher()
    except UsageError as error:
        raise ContentError(f"not a manifest: {field}: {error}") from None
    return found
