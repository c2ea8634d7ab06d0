"""Media types of manifests, indexes, configurations and layers.

They follow the OCI image specification 1.1 ("OCI Image Media Types") and the Docker image manifest version 2, schema 2.
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
"""An image manifest, or an artifact's."""
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
"""An image index: a list of manifests."""
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
"""The configuration of an image."""
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
"""An uncompressed layer."""
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
"""A layer compressed with gzip."""
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
"""A layer compressed with zstd."""
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
"""The empty JSON object ``{}``: the configuration of an artifact that has none."""
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
"""Docker's image manifest, schema 2."""
DOCKER_MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
"""Docker's manifest list, the counterpart of an image index."""
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
"""The configuration of a Docker image."""
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
"""A layer of a Docker image, compressed with gzip."""
OCTET_STREAM = "application/octet-stream"
"""Arbitrary bytes: the media type of a blob if nothing else is known."""
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_MANIFEST_LIST})
"""The media types of lists of manifests."""
MANIFEST_TYPES = INDEX_TYPES | {OCI_MANIFEST, DOCKER_MANIFEST}
"""The media types of all manifests that ociwire reads, indexes included."""
