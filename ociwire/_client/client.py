"""The client: one method for each operation of a registry.

Follows the OCI distribution specification 1.1. Names, tags, digests and options are checked here; the modules beside
this one send the requests.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from typing import Any, final

import urllib3

from .._argument_checks import check_deadline, check_integer, resolve_timeout, safe_repr
from .._http.body import Body
from .._http.messages import Request, RequestInfo, Response
from .._http.urls import Origin
from .._oci.descriptor import Descriptor, is_media_type
from .._oci.digest import Digest, new_hasher
from .._oci.host import check_host
from .._oci.reference import DOCKER_HUB, check_tag, registry_name
from .._oci.scope import Scope
from ..errors import OciwireError, RegistryError, Unsupported, UsageError
from ..transport import HeadersTransport, Transport
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

__all__ = ["Client"]


class _Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "UNSET"

    def __repr__(self) -> str:
        return self.name


UNSET = _Unset.UNSET
"""The default of an option for which `None` has a meaning."""

_CLIENT_NUMBERS = itertools.count(1)
_DOCKER_HUB_REGISTRY = "registry-1.docker.io"
_CATALOG_URL = "/v2/_catalog"


@final
class Client:
    """A client of one registry, with a method for each of its operations.

    Thread-safe. Create it in the child process after a fork. Names, tags, digests and media types are checked before
    anything is sent. Besides the errors that each method lists, all of them raise `UsageError` for a closed client,
    `TransportError` if there is no usable response, and `RegistryError` (see `ociwire.errors`) if the registry refuses.

    Args:
        host: ``host`` or ``host:port``; ``docker.io`` means ``registry-1.docker.io``.
        transport: Answers the requests; the caller closes it. Defaults to `default_transport`, which the client closes.
        insecure: Whether to use plain http. TLS certificates are always verified.
        user_agent: The User-Agent header. Defaults to that of the transport, or else ``ociwire/VERSION``.
        debug_id: Name of this client in log messages. Defaults to ``client-`` and a number.
        max_manifest_size: Maximum size of a manifest that is read, in bytes, and of the index that is written under a
            referrers tag. Defaults to 4 MiB.

    Raises:
        UsageError: The host is not valid, the user agent could not be sent, or `max_manifest_size` is not a positive
            number.
    """

    def __init__(
        self,
        host: str,
        transport: Transport | None = None,
        *,
        insecure: bool = False,
        user_agent: str | None = None,
        debug_id: str | None = None,
        max_manifest_size: int = MAX_MANIFEST_SIZE,
    ) -> None:
        check_integer("max_manifest_size", max_manifest_size, minimum=1)
        scheme = "http" if insecure else "https"
        origin = Origin.of(f"{scheme}://{check_host(host)}")
        if registry_name(origin.netloc) == DOCKER_HUB:
            origin = Origin.of(f"{scheme}://{_DOCKER_HUB_REGISTRY}")
        self.host = origin.netloc
        if transport is None:
            from ..transport import default_transport  # deferred: a client of another transport does not need it

            self.transport = default_transport(user_agent=user_agent)
        else:
            self.transport = transport
        self._owned = transport is None
        wire = HeadersTransport(self.transport, user_agent=user_agent)
        debug_id = f"client-{next(_CLIENT_NUMBERS)}" if debug_id is None else debug_id
        defaults = RequestInfo(debug_id=debug_id)
        self._sender = RequestSender(origin, wire, defaults, ClientState(), max_manifest_size)

    def with_options(
        self,
        *,
        timeout: float | urllib3.Timeout | _Unset | None = UNSET,
        deadline: float | _Unset | None = UNSET,
        extra: Mapping[str, Any] | None = None,
    ) -> Client:
        """Return a client of the same registry and transport whose requests have other options.

        An option that is not given keeps its value. Closing either client closes both.

        Args:
            timeout: See `RequestInfo.timeout`, in seconds. `None` removes it: the transport's own timeout applies.
            deadline: See `RequestInfo.deadline`: a moment of `time.monotonic`, in seconds. `None` removes it.
            extra: Added to what `RequestInfo.extra` carries to the layers.

        Raises:
            UsageError: The timeout or the deadline is not valid, or `extra` is not a mapping.
        """
        changes: dict[str, Any] = {}
        if not isinstance(timeout, _Unset):
            if timeout is not None:
                resolve_timeout(timeout)  # refused now rather than with the first request
            changes["timeout"] = timeout
        if not isinstance(deadline, _Unset):
            changes["deadline"] = check_deadline(deadline)
        defaults = self._sender.defaults
        if extra is not None:
            if not isinstance(extra, Mapping):
                raise UsageError(f"extra is a mapping, not {type(extra).__name__}")
            changes["extra"] = {**defaults.extra, **extra}
        derived = object.__new__(Client)  # not Client(…): the transport, its ownership and the state are shared
        derived.host, derived.transport, derived._owned = self.host, self.transport, self._owned
        derived._sender = self._sender.with_options(**changes)
        return derived

    def do(self, request: Request, *, scope: Scope | None = None) -> Response:
        """Send a request and return the response, whatever its status.

        Args:
            request: The request. If its URL is a path, scheme and host are the client's. Its info takes precedence over
                the options of the client.
            scope: What a token must grant. Defaults to `RequestInfo.required_scope` of the request.
        """
        return self._checked_sender.do(request, scope=scope)

    # Blobs

    def get_blob(self, repository: str, digest: str) -> BlobReader:
        """Open a blob for reading: ``GET /v2/NAME/blobs/DIGEST`` (specification, "Pulling blobs"; scope: pull).

        The reader verifies the content against `digest`, whatever the headers state. A lost connection is resumed at
        the position where it broke.

        Raises:
            BlobUnknown: The repository has no such blob.
        """
        return blobs.open_blob(self._repository(repository, "get_blob"), Digest(digest))

    def get_blob_range(self, repository: str, digest: str, start: int, stop: int | None = None) -> BlobReader:
        """Open a part of a blob: a GET with a Range header (RFC 9110, section 14; scope: pull).

        A part cannot be verified. If the registry sends the whole blob instead (200), the other bytes are skipped.

        Args:
            repository: The repository's name.
            digest: The blob's digest.
            start: The position of the first byte, counted from 0.
            stop: The position after the last byte. Defaults to the end of the blob. With ``start == stop`` no request
                is sent.

        Raises:
            UsageError: The range is not valid.
            BlobUnknown: The repository has no such blob.
            RangeInvalid: The blob has no byte at `start`.
        """
        check_integer("start of the range", start)
        if stop is not None and check_integer("end of the range", stop) < start:
            raise UsageError(f"invalid range {start} to {stop}: expected start <= stop, where stop is exclusive")
        return blobs.open_blob(self._repository(repository, "get_blob_range"), Digest(digest), start, stop)

    def resolve_blob(self, repository: str, digest: str) -> Descriptor:
        """Get a blob's descriptor: ``HEAD /v2/NAME/blobs/DIGEST`` (specification, "Checking if content exists").

        Needs the scope pull. A GET of the first byte follows where the registry may not support HEAD (400, 403, 404,
        405, 406, 500, 501), or the response has no size or a size of 0. Once the host has answered a HEAD with 200, its
        404 is not confirmed.

        Raises:
            BlobUnknown: The repository has no such blob.
            DigestMismatch: The registry claims another digest of the same algorithm for it.
            ContentError: The response is an HTML page.
        """
        return blobs.resolve_blob(self._repository(repository, "resolve_blob"), Digest(digest))

    def push_blob(self, repository: str, descriptor: Descriptor, content: Any) -> Descriptor:
        """Upload a blob: a POST that opens an upload session, and a PUT (specification, "POST then PUT").

        Needs the scope pull,push. The content is not hashed first: the registry reports a wrong digest. If the PUT
        fails, the client asks the registry what it has. It waits up to ten minutes, or until the deadline, for a
        registry that may still be committing the blob, and sends missing bytes if the content can be read again.

        Args:
            repository: The repository's name.
            descriptor: The blob's descriptor; its size is sent as the Content-Length.
            content: Anything that `Body.of` accepts. Single-use content is not read before the registry accepts the
                request.

        Returns:
            The descriptor that was given.

        Raises:
            UsageError: The content has the wrong type.
            SizeMismatch: The content is longer or shorter than the descriptor states.
            DigestInvalid: The content does not have the descriptor's digest.
            Exception: What reading the content raised, unchanged.
        """
        if not isinstance(descriptor, Descriptor):
            raise UsageError(f"a descriptor is a Descriptor, not {type(descriptor).__name__} (see Descriptor.of)")
        target = self._repository(repository, "push_blob")
        blob_writer.push_blob(target, descriptor.digest, Body.of(content, descriptor.size))
        return descriptor

    def push_blob_chunked(
        self, repository: str, chunk_size: int | None = None, *, algorithm: str = "sha256"
    ) -> BlobWriter:
        """Open an upload and return its writer (specification, "Pushing a blob in chunks"; scope: pull,push).

        Args:
            repository: The repository's name.
            chunk_size: The size of a chunk in bytes. Defaults to 4 MiB, or less if the registry has refused that. It is
                raised to what the registry demands (``OCI-Chunk-Min-Length``).
            algorithm: The hash algorithm of `BlobWriter.commit`: sha256, sha384 or sha512.

        Raises:
            UsageError: The chunk size is not a positive integer, or the algorithm is not one of these.
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
        """Resume an upload, possibly from another process (scope: pull,push).

        Args:
            repository: The repository's name.
            id: `BlobWriter.id` of the writer that was interrupted.
            offset: The number of bytes that the registry has. Defaults to asking the registry (GET).
            chunk_size: As for `push_blob_chunked`.

        Raises:
            UsageError: The offset or the chunk size is not an integer, or the id is not valid.
            BlobUploadUnknown: The upload was committed, cancelled, or dropped by the registry.
        """
        target = self._repository(repository, "push_blob_chunked_resume")
        if chunk_size is not None:
            check_integer("chunk size", chunk_size, minimum=1)
        if offset is not None:
            check_integer("offset", offset)
        if not isinstance(id, str):
            raise UsageError(f"not the id of an upload: {safe_repr(id)}")
        return blob_writer.resume_upload(target, id, offset, chunk_size)

    def mount_blob(self, from_repository: str, to_repository: str, digest: str) -> Descriptor:
        """Mount a blob from another repository: a POST with ``mount=DIGEST&from=NAME``.

        Specification: "Mounting a blob from another repository". Needs pull,push of the target and pull of the source.

        Raises:
            Unsupported: The registry did not mount the blob. An upload that it opened instead was cancelled.
        """
        target, expected = self._repository(to_repository, "mount_blob"), Digest(digest)
        result = uploads.mount_blob(target, expected, from_repository)
        if result.is_mounted:
            return blobs.resolve_blob(target, expected, result.scope)
        if result.session is not None:
            with suppress(OciwireError):  # otherwise the registry drops the session after some time
                uploads.cancel_upload(target, result.session.location)
        raise Unsupported(
            f"the registry did not mount {expected} from {from_repository}: upload it",
            status=result.response.status,
            headers=result.response.headers,
            request=result.response.request,
        )

    def delete_blob(self, repository: str, digest: str) -> None:
        """Delete a blob: ``DELETE /v2/NAME/blobs/DIGEST`` (specification, "Deleting Blobs"; scope: delete).

        Raises:
            BlobUnknown: The repository has no such blob.
            Unsupported: The registry does not support deletion.
        """
        target = self._repository(repository, "delete_blob")
        target.delete(target.blob_url(Digest(digest)), target.delete_scope)

    # Manifests and tags

    def get_manifest(self, repository: str, digest: str) -> BlobReader:
        """Read a manifest: ``GET /v2/NAME/manifests/DIGEST`` (specification, "Pulling manifests"; scope: pull).

        The manifest is read and verified before the reader is returned.

        Raises:
            ManifestUnknown: The repository has no such manifest.
            DigestMismatch: The content has another digest.
            ContentError: It is larger than `max_manifest_size`, its ``mediaType`` contradicts its Content-Type, or it
                could be an index and an image manifest at once.
            Unsupported: It is a Docker schema 1 manifest.
        """
        target, expected = self._repository(repository, "get_manifest"), Digest(digest)
        return self._get_manifest(target, expected, expected)

    def get_tag(self, repository: str, tag: str) -> BlobReader:
        """Read the manifest of a tag: ``GET /v2/NAME/manifests/TAG`` (scope: pull).

        `BlobReader.descriptor` has the digest: that of Docker-Content-Digest, verified, or else the content's.
        Its media type is the Content-Type if that is a manifest type; otherwise the content decides.

        Raises:
            ManifestUnknown: The repository has no such tag.
            DigestMismatch: The content does not have the digest that the registry states.
            ContentError: As for `get_manifest`; or it is an HTML page.
            Unsupported: It is a Docker schema 1 manifest.
        """
        return self._get_manifest(self._repository(repository, "get_tag"), check_tag(tag), None)

    def resolve_manifest(self, repository: str, digest: str) -> Descriptor:
        """Get a manifest's descriptor: ``HEAD /v2/NAME/manifests/DIGEST`` (scope: pull).

        The manifest is read with GET and verified where the registry may not support HEAD (see `resolve_blob`), or does
        not state the size or a manifest type.

        Raises:
            ManifestUnknown: The repository has no such manifest.
            DigestMismatch: The registry claims another digest of the same algorithm for it.
        """
        target, expected = self._repository(repository, "resolve_manifest"), Digest(digest)
        return manifests.resolve_manifest(target, expected, expected)

    def resolve_tag(self, repository: str, tag: str) -> Descriptor:
        """Get the descriptor of the manifest of a tag: ``HEAD /v2/NAME/manifests/TAG`` (scope: pull).

        The manifest is read with GET and hashed if the registry does not state the digest, and as for
        `resolve_manifest`.

        Raises:
            ManifestUnknown: The repository has no such tag.
        """
        return manifests.resolve_manifest(self._repository(repository, "resolve_tag"), check_tag(tag), None)

    def push_manifest(
        self,
        repository: str,
        content: bytes,
        media_type: str,
        *,
        digest: str | None = None,
        tags: Iterable[str] = (),
    ) -> Descriptor:
        """Push a manifest (specification, "Pushing Manifests"; scope: pull,push).

        Without tags it is a PUT by digest; with one, a PUT by tag; with several, a PUT by digest with ``tag=`` for
        each, and one more PUT for each tag that the response does not list (``OCI-Tag``). If the manifest has a subject
        and the registry has no referrers API, the referrers tag is updated.

        Args:
            repository: The repository's name.
            content: The manifest, which is sent unchanged.
            media_type: Its media type.
            digest: Its digest. Defaults to the sha256 of the content.
            tags: The tags to store it under.

        Raises:
            UsageError: The content has another digest, or states another media type.
            ManifestInvalid: The registry refuses the manifest.
            ManifestBlobUnknown: It refers to a blob that the repository does not have.
            ReferrersUpdateError: It was stored, but the referrers tag was not updated.
        """
        target = self._repository(repository, "push_manifest")
        if not isinstance(tags, Iterable):
            raise UsageError(f"tags are strings, not {type(tags).__name__}")
        unique_tags = list(dict.fromkeys([tags] if isinstance(tags, str) else tags))
        for tag in unique_tags:
            check_tag(tag)
        if not isinstance(content, (bytes, bytearray, memoryview)):
            raise UsageError(f"a manifest is bytes, not {type(content).__name__}")
        content = bytes(content)
        descriptor = manifests.build_descriptor(content, media_type, digest)
        referrers.push_manifest(target, content, descriptor, unique_tags)
        return descriptor

    def delete_manifest(self, repository: str, digest: str) -> None:
        """Delete a manifest: ``DELETE /v2/NAME/manifests/DIGEST`` (specification, "Deleting Manifests"; scope: delete).

        The manifest is read first (scope: pull). If it has a subject and the registry has no referrers API, its entry
        is removed from the referrers tag before, and added again if the registry refuses the deletion.

        Raises:
            ManifestUnknown: The repository has no such manifest.
            Unsupported: The registry does not support deletion.
        """
        referrers.delete_manifest(self._repository(repository, "delete_manifest"), Digest(digest))

    def delete_tag(self, repository: str, tag: str) -> None:
        """Delete a tag, but not its manifest: ``DELETE /v2/NAME/manifests/TAG`` ("Deleting tags"; scope: delete).

        Raises:
            ManifestUnknown: The repository has no such tag.
            Unsupported: The registry does not support the deletion of tags.
        """
        target = self._repository(repository, "delete_tag")
        target.delete(target.manifest_url(check_tag(tag)), target.delete_scope)

    # Lists

    def tags(self, repository: str, *, start_after: str | None = None, limit: int | None = None) -> Iterator[str]:
        """Iterate over the tags of a repository: ``GET /v2/NAME/tags/list`` ("Listing Tags"; scope: pull).

        Pages are requested as they are needed.

        Args:
            repository: The repository's name.
            start_after: Begin after this tag, in the registry's order.
            limit: Maximum number of tags. With 0 no request is sent.

        Raises:
            UsageError: The limit is not an integer.
            NameUnknown: There is no such repository.
            ProtocolError: The pages form a loop, lead to another origin, or are not valid. An entry that is not a
                string is skipped with a log line.
            ContentError: The response is an HTML page.
        """
        target = self._repository(repository, "tags")

        def send(url: str) -> Response:
            return target.send("GET", url, target.pull_scope, ok=(200,))

        return pagination.iter_names(send, target.tags_url(), "tags", start_after, limit)

    def repositories(self, *, start_after: str | None = None, limit: int | None = None) -> Iterator[str]:
        """Iterate over the repositories of a registry: ``GET /v2/_catalog`` (scope: ``registry:catalog:*``).

        Args:
            start_after: Begin after this repository, in the registry's order.
            limit: Maximum number of repositories. With 0 no request is sent.

        Raises:
            UsageError: The limit is not an integer.
            Unsupported: The registry has no catalog (404, 405, 501 or the code UNSUPPORTED), as most public ones.
            ProtocolError: The pages form a loop, lead to another origin, or are not valid.
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
                    f"{sender.origin.netloc} has no catalog of its repositories (GET {_CATALOG_URL}): use the"
                    " registry's own API or web page to list them",
                    status=error.status,
                    code=error.code,
                    detail=error.detail,
                    errors=error.errors,
                    headers=error.headers,
                    body=error.body,
                    request=error.request,
                ) from error

        return pagination.iter_names(send, _CATALOG_URL, "repositories", start_after, limit)

    def referrers(self, repository: str, digest: str, *, artifact_type: str | None = None) -> Iterator[Descriptor]:
        """Iterate over the referrers of a manifest: ``GET /v2/NAME/referrers/DIGEST`` (scope: pull).

        Specification: "Listing Referrers". If the registry has no such API, the referrers tag is read. These responses
        mean that it has none: 400, 404, 405, 406, 501, a redirect that cannot be followed, HTML, and JSON without
        ``manifests``. If the manifest has no referrers, or the tag does not name an index of referrers, the result is
        empty.

        An entry without a valid digest is skipped with a log line. Sizes may be wrong; a missing or invalid size is
        read as 0.

        Args:
            repository: The repository's name.
            digest: The digest of the subject.
            artifact_type: Only referrers of this type. Filtered by the client if the registry does not filter.

        Raises:
            ProtocolError: The response is not an index, or its pages form a loop or lead to another origin.
            ContentError: The referrers tag names something that is not JSON, such as an HTML page.
        """
        target = self._repository(repository, "referrers")
        if artifact_type is not None and not is_media_type(artifact_type):
            raise UsageError(f"not an artifact type: {safe_repr(artifact_type, 200)} (it reads type/subtype)")
        return referrers.iter_referrers(target, Digest(digest), artifact_type)

    def close(self) -> None:
        """Close the client, and the transport if the client made it. Idempotent."""
        self._sender.state.closed = True
        if self._owned:
            self.transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client {self._sender.origin}>"

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
