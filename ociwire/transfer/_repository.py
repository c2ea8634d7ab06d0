"""A repository as transfers use it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, final

from urllib3 import Timeout

from .._client import blobs, manifests, referrers, uploads
from .._client.blob_writer import BlobWriter
from .._client.client import Client
from .._client.error_mapping import is_transient
from .._client.repository import Repository as CoreRepository
from .._client.repository import repository_of, sender_of
from .._client.upload_completion import IncompleteUpload, UploadCompletion
from .._http.body import Body
from .._http.messages import Response
from .._http.urls import Origin
from .._oci.descriptor import Descriptor
from .._oci.digest import Digest
from ..errors import AuthError, NotFound, RegistryError

__all__ = ["Offer", "Repository", "is_transient", "origin_of"]

_CANCEL_TIME = 10.0
"""Maximum time in seconds for cancelling an upload that failed."""


class Offer(NamedTuple):
    """What became of a blob that a registry was asked to mount."""

    taken: bool
    opened: uploads.UploadSession | None


@final
class Repository:
    """One repository of one registry. May be shared by threads."""

    def __init__(self, client: Client, name: str, operation: str) -> None:
        self.name = name
        self.core = repository_of(client, name, operation)
        self._pushing = repository_of(client, name, "push_manifest")

    @property
    def origin(self) -> Origin:
        """The registry."""
        return self.core.sender.origin

    @property
    def deadline(self) -> float | None:
        """The client's deadline."""
        return self.core.sender.defaults.deadline

    @property
    def timeout(self) -> float | Timeout | None:
        """The client's timeout."""
        return self.core.sender.defaults.timeout

    @property
    def max_manifest_size(self) -> int:
        """The largest manifest that the client reads, in bytes."""
        return self.core.sender.max_manifest_size

    @property
    def largest_chunk(self) -> int | None:
        """The largest chunk that the registry is known to take, in bytes; None if it has refused none."""
        return self.core.sender.state.max_chunk_size

    def takes_no_more_than(self, size: int) -> None:
        """Remember that the registry takes no larger chunks."""
        self.core.sender.state.record_max_chunk(size)

    def get_blob(self, digest: Digest, *, ok: tuple[int, ...], headers: Mapping[str, str]) -> Response:
        """The response to a GET of a blob, open."""
        return self.core.send("GET", self.core.blob_url(digest), self.core.pull_scope, ok=ok, headers=headers)

    def has_blob(self, digest: Digest) -> bool:
        """Whether the registry has a blob. A refusal means that it does not."""
        return uploads.blob_exists(self.core, digest)

    def find_blob(self, digest: Digest) -> Descriptor | None:
        """A blob's descriptor; None if it is not there, or the registry refuses to tell."""
        return blobs.find_blob(self.core, digest)

    def resolve_blob(self, digest: Digest) -> Descriptor | None:
        """A blob's descriptor; None if it is not there, which a GET has confirmed if need be."""
        try:
            return blobs.resolve_blob(self.core, digest, self.core.push_scope)
        except NotFound:
            return None

    def resolve_manifest(self, reference: str) -> Digest | None:
        """The digest of the manifest that a tag or a digest names; None if there is none, or the registry refuses."""
        return manifests.find_manifest(self.core, reference)

    def push_manifest(self, content: bytes, descriptor: Descriptor, tags: Sequence[str]) -> None:
        """Push a manifest that was copied."""
        referrers.push_manifest(self._pushing, content, descriptor, list(tags))

    def mount(self, digest: Digest, from_name: str) -> Offer:
        """Mount a blob of another repository of the registry, or of this one."""
        try:
            result = uploads.mount_blob(self.core, digest, from_name)
        except (AuthError, RegistryError) as error:
            if is_transient(error):
                raise
            return Offer(taken=False, opened=None)
        return Offer(taken=result.is_mounted, opened=result.session)

    def open_upload(self, algorithm: str) -> uploads.UploadSession:
        """Open an upload of what will be verified by that algorithm."""
        return uploads.open_upload(self.core, algorithm)

    def writer(self, opened: uploads.UploadSession, chunk_size: int | None) -> BlobWriter:
        """What writes to an upload that was just opened."""
        minimum = opened.min_chunk_length
        return BlobWriter(self.core, opened.location, min_chunk_length=minimum, chunk_size=chunk_size)

    def patch(self, location: str, body: Body) -> str:
        """Send to an upload, all in one; returns where it goes on."""
        return uploads.patch_upload(self.core, location, body, idempotent=False)

    def put(self, location: str, digest: Digest, body: Body | None, first: int = 0) -> IncompleteUpload | None:
        """Close an upload with a PUT of the bytes from position `first` on."""
        return UploadCompletion(self.core, location, digest, body, first).run()

    def commit(self, writer: BlobWriter, digest: Digest) -> IncompleteUpload | None:
        """Commit an upload; returns its state if faults of the closing PUT prevent that."""
        return writer.try_commit(digest)

    def cancel_quietly(self, location: str) -> None:
        """Cancel an upload, if that can be done within 10 seconds."""
        sender = self.core.sender.with_deadline(time.monotonic() + _CANCEL_TIME)
        with suppress(Exception):  # else the registry gives it up in its own time
            uploads.cancel_upload(CoreRepository(sender, self.name, self.core.operation), location)


def origin_of(client: Client) -> Origin:
    """The registry of a client."""
    return sender_of(client).origin
