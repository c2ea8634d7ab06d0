"""Copies images, indexes, artifacts and what refers to them from one registry to another.

First all manifests are read, then all blobs are copied, then the manifests are pushed, each after all that it
references; the tag is set in the end. A copy that fails leaves nothing incomplete at the target, and the next one
resumes it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple, final

from .._argument_checks import safe_repr
from .._client.client import Client
from .._client.manifests import find_manifest
from .._client.referrers import push_manifest
from .._client.repository import repository_of, sender_of
from .._oci.descriptor import Descriptor, Platform
from .._oci.digest import Digest
from .._oci.reference import DOCKER_HUB, Reference, registry_name
from .._oci.references import parse_platform
from ..errors import ContentError, ReferrersUpdateError, UsageError
from ._arguments import check_client, check_progress, check_workers
from ._blob_copier import BlobCopier
from ._progress import ProgressCallback, ProgressReporter
from ._walker import ManifestWalker, Node
from ._workers import WorkerPool

__all__ = ["copy"]

_LOG = logging.getLogger("ociwire.client")
_PLACEHOLDER_HOST = "host.invalid"


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

    A reference has the form ``NAME``, ``NAME:TAG`` or ``NAME@DIGEST``; the tag defaults to ``latest``. If its first
    component looks like a host, as in ``docker pull``, it must be the client's. At the source a digest takes precedence
    over a tag; at the target, what is copied must have the digest.

    Each blob is sent at most once, from registry to registry, without touching the disk; within one registry it is
    mounted. What the target has is not sent: a manifest that exists is taken to have all that it references. If a
    registry mounts no blobs, not even from the repository itself, and lacks the first layer of a manifest, it is not
    asked for the others. Layers with ``urls`` that the source does not have are skipped.

    Uses 1 MiB or a few of memory for each worker, and some 100 MiB for the largest number of manifests that are copied:
    4096 of them, of 32 MiB in all, which reference 65,536 others and blobs.

    All threads have ended when this function returns; after an error, one that waits for its connection does so until
    the client's timeout or deadline (`Client.with_options`). Then its upload is cancelled, for which the target has 10
    seconds, even after the deadline; if the connection to the target failed, the upload is left to the target.

    Args:
        source: Client of the registry to copy from.
        source_reference: Reference at the source.
        target: Client of the registry to copy to; may be the same client.
        target_reference: Reference at the target.
        platforms: Platforms to copy from an index: ``os/architecture``, ``os/architecture/variant`` or a `Platform`,
            whose empty fields match anything. One image is copied alone; if nothing is left out, the index is copied
            unchanged; else a new index, with a digest of its own and the entries unchanged. Anything else than an index
            is copied whole. Defaults to all.
        referrers: Whether to copy what refers to the manifests, such as signatures, too. Listed manifests that do not
            exist are skipped.
        workers: Maximum number of threads, from 1; with 1, everything is done in the caller's. Defaults to 4.
        progress: Called with a `Progress` of the operation ``copy`` for each blob and manifest, from any thread. What
            exists, is mounted or is skipped is reported as done, so that the sum is right.

    Returns:
        The descriptor of the root at the target.

    Raises:
        UsageError: An argument is not valid, or the root has not the digest of the target's reference. Nothing was
            pushed.
        NotFound: The source does not have it, or nothing in it is for any of the platforms.
        ContentError: A manifest is not valid, content is not what it should be (`SizeMismatch`, `DigestMismatch`), or
            there is too much of it. The tag is unchanged.
        Unsupported: A manifest is of Docker schema 1. The tag is unchanged.
        ReferrersUpdateError: All was copied and the tag is set, but the target has no referrers API, and the list of
            referrers under a tag could not be updated. If there are several, it is the first.
        RegistryError: Either registry refused.
        TransportError: There is no usable response.
        Exception: What `progress` raised, unchanged.
    """
    pool = WorkerPool("ociwire-copy", check_workers(workers))
    reporter = ProgressReporter(check_progress(progress), "copy")
    if isinstance(platforms, (str, Platform)) or not isinstance(platforms, (Iterable, type(None))):
        raise UsageError(f"platforms are several, such as ['linux/amd64'], not {safe_repr(platforms, 200)}")
    wanted = None if platforms is None else [parse_platform(platform) for platform in platforms]
    origin, goal = _locate(source, source_reference), _locate(target, target_reference)
    walker = ManifestWalker(source, origin.repository, pool, referrers=referrers)
    root = walker.read_root(origin.tag, origin.digest)
    if wanted is not None and root.references.manifests:
        root = walker.select(root, wanted)
    if goal.digest not in (None, root.descriptor.digest):
        raise UsageError(f"what is copied is {root.descriptor.digest}, and the target's reference says {goal.digest}")
    return _Copy(source, origin, target, goal, pool, reporter).run(walker, root)


class _Location(NamedTuple):
    """A reference at a client's registry; a digest takes precedence over the tag."""

    repository: str
    tag: str | None
    digest: Digest | None


@final
class _Copy:
    """One call of `copy`, with valid arguments."""

    def __init__(
        self,
        source: Client,
        origin: _Location,
        target: Client,
        goal: _Location,
        pool: WorkerPool,
        reporter: ProgressReporter,
    ) -> None:
        self._target = repository_of(target, goal.repository, "copy")
        self._push_target = repository_of(target, goal.repository, "push_manifest")
        self._tag = goal.tag
        self._pool = pool
        self._reporter = reporter
        self._copier = BlobCopier(repository_of(source, origin.repository, "get_blob"), self._target, self._report_sent)
        self._sent: dict[Digest, int] = {}
        self._referrers_error: ReferrersUpdateError | None = None

    def run(self, walker: ManifestWalker, root: Node) -> Descriptor:
        nodes = walker.walk(root, self._exists)
        blobs: dict[Digest, Descriptor] = {}
        for node in nodes.values():
            for blob in () if node.exists else node.blobs:
                if blob.digest not in blobs or blobs[blob.digest].urls:  # one manifest may need what another may skip
                    blobs[blob.digest] = blob
        self._pool.for_each(self._copy_blob, blobs.values())
        self._push_all(nodes, root)
        if self._referrers_error is not None:
            raise self._referrers_error
        return root.descriptor

    def _exists(self, node: Node) -> bool:
        return self._copier.has_manifest(node.descriptor.digest, [blob for blob in node.blobs if not blob.urls])

    def _copy_blob(self, blob: Descriptor) -> None:
        self._pool.check()
        self._copier.copy_blob(blob)
        self._report(blob, blob.size)  # of a skipped one, too: there is nothing left to do

    def _push_all(self, nodes: dict[Digest, Node], root: Node) -> None:
        """Push the manifests, each after those that it references; the root in the end, unless others refer to it."""
        digest = root.descriptor.digest
        sorter = TopologicalSorter({key: sorted(node.dependencies & nodes.keys()) for key, node in nodes.items()})
        try:
            sorter.prepare()
        except CycleError:
            raise ContentError(f"what {digest} names goes in a circle") from None
        is_dependency = any(digest in node.dependencies for node in nodes.values())
        while sorter.is_active():
            ready = sorter.get_ready()
            batch = [nodes[key] for key in ready if key != digest or is_dependency]
            self._pool.for_each(self._push, [node for node in batch if node.references.subject is None])
            for node in batch:
                if node.references.subject is not None:  # one at a time: they may write the same referrers tag
                    self._push(node)
            sorter.done(*ready)
        if self._tag is None:
            if not is_dependency:
                self._push(root)
        elif root.needs_push or find_manifest(self._target, self._tag) != digest:
            self._push(root, self._tag)
        else:
            self._report(root.descriptor, root.descriptor.size)

    def _push(self, node: Node, *tags: str) -> None:
        self._pool.check()
        descriptor = node.descriptor
        if tags or node.needs_push:
            try:
                push_manifest(self._push_target, node.content, descriptor, list(tags))
            except ReferrersUpdateError as error:
                # The manifest is stored, and the rest of the copy is of use without its entry in the list of referrers.
                _LOG.warning("%s", error)
                self._referrers_error = self._referrers_error or error
        self._report(descriptor, descriptor.size)

    def _report_sent(self, blob: Descriptor, done: int) -> None:
        """Report that some of a blob was sent; all of it is done only when the target has confirmed it."""
        self._pool.check()
        if self._sent.get(blob.digest, 0) < done < blob.size:  # a second attempt does not go back
            self._sent[blob.digest] = done
            self._report(blob, done)

    def _report(self, descriptor: Descriptor, done: int) -> None:
        self._reporter.report(descriptor.digest, done, descriptor.size)


def _locate(client: Client, reference: str | Reference) -> _Location:
    """Read a reference, whose host must be the client's if it has one."""
    scheme = sender_of(check_client(client)).origin.scheme
    host = registry_name(client.host, scheme)
    if isinstance(reference, Reference):
        parsed, is_ours = reference, registry_name(reference.host, scheme) == host
    else:
        parsed = Reference.parse(reference)
        has_host = parsed.host != DOCKER_HUB or reference.startswith((f"{DOCKER_HUB}/", f"index.{DOCKER_HUB}/"))
        is_ours = not has_host or registry_name(parsed.host, scheme) == host
        if not has_host and host != DOCKER_HUB:
            parsed = Reference.parse(f"{_PLACEHOLDER_HOST}/{reference}")  # without the ``library/`` of Docker Hub
    if not is_ours:
        raise UsageError(f"{str(reference)!r:.300} is of another registry than its client's, {client.host}")
    tag = parsed.tag or ("latest" if parsed.digest is None else None)
    return _Location(parsed.repository, tag, parsed.digest)
