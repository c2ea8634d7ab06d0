"""What the registry in memory speaks: what was asked, the answer to it, and the refusal that says why not.

Follows the OCI distribution specification 1.1, "Error Codes": a refusal is JSON with one of its codes, or plain text
where none of them fits. A body is pulled here and nowhere else: whole, or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from .._http.body import Body, times_opened
from .._http.headers import Headers, HeadersLike
from .._http.messages import Request, Response
from .._oci.digest import Digest
from ..errors import BodyConsumedError, SizeMismatch, UsageError

__all__ = ["Call", "Refused", "answer", "created", "pull", "read_digest"]

JSON = "application/json"


@final
@dataclass(frozen=True, slots=True)
class Call:
    """A request to one of the endpoints.

    Attributes:
        request: The request as it came.
        path: The path of its URL, decoded.
        name: The repository's name; empty where the endpoint has none.
        reference: What is meant in it: a digest, a tag, an upload's id; empty where the endpoint has none.
        query: The parameters of its URL, blank ones included.
    """

    request: Request
    path: str
    name: str
    reference: str
    query: Mapping[str, Sequence[str]]

    def first(self, parameter: str) -> str | None:
        """The first value of a parameter; None where it is absent."""
        return next(iter(self.query.get(parameter, ())), None)


@final
class Refused(Exception):
    """A request that is not done: each reason is an error of its own in the answer.

    Args:
        status: The status of the answer.
        code: One of the specification's error codes; empty where none of them fits, which makes the answer plain text.
        reasons: What was wrong, in a sentence each; none, for a 304, leaves the answer without a body.
        headers: What else the answer has to say.
    """

    def __init__(self, status: int, code: str, *reasons: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, code, *reasons)
        self.status = status
        self.code = code
        self.reasons = reasons
        self.headers = dict(headers or {})

    def answer(self) -> Response:
        """The answer that says so."""
        if not self.reasons:
            return answer(self.status, self.headers)
        if not self.code:
            return answer(self.status, self.headers, "\n".join(self.reasons).encode(), "text/plain; charset=utf-8")
        errors = [{"code": self.code, "message": reason} for reason in self.reasons]
        return answer(self.status, self.headers, json.dumps({"errors": errors}).encode(), JSON)


def answer(status: int, headers: HeadersLike = (), content: bytes = b"", media_type: str = "") -> Response:
    """An answer with its Content-Length, if it may have one (RFC 9110, section 8.6), and its Content-Type, if given."""
    fields = list(Headers(headers).items())
    if media_type:
        fields.append(("Content-Type", media_type))
    if status not in (204, 304):
        fields.append(("Content-Length", str(len(content))))
    return Response(status, fields, content)


def created(call: Call, kind: str, digest: Digest, headers: HeadersLike) -> Response:
    """A 201 for a blob or a manifest, with the Location from which it can be pulled."""
    return answer(201, [("Location", f"/v2/{call.name}/{kind}/{digest}"), *Headers(headers).items()])


def read_digest(text: str | None, *, verifies: bool = False) -> Digest:
    """A digest of a request.

    Args:
        text: As it came; None if it did not.
        verifies: Whether content has to be verified by it.

    Raises:
        Refused: It is absent or malformed, or content has to be verified by it and its algorithm is not known here.
    """
    try:
        digest = Digest(text or "")
        if verifies:
            digest.hasher()
    except UsageError as error:
        raise Refused(400, "DIGEST_INVALID", str(error)) from None
    return digest


def pull(body: Body | None, reserve: Callable[[int], None], most: int | None = None) -> bytes:
    """The content of a request. What the wire demands of a body is demanded here too.

    Args:
        body: The request's.
        reserve: Called before bytes are held, with their number; raises `Refused` where there is no room for them.
        most: How many bytes it may have; None is any number.

    Raises:
        Refused: It has more, or there is no room for it. Nothing is pulled if its length is known to be too large.
        BodyConsumedError: It is one-shot, and was pulled from before, or is opened by somebody else meanwhile.
        SizeMismatch: It is longer or shorter than its length.
        Exception: Whatever the content raised, as it was raised.
    """
    if body is None:
        return b""
    _check_size(body.length or 0, most)
    reserve(body.length or 0)
    chunks, opening, content = body.open(), times_opened(body), bytearray()
    for chunk in chunks:
        size = len(content) + len(chunk)
        _check_length(body.length, size, whole=False)
        _check_size(size, most)
        if body.length is None:
            reserve(len(chunk))
        content += chunk  # not a list: each of very many small chunks would take 40 bytes more
    if times_opened(body) != opening:
        raise BodyConsumedError("the body was opened again while it was being pulled")
    _check_length(body.length, len(content), whole=True)
    return bytes(content)


def _check_size(size: int, most: int | None) -> None:
    if most is not None and size > most:
        raise Refused(413, "SIZE_INVALID", f"at most {most} bytes are taken, and there are {size} or more")


def _check_length(length: int | None, size: int, *, whole: bool) -> None:
    if length is None or (size <= length and not whole) or size == length:
        return
    raise SizeMismatch(
        f"the body is {'longer' if size > length else 'shorter'} than its length: {length} bytes were announced, and"
        f" {'at least' if size > length else 'only'} {size} came",
        expected=length,
        actual=size,
    )
