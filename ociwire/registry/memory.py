"""A registry in memory that is a transport: to the letter of the OCI distribution specification 1.1, for any host.

It does what the specification demands, what it recommends, and of what it allows what clients rely on. It promises
nothing to a client that a registry does not promise. It never authenticates, and never fails of itself: `AuthGuard` and
others stand in front of it for that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import final
from urllib.parse import parse_qs, unquote, urlsplit

from .._arguments import check_integer
from .._http.messages import Request, Response
from .._oci.reference import check_repository
from ..errors import UsageError
from ._blobs import Blobs
from ._lists import Lists
from ._manifests import Manifests
from ._responses import JSON, Call, Refused, answer
from ._store import Store

__all__ = ["MemoryRegistry"]

_Answers = Mapping[str, Callable[[Call], Response]]

# Specification, "Endpoints": by what ends the path, because a repository may be called `a/blobs/b`.
_BASE = re.compile(r"/v2/")
_CATALOG = re.compile(r"/v2/_catalog")
_TAGS = re.compile(r"/v2/(?P<name>.+)/tags/list")
_UPLOADS = re.compile(r"/v2/(?P<name>.+)/blobs/uploads/")
_UPLOAD = re.compile(r"/v2/(?P<name>.+)/blobs/uploads/(?P<reference>[^/]+)")
_BLOB = re.compile(r"/v2/(?P<name>.+)/blobs/(?P<reference>[^/]+)")
_MANIFEST = re.compile(r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)")
_REFERRERS = re.compile(r"/v2/(?P<name>.+)/referrers/(?P<reference>[^/]+)")


@final
class MemoryRegistry:
    """Answers as a registry does, from memory; the host of a URL is not looked at. May be shared by threads.

    Repositories come into being with what is pushed to them. A request's body is pulled only once the request is known
    to be good, chunk by chunk, with no lock held; what the content raises passes through, and nothing of it is kept: an
    upload stays as it was.

    Args:
        deletes: Whether blobs, manifests and tags are deleted; else that is a 405. Uploads can always be cancelled.
        referrers_api: Whether the referrers API is there; else it is a 404, and OCI-Subject is never sent.
        mounts: Whether blobs are mounted from other repositories; else an upload is opened instead.
        min_chunk_length: How many bytes a chunk has at least (``OCI-Chunk-Min-Length``). A smaller one can only be the
            last: one that comes after it is refused. None is any number.
        digest_header: Whether answers have a Docker-Content-Digest; ECR's have not always.
        page_size: How many entries a page of a list has at most, whatever ``n`` says; None is any number.
        manifest_limit: How many bytes a manifest may have; more is a 413. None is any number.
        max_bytes: Maximum number of bytes of all blobs, manifests, open uploads and request bodies. Defaults to
            1 GiB. A request for which there is no room is answered 413 with SIZE_INVALID. Deleting a blob from its
            last repository, deleting a manifest and cancelling an upload make room. Names, tags and Python's
            overhead per object are not counted. None means no limit.

    Raises:
        UsageError: A number is not an integer, or is less than 1.
    """

    def __init__(
        self,
        *,
        deletes: bool = True,
        referrers_api: bool = True,
        mounts: bool = True,
        min_chunk_length: int | None = None,
        digest_header: bool = True,
        page_size: int | None = None,
        manifest_limit: int | None = 4 * 1024 * 1024,
        max_bytes: int | None = 1024 * 1024 * 1024,
    ) -> None:
        for name, value in (
            ("min_chunk_length", min_chunk_length),
            ("page_size", page_size),
            ("manifest_limit", manifest_limit),
            ("max_bytes", max_bytes),
        ):
            if value is not None:
                check_integer(name, value, minimum=1)
        self._closed = False
        self._store = store = Store(max_bytes)
        blobs = Blobs(store, mounts=mounts, min_chunk_length=min_chunk_length or 0, digest_header=digest_header)
        manifests = Manifests(store, limit=manifest_limit, referrers_api=referrers_api, digest_header=digest_header)
        lists = Lists(store, page_size=page_size)
        self._endpoints: list[tuple[re.Pattern[str], _Answers]] = [
            (_BASE, {"GET": _base}),
            (_CATALOG, {"GET": lists.catalog}),
            (_TAGS, {"GET": lists.tags}),
            (_UPLOADS, {"POST": blobs.start}),
            (
                _UPLOAD,
                {"GET": blobs.status, "PATCH": blobs.extend, "PUT": blobs.finish, "DELETE": blobs.cancel},
            ),
            (_BLOB, {"GET": blobs.get} | ({"DELETE": blobs.delete} if deletes else {})),
            (
                _MANIFEST,
                {"GET": manifests.get, "PUT": manifests.put} | ({"DELETE": manifests.delete} if deletes else {}),
            ),
            *([(_REFERRERS, {"GET": lists.referrers})] if referrers_api else []),
        ]

    @property
    def open_uploads(self) -> int:
        """How many uploads are under way, neither finished nor cancelled."""
        return self._store.open_uploads()

    @property
    def stored_bytes(self) -> int:
        """How many bytes all blobs have together, each counted once, in however many repositories it is."""
        return self._store.stored_bytes()

    def round_trip(self, request: Request, /) -> Response:
        """Answer a request.

        Raises:
            BodyConsumedError: The request's body is one-shot, and was pulled from before.
            SizeMismatch: The request's body is longer or shorter than its length.
            UsageError: The registry is closed.
            Exception: Whatever the request's body raised, as it was raised.
        """
        if self._closed:
            raise UsageError("the registry is closed")
        try:
            response = self._answer(request)
        except Refused as refused:
            response = refused.answer()
        if request.method == "HEAD":
            return Response(response.status, response.headers, b"", request)
        return response.replace(request=request)

    def close(self) -> None:
        """Refuse further requests. May be called again."""
        self._closed = True

    def _answer(self, request: Request) -> Response:
        url = urlsplit(request.url)
        path = unquote(url.path)
        for pattern, answers in self._endpoints:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            # RFC 9110, section 9.1: where there is GET, there is HEAD.
            handler = answers.get("GET" if request.method == "HEAD" else request.method)
            if handler is None:
                raise _not_allowed(request, answers)
            query = parse_qs(url.query, keep_blank_values=True)
            found = match.groupdict()
            call = Call(request, path, _name(found.get("name")), found.get("reference", ""), query)
            return handler(call)
        raise Refused(404, "", f"there is nothing at {path:.300}")


def _base(call: Call) -> Response:
    """``GET /v2/``: this is a registry ("Determining Support")."""
    return answer(200, {"Docker-Distribution-API-Version": "registry/2.0"}, b"{}", JSON)


def _name(name: str | None) -> str:
    try:
        return "" if name is None else check_repository(name)
    except UsageError as error:
        raise Refused(400, "NAME_INVALID", str(error)) from None


def _not_allowed(request: Request, answers: _Answers) -> Refused:
    allowed = ", ".join(method for name in answers for method in ((name, "HEAD") if name == "GET" else (name,)))
    reason = f"{request.method} is not for this path, or is switched off: it takes {allowed}"
    return Refused(405, "UNSUPPORTED", reason, headers={"Allow": allowed})
