"""AuthGuard: the server side of the token specification, tested with literal requests."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from ociwire import Body, FunctionTransport, Request, Response, Scope
from ociwire.auth import Challenge
from ociwire.errors import UsageError
from ociwire.testing import AuthGuard
from tests._support.doubles import RecordingTransport

URL = "https://registry.example"
REALM = "https://auth.example/token"
BLOB = f"{URL}/v2/team/app/blobs/x"


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def guarded(**options: Any) -> tuple[AuthGuard, RecordingTransport]:
    inner = RecordingTransport(Response(200, (), b"inside"))
    return AuthGuard(inner, users={"me": "secret", "you": "other"}, **{"realm": REALM, **options}), inner


def token(guard: AuthGuard, scope: str = "", headers: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    query = urlencode([("service", "registry.example"), *(("scope", word) for word in scope.split())])
    response = guard.round_trip(Request("GET", f"{REALM}?{query}", headers or {}))
    return response.status, response.json()


def status(guard: AuthGuard, value: str, method: str = "GET", url: str = BLOB) -> int:
    return guard.round_trip(Request(method, url, {"Authorization": f"Bearer {value}"})).status


@pytest.mark.parametrize(
    ("method", "url", "scope"),
    [
        ("GET", BLOB, "repository:team/app:pull"),
        ("HEAD", f"{URL}/v2/team/app/manifests/v1", "repository:team/app:pull"),
        ("GET", f"{URL}/v2/app/tags/list?n=1", "repository:app:pull"),
        ("GET", f"{URL}/v2/app/referrers/sha256:x", "repository:app:pull"),
        ("POST", f"{URL}/v2/app/blobs/uploads/", "repository:app:pull,push"),
        ("PATCH", f"{URL}/v2/app/blobs/uploads/1", "repository:app:pull,push"),
        ("PUT", f"{URL}/v2/app/manifests/v1", "repository:app:pull,push"),
        ("DELETE", f"{URL}/v2/app/manifests/v1", "repository:app:delete"),
        (
            "POST",
            f"{URL}/v2/app/blobs/uploads/?mount=x&from={quote('lib/base')}",
            "repository:app:pull,push repository:lib/base:pull",
        ),
        ("GET", f"{URL}/v2/_catalog?n=2", "registry:catalog:*"),
        ("GET", f"{URL}/v2/", None),
    ],
)
def test_guard_request_without_token_is_challenged_with_its_scope(method: str, url: str, scope: str | None) -> None:
    guard, inner = guarded()
    response = guard.round_trip(Request(method, url))
    assert response.status == 401
    (challenge,) = Challenge.parse(*response.headers.get_all("www-authenticate"))
    assert challenge.scheme == "bearer"
    assert challenge.params["realm"] == REALM
    assert challenge.params["service"] == "registry.example"
    assert challenge.params.get("scope") == scope
    assert inner.requests == []
    assert guard.challenged == 1


def test_guard_token_allows_only_its_scope() -> None:
    guard, inner = guarded()
    code, answer = token(guard, "repository:team/app:pull", basic("me", "secret"))
    assert code == 200
    assert answer["expires_in"] == 300
    assert status(guard, answer["token"]) == 200
    assert "authorization" not in inner.requests[0].headers
    assert status(guard, answer["token"], "DELETE") == 401
    assert status(guard, answer["token"], url=f"{URL}/v2/other/blobs/x") == 401
    assert guard.asked == [Scope.parse("repository:team/app:pull")]


@pytest.mark.parametrize(
    "headers",
    [basic("me", "wrong"), basic("other", "secret"), {"Authorization": "Basic ???"}, {"Authorization": "X"}],
)
def test_guard_unknown_user_gets_no_token(headers: dict[str, str]) -> None:
    guard, _ = guarded()
    assert token(guard, "repository:a:pull", headers)[0] == 401


def test_guard_anonymous_token_grants_public_scopes() -> None:
    guard, _ = guarded()
    assert token(guard, "repository:team/app:pull")[0] == 401
    guard, _ = guarded(scopes={"": Scope.parse("repository:team/app:pull")})
    code, answer = token(guard, "repository:team/app:pull,push")
    assert code == 200
    assert status(guard, answer["token"]) == 200
    assert status(guard, answer["token"], "PUT") == 401


def test_guard_token_grants_only_scopes_of_user() -> None:
    guard, _ = guarded(scopes={"you": Scope.parse("repository:team/app:pull")})
    _, mine = token(guard, "repository:team/app:pull,push", basic("me", "secret"))
    _, yours = token(guard, "repository:team/app:pull,push", basic("you", "other"))
    assert [status(guard, answer["token"], "PUT") for answer in (mine, yours)] == [200, 401]


def test_guard_identity_token_grants_as_its_user() -> None:
    guard, _ = guarded(identity_tokens={"long lived": "me"})

    def post(refresh_token: str) -> Response:
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token, "scope": "repository:team/app:pull"}
        return guard.round_trip(Request("POST", REALM, (), urlencode(form).encode()))

    assert status(guard, json.loads(post("long lived").read())["access_token"]) == 200
    assert post("stolen").status == 401


def test_guard_expired_or_revoked_token_is_refused() -> None:
    now = [0.0]
    guard, _ = guarded(expires_in=60, now=lambda: now[0])
    _, answer = token(guard, "repository:team/app:pull", basic("me", "secret"))
    now[0] = 59.0
    assert status(guard, answer["token"]) == 200
    now[0] = 60.0
    assert status(guard, answer["token"]) == 401
    _, answer = token(guard, "repository:team/app:pull", basic("me", "secret"))
    guard.revoke()
    assert status(guard, answer["token"]) == 401


def test_guard_challenge_names_error() -> None:
    guard, _ = guarded()
    _, answer = token(guard, "", basic("me", "secret"))

    def error(headers: dict[str, str]) -> str | None:
        response = guard.round_trip(Request("GET", BLOB, headers))
        return Challenge.parse(response.headers["www-authenticate"])[0].params.get("error")

    assert error({}) is None
    assert error({"Authorization": "Bearer made-up"}) == "invalid_token"
    assert error({"Authorization": f"Bearer {answer['token']}"}) == "insufficient_scope"


def test_guard_basic_scheme_accepts_passwords() -> None:
    guard, inner = guarded(scheme="basic")
    response = guard.round_trip(Request("GET", BLOB))
    assert (response.status, response.headers["www-authenticate"]) == (401, 'Basic realm="registry"')
    assert guard.round_trip(Request("PUT", BLOB, basic("you", "other"))).status == 200
    assert guard.round_trip(Request("PUT", BLOB, basic("you", "wrong"))).status == 401
    assert len(inner.requests) == 1


@pytest.mark.parametrize("scheme", ["bearer", "basic"])
def test_guard_401_leaves_request_body_unread(scheme: str) -> None:
    guard, _ = guarded(scheme=scheme)
    body = Body.of(iter([b"once"]))
    assert guard.round_trip(Request("PUT", BLOB, body=body)).status == 401
    assert body.resendable


def test_guard_401_to_head_has_no_content() -> None:
    guard, _ = guarded()
    assert guard.round_trip(Request("HEAD", BLOB)).read() == b""
    assert b"UNAUTHORIZED" in guard.round_trip(Request("GET", BLOB)).read()


def test_guard_relative_realm_is_served_on_any_host() -> None:
    guard, _ = guarded(realm="/auth/token")
    response = guard.round_trip(Request("GET", "http://127.0.0.1:5000/v2/team/app/blobs/x"))
    realm = Challenge.parse(response.headers["www-authenticate"])[0].params["realm"]
    assert realm == "http://127.0.0.1:5000/auth/token"
    granted = guard.round_trip(Request("GET", f"{realm}?scope=repository:team/app:pull", basic("me", "secret")))
    assert status(guard, granted.json()["token"]) == 200


def test_guard_close_closes_inner_transport() -> None:
    guard, inner = guarded()
    guard.close()
    assert inner.closes == 1


def test_guard_changed_password_takes_effect() -> None:
    users = {"me": "old"}
    guard = AuthGuard(RecordingTransport(), users=users, scheme="basic")
    users["me"] = "new"
    answers = [guard.round_trip(Request("GET", BLOB, basic("me", password))).status for password in ("old", "new")]
    assert answers == [401, 200]


def test_guard_closed_refuses_requests() -> None:
    guard, _ = guarded()
    guard.close()
    with pytest.raises(UsageError, match="closed"):
        guard.round_trip(Request("GET", BLOB))


def test_guard_default_realm_is_on_requested_host() -> None:
    guard = AuthGuard(RecordingTransport(), users={})
    challenge = guard.round_trip(Request("GET", BLOB)).headers["www-authenticate"]
    assert Challenge.parse(challenge)[0].params["realm"] == f"{URL}/token"


def test_guard_unknown_scheme_is_refused() -> None:
    with pytest.raises(UsageError, match="'digest'"):
        AuthGuard(FunctionTransport(lambda request: Response(200)), users={}, scheme="digest")


def test_token_for_all_actions_grants_each_of_them() -> None:
    guard, _ = guarded()
    _, answer = token(guard, "repository:team/app:*", basic("me", "secret"))
    assert [status(guard, answer["token"], method) for method in ("GET", "PUT", "DELETE")] == [200, 200, 200]
    assert status(guard, answer["token"], url=f"{URL}/v2/other/blobs/x") == 401


@pytest.mark.parametrize(
    ("allowed", "requested", "granted"),
    [
        ("repository:team/app:*", "repository:team/app:pull,push", ["GET", "PUT"]),
        ("repository:team/app:*", "repository:team/app:*", ["GET", "PUT", "DELETE"]),
        ("repository:team/app:pull", "repository:team/app:*", ["GET"]),
        ("repository:other:*", "repository:team/app:*", []),
    ],
)
def test_scope_of_a_user_with_all_actions(allowed: str, requested: str, granted: list[str]) -> None:
    guard, _ = guarded(scopes={"me": Scope.parse(allowed)})
    _, answer = token(guard, requested, basic("me", "secret"))
    methods = [method for method in ("GET", "PUT", "DELETE") if status(guard, answer["token"], method) == 200]
    assert methods == granted
