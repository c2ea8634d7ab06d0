"""Copies images, indexes, artifacts and their referrers from one registry to another.

First all manifests are read, then all blobs are copied, then the manifests are pushed, each after all that it
references; the tag is set last. Therefore every manifest at the target is complete, even if a copy fails. Another call
sends only what the target does not have yet.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from typing import final

from .._argument_checks import safe_repr
from .._client.client import Client
from .._client.manifests import find_manifest
from .._client.referrers import push_manifest
from .._client.repository import Repository, repository_of, sender_of
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
    """Copy an image, an index with all that it references, or any other artifact.

    A reference has the form ``NAME``, ``NAME:TAG`` or ``NAME@DIGEST``; the tag defaults to ``latest``. If its first
    component looks like a host, as in ``docker pull``, it must be the host of the client. At the source a digest takes
    precedence over a tag; at the target, the copied manifest must have the digest.

    Each blob is sent at most once, from registry to registry, without touching the disk; within one registry it is
    mounted. Content that the target has is not sent: a manifest that exists is assumed to have all that it references.
    The first blob of each manifest is looked up at the target (HEAD). The others are looked up only if the target has
    one of these; otherwise the request to mount a blob also finds a blob that exists, and a registry that does not
    support mounting receives all blobs. Layers with ``urls`` that the source does not have are skipped.

    A copy is limited to 4096 manifests with a total size of 32 MiB and 65,536 descriptors. At these limits, the
    manifests use about 100 MiB of memory. Each worker uses a few MiB.

    All threads have ended when this function returns. After an error, a thread that is blocked on its connection ends
    at the client's timeout or deadline (`Client.with_options`) at the latest. Its upload is cancelled if the target
    answers within 10 seconds, even after the deadline; if the connection to the target failed, the upload is left to
    expire.

    Args:
        source: Client of the registry to copy from.
        source_reference: Reference at the source.
        target: Client of the registry to copy to; may be the same client.
        target_reference: Reference at the target.
        platforms: Platforms to copy from an index: ``os/architecture``, ``os/architecture/variant`` or a `Platform`,
            whose empty fields match anything. A single matching image is copied without the index. If all entries
            match, the index is copied unchanged. Otherwise a new index is pushed, which has the matching entries,
            unchanged, and a different digest. An artifact that is not an index is copied completely. Defaults to all
            platforms.
        referrers: Whether to copy the referrers of the manifests, such as signatures, too. Listed referrers that do
            not exist are skipped. Defaults to false.
        workers: Maximum number of threads, from 1; with 1, all work is done in the caller's thread. Defaults to 4.
        progress: Called with a `Progress` of the operation ``copy`` for each blob and manifest, from any thread.
            Content that exists, is mounted or is skipped is reported as done, so that the reported sizes add up to
            the size of the artifact.

    Returns:
        The descriptor of the root manifest at the target.

    Raises:
        UsageError: An argument is not valid, or the root manifest does not have the digest of the target's reference.
            Nothing was pushed.
        NotFound: The source does not have the manifest, or it has none for the platforms.
        ContentError: A manifest is not valid, content is wrong (`SizeMismatch`, `DigestMismatch`), or a limit is
            exceeded. The tag is unchanged.
        Unsupported: A manifest is of Docker schema 1. The tag is unchanged.
        ReferrersUpdateError: All was copied and the tag is set, but the target has no referrers API, and a list of
            referrers under a tag could not be updated. If there are several such errors, the first is raised.
        RegistryError: One of the registries refused.
        TransportError: There is no usable response.
        Exception: The exception that `progress` raised, unchanged.
    """
    pool = WorkerPool("ociwire-copy", check_workers(workers))
    if isinstance(platforms, (str, Platform)) or not isinstance(platforms, (Iterable, type(None))):
        raise UsageError(f"invalid platforms {safe_repr(platforms)}: expected an iterable such as ['linux/amd64']")
    wanted = None if platforms is None else [parse_platform(platform) for platform in platforms]
    reporter = ProgressReporter(check_progress(progress), "copy")
    source_name, source_tag, source_digest = _parse_reference(source, source_reference)
    name, tag, digest = _parse_reference(target, target_reference)
    walker = ManifestWalker(source, source_name, pool, referrers=referrers)
    root = walker.read(source_digest, tag=source_tag)
    if wanted is not None and root.references.manifests:
        root = walker.select(root, wanted)
    if digest not in (None, root.descriptor.digest):
        raise UsageError(f"cannot copy {root.descriptor.digest} to a reference with the digest {digest}")
    blobs: dict[Digest, Descriptor] = {}
    target_repository = repository_of(target, name, "copy")
    with reporter:
        copier = BlobCopier(repository_of(source, source_name, "get_blob"), target_repository, pool, reporter)
        nodes = walker.walk(root, copier.has_manifest)
        for node in nodes.values():
            for blob in () if node.exists else node.blobs:
                # A layer with `urls` may be skipped. If another manifest lists the same layer without, it is required.
                if blob.digest not in blobs or blobs[blob.digest].urls:
                    blobs[blob.digest] = blob
        pool.for_each(copier.copy_blob, blobs.values())
        pusher = _ManifestPusher(target_repository, pool, reporter)
        pusher.push_all(nodes, root, tag)
    if pusher.error is not None:
        raise pusher.error
    return root.descriptor


@final
class _ManifestPusher:
    """Pushes the manifests of a copy in the threads of a pool.

    Attributes:
        error: The first failed update of a list of referrers, if any. It does not stop the copy.
    """

    def __init__(self, target: Repository, pool: WorkerPool, reporter: ProgressReporter) -> None:
        self._target = target
        self._push_target = Repository(target.sender, target.name, "push_manifest")
        self._pool = pool
        self._reporter = reporter
        self.error: ReferrersUpdateError | None = None

    def push_all(self, nodes: dict[Digest, Node], root: Node, tag: str | None) -> None:
        """Push the manifests, each after those that it references; last the root with its tag."""
        digest = root.descriptor.digest
        sorter = TopologicalSorter({key: sorted(node.dependencies & nodes.keys()) for key, node in nodes.items()})
        try:
            sorter.prepare()
        except CycleError:
            raise ContentError(f"the manifests that {digest} references form a cycle") from None
        is_dependency = any(digest in node.dependencies for node in nodes.values())
        while sorter.is_active():
            ready = sorter.get_ready()
            batch = [nodes[key] for key in ready if key != digest or is_dependency]
            self._pool.for_each(self._push, [node for node in batch if node.references.subject is None])
            for node in batch:
                if node.references.subject is not None:  # one at a time: they may write the same referrers tag
                    self._push(node)
            sorter.done(*ready)
        # The root is pushed last, with its tag; not if the target has the manifest and the tag already refers to it.
        if tag is not None and (root.needs_push or find_manifest(self._target, tag) != digest):
            self._push(root, tag)
        elif not is_dependency:
            self._push(root)

    def _push(self, node: Node, *tags: str) -> None:
        self._pool.check()
        descriptor = node.descriptor
        if tags or node.needs_push:
            try:
                push_manifest(self._push_target, node.content, descriptor, list(tags))
            except ReferrersUpdateError as error:
                # The manifest is stored, and the rest of the copy is useful without its entry in the list of referrers.
                _LOG.warning("%s", error)
                self.error = self.error or error
        self._reporter.report(descriptor.digest, descriptor.size, descriptor.size)


def _parse_reference(client: Client, reference: str | Reference) -> tuple[str, str | None, Digest | None]:
    """Return the repository, tag and digest of a reference. If it has a host, this must be the host of the client."""
    scheme = sender_of(check_client(client)).origin.scheme
    host = registry_name(client.host, scheme)
    if isinstance(reference, Reference):
        parsed, has_host = reference, True
    else:
        parsed = Reference.parse(reference)
        has_host = parsed.host != DOCKER_HUB or reference.startswith((f"{DOCKER_HUB}/", f"index.{DOCKER_HUB}/"))
        if not has_host and host != DOCKER_HUB:
            parsed = Reference.parse(f"{_PLACEHOLDER_HOST}/{reference}")  # without the ``library/`` of Docker Hub
    if has_host and registry_name(parsed.host, scheme) != host:
        raise UsageError(f"cannot use the reference {str(reference)!r:.300} with a client of {client.host}")
    return parsed.repository, parsed.tag or ("latest" if parsed.digest is None else None), parsed.digest
