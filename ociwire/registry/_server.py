"""Finds the endpoint for a request to a registry server, and turns refusals into responses.

Follows the OCI distribution specification 1.1, "Endpoints". Each handler takes a `RegistryRequest` and returns a
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

# The end of the path decides, because a repository may be called `a/blobs/b`.
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
    """Answers requests from a storage. For the options see `MemoryRegistry`.

    Args:
        storage: The storage.
        deletes: Whether blobs, manifests and tags can be deleted.
        referrers_api: Whether the referrers API is supported.
        mounts: Whether blobs are mounted from other repositories.
        min_chunk_length: Minimum number of bytes of every chunk but the last. 0 means no minimum.
        digest_header: Whether responses have a Docker-Content-Digest.
        page_size: Maximum number of entries of a page. `None` means no limit.
        manifest_limit: Maximum number of bytes of a manifest. `None` means no limit.
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
        # The first pattern that matches decides: uploads come before blobs, whose pattern matches them, too.
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
        """Answer a request.

        Raises:
            BodyConsumedError: The request's body is single-use and was read before.
            SizeMismatch: The request's body is longer or shorter than its length.
            Exception: What the request's body raised, unchanged.
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
            # RFC 9110, section 9.1: what supports GET supports HEAD.
            handler = handlers.get("GET" if request.method == "HEAD" else request.method)
            if handler is None:
                raise _method_not_allowed(request, handlers)
            groups = match.groupdict()
            query = parse_qs(url.query, keep_blank_values=True)
            return handler(
                RegistryRequest(request, path, _parse_name(groups.get("name")), groups.get("reference", ""), query)
            )
        raise ErrorResponse(404, "", f"there is nothing at {path:.300}")


def _get_base(request: RegistryRequest) -> Response:
    """``GET /v2/``: this is a registry ("Determining Support")."""
    return make_response(200, {"Docker-Distribution-API-Version": "registry/2.0"}, b"{}", JSON)


def _parse_name(name: str | None) -> str:
    try:
        return "" if name is None else check_repository(name)
    except UsageError as error:
        raise ErrorResponse(400, "NAME_INVALID", str(error)) from None


def _method_not_allowed(request: Request, handlers: _Handlers) -> ErrorResponse:
    allowed = ", ".join("GET, HEAD" if method == "GET" else method for method in handlers)
    reason = f"{request.method} is not for this path, or is switched off: it takes {allowed}"
    return ErrorResponse(405, "UNSUPPORTED", reason, headers={"Allow": allowed})
