"""The endpoints for manifests and tags.

Follows the OCI distribution specification 1.1, "Pulling manifests", "Pushing Manifests", "Deleting tags" and "Deleting
Manifests". A manifest is stored byte for byte, under the digest that it was pushed by. Its ETag is its digest, so that
a client can update a tag only if no other client has changed it (RFC 9110, section 13).
"""

from __future__ import annotations

from typing import final

from .._http.messages import Response
from .._oci.digest import Digest
from .._oci.reference import check_tag
from ..errors import UsageError
from ._call import Call, Refusal, created_response, make_response, parse_digest
from ._pushed_manifest import PushedManifest, parse_manifest
from ._request_body import receive
from ._storage import Storage

__all__ = ["ManifestEndpoints"]


@final
class ManifestEndpoints:
    """Handlers for manifests and tags.

    Args:
        storage: The storage.
        limit: Maximum number of bytes of a manifest. `None` means no limit.
        referrers_api: Whether OCI-Subject is sent.
        digest_header: Whether responses have a Docker-Content-Digest.
    """

    def __init__(self, storage: Storage, *, limit: int | None, referrers_api: bool, digest_header: bool) -> None:
        self._storage = storage
        self._limit = limit
        self._referrers_api = referrers_api
        self._digest_header = digest_header

    def get(self, call: Call) -> Response:
        """``GET /v2/NAME/manifests/REFERENCE``. The Accept header is ignored."""
        manifest = self._storage.get_manifest(call.name, _parse_reference(call))
        if manifest is None:
            raise _unknown_manifest(call)
        _check_preconditions(call, manifest)
        headers = {"ETag": _etag(manifest), **self._digest_headers(manifest.descriptor.digest)}
        return make_response(200, headers, manifest.content, manifest.descriptor.media_type)

    def put(self, call: Call) -> Response:
        """``PUT /v2/NAME/manifests/REFERENCE``, with ``tag=`` for each tag where the reference is a digest."""
        reference = _parse_reference(call)
        tag_names = call.query.get("tag", ()) if isinstance(reference, Digest) else [reference]
        tags = [_parse_tag(call, tag) for tag in dict.fromkeys(tag_names)]
        # Before the body is read; add_manifest() checks again, atomically.
        _check_preconditions(call, self._storage.get_manifest(call.name, reference))
        with receive(self._storage, call.request.body, self._limit) as received:
            content = received.content
            digest = Digest.of(content, reference.algorithm if isinstance(reference, Digest) else "sha256")
            if isinstance(reference, Digest) and digest != reference:
                raise Refusal(400, "DIGEST_INVALID", f"the manifest has the digest {digest}, not {reference}")
            manifest = parse_manifest(content, call.request.headers.get("content-type", ""), digest)
            missing, received.stored = self._storage.add_manifest(
                call.name, manifest, tags, reference, lambda current: _check_preconditions(call, current)
            )
        if missing:
            reasons = [f"the manifest names {digest}, and {call.name} does not have it" for digest in missing]
            raise Refusal(404, "MANIFEST_BLOB_UNKNOWN", *reasons)
        headers = list(self._digest_headers(digest).items())
        if manifest.subject is not None and self._referrers_api:
            headers.append(("OCI-Subject", manifest.subject))
        if isinstance(reference, Digest):
            headers += [("OCI-Tag", tag) for tag in tags]
        return created_response(call, "manifests", digest, headers)

    def delete(self, call: Call) -> Response:
        """``DELETE /v2/NAME/manifests/REFERENCE``: a manifest with all its tags, or a tag alone."""
        reference = _parse_reference(call)
        if not self._storage.delete_manifest(call.name, reference, lambda current: _check_preconditions(call, current)):
            raise _unknown_manifest(call)
        return make_response(202)

    def _digest_headers(self, digest: Digest) -> dict[str, str]:
        return {"Docker-Content-Digest": digest} if self._digest_header else {}


def _unknown_manifest(call: Call) -> Refusal:
    return Refusal(404, "MANIFEST_UNKNOWN", f"{call.name} has no manifest {call.reference}")


def _parse_reference(call: Call) -> Digest | str:
    """A digest or a tag: "The <reference> MUST NOT be in any other format"."""
    if ":" in call.reference:
        return parse_digest(call.reference, for_verification=call.request.method == "PUT")
    return _parse_tag(call, call.reference)


def _parse_tag(call: Call, tag: str) -> str:
    try:
        return check_tag(tag)
    except UsageError as error:
        if call.request.method != "PUT":
            raise _unknown_manifest(call) from None
        raise Refusal(400, "MANIFEST_INVALID", str(error)) from None


def _etag(manifest: PushedManifest) -> str:
    return f'"{manifest.descriptor.digest}"'


def _check_preconditions(call: Call, current: PushedManifest | None) -> None:
    """Evaluate If-Match and If-None-Match, in the order of RFC 9110, section 13.2.2.

    Args:
        call: The request.
        current: The manifest that its reference names; None without one.

    Raises:
        Refusal: The request is not to be performed (412), or the client has the manifest already (304).
    """
    headers = call.request.headers
    if "if-match" in headers and not _matches(headers["if-match"], current):
        raise Refusal(412, "", f"{call.reference} is not, or no longer, what If-Match says")
    if "if-none-match" in headers and _matches(headers["if-none-match"].replace("W/", ""), current):
        if call.request.method in ("GET", "HEAD") and current is not None:
            raise Refusal(304, "", headers={"ETag": _etag(current)})
        raise Refusal(412, "", f"{call.reference} is there, and what If-None-Match says")


def _matches(etags: str, current: PushedManifest | None) -> bool:
    if current is None:
        return False
    return etags.strip() == "*" or _etag(current) in (etag.strip() for etag in etags.split(","))
