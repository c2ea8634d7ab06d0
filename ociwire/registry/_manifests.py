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
from ._messages import ErrorResponse, RegistryRequest, created_response, make_response, parse_digest
from ._pushed_manifest import PushedManifest, parse_pushed_manifest
from ._request_body import receive_body
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

    def get(self, request: RegistryRequest) -> Response:
        """``GET /v2/NAME/manifests/REFERENCE``. The Accept header is ignored."""
        manifest = self._storage.get_manifest(request.name, _parse_reference(request))
        if manifest is None:
            raise _unknown_manifest(request)
        _check_preconditions(request, manifest)
        headers = {"ETag": _etag(manifest), **self._digest_headers(manifest.descriptor.digest)}
        return make_response(200, headers, manifest.content, manifest.descriptor.media_type)

    def put(self, request: RegistryRequest) -> Response:
        """``PUT /v2/NAME/manifests/REFERENCE``, with ``tag=`` for each tag where the reference is a digest."""
        reference = _parse_reference(request)
        tag_names = request.query.get("tag", ()) if isinstance(reference, Digest) else [reference]
        tags = [_parse_tag(request, tag) for tag in dict.fromkeys(tag_names)]
        # Before the body is read; add_manifest() checks again, atomically.
        _check_preconditions(request, self._storage.get_manifest(request.name, reference))
        with receive_body(self._storage, request.http_request.body, self._limit) as received:
            content = received.content
            digest = Digest.of(content, reference.algorithm if isinstance(reference, Digest) else "sha256")
            if isinstance(reference, Digest) and digest != reference:
                raise ErrorResponse(400, "DIGEST_INVALID", f"the manifest has the digest {digest}, not {reference}")
            manifest = parse_pushed_manifest(content, request.http_request.headers.get("content-type", ""), digest)
            missing, received.stored = self._storage.add_manifest(
                request.name, manifest, tags, reference, lambda current: _check_preconditions(request, current)
            )
        if missing:
            reasons = [f"the manifest names {digest}, and {request.name} does not have it" for digest in missing]
            raise ErrorResponse(404, "MANIFEST_BLOB_UNKNOWN", *reasons)
        headers = list(self._digest_headers(digest).items())
        if manifest.subject is not None and self._referrers_api:
            headers.append(("OCI-Subject", manifest.subject))
        if isinstance(reference, Digest):
            headers += [("OCI-Tag", tag) for tag in tags]
        return created_response(request, "manifests", digest, headers)

    def delete(self, request: RegistryRequest) -> Response:
        """``DELETE /v2/NAME/manifests/REFERENCE``: a manifest with all its tags, or a tag alone."""
        reference = _parse_reference(request)
        if not self._storage.delete_manifest(
            request.name, reference, lambda current: _check_preconditions(request, current)
        ):
            raise _unknown_manifest(request)
        return make_response(202)

    def _digest_headers(self, digest: Digest) -> dict[str, str]:
        return {"Docker-Content-Digest": digest} if self._digest_header else {}


def _unknown_manifest(request: RegistryRequest) -> ErrorResponse:
    return ErrorResponse(404, "MANIFEST_UNKNOWN", f"{request.name} has no manifest {request.reference}")


def _parse_reference(request: RegistryRequest) -> Digest | str:
    """A digest or a tag: "The <reference> MUST NOT be in any other format"."""
    if ":" in request.reference:
        return parse_digest(request.reference, for_verification=request.http_request.method == "PUT")
    return _parse_tag(request, request.reference)


def _parse_tag(request: RegistryRequest, tag: str) -> str:
    try:
        return check_tag(tag)
    except UsageError as error:
        if request.http_request.method != "PUT":
            raise _unknown_manifest(request) from None
        raise ErrorResponse(400, "MANIFEST_INVALID", str(error)) from None


def _etag(manifest: PushedManifest) -> str:
    return f'"{manifest.descriptor.digest}"'


def _check_preconditions(request: RegistryRequest, current: PushedManifest | None) -> None:
    """Evaluate If-Match and If-None-Match, in the order of RFC 9110, section 13.2.2.

    Args:
        request: The request.
        current: The manifest that its reference names; None without one.

    Raises:
        ErrorResponse: The request is not to be performed (412), or the client has the manifest already (304).
    """
    headers = request.http_request.headers
    if "if-match" in headers and not _matches(headers["if-match"], current):
        raise ErrorResponse(412, "", f"{request.reference} is not, or no longer, what If-Match says")
    if "if-none-match" in headers and _matches(headers["if-none-match"].replace("W/", ""), current):
        if request.http_request.method in ("GET", "HEAD") and current is not None:
            raise ErrorResponse(304, "", headers={"ETag": _etag(current)})
        raise ErrorResponse(412, "", f"{request.reference} is there, and what If-None-Match says")


def _matches(etags: str, current: PushedManifest | None) -> bool:
    if current is None:
        return False
    return etags.strip() == "*" or _etag(current) in (etag.strip() for etag in etags.split(","))
