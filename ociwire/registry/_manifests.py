"""The endpoints of the registry in memory for manifests and tags.

Follows the OCI distribution specification 1.1, "Pulling manifests", "Pushing Manifests", "Deleting tags" and "Deleting
Manifests". A manifest is kept to the byte, under the digest that it was pushed by. Its ETag is its digest, so that a
writer can make sure that nobody came between (RFC 9110, section 13).
"""

from __future__ import annotations

from typing import final

from .._http.messages import Response
from .._oci.digest import Digest
from .._oci.reference import check_tag
from ..errors import UsageError
from ._responses import Call, Refused, answer, created, read_digest
from ._store import Store
from ._stored_manifest import Manifest, read_manifest

__all__ = ["Manifests"]


@final
class Manifests:
    """Answers for manifests and tags.

    Args:
        store: Where they are kept.
        limit: How many bytes a manifest may have; None is any number.
        referrers_api: Whether a subject is taken note of.
        digest_header: Whether Docker-Content-Digest is sent.
    """

    def __init__(self, store: Store, *, limit: int | None, referrers_api: bool, digest_header: bool) -> None:
        self._store = store
        self._limit = limit
        self._referrers_api = referrers_api
        self._digest_header = digest_header

    def get(self, call: Call) -> Response:
        """``GET /v2/NAME/manifests/REFERENCE``; what the Accept header says changes nothing."""
        found = self._store.manifest(call.name, _reference(call))
        if found is None:
            raise _unknown(call)
        _check_conditions(call, found)
        headers = {"ETag": _etag(found), **self._digest(found.entry.digest)}
        return answer(200, headers, found.content, found.entry.media_type)

    def put(self, call: Call) -> Response:
        """``PUT /v2/NAME/manifests/REFERENCE``, with ``tag=`` for each tag where the reference is a digest."""
        reference = _reference(call)
        named = call.query.get("tag", ()) if isinstance(reference, Digest) else [reference]
        tags = [_tag(call, tag) for tag in dict.fromkeys(named)]
        _check_conditions(call, self._store.manifest(call.name, reference))  # and again when it is done
        with self._store.receive(call.request.body, self._limit) as received:
            content = received.content
            digest = Digest.of(content, reference.algorithm if isinstance(reference, Digest) else "sha256")
            if isinstance(reference, Digest) and digest != reference:
                raise Refused(400, "DIGEST_INVALID", f"the manifest has the digest {digest}, not {reference}")
            manifest = read_manifest(content, call.request.headers.get("content-type", ""), digest)
            missing, received.stored = self._store.add_manifest(
                call.name, manifest, tags, lambda found: _check_conditions(call, found), reference
            )
        if missing:
            reasons = [f"the manifest names {digest}, and {call.name} does not have it" for digest in missing]
            raise Refused(404, "MANIFEST_BLOB_UNKNOWN", *reasons)
        headers = list(self._digest(digest).items())
        if manifest.subject is not None and self._referrers_api:
            headers.append(("OCI-Subject", manifest.subject))
        if isinstance(reference, Digest):
            headers += [("OCI-Tag", tag) for tag in tags]
        return created(call, "manifests", digest, headers)

    def delete(self, call: Call) -> Response:
        """``DELETE /v2/NAME/manifests/REFERENCE``: a manifest with all its tags, or a tag alone."""
        if not self._store.remove_manifest(call.name, _reference(call), lambda found: _check_conditions(call, found)):
            raise _unknown(call)
        return answer(202)

    def _digest(self, digest: Digest) -> dict[str, str]:
        return {"Docker-Content-Digest": digest} if self._digest_header else {}


def _unknown(call: Call) -> Refused:
    return Refused(404, "MANIFEST_UNKNOWN", f"{call.name} has no manifest {call.reference}")


def _reference(call: Call) -> Digest | str:
    """A digest or a tag: "The <reference> MUST NOT be in any other format"."""
    if ":" in call.reference:
        return read_digest(call.reference, verifies=call.request.method == "PUT")
    return _tag(call, call.reference)


def _tag(call: Call, tag: str) -> str:
    try:
        return check_tag(tag)
    except UsageError as error:
        if call.request.method != "PUT":
            raise _unknown(call) from None
        raise Refused(400, "MANIFEST_INVALID", str(error)) from None


def _etag(manifest: Manifest) -> str:
    return f'"{manifest.entry.digest}"'


def _check_conditions(call: Call, found: Manifest | None) -> None:
    """What the request wants to be so, in the order of RFC 9110, section 13.2.2."""
    headers = call.request.headers
    if "if-match" in headers and not _is_among(headers["if-match"], found):
        raise Refused(412, "", f"{call.reference} is not, or no longer, what If-Match says")
    if "if-none-match" in headers and _is_among(headers["if-none-match"].replace("W/", ""), found):
        if call.request.method in ("GET", "HEAD") and found is not None:
            raise Refused(304, "", headers={"ETag": _etag(found)})
        raise Refused(412, "", f"{call.reference} is there, and what If-None-Match says")


def _is_among(etags: str, found: Manifest | None) -> bool:
    if found is None:
        return False
    return etags.strip() == "*" or _etag(found) in (etag.strip() for etag in etags.split(","))
