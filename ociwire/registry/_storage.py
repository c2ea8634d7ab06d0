"""Interface between the protocol of a registry server and its storage."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, final

from .._oci.digest import Digest
from ._pushed_manifest import PushedManifest

__all__ = ["OutOfSpace", "Storage", "Upload"]


class OutOfSpace(Exception):
    """Raised if the storage does not have enough space for the content of a request."""


@final
@dataclass(slots=True, eq=False)
class Upload:
    """An open upload session.

    Attributes:
        id: UUID in the Location.
        name: Name of the repository.
        size: Number of bytes received so far. Defaults to 0.
        has_last_chunk: Whether a chunk below the minimum length was received, so that no other chunk may follow.
            Defaults to False.
    """

    id: str
    name: str
    size: int = 0
    has_last_chunk: bool = False


class Storage(Protocol):
    """Storage of blobs, manifests, tags and open uploads. A blob in several repositories is stored once.

    Methods are atomic and thread-safe. The caller verifies content before it adds it. The first blob or manifest
    creates a repository, which continues to exist when it is empty.

    The caller reserves space for a body before it reads the body, and then releases the space that the stored content
    does not use. Methods that delete content release its space.
    """

    def reserve(self, count: int) -> None:
        """Reserve space for `count` bytes.

        Raises:
            OutOfSpace: The storage does not have enough space.
        """
        ...

    def release(self, count: int) -> None:
        """Release `count` bytes of reserved space that were not used."""
        ...

    # Blobs

    def get_blob(self, name: str, digest: Digest) -> bytes | None:
        """Return the content of a blob, or None if the repository does not have it."""
        ...

    def add_blob(self, name: str, digest: Digest, content: bytes) -> int:
        """Add a blob to a repository. Return the number of bytes that are new to the storage."""
        ...

    def mount_blob(self, name: str, digest: Digest, source: str | None) -> bool:
        """Mount a blob from the repository `source`, or from any if None. Return False if the blob is not found."""
        ...

    def delete_blob(self, name: str, digest: Digest) -> bool:
        """Remove a blob from a repository. Return False if the repository does not have it.

        The content is deleted if no other repository has the blob.
        """
        ...

    # Uploads

    def open_upload(self, name: str) -> Upload:
        """Open an upload session."""
        ...

    def get_upload(self, name: str, upload_id: str) -> Upload | None:
        """Return an open upload, or None if the repository has none with this id."""
        ...

    def read_upload(self, upload: Upload) -> Iterable[bytes]:
        """Return the bytes received so far, in chunks."""
        ...

    def append_chunk(self, upload: Upload, offset: int, content: bytes, *, is_last: bool) -> bool:
        """Append a chunk. Return False if the upload is closed or its size is not `offset`.

        Args:
            upload: The upload.
            offset: Position of the chunk in bytes.
            content: Bytes of the chunk.
            is_last: Whether no other chunk may follow; see `Upload.has_last_chunk`.
        """
        ...

    def complete_upload(self, upload: Upload, offset: int, digest: Digest, last_chunk: bytes) -> int | None:
        """Close an upload and add its content, followed by a last chunk, as a blob.

        Returns:
            Number of bytes of the last chunk that were stored, or None if the upload is closed or its size is not
            `offset`.
        """
        ...

    def cancel_upload(self, upload: Upload) -> None:
        """Close an upload and delete its content."""
        ...

    # Manifests and tags

    def get_manifest(self, name: str, reference: Digest | str) -> PushedManifest | None:
        """Return the manifest for a digest or a tag, or None if the repository does not have it."""
        ...

    def add_manifest(
        self,
        name: str,
        manifest: PushedManifest,
        tags: Iterable[str],
        reference: Digest | str,
        check: Callable[[PushedManifest | None], None],
    ) -> tuple[list[Digest], int]:
        """Add a manifest to a repository and set its tags, unless content that it refers to is missing.

        Args:
            name: Name of the repository.
            manifest: The manifest.
            tags: The tags to set.
            reference: Reference in the request: a tag or the digest.
            check: Called with the manifest that `reference` currently resolves to. If it raises, nothing is changed.

        Returns:
            The digests of missing content, and the number of bytes that are new to the storage. If content is missing,
            nothing is changed.
        """
        ...

    def delete_manifest(
        self, name: str, reference: Digest | str, check: Callable[[PushedManifest | None], None]
    ) -> bool:
        """Delete a manifest and all its tags, or a single tag. Return False if it does not exist.

        `check` is called as in `add_manifest`.
        """
        ...

    # Lists

    def list_repositories(self) -> list[str]:
        """Return the names of all repositories."""
        ...

    def list_tags(self, name: str) -> list[str] | None:
        """Return the tags of a repository, or None if the repository does not exist."""
        ...

    def list_referrers(self, name: str, subject: Digest) -> list[tuple[int, PushedManifest]]:
        """Return the manifests with a subject and their sequence numbers, sorted by sequence number.

        The sequence number of a manifest does not change while it exists. Manifests pushed later have larger numbers.
        """
        ...
