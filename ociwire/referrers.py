"""What refers to a manifest: by the referrers API, or by the tag that stands in for it, read and written.

Follows the OCI distribution specification, "Listing Referrers" and "Pushing Manifests with Subject".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

from . import manifest
from .body import Body
from .descriptor import OCI_INDEX, Descriptor, is_media_type
from .digest import Digest
from .errors import (
    AuthError,
    ContentError,
    Denied,
    ManifestBlobUnknown,
    NotFound,
    OciwireError,
    ProtocolError,
    RegistryError,
    Unauthorized,
    UsageError,
)
from .listing import pages
from .message import Response
from .scope import Scope
from .session import Session

__all__ = ["enter", "entry_of", "listed", "remove", "subject_of"]

_TRIES = 5


def listed(session: Session, repository: str, digest: Digest, artifact_type: str | None) -> Iterator[Descriptor]:
    """The manifests that name `digest` as their subject, those of one artifact type if one is given.

    Raises:
        ProtocolError: What came is no index.
        RegistryError: The registry said no.
        TransportError: There is no usable answer.
    """
    scope = Scope.repository(repository, "pull")

    def send(url: str) -> Response:
        return session.send("referrers", "GET", url, scope, ok=(200,), headers={"Accept": OCI_INDEX})

    query = "" if artifact_type is None else f"?{urlencode({'artifactType': artifact_type}, safe='/')}"
    found = pages(send, f"{_path(repository, digest)}{query}", "manifests")
    try:
        page, response = next(found)
    except NotFound:
        index, _ = _tagged(session, "referrers", repository, digest, scope)
        yield from _matching(_descriptors(index, None), artifact_type)
        return
    while True:
        filtered = "artifactType" in response.headers.get("oci-filters-applied", "")
        yield from _matching(_descriptors(page, response), None if filtered else artifact_type)
        try:
            page, response = next(found)
        except StopIteration:
            return


def _supported(session: Session, operation: str, repository: str, subject: Digest) -> bool:
    """Whether the registry has the referrers API."""
    scope = Scope.repository(repository, "pull")
    try:
        session.send(operation, "GET", _path(repository, subject), scope, ok=(200,)).discard()
    except NotFound:
        return False
    return True


def subject_of(content: bytes) -> Digest | None:
    """The digest of the manifest that this one refers to; None if it refers to none."""
    subject = manifest.parse(content).get("subject")
    try:
        return Digest(subject["digest"]) if isinstance(subject, dict) else None
    except (KeyError, UsageError):
        return None


def entry_of(content: bytes, descriptor: Descriptor) -> Descriptor:
    """A manifest's entry in the index of its subject's referrers: with its artifact type and its annotations."""
    parsed = manifest.parse(content)
    config = parsed.get("config")
    artifact_type = parsed.get("artifactType") or (config.get("mediaType") if isinstance(config, dict) else None)
    try:
        return descriptor.replace(artifact_type=artifact_type or None, annotations=parsed.get("annotations"))
    except UsageError:
        return descriptor  # an entry that says less is better than none


def enter(session: Session, repository: str, subject: Digest, entry: Descriptor) -> None:
    """Have the referrers tag name a manifest; see `update_tag`."""

    def change(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        present = any(one.get("digest") == entry.digest for one in entries)
        return entries if present else [*entries, entry.to_dict()]

    update_tag(session, "push_manifest", repository, subject, change)


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
    if subject is not None:
        try:
            remove(session, repository, subject, digest)
        except (AuthError, Denied, Unauthorized) as error:
            not_ours = error
    try:
        scope = Scope.repository(repository, "delete")
        session.send("delete_manifest", "DELETE", path, scope, ok=(200, 202, 204)).discard()
    except NotFound:
        # It was there a moment ago: what has deleted it may be this very request, whose first answer was lost.
        if found is None:
            raise
    except RegistryError:
        if found is not None and subject is not None:
            with suppress(OciwireError):  # what the registry said first is what counts
                enter(session, repository, subject, entry_of(found.content, found.descriptor))
        raise
    if not_ours is not None:
        raise not_ours


def _read_to_delete(session: Session, path: str, repository: str, digest: Digest) -> manifest.Manifest | None:
    """A manifest that is to be deleted; None if it cannot be read, which it need not be: the registry says next."""
    scope = Scope.repository(repository, "pull")
    for tries_left in (1, 0):
        try:
            return manifest.fetch(session, "delete_manifest", path, scope, digest)
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


def remove(session: Session, repository: str, subject: Digest, digest: Digest) -> None:
    """Have the referrers tag no longer name a manifest, where it is the tag that counts; see `update_tag`."""
    if not _supported(session, "delete_manifest", repository, subject):
        update_tag(
            session,
            "delete_manifest",
            repository,
            subject,
            lambda entries: [one for one in entries if one.get("digest") != digest],
        )


def update_tag(
    session: Session,
    operation: str,
    repository: str,
    subject: Digest,
    change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
) -> None:
    """Change the index under a subject's referrers tag, as often as another writer comes between.

    Args:
        session: What sends.
        operation: The client's operation.
        repository: Where.
        subject: What is referred to.
        change: From the entries to the new ones; if they are the same, nothing is written.

    Raises:
        RegistryError: The registry said no, or another writer was faster five times (412).
        ProtocolError: What the tag names is no index.
        TransportError: There is no usable answer.
    """
    scope = Scope.repository(repository, "pull", "push")
    gone: set[Any] = set()
    for tries_left in reversed(range(_TRIES)):
        index, etag = _tagged(session, operation, repository, subject, scope)
        before = index.get("manifests") or []
        after = [entry for entry in change(before) if entry.get("digest") not in gone]
        if after == before:
            return
        content = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, **index, "manifests": after}).encode()
        # What is there must still be so, be it nothing (RFC 9110, section 13.1); where it has no ETag, nobody can tell.
        unchanged = {"If-None-Match": "*"} if not index else {"If-Match": etag} if etag else {}
        headers = {"Content-Type": index.get("mediaType") or OCI_INDEX} | unchanged
        try:
            _put_tag(session, operation, _tag_path(repository, subject), scope, content, headers)
        except ManifestBlobUnknown:
            # Some registries take no index that names what is gone, as a deletion that broke off can leave it.
            missing = {entry["digest"] for entry in before if _is_gone(session, operation, repository, entry)} - gone
            if not missing or not tries_left:
                raise
            gone |= missing
        except RegistryError as error:
            if error.status != 412 or not tries_left:
                raise
        else:
            return


def _put_tag(
    session: Session, operation: str, path: str, scope: Scope, content: bytes, headers: dict[str, str]
) -> None:
    digest = Digest.of(content)
    session.put(
        operation,
        path,
        scope,
        digest,
        Body.of(content),
        is_stored=lambda: manifest.is_stored(session, operation, path, scope, digest),
        headers=headers,
    )


def _is_gone(session: Session, operation: str, repository: str, entry: dict[str, Any]) -> bool:
    path = f"/v2/{repository}/manifests/{Digest(entry['digest'])}"
    scope = Scope.repository(repository, "pull", "push")
    try:
        session.send(operation, "HEAD", path, scope, ok=(200,), headers=manifest.ACCEPT).discard()
    except NotFound:
        return True
    return False


def _tagged(
    session: Session, operation: str, repository: str, subject: Digest, scope: Scope
) -> tuple[dict[str, Any], str | None]:
    """The index under the referrers tag, empty if there is none, and its ETag."""
    try:
        found = manifest.fetch(session, operation, _tag_path(repository, subject), scope, None)
    except NotFound:
        return {}, None
    index = manifest.parse(found.content)
    if "manifests" not in index or not is_media_type(index.get("mediaType") or OCI_INDEX):
        raise ProtocolError("the referrers tag names something that is no index", request=found.response.request)
    _descriptors(index, found.response)
    etag = found.response.headers.get("etag", "")
    # If-Match compares strongly (RFC 9110, section 13.1.1): a weak one never matches.
    return index, None if not etag or etag.startswith("W/") else etag


def _descriptors(index: Any, response: Response | None) -> list[Descriptor]:
    request = None if response is None else response.request
    entries = index.get("manifests") if isinstance(index, dict) else index
    if entries is None:
        return []  # an empty list, as Go writes it
    if not isinstance(entries, list):
        raise ProtocolError("a list of referrers is no index", request=request)
    try:
        return [Descriptor.from_dict(entry) for entry in entries]
    except UsageError as error:
        raise ProtocolError(f"a list of referrers has an entry that is not valid: {error}", request=request) from None


def _matching(descriptors: list[Descriptor], artifact_type: str | None) -> Iterator[Descriptor]:
    return (one for one in descriptors if artifact_type is None or one.artifact_type == artifact_type)


def _path(repository: str, digest: Digest) -> str:
    return f"/v2/{repository}/referrers/{digest}"


def _tag_path(repository: str, digest: Digest) -> str:
    # Specification, "Referrers Tag Schema": the algorithm's first 32 characters, a -, and the encoded part's first 64,
    # and a - for what a tag does not have.
    tag = re.sub(r"[^a-zA-Z0-9._-]", "-", f"{digest.algorithm[:32]}-{digest.encoded[:64]}")
    return f"/v2/{repository}/manifests/{tag}"
