"""Tests of `AuthTransport`: requests, token requests, and the returned responses."""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ociwire import AuthTransport, Body, Client, FunctionTransport, Request, RequestInfo, Response, Scope, Transport
from ociwire._oci.descriptor import Descriptor
from ociwire.auth import Anonymous, Credential, CredentialSource, StaticCredentials
from ociwire.errors import (
    AuthError,
    AuthTimeout,
    ConnectError,
    CredentialsRejected,
    TransportError,
    TransportTimeout,
    Unauthorized,
    UsageError,
)
from ociwire.testing import AuthGuard, ScriptedTransport
from ociwire.transport import HeadersTransport, default_transport, stack
from tests._support.doubles import FakeClock

HOST = "registry.example"
URL = f"https://{HOST}/v2/"
REALM = "https://auth.example/token"
ME = Credential(username="me", password="secret")
PULL = Scope.repository("app", "pull")
PUSH = Scope.repository("app", "pull", "push")


def get(scope: Scope = PULL, *, path: str = "app/blobs/x", method: str = "GET", **info: Any) -> Request:
    return Request(method, URL + path, info=RequestInfo(required_scope=scope, **info))


def challenged(scope: str = str(PULL), status: int = 401, realm: str = REALM, **params: str) -> Response:
    params = {"realm": realm, "service": "registry", **({"scope": scope} if scope else {}), **params}
    text = ",".join(f'{name}="{value}"' for name, value in params.items())
    return Response(status, {"WWW-Authenticate": f"Bearer {text}"})


def granted(value: str = "token-1", **more: Any) -> Response:
    return Response(200, (), json.dumps({"token": value, "expires_in": 300, **more}).encode())


BASIC = Response(401, {"WWW-Authenticate": 'Basic realm="registry"'})
OK = Response(200)


def scripted(
    *answers: Any, credentials: CredentialSource | None = None, **options: Any
) -> tuple[AuthTransport, ScriptedTransport]:
    script = ScriptedTransport(list(answers))
    source = StaticCredentials(HOST, ME) if credentials is None else credentials
    return AuthTransport(script, credentials=source, **options), script


def sent(script: ScriptedTransport) -> list[str]:
    """Return the method, the last part of the path (or ``token``) and the Authorization of each request."""
    lines = []
    for request in script.requests:
        url = urlsplit(request.url)
        target = "token" if request.url.startswith(REALM) else url.path.rpartition("/")[2]
        authorization = request.headers.get("authorization", "nothing")
        lines.append(f"{request.method} {target} {'me' if authorization == ME.basic else authorization}")
    return lines


class ScriptedSource:
    """Credential source that returns the items of a list, and repeats the last one."""

    def __init__(self, *answers: Credential | Exception | None) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[str, str | None]] = []

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        self.calls.append((host, repository))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


# --- first challenges ---


def test_round_trip_bearer_challenge_sends_token() -> None:
    transport, script = scripted(challenged(), granted(), OK)
    with script:
        assert transport.round_trip(get()).status == 200
    assert sent(script) == ["GET x nothing", "GET token me", "GET x Bearer token-1"]
    assert parse_qs(urlsplit(script.requests[1].url).query) == {"service": ["registry"], "scope": [str(PULL)]}


def test_round_trip_basic_challenge_sends_password_and_remembers_scheme() -> None:
    transport, script = scripted(BASIC, OK, OK)
    with script:
        for _ in range(2):
            assert transport.round_trip(get()).status == 200
    assert sent(script) == ["GET x nothing", "GET x me", "GET x me"]
    encoded = script.requests[1].headers["authorization"].removeprefix("Basic ")
    assert base64.b64decode(encoded) == b"me:secret"


def test_round_trip_basic_unicode_sends_utf_8() -> None:
    umlaut = Credential(username="müller", password="gräßlich☃")
    transport, script = scripted(BASIC, OK, credentials=StaticCredentials(HOST, umlaut))
    transport.round_trip(get())
    encoded = script.requests[1].headers["authorization"].removeprefix("Basic ")
    assert base64.b64decode(encoded).decode() == "müller:gräßlich☃"


@pytest.mark.parametrize("order", [("basic", "bearer"), ("bearer", "basic")])
@pytest.mark.parametrize("in_one", [True, False])
def test_round_trip_bearer_and_basic_prefers_bearer(order: tuple[str, str], in_one: bool) -> None:
    values = {"basic": 'Basic realm="r"', "bearer": f'Bearer realm="{REALM}"'}
    offers = [values[scheme] for scheme in order]
    headers = [("WWW-Authenticate", offer) for offer in ([", ".join(offers)] if in_one else offers)]
    transport, script = scripted(Response(401, headers), granted(), OK)
    with script:
        transport.round_trip(get())
    assert sent(script)[-1] == "GET x Bearer token-1"


@pytest.mark.parametrize(
    "header", [None, "", "Negotiate", "Bearer", 'Bearer service="x"', 'Digest realm="x"', '"', "AWS4-HMAC-SHA256 a=b"]
)
def test_round_trip_unknown_challenge_returns_401(header: str | None) -> None:
    refusal = Response(401, {} if header is None else {"WWW-Authenticate": header}, b"why")
    transport, script = scripted(refusal)
    with script, transport.round_trip(get()) as response:
        assert (response.status, response.read()) == (401, b"why")


def test_round_trip_own_authorization_passes_unchanged() -> None:
    source = ScriptedSource(ME)
    transport, script = scripted(challenged(), credentials=source)
    request = get().with_headers({"authorization": "Bearer own"})
    assert transport.round_trip(request).status == 401
    assert script.requests == [request]
    assert source.calls == []


def test_round_trip_registry_token_is_sent_at_once() -> None:
    credential = Credential(registry_token="given", username="me", password="secret")
    transport, script = scripted(OK, credentials=StaticCredentials(HOST, credential))
    transport.round_trip(get())
    assert sent(script) == ["GET x Bearer given"]


def test_round_trip_anonymous_gets_token() -> None:
    transport, script = scripted(challenged(), granted(), OK, credentials=Anonymous())
    assert transport.round_trip(get()).status == 200
    assert sent(script) == ["GET x nothing", "GET token nothing", "GET x Bearer token-1"]


def test_round_trip_public_content_of_basic_registry_looks_up_credential_once() -> None:
    source = ScriptedSource(None)
    transport, script = scripted(BASIC, OK, OK, OK, credentials=source)
    with script:
        assert [transport.round_trip(get()).status for _ in range(4)] == [401, 200, 200, 200]
    assert len(source.calls) == 2  # again after the 401


@pytest.mark.parametrize("unusable", [None, Credential(username="me")])
def test_round_trip_basic_without_credential_looks_up_credential_next_time(unusable: Credential | None) -> None:
    source = ScriptedSource(unusable, ME)
    transport, script = scripted(BASIC, OK, credentials=source)
    with script:
        assert transport.round_trip(get()).status == 401
        assert transport.round_trip(get()).status == 200
    assert sent(script) == ["GET x nothing", "GET x me"]


def test_round_trip_basic_without_credential_returns_401() -> None:
    transport, script = scripted(Response(401, BASIC.headers, b"why"), credentials=Anonymous())
    with transport.round_trip(get()) as response:
        assert (response.status, response.read()) == (401, b"why")
    assert len(script.requests) == 1


def test_token_request_copies_info_and_user_agent() -> None:
    transport, script = scripted(challenged(), granted(), OK)
    later = time.monotonic() + 1000
    request = get(operation="get_blob", debug_id="c1", deadline=later, timeout=3.0, extra={"tenant": "a"})
    transport.round_trip(request.with_headers({"User-Agent": "mine/1", "Accept": "x/y", "Range": "bytes=0-1"}))
    token_request = script.requests[1]
    assert dict(token_request.headers.items()) == {
        "User-Agent": "mine/1",
        "Accept": "application/json",
        "Authorization": ME.basic,
    }
    assert token_request.info == RequestInfo(
        operation="token", debug_id="c1", deadline=later, timeout=3.0, extra={"tenant": "a"}, idempotent=True
    )
    assert token_request.body is None


def test_token_transport_is_used_and_stays_open() -> None:
    tokens = ScriptedTransport([granted(), granted("token-2")])
    transport, script = scripted(challenged(), OK, token_transport=tokens)
    with script:
        transport.round_trip(get())
    transport.close()
    assert len(tokens.requests) == 1
    assert tokens.round_trip(get()).status == 200  # close() of the layer does not close it


@pytest.mark.parametrize(
    ("realm", "url"),
    [
        (REALM, f"{REALM}?service=s&scope=a"),
        (f"{REALM}?x=y", f"{REALM}?x=y&service=s&scope=a"),
        (f"{REALM}#top", f"{REALM}?service=s&scope=a"),
        ("https://auth.example", "https://auth.example?service=s&scope=a"),
    ],
)
def test_token_request_realm_with_query_keeps_it(realm: str, url: str) -> None:
    transport, script = scripted(challenged("a", realm=realm, service="s"), granted(), OK, credentials=Anonymous())
    transport.round_trip(get(Scope.EMPTY))
    assert script.requests[1].url == url


# --- scopes ---


@pytest.mark.parametrize(
    ("challenge", "required", "scopes"),
    [
        ("repository:app:push,pull", "repository:app:pull", ["repository:app:push,pull"]),  # sent unchanged
        ("repository:app:pull", "repository:app:pull,push", ["repository:app:pull", "repository:app:push"]),
        ("", "repository:app:pull", ["repository:app:pull"]),
        ("odd  words", "", ["odd", "words"]),
        ("", "", []),
        ("repository:app:pull", "*", ["repository:app:pull"]),
    ],
)
def test_token_request_scope_is_that_of_challenge_and_operation(
    challenge: str, required: str, scopes: list[str]
) -> None:
    transport, script = scripted(challenged(challenge), granted(), OK)
    needed = Scope.UNLIMITED if required == "*" else Scope.parse(required)
    transport.round_trip(get(needed))
    assert parse_qs(urlsplit(script.requests[1].url).query).get("scope", []) == scopes


def test_mount_blob_token_request_names_target_first() -> None:
    """Some token servers read only the first scope, and a mount needs both."""
    scopes: list[list[str]] = []
    digest = Descriptor.of(b"x").digest

    def answer(request: Request) -> Response:
        if request.url.startswith(REALM):
            scopes.append(parse_qs(urlsplit(request.url).query)["scope"])
            return granted()
        if "authorization" not in request.headers:
            return challenged("repository:target:pull,push")
        return Response(201 if request.method == "POST" else 200, {"Content-Length": "1"})

    source = ScriptedSource(ME)
    client = Client(HOST, AuthTransport(FunctionTransport(answer), credentials=source))
    client.mount_blob("source", "target", digest)
    assert scopes == [["repository:target:pull,push", "repository:source:pull"]]
    assert source.calls == [(HOST, "target")]


def test_round_trip_known_registry_requests_token_ahead() -> None:
    transport, script = scripted(challenged(), granted(), OK, granted("token-2"), OK)
    with script:
        transport.round_trip(get(PULL))
        transport.round_trip(get(PUSH))
    assert sent(script)[3:] == ["GET token me", "GET x Bearer token-2"]


def test_round_trip_push_after_pull_requests_larger_token() -> None:
    """A cached token for pull must not be sent with a push."""
    transport, script = scripted(challenged(), granted(), OK, granted("token-2"), OK, OK, OK)
    with script:
        for scope in (PULL, PUSH, Scope.repository("app", "push"), PULL):
            transport.round_trip(get(scope))
    assert sent(script)[3:] == [
        "GET token me",
        "GET x Bearer token-2",
        "GET x Bearer token-2",
        "GET x Bearer token-1",  # the token of exactly this scope
    ]


@pytest.mark.parametrize("credential", [ME, None])
def test_round_trip_empty_scope_sends_no_token_and_looks_up_no_credential(credential: Credential | None) -> None:
    source = ScriptedSource(credential)
    transport, script = scripted(challenged(), granted(), OK, OK, credentials=source)
    transport.round_trip(get(PULL))
    lookups = len(source.calls)
    transport.round_trip(get(Scope.EMPTY, path=""))
    assert sent(script)[-1] == "GET  nothing"
    assert len(source.calls) == lookups


def test_round_trip_empty_scope_reuses_its_own_token() -> None:
    transport, script = scripted(challenged(""), granted(), OK, OK)
    for _ in range(2):
        transport.round_trip(get(Scope.EMPTY, path=""))
    assert sent(script) == ["GET  nothing", "GET token me", "GET  Bearer token-1", "GET  Bearer token-1"]


def test_round_trip_empty_scope_does_not_reuse_token_of_other_repository() -> None:
    transport, script = scripted(challenged(), granted(), OK, OK)
    transport.round_trip(get(Scope.EMPTY))
    transport.round_trip(get(Scope.EMPTY, path="other/blobs/x"))
    assert sent(script) == ["GET x nothing", "GET token me", "GET x Bearer token-1", "GET x nothing"]


def test_round_trip_source_receives_normalized_host() -> None:
    for url, host in [
        ("https://registry-1.docker.io/v2/", "docker.io"),
        ("https://Registry.Example:443/v2/", "registry.example"),
        ("http://registry.example:80/v2/", "registry.example"),
        ("https://registry.example:5000/v2/", "registry.example:5000"),
        ("https://[::1]:5000/v2/", "[::1]:5000"),
    ]:
        source = ScriptedSource(ME)
        transport, _ = scripted(OK, credentials=source)
        transport.round_trip(get().replace(url=url))
        assert source.calls == [(host, "app")]


# --- lifetimes of tokens ---


def test_round_trip_token_about_to_expire_is_replaced(clock: FakeClock) -> None:
    """public.ecr.aws answers an expired token with 400, so a token that is about to expire is not sent."""
    transport, script = scripted(
        challenged(), granted("a", expires_in=300), OK, OK, granted("b", expires_in=300), OK, credentials=Anonymous()
    )
    transport.round_trip(get())
    clock.now += 269
    transport.round_trip(get())
    clock.now += 2
    transport.round_trip(get())
    assert sent(script)[2:] == ["GET x Bearer a", "GET x Bearer a", "GET token nothing", "GET x Bearer b"]


@pytest.mark.parametrize(
    ("expires_in", "lifetime"),
    [
        (None, 45),
        (60, 45),
        (8, 6),
        ("400", 370),
        (True, 45),
        (-5, 45),
        ("soon", 45),
        (1e400, 45),
        ([], 45),
        (1e12, 1e6),
    ],
)
def test_token_expires_in_determines_lifetime(clock: FakeClock, expires_in: Any, lifetime: float) -> None:
    transport, script = scripted(challenged(), granted("a", expires_in=expires_in), OK, OK, granted("b"), OK)
    transport.round_trip(get())
    clock.now += lifetime - 0.5
    transport.round_trip(get())
    assert sent(script)[3:] == ["GET x Bearer a"]
    clock.now += 1 if lifetime < 1e6 else 1e7
    transport.round_trip(get())
    assert sent(script)[4:] == ["GET token me", "GET x Bearer b"]


def test_token_lifetime_starts_at_request(clock: FakeClock) -> None:
    def slow(request: Request) -> Response:
        clock.now += 100
        return granted(expires_in=120)

    transport, script = scripted(challenged(), slow, OK, granted("b"), OK)
    transport.round_trip(get())
    transport.round_trip(get())
    assert sent(script)[-1] == "GET x Bearer b"


def test_push_chunked_token_expires_is_replaced_between_chunks(clock: FakeClock) -> None:
    """A long push does not fail when its token expires."""
    uploaded = bytearray()

    def registry(request: Request) -> Response:
        clock.now += 100
        if request.method == "POST":
            return Response(202, {"Location": "/v2/app/blobs/uploads/1"})
        assert request.body is not None
        uploaded.extend(b"".join(request.body.open()))
        status = 202 if request.method == "PATCH" else 201
        return Response(status, {"Location": "/v2/app/blobs/uploads/1", "Range": f"0-{len(uploaded) - 1}"})

    guard = AuthGuard(FunctionTransport(registry), users={"me": "secret"}, expires_in=300)
    client = Client(HOST, AuthTransport(guard, credentials=StaticCredentials(HOST, ME)))
    content = b"0123456789" * 10
    with client.push_blob_chunked("app", chunk_size=10) as writer:
        for start in range(0, 100, 10):
            writer.write(content[start : start + 10])
        assert writer.commit().digest == Descriptor.of(content).digest
    assert bytes(uploaded) == content
    assert len(guard.asked) > 3
    assert guard.challenged == 1


def test_round_trip_revoked_token_is_replaced() -> None:
    guard = AuthGuard(FunctionTransport(lambda request: OK), users={"me": "secret"})
    transport = AuthTransport(guard, credentials=StaticCredentials(HOST, ME))
    for _ in range(3):
        assert transport.round_trip(get()).status == 200
        guard.revoke()
    assert (len(guard.asked), guard.challenged) == (3, 3)


def test_round_trip_401_to_fresh_token_returns_401() -> None:
    transport, script = scripted(challenged(), granted(), challenged())
    with script:
        assert transport.round_trip(get()).status == 401
    assert len(script.requests) == 3


def test_round_trip_401_to_replaced_token_returns_401() -> None:
    transport, script = scripted(challenged(), granted(), OK, challenged(), granted("b"), challenged())
    with script:
        transport.round_trip(get())
        assert transport.round_trip(get()).status == 401


def test_round_trip_401_for_other_scope_keeps_token() -> None:
    other = challenged("repository:other:pull")
    transport, script = scripted(challenged(), granted(), OK, other, granted("b"), other, OK)
    with script:
        transport.round_trip(get())
        transport.round_trip(get())  # the registry requires another scope, and refuses its token, too
        transport.round_trip(get())
    assert sent(script)[3:] == ["GET x Bearer token-1", "GET token me", "GET x Bearer b", "GET x Bearer token-1"]


def test_round_trip_token_replaced_by_other_thread_uses_it() -> None:
    """Another thread gets the same 401 and a new token while this request is in flight."""
    transport: Transport

    def refuse_old_token(request: Request) -> Response:
        if request.headers["authorization"] != "Bearer old":
            return OK
        if not nested_requests:
            nested_requests.append(True)
            assert transport.round_trip(get()).status == 200
        return challenged()

    nested_requests: list[bool] = []
    transport, script = scripted(
        challenged(), granted("old"), OK, refuse_old_token, refuse_old_token, granted("new"), OK, OK
    )
    transport.round_trip(get())
    transport.round_trip(get())
    assert sent(script)[3:] == [
        "GET x Bearer old",
        "GET x Bearer old",
        "GET token me",
        "GET x Bearer new",
        "GET x Bearer new",
    ]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_round_trip_400_to_cached_token_requests_fresh_token_once(method: str) -> None:
    bad_request = Response(400, (), b"expired")
    transport, script = scripted(
        challenged(), granted("a"), OK, bad_request, granted("b"), OK, bad_request, granted("c"), bad_request
    )
    with script:
        assert transport.round_trip(get(method=method)).status == 200
        assert transport.round_trip(get(method=method)).status == 200
        assert transport.round_trip(get(method=method)).status == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_round_trip_400_to_write_returns_400(method: str) -> None:
    transport, script = scripted(challenged(), granted(), OK, Response(400))
    transport.round_trip(get(method=method))
    assert transport.round_trip(get(method=method)).status == 400
    assert len(script.requests) == 4


def test_round_trip_400_to_fresh_token_or_none_returns_400() -> None:
    transport, script = scripted(Response(400), challenged(), granted(), Response(400), OK)
    with script:
        assert transport.round_trip(get()).status == 400
        assert transport.round_trip(get()).status == 400
        assert transport.round_trip(get()).status == 200
    assert sent(script)[-1] == "GET x Bearer token-1"  # the token is still valid


def test_round_trip_refused_token_is_replaced_with_same_scope_if_challenge_names_none() -> None:
    transport, script = scripted(challenged(""), granted("a"), OK, challenged(""), granted("b"), OK)
    with script:
        for _ in range(2):
            assert transport.round_trip(get()).status == 200
    assert script.requests[1].url == script.requests[4].url
    assert parse_qs(urlsplit(script.requests[4].url).query)["scope"] == [str(PULL)]


def test_round_trip_challenged_response_is_closed_before_token_request() -> None:
    """The token request can use its connection."""
    body = TrackedBody()
    closed: list[bool] = []

    def grant(request: Request) -> Response:
        closed.append(body.closed)
        return granted()

    transport, script = scripted(lambda request: Response(401, challenged().headers, body), grant, OK)
    with script:
        assert transport.round_trip(get()).status == 200
    assert closed == [True]


def test_round_trip_password_rejected_before_token_is_not_sent_again() -> None:
    transport, script = scripted(BASIC, OK, challenged(), granted(), BASIC)
    with script:
        assert [transport.round_trip(get()).status for _ in range(2)] == [200, 401]
    assert sent(script)[2:] == ["GET x me", "GET token me", "GET x Bearer token-1"]


def test_round_trip_401_without_challenge_uses_known_challenge() -> None:
    transport, script = scripted(challenged(), granted("a"), OK, Response(401), granted("b"), OK)
    with script:
        transport.round_trip(get())
        assert transport.round_trip(get()).status == 200
    assert sent(script)[-2:] == ["GET token me", "GET x Bearer b"]


# --- credentials that rotate ---

NEXT = Credential(username="me", password="next")


def test_round_trip_basic_rejected_looks_up_credential_again() -> None:
    source = ScriptedSource(ME, NEXT)
    transport, script = scripted(BASIC, BASIC, OK, OK, credentials=source)
    with script:
        assert transport.round_trip(get()).status == 200
        assert transport.round_trip(get()).status == 200
    assert [request.headers.get("authorization") for request in script.requests] == [
        None,
        ME.basic,
        NEXT.basic,
        NEXT.basic,
    ]
    assert len(source.calls) == 2


def test_round_trip_source_always_changes_is_called_twice() -> None:
    source = ScriptedSource(*(Credential(username="me", password=f"number {number}") for number in range(9)))
    transport, script = scripted(BASIC, BASIC, BASIC, credentials=source)
    with script:
        assert transport.round_trip(get()).status == 401
    assert len(source.calls) == 2


def test_round_trip_source_always_changes_is_called_once_more_for_known_basic_registry() -> None:
    source = ScriptedSource(*(Credential(username="me", password=f"number {number}") for number in range(9)))
    transport, script = scripted(BASIC, OK, BASIC, BASIC, credentials=source)
    with script:
        assert [transport.round_trip(get()).status for _ in range(2)] == [200, 401]
    assert len(source.calls) == 2


def test_round_trip_credential_unchanged_is_not_sent_again(caplog: pytest.LogCaptureFixture) -> None:
    source = ScriptedSource(Credential(username="me", password="secret", source="vault kv/registry"))
    transport, script = scripted(BASIC, BASIC, credentials=source)
    with script:
        assert transport.round_trip(get()).status == 401
    assert len(source.calls) == 2
    assert f"{HOST} refused the credentials from vault kv/registry" in caplog.text


@pytest.mark.parametrize("unusable", [None, Credential(identity_token="refresh me")])
def test_round_trip_credential_rejected_and_not_replaced_is_looked_up_next_time(unusable: Credential | None) -> None:
    source = ScriptedSource(ME, unusable, NEXT)
    transport, script = scripted(BASIC, BASIC, OK, credentials=source)
    with script:
        assert [transport.round_trip(get()).status for _ in range(2)] == [401, 200]
    assert script.requests[2].headers["authorization"] == NEXT.basic


def test_round_trip_credential_rejected_each_time_is_looked_up_once_per_request() -> None:
    source = ScriptedSource(ME)
    transport, script = scripted(BASIC, BASIC, BASIC, BASIC, credentials=source)
    with script:
        for lookups in (2, 3, 4):
            assert transport.round_trip(get()).status == 401
            assert len(source.calls) == lookups


def test_log_scope_of_challenge_is_sanitized(caplog: pytest.LogCaptureFixture) -> None:
    transport, script = scripted(challenged(scope="repository:\x9b2Jevil:pull"), granted(), OK)
    with script, caplog.at_level(logging.DEBUG, "ociwire.auth"):
        assert transport.round_trip(get()).status == 200
    [line] = [line for line in caplog.messages if line.startswith("requesting ")]
    assert "evil" in line
    assert line.isprintable()


def test_round_trip_403_credential_changed_requests_same_scope(clock: FakeClock) -> None:
    """The challenge names less than a push needs."""
    transport, script = scripted(
        challenged(), granted(), OK, challenged(status=403), granted("b"), OK, credentials=ScriptedSource(ME, NEXT)
    )
    push = get(PUSH, method="PUT")
    assert transport.round_trip(push).status == 200
    clock.now += 61
    assert transport.round_trip(push).status == 200
    assert script.requests[4].url == script.requests[1].url
    assert script.requests[4].headers["authorization"] == NEXT.basic


def test_round_trip_registry_token_rejected_looks_up_credential_again() -> None:
    first, second = Credential(registry_token="one"), Credential(registry_token="two")
    transport, script = scripted(challenged(), OK, credentials=ScriptedSource(first, second))
    with script:
        assert transport.round_trip(get()).status == 200
    assert sent(script) == ["GET x Bearer one", "GET x Bearer two"]
    transport, script = scripted(challenged(), credentials=ScriptedSource(first))
    with script:
        assert transport.round_trip(get()).status == 401


def test_round_trip_token_server_rejects_looks_up_credential_again() -> None:
    source = ScriptedSource(ME, NEXT)
    transport, script = scripted(challenged(), Response(401), granted(), OK, credentials=source)
    with script:
        assert transport.round_trip(get()).status == 200
    assert [request.headers.get("authorization") for request in script.requests[1:3]] == [ME.basic, NEXT.basic]


def test_credentials_rejected_message_names_source_and_remedy() -> None:
    """Stale credentials break pulls of public content: the message says how to remove them."""
    stale = Credential(username="me", password="secret", source="/home/me/.docker/config.json, auths['registry']")
    source = ScriptedSource(stale)
    transport, script = scripted(challenged(), Response(401, (), b'{"details": "bad password"}'), credentials=source)
    with script, pytest.raises(CredentialsRejected) as caught:
        transport.round_trip(get())
    error = caught.value
    assert (error.host, error.realm, error.status) == (HOST, REALM, 401)
    for part in ("user 'me'", stale.source, "may be available without them", "Anonymous()", "bad password", REALM):
        assert part in str(error)
    assert len(source.calls) == 2


def test_credentials_rejected_anonymous_message_names_source() -> None:
    transport, _ = scripted(challenged(), Response(403), credentials=Anonymous())
    with pytest.raises(
        CredentialsRejected, match=r"an anonymous token \(status 403\)\. Anonymous has no credentials for"
    ):
        transport.round_trip(get())


def test_round_trip_expired_credential_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [5000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    source = ScriptedSource(Credential(username="AWS", password="one", expires_at=6000.0), NEXT)
    transport, script = scripted(BASIC, OK, OK, OK, credentials=source)
    for moment in (5000.0, 5999.0, 6001.0):
        now[0] = moment
        transport.round_trip(get())
    assert script.requests[2].headers["authorization"] != NEXT.basic
    assert script.requests[3].headers["authorization"] == NEXT.basic
    assert len(source.calls) == 2


def test_round_trip_new_credential_does_not_use_old_tokens() -> None:
    source = ScriptedSource(ME)
    transport, script = scripted(
        challenged(), granted("a"), OK, challenged(), Response(401), granted("b"), OK, credentials=source
    )
    transport.round_trip(get())
    source.answers = [NEXT]
    assert transport.round_trip(get()).status == 200
    assert script.requests[5].headers["authorization"] == NEXT.basic


def test_round_trip_source_fails_raises_auth_error_and_is_called_again() -> None:
    source = ScriptedSource(RuntimeError("vault is sealed"), ME)
    transport, _ = scripted(OK, credentials=source)
    with pytest.raises(
        AuthError, match=f"the credential source ScriptedSource failed for {HOST}: RuntimeError$"
    ) as caught:
        transport.round_trip(get())
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert transport.round_trip(get()).status == 200


def test_round_trip_source_fails_after_401_closes_response() -> None:
    body = TrackedBody()
    source = ScriptedSource(RuntimeError())
    transport, _ = scripted(lambda request: Response(401, BASIC.headers, body), credentials=source)
    with pytest.raises(AuthError):
        transport.round_trip(get(Scope.EMPTY))
    assert body.closed


class TrackedBody:
    """A response body that records whether it was closed."""

    closed = False

    def read(self, size: int = -1) -> bytes:
        return b""

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("source", [None, ME, ("me", "secret"), "me:secret", object()])
def test_init_invalid_source_raises_usage_error(source: Any) -> None:
    with pytest.raises(UsageError, match=r"a credential source must have a method lookup\(host, repository\), got "):
        AuthTransport(FunctionTransport(lambda request: OK), credentials=source)


def test_init_class_of_source_raises_usage_error() -> None:
    with pytest.raises(UsageError, match="got the class StaticCredentials: pass an instance"):
        AuthTransport(FunctionTransport(lambda request: OK), credentials=StaticCredentials)  # type: ignore[arg-type]


# --- identity tokens ---

IDENTITY = Credential(identity_token="refresh me")
BOTH = Credential(username="me", password="secret", identity_token="refresh me")


def test_token_request_identity_token_is_posted() -> None:
    transport, script = scripted(
        challenged("repository:app:pull repository:lib:pull"),
        Response(201, (), b'{"access_token": "t"}'),
        OK,
        credentials=StaticCredentials(HOST, IDENTITY),
    )
    with script:
        transport.round_trip(get())
    assert sent(script) == ["GET x nothing", "POST token nothing", "GET x Bearer t"]
    assert parse_qs((script.bodies[1] or b"").decode()) == {
        "grant_type": ["refresh_token"],
        "refresh_token": ["refresh me"],
        "service": ["registry"],
        "client_id": ["ociwire"],
        "scope": ["repository:app:pull repository:lib:pull"],
    }
    assert script.requests[1].headers["content-type"] == "application/x-www-form-urlencoded"
    assert script.requests[1].url == REALM


def test_token_request_password_and_identity_token_sends_get_with_password() -> None:
    """Every token server supports GET; some answer 404 or 405 to POST."""
    transport, script = scripted(challenged(), granted(), OK, credentials=StaticCredentials(HOST, BOTH))
    with script:
        assert transport.round_trip(get()).status == 200
    assert sent(script)[1:2] == ["GET token me"]


def test_token_request_empty_password_and_identity_token_sends_post() -> None:
    """``az acr login`` writes a user name, an empty password and an identity token."""
    azure = Credential(username="0" * 8, password="", identity_token="refresh me")
    transport, script = scripted(challenged(), granted(), OK, credentials=StaticCredentials(HOST, azure))
    with script:
        assert transport.round_trip(get()).status == 200
    assert sent(script)[1:2] == ["POST token nothing"]


@pytest.mark.parametrize("status", [404, 405])
def test_token_request_post_unsupported_without_password_raises_auth_error(status: int) -> None:
    transport, script = scripted(challenged(), Response(status), credentials=StaticCredentials(HOST, IDENTITY))
    with script, pytest.raises(AuthError, match=f"answered with status {status}$"):
        transport.round_trip(get())


@pytest.mark.parametrize("code", ["invalid_grant", "invalid_client"])
def test_token_response_oauth2_error_raises_credentials_rejected(code: str) -> None:
    refusal = Response(400, (), json.dumps({"error": code}).encode())
    transport, _ = scripted(challenged(), refusal, credentials=StaticCredentials(HOST, IDENTITY))
    with pytest.raises(CredentialsRejected, match=code):
        transport.round_trip(get())


# --- hostile token servers ---


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'"token"',
        b"<html>",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"token": 1}',
        b'{"token": null, "access_token": ""}',
        b'{"token": "a b"}',
        b'{"token": "a\\r\\nX-Evil: 1"}',
        '{"token": "\u00e9"}'.encode(),
        b'{"token": {"token": "x"}}',
        b'{"token": "x"}' + b" " * (1024 * 1024),
        b'{"token": "' + b"x" * (1024 * 1024) + b'"}',
        b'{"token": "' + b"x" * (64 * 1024 + 1) + b'"}',
    ],
    ids=lambda body: body[:20].decode("latin-1"),
)
def test_token_response_invalid_raises_auth_error(body: bytes) -> None:
    transport, _ = scripted(challenged(), Response(200, (), body))
    with pytest.raises(AuthError, match=r"the token server https://auth\.example/token \(of registry\.example\)"):
        transport.round_trip(get())


def test_token_response_endless_is_read_to_limit() -> None:
    class Endless:
        read_so_far = 0

        def readinto(self, buffer: memoryview) -> int:
            self.read_so_far += len(buffer)
            return len(buffer)

        def close(self) -> None:
            pass

    endless = Endless()
    transport, _ = scripted(challenged(), lambda request: Response(200, (), endless, request))
    with pytest.raises(AuthError, match="more than 1048576 bytes"):
        transport.round_trip(get())
    assert endless.read_so_far < 2 * 1024 * 1024


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
@pytest.mark.parametrize("credential", [ME, IDENTITY])
def test_token_response_redirect_raises_auth_error(status: int, credential: Credential) -> None:
    elsewhere = Response(status, {"Location": "https://evil.example/token"})
    transport, script = scripted(challenged(), elsewhere, credentials=StaticCredentials(HOST, credential))
    with script, pytest.raises(AuthError, match=rf"redirects \({status}\): (refusing to send credentials|refused)"):
        transport.round_trip(get())


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("credential", [ME, IDENTITY])
def test_token_response_redirect_message_names_origin_to_trust(status: int, credential: Credential) -> None:
    elsewhere = Response(status, {"Location": "https://login.example:8443/token?sig=s3cret"})
    transport, script = scripted(challenged(), elsewhere, credentials=StaticCredentials(HOST, credential))
    with script, pytest.raises(AuthError, match=r"\['https://login\.example:8443'\]") as caught:
        transport.round_trip(get())
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("credential", [ME, IDENTITY])
def test_token_response_redirect_to_trusted_origin_is_followed_once(status: int, credential: Credential) -> None:
    first = Response(status, {"Location": "https://login.example/token?x=1"})
    second = Response(status, {"Location": "https://evil.example/token"})
    trusted = {HOST: ["https://login.example"]}
    credentials = StaticCredentials(HOST, credential)
    transport, script = scripted(challenged(), first, second, credentials=credentials, trusted_realms=trusted)
    with script, pytest.raises(AuthError, match=rf"redirects \({status}\): (refusing to send credentials|refused)"):
        transport.round_trip(get())
    original, followed = script.requests[1:]
    assert followed.url == "https://login.example/token?x=1"
    assert (followed.method, followed.headers) == (original.method, original.headers)


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_token_response_other_status_raises_auth_error(status: int) -> None:
    transport, _ = scripted(challenged(), Response(status, (), b'{"errors": [{"message": "go\\n away"}]}'))
    with pytest.raises(AuthError, match=f"answered with status {status}: it said 'go away'$") as caught:
        transport.round_trip(get())
    assert not isinstance(caught.value, CredentialsRejected)


@pytest.mark.parametrize("error", [ConnectError("refused"), TransportError("broken")])
def test_token_request_connection_fails_raises_auth_error(error: TransportError) -> None:
    transport, _ = scripted(challenged(), error)
    with pytest.raises(
        AuthError,
        match=r"the request to the token server https://auth\.example/token \(of \S+\) failed: (refused|broken)",
    ) as caught:
        transport.round_trip(get())
    assert caught.value.__cause__ is error
    assert not isinstance(caught.value, TransportError)


def test_token_request_times_out_raises_auth_timeout() -> None:
    error = TransportTimeout("the deadline has passed")
    transport, _ = scripted(challenged(), error)
    with pytest.raises(AuthTimeout, match="did not respond in time") as caught:
        transport.round_trip(get())
    assert isinstance(caught.value, (AuthError, TransportTimeout, TimeoutError))
    assert caught.value.__cause__ is error


def test_token_response_stalls_raises_auth_timeout() -> None:
    def stalled() -> Iterator[bytes]:
        yield b'{"token":'
        raise TransportTimeout("timed out")

    transport, _ = scripted(challenged(), lambda request: Response(200, (), stalled(), request))
    with pytest.raises(AuthTimeout, match="did not respond in time"):
        transport.round_trip(get())


def test_token_response_breaks_off_raises_auth_error() -> None:
    def broken() -> Iterator[bytes]:
        yield b'{"token":'
        raise TransportError("reset")

    transport, _ = scripted(challenged(), lambda request: Response(200, (), broken(), request))
    with pytest.raises(AuthError, match=r"the request to the token server .* failed: reset$"):
        transport.round_trip(get())


def test_token_request_other_exception_propagates() -> None:
    transport, _ = scripted(challenged(), ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        transport.round_trip(get())


@pytest.mark.parametrize(
    ("realm", "rule"),
    [
        ("http://auth.example/token", "it goes from https to http"),
        ("https://127.0.0.1/token", "it has an internal address, but the registry has a public one"),
        ("https://10.0.0.1/token", "internal address"),
        ("https://localhost/token", "internal address"),
        ("https://[::ffff:169.254.169.254]/token", "internal address"),
        ("file:///etc/passwd", "expected an absolute http or https URL"),
        ("//auth.example/token", "expected an absolute http or https URL"),
        ("https://user:hunter2@auth.example/token", "userinfo is not allowed"),
        ("", "expected an absolute http or https URL"),
    ],
)
def test_realm_refused_by_policy_receives_nothing(realm: str, rule: str) -> None:
    transport, script = scripted(challenged(realm=realm))
    with script, pytest.raises(AuthError, match=rule) as caught:
        transport.round_trip(get())
    assert "hunter2" not in str(caught.value)
    if "address" in rule or "plain" in rule:
        assert "trusted_realms={'registry.example': ['" in str(caught.value)


def test_realm_in_trusted_realms_receives_token_request() -> None:
    realm = "http://10.0.0.1:8080"
    transport, script = scripted(
        challenged(realm=f"{realm}/token"), granted(), OK, trusted_realms={"Registry.Example:443": [realm]}
    )
    with script:
        assert transport.round_trip(get()).status == 200
    other, _ = scripted(challenged(realm=f"{realm}/token"), trusted_realms={"other.example": [realm]})
    with pytest.raises(AuthError, match="trusted_realms"):
        other.round_trip(get())


@pytest.mark.parametrize(
    "trusted",
    [
        {"registry.example": None},
        {"registry.example": "https://a.example"},
        {"a b": []},
        {"registry.example": ["auth"]},
    ],
)
def test_trusted_realms_invalid_raises_usage_error(trusted: Any) -> None:
    with pytest.raises(UsageError):
        scripted(trusted_realms=trusted)


# --- bodies ---


def test_single_use_body_unread_is_sent_after_challenge() -> None:
    def chunks() -> Iterator[bytes]:
        requests_sent.append(len(script.requests))
        yield b"content"

    requests_sent: list[int] = []
    transport, script = scripted(challenged(str(PUSH)), granted(), Response(201))
    response = transport.round_trip(get(PUSH, method="PUT").replace(body=Body.of(chunks(), 7)))
    assert response.status == 201
    assert script.bodies[2] == b"content"
    assert requests_sent == [3]


@pytest.mark.parametrize(
    ("length", "content", "probes"),
    [(None, b"x", True), (1, b"x", True), (262_144, b"x" * 262_144, True), (262_145, b"x" * 262_145, False)],
)
def test_probe_auth_single_use_body_probes_unknown_registry(length: int | None, content: bytes, probes: bool) -> None:
    first = [challenged("")] if probes else [challenged(str(PUSH))]
    transport, script = scripted(*first, granted(), Response(201), Response(201), probe_auth=True)
    put = get(PUSH, method="PUT", operation="own").with_headers({"User-Agent": "mine/1", "X-Own": "1"})
    assert transport.round_trip(put.replace(body=Body.of(iter([content]), length))).status == 201
    assert transport.round_trip(put.replace(body=Body.of(iter([content]), length))).status == 201
    assert [request.method for request in script.requests] == ["GET" if probes else "PUT", "GET", "PUT", "PUT"]
    assert script.bodies[2:] == [content, content]
    if probes:
        probe = script.requests[0]
        assert (probe.url, probe.info.operation, probe.body) == (URL, "own", None)
        assert list(probe.headers.items()) == [("User-Agent", "mine/1")]


@pytest.mark.parametrize("answer", [OK, Response(404), Response(401), BASIC])
def test_probe_auth_any_answer_sends_request(answer: Response) -> None:
    transport, script = scripted(answer, Response(201), Response(201), probe_auth=True)
    with script:  # it is probed once
        for _ in range(2):
            response = transport.round_trip(get(PUSH, method="PUT").replace(body=Body.of(iter([b"x"]))))
            assert response.status == 201
    assert script.bodies[1:] == [b"x", b"x"]
    assert ("authorization" in script.requests[1].headers) == (answer is BASIC)


def test_probe_auth_open_registry_is_not_probed() -> None:
    single_use = get(PUSH, method="PUT")
    transport, script = scripted(Response(202), Response(201), probe_auth=True)
    with script:
        transport.round_trip(get(PUSH, method="POST"))
        transport.round_trip(single_use.replace(body=Body.of(iter([b"x"]))))
    transport, script = scripted(OK, challenged(""), granted(), Response(201), probe_auth=True)
    with script:  # an anonymous pull does not show that pushes need no credentials
        transport.round_trip(get(PULL))
        transport.round_trip(single_use.replace(body=Body.of(iter([b"x"]))))


def test_probe_auth_resendable_request_is_sent_at_once() -> None:
    for request in (
        get(Scope.EMPTY, method="PUT").replace(body=Body.of(iter([b"x"]))),
        get(PUSH, method="PUT").replace(body=b"x"),
        get(PUSH, method="PUT").replace(body=Body.of(iter([]), 0)),
        get(PUSH, method="PUT"),
    ):
        transport, script = scripted(Response(201), probe_auth=True)
        with script:
            assert transport.round_trip(request).status == 201
    source = StaticCredentials(HOST, Credential(registry_token="given"))
    transport, script = scripted(Response(201), credentials=source, probe_auth=True)
    with script:
        transport.round_trip(get(PUSH, method="PUT").replace(body=Body.of(iter([b"x"]))))


def test_single_use_body_read_is_not_resent_and_challenge_is_remembered() -> None:
    def read_first_chunk(request: Request) -> Response:
        assert request.body is not None
        next(request.body.open())
        return challenged(str(PUSH))

    transport, script = scripted(read_first_chunk, granted(), Response(201))
    put = get(PUSH, method="PUT")
    assert transport.round_trip(put.replace(body=Body.of(iter([b"one", b"shot"]), 1_000_000))).status == 401
    assert transport.round_trip(put.replace(body=b"bytes")).status == 201
    assert sent(script) == ["PUT x nothing", "GET token me", "PUT x Bearer token-1"]


# --- sessions ---


def test_client_ten_pushes_and_pulls_cost_one_challenge_and_token() -> None:
    def registry(request: Request) -> Response:
        if request.method == "POST":
            return Response(202, {"Location": "/v2/app/blobs/uploads/1"})
        if request.method == "PUT":
            return Response(201)
        return Response(200, {"Content-Length": "1"}, b"x")

    guard = AuthGuard(FunctionTransport(registry), users={"me": "secret"})
    client = Client(HOST, AuthTransport(guard, credentials=StaticCredentials(HOST, ME)))
    descriptor = Descriptor.of(b"x")
    for _ in range(10):
        client.push_blob("app", descriptor, b"x")
        assert client.get_blob("app", descriptor.digest).read() == b"x"
    assert guard.challenged == 1
    assert guard.asked == [PUSH]


def test_round_trip_netrc_is_never_read(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text(f"machine {HOST}\nlogin evil\npassword evil\nmachine auth.example\nlogin evil\npassword evil\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    transport, script = scripted(challenged(), granted(), OK)
    transport.round_trip(get())
    assert sent(script) == ["GET x nothing", "GET token me", "GET x Bearer token-1"]


def test_round_trip_other_origin_receives_no_secret() -> None:
    """The target of a cross-origin redirect is requested with an empty scope and receives no secret."""
    transport, script = scripted(challenged(), granted(), OK, OK)
    transport.round_trip(get())
    transport.round_trip(Request("GET", "https://bucket.example/blob"))
    assert script.requests[-1].headers.get("authorization") is None


def test_round_trip_challenge_of_other_origin_uses_its_own_credentials() -> None:
    transport, script = scripted(Response(401, BASIC.headers))
    assert transport.round_trip(Request("GET", "https://bucket.example/blob")).status == 401
    assert sent(script) == ["GET blob nothing"]


def test_redirect_to_other_registry_sends_no_credentials() -> None:
    """A registry that redirects to another one must not make the client delete content there."""
    corp = AuthGuard(FunctionTransport(lambda request: Response(202)), users={"me": "secret"})

    def internet(request: Request) -> Response:
        if request.url.startswith("https://evil.example/"):
            return Response(307, {"Location": "https://registry.corp/v2/prod/manifests/sha256:" + "0" * 64})
        return corp.round_trip(request)

    source = StaticCredentials("registry.corp", ME)
    client = Client(
        "evil.example", default_transport(base=FunctionTransport(internet), credentials=source, retry=False)
    )
    with pytest.raises((CredentialsRejected, Unauthorized)):
        client.delete_tag("app", "latest")
    assert corp.challenged >= 1

    def registry(request: Request) -> Response:
        if request.url.startswith("https://evil.example/"):
            return Response(202, {"Location": "https://registry.corp/v2/prod/blobs/uploads/1"})
        return corp.round_trip(request)

    client = Client(
        "evil.example", default_transport(base=FunctionTransport(registry), credentials=source, retry=False)
    )
    with pytest.raises((CredentialsRejected, Unauthorized)):
        client.push_blob("app", Descriptor.of(b"x"), b"x")


def test_round_trip_anonymous_request_gets_anonymous_token() -> None:
    source = ScriptedSource(ME)
    transport, script = scripted(challenged(), granted(), OK, credentials=source)
    with script:
        assert transport.round_trip(get(anonymous=True)).status == 200
    assert sent(script) == ["GET x nothing", "GET token nothing", "GET x Bearer token-1"]
    assert source.calls == []


def test_round_trip_response_of_other_origin_is_not_answered() -> None:
    """A transport below may follow redirects by itself, and return the 401 of another origin."""
    elsewhere = Request("GET", "https://cdn.evil.example/x")
    refusal = Response(401, {"WWW-Authenticate": 'Bearer realm="https://evil.example/token"'}, request=elsewhere)
    transport, script = scripted(lambda request: refusal.replace(), challenged(), granted(), OK)
    with script:
        assert transport.round_trip(get()).status == 401
        assert transport.round_trip(get()).status == 200
    assert [urlsplit(request.url).hostname for request in script.requests] == [HOST, HOST, "auth.example", HOST]


def test_round_trip_token_revoked_does_not_use_older_tokens() -> None:
    guard = AuthGuard(FunctionTransport(lambda request: OK), users={"me": "secret"})
    transport = AuthTransport(guard, credentials=StaticCredentials(HOST, ME))
    for scope in (PULL, PUSH):
        assert transport.round_trip(get(scope, method="GET" if scope is PULL else "PUT")).status == 200
    guard.revoke()
    challenged_before = guard.challenged
    assert transport.round_trip(get(PULL)).status == 200
    assert guard.challenged == challenged_before + 1  # the larger token of the push is as old, and not sent


def test_round_trip_other_port_or_scheme_gets_no_credentials() -> None:
    for bound, url, given in [
        ("reg.corp:80", "https://reg.corp/", False),
        ("reg.corp", "https://reg.corp:80/", False),
        ("reg.corp:5000", "https://reg.corp/", False),
        ("reg.corp:443", "https://reg.corp/", True),
        ("reg.corp", "http://reg.corp:80/", True),
    ]:
        transport, _ = scripted(BASIC, OK, credentials=StaticCredentials(bound, ME))
        assert (transport.round_trip(Request("GET", url)).status == 200) == given


@pytest.mark.parametrize(
    ("url", "authorized"),
    [
        ("https://reg.corp/v2/", True),
        ("https://reg.corp:443/v2/", True),
        ("http://reg.corp:443/v2/", False),
        ("https://reg.corp:80/v2/", False),
        ("http://reg.corp/v2/", True),  # a client with insecure=True
        ("http://reg.corp:80/v2/", True),
    ],
)
@pytest.mark.parametrize("host", ["reg.corp", "reg.corp:443"])
def test_round_trip_http_on_port_443_gets_no_credentials(url: str, authorized: bool, host: str) -> None:
    script = ScriptedTransport([BASIC, OK])
    transport = AuthTransport(script, credentials=StaticCredentials(host, ME))
    transport.round_trip(Request("GET", url, info=RequestInfo(required_scope=PULL)))
    assert ["authorization" in request.headers for request in script.requests] == (
        [False, True] if authorized else [False]
    )


def test_round_trip_anonymous_token_refused_looks_up_credential_next_time() -> None:
    """Docker Hub grants anonymous users a token that permits nothing; then the user logs in."""
    source = ScriptedSource(None, ME)
    transport, script = scripted(challenged(), granted("weak"), challenged(), granted("good"), OK, credentials=source)
    with script:
        assert transport.round_trip(get()).status == 401
        assert transport.round_trip(get()).status == 200
    assert sent(script)[3:] == ["GET token me", "GET x Bearer good"]


def test_round_trip_many_threads_rejected_share_lookups() -> None:
    class Vault:
        calls = 0

        def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
            self.calls += 1
            return Credential(username="me", password="secret")  # another object each time

    all_refused = threading.Barrier(8)

    def registry(request: Request) -> Response:
        if "authorization" in request.headers:
            all_refused.wait(30)
        return BASIC

    vault = Vault()
    transport = AuthTransport(FunctionTransport(registry), credentials=vault)
    assert run([lambda: transport.round_trip(get()).status] * 8) == [401] * 8
    assert vault.calls <= 3


def test_round_trip_registry_token_does_not_check_realm() -> None:
    source = StaticCredentials(HOST, Credential(registry_token="given"))
    transport, _ = scripted(challenged(realm="http://127.0.0.1/"), credentials=source)
    assert transport.round_trip(get()).status == 401


@pytest.mark.parametrize("realm", ["https://[x]#", "https://[::1#t", "https://a]#t"])
def test_realm_unparsable_raises_auth_error(realm: str) -> None:
    transport, _ = scripted(challenged(realm=realm))
    with pytest.raises(AuthError, match=r"^cannot use the token server of https://registry.example: invalid "):
        transport.round_trip(get())


# --- threads ---


def run(threads: list[Callable[[], object]]) -> list[object]:
    """Run functions at the same time. Return the result or the exception of each."""
    start = threading.Barrier(len(threads))
    outcomes: list[object] = [None] * len(threads)

    def call(number: int, function: Callable[[], object]) -> None:
        start.wait()
        try:
            outcomes[number] = function()
        except BaseException as error:  # noqa: BLE001 - the outcome is inspected
            outcomes[number] = error

    running = [threading.Thread(target=call, args=(number, function)) for number, function in enumerate(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(30)
        assert not thread.is_alive()
    return outcomes


def test_round_trip_many_threads_share_one_token_request() -> None:
    all_challenged = threading.Barrier(16)
    tokens: list[str] = []

    def registry(request: Request) -> Response:
        if request.url.startswith(REALM):
            tokens.append(request.url)
            return granted()
        if "authorization" not in request.headers:
            all_challenged.wait(30)
            return challenged()
        return OK

    source = ScriptedSource(ME)
    transport = AuthTransport(FunctionTransport(registry), credentials=source)
    outcomes = run([lambda: transport.round_trip(get()).status] * 16)
    assert outcomes == [200] * 16
    assert len(tokens) == 1
    assert len(source.calls) == 1


def test_round_trip_slow_token_request_does_not_block_other_scope() -> None:
    other_is_done = threading.Event()

    def registry(request: Request) -> Response:
        if request.url.startswith(REALM):
            if "slow" in request.url:
                assert other_is_done.wait(30)
            return granted()
        return OK if "authorization" in request.headers else challenged("")

    transport = AuthTransport(FunctionTransport(registry), credentials=StaticCredentials(HOST, ME))

    def quick() -> int:
        status = transport.round_trip(get(Scope.repository("quick", "pull"))).status
        other_is_done.set()
        return status

    outcomes = run([lambda: transport.round_trip(get(Scope.repository("slow", "pull"))).status, quick])
    assert outcomes == [200, 200]


def test_round_trip_token_request_fails_raises_in_waiting_threads_once() -> None:
    all_challenged = threading.Barrier(4)
    failed: list[bool] = []

    def registry(request: Request) -> Response:
        if request.url.startswith(REALM):
            failed.append(True)
            return Response(503) if len(failed) == 1 else granted()
        if "authorization" in request.headers:
            return OK
        if not failed:
            all_challenged.wait(30)
        return challenged()

    transport = AuthTransport(FunctionTransport(registry), credentials=StaticCredentials(HOST, ME))
    outcomes = run([lambda: transport.round_trip(get()).status] * 4)
    errors = [outcome for outcome in outcomes if isinstance(outcome, AuthError)]
    # A thread that arrives after the failure makes another request, which succeeds.
    assert errors
    assert len({id(error) for error in errors}) == len(errors)
    assert all(outcome == 200 for outcome in outcomes if outcome not in errors)
    assert transport.round_trip(get()).status == 200


def test_token_transport_reenters_layer_raises_auth_error() -> None:
    transports: list[Transport] = []

    def around(request: Request) -> Response:
        return transports[0].round_trip(request.with_headers({"Authorization": None}))

    base = FunctionTransport(lambda request: challenged())
    transports.append(
        AuthTransport(base, credentials=StaticCredentials(HOST, ME), token_transport=FunctionTransport(around))
    )
    with pytest.raises(AuthError, match="must not send its requests through the layer that calls it"):
        transports[0].round_trip(get())


def test_source_reenters_layer_raises_auth_error() -> None:
    class Circular:
        def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
            transports[0].round_trip(get())
            return None

    transports: list[Transport] = [AuthTransport(FunctionTransport(lambda request: OK), credentials=Circular())]
    with pytest.raises(AuthError, match="getting a credential requires a credential"):
        transports[0].round_trip(get())


def test_round_trip_deadline_passed_while_waiting_raises_auth_timeout() -> None:
    token_requested, may_answer = threading.Event(), threading.Event()

    def registry(request: Request) -> Response:
        if request.url.startswith(REALM):
            token_requested.set()
            assert may_answer.wait(30)
            return granted()
        return OK if "authorization" in request.headers else challenged()

    transport = AuthTransport(FunctionTransport(registry), credentials=StaticCredentials(HOST, ME))

    def late() -> object:
        assert token_requested.wait(30)
        try:
            return transport.round_trip(get(deadline=time.monotonic())).status
        finally:
            may_answer.set()

    outcomes = run([lambda: transport.round_trip(get()).status, late])
    assert outcomes[0] == 200
    assert isinstance(outcomes[1], AuthTimeout)


# --- returned responses ---


def test_round_trip_response_has_sent_request() -> None:
    transport, _ = scripted(BASIC, OK)
    response = transport.round_trip(get())
    assert response.request is not None
    assert response.request.headers["authorization"] == ME.basic
    assert "c2VjcmV0" not in repr(response.request)
    assert "secret" not in repr(response.request)


def test_client_error_request_has_no_credentials() -> None:
    transport, _ = scripted(BASIC, BASIC)
    client = Client(HOST, transport)
    with pytest.raises(Unauthorized) as caught:
        client.resolve_blob("app", Descriptor.of(b"").digest)
    assert caught.value.request is not None
    assert "authorization" not in caught.value.request.headers


def test_close_closes_inner_transport() -> None:
    transport, script = scripted(OK)
    transport.close()
    transport.close()
    with pytest.raises(UsageError, match="closed"):
        script.round_trip(get())


def test_token_request_uses_user_agent_of_stack() -> None:
    script = ScriptedTransport([challenged(), granted(), OK])
    transport = stack(
        script,
        partial(AuthTransport, credentials=StaticCredentials(HOST, ME)),
        partial(HeadersTransport, user_agent="mine/2"),
    )
    transport.round_trip(get())
    assert [request.headers["user-agent"] for request in script.requests] == ["mine/2"] * 3


def test_round_trip_refusal_that_cannot_be_copied_raises_it_unchanged() -> None:
    class Refusal(AuthError):
        def __reduce__(self) -> Any:
            raise TypeError("cannot be copied")

    refusal = Refusal("refused by the vault", status=403)

    def answer(request: Request) -> Response:
        if request.url.startswith(REALM):
            raise refusal
        return challenged(str(PUSH))

    transport = AuthTransport(FunctionTransport(answer), credentials=StaticCredentials(HOST, ME))
    for _ in range(2):
        with pytest.raises(Refusal) as raised:
            transport.round_trip(get())
        assert raised.value is refusal
        assert raised.value.args == ("refused by the vault",)
