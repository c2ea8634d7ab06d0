"""Content for tests: an image, a multi-platform index, or an artifact, with referrers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from .._argument_checks import safe_repr
from .._client.client import Client
from .._oci.descriptor import Descriptor, Platform, is_media_type
from .._oci.image_manifest import Index, Manifest
from .._oci.reference import Reference
from .._oci.references import parse_platform
from ..errors import UsageError
from ..media_types import OCI_CONFIG, OCI_LAYER_GZIP, OCTET_STREAM

if TYPE_CHECKING:
    from ..transport import Transport

__all__ = ["SeededContent", "seed"]

_HOST = "registry.example"


@final
@dataclass(frozen=True, slots=True)
class SeededContent:
    """The descriptors of content that `MemoryRegistry.seed` has stored.

    Attributes:
        root: Descriptor of the manifest or index that the tag references.
        images: Descriptors of the images of the index, with their platforms. Only the root if it is not an index.
        layers: Descriptors of the layers of each image, in the order of `layers`.
        referrers: Descriptors of the manifests that refer to the root, in the order of `referrers`.
    """

    root: Descriptor
    images: tuple[Descriptor, ...]
    layers: tuple[Descriptor, ...]
    referrers: tuple[Descriptor, ...]


def seed(
    registry: Transport,
    reference: str,
    *,
    layers: Iterable[bytes],
    platforms: Iterable[str | Platform],
    artifact_type: str | None,
    referrers: Iterable[str],
) -> SeededContent:
    """Store content in a registry; see `MemoryRegistry.seed`."""
    parsed = Reference.parse(f"{_HOST}/{reference}")
    if parsed.digest is not None:
        raise UsageError(f"invalid reference {reference!r}: expected NAME or NAME:TAG, without a digest")
    name, tag = parsed.repository, parsed.tag or "latest"
    if isinstance(layers, (bytes, bytearray, memoryview, str)):
        raise UsageError(f"layers must be an iterable of bytes, got {type(layers).__name__}: pass [content]")
    requested = [parse_platform(platform) for platform in ([platforms] if isinstance(platforms, str) else platforms)]
    types = [referrers] if isinstance(referrers, str) else list(referrers)
    for media_type in types if artifact_type is None else [artifact_type, *types]:
        if not is_media_type(media_type):
            raise UsageError(f"invalid artifact type {safe_repr(media_type)}: expected type/subtype")
    if requested and artifact_type is not None:
        raise UsageError("platforms and artifact_type cannot be combined: expected an index of images, or an artifact")

    with Client(_HOST, registry) as client:
        layer_type = OCI_LAYER_GZIP if artifact_type is None else OCTET_STREAM
        pushed = [client.push_blob(name, Descriptor.of(layer, layer_type), layer) for layer in layers]
        if artifact_type is not None:
            root = _push_artifact(client, name, artifact_type, pushed, None, tag)
            images: list[Descriptor] = [root]
        else:
            images = [
                _push_image(client, name, platform, pushed, None if requested else tag)
                for platform in requested or [Platform("amd64", "linux")]
            ]
            root = client.push_manifest(name, Index(images), tags=[tag]) if requested else images[0]
        refer = tuple(_push_artifact(client, name, kind, [], root, None) for kind in types)
    return SeededContent(root, tuple(images), tuple(pushed), refer)


def _push_image(
    client: Client, name: str, platform: Platform, layers: Sequence[Descriptor], tag: str | None
) -> Descriptor:
    fields = platform.to_dict() | {"rootfs": {"type": "layers", "diff_ids": [str(layer.digest) for layer in layers]}}
    content = json.dumps(fields).encode()
    config = client.push_blob(name, Descriptor.of(content, OCI_CONFIG), content)
    manifest = Manifest(config, layers)
    pushed = client.push_manifest(name, manifest, tags=[] if tag is None else [tag])
    return pushed if tag is not None else pushed.replace(platform=platform)


def _push_artifact(
    client: Client,
    name: str,
    artifact_type: str,
    layers: Sequence[Descriptor],
    subject: Descriptor | None,
    tag: str | None,
) -> Descriptor:
    manifest = Manifest(layers=layers, artifact_type=artifact_type, subject=subject)
    client.push_blob(name, manifest.config, b"{}")
    # If there is no content, use the empty object as the layer (image specification, "Guidelines for Artifact Usage").
    manifest = manifest.replace(layers=layers or [manifest.config])
    return client.push_manifest(name, manifest, tags=[] if tag is None else [tag])
