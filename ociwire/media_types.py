"""Media types of manifests, indexes, configurations and layers.

They are defined by the OCI image specification 1.1, "OCI Image Media Types", and by Docker's "Image Manifest V 2,
Schema 2".
"""

__all__ = [
    "OCI_MANIFEST",
    "OCI_INDEX",
    "OCI_CONFIG",
    "OCI_LAYER",
    "OCI_LAYER_GZIP",
    "OCI_LAYER_ZSTD",
    "OCI_EMPTY",
    "DOCKER_MANIFEST",
    "DOCKER_MANIFEST_LIST",
    "DOCKER_CONFIG",
    "DOCKER_LAYER_GZIP",
    "OCTET_STREAM",
    "INDEX_TYPES",
    "MANIFEST_TYPES",
]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
"""OCI image manifest, which also describes artifacts other than images."""
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
"""OCI image index: a list of manifests, for example one for each platform."""
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
"""Configuration of an OCI image."""
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
"""OCI layer, uncompressed."""
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
"""OCI layer, compressed with gzip."""
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
"""OCI layer, compressed with zstd."""
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
"""The empty JSON object ``{}``, used as the configuration of an artifact that has no configuration."""
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
"""Docker image manifest, schema 2."""
DOCKER_MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
"""Docker manifest list, the counterpart of an OCI image index."""
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
"""Configuration of a Docker image."""
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
"""Docker layer, compressed with gzip."""
OCTET_STREAM = "application/octet-stream"
"""Arbitrary bytes: the media type of a blob if no specific media type is known."""
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_MANIFEST_LIST})
"""The media types of image indexes and manifest lists."""
MANIFEST_TYPES = INDEX_TYPES | {OCI_MANIFEST, DOCKER_MANIFEST}
"""The media types of all manifests that ociwire supports, including indexes."""
