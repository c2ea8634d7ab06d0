"""Tests of `RedirectTransport`: followed redirects, their requests, and refused redirects."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ociwire import Body, FunctionTransport, Request, RequestInfo, Response, Scope
from ociwire._http.origin_policy import redirect_target
from ociwire.errors import ConnectError, RedirectError, TransportError, UsageError
from ociwire.testing import ScriptedTransport
from ociwire.transport import RedirectTransport

HOST = "registry.example"
URL = f"https://{HOST}/v2/app/blobs/x"
STORAGE = "https://storage.example/blob?signature=canary"
PULL = Scope.repository("app", "pull")
KEEP = (301, 302, 307, 308)
REDIRECTS = (*KEEP, 303)
SECRETS = {"Authorization": "Bearer canary", "Proxy-Authorization": "Basic canary", "Cookie": "a=canary"}
OK = Response(200, (), b"there")


def redirect_to(location: str, status: int = 307) -> Response:
    return Response(status, {"Location": location}, b"elsewhere")


def follow(request: Request, *answers: Any, **options: Any) -> tuple[Response, ScriptedTransport]:
    script = ScriptedTransport([*answers])
    with script:
        response = RedirectTransport(script, **options).round_trip(request)
    return response, script


def refuse(
    request: Request, *answers: Any, match: str | None = None, **options: Any
) -> tuple[RedirectError, ScriptedTransport]:
    script = ScriptedTransport([*answers])
    with script, pytest.raises(RedirectError, match=match) as caught:
        RedirectTransport(script, **options).round_trip(request)
    return caught.value, script


class RecordedBody:
    """Response body that records reads and closes."""

    def __init__(self, content: bytes = b"elsewhere") -> None:
        self.file = io.BytesIO(content)
        self.closed = 0
        self.read_to_end = False

    def readinto(self, buffer: memoryview, /) -> int:
        count = self.file.readinto(buffer)
        self.read_to_end = self.read_to_end or not count
        return count

    def close(self) -> None:
        self.closed += 1


# --- methods and bodies ---


@pytest.mark.parametrize("status", KEEP)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_redirect_method_and_headers_are_kept(status: int, method: str) -> None:
    headers = {"Accept": "a/b", "Range": "bytes=1-2", "Content-Type": "c/d", "Expect": "100-continue"}
    response, script = follow(Request(method, URL, headers), redirect_to("/elsewhere", status), OK)
    assert response.status == 200
    request = script.requests[1]
    assert (request.method, request.url) == (method, f"https://{HOST}/elsewhere")
    assert dict(request.headers.items()) == headers


def chunks() -> Iterator[bytes]:
    yield b"con"
    yield b"tent"


@pytest.mark.parametrize("status", KEEP)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "content", [lambda: b"content", lambda: io.BytesIO(b"content"), chunks, lambda: Body.of(chunks(), 7)]
)
def test_redirect_body_is_resent(status: int, method: str, content: Callable[[], Any]) -> None:
    request = Request(method, URL, body=Body.of(content()))
    _, script = follow(request, redirect_to(STORAGE, status), OK)
    assert script.requests[1].method == method
    assert script.requests[1].body is request.body
    assert script.bodies == [None, b"content"]


def test_redirect_resendable_body_sent_in_part_is_resent_from_start() -> None:
    file = io.BytesIO(b"before content")
    file.seek(7)

    def read_first_chunk(request: Request) -> Response:
        assert request.body is not None
        next(request.body.open())
        return redirect_to(STORAGE)

    for content in (file, b"content"):
        _, script = follow(Request("PUT", URL, body=Body.of(content)), read_first_chunk, OK)
        assert script.bodies == [None, b"content"]
    assert not file.closed


@pytest.mark.parametrize("status", KEEP)
def test_redirect_consumed_single_use_body_raises_redirect_error(status: int) -> None:
    body = RecordedBody()

    def read_first_chunk(request: Request) -> Response:
        assert request.body is not None
        next(request.body.open())
        return Response(status, {"Location": STORAGE}, body)

    error, script = refuse(Request("PUT", URL, body=Body.of(chunks())), read_first_chunk, match="single-use")
    assert len(script.requests) == 1
    assert error.request is not None
    assert error.request.url == URL
    assert body.closed
    assert body.read_to_end
    assert "canary" not in str(error)


@pytest.mark.parametrize("consumed", [False, True])
@pytest.mark.parametrize(
    ("method", "second_method"), [("GET", "GET"), ("HEAD", "HEAD"), ("POST", "GET"), ("PUT", "GET"), ("DELETE", "GET")]
)
def test_see_other_becomes_get_without_body(method: str, second_method: str, consumed: bool) -> None:
    body = Body.of(chunks())

    def answer(request: Request) -> Response:
        if consumed:
            assert request.body is not None
            list(request.body.open())
        return redirect_to("/there", 303)

    headers = [
        ("Accept", "a/b"),
        ("Range", "bytes=1-2"),
        ("EXPECT", "100-continue"),
        ("Content-Type", "c/d"),
        ("content-range", "0-6"),
        ("Content-Anything", "e"),
        ("X-Content-Type", "f"),
    ]
    _, script = follow(Request(method, URL, headers, body), answer, OK)
    request = script.requests[1]
    assert (request.method, request.body) == (second_method, None)
    assert list(request.headers.items()) == [("Accept", "a/b"), ("Range", "bytes=1-2"), ("X-Content-Type", "f")]
    assert body.resendable is not consumed


def test_see_other_then_307_keeps_get() -> None:
    _, script = follow(Request("POST", URL, body=b"content"), redirect_to("/a", 303), redirect_to("/b", 308), OK)
    assert [(request.method, request.body) for request in script.requests[1:]] == [("GET", None)] * 2


def test_see_other_to_same_url_is_followed() -> None:
    _, script = follow(Request("POST", URL, body=b"content"), redirect_to(URL, 303), OK)
    assert [request.method for request in script.requests] == ["POST", "GET"]


# --- returned responses ---


@pytest.mark.parametrize("status", [100, 200, 201, 204, 300, 304, 305, 306, 309, 400, 404, 500])
def test_redirect_other_status_is_returned(status: int) -> None:
    answer = Response(status, {"Location": "http://evil.example/\\"})
    response, script = follow(Request("GET", URL), answer)
    assert response.status == status
    assert response.headers == answer.headers
    assert len(script.requests) == 1


@pytest.mark.parametrize("status", REDIRECTS)
def test_redirect_without_location_is_returned(status: int) -> None:
    body = RecordedBody()
    response, _ = follow(Request("GET", URL), Response(status, {"Content-Location": STORAGE}, body))
    assert response.status == status
    assert not body.closed
    assert response.read() == b"elsewhere"


@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize("location", [STORAGE, URL, "http://evil.example/", "https://me:pw@evil.example/"])
def test_redirect_of_token_server_is_returned(status: int, location: str) -> None:
    request = Request("POST", URL, body=b"refresh_token=canary", info=RequestInfo(operation="token"))
    response, _ = follow(request, redirect_to(location, status))
    assert response.status == status
    assert response.read() == b"elsewhere"


def test_redirect_response_without_request_gets_the_last_request() -> None:
    class Bare:
        requests_seen: list[Request] = []  # noqa: RUF012

        def round_trip(self, request: Request, /) -> Response:
            self.requests_seen.append(request)
            return Response(307, {"Location": "/b"}) if len(self.requests_seen) == 1 else Response(200)

        def close(self) -> None: ...

    response = RedirectTransport(Bare()).round_trip(Request("GET", URL))
    assert response.request is Bare.requests_seen[1]
    assert response.request.url == f"https://{HOST}/b"


def test_redirect_response_keeps_its_request() -> None:
    actual_request = Request("GET", "https://mirror.example/x")
    response, _ = follow(Request("GET", URL), redirect_to("/b"), lambda request: Response(200, request=actual_request))
    assert response.request is actual_request


# --- Location ---


RELATIVE = [
    ("/other", "https://r.example/other"),
    ("other", "https://r.example/a/b/other"),
    ("./other", "https://r.example/a/b/other"),
    ("../other", "https://r.example/a/other"),
    ("../../../../other", "https://r.example/other"),
    ("?x=y", "https://r.example/a/b/c?x=y"),
    ("//other.example/x", "https://other.example/x"),
    ("//r.example:443/x", "https://r.example:443/x"),
    ("https://other.example", "https://other.example"),
    ("https://other.example:8443?x", "https://other.example:8443?x"),
    ("HTTPS://Other.Example/X", "https://Other.Example/X"),
    ("https://[::1]:5000/x", "https://[::1]:5000/x"),
    ("/a:b/c", "https://r.example/a:b/c"),
    ("/x#fragment", "https://r.example/x"),
    ("https://other.example/x?y#fragment?z", "https://other.example/x?y"),
    ("/x%20y%2Fz%23?q=%26", "https://r.example/x%20y%2Fz%23?q=%26"),
]


@pytest.mark.parametrize(("location", "url"), RELATIVE)
def test_redirect_relative_location_is_resolved(location: str, url: str) -> None:
    base = "https://r.example/a/b/c?q=1"
    _, script = follow(Request("GET", base), redirect_to(location), OK)
    assert script.requests[1].url.replace("HTTPS", "https") == url
    assert redirect_target(base, location)[0].replace("HTTPS", "https") == url


def test_redirect_location_is_relative_to_request_of_response() -> None:
    def elsewhere(request: Request) -> Response:
        return Response(307, {"Location": "c?d"}, request=Request("GET", "https://mirror.example/a/b?x"))

    _, script = follow(Request("GET", URL), elsewhere, OK)
    assert script.requests[1].url == "https://mirror.example/a/c?d"


def test_redirect_second_location_is_relative_to_the_first() -> None:
    _, script = follow(Request("GET", URL), redirect_to("https://storage.example/a/b"), redirect_to("c"), OK)
    assert script.requests[2].url == "https://storage.example/a/c"


INVALID = [
    "ftp://storage.example/x",
    "file:///etc/passwd",
    "data:,x",
    "javascript:alert(1)",
    "mailto:me@example.com",
    "unix:/run/docker.sock",
    "http+unix://x/y",
    "https://me:canary@storage.example/",
    "https://me@storage.example/",
    "//me:canary@storage.example/",
    "https://registry.example\\@evil.example/",
    "\\\\evil.example/x",
    "/\\evil.example/x",
    " /x",
    "/x\ty",
    "/caf\x7f",
    "https://storage.example:99999/",
    "https://storage.example:x/",
    "https://storage.example:/",
    "https://a:1:2/",
    "https://[::1/x",
    "https://[nonsense]/x",
    "https://-a.example/",
    "https://a..example/",
    "https://a_b%2eexample/",
]


@pytest.mark.parametrize("location", INVALID)
@pytest.mark.parametrize("status", REDIRECTS)
def test_redirect_invalid_location_raises_redirect_error(location: str, status: int) -> None:
    body = RecordedBody()
    answer = Response(status, [("Location", location)], body)
    if answer.headers["location"] != location:  # RFC 9110, section 5.5: a value excludes surrounding whitespace
        pytest.skip("Headers strips whitespace around values")
    error, script = refuse(Request("GET", URL, SECRETS), answer, match=f"redirect of https://{HOST}")
    assert body.closed
    assert body.read_to_end
    assert len(script.requests) == 1
    assert error.request is not None
    assert error.request.url == URL
    assert "canary" not in str(error)
    with pytest.raises(RedirectError):
        redirect_target(URL, location)


@pytest.mark.parametrize("location", ["https:", "https://", "https:///evil.example/x", "https:/x", "https:x"])
def test_redirect_location_without_host_raises_redirect_error(location: str) -> None:
    # RFC 9110, section 4.2: an https URI has a host. Browsers read the third as evil.example, urljoin as a path here.
    with pytest.raises(RedirectError):
        redirect_target(URL, location)


def test_redirect_different_locations_raise_redirect_error() -> None:
    fields = [("Location", "/a?canary"), ("location", "https://evil.example/")]
    body = RecordedBody()
    error, script = refuse(Request("GET", URL), Response(307, fields, body), match="one Location header, got 2$")
    assert body.closed
    assert error.request is not None
    assert "canary" not in str(error)
    assert len(script.requests) == 1
    _, script = follow(Request("GET", URL), Response(307, [("Location", "/a"), ("location", "/a")]), OK)
    assert script.requests[1].url == f"https://{HOST}/a"


@pytest.mark.parametrize(
    "location", [f"http://{HOST}/x", f"http://{HOST}:443/x", "http://storage.example/x?canary", "http://127.0.0.1/"]
)
@pytest.mark.parametrize("status", REDIRECTS)
def test_redirect_https_to_http_raises_redirect_error(location: str, status: int) -> None:
    error, _ = refuse(Request("GET", URL), redirect_to(location, status), match="from https to http")
    assert "proxy that terminates TLS" in str(error)
    assert "X-Forwarded-Proto" in str(error)
    assert "canary" not in str(error)


def test_redirect_https_to_http_via_another_host_raises_redirect_error() -> None:
    error, _ = refuse(
        Request("GET", URL), redirect_to(STORAGE), redirect_to("http://storage.example/"), match="from https to http"
    )
    assert error.request is not None
    assert error.request.url == STORAGE.partition("?")[0]


@pytest.mark.parametrize(
    "location", ["https://r.example/x", "http://r.example:81/x", "http://other.example/x", "http://127.0.0.1:5000/"]
)
def test_redirect_http_to_any_origin_is_followed_anonymously(location: str) -> None:
    request = Request("GET", "http://r.example/v2/", SECRETS, info=RequestInfo(required_scope=PULL))
    _, script = follow(request, redirect_to(location), OK)
    assert script.requests[1].url == location
    assert not script.requests[1].headers
    assert script.requests[1].info == RequestInfo(anonymous=True)


def test_redirect_http_to_https_and_back_raises_redirect_error() -> None:
    refuse(
        Request("GET", "http://r.example/"),
        redirect_to("https://r.example/"),
        redirect_to("http://r.example/x"),
        match="from https to http",
    )


# --- limits and loops ---


def test_redirect_eleventh_redirect_raises_redirect_error() -> None:
    hops = [redirect_to(f"/{number}") for number in range(10)]
    response, script = follow(Request("GET", URL), *hops, OK)
    assert response.status == 200
    assert script.requests[-1].url == f"https://{HOST}/9"
    body = RecordedBody()
    last = Response(307, {"Location": "/eleventh?canary"}, body)
    error, script = refuse(Request("GET", URL), *hops, last, match="too many redirects: expected at most 10,")
    assert len(script.requests) == 11
    assert body.closed
    assert error.request is not None
    assert error.request.url == f"https://{HOST}/9"
    assert "canary" not in str(error)


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_redirect_max_redirects_is_obeyed(limit: int) -> None:
    hops = [redirect_to(f"/{number}") for number in range(limit)]
    assert follow(Request("GET", URL), *hops, OK, max_redirects=limit)[0].status == 200
    refuse(
        Request("GET", URL),
        *hops,
        redirect_to("/more"),
        match=f"redirects: expected at most {limit},",
        max_redirects=limit,
    )


@pytest.mark.parametrize("invalid", [-1, 1.0, "3", None, True])
def test_redirect_transport_invalid_max_redirects_raises_usage_error(invalid: Any) -> None:
    with pytest.raises(UsageError, match="max_redirects"):
        RedirectTransport(ScriptedTransport([]), max_redirects=invalid)


@pytest.mark.parametrize(
    "hops",
    [
        [URL],
        [""],
        ["#fragment"],
        ["/a", URL],
        ["/a", "/b", "/a"],
        ["/a?x=1", "/a?x=2", "/a?x=1"],
        [STORAGE, URL],
        [STORAGE, STORAGE],
    ],
)
def test_redirect_loop_raises_redirect_error(hops: list[str]) -> None:
    bodies = [RecordedBody() for _ in hops]
    answers = [Response(307, {"Location": hop}, body) for hop, body in zip(hops, bodies, strict=True)]
    error, script = refuse(Request("GET", URL), *answers, match="^redirect loop: ")
    assert len(script.requests) == len(hops)
    assert all(body.closed and body.read_to_end for body in bodies)
    assert error.request is not None
    last = script.requests[-1].url
    assert error.request.url == (last.partition("?")[0] if last == STORAGE else last)
    assert "canary" not in str(error)


# --- credentials ---


def info() -> RequestInfo:
    return RequestInfo(
        required_scope=PULL,
        operation="get_blob",
        debug_id="me",
        timeout=3.0,
        deadline=1e9,
        idempotent=True,
        extra={"tenant": 1},
    )


@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize(
    "location",
    [
        "https://storage.example/x",
        f"https://{HOST}:444/x",
        f"https://cdn.{HOST}/x",
        f"https://{HOST}./x",
        f"//{HOST}:8443/x",
    ],
)
def test_redirect_cross_origin_has_no_credentials(status: int, location: str) -> None:
    try:
        redirect_target(URL, location)
    except RedirectError:
        pytest.skip("not a host")
    fields = [*SECRETS.items(), ("COOKIE", "b=canary"), ("Accept", "a/b"), ("Range", "bytes=0-"), ("X-Mine", "1")]
    _, script = follow(Request("GET", URL, fields, info=info()), redirect_to(location, status), OK)
    assert list(script.requests[1].headers.items()) == [("Accept", "a/b"), ("Range", "bytes=0-"), ("X-Mine", "1")]
    assert script.requests[1].info == info().replace(required_scope=Scope.EMPTY, anonymous=True)
    assert "canary" not in str(list(script.requests[1].headers.items()))


@pytest.mark.parametrize("location", ["/x", f"https://{HOST}/x", f"https://{HOST}:443/x", f"HTTPS://{HOST.upper()}/x"])
@pytest.mark.parametrize("status", REDIRECTS)
def test_redirect_same_origin_keeps_credentials(location: str, status: int) -> None:
    _, script = follow(Request("GET", URL, SECRETS, info=info()), redirect_to(location, status), OK)
    assert dict(script.requests[1].headers.items()) == SECRETS
    assert script.requests[1].info == info()


def test_redirect_other_scheme_has_no_credentials() -> None:
    request = Request("GET", f"http://{HOST}:443/", SECRETS, info=info())
    _, script = follow(request, redirect_to(f"https://{HOST}:443/"), OK)
    assert not script.requests[1].headers
    assert script.requests[1].info.anonymous


def test_redirect_back_to_origin_has_no_credentials() -> None:
    request = Request("GET", URL, SECRETS, info=info())
    _, script = follow(
        request, redirect_to("/same"), redirect_to(STORAGE), redirect_to(URL + "/back"), redirect_to("/again"), OK
    )
    assert [bool(request.headers) for request in script.requests] == [True, True, False, False, False]
    assert [request.info.anonymous for request in script.requests] == [False, False, True, True, True]
    assert [request.info.required_scope for request in script.requests] == [PULL, PULL, *[Scope.EMPTY] * 3]


def test_redirect_to_origin_of_inner_layer_has_no_credentials() -> None:
    def respond_as_mirror(request: Request) -> Response:
        return Response(307, {"Location": "/x"}, request=Request("GET", "https://mirror.example/"))

    _, script = follow(Request("GET", URL, SECRETS, info=info()), respond_as_mirror, OK)
    assert script.requests[1].url == "https://mirror.example/x"
    assert not script.requests[1].headers
    assert script.requests[1].info.required_scope == Scope.EMPTY
    assert script.requests[1].info.anonymous


# --- ownership ---


def test_redirect_followed_response_is_drained_and_last_is_not() -> None:
    bodies = [RecordedBody() for _ in range(3)]
    script = ScriptedTransport([Response(307, {"Location": f"/{n}"}, body) for n, body in enumerate(bodies)])
    transport = RedirectTransport(script)
    with pytest.raises(AssertionError, match="request 4"):
        transport.round_trip(Request("GET", URL))
    assert [body.closed > 0 and body.read_to_end for body in bodies] == [True] * 3
    body = RecordedBody()
    response, _ = follow(Request("GET", URL), redirect_to("/a"), Response(200, (), body))
    assert body.closed == 0
    assert response.read() == b"elsewhere"
    response.close()
    assert body.closed == 1


def test_redirect_followed_response_is_closed_before_next_request() -> None:
    body = RecordedBody()

    def check_closed(request: Request) -> Response:
        assert body.closed
        return OK

    follow(Request("GET", URL), Response(307, {"Location": "/a"}, body), check_closed)


def test_redirect_request_of_caller_is_not_changed() -> None:
    fields = [*SECRETS.items(), ("Content-Type", "a/b"), ("Expect", "100-continue")]
    content = Body.of(b"content")
    request = Request("PUT", URL, fields, content, info())
    _, script = follow(request, redirect_to(STORAGE, 303), OK)
    assert script.requests[0] is request
    assert request == Request("PUT", URL, fields, content, info())
    assert list(request.headers.items()) == fields


def test_redirect_body_is_not_read() -> None:
    body = Body.of(chunks())
    _, script = follow(Request("PUT", URL, body=body), redirect_to(STORAGE), Response(401))
    assert body.resendable
    assert script.requests[1].body is body


@pytest.mark.parametrize("error", [ConnectError("no"), ZeroDivisionError(), KeyboardInterrupt()])
def test_redirect_exception_propagates(error: BaseException) -> None:
    scripts: list[list[Any]] = [[error], [redirect_to("/a"), error]]
    for answers in scripts:
        with pytest.raises(type(error)) as caught:
            RedirectTransport(ScriptedTransport(answers)).round_trip(Request("GET", URL))
        assert caught.value is error


def test_redirect_error_has_redirected_request() -> None:
    error, script = refuse(Request("GET", URL, SECRETS), redirect_to("/a"), redirect_to("ftp://x/"))
    assert isinstance(error, TransportError)
    assert error.request is not None
    assert error.request.url == script.requests[1].url
    assert not error.request.headers


def test_redirect_transport_close_closes_inner() -> None:
    closed: list[int] = []
    transport = RedirectTransport(FunctionTransport(lambda request: OK, close=lambda: closed.append(1)))
    transport.close()
    transport.close()
    assert closed == [1]
    with pytest.raises(UsageError, match="closed"):
        transport.round_trip(Request("GET", URL))
