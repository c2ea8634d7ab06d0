"""Strict parser for pushed manifests. The lenient parser of the client is `ociwire._oci.manifest`.

Implements the OCI image specification, "Image Manifest" and "Image Index", and Docker's manifest formats. In a manifest
of another type the same fields are read and all others are ignored. Missing fields are accepted, which the distribution
specification 1.1 allows.
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
    """A manifest that was pushed. Immutable.

    Attributes:
        descriptor: Descriptor with the artifact type and annotations, as in a list of referrers.
        content: The manifest's bytes.
        subject: Digest of the subject. `None` if the manifest has no subject.
        blobs: Digests of the blobs that the repository must have.
        manifests: Digests of the manifests that the repository must have, as manifests or as blobs.
    """

    descriptor: Descriptor
    content: bytes
    subject: Digest | None
    blobs: tuple[Digest, ...]
    manifests: tuple[Digest, ...]


def parse_pushed_manifest(content: bytes, content_type: str, digest: Digest) -> PushedManifest:
    """Parse and validate a manifest.

    Args:
        content: The manifest's bytes.
        content_type: Content-Type of the request; its parameters are ignored. Empty if the request has none.
        digest: Digest of the content, which the caller has verified.

    Raises:
        ErrorResponse: The manifest is invalid, or its media type differs from the Content-Type (400).
    """
    fields = _parse_json(content)
    media_type = _media_type(fields, content_type.partition(";")[0].strip())
    if media_type in _KNOWN_TYPES and fields.get("schemaVersion", 2) != 2:
        _refuse(f"invalid schemaVersion {fields.get('schemaVersion')!r:.100}: expected 2")
    try:
        config = _descriptors(fields, "config")
        blobs = [*config, *_descriptors(fields, "layers"), *_descriptors(fields, "blobs")]
        manifests = _descriptors(fields, "manifests")
        subject = _descriptors(fields, "subject")
        # "Listing Referrers": the default artifact type is the media type of the config. An index has no config.
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
    # Content with `urls` is stored elsewhere (foreign layers), so it need not be in the repository.
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
        _refuse(f"invalid manifest: expected JSON: {error}")
    if not isinstance(parsed, dict):
        _refuse(f"invalid manifest: expected a JSON object, got {type(parsed).__name__}")
    return parsed


def _media_type(fields: dict[str, Any], content_type: str) -> str:
    stated = fields.get("mediaType")
    media_type = content_type or stated
    if media_type is None:
        _refuse("missing media type: expected a Content-Type header or a mediaType field in the manifest")
    if not is_media_type(media_type):
        _refuse(f"invalid media type {media_type!r:.200}: expected TYPE/SUBTYPE")
    if stated is not None and stated != media_type:
        _refuse(
            f"media type mismatch: the manifest has the mediaType {stated!r:.200}, the Content-Type is {media_type}"
        )
    return str(media_type)


def _descriptors(fields: dict[str, Any], field: str) -> list[Descriptor]:
    """Return the descriptors in a field. ``config`` and ``subject`` hold one descriptor, other fields a list."""
    value = fields.get(field)
    if value is None:
        return []
    if field in ("config", "subject"):
        return [Descriptor.from_dict(value)]
    if not isinstance(value, list):
        raise UsageError(f"invalid field {field} {value!r:.200}: expected a list of descriptors")
    return [Descriptor.from_dict(entry) for entry in value]
