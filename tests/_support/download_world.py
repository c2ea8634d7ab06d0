"""A registry with one blob, a download folder, and connections that fail or have a limited bandwidth."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ociwire import Client, Descriptor, FunctionTransport, Request, Response
from ociwire.media_types import OCTET_STREAM
from ociwire.testing import MemoryRegistry
from ociwire.transfer._download import download
from tests._support.fault_world import HOST, NAME, ResponseTracker

READ_SIZE = 1000


class DownloadWorld:
    """A registry with one blob, a client, and a download folder.

    Attributes:
        folder: The download folder.
        content: The content of the blob.
        target: The path to which the blob is downloaded.
        part: The path of the partial file.
        registry: The registry.
        descriptor: The descriptor of the blob.
        watch: The responses that are open.
        client: The client.
        requests: Method and range of each request.
        modify_response: Function that is called with each request and the response of the registry, and returns the
            response to use. Defaults to the response of the registry.
    """

    def __init__(self, folder: Path, content: bytes) -> None:
        self.folder = folder
        self.content = content
        self.target = folder / "blob.bin"
        self.registry = MemoryRegistry()
        self.descriptor = Descriptor.of(content, OCTET_STREAM)
        Client(HOST, self.registry).push_blob(NAME, self.descriptor, content)
        self.watch = ResponseTracker(FunctionTransport(self._answer))
        self.client = Client(HOST, self.watch)
        self.requests: list[str] = []
        self.modify_response: Callable[[Request, Response], Response] = lambda request, response: response
        self.part = folder / f".blob.bin.{self.descriptor.digest.encoded[:12]}.part"

    def _answer(self, request: Request) -> Response:
        requested_range = request.headers.get("range") or "all"
        self.requests.append(f"{request.method} {requested_range}".removesuffix(" all"))
        return self.modify_response(request, self.registry.round_trip(request))

    def download(self, **options: Any) -> Descriptor:
        return download(self.client, NAME, self.descriptor.digest, self.target, **options)

    def check_complete(self) -> None:
        """Check that the download is complete and that the folder has no other file."""
        assert self.target.read_bytes() == self.content
        assert os.listdir(self.folder) == ["blob.bin"]
        assert not self.watch.open

    def check_incomplete(self) -> None:
        assert not self.target.exists()
        assert not self.watch.open


class FailingBody:
    """Body that raises an error at the end of its content."""

    def __init__(self, content: bytes, error: BaseException) -> None:
        self._content = content
        self._error = error

    def readinto(self, buffer: memoryview) -> int:
        if not self._content:
            raise self._error
        count = min(len(buffer), len(self._content), READ_SIZE)
        buffer[:count], self._content = self._content[:count], self._content[count:]
        return count

    def close(self) -> None:
        pass


def truncate_responses(world: DownloadWorld, count: int, error: BaseException) -> None:
    """Truncate all later responses with the blob to `count` bytes, and fail all requests for a range."""

    def modify_response(request: Request, response: Response) -> Response:
        if request.method != "GET":
            return response
        if "range" in request.headers:
            response.close()
            raise error
        return response.replace(body=FailingBody(world.content[:count], error))

    world.modify_response = modify_response


def restore_responses(world: DownloadWorld) -> None:
    world.modify_response = lambda request, response: response
    world.requests.clear()


def full_response(world: DownloadWorld) -> Response:
    return Response(200, {"Content-Length": str(len(world.content))}, iter([world.content]))


class BandwidthLimiter:
    """Limits each connection to `PIECE` bytes per `STEP` seconds of a simulated clock.

    The open connections deliver one piece each in turn. No thread sleeps.

    Attributes:
        max_open: Maximum number of connections that were open at the same time.
    """

    PIECE = 1000
    STEP = 0.125

    def __init__(self, world: DownloadWorld, connections: int) -> None:
        self._connections = connections
        self.now = 0.0
        self.max_open = 0
        self._turn = threading.Condition()
        self._due: dict[int, float] = {}
        world.modify_response = self.modify_response

    def modify_response(self, request: Request, response: Response) -> Response:
        if request.method != "GET":
            return response
        return response.replace(body=LimitedBody(self, response))

    def open(self, number: int) -> None:
        with self._turn:
            self._due[number] = self.now
            self.max_open = max(self.max_open, len(self._due))
            self._turn.notify_all()

    def wait(self, number: int) -> None:
        """Wait until the next piece is due from this connection."""
        with self._turn:
            while self.max_open < self._connections:
                assert self._turn.wait(30), "too few connections"
            if number in self._due:
                self._due[number] += self.STEP
                self._turn.notify_all()  # another connection may be due now
                while self._due[number] > min(self._due.values()):
                    assert self._turn.wait(30), "no connection was due for 30 seconds"
                self.now = max(self.now, self._due[number])
                self._turn.notify_all()

    def close(self, number: int) -> None:
        with self._turn:
            self._due.pop(number, None)
            self._turn.notify_all()


class LimitedBody:
    """Body of a connection with limited bandwidth."""

    def __init__(self, limiter: BandwidthLimiter, response: Response) -> None:
        self._limiter, self._response = limiter, response
        limiter.open(id(self))

    def readinto(self, buffer: memoryview) -> int:
        self._limiter.wait(id(self))
        count = self._response.readinto(buffer[: BandwidthLimiter.PIECE])
        if count == 0:
            self.close()
        return count

    def close(self) -> None:
        self._limiter.close(id(self))
        self._response.close()


def limit_bandwidth(world: DownloadWorld, *, connections: int = 1) -> BandwidthLimiter:
    """Limit the bandwidth of each connection. No connection delivers data until `connections` of them are open."""
    return BandwidthLimiter(world, connections)
