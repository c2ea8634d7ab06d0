"""A repository as transfers need it, by requests that the client has no method for.

No other module of the package reaches into a client. What downloads, uploads and copies have in common is said here
once: which refusals may pass, what is offered by a mount, how an upload is given up.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, final
from urllib.parse import urlencode

from urllib3 import Timeout

from .._client import blobs, manifests, uploads
from .._client.blob_writer import BlobWriter
from .._client.client import Client
from .._client.error_mapping import is_transient
from .._http.body import Body
from .._http.messages import Response
from .._http.urls import Origin
from .._oci.descriptor import Descriptor
from .._oci.digest import Digest
from .._oci.scope import Scope
from ..errors import AuthError, NotFound, RegistryError
from ..media_types import OCTET_STREAM

__all__ = ["Offer", "Opened", "Repository", "is_transient", "origin_of"]

_CANCEL_TIME = 10.0
"""The most that cancelling an upload that failed may take, in seconds."""


class Opened(NamedTuple):
    """An upload that was opened.

    Attributes:
        location: Where it goes on.
        answer: What the registry has answered, closed.
    """

    location: str
    answer: Response


class Offer(NamedTuple):
    """What became of a blob that a registry was asked to mount.

    Attributes:
        taken: Whether it is there now.
        opened: The upload that was opened instead; None if it is there, or the registry has refused to hear of it.
    """

    taken: bool
    opened: Opened | None


@final
class Repository:
    """One repository of one registry. May be shared by threads.

    Args:
        client: The registry's.
        name: The repository's name, checked.
        operation: What its requests are for, as `RequestInfo.operation` tells the layers below.
    """

    def __init__(self, client: Client, name: str, operation: str) -> None:
        self.name = name
        self._client = client
        self._session = client._session
        self._operation = operation
        self._push = Scope.repository(name, "pull", "push")

    @property
    def origin(self) -> Origin:
        """The registry."""
        return self._session.origin

    @property
    def deadline(self) -> float | None:
        """The moment of `time.monotonic` by which the client wants to be done."""
        return self._session.defaults.deadline

    @property
    def timeout(self) -> float | Timeout | None:
        """The timeout that the client's options name; None if they name none."""
        return self._session.defaults.timeout

    @property
    def max_manifest_size(self) -> int:
        """The largest manifest that the client reads, in bytes."""
        return self._session.max_manifest_size

    @property
    def largest_chunk(self) -> int | None:
        """The largest chunk that the registry is known to take, in bytes; None if it has refused none."""
        return self._session.learnt.largest_chunk

    def takes_no_more_than(self, size: int) -> None:
        """Remember that the registry takes no larger chunks."""
        self._session.learnt.largest_chunk = min(size, self.largest_chunk or size)

    # Reading

    def get_blob(self, digest: Digest, *, ok: tuple[int, ...], headers: Mapping[str, str]) -> Response:
        """The answer to a GET of a blob, open; what is secret in another origin's URL is not in its errors."""
        path, scope = blobs.blob_path(self.name, digest), Scope.repository(self.name, "pull")
        return self._session.send(self._operation, "GET", path, scope, ok=ok, headers=headers)

    # What is there; by the scope of the upload that may follow, so that one token does for all of it.

    def has_blob(self, digest: Digest) -> bool:
        """Whether the registry has a blob. A refusal means that it does not."""
        return uploads.is_there(self._session, self._operation, self.name, digest)

    def find_blob(self, digest: Digest) -> Descriptor | None:
        """A blob's descriptor; None if it is not there, or the registry refuses to tell."""
        return blobs.find_blob(self._session, self._operation, self.name, digest, self._push)

    def resolve_blob(self, digest: Digest) -> Descriptor | None:
        """A blob's descriptor; None if it is not there, which a GET has confirmed if need be."""
        try:
            return blobs.resolve_blob(self._session, self._operation, self.name, digest, self._push)
        except NotFound:
            return None

    def resolve_manifest(self, reference: str) -> Digest | None:
        """The digest of the manifest that a tag or a digest names; None if there is none, or the registry refuses."""
        digest = Digest(reference) if ":" in reference else None
        path = f"/v2/{self.name}/manifests/{reference}"
        return manifests.find(self._session, self._operation, path, self._push, digest)

    def push_manifest(self, content: bytes, descriptor: Descriptor, tags: Sequence[str]) -> None:
        """Push a manifest that was copied; its ``mediaType`` may be what `Client.push_manifest` refuses to send.

        Raises:
            OciwireError: As `Client.push_manifest`.
        """
        self._client._put_manifest(self.name, content, descriptor, list(tags))

    # Uploads

    def mount(self, digest: Digest, from_name: str) -> Offer:
        """Have a blob of another repository of the registry, or of this one: a POST with ``mount=`` and ``from=``.

        Specification, "Mounting a blob from another repository". A refusal is none of the upload: that may be allowed.

        Raises:
            RegistryError: The registry is not able to answer, now.
            TransportError: There is no usable answer.
        """
        parameters = {"mount": str(digest), "from": from_name}
        parameters |= {} if digest.algorithm == "sha256" else {"digest-algorithm": digest.algorithm}
        url = f"/v2/{self.name}/blobs/uploads/?{urlencode(parameters, safe=':/')}"
        scope = self._push | Scope.repository(from_name, "pull")
        try:
            answer = self._session.send(self._operation, "POST", url, scope, ok=uploads.OPENED, idempotent=True)
        except (AuthError, RegistryError) as error:
            if is_transient(error):
                raise
            return Offer(taken=False, opened=None)
        answer.drain()
        if answer.status == 201:
            return Offer(taken=True, opened=None)
        if answer.status != 202 and not uploads.opens_upload(answer, digest):
            return Offer(taken=False, opened=None)
        return Offer(taken=False, opened=self._opened(answer))

    def open_upload(self, algorithm: str) -> Opened:
        """Open an upload of what will be verified by that algorithm."""
        return self._opened(uploads.open_upload(self._session, self._operation, self.name, algorithm))

    def _opened(self, answer: Response) -> Opened:
        return Opened(self._session.location(answer), answer)

    def writer(self, opened: Opened, chunk_size: int | None) -> BlobWriter:
        """What writes to an upload that was just opened, in chunks as the registry wants them."""
        minimum = uploads.smallest_chunk(opened.answer)
        return BlobWriter(self._session, self.name, opened.location, chunk_size=chunk_size, minimum=minimum)

    def patch(self, location: str, body: Body) -> str:
        """Send to an upload, all in one; returns where it goes on.

        Without a Content-Range, as docker sends it: with one it is a chunk, and some registries take only small ones.
        Not idempotent: what of it has arrived is to be asked for before more is sent.
        """
        headers = {"Content-Type": OCTET_STREAM}
        answer = self._session.send(
            self._operation,
            "PATCH",
            location,
            self._push,
            ok=uploads.PATCHED,
            headers=headers,
            body=body,
            idempotent=False,
        )
        answer.drain()
        return self._session.location(answer) if "location" in answer.headers else location

    def put(self, location: str, digest: Digest, body: Body | None, first: int = 0) -> uploads.IncompleteUpload | None:
        """Close an upload with a PUT of the bytes from position `first` on; see `upload.UploadCompletion`."""
        return uploads.UploadCompletion(self._session, self._operation, self.name, location, digest, body, first).run()

    def commit(self, writer: BlobWriter, digest: Digest) -> uploads.IncompleteUpload | None:
        """Commit an upload; returns its state if faults of the closing PUT prevent that."""
        return writer.try_commit(digest)

    def cancel_quietly(self, location: str) -> None:
        """Give an upload up, if that can be done; what went wrong before is what is raised.

        It cleans up: it has 10 seconds, though a deadline of the client's may have passed.
        """
        session = self._session.with_defaults(deadline=time.monotonic() + _CANCEL_TIME)
        with suppress(Exception):  # else the registry gives it up in its own time
            uploads.cancel(session, self._operation, self.name, location)


def origin_of(client: Client) -> Origin:
    """The registry of a client."""
    return client._session.origin
