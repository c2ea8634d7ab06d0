"""Copies images, indexes, artifacts and their referrers from one registry to another.

First all manifests are read, then all blobs are copied, and then the manifests are pushed. Each manifest is pushed
after all content that it references, and the tag is set last. Therefore every manifest at the target is complete, even
if a copy fails. Another call sends only the content that the target does not have yet.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import ExitStack
from graphlib import CycleError, TopologicalSorter
from typing import Any, final, overload

from .._argument_checks import safe_repr, suggest_options
from .._client.client import Client
from .._client.manifests import find_manifest
from .._client.referrers import push_manifest
from .._client.repository import Repository, repository_of
from .._oci.descriptor import Descriptor, Platform
from .._oci.digest import Digest
from .._oci.reference import Reference
from .._oci.references import parse_platform
from ..errors import ContentError, ReferrersUpdateError, UsageError
from ._arguments import (
    COPY,
    OPTIONS_OF_CLIENTS,
    bind_arguments,
    check_client,
    check_progress,
    check_workers,
    locate,
    open_client,
)
from ._blob_copier import BlobCopier
from ._progress import ProgressCallback, ProgressReporter
from ._walker import ManifestWalker, Node
from ._workers import WorkerPool

__all__ = ["copy"]

_LOG = logging.getLogger("ociwire.client")


@overload
def copy(
    source: Client,
    source_reference: str | Reference,
    target: Client,
    target_reference: str | Reference,
    *,
    platforms: str | Platform | Iterable[str | Platform] | None = None,
    referrers: bool = False,
    workers: int = 4,
    progress: ProgressCallback | None = None,
) -> Descriptor: ...


@overload
def copy(
    source_reference: str | Reference,
    target_reference: str | Reference,
    *,
    source: Client | None = None,
    target: Client | None = None,
    platforms: str | Platform | Iterable[str | Platform] | None = None,
    referrers: bool = False,
    workers: int = 4,
    progress: ProgressCallback | None = None,
) -> Descriptor: ...


@overload
def copy(
    client: Client,
    source_reference: str | Reference,
    target_reference: str | Reference,
    *,
    platforms: str | Platform | Iterable[str | Platform] | None = None,
    referrers: bool = False,
    workers: int = 4,
    progress: ProgressCallback | None = None,
) -> Descriptor: ...


@overload
def copy(
    source_reference: str | Reference,
    target_reference: str | Reference,
    *,
    client: Client,
    platforms: str | Platform | Iterable[str | Platform] | None = None,
    referrers: bool = False,
    workers: int = 4,
    progress: ProgressCallback | None = None,
) -> Descriptor: ...


@suggest_options(
    {
        "platform": "platforms='linux/arm64'",
        "max_workers": "workers=4",
        "threads": "workers=4",
        "src": "source_reference=...",
        "dst": "target_reference=...",
        **OPTIONS_OF_CLIENTS,
    }
)
def copy(
    *args: Any,
    client: Any = None,
    source: Any = None,
    source_reference: Any = None,
    target: Any = None,
    target_reference: Any = None,
    platforms: str | Platform | Iterable[str | Platform] | None = None,
    referrers: bool = False,
    workers: int = 4,
    progress: ProgressCallback | None = None,
) -> Descriptor:
    """Copy an image, an index with all content that it references, or any other artifact.

    A reference has the form ``NAME``, ``NAME:TAG`` or ``NAME@DIGEST``; the tag defaults to ``latest``. If its first
    component looks like a host, as in ``docker pull``, it must be the host of the client. If the source reference has
    both a digest and a tag, the digest is used. If the target reference has a digest, the copied manifest must have
    this digest.

    With full references, no client is required: ``copy("ghcr.io/org/app:v1", "quay.io/org/app:v1")`` opens the clients
    and closes them. For other options, such as plain http, pass a client: ``target=Client("localhost:5000",
    insecure=True)``.

    Each blob is sent at most once, from registry to registry, without being written to the disk. Within one registry,
    blobs are mounted. Content that the target already has is not sent. If the target has a manifest, it is assumed to
    have all content that the manifest references. The first blob of each manifest is looked up at the target (HEAD).
    The other blobs are looked up only if the target has at least one of these first blobs. Otherwise, existing blobs
    are found by the requests to mount them, and a registry that does not support mounting receives all blobs. Layers
    with ``urls`` that the source does not have are skipped.

    A copy is limited to 4096 manifests with a total size of 32 MiB and 65,536 descriptors. At these limits, the
    manifests use about 100 MiB of memory. Each worker uses a few MiB.

    All threads have ended when this function returns. After an error, a thread that is blocked on its connection ends
    at the client's timeout or deadline (`Client.with_options`) at the latest. The upload of this thread is cancelled if
    the target answers within 10 seconds, even after the deadline; if the connection to the target failed, the upload is
    left to expire.

    Args:
        args: The arguments up to `target_reference`, by position.
        client: Client of both registries, instead of `source` and `target`.
        source: Client of the registry to copy from. `None` means a `Client` of the host in the reference, which is
            closed at the end.
        source_reference: Reference at the source.
        target: Client of the registry to copy to. It may be the same client as `source`. `None` has the same meaning as
            for `source`.
        target_reference: Reference at the target.
        platforms: One or more platforms to copy from an index: ``os/architecture``, ``os/architecture/variant`` or a
            `Platform`, whose empty fields match anything. A single matching image is copied without the index. If all
            entries match, the index is copied unchanged. Otherwise a new index is pushed. It contains the matching
            entries, unchanged, and has a different digest. An artifact that is not an index is copied completely.
            Defaults to all platforms.
        referrers: Whether to also copy the referrers of the manifests, such as signatures. Listed referrers that do not
            exist are skipped. Defaults to false.
        workers: Maximum number of threads, from 1; with 1, all work is done in the caller's thread. Defaults to 4.
        progress: Called with a `Progress` of the operation ``copy`` for each blob and manifest, from any thread.
            Content that exists, is mounted or is skipped is reported as done, so that the reported sizes add up to
            the size of the artifact.

    Returns:
        The descriptor of the root manifest at the target.

    Raises:
        UsageError: An argument is not valid, or the root manifest does not have the digest of the target's reference.
            Nothing was pushed.
        NotFound: The source does not have the manifest, or it has no manifest for the platforms.
        ContentError: A manifest is not valid, content is wrong (`SizeMismatch`, `DigestMismatch`), or a limit is
            exceeded. The tag is unchanged.
        Unsupported: A manifest is of Docker schema 1. The tag is unchanged.
        ReferrersUpdateError: All content was copied and the tag is set, but the target has no referrers API, and a list
            of referrers under a tag could not be updated. If there are several such errors, the first is raised.
        RegistryError: One of the registries refused a request.
        TransportError: There is no usable response.
        Exception: The exception that `progress` raised, unchanged.
    """
    pool = WorkerPool("ociwire-copy", check_workers(workers))
    if isinstance(platforms, (str, Platform)):
        platforms = [platforms]
    if not isinstance(platforms, (Iterable, type(None))):
        raise UsageError(
            f"invalid platforms {safe_repr(platforms)}: expected a platform such as 'linux/amd64', or an iterable of"
            " platforms"
        )
    wanted = None if platforms is None else [parse_platform(platform) for platform in platforms]
    reporter = ProgressReporter(check_progress(progress), "copy")
    arguments = bind_arguments(
        COPY,
        args,
        {
            "client": client,
            "source": source,
            "source_reference": source_reference,
            "target": target,
            "target_reference": target_reference,
        },
    )
    with ExitStack() as opened:
        source, target = _open_clients(opened, **arguments)
        source_name, source_tag, source_digest = _locate(source, arguments["source_reference"])
        name, tag, digest = _locate(target, arguments["target_reference"])
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
                    # A layer with `urls` may be skipped. If another manifest lists the same layer without `urls`, the
                    # layer is required.
                    if blob.digest not in blobs or blobs[blob.digest].urls:
                        blobs[blob.digest] = blob
            pool.for_each(copier.copy_blob, blobs.values())
            pusher = _ManifestPusher(target_repository, pool, reporter)
            pusher.push_all(nodes, root, tag)
        if pusher.error is not None:
            raise pusher.error
        return root.descriptor


def _open_clients(
    opened: ExitStack,
    *,
    source_reference: str | Reference,
    target_reference: str | Reference,
    client: Client | None = None,
    source: Client | None = None,
    target: Client | None = None,
) -> tuple[Client, Client]:
    """Return the clients of both registries. For a missing client, use the other client if it fits, or open one."""
    if client is not None and (source is not None or target is not None):
        raise UsageError("client must not be combined with source or target")
    source, target = source or client, target or client
    for given in (source, target):
        if given is not None:
            check_client(given)
    source = source or open_client(opened, source_reference, target)
    return source, target or open_client(opened, target_reference, source)


def _locate(client: Client, reference: str | Reference) -> tuple[str, str | None, Digest | None]:
    repository, tag, digest = locate(client, reference)
    return repository, tag or ("latest" if digest is None else None), digest


@final
class _ManifestPusher:
    """Pushes the manifests of a copy in the threads of a pool.

    Attributes:
        error: The error of the first failed update of a list of referrers, if any. Such an error does not stop the
            copy.
    """

    def __init__(self, target: Repository, pool: WorkerPool, reporter: ProgressReporter) -> None:
        self._target = target
        self._push_target = Repository(target.sender, target.name, "push_manifest")
        self._pool = pool
        self._reporter = reporter
        self.error: ReferrersUpdateError | None = None

    def push_all(self, nodes: dict[Digest, Node], root: Node, tag: str | None) -> None:
        """Push each manifest after the manifests that it references. Push the root with its tag last."""
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
        # Push the root last, with its tag, unless the target has the manifest and the tag already refers to it.
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
