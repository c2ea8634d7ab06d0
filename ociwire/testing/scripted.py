"""Transport that returns scripted responses in order and records requests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import final

from .._http.messages import Request, Response
from .._http.transport import BaseTransport
from ..errors import UsageError

__all__ = ["ScriptedTransport"]


@final
class ScriptedTransport(BaseTransport):
    """Transport that answers each request with the next entry of a script. Thread-safe.

    An entry is one of the following:

    - a response, which is returned with its request set. The response can be used repeatedly if its body is bytes.
    - an exception, which is raised.
    - a function that gets the request and returns a response or an exception.

    If the status is below 300, the transport reads the body of the request, like a server that accepts the request.

    The transport is a context manager. It calls `assert_done` if the block ends without an exception.

    Args:
        answers: The entries of the script.

    Attributes:
        requests: The requests, in order.
        bodies: Content of the body of each request. `None` if it had no body or its body was not read.

    >>> from ociwire import Client, Response
    >>> from ociwire.testing import ScriptedTransport
    >>> with ScriptedTransport([Response(200, (), b'{"name": "models/llm", "tags": ["v1"]}')]) as transport:
    ...     list(Client("registry.example", transport).tags("models/llm"))
    ['v1']
    >>> transport.requests[0].url
    'https://registry.example/v2/models/llm/tags/list'
    """

    def __init__(
        self, answers: Iterable[Response | BaseException | Callable[[Request], Response | BaseException]]
    ) -> None:
        if isinstance(answers, (Response, BaseException)) or not isinstance(answers, Iterable):
            raise UsageError(f"answers must be an iterable, got {type(answers).__name__}: pass [Response(200)]")
        self._answers = list(answers)
        for number, answer in enumerate(self._answers, 1):
            is_class = isinstance(answer, type)
            if is_class or not (isinstance(answer, (Response, BaseException)) or callable(answer)):
                got = f"the class {answer.__name__}" if isinstance(answer, type) else type(answer).__name__
                raise UsageError(
                    f"invalid script entry {number}: expected a Response, an exception or a function that takes a"
                    f" request, got {got}"
                )
        self._lock = threading.Lock()
        self._closed = False
        self.requests: list[Request] = []
        self.bodies: list[bytes | None] = []

    def round_trip(self, request: Request, /) -> Response:
        """Return the next response of the script, or raise its next exception.

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
                f"unexpected request {index + 1}: {request.method} {request.url}: "
                f"the script has {len(self._answers)} entries"
            )
        answer = self._answers[index]
        if isinstance(answer, BaseException):
            raise answer
        was_resendable = request.body is not None and request.body.resendable
        response = answer if isinstance(answer, Response) else answer(request)
        if isinstance(response, BaseException):
            raise response
        # Do not open a single-use body again if a function in the script has read it. If the body was consumed before
        # this call, open it, so that BodyConsumedError is raised as in other base transports.
        if response.status < 300 and request.body is not None and (request.body.resendable or not was_resendable):
            self.bodies[index] = b"".join(request.body.open())
        if response.request is not None and response is not answer:
            return response
        return response.replace(request=request)

    def assert_done(self) -> None:
        """Check that all entries have been used.

        Raises:
            AssertionError: Some entries have not been used. The message lists the requests.
        """
        unused = len(self._answers) - len(self.requests)
        if unused > 0:
            asked = "".join(f"\n  {request.method} {request.url}" for request in self.requests)
            raise AssertionError(f"{unused} of {len(self._answers)} script entries were not used; requests:{asked}")

    def close(self) -> None:
        """Close the transport. Idempotent. Unused entries are not checked; see `assert_done`."""
        self._closed = True

    def __exit__(self, *exc_info: object) -> None:
        self.close()
        if not any(exc_info):
            self.assert_done()
