"""Referrers of a manifest, and the referrers tag for registries without the referrers API.

They are specified by the OCI distribution specification, "Listing Referrers", "Referrers Tag Schema" and "Pushing
Manifests with Subject". Manifests are also pushed and deleted here, because both update the referrers tag.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from .._http.body import Body
from .._http.headers import content_type
from .._http.messages import Request, Response, redactor_of
from .._http.urls import Origin
from .._oci.descriptor import Descriptor, parse_media_type
from .._oci.digest import Digest
from .._oci.manifest import (
    IndexText,
    dump_json,
    is_index,
    parse_json_object,
    parse_manifest,
    parse_referrer,
    subject_digest,
    to_referrer_entry,
)
from .._oci.scope import Scope
from ..errors import (
    AuthError,
    ContentError,
    Denied,
    ManifestBlobUnknown,
    NotFound,
    OciwireError,
    ProtocolError,
    RedirectError,
    ReferrersUpdateError,
    RegistryError,
    TransportError,
    Unauthorized,
    Unsupported,
    UsageError,
)
from ..media_types import INDEX_TYPES, OCI_INDEX
from .error_mapping import is_html_body, is_transient
from .manifests import ACCEPT, ReceivedManifest, fetch_manifest, is_stored, put_manifest
from .pagination import MAX_PAGE_SIZE, iter_pages
from .repository import Repository
from .request_sender import read_with_retry

__all__ = ["delete_manifest", "iter_referrers", "push_manifest"]

_LOG = logging.getLogger("ociwire.client")
_MAX_ATTEMPTS = 5
# Statuses with which registries without the referrers API respond to its path.
_NO_API_STATUSES = frozenset({400, 404, 405, 406, 501})
_EMPTY_INDEX = f'{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[]}}'.encode()


class _NoReferrersAPI(Exception):
    """The registry has no referrers API. The referrers tag must be used instead."""


def iter_referrers(repository: Repository, digest: Digest, artifact_type: str | None) -> Iterator[Descriptor]:
    """Yield the referrers of the manifest with a digest; see `Client.referrers`.

    Raises:
        ProtocolError: The response is not an index.
        ContentError: There is no referrers API, and the content under the referrers tag is not a JSON object.
        RegistryError: The registry responded with an error.
        TransportError: No usable response was received.
    """
    first_url = repository.referrers_url(digest, artifact_type)

    def send(url: str) -> Response:
        if url == first_url:
            return _request_api(repository, url)
        return repository.send("GET", url, repository.pull_scope, ok=(200,), headers={"Accept": OCI_INDEX})

    try:
        for page, response in iter_pages(send, first_url, "manifests"):
            is_filtered = "artifactType" in response.headers.get("oci-filters-applied", "")
            yield from _filter_by_type(_read_entries(page, response.request), None if is_filtered else artifact_type)
        return
    except _NoReferrersAPI:
        pass
    try:
        manifest = _read_tag_index(repository, digest, repository.pull_scope)
    except Unsupported as error:
        if error.status:
            raise
        return  # the tag references a Docker schema 1 manifest, not an index
    if manifest is not None and _is_referrers_index(manifest, digest):
        entries = _read_entries(parse_manifest(manifest.content), manifest.response.request)
        yield from _filter_by_type(entries, artifact_type)


def _request_api(repository: Repository, url: str) -> Response:
    """GET a list of referrers from the referrers API, and read the body of the response into memory.

    Raises:
        _NoReferrersAPI: The registry does not have the API. It may respond with an error, a redirect that cannot be
            followed, or a body that is not an index, such as an HTML page.
    """

    def send() -> Response:
        return repository.send("GET", url, repository.pull_scope, ok=(200,), headers={"Accept": OCI_INDEX})

    try:
        response, body = read_with_retry(send, limit=MAX_PAGE_SIZE)
    except RegistryError as error:
        is_missing = error.status in _NO_API_STATUSES or 300 <= error.status < 400 or isinstance(error, Unsupported)
        if is_missing or _is_login_page(repository, error):
            raise _NoReferrersAPI from None
        raise
    except RedirectError:
        raise _NoReferrersAPI from None
    # Gateways respond to unknown paths with `OK`, `[]`, `{}` or an empty body. Invalid JSON that is labelled as an
    # index remains an error. To avoid parsing a large body twice, it is parsed here only if it has no "manifests".
    is_labelled = content_type(response.headers) in INDEX_TYPES
    is_not_index = b'"manifests"' not in body and not (is_labelled and parse_json_object(body) is None)
    if is_not_index or is_html_body(response, body):
        raise _NoReferrersAPI
    return response.replace(body=body)


def _is_login_page(repository: Repository, error: RegistryError) -> bool:
    """Return whether an error is a cross-origin redirect to an HTML login page (401, 403)."""
    if error.request is None or error.status not in (401, 403):
        return False
    if Origin.of(error.request.url) == repository.sender.origin:
        return False
    return is_html_body(Response(error.status, error.headers or ()), error.body)


def push_manifest(repository: Repository, content: bytes, descriptor: Descriptor, tags: list[str]) -> None:
    """Push a manifest under valid tags, and update the referrers tag of its subject if necessary.

    See `Client.push_manifest`. The ``mediaType`` of the manifest is not checked.

    Raises:
        ReferrersUpdateError: The manifest was stored, but the referrers tag was not updated.
        RegistryError: The registry responded with an error.
        TransportError: No usable response was received.
    """
    # If a manifest is put by tag, the registry stores it under its sha256 digest. If the descriptor has a digest of
    # another algorithm, the manifest must be put by digest to be stored under that digest.
    by_digest = len(tags) != 1 or descriptor.digest.algorithm != "sha256"
    reference = descriptor.digest if by_digest else tags[0]
    response = put_manifest(repository, reference, content, descriptor, tags if by_digest else [])
    if by_digest:
        # Registries that support ``tag=`` list the stored tags in OCI-Tag; others ignore the parameter.
        accepted = {tag.strip() for value in response.headers.get_all("oci-tag") for tag in value.split(",")}
        for tag in tags:
            if tag not in accepted:
                put_manifest(repository, tag, content, descriptor, [])
    subject = subject_digest(content)
    # OCI-Subject in the response means that the registry has the referrers API and has processed the subject.
    if subject is not None and "oci-subject" not in response.headers:
        add_entry(repository, subject, content, descriptor)


def add_entry(repository: Repository, subject: Digest, content: bytes, descriptor: Descriptor) -> None:
    """Add a stored manifest to the index under the referrers tag of its subject; see `update_tag`.

    Raises:
        ReferrersUpdateError: The registry responded with an error, or the tag must not be replaced.
        TransportError: No usable response was received.
    """
    entry = to_referrer_entry(content, descriptor)

    def change(entries: list[_Entry]) -> list[_Entry]:
        is_present = any(existing.digest == entry.digest for existing in entries)
        return entries if is_present else [*entries, _Entry(entry.digest, dump_json(entry.to_dict()))]

    try:
        update_tag(repository, subject, change)
    except TransportError:
        raise
    except (RegistryError, ContentError, AuthError) as error:
        raise ReferrersUpdateError(
            f"the manifest {entry.digest} was stored, but the referrers tag of its subject {subject} was not updated:"
            f" {error}",
            descriptor=descriptor,
        ) from error


def delete_manifest(repository: Repository, digest: Digest) -> None:
    """Delete a manifest, and its entry in the referrers tag of its subject; see `Client.delete_manifest`.

    The entry is removed first, because some registries refuse to store an index that references a missing manifest, and
    because the subject cannot be read once the manifest is deleted. If deleting the manifest then fails, call this
    function again. If the credentials do not permit writing the tag, the manifest is deleted nevertheless, and the
    error is raised afterwards.
    """
    manifest = _read_to_delete(repository, digest)
    subject = None if manifest is None else subject_digest(manifest.content)
    refusal: OciwireError | None = None
    is_removed = False
    if subject is not None:
        try:
            is_removed = not _has_api(repository, subject) and update_tag(
                repository, subject, lambda entries: [entry for entry in entries if entry.digest != digest]
            )
        except (AuthError, Denied, Unauthorized) as error:
            refusal = error
    try:
        repository.delete(repository.manifest_url(digest), repository.delete_scope)
    except NotFound:
        # If the manifest was read before the DELETE, an earlier attempt of the DELETE probably succeeded, but its
        # response was lost.
        if manifest is None:
            raise
    except RegistryError:
        if manifest is not None and subject is not None and is_removed:
            with suppress(OciwireError):  # the error of the DELETE is raised instead
                add_entry(repository, subject, manifest.content, manifest.descriptor)
        raise
    if refusal is not None:
        raise refusal


def _read_to_delete(repository: Repository, digest: Digest) -> ReceivedManifest | None:
    """Return a manifest that is about to be deleted; `None` if it cannot be read, in which case the DELETE fails."""
    for attempts_left in (1, 0):
        try:
            return fetch_manifest(repository, digest, digest)
        except ContentError:
            if not attempts_left:
                return None
        except RegistryError as error:
            if is_transient(error) and error.status != 500:  # the registry is temporarily unavailable
                raise
            return None
        except (AuthError, UsageError):
            return None
    return None


def _has_api(repository: Repository, subject: Digest) -> bool:
    """Return whether the registry has the referrers API."""
    try:
        _request_api(repository, repository.referrers_url(subject))
    except _NoReferrersAPI:
        return False
    return True


class _Entry(NamedTuple):
    """Entry of the index under a referrers tag.

    Attributes:
        digest: Digest of the referrer; `None` if it is invalid.
        text: JSON text of the entry, unchanged.
    """

    digest: Digest | None
    text: str


def update_tag(repository: Repository, subject: Digest, change: Callable[[list[_Entry]], list[_Entry]]) -> bool:
    """Update the index under the referrers tag of a subject, and retry if another client updates the tag concurrently.

    Remaining entries and all other fields of the index are kept byte for byte.

    Args:
        repository: The repository.
        subject: Digest of the subject.
        change: Function that returns the new entries, given the current ones. If both are equal, nothing is written.

    Returns:
        Whether the tag was written.

    Raises:
        ContentError: The tag does not reference an index of referrers, and is not replaced; or the new index would be
            larger than `Client(max_manifest_size=)`.
        RegistryError: The registry responded with an error, such as 412 after five concurrent updates.
        TransportError: No usable response was received.
    """
    missing: set[Digest | None] = set()
    for attempts_left in reversed(range(_MAX_ATTEMPTS)):
        manifest = _read_tag_index(repository, subject, repository.push_scope)
        if manifest is not None:
            if not _is_referrers_index(manifest, subject) and not change([]):
                return False  # without an index, there are no entries to remove
            _check_replaceable(manifest, subject)
        index = IndexText.split(_EMPTY_INDEX if manifest is None else manifest.content)
        before = [_Entry(_entry_digest(text), text) for text in index.entries]
        after = [entry for entry in change(before) if entry.digest is None or entry.digest not in missing]
        if after == before:
            return False
        content = index.join(entry.text for entry in after)
        try:
            _write_tag_index(repository, subject, content, manifest)
        except ManifestBlobUnknown:
            # Some registries refuse an index that references missing manifests. An interrupted deletion can leave such
            # entries in the index. Remove them.
            newly_missing = {entry.digest for entry in before if _is_missing(repository, entry.digest)} - missing
            if not newly_missing or not attempts_left:
                raise
            missing |= newly_missing
        except RegistryError as error:
            if error.status != 412 or not attempts_left:
                raise
        else:
            return True
    return False


def _read_tag_index(repository: Repository, subject: Digest, scope: Scope) -> ReceivedManifest | None:
    """Return the manifest under the referrers tag; `None` if there is no such tag.

    Raises:
        ContentError: The content under the tag is not a JSON object.
    """
    tag = referrers_tag(subject)
    try:
        manifest = fetch_manifest(repository, tag, None, scope)
    except NotFound:
        return None
    if parse_json_object(manifest.content) is None:
        raise ContentError(f"invalid content under the referrers tag {tag}: expected a JSON object")
    return manifest


def _check_replaceable(manifest: ReceivedManifest, subject: Digest) -> None:
    """Check that a referrers tag references an index of referrers. Other content must not be replaced.

    Raises:
        ContentError: The tag references something else, according to its content or its ``mediaType``.
    """
    stated_type = parse_manifest(manifest.content).get("mediaType")
    if _is_referrers_index(manifest, subject) and (
        stated_type in (None, "") or parse_media_type(stated_type) in INDEX_TYPES
    ):
        return
    named = f"{manifest.descriptor.digest} ({manifest.descriptor.media_type})"
    raise ContentError(
        f"refusing to replace the referrers tag {referrers_tag(subject)}: expected an index of referrers, got"
        f" {redactor_of(manifest.response.request).redact_text(named)}"
        " (delete the tag; if you need its manifest, push it under another tag first)"
    )


def _write_tag_index(repository: Repository, subject: Digest, content: bytes, current: ReceivedManifest | None) -> None:
    """PUT an index under the referrers tag if the tag has not changed. Without a strong ETag, always PUT it."""
    tag, limit = referrers_tag(subject), repository.sender.max_manifest_size
    if len(content) > limit:
        raise ContentError(
            f"the index under the referrers tag {tag} would have {len(content)} bytes, more than the limit of {limit}"
            " bytes: raise it with Client(max_manifest_size=...)"
        )
    if current is None:
        condition = {"If-None-Match": "*"}  # RFC 9110, section 13.1.2: only if the tag does not exist
    else:
        # If-Match uses strong comparison (RFC 9110, section 13.1.1), so a weak ETag never matches.
        etag = current.response.headers.get("etag", "")
        condition = {"If-Match": etag} if etag and not etag.startswith("W/") else {}
    digest = Digest.of(content)
    repository.put(
        repository.manifest_url(tag),
        digest,
        Body.of(content),
        is_stored=lambda: is_stored(repository, tag, digest),
        headers={"Content-Type": OCI_INDEX if current is None else current.descriptor.media_type} | condition,
    )


def _is_missing(repository: Repository, digest: Digest | None) -> bool:
    """Return whether a manifest does not exist. A GET confirms this if HEAD may not be supported."""
    if digest is None:
        return False
    url, scope = repository.manifest_url(digest), repository.push_scope
    try:
        repository.head(url, scope, ACCEPT)
    except RegistryError as refusal:
        if not repository.needs_confirmation(refusal):
            if isinstance(refusal, NotFound):
                return True
            raise
        try:
            repository.send("GET", url, scope, ok=(200,), headers=ACCEPT).close()
        except NotFound:
            return True
    return False


def _is_referrers_index(manifest: ReceivedManifest, subject: Digest) -> bool:
    """Return whether the manifest under a referrers tag is an index of referrers.

    Some registries interpret the tag ``sha256-…`` as a digest, and return the subject instead of the index of
    referrers. The subject may itself be an index.
    """
    is_subject = subject.known and Digest.of(manifest.content, subject.algorithm) == subject
    return is_index(manifest.descriptor) and "manifests" in parse_manifest(manifest.content) and not is_subject


def _read_entries(index: dict[str, Any], request: Request | None) -> list[Descriptor]:
    """Return the entries of a list of referrers. An entry without a valid digest is skipped with a log line."""
    entries = index.get("manifests")
    if entries is None:
        return []  # Go serializes an empty list as null
    if not isinstance(entries, list):
        raise ProtocolError("invalid list of referrers: expected a list under 'manifests'", request=request)
    descriptors = []
    for number, entry in enumerate(entries):
        try:
            descriptors.append(parse_referrer(entry))
        except UsageError:
            _LOG.warning("skipped entry %d of a list of referrers: expected an object with a valid digest", number)
    return descriptors


def _filter_by_type(descriptors: list[Descriptor], artifact_type: str | None) -> Iterator[Descriptor]:
    # Media types are case-insensitive (RFC 6838, section 4.2).
    lowered_type = None if artifact_type is None else artifact_type.lower()
    return (
        descriptor for descriptor in descriptors if lowered_type in (None, (descriptor.artifact_type or "").lower())
    )


def _entry_digest(text: str) -> Digest | None:
    entry = parse_manifest(text.encode("utf-8", "surrogatepass"))
    with suppress(UsageError):
        return Digest(entry.get("digest", ""))
    return None


def referrers_tag(digest: Digest) -> str:
    """Return the referrers tag of a subject.

    Specification, "Referrers Tag Schema": the first 32 characters of the algorithm, a ``-``, and the first 64
    characters of the encoded part, with a ``-`` instead of each character that is invalid in a tag.
    """
    return re.sub(r"[^a-zA-Z0-9._-]", "-", f"{digest.algorithm[:32]}-{digest.encoded[:64]}")
