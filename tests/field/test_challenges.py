"""The registry's challenge decides which token is requested: scope, realm and service."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from ociwire import (
    AuthTransport,
    Body,
    Client,
    Descriptor,
    Digest,
    FunctionTransport,
    Request,
    Response,
    Scope,
    Transport,
    default_transport,
)
from ociwire.auth import Credential, StaticCredentials
from ociwire.errors import AuthError, CredentialsRejected, Unauthorized
from ociwire.testing import AuthGuard, MemoryRegistry
from ociwire.transfer import copy
from tests._support.doubles import FakeClock, content_of
from tests.field.registries import CREDENTIAL, HOST, ORIGIN, REALM, FakeRegistry, challenge, get, pull, token
from tests.field.rows import Row

TITLE = "Challenges and tokens"
OK = Response(200, (), b"{}")


@dataclass(frozen=True, kw_only=True)
class ChallengeRow(Row):
    """A registry, requests to it, and the token requests that they cause.

    Attributes:
        fake: Creates the registry.
        requests: The requests, in order. All must succeed.
        tokens: The scopes of the token requests.
        sends: Number of requests that the registry receives.
    """

    fake: Callable[[], FakeRegistry]
    requests: tuple[Request, ...]
    tokens: list[list[str]]
    sends: int


def require_scope(
    scope_of: Callable[[Request], str], **challenge_options: str
) -> Callable[[Request, set[str] | None], Response]:
    """Return a function that serves requests whose token has the scope that it derives from the request."""

    def serve(request: Request, scopes: set[str] | None) -> Response:
        scope = scope_of(request)
        return OK if scopes is not None and scope in scopes else challenge(scope, **challenge_options)

    return serve


def repository_of(request: Request) -> str:
    return request.url.removeprefix(f"{ORIGIN}/v2/").rpartition("/")[0].rpartition("/")[0]


def without_prefix(request: Request) -> str:
    return f"repository:{repository_of(request).partition('/')[2]}:pull"


def with_prefix(request: Request) -> str:
    return f"repository:project/{repository_of(request)}:pull"


def plain(request: Request) -> str:
    return f"repository:{repository_of(request)}:pull"


def refuse_scopes(*scopes: str, status: int) -> Callable[[list[str], str], Response]:
    return lambda requested, url: Response(status) if set(requested) & set(scopes) else token(*requested)


def refuse_two_scopes(status: int) -> Callable[[list[str], str], Response]:
    return lambda requested, url: Response(status) if len(requested) > 1 else token(*requested)


def azure_registry() -> FakeRegistry:
    def scope_of(request: Request) -> str:
        return plain(request).replace("pull", "metadata_read" if "/tags/" in request.url else "pull")

    return FakeRegistry(require_scope(scope_of))


def registry_with_two_realms(refusal: Response | None) -> FakeRegistry:
    def serve(request: Request, scopes: set[str] | None) -> Response:
        repository = repository_of(request)
        realm = f"https://{repository}.auth.example/token"
        granted = scopes is not None and f"{repository}:{plain(request)}" in scopes
        return OK if granted else challenge(plain(request), realm=realm)

    def grant(scopes: list[str], url: str) -> Response:
        team = url.removeprefix("https://").partition(".")[0]
        if refusal is not None and any(not scope.startswith(f"repository:{team}:") for scope in scopes):
            return refusal
        return token(*(f"{team}:{scope}" for scope in scopes))

    return FakeRegistry(serve, grant)


def registry_with_two_services() -> FakeRegistry:
    def serve(request: Request, scopes: set[str] | None) -> Response:
        service = "blobs" if "/blobs/" in request.url else "manifests"
        return OK if scopes and service in scopes else challenge(plain(request), service=service)

    return FakeRegistry(serve, lambda scopes, url: token("blobs" if "service=blobs" in url else "manifests"))


def registry_with_insufficient_scope_errors() -> FakeRegistry:
    def serve(request: Request, scopes: set[str] | None) -> Response:
        required = "repository:app:pull,push" if request.method == "POST" else "repository:app:pull"
        if scopes is None:
            return challenge("repository:app:pull")
        return OK if required in scopes else challenge(required, status=403, error="insufficient_scope")

    return FakeRegistry(serve)


def registry_with_placeholder_scope() -> FakeRegistry:
    def serve(request: Request, scopes: set[str] | None) -> Response:
        if request.url == f"{ORIGIN}/v2/":
            return challenge("repository:user/image:pull")
        return OK if scopes and plain(request) in scopes else challenge(plain(request))

    return FakeRegistry(serve, refuse_scopes("repository:user/image:pull", status=403))


CONTAINERD = "[containerd#13412](https://github.com/containerd/containerd/pull/13412)"
ROWS = (
    ChallengeRow(
        name="proxy_strips_the_path_prefix",
        registry="Artifactory behind a proxy that rewrites paths",
        behaviour="The challenge names the repository without the prefix of its path.",
        result="Requests a token for the scope in the challenge, for every repository.",
        source="[containerd#6339](https://github.com/containerd/containerd/issues/6339)",
        fake=lambda: FakeRegistry(require_scope(without_prefix)),
        requests=(pull("foo-docker/test/a"), pull("foo-docker/test/b"), pull("foo-docker/test/c")),
        tokens=[[f"repository:test/{name}:pull"] for name in "abc"],
        sends=6,
    ),
    ChallengeRow(
        name="proxy_adds_a_path_prefix",
        registry="Harbor proxy caches, mirrors below a path",
        behaviour="The challenge names the repository with a prefix.",
        result="Requests a token for the scope in the challenge and remembers it for the repository.",
        source=CONTAINERD,
        fake=lambda: FakeRegistry(require_scope(with_prefix), refuse_scopes("repository:alpine:pull", status=403)),
        requests=(pull("alpine"), pull("alpine"), get("/v2/alpine/blobs/x", "repository:alpine:pull")),
        tokens=[["repository:project/alpine:pull"]],
        sends=4,
    ),
    ChallengeRow(
        name="prefetched_token_is_refused_by_the_registry",
        registry="Artifactory with a mixed layout",
        behaviour="The challenge of one repository names it correctly, and that of another names a different one.",
        result="Requests a second token for only the scope in the challenge.",
        source="[containerd#6339](https://github.com/containerd/containerd/issues/6339)",
        fake=lambda: FakeRegistry(require_scope(lambda r: plain(r) if "plain" in r.url else without_prefix(r))),
        requests=(pull("plain"), pull("proxy/app"), pull("proxy/app")),
        tokens=[["repository:plain:pull"], ["repository:proxy/app:pull"], ["repository:app:pull"]],
        sends=5,
    ),
    ChallengeRow(
        name="token_server_refuses_the_union_with_403",
        registry="Google Artifact Registry, GHCR",
        behaviour="The token server responds with 403 to requests for more scopes than the challenge names.",
        result="Requests a token for only the scope in the challenge.",
        source=CONTAINERD,
        fake=lambda: FakeRegistry(require_scope(plain), refuse_two_scopes(403)),
        requests=(get("/v2/app/manifests/x", "repository:app:pull repository:other:pull"),),
        tokens=[["repository:app:pull", "repository:other:pull"], ["repository:app:pull"]],
        sends=2,
    ),
    ChallengeRow(
        name="token_server_refuses_the_union_with_400",
        registry="Token servers that accept one scope parameter",
        behaviour="The token server responds with 400 to two scopes.",
        result="Requests a token for only the scope in the challenge, and remembers it.",
        source="[docker_auth#67](https://github.com/cesanta/docker_auth/issues/67)",
        fake=lambda: FakeRegistry(require_scope(plain), refuse_two_scopes(400)),
        requests=(get("/v2/app/manifests/x", "repository:app:pull repository:other:pull"),) * 2,
        tokens=[["repository:app:pull", "repository:other:pull"], ["repository:app:pull"]],
        sends=3,
    ),
    ChallengeRow(
        name="token_server_refuses_a_guessed_scope_with_403",
        registry="Google Artifact Registry remote repositories",
        behaviour="The token server responds with 403 to a scope that no challenge named.",
        result="Sends the request without a token and requests the scope in the challenge.",
        source=CONTAINERD,
        fake=lambda: FakeRegistry(
            require_scope(lambda r: plain(r) if "first" in r.url else with_prefix(r)),
            refuse_scopes("repository:b:pull", status=403),
        ),
        requests=(pull("first"), pull("b"), pull("b")),
        tokens=[["repository:first:pull"], ["repository:b:pull"], ["repository:project/b:pull"]],
        sends=5,
    ),
    ChallengeRow(
        name="token_server_refuses_a_guess_for_public_content",
        registry="Registries that challenge for private repositories only",
        behaviour="The token server responds with 403 to the guessed scope, and the content is public.",
        result="Sends the request without a token.",
        source=CONTAINERD,
        fake=lambda: FakeRegistry(
            lambda r, scopes: (
                require_scope(plain)(r, scopes) if "private" in r.url else OK if scopes is None else Response(401)
            ),
            refuse_scopes("repository:public:pull", status=403),
        ),
        requests=(pull("private"), pull("public")),
        tokens=[["repository:private:pull"], ["repository:public:pull"]],
        sends=3,
    ),
    ChallengeRow(
        name="tag_list_needs_metadata_read",
        registry="Azure Container Registry",
        behaviour="The challenge for the tag list has the action `metadata_read` instead of `pull`.",
        result="Requests a token for that scope and remembers it for the repository's tag lists.",
        source="[renovate#14708](https://github.com/renovatebot/renovate/issues/14708)",
        fake=azure_registry,
        requests=(
            pull("app"),
            get("/v2/app/tags/list", "repository:app:pull"),
            pull("app"),
            get("/v2/app/tags/list", "repository:app:pull"),
        ),
        tokens=[["repository:app:pull"], ["repository:app:metadata_read"]],
        sends=6,
    ),
    ChallengeRow(
        name="repositories_have_different_realms",
        registry="Gateways in front of several registries",
        behaviour="Each repository names its own token server.",
        result="Requests the token from the realm in the challenge.",
        source="[token authentication](https://distribution.github.io/distribution/spec/auth/token/)",
        fake=lambda: registry_with_two_realms(None),
        requests=(pull("red"), pull("blue"), pull("red"), pull("blue")),
        tokens=[["repository:red:pull"], ["repository:blue:pull"], ["repository:blue:pull"]],
        sends=6,
    ),
    ChallengeRow(
        name="realm_of_another_repository_refuses_the_guess_with_401",
        registry="Gateways in front of several registries",
        behaviour="The token server of one repository responds with 401 to requests for the other.",
        result="Sends the credentials to the realm that the challenge for this repository names.",
        source="[token authentication](https://distribution.github.io/distribution/spec/auth/token/)",
        fake=lambda: registry_with_two_realms(Response(401)),
        requests=(pull("red"), pull("blue")),
        tokens=[["repository:red:pull"], ["repository:blue:pull"], ["repository:blue:pull"]],
        sends=4,
    ),
    ChallengeRow(
        name="realm_is_relative",
        registry="Registries that send relative URLs",
        behaviour="The challenge names a realm without scheme and host.",
        result="Resolves it against the registry's own origin.",
        source="[RFC 3986, section 5](https://www.rfc-editor.org/rfc/rfc3986#section-5)",
        fake=lambda: FakeRegistry(require_scope(plain, realm="/service/token")),
        requests=(pull("app"),),
        tokens=[["repository:app:pull"]],
        sends=2,
    ),
    ChallengeRow(
        name="endpoints_have_different_services",
        registry="Registries composed of several services",
        behaviour="The challenges for blobs and manifests name different services.",
        result="Requests a token for each service.",
        source="[token authentication](https://distribution.github.io/distribution/spec/auth/token/)",
        fake=registry_with_two_services,
        requests=(
            pull("app"),
            get("/v2/app/blobs/x", "repository:app:pull"),
            pull("app"),
            get("/v2/app/blobs/x", "repository:app:pull"),
        ),
        tokens=[["repository:app:pull"], ["repository:app:pull"]],
        sends=6,
    ),
    ChallengeRow(
        name="403_says_insufficient_scope",
        registry="Registries that follow RFC 6750",
        behaviour="A token with an insufficient scope is answered with 403 and a challenge.",
        result="Requests a token for the scope in the challenge.",
        source="[RFC 6750, section 3.1](https://www.rfc-editor.org/rfc/rfc6750#section-3.1)",
        fake=registry_with_insufficient_scope_errors,
        requests=(pull("app"), get("/v2/app/blobs/uploads/", "repository:app:pull", "POST")),
        tokens=[["repository:app:pull"], ["repository:app:pull,push"]],
        sends=4,
    ),
    ChallengeRow(
        name="probe_names_a_placeholder_scope",
        registry="GHCR",
        behaviour="The challenge for `GET /v2/` has the scope of a repository that does not exist.",
        result="Uses the scope of a challenge only for the request that was challenged.",
        source="[serverless-registry#148](https://github.com/cloudflare/serverless-registry/issues/148)",
        fake=registry_with_placeholder_scope,
        requests=(pull("app"), pull("app2")),
        tokens=[["repository:app:pull"], ["repository:app2:pull"]],
        sends=3,
    ),
    ChallengeRow(
        name="challenge_has_no_scope",
        registry="Artifactory",
        behaviour="The challenge has no scope.",
        result="Requests a token for the scope that the operation needs.",
        source="[containerd#3556](https://github.com/containerd/containerd/issues/3556)",
        fake=lambda: FakeRegistry(lambda r, scopes: OK if scopes and plain(r) in scopes else challenge()),
        requests=(pull("app"), pull("app")),
        tokens=[["repository:app:pull"]],
        sends=3,
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_challenge_row_requests_named_token(row: ChallengeRow) -> None:
    registry = row.fake()
    transport = registry.transport()
    statuses = []
    for request in row.requests:
        with transport.round_trip(request) as response:
            statuses.append(response.status)
    assert statuses == [200] * len(row.requests)
    assert registry.token_requests == row.tokens
    assert len(registry.sent) == row.sends


def test_realm_relative_is_resolved_against_registry() -> None:
    registry = FakeRegistry(require_scope(plain, realm="/service/token"))
    registry.transport().round_trip(pull("app"))
    assert registry.realms == [f"{ORIGIN}/service/token"]


@pytest.mark.parametrize("has_challenge", [False, True])
def test_challenge_changes_each_time_requests_two_tokens_and_sends_three_times(has_challenge: bool) -> None:
    """Each challenge of the registry has a different scope."""
    numbers = iter(range(100))

    def serve(request: Request, scopes: set[str] | None) -> Response:
        if "first" in request.url:
            return require_scope(plain)(request, scopes)
        return challenge(f"repository:app-{next(numbers)}:pull")

    registry = FakeRegistry(serve)
    transport = registry.transport()
    if has_challenge:
        transport.round_trip(pull("first"))
    sends, tokens = len(registry.sent), len(registry.token_requests)
    assert transport.round_trip(pull("app")).status == 401
    assert len(registry.sent) - sends <= 3
    assert len(registry.token_requests) - tokens == 2


@pytest.mark.parametrize("has_challenge", [False, True])
@pytest.mark.parametrize("scope", ["repository:app:pull", "repository:app:pull repository:other:pull"])
def test_token_server_answers_401_secret_is_not_sent_again(has_challenge: bool, scope: str) -> None:
    registry = FakeRegistry(
        require_scope(plain),
        lambda scopes, url: token(*scopes) if scopes == ["repository:first:pull"] else Response(401),
    )
    transport = registry.transport()
    if has_challenge:
        transport.round_trip(pull("first"))
    before = len(registry.token_requests)
    with pytest.raises(CredentialsRejected, match="refused"):
        transport.round_trip(get("/v2/app/manifests/x", scope))
    assert len(registry.token_requests) - before == 1


def test_token_server_refuses_both_scopes_error_names_both() -> None:
    registry = FakeRegistry(require_scope(plain), lambda scopes, url: Response(403))
    with pytest.raises(AuthError) as caught:
        registry.transport().round_trip(get("/v2/app/manifests/x", "repository:app:pull repository:other:pull"))
    assert "'repository:app:pull'" in str(caught.value)
    assert "'repository:app:pull repository:other:pull'" in str(caught.value)
    assert len(registry.token_requests) == 2


def test_registry_refuses_every_token_error_names_both_scopes() -> None:
    # Not the text of the scope as in the other tests, because messages redact tokens.
    registry = FakeRegistry(
        lambda request, scopes: challenge("repository:test/cp5:pull"), lambda scopes, url: token("opaque")
    )
    client = Client("registry.example", registry.transport())
    with pytest.raises(Unauthorized) as caught:
        client.get_tag("foo-docker/test/cp5", "latest")
    assert "'repository:foo-docker/test/cp5:pull'" in str(caught.value)
    assert "'repository:test/cp5:pull'" in str(caught.value)


def test_realm_on_plain_http_gets_no_credentials() -> None:
    registry = FakeRegistry(require_scope(plain, realm="http://auth.example/token"))
    with pytest.raises(AuthError, match="trusted_realms"):
        registry.transport().round_trip(pull("app"))
    assert registry.token_requests == []


def test_prefetched_token_with_correct_scope_is_accepted() -> None:
    registry = FakeRegistry(require_scope(plain))
    transport = registry.transport()
    for name in ("a", "b", "c"):
        assert transport.round_trip(pull(name)).status == 200
    assert [line.partition(" Bearer")[0] for line in registry.sent][1:] == [
        f"GET /v2/{name}/manifests/latest" for name in "abc"
    ]
    assert REALM in registry.realms


def test_unlimited_scope_does_not_reuse_token_of_other_repository() -> None:
    """With the token of another repository, the registry would answer 404 without a challenge."""
    registry = FakeRegistry(
        lambda r, scopes: Response(404) if scopes and plain(r) not in scopes else require_scope(plain)(r, scopes)
    )
    transport = registry.transport()
    for name in ("a", "b"):
        request = pull(name)
        request = request.replace(info=request.info.replace(required_scope=Scope.UNLIMITED))
        assert transport.round_trip(request).status == 200


def test_token_refused_is_replaced_at_its_own_realm() -> None:
    """The last challenge of the host names the realm of another repository."""
    registry = registry_with_two_realms(None)
    transport = registry.transport()
    for name in ("red", "blue", "red", "green"):
        transport.round_trip(pull(name))
    serve, refusals = registry._serve, [Response(401)]
    registry._serve = lambda request, scopes: refusals.pop() if refusals else serve(request, scopes)
    before = len(registry.realms)
    assert transport.round_trip(pull("red")).status == 200
    assert registry.realms[before:] == ["https://red.auth.example/token"]


@pytest.mark.parametrize("refusal", [Response(400), Response(403), Response(404), Response(301)])
def test_remembered_scope_refused_later_is_replaced(refusal: Response, clock: FakeClock) -> None:
    registry = FakeRegistry(require_scope(without_prefix))
    transport = registry.transport()
    transport.round_trip(pull("docker/app"))
    clock.now += 3600  # the token has expired
    registry._serve = require_scope(with_prefix, realm="https://new.example/token")
    registry._grant = lambda scopes, url: token(*scopes) if url.startswith("https://new.example/") else refusal
    assert transport.round_trip(pull("docker/app")).status == 200
    assert transport.round_trip(pull("docker/app")).status == 200
    assert len(registry.token_requests) == 3


@pytest.mark.parametrize("has_challenge", [False, True])
def test_two_scopes_grant_nothing_requests_scope_of_challenge(has_challenge: bool) -> None:
    """Some token servers grant no scope, with status 200, if they refuse one of the requested scopes."""
    registry = FakeRegistry(
        require_scope(plain), lambda scopes, url: token(*scopes) if len(scopes) == 1 else token("nothing")
    )
    transport = registry.transport()
    if has_challenge:
        transport.round_trip(pull("first"))
    request = get("/v2/app/manifests/x", "repository:app:pull repository:other:pull")
    assert transport.round_trip(request).status == 200
    assert registry.token_requests[-2:] == [["repository:app:pull", "repository:other:pull"], ["repository:app:pull"]]


def test_wrong_password_for_public_content_is_sent_once() -> None:
    """Each further token request would be a failed login, and may lock the account."""
    registry = FakeRegistry(
        lambda r, scopes: (
            require_scope(plain)(r, scopes) if "first" in r.url else OK if scopes is None else Response(401)
        ),
        lambda scopes, url: token(*scopes) if scopes == ["repository:first:pull"] else Response(401),
    )
    transport = registry.transport()
    for name in ("first", "a", "a", "b"):
        assert transport.round_trip(pull(name)).status == 200
    assert registry.token_requests == [["repository:first:pull"], ["repository:a:pull"]]


def test_wrong_password_for_remembered_scope_of_public_content_is_sent_once(clock: FakeClock) -> None:
    registry = FakeRegistry(require_scope(with_prefix))
    transport = registry.transport()
    assert transport.round_trip(pull("app")).status == 200
    clock.now += 3600  # the token has expired
    registry._serve = lambda request, scopes: OK if scopes is None else Response(401)
    registry._grant = lambda scopes, url: Response(401)
    assert [transport.round_trip(pull("app")).status for _ in range(3)] == [200] * 3
    assert registry.token_requests == [["repository:project/app:pull"]] * 2


def test_guess_refused_for_hidden_content_uses_changed_credential() -> None:
    """The registry hides private content: it answers requests without a token with 404 and no challenge."""
    first = Credential(username="ci", password="sEcReT-1")
    second = Credential(username="ci", password="sEcReT-2")
    registry = FakeRegistry(
        lambda r, scopes: require_scope(plain)(r, scopes) if "first" in r.url or scopes else Response(404),
        lambda scopes, url: token(*scopes),
    )
    valid = {first.basic}

    def round_trip(request: Request, /) -> Response:
        if request.info.operation == "token" and request.headers.get("authorization") not in valid:
            return Response(401, request=request)
        return registry.round_trip(request)

    transport = AuthTransport(FunctionTransport(round_trip), credentials=ChangingPerRepository(first, second))
    for name in ("first", "app"):
        assert transport.round_trip(pull(name)).status == 200
        valid = {second.basic}


@pytest.mark.parametrize("status", [400, 403, 404])
def test_guess_refused_is_not_requested_again_for_same_challenge(status: int) -> None:
    registry = FakeRegistry(require_scope(plain), refuse_scopes("repository:b:pull", status=status))
    transport = registry.transport()
    transport.round_trip(pull("a"))
    with pytest.raises(AuthError, match=f"status {status}"):
        transport.round_trip(pull("b"))
    assert registry.token_requests == [["repository:a:pull"], ["repository:b:pull"]]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_guess_failed_temporarily_raises_auth_error(status: int) -> None:
    """A temporary failure does not show whether the guess is right, so the request is not sent without a token."""
    registry = FakeRegistry(require_scope(plain), refuse_scopes("repository:b:pull", status=status))
    transport = registry.transport()
    transport.round_trip(pull("a"))
    sends = len(registry.sent)
    with pytest.raises(AuthError, match=f"answered with status {status}"):
        transport.round_trip(pull("b"))
    assert len(registry.sent) == sends


def test_guess_refused_single_use_body_is_not_consumed() -> None:
    consumed: list[bytes] = []

    def chunks() -> Iterator[bytes]:
        consumed.append(b"x")
        yield b"x"

    def serve(request: Request, scopes: set[str] | None) -> Response:
        content_of(request.body)
        return require_scope(plain)(request, scopes)

    registry = FakeRegistry(serve, refuse_scopes("repository:b:pull,push", status=401))
    transport = registry.transport()
    transport.round_trip(pull("a"))
    push = get("/v2/b/blobs/uploads/1", "repository:b:pull,push", "PUT").replace(body=Body.of(chunks()))
    with pytest.raises(CredentialsRejected, match="Requested scope: 'repository:b:pull,push'"):
        transport.round_trip(push)
    assert consumed == []


def test_realm_refused_by_policy_does_not_block_other_repositories() -> None:
    registry = FakeRegistry(
        lambda r, scopes: require_scope(plain, realm="http://plain.example" if "bad" in r.url else REALM)(r, scopes)
    )
    transport = registry.transport()
    with pytest.raises(AuthError, match="trusted_realms"):
        transport.round_trip(pull("bad"))
    assert transport.round_trip(pull("good")).status == 200


class ChangingPerRepository:
    """Source that returns one credential at the first call for a repository, and another one at later calls."""

    def __init__(self, first: Credential, second: Credential) -> None:
        self._first, self._second = first, second
        self._seen: set[str | None] = set()

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        is_repeated = repository in self._seen
        self._seen.add(repository)
        return self._second if is_repeated else self._first


class Changing:
    """Source that returns each of its credentials once."""

    def __init__(self, *credentials: Credential) -> None:
        self._credentials = iter(credentials)

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        return next(self._credentials)


def test_guess_refused_with_every_credential_error_names_requested_scope() -> None:
    first = Credential(username="ci", password="sEcReT-1")
    second = Credential(username="ci", password="sEcReT-2")
    registry = FakeRegistry(
        lambda r, scopes: require_scope(plain if "first" in r.url else with_prefix)(r, scopes),
        lambda scopes, url: token(*scopes) if scopes == ["repository:first:pull"] else Response(401),
    )
    transport = registry.transport(Changing(first, second))
    transport.round_trip(get("/v2/first/manifests/x", "repository:first:pull"))
    request = get("/v2/app/manifests/x", "repository:first:push repository:app:pull")
    with pytest.raises(CredentialsRejected) as caught:
        transport.round_trip(request)
    assert "Requested scope: 'repository:first:push repository:app:pull'" in str(caught.value)
    assert "user 'ci'" in str(caught.value)
    assert len(registry.token_requests) == 3


def test_rejected_password_in_other_credential_is_not_sent() -> None:
    """The source adds an identity token to the password that the token server has rejected."""
    old = Credential(username="ci", password="sEcReT-42")
    new = Credential(username="ci", password="sEcReT-42", identity_token="iDeNtItY")
    methods: list[str] = []
    registry = FakeRegistry(require_scope(plain))
    grant = registry.round_trip

    def round_trip(request: Request, /) -> Response:
        if request.info.operation != "token":
            return grant(request)
        methods.append(request.method)
        return Response(405 if request.method == "POST" else 401, request=request)

    transport = AuthTransport(FunctionTransport(round_trip), credentials=Changing(old, new))
    with pytest.raises(CredentialsRejected):
        transport.round_trip(pull("app"))
    assert methods == ["GET"]


class PathRewritingProxy:
    """Serves a registry below ``/v2/docker/``. Challenges keep the names of the registry, as with Artifactory.

    Args:
        inner: The registry.
        opaque: Whether the paths of upload Locations contain no repository.
    """

    def __init__(self, inner: Transport, *, opaque: bool) -> None:
        self._inner, self._opaque = inner, opaque
        self._uploads: dict[str, str] = {}
        self.sent: list[str] = []

    def round_trip(self, request: Request, /) -> Response:
        target, _, query = request.url.removeprefix(ORIGIN).partition("?")
        self.sent.append(request.method if target != "/token" else "token")
        target = self._uploads.get(target, target).replace("/v2/docker/", "/v2/")
        url = f"{ORIGIN}{target}?{query.replace('from=docker/', 'from=')}".rstrip("?")
        response = self._inner.round_trip(request.replace(url=url))
        location = response.headers.get("location", "").removeprefix(ORIGIN)
        if "/uploads/" in location:
            alias = f"/upload/{len(self._uploads)}" if self._opaque else location.replace("/v2/", "/v2/docker/")
            self._uploads[alias] = location
            others = [(name, value) for name, value in response.headers.items() if name.lower() != "location"]
            response = response.replace(headers=[*others, ("Location", alias)])
        return response.replace(request=request)

    def close(self) -> None:
        self._inner.close()


@pytest.mark.parametrize("opaque", [False, True])
@pytest.mark.parametrize("single_use", [False, True])
def test_path_rewriting_proxy_push_mount_copy_and_delete_succeed(opaque: bool, single_use: bool) -> None:
    guard = AuthGuard(MemoryRegistry(), users={"ci": "sEcReT-42"})
    proxy = PathRewritingProxy(guard, opaque=opaque)
    client = Client(HOST, default_transport(base=proxy, credentials=StaticCredentials(HOST, CREDENTIAL)))
    content = b"content"
    blob = Descriptor("application/octet-stream", Digest.of(content), len(content))
    config = Descriptor("application/vnd.oci.empty.v1+json", Digest.of(b"{}"), 2)
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": config.media_type, "digest": str(config.digest), "size": 2},
            "layers": [{"mediaType": blob.media_type, "digest": str(blob.digest), "size": len(content)}],
        }
    ).encode()
    for name in ("docker/a", "docker/b"):
        client.push_blob(name, config, b"{}")
        client.push_blob(name, blob, iter([content]) if single_use else content)
        client.push_manifest(name, manifest, "application/vnd.oci.image.manifest.v1+json", tags=["latest"])
    with client.get_blob("docker/a", str(blob.digest)) as reader:
        assert reader.read() == content
    client.mount_blob("docker/a", "docker/mounted", str(blob.digest))
    copy(client, "docker/b:latest", client, "docker/copied:latest")
    assert list(client.tags("docker/copied")) == ["latest"]
    client.delete_tag("docker/copied", "latest")
    assert all("docker/" not in str(scope) for scope in guard.asked)
    before = len(proxy.sent)
    client.push_blob("docker/a", blob, content)
    assert proxy.sent[before:] == ["POST", "PUT"]
