"""Authentication against docker-registry: tokens and passwords, over http and TLS."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from ociwire import Body, Client, Descriptor, FunctionTransport, Request, Response, Scope, default_transport
from ociwire.auth import Anonymous, Credential, CredentialSource, StaticCredentials
from ociwire.errors import BlobUnknown, CredentialsRejected, Unauthorized
from ociwire.transport import UrllibTransport
from tests.integration.conftest import GUARDED, PASSWORD, Guarded
from tests.integration.token_server import ReceivedRequest, TokenServer

SIZE = 5_000_000
CHUNK = 65_536
CONTENT = hashlib.shake_256(b"5 MB without repetitions").digest(SIZE)
BLOB = Descriptor.of(CONTENT)
ME = Credential(username="me", password=PASSWORD)
PATIENCE = 10.0
"""Timeout of the wait for 100 (Continue) in seconds. It is longer than any test."""
MAX_READ_BEFORE_401 = 256 * 1024
"""docker-registry reads a body of at most this size in bytes, or of unknown length, before it responds with 401."""


def with_token_servers(*names: str) -> pytest.MarkDecorator:
    """Parametrize a test with the registries that have a token server."""
    return pytest.mark.parametrize("name", names or ("token-http", "token-https"))


class Session:
    """Client of a registry that records the responses.

    Args:
        guarded: The registry.
        credentials: The credential source.
        expect_timeout: The `expect_timeout` of `UrllibTransport`.

    Attributes:
        client: The client.
        events: ``METHOD STATUS`` of each response, and the events of `single_use`.
    """

    def __init__(self, guarded: Guarded, credentials: CredentialSource, expect_timeout: float = PATIENCE) -> None:
        self._urllib = UrllibTransport(tls=guarded.ca, trust_env=False, expect_timeout=expect_timeout)
        base = FunctionTransport(self._answer, close=self._urllib.close)
        self._transport = default_transport(base=base, credentials=credentials)
        self._replacements: dict[str, str] = {}
        self._authorization = ""
        self.client = Client(guarded.host, self._transport, insecure=guarded.insecure)
        self.events: list[str] = []

    def _answer(self, request: Request) -> Response:
        if request.info.operation == "token":
            return self._urllib.round_trip(request)
        self._authorization = request.headers.get("authorization", "")
        if self._authorization in self._replacements:
            request = request.with_headers({"Authorization": self._replacements[self._authorization]})
        response = self._urllib.round_trip(request)
        self.events.append(f"{request.method} {response.status}")
        return response

    def revoke(self, outdated: str) -> None:
        """Replace the token that the client sent last with an expired one in all later requests."""
        self._replacements[self._authorization] = f"Bearer {outdated}"

    @property
    def unauthorized_count(self) -> int:
        """Number of responses with status 401."""
        return sum(event.endswith(" 401") for event in self.events)

    def single_use(self, content: bytes = CONTENT) -> Iterator[bytes]:
        """Yield chunks of the content. The first and the last chunk are events."""
        self.events.append("first chunk")
        for start in range(0, len(content), CHUNK):
            yield content[start : start + CHUNK]
        self.events.append("last chunk")

    def close(self) -> None:
        self.client.close()
        self._transport.close()


class OpenSession(Protocol):
    """Function that opens a session, which is closed after the test."""

    def __call__(
        self, guarded: Guarded, credentials: CredentialSource | Credential = ME, *, expect_timeout: float = PATIENCE
    ) -> Session: ...


@pytest.fixture
def open_session() -> Iterator[OpenSession]:
    sessions: list[Session] = []

    def make(
        guarded: Guarded, credentials: CredentialSource | Credential = ME, *, expect_timeout: float = PATIENCE
    ) -> Session:
        if isinstance(credentials, Credential):
            credentials = StaticCredentials(guarded.host, credentials)
        sessions.append(Session(guarded, credentials, expect_timeout))
        return sessions[-1]

    yield make
    for session in sessions:
        session.close()


@pytest.fixture(params=GUARDED)
def name(request: pytest.FixtureRequest) -> str:
    """Return each name of `GUARDED`. A test for fewer registries parametrizes `name`."""
    name: str = request.param
    return name


@pytest.fixture
def guarded(guard: Callable[[str], Guarded], name: str) -> Guarded:
    return guard(name)


@pytest.fixture
def tokens(guarded: Guarded) -> TokenServer:
    """Return the token server of the registry."""
    assert guarded.tokens is not None
    return guarded.tokens


def count_token_requests(guarded: Guarded) -> int:
    """Return the number of token requests."""
    return 0 if guarded.tokens is None else len(guarded.tokens.requests)


def requests_per_token(guarded: Guarded) -> int:
    """Return the number of token requests for one token: 0 with Basic authentication."""
    return 0 if guarded.tokens is None else 1


def scope(repository: str, *actions: str) -> str:
    return str(Scope.repository(repository, *actions))


def open_upload(client: Client, repository: str) -> str:
    """Open an upload and return the URL of the PUT that completes it as `BLOB`."""
    answer = client.do(
        Request("POST", f"/v2/{repository}/blobs/uploads/"), scope=Scope.repository(repository, "pull", "push")
    )
    with answer:
        assert answer.status == 202
        location = answer.headers["location"]
    return f"{location}&digest={BLOB.digest}"


def put(client: Client, repository: str, url: str, body: Body) -> int:
    """Complete an upload with one PUT and return the status."""
    with client.do(Request("PUT", url, body=body), scope=Scope.repository(repository, "pull", "push")) as answer:
        return answer.status


def get_content(client: Client, repository: str, blob: Descriptor = BLOB) -> bytes:
    with client.get_blob(repository, blob.digest) as reader:
        content = reader.read()
        assert reader.verified
    return content


def unread_content() -> Iterator[bytes]:
    raise AssertionError("a chunk was read")
    yield b""


# --- single-use content ---


def test_client_new_pushes_single_use_content(guarded: Guarded, open_session: OpenSession) -> None:
    new = open_session(guarded)
    assert new.client.push_blob("first/push", BLOB, new.single_use()) is BLOB
    assert new.events == ["POST 401", "POST 202", "first chunk", "last chunk", "PUT 201"]
    assert count_token_requests(guarded) == requests_per_token(guarded)
    assert get_content(open_session(guarded).client, "first/push") == CONTENT


def test_client_first_request_single_use_body_succeeds(guarded: Guarded, open_session: OpenSession) -> None:
    url = open_upload(open_session(guarded).client, "first/sized")
    new = open_session(guarded)
    body = Body.of(new.single_use(), SIZE)
    assert put(new.client, "first/sized", url, body) == 201
    assert new.events == ["PUT 401", "first chunk", "last chunk", "PUT 201"]
    assert get_content(open_session(guarded).client, "first/sized") == CONTENT


def test_client_single_use_body_without_length_succeeds_with_known_challenge(
    guarded: Guarded, open_session: OpenSession
) -> None:
    url = open_upload(open_session(guarded).client, "first/chunked")
    new = open_session(guarded)
    with pytest.raises(BlobUnknown):
        new.client.resolve_blob("first/chunked", BLOB.digest)
    assert put(new.client, "first/chunked", url, Body.of(new.single_use())) == 201
    assert new.events == ["HEAD 401", "HEAD 404", "GET 404", "first chunk", "last chunk", "PUT 201"]
    assert get_content(open_session(guarded).client, "first/chunked") == CONTENT


@pytest.mark.parametrize("length", [None, MAX_READ_BEFORE_401], ids=["without a length", "small"])
def test_client_first_request_slow_single_use_body_succeeds(
    guarded: Guarded, open_session: OpenSession, length: int | None
) -> None:
    """The registry sends the 401 only after it has read the body, so the client probes authentication before."""
    content = CONTENT if length is None else CONTENT[:length]
    blob = Descriptor.of(content)
    url = open_upload(open_session(guarded).client, "first/waited").replace(BLOB.digest, blob.digest)
    new = open_session(guarded, expect_timeout=0.05)
    assert put(new.client, "first/waited", url, Body.of(new.single_use(content), length)) == 201
    assert new.events == ["GET 401", "first chunk", "last chunk", "PUT 201"]
    assert get_content(open_session(guarded).client, "first/waited", blob) == content


# --- number of requests ---


def test_client_ten_pushes_and_pulls_cost_one_challenge_and_token(guarded: Guarded, open_session: OpenSession) -> None:
    session = open_session(guarded)
    for number in range(10):
        content = f"blob {number} of {guarded.host}".encode() * 1000
        blob = Descriptor.of(content)
        session.client.push_blob("session/ten", blob, session.single_use(content))
        assert get_content(session.client, "session/ten", blob) == content
    events_of_round = ["POST 202", "first chunk", "last chunk", "PUT 201", "GET 200"]
    assert session.events == ["POST 401", *events_of_round * 10]
    assert count_token_requests(guarded) == requests_per_token(guarded)


@with_token_servers()
def test_token_request_names_service_and_scope(
    guarded: Guarded, tokens: TokenServer, open_session: OpenSession
) -> None:
    open_session(guarded).client.push_blob("session/asked", BLOB, CONTENT)
    assert tokens.requests == [ReceivedRequest("GET", (scope("session/asked", "pull", "push"),), "basic", 200)]


@with_token_servers()
def test_push_after_pull_costs_one_more_token(guarded: Guarded, tokens: TokenServer, open_session: OpenSession) -> None:
    open_session(guarded).client.push_blob("session/grows", BLOB, CONTENT)
    tokens.reset()
    new = open_session(guarded)
    assert get_content(new.client, "session/grows") == CONTENT
    content = b"content of the second push"
    new.client.push_blob("session/grows", Descriptor.of(content), new.single_use(content))
    assert get_content(new.client, "session/grows", Descriptor.of(content)) == content
    assert [request.scopes for request in tokens.requests] == [
        (scope("session/grows", "pull"),),
        (scope("session/grows", "pull", "push"),),
    ]
    assert new.events == ["GET 401", "GET 200", "POST 202", "first chunk", "last chunk", "PUT 201", "GET 200"]


@pytest.mark.parametrize("challenge_known", [True, False], ids=["challenge known", "new client"])
def test_mount_blob_requests_both_repositories(
    guarded: Guarded, open_session: OpenSession, challenge_known: bool
) -> None:
    source, target = "mount/a-source", f"mount/z-target-{challenge_known}".lower()
    open_session(guarded).client.push_blob(source, BLOB, CONTENT)
    new = open_session(guarded)
    if challenge_known:
        with pytest.raises(BlobUnknown):
            new.client.resolve_blob(target, BLOB.digest)
    if guarded.tokens is not None:
        guarded.tokens.reset()
    new.events.clear()
    assert new.client.mount_blob(source, target, BLOB.digest) == BLOB
    assert new.events == [*([] if challenge_known else ["POST 401"]), "POST 201", "HEAD 200"]
    if guarded.tokens is not None:
        (token_request,) = guarded.tokens.requests
        both_scopes = (scope(target, "pull", "push"), scope(source, "pull"))
        # A new client requests the scopes of the challenge, which docker-registry sends in random order.
        assert (
            token_request.scopes == both_scopes
            if challenge_known
            else sorted(token_request.scopes) == sorted(both_scopes)
        )
    assert get_content(open_session(guarded).client, target) == CONTENT


# --- permissions ---


@with_token_servers()
def test_wrong_password_is_rejected_by_token_server(
    guarded: Guarded, tokens: TokenServer, open_session: OpenSession
) -> None:
    wrong = open_session(guarded, Credential(username="me", password="battery staple"))
    with pytest.raises(CredentialsRejected) as caught:
        wrong.client.push_blob("who/wrong", BLOB, unread_content())
    assert (caught.value.host, caught.value.realm, caught.value.status) == (guarded.host, tokens.realm, 401)
    assert "battery staple" not in str(caught.value)
    assert "incorrect username or password" in str(caught.value)
    assert wrong.events == ["POST 401"]
    assert [request.status for request in tokens.requests] == [401]


@pytest.mark.parametrize("name", ["htpasswd-http", "htpasswd-https"])
def test_wrong_password_is_rejected_by_registry(guarded: Guarded, open_session: OpenSession) -> None:
    wrong = open_session(guarded, Credential(username="me", password="battery staple"))
    with pytest.raises(Unauthorized) as caught:
        wrong.client.push_blob("who/wrong", BLOB, unread_content())
    assert (caught.value.status, caught.value.code) == (401, "UNAUTHORIZED")
    assert "battery staple" not in str(caught.value)
    assert wrong.events == ["POST 401", "POST 401"]


@pytest.mark.parametrize("name", ["htpasswd-http", "htpasswd-https"])
def test_anonymous_is_rejected_by_basic_registry(guarded: Guarded, open_session: OpenSession) -> None:
    anonymous = open_session(guarded, Anonymous())
    with pytest.raises(Unauthorized):
        anonymous.client.push_blob("public/htpasswd", BLOB, unread_content())
    assert anonymous.events == ["POST 401"]


@with_token_servers()
@pytest.mark.parametrize(
    ("credential", "kind"),
    [(None, ""), (Credential(username="reader", password=PASSWORD), "basic")],
    ids=["anonymous", "reader"],
)
def test_read_only_user_can_pull_and_not_push(
    guarded: Guarded, tokens: TokenServer, open_session: OpenSession, credential: Credential | None, kind: str
) -> None:
    open_session(guarded).client.push_blob("public/app", BLOB, CONTENT)
    tokens.reset()
    other = open_session(guarded, Anonymous() if credential is None else credential)
    assert get_content(other.client, "public/app") == CONTENT
    with pytest.raises(Unauthorized) as caught:
        other.client.push_blob("public/app", BLOB, unread_content())
    assert (caught.value.status, caught.value.code) == (401, "UNAUTHORIZED")
    assert tokens.requests == [
        ReceivedRequest("GET", (scope("public/app", "pull"),), kind, 200),
        ReceivedRequest("GET", (scope("public/app", "pull", "push"),), kind, 200),
    ]
    assert other.events == ["GET 401", "GET 200", "POST 401"]
    assert get_content(other.client, "public/app") == CONTENT  # pulls are still permitted


@with_token_servers()
def test_anonymous_pull_of_private_content_is_rejected(guarded: Guarded, open_session: OpenSession) -> None:
    open_session(guarded).client.push_blob("private/app", BLOB, CONTENT)
    anonymous = open_session(guarded, Anonymous())
    with pytest.raises(Unauthorized):
        anonymous.client.get_blob("private/app", BLOB.digest)


@with_token_servers()
def test_identity_token_is_posted(guarded: Guarded, tokens: TokenServer, open_session: OpenSession) -> None:
    known = open_session(guarded, Credential(identity_token="me again"))
    known.client.push_blob("who/identity", BLOB, known.single_use())
    assert get_content(known.client, "who/identity") == CONTENT
    assert tokens.requests == [ReceivedRequest("POST", (scope("who/identity", "pull", "push"),), "identity_token", 200)]
    assert known.unauthorized_count == 1


@with_token_servers()
def test_wrong_identity_token_is_rejected(guarded: Guarded, tokens: TokenServer, open_session: OpenSession) -> None:
    wrong = open_session(guarded, Credential(identity_token="unknown token"))
    with pytest.raises(CredentialsRejected) as caught:
        wrong.client.push_blob("who/identity", BLOB, unread_content())
    assert (caught.value.host, caught.value.realm, caught.value.status) == (guarded.host, tokens.realm, 401)
    assert "unknown token" not in str(caught.value)


# --- tokens that expire during an upload ---


class SkippingClock:
    """`time.monotonic` plus `ahead` seconds."""

    def __init__(self) -> None:
        self._real = time.monotonic
        self.ahead = 0.0

    def __call__(self) -> float:
        return self._real() + self.ahead


SMALL_CHUNK = 100_000
"""Size in bytes of a chunk that is sent without waiting for 100 (Continue)."""
LARGE_CHUNK = 1_000_000
"""Size in bytes of a chunk that waits for 100 (Continue)."""


@with_token_servers()
@pytest.mark.parametrize("size", [SMALL_CHUNK, LARGE_CHUNK])
def test_upload_token_expires_succeeds(
    guarded: Guarded, tokens: TokenServer, open_session: OpenSession, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    clock = SkippingClock()
    monkeypatch.setattr(time, "monotonic", clock)
    tokens.expires_in = 60
    session = open_session(guarded)
    writer = session.client.push_blob_chunked("middle/expires", size)
    for start in range(0, 3 * size, size):
        writer.write(CONTENT[start : start + size])
        clock.ahead += 50
    blob = writer.commit()
    assert get_content(session.client, "middle/expires", blob) == CONTENT[: 3 * size]
    assert session.events == ["POST 401", "POST 202", "PATCH 202", "PATCH 202", "PUT 201", "GET 200"]
    assert tokens.requests == [ReceivedRequest("GET", (scope("middle/expires", "pull", "push"),), "basic", 200)] * 4


@with_token_servers()
@pytest.mark.parametrize("size", [SMALL_CHUNK, LARGE_CHUNK])
def test_upload_token_revoked_succeeds(
    guarded: Guarded, tokens: TokenServer, open_session: OpenSession, size: int
) -> None:
    required = scope("middle/revoked", "pull", "push")
    session = open_session(guarded)
    writer = session.client.push_blob_chunked("middle/revoked", size)
    for start in range(0, 3 * size, size):
        writer.write(CONTENT[start : start + size])
        session.revoke(tokens.token("me", (required,), age=3600))
    blob = writer.commit()
    assert get_content(session.client, "middle/revoked", blob) == CONTENT[: 3 * size]
    events_of_patches = ["PATCH 401", "PATCH 202"] * 2
    assert session.events == ["POST 401", "POST 202", *events_of_patches, "PUT 401", "PUT 201", "GET 200"]
    assert tokens.requests == [ReceivedRequest("GET", (required,), "basic", 200)] * 4


# --- default credentials ---


@with_token_servers("token-http")
def test_client_default_credentials_reads_docker_login(
    guarded: Guarded, tokens: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {guarded.host: {"auth": auth}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with Client(guarded.host, insecure=True) as client:
        client.push_blob("docker/config", BLOB, iter([CONTENT]))
        assert get_content(client, "docker/config") == CONTENT
    assert tokens.requests == [ReceivedRequest("GET", (scope("docker/config", "pull", "push"),), "basic", 200)]
