"""Rows about HTTP behaviour: each serves a fault or an optional feature, and checks the client's reaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.comparison.clients import CHUNK, REPOSITORY, Contender, run, slept
from benchmarks.comparison.rows import Rows, fails
from benchmarks.comparison.servers import (
    CONTENT,
    DESCRIPTOR,
    Lab,
    Witness,
    answering,
    elsewhere,
    generous,
    guarded,
    has_content,
)
from ociwire import FunctionTransport, Request, Response
from ociwire.testing import MemoryRegistry, serve

ROWS = Rows()


def _whole() -> Response:
    return Response(200, (), CONTENT)


def _cut() -> Response:
    return Response(200, {"Content-Length": str(len(CONTENT))}, iter([CONTENT[: len(CONTENT) // 2]]))


def _pulls(make: type[Contender], lab: Lab, *answers: Callable[[], Response]) -> bool:
    with serve(answering(*answers)) as url:
        return make(url.host).pull(DESCRIPTOR.digest, lab.folder) == CONTENT


@ROWS.ask("Detects a corrupted byte in a blob")
def flipped(make: type[Contender], lab: Lab) -> bool:
    return fails(lambda: _pulls(make, lab, lambda: Response(200, (), b"X" + CONTENT[1:])))


@ROWS.ask("Detects a truncated blob")
def truncated(make: type[Contender], lab: Lab) -> bool:
    return fails(lambda: _pulls(make, lab, _cut))


@ROWS.ask("Resumes a download after a lost connection")
def resumed(make: type[Contender], lab: Lab) -> bool:
    return _pulls(make, lab, _cut, _whole)


@ROWS.ask("Retries a 503 and waits for the time in Retry-After")
def retried(make: type[Contender], lab: Lab) -> bool:
    witness = Witness(answering(lambda: Response(503, {"Retry-After": "1"}), _whole))
    with serve(witness) as url:
        got = make(url.host).pull(DESCRIPTOR.digest, lab.folder)
    return got == CONTENT and witness.times[-1] - witness.times[0] + slept() >= 1


@ROWS.ask("Does not send the token to a cross-origin redirect")
def redirected(make: type[Contender], lab: Lab) -> bool:
    bucket = Witness(answering(_whole))
    with elsewhere(bucket, lab) as other:
        registry = generous(guarded(FunctionTransport(lambda request: Response(307, {"Location": f"{other}/blob"}))))
        with serve(registry, tls=lab.tls) as url:
            got = make(url.host, lab.ca).pull(DESCRIPTOR.digest, lab.folder)
    return got == CONTENT and not bucket.saw_secrets()


@ROWS.ask("Does not send the token to a cross-origin upload Location")
def uploaded_elsewhere(make: type[Contender], lab: Lab) -> bool:
    store = MemoryRegistry()
    bucket = Witness(store)
    with elsewhere(bucket, lab) as other:

        def located(request: Request) -> Response:
            response = store.round_trip(request)
            if request.method != "POST":
                return response
            path = "/v2/" + response.headers["Location"].partition("/v2/")[2]
            return response.replace(headers={**dict(response.headers.items()), "Location": other + path})

        with serve(generous(guarded(FunctionTransport(located))), tls=lab.tls) as url:
            make(url.host, lab.ca).push(lab.file())
    return has_content(store) and not bucket.saw_secrets()


@ROWS.ask("Does not send the password to a token server on another host over plain HTTP")
def foreign_realm(make: type[Contender], lab: Lab) -> bool:
    thief = Witness(FunctionTransport(lambda request: Response(200, (), b'{"token": "stolen"}')))
    with serve(thief) as plain:
        realm = f"{plain.replace('127.0.0.1', 'localhost')}/token"
        challenge = {"WWW-Authenticate": f'Bearer realm="{realm}",service="x",scope="repository:{REPOSITORY}:pull"'}
        with serve(FunctionTransport(lambda request: Response(401, challenge)), tls=lab.tls) as url:
            fails(lambda: make(url.host, lab.ca).pull(DESCRIPTOR.digest, lab.folder))
    return not thief.saw_secrets()


def _interrupted(status: int, store: MemoryRegistry, other: str) -> FunctionTransport:
    """Layer that answers the first PUT with a status, without reading its body."""
    left, guard = [status], guarded(store)
    registry = generous(guard)

    def answer(request: Request) -> Response:
        if request.method != "PUT" or not left:
            return registry.round_trip(request)
        if left.pop() == 401:
            guard.revoke()  # simulates the expiry of the token
            return registry.round_trip(request)
        if status == 307:
            return Response(307, {"Location": other + "/v2/" + request.url.partition("/v2/")[2]})
        return Response(503, {"Retry-After": "0"})

    return FunctionTransport(answer)


def _survives(make: type[Contender], lab: Lab, push: Callable[[Contender], object]) -> bool | str:
    survived = []
    for status in (401, 307, 503):
        store = MemoryRegistry()
        with elsewhere(store, lab) as other, serve(_interrupted(status, store, other), tls=lab.tls) as url:
            contender = make(url.host, lab.ca)
            if not fails(partial(push, contender)) and has_content(store):
                survived.append(status)
    return len(survived) == 3 or (f"after {', '.join(map(str, survived))}" if survived else False)


@ROWS.ask("Uploads a file completely after a PUT response of 401 (expired token), 307 or 503")
def file_survives(make: type[Contender], lab: Lab) -> bool | str:
    return _survives(make, lab, lambda contender: contender.push(lab.file()))


@ROWS.ask("Uploads a single-use stream completely after these responses")
def stream_survives(make: type[Contender], lab: Lab) -> bool | str:
    return _survives(make, lab, lambda contender: contender.push_stream(_once(), DESCRIPTOR))


def _once() -> Iterator[bytes]:
    for start in range(0, len(CONTENT), CHUNK):
        yield CONTENT[start : start + CHUNK]


@ROWS.ask("Resumes an interrupted upload in another process", {"dxf": "It supports only monolithic uploads."})
def upload_resumed(make: type[Contender], lab: Lab) -> bool:
    store = MemoryRegistry()
    sent: list[str] = []
    over: list[bool] = []  # not empty after the fault has occurred

    def answer(request: Request) -> Response:
        if request.method in ("PATCH", "PUT") and not over:
            sent.append(request.method)
            if request.method == "PUT" or len(sent) == 3:
                return Response(400)
        return store.round_trip(request)

    witness = Witness(FunctionTransport(answer))
    kept = lab.folder / f"{make.package}.upload"
    with serve(witness) as url:
        assert fails(lambda: make(url.host).push_chunked(lab.file(), kept))
        over.append(True)
        witness.received = 0
        code = f"from pathlib import Path; from benchmarks.comparison.clients import {make.__name__} as make; "
        code += f"make({url.host!r}).push_chunked(Path({str(lab.file())!r}), Path({str(kept)!r}))"
        run("-c", code).check_returncode()
    return has_content(store) and witness.received < len(CONTENT)
