"""A transport that returns scripted responses in order, and records requests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import final

from .._http.messages import Request, Response
from ..errors import UsageError

__all__ = ["ScriptedTransport"]


@final
class ScriptedTransport:
    """Answers each request with the next entry of its script.

    A `Response` is returned with the request set (one that is made of bytes can be used any number of times); an
    exception is raised; a function is called with the request, and returns one of these. If the status is below 300,
    the body of the request is read, as by a server that accepts it.

    As a context manager it checks, if its block ends without an exception, that all entries were used.

    Args:
        answers: The script.

    Attributes:
        requests: The requests, in order.
        bodies: The content of the body of each request; None if it had no body, or the body was not read.
    """

    def __init__(
        self, answers: Iterable[Response | BaseException | Callable[[Request], Response | BaseException]]
    ) -> None:
        self._answers = list(answers)
        self._lock = threading.Lock()
        self._closed = False
        self.requests: list[Request] = []
        self.bodies: list[bytes | None] = []

    def round_trip(self, request: Request, /) -> Response:
        """Return the next response.

        Raises:
            AssertionError: All entries have been used.
            BodyConsumedError: The request's body is single-use and was read before.
            UsageError: The transport is closed.
        """
        if self._closed:
            raise UsageError("the transport is closed")
        with self._lock:
            index = len(self.requests)
            self.requests.append(request)
            self.bodies.append(None)
        if index >= len(self._answers):
            raise AssertionError(
                f"request {index + 1} of a script of {len(self._answers)}: {request.method} {request.url}"
            )
        answer = self._answers[index]
        if isinstance(answer, BaseException):
            raise answer
        was_resendable = request.body is not None and request.body.resendable
        response = answer if isinstance(answer, Response) else answer(request)
        if isinstance(response, BaseException):
            raise response
        # A function may have read the body itself. A body that was consumed before raises, as in a base transport.
        if response.status < 300 and request.body is not None and (request.body.resendable or not was_resendable):
            self.bodies[index] = b"".join(request.body.open())
        if response.request is not None and response is not answer:
            return response
        return response.replace(request=request)

    def assert_done(self) -> None:
        """Check that all entries were used.

        Raises:
            AssertionError: Some were not.
        """
        unused = len(self._answers) - len(self.requests)
        if unused > 0:
            asked = "".join(f"\n  {request.method} {request.url}" for request in self.requests)
            raise AssertionError(f"{unused} of {len(self._answers)} answers were not asked for; asked were:{asked}")

    def close(self) -> None:
        """Refuse further requests. Does not check for unused entries, as `assert_done` does."""
        self._closed = True

    def __enter__(self) -> ScriptedTransport:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.close()
        if kind is None:
            self.assert_done()
