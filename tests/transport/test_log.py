"""Tests of `LogTransport`: the log lines, and the secrets that are masked in them."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest
import urllib3

from ociwire import AuthTransport, Body, FunctionTransport, Request, RequestInfo, Response, Scope, Transport
from ociwire._http.messages import shorten_timeout
from ociwire.auth import Credential, StaticCredentials
from ociwire.errors import AuthError, ConnectError, OciwireError, ProtocolError, ReadError, TransportTimeout, UsageError
from ociwire.testing import AuthGuard, ScriptedTransport
from ociwire.transport import HeadersTransport, LogTransport, RedirectTransport, RetryTransport, stack

HOST = "registry.example"
URL = f"https://{HOST}/v2/app/blobs/x"
CANARY = "c4n4ry-Tw33t+/=Nest"
ENCODED = base64.b64encode(f"me:{CANARY}".encode()).decode()
FORMS = (CANARY, ENCODED, quote(CANARY), quote(CANARY, safe=""), json.dumps(CANARY)[1:-1].replace("/", "\\/"))
PULL = Scope.repository("app", "pull")


class LogLines(logging.Handler):
    """Log handler that collects levels and lines."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def lines(self) -> list[str]:
        return [f"{record.levelname} {record.getMessage()}" for record in self.records]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@pytest.fixture
def log() -> Iterator[LogLines]:
    """Yield the lines of `ociwire.wire` at INFO."""
    yield from capture(logging.INFO)


@pytest.fixture
def debug() -> Iterator[LogLines]:
    """Yield the lines of `ociwire.wire` at DEBUG."""
    yield from capture(logging.DEBUG)


def capture(level: int) -> Iterator[LogLines]:
    logger, lines = logging.getLogger("ociwire.wire"), LogLines()
    before = logger.level
    logger.addHandler(lines)
    logger.setLevel(level)
    yield lines
    logger.removeHandler(lines)
    logger.setLevel(before)


class RecordedBody:
    """Response body that records reads and closes, and raises an optional error."""

    def __init__(self, content: bytes = b"content", error: BaseException | None = None) -> None:
        self.file = io.BytesIO(content)
        self.error = error
        self.reads = self.closed = 0
        self.limits: list[float] = []

    def readinto(self, buffer: memoryview, /) -> int:
        self.reads += 1
        count = self.file.readinto(buffer)
        if not count and self.error is not None:
            raise self.error
        return count

    def shorten_timeout(self, seconds: float) -> None:
        self.limits.append(seconds)

    def close(self) -> None:
        self.closed += 1


class UnreadableBody:
    """Response body that must not be read."""

    def readinto(self, buffer: memoryview, /) -> int:
        raise AssertionError("the body is read")

    def close(self) -> None:
        pass


def make_transport(*answers: Any) -> LogTransport:
    return LogTransport(ScriptedTransport(answers))


def stream(status: int = 200, content: bytes = b"content", *, with_length: bool = True, **headers: str) -> Response:
    fields = {**headers, **({"Content-Length": str(len(content))} if with_length else {})}
    return Response(status, fields, RecordedBody(content))


# --- parts of a line ---


def test_log_exchange_has_response_line_and_body_line(log: LogLines) -> None:
    info = RequestInfo(operation="get_blob", debug_id="client-1")
    with make_transport(stream(content=b"x" * 2048)).round_trip(Request("GET", URL, info=info)) as response:
        assert len(log.lines) == 1
        response.read()
    assert len(log.lines) == 2
    assert re.fullmatch(rf"INFO client-1 get_blob \[1\] GET {URL} -> 200 OK in \d+ ms", log.lines[0])
    assert re.fullmatch(r"INFO client-1 get_blob \[1\] <- 2048 B in \d+ ms", log.lines[1])


def test_log_exchanges_are_numbered(log: LogLines) -> None:
    transport = make_transport(*[Response(204)] * 3)
    for _ in range(3):
        transport.round_trip(Request("DELETE", URL))
    assert [line.split()[1] for line in log.lines] == ["[1]", "[2]", "[3]"]


@pytest.mark.parametrize(
    ("operation", "debug_id", "prefix"),
    [("", "", "[1]"), ("a", "", "a [1]"), ("", "b", "b [1]"), ("a", "b", "b a [1]")],
)
def test_log_line_names_client_and_operation(operation: str, debug_id: str, prefix: str, log: LogLines) -> None:
    info = RequestInfo(operation=operation, debug_id=debug_id)
    make_transport(Response(204)).round_trip(Request("HEAD", URL, info=info))
    assert log.lines[0].startswith(f"INFO {prefix} HEAD {URL} -> 204 No Content in ")


@pytest.mark.parametrize(
    ("status", "level"),
    [
        (200, "INFO"),
        (201, "INFO"),
        (204, "INFO"),
        (307, "INFO"),
        (401, "INFO"),
        (404, "INFO"),
        (400, "WARNING"),
        (403, "WARNING"),
        (416, "WARNING"),
        (429, "WARNING"),
        (500, "WARNING"),
        (503, "WARNING"),
        (599, "WARNING"),
    ],
)
def test_log_level_depends_on_status(status: int, level: str, log: LogLines) -> None:
    with make_transport(stream(status, b"no")).round_trip(Request("GET", URL)) as response:
        response.read()
    assert [line.split()[0] for line in log.lines] == [level, level][: len(log.lines)]
    assert f"-> {status}" in log.lines[0]


@pytest.mark.parametrize(
    ("content", "chunk_count", "sent"),
    [
        (lambda: None, 9, None),
        (lambda: b"", 9, None),
        (lambda: b"x" * 1536, 9, ", 1536 B sent"),
        (lambda: b"x" * 1536, 0, ", 0 B of 1536 B sent"),
        (lambda: b"x" * (2 * 1024 * 1024), 1, ", 1048576 B (1.0 MiB) of 2097152 B (2.0 MiB) sent"),
        (lambda: Body.of(iter([b"abc", b"def"]), 6), 1, ", 3 B of 6 B sent"),
        (lambda: Body.of(iter([b"abc", b"def"]), 6), 9, ", 6 B sent"),
        (lambda: Body.of(iter([b"abc", b"def"])), 1, ", 3 B sent"),
        (lambda: io.BytesIO(b"x" * 100), 9, ", 100 B sent"),
    ],
)
@pytest.mark.parametrize("error", [None, ReadError("reset")])
def test_log_line_has_sent_bytes(
    content: Any, chunk_count: int, sent: str | None, error: Exception | None, log: LogLines
) -> None:
    def respond(request: Request) -> Any:
        if request.body is not None:
            pieces = request.body.open()
            for _ in range(chunk_count):
                next(pieces, None)
        if error is not None:
            raise error
        return Response(413)

    transport = LogTransport(FunctionTransport(respond))
    with suppress(ReadError):
        transport.round_trip(Request("PUT", URL, body=content()))
    assert ("sent" in log.lines[0]) is (sent is not None)
    assert (sent or "") in log.lines[0]


def test_log_body_sent_twice_is_counted_once(log: LogLines) -> None:
    def respond(request: Request) -> Response:
        assert request.body is not None
        assert b"".join(request.body.open()) == b"x" * 100
        return Response(503)

    script = ScriptedTransport([respond, Response(201)])
    transport = LogTransport(RetryTransport(script, sleep=lambda seconds: None))
    transport.round_trip(Request("PUT", URL, body=b"x" * 100))
    assert "200 B" not in log.text
    assert "100 B sent" in log.text


@pytest.mark.parametrize(
    ("count", "read"), [(0, "<- 0 B of 7 B in"), (3, "<- 3 B of 7 B in"), (7, "<- 7 B in"), (-1, "<- 7 B in")]
)
def test_log_body_line_has_read_bytes(count: int, read: str, log: LogLines) -> None:
    with make_transport(stream()).round_trip(Request("GET", URL)) as response:
        response.read(count)
    assert read in log.lines[1]
    assert len(log.lines) == 2


def test_log_body_of_unknown_length_has_read_bytes(log: LogLines) -> None:
    with make_transport(stream(with_length=False)).round_trip(Request("GET", URL)) as response:
        response.read()
    assert re.search(r"<- 7 B in \d+ ms$", log.lines[1])


def test_log_body_in_memory_has_body_line(log: LogLines) -> None:
    canned = Response(200, (), b"content")
    transport = make_transport(canned, canned)
    for _ in range(2):
        with transport.round_trip(Request("GET", URL)) as response:
            assert response.length == 7
            assert response.read() == b"content"
    assert len(log.lines) == 4


@pytest.mark.parametrize("response", [Response(200, {"Content-Length": "700"}), Response(204), Response(304)])
def test_log_response_without_body_has_one_line(response: Response, log: LogLines) -> None:
    with make_transport(response).round_trip(Request("HEAD", URL)) as head_response:
        assert head_response.read() == b""
    assert len(log.lines) == 1


def test_log_head_response_has_one_line(log: LogLines) -> None:
    with make_transport(Response(200, {"Content-Length": "7"}, UnreadableBody())).round_trip(Request("HEAD", URL)):
        pass
    assert len(log.lines) == 1


def test_log_body_line_is_logged_once(log: LogLines) -> None:
    response = make_transport(stream()).round_trip(Request("GET", URL))
    response.read()
    response.read()
    response.drain()
    response.close()
    response.close()
    assert len(log.lines) == 2


def test_log_body_line_is_logged_at_last_byte(log: LogLines) -> None:
    response = make_transport(stream()).round_trip(Request("GET", URL))
    response.read(6)
    assert len(log.lines) == 1
    response.read(1)
    assert len(log.lines) == 2
    response.close()


@pytest.mark.parametrize("name", ["Location", "Retry-After", "WWW-Authenticate", "Range", "OCI-Chunk-Min-Length"])
def test_log_line_has_selected_headers(name: str, log: LogLines) -> None:
    make_transport(Response(202, {name: "this\x1b[31m", "X-Other": "that"})).round_trip(Request("GET", URL))
    assert f"; {name}: this [31m" in log.lines[0]
    assert "that" not in log.text


@pytest.mark.parametrize("text", ["Bearer", "Basic"])
def test_log_line_names_authorization_scheme(text: str, log: LogLines) -> None:
    make_transport(Response(204)).round_trip(Request("GET", URL, {"Authorization": f"{text} {CANARY}"}))
    assert f"GET {URL} (with {text}) ->" in log.lines[0]


# --- exceptions ---


@pytest.mark.parametrize("error", [ConnectError("refused"), TransportTimeout("timed out"), AuthError("denied")])
def test_log_ociwire_error_has_its_message(error: OciwireError, log: LogLines) -> None:
    with pytest.raises(type(error)) as caught:
        make_transport(error).round_trip(Request("GET", URL))
    assert caught.value is error
    assert len(log.lines) == 1
    assert re.search(rf"WARNING \[1\] GET {URL} -> failed after \d+ ms: {type(error).__name__}: {error}", log.lines[0])


@pytest.mark.parametrize("kind", [ZeroDivisionError, OSError, KeyboardInterrupt])
def test_log_foreign_exception_has_only_its_class(kind: type[BaseException], log: LogLines) -> None:
    error = kind(CANARY)
    with pytest.raises(kind) as caught:
        make_transport(error).round_trip(Request("GET", URL))
    assert caught.value is error
    assert log.lines[0].startswith("WARNING")
    assert log.lines[0].endswith(f": {kind.__name__}")
    assert CANARY not in log.text


@pytest.mark.parametrize("error", [ReadError("reset"), TransportTimeout("slow"), ProtocolError("odd"), OSError(CANARY)])
@pytest.mark.parametrize("status", [200, 404])
def test_log_body_error_is_a_warning(error: Exception, status: int, log: LogLines) -> None:
    answer = Response(status, {"Content-Length": "99"}, RecordedBody(b"content", error))
    response = make_transport(answer).round_trip(Request("GET", URL))
    with pytest.raises(type(error)) as caught:
        response.read()
    response.close()
    assert caught.value is error
    assert len(log.lines) == 2
    assert log.lines[1].startswith("WARNING [1] <- 7 B of 99 B in ")
    assert f", then {type(error).__name__}" in log.lines[1]
    assert CANARY not in log.text


def test_log_exception_of_content_propagates(log: LogLines) -> None:
    error = ZeroDivisionError(CANARY)

    def fail(chunk: bytes) -> bytes:
        raise error

    request = Request("PUT", URL, body=Body.of(b"content").map(fail))
    with pytest.raises(ZeroDivisionError) as caught:
        make_transport(Response(201)).round_trip(request)
    assert caught.value is error
    assert ", 0 B of 7 B sent: ZeroDivisionError" in log.lines[0]


# --- requests and responses ---


def test_log_disabled_request_and_response_are_unchanged() -> None:
    logger = logging.getLogger("ociwire.wire.disabled")
    logger.setLevel(logging.WARNING)
    answer = Response(200, (), UnreadableBody(), request=Request("GET", URL))
    script = ScriptedTransport([lambda request: answer, ReadError("no")])
    transport = LogTransport(script, logger=logger)
    request = Request("PUT", URL, body=Body.of(iter([b"content"])))
    assert transport.round_trip(Request("GET", URL)) is answer
    with pytest.raises(ReadError):
        transport.round_trip(request)
    assert script.requests[1] is request


def test_log_level_is_read_at_each_request(log: LogLines) -> None:
    transport = make_transport(*[Response(204)] * 3)
    transport.round_trip(Request("GET", URL))
    logging.getLogger("ociwire.wire").setLevel(logging.WARNING)
    transport.round_trip(Request("GET", URL))
    logging.getLogger("ociwire.wire").setLevel(logging.INFO)
    transport.round_trip(Request("GET", URL))
    assert len(log.lines) == 2


def test_log_transport_logger_is_used(log: LogLines) -> None:
    logger, lines = logging.getLogger("ociwire.wire.mine"), LogLines()
    logger.propagate = False
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    LogTransport(ScriptedTransport([Response(204)]), logger=logger).round_trip(Request("GET", URL))
    assert len(lines.lines) == 1
    assert log.lines == []


def test_log_request_without_body_is_unchanged(log: LogLines) -> None:
    script = ScriptedTransport([Response(204)])
    request = Request("GET", URL, {"Authorization": "Bearer x"})
    LogTransport(script).round_trip(request)
    assert script.requests[0] is request


@pytest.mark.parametrize("content", [lambda: b"content", lambda: io.BytesIO(b"content"), lambda: iter([b"content"])])
def test_log_body_is_sent_unchanged_and_not_read_ahead(content: Any, debug: LogLines) -> None:
    script = ScriptedTransport([Response(401), Response(201)])
    transport = LogTransport(script)
    request = Request("PUT", URL, {"A": "b"}, Body.of(content()))
    transport.round_trip(request)
    assert request.body is not None
    assert request.body.resendable
    transport.round_trip(request)
    assert script.bodies == [None, b"content"]
    sent = script.requests[1]
    assert sent.replace(body=None) == request.replace(body=None)
    assert sent.body is not None
    assert sent.body.length == request.body.length


@pytest.mark.parametrize("status", [200, 400, 401, 404, 500, 503])
@pytest.mark.parametrize("operation", ["get_blob", "token"])
def test_log_response_body_is_not_read(status: int, operation: str, debug: LogLines) -> None:
    request = Request("GET", URL, info=RequestInfo(operation=operation))
    answer = Response(status, {"Content-Length": "99"}, UnreadableBody())
    with make_transport(answer).round_trip(request) as response:
        assert response.status == status
        assert response.length == 99
    assert len(debug.lines) == 4


def test_log_response_reads_reach_inner_body(log: LogLines) -> None:
    body = RecordedBody()
    response = make_transport(Response(200, {"Content-Length": "7"}, body)).round_trip(Request("GET", URL))
    assert response.read(3) == b"con"
    assert body.reads == 1
    shorten_timeout(response, 3.0)
    assert body.limits == [3.0]
    assert response.read() == b"tent"
    response.close()
    assert body.closed


def test_log_response_drain_reads_and_closes(log: LogLines) -> None:
    body = RecordedBody()
    response = make_transport(Response(503, {"Content-Length": "7"}, body)).round_trip(Request("GET", URL))
    response.drain()
    assert body.closed
    assert body.limits
    assert body.file.tell() == 7


def test_log_response_keeps_its_request(log: LogLines) -> None:
    actual_request = Request("GET", "https://mirror.example/")
    answer = Response(200, {"A": "b"}, RecordedBody(), request=actual_request)
    response = LogTransport(FunctionTransport(lambda request: answer)).round_trip(Request("GET", URL))
    assert response.request is actual_request
    assert (response.status, response.headers) == (200, answer.headers)
    response.close()


def test_log_response_without_request_gets_the_request(log: LogLines) -> None:
    class Bare:
        def round_trip(self, request: Request, /) -> Response:
            return Response(403, {"Content-Length": "26"}, f"you said {'secret-token-1234'}".encode())

        def close(self) -> None: ...

    request = Request("GET", URL, {"Authorization": "Bearer secret-token-1234"})
    with LogTransport(Bare()).round_trip(request) as response:
        assert response.request is request
        response.read()
    assert "you said ***" in log.lines[1]


def test_log_transport_close_closes_inner() -> None:
    closed: list[int] = []
    transport = LogTransport(FunctionTransport(lambda request: Response(200), close=lambda: closed.append(1)))
    transport.close()
    transport.close()
    assert closed == [1]
    with pytest.raises(UsageError, match="closed"):
        transport.round_trip(Request("GET", URL))


# --- quoted bodies ---


def test_log_error_body_read_part_is_quoted_in_one_line(log: LogLines) -> None:
    content = b'{"errors":\r\n [{"code": "DENIED"}]}\x1b[0m' + b"x" * 1000
    with make_transport(stream(403, content)).round_trip(Request("GET", URL)) as response:
        response.read(12)
    assert log.lines[1].endswith(': {"errors": ')
    with make_transport(stream(403, content)).round_trip(Request("GET", URL)) as response:
        response.read()
    assert '{"errors":  [{"code": "DENIED"}]} [0mxxx' in log.lines[3]
    assert len(log.lines[3]) < 700
    assert len(log.text.splitlines()) == 4


def test_log_error_body_of_bytes_is_quoted(log: LogLines) -> None:
    with make_transport(stream(500, b"\xff\xfe caf\xc3\xa9 \xc3")).round_trip(Request("GET", URL)) as response:
        response.read()
    assert "caf\xe9" in log.lines[1]


@pytest.mark.parametrize("status", [200, 206, 302])
def test_log_success_body_is_not_quoted(status: int, log: LogLines) -> None:
    with make_transport(stream(status, CANARY.encode())).round_trip(Request("GET", URL)) as response:
        response.read()
    assert CANARY not in log.text


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 500])
def test_log_token_response_body_is_not_quoted(status: int, debug: LogLines) -> None:
    request = Request("POST", URL, body=CANARY.encode(), info=RequestInfo(operation="token"))
    with make_transport(stream(status, f'{{"token": "{CANARY}"}}'.encode())).round_trip(request) as response:
        assert CANARY.encode() in response.read()
    assert_not_logged(debug)
    assert "<- " in debug.text


# --- URLs ---


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", ""),
        ("digest=sha256:ab&X-Amz-Signature=canary", "?digest=sha256:ab&***"),
        ("n=5&last=a%2Fb", "?n=5&last=a%2Fb"),
        ("mount=m&from=f&digest-algorithm=sha512", "?mount=m&from=f&digest-algorithm=sha512"),
        ("artifactType=a/b&tag=t", "?artifactType=a/b&tag=t"),
        ("service=s&scope=repository:a:pull&account=canary", "?service=s&scope=repository:a:pull&***"),
        ("sig=canary&sig=canary", "?***"),
        ("empty=", "?***"),
        ("Digest=canary", "?***"),
    ],
)
@pytest.mark.parametrize("source", ["url", "location"])
def test_log_query_shows_only_specified_parameters(query: str, shown: str, source: str, debug: LogLines) -> None:
    url = f"https://{HOST}/a?{query}"
    request = Request("GET", url if source == "url" else URL)
    make_transport(Response(202, {"Location": url} if source == "location" else {})).round_trip(request)
    assert f"https://{HOST}/a{shown}" in debug.text
    assert "canary" not in debug.text


@pytest.mark.parametrize("query", ["digest=sha256:ab", "n=5", "n=5&sig=canary"])
@pytest.mark.parametrize("source", ["url", "Location", "Content-Location", "Link", "Warning"])
def test_log_cross_origin_url_query_is_hidden(query: str, source: str, debug: LogLines) -> None:
    url = f"https://storage.example/a?{query}"
    anonymous = Request("GET", url, info=RequestInfo(anonymous=True))
    answer = Response(202, {} if source == "url" else {source: f"<{url}>" if source == "Link" else url})
    make_transport(answer).round_trip(anonymous if source == "url" else Request("GET", URL))
    assert "https://storage.example/a?***" in debug.text
    assert query not in debug.text


@pytest.mark.parametrize("query", ["canary", "canary&n=1", "n=1&canary=", "canary/sig=abc"])
@pytest.mark.parametrize("source", ["url", "location"])
def test_log_query_without_names_is_hidden(query: str, source: str, debug: LogLines) -> None:
    url = f"https://storage.example/a?{query}"
    request = Request("GET", url if source == "url" else URL)
    make_transport(Response(202, {"Location": url} if source == "location" else {})).round_trip(request)
    assert "canary" not in debug.text


@pytest.mark.parametrize("location", [f"/v2/x?_state={CANARY}", f"x?_state={CANARY}#{CANARY}", f"//a.b/?{CANARY}=1"])
def test_log_relative_location_query_is_hidden(location: str, debug: LogLines) -> None:
    make_transport(Response(202, {"Location": location})).round_trip(Request("POST", URL))
    assert "Location: " in debug.lines[0]
    assert_not_logged(debug)


@pytest.mark.parametrize("value", ["x%0d%0aINFO%20forged", "x%0AINFO", "%1b%5b31m", "x%C2%85INFO"])
def test_log_query_value_with_line_end_stays_in_one_line(value: str, log: LogLines) -> None:
    make_transport(Response(204)).round_trip(Request("GET", f"{URL}?last={value}"))
    assert len(log.text.splitlines()) == 1
    assert "\x1b" not in log.text


def test_log_query_name_with_line_end_stays_in_one_line(log: LogLines) -> None:
    make_transport(Response(204)).round_trip(Request("GET", f"{URL}?a%0d%0aINFO=1"))
    assert len(log.text.splitlines()) == 1


# --- DEBUG ---


def test_log_debug_headers_are_shown_and_masked(debug: LogLines) -> None:
    request = Request("GET", URL, {"Authorization": f"Bearer {CANARY}", "Accept": "a/b", "Cookie": f"c={CANARY}"})
    make_transport(Response(204, {"Set-Cookie": f"c={CANARY}", "ETag": "e"})).round_trip(request)
    assert [line.split()[0] for line in debug.lines] == ["INFO", "DEBUG", "DEBUG"]
    assert "('Accept', 'a/b')" in debug.lines[1]
    assert "('Authorization', '***')" in debug.lines[1]
    assert "('ETag', 'e')" in debug.lines[2]
    assert "('Set-Cookie', '***')" in debug.lines[2]
    assert_not_logged(debug)


def test_log_info_headers_are_not_shown(log: LogLines) -> None:
    make_transport(Response(204, {"ETag": "e-tag"})).round_trip(Request("GET", URL, {"Accept": "a/b"}))
    assert "a/b" not in log.text
    assert "e-tag" not in log.text


def test_log_debug_failure_shows_sent_headers(debug: LogLines) -> None:
    with pytest.raises(ReadError):
        make_transport(ReadError("reset")).round_trip(Request("GET", URL, {"Accept": "a/b"}))
    assert [line.split()[0] for line in debug.lines] == ["WARNING", "DEBUG"]
    assert "a/b" in debug.lines[1]


# --- masked secrets ---


def assert_not_logged(lines: LogLines) -> None:
    for record in lines.records:
        for form in FORMS:
            assert form not in record.getMessage()
            assert form not in repr(record.args)
        assert record.exc_info is None


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {CANARY}"},
        {"Authorization": f"Basic {ENCODED}"},
        {"authorization": f"Custom a={CANARY}"},
        {"Proxy-Authorization": f"Basic {ENCODED}"},
        {"Cookie": f"a={CANARY}; b={CANARY}"},
    ],
)
@pytest.mark.parametrize("status", [200, 400, 401, 403, 500])
@pytest.mark.parametrize("echoes", [False, True])
@pytest.mark.parametrize("operation", ["get_blob", "token"])
def test_log_secret_in_header_is_masked(
    headers: dict[str, str], status: int, echoes: bool, operation: str, debug: LogLines
) -> None:
    text = (
        f"you sent {headers} {json.dumps(headers)} {ENCODED if ENCODED in str(headers) else CANARY}" if echoes else ""
    )
    if operation == "token":
        text += CANARY
    request = Request("GET", URL, headers, info=RequestInfo(operation=operation))
    with make_transport(stream(status, text.encode())).round_trip(request) as response:
        response.read()
    with pytest.raises(ReadError):
        make_transport(ReadError("reset")).round_trip(request)
    assert_not_logged(debug)


@pytest.mark.parametrize("value", [CANARY, f"{CANARY} x", f"Bearer={CANARY}", f"Bearer\t{CANARY}"])
def test_log_secret_without_scheme_is_masked(value: str, debug: LogLines) -> None:
    make_transport(Response(204)).round_trip(Request("GET", URL, {"Authorization": value}))
    assert_not_logged(debug)


def test_log_secret_cut_off_is_masked(debug: LogLines) -> None:
    """Only the start of a body is quoted. A secret that is truncated at the end of the quotation is masked, too."""
    secret = "".join(chr(ord("a") + number % 26) for number in range(200)).upper()
    content = b"." * 400 + secret.encode() + b"." * 400
    for size in (1, 50, 100, 499, 4096):
        answer = stream(403, content)
        request = Request("GET", URL, {"Authorization": f"Bearer {secret}"})
        with make_transport(answer).round_trip(request) as response:
            for _ in response.iter_bytes(size):
                pass
    for count in (410, 450, 550):  # the caller stops in or after the secret
        answer = stream(403, content)
        with make_transport(answer).round_trip(Request("GET", URL, {"Authorization": f"Bearer {secret}"})) as response:
            response.read(count)
    assert secret[:8] not in debug.text


@pytest.mark.parametrize("name", ["WWW-Authenticate", "Warning", "X-Debug"])
def test_log_secret_repeated_by_header_is_masked(name: str, debug: LogLines) -> None:
    request = Request("GET", URL, {"Authorization": f"Bearer {CANARY}"})
    make_transport(Response(401, {name: f'Bearer error="{CANARY} is no token"'})).round_trip(request)
    assert_not_logged(debug)


@pytest.mark.parametrize("value", ["<https://a.example/?sig={}>; rel=next", "<x?n=1&token={}>; rel=next"])
def test_log_secret_in_link_query_is_masked(value: str, debug: LogLines) -> None:
    make_transport(Response(200, {"Link": value.format(CANARY)})).round_trip(Request("GET", URL))
    assert_not_logged(debug)


def test_log_secret_in_redirect_is_masked(debug: LogLines) -> None:
    target = f"https://storage.example/b?X-Amz-Signature={quote(CANARY, safe='')}&X-Amz-Credential={CANARY}"
    script = ScriptedTransport([Response(307, {"Location": target}), ReadError("reset")])
    transport = LogTransport(RedirectTransport(LogTransport(script)))
    with pytest.raises(ReadError):
        transport.round_trip(Request("GET", URL, {"Authorization": f"Bearer {CANARY}"}))
    assert len(script.requests) == 2
    assert_not_logged(debug)


LAYERS: dict[str, Any] = {
    "auth": partial(AuthTransport, credentials=StaticCredentials(HOST, Credential(username="me", password=CANARY))),
    "headers": HeadersTransport,
    "redirect": RedirectTransport,
    "retry": partial(RetryTransport, retry=urllib3.Retry(2), sleep=lambda seconds: None),
}


@pytest.mark.parametrize("position", range(len(LAYERS) + 1))
@pytest.mark.parametrize("at_all_positions", [False, True])
def test_log_at_any_position_in_stack_masks_secrets(position: int, at_all_positions: bool, debug: LogLines) -> None:
    signed = f"https://storage.example/b?sig={CANARY}"

    def answer(request: Request) -> Response:
        if request.url.startswith("https://storage.example"):
            return Response(200, (), b"content")
        if request.url.endswith("redirected"):
            return Response(307, {"Location": signed})
        if request.url.endswith("repeats"):
            return Response(403, (), json.dumps({"errors": [{"message": str(dict(request.headers.items()))}]}).encode())
        return Response(201)

    guard = AuthGuard(FunctionTransport(answer), users={"me": CANARY})
    base = FunctionTransport(lambda request: (answer if "storage" in request.url else guard.round_trip)(request))
    layers = list(LAYERS.values())
    for index in range(len(LAYERS), -1, -1) if at_all_positions else [position]:
        layers.insert(index, LogTransport)
    transport: Transport = stack(base, *layers)
    info = RequestInfo(required_scope=PULL, operation="do", debug_id="me")
    with transport.round_trip(Request("GET", f"https://{HOST}/v2/app/redirected", info=info)) as response:
        assert response.read() == b"content"
    with transport.round_trip(Request("GET", f"https://{HOST}/v2/app/repeats", info=info)) as response:
        assert response.status == 403
        response.read()
    body = Body.of(iter([b"con", b"tent"]))
    with transport.round_trip(Request("PUT", f"https://{HOST}/v2/app/x", body=body, info=info)) as response:
        assert response.status == 201
    transport.close()
    assert debug.lines
    assert_not_logged(debug)
