"""Reads the manifests that are to be copied: all that a root names, and what refers to it.

Never reads below what the target has, more than so much, or deeper than so deep: an index may be hostile.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import final

from .._client.blob_reader import BlobReader, redact_error
from .._client.client import Client
from .._oci.descriptor import Descriptor, Platform
from .._oci.digest import Digest
from ..errors import ContentError, ManifestUnknown, NotFound, SizeMismatch
from . import _graph
from ._repository import Repository
from ._workers import Crew

__all__ = ["Node", "Survey"]

_MAX_DEPTH = 8
_MAX_MANIFESTS = 4096
_MAX_BYTES = 32 * 1024 * 1024  # or eight manifests of Client(max_manifest_size=), if that is more
_MAX_DESCRIPTORS = 65_536
"""What a hostile index may make us read: so deep, so many manifests, so many bytes of them, and so many descriptors."""


@final
@dataclass(slots=True, eq=False)
class Node:
    """A manifest that is copied.

    Attributes:
        descriptor: What it is.
        content: Its bytes.
        named: What it names.
        blobs: The blobs that it names.
        there: Whether the target has it, and with it all that it names.
        referrers: What refers to it, where that is copied.
    """

    descriptor: Descriptor
    content: bytes
    named: _graph.Named
    blobs: list[Descriptor]
    there: bool = False
    referrers: list[Descriptor] = field(default_factory=list)

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """The entries of an index."""
        return self.named.manifests

    @property
    def subject(self) -> Digest | None:
        """What it refers to."""
        return self.named.subject

    @property
    def needs(self) -> set[Digest]:
        """The manifests that are to be pushed before it."""
        return {one.digest for one in self.children} | ({self.subject} if self.subject else set())

    @property
    def needs_push(self) -> bool:
        """Whether it has to be pushed; always if it refers to something, so that the list of referrers has it."""
        return not self.there or self.subject is not None


@final
class Survey:
    """Reads manifests of a repository.

    Args:
        source: The registry.
        repository: The repository.
        crew: Who reads.
        referrers: Whether to look for what refers to them, too.
    """

    def __init__(self, source: Client, repository: str, crew: Crew, *, referrers: bool) -> None:
        self._source = source
        self._repository = repository
        self._crew = crew
        self._referrers = referrers
        self._lock = threading.Lock()
        self._manifests = self._bytes = self._descriptors = 0
        self._max_bytes = max(_MAX_BYTES, 8 * Repository(source, repository, "copy").max_manifest_size)

    def root(self, tag: str | None, digest: Digest | None) -> Node:
        """Read the manifest that a reference names; a digest wins over the tag."""
        if digest is not None:
            reader = self._source.get_manifest(self._repository, digest)
        else:
            reader = self._source.get_tag(self._repository, str(tag))
        with reader:
            content = reader.read()
        return self._read_node(reader, content, None)

    def _read_node(self, reader: BlobReader, content: bytes, expected: str | None) -> Node:
        try:
            return self._node(reader.descriptor, content, expected)
        except ContentError as error:
            redact_error(error, reader)  # it quotes the content, which may repeat the request
            raise

    def _node(self, served: Descriptor, content: bytes, expected: str | None) -> Node:
        self._count(manifests=1, size=len(content))
        named = _graph.names(content)
        self._count(descriptors=len(named.blobs) + len(named.manifests))
        media_type = _graph.media_type_of(content, served.media_type, expected)
        return Node(Descriptor(media_type, served.digest, len(content)), content, named, list(named.blobs))

    def _read(self, descriptor: Descriptor, *, check_size: bool = True) -> Node | None:
        """Read a manifest that another names; None if it is none, but a blob, which some indexes list."""
        self._crew.check()
        try:
            reader = self._source.get_manifest(self._repository, descriptor.digest)
        except NotFound:
            if _graph.is_manifest(descriptor):
                raise
            return None
        with reader:
            content = reader.read()
        if check_size and len(content) != descriptor.size:
            raise SizeMismatch(
                f"{descriptor.digest} has {len(content)} bytes, and what names it says {descriptor.size}",
                expected=descriptor.size,
                actual=len(content),
            )
        return self._read_node(reader, content, descriptor.media_type)

    def chosen(self, root: Node, platforms: list[Platform]) -> Node:
        """The one image of an index that is for one of the platforms, or an index of several.

        That is the root itself where nothing is left out of it; else a new one, with the entries as they were.

        Raises:
            ManifestUnknown: It has none.
        """
        choice = _Choice(platforms)
        self._choose(root, choice, _MAX_DEPTH)
        if not choice.digests:
            wanted = ", ".join("/".join(filter(None, (one.os, one.architecture, one.variant))) for one in platforms)
            raise ManifestUnknown(f"the index {root.descriptor.digest} has nothing for {wanted or 'no platform'}")
        if len(choice.digests) == 1:
            only = self._read(next(iter(choice.digests.values())))
            if only is None:
                raise ContentError(f"what {root.descriptor.digest} has for the platform is no manifest")
            return only
        if choice.whole:
            return root
        content = _graph.with_entries(root.content, choice.entries.values())
        return self._node(Descriptor.of(content, root.descriptor.media_type), content, root.descriptor.media_type)

    def _choose(self, node: Node, choice: _Choice, depth: int) -> None:
        for child, entry in _graph.entries_of(node.content):
            if _graph.matches(child, choice.platforms):
                choice.add(child, entry)
            elif child.platform is not None or not _graph.is_index(child):
                choice.whole = False
            elif child.digest not in choice.nested:
                choice.nested.add(child.digest)
                if not depth:
                    raise _too_deep(node)
                nested = self._read(child)
                if nested is not None:
                    self._choose(nested, choice, depth - 1)

    def walk(self, root: Node, has: Callable[[Node], bool]) -> dict[Digest, Node]:
        """Read all manifests, level by level, down to what the target has; returns them by their digests.

        Args:
            root: Where to begin.
            has: Whether the target has a manifest, and with it all that it names.

        Raises:
            ContentError: There are too many of them, or they go too deep.
        """
        nodes: dict[Digest, Node] = {}
        level = [root]
        for _ in range(_MAX_DEPTH + 1):
            nodes |= {node.descriptor.digest: node for node in level}
            self._crew.each(lambda node: self._look(node, has), level)
            level = self._read_all(*self._named(level, nodes))
            if not level:
                return nodes
        raise _too_deep(root)

    def _named(self, level: list[Node], known: Container[Digest]) -> tuple[list[_Entry], list[Descriptor]]:
        """What the manifests of a level name that is not known yet: the entries of indexes, and what refers to them."""
        entries: dict[Digest, _Entry] = {}
        referrers: dict[Digest, Descriptor] = {}
        for node in level:
            for child in node.children if self._referrers or not node.there else ():
                if child.digest not in known:
                    entries.setdefault(child.digest, _Entry(child)).indexes.append(node)
            referrers |= {one.digest: one for one in node.referrers if one.digest not in known}
        return list(entries.values()), [one for digest, one in referrers.items() if digest not in entries]

    def _look(self, node: Node, has: Callable[[Node], bool]) -> None:
        """Find out whether the target has a manifest, and what refers to it."""
        self._crew.check()
        node.there = node.there or has(node)
        if self._referrers:
            for one in self._source.referrers(self._repository, node.descriptor.digest):
                self._count(descriptors=1)
                # Without what the list says of it besides, which may be very much, and which its own manifest says.
                node.referrers.append(Descriptor(one.media_type, one.digest, one.size))

    def _read_all(self, entries: list[_Entry], referrers: list[Descriptor]) -> list[Node]:
        found: list[Node] = []

        def read(one: _Entry | Descriptor) -> None:
            if isinstance(one, Descriptor):
                node = self._read_referrer(one)
            else:
                node = self._read(one.descriptor)
                if node is None:
                    for index in one.indexes:
                        index.blobs.append(one.descriptor)
                else:
                    node.there = any(index.there for index in one.indexes)
            if node is not None:
                found.append(node)

        everything: list[_Entry | Descriptor] = [*entries, *referrers]
        self._crew.each(read, everything)
        return found

    def _read_referrer(self, descriptor: Descriptor) -> Node | None:
        """Read a referrer; None if it does not exist, because a list of referrers may name deleted manifests.

        The sizes in the list may be wrong; the digest decides.
        """
        try:
            return self._read(descriptor, check_size=False)
        except NotFound:
            return None

    def _count(self, *, manifests: int = 0, size: int = 0, descriptors: int = 0) -> None:
        with self._lock:
            self._manifests += manifests
            self._bytes += size
            self._descriptors += descriptors
            too_large = self._bytes > self._max_bytes
            if self._manifests > _MAX_MANIFESTS or too_large or self._descriptors > _MAX_DESCRIPTORS:
                raise ContentError(
                    f"it has more than {_MAX_MANIFESTS} manifests, {self._max_bytes} bytes of them, or"
                    f" {_MAX_DESCRIPTORS} descriptors in them: too much"
                )


@final
@dataclass(slots=True, eq=False)
class _Choice:
    """What was chosen of an index, and of the indexes in it.

    Attributes:
        platforms: Of what platforms it is to be.
        digests: What was chosen, by digest.
        entries: The JSON text of each chosen entry, by its normalized JSON, so that equal entries count once.
        nested: The indexes that were looked into.
        whole: Whether nothing was left out.
    """

    platforms: list[Platform]
    digests: dict[Digest, Descriptor] = field(default_factory=dict)
    entries: dict[str, str] = field(default_factory=dict)
    nested: set[Digest] = field(default_factory=set)
    whole: bool = True

    def add(self, descriptor: Descriptor, entry: str) -> None:
        self.digests.setdefault(descriptor.digest, descriptor)
        self.entries.setdefault(json.dumps(json.loads(entry), sort_keys=True), entry)


@final
@dataclass(slots=True, eq=False)
class _Entry:
    """An entry of indexes that was not read yet.

    Attributes:
        descriptor: What they say that it is.
        indexes: The indexes of one level that have it.
    """

    descriptor: Descriptor
    indexes: list[Node] = field(default_factory=list)


def _too_deep(node: Node) -> ContentError:
    return ContentError(f"{node.descriptor.digest} goes deeper than {_MAX_DEPTH} manifests")
