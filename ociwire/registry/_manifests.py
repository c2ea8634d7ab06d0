"""Endpoints for manifests and tags.

Implements the OCI distribution specification 1.1, "Pulling manifests", "Pushing Manifests", "Deleting tags" and
"Deleting Manifests". A manifest is stored byte for byte under the digest with which it was pushed. The digest is also
the ETag of the manifest. A client can use the ETag to update a tag only if no other client has changed the tag (RFC
9110, section 13).
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
    """Handlers of the manifest endpoints. Thread-safe.

    Args:
        storage: The storage.
        limit: Maximum size of a manifest in bytes. `None` means no limit.
        referrers_api: Whether responses have an OCI-Subject header.
        digest_header: Whether responses have a Docker-Content-Digest header.
    """

    def __init__(self, storage: Storage, *, limit: int | None, referrers_api: bool, digest_header: bool) -> None:
        self._storage = storage
        self._limit = limit
        self._referrers_api = referrers_api
        self._digest_header = digest_header

    def get(self, request: RegistryRequest) -> Response:
        """Handle ``GET /v2/NAME/manifests/REFERENCE``: return the manifest. The Accept header is ignored."""
        manifest = self._storage.get_manifest(request.name, _parse_reference(request))
        if manifest is None:
            raise _unknown_manifest(request)
        _check_preconditions(request, manifest)
        headers = {"ETag": _etag(manifest), **self._digest_headers(manifest.descriptor.digest)}
        return make_response(200, headers, manifest.content, manifest.descriptor.media_type)

    def put(self, request: RegistryRequest) -> Response:
        """Handle ``PUT /v2/NAME/manifests/REFERENCE``: store the manifest.

        If the reference is a digest, each ``tag`` parameter of the query sets a tag.
        """
        reference = _parse_reference(request)
        tag_names = request.query.get("tag", ()) if isinstance(reference, Digest) else [reference]
        tags = [_parse_tag(request, tag) for tag in dict.fromkeys(tag_names)]
        # Check the preconditions before the body is read. add_manifest() checks them again, atomically.
        _check_preconditions(request, self._storage.get_manifest(request.name, reference))
        with receive_body(self._storage, request.http_request.body, self._limit) as received:
            content = received.content
            digest = Digest.of(content, reference.algorithm if isinstance(reference, Digest) else "sha256")
            if isinstance(reference, Digest) and digest != reference:
                reason = f"digest mismatch: expected {reference}, but the manifest has the digest {digest}"
                raise ErrorResponse(400, "DIGEST_INVALID", reason)
            manifest = parse_pushed_manifest(content, request.http_request.headers.get("content-type", ""), digest)
            missing, received.stored = self._storage.add_manifest(
                request.name, manifest, tags, reference, lambda current: _check_preconditions(request, current)
            )
        if missing:
            reasons = [f"the manifest refers to {digest}, which repository {request.name} lacks" for digest in missing]
            raise ErrorResponse(404, "MANIFEST_BLOB_UNKNOWN", *reasons)
        headers = list(self._digest_headers(digest).items())
        if manifest.subject is not None and self._referrers_api:
            headers.append(("OCI-Subject", manifest.subject))
        if isinstance(reference, Digest):
            headers += [("OCI-Tag", tag) for tag in tags]
        return created_response(request, "manifests", digest, headers)

    def delete(self, request: RegistryRequest) -> Response:
        """Handle ``DELETE /v2/NAME/manifests/REFERENCE``: delete a manifest and all its tags, or a single tag."""
        reference = _parse_reference(request)
        if not self._storage.delete_manifest(
            request.name, reference, lambda current: _check_preconditions(request, current)
        ):
            raise _unknown_manifest(request)
        return make_response(202)

    def _digest_headers(self, digest: Digest) -> dict[str, str]:
        return {"Docker-Content-Digest": digest} if self._digest_header else {}


def _unknown_manifest(request: RegistryRequest) -> ErrorResponse:
    return ErrorResponse(404, "MANIFEST_UNKNOWN", f"repository {request.name} has no manifest {request.reference}")


def _parse_reference(request: RegistryRequest) -> Digest | str:
    """Parse the reference in the path of a request.

    Raises:
        ErrorResponse: The reference is neither a valid digest nor a valid tag.
    """
    if ":" in request.reference:  # a tag has no colon
        return parse_digest(request.reference, for_verification=request.http_request.method == "PUT")
    return _parse_tag(request, request.reference)


def _parse_tag(request: RegistryRequest, tag: str) -> str:
    try:
        return check_tag(tag)
    except UsageError as error:
        if request.http_request.method != "PUT":
            raise _unknown_manifest(request) from None  # a registry cannot have a manifest with an invalid tag
        raise ErrorResponse(400, "MANIFEST_INVALID", str(error)) from None


def _etag(manifest: PushedManifest) -> str:
    return f'"{manifest.descriptor.digest}"'


def _check_preconditions(request: RegistryRequest, current: PushedManifest | None) -> None:
    """Evaluate If-Match and If-None-Match in the order of RFC 9110, section 13.2.2.

    Args:
        request: The request.
        current: The manifest that the reference resolves to. `None` if it does not exist.

    Raises:
        ErrorResponse: A precondition failed (412), or the client already has the manifest (304).
    """
    headers = request.http_request.headers
    if "if-match" in headers and not _matches(headers["if-match"], current):
        raise ErrorResponse(412, "", f"precondition failed: {request.reference} does not match If-Match")
    # If-None-Match compares weakly: `W/"x"` matches `"x"` (section 13.1.2).
    if "if-none-match" in headers and _matches(headers["if-none-match"].replace("W/", ""), current):
        if request.http_request.method in ("GET", "HEAD") and current is not None:
            raise ErrorResponse(304, "", headers={"ETag": _etag(current)})
        raise ErrorResponse(412, "", f"precondition failed: {request.reference} matches If-None-Match")


def _matches(etags: str, current: PushedManifest | None) -> bool:
    if current is None:
        return False
    return etags.strip() == "*" or _etag(current) in (etag.strip() for etag in etags.split(","))
