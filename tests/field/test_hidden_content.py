"""Private content that registries hide behind 404 or 403 is requested again with credentials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from ociwire import Body, Client, Request, RequestInfo, Response, Scope
from ociwire.auth import Anonymous, CredentialSource
from ociwire.errors import AuthError, ManifestUnknown
from tests._support.doubles import content_of
from tests.field.registries import HOST, ORIGIN, FakeRegistry, challenge, get, pull
from tests.field.rows import Row

TITLE = "Private content behind 404 or 403"
OK = Response(200, (), b"{}")
BASIC = Response(401, {"WWW-Authenticate": 'Basic realm="registry"'})


@dataclass(frozen=True, kw_only=True)
class HiddenRow(Row):
    """A registry, and the results of two requests for a manifest.

    Attributes:
        serve: Function that answers requests, see `FakeRegistry`.
        status: The expected status of both requests.
        sent: The requests that the registry receives: ``METHOD PATH SCHEME``, with the authentication scheme.
        anonymous: Whether there are no credentials. Defaults to false.
    """

    serve: Callable[[Request, set[str] | None], Response]
    status: int
    sent: list[str]
    anonymous: bool = False


def hide_content(status: int, base_url: Response) -> Callable[[Request, set[str] | None], Response]:
    """Return a function that answers unauthorized requests with `status`, and ``/v2/`` with `base_url`."""

    def serve(request: Request, scopes: set[str] | None) -> Response:
        if request.url == f"{ORIGIN}/v2/":
            return base_url
        return Response(status, (), b"not found") if scopes is None else OK

    return serve


GET_BASE_URL, WITHOUT_AUTH = "GET /v2/ nothing", "GET /v2/app/manifests/latest nothing"
WITH_BASIC, WITH_TOKEN = "GET /v2/app/manifests/latest Basic", "GET /v2/app/manifests/latest Bearer"
ROWS = (
    HiddenRow(
        name="nginx_with_basic_answers_404",
        registry="distribution behind nginx with Basic authentication",
        behaviour="A private repository is answered with 404 without a challenge; `/v2/` sends one.",
        result="Requests `/v2/` once, and repeats the request with the credentials.",
        source="[docker-registry#1034](https://github.com/docker-archive/docker-registry/issues/1034)",
        serve=hide_content(404, BASIC),
        status=200,
        sent=[WITHOUT_AUTH, GET_BASE_URL, WITH_BASIC, WITH_BASIC],
    ),
    HiddenRow(
        name="token_registry_answers_404",
        registry="Registries that hide private repositories",
        behaviour="A private repository is answered with 404 so that its existence is not revealed.",
        result="Requests `/v2/` once, and repeats the request with a token.",
        source="[distribution#1984](https://github.com/distribution/distribution/issues/1984)",
        serve=hide_content(404, challenge()),
        status=200,
        sent=[WITHOUT_AUTH, GET_BASE_URL, WITH_TOKEN, WITH_TOKEN],
    ),
    HiddenRow(
        name="artifactory_answers_403",
        registry="Artifactory",
        behaviour="An anonymous request for private content is answered with 403 without a challenge.",
        result="Requests `/v2/` once, and repeats the request with the credentials.",
        source="[cargo#15118](https://github.com/rust-lang/cargo/issues/15118)",
        serve=hide_content(403, BASIC),
        status=200,
        sent=[WITHOUT_AUTH, GET_BASE_URL, WITH_BASIC, WITH_BASIC],
    ),
    HiddenRow(
        name="open_registry_answers_404",
        registry="Registries without authentication",
        behaviour="Content does not exist, and `/v2/` sends no challenge.",
        result="Returns the 404, and does not request `/v2/` again.",
        source="[Distribution specification](https://github.com/opencontainers/distribution-spec/blob/main/spec.md)",
        serve=hide_content(404, OK),
        status=404,
        sent=[WITHOUT_AUTH, GET_BASE_URL, WITHOUT_AUTH],
    ),
    HiddenRow(
        name="no_credentials_exist",
        registry="Any registry",
        behaviour="Content is answered with 404, and there are no credentials.",
        result="Returns the 404 without another request.",
        source="[Distribution specification](https://github.com/opencontainers/distribution-spec/blob/main/spec.md)",
        serve=hide_content(404, BASIC),
        status=404,
        sent=[WITHOUT_AUTH, WITHOUT_AUTH],
        anonymous=True,
    ),
    HiddenRow(
        name="404_has_a_challenge",
        registry="Gateways that answer 404 with a challenge",
        behaviour="The 404 has a challenge.",
        result="Answers the challenge without a request to `/v2/`.",
        source="[RFC 9110, section 11.6.1](https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1)",
        serve=lambda request, scopes: challenge("repository:app:pull", status=404) if scopes is None else OK,
        status=200,
        sent=[WITHOUT_AUTH, WITH_TOKEN, WITH_TOKEN],
    ),
    HiddenRow(
        name="credentials_do_not_help",
        registry="Registries that hide private repositories",
        behaviour="Content does not exist; `/v2/` sends a challenge.",
        result="Returns the 404 of the authenticated request; later requests are authenticated from the start.",
        source="[distribution#1984](https://github.com/distribution/distribution/issues/1984)",
        serve=lambda request, scopes: BASIC if request.url == f"{ORIGIN}/v2/" else Response(404),
        status=404,
        sent=[WITHOUT_AUTH, GET_BASE_URL, WITH_BASIC, WITH_BASIC],
    ),
)


def without_secrets(lines: list[str]) -> list[str]:
    return [" ".join(line.split(" ")[:3]) for line in lines]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_round_trip_hidden_content_is_requested_with_credentials(row: HiddenRow) -> None:
    registry = FakeRegistry(row.serve)
    source: CredentialSource | None = Anonymous() if row.anonymous else None
    transport = registry.transport(source)
    for _ in range(2):
        with transport.round_trip(pull("app")) as response:
            assert response.status == row.status
    assert without_secrets(registry.sent) == row.sent


def test_round_trip_404_with_other_scope_gets_new_token() -> None:
    required_scope = "repository:hidden/app:pull"
    registry = FakeRegistry(
        lambda request, scopes: (
            OK if scopes and required_scope in scopes else challenge(required_scope if scopes else "", status=404)
        )
    )
    assert registry.transport().round_trip(pull("app")).status == 200
    assert registry.token_requests == [["repository:app:pull"], [required_scope]]


@pytest.mark.parametrize("base_url", [Response(500), Response(503), Response(429)])
def test_probe_failed_is_repeated(base_url: Response) -> None:
    answers = iter([base_url, BASIC])
    registry = FakeRegistry(
        lambda request, scopes: (
            next(answers) if request.url == f"{ORIGIN}/v2/" else hide_content(404, OK)(request, scopes)
        )
    )
    transport = registry.transport()
    assert [transport.round_trip(pull("app")).status for _ in range(2)] == [404, 200]


def test_get_tag_token_refused_raises_error_of_registry() -> None:
    registry = FakeRegistry(hide_content(404, challenge()), lambda scopes, url: Response(401))
    client = Client(HOST, registry.transport())
    with pytest.raises(ManifestUnknown):
        client.get_tag("app", "latest")


@pytest.mark.parametrize(
    ("realm", "refusal", "match"),
    [
        ("http://auth.example/token", Response(200), "trusted_realms"),
        ("https://auth.example/token", Response(302, {"Location": "https://other.example/"}), "redirects"),
        ("https://auth.example/token", Response(404), "answered with status 404"),
    ],
)
def test_round_trip_hidden_content_without_usable_token_server_raises_auth_error(
    realm: str, refusal: Response, match: str
) -> None:
    """The content may exist: the 404 is only definite if the token server has refused the user."""
    registry = FakeRegistry(hide_content(404, challenge(realm=realm)), lambda scopes, url: refusal)
    with pytest.raises(AuthError, match=match):
        registry.transport().round_trip(pull("app"))


def test_round_trip_anonymous_request_is_not_repeated() -> None:
    registry = FakeRegistry(hide_content(404, BASIC))
    info = RequestInfo(required_scope=Scope.parse("repository:app:pull"), anonymous=True)
    request = Request("GET", f"{ORIGIN}/v2/app/manifests/latest", info=info)
    assert registry.transport().round_trip(request).status == 404
    assert without_secrets(registry.sent) == [WITHOUT_AUTH]


def test_round_trip_consumed_single_use_body_is_not_resent() -> None:
    def serve(request: Request, scopes: set[str] | None) -> Response:
        content_of(request.body)  # consumes the body
        return hide_content(404, BASIC)(request, scopes)

    registry = FakeRegistry(serve)
    request = get("/v2/app/blobs/uploads/1", "repository:app:pull,push", "PATCH").replace(body=Body.of(iter([b"x"])))
    assert registry.transport().round_trip(request).status == 404
    assert len(registry.sent) == 1


def test_round_trip_several_404s_of_open_registry_send_one_probe() -> None:
    registry = FakeRegistry(hide_content(404, OK))
    transport = registry.transport()
    for name in ("a", "b", "c", "d"):
        transport.round_trip(pull(name))
    assert len(registry.sent) == 5


@pytest.mark.parametrize("base_url", [BASIC, challenge()])
def test_round_trip_hidden_content_without_scope_is_found(base_url: Response) -> None:
    registry = FakeRegistry(hide_content(404, base_url))
    assert registry.transport().round_trip(get("/v2/app/tags/list", "")).status == 200
    assert len(registry.sent) == 3


def test_round_trip_404_of_base_url_is_not_probed() -> None:
    registry = FakeRegistry(lambda request, scopes: Response(404))
    assert registry.transport().round_trip(get("/v2/", "")).status == 404
    assert without_secrets(registry.sent) == [GET_BASE_URL]


class FailingHelper:
    """Source without credentials, because its helper failed."""

    def __init__(self) -> None:
        self.error = AuthError("the credential helper docker-credential-pass failed")

    def lookup(self, host: str, repository: str | None = None, /) -> None:
        return None

    def failure(self, host: str, repository: str | None = None, /) -> AuthError:
        return self.error


@pytest.mark.parametrize("scope", ["registry:catalog:*", "repository:app:pull", "repository:app:metadata_read"])
def test_round_trip_read_with_failed_helper_is_anonymous(scope: str) -> None:
    registry = FakeRegistry(lambda request, scopes: OK)
    assert registry.transport(FailingHelper()).round_trip(get("/v2/_catalog", scope)).status == 200


@pytest.mark.parametrize("scope", [Scope.UNLIMITED, Scope.parse("repository:app:pull,push")])
def test_round_trip_write_with_failed_helper_raises_auth_error(scope: Scope) -> None:
    registry = FakeRegistry(lambda request, scopes: OK)
    request = Request("PUT", f"{ORIGIN}/v2/app/manifests/x", (), b"{}", RequestInfo(required_scope=scope))
    with pytest.raises(AuthError, match="docker-credential-pass failed"):
        registry.transport(FailingHelper()).round_trip(request)
    assert registry.sent == []


def test_round_trip_failed_helper_error_keeps_no_traceback() -> None:
    registry, source = FakeRegistry(lambda request, scopes: BASIC), FailingHelper()
    transport = registry.transport(source)
    for _ in range(2):
        with pytest.raises(AuthError):
            transport.round_trip(pull("app"))
    assert source.error.__traceback__ is None
