"""If a response that was not closed is garbage-collected, its socket is closed and a ResourceWarning is issued."""

from __future__ import annotations

import gc
import io
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from ociwire import Client, Descriptor, LogTransport, default_transport
from ociwire._http.messages import Request, Response, with_redactor
from ociwire.auth import Anonymous
from ociwire.errors import OciwireError
from ociwire.testing import MemoryRegistry, serve
from ociwire.transport import FunctionTransport, Transport
from tests._support.doubles import Call
from tests.transport.urllib3.conftest import Wire
from tests.transport.urllib3.scripted_server import Peer, get, read, reply, respond


@pytest.fixture(autouse=True, scope="module")
def _existing_objects_frozen() -> Iterator[None]:
    """Exclude existing objects from collections, each of which would take half a second in a long test run."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


one_kind = pytest.mark.parametrize("kind", ["http"])
BODIES = {
    "sized": reply(200, b"unread" * 10),
    "chunked": reply(200, b"6\r\nunread\r\n", "Transfer-Encoding: chunked"),
    "last": reply(200, b"unread", "Connection: close"),
    "until close": b"HTTP/1.1 200 OK\r\n\r\nunread",
}


class Cycle:
    """Reference cycle, so that only the garbage collector frees the value."""

    def __init__(self, *values: object) -> None:
        self.values = values
        self.cycle = self


def iterate_and_close(response: Response) -> Iterator[bytes]:
    """Close a response when the garbage collector closes this generator."""
    with response:
        yield from response.iter_bytes(1)


def start_generator(response: Response) -> Iterator[bytes]:
    generator = iterate_and_close(response)
    next(generator)
    return generator


class ResponseFile(io.RawIOBase):
    """File over a response, as in programs of users. The finalizer of its buffer closes it."""

    def __init__(self, response: Response) -> None:
        self._response = response

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        return self._response.readinto(buffer)

    def close(self) -> None:
        super().close()
        self._response.close()


def raise_and_store(response: Response) -> BaseException:
    """Return an exception whose traceback has frames that refer to the response and to the exception."""
    try:
        response.read(1)
        raise ValueError("in the middle of a body")
    except ValueError as error:
        return error


HOLDERS: dict[str, Callable[[Response], object]] = {
    "response": lambda response: response,
    "generator": start_generator,
    "buffered file": lambda response: io.BufferedReader(ResponseFile(response)),
    "traceback": raise_and_store,
}


@pytest.fixture(autouse=True)
def _collection_disabled() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("body", BODIES)
def test_finalizer_response_in_cycle_closes_connection(wire: Wire, holder: str, body: str) -> None:
    server = wire.serve(respond(BODIES[body]), respond(reply(200, b"next")))
    transport = wire.transport()
    Cycle(HOLDERS[holder](transport.round_trip(get(server.url))))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gc.collect()
    assert [str(warning.message) for warning in caught if "unclosed" in str(warning.message)] == []
    assert any(warning.category is ResourceWarning and "GET" in str(warning.message) for warning in caught)
    server.ended(0)
    assert read(transport.round_trip(get(server.url))) == (200, b"next")


@pytest.mark.parametrize("holder", HOLDERS)
def test_finalizer_does_not_run_log_handler(wire: Wire, holder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A handler may wait for a lock that the collecting thread holds. captureWarnings() logs warnings.
    records: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    server = wire.serve(respond(BODIES["sized"]))
    Cycle(HOLDERS[holder](wire.transport().round_trip(get(server.url))))
    handler = Handler()
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    monkeypatch.setattr(logging.getLogger(), "level", logging.DEBUG)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        try:
            gc.collect()
        finally:
            logging.captureWarnings(False)
    assert [record.getMessage() for record in records] == []
    server.ended(0)


@one_kind
def test_finalizer_warning_masks_secrets_of_url(wire: Wire) -> None:
    # A registry can repeat a secret in a URL that it chooses, for example in a Location or a Link.
    server = wire.serve(respond(BODIES["sized"]))
    request = Request("GET", f"{server.url}/s3cr3t-token", {"Authorization": "Bearer s3cr3t-token"})
    Cycle(wire.transport().round_trip(with_redactor(request)))
    del request
    with pytest.warns(ResourceWarning) as caught:
        gc.collect()
    texts = [str(warning.message) for warning in caught]
    assert any("GET" in text and "***" in text for text in texts)
    assert not any("s3cr3t" in text for text in texts)


@one_kind
def test_finalizer_does_not_call_close_of_layers(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    content = b"content"
    digest = Descriptor.of(content).digest
    server = wire.serve(respond(reply(200, content)))
    client = Client(server.netloc, LogTransport(wire.transport()), insecure=True)
    caplog.set_level(logging.DEBUG)
    Cycle(client.get_blob("a/b", digest))
    caplog.clear()
    with pytest.warns(ResourceWarning, match=str(digest)):
        gc.collect()
    assert caplog.messages == []
    client.close()


def count_profile_events(transport: Transport, url: str) -> int:
    """Count the calls and returns of a request and the reading of its body."""
    count = 0

    def count_event(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(count_event)
    try:
        transport.round_trip(get(url)).read()
    finally:
        sys.setprofile(None)
    return count


def collect_at(event_number: int) -> Callable[[FrameType, str, object], None]:
    """Return a profiler that runs the garbage collector at the n-th call or return."""
    seen = 0

    def profile(frame: FrameType, event: str, arg: object) -> None:
        nonlocal seen
        seen += 1
        if seen == event_number:
            sys.setprofile(None)
            gc.collect()

    return profile


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("holder", ["response", "generator", "buffered file"])
def test_finalizer_at_any_call_does_not_hang_or_mix_responses(holder: str) -> None:
    # A finalizer that returned its connection while its thread holds the lock of queue.LifoQueue would deadlock.
    def answer(request: Any) -> Response:
        return Response(200, (), request.url.encode() * 20)

    with serve(FunctionTransport(answer)) as url:
        transport = default_transport(credentials=Anonymous())
        count = count_profile_events(transport, f"{url}/first")
        gc.freeze()  # excludes the objects of other tests from each collection
        try:
            for event_number in range(1, count + 1, 2):
                Cycle(HOLDERS[holder](transport.round_trip(get(f"{url}/open/{event_number}"))))

                def send_request(event_number: int = event_number) -> tuple[int, bytes]:
                    sys.setprofile(collect_at(event_number))
                    try:
                        return read(transport.round_trip(get(f"{url}/next/{event_number}")))
                    finally:
                        sys.setprofile(None)

                call = Call(send_request).join()
                assert call.error is None
                assert call.result == (200, f"{url}/next/{event_number}".encode() * 20)
        finally:
            gc.unfreeze()
            transport.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_finalizer_threads_with_exceptions_and_open_readers_do_not_hang() -> None:
    contents = [bytes([number]) * 50_000 for number in range(16)]
    registry = MemoryRegistry()
    wrong: list[object] = []
    with serve(registry) as url:
        client = Client(url.host, default_transport(credentials=Anonymous()), insecure=True)
        blobs = [client.push_blob("a/b", Descriptor.of(content), content) for content in contents]

        def leave_open(digest: str) -> None:
            try:
                reader = client.get_blob("a/b", digest)
                reader.read(10)
                raise OciwireError("stored")
            except OciwireError as error:
                reference = error  # noqa: F841 - makes a cycle: traceback, frame, exception; the frame holds the reader

        def work(number: int) -> None:
            try:
                for round_number in range(150):
                    index = (number + round_number) % len(blobs)
                    leave_open(blobs[index].digest)
                    if client.get_blob("a/b", blobs[index].digest).read() != contents[index]:
                        wrong.append(index)
            except BaseException as error:  # noqa: BLE001 - asserted in the main thread
                wrong.append(error)

        gc.enable()
        threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert wrong == []
        gc.collect()
        client.close()
        client.transport.close()


@one_kind
def test_finalizer_of_old_response_does_not_close_returned_connection(wire: Wire) -> None:
    def script(peer: Peer) -> None:
        respond(reply(200, b"first"), reply(200, b"next" * 20_000), reply(200, b"last"))(peer)

    server = wire.serve(script)
    transport = wire.transport()
    first = transport.round_trip(get(server.url))
    assert first.read() == b"first"
    second = transport.round_trip(get(server.url))
    Cycle(first)
    del first
    gc.collect()  # a warning would be an error
    assert read(second) == (200, b"next" * 20_000)
    assert read(transport.round_trip(get(server.url))) == (200, b"last")
