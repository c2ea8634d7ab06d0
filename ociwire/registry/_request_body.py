"""Receives request bodies completely, within the limits of the storage."""

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
    """A received body, for which space is reserved.

    Attributes:
        content: The bytes of the body.
        stored: Number of bytes that the storage keeps. Set it inside the ``with`` block of `receive_body`. At the end
            of the block, the rest of the reserved space is released. Defaults to 0.
    """

    content: bytes
    stored: int = 0


@contextmanager
def receive_body(storage: Storage, body: Body | None, limit: int | None = None) -> Iterator[ReceivedBody]:
    """Read the body of a request into memory. Unused space is released at the end of the block.

    As in every base transport, the body must have exactly the length that it declares.

    Args:
        storage: The storage in which space is reserved.
        body: Body of the request. `None` is read as empty.
        limit: Maximum number of bytes. Defaults to `None`, no limit.

    Raises:
        ErrorResponse: The body exceeds the limit or the free space of the storage (413). If its declared length exceeds
            either, the body is not read.
        BodyConsumedError: The body is single-use and was read before, or was opened again while it was read.
        SizeMismatch: The body is longer or shorter than its declared length.
        Exception: Any exception that the content raises, unchanged.
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
    content = bytearray()  # a list of chunks would use about 40 bytes more per chunk, which are not reserved
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
        reason = f"content too large: at least {size} bytes, expected at most {limit}"
        raise ErrorResponse(413, "SIZE_INVALID", reason)
