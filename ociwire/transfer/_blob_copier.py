"""Blobs on their way from one repository to another, through memory only, a piece at a time.

A blob is offered before it is sent, by the POST that opens its upload: ``mount=`` with the source's repository where
both are of one registry, else with the target's own, which a registry that mounts answers with 201 if the blob is there
already. So an upload is opened and what is there is found out by one request (OCI distribution specification,
"Mounting a blob from another repository"). Where that is refused, the source is asked first. Never sends a last byte
before the whole has been verified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import final

from .._client.blob_reader import BlobReader
from .._client.client import Client
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
from ._repository import Repository, is_transient, origin_of

__all__ = ["Relay"]

_TRIES = 3
_PIECE = 1024 * 1024


@final
class Relay:
    """From one repository to another. May be shared by threads, each with another blob.

    Args:
        source: Where the blobs are.
        source_repository: In which repository.
        target: Where they are to be.
        target_repository: In which repository.
        tell: Told of each piece that has been sent: the blob, and the bytes that are done. What it raises is raised.
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
        self._target = Repository(target, target_repository, "copy")
        self._tell = tell
        same = origin_of(source) == self._target.origin
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
        return self._target.resolve_manifest(reference)

    def push_manifest(self, content: bytes, descriptor: Descriptor, tags: Sequence[str]) -> None:
        """Push a manifest to the target."""
        self._target.push_manifest(content, descriptor, tags)

    def carry(self, blob: Descriptor) -> None:
        """Have a blob at the target: found there, mounted or sent; or not, where it is foreign and not at the source.

        Raises:
            ContentError: What the source has is not what its manifest says.
            OciwireError: What either registry, or the way to it, has failed with.
            Exception: What `tell` has raised, as it was raised.
        """
        if blob.digest in self._there or (self._warm and self._has_blob(blob.digest)):
            return
        if blob.urls and not self._is_at_source(blob):
            return
        for tries_left in reversed(range(_TRIES)):
            lost = self._send(blob)
            if lost is None or self._has_blob(blob.digest):
                break
            if not tries_left:
                raise lost
        self._there.add(blob.digest)

    def _has_blob(self, digest: Digest) -> bool:
        if digest not in self._there and self._target.has_blob(digest):
            self._there.add(digest)
        return digest in self._there

    def _is_at_source(self, blob: Descriptor) -> bool:
        try:
            self._source.resolve_blob(self._source_repository, blob.digest)
        except NotFound:
            return False
        return True

    def _send(self, blob: Descriptor) -> OciwireError | None:
        """Have a blob mounted, or send it; returns what that has failed with if it may be tried again.

        An upload that comes to nothing is cancelled, unless the way to the target failed: then nobody can tell what
        became of it, and the registry gives it up in its own time.
        """
        taken, location = self._offer(blob.digest)
        if taken:
            return None
        cargo = _Cargo(blob, self._tell)
        try:
            with self._content(blob) as content:
                if location is None:
                    location = self._target.open_upload(blob.digest.algorithm).location
                unfinished = self._target.put(location, blob.digest, cargo.load(content))
        except BaseException as error:
            if location is not None and not cargo.is_way_lost(error):
                self._target.cancel_quietly(location)
            if cargo.raised is not None:
                raise cargo.raised  # noqa: B904 - as it was raised, with the cause that it had
            if isinstance(error, OciwireError) and cargo.may_pass(error):
                return error
            raise
        if unfinished is None:
            return None
        gave_up = unfinished.location is not None and unfinished.offset is None
        if unfinished.location is not None and not (gave_up and isinstance(unfinished.fault, TransportError)):
            self._target.cancel_quietly(unfinished.location)
        if gave_up:  # waiting and repeating the PUT did not help
            raise unfinished.fault
        return unfinished.error()

    def _offer(self, digest: Digest) -> tuple[bool, str | None]:
        """Whether the target has taken a blob without its being sent; else where to send it, if that is known yet."""
        if not self._mounts:
            return False, None
        taken, opened = self._target.mount(digest, self._mount_from)
        if not taken and opened is None:
            self._mounts = False  # what is refused for one is for all; they may still be sent
        return taken, None if opened is None else opened.location

    def _content(self, blob: Descriptor) -> BlobReader | nullcontext[bytes]:
        """What a blob is read from: its descriptor, or the source."""
        embedded = _embedded(blob)
        if embedded is not None:
            return nullcontext(embedded)
        reader = self._source.get_blob(self._source_repository, blob.digest)
        if reader.descriptor.size != blob.size:
            with reader:
                raise _other_size(blob, reader.descriptor.size)
        return reader


@final
class _Cargo:
    """A blob while it is sent; knows on whose side it failed.

    Args:
        blob: What it is.
        tell: Told how much was sent.

    Attributes:
        raised: What `tell` has raised; None if nothing.
    """

    def __init__(self, blob: Descriptor, tell: Callable[[Descriptor, int], None]) -> None:
        self._blob = blob
        self._tell = tell
        self._body: Body | None = None
        self.raised: BaseException | None = None

    def load(self, content: BlobReader | bytes) -> Body:
        """What is sent; from now on, what fails may be the target's."""
        if isinstance(content, bytes):
            self._body = Body.of(content)
        else:
            self._body = Body.of(self._pieces(content), self._blob.size)
        return self._body

    def is_way_lost(self, error: BaseException) -> bool:
        """Whether it was the target that could not be reached, or the connection to it."""
        ours = self._body is None or has_raised(self._body, error) or self.raised is not None
        return isinstance(error, TransportError) and not isinstance(error, BodyConsumedError) and not ours

    def may_pass(self, error: OciwireError) -> bool:
        """Whether it may be sent again. What the layers below could send again, they have."""
        if self._body is None or isinstance(error, AuthError):
            return False
        if isinstance(error, (BlobUploadInvalid, BlobUploadUnknown, BodyConsumedError)):
            return True
        if isinstance(error, RegistryError):
            return not self._body.resendable and (is_transient(error) or error.status == 401)
        return not self._body.resendable and isinstance(error, (ReadError, TransportTimeout))

    def _pieces(self, reader: BlobReader) -> Iterator[bytes]:
        done = 0
        while piece := reader.read(_PIECE):
            yield piece
            done += len(piece)
            try:
                self._tell(self._blob, done)
            except BaseException as error:
                self.raised = error
                raise


def _embedded(blob: Descriptor) -> bytes | None:
    """The content, where the descriptor has it (image specification, "Embedded Content"), and it is the right one."""
    content = b"" if blob.data is None and blob.size == 0 else blob.data
    if content is None or len(content) != blob.size:
        return None
    return content if Digest.of(content, blob.digest.algorithm) == blob.digest else None


def _other_size(blob: Descriptor, size: int) -> SizeMismatch:
    return SizeMismatch(
        f"{blob.digest} has {size} bytes, and its manifest says {blob.size}", expected=blob.size, actual=size
    )
