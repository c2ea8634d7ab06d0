"""One method for each operation of a registry: which request it is, which scope it needs, what its answer means.

Follows the OCI distribution specification 1.1. A client knows nothing of its transport but that it is one.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, final
from urllib.parse import urlencode

import urllib3

from .._arguments import check_deadline, check_integer, resolve_timeout, show
from .._http.body import Body
from .._http.messages import Request, RequestInfo, Response
from .._http.urls import Origin
from .._oci.descriptor import Descriptor, is_media_type
from .._oci.digest import Digest, new_hasher
from .._oci.host import check_host
from .._oci.reference import DOCKER_HUB, check_repository, check_tag, registry_name
from .._oci.scope import Scope
from ..errors import OciwireError, RegistryError, Unsupported, UsageError
from ..transport import HeadersTransport, Transport, default_transport
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
from .session import MAX_MANIFEST_SIZE, Learnt, Life, Session

__all__ = ["Client"]

_NUMBERS = itertools.count(1)
_DOCKER_HUB_REGISTRY = "registry-1.docker.io"


@final
class Client:
    """A registry by way of a transport, with a method for each of its operations.

    May be shared by threads; make it in the child after a fork. Names, tags, digests and media types are checked at the
    call, before anything is sent. Besides what each method lists, all of them raise `UsageError` for a closed client,
    `TransportError` where there is no usable answer, and `RegistryError` (see `ociwire.errors`) where the registry says
    no.

    Args:
        host: ``host`` or ``host:port``; ``docker.io`` means ``registry-1.docker.io``.
        transport: What answers; the caller closes it. None is `default_transport`, which the client closes.
        insecure: Speak plain http. Never means TLS without verification.
        user_agent: The User-Agent; None is ``ociwire/VERSION``.
        debug_id: How the client is called in logs; None is ``client-`` and a number.
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
        self.transport = default_transport(user_agent=user_agent) if transport is None else transport
        self._owned = transport is None
        wire = HeadersTransport(self.transport, user_agent=user_agent)
        debug_id = f"client-{next(_NUMBERS)}" if debug_id is None else debug_id
        self._life = Life()
        self._opened = Session(origin, wire, RequestInfo(debug_id=debug_id), Learnt(), self._life, max_manifest_size)

    def with_options(
        self,
        *,
        timeout: float | urllib3.Timeout | None = None,
        deadline: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Client:
        """A client of the same registry through the same transport, whose requests have other options.

        What is None stays as it is. Closing either client closes both.

        Args:
            timeout: See `RequestInfo.timeout`.
            deadline: See `RequestInfo.deadline`: a moment of `time.monotonic`, in seconds.
            extra: Carried to the layers in `RequestInfo.extra`, beside what is carried already.

        Raises:
            UsageError: The timeout or the deadline is not valid, or extra is no mapping.
        """
        given = {"timeout": timeout, "deadline": check_deadline(deadline)}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if timeout is not None:
            resolve_timeout(timeout)  # refused now rather than with the first request
        if extra is not None:
            if not isinstance(extra, Mapping):
                raise UsageError(f"extra is a mapping, not {type(extra).__name__}")
            changes["extra"] = {**self._opened.defaults.extra, **extra}
        other = object.__new__(Client)
        other.host, other.transport = self.host, self.transport
        other._owned, other._life = self._owned, self._life
        other._opened = self._opened.with_defaults(**changes)
        return other

    def do(self, request: Request, *, scope: Scope | None = None) -> Response:
        """Send any request and return its answer, whatever its status.

        Args:
            request: Where its URL is a path, scheme and host are the client's. What its info says wins.
            scope: What a token must grant; None leaves it to the request's info.
        """
        return self._session.do(request, scope=scope)

    # Blobs

    def get_blob(self, repository: str, digest: str) -> BlobReader:
        """Open a blob for reading: ``GET /v2/NAME/blobs/DIGEST`` (specification, "Pulling blobs"; scope: pull).

        The reader verifies what it reads against `digest`, whatever the headers say. A connection that is lost is taken
        up again where it broke.

        Raises:
            BlobUnknown: The repository has no such blob.
        """
        return blobs.open_blob(self._session, "get_blob", check_repository(repository), Digest(digest), 0, None)

    def get_blob_range(self, repository: str, digest: str, start: int, stop: int | None = None) -> BlobReader:
        """Open a part of a blob: the same with ``Range`` (RFC 9110, section 14; scope: pull).

        A part cannot be verified. Where the registry sends the whole instead (200), it is cut to the part.

        Args:
            repository: The repository's name.
            digest: The blob's.
            start: The first byte, counted from 0.
            stop: The byte before which to end; None is the end of the blob. With ``start == stop`` nothing is sent.

        Raises:
            UsageError: The range is not valid.
            BlobUnknown: The repository has no such blob.
            RangeInvalid: The blob has no byte at `start`.
        """
        check_integer("start of the range", start)
        if stop is not None and check_integer("end of the range", stop) < start:
            raise UsageError(f"invalid range {start} to {stop}: expected start <= stop, where stop is exclusive")
        name, wanted = check_repository(repository), Digest(digest)
        return blobs.open_blob(self._session, "get_blob_range", name, wanted, start, stop)

    def resolve_blob(self, repository: str, digest: str) -> Descriptor:
        """A blob's descriptor: ``HEAD /v2/NAME/blobs/DIGEST`` (specification, "Checking if content exists").

        Needs the scope pull. A GET of the first byte follows where the registry may not support HEAD (400, 403, 404,
        405, 406, 500, 501), or the answer has no size or a size of 0. A 404 is believed once the host has answered a
        HEAD with 200.

        Raises:
            BlobUnknown: The repository has no such blob.
            DigestMismatch: The registry claims another digest of the same algorithm for it.
            ContentError: The response is an HTML page.
        """
        scope = Scope.repository(check_repository(repository), "pull")
        return blobs.resolve_blob(self._session, "resolve_blob", repository, Digest(digest), scope)

    def push_blob(self, repository: str, descriptor: Descriptor, content: Any) -> Descriptor:
        """Upload a blob: a POST that opens the upload, and a PUT of the whole (specification, "POST then PUT").

        Needs the scope pull,push. The content is not hashed first: the registry reports a wrong digest. If the PUT
        fails, the client asks the registry what it has. It waits up to ten minutes, or until the deadline, for a
        registry that may still be committing the blob, and sends missing bytes if the content can be read again.

        Args:
            repository: The repository's name.
            descriptor: What it is; its size is sent as the Content-Length.
            content: What `Body.of` takes. One-shot content is not pulled before the registry has agreed to take it.

        Returns:
            The descriptor that was given.

        Raises:
            UsageError: The content is no bytes.
            SizeMismatch: The content is longer or shorter than the descriptor says.
            DigestInvalid: The content does not have the descriptor's digest.
            Exception: Whatever the content raised, as it was raised.
        """
        if not isinstance(descriptor, Descriptor):
            raise UsageError(f"a descriptor is a Descriptor, not {type(descriptor).__name__} (see Descriptor.of)")
        check_repository(repository)
        body = Body.of(content, descriptor.size)
        blob_writer.push(self._session, repository, descriptor.digest, body)
        return descriptor

    def push_blob_chunked(
        self, repository: str, chunk_size: int | None = None, *, algorithm: str = "sha256"
    ) -> BlobWriter:
        """Begin an upload that is written to (specification, "Pushing a blob in chunks"; scope: pull,push).

        Args:
            repository: The repository's name.
            chunk_size: How many bytes are sent at a time; None is 4 MiB, or what this registry was seen to take. At
                least what the registry demands (``OCI-Chunk-Min-Length``).
            algorithm: What `BlobWriter.commit` hashes with: sha256, sha384 or sha512.

        Raises:
            UsageError: The chunk size is no number, or the algorithm none of these.
        """
        check_repository(repository)
        new_hasher(algorithm)
        if chunk_size is not None:
            check_integer("chunk size", chunk_size, minimum=1)
        return blob_writer.begin(self._session, repository, chunk_size, algorithm)

    def push_blob_chunked_resume(
        self,
        repository: str,
        id: str,  # noqa: A002 - what the reference calls it
        offset: int | None = None,
        chunk_size: int | None = None,
    ) -> BlobWriter:
        """Go on with an upload, of this process or of another (scope: pull,push).

        Args:
            repository: The repository's name.
            id: `BlobWriter.id` of the writer that began it.
            offset: How many bytes the registry has; None is to ask it (GET).
            chunk_size: As for `push_blob_chunked`.

        Raises:
            UsageError: The offset or the chunk size is no number, or the id none.
            BlobUploadUnknown: The upload is over, or was given up by the registry.
        """
        check_repository(repository)
        if chunk_size is not None:
            check_integer("chunk size", chunk_size, minimum=1)
        if offset is not None:
            check_integer("offset", offset)
        if not isinstance(id, str):
            raise UsageError(f"not the id of an upload: {show(id)}")
        return blob_writer.resume(self._session, repository, id, offset, chunk_size)

    def mount_blob(self, from_repository: str, to_repository: str, digest: str) -> Descriptor:
        """Have a blob of one repository in another, by a POST with ``mount=DIGEST&from=NAME``.

        Specification: "Mounting a blob from another repository". Scope: pull,push of the target, then pull of the
        source.

        Raises:
            Unsupported: The registry did not mount it. If it opened an upload instead, that has been cancelled.
        """
        wanted, session = Digest(digest), self._session
        check_repository(to_repository)
        check_repository(from_repository)
        scope = Scope.repository(to_repository, "pull", "push") | Scope.repository(from_repository, "pull")
        query = urlencode({"mount": wanted, "from": from_repository}, safe=":/")
        url = f"/v2/{to_repository}/blobs/uploads/?{query}"
        response = session.send("mount_blob", "POST", url, scope, ok=uploads.OPENED, idempotent=True)
        response.drain()
        if response.status != 201:
            if response.status == 202 or uploads.opens_upload(response, wanted):
                with suppress(OciwireError):  # else the registry gives it up in its own time
                    uploads.cancel(session, "mount_blob", to_repository, session.location(response))
            raise Unsupported(
                f"the registry did not mount {wanted} from {from_repository}: upload it",
                status=response.status,
                headers=response.headers,
                request=response.request,
            )
        return blobs.resolve_blob(session, "mount_blob", to_repository, wanted, scope)

    def delete_blob(self, repository: str, digest: str) -> None:
        """Delete a blob: ``DELETE /v2/NAME/blobs/DIGEST`` (specification, "Deleting Blobs"; scope: delete).

        Raises:
            BlobUnknown: The repository has no such blob.
            Unsupported: The registry does not delete.
        """
        self._delete("delete_blob", repository, blobs.blob_path(check_repository(repository), Digest(digest)))

    # Manifests and tags

    def get_manifest(self, repository: str, digest: str) -> BlobReader:
        """Read a manifest: ``GET /v2/NAME/manifests/DIGEST`` (specification, "Pulling manifests"; scope: pull).

        Manifests are small: it is read and verified whole before the reader is returned.

        Raises:
            ManifestUnknown: The repository has no such manifest.
            DigestMismatch: The content is another.
            ContentError: It is larger than `max_manifest_size`, its ``mediaType`` contradicts its Content-Type, or it
                could be an index and an image manifest at once.
            Unsupported: It is a Docker schema 1 manifest.
        """
        wanted = Digest(digest)
        wanted.hasher()
        return self._read_manifest("get_manifest", repository, wanted, wanted)

    def get_tag(self, repository: str, tag: str) -> BlobReader:
        """Read the manifest that a tag names: ``GET /v2/NAME/manifests/TAG`` (scope: pull).

        `BlobReader.descriptor` has the digest: the registry's (Docker-Content-Digest), verified, else the content's.
        Its media type is the Content-Type if that is a manifest type; otherwise the content decides.

        Raises:
            ManifestUnknown: The repository has no such tag.
            DigestMismatch: The content is another than the registry says.
            ContentError: As for `get_manifest`; or it is an HTML page.
            Unsupported: It is a Docker schema 1 manifest.
        """
        return self._read_manifest("get_tag", repository, check_tag(tag), None)

    def resolve_manifest(self, repository: str, digest: str) -> Descriptor:
        """A manifest's descriptor: ``HEAD /v2/NAME/manifests/DIGEST`` (scope: pull).

        The manifest is read with GET and verified where the registry may not support HEAD (see `resolve_blob`), or does
        not state the size or a manifest type.

        Raises:
            ManifestUnknown: The repository has no such manifest.
            DigestMismatch: The registry claims another digest of the same algorithm for it.
        """
        wanted = Digest(digest)
        path, scope = _manifest(repository, wanted), Scope.repository(repository, "pull")
        return manifests.resolve(self._session, "resolve_manifest", path, scope, wanted)

    def resolve_tag(self, repository: str, tag: str) -> Descriptor:
        """The descriptor of the manifest that a tag names: ``HEAD /v2/NAME/manifests/TAG`` (scope: pull).

        The manifest is read with GET and hashed where the registry does not tell the digest, and as for
        `resolve_manifest`.

        Raises:
            ManifestUnknown: The repository has no such tag.
        """
        path, scope = _manifest(repository, check_tag(tag)), Scope.repository(repository, "pull")
        return manifests.resolve(self._session, "resolve_tag", path, scope, None)

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
        each, and one more for each that the registry has not taken from it (``OCI-Tag``). Where the manifest has a
        subject and the registry has no referrers API, the referrers tag is brought up to date.

        Args:
            repository: The repository's name.
            content: The manifest, to the byte.
            media_type: Its media type.
            digest: Its digest; None is the sha256 of the content.
            tags: What it is to be called.

        Raises:
            UsageError: The content is of another digest, or says that it is of another media type.
            ManifestInvalid: The registry does not take it.
            ManifestBlobUnknown: It names a blob that the repository does not have.
            ReferrersUpdateError: It was stored, but the referrers tag was not updated.
        """
        if not isinstance(tags, Iterable):
            raise UsageError(f"tags are strings, not {type(tags).__name__}")
        if not isinstance(content, (bytes, bytearray, memoryview)):
            raise UsageError(f"a manifest is bytes, not {type(content).__name__}")
        content = bytes(content)
        descriptor = manifests.described(content, media_type, digest)
        references = list(dict.fromkeys(check_tag(tag) for tag in ([tags] if isinstance(tags, str) else tags)))
        self._put_manifest(check_repository(repository), content, descriptor, references)
        return descriptor

    def _put_manifest(self, repository: str, content: bytes, descriptor: Descriptor, references: list[str]) -> None:
        """Push a manifest under tags that were checked. Copied manifests may have a ``mediaType`` that is not valid."""
        session, scope = self._session, Scope.repository(repository, "pull", "push")
        several = len(references) > 1
        first = _manifest(repository, references[0] if len(references) == 1 else descriptor.digest)
        query = f"?{urlencode([('tag', tag) for tag in references])}" if several else ""
        taken = manifests.put(session, first + query, scope, descriptor, content)
        named = {tag.strip() for value in taken.headers.get_all("oci-tag") for tag in value.split(",")}
        for tag in references if several else ():
            if tag not in named:
                manifests.put(session, _manifest(repository, tag), scope, descriptor, content)
        subject = referrers.subject_of(content)
        if subject is not None and "oci-subject" not in taken.headers:
            referrers.enter(session, repository, subject, content, descriptor)

    def delete_manifest(self, repository: str, digest: str) -> None:
        """Delete a manifest: ``DELETE /v2/NAME/manifests/DIGEST`` (specification, "Deleting Manifests"; scope: delete).

        It is read before (scope: pull): where it has a subject and the registry has no referrers API, its entry is
        taken out of the referrers tag first, and put back if the registry does not delete.

        Raises:
            ManifestUnknown: The repository has no such manifest.
            Unsupported: The registry does not delete.
        """
        referrers.delete_manifest(self._session, check_repository(repository), Digest(digest))

    def delete_tag(self, repository: str, tag: str) -> None:
        """Delete a tag, not what it names: ``DELETE /v2/NAME/manifests/TAG`` ("Deleting tags"; scope: delete).

        Raises:
            ManifestUnknown: The repository has no such tag.
            Unsupported: The registry does not delete tags.
        """
        self._delete("delete_tag", repository, _manifest(repository, check_tag(tag)))

    # Lists

    def tags(self, repository: str, *, start_after: str | None = None, limit: int | None = None) -> Iterator[str]:
        """The tags of a repository: ``GET /v2/NAME/tags/list``, page by page ("Listing Tags"; scope: pull).

        Args:
            repository: The repository's name.
            start_after: Begin after this tag, in the registry's order.
            limit: The most tags in all; 0 sends nothing.

        Raises:
            UsageError: The limit is no number.
            NameUnknown: There is no such repository.
            ProtocolError: The pages form a loop, lead to another origin, or are not valid. An entry that is not a
                string is skipped with a log line.
            ContentError: The response is an HTML page.
        """
        path = f"/v2/{check_repository(repository)}/tags/list"
        return self._list("tags", path, "tags", Scope.repository(repository, "pull"), start_after, limit)

    def repositories(self, *, start_after: str | None = None, limit: int | None = None) -> Iterator[str]:
        """The repositories of a registry that has a catalog: ``GET /v2/_catalog`` (scope: ``registry:catalog:*``).

        Args:
            start_after: Begin after this repository, in the registry's order.
            limit: The most repositories in all; 0 sends nothing.

        Raises:
            UsageError: The limit is no number.
            Unsupported: The registry has no catalog (404, 405, 501 or the code UNSUPPORTED), as most public ones.
            ProtocolError: The pages go in a circle, lead elsewhere, or are not valid.
            ContentError: The response is an HTML page.
        """
        return self._list("repositories", "/v2/_catalog", "repositories", Scope.CATALOG, start_after, limit)

    def referrers(self, repository: str, digest: str, *, artifact_type: str | None = None) -> Iterator[Descriptor]:
        """What refers to a manifest: ``GET /v2/NAME/referrers/DIGEST`` ("Listing Referrers"; scope: pull).

        Where the registry has no such API, the referrers tag is read. These answers mean that it has none: 400, 404,
        405, 406, 501, a redirect that cannot be followed, HTML, and JSON without ``manifests``. Where nothing refers to
        the manifest, or the tag does not name an index of referrers, the result is empty.

        An entry without a valid digest is skipped with a log line. Sizes may be wrong; a missing or invalid size is
        read as 0.

        Args:
            repository: The repository's name.
            digest: The subject's.
            artifact_type: Only those of this type; filtered here where the registry does not.

        Raises:
            ProtocolError: What came is no index, or its pages go in a circle or lead elsewhere.
            ContentError: The referrers tag names something that is not JSON, such as an HTML page.
        """
        check_repository(repository)
        if artifact_type is not None and not is_media_type(artifact_type):
            raise UsageError(f"not an artifact type: {show(artifact_type, 200)} (it reads type/subtype)")
        return referrers.listed(self._session, repository, Digest(digest), artifact_type)

    def close(self) -> None:
        """Refuse further calls; close the transport if the client made it. May be called again."""
        self._life.over = True
        if self._owned:
            self.transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client {self._opened.origin}>"

    @property
    def _session(self) -> Session:
        self._life.check()
        return self._opened

    def _read_manifest(self, operation: str, repository: str, reference: str, digest: Digest | None) -> BlobReader:
        path, scope = _manifest(repository, reference), Scope.repository(repository, "pull")
        found = manifests.fetch(self._session, operation, path, scope, digest)
        return BlobReader(found.response.replace(body=found.content), found.descriptor)

    def _delete(self, operation: str, repository: str, path: str) -> None:
        scope = Scope.repository(repository, "delete")
        self._session.send(operation, "DELETE", path, scope, ok=(200, 202, 204)).drain()

    def _list(
        self, operation: str, path: str, key: str, scope: Scope, start_after: str | None, limit: int | None
    ) -> Iterator[str]:
        if limit is not None:
            # `islice` takes no larger number, and no list is longer.
            limit = check_integer("limit", min(limit, sys.maxsize) if type(limit) is int else limit)
        session = self._session

        def send(url: str) -> Response:
            try:
                return session.send(operation, "GET", url, scope, ok=(200,))
            except RegistryError as error:
                is_missing = error.status in (404, 405, 501) or isinstance(error, Unsupported)
                if key != "repositories" or not is_missing:
                    raise
                raise Unsupported(
                    f"{session.origin.netloc} has no catalog of its repositories (GET {path}): use the registry's own"
                    " API or web page to list them",
                    status=error.status,
                    code=error.code,
                    detail=error.detail,
                    errors=error.errors,
                    headers=error.headers,
                    body=error.body,
                    request=error.request,
                ) from error

        return pagination.names(send, path, key, start_after, limit)


def _manifest(repository: str, reference: str) -> str:
    return f"/v2/{check_repository(repository)}/manifests/{reference}"
