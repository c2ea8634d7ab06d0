"""A request to a registry server, the responses to it, and the exception that becomes an error response.

Follows the OCI distribution specification 1.1, "Error Codes": an error response is JSON with one of its codes, or
plain text if none of them fits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from .._http.headers import Headers, HeadersLike, is_bodiless
from .._http.messages import Request, Response
from .._oci.digest import Digest
from ..errors import UsageError

__all__ = [
    "JSON",
    "RegistryRequest",
    "ErrorResponse",
    "complete_response",
    "created_response",
    "error_response",
    "make_response",
    "parse_digest",
]

JSON = "application/json"


@final
@dataclass(frozen=True, slots=True)
class RegistryRequest:
    """A request to one of the endpoints.

    Attributes:
        http_request: The request as it was received.
        path: The decoded path of its URL.
        name: The name of the repository; empty if the endpoint has none.
        reference: The digest, the tag or the upload id in the path; empty if the endpoint has none.
        query: The query parameters, blank ones included.
    """

    http_request: Request
    path: str
    name: str
    reference: str
    query: Mapping[str, Sequence[str]]

    def get_parameter(self, name: str) -> str | None:
        """The first value of a query parameter; None if it is absent."""
        return next(iter(self.query.get(name, ())), None)


@final
class ErrorResponse(Exception):
    """Raised to refuse a request. Each reason becomes an error of the response.

    Args:
        status: The status code.
        code: One of the specification's error codes; empty if none fits, which makes the response plain text.
        reasons: What is wrong, a sentence each. Without any, as for a 304, the response has no body.
        headers: Further headers of the response.
    """

    def __init__(self, status: int, code: str, *reasons: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, code, *reasons)
        self.status = status
        self.code = code
        self.reasons = reasons
        self.headers = dict(headers or {})

    def to_response(self) -> Response:
        """The error response."""
        if not self.reasons:
            return make_response(self.status, self.headers)
        if not self.code:
            text = "\n".join(self.reasons).encode()
            return make_response(self.status, self.headers, text, "text/plain; charset=utf-8")
        return error_response(self.status, self.code, *self.reasons, headers=self.headers)


def make_response(status: int, headers: HeadersLike = (), content: bytes = b"", media_type: str = "") -> Response:
    """A response with a Content-Length, if it may have one (RFC 9110, section 8.6), and a Content-Type, if given."""
    fields = list(Headers(headers).items())
    if media_type:
        fields.append(("Content-Type", media_type))
    if not is_bodiless(None, status):
        fields.append(("Content-Length", str(len(content))))
    return Response(status, fields, content)


def error_response(status: int, code: str, *messages: str, headers: HeadersLike = ()) -> Response:
    """An error response in the JSON of the distribution specification, with an error for each message."""
    errors = [{"code": code, "message": message} for message in messages]
    return make_response(status, headers, json.dumps({"errors": errors}).encode(), JSON)


def complete_response(request: Request, response: Response) -> Response:
    """The response with its request set, without content if the request is HEAD (RFC 9110, section 9.3.2)."""
    if request.method == "HEAD":
        return Response(response.status, response.headers, b"", request)
    return response.replace(request=request)


def created_response(request: RegistryRequest, kind: str, digest: Digest, headers: HeadersLike) -> Response:
    """A 201 for a blob or a manifest, with the Location from which it can be pulled."""
    return make_response(201, [("Location", f"/v2/{request.name}/{kind}/{digest}"), *Headers(headers).items()])


def parse_digest(text: str | None, *, for_verification: bool = False) -> Digest:
    """Parse a digest of a request.

    Args:
        text: The text; None if it is absent.
        for_verification: Whether content must be verified by it.

    Raises:
        ErrorResponse: It is absent or malformed, or its algorithm is unknown and content must be verified by it.
    """
    try:
        digest = Digest(text or "")
        if for_verification:
            digest.hasher()
    except UsageError as error:
        raise ErrorResponse(400, "DIGEST_INVALID", str(error)) from None
    return digest
