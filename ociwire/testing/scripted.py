"""A transport that answers from a script, in order, and remembers what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import final

from .._http.messages import Request, Response
from ..errors import UsageError

__all__ = ["ScriptedTransport"]


@final
class ScriptedTransport:
    """Answers each request with the next of its answers.

    A `Response` is handed out, with the request that it answers (one that is made of bytes may stand in the script, and
    in other scripts, any number of times); an exception is raised; a function is called with the request for either.
    The bodies of requests are pulled for answers below 300, as a server would that takes them, and for no others.

    As a context manager it checks, where its block ends without an exception, that all answers were asked for.

    Args:
        answers: The script.

    Attributes:
        requests: What was asked, in order.
        bodies: The content of each of these requests; None where it had none, or was not pulled.
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
        """The next answer.

        Raises:
            AssertionError: The script is at its end.
            BodyConsumedError: The request's body is one-shot, and was pulled from before.
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
        was_whole = request.body is not None and request.body.resendable
        response = answer if isinstance(answer, Response) else answer(request)
        if isinstance(response, BaseException):
            raise response
        # A function may have pulled the body itself; one that came spent is refused, as a wire does.
        if response.status < 300 and request.body is not None and (request.body.resendable or not was_whole):
            self.bodies[index] = b"".join(request.body.open())
        if response.request is not None and response is not answer:
            return response
        return response.replace(request=request)

    def assert_done(self) -> None:
        """Check that all answers were asked for.

        Raises:
            AssertionError: Some were not.
        """
        left = len(self._answers) - len(self.requests)
        if left > 0:
            asked = "".join(f"\n  {request.method} {request.url}" for request in self.requests)
            raise AssertionError(f"{left} of {len(self._answers)} answers were not asked for; asked were:{asked}")

    def close(self) -> None:
        """Refuse further requests. Checks nothing: see `assert_done`."""
        self._closed = True

    def __enter__(self) -> ScriptedTransport:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.close()
        if kind is None:
            self.assert_done()
