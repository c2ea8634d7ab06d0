"""Receives the body of a request: whole, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

from .._http.body import Body, length_mismatch, times_opened
from ..errors import BodyConsumedError
from ._messages import ErrorResponse
from ._storage import OutOfSpace, Storage

__all__ = ["ReceivedBody", "receive_body"]


@final
@dataclass(slots=True)
class ReceivedBody:
    """The body of a request, for which space is reserved.

    Attributes:
        content: Its bytes.
        stored: Number of its bytes that the storage keeps, set by the user of `receive_body`; the rest is released.
    """

    content: bytes
    stored: int = 0


@contextmanager
def receive_body(storage: Storage, body: Body | None, limit: int | None = None) -> Iterator[ReceivedBody]:
    """Read the body of a request into memory. When the block ends, the space that was not used is released.

    What a base transport demands of a body is demanded here, too: that it has the length that it states.

    Args:
        storage: Where space is reserved.
        body: The body of the request.
        limit: Maximum number of bytes. `None` means no limit.

    Raises:
        ErrorResponse: The body is longer than the limit, or there is no space for it (413). Nothing is read if its
            length is known to be too large.
        BodyConsumedError: The body is single-use and was read before, or is opened by another user meanwhile.
        SizeMismatch: The body is longer or shorter than its length.
        Exception: What the content raised, unchanged.
    """
    received, reserved = ReceivedBody(b""), 0

    def reserve(count: int) -> None:
        nonlocal reserved
        try:
            storage.reserve(count)
        except OutOfSpace as error:
            raise ErrorResponse(413, "SIZE_INVALID", str(error)) from None
        reserved += count

    try:
        if body is not None:
            received.content = _read(body, limit, reserve)
        yield received
    finally:
        storage.release(reserved - received.stored)


def _read(body: Body, limit: int | None, reserve: Callable[[int], None]) -> bytes:
    _check_limit(body.length or 0, limit)
    reserve(body.length or 0)
    content = bytearray()  # not a list: each of very many small chunks would take 40 bytes more
    chunks, opening = body.open(), times_opened(body)
    for chunk in chunks:
        size = len(content) + len(chunk)
        if body.length is not None and size > body.length:
            raise length_mismatch(body.length, size)
        _check_limit(size, limit)
        if body.length is None:
            reserve(len(chunk))
        content += chunk
    if times_opened(body) != opening:
        raise BodyConsumedError("the body was opened again while it was being read")
    if body.length is not None and len(content) < body.length:
        raise length_mismatch(body.length, len(content))
    return bytes(content)


def _check_limit(size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise ErrorResponse(413, "SIZE_INVALID", f"at most {limit} bytes are taken, and there are {size} or more")
