"""Reads the manifests that are to be copied: what a root references, and what refers to it.

An index may be hostile: depth, number and size of the manifests are limited. Manifests below one that the target has
are not read.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import final

from .._client.blob_reader import redact_error
from .._client.client import Client
from .._client.repository import sender_of
from .._oci.descriptor import Descriptor, Platform
from .._oci.digest import Digest
from .._oci.manifest import IndexText, is_index
from .._oci.references import References, index_entries, matches_platform, media_type_to_push, read_references
from ..errors import ContentError, ManifestUnknown, NotFound, SizeMismatch
from ..media_types import MANIFEST_TYPES
from ._workers import WorkerPool

__all__ = ["ManifestWalker", "Node"]

_LOG = logging.getLogger("ociwire.client")
_MAX_DEPTH = 8
_MAX_MANIFESTS = 4096
_MAX_BYTES = 32 * 1024 * 1024
"""Maximum size in bytes of all manifests; or eight of `Client(max_manifest_size=)`, if that is more."""
_MAX_DESCRIPTORS = 65_536


@final
@dataclass(slots=True, eq=False)
class Node:
    """A manifest that is copied.

    Attributes:
        descriptor: Its descriptor.
        content: Its bytes.
        references: What it references.
        blobs: The blobs that it references; some indexes list blobs among their entries.
        exists: Whether the target has it, and with it all that it references.
        referrers: The manifests that refer to it, if they are copied.
    """

    descriptor: Descriptor
    content: bytes
    references: References
    blobs: list[Descriptor]
    exists: bool = False
    referrers: list[Descriptor] = field(default_factory=list)

    @property
    def dependencies(self) -> set[Digest]:
        """The manifests that must be pushed before it."""
        subject = self.references.subject
        return {child.digest for child in self.references.manifests} | ({subject} if subject else set())

    @property
    def needs_push(self) -> bool:
        """Whether it must be pushed. One with a subject always is, so that the target lists it as a referrer."""
        return not self.exists or self.references.subject is not None


@final
@dataclass(slots=True, eq=False)
class _PlatformSelection:
    """The entries that were selected from an index and the indexes in it."""

    platforms: list[Platform]
    descriptors: dict[Digest, Descriptor] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)  # by normalized JSON, so that equal entries count once
    indexes: set[Digest] = field(default_factory=set)  # that were read
    is_all: bool = True


@final
class ManifestWalker:
    """Reads manifests of a repository in the threads of a pool, with their referrers if that is asked for."""

    def __init__(self, source: Client, repository: str, pool: WorkerPool, *, referrers: bool) -> None:
        self._source = source
        self._repository = repository
        self._pool = pool
        self._referrers = referrers
        self._lock = threading.Lock()
        self._manifests = self._bytes = self._descriptors = 0
        self._max_bytes = max(_MAX_BYTES, 8 * sender_of(source).max_manifest_size)

    def read_root(self, tag: str | None, digest: Digest | None) -> Node:
        """Read the manifest of a reference; a digest takes precedence over the tag."""
        return self._read(digest, tag=tag)

    def select(self, root: Node, platforms: list[Platform]) -> Node:
        """Return the image of an index for the platforms; of several, the root or a new index with fewer entries."""
        selection = _PlatformSelection(platforms)
        self._select(root, selection, _MAX_DEPTH)
        if not selection.descriptors:
            names = ", ".join("/".join(filter(None, (one.os, one.architecture, one.variant))) for one in platforms)
            raise ManifestUnknown(f"the index {root.descriptor.digest} has nothing for {names or 'no platform'}")
        if len(selection.descriptors) == 1:
            image = self._read_entry(next(iter(selection.descriptors.values())))
            if image is None:
                raise ContentError(f"what {root.descriptor.digest} has for the platform is no manifest")
            return image
        if selection.is_all:
            return root
        content = IndexText.split(root.content).join(selection.texts.values())
        media_type = root.descriptor.media_type
        return self._parse(Descriptor.of(content, media_type), content, media_type)

    def _select(self, node: Node, selection: _PlatformSelection, depth: int) -> None:
        for entry, text in index_entries(node.content):
            if matches_platform(entry, selection.platforms):
                selection.descriptors.setdefault(entry.digest, entry)
                selection.texts.setdefault(json.dumps(json.loads(text), sort_keys=True), text)
            elif entry.platform is not None or not is_index(entry):
                selection.is_all = False
            elif entry.digest not in selection.indexes:
                selection.indexes.add(entry.digest)
                if not depth:
                    raise _too_deep(node)
                nested = self._read_entry(entry)
                if nested is not None:
                    self._select(nested, selection, depth - 1)

    def walk(self, root: Node, exists: Callable[[Node], bool]) -> dict[Digest, Node]:
        """Read all manifests from a root on, level by level, down to those that exist at the target, by digest."""
        nodes: dict[Digest, Node] = {}
        level = [root]

        def look_up(node: Node) -> None:
            self._pool.check()
            node.exists = node.exists or exists(node)
            if self._referrers:
                for referrer in self._source.referrers(self._repository, node.descriptor.digest):
                    self._count(descriptors=1)
                    # Without its annotations, which may be long: its own manifest has them.
                    node.referrers.append(Descriptor(referrer.media_type, referrer.digest, referrer.size))

        for _ in range(_MAX_DEPTH + 1):
            nodes |= {node.descriptor.digest: node for node in level}
            self._pool.for_each(look_up, level)
            level = self._read_level(level, nodes)
            if not level:
                return nodes
        raise _too_deep(root)

    def _read_level(self, level: list[Node], nodes: dict[Digest, Node]) -> list[Node]:
        """Read the manifests that a level references, or that refer to it, and that are not known yet."""
        parents: dict[Digest, list[Node]] = {}
        entries: dict[Digest, Descriptor] = {}
        for node in level:
            for child in node.references.manifests if self._referrers or not node.exists else ():
                if child.digest not in nodes:
                    entries.setdefault(child.digest, child)
                    parents.setdefault(child.digest, []).append(node)
        known = nodes.keys() | entries.keys()
        referrers = {one.digest: one for node in level for one in node.referrers if one.digest not in known}
        manifests: list[Node] = []

        def read_entry(entry: Descriptor) -> None:
            node = self._read_entry(entry)
            if node is not None:
                node.exists = any(index.exists for index in parents[entry.digest])
                manifests.append(node)
                return
            for index in parents[entry.digest]:
                index.blobs.append(entry)

        def read_referrer(referrer: Descriptor) -> None:
            # A list of referrers may name deleted manifests, and state wrong sizes: the digest decides.
            with suppress(NotFound):
                manifests.append(self._read(referrer.digest, media_type=referrer.media_type))

        self._pool.for_each(read_entry, entries.values())
        self._pool.for_each(read_referrer, referrers.values())
        return manifests

    def _read_entry(self, entry: Descriptor) -> Node | None:
        """Read an entry of an index; `None` if it is a blob."""
        try:
            return self._read(entry.digest, media_type=entry.media_type, size=entry.size)
        except NotFound:
            if entry.media_type in MANIFEST_TYPES:
                raise
            return None

    def _read(
        self, digest: Digest | None, *, tag: str | None = None, media_type: str | None = None, size: int | None = None
    ) -> Node:
        self._pool.check()
        if digest is not None:
            reader = self._source.get_manifest(self._repository, digest)
        else:
            reader = self._source.get_tag(self._repository, str(tag))
        with reader:
            content = reader.read()
        if size is not None and len(content) != size:
            raise SizeMismatch(
                f"{digest} has {len(content)} bytes, and what names it says {size}", expected=size, actual=len(content)
            )
        try:
            return self._parse(reader.descriptor, content, media_type)
        except ContentError as error:
            redact_error(error, reader)  # it quotes the content, which may repeat secrets of the request
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
            is_too_large = self._bytes > self._max_bytes
            if self._manifests > _MAX_MANIFESTS or is_too_large or self._descriptors > _MAX_DESCRIPTORS:
                raise ContentError(
                    f"it has more than {_MAX_MANIFESTS} manifests, {self._max_bytes} bytes of them, or"
                    f" {_MAX_DESCRIPTORS} descriptors in them: too much"
                )


def _too_deep(node: Node) -> ContentError:
    return ContentError(f"{node.descriptor.digest} goes deeper than {_MAX_DEPTH} manifests")
