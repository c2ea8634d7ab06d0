"""`MemoryRegistry`: a registry server in memory, as a transport."""

from __future__ import annotations

from typing import final

from .._argument_checks import check_integer
from .._http.messages import Request, Response
from ..errors import UsageError
from ._memory_storage import MemoryStorage
from ._server import RegistryServer

__all__ = ["MemoryRegistry"]


@final
class MemoryRegistry:
    """A registry in memory that follows the OCI distribution specification 1.1. May be shared by threads.

    It answers for any host. It does what the specification demands and recommends, and what clients rely on of what it
    allows. It neither authenticates nor fails on purpose: put `AuthGuard` or `FaultTransport` in front of it for that.

    A repository is created by the first push to it. A request's body is read only after its head has been checked,
    without holding a lock. If the body raises an exception, the exception passes through and an upload stays unchanged.

    Args:
        deletes: Whether blobs, manifests and tags can be deleted; if not, DELETE is answered 405. Uploads can always be
            cancelled.
        referrers_api: Whether the referrers API is supported; if not, it is answered 404, and OCI-Subject is not sent.
        mounts: Whether blobs are mounted from other repositories; if not, an upload is opened instead.
        min_chunk_length: Minimum number of bytes of a chunk (``OCI-Chunk-Min-Length``). A smaller one can only be the
            last: another chunk after it is refused. `None` means no minimum.
        digest_header: Whether responses have a Docker-Content-Digest. Those of ECR do not always.
        page_size: Maximum number of entries of a page of a list, whatever ``n`` says. `None` means no limit.
        manifest_limit: Maximum number of bytes of a manifest; a larger one is answered 413. `None` means no limit.
        max_bytes: Maximum number of bytes of all blobs, manifests, open uploads and request bodies. Defaults to
            1 GiB. A request for which there is no space is answered 413 with SIZE_INVALID. Deleting a blob from its
            last repository, deleting a manifest and cancelling an upload free space. Names, tags and Python's
            overhead per object are not counted. `None` means no limit.

    Raises:
        UsageError: A number is not an integer, or is less than 1.
    """

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

    @property
    def open_uploads(self) -> int:
        """Number of uploads that are neither completed nor cancelled."""
        return self._storage.open_uploads

    @property
    def stored_bytes(self) -> int:
        """Number of bytes of all blobs. A blob of several repositories is counted once."""
        return self._storage.stored_bytes

    def round_trip(self, request: Request, /) -> Response:
        """Answer a request.

        Raises:
            BodyConsumedError: The request's body is single-use and was read before.
            SizeMismatch: The request's body is longer or shorter than its length.
            UsageError: The registry is closed.
            Exception: What the request's body raised, unchanged.
        """
        if self._closed:
            raise UsageError("the registry is closed")
        return self._server.handle(request)

    def close(self) -> None:
        """Refuse further requests. Idempotent."""
        self._closed = True
