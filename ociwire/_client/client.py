"""The client, with one method for each operation of the OCI distribution specification 1.1.

This module validates names, tags, digests and options; the other modules of the package send the requests.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from enum import Enum
from typing import TYPE_CHECKING, Any, BinaryIO, final, overload

import urllib3

from .._argument_checks import (
    OTHER_TRANSPORT_OPTIONS,
    check_boolean,
    check_future_deadline,
    check_integer,
    check_seconds,
    resolve_timeout,
    safe_repr,
    suggest_options,
)
from .._files import open_regular_file
from .._http.body import Body
from .._http.messages import Request, RequestInfo, Response, redactor_of
from .._http.transport import Transport, check_transport
from .._http.urls import Origin
from .._oci.descriptor import Descriptor, check_size, digest_and_size, is_media_type
from .._oci.digest import Digest, new_hasher
from .._oci.host import check_host
from .._oci.image_manifest import Index, Manifest
from .._oci.reference import DOCKER_HUB, Reference, check_tag, registry_name
from .._oci.scope import Scope
from ..errors import ContentError, NotFound, OciwireError, RegistryError, SizeMismatch, Unsupported, UsageError
from ..media_types import INDEX_TYPES
from ..transport import HeadersTransport
from . import (
    blob_writer,
    blobs,
    manifests,
    pagination,
    referrers,
    uploads,
)
from .blob_reader import BlobReader
from .blob_writer import BlobWriter
from .repository import Repository
from .request_sender import MAX_MANIFEST_SIZE, ClientState, RequestSender

if TYPE_CHECKING:
    from typing import TypedDict

    from typing_extensions import Unpack

    from .._http.messages import BodyContent
    from ..auth import Credential, CredentialFunction, CredentialSource
    from ..transport._urllib3.tls import TLS

    CredentialsLike = CredentialSource | Credential | tuple[str, str] | CredentialFunction
    """Type of the option ``credentials`` of a client."""

    class ClientOptions(TypedDict, total=False):
        """Keyword arguments of `Client`."""

        credentials: CredentialsLike | None
        timeout: float | urllib3.Timeout | None
        retry: int | urllib3.Retry | None
        tls: TLS | None
        proxy: str | None
        trust_env: bool | None
        insecure: bool
        user_agent: str | None
        debug_id: str | None
        max_manifest_size: int


__all__ = ["Client"]


class _Unset(Enum):
    """Type of `UNSET`."""

    UNSET = "UNSET"

    def __repr__(self) -> str:
        return self.name


UNSET = _Unset.UNSET
"""Default of an option whose value may be `None`."""

_CLIENT_NUMBERS = itertools.count(1)
_OTHER_NAMES = {
    "list_tags": "tags(repository)",
    "get_tags": "tags(repository)",
    "catalog": "repositories()",
    "list_repositories": "repositories()",
    "pull_blob": "get_blob(repository, digest)",
    "fetch_blob": "get_blob(repository, digest)",
    "head_blob": "resolve_blob(repository, digest)",
    "blob_exists": "has_blob(repository, digest)",
    "upload_blob": "push_blob(repository, content), or ociwire.upload(client, repository, source)",
    "download_blob": "get_blob(repository, digest), or ociwire.download(client, repository, digest, path)",
    "pull_manifest": "fetch_manifest(repository, reference)",
    "head_manifest": "resolve_manifest(repository, reference)",
    "put_manifest": "push_manifest(repository, content)",
    "put_blob": "push_blob(repository, content)",
    "manifest_exists": "has_manifest(repository, reference)",
    "list_referrers": "referrers(repository, digest)",
    "get_referrers": "referrers(repository, digest)",
    **dict.fromkeys(("request", "send", "get", "head", "post", "put", "patch", "delete"), "do(Request(method, path))"),
    "get_digest": "resolve_manifest(repository, reference).digest",
    "get_manifest_digest": "resolve_manifest(repository, reference).digest",
    "get_index": "fetch_manifest(repository, reference)",
    "upload": "push_blob(repository, content), or ociwire.upload(client, repository, source)",
    "download": "get_blob(repository, digest), or ociwire.download(client, repository, digest, path)",
    "pull": "fetch_manifest(repository, reference), or ociwire.download(client, repository, digest, path)",
    "push": "push_manifest(repository, content), or ociwire.upload(client, repository, source)",
    "copy": "tag(repository, source, *tags), or ociwire.copy(client, source_reference, target_reference)",
    "version": "ping()",
}
"""Names of operations in other clients, and the equivalent call of this client."""
OTHER_OPTIONS = {
    **OTHER_TRANSPORT_OPTIONS,
    "auth": "credentials=(username, password)",
    "auth_config": "credentials=(username, password)",
    "username": "credentials=(username, password)",
    "user": "credentials=(username, password)",
    "password": "credentials=(username, password)",
    "token": "credentials=Credential(registry_token=...) for a bearer token, or credentials=(username, token)",
    "headers": "user_agent=..., or a transport layer that adds headers (Request.with_headers)",
    "http": "insecure=True",
    "plain_http": "insecure=True",
    "base_url": "Client('ghcr.io'); insecure=True means plain http",
    "registry": "Client('ghcr.io')",
    "deadline": "client.with_options(deadline=...) or with_options(within=60)",
    "max_concurrency": "ociwire.aio.AsyncClient",
}
"""Options of other clients, and what to use instead."""
_CONSTRUCTOR_OPTIONS = {
    name: f"Client(host, {name}=...)"
    for name in ("credentials", "retry", "tls", "proxy", "trust_env", "insecure", "user_agent", "debug_id")
}
"""Options of `Client` that `Client.with_options` cannot change, and how to pass them to `Client`."""
_OTHER_REQUEST_OPTIONS = {
    name: f"{option}, passed to Client(host, ...)"
    for name, option in OTHER_OPTIONS.items()
    if name not in ("deadline", "headers", "base_url", "registry", "max_concurrency")
} | {"headers": OTHER_OPTIONS["headers"]}
"""Options of other clients that `Client.with_options` cannot change, and what to pass to `Client` instead."""
_SESSION_ATTRIBUTES = frozenset({"auth", "cert", "headers", "proxies", "timeout", "verify"})
_DOCKER_HUB_REGISTRY = "registry-1.docker.io"
_CATALOG_URL = "/v2/_catalog"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})


@final
class Client:
    """Client of one registry, with a method for each operation. A ``with`` statement closes the client at its end.

    Thread-safe. After a fork, create a new client in the child process. Names, tags, digests and media types are
    validated before anything is sent. Each method documents its specific exceptions. In addition, all methods raise
    `UsageError` for invalid arguments or if the client is closed, `TransportError` if no usable response was received,
    `AuthError` if no token could be obtained, and `RegistryError` if the registry responded with an error.

    >>> from ociwire import Client, Descriptor
    >>> from ociwire.testing import MemoryRegistry
    >>> with Client("registry.example", MemoryRegistry()) as client:
    ...     descriptor = client.push_blob("app", b"hello")
    ...     client.get_blob("app", descriptor).read()
    b'hello'
    >>> client = Client("ghcr.io", credentials=("user", "password"), timeout=30, retry=2)

    Args:
        host: ``host`` or ``host:port`` of the registry. ``docker.io`` means ``registry-1.docker.io``.
        transport: Transport that sends the requests. The caller must close it. `None` means `default_transport`, which
            the client closes.
        credentials: A pair of user name and password or a `Credential`, which are used for this host only; a credential
            source; or a function with the arguments of `CredentialSource.lookup`. `None` means the credentials of
            ``docker login``. With another transport, pass this option to `default_transport`.
        timeout: Timeout in seconds for connecting and for each wait on the socket, or a `urllib3.Timeout`. `None` means
            the timeout of the transport: by default, 10 seconds for connecting and 120 seconds for each wait.
        retry: Number of retries, a `urllib3.util.Retry`, or `False` for none; see `RetryTransport`. `None` means the
            default policy. With another transport, pass this option to `default_transport`.
        tls: Path of a CA bundle, a `TLSConfig`, or an `ssl.SSLContext`; see `UrllibTransport`. `None` means the CAs of
            the system and `docker_certs_d`. With another transport, pass this option to `default_transport`.
        proxy: URL of a proxy; see `UrllibTransport`. `None` means the proxy in the environment. With another transport,
            pass this option to `default_transport`.
        trust_env: Whether to use the proxy in the environment. `None` means true. With another transport, pass this
            option to `default_transport`.
        insecure: Whether to use plain http instead of https. Defaults to false. This option does not disable the
            verification of certificates.
        user_agent: Value of the User-Agent header. `None` means the transport's value, or else ``ociwire/VERSION``.
        debug_id: Name of this client in log messages. `None` means ``client-`` and a number.
        max_manifest_size: Maximum size in bytes of a manifest that is read, and of an index that is written under a
            referrers tag. Defaults to 4 MiB.

    Attributes:
        host: ``host`` or ``host:port`` that requests are sent to, in lower case.
        transport: The transport, without the layer that the client adds.

    Raises:
        UsageError: An argument is invalid, or an option of `default_transport` is combined with a transport.
    """

    host: str
    transport: Transport

    @suggest_options(OTHER_OPTIONS)
    def __init__(
        self,
        host: str,
        transport: Transport | None = None,
        *,
        credentials: CredentialsLike | None = None,
        timeout: float | urllib3.Timeout | None = None,
        retry: int | urllib3.Retry | None = None,
        tls: TLS | None = None,
        proxy: str | None = None,
        trust_env: bool | None = None,
        insecure: bool = False,
        user_agent: str | None = None,
        debug_id: str | None = None,
        max_manifest_size: int = MAX_MANIFEST_SIZE,
    ) -> None:
        check_integer("max_manifest_size", max_manifest_size, minimum=1)
        scheme = "http" if check_boolean("insecure", insecure) else "https"
        origin = Origin.of(f"{scheme}://{check_host(host)}")
        if registry_name(origin.netloc) == DOCKER_HUB:
            origin = Origin.of(f"{scheme}://{_DOCKER_HUB_REGISTRY}")
        self.host: str = origin.netloc
        self.transport: Transport = resolve_transport(
            origin.netloc,
            transport,
            user_agent=user_agent,
            credentials=credentials,
            retry=retry,
            tls=tls,
            proxy=proxy,
            trust_env=trust_env,
        )
        self._owned = transport is None
        wire = HeadersTransport(self.transport, user_agent=user_agent)
        debug_id = f"client-{next(_CLIENT_NUMBERS)}" if debug_id is None else debug_id
        defaults = RequestInfo(debug_id=debug_id, timeout=timeout)
        self._sender = RequestSender(origin, wire, defaults, ClientState(), max_manifest_size)

    @classmethod
    def from_reference(
        cls, reference: str | Reference, transport: Transport | None = None, **options: Unpack[ClientOptions]
    ) -> Client:
        """Return a client of the registry in a reference.

        >>> from ociwire import Client
        >>> Client.from_reference("ghcr.io/org/app:v1").host
        'ghcr.io'

        Args:
            reference: A reference as for ``docker pull``. The host defaults to Docker Hub.
            transport: See `Client`.
            options: Options of `Client`.

        Raises:
            UsageError: The reference or an option is invalid.
        """
        return cls(parse_reference(reference).host, transport, **options)

    @suggest_options({**_OTHER_REQUEST_OPTIONS, **_CONSTRUCTOR_OPTIONS})
    def with_options(
        self,
        *,
        timeout: float | urllib3.Timeout | _Unset | None = UNSET,
        deadline: float | _Unset | None = UNSET,
        within: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Client:
        """Return a client with the same registry and transport, but other options for its requests.

        Options that are not given remain unchanged. Closing either client closes both.

        >>> from ociwire import Client
        >>> from ociwire.testing import MemoryRegistry
        >>> client = Client("registry.example", MemoryRegistry())
        >>> list(client.with_options(within=60).repositories())  # at most a minute from now, including retries
        []

        Args:
            timeout: Timeout in seconds; see `RequestInfo.timeout`. `None` removes it, so that the timeout of the
                transport applies.
            deadline: A `time.monotonic` value in seconds, now or later; see `RequestInfo.deadline`. `None` removes it.
            within: Seconds from now until the deadline, instead of `deadline`. With 0, all requests time out. `None`
                means that it is not used.
            extra: Items that are added to `RequestInfo.extra`. `None` adds none.

        Raises:
            DeadlinePassed: The deadline has passed. This is a `UsageError` and a `TransportTimeout`.
            UsageError: The timeout or the deadline is invalid, both `deadline` and `within` are given, or `extra` is
                not a mapping.
        """
        changes: dict[str, Any] = {}
        if not isinstance(timeout, _Unset):
            if timeout is not None:
                resolve_timeout(timeout)  # raises now, rather than with the first request
            changes["timeout"] = timeout
        if not isinstance(deadline, _Unset):
            changes["deadline"] = check_future_deadline(deadline)
        if within is not None:
            if changes.get("deadline") is not None:
                raise UsageError("deadline and within must not be combined")
            changes["deadline"] = time.monotonic() + check_seconds("within", within)
        defaults = self._sender.defaults
        if extra is not None:
            if not isinstance(extra, Mapping):
                raise UsageError(f"extra must be a mapping, got {type(extra).__name__}")
            changes["extra"] = {**defaults.extra, **extra}
        derived = object.__new__(Client)  # not Client(...), because transport and state are shared
        derived.host, derived.transport, derived._owned = self.host, self.transport, self._owned
        derived._sender = self._sender.with_options(**changes)
        return derived

    def do(self, request: Request, *, scope: Scope | None = None) -> Response:
        """Send a request, and return the response with any status. The caller must close the response.

        >>> from ociwire import Client, Request
        >>> from ociwire.testing import MemoryRegistry
        >>> with Client("registry.example", MemoryRegistry()).do(Request("GET", "/v2/")) as response:
        ...     response.status
        200

        Args:
            request: The request. A path as its URL is resolved against the registry. Its `RequestInfo` takes precedence
                over the options of the client.
            scope: Scope that a token must grant. `None` means `RequestInfo.required_scope` of the request.

        Raises:
            UsageError: The method of the request is in lower case.
        """
        method = getattr(request, "method", "")
        # Methods are case-sensitive (RFC 9110, section 9.1): a registry would answer with 405.
        if method not in _METHODS and method.upper() in _METHODS:
            raise UsageError(f"invalid method {method!r}: expected {method.upper()!r}, in upper case")
        return self._checked_sender.do(request, scope=scope)

    def ping(self) -> None:
        """Check that the registry responds and accepts the credentials: ``GET /v2/`` ("Determining Support").

        Raises:
            Unauthorized: The registry refuses anonymous requests, or the credentials.
            NotFound: The host is not a registry.
            TransportError: No usable response was received.
        """
        self._checked_sender.send("ping", "GET", "/v2/", Scope.EMPTY, ok=(200,)).drain()

    # Blobs

    def get_blob(self, repository: str, digest: str | Descriptor) -> BlobReader:
        """Open a blob for reading: ``GET /v2/NAME/blobs/DIGEST`` (specification, "Pulling blobs"; scope: pull).

        The reader verifies the content against `digest`, whatever the headers state. If the connection is lost, the
        reader resumes the download at the current position.

        Args:
            repository: Name of the repository.
            digest: Digest of the blob, or its descriptor. The size in a descriptor is verified, too.

        Returns:
            The reader, which the caller must read to its end or close.

        Raises:
            BlobUnknown: The repository has no such blob.
            SizeMismatch: The size of the blob differs from the size in the descriptor.
        """
        expected, size = digest_and_size(digest)
        return _check_reader(blobs.open_blob(self._repository(repository, "get_blob"), expected), size)

    def get_blob_range(
        self, repository: str, digest: str | Descriptor, start: int, stop: int | None = None
    ) -> BlobReader:
        """Open a part of a blob: a GET with a Range header (RFC 9110, section 14; scope: pull).

        A part cannot be verified. If the registry sends the whole blob instead (200), the other bytes are skipped.

        Args:
            repository: Name of the repository.
            digest: Digest or descriptor of the blob.
            start: Position of the first byte, counted from 0.
            stop: Position after the last byte. `None` means the end of the blob. With ``start == stop``, no request is
                sent.

        Returns:
            The reader, which the caller must read to its end or close.

        Raises:
            UsageError: The range is invalid.
            BlobUnknown: The repository has no such blob.
            RangeInvalid: The blob is not longer than `start`.
        """
        check_integer("start of the range", start)
        if stop is not None and check_integer("end of the range", stop) < start:
            raise UsageError(f"invalid range {start} to {stop}: expected start <= stop, where stop is exclusive")
        expected, size = digest_and_size(digest)
        target = self._repository(repository, "get_blob_range")
        return _check_reader(blobs.open_blob(target, expected, start, stop), None if start == stop else size)

    def resolve_blob(self, repository: str, digest: str | Descriptor) -> Descriptor:
        """Return the descriptor of a blob: ``HEAD /v2/NAME/blobs/DIGEST`` ("Checking if content exists"; scope: pull).

        The result of the HEAD is confirmed by a GET of the first byte if the registry may not support HEAD (400, 403,
        404, 405, 406, 500, 501), or if the response has no size or a size of 0. Once the host has responded to a HEAD
        with 200, a 404 is not confirmed.

        Args:
            repository: Name of the repository.
            digest: Digest of the blob, or its descriptor. The size in a descriptor is verified.

        Raises:
            BlobUnknown: The repository has no such blob.
            DigestMismatch: The registry states another digest of the same algorithm.
            SizeMismatch: The size that the registry states differs from the size in the descriptor.
            ContentError: The response is an HTML page.
        """
        expected, size = digest_and_size(digest)
        return _check_size(blobs.resolve_blob(self._repository(repository, "resolve_blob"), expected), size)

    def has_blob(self, repository: str, digest: str | Descriptor) -> bool:
        """Return whether a repository has a blob; see `resolve_blob`.

        Args:
            repository: Name of the repository.
            digest: Digest of the blob, or its descriptor. The size in a descriptor is verified.

        Raises:
            OciwireError: As `resolve_blob`, except for `BlobUnknown` and `NameUnknown`: the method returns false.
        """
        expected, size = digest_and_size(digest)
        try:
            _check_size(blobs.resolve_blob(self._repository(repository, "has_blob"), expected), size)
        except NotFound:
            return False
        return True

    @overload
    def push_blob(self, repository: str, content: bytes | os.PathLike[str] | BinaryIO, /) -> Descriptor: ...

    @overload
    def push_blob(self, repository: str, *, content: bytes | os.PathLike[str] | BinaryIO) -> Descriptor: ...

    @overload
    def push_blob(
        self, repository: str, descriptor: Descriptor, content: BodyContent | os.PathLike[str]
    ) -> Descriptor: ...

    @suggest_options(
        {
            "data": "content=...",
            "media_type": "push_blob(repository, Descriptor.of(content, media_type), content)",
            "digest": "push_blob(repository, Descriptor(media_type, digest, size), content)",
        }
    )
    def push_blob(self, repository: str, descriptor: Any = UNSET, content: Any = UNSET) -> Descriptor:
        """Upload a blob: a POST opens an upload session, and a PUT sends it ("POST then PUT"; scope: pull,push).

        With a descriptor, the content is not hashed first, because the registry verifies the digest. If the PUT fails,
        the client queries the state of the upload. It sends missing bytes if the content can be read again, and waits
        up to ten minutes, or until the deadline, for a registry that may still be committing the blob.

        >>> from ociwire import Client
        >>> from ociwire.testing import MemoryRegistry
        >>> Client("registry.example", MemoryRegistry()).push_blob("app", b"hello").size
        5

        Args:
            repository: Name of the repository.
            descriptor: Descriptor of the blob. Its size is sent as the Content-Length. It may be omitted for bytes, a
                path (`os.PathLike`) and a seekable binary file. The content is then read twice: to compute the
                descriptor, and to send the content.
            content: Any content that `Body.of` accepts, such as bytes, a binary file, or an iterable of bytes; or a
                path. Single-use content is not read before the registry accepts the request.

        Returns:
            The given or computed descriptor.

        Raises:
            UsageError: The content has the wrong type, or is an iterable or an unseekable file without a descriptor.
            SizeMismatch: The content is longer or shorter than the descriptor states.
            DigestInvalid: The digest of the content differs from the one in the descriptor.
            OSError: The file cannot be opened.
            Exception: Any exception that reading the content raises, unchanged.
        """
        if content is UNSET or descriptor is UNSET:
            descriptor, content = None, descriptor if content is UNSET else content
        elif not isinstance(descriptor, Descriptor):
            raise UsageError(
                f"descriptor must be a Descriptor, got {type(descriptor).__name__} (Descriptor.of creates one)"
            )
        if isinstance(content, str):
            raise UsageError(
                "content must be bytes, a path or a binary file, got str: pass text as text.encode(), and a file name"
                " as pathlib.Path(name)"
            )
        target = self._repository(repository, "push_blob")
        with ExitStack() as opened:
            if isinstance(content, os.PathLike):
                content = opened.enter_context(open_regular_file(content))
            pushed: Descriptor = Descriptor.of(content) if descriptor is None else descriptor
            blob_writer.push_blob(target, pushed.digest, Body.of(content, pushed.size))
        return pushed

    def push_blob_chunked(
        self, repository: str, chunk_size: int | None = None, *, algorithm: str = "sha256"
    ) -> BlobWriter:
        """Open an upload session, and return its writer ("Pushing a blob in chunks"; scope: pull,push).

        Args:
            repository: Name of the repository.
            chunk_size: Size of a chunk in bytes. `None` means 4 MiB, or less if the registry has refused that size. It
                is increased to the minimum of the registry (``OCI-Chunk-Min-Length``).
            algorithm: Hash algorithm of `BlobWriter.commit`: sha256 (default), sha384 or sha512.

        Raises:
            UsageError: The chunk size is not a positive integer, or the algorithm is not supported.
        """
        target = self._repository(repository, "push_blob_chunked")
        new_hasher(algorithm)
        if chunk_size is not None:
            check_integer("chunk size", chunk_size, minimum=1)
        return blob_writer.begin_upload(target, chunk_size, algorithm)

    def push_blob_chunked_resume(
        self,
        repository: str,
        id: str,  # noqa: A002 - as in docker/oci
        offset: int | None = None,
        chunk_size: int | None = None,
    ) -> BlobWriter:
        """Return a writer that resumes an upload, possibly from another process (scope: pull,push).

        Args:
            repository: Name of the repository.
            id: `BlobWriter.id` of the interrupted writer.
            offset: Number of bytes that the registry has. `None` means to query the registry (GET).
            chunk_size: As for `push_blob_chunked`.

        Raises:
            UsageError: The offset, the chunk size or the id is invalid.
            BlobUploadUnknown: The upload was committed or cancelled, or the upload session has expired.
        """
        target = self._repository(repository, "push_blob_chunked_resume")
        if chunk_size is not None:
            check_integer("chunk size", chunk_size, minimum=1)
        if offset is not None:
            check_integer("offset", offset)
        if not isinstance(id, str):
            raise UsageError(f"id must be a str, the id of a BlobWriter, got {safe_repr(id)}")
        return blob_writer.resume_upload(target, id, offset, chunk_size)

    def mount_blob(self, from_repository: str, to_repository: str, digest: str | Descriptor) -> Descriptor:
        """Mount a blob from another repository of the registry: a POST with ``mount=DIGEST&from=NAME``.

        Specification: "Mounting a blob from another repository". Scopes: pull,push for the target, pull for the source.

        Args:
            from_repository: Name of the repository that has the blob.
            to_repository: Name of the repository to mount it in.
            digest: Digest or descriptor of the blob.

        Returns:
            The descriptor of the blob.

        Raises:
            Unsupported: The registry did not mount the blob. If it opened an upload session instead, the client
                cancels the session.
        """
        target, (expected, size) = self._repository(to_repository, "mount_blob"), digest_and_size(digest)
        result = uploads.mount_blob(target, expected, from_repository)
        if result.is_mounted:
            return _check_size(blobs.resolve_blob(target, expected, result.scope), size)
        if result.session is not None:
            with suppress(OciwireError):  # if it fails, the session expires by itself
                uploads.cancel_upload(target, result.session.location)
        raise Unsupported(
            f"the registry did not mount {expected} from {from_repository}: upload the blob instead",
            status=result.response.status,
            headers=result.response.headers,
            request=result.response.request,
        )

    def delete_blob(self, repository: str, digest: str | Descriptor) -> None:
        """Delete a blob: ``DELETE /v2/NAME/blobs/DIGEST`` (specification, "Deleting Blobs"; scope: delete).

        Args:
            repository: Name of the repository.
            digest: Digest or descriptor of the blob.

        Raises:
            BlobUnknown: The repository has no such blob.
            Unsupported: The registry does not support deletion.
        """
        target = self._repository(repository, "delete_blob")
        target.delete(target.blob_url(digest_and_size(digest)[0]), target.delete_scope)

    # Manifests and tags

    def get_manifest(self, repository: str, reference: str | Descriptor) -> BlobReader:
        """Read a manifest: ``GET /v2/NAME/manifests/REFERENCE`` (specification, "Pulling manifests"; scope: pull).

        The manifest is read into memory and verified before the reader is returned. `fetch_manifest` returns it parsed.

        Args:
            repository: Name of the repository.
            reference: A tag, a digest, or a descriptor. The size in a descriptor is verified, too.

        Returns:
            A reader of the manifest. `BlobReader.descriptor` has its media type and digest; see `get_tag`.

        Raises:
            ManifestUnknown: The repository has no such manifest.
            DigestMismatch: The digest of the content differs.
            ContentError: The manifest is larger than `max_manifest_size`, its ``mediaType`` contradicts its
                Content-Type, it has the fields of both an index and an image manifest, or its size differs from the
                size in the descriptor.
            Unsupported: The content is a Docker schema 1 manifest.
        """
        name, expected, size = _parse_reference(reference)
        return _check_reader(self._get_manifest(self._repository(repository, "get_manifest"), name, expected), size)

    @suggest_options({"platform": "fetch_manifest(repository, reference).select('linux/arm64') for an index"})
    def fetch_manifest(self, repository: str, reference: str | Descriptor) -> Manifest | Index:
        """Read a manifest as `get_manifest` does, and parse it.

        >>> from ociwire import Client, Index
        >>> from ociwire.testing import MemoryRegistry
        >>> client = Client("registry.example", MemoryRegistry())
        >>> client.push_manifest("app", Index(annotations={"made": "here"}), tags=["v1"]).size
        118
        >>> client.fetch_manifest("app", "v1").annotations["made"]
        'here'

        Args:
            repository: Name of the repository.
            reference: A tag, a digest, or a descriptor.

        Returns:
            An `Index` if the manifest is an index or a Docker manifest list, otherwise a `Manifest`. Its `to_bytes`
            returns the bytes that were verified.

        Raises:
            ContentError: As `get_manifest`, or the content is not a valid manifest or index.
            OciwireError: As `get_manifest`.
        """
        name, expected, size = _parse_reference(reference)
        received = manifests.fetch_manifest(self._repository(repository, "fetch_manifest"), name, expected)
        media_type = _check_size(received.descriptor, size).media_type
        try:
            return (Index if media_type in INDEX_TYPES else Manifest).from_bytes(received.content)
        except ContentError as error:
            redactor_of(received.response.request).redact_error(error)  # it quotes the content
            raise

    def get_tag(self, repository: str, tag: str) -> BlobReader:
        """Read the manifest of a tag: ``GET /v2/NAME/manifests/TAG`` (scope: pull).

        Args:
            repository: Name of the repository.
            tag: The tag.

        Returns:
            A reader of the manifest. The digest in `BlobReader.descriptor` is the verified Docker-Content-Digest, or
            else the sha256 of the content. The media type is the Content-Type if this is a manifest type; otherwise, it
            is determined from the content.

        Raises:
            ManifestUnknown: The repository has no such tag.
            DigestMismatch: The digest of the content differs from the one that the registry states.
            ContentError: As for `get_manifest`, or the response is an HTML page.
            Unsupported: The content is a Docker schema 1 manifest.
        """
        return self._get_manifest(self._repository(repository, "get_tag"), check_tag(tag), None)

    def resolve_manifest(self, repository: str, reference: str | Descriptor) -> Descriptor:
        """Return the descriptor of a manifest: ``HEAD /v2/NAME/manifests/REFERENCE`` (scope: pull).

        The manifest is read with a GET and verified if the registry may not support HEAD (see `resolve_blob`), or if
        the response has no size or no manifest type, or no digest for a tag.

        Args:
            repository: Name of the repository.
            reference: A tag, a digest, or a descriptor. The size in a descriptor is verified.

        Raises:
            ManifestUnknown: The repository has no such manifest.
            DigestMismatch: The registry states another digest of the same algorithm.
            SizeMismatch: The size that the registry states differs from the size in the descriptor.
        """
        name, expected, size = _parse_reference(reference)
        target = self._repository(repository, "resolve_manifest")
        return _check_size(manifests.resolve_manifest(target, name, expected), size)

    def has_manifest(self, repository: str, reference: str | Descriptor) -> bool:
        """Return whether a repository has a manifest; see `resolve_manifest`.

        Args:
            repository: Name of the repository.
            reference: A tag, a digest, or a descriptor. The size in a descriptor is verified.

        Raises:
            OciwireError: As `resolve_manifest`, except for `ManifestUnknown` and `NameUnknown`: the method returns
                false.
        """
        name, expected, size = _parse_reference(reference)
        try:
            _check_size(manifests.resolve_manifest(self._repository(repository, "has_manifest"), name, expected), size)
        except NotFound:
            return False
        return True

    def resolve_tag(self, repository: str, tag: str) -> Descriptor:
        """Return the descriptor of the manifest of a tag: ``HEAD /v2/NAME/manifests/TAG`` (scope: pull).

        The manifest is read with a GET and hashed if the response has no digest, and in the other cases that
        `resolve_manifest` lists.

        Args:
            repository: Name of the repository.
            tag: The tag.

        Raises:
            ManifestUnknown: The repository has no such tag.
        """
        return manifests.resolve_manifest(self._repository(repository, "resolve_tag"), check_tag(tag), None)

    @suggest_options({"tag": "tags=['v1']", "reference": "tags=['v1']", "manifest": "content=..."})
    def push_manifest(
        self,
        repository: str,
        content: bytes | Mapping[str, Any] | Manifest | Index,
        media_type: str | None = None,
        *,
        digest: str | None = None,
        tags: Iterable[str] = (),
    ) -> Descriptor:
        """Push a manifest (specification, "Pushing Manifests"; scope: pull,push).

        Without tags, this sends a PUT by digest; with one tag, a PUT by tag. With several tags, or one tag and a digest
        of another algorithm than sha256, it sends a PUT by digest with ``tag=`` for each, and another PUT for each tag
        that the response does not confirm (``OCI-Tag``). If the manifest has a subject and the registry has no
        referrers API, the referrers tag is updated.

        >>> from ociwire import Client, Index
        >>> from ociwire.testing import MemoryRegistry
        >>> client = Client("registry.example", MemoryRegistry())
        >>> client.push_manifest("app", Index(), tags=["v1"]) == client.resolve_tag("app", "v1")
        True

        Args:
            repository: Name of the repository.
            content: The manifest: bytes, which are sent unchanged, a `Manifest` or `Index`, or a mapping, which is
                written as JSON without spaces.
            media_type: Media type of the manifest. `None` means its ``mediaType``, or else the OCI media type that
                matches its fields.
            digest: Digest of the manifest. `None` means the sha256 of the content.
            tags: Tags for the manifest. Defaults to none.

        Returns:
            The descriptor of the manifest.

        Raises:
            UsageError: The digest or the ``mediaType`` of the content differs from the argument, or the content has no
                known media type.
            ManifestInvalid: The registry refused the manifest.
            ManifestBlobUnknown: The repository does not have a blob that the manifest references.
            ReferrersUpdateError: The manifest was stored, but the referrers tag was not updated.
        """
        target = self._repository(repository, "push_manifest")
        unique_tags = _unique_tags(tags)
        text = manifests.serialize(content)
        descriptor = manifests.build_descriptor(text, media_type, digest)
        referrers.push_manifest(target, text, descriptor, unique_tags)
        return descriptor

    def tag(self, repository: str, source: str | Descriptor, *tags: str) -> Descriptor:
        """Add tags to a manifest of a repository: a GET of the manifest, and a PUT for each tag (scope: pull,push).

        >>> from ociwire import Client, Index
        >>> from ociwire.testing import MemoryRegistry
        >>> client = Client("registry.example", MemoryRegistry())
        >>> client.push_manifest("app", Index(), tags=["v1.2.3"]) == client.tag("app", "v1.2.3", "v1.2", "v1")
        True

        Args:
            repository: Name of the repository.
            source: A tag, a digest, or a descriptor of the manifest.
            tags: The new tags, at least one. A tag that exists is moved.

        Returns:
            The descriptor of the manifest.

        Raises:
            UsageError: A tag is invalid, or no tag is given.
            OciwireError: As `get_manifest` and `push_manifest`.
        """
        name, expected, size = _parse_reference(source)
        if any(isinstance(tag, (list, tuple, set, frozenset)) for tag in tags):
            raise UsageError("each tag must be a str: pass separate arguments, such as tag(repository, source, *tags)")
        unique_tags = _unique_tags(tags)
        if not unique_tags:
            raise UsageError("tags must be given: expected tag(repository, source, 'v1', ...)")
        target = self._repository(repository, "tag")
        manifest = manifests.fetch_manifest(target, name, expected, target.push_scope)
        _check_size(manifest.descriptor, size)
        for tag in unique_tags:
            manifests.put_manifest(target, tag, manifest.content, manifest.descriptor, [])
        return manifest.descriptor

    def delete_manifest(self, repository: str, digest: str | Descriptor) -> None:
        """Delete a manifest: ``DELETE /v2/NAME/manifests/DIGEST`` (specification, "Deleting Manifests"; scope: delete).

        The manifest is read first (scope: pull). If it has a subject and the registry has no referrers API, its entry
        is removed from the referrers tag first, and added again if the registry refuses to delete the manifest.

        Args:
            repository: Name of the repository.
            digest: Digest or descriptor of the manifest.

        Raises:
            ManifestUnknown: The repository has no such manifest.
            Unsupported: The registry does not support deletion.
        """
        referrers.delete_manifest(self._repository(repository, "delete_manifest"), digest_and_size(digest)[0])

    def delete_tag(self, repository: str, tag: str) -> None:
        """Delete a tag, but not its manifest: ``DELETE /v2/NAME/manifests/TAG`` ("Deleting tags"; scope: delete).

        Args:
            repository: Name of the repository.
            tag: The tag.

        Raises:
            ManifestUnknown: The repository has no such tag.
            Unsupported: The registry does not support the deletion of tags, like most older registries.
        """
        target = self._repository(repository, "delete_tag")
        target.delete(target.manifest_url(check_tag(tag)), target.delete_scope)

    # Lists

    @suggest_options({"n": "limit=...", "page_size": "limit=...", "last": "start_after=..."})
    def tags(self, repository: str, *, start_after: str | None = None, limit: int | None = None) -> Iterator[str]:
        """Yield the tags of a repository: ``GET /v2/NAME/tags/list`` ("Listing Tags"; scope: pull).

        Pages are requested lazily. An entry that is not a string is skipped with a log line.

        Args:
            repository: Name of the repository.
            start_after: Tag after which to begin, in the order of the registry. `None` means the first tag.
            limit: Maximum number of tags. `None` means no limit; with 0, no request is sent.

        Raises:
            UsageError: The limit is not an integer of 0 or more, or `start_after` is not a printable string.
            NameUnknown: The registry has no such repository.
            ProtocolError: There is a pagination loop, or a page is invalid or cross-origin.
            ContentError: The response is an HTML page.
        """
        target = self._repository(repository, "tags")

        def send(url: str) -> Response:
            return target.send("GET", url, target.pull_scope, ok=(200,))

        return pagination.iter_names(send, target.tags_url(), "tags", start_after, limit)

    def repositories(self, *, start_after: str | None = None, limit: int | None = None) -> Iterator[str]:
        """Yield the repositories of the registry: ``GET /v2/_catalog`` (scope: ``registry:catalog:*``).

        Pages are requested lazily. An entry that is not a string is skipped with a log line.

        Args:
            start_after: Repository after which to begin, in the order of the registry. `None` means the first one.
            limit: Maximum number of repositories. `None` means no limit; with 0, no request is sent.

        Raises:
            UsageError: The limit is not an integer of 0 or more, or `start_after` is not a printable string.
            Unsupported: The registry has no catalog (404, 405, 501 or UNSUPPORTED), like most public registries.
            ProtocolError: There is a pagination loop, or a page is invalid or cross-origin.
            ContentError: The response is an HTML page.
        """
        sender = self._checked_sender

        def send(url: str) -> Response:
            try:
                return sender.send("repositories", "GET", url, Scope.CATALOG, ok=(200,))
            except RegistryError as error:
                if error.status not in (404, 405, 501) and not isinstance(error, Unsupported):
                    raise
                raise Unsupported(
                    f"{sender.origin.netloc} does not support listing repositories (GET {_CATALOG_URL}): use the"
                    " registry's own API or web page",
                    status=error.status,
                    code=error.code,
                    detail=error.detail,
                    errors=error.errors,
                    headers=error.headers,
                    body=error.body,
                    request=error.request,
                ) from error

        return pagination.iter_names(send, _CATALOG_URL, "repositories", start_after, limit)

    def referrers(
        self, repository: str, digest: str | Descriptor, *, artifact_type: str | None = None
    ) -> Iterator[Descriptor]:
        """Yield the referrers of a manifest: ``GET /v2/NAME/referrers/DIGEST`` ("Listing Referrers"; scope: pull).

        If the registry has no referrers API, the referrers tag is read instead. The client assumes that there is no
        referrers API if the response has the status 400, 404, 405, 406 or 501, is a redirect that cannot be followed,
        is an HTML page, or is JSON without ``manifests``. There are no results if the manifest has no referrers, or the
        referrers tag does not reference an index of referrers.

        Pages are requested lazily. An entry without a valid digest is skipped with a log line. The sizes may be wrong;
        a missing or invalid size is read as 0.

        Args:
            repository: Name of the repository.
            digest: Digest or descriptor of the subject.
            artifact_type: Artifact type of the referrers to yield. The client filters if the registry does not. `None`
                means all types.

        Raises:
            UsageError: The artifact type is invalid.
            ProtocolError: There is a pagination loop, or a page is invalid or cross-origin.
            ContentError: The content under the referrers tag is not JSON, such as an HTML page.
        """
        target = self._repository(repository, "referrers")
        if artifact_type is not None and not is_media_type(artifact_type):
            raise UsageError(f"invalid artifact type {safe_repr(artifact_type, 200)}: expected type/subtype")
        return referrers.iter_referrers(target, digest_and_size(digest)[0], artifact_type)

    def close(self) -> None:
        """Close the client, and the transport if the client has created it. Idempotent."""
        self._sender.state.closed = True
        if self._owned:
            self.transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client {self._sender.origin}>"

    if not TYPE_CHECKING:  # type checkers would accept any name

        def __getattr__(self, name: str) -> object:
            raise unknown_attribute("Client", name)

        def __setattr__(self, name: str, value: object) -> None:
            check_assignment("Client", name)
            object.__setattr__(self, name, value)

    @property
    def _checked_sender(self) -> RequestSender:
        self._sender.state.check_open()
        return self._sender

    def _repository(self, name: str, operation: str) -> Repository:
        return Repository(self._checked_sender, name, operation)

    @staticmethod
    def _get_manifest(repository: Repository, reference: str, digest: Digest | None) -> BlobReader:
        manifest = manifests.fetch_manifest(repository, reference, digest)
        return BlobReader(manifest.response.replace(body=manifest.content), manifest.descriptor)


def unknown_attribute(class_name: str, name: str) -> AttributeError:
    """Return the error for a missing attribute of a client. Its message names the method to use instead."""
    other = _OTHER_NAMES.get(name)
    hint = "" if other is None else f"; use client.{other}"
    if class_name == "AsyncClient":
        hint = hint.replace("ociwire.", "ociwire.aio.")
    if name == "login":
        hint = f"; use {class_name}(host, credentials=(username, password))"
    return AttributeError(f"{class_name!r} object has no attribute {name!r}{hint}")


def check_assignment(class_name: str, name: str) -> None:
    """Refuse to set attributes that configure a `requests.Session`, or options of `Client`: they have no effect here.

    Raises:
        AttributeError: The attribute is one of these.
    """
    if name in _SESSION_ATTRIBUTES or name in _CONSTRUCTOR_OPTIONS:
        option = OTHER_OPTIONS.get(name, f"{name}=...")
        raise AttributeError(f"cannot set {name} of a client; use {option}, passed to {class_name}(host, ...)")


def parse_reference(reference: str | Reference) -> Reference:
    """Parse a reference for a caller that uses its host.

    Raises:
        UsageError: The reference is invalid, or is only a host, which would be parsed as a repository of Docker Hub.
    """
    if isinstance(reference, Reference):
        return reference
    parsed = Reference.parse(reference)
    if "/" not in reference and re.fullmatch(r".*\..*|localhost", reference.partition("@")[0].partition(":")[0]):
        raise UsageError(
            f"invalid reference {safe_repr(reference, 300)}: expected HOST/NAME (for a host, use Client(host))"
        )
    return parsed


def resolve_transport(
    host: str,
    transport: Transport | None,
    pool_size: int | None = None,
    *,
    credentials: CredentialsLike | None,
    user_agent: str | None = None,
    **options: Any,
) -> Transport:
    """Return the transport of a client, or a new `default_transport` if it is `None`.

    Args:
        host: Host of the client.
        transport: The transport that was passed to the client.
        pool_size: See `default_transport`. Not used with another transport.
        credentials: See `Client`.
        user_agent: See `default_transport`. Not used with another transport.
        options: Other options of `default_transport`. `None` means that an option is not given.

    Raises:
        UsageError: `transport` is not a transport, or an option is invalid or combined with a transport.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if transport is None:
        from ..auth.credentials import as_credential_source  # deferred: not needed with another transport
        from ..transport import default_transport

        source = None if credentials is None else as_credential_source(credentials, check_host(host))
        own: dict[str, Any] = {"credentials": source, "user_agent": user_agent, "pool_size": pool_size}
        return default_transport(**given, **{name: value for name, value in own.items() if value is not None})
    if isinstance(transport, str):
        # The value is not shown: it may be a secret.
        raise UsageError(
            "transport must be a transport with round_trip(request) and close(), got str: pass a user name and password"
            " as credentials=(username, password)"
        )
    check_transport("transport", transport)
    names = [*(["credentials"] if credentials is not None else []), *given]
    if names:
        raise UsageError(
            f"{' and '.join(names)} cannot be combined with transport: pass it to default_transport instead, such as"
            f" Client(host, default_transport({names[0]}=...))"
        )
    return transport


def _parse_reference(reference: str | Descriptor) -> tuple[str, Digest | None, int | None]:
    """Return the last path segment of the manifest URL, the digest (`None` for a tag), and the size if known."""
    if isinstance(reference, str) and ":" not in reference:  # a tag has no colon
        return check_tag(reference), None, None
    digest, size = digest_and_size(reference)
    return digest, digest, size


def _check_size(descriptor: Descriptor, size: int | None) -> Descriptor:
    """Return the descriptor from a response. Raises `SizeMismatch` if it does not have the expected size."""
    check_size(descriptor.digest, descriptor.size, size)
    return descriptor


def _check_reader(reader: BlobReader, size: int | None) -> BlobReader:
    """Return a reader. Closes it and raises `SizeMismatch` if it does not have the expected size."""
    try:
        _check_size(reader.descriptor, size)
    except SizeMismatch:
        reader.close()
        raise
    return reader


def _unique_tags(tags: Iterable[str]) -> list[str]:
    if not isinstance(tags, Iterable):
        raise UsageError(f"tags must be an iterable of str, got {type(tags).__name__}")
    # A str is one tag, not an iterable of characters. Duplicates are removed, because each tag may cost a request.
    return list(dict.fromkeys([check_tag(tag) for tag in ([tags] if isinstance(tags, str) else tags)]))
