"""Limits of `AuthTransport`, for any sequence of requests and any responses of the registry and of token servers.

A request is sent at most three times and causes at most two token requests. A secret is not sent again to a realm that
has answered with 401, nor to another origin. A single-use body is sent once.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator, Sequence
from unittest import mock
from urllib.parse import parse_qs

from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from ociwire import AuthTransport, Body, FunctionTransport, Request, RequestInfo, Response, Scope
from ociwire.auth import Credential
from ociwire.errors import AuthError
from tests._support.doubles import FakeClock
from tests._support.examples import example_count

HOST = "registry.example"
ORIGIN = f"https://{HOST}"
SECRETS = ("pAsSwOrD-1", "pAsSwOrD-2", "iDeNtItY-1", "rEgIsTrY-1")
CREDENTIALS = (
    None,
    Credential(username="ci", password=SECRETS[0]),
    Credential(username="ci", password=SECRETS[1]),
    Credential(username="ci", password=SECRETS[0], identity_token=SECRETS[2]),
    Credential(identity_token=SECRETS[2]),
    Credential(registry_token=SECRETS[3]),
)
REALMS = ("https://auth.example/token", "https://auth2.example/token", "/token", "http://plain.example/token", "")
SCOPES = (
    "",
    "repository:app:pull",
    "repository:app:pull,push",
    "repository:rewritten/app:pull",
    "repository:app:metadata_read",
    "repository:app:pull repository:other:pull",
    "registry:catalog:*",
)
REQUIRED = (*(Scope.parse(text) for text in SCOPES), Scope.UNLIMITED)


def bearer(chance: random.Random, received: Sequence[str]) -> str:
    params = {
        "realm": chance.choice((*REALMS[:1] * 4, *REALMS)),
        "service": chance.choice((HOST, HOST, "", "other")),
        "scope": chance.choice((*SCOPES[:2] * 2, *SCOPES, *(f"repository:{secret}:pull" for secret in received))),
    }
    return "Bearer " + ",".join(f'{name}="{value}"' for name, value in params.items() if value or name == "realm")


def registry_response(chance: random.Random, received: Sequence[str]) -> Response:
    """Return any response. Its challenges may contain a secret that the registry has received."""
    status = chance.choice((200, 202, 400, 401, 401, 401, 401, 403, 403, 404, 500))
    kinds = (*("Bearer",) * 4, 'Basic realm="r"', "Negotiate")
    challenges = [chance.choice(kinds) for _ in range(chance.choice((0, 1, 1, 1, 2)))]
    challenges = [bearer(chance, received) if kind == "Bearer" else kind for kind in challenges]
    return Response(status, {"WWW-Authenticate": ", ".join(challenges)} if challenges and status > 400 else {})


def token_response(chance: random.Random) -> Response:
    if chance.random() < 0.6:
        token = {"token": chance.choice(("t1", "t2", "t3")), "expires_in": chance.choice((1, 300))}
        return Response(200, (), json.dumps(token).encode())
    body = chance.choice((b"", b'{"error": "invalid_grant"}', b'{"error": "invalid_scope"}'))
    return Response(chance.choice((302, 400, 401, 401, 403, 403, 404, 405, 500)), (), body)


class AuthMachine(RuleBasedStateMachine):
    """State machine that sends requests and checks each request that a server receives.

    The responses come from a seeded generator, because hypothesis seldom tries many if it draws them one by one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.credential: Credential | None = CREDENTIALS[1]
        self.transport = AuthTransport(FunctionTransport(self.answer), credentials=self)
        self._patch = mock.patch("time.monotonic", self.clock)
        self._patch.start()

    def teardown(self) -> None:
        self._patch.stop()

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        assert host == HOST
        if self.chance.random() < 0.2:
            self.credential = self.chance.choice(CREDENTIALS)
        return self.credential

    @rule(credential=st.sampled_from(CREDENTIALS))
    def change_credential(self, credential: Credential | None) -> None:
        self.credential = credential

    @rule(seconds=st.sampled_from((1, 61, 400)))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule(
        chance=st.integers(0, 2**64).map(random.Random),
        method=st.sampled_from(("GET", "HEAD", "PUT", "POST")),
        required=st.sampled_from(REQUIRED),
        path=st.sampled_from(("manifests/x", "blobs/x", "tags/list")),
        anonymous=st.sampled_from((False, False, False, True)),
        single_use=st.booleans(),
    )
    def send(
        self, chance: random.Random, method: str, required: Scope, path: str, anonymous: bool, single_use: bool
    ) -> None:
        self.chance, self.anonymous = chance, anonymous
        self.sends = self.probes = self.token_requests = 0
        self.rejected: set[tuple[str, str]] = set()
        self.received: list[str] = []
        self.consumed = 0
        body = None if method in ("GET", "HEAD") else Body.of(self.chunks() if single_use else b"content")
        info = RequestInfo(required_scope=required, anonymous=anonymous)
        message = ""
        try:
            self.transport.round_trip(Request(method, f"{ORIGIN}/v2/app/{path}", (), body, info)).drain()
        except AuthError as error:
            message = f"{error!r} {error}"
        assert not any(secret in message for secret in self.received)
        assert self.sends <= 3
        assert self.token_requests <= 2
        assert self.probes <= 1

    def chunks(self) -> Iterator[bytes]:
        self.consumed += 1
        yield b"content"

    def answer(self, request: Request) -> Response:
        if request.info.operation == "token":
            return self.answer_token_request(request)
        assert request.url.startswith(f"{ORIGIN}/")
        if request.url == f"{ORIGIN}/v2/":
            self.probes += 1
            assert "authorization" not in request.headers
        else:
            self.sends += 1
        secret = self.secret_of(request)
        self.received += [secret] if secret else []
        assert secret is None or not self.anonymous
        assert secret is None or (ORIGIN, secret) not in self.rejected
        if request.body is not None:
            assert self.consumed == 0 or request.body.resendable
            if self.chance.random() < 0.5:
                b"".join(request.body.open())
        answer = registry_response(self.chance, self.received)
        note(f"{request.method} {request.url} {secret}: {answer.status} {answer.headers}")
        if secret is not None and answer.status == 401:
            self.rejected.add((ORIGIN, secret))
        return answer.replace(request=request)

    def answer_token_request(self, request: Request) -> Response:
        realm = request.url.partition("?")[0]
        self.token_requests += 1
        assert realm in {"https://auth.example/token", "https://auth2.example/token", f"{ORIGIN}/token"}
        secret = self.secret_of(request)
        self.received += [secret] if secret else []
        assert not (self.anonymous and secret)
        if secret is not None:
            assert (realm, secret) not in self.rejected
        answer = token_response(self.chance)
        note(f"{request.method} {request.url} {secret}: {answer.status}")
        if secret is not None and answer.status == 401:
            self.rejected.add((realm, secret))
        return answer.replace(request=request)

    def secret_of(self, request: Request) -> str | None:
        """Return the secret in a request. None if it has no secret, or only a token of a token server."""
        if request.method == "POST" and request.info.operation == "token" and request.body is not None:
            return parse_qs(b"".join(request.body.open()).decode())["refresh_token"][0]
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme == "Basic":
            return base64.b64decode(value).decode().partition(":")[2]
        return value if value in SECRETS else None


def test_round_trip_any_responses_keeps_limits() -> None:
    limits = settings(max_examples=example_count(300), stateful_step_count=20, deadline=None)
    run_state_machine_as_test(AuthMachine, settings=limits)  # type: ignore[no-untyped-call]
