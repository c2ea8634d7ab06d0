"""Reads the manifests that are to be copied: all that a root names, and what refers to it.

Never reads below what the target has, more than so much, or deeper than so deep: an index may be hostile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

from ..client import Client
from ..descriptor import Descriptor, Platform
from ..digest import Digest
from ..errors import ContentError, ManifestUnknown, NotFound, SizeMismatch
from . import graph
from .crew import Crew

__all__ = ["Node", "Survey"]

_MAX_DEPTH = 8
_MAX_MANIFESTS = 4096
_MAX_BYTES = 32 * 1024 * 1024
"""What a hostile index may make us read: so deep, so many manifests, and so many bytes of them."""


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
    named: graph.Named
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
        self._manifests = self._bytes = 0

    def root(self, tag: str | None, digest: Digest | None) -> Node:
        """Read the manifest that a reference names; a digest wins over the tag."""
        if digest is not None:
            reader = self._source.get_manifest(self._repository, digest)
        else:
            reader = self._source.get_tag(self._repository, str(tag))
        with reader:
            return self._node(reader.descriptor, reader.read(), None)

    def _node(self, served: Descriptor, content: bytes, expected: str | None) -> Node:
        self._count(1, len(content))
        named = graph.names(content)
        media_type = graph.media_type_of(content, served.media_type, expected)
        return Node(Descriptor(media_type, served.digest, len(content)), content, named, list(named.blobs))

    def _read(self, descriptor: Descriptor) -> Node | None:
        """Read a manifest that another names; None if it is none, but a blob, which some indexes list."""
        self._crew.check()
        try:
            reader = self._source.get_manifest(self._repository, descriptor.digest)
        except NotFound:
            if graph.is_manifest(descriptor):
                raise
            return None
        with reader:
            content = reader.read()
        if len(content) != descriptor.size:
            raise SizeMismatch(
                f"{descriptor.digest} has {len(content)} bytes, and what names it says {descriptor.size}",
                expected=descriptor.size,
                actual=len(content),
            )
        return self._node(reader.descriptor, content, descriptor.media_type)

    def chosen(self, root: Node, platforms: list[Platform]) -> Node:
        """The one image of an index that is for one of the platforms, or a new index of several.

        Raises:
            ManifestUnknown: It has none.
        """
        found: dict[Digest, Descriptor] = {}
        self._choose(root, platforms, found, _MAX_DEPTH)
        if not found:
            wanted = ", ".join("/".join(filter(None, (one.os, one.architecture, one.variant))) for one in platforms)
            raise ManifestUnknown(f"the index {root.descriptor.digest} has nothing for {wanted or 'no platform'}")
        if len(found) == 1:
            only = self._read(next(iter(found.values())))
            if only is None:
                raise ContentError(f"what {root.descriptor.digest} has for the platform is no manifest")
            return only
        content = graph.with_entries(root.content, found.values())
        return self._node(Descriptor.of(content, root.descriptor.media_type), content, root.descriptor.media_type)

    def _choose(self, node: Node, platforms: list[Platform], found: dict[Digest, Descriptor], depth: int) -> None:
        for child in node.children:
            if graph.matches(child, platforms):
                found.setdefault(child.digest, child)
            elif child.platform is None and graph.is_index(child):
                if not depth:
                    raise _too_deep(node)
                nested = self._read(child)
                if nested is not None:
                    self._choose(nested, platforms, found, depth - 1)

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
            named = {
                child.digest: (child, node)
                for node in level
                if self._referrers or not node.there
                for child in (*node.children, *node.referrers)
                if child.digest not in nodes
            }
            if not named:
                return nodes
            level = self._read_all(list(named.values()))
        raise _too_deep(root)

    def _look(self, node: Node, has: Callable[[Node], bool]) -> None:
        """Find out whether the target has a manifest, and what refers to it."""
        self._crew.check()
        node.there = node.there or has(node)
        if self._referrers:
            for one in self._source.referrers(self._repository, node.descriptor.digest):
                self._count(1, 0)
                node.referrers.append(one)

    def _read_all(self, named: list[tuple[Descriptor, Node]]) -> list[Node]:
        found: dict[Digest, Node] = {}

        def read(one: tuple[Descriptor, Node]) -> None:
            descriptor, parent = one
            node = self._read(descriptor)
            if node is None:
                parent.blobs.append(descriptor)
            else:
                node.there = parent.there and descriptor in parent.children
                found[descriptor.digest] = node

        self._crew.each(read, named)
        return list(found.values())

    def _count(self, manifests: int, size: int) -> None:
        with self._lock:
            self._manifests += manifests
            self._bytes += size
            if self._manifests > _MAX_MANIFESTS or self._bytes > _MAX_BYTES:
                raise ContentError(
                    f"it has more than {_MAX_MANIFESTS} manifests, or more than {_MAX_BYTES} bytes of them: too much"
                )


def _too_deep(node: Node) -> ContentError:
    return ContentError(f"{node.descriptor.digest} goes deeper than {_MAX_DEPTH} manifests")
