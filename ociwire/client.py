"""One method for each operation of a registry: which request it is, which scope it needs, what its answer means.

Follows the OCI distribution specification 1.1. A client knows nothing of its transport but that it is one.
"""

from __future__ import annotations

import itertools
import re
from typing import Any, final
from urllib.parse import urlencode

from .blob import BlobReader
from .body import Body
from .descriptor import OCTET_STREAM, Descriptor, is_media_type
from .digest import Digest
from .errors import BlobUploadUnknown, DigestMismatch, NotFound, ProtocolError, UsageError
from .headers import content_length
from .message import Request, RequestInfo, Response
from .origin import Origin, check_host, upload_location
from .reference import DOCKER_HUB, check_repository
from .scope import Scope
from .status import error_from_response
from .transport import HeadersTransport, Transport, default_transport

__all__ = ["Client"]

_NUMBERS = itertools.count(1)
_DOCKER_HUB_REGISTRY = "registry-1.docker.io"
_CONTENT_RANGE = re.compile(r"bytes (?:[0-9]+-[0-9]+|\*)/([0-9]{1,18})")


@final
class Client:
    """A registry, by way of a transport. May be shared by threads; make it in the child after a fork.

    Args:
        host: ``host`` or ``host:port``; ``docker.io`` means ``registry-1.docker.io``.
        transport: What answers; the caller closes it. None is `default_transport`, which the client closes.
        insecure: Speak plain http. Never means TLS without verification.
        user_agent: The User-Agent; None is ``ociwire/VERSION``.
        debug_id: How the client is called in logs; None is ``client-`` and a number.

    Raises:
        UsageError: The host is none, or the user agent could not be sent.
    """

    def __init__(
        self,
        host: str,
        transport: Transport | None = None,
        *,
        insecure: bool = False,
        user_agent: str | None = None,
        debug_id: str | None = None,
    ) -> None:
        scheme = "http" if insecure else "https"
        self._origin = Origin.of(f"{scheme}://{check_host(host)}")
        if self._origin.netloc in (DOCKER_HUB, f"index.{DOCKER_HUB}"):
            self._origin = Origin.of(f"{scheme}://{_DOCKER_HUB_REGISTRY}")
        self.host = self._origin.netloc
        self._base = str(self._origin)
        self._owned = transport is None
        self.transport = default_transport(user_agent=user_agent) if transport is None else transport
        self._wire = HeadersTransport(self.transport, user_agent=user_agent)
        self._debug_id = f"client-{next(_NUMBERS)}" if debug_id is None else debug_id
        self._closed = False

    def do(self, request: Request, *, scope: Scope | None = None) -> Response:
        """Send any request and return its answer, whatever its status.

        Args:
            request: Where its URL is a path, scheme and host are the client's. What its info says wins.
            scope: What a token must grant; None leaves it to the request's info.

        Raises:
            TransportError: There is no usable answer.
            UsageError: The request could not be sent, or the client is closed.
        """
        if self._closed:
            raise UsageError("the client is closed")
        info = request.info
        completed = info.replace(
            required_scope=info.required_scope if scope is None else scope,
            operation=info.operation or "do",
            debug_id=info.debug_id or self._debug_id,
        )
        url = self._base + request.url if request.url.startswith("/") else request.url
        sent = request.replace(url=url, info=completed)
        response = self._wire.round_trip(sent)
        return response if response.request is not None else response.replace(request=sent)

    def get_blob(self, repository: str, digest: str) -> BlobReader:
        """Open a blob for reading: ``GET /v2/NAME/blobs/DIGEST`` (specification, "Pulling blobs"; scope: pull).

        The reader verifies what it reads against `digest`, whatever the headers say.

        Raises:
            UsageError: A bad name or digest; nothing was sent.
            BlobUnknown: The repository has no such blob.
            RegistryError: The registry said no otherwise.
            TransportError: There is no usable answer.
        """
        path, wanted = _blob(repository, digest)
        wanted.hasher()  # an algorithm that cannot be verified is refused before anything is sent
        response = self._send("get_blob", "GET", path, _scope(repository, "pull"), ok=(200,))
        opened = False
        try:
            size = content_length(response.headers)
            if size is None:
                size = self.resolve_blob(repository, wanted).size
            reader = BlobReader(response, Descriptor(_media_type(response), wanted, size))
            opened = True
        finally:
            if not opened:
                response.close()
        return reader

    def resolve_blob(self, repository: str, digest: str) -> Descriptor:
        """A blob's descriptor: ``HEAD /v2/NAME/blobs/DIGEST`` (specification, "Checking if content exists").

        Needs the scope pull.

        Raises:
            UsageError: A bad name or digest; nothing was sent.
            BlobUnknown: The repository has no such blob.
            DigestMismatch: The registry claims another digest of the same algorithm for it.
            RegistryError: The registry said no otherwise.
            TransportError: There is no usable answer.
        """
        path, wanted = _blob(repository, digest)
        with self._send("resolve_blob", "HEAD", path, _scope(repository, "pull"), ok=(200,)) as response:
            claimed = response.headers.get("docker-content-digest", "")
            if claimed.partition(":")[0] == wanted.algorithm and claimed != wanted:
                raise DigestMismatch(
                    f"the registry answers for {wanted} with {claimed!r:.200}", expected=wanted, actual=claimed
                )
            size = content_length(response.headers)
        if size is None:
            size = self._blob_size(path, repository)
        return Descriptor(_media_type(response), wanted, size)

    def push_blob(self, repository: str, descriptor: Descriptor, content: Any) -> Descriptor:
        """Upload a blob: a POST that opens the upload, and a PUT of the whole (specification, "POST then PUT").

        Needs the scope pull,push. The content is not hashed first: that a digest is wrong, the registry says.

        Args:
            repository: The repository's name.
            descriptor: What it is; its size is sent as the Content-Length.
            content: What `Body.of` takes. One-shot content is not pulled before the registry has agreed to take it.

        Returns:
            The descriptor that was given.

        Raises:
            UsageError: A bad name or descriptor, or content that is no bytes; nothing was sent.
            SizeMismatch: The content is longer or shorter than the descriptor says.
            DigestInvalid: The content does not have the descriptor's digest.
            RegistryError: The registry said no otherwise.
            TransportError: There is no usable answer.
            Exception: Whatever the content raised, as it was raised.
        """
        if not isinstance(descriptor, Descriptor):
            raise UsageError(f"a descriptor is a Descriptor, not {type(descriptor).__name__} (see Descriptor.of)")
        path, digest = _blob(repository, descriptor.digest)
        body = Body.of(content, descriptor.size)
        scope = _scope(repository, "pull", "push")
        query = "" if digest.algorithm == "sha256" else "?" + _query({"digest-algorithm": digest.algorithm})
        uploads = f"/v2/{check_repository(repository)}/blobs/uploads/{query}"
        opened = self._send("push_blob", "POST", uploads, scope, ok=(202,), idempotent=True)
        opened.discard()
        url, secrets = self._upload_location(opened)
        url += ("&" if "?" in url else "?") + _query({"digest": digest})
        try:
            self._send(
                "push_blob",
                "PUT",
                url,
                scope if secrets else Scope.EMPTY,
                ok=(201,),
                headers={"Content-Type": OCTET_STREAM},
                body=body,
            ).discard()
        except BlobUploadUnknown as error:
            # An upload that is over is unknown: a PUT that was sent twice below may have succeeded the first time.
            if not self._has_blob(path, repository):
                raise error from None
        return descriptor

    def close(self) -> None:
        """Refuse further calls; close the transport if the client made it. May be called again."""
        self._closed = True
        if self._owned:
            self.transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client {self._base}>"

    def _send(
        self,
        operation: str,
        method: str,
        url: str,
        scope: Scope,
        *,
        ok: tuple[int, ...],
        headers: dict[str, str] | None = None,
        body: Body | None = None,
        idempotent: bool | None = None,
    ) -> Response:
        """One request of an operation; its response is open if its status is `ok`, else closed and raised."""
        info = RequestInfo(required_scope=scope, operation=operation, idempotent=idempotent)
        response = self.do(Request(method, url, headers or {}, body, info))
        if response.status not in ok:
            with response:
                raise error_from_response(response)
        return response

    def _upload_location(self, opened: Response) -> tuple[str, bool]:
        """Where an upload goes on, and whether that is the client's own registry."""
        asked = opened.request.url if opened.request is not None else self._base
        try:
            url, same = upload_location(asked, opened.headers.get("location"))
        except ProtocolError as error:
            error.request = opened.request
            raise
        return url, same and Origin.of(asked) == self._origin

    def _blob_size(self, path: str, repository: str) -> int:
        """The size of a blob whose answer did not tell it, from the Content-Range of its first byte."""
        response = self._send(
            "resolve_blob", "GET", path, _scope(repository, "pull"), ok=(200, 206, 416), headers={"Range": "bytes=0-0"}
        )
        with response:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
            size = content_length(response.headers) if response.status == 200 else int(match[1]) if match else None
            if response.status == 416 and size != 0:
                raise error_from_response(response)
        if size is None:
            raise ProtocolError(
                f"the registry does not tell the size of {path}: neither Content-Length nor Content-Range",
                request=response.request,
            )
        return size

    def _has_blob(self, path: str, repository: str) -> bool:
        try:
            self._send("push_blob", "HEAD", path, _scope(repository, "pull"), ok=(200,)).close()
        except NotFound:
            return False
        return True


def _blob(repository: str, digest: str) -> tuple[str, Digest]:
    checked = Digest(digest)
    return f"/v2/{check_repository(repository)}/blobs/{checked}", checked


def _scope(repository: str, *actions: str) -> Scope:
    return Scope.repository(repository, *actions)


def _query(parameters: dict[str, str]) -> str:
    return urlencode(parameters, safe=":")


def _media_type(response: Response) -> str:
    stated = response.headers.get("content-type", "").partition(";")[0].strip()
    return stated if is_media_type(stated) else OCTET_STREAM
