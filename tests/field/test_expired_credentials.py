"""After a 403, an expired credential is looked up again, and the request is repeated if the credential changed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest

from ociwire import AuthTransport, Body, Request, RequestInfo, Response, Scope
from ociwire.auth import Credential
from ociwire.auth._single_flight import SingleFlight
from tests._support.doubles import PATIENCE, Call, FakeClock
from tests.field.registries import HOST, FakeRegistry, challenge, get, pull
from tests.field.rows import Row

TITLE = "Expired credentials"
OLD = Credential(username="AWS", password="expired-password")
NEW = Credential(username="AWS", password="current-password")
OK = Response(200, (), b"{}")
LATER = 61.0
"""Seconds after which a 403 may mean that a credential has expired since the source returned it."""
FORBIDDEN = Response(403, (), b'{"errors":[{"code":"DENIED","message":"Your authorization token has expired."}]}')


class Source:
    """Source that returns the credential that the test sets."""

    def __init__(self) -> None:
        self.credential: Credential | None = OLD
        self.lookups = 0

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        self.lookups += 1
        return self.credential


@dataclass(frozen=True, kw_only=True)
class ExpiryRow(Row):
    """A registry whose credential expires.

    Attributes:
        refusal: The response to an expired credential.
        basic: Whether the registry requires Basic authentication. If not, it requires tokens. Defaults to true.
        changed: Whether the source then returns a new credential. Defaults to true.
        status: The status of the second response. Defaults to 200.
        lookups: Total number of lookups. Defaults to 2.
        sends: Number of times that the second request is sent. Defaults to 2.
    """

    refusal: Response
    basic: bool = True
    changed: bool = True
    status: int = 200
    lookups: int = 2
    sends: int = 2


class ExpiringRegistry:
    """Registry that refuses the credential `OLD` after `expire`."""

    def __init__(self, row: ExpiryRow) -> None:
        self.expired: set[str] = set()
        self.fake = FakeRegistry(self.serve, lambda scopes, url: Response(500))
        self.row = row
        self.refreshes = 0

    def serve(self, request: Request, scopes: set[str] | None) -> Response:
        authorization = request.headers.get("authorization")
        if authorization is None:
            return (
                Response(401, {"WWW-Authenticate": "Basic realm=ecr"})
                if self.row.basic
                else challenge("repository:app:pull")
            )
        return self.row.refusal if authorization in self.expired else OK

    def round_trip(self, request: Request, /) -> Response:
        if request.info.operation == "token":
            self.fake.token_requests.append([])
            value = "old" if request.headers.get("authorization") == OLD.basic else "new"
            return Response(200, (), json.dumps({"token": value, "expires_in": 300}).encode(), request)
        return self.fake.round_trip(request)

    def expire(self) -> None:
        self.expired = {OLD.basic or "", "Bearer old"}

    def close(self) -> None:
        pass


ECR = "[pulumi-docker-build#424](https://github.com/pulumi/pulumi-docker-build/issues/424)"
HELPER = "[amazon-ecr-credential-helper#679](https://github.com/awslabs/amazon-ecr-credential-helper/issues/679)"
ROWS = (
    ExpiryRow(
        name="password_expired_after_twelve_hours",
        registry="Amazon ECR",
        behaviour="An expired password is answered with 403 without a challenge.",
        result="Looks the credential up again and repeats the request once.",
        source=ECR,
        refusal=FORBIDDEN,
    ),
    ExpiryRow(
        name="password_expired_and_its_source_has_no_other",
        registry="Amazon ECR with a credential helper that serves an old password",
        behaviour="An expired password is answered with 403, and the source still returns it.",
        result="Returns the 403; calls the source at most once a minute.",
        source=HELPER,
        refusal=FORBIDDEN,
        changed=False,
        status=403,
        sends=1,
    ),
    ExpiryRow(
        name="token_of_an_expired_credential",
        registry="Registries that revoke the tokens of a rotated secret",
        behaviour="A token that was obtained with a replaced secret is answered with 403.",
        result="Requests a token with the new secret.",
        source="[token authentication](https://distribution.github.io/distribution/spec/auth/token/)",
        refusal=Response(403, (), b"revoked"),
        basic=False,
    ),
    ExpiryRow(
        name="expired_token_is_answered_401",
        registry="Docker Hub and most registries",
        behaviour="An expired token is answered with 401 and a challenge.",
        result="Requests one new token with the same credential.",
        source="[token authentication](https://distribution.github.io/distribution/spec/auth/token/)",
        refusal=challenge("repository:app:pull", error="invalid_token"),
        basic=False,
        lookups=1,
        status=401,
    ),
    ExpiryRow(
        name="html_403_of_a_firewall",
        registry="Firewalls in front of a registry",
        behaviour="A request is answered with 403 although the credential is valid.",
        result="Returns the 403.",
        source=HELPER,
        refusal=Response(403, {"Content-Type": "text/html"}, b"<html>blocked</html>"),
        changed=False,
        status=403,
        sends=1,
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_expired_credential_of_registry_is_looked_up_again(row: ExpiryRow, clock: FakeClock) -> None:
    registry, source = ExpiringRegistry(row), Source()
    transport = AuthTransport(registry, credentials=source)
    assert transport.round_trip(pull("app")).status == 200
    clock.now += LATER
    registry.expire()
    source.credential = NEW if row.changed else OLD
    before = len(registry.fake.sent)
    with transport.round_trip(pull("app")) as response:
        assert response.status == row.status
    assert source.lookups == row.lookups
    assert len(registry.fake.sent) - before == row.sends


def expired(clock: FakeClock, credential: Credential | None = OLD) -> tuple[ExpiringRegistry, Source, AuthTransport]:
    registry, source = ExpiringRegistry(ROWS[0]), Source()
    transport = AuthTransport(registry, credentials=source)
    transport.round_trip(pull("app"))
    clock.now += LATER
    registry.expire()
    source.credential = credential
    return registry, source, transport


def test_repeated_403_calls_source_once_a_minute(clock: FakeClock) -> None:
    _, source, transport = expired(clock)
    for seconds, lookups in [(0, 2), (1, 2), (30, 2), (30, 3), (59, 3)]:
        clock.now += seconds
        assert transport.round_trip(pull("app")).status == 403
        assert source.lookups == lookups
    source.credential = NEW
    clock.now += 60
    assert transport.round_trip(pull("app")).status == 200


def test_refreshed_credential_is_used_for_other_repository(clock: FakeClock) -> None:
    registry, source, transport = expired(clock)
    registry.expired.clear()
    transport.round_trip(pull("other"))
    clock.now += LATER
    registry.expire()
    source.credential = NEW
    assert [transport.round_trip(pull(name)).status for name in ("app", "other")] == [200, 200]


def test_403_right_after_lookup_does_not_call_source_for_any_repository(clock: FakeClock) -> None:
    """The source has returned the same credential for another repository within the last minute."""
    _, source, transport = expired(clock)
    assert transport.round_trip(pull("other")).status == 403
    clock.now += 59
    assert [transport.round_trip(pull(name)).status for name in ("app", "other")] == [403, 403]
    assert source.lookups == 2


def test_credential_looked_up_for_request_is_not_refreshed() -> None:
    registry, source = ExpiringRegistry(ROWS[0]), Source()
    registry.expire()
    assert AuthTransport(registry, credentials=source).round_trip(pull("app")).status == 403
    assert source.lookups == 1


def test_refreshed_credential_is_none_repeats_without_credential(clock: FakeClock) -> None:
    _registry, source, transport = expired(clock, None)
    assert transport.round_trip(pull("app")).status in (401, 403)
    assert source.lookups <= 3


def test_single_use_body_read_is_not_resent(clock: FakeClock) -> None:
    registry, _source, transport = expired(clock, NEW)
    sent: list[bytes] = []
    serve = registry.serve

    def consume_body(request: Request, scopes: set[str] | None) -> Response:
        if request.body is not None:
            sent.append(b"".join(request.body.open()))
        return serve(request, scopes)

    registry.fake._serve = consume_body
    body = Body.of(iter([b"once"]))
    info = RequestInfo(required_scope=Scope.parse("repository:app:pull"))
    assert transport.round_trip(Request("PUT", f"https://{HOST}/v2/app/blobs/uploads/1", (), body, info)).status == 403
    assert sent == [b"once"]


def test_push_403_is_repeated_with_new_credential(clock: FakeClock) -> None:
    _, _, transport = expired(clock, NEW)
    assert transport.round_trip(get("/v2/app/manifests/x", "repository:app:pull", "PUT", b"{}")).status == 200


def test_refreshed_credential_both_are_sent_once(clock: FakeClock) -> None:
    registry, _, transport = expired(clock, NEW)
    before = len(registry.fake.sent)
    transport.round_trip(pull("app"))
    sent_credentials = [line.partition(" Basic ")[2] for line in registry.fake.sent[before:]]
    expected: list[Callable[[], str] | str] = [
        (credential.basic or "").removeprefix("Basic ") for credential in (OLD, NEW)
    ]
    assert sent_credentials == expected


def test_request_without_scope_403_looks_up_credential_again(clock: FakeClock) -> None:
    registry, source = ExpiringRegistry(ROWS[2]), Source()
    transport = AuthTransport(registry, credentials=source)
    ping = get("/v2/", "")
    serve = registry.serve
    registry.fake._serve = lambda request, scopes: challenge() if scopes is None else serve(request, scopes)
    assert transport.round_trip(ping).status == 200
    clock.now += LATER
    registry.expire()
    source.credential = NEW
    assert transport.round_trip(ping).status == 200
    assert source.lookups == 2


@pytest.mark.parametrize("repositories", [1, 8])
def test_many_threads_403_wait_for_refreshed_credential(repositories: int, clock: FakeClock) -> None:
    """Threads wait while the source is called. Without waiting, all but one would fail."""
    registry, source = ExpiringRegistry(ROWS[0]), Source()
    transport = AuthTransport(registry, credentials=source)
    requests = [pull(f"app{number % repositories}") for number in range(8)]
    for request in requests:
        transport.round_trip(request)
    clock.now += LATER
    registry.expire()
    refused = threading.Barrier(8)
    serve, lookup = registry.serve, source.lookup
    calls: list[Call] = []

    def serve_at_once(request: Request, scopes: set[str] | None) -> Response:
        response = serve(request, scopes)
        if response.status == 403:
            refused.wait(PATIENCE)
        return response

    def lookup_once_all_wait(host: str, repository: str | None = None, /) -> Credential | None:
        if source.credential is OLD:
            all_are_started.wait(PATIENCE)
            while len(SingleFlight._waiting) < 7 and all(call.alive for call in calls):
                pass
            source.credential = NEW
        return lookup(host, repository)

    all_are_started = threading.Event()
    registry.fake._serve = serve_at_once
    source.lookup = lookup_once_all_wait  # type: ignore[method-assign]
    calls += [Call(partial(transport.round_trip, request)) for request in requests]
    all_are_started.set()
    assert [call.join().result.status for call in calls] == [200] * 8  # type: ignore[attr-defined]


def test_password_401_without_challenge_looks_up_credential_again(clock: FakeClock) -> None:
    registry, source, transport = expired(clock, NEW)
    serve = registry.serve

    def remove_challenges(request: Request, scopes: set[str] | None) -> Response:
        response = serve(request, scopes)
        return Response(401) if response.status == 403 else response

    registry.fake._serve = remove_challenges
    assert transport.round_trip(pull("app")).status == 200
    assert source.lookups == 2


def test_registry_changes_from_basic_to_bearer_gets_token(clock: FakeClock) -> None:
    registry, _source, transport = expired(clock, OLD)
    registry.fake._serve = lambda request, scopes: (
        OK if "Bearer" in request.headers["authorization"] else challenge("repository:app:pull")
    )
    assert transport.round_trip(pull("app")).status == 200
