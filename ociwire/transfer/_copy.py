"""Copies images, indexes, artifacts and what refers to them from one registry to another.

First all manifests are read, then all blobs sent, and then the manifests pushed, each after all that it names; the tag
comes last. So whatever breaks off leaves nothing at the target that is not whole, and the next copy goes on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple, final

from .._arguments import show
from .._client.client import Client
from .._oci.descriptor import Descriptor, Platform
from .._oci.digest import Digest
from .._oci.reference import DOCKER_HUB, Reference, registry_name
from ..errors import ContentError, ReferrersUpdateError, UsageError
from . import _graph
from ._arguments import check_client, check_progress, check_workers
from ._blob_copier import Relay
from ._progress import Progress, ProgressCallback
from ._repository import origin_of
from ._walker import Node, Survey
from ._workers import Crew

__all__ = ["copy"]

_LOG = logging.getLogger("ociwire.client")
_ANY_HOST = "host.invalid"


def copy(
    source: Client,
    source_reference: str | Reference,
    target: Client,
    target_reference: str | Reference,
    *,
    platforms: Iterable[str | Platform] | None = None,
    referrers: bool = False,
    workers: int = 4,
    progress: ProgressCallback | None = None,
) -> Descriptor:
    """Copy an image, an index with all that it contains, or any other artifact.

    A reference reads ``NAME``, ``NAME:TAG`` or ``NAME@DIGEST``; where it names neither, the tag is ``latest``. Where
    its first component reads like a host, as ``docker pull`` has it, that must be its client's. A digest wins over a
    tag at the source; at the target, what is copied must have that digest.

    Each blob is sent at most once, from registry to registry, without touching the disk; within one registry it is
    mounted. What the target has is not sent: a manifest that is there is taken to have all that it names. Where a
    registry does not mount blobs, not even from the repository itself, and has not the first layer of a manifest, its
    others are not looked for. Layers with ``urls`` that the source does not have either are passed over.

    Memory is bounded by 1 MiB or a few for each worker, and by some 100 MiB for the most manifests that are copied:
    4096 of them, of 32 MiB in all, which name 65,536 others and blobs.

    Where it fails, or is interrupted, it returns when all of its threads have ended: what a worker waits for at that
    moment lasts as long as the client's timeouts and its deadline let it (`Client.with_options`). Then its upload is
    cancelled, for which the target has 10 seconds, after the deadline too; where it was the way to the target that
    failed, its upload is left to it.

    Args:
        source: Where it is.
        source_reference: What it is called there.
        target: Where it is to be; it may be the same client.
        target_reference: What it is to be called there.
        platforms: Of an index, only what is for one of these: ``os/architecture``, ``os/architecture/variant`` or a
            `Platform`, whose empty fields stand for anything. If that is one image, it alone is copied; if it is all
            that there is, the index as it is; else a new index, with a digest of its own and the entries as they were.
            What is no index is copied whole. None is all.
        referrers: Whether to copy what refers to the manifests that are copied, such as signatures, too. What is listed
            and gone is passed over.
        workers: The most threads, 1 or more; with 1, all is done in the caller's.
        progress: Is told of each blob and manifest, by `Progress` events of the operation ``copy``. What is there, is
            mounted, or is passed over, is told as done, so that a sum of all comes out.

    Returns:
        What the target now has: the root's descriptor.

    Raises:
        UsageError: A client, a reference, a platform, the number of workers or `progress` is not valid; or what is
            copied has not the digest that the target's reference demands. Nothing was pushed.
        NotFound: The source does not have it, or nothing in it is for any of the platforms.
        ContentError: A manifest is not valid, or what comes is not what it should be (`SizeMismatch`,
            `DigestMismatch`); or there is too much of it. The tag is as it was.
        Unsupported: A manifest is of Docker's schema 1. The tag is as it was.
        ReferrersUpdateError: All was copied, the tag is set, but the target has no referrers API, and the list of
            referrers under a tag could not be updated. If there are several, it is the first.
        RegistryError: Either registry said no.
        TransportError: There is no usable answer.
        Exception: What `progress` has raised, as it was raised.
    """
    crew, progress = Crew(check_workers(workers)), check_progress(progress)
    wanted = None if platforms is None else _platforms(platforms)
    origin, goal = _place(source, source_reference), _place(target, target_reference)
    return _Copy(source, origin, target, goal, crew, progress, referrers=referrers).run(wanted)


class _Place(NamedTuple):
    """A reference within a client's registry; a digest wins over the tag."""

    repository: str
    tag: str | None
    digest: Digest | None


@final
class _Copy:
    """One call of `copy`, whose arguments it has."""

    def __init__(
        self,
        source: Client,
        origin: _Place,
        target: Client,
        goal: _Place,
        crew: Crew,
        progress: ProgressCallback | None,
        *,
        referrers: bool,
    ) -> None:
        self._origin = origin
        self._goal = goal
        self._crew = crew
        self._progress = progress
        self._survey = Survey(source, origin.repository, crew, referrers=referrers)
        self._relay = Relay(source, origin.repository, target, goal.repository, self._sent)
        self._nodes: dict[Digest, Node] = {}
        self._told: dict[Digest, int] = {}
        self._not_listed: ReferrersUpdateError | None = None

    def run(self, platforms: list[Platform] | None) -> Descriptor:
        root = self._survey.root(self._origin.tag, self._origin.digest)
        if platforms is not None and root.children:
            root = self._survey.chosen(root, platforms)
        digest = self._goal.digest
        if digest not in (None, root.descriptor.digest):
            raise UsageError(f"what is copied is {root.descriptor.digest}, and the target's reference says {digest}")
        self._nodes = self._survey.walk(root, self._is_there)
        self._crew.each(self._carry, self._missing())
        self._push(root)
        if self._not_listed is not None:
            raise self._not_listed
        return root.descriptor

    def _is_there(self, node: Node) -> bool:
        return self._relay.has_manifest(node.descriptor.digest, [one for one in node.blobs if not one.urls])

    def _missing(self) -> Iterable[Descriptor]:
        found: dict[Digest, Descriptor] = {}
        for node in self._nodes.values():
            for one in () if node.there else node.blobs:
                if one.digest not in found or found[one.digest].urls:  # what is foreign to one may be needed by another
                    found[one.digest] = one
        return found.values()

    def _carry(self, blob: Descriptor) -> None:
        self._crew.check()
        self._relay.carry(blob)
        self._tell(blob, blob.size)  # of one that is passed over, too: there is no more to be done about it

    def _push(self, root: Node) -> None:
        """Push what is missing, each after all that it names; the root at the end, unless others refer to it."""
        digest = root.descriptor.digest
        sorter = TopologicalSorter({d: sorted(node.needs & self._nodes.keys()) for d, node in self._nodes.items()})
        try:
            sorter.prepare()
        except CycleError:
            raise ContentError(f"what {digest} names goes in a circle") from None
        early = any(digest in node.needs for node in self._nodes.values())
        while sorter.is_active():
            ready = sorter.get_ready()
            due = [self._nodes[one] for one in ready if one != digest or early]
            self._crew.each(self._put, [node for node in due if node.subject is None])
            for node in due:
                if node.subject is not None:  # one at a time: they may have to write the same referrers tag
                    self._put(node)
            sorter.done(*ready)
        tag = self._goal.tag
        if tag is None:
            if not early:
                self._put(root)
        elif root.needs_push or self._relay.tagged(tag) != digest:
            self._put(root, tag)
        else:
            self._tell(root.descriptor, root.descriptor.size)

    def _put(self, node: Node, *tags: str) -> None:
        self._crew.check()
        descriptor = node.descriptor
        if tags or node.needs_push:
            try:
                self._relay.push_manifest(node.content, descriptor, tags)
            except ReferrersUpdateError as error:
                # The manifest is stored, and what else is copied is of use without its entry among the referrers.
                _LOG.warning("%s", error)
                self._not_listed = self._not_listed or error
        self._tell(descriptor, descriptor.size)

    def _sent(self, blob: Descriptor, done: int) -> None:
        """Some of a blob is on its way; all of it is only told when the target has said so."""
        self._crew.check()
        if self._told.get(blob.digest, 0) < done < blob.size:  # a second try does not go back
            self._told[blob.digest] = done
            self._tell(blob, done)

    def _tell(self, what: Descriptor, done: int) -> None:
        if self._progress is not None:
            self._progress(Progress("copy", what.digest, done, what.size))


def _platforms(platforms: Iterable[str | Platform]) -> list[Platform]:
    if isinstance(platforms, (str, Platform)) or not isinstance(platforms, Iterable):
        raise UsageError(f"platforms are several, such as ['linux/amd64'], not {show(platforms, 200)}")
    return [_graph.platform_of(one) for one in platforms]


def _place(client: Client, reference: str | Reference) -> _Place:
    scheme = origin_of(check_client(client)).scheme
    ours = registry_name(client.host, scheme)
    if isinstance(reference, Reference):
        parsed, is_ours = reference, registry_name(reference.host, scheme) == ours
    else:
        parsed = Reference.parse(reference)
        named = parsed.host != DOCKER_HUB or reference.startswith((f"{DOCKER_HUB}/", f"index.{DOCKER_HUB}/"))
        is_ours = not named or registry_name(parsed.host, scheme) == ours
        if not named and ours != DOCKER_HUB:
            parsed = Reference.parse(f"{_ANY_HOST}/{reference}")  # as it is, without the `library/` of Docker Hub
    if not is_ours:
        raise UsageError(f"{str(reference)!r:.300} is of another registry than its client's, {client.host}")
    tag = parsed.tag or ("latest" if parsed.digest is None else None)
    return _Place(parsed.repository, tag, parsed.digest)
