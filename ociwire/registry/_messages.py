"""Requests to a registry server, its responses, and the exception that becomes an error response.

Implements the OCI distribution specification 1.1, "Error Codes": the body of an error response is JSON with one of
these codes, or plain text if no code applies.
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
    """A request to an endpoint. Immutable.

    Attributes:
        http_request: The request as received.
        path: Percent-decoded path of the URL.
        name: Name of the repository. Empty if the endpoint has none.
        reference: Digest, tag or upload id at the end of the path. Empty if the endpoint has none.
        query: Query parameters, including blank ones.
    """

    http_request: Request
    path: str
    name: str
    reference: str
    query: Mapping[str, Sequence[str]]

    def get_parameter(self, name: str) -> str | None:
        """Return the first value of a query parameter, or None if it is absent."""
        return next(iter(self.query.get(name, ())), None)


@final
class ErrorResponse(Exception):
    """Raised by a handler to refuse a request.

    Args:
        status: Status code of the response.
        code: Error code of the specification. If empty, the response is plain text.
        reasons: Messages. The response has one error per message. If there are no messages, as for a 304, the response
            has no body.
        headers: Additional headers of the response.
    """

    def __init__(self, status: int, code: str, *reasons: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, code, *reasons)
        self.status = status
        self.code = code
        self.reasons = reasons
        self.headers = dict(headers or {})

    def to_response(self) -> Response:
        """Return the error response."""
        if not self.reasons:
            return make_response(self.status, self.headers)
        if not self.code:
            text = "\n".join(self.reasons).encode()
            return make_response(self.status, self.headers, text, "text/plain; charset=utf-8")
        return error_response(self.status, self.code, *self.reasons, headers=self.headers)


def make_response(status: int, headers: HeadersLike = (), content: bytes = b"", media_type: str = "") -> Response:
    """Return a response with a Content-Length and, if a media type is given, a Content-Type.

    If the status has no body, such as 204, no Content-Length is set (RFC 9110, section 8.6).
    """
    fields = list(Headers(headers).items())
    if media_type:
        fields.append(("Content-Type", media_type))
    if not is_bodiless(None, status):
        fields.append(("Content-Length", str(len(content))))
    return Response(status, fields, content)


def error_response(status: int, code: str, *messages: str, headers: HeadersLike = ()) -> Response:
    """Return an error response as JSON, with one error per message."""
    errors = [{"code": code, "message": message} for message in messages]
    return make_response(status, headers, json.dumps({"errors": errors}).encode(), JSON)


def complete_response(request: Request, response: Response) -> Response:
    """Return the response with its request set, and without content for HEAD (RFC 9110, section 9.3.2)."""
    if request.method == "HEAD":
        return Response(response.status, response.headers, b"", request)
    return response.replace(request=request)


def created_response(request: RegistryRequest, kind: str, digest: Digest, headers: HeadersLike) -> Response:
    """Return a 201 whose Location is the URL of the new blob or manifest."""
    return make_response(201, [("Location", f"/v2/{request.name}/{kind}/{digest}"), *Headers(headers).items()])


def parse_digest(text: str | None, *, for_verification: bool = False) -> Digest:
    """Parse a digest in a request.

    Args:
        text: The digest. `None` if the request has none.
        for_verification: Whether content will be verified against the digest. Defaults to False.

    Raises:
        ErrorResponse: The digest is missing or malformed, or `for_verification` is true and the algorithm of the
            digest is not supported (400).
    """
    try:
        digest = Digest(text or "")
        if for_verification:
            digest.hasher()
    except UsageError as error:
        raise ErrorResponse(400, "DIGEST_INVALID", str(error)) from None
    return digest
