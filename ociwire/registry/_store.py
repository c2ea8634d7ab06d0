"""What the registry in memory keeps: blobs, each once, and for each repository its blobs, manifests and tags.

Each method is one step that is done or not done, whoever else is at work. The lock is held for nothing else: not while
a body is pulled, and not while one is hashed.
"""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import final

from .._http.body import Body
from .._oci.digest import Digest
from ._responses import Refused, pull
from ._stored_manifest import Manifest

__all__ = ["Received", "Store", "Upload"]


@final
@dataclass(slots=True, eq=False)
class Upload:
    """An upload under way.

    Attributes:
        id: The UUID in its Location.
        name: The repository that it is for.
        chunks: What it has, in order.
        size: How many bytes these are.
        ended: Whether a chunk was taken that only the last may be: one below the smallest length.
    """

    id: str
    name: str
    chunks: list[bytes] = field(default_factory=list)
    size: int = 0
    ended: bool = False


@final
@dataclass(slots=True)
class Received:
    """The body of a request, for which room is reserved.

    Attributes:
        content: Its bytes.
        stored: The number of its bytes that the store holds; the room for the others is released.
    """

    content: bytes
    stored: int = 0


@final
class _Repository:
    def __init__(self) -> None:
        self.blobs: set[Digest] = set()
        self.manifests: dict[Digest, Manifest] = {}
        self.numbers: dict[Digest, int] = {}  # in which order they came, for as long as they are there
        self.tags: dict[str, Digest] = {}

    def find(self, reference: Digest | str) -> Manifest | None:
        digest = reference if isinstance(reference, Digest) else self.tags.get(reference)
        return None if digest is None else self.manifests.get(digest)

    def lacks(self, manifest: Manifest) -> list[Digest]:
        blobs = [digest for digest in manifest.blobs if digest not in self.blobs]
        known = self.blobs | self.manifests.keys()
        return list(dict.fromkeys([*blobs, *(digest for digest in manifest.manifests if digest not in known)]))


@final
class Store:
    """Repositories and the uploads to them. May be shared by threads.

    A repository is there from the first blob or manifest in it on, and stays when it has nothing left.

    `_used` counts every byte from the time its body is received (`receive`) until it is dropped. A method that stores
    the bytes of a body returns the number of new ones, and the caller sets `Received.stored` to it.

    Args:
        max_bytes: Maximum number of bytes in all; None means no limit.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self._lock = threading.Lock()
        self._max_bytes = max_bytes
        self._used = 0
        self._contents: dict[Digest, bytes] = {}
        self._holders: dict[Digest, int] = {}  # how many repositories have it
        self._repositories: dict[str, _Repository] = {}
        self._uploads: dict[str, Upload] = {}
        self._numbers = itertools.count(1)

    # Room

    @contextmanager
    def receive(self, body: Body | None, most: int | None = None) -> Iterator[Received]:
        """Pull the body of a request; see `pull`. When the block ends, the room for what was not stored is released.

        Raises:
            Refused: There is no room for it (413), or it has more than `most` bytes.
            Exception: What `pull` raises.
        """
        reserved, received = 0, Received(b"")

        def reserve(count: int) -> None:
            nonlocal reserved
            with self._lock:
                if self._max_bytes is not None and self._used + count > self._max_bytes:
                    reason = f"the registry holds at most {self._max_bytes} bytes, {self._used} of which are in use"
                    raise Refused(413, "SIZE_INVALID", reason)
                self._used += count
                reserved += count

        try:
            received.content = pull(body, reserve, most)
            yield received
        finally:
            with self._lock:
                self._used -= reserved - received.stored

    # Blobs

    def blob(self, name: str, digest: Digest) -> bytes | None:
        """A blob's content; None if the repository does not have it."""
        with self._lock:
            found = name in self._repositories and digest in self._repositories[name].blobs
            return self._contents[digest] if found else None

    def add_blob(self, name: str, digest: Digest, content: bytes) -> int:
        """Add a blob with verified content to a repository. Returns the number of bytes that are new to the store."""
        with self._lock:
            return len(content) if self._link(name, digest, content) else 0

    def mount(self, name: str, digest: Digest, source: str | None) -> bool:
        """Have a blob of one repository, or of any if the source is None, in another; False if it is not there."""
        with self._lock:
            if source is None:
                found = digest in self._contents
            else:
                found = source in self._repositories and digest in self._repositories[source].blobs
            if found:
                self._link(name, digest, self._contents[digest])
            return found

    def remove_blob(self, name: str, digest: Digest) -> bool:
        """Have a blob in a repository no longer; False if it was not there. With the last, its content goes."""
        with self._lock:
            if name not in self._repositories or digest not in self._repositories[name].blobs:
                return False
            self._repositories[name].blobs.remove(digest)
            self._holders[digest] -= 1
            if not self._holders[digest]:
                self._used -= len(self._contents[digest])
                del self._holders[digest], self._contents[digest]
            return True

    def _link(self, name: str, digest: Digest, content: bytes) -> bool:
        """Add a blob to a repository. Returns whether its content is new to the store."""
        repository = self._repositories.setdefault(name, _Repository())
        is_new = digest not in self._contents
        if digest not in repository.blobs:
            repository.blobs.add(digest)
            self._contents.setdefault(digest, content)
            self._holders[digest] = self._holders.get(digest, 0) + 1
        return is_new

    # Uploads

    def open_upload(self, name: str) -> Upload:
        """Begin an upload."""
        with self._lock:
            upload = Upload(str(uuid.UUID(int=next(self._numbers), version=4)), name)
            self._uploads[upload.id] = upload
            return upload

    def upload(self, name: str, id_: str) -> Upload | None:
        """An upload under way; None if the repository has none of that id."""
        with self._lock:
            upload = self._uploads.get(id_)
            return upload if upload is not None and upload.name == name else None

    def extend(self, upload: Upload, position: int, content: bytes, *, last: bool) -> bool:
        """Append a chunk, and note whether only the last may be like it; False if its place is no longer there."""
        with self._lock:
            if self._uploads.get(upload.id) is not upload or upload.size != position:
                return False
            if content:
                upload.chunks.append(content)
                upload.size += len(content)
                upload.ended = last
            return True

    def finish(self, upload: Upload, position: int, digest: Digest, content: bytes) -> int | None:
        """Turn an upload and its last chunk into a blob, which has been verified.

        Returns:
            The number of bytes of the last chunk that were stored; None if the upload is over or has another offset.
        """
        with self._lock:
            if self._uploads.get(upload.id) is not upload or upload.size != position:
                return None
            del self._uploads[upload.id]
            # Joined under the lock, so that only one such copy exists at a time.
            if self._link(upload.name, digest, b"".join([*upload.chunks, content])):
                return len(content)
            self._used -= upload.size
            return 0

    def cancel(self, upload: Upload) -> None:
        """Give an upload up; nothing is left of it."""
        with self._lock:
            if self._uploads.pop(upload.id, None) is not None:
                self._used -= upload.size

    # Manifests

    def manifest(self, name: str, reference: Digest | str) -> Manifest | None:
        """A manifest by digest or by tag; None if the repository does not have it."""
        with self._lock:
            return self._repositories[name].find(reference) if name in self._repositories else None

    def add_manifest(
        self, name: str, manifest: Manifest, tags: Iterable[str], check: Callable[[Manifest | None], None], at: str
    ) -> tuple[list[Digest], int]:
        """Have a manifest in a repository, under these tags too.

        Args:
            name: The repository's name.
            manifest: What is pushed.
            tags: What it is to be called.
            check: Called with what is there before, under the reference of the request; raises what is wrong with that.
            at: That reference: one of the tags, or the digest.

        Returns:
            The digests that are missing, because of which it was not stored; and the number of bytes that are new.
        """
        digest, added = manifest.entry.digest, 0
        with self._lock:
            repository = self._repositories.get(name) or _Repository()
            check(repository.find(at))
            missing = repository.lacks(manifest)
            if not missing:
                self._repositories[name] = repository
                added = 0 if digest in repository.manifests else len(manifest.content)
                repository.manifests[digest] = manifest
                repository.numbers.setdefault(digest, next(self._numbers))
                repository.tags.update(dict.fromkeys(tags, digest))
            return missing, added

    def remove_manifest(self, name: str, reference: Digest | str, check: Callable[[Manifest | None], None]) -> bool:
        """Remove a manifest with all its tags, or a tag alone; False if it was not there. See `add_manifest`."""
        with self._lock:
            repository = self._repositories.get(name)
            found = None if repository is None else repository.find(reference)
            if repository is None or found is None:
                return False
            check(found)
            if isinstance(reference, Digest):
                self._used -= len(found.content)
                del repository.manifests[reference], repository.numbers[reference]
                repository.tags = {tag: digest for tag, digest in repository.tags.items() if digest != reference}
            else:
                del repository.tags[reference]
            return True

    # Lists

    def names(self) -> list[str]:
        """The names of all repositories."""
        with self._lock:
            return list(self._repositories)

    def tags(self, name: str) -> list[str] | None:
        """The tags of a repository; None if there is no such repository."""
        with self._lock:
            return list(self._repositories[name].tags) if name in self._repositories else None

    def referrers(self, name: str, subject: Digest) -> list[tuple[int, Manifest]]:
        """The manifests of a repository that refer to one, each behind its number, in the order in which they came."""
        with self._lock:
            repository = self._repositories.get(name) or _Repository()
            found = [one for one in repository.manifests.values() if one.subject == subject]
            return [(repository.numbers[one.entry.digest], one) for one in found]

    # What there is

    def open_uploads(self) -> int:
        """How many uploads are under way."""
        with self._lock:
            return len(self._uploads)

    def stored_bytes(self) -> int:
        """How many bytes all blobs have, each counted once."""
        with self._lock:
            return sum(map(len, self._contents.values()))
