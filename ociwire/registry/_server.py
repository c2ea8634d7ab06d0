"""Routes the requests to a registry server and converts exceptions of handlers to error responses.

Implements the OCI distribution specification 1.1, "Endpoints". Each handler takes a `RegistryRequest` and returns a
response or raises an `ErrorResponse`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import final
from urllib.parse import parse_qs, unquote, urlsplit

from .._http.messages import Request, Response
from .._oci.reference import check_repository
from ..errors import UsageError
from ._blobs import BlobEndpoints
from ._lists import ListEndpoints
from ._manifests import ManifestEndpoints
from ._messages import JSON, ErrorResponse, RegistryRequest, complete_response, make_response
from ._storage import Storage
from ._uploads import UploadEndpoints

__all__ = ["RegistryServer"]

_Handlers = Mapping[str, Callable[[RegistryRequest], Response]]

# The `name` groups are greedy and the patterns are anchored at the end, because `a/blobs/b` is a valid repository name.
_BASE = re.compile(r"/v2/")
_CATALOG = re.compile(r"/v2/_catalog")
_TAGS = re.compile(r"/v2/(?P<name>.+)/tags/list")
_UPLOADS = re.compile(r"/v2/(?P<name>.+)/blobs/uploads/")
_UPLOAD = re.compile(r"/v2/(?P<name>.+)/blobs/uploads/(?P<reference>[^/]+)")
_BLOB = re.compile(r"/v2/(?P<name>.+)/blobs/(?P<reference>[^/]+)")
_MANIFEST = re.compile(r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)")
_REFERRERS = re.compile(r"/v2/(?P<name>.+)/referrers/(?P<reference>[^/]+)")


@final
class RegistryServer:
    """HTTP endpoints of a registry that keeps its content in a storage. Thread-safe.

    `MemoryRegistry` documents the options in detail.

    Args:
        storage: The storage.
        deletes: Whether blobs, manifests and tags can be deleted.
        referrers_api: Whether the referrers API is supported.
        mounts: Whether blobs can be mounted from other repositories.
        min_chunk_length: Minimum size in bytes of every chunk but the last. 0 means no minimum.
        digest_header: Whether responses have a Docker-Content-Digest header.
        page_size: Maximum number of entries per page. `None` means no limit.
        manifest_limit: Maximum size of a manifest in bytes. `None` means no limit.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        deletes: bool,
        referrers_api: bool,
        mounts: bool,
        min_chunk_length: int,
        digest_header: bool,
        page_size: int | None,
        manifest_limit: int | None,
    ) -> None:
        blobs = BlobEndpoints(storage, digest_header=digest_header)
        uploads = UploadEndpoints(
            storage, mounts=mounts, min_chunk_length=min_chunk_length, digest_header=digest_header
        )
        manifests = ManifestEndpoints(
            storage, limit=manifest_limit, referrers_api=referrers_api, digest_header=digest_header
        )
        lists = ListEndpoints(storage, page_size=page_size)
        upload_handlers: _Handlers = {
            "GET": uploads.get_status,
            "PATCH": uploads.append,
            "PUT": uploads.complete,
            "DELETE": uploads.cancel,
        }
        blob_handlers: dict[str, Callable[[RegistryRequest], Response]] = {"GET": blobs.get}
        manifest_handlers: dict[str, Callable[[RegistryRequest], Response]] = {
            "GET": manifests.get,
            "PUT": manifests.put,
        }
        if deletes:
            blob_handlers["DELETE"] = blobs.delete
            manifest_handlers["DELETE"] = manifests.delete
        # The first matching pattern wins: the pattern of blobs also matches uploads, so uploads come first.
        self._endpoints: list[tuple[re.Pattern[str], _Handlers]] = [
            (_BASE, {"GET": _get_base}),
            (_CATALOG, {"GET": lists.catalog}),
            (_TAGS, {"GET": lists.tags}),
            (_UPLOADS, {"POST": uploads.start}),
            (_UPLOAD, upload_handlers),
            (_BLOB, blob_handlers),
            (_MANIFEST, manifest_handlers),
        ]
        if referrers_api:
            self._endpoints.append((_REFERRERS, {"GET": lists.referrers}))

    def handle(self, request: Request) -> Response:
        """Return the response to a request.

        Raises:
            BodyConsumedError: The request's body is single-use and was read before.
            SizeMismatch: The request's body is longer or shorter than its declared length.
            Exception: Any exception that the request's body raises, unchanged.
        """
        try:
            response = self._dispatch(request)
        except ErrorResponse as error:
            response = error.to_response()
        return complete_response(request, response)

    def _dispatch(self, request: Request) -> Response:
        url = urlsplit(request.url)
        path = unquote(url.path)
        for pattern, handlers in self._endpoints:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            # HEAD is handled as GET (RFC 9110, section 9.3.2); complete_response() removes the content.
            handler = handlers.get("GET" if request.method == "HEAD" else request.method)
            if handler is None:
                raise _method_not_allowed(request, handlers)
            groups = match.groupdict()
            query = parse_qs(url.query, keep_blank_values=True)
            return handler(
                RegistryRequest(request, path, _parse_name(groups.get("name")), groups.get("reference", ""), query)
            )
        raise ErrorResponse(404, "", f"no endpoint at {path:.300}")


def _get_base(request: RegistryRequest) -> Response:
    """Handle ``GET /v2/``, by which clients detect a registry ("Determining Support")."""
    return make_response(200, {"Docker-Distribution-API-Version": "registry/2.0"}, b"{}", JSON)


def _parse_name(name: str | None) -> str:
    try:
        return "" if name is None else check_repository(name)
    except UsageError as error:
        raise ErrorResponse(400, "NAME_INVALID", str(error)) from None


def _method_not_allowed(request: Request, handlers: _Handlers) -> ErrorResponse:
    allowed = ", ".join("GET, HEAD" if method == "GET" else method for method in handlers)
    reason = f"method {request.method} is not supported or is disabled for this path: expected one of {allowed}"
    return ErrorResponse(405, "UNSUPPORTED", reason, headers={"Allow": allowed})
