"""What a manifest names, and which of an index's entries are for a platform. Pure: nothing is asked of a registry.

Follows the OCI image specification, "Image Manifest" and "Image Index", and Docker's manifests, which they were made
of. What comes from a registry and is not so is a `ContentError`, never the caller's mistake.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

from .._arguments import show
from .._oci.descriptor import Descriptor, Platform, read_media_type
from .._oci.digest import Digest
from .._oci.manifest import GENERIC_MEDIA_TYPES, IndexText, check_schema, is_index, parse_manifest, subject_digest
from ..errors import ContentError, UsageError
from ..media_types import MANIFEST_TYPES, OCI_INDEX, OCI_MANIFEST

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

_LOG = logging.getLogger("ociwire.client")
_FIELDS = {"schemaVersion", "artifactType", "config", "layers", "blobs", "manifests"}
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
        ContentError: It is not a JSON object, an entry is not a descriptor, or a digest cannot be verified. An entry of
            an index without a valid digest names nothing: it is skipped with a log line.
        Unsupported: It is a Docker schema 1 manifest.
    """
    parsed = parse_manifest(content)
    check_schema(parsed)
    if not _FIELDS & parsed.keys():
        raise ContentError(f"not a manifest: {show(content)}")
    entries = _described(parsed, "manifests")
    skipped = len(parsed.get("manifests") or ()) - len(entries)
    if skipped:
        _LOG.warning("skipped %d entries of an index: expected objects with a valid digest", skipped)
    return Named(
        _once(one for field in ("layers", "blobs", "config") for one in _described(parsed, field)),
        _once(entries),
        subject_digest(content),
    )


def is_manifest(descriptor: Descriptor) -> bool:
    """Whether an index's entry is a manifest for certain; some indexes list blobs too."""
    return descriptor.media_type in MANIFEST_TYPES


def media_type_of(content: bytes, stated: str, expected: str | None) -> str:
    """What a manifest is to be pushed as.

    Args:
        content: The manifest.
        stated: What the registry says that it is, which is not always much.
        expected: What whoever names it says that it is, if anybody does.

    Raises:
        ContentError: It says itself that it is of a media type that is not valid: nobody could push it.
    """
    parsed = parse_manifest(content)
    own = parsed.get("mediaType")
    if own not in (None, ""):
        read = read_media_type(own)
        if read is None:
            raise ContentError(f"not a manifest: its mediaType is {show(own)}, which is not type/subtype")
        return read
    if expected is not None and (expected in MANIFEST_TYPES or stated in GENERIC_MEDIA_TYPES):
        return expected
    guessed = OCI_INDEX if "manifests" in parsed else OCI_MANIFEST
    return guessed if stated in GENERIC_MEDIA_TYPES else stated


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


def entries_of(content: bytes) -> list[tuple[Descriptor, str]]:
    """The entries of an index whose names were read: as descriptors, and as JSON text that keeps every field."""
    described = _described(parse_manifest(content), "manifests")
    texts = IndexText.split(content).entries if described else ()
    return list(zip(described, (text for text in texts if _has_digest(json.loads(text))), strict=True))


def with_entries(content: bytes, entries: Iterable[str]) -> bytes:
    """An index with other entries, and otherwise the same bytes.

    Raises:
        ContentError: It cannot be divided: see `IndexText.split`.
    """
    return IndexText.split(content).join(entries)


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
    listed = [value] if field == "config" else value
    if not isinstance(listed, list):
        raise ContentError(f"not a manifest: {field} is a list of descriptors, not {show(value)}")
    if field == "manifests":
        listed = [one for one in listed if _has_digest(one)]
    try:
        found = [Descriptor.from_dict(one) for one in listed]
        for one in found:
            one.digest.hasher()
    except UsageError as error:
        raise ContentError(f"not a manifest: {field}: {error}") from None
    return found


def _has_digest(entry: Any) -> bool:
    """Whether an entry of an index names anything."""
    try:
        Digest(entry["digest"])
    except (KeyError, TypeError, UsageError):
        return False
    return True
