"""A registry server in memory, as a transport."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from .._argument_checks import check_integer, suggest_options
from .._http.messages import Request, Response
from .._http.transport import BaseTransport
from .._oci.descriptor import Platform
from ..errors import UsageError
from ._memory_storage import MemoryStorage
from ._seed import SeededContent, seed
from ._server import RegistryServer

__all__ = ["MemoryRegistry"]


@final
class MemoryRegistry(BaseTransport):
    """Registry in memory that implements the OCI distribution specification 1.1. Thread-safe.

    It accepts requests for any host, without authentication. It implements everything that the specification requires
    and recommends, and the optional features that clients rely on. Combine it with `AuthGuard` to require
    authentication, with `FaultTransport` to simulate faults, and with `serve` to make it available over HTTP.

    A repository is created by the first push to it. The head of a request is checked before its body is read, and no
    lock is held while a body is read. If a body raises an exception, it is propagated and nothing is stored.

    Args:
        deletes: Whether blobs, manifests and tags can be deleted. If false, DELETE is answered with 405. Uploads can
            always be cancelled. Defaults to True.
        referrers_api: Whether the referrers API is supported. If false, it is answered with 404, and responses have no
            OCI-Subject header. Defaults to True.
        mounts: Whether blobs can be mounted from other repositories. If false, a mount request opens an upload.
            Defaults to True.
        min_chunk_length: Minimum size of a chunk in bytes, sent as ``OCI-Chunk-Min-Length``. Only the last chunk may be
            smaller. Defaults to `None`, which means no minimum.
        digest_header: Whether responses have a Docker-Content-Digest header, which ECR omits in some responses.
            Defaults to True.
        page_size: Maximum number of entries per page of a list, even if ``n`` is larger. Defaults to `None`: no limit.
        manifest_limit: Maximum size of a manifest in bytes. Larger manifests are answered with 413. Defaults to 4 MiB.
            `None` means no limit.
        max_bytes: Maximum total size in bytes of blobs, manifests, open uploads and request bodies. Names, tags and
            the overhead of Python objects are not counted. A request that exceeds it is answered with 413 and
            SIZE_INVALID. Deleting content and cancelling uploads free space. Defaults to 1 GiB. `None` means no limit.

    Raises:
        UsageError: A number is not an integer, or is less than 1.

    >>> from ociwire import Client, Descriptor
    >>> from ociwire.testing import MemoryRegistry
    >>> registry = MemoryRegistry(page_size=100)
    >>> client = Client("registry.example", registry)
    >>> descriptor = client.push_blob("models/llm", Descriptor.of(b"weights"), b"weights")
    >>> registry.stored_bytes
    7
    """

    @suggest_options(dict.fromkeys(("auth", "credentials", "users"), "AuthGuard(registry, users={'user': 'password'})"))
    def __init__(
        self,
        *,
        deletes: bool = True,
        referrers_api: bool = True,
        mounts: bool = True,
        min_chunk_length: int | None = None,
        digest_header: bool = True,
        page_size: int | None = None,
        manifest_limit: int | None = 4 * 1024 * 1024,
        max_bytes: int | None = 1024 * 1024 * 1024,
    ) -> None:
        for name, value in (
            ("min_chunk_length", min_chunk_length),
            ("page_size", page_size),
            ("manifest_limit", manifest_limit),
            ("max_bytes", max_bytes),
        ):
            if value is not None:
                check_integer(name, value, minimum=1)
        self._closed = False
        self._storage = MemoryStorage(max_bytes)
        self._server = RegistryServer(
            self._storage,
            deletes=deletes,
            referrers_api=referrers_api,
            mounts=mounts,
            min_chunk_length=min_chunk_length or 0,
            digest_header=digest_header,
            page_size=page_size,
            manifest_limit=manifest_limit,
        )

    @suggest_options(
        {
            "platform": "platforms='linux/amd64'",
            "tag": "seed('NAME:TAG')",
            "tags": "seed('NAME:TAG'), and client.tag(repository, source, *tags) for more tags",
        }
    )
    def seed(
        self,
        reference: str,
        *,
        layers: Iterable[bytes] = (b"layer",),
        platforms: Iterable[str | Platform] = (),
        artifact_type: str | None = None,
        referrers: Iterable[str] = (),
    ) -> SeededContent:
        """Store an image, a multi-platform index, or an artifact, and return the descriptors.

        >>> from ociwire import Client
        >>> from ociwire.registry import MemoryRegistry
        >>> registry = MemoryRegistry()
        >>> index = registry.seed("team/app:v1", platforms=["linux/amd64", "linux/arm64"]).root
        >>> Client("registry.example", registry).resolve_tag("team/app", "v1") == index
        True

        Args:
            reference: ``NAME`` or ``NAME:TAG``. The tag defaults to ``latest``.
            layers: Content of the layers of each image, or of the artifact. Defaults to one layer of 5 bytes.
            platforms: Platforms of the images of an index. Defaults to one image for linux/amd64, without an index.
            artifact_type: Media type of an artifact, which is stored instead of an image.
            referrers: Artifact types of manifests that refer to the image, index or artifact. Defaults to none.

        Raises:
            UsageError: An argument is invalid, or there are both platforms and an artifact type.
        """
        return seed(
            self,
            reference,
            layers=layers,
            platforms=platforms,
            artifact_type=artifact_type,
            referrers=referrers,
        )

    @property
    def open_uploads(self) -> int:
        """Number of uploads that have been neither completed nor cancelled."""
        return self._storage.open_uploads

    @property
    def stored_bytes(self) -> int:
        """Total size of all blobs in bytes. A blob in several repositories is counted once."""
        return self._storage.stored_bytes

    def round_trip(self, request: Request, /) -> Response:
        """Return the response to a request.

        Raises:
            BodyConsumedError: The request's body is single-use and was read before.
            SizeMismatch: The request's body is longer or shorter than its declared length.
            UsageError: The registry is closed.
            Exception: Any exception that the request's body raises, unchanged.
        """
        if self._closed:
            raise UsageError("the registry is closed")
        return self._server.handle(request)

    def close(self) -> None:
        """Close the registry. Later requests raise `UsageError`. Idempotent."""
        self._closed = True
