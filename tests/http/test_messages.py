"""Tests of `Request`, `RequestInfo` and `Response`: immutable requests, and ownership of response bodies."""

from __future__ import annotations

import copy
import dataclasses
import io
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from ociwire._http.body import Body
from ociwire._http.headers import Headers
from ociwire._http.messages import Request, RequestInfo, Response
from ociwire._oci.scope import Scope
from ociwire.errors import ProtocolError, ReadError, UsageError
from tests._support.doubles import FakeReader

KIBI = 1024
CONTENT = b"abcdef"


class WrappingReader:
    """Body of a layer that wraps a response. Records when it is closed."""

    def __init__(self, inner: Response, log: list[str], name: str) -> None:
        self._inner, self._log, self._name = inner, log, name

    def readinto(self, buffer: memoryview, /) -> int:
        return self._inner.readinto(buffer)

    def close(self) -> None:
        self._log.append(self._name)


# ---------------------------------------------------------------------------------------------------------- Request


def test_request_defaults() -> None:
    request = Request("GET", "/v2/")
    assert request.headers == Headers()
    assert request.body is None
    assert request.info == RequestInfo()


def test_request_positional_arguments_are_converted() -> None:
    info = RequestInfo(operation="push_blob")
    request = Request("PUT", "https://ghcr.io/v2/", [("A", "1"), ("A", "2")], b"abc", info)
    assert request.headers.get_all("a") == ("1", "2")
    assert type(request.headers) is Headers
    assert request.body is not None
    assert b"".join(request.body.open()) == b"abc"
    assert request.body.length == 3
    assert request.info is info


def test_request_with_body_and_headers_objects_keeps_them() -> None:
    body, headers = Body.of(iter([b"x"])), Headers({"A": "1"})
    request = Request("PUT", "/", headers, body)
    assert request.body is body
    assert request.headers is headers


@pytest.mark.parametrize("content", [b"", bytearray(b"x"), io.BytesIO(b"x"), [b"x"]], ids=lambda c: type(c).__name__)
def test_request_content_is_converted_to_body(content: Any) -> None:
    assert type(Request("PUT", "/", (), content).body) is Body


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "x-!#$%&'*+.^_`|~9"])
def test_request_method_token_is_accepted(method: str) -> None:
    assert Request(method, "/").method == method


@pytest.mark.parametrize("method", ["", "GET ", "G T", "GET\r\n", "GÉT", "GET/", None, 5, b"GET"])
def test_request_method_not_a_token_raises_usage_error(method: Any) -> None:
    with pytest.raises(UsageError, match=r"^invalid method .*: expected an HTTP token") as caught:
        Request(method, "/")
    assert repr(method) in str(caught.value)


@pytest.mark.parametrize("url", ["", "v2/", "ftp://h/", "/a b", "/a\r\nX: y", "/é", "/a\\b"])
def test_request_invalid_url_raises_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match=r"^invalid URL "):
        Request("GET", url)


@pytest.mark.parametrize("url", [None, 5, b"/v2/"])
def test_request_url_other_than_str_raises_usage_error(url: Any) -> None:
    with pytest.raises(UsageError, match=f"^url must be a str, got {type(url).__name__}$"):
        Request("GET", url)


@pytest.mark.parametrize("url", ["https://user:secret@ghcr.io/v2/", "http://secret@h"])
def test_request_url_with_userinfo_raises_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match="userinfo") as caught:
        Request("GET", url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("headers", [None, 5, "A: 1", {"A B": "1"}, {"A": "1\n"}, {"A": 1}, ["A"]])
def test_request_invalid_headers_raise_usage_error(headers: Any) -> None:
    with pytest.raises(UsageError):
        Request("GET", "/", headers)


@pytest.mark.parametrize("body", ["text", 5, io.StringIO("x"), object()], ids=lambda body: type(body).__name__)
def test_request_invalid_body_raises_usage_error(body: Any) -> None:
    with pytest.raises(UsageError):
        Request("PUT", "/", (), body)


def test_request_is_frozen() -> None:
    request: Any = Request("GET", "/")
    for name in ("method", "url", "headers", "body", "info"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(request, name, getattr(request, name))


def test_request_replace_returns_checked_copy() -> None:
    request = Request("PUT", "/", {"A": "1"}, b"abc")
    other = request.replace(method="GET", url="/x", body=None, headers=[("B", "2")])
    assert other == Request("GET", "/x", {"B": "2"})
    assert (request.method, request.url, request.headers) == ("PUT", "/", Headers({"A": "1"}))
    assert request.replace(url="/y").body is request.body
    with pytest.raises(UsageError):
        request.replace(url="y")


def test_with_headers_replaces_adds_and_removes() -> None:
    request = Request("GET", "/", {"A": "1", "B": "2"})
    other = request.with_headers({"a": None, "b": "3", "C": "4"})
    assert other.headers == Headers({"B": "3", "C": "4"})
    assert request.headers == Headers({"A": "1", "B": "2"})
    assert (other.method, other.url, other.body, other.info) == (
        request.method,
        request.url,
        request.body,
        request.info,
    )


def test_request_equal_requests_have_equal_hashes() -> None:
    first, second = Request("GET", "/", {"A": "1"}), Request("GET", "/", {"a": "1"})
    assert first == second
    assert hash(first) == hash(second)
    assert first != first.replace(info=RequestInfo(operation="x"))


@pytest.mark.parametrize("name", ["Authorization", "proxy-authorization", "Cookie", "Set-Cookie"])
def test_repr_secret_header_and_body_are_hidden(name: str) -> None:
    request = Request("GET", "/v2/", {"Accept": "a/b", name: "secret"}, b"secret")
    response = Response(200, {"Accept": "a/b", name: "secret"}, b"secret", request)
    for message in (request, response):
        for text in (repr(message), str(message), f"{[message]}"):
            assert "secret" not in text
            assert "a/b" in text


def test_pickle_response_works_in_memory_only() -> None:
    response = Response(404, {"A": "b"}, b"gone", Request("GET", "https://registry.example/v2/"))
    for other in (pickle.loads(pickle.dumps(response)), copy.deepcopy(response)):
        assert (other.status, other.headers, other.read()) == (404, response.headers, b"gone")
        assert other.request.url == "https://registry.example/v2/"
    with pytest.raises(TypeError, match="cannot pickle or copy a response whose body is not in memory"):
        pickle.dumps(Response(200, (), iter([b"x"])))


def test_pickle_and_copy_request_keep_all_fields() -> None:
    info = RequestInfo(required_scope=Scope.CATALOG, operation="x", timeout=3, deadline=4.5, extra={"tenant": [1]})
    request = Request("GET", "/v2/", {"Authorization": "secret"}, info=info)
    for other in (pickle.loads(pickle.dumps(request)), copy.copy(request), copy.deepcopy(request)):
        assert other == request
        assert other.info.extra == {"tenant": [1]}


# ------------------------------------------------------------------------------------------------------ RequestInfo


def test_info_defaults() -> None:
    info = RequestInfo()
    assert info.required_scope is Scope.EMPTY
    assert (info.operation, info.debug_id) == ("", "")
    assert info.timeout is info.deadline is info.idempotent is None
    assert info.extra == {}


def test_info_positional_argument_raises_type_error() -> None:
    info: Any = RequestInfo
    with pytest.raises(TypeError):
        info(Scope.EMPTY)


def test_info_is_frozen_and_replace_returns_copy() -> None:
    info: Any = RequestInfo(operation="x")
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.operation = "y"
    assert info.replace(debug_id="d") == RequestInfo(operation="x", debug_id="d")


def test_info_with_unhashable_extra_is_hashable() -> None:
    assert hash(RequestInfo(extra={"a": []})) == hash(RequestInfo())


# --------------------------------------------------------------------------------------------------------- Response


@pytest.mark.parametrize(
    "body",
    [b"abcdef", bytearray(b"abcdef"), memoryview(b"abcdef"), io.BytesIO(b"abcdef"), [b"abc", b"", b"def"]],
    ids=lambda body: type(body).__name__,
)
def test_read_second_time_returns_nothing(body: Any) -> None:
    response = Response(200, {"A": "1"}, body)
    assert response.status == 200
    assert response.headers["a"] == "1"
    assert response.request is None
    assert response.read() == b"abcdef"
    assert response.read() == b""


@pytest.mark.parametrize("body", ["text", None, 5, object()], ids=lambda body: type(body).__name__)
def test_response_unsupported_body_raises_usage_error(body: Any) -> None:
    with pytest.raises(UsageError, match=f"^body must be bytes, .*, got {type(body).__name__}$"):
        Response(200, (), body)


def test_response_invalid_headers_raise_usage_error() -> None:
    with pytest.raises(UsageError):
        Response(200, {"A": "1\n"})


@pytest.mark.parametrize("step", [None, 1, 2, 5])
def test_read_size_returns_fewer_bytes_only_at_the_end(step: int | None) -> None:
    response = Response(200, (), FakeReader(b"abcdef", max_read=step))
    assert response.read(0) == b""
    assert response.read(4) == b"abcd"
    assert response.read(4) == b"ef"
    assert response.read(4) == b""


@pytest.mark.parametrize("everything", [-1, None, -5])
def test_read_negative_or_none_returns_the_rest(everything: int | None) -> None:
    response = Response(200, (), FakeReader(b"abcdef" * 100 * KIBI, max_read=1000))
    response.read(1)
    assert response.read(everything) == (b"abcdef" * 100 * KIBI)[1:]


def test_read_size_reads_no_further() -> None:
    source = FakeReader(b"abcdef")
    Response(200, (), source).read(4)
    assert source.bytes_read == 4


@pytest.mark.parametrize("buffer", [bytearray(4), memoryview(bytearray(4))], ids=lambda b: type(b).__name__)
def test_readinto_returns_available_bytes(buffer: Any) -> None:
    response = Response(200, (), [b"abc", b"def"])
    assert response.readinto(buffer) == 3
    assert bytes(buffer) == b"abc\0"
    assert response.readinto(buffer) == 3
    assert response.readinto(buffer) == 0


@pytest.mark.parametrize("size", [1, 2, 4, 6, 100])
@pytest.mark.parametrize("headers", [{}, {"Content-Length": "6"}], ids=["unknown", "known"])
def test_iter_bytes_yields_pieces_of_at_most_size(size: int, headers: dict[str, str]) -> None:
    pieces = list(Response(200, headers, FakeReader(b"abcdef")).iter_bytes(size))
    assert b"".join(pieces) == b"abcdef"
    assert max(map(len, pieces)) <= size


@pytest.mark.parametrize("size", [0, -1])
@pytest.mark.parametrize("body", [b"abcdef", [b"abcdef"]], ids=["known", "unknown"])
def test_iter_bytes_size_below_one_raises_usage_error(body: Any, size: int) -> None:
    with pytest.raises(UsageError):
        list(Response(200, (), body).iter_bytes(size))


@pytest.mark.parametrize(
    ("response", "length"),
    [
        (Response(200, (), b"abc"), 3),
        (Response(200, {"Content-Length": "5"}, b"abc"), 3),
        (Response(200, {"Content-Length": "5"}, [b"abc"]), 5),
        (Response(200, {"Content-Length": "0"}, []), 0),
        (Response(200, {}, [b"abc"]), None),
        (Response(200, {"Content-Length": "-5"}, []), None),
        (Response(200, {"Content-Length": "+5"}, []), None),
        (Response(200, {"Content-Length": "x"}, []), None),
        (Response(200, {"Content-Length": ""}, []), None),
        (Response(200, {"Content-Length": "²"}, []), None),
        (Response(200, [("Content-Length", "5"), ("Content-Length", "6")], []), None),
        (Response(200, {"Content-Length": "5"}, [], Request("HEAD", "/")), 0),
        (Response(200, {"Content-Length": "5"}, [], Request("GET", "/")), 5),
        (Response(204, {"Content-Length": "5"}, []), 0),
        (Response(304, {"Content-Length": "5"}, []), 0),
    ],
)
def test_length_from_bytes_header_method_and_status(response: Response, length: int | None) -> None:
    assert response.length == length
    response.read()
    assert response.length == length, "reading does not change the length"


def test_length_of_5000_digits_is_unknown() -> None:
    assert Response(200, {"Content-Length": "9" * 5000}, []).length is None


def test_read_wrong_content_length_is_not_enforced() -> None:
    assert Response(200, {"Content-Length": "1"}, [b"abcdef"]).read() == b"abcdef"


def test_json_returns_value() -> None:
    assert Response(200, (), '{"é": [1]}'.encode()).json() == {"é": [1]}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"<html>", b"\xff", b"[" * 100_000, b"1" * 10_000], ids=lambda body: repr(body[:6])
)
def test_json_invalid_content_raises_protocol_error(body: bytes) -> None:
    request = Request("GET", "/")
    with pytest.raises(ProtocolError, match=r"^invalid JSON: ") as caught:
        Response(200, (), body, request).json()
    assert caught.value.request is request
    assert len(str(caught.value)) < 500


def test_json_longer_than_limit_raises_protocol_error() -> None:
    assert Response(200, (), b"[12]").json(limit=4) == [12]
    source = FakeReader(b"[123]" + b" " * 100)
    response = Response(200, (), source, Request("GET", "/"))
    with pytest.raises(ProtocolError, match="longer than the limit of 4 bytes") as caught:
        response.json(limit=4)
    assert caught.value.request is response.request
    assert source.bytes_read <= 5
    assert response.closed
    assert source.closes == 1


def test_read_closed_response_raises_usage_error() -> None:
    response = Response(200, (), FakeReader(CONTENT))
    assert not response.closed
    response.close()
    assert response.closed
    buffer = bytearray(3)
    for read in (response.read, lambda: response.readinto(buffer), response.json, lambda: list(response.iter_bytes())):
        with pytest.raises(UsageError, match="closed"):
            read()


def test_close_twice_closes_reader_once() -> None:
    source = FakeReader(CONTENT)
    response = Response(200, (), source)
    response.close()
    response.close()
    assert source.closes == 1


def test_with_block_closes_response() -> None:
    source = FakeReader(CONTENT)
    with Response(200, (), source) as response:
        assert response.read(2) == b"ab"
    assert (response.closed, source.closes) == (True, 1)
    with pytest.raises(RuntimeError), Response(200, (), source):
        raise RuntimeError
    assert source.closes == 2


@pytest.mark.parametrize("size", [0, 1, 64 * KIBI - 1])
def test_drain_short_body_is_read_to_the_end(size: int) -> None:
    source = FakeReader(b"x" * size)
    response = Response(200, (), source)
    response.drain()
    assert source.bytes_read == size
    assert (response.closed, source.closes) == (True, 1)


def test_drain_long_body_stops_at_64_kib() -> None:
    source = FakeReader(b"x" * 1024 * KIBI)
    Response(200, (), source).drain()
    assert source.bytes_read == 64 * KIBI
    assert source.closes == 1


def test_drain_long_content_length_reads_nothing() -> None:
    source = FakeReader(b"x" * 1024 * KIBI)
    Response(200, {"Content-Length": str(1024 * KIBI)}, source).drain()
    assert (source.bytes_read, source.closes) == (0, 1)


def test_drain_read_fails_raises_nothing() -> None:
    source = FakeReader(b"abc", error=ReadError("reset"))
    response = Response(200, (), source)
    response.drain()
    assert (response.closed, source.closes) == (True, 1)
    response.drain()


def test_drain_close_fails_raises_nothing() -> None:
    class Stubborn(FakeReader):
        def close(self) -> None:
            raise ReadError("reset")

    response = Response(200, (), Stubborn(CONTENT))
    response.drain()
    assert response.closed


def test_drain_foreign_exception_passes_and_response_is_closed() -> None:
    source = FakeReader(b"abc", error=RuntimeError("foreign"))
    response = Response(200, (), source)
    with pytest.raises(RuntimeError, match="foreign"):
        response.drain()
    assert (response.closed, source.closes) == (True, 1)


def test_response_replace_moves_ownership_of_the_body() -> None:
    source, request = FakeReader(CONTENT), Request("GET", "/")
    response = Response(200, {"A": "1"}, source)
    assert response.read(2) == b"ab"
    other = response.replace(status=203, headers={"B": "2"}, request=request)
    assert (other.status, other.headers, other.request) == (203, Headers({"B": "2"}), request)
    assert response.closed
    assert not other.closed
    with pytest.raises(UsageError, match="moved to another response"):
        response.read()
    response.close()
    assert source.closes == 0, "the response that was replaced does not close the body"
    assert other.read() == b"cdef"
    other.close()
    assert source.closes == 1


def test_response_replace_without_changes_keeps_fields() -> None:
    request = Request("GET", "/")
    other = Response(404, {"A": "1"}, [b"x"], request).replace()
    assert (other.status, other.headers, other.request, other.read()) == (404, Headers({"A": "1"}), request, b"x")


def test_response_replace_unknown_field_raises_type_error() -> None:
    with pytest.raises(TypeError):
        Response(200).replace(reason="OK")


def test_response_replace_of_bytes_can_be_repeated() -> None:
    original = Response(200, {"A": "1"}, b"abc")
    for number in range(3):
        response_copy = original.replace(request=Request("GET", f"/{number}"))
        assert response_copy.request is not None
        assert response_copy.request.url == f"/{number}"
        assert response_copy.read() == b"abc"
        response_copy.close()
    assert original.request is None


def test_response_replace_body_closes_the_old_response_with_the_new() -> None:
    source, log = FakeReader(CONTENT), list[str]()
    old = Response(200, (), source)
    new = old.replace(body=WrappingReader(old, log, "wrapper"))
    assert new.read(3) == b"abc"
    assert not old.closed
    new.close()
    assert log == ["wrapper"]
    assert (old.closed, source.closes) == (True, 1)
    new.close()
    assert (log, source.closes) == (["wrapper"], 1)


def test_response_replace_body_twice_closes_outermost_first() -> None:
    log: list[str] = []
    base = Response(200, (), FakeReader(CONTENT, on_close=lambda: log.append("base")))
    inner = base.replace(body=WrappingReader(base, log, "inner"))
    replaced = inner.replace(status=201)
    outer = replaced.replace(body=WrappingReader(replaced, log, "outer"))
    assert outer.read() == b"abcdef"
    outer.close()
    assert log == ["outer", "inner", "base"]


def test_close_new_body_fails_still_closes_old_response() -> None:
    class Failing(FakeReader):
        def close(self) -> None:
            raise OSError("stuck")

    source = FakeReader(CONTENT)
    new = Response(200, (), source).replace(body=Failing(CONTENT))
    with pytest.raises(OSError, match="stuck"):
        new.close()
    assert source.closes == 1


@pytest.mark.parametrize("body", [b"new", [b"new"]], ids=["bytes", "pieces"])
def test_response_replace_after_new_body_still_closes_old_response(body: Any) -> None:
    source = FakeReader(CONTENT)
    last = Response(200, (), source).replace(body=body).replace(status=201).replace(headers={"A": "1"})
    assert last.read() == b"new"
    assert source.closes == 0
    last.close()
    assert source.closes == 1


def test_close_generator_body_ends_it() -> None:
    ended: list[bool] = []

    def generator() -> Iterator[bytes]:
        try:
            yield b"abc"
            yield b"def"
        finally:
            ended.append(True)

    with Response(200, (), generator()) as response:
        assert response.read(1) == b"a"
        assert ended == []
    assert ended == [True]


def test_request_info_other_type_raises_usage_error() -> None:
    with pytest.raises(UsageError, match="RequestInfo"):
        Request("GET", "/v2/", info=None)  # type: ignore[arg-type]


def test_read_nonblocking_reader_raises_usage_error() -> None:
    class NonBlocking(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any, /) -> int | None:
            return None

    with pytest.raises(UsageError, match="non-blocking"):
        Response(200, (), NonBlocking()).read(5)


def test_in_memory_bytes_over_open_response_is_false() -> None:
    inner = Response(200, body=io.BytesIO(b"open"))
    outer = inner.replace(body=b"bytes")
    assert not outer.in_memory
    inner.close()
    assert outer.in_memory


def test_in_memory_bytes_over_bytes_is_true() -> None:
    assert Response(200, body=b"a").replace(body=b"b").in_memory
    assert not Response(200, body=io.BytesIO(b"a")).replace(body=b"b").replace(body=b"c").in_memory
