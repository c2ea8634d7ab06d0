"""What refers to a manifest: by the referrers API, or by the tag that stands in for it, read and written.

Follows the OCI distribution specification, "Listing Referrers" and "Pushing Manifests with Subject".
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlencode

from .._http.body import Body
from .._http.messages import Request, Response, redactor_of
from .._http.urls import Origin
from .._oci.descriptor import Descriptor, read_media_type
from .._oci.digest import Digest
from .._oci.scope import Scope
from .._text import SURROGATE
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
from . import manifests
from .error_mapping import is_html_body
from .pagination import MAX_PAGE_SIZE, pages
from .session import Session, read_anew

__all__ = ["enter", "listed", "remove", "subject_of"]

_LOG = logging.getLogger("ociwire.client")
_TRIES = 5
# The statuses of registries that do not know the path of the referrers API.
_NO_API_STATUSES = frozenset({400, 404, 405, 406, 501})
_EMPTY_INDEX = f'{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[]}}'.encode()


class _NoReferrersAPI(Exception):
    """The registry has no referrers API: the referrers tag is read instead."""


def listed(session: Session, repository: str, digest: Digest, artifact_type: str | None) -> Iterator[Descriptor]:
    """The manifests that name `digest` as their subject, those of one artifact type if one is given.

    Raises:
        ProtocolError: The response is not an index.
        ContentError: There is no referrers API, and the referrers tag does not name a JSON object.
        RegistryError: The registry said no.
        TransportError: There is no usable answer.
    """
    scope = Scope.repository(repository, "pull")
    first = f"{_path(repository, digest)}{'' if artifact_type is None else f'?{_query(artifact_type)}'}"

    def send(url: str) -> Response:
        if url == first:
            return _ask_api(session, "referrers", url, scope)
        return session.send("referrers", "GET", url, scope, ok=(200,), headers={"Accept": OCI_INDEX})

    try:
        for page, response in pages(send, first, "manifests"):
            filtered = "artifactType" in response.headers.get("oci-filters-applied", "")
            yield from _matching(_descriptors(page, response.request), None if filtered else artifact_type)
        return
    except _NoReferrersAPI:
        pass
    try:
        found = _tagged(session, "referrers", repository, digest, scope)
    except Unsupported as error:
        if error.status:
            raise
        return  # a Docker schema 1 manifest, which is no index
    if found is not None and _is_referrers_index(found, digest):
        entries = _descriptors(manifests.parse(found.content), found.response.request)
        yield from _matching(entries, artifact_type)


def _query(artifact_type: str) -> str:
    return urlencode({"artifactType": artifact_type}, safe="/")


def _ask_api(session: Session, operation: str, url: str, scope: Scope) -> Response:
    """GET a list of referrers by the API, and read the body of the response into memory.

    Raises:
        _NoReferrersAPI: The answer is an error that says so, a redirect that cannot be followed, or no index, such as
            the web page of a login form: registries without the API answer with any of these.
    """

    def send() -> Response:
        return session.send(operation, "GET", url, scope, ok=(200,), headers={"Accept": OCI_INDEX})

    try:
        response, body = read_anew(send, limit=MAX_PAGE_SIZE)
    except RegistryError as error:
        is_missing = error.status in _NO_API_STATUSES or 300 <= error.status < 400 or isinstance(error, Unsupported)
        if is_missing or _is_login_page(session, error):
            raise _NoReferrersAPI from None
        raise
    except RedirectError:
        raise _NoReferrersAPI from None
    # Gateways that answer any path say `OK`, `[]`, `{}` or nothing at all. A broken index, labelled as one, stays an
    # error. The body is parsed later; here only if it cannot be an index.
    is_labelled = manifests.media_type_of(response) in INDEX_TYPES
    is_other = b'"manifests"' not in body and not (is_labelled and manifests.parse_object(body) is None)
    if is_other or is_html_body(response, body):
        raise _NoReferrersAPI
    return response.replace(body=body)


def _is_login_page(session: Session, error: RegistryError) -> bool:
    """Whether a request was redirected to the web page of another origin, which asks for a login (401, 403)."""
    if error.request is None or error.status not in (401, 403) or Origin.of(error.request.url) == session.origin:
        return False
    return is_html_body(Response(error.status, error.headers or ()), error.body)


def _supported(session: Session, operation: str, repository: str, subject: Digest) -> bool:
    """Whether the registry has the referrers API."""
    scope = Scope.repository(repository, "pull")
    try:
        _ask_api(session, operation, _path(repository, subject), scope)
    except _NoReferrersAPI:
        return False
    return True


def subject_of(content: bytes) -> Digest | None:
    """The digest of the manifest that this one refers to; None if it refers to none."""
    subject = manifests.parse(content).get("subject")
    try:
        return Digest(subject["digest"]) if isinstance(subject, dict) else None
    except (KeyError, UsageError):
        return None


def entry_of(content: bytes, descriptor: Descriptor) -> Descriptor:
    """A manifest's entry in the index of its subject's referrers: with its artifact type and its annotations."""
    parsed = manifests.parse(content)
    config = parsed.get("config")
    artifact_type = parsed.get("artifactType") or (config.get("mediaType") if isinstance(config, dict) else None)
    # Read leniently: an annotation that is a number in the manifest is its text in the index.
    fields = {"artifactType": artifact_type, "annotations": parsed.get("annotations")}
    return Descriptor.from_dict({**descriptor.to_dict(), **fields})


def enter(session: Session, repository: str, subject: Digest, content: bytes, descriptor: Descriptor) -> None:
    """Add a stored manifest to the index under its subject's referrers tag; see `update_tag`.

    Raises:
        ReferrersUpdateError: The registry refused, or the tag names something that must not be replaced.
        TransportError: There is no usable answer.
    """
    entry = entry_of(content, descriptor)

    def change(entries: list[_Entry]) -> list[_Entry]:
        present = any(one.digest == entry.digest for one in entries)
        return entries if present else [*entries, _Entry(entry.digest, _to_json(entry.to_dict()))]

    try:
        update_tag(session, "push_manifest", repository, subject, change)
    except TransportError:
        raise
    except (RegistryError, ContentError, AuthError) as error:
        raise ReferrersUpdateError(
            f"the manifest {entry.digest} was stored, but the referrers tag of its subject {subject} was not updated:"
            f" {error}",
            descriptor=descriptor,
        ) from error


def delete_manifest(session: Session, repository: str, digest: Digest) -> None:
    """Delete a manifest, and its entry in the referrers tag of its subject; see `Client.delete_manifest`.

    The entry goes first: a tag that names what is gone can break what others push, and once the manifest is gone,
    nobody can tell any more which tag it was. So a deletion that fails half-way is completed by the next one. Where the
    tag must not be written, the manifest is deleted all the same, and then that is said.
    """
    path = f"/v2/{repository}/manifests/{digest}"
    found = _read_to_delete(session, path, repository, digest)
    subject = None if found is None else subject_of(found.content)
    not_ours: OciwireError | None = None
    removed = False
    if subject is not None:
        try:
            removed = remove(session, repository, subject, digest)
        except (AuthError, Denied, Unauthorized) as error:
            not_ours = error
    try:
        scope = Scope.repository(repository, "delete")
        session.send("delete_manifest", "DELETE", path, scope, ok=(200, 202, 204)).drain()
    except NotFound:
        # It was there a moment ago: what has deleted it may be this very request, whose first answer was lost.
        if found is None:
            raise
    except RegistryError:
        if found is not None and subject is not None and removed:
            with suppress(OciwireError):  # what the registry said first is what counts
                enter(session, repository, subject, found.content, found.descriptor)
        raise
    if not_ours is not None:
        raise not_ours


def _read_to_delete(session: Session, path: str, repository: str, digest: Digest) -> manifests.Manifest | None:
    """A manifest that is to be deleted; None if it cannot be read, which it need not be: the registry says next."""
    scope = Scope.repository(repository, "pull")
    for tries_left in (1, 0):
        try:
            return manifests.fetch(session, "delete_manifest", path, scope, digest)
        except ContentError:
            if not tries_left:
                return None
        except RegistryError as error:
            if error.status in (429, 502, 503, 504):  # it can be read, but not now
                raise
            return None
        except (AuthError, UsageError):
            return None
    return None


def remove(session: Session, repository: str, subject: Digest, digest: Digest) -> bool:
    """Remove a manifest's entry from the referrers tag if the registry has no referrers API; see `update_tag`.

    Returns:
        Whether an entry was removed.
    """
    if _supported(session, "delete_manifest", repository, subject):
        return False
    return update_tag(
        session,
        "delete_manifest",
        repository,
        subject,
        lambda entries: [one for one in entries if one.digest != digest],
    )


class _Entry(NamedTuple):
    """An entry of the index under a referrers tag.

    Attributes:
        digest: The digest of the referrer; None if it is not valid.
        text: Its JSON, as it stands in the index.
    """

    digest: Digest | None
    text: str


def update_tag(
    session: Session,
    operation: str,
    repository: str,
    subject: Digest,
    change: Callable[[list[_Entry]], list[_Entry]],
) -> bool:
    """Change the index under a subject's referrers tag; repeated if another client changes it meanwhile.

    Entries that stay, and all other fields, keep their bytes.

    Args:
        session: What sends.
        operation: The client's operation.
        repository: Where.
        subject: What is referred to.
        change: From the entries to the new ones; if they are the same, nothing is written.

    Returns:
        Whether the tag was written.

    Raises:
        ContentError: The tag does not name an index of referrers, and is not replaced; or the new index would be larger
            than the client reads.
        RegistryError: The registry said no, or another writer was faster five times (412).
        TransportError: There is no usable answer.
    """
    scope = Scope.repository(repository, "pull", "push")
    gone: set[Digest | None] = set()
    for tries_left in reversed(range(_TRIES)):
        found = _tagged(session, operation, repository, subject, scope)
        if found is not None:
            if not _is_referrers_index(found, subject) and not change([]):
                return False  # it has no entries, so that none has to be removed
            _check_replaceable(found, subject)
        index = manifests.IndexText.split(_EMPTY_INDEX if found is None else found.content)
        before = [_Entry(_digest_of(text), text) for text in index.entries]
        after = [entry for entry in change(before) if entry.digest is None or entry.digest not in gone]
        if after == before:
            return False
        content = index.join(entry.text for entry in after)
        try:
            _write_tag(session, operation, repository, subject, content, found)
        except ManifestBlobUnknown:
            # Some registries take no index that names what is gone, as a deletion that broke off can leave it.
            missing = {one.digest for one in before if _is_gone(session, operation, repository, one.digest)} - gone
            if not missing or not tries_left:
                raise
            gone |= missing
        except RegistryError as error:
            if error.status != 412 or not tries_left:
                raise
        else:
            return True
    return False


def _check_replaceable(found: manifests.Manifest, subject: Digest) -> None:
    """Check that a referrers tag names an index of referrers, also by its ``mediaType``: only that may be replaced.

    Raises:
        ContentError: It names something else.
    """
    own = manifests.parse(found.content).get("mediaType")
    if _is_referrers_index(found, subject) and (own in (None, "") or read_media_type(own) in INDEX_TYPES):
        return
    named = redactor_of(found.response.request).text(f"{found.descriptor.digest} ({found.descriptor.media_type})")
    raise ContentError(
        f"the referrers tag {_tag(subject)} names {named} instead of an index of referrers: refusing to replace it."
        " Delete the tag, or give another one to what it names"
    )


def _write_tag(
    session: Session,
    operation: str,
    repository: str,
    subject: Digest,
    content: bytes,
    found: manifests.Manifest | None,
) -> None:
    """PUT an index under the referrers tag, if the tag has not changed; without a strong ETag, unconditionally."""
    if len(content) > session.max_manifest_size:
        raise ContentError(
            f"the index under the referrers tag {_tag(subject)} would have {len(content)} bytes, more than the"
            f" {session.max_manifest_size} that are read: raise the limit with Client(max_manifest_size=...)"
        )
    etag = None if found is None else found.response.headers.get("etag", "")
    if etag is None:
        condition = {"If-None-Match": "*"}  # RFC 9110, section 13.1.2: the tag must still not exist
    else:
        # If-Match compares strongly (RFC 9110, section 13.1.1): a weak one never matches.
        condition = {"If-Match": etag} if etag and not etag.startswith("W/") else {}
    headers = {"Content-Type": OCI_INDEX if found is None else found.descriptor.media_type} | condition
    scope = Scope.repository(repository, "pull", "push")
    path, digest = _tag_path(repository, subject), Digest.of(content)
    session.put(
        operation,
        path,
        scope,
        digest,
        Body.of(content),
        is_stored=lambda: manifests.is_stored(session, operation, path, scope, digest),
        headers=headers,
    )


def _is_gone(session: Session, operation: str, repository: str, digest: Digest | None) -> bool:
    """Whether a manifest does not exist; a GET confirms it where HEAD may not be supported."""
    if digest is None:
        return False
    path = f"/v2/{repository}/manifests/{digest}"
    scope = Scope.repository(repository, "pull", "push")
    try:
        session.head(operation, path, scope, manifests.ACCEPT)
    except RegistryError as refusal:
        if not session.needs_confirmation(refusal):
            if isinstance(refusal, NotFound):
                return True
            raise
        try:
            session.send(operation, "GET", path, scope, ok=(200,), headers=manifests.ACCEPT).close()
        except NotFound:
            return True
    return False


def _tagged(
    session: Session, operation: str, repository: str, subject: Digest, scope: Scope
) -> manifests.Manifest | None:
    """Read the manifest under the referrers tag; None if there is no such tag.

    Raises:
        ContentError: It names something that is not a JSON object.
    """
    try:
        found = manifests.fetch(session, operation, _tag_path(repository, subject), scope, None)
    except NotFound:
        return None
    if manifests.parse_object(found.content) is None:
        raise ContentError(f"the referrers tag {_tag(subject)} names something that is not a JSON object")
    return found


def _is_referrers_index(found: manifests.Manifest, subject: Digest) -> bool:
    """Whether the manifest under a referrers tag is an index of referrers.

    Some registries read ``sha256-…`` as the digest, and answer with the subject, which may be an index too.
    """
    is_subject = Digest.of(found.content, subject.algorithm) == subject if subject.known else False
    return manifests.is_index(found.descriptor) and "manifests" in manifests.parse(found.content) and not is_subject


def _descriptors(index: dict[str, Any], request: Request | None) -> list[Descriptor]:
    """The entries of a list of referrers; an entry without a valid digest is skipped with a log line."""
    entries = index.get("manifests")
    if entries is None:
        return []  # an empty list, as Go writes it
    if not isinstance(entries, list):
        raise ProtocolError("a list of referrers is no index", request=request)
    found = []
    for number, entry in enumerate(entries):
        try:
            found.append(manifests.read_reference(entry))
        except UsageError:
            _LOG.warning("skipped entry %d of a list of referrers: expected an object with a valid digest", number)
    return found


def _digest_of(text: str) -> Digest | None:
    entry = manifests.parse(text.encode("utf-8", "surrogatepass"))
    with suppress(UsageError):
        return Digest(entry.get("digest", ""))
    return None


def _to_json(entry: dict[str, Any]) -> str:
    """An entry as JSON without needless escapes, so that the index does not grow beyond what readers accept."""
    text = json.dumps(entry, ensure_ascii=False, separators=(",", ":"))
    return SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", text)  # UTF-8 cannot write them


def _matching(descriptors: list[Descriptor], artifact_type: str | None) -> Iterator[Descriptor]:
    # Media types are case-insensitive (RFC 6838, section 4.2).
    wanted = None if artifact_type is None else artifact_type.lower()
    return (one for one in descriptors if wanted in (None, (one.artifact_type or "").lower()))


def _path(repository: str, digest: Digest) -> str:
    return f"/v2/{repository}/referrers/{digest}"


def _tag_path(repository: str, digest: Digest) -> str:
    return f"/v2/{repository}/manifests/{_tag(digest)}"


def _tag(digest: Digest) -> str:
    # Specification, "Referrers Tag Schema": the algorithm's first 32 characters, a -, and the encoded part's first 64,
    # and a - for what a tag does not have.
    return re.sub(r"[^a-zA-Z0-9._-]", "-", f"{digest.algorithm[:32]}-{digest.encoded[:64]}")
