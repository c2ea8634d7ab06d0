"""Client with scripted responses, and responses for several tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ociwire import Client, Descriptor, Request, Response
from ociwire.testing import ScriptedTransport
from tests._support.doubles import FakeReader
from tests.transport.urllib3.scripted_server import Peer, Script

HOST = "registry.example"
BASE = f"https://{HOST}"
NAME = "library/alpine"
CONTENT = b"the content of a blob"
BLOB = Descriptor.of(CONTENT)
BLOB_PATH = f"/v2/{NAME}/blobs/{BLOB.digest}"
UPLOADS_PATH = f"/v2/{NAME}/blobs/uploads/"
PULL = f"repository:{NAME}:pull"
PUSH = f"repository:{NAME}:pull,push"


class ScriptedRegistry:
    """Client with scripted responses whose bodies record whether they are closed.

    Args:
        answers: Answers to the requests, in order: responses, functions from a request to a response, and exceptions to
            raise.
        options: Options of `Client`; ``host`` defaults to `HOST`.
    """

    def __init__(self, *answers: Response | Callable[[Request], Response] | Exception, **options: Any) -> None:
        self.bodies: list[FakeReader] = []
        self.transport = ScriptedTransport([self._track(answer) for answer in answers])
        self.client = Client(options.pop("host", HOST), self.transport, **options)

    def _track(self, answer: Any) -> Any:
        if not isinstance(answer, Response):
            return answer
        self.bodies.append(FakeReader(answer.replace().read()))  # a constant response may also be in other scripts
        return Response(answer.status, answer.headers, self.bodies[-1])

    @property
    def requests(self) -> list[Request]:
        return self.transport.requests

    @property
    def methods(self) -> list[str]:
        return [request.method for request in self.requests]

    @property
    def lines(self) -> list[str]:
        """``METHOD URL`` of each request."""
        return [f"{request.method} {request.url}" for request in self.requests]

    @property
    def paths(self) -> list[str]:
        """The URL of each request without its origin."""
        return [request.url.removeprefix(BASE) for request in self.requests]

    def assert_done(self) -> None:
        """Assert that all answers were used and all responses closed."""
        self.transport.assert_done()
        assert [body.closed for body in self.bodies] == [True] * len(self.bodies)


def headers_from(fields: dict[str, str]) -> dict[str, str]:
    """Return headers from keyword arguments. Underscores in names become hyphens."""
    return {name.replace("_", "-"): value for name, value in fields.items()}


def blob_response(content: bytes = CONTENT, **fields: str) -> Response:
    """Return a 200 response with a blob, which is also the response to its HEAD."""
    return Response(200, {"Content-Length": str(len(content)), **headers_from(fields)}, content)


def error_response(status: int, code: str = "", message: str = "") -> Response:
    """Return an error response with a code, or with a body that is not JSON."""
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode() if code else b"<html>"
    return Response(status, (), body)


def upload_response(location: str | None = UPLOADS_PATH + "1", *, status: int = 202, **fields: str) -> Response:
    """Return the response that opens an upload or accepts a chunk."""
    headers = headers_from(fields)
    return Response(status, headers if location is None else {"Location": location, **headers})


BLOB_CREATED = Response(201, {"Location": BLOB_PATH})


def send_and_close(data: bytes) -> Script:
    """Return a script that reads a request, sends `data` and closes the connection."""

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(data)
        peer.close()

    return script
