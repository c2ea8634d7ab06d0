"""Parses and validates a manifest that is pushed, strictly, unlike `ociwire._oci.manifest`.

Follows the OCI image specification, "Image Manifest" and "Image Index", and Docker's manifests. Of other types only the
fields that these have are read. A field that should be there and is missing is accepted, as a registry of the
distribution specification 1.1 may do.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NoReturn, final

from .._oci.descriptor import Descriptor, is_media_type
from .._oci.digest import Digest
from .._oci.manifest import refuse_constant
from ..errors import UsageError
from ..media_types import DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, OCI_INDEX, OCI_MANIFEST
from ._messages import ErrorResponse

__all__ = ["PushedManifest", "parse_pushed_manifest"]

_KNOWN_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_MANIFEST_LIST})


@final
@dataclass(frozen=True, slots=True)
class PushedManifest:
    """A manifest.

    Attributes:
        descriptor: Its descriptor with its artifact type and annotations, as in a list of referrers.
        content: Its bytes.
        subject: The digest of its subject, if it has one.
        blobs: The digests that must be blobs of the repository.
        manifests: The digests that must be manifests or blobs of the repository.
    """

    descriptor: Descriptor
    content: bytes
    subject: Digest | None
    blobs: tuple[Digest, ...]
    manifests: tuple[Digest, ...]


def parse_pushed_manifest(content: bytes, content_type: str, digest: Digest) -> PushedManifest:
    """Parse a manifest.

    Args:
        content: Its bytes.
        content_type: The Content-Type of the request, empty if there is none; its parameters are ignored.
        digest: Its digest, which has been verified.

    Raises:
        ErrorResponse: It is not a valid manifest, or not one of this type.
    """
    fields = _parse_json(content)
    media_type = _media_type(fields, content_type.partition(";")[0].strip())
    if media_type in _KNOWN_TYPES and fields.get("schemaVersion", 2) != 2:
        _refuse(f"the schemaVersion is 2, not {fields.get('schemaVersion')!r:.100}")
    try:
        config = _descriptors(fields, "config")
        blobs = [*config, *_descriptors(fields, "layers"), *_descriptors(fields, "blobs")]
        manifests = _descriptors(fields, "manifests")
        subject = _descriptors(fields, "subject")
        # "Listing Referrers": without an artifactType it is the media type of the config. An index has no config.
        artifact_type = fields.get("artifactType") or (config[0].media_type if config else None)
        descriptor = Descriptor(
            media_type,
            digest,
            len(content),
            annotations=fields.get("annotations"),
            artifact_type=artifact_type,
        )
    except UsageError as error:
        _refuse(str(error))
    # Content with URLs can be fetched from elsewhere, and need not be in the repository.
    return PushedManifest(
        descriptor,
        content,
        subject[0].digest if subject else None,
        tuple(blob.digest for blob in blobs if not blob.urls),
        tuple(manifest.digest for manifest in manifests if not manifest.urls),
    )


def _refuse(reason: str) -> NoReturn:
    raise ErrorResponse(400, "MANIFEST_INVALID", reason)


def _parse_json(content: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(content.decode("utf-8"), parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        _refuse(f"the manifest is not JSON: {error}")
    if not isinstance(parsed, dict):
        _refuse("the manifest is no JSON object")
    return parsed


def _media_type(fields: dict[str, Any], content_type: str) -> str:
    own = fields.get("mediaType")
    media_type = content_type or own
    if media_type is None:
        _refuse("the manifest is of no type: there is neither a Content-Type nor a mediaType")
    if not is_media_type(media_type):
        _refuse(f"not a media type: {media_type!r:.200}")
    if own is not None and own != media_type:
        _refuse(f"the manifest says that it is {own!r:.200}, and is pushed as {media_type}")
    return str(media_type)


def _descriptors(fields: dict[str, Any], field: str) -> list[Descriptor]:
    """The descriptors in a field: a list, or one alone."""
    value = fields.get(field)
    if value is None:
        return []
    if field in ("config", "subject"):
        return [Descriptor.from_dict(value)]
    if not isinstance(value, list):
        raise UsageError(f"{field} is a list of descriptors, not {value!r:.200}")
    return [Descriptor.from_dict(entry) for entry in value]
