"""A registry with one blob, a folder to download it to, and connections that are limited, broken or stalled."""

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
from tests._support.fault_world import HOST, NAME, Watch

WRITES = 1000


class Place:
    """A registry with one blob whose responses a test can change, and a download folder."""

    def __init__(self, folder: Path, content: bytes) -> None:
        self.folder = folder
        self.content = content
        self.target = folder / "blob.bin"
        self.registry = MemoryRegistry()
        self.described = Descriptor.of(content, OCTET_STREAM)
        Client(HOST, self.registry).push_blob(NAME, self.described, content)
        self.watch = Watch(FunctionTransport(self._answer))
        self.client = Client(HOST, self.watch)
        self.requests: list[str] = []
        self.tamper: Callable[[Request, Response], Response] = lambda request, response: response
        self.part = folder / f".blob.bin.{self.described.digest.encoded[:12]}.part"

    def _answer(self, request: Request) -> Response:
        wanted = request.headers.get("range") or "all"
        self.requests.append(f"{request.method} {wanted}".removesuffix(" all"))
        return self.tamper(request, self.registry.round_trip(request))

    def download(self, **options: Any) -> Descriptor:
        return download(self.client, NAME, self.described.digest, self.target, **options)

    def check(self) -> None:
        """Check that the download is complete and that no other file is left."""
        assert self.target.read_bytes() == self.content
        assert os.listdir(self.folder) == ["blob.bin"]
        assert not self.watch.open

    def check_not_done(self) -> None:
        assert not self.target.exists()
        assert not self.watch.open


class Broken:
    """Body that raises an error after `at` bytes."""

    def __init__(self, content: bytes, error: BaseException) -> None:
        self._content = content
        self._error = error

    def readinto(self, buffer: memoryview) -> int:
        if not self._content:
            raise self._error
        count = min(len(buffer), len(self._content), WRITES)
        buffer[:count], self._content = self._content[:count], self._content[count:]
        return count

    def close(self) -> None:
        pass


def breaks_after(place: Place, count: int, error: BaseException) -> None:
    """Truncate all later responses with the blob."""

    def tamper(request: Request, response: Response) -> Response:
        if request.method != "GET":
            return response
        if "range" in request.headers:
            response.close()
            raise error
        return response.replace(body=Broken(place.content[:count], error))

    place.tamper = tamper


def mends(place: Place) -> None:
    place.tamper = lambda request, response: response
    place.requests.clear()


def whole(place: Place) -> Response:
    return Response(200, {"Content-Length": str(len(place.content))}, iter([place.content]))


class Link:
    """Connections that are limited to `PIECE` bytes in `STEP` seconds of a simulated clock.

    The open connections deliver one piece each in turn. Nothing sleeps.

    Attributes:
        most: Maximum number of connections that were open at the same time.
    """

    PIECE = 1000
    STEP = 0.125

    def __init__(self, place: Place, connections: int) -> None:
        self._connections = connections
        self.now = 0.0
        self.most = 0
        self._turn = threading.Condition()
        self._due: dict[int, float] = {}
        place.tamper = self.tamper

    def tamper(self, request: Request, response: Response) -> Response:
        if request.method != "GET":
            return response
        return response.replace(body=Limited(self, response))

    def open(self, number: int) -> None:
        with self._turn:
            self._due[number] = self.now
            self.most = max(self.most, len(self._due))
            self._turn.notify_all()

    def wait(self, number: int) -> None:
        """Wait until this connection is the one that is due first."""
        with self._turn:
            while self.most < self._connections:
                assert self._turn.wait(30), "too few connections"
            if number in self._due:
                self._due[number] += self.STEP
                self._turn.notify_all()  # another connection may be the first now
                while self._due[number] > min(self._due.values()):
                    assert self._turn.wait(30), "no connection was due for 30 seconds"
                self.now = max(self.now, self._due[number])
                self._turn.notify_all()

    def close(self, number: int) -> None:
        with self._turn:
            self._due.pop(number, None)
            self._turn.notify_all()


class Limited:
    def __init__(self, link: Link, response: Response) -> None:
        self._link, self._response = link, response
        link.open(id(self))

    def readinto(self, buffer: memoryview) -> int:
        self._link.wait(id(self))
        count = self._response.readinto(buffer[: Link.PIECE])
        if count == 0:
            self.close()
        return count

    def close(self) -> None:
        self._link.close(id(self))
        self._response.close()


def limited(place: Place, *, connections: int = 1) -> Link:
    """Limit each connection of the place. No connection delivers data before `together` of them are open."""
    return Link(place, connections)
