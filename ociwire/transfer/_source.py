"""Opens a blob for a download: readers that do not hash, since another thread does, and know a 200 from a 206.

Once nothing more is wanted, nothing more is opened, nor taken up again. Nothing wakes a reader that waits for its
socket at that moment, though: a response can be closed by its owner only.
"""

from __future__ import annotations

import re
import time
from typing import final

from .._arguments import show
from .._client.blob_reader import BlobReader
from .._client.client import Client
from .._http.headers import content_length, content_type
from .._http.messages import Response
from .._oci.descriptor import Descriptor
from .._oci.digest import Digest
from ..errors import ProtocolError, ReadError, TransportTimeout
from ._repository import Repository

__all__ = ["Source"]

PATIENCE = 10.0
"""How long an extra connection may say nothing, in seconds, where the client's options name no timeout."""
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")


@final
class _Flag:
    """Is set once. No `threading.Event`: that has a lock, which a signal can keep locked, and nobody waits here."""

    def __init__(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        """Whether it is."""
        return self._set

    def set(self) -> None:
        """From now on it is."""
        self._set = True


@final
class Source:
    """One blob of one registry. May be shared by threads; its readers have one owner each.

    Args:
        client: The registry's.
        repository: The repository's name, checked.
        digest: The blob's.

    Attributes:
        over: To be set once nothing more is wanted.
    """

    def __init__(self, client: Client, repository: str, digest: Digest) -> None:
        self.digest = digest
        self.over = _Flag()
        self._client = client
        self._repository = repository
        self._door = Repository(client, repository, "get_blob")
        self._described: Descriptor | None = None

    def anew(self) -> Source:
        """The same, of which something is wanted again."""
        return Source(self._client, self._repository, self.digest)

    def extra(self) -> Source:
        """The same, for connections that can be done without: they are not waited for as long as others."""
        if self._door.timeout is not None:
            return self
        other = Source(self._client.with_options(timeout=PATIENCE), self._repository, self.digest)
        other.over = self.over
        return other

    def describe(self) -> Descriptor:
        """The blob's descriptor, by a HEAD at the first call."""
        if self._described is None:
            self._described = self._client.resolve_blob(self._repository, self.digest)
        return self._described

    def check_deadline(self) -> None:
        """Raise `TransportTimeout` if the client's deadline has passed. For work without network I/O (hashing)."""
        deadline = self._door.deadline
        if deadline is not None and time.monotonic() >= deadline:
            raise TransportTimeout(f"the deadline passed while {self.digest} was hashed on disk")

    def whole(self) -> BlobReader:
        """All of it, as one stream."""
        response = self._get({}, ok=(200,))
        opened = False
        try:
            size = content_length(response.headers)
            if size is None:
                size = self.describe().size
            reader = self._reader(response, Descriptor(content_type(response.headers), self.digest, size), 0, size)
            opened = True
        finally:
            if not opened:
                response.close()
        return reader

    def part(self, descriptor: Descriptor, start: int, stop: int) -> BlobReader | None:
        """The bytes from `start` to `stop` (exclusive); None if the registry would send the whole instead.

        Raises:
            ProtocolError: The registry sends other bytes than these, by its own account.
        """
        response = self._get({"Range": f"bytes={start}-{stop - 1}"}, ok=(200, 206))
        if response.status == 200:
            response.close()
            return None
        said = response.headers.get("content-range", "").strip()
        match = _CONTENT_RANGE.fullmatch(said)
        if match is None or int(match[1]) != start or match[2] not in ("*", str(descriptor.size)):
            response.close()
            raise ProtocolError(
                f"asked for bytes {start}-{stop - 1}/{descriptor.size}, got {show(said or 'no Content-Range')}",
                request=response.request,
            )
        return self._reader(response, descriptor, start, stop)

    def any_part(self, descriptor: Descriptor, start: int, stop: int) -> BlobReader:
        """The same; out of the whole, if that is what the registry sends."""
        reader = self.part(descriptor, start, stop)
        if reader is not None:
            return reader
        self._check()
        return self._client.get_blob_range(self._repository, self.digest, start, stop)

    def _get(self, headers: dict[str, str], *, ok: tuple[int, ...]) -> Response:
        self._check()
        return self._door.get_blob(self.digest, ok=ok, headers=headers)

    def _check(self) -> None:
        if self.over.is_set():
            raise ReadError(f"nothing more of {self.digest} is wanted")

    def _reader(self, response: Response, descriptor: Descriptor, start: int, stop: int) -> BlobReader:
        def reopen(position: int) -> Response:
            self._check()
            again = self._client.get_blob_range(self._repository, self.digest, position, stop)
            return Response(206, {}, again, response.request)

        return BlobReader(response, descriptor, start=start, stop=stop, part=True, reopen=reopen)
