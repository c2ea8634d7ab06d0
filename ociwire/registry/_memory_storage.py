"""In-memory storage of a registry. The lock is never held while a body is received or hashed."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Callable, Iterable
from typing import final

from .._oci.digest import Digest
from ._pushed_manifest import PushedManifest
from ._storage import OutOfSpace, Upload

__all__ = ["MemoryStorage"]


@final
class _Repository:
    """Content of a repository.

    Attributes:
        blobs: Digests of the blobs.
        manifests: Manifests by digest, in push order.
        numbers: Sequence number of each manifest; see `Storage.list_referrers`.
        tags: Digest of the manifest of each tag.
    """

    def __init__(self) -> None:
        self.blobs: set[Digest] = set()
        self.manifests: dict[Digest, PushedManifest] = {}
        self.numbers: dict[Digest, int] = {}
        self.tags: dict[str, Digest] = {}

    def get(self, reference: Digest | str) -> PushedManifest | None:
        digest = reference if isinstance(reference, Digest) else self.tags.get(reference)
        return None if digest is None else self.manifests.get(digest)

    def missing_references(self, manifest: PushedManifest) -> list[Digest]:
        """Return the digests referenced by a manifest for which the repository has neither a blob nor a manifest."""
        missing = [digest for digest in manifest.blobs if digest not in self.blobs]
        known = self.blobs | self.manifests.keys()
        missing += [digest for digest in manifest.manifests if digest not in known]
        return list(dict.fromkeys(missing))


@final
class MemoryStorage:
    """A `Storage` in memory. Thread-safe.

    Args:
        max_bytes: Maximum number of bytes of all content, including reserved space. `None` means no limit.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self._lock = threading.Lock()
        self._max_bytes = max_bytes
        self._used = 0  # stored and reserved bytes
        self._contents: dict[Digest, bytes] = {}
        self._reference_counts: dict[Digest, int] = {}  # number of repositories that have the blob
        self._repositories: dict[str, _Repository] = {}
        self._uploads: dict[str, Upload] = {}
        self._chunks: dict[str, list[bytes]] = {}  # by upload id
        self._numbers = itertools.count(1)

    @property
    def open_uploads(self) -> int:
        """Number of open uploads."""
        with self._lock:
            return len(self._uploads)

    @property
    def stored_bytes(self) -> int:
        """Total size of all blobs in bytes. A blob in several repositories is counted once."""
        with self._lock:
            return sum(map(len, self._contents.values()))

    # The following methods are documented in `Storage`.

    def reserve(self, count: int) -> None:
        with self._lock:
            if self._max_bytes is not None and self._used + count > self._max_bytes:
                raise OutOfSpace(f"not enough space for {count} bytes: {self._used} of {self._max_bytes} are in use")
            self._used += count

    def release(self, count: int) -> None:
        with self._lock:
            self._used -= count

    # Blobs

    def get_blob(self, name: str, digest: Digest) -> bytes | None:
        with self._lock:
            return self._contents[digest] if self._has_blob(name, digest) else None

    def add_blob(self, name: str, digest: Digest, content: bytes) -> int:
        with self._lock:
            return len(content) if self._link(name, digest, content) else 0

    def mount_blob(self, name: str, digest: Digest, source: str | None) -> bool:
        with self._lock:
            if digest not in self._contents or (source is not None and not self._has_blob(source, digest)):
                return False
            self._link(name, digest, self._contents[digest])
            return True

    def delete_blob(self, name: str, digest: Digest) -> bool:
        with self._lock:
            if not self._has_blob(name, digest):
                return False
            self._repositories[name].blobs.remove(digest)
            self._reference_counts[digest] -= 1
            if not self._reference_counts[digest]:
                self._used -= len(self._contents[digest])
                del self._reference_counts[digest], self._contents[digest]
            return True

    def _has_blob(self, name: str, digest: Digest) -> bool:
        return name in self._repositories and digest in self._repositories[name].blobs

    def _link(self, name: str, digest: Digest, content: bytes) -> bool:
        """Add a blob to a repository. Return whether its content is new to the storage."""
        repository = self._repositories.setdefault(name, _Repository())
        is_new = digest not in self._contents
        if digest not in repository.blobs:
            repository.blobs.add(digest)
            self._contents.setdefault(digest, content)
            self._reference_counts[digest] = self._reference_counts.get(digest, 0) + 1
        return is_new

    # Uploads

    def open_upload(self, name: str) -> Upload:
        with self._lock:
            upload = Upload(str(uuid.UUID(int=next(self._numbers), version=4)), name)
            self._uploads[upload.id] = upload
            self._chunks[upload.id] = []
            return upload

    def get_upload(self, name: str, upload_id: str) -> Upload | None:
        with self._lock:
            upload = self._uploads.get(upload_id)
            return upload if upload is not None and upload.name == name else None

    def read_upload(self, upload: Upload) -> Iterable[bytes]:
        with self._lock:
            return list(self._chunks.get(upload.id, ()))

    def append_chunk(self, upload: Upload, offset: int, content: bytes, *, is_last: bool) -> bool:
        with self._lock:
            if not self._is_open_at(upload, offset):
                return False
            if content:
                self._chunks[upload.id].append(content)
                upload.size += len(content)
                upload.has_last_chunk = is_last
            return True

    def complete_upload(self, upload: Upload, offset: int, digest: Digest, last_chunk: bytes) -> int | None:
        with self._lock:
            if not self._is_open_at(upload, offset):
                return None
            chunks = self._close_upload(upload)
            # Joining needs twice the memory of an upload. The lock is held so that only one upload is joined at a time.
            if self._link(upload.name, digest, b"".join([*chunks, last_chunk])):
                return len(last_chunk)
            self._used -= upload.size  # the same content is already stored
            return 0

    def cancel_upload(self, upload: Upload) -> None:
        with self._lock:
            if upload.id in self._uploads:
                self._close_upload(upload)
                self._used -= upload.size

    def _is_open_at(self, upload: Upload, offset: int) -> bool:
        return self._uploads.get(upload.id) is upload and upload.size == offset

    def _close_upload(self, upload: Upload) -> list[bytes]:
        del self._uploads[upload.id]
        return self._chunks.pop(upload.id)

    # Manifests and tags

    def get_manifest(self, name: str, reference: Digest | str) -> PushedManifest | None:
        with self._lock:
            return self._repositories[name].get(reference) if name in self._repositories else None

    def add_manifest(
        self,
        name: str,
        manifest: PushedManifest,
        tags: Iterable[str],
        reference: Digest | str,
        check: Callable[[PushedManifest | None], None],
    ) -> tuple[list[Digest], int]:
        digest = manifest.descriptor.digest
        with self._lock:
            repository = self._repositories.get(name) or _Repository()
            check(repository.get(reference))
            missing = repository.missing_references(manifest)
            if missing:
                return missing, 0
            self._repositories[name] = repository
            new_bytes = 0 if digest in repository.manifests else len(manifest.content)
            repository.manifests[digest] = manifest
            repository.numbers.setdefault(digest, next(self._numbers))
            repository.tags.update(dict.fromkeys(tags, digest))
            return [], new_bytes

    def delete_manifest(
        self, name: str, reference: Digest | str, check: Callable[[PushedManifest | None], None]
    ) -> bool:
        with self._lock:
            repository = self._repositories.get(name)
            manifest = None if repository is None else repository.get(reference)
            if repository is None or manifest is None:
                return False
            check(manifest)
            if isinstance(reference, Digest):
                self._used -= len(manifest.content)
                del repository.manifests[reference], repository.numbers[reference]
                repository.tags = {tag: digest for tag, digest in repository.tags.items() if digest != reference}
            else:
                del repository.tags[reference]
            return True

    # Lists

    def list_repositories(self) -> list[str]:
        with self._lock:
            return list(self._repositories)

    def list_tags(self, name: str) -> list[str] | None:
        with self._lock:
            return list(self._repositories[name].tags) if name in self._repositories else None

    def list_referrers(self, name: str, subject: Digest) -> list[tuple[int, PushedManifest]]:
        with self._lock:
            repository = self._repositories.get(name) or _Repository()
            return [
                (repository.numbers[digest], manifest)
                for digest, manifest in repository.manifests.items()
                if manifest.subject == subject
            ]
