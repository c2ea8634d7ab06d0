"""What a manifest says of itself, and whether it is one.

Follows the OCI image specification, "Image Manifest" and "Image Index", and Docker's manifests, which they were made
of. Of a type that is not known here only the fields are looked at that these have too. Nothing is asked of a registry.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NoReturn, final

from .._oci.descriptor import Descriptor, is_media_type
from .._oci.digest import Digest
from ..errors import UsageError
from ..media_types import DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, OCI_INDEX, OCI_MANIFEST
from ._responses import Refused

__all__ = ["Manifest", "read_manifest"]

_KNOWN = frozenset({OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_MANIFEST_LIST})


@final
@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest.

    Attributes:
        entry: Its descriptor as a list of referrers has it: with its artifact type and its annotations.
        content: Its bytes, as they came.
        subject: What it refers to, if anything.
        blobs: What it needs to be in the repository, as a blob.
        manifests: What it needs to be in the repository, as a manifest or as a blob.
    """

    entry: Descriptor
    content: bytes
    subject: Digest | None
    blobs: tuple[Digest, ...]
    manifests: tuple[Digest, ...]


def read_manifest(content: bytes, content_type: str, digest: Digest) -> Manifest:
    """Read a manifest that is pushed.

    Args:
        content: Its bytes.
        content_type: The Content-Type that it was pushed with, empty if there was none; its parameters are ignored.
        digest: Its digest, which has been verified.

    Raises:
        Refused: It is not a valid one, or not of that type.
    """
    parsed = _parse(content)
    media_type = _media_type(parsed, content_type.partition(";")[0].strip())
    _check_fields(parsed, media_type)
    try:
        config = _described(parsed, "config")
        blobs = [*config, *_described(parsed, "layers"), *_described(parsed, "blobs")]
        manifests = _described(parsed, "manifests")
        subject = _described(parsed, "subject")
        # "Listing Referrers": an index has no config, so that it has no other artifact type than its own.
        artifact_type = parsed.get("artifactType") or next((one.media_type for one in config), None)
        entry = Descriptor(
            media_type,
            digest,
            len(content),
            annotations=parsed.get("annotations"),
            artifact_type=artifact_type,
        )
    except UsageError as error:
        _refuse(str(error))
    return Manifest(
        entry,
        content,
        next((one.digest for one in subject), None),
        tuple(one.digest for one in blobs if not one.urls),  # what is to be had elsewhere need not be here
        tuple(one.digest for one in manifests if not one.urls),
    )


def _refuse(reason: str) -> NoReturn:
    raise Refused(400, "MANIFEST_INVALID", reason)


def _parse(content: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(content.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        _refuse(f"the manifest is not JSON: {error}")
    if not isinstance(parsed, dict):
        _refuse("the manifest is no JSON object")
    return parsed


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")  # RFC 8259, section 6


def _media_type(parsed: dict[str, Any], stated: str) -> str:
    own = parsed.get("mediaType")
    media_type = stated or own
    if media_type is None:
        _refuse("the manifest is of no type: there is neither a Content-Type nor a mediaType")
    if not is_media_type(media_type):
        _refuse(f"not a media type: {media_type!r:.200}")
    if own is not None and own != media_type:
        _refuse(f"the manifest says that it is {own!r:.200}, and is pushed as {media_type}")
    return str(media_type)


def _check_fields(parsed: dict[str, Any], media_type: str) -> None:
    # What a manifest should have and has not is the image specification's affair: a registry of 1.1 may take it.
    if media_type in _KNOWN and parsed.get("schemaVersion", 2) != 2:
        _refuse(f"the schemaVersion is 2, not {parsed.get('schemaVersion')!r:.100}")


def _described(parsed: dict[str, Any], field: str) -> list[Descriptor]:
    """The descriptors under a field: a list of them, or one alone."""
    value = parsed.get(field)
    if value is None:
        return []
    if field in ("config", "subject"):
        return [Descriptor.from_dict(value)]
    if not isinstance(value, list):
        raise UsageError(f"{field} is a list of descriptors, not {value!r:.200}")
    return [Descriptor.from_dict(one) for one in value]
