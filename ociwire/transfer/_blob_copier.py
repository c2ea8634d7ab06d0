"""Copies blobs from one repository to another, through memory, in pieces of 1 MiB.

The POST that opens an upload session also requests to mount the blob (OCI distribution specification, "Mounting a blob
from another repository"). Its parameter ``from`` is the source repository if both repositories are in one registry;
otherwise it is the target repository itself, because a registry that supports mounting then responds with 201 if it has
the blob already. A single request thus finds an existing blob or opens the session. After the registry has refused one
mount, no other mounts are requested.

`BlobReader` verifies a blob before it returns the last byte, so that the target never receives all bytes of a corrupt
blob.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import final

from .._client.blob_reader import BlobReader
from .._client.blobs import open_blob, resolve_blob
from .._client.error_mapping import is_transient
from .._client.manifests import find_manifest
from .._client.repository import Repository
from .._client.upload_completion import UploadCompletion
from .._client.uploads import UploadSession, blob_exists, cancel_quietly, open_upload, try_mount
from .._http.body import Body, has_raised
from .._oci.descriptor import Descriptor
from .._oci.digest import Digest
from ..errors import (
    AuthError,
    BlobUploadInvalid,
    BlobUploadUnknown,
    BodyConsumedError,
    NotFound,
    OciwireError,
    ReadError,
    RegistryError,
    SizeMismatch,
    TransportError,
    TransportTimeout,
)
from ._progress import ProgressReporter
from ._workers import WorkerPool

__all__ = ["BlobCopier"]

_MAX_ATTEMPTS = 3
_PIECE_SIZE = 1024 * 1024


@final
class BlobCopier:
    """Copies blobs. Thread-safe if each thread copies a different blob."""

    def __init__(self, source: Repository, target: Repository, pool: WorkerPool, reporter: ProgressReporter) -> None:
        self._source = source
        self._target = target
        self._pool = pool
        self._reporter = reporter
        is_same_registry = source.sender.origin == target.sender.origin
        self._mount_from = source.name if is_same_registry else target.name
        self._can_mount = True
        # Whether to look up blobs (HEAD). True if the target has one of the blobs, because it may then have others.
        self._check_exists = False
        self._existing: set[Digest] = set()
        self._reported: dict[Digest, int] = {}

    def has_manifest(self, digest: Digest, blobs: list[Descriptor]) -> bool:
        """Whether the target has a manifest, and therefore all content that the manifest references.

        The target cannot have the manifest without its first blob. This blob is looked up first, because its existence
        decides whether the other blobs are looked up, too.
        """
        if blobs and not self._exists(blobs[0].digest):
            return False
        self._check_exists = self._check_exists or bool(blobs)
        return find_manifest(self._target, digest) is not None

    def copy_blob(self, blob: Descriptor) -> None:
        """Copy a blob, unless the target has it or mounts it.

        A blob with ``urls`` is skipped if the source does not have it.
        """
        self._pool.check()
        if not (blob.digest in self._existing or (self._check_exists and self._exists(blob.digest))):
            self._send(blob)
        self._reporter.report(blob.digest, blob.size, blob.size)

    def _exists(self, digest: Digest) -> bool:
        if digest not in self._existing and blob_exists(self._target, digest):
            self._existing.add(digest)
        return digest in self._existing

    def _send(self, blob: Descriptor) -> None:
        if blob.urls:
            try:
                resolve_blob(self._source, blob.digest)
            except NotFound:
                return
        for attempts_left in reversed(range(_MAX_ATTEMPTS)):
            error = self._attempt(blob)
            if error is None or self._exists(blob.digest):
                break
            if not attempts_left:
                raise error
        self._existing.add(blob.digest)

    def _attempt(self, blob: Descriptor) -> OciwireError | None:
        """Mount or send a blob. Return `None`, or an error after which the blob may be sent again.

        A session that fails is cancelled, unless the connection to the target has failed. In this case the state of the
        session is unknown, and the session is left to expire.
        """
        session: UploadSession | None = None
        if self._can_mount:
            is_mounted, session = try_mount(self._target, blob.digest, self._mount_from)
            if is_mounted:
                return None
            self._can_mount = session is not None  # do not request other mounts after a refusal
        body: Body | None = None
        try:
            with self._open(blob) as content:
                if session is None:
                    session = open_upload(self._target, blob.digest.algorithm)
                # Once `body` is set, any error that the body has not raised comes from the target.
                body = Body.of(content if isinstance(content, bytes) else self._read_pieces(content, blob), blob.size)
                incomplete = UploadCompletion(self._target, session.location, blob.digest, body).run()
        except BaseException as error:
            if session is not None and not _is_target_lost(error, body):
                cancel_quietly(self._target, session.location)
            if isinstance(error, OciwireError) and self._reporter.error is None and _may_retry(error, body):
                return error
            raise
        if incomplete is None or incomplete.location is None:
            return None if incomplete is None else incomplete.error()
        is_final = incomplete.offset is None  # `UploadCompletion` has already waited and repeated the PUT
        if not (is_final and isinstance(incomplete.fault, TransportError)):
            cancel_quietly(self._target, incomplete.location)
        if is_final:
            raise incomplete.fault
        return incomplete.fault

    def _open(self, blob: Descriptor) -> BlobReader | nullcontext[bytes]:
        """Open the content: embedded in the descriptor (image specification, "Embedded Content") or at the source."""
        data = b"" if blob.data is None and blob.size == 0 else blob.data
        if data is not None and len(data) == blob.size and Digest.of(data, blob.digest.algorithm) == blob.digest:
            return nullcontext(data)
        reader = open_blob(self._source, blob.digest)
        size = reader.descriptor.size
        if size != blob.size:
            reader.close()
            text = f"the blob {blob.digest} has {size} bytes, but its manifest states {blob.size}"
            raise SizeMismatch(text, expected=blob.size, actual=size)
        return reader

    def _read_pieces(self, reader: BlobReader, blob: Descriptor) -> Iterator[bytes]:
        done = 0
        while piece := reader.read(_PIECE_SIZE):
            yield piece
            done += len(piece)
            self._pool.check()
            # The reported number of bytes never decreases in a second attempt. The blob is reported as done by
            # `copy_blob`, after the target has confirmed it.
            if self._reported.get(blob.digest, 0) < done < blob.size:
                self._reported[blob.digest] = done
                self._reporter.report(blob.digest, done, blob.size)


def _is_target_lost(error: BaseException, body: Body | None) -> bool:
    """Whether an error comes from the connection to the target, not from the source or the progress callback."""
    is_lost = isinstance(error, TransportError) and not isinstance(error, BodyConsumedError)
    return is_lost and body is not None and not has_raised(body, error)


def _may_retry(error: OciwireError, body: Body | None) -> bool:
    """Whether to send a blob again after an error. The transport has already retried if the body is resendable."""
    if isinstance(error, (BlobUploadInvalid, BlobUploadUnknown, BodyConsumedError)):
        return body is not None
    is_refused_for_now = isinstance(error, RegistryError) and (is_transient(error) or error.status == 401)
    is_temporary = is_refused_for_now or isinstance(error, (ReadError, TransportTimeout))
    return is_temporary and not isinstance(error, AuthError) and body is not None and not body.resendable
