"""Blobs on their way from one repository to another, through memory only, a piece at a time.

A blob is offered before it is sent, by the POST that opens its upload: ``mount=`` with the source's repository where
both are of one registry, else with the target's own, which a registry that mounts answers with 201 if the blob is there
already. So an upload is opened and what is there is found out by one request (OCI distribution specification,
"Mounting a blob from another repository"). Never sends a last byte before the whole has been verified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import final
from urllib.parse import urlencode

from .. import manifest, upload
from ..blob import BlobReader
from ..body import Body
from ..client import Client
from ..descriptor import Descriptor
from ..digest import Digest
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
from ..scope import Scope

__all__ = ["Relay"]

_TRIES = 3
_PIECE = 1024 * 1024
# What a request that could be sent again would be sent again for.
_TRANSIENT = frozenset({401, 408, 429, 500, 502, 503, 504})


@final
class Relay:
    """From one repository to another. May be shared by threads, each with another blob.

    Args:
        source: Where the blobs are.
        source_repository: In which repository.
        target: Where they are to be.
        target_repository: In which repository.
        tell: Told of each piece that has been sent: the blob, and the bytes that are done.
    """

    def __init__(
        self,
        source: Client,
        source_repository: str,
        target: Client,
        target_repository: str,
        tell: Callable[[Descriptor, int], None],
    ) -> None:
        self._source = source
        self._source_repository = source_repository
        self._session = target._session
        self._repository = target_repository
        self._tell = tell
        self._push = Scope.repository(target_repository, "pull", "push")
        same = source._session.origin == self._session.origin
        self._mount_from = source_repository if same else target_repository
        self._mounts = True
        self._warm = False
        self._there: set[Digest] = set()

    def has_manifest(self, digest: Digest, blobs: Sequence[Descriptor]) -> bool:
        """Whether the target has a manifest, which then is taken to have all that it names.

        A manifest is not there if the first of its blobs is not: that is asked first, because it tells of both.
        """
        if blobs and not self._has_blob(blobs[0].digest):
            return False
        self._warm = self._warm or bool(blobs)
        return self.tagged(digest) is not None

    def tagged(self, reference: str) -> Digest | None:
        """The digest of the manifest that the target has by a tag or a digest; None if it has none."""
        digest = Digest(reference) if ":" in reference else None
        path = f"/v2/{self._repository}/manifests/{reference}"
        try:
            return manifest.resolve(self._session, "resolve_manifest", path, self._push, digest).digest
        except NotFound:
            return None

    def carry(self, blob: Descriptor) -> None:
        """Have a blob at the target: found there, mounted or sent; or not, where it is foreign and not at the source.

        Raises:
            ContentError: What the source has is not what its manifest says.
            OciwireError: What either registry, or the way to it, has failed with.
        """
        if blob.digest in self._there or (self._warm and self._has_blob(blob.digest)):
            return
        if blob.urls and not self._is_at_source(blob):
            return
        for tries_left in reversed(range(_TRIES)):
            location = self._offer(blob.digest)
            lost = None if location is None else self._send(blob, location)
            if lost is None or self._has_blob(blob.digest):
                break
            if not tries_left:
                raise lost
        self._there.add(blob.digest)

    def _has_blob(self, digest: Digest) -> bool:
        if digest not in self._there and upload.is_there(self._session, "resolve_blob", self._repository, digest):
            self._there.add(digest)
        return digest in self._there

    def _is_at_source(self, blob: Descriptor) -> bool:
        try:
            self._source.resolve_blob(self._source_repository, blob.digest)
        except NotFound:
            return False
        return True

    def _offer(self, digest: Digest) -> str | None:
        """Where to send a blob; None if it is there."""
        session, algorithm = self._session, digest.algorithm
        if self._mounts:
            parameters = {"mount": str(digest), "from": self._mount_from}
            parameters |= {} if algorithm == "sha256" else {"digest-algorithm": algorithm}
            url = f"/v2/{self._repository}/blobs/uploads/?{urlencode(parameters, safe=':/')}"
            scope = self._push | Scope.repository(self._mount_from, "pull")
            try:
                answer = session.send("mount_blob", "POST", url, scope, ok=(201, 202), idempotent=True)
            except (AuthError, RegistryError) as error:
                if isinstance(error, RegistryError) and error.status in _TRANSIENT - {401}:
                    raise
                self._mounts = False  # it may still be sent; if not, that is said next
            else:
                answer.discard()
                return None if answer.status == 201 else session.location(answer)
        return session.location(upload.open_upload(session, "push_blob", self._repository, algorithm))

    def _send(self, blob: Descriptor, location: str) -> OciwireError | None:
        """Send a blob to an upload; returns what it failed with if it may be sent again.

        An upload that comes to nothing is cancelled, unless nobody can tell whether it did.
        """
        try:
            content = _embedded(blob)
            if content is not None:
                return self._put(blob, location, Body.of(content))
            with self._source.get_blob(self._source_repository, blob.digest) as reader:
                _check_size(blob, reader)
                return self._put(blob, location, Body.of(self._pieces(blob, reader), blob.size))
        except BaseException as error:
            if not isinstance(error, TransportError):
                with suppress(OciwireError):  # else the registry gives it up in its own time
                    upload.cancel(self._session, "push_blob", self._repository, location)
            raise

    def _put(self, blob: Descriptor, location: str, body: Body) -> OciwireError | None:
        try:
            upload.put(self._session, "push_blob", self._repository, location, blob.digest, body)
        except (BlobUploadInvalid, BlobUploadUnknown, BodyConsumedError) as error:
            return error
        except (ReadError, TransportTimeout, RegistryError) as error:
            # What the layers below could send again, they have.
            if body.resendable or isinstance(error, AuthError):
                raise
            if isinstance(error, RegistryError) and error.status not in _TRANSIENT:
                raise
            return error
        return None

    def _pieces(self, blob: Descriptor, reader: BlobReader) -> Iterator[bytes]:
        done = 0
        while piece := reader.read(_PIECE):
            yield piece
            done += len(piece)
            self._tell(blob, done)


def _embedded(blob: Descriptor) -> bytes | None:
    """The content, where the descriptor has it (image specification, "Embedded Content"), and it is the right one."""
    content = b"" if blob.data is None and blob.size == 0 else blob.data
    right = content is not None and len(content) == blob.size
    return content if right and Digest.of(content, blob.digest.algorithm) == blob.digest else None  # type: ignore[arg-type]


def _check_size(blob: Descriptor, reader: BlobReader) -> None:
    size = reader.descriptor.size
    if size != blob.size:
        raise SizeMismatch(
            f"{blob.digest} has {size} bytes, and its manifest says {blob.size}", expected=blob.size, actual=size
        )
