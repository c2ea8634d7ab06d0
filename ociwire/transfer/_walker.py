"""Reads the manifests to copy: the manifests that a root references, and the referrers of all manifests.

Because an index may be hostile, the depth, the number and the total size of the manifests are limited. If the target
has an index, the manifests that the index references are not read, unless their referrers are copied.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import final

from .._client.blob_reader import redact_error
from .._client.client import Client
from .._client.repository import sender_of
from .._oci.descriptor import Descriptor, Platform
from .._oci.digest import Digest
from .._oci.manifest import IndexText, is_index
from .._oci.platforms import describe_platform
from .._oci.references import References, index_entries, matches_platform, media_type_to_push, read_references
from ..errors import ContentError, ManifestUnknown, NotFound, SizeMismatch
from ..media_types import MANIFEST_TYPES
from ._workers import WorkerPool

__all__ = ["ManifestWalker", "Node"]

_LOG = logging.getLogger("ociwire.client")
_MAX_DEPTH = 8
_MAX_MANIFESTS = 4096
_MAX_BYTES = 32 * 1024 * 1024
"""Maximum total size in bytes of all manifests, unless eight times `Client(max_manifest_size=)` is more."""
_MAX_DESCRIPTORS = 65_536


@final
@dataclass(slots=True, eq=False)
class Node:
    """A manifest to copy.

    Attributes:
        blobs: The blobs that the manifest references. Some indexes also list blobs among their entries.
        exists: Whether the target has the manifest, and therefore all content that the manifest references.
        referrers: The referrers of the manifest, if referrers are copied.
    """

    descriptor: Descriptor
    content: bytes
    references: References
    blobs: list[Descriptor]
    exists: bool = False
    referrers: list[Descriptor] = field(default_factory=list)

    @property
    def dependencies(self) -> set[Digest]:
        """Digests of the manifests that must be pushed before this one: its entries and its subject."""
        subject = self.references.subject
        return {child.digest for child in self.references.manifests} | ({subject} if subject else set())

    @property
    def needs_push(self) -> bool:
        """Whether to push the manifest.

        A manifest with a subject is always pushed, so that the target lists it as a referrer.
        """
        return not self.exists or self.references.subject is not None


@final
class ManifestWalker:
    """Reads manifests of a repository in the threads of a pool, with their referrers if `referrers` is true."""

    def __init__(self, source: Client, repository: str, pool: WorkerPool, *, referrers: bool) -> None:
        self._source = source
        self._repository = repository
        self._pool = pool
        self._referrers = referrers
        self._lock = threading.Lock()
        self._manifests = self._bytes = self._descriptors = 0
        self._max_bytes = max(_MAX_BYTES, 8 * sender_of(source).max_manifest_size)

    def select(self, root: Node, platforms: list[Platform]) -> Node:
        """Select the entries of an index, and of the indexes in it, for the platforms.

        Returns the image if a single entry is selected, the root if all entries are selected, and a new index
        otherwise.
        """
        entries = list(self._entries(root, platforms, set(), 0))
        selected = {entry.digest: entry for entry, _, matches in entries if matches}
        digest, media_type = root.descriptor.digest, root.descriptor.media_type
        if not selected:
            names = ", ".join(map(describe_platform, platforms))
            raise ManifestUnknown(f"the index {digest} has no entry for {names or 'an empty list of platforms'}")
        if len(selected) == 1:
            [image] = selected.values()
            return self.read(image.digest, media_type=image.media_type, size=image.size)
        if all(matches for _, _, matches in entries):
            return root
        # Keyed by normalized JSON, so that equal entries are included only once.
        texts = {json.dumps(json.loads(text), sort_keys=True): text for _, text, matches in entries if matches}
        content = IndexText.split(root.content).join(texts.values())
        return self._parse(Descriptor.of(content, media_type), content, media_type)

    def _entries(
        self, node: Node, platforms: list[Platform], seen: set[Digest], depth: int
    ) -> Iterator[tuple[Descriptor, str, bool]]:
        """Yield each entry of an index and of the indexes in it, its JSON text, and whether it is selected."""
        for entry, text in index_entries(node.content):
            if entry.platform is not None or not is_index(entry):
                yield entry, text, matches_platform(entry, platforms)
            elif entry.digest not in seen:
                seen.add(entry.digest)
                if depth == _MAX_DEPTH:
                    raise _too_deep(node)
                nested = self.read(entry.digest, media_type=entry.media_type, size=entry.size)
                yield from self._entries(nested, platforms, seen, depth + 1)

    def walk(self, root: Node, exists: Callable[[Digest, list[Descriptor]], bool]) -> dict[Digest, Node]:
        """Read the manifests that a root references, breadth-first, and return all nodes (with the root) by digest.

        `exists` returns whether the target has a manifest. Its arguments are the digest of the manifest, and the blobs
        that the target must have if it has the manifest.
        """

        def look_up(node: Node) -> None:
            self._pool.check()
            digest = node.descriptor.digest
            node.exists = node.exists or exists(digest, [blob for blob in node.blobs if not blob.urls])
            if self._referrers:
                for referrer in self._source.referrers(self._repository, digest):
                    self._count(descriptors=1)
                    # Omit the annotations, which may be long: the manifest of the referrer has them.
                    node.referrers.append(Descriptor(referrer.media_type, referrer.digest, referrer.size))

        nodes: dict[Digest, Node] = {}
        level = [root]
        for _ in range(_MAX_DEPTH + 1):
            nodes |= {node.descriptor.digest: node for node in level}
            self._pool.for_each(look_up, level)
            level = self._read_level(level, nodes)
            if not level:
                return nodes
        raise _too_deep(root)

    def _read_level(self, level: list[Node], nodes: dict[Digest, Node]) -> list[Node]:
        """Read the entries and the referrers of the manifests of a level, except for those in `nodes`."""
        parents: dict[Digest, list[Node]] = {}
        unread: dict[Digest, Descriptor] = {}
        for node in level:
            for child in node.references.manifests if self._referrers or not node.exists else ():
                unread[child.digest] = child
                parents.setdefault(child.digest, []).append(node)
            for referrer in node.referrers:
                unread.setdefault(referrer.digest, referrer)
        manifests: list[Node] = []

        def read(descriptor: Descriptor) -> None:
            digest, media_type = descriptor.digest, descriptor.media_type
            indexes = parents.get(digest, [])
            try:
                # A list of referrers may state wrong sizes, and it may list deleted manifests. Therefore the size is
                # verified only for entries of an index. The digest is always verified.
                node = self.read(digest, media_type=media_type, size=descriptor.size if indexes else None)
            except NotFound:
                if indexes and media_type in MANIFEST_TYPES:
                    raise
                for index in indexes:  # some indexes list blobs, such as the indexes of BuildKit's cache
                    index.blobs.append(descriptor)
            else:
                node.exists = any(index.exists for index in indexes)
                manifests.append(node)

        self._pool.for_each(read, [descriptor for digest, descriptor in unread.items() if digest not in nodes])
        return manifests

    def read(
        self, digest: Digest | None, *, tag: str | None = None, media_type: str | None = None, size: int | None = None
    ) -> Node:
        """Read a manifest by digest, or by tag if `digest` is None.

        If a descriptor references the manifest, pass its media type, and its size if the content must have that size.
        """
        self._pool.check()
        source, name = self._source, self._repository
        with source.get_tag(name, str(tag)) if digest is None else source.get_manifest(name, digest) as reader:
            content = reader.read()
        actual = len(content)
        if size not in (None, actual):
            text = f"the manifest {digest} has {actual} bytes, but the index that references it states {size}"
            raise SizeMismatch(text, expected=size, actual=actual)
        try:
            return self._parse(reader.descriptor, content, media_type)
        except ContentError as error:
            redact_error(error, reader)  # the message quotes the content, which may repeat secrets of the request
            raise

    def _parse(self, served: Descriptor, content: bytes, expected: str | None) -> Node:
        self._count(manifests=1, size=len(content))
        references = read_references(content)
        if references.skipped:
            _LOG.warning("skipped %d entries of an index: expected objects with a valid digest", references.skipped)
        self._count(descriptors=len(references.blobs) + len(references.manifests))
        media_type = media_type_to_push(content, served.media_type, expected)
        return Node(Descriptor(media_type, served.digest, len(content)), content, references, list(references.blobs))

    def _count(self, *, manifests: int = 0, size: int = 0, descriptors: int = 0) -> None:
        with self._lock:
            self._manifests += manifests
            self._bytes += size
            self._descriptors += descriptors
            is_too_large = self._manifests > _MAX_MANIFESTS or self._bytes > self._max_bytes
            if is_too_large or self._descriptors > _MAX_DESCRIPTORS:
                limits = (
                    f"{_MAX_MANIFESTS} manifests, {self._max_bytes} bytes or {_MAX_DESCRIPTORS} descriptors in them"
                )
                raise ContentError(f"cannot copy more than {limits} at once")


def _too_deep(node: Node) -> ContentError:
    return ContentError(f"manifests are nested deeper than {_MAX_DEPTH} levels below {node.descriptor.digest}")
