"""The interface between the protocol of a registry server and its storage."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, final

from .._oci.digest import Digest
from ._pushed_manifest import PushedManifest

__all__ = ["OutOfSpace", "Storage", "Upload"]


class OutOfSpace(Exception):
    """The storage has no space for the content of a request. Its text says why."""


@final
@dataclass(slots=True, eq=False)
class Upload:
    """An open upload session.

    Attributes:
        id: The UUID in its Location.
        name: The name of its repository.
        size: Number of bytes received so far.
        has_last_chunk: Whether a chunk was received that only the last one may be: one below the minimum length.
    """

    id: str
    name: str
    size: int = 0
    has_last_chunk: bool = False


class Storage(Protocol):
    """Blobs, each stored once, and for each repository its blobs, manifests and tags; and open uploads.

    Each method is atomic, and may be called by several threads at once. Contents have been verified by the caller. A
    repository exists from its first blob or manifest on, and continues to exist when it is empty.

    Space is accounted for by the caller: it reserves the bytes of a body before it receives them, and releases those
    that a method did not store. A method that deletes content releases its bytes itself.
    """

    def reserve(self, count: int) -> None:
        """Reserve space for so many bytes.

        Raises:
            OutOfSpace: There is not enough.
        """
        ...

    def release(self, count: int) -> None:
        """Release reserved space that was not used."""
        ...

    # Blobs

    def get_blob(self, name: str, digest: Digest) -> bytes | None:
        """The content of a blob; None if the repository does not have it."""
        ...

    def add_blob(self, name: str, digest: Digest, content: bytes) -> int:
        """Add a blob to a repository. Returns the number of bytes that are new to the storage."""
        ...

    def mount_blob(self, name: str, digest: Digest, source: str | None) -> bool:
        """Add a blob of another repository, or of any if `source` is None; False if it is not there."""
        ...

    def delete_blob(self, name: str, digest: Digest) -> bool:
        """Remove a blob from a repository, and its content if no other repository has it; False if it is not there."""
        ...

    # Uploads

    def open_upload(self, name: str) -> Upload:
        """Open an upload to a repository."""
        ...

    def get_upload(self, name: str, upload_id: str) -> Upload | None:
        """An open upload; None if the repository has none with this id."""
        ...

    def read_upload(self, upload: Upload) -> Iterable[bytes]:
        """The bytes received so far, in chunks."""
        ...

    def append_chunk(self, upload: Upload, offset: int, content: bytes, *, is_last: bool) -> bool:
        """Append a chunk; False if the upload is closed or has another size than `offset`.

        Args:
            upload: The upload.
            offset: The position of the chunk.
            content: Its bytes.
            is_last: Whether only the last chunk may be like this one; see `Upload.has_last_chunk`.
        """
        ...

    def complete_upload(self, upload: Upload, offset: int, digest: Digest, last_chunk: bytes) -> int | None:
        """Close an upload, and add its bytes and a last chunk as a blob.

        Returns:
            The number of bytes of the last chunk that were stored; None if the upload is closed or has another size.
        """
        ...

    def cancel_upload(self, upload: Upload) -> None:
        """Close an upload and drop its bytes."""
        ...

    # Manifests and tags

    def get_manifest(self, name: str, reference: Digest | str) -> PushedManifest | None:
        """A manifest by its digest or by a tag; None if the repository does not have it."""
        ...

    def add_manifest(
        self,
        name: str,
        manifest: PushedManifest,
        tags: Iterable[str],
        reference: Digest | str,
        check: Callable[[PushedManifest | None], None],
    ) -> tuple[list[Digest], int]:
        """Add a manifest to a repository and set tags, if the repository has everything that the manifest names.

        Args:
            name: The name of the repository.
            manifest: The manifest.
            tags: The tags.
            reference: The reference of the request: one of the tags, or the digest.
            check: Called with the manifest that `reference` names before; an exception of it leaves all as it was.

        Returns:
            The digests that are missing, because of which nothing was stored; and the number of bytes that are new.
        """
        ...

    def delete_manifest(
        self, name: str, reference: Digest | str, check: Callable[[PushedManifest | None], None]
    ) -> bool:
        """Delete a manifest with all its tags, or a tag alone; False if it is not there. See `add_manifest`."""
        ...

    # Lists

    def list_repositories(self) -> list[str]:
        """The names of all repositories."""
        ...

    def list_tags(self, name: str) -> list[str] | None:
        """The tags of a repository; None if there is no such repository."""
        ...

    def list_referrers(self, name: str, subject: Digest) -> list[tuple[int, PushedManifest]]:
        """The manifests of a repository that have this subject, in the order of their numbers.

        A manifest has the same number as long as it exists, and a later one has a larger number.
        """
        ...
