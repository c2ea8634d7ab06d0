"""Authentication at real registries: tokens and passwords, over http and TLS."""

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
from tests.integration.token_server import Asked, TokenServer

SIZE = 5_000_000
CHUNK = 65_536
CONTENT = hashlib.shake_256(b"5 MB, no two parts of them alike").digest(SIZE)
BLOB = Descriptor.of(CONTENT)
ME = Credential(username="me", password=PASSWORD)
PATIENCE = 10.0
"""Seconds to wait for a 100 (Continue): more than any test takes."""
HELD_BACK = 256 * 1024
"""A body of up to so many bytes, or without a length, is read before it is answered 401."""


def of_token_servers(*names: str) -> pytest.MarkDecorator:
    """Parametrize a test by the registries with a token server."""
    return pytest.mark.parametrize("name", names or ("token-http", "token-https"))


class Visit:
    """A client of a registry, and the answers to its requests.

    Args:
        guarded: The registry.
        credentials: The credential source.
        expect_timeout: As of `UrllibTransport`.

    Attributes:
        client: The client, which has sent nothing yet.
        events: ``METHOD STATUS`` for each answer, and whatever else the test adds.
    """

    def __init__(self, guarded: Guarded, credentials: CredentialSource, expect_timeout: float = PATIENCE) -> None:
        self._wire = UrllibTransport(tls=guarded.ca, trust_env=False, expect_timeout=expect_timeout)
        below = FunctionTransport(self._answer, close=self._wire.close)
        self._transport = default_transport(base=below, credentials=credentials)
        self._instead: dict[str, str] = {}
        self._shown = ""
        self.client = Client(guarded.host, self._transport, insecure=guarded.insecure)
        self.events: list[str] = []

    def _answer(self, request: Request) -> Response:
        if request.info.operation == "token":
            return self._wire.round_trip(request)
        self._shown = request.headers.get("authorization", "")
        if self._shown in self._instead:
            request = request.with_headers({"Authorization": self._instead[self._shown]})
        response = self._wire.round_trip(request)
        self.events.append(f"{request.method} {response.status}")
        return response

    def revoke(self, outdated: str) -> None:
        """Replace the token that the client sent last by an outdated one, from now on."""
        self._instead[self._shown] = f"Bearer {outdated}"

    @property
    def refused(self) -> int:
        """How many of the requests were answered 401."""
        return sum(event.endswith(" 401") for event in self.events)

    def single_use(self, content: bytes = CONTENT) -> Iterator[bytes]:
        """A generator of the content, whose beginning and end are events."""
        self.events.append("first chunk")
        for start in range(0, len(content), CHUNK):
            yield content[start : start + CHUNK]
        self.events.append("last chunk")

    def close(self) -> None:
        self.client.close()
        self._transport.close()


class Visits(Protocol):
    """Makes visits, which are closed when the test ends."""

    def __call__(
        self, guarded: Guarded, credentials: CredentialSource | Credential = ME, *, expect_timeout: float = PATIENCE
    ) -> Visit: ...


@pytest.fixture
def visit() -> Iterator[Visits]:
    visits: list[Visit] = []

    def make(
        guarded: Guarded, credentials: CredentialSource | Credential = ME, *, expect_timeout: float = PATIENCE
    ) -> Visit:
        if isinstance(credentials, Credential):
            credentials = StaticCredentials(guarded.host, credentials)
        visits.append(Visit(guarded, credentials, expect_timeout))
        return visits[-1]

    yield make
    for visit in visits:
        visit.close()


@pytest.fixture(params=GUARDED)
def name(request: pytest.FixtureRequest) -> str:
    """Every guarded registry; a test that needs fewer parametrises it itself."""
    name: str = request.param
    return name


@pytest.fixture
def guarded(guard: Callable[[str], Guarded], name: str) -> Guarded:
    return guard(name)


@pytest.fixture
def tokens(guarded: Guarded) -> TokenServer:
    """The token server of a registry that has one."""
    assert guarded.tokens is not None
    return guarded.tokens


def asked(guarded: Guarded) -> int:
    """How many tokens were asked for."""
    return 0 if guarded.tokens is None else len(guarded.tokens.asked)


def one_token(guarded: Guarded) -> int:
    """How many tokens are needed where one is."""
    return 0 if guarded.tokens is None else 1


def scope(repository: str, *actions: str) -> str:
    return str(Scope.repository(repository, *actions))


def open_upload(client: Client, repository: str) -> str:
    """Open an upload; where its closing PUT goes that says it is `BLOB`."""
    answer = client.do(
        Request("POST", f"/v2/{repository}/blobs/uploads/"), scope=Scope.repository(repository, "pull", "push")
    )
    with answer:
        assert answer.status == 202
        location = answer.headers["location"]
    return f"{location}&digest={BLOB.digest}"


def put(client: Client, repository: str, url: str, body: Body) -> int:
    """Send the closing PUT of an upload without the client; returns the status."""
    with client.do(Request("PUT", url, body=body), scope=Scope.repository(repository, "pull", "push")) as answer:
        return answer.status


def pulled(client: Client, repository: str, blob: Descriptor = BLOB) -> bytes:
    with client.get_blob(repository, blob.digest) as reader:
        content = reader.read()
        assert reader.verified
    return content


def nothing_is_pulled() -> Iterator[bytes]:
    raise AssertionError("a chunk was pulled")
    yield b""


# --- single-use content ---


def test_client_new_pushes_single_use_content(guarded: Guarded, visit: Visits) -> None:
    new = visit(guarded)
    assert new.client.push_blob("first/push", BLOB, new.single_use()) is BLOB
    assert new.events == ["POST 401", "POST 202", "first chunk", "last chunk", "PUT 201"]
    assert asked(guarded) == one_token(guarded)
    assert pulled(visit(guarded).client, "first/push") == CONTENT


def test_client_first_request_single_use_body_succeeds(guarded: Guarded, visit: Visits) -> None:
    url = open_upload(visit(guarded).client, "first/sized")
    new = visit(guarded)
    body = Body.of(new.single_use(), SIZE)
    assert put(new.client, "first/sized", url, body) == 201
    assert new.events == ["PUT 401", "first chunk", "last chunk", "PUT 201"]
    assert pulled(visit(guarded).client, "first/sized") == CONTENT


def test_client_single_use_body_without_length_succeeds_with_known_challenge(guarded: Guarded, visit: Visits) -> None:
    url = open_upload(visit(guarded).client, "first/chunked")
    new = visit(guarded)
    with pytest.raises(BlobUnknown):
        new.client.resolve_blob("first/chunked", BLOB.digest)
    assert put(new.client, "first/chunked", url, Body.of(new.single_use())) == 201
    assert new.events == ["HEAD 401", "HEAD 404", "GET 404", "first chunk", "last chunk", "PUT 201"]
    assert pulled(visit(guarded).client, "first/chunked") == CONTENT


@pytest.mark.parametrize("length", [None, HELD_BACK], ids=["without a length", "small"])
def test_client_first_request_slow_single_use_body_succeeds(
    guarded: Guarded, visit: Visits, length: int | None
) -> None:
    """This registry holds its 401 back until it has such a body: it is asked what it wants before."""
    content = CONTENT if length is None else CONTENT[:length]
    blob = Descriptor.of(content)
    url = open_upload(visit(guarded).client, "first/waited").replace(BLOB.digest, blob.digest)
    new = visit(guarded, expect_timeout=0.05)
    assert put(new.client, "first/waited", url, Body.of(new.single_use(content), length)) == 201
    assert new.events == ["GET 401", "first chunk", "last chunk", "PUT 201"]
    assert pulled(visit(guarded).client, "first/waited", blob) == content


# --- how often it is asked ---


def test_client_ten_pushes_and_pulls_cost_one_challenge_and_token(guarded: Guarded, visit: Visits) -> None:
    session = visit(guarded)
    for number in range(10):
        content = f"blob {number} of {guarded.host}".encode() * 1000
        blob = Descriptor.of(content)
        session.client.push_blob("session/ten", blob, session.single_use(content))
        assert pulled(session.client, "session/ten", blob) == content
    of_one = ["POST 202", "first chunk", "last chunk", "PUT 201", "GET 200"]
    assert session.events == ["POST 401", *of_one * 10]
    assert asked(guarded) == one_token(guarded)


@of_token_servers()
def test_token_request_names_service_and_scope(guarded: Guarded, tokens: TokenServer, visit: Visits) -> None:
    visit(guarded).client.push_blob("session/asked", BLOB, CONTENT)
    assert tokens.asked == [Asked("GET", (scope("session/asked", "pull", "push"),), "basic", 200)]


@of_token_servers()
def test_push_after_pull_costs_one_more_token(guarded: Guarded, tokens: TokenServer, visit: Visits) -> None:
    visit(guarded).client.push_blob("session/grows", BLOB, CONTENT)
    tokens.reset()
    new = visit(guarded)
    assert pulled(new.client, "session/grows") == CONTENT
    content = b"of the push after it"
    new.client.push_blob("session/grows", Descriptor.of(content), new.single_use(content))
    assert pulled(new.client, "session/grows", Descriptor.of(content)) == content
    assert [asked.scopes for asked in tokens.asked] == [
        (scope("session/grows", "pull"),),
        (scope("session/grows", "pull", "push"),),
    ]
    assert new.events == ["GET 401", "GET 200", "POST 202", "first chunk", "last chunk", "PUT 201", "GET 200"]


@pytest.mark.parametrize("knows", [True, False], ids=["challenge known", "new client"])
def test_mount_blob_requests_both_repositories(guarded: Guarded, visit: Visits, knows: bool) -> None:
    source, target = "mount/a-source", f"mount/z-target-{knows}".lower()
    visit(guarded).client.push_blob(source, BLOB, CONTENT)
    new = visit(guarded)
    if knows:
        with pytest.raises(BlobUnknown):
            new.client.resolve_blob(target, BLOB.digest)
    if guarded.tokens is not None:
        guarded.tokens.reset()
    new.events.clear()
    assert new.client.mount_blob(source, target, BLOB.digest) == BLOB
    assert new.events == [*([] if knows else ["POST 401"]), "POST 201", "HEAD 200"]
    if guarded.tokens is not None:
        (asked,) = guarded.tokens.asked
        of_both = (scope(target, "pull", "push"), scope(source, "pull"))
        # A new client repeats the challenge, whose order this registry leaves to chance.
        assert asked.scopes == of_both if knows else sorted(asked.scopes) == sorted(of_both)
    assert pulled(visit(guarded).client, target) == CONTENT


# --- permissions ---


@of_token_servers()
def test_wrong_password_is_rejected_by_token_server(guarded: Guarded, tokens: TokenServer, visit: Visits) -> None:
    wrong = visit(guarded, Credential(username="me", password="battery staple"))
    with pytest.raises(CredentialsRejected) as caught:
        wrong.client.push_blob("who/wrong", BLOB, nothing_is_pulled())
    assert (caught.value.host, caught.value.realm, caught.value.status) == (guarded.host, tokens.realm, 401)
    assert "battery staple" not in str(caught.value)
    assert "incorrect username or password" in str(caught.value)
    assert wrong.events == ["POST 401"]
    assert [asked.status for asked in tokens.asked] == [401]


@pytest.mark.parametrize("name", ["htpasswd-http", "htpasswd-https"])
def test_wrong_password_is_rejected_by_registry(guarded: Guarded, visit: Visits) -> None:
    wrong = visit(guarded, Credential(username="me", password="battery staple"))
    with pytest.raises(Unauthorized) as caught:
        wrong.client.push_blob("who/wrong", BLOB, nothing_is_pulled())
    assert (caught.value.status, caught.value.code) == (401, "UNAUTHORIZED")
    assert "battery staple" not in str(caught.value)
    assert wrong.events == ["POST 401", "POST 401"]


@pytest.mark.parametrize("name", ["htpasswd-http", "htpasswd-https"])
def test_anonymous_is_rejected_by_basic_registry(guarded: Guarded, visit: Visits) -> None:
    anonymous = visit(guarded, Anonymous())
    with pytest.raises(Unauthorized):
        anonymous.client.push_blob("public/htpasswd", BLOB, nothing_is_pulled())
    assert anonymous.events == ["POST 401"]


@of_token_servers()
@pytest.mark.parametrize(
    ("credential", "kind"),
    [(None, ""), (Credential(username="reader", password=PASSWORD), "basic")],
    ids=["anonymous", "reader"],
)
def test_read_only_user_can_pull_and_not_push(
    guarded: Guarded, tokens: TokenServer, visit: Visits, credential: Credential | None, kind: str
) -> None:
    visit(guarded).client.push_blob("public/app", BLOB, CONTENT)
    tokens.reset()
    other = visit(guarded, Anonymous() if credential is None else credential)
    assert pulled(other.client, "public/app") == CONTENT
    with pytest.raises(Unauthorized) as caught:
        other.client.push_blob("public/app", BLOB, nothing_is_pulled())
    assert (caught.value.status, caught.value.code) == (401, "UNAUTHORIZED")
    assert tokens.asked == [
        Asked("GET", (scope("public/app", "pull"),), kind, 200),
        Asked("GET", (scope("public/app", "pull", "push"),), kind, 200),
    ]
    assert other.events == ["GET 401", "GET 200", "POST 401"]
    assert pulled(other.client, "public/app") == CONTENT  # what it may do it still may


@of_token_servers()
def test_anonymous_pull_of_private_content_is_rejected(guarded: Guarded, visit: Visits) -> None:
    visit(guarded).client.push_blob("private/app", BLOB, CONTENT)
    anonymous = visit(guarded, Anonymous())
    with pytest.raises(Unauthorized):
        anonymous.client.get_blob("private/app", BLOB.digest)


@of_token_servers()
def test_identity_token_is_posted(guarded: Guarded, tokens: TokenServer, visit: Visits) -> None:
    known = visit(guarded, Credential(identity_token="me again"))
    known.client.push_blob("who/identity", BLOB, known.single_use())
    assert pulled(known.client, "who/identity") == CONTENT
    assert tokens.asked == [Asked("POST", (scope("who/identity", "pull", "push"),), "identity_token", 200)]
    assert known.refused == 1


@of_token_servers()
def test_wrong_identity_token_is_rejected(guarded: Guarded, tokens: TokenServer, visit: Visits) -> None:
    wrong = visit(guarded, Credential(identity_token="somebody else"))
    with pytest.raises(CredentialsRejected) as caught:
        wrong.client.push_blob("who/identity", BLOB, nothing_is_pulled())
    assert (caught.value.host, caught.value.realm, caught.value.status) == (guarded.host, tokens.realm, 401)
    assert "somebody else" not in str(caught.value)


# --- tokens that end in the middle ---


class SkippingClock:
    """`time.monotonic`, ahead of itself by `ahead` seconds."""

    def __init__(self) -> None:
        self._real = time.monotonic
        self.ahead = 0.0

    def __call__(self) -> float:
        return self._real() + self.ahead


SMALL_CHUNK = 100_000
"""A chunk that is sent at once."""
LARGE_CHUNK = 1_000_000
"""A chunk that waits for 100 (Continue)."""


@of_token_servers()
@pytest.mark.parametrize("size", [SMALL_CHUNK, LARGE_CHUNK])
def test_upload_token_expires_succeeds(
    guarded: Guarded, tokens: TokenServer, visit: Visits, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    clock = SkippingClock()
    monkeypatch.setattr(time, "monotonic", clock)
    tokens.expires_in = 60
    session = visit(guarded)
    writer = session.client.push_blob_chunked("middle/expires", size)
    for start in range(0, 3 * size, size):
        writer.write(CONTENT[start : start + size])
        clock.ahead += 50
    blob = writer.commit()
    assert pulled(session.client, "middle/expires", blob) == CONTENT[: 3 * size]
    assert session.events == ["POST 401", "POST 202", "PATCH 202", "PATCH 202", "PUT 201", "GET 200"]
    assert tokens.asked == [Asked("GET", (scope("middle/expires", "pull", "push"),), "basic", 200)] * 4


@of_token_servers()
@pytest.mark.parametrize("size", [SMALL_CHUNK, LARGE_CHUNK])
def test_upload_token_revoked_succeeds(guarded: Guarded, tokens: TokenServer, visit: Visits, size: int) -> None:
    wanted = scope("middle/revoked", "pull", "push")
    session = visit(guarded)
    writer = session.client.push_blob_chunked("middle/revoked", size)
    for start in range(0, 3 * size, size):
        writer.write(CONTENT[start : start + size])
        session.revoke(tokens.token("me", (wanted,), age=3600))
    blob = writer.commit()
    assert pulled(session.client, "middle/revoked", blob) == CONTENT[: 3 * size]
    in_the_middle = ["PATCH 401", "PATCH 202"] * 2
    assert session.events == ["POST 401", "POST 202", *in_the_middle, "PUT 401", "PUT 201", "GET 200"]
    assert tokens.asked == [Asked("GET", (wanted,), "basic", 200)] * 4


# --- as most people do ---


@of_token_servers("token-http")
def test_client_default_credentials_reads_docker_login(
    guarded: Guarded, tokens: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {guarded.host: {"auth": auth}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with Client(guarded.host, insecure=True) as client:
        client.push_blob("docker/config", BLOB, iter([CONTENT]))
        assert pulled(client, "docker/config") == CONTENT
    assert tokens.asked == [Asked("GET", (scope("docker/config", "pull", "push"),), "basic", 200)]
