"""Secrets do not appear in a repr, a log record, the text of an exception or its chained exceptions.

Every kind of credential contains a canary. The tests provoke all kinds of failures and search every text for it.
"""

from __future__ import annotations

import base64
import json
import logging
import pickle
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import urllib3

from ociwire import (
    AuthTransport,
    Client,
    Descriptor,
    Digest,
    FunctionTransport,
    LogTransport,
    RedirectTransport,
    Request,
    RequestInfo,
    Response,
    Scope,
    UrllibTransport,
    error_from_response,
    errors,
)
from ociwire.auth import ChainedCredentials, Credential, CredentialSource, DockerConfig, StaticCredentials
from ociwire.errors import (
    AuthError,
    ConnectError,
    OciwireError,
    ProtocolError,
    ReadError,
    ReferrersUpdateError,
    TransportTimeout,
)
from ociwire.testing import ScriptedTransport
from ociwire.transfer import copy
from ociwire.transport import default_transport
from tests._support.leaks import ENCODINGS, USUAL_ENCODINGS, assert_no_leak, assert_no_leak_in_records

HOST = "registry.example"
REALM = "https://auth.example/token"
CANARY = "c4n4ry-Tw33t+/="
BASIC = base64.b64encode(f"me:{CANARY}".encode()).decode()
FORMS = (CANARY, BASIC, quote(CANARY), quote(CANARY, safe=""), json.dumps(CANARY)[1:-1])

CREDENTIALS = {
    "password": Credential(username="me", password=CANARY),
    "identity token": Credential(identity_token=CANARY),
    "registry token": Credential(registry_token=CANARY),
    "all": Credential(username="me", password=CANARY, identity_token=CANARY, expires_at=2e10),
    "anonymous, but the token is secret": None,
}


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        yield from chain(error.__cause__)
        error = error.__context__


def shown(thing: object) -> list[str]:
    """Return all texts of an object and of its chained exceptions."""
    texts = [repr(thing), str(thing)]
    if isinstance(thing, BaseException):
        for error in chain(thing):
            texts += traceback.format_exception_only(error)  # without the frames: see leaks.shown
            texts += [repr(error), str(error), repr(error.args), *(repr(value) for value in vars(error).values())]
    return texts


def assert_unseen(*things: object) -> None:
    for thing in things:
        for text in shown(thing):
            for form in FORMS:
                assert form not in text


@pytest.fixture(autouse=True)
def _unseen_in_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    for record in caplog.records:
        assert_unseen(record.getMessage(), record.args)


def bearer(realm: str = REALM) -> Response:
    return Response(401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="s",scope="repository:app:pull"'})


def repeat(request: Request) -> bytes:
    """Return the headers and the content of a request as a server repeats them."""
    content = b"" if request.body is None else b"".join(request.body.open())
    return "\n".join(f"{name}: {value}" for name, value in request.headers.items()).encode() + content


def echo(status: int, wrap: Callable[[str], Any] = lambda text: text) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        authorization = request.headers.get("authorization", "")
        text = f"{repeat(request).decode()} {base64.b64decode(BASIC).decode() if BASIC in authorization else ''}"
        content = wrap(text)
        return Response(status, (), content.encode() if isinstance(content, str) else json.dumps(content).encode())

    return answer


def raising(error: Exception) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        raise error

    return answer


TOKEN_SERVERS: dict[str, Callable[[Request], Response]] = {
    "refuses": lambda request: Response(401),
    "repeats": echo(401),
    "repeats as a message": echo(401, lambda text: {"errors": [{"code": "DENIED", "message": text}]}),
    "repeats as details": echo(403, lambda text: {"details": text + "x" * 500}),
    "repeats far behind": echo(500, lambda text: {"details": "x" * 190 + text}),
    "repeats as OAuth2": echo(400, lambda text: {"error": "invalid_grant", "error_description": text}),
    "fails": echo(500, lambda text: {"error": text}),
    "redirects": lambda request: Response(307, {"Location": f"https://evil.example/{CANARY}"}),
    "is not JSON": lambda request: Response(200, (), f'{{"token": "{CANARY}'.encode()),
    "is an odd token": lambda request: Response(200, (), json.dumps({"token": f"{CANARY} {CANARY}"}).encode()),
    "is a list": lambda request: Response(200, (), json.dumps([CANARY]).encode()),
    "is not there": raising(
        ConnectError("refused", request=Request("GET", REALM, {"Authorization": f"Basic {BASIC}"}))
    ),
    "breaks": raising(ReadError("reset", request=Request("POST", REALM, (), f"refresh_token={CANARY}".encode()))),
    "is slow": raising(TransportTimeout("timed out")),
    "grants": lambda request: Response(200, (), json.dumps({"token": CANARY}).encode()),
}
REGISTRIES: dict[str, Callable[[Request], Response]] = {
    "wants Bearer": lambda request: bearer(),
    "wants Basic": lambda request: Response(401, {"WWW-Authenticate": "Basic"}, repeat(request)),
    "has a bad realm": lambda request: bearer("http://127.0.0.1/"),
    "has userinfo in its realm": lambda request: bearer("https://me:theirs@auth.example/"),
    "repeats": echo(403, lambda text: {"errors": [{"code": "DENIED", "message": text, "detail": text}]}),
    "repeats as text": echo(500),
    "repeats with escapes": echo(500, lambda text: json.dumps(text).replace("/", "\\/")),
    "repeats with escapes in JSON": lambda request: Response(
        403,
        (),
        json.dumps({"errors": [{"code": "DENIED", "message": repeat(request).decode()}]}).replace("/", "\\/").encode(),
    ),
    "breaks": raising(ReadError("reset")),
}
USUAL = ("wants Bearer", "wants Basic", "repeats", "repeats with escapes in JSON")
"""Registries that are tested in every run. The others are slow."""


@pytest.mark.parametrize("credential", CREDENTIALS.values(), ids=CREDENTIALS)
@pytest.mark.parametrize("token_server", TOKEN_SERVERS.values(), ids=TOKEN_SERVERS)
@pytest.mark.parametrize(
    "registry",
    [
        pytest.param(registry, id=name, marks=[] if name in USUAL else pytest.mark.slow)
        for name, registry in REGISTRIES.items()
    ],
)
def test_failed_exchange_shows_no_secret(
    credential: Credential | None,
    token_server: Callable[[Request], Response],
    registry: Callable[[Request], Response],
) -> None:
    def answer(request: Request) -> Response:
        if request.url.startswith(REALM):
            return token_server(request)
        if "authorization" not in request.headers:
            return bearer()
        return registry(request)

    source: CredentialSource = Source(credential)
    transport = default_transport(base=FunctionTransport(answer), credentials=source)
    client = Client(HOST, transport)
    for _ in range(2):  # the values that the first pass cached must not appear in the second one
        with pytest.raises(OciwireError) as caught:
            client.get_tag("app", "latest").read()
        assert_unseen(caught.value)
        request = Request(
            "GET", f"https://{HOST}/v2/", info=RequestInfo(required_scope=Scope.repository("app", "pull"))
        )
        try:
            with transport.round_trip(request) as response:
                assert_unseen(response, response.request, response.headers)
        except OciwireError as error:
            assert_unseen(error)
    assert_unseen(transport, client, credential, vars(transport), vars(client))


class Source:
    """Credential source with one credential."""

    def __init__(self, credential: Credential | None) -> None:
        self._credential = credential

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        return self._credential


@pytest.mark.parametrize("credential", CREDENTIALS.values(), ids=CREDENTIALS)
def test_repr_of_credentials_and_sources_shows_no_secret(credential: Credential | None) -> None:
    if credential is None:
        return
    static = StaticCredentials(HOST, credential)
    assert_unseen(credential, static, ChainedCredentials([static]), AuthTransport(Failing(), credentials=static))


class Failing:
    """Transport that cannot connect."""

    def round_trip(self, request: Request, /) -> Response:
        raise ConnectError("no", request=request)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "fields",
    [
        {"username": f"me\n{CANARY}", "password": CANARY},
        {"password": CANARY},
        {"registry_token": CANARY + " "},
        {"identity_token": CANARY + "\udc80"},
        {"username": "me", "password": CANARY.encode()},
        {"username": f"me:{CANARY}", "password": CANARY},
        {"username": "me", "password": CANARY + "\ud800"},
    ],
)
def test_invalid_credential_error_shows_no_secret(fields: dict[str, Any]) -> None:
    with pytest.raises(OciwireError) as caught:
        Credential(**fields)
    assert_unseen(caught.value)


@pytest.mark.parametrize("value", [CANARY + "\r\nX: y", CANARY + "\N{SNOWMAN}", CANARY.encode()])
def test_invalid_header_error_shows_no_secret(value: Any) -> None:
    with pytest.raises(OciwireError) as caught:
        Request("GET", f"https://{HOST}/", {"Authorization": value})
    assert_unseen(caught.value)


AUTH = base64.b64encode(f"me:{CANARY}".encode()).decode()
FILES: dict[str, str | bytes] = {
    "cut off": json.dumps({"auths": {HOST: {"auth": AUTH}}})[:-3],
    "not UTF-8": b'{"auths": {"' + HOST.encode() + b'": {"password": "' + CANARY.encode() + b'\xff"}}}',
    "a list": json.dumps([CANARY]),
    "auths is a string": json.dumps({"auths": CANARY}),
    "an entry is a string": json.dumps({"auths": {HOST: CANARY}}),
    "auth is no base64": json.dumps({"auths": {HOST: {"auth": CANARY + "!"}}}),
    "auth has no colon": json.dumps({"auths": {HOST: {"auth": base64.b64encode(CANARY.encode()).decode()}}}),
    "auth is no text": json.dumps({"auths": {HOST: {"auth": base64.b64encode(b"\xff:" + CANARY.encode()).decode()}}}),
    "a username with a newline": json.dumps({"auths": {HOST: {"username": f"me\n{CANARY}", "password": CANARY}}}),
    "a token that is none": json.dumps({"auths": {HOST: {"registrytoken": CANARY + " "}}}),
    "a list for a token": json.dumps({"auths": {HOST: {"identitytoken": [CANARY]}}}),
    "credsStore is a list": json.dumps({"credsStore": [CANARY]}),
    "credHelpers is a string": json.dumps({"credHelpers": CANARY}),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
@pytest.mark.parametrize("inline", [True, False])
def test_malformed_docker_config_shows_no_secret(content: str | bytes, inline: bool, tmp_path: Path) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "config.json").write_bytes(data)
    env = (
        {"DOCKER_AUTH_CONFIG": data.decode("utf-8", "surrogateescape")} if inline else {"DOCKER_CONFIG": str(tmp_path)}
    )
    config = DockerConfig.load(env=env)
    for call in (config.lookup, config.explain):
        with pytest.raises(AuthError) as caught:
            call(HOST)
        assert_unseen(caught.value)
    assert_unseen(config)


@pytest.mark.parametrize("key", ["auth", "identitytoken", "registrytoken"])
def test_docker_config_explain_shows_no_secret(key: str) -> None:
    entry = {key: AUTH if key == "auth" else CANARY.replace("=", "")}
    config = DockerConfig.load(env={"DOCKER_AUTH_CONFIG": json.dumps({"auths": {HOST: entry}})})
    assert config.lookup(HOST) is not None
    assert_unseen(config.explain(HOST), config, config.lookup(HOST))


HELPERS = {
    "fails": f"echo '{CANARY}'; echo '{CANARY}' >&2; exit 1",
    "fails with JSON": f"""echo '{{"Username": "me", "Secret": "{CANARY}"}}'; exit 2""",
    "is not JSON": f"echo 'Secret: {CANARY}'",
    "is cut off": f"""echo '{{"Username": "me", "Secret": "{CANARY}'""",
    "has no user": f"""echo '{{"Secret": "{CANARY}"}}'""",
    "has an odd username": f"""echo '{{"Username": "{CANARY}\\n", "Secret": "{CANARY}"}}'""",
    "is killed": f"echo '{CANARY}'; kill -9 $$",
}


@pytest.mark.parametrize("script", HELPERS.values(), ids=HELPERS)
def test_failed_credential_helper_shows_no_secret(script: str, tmp_path: Path) -> None:
    program = tmp_path / "docker-credential-bird"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    own = {"DOCKER_AUTH_CONFIG": json.dumps({"credHelpers": {HOST: "bird"}}), "PATH": str(tmp_path)}
    with pytest.raises(AuthError) as caught:
        DockerConfig.load(env=own).lookup(HOST)
    assert_unseen(caught.value)
    store = DockerConfig.load(env={"DOCKER_AUTH_CONFIG": '{"credsStore": "bird"}', "PATH": str(tmp_path)})
    assert store.lookup(HOST) is None
    failure = store.failure(HOST)
    assert failure is not None
    assert_unseen(failure, store.explain(HOST), store)


# --- a registry, a storage and a token server that repeat what they receive, in every place of a response ---

PASSWORD, TOKEN = "p+ss/w0rd&<=", "t0k3n+of/the=registry"
STORAGE_TOKEN, SIGNATURE = "st0rage/t0ken+f00==", "0123456789abcdef+/"
COOKIE = "session-c00kie"
PAIR = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
ECHOED = {
    "registry": (PASSWORD, TOKEN, COOKIE, PAIR),
    "storage": (PASSWORD, TOKEN, COOKIE, PAIR, SIGNATURE, STORAGE_TOKEN),
    "token server": (PASSWORD, COOKIE, PAIR),
}
"""Secrets that each of them repeats: all that have been sent so far."""
STORAGE_QUERY = f"X-Amz-Signature={quote(SIGNATURE, safe='')}&X-Amz-Security-Token={quote(STORAGE_TOKEN, safe='')}&n=1"
STORAGE_URL = f"https://storage.example/blob?{STORAGE_QUERY}"
DIGEST = f"sha256:{'a' * 64}"


def failed(status: int = 403) -> Callable[[str], Response]:
    return lambda text: Response(status, (), text.encode())


def with_header(name: str, form: str = "{}", status: int = 403) -> Callable[[str], Response]:
    return lambda text: Response(status, {name: form.format(text), "Content-Length": "3"}, b"abc")


def raised_as(kind: type[OciwireError]) -> Callable[[str], Response]:
    def answer(text: str) -> Response:
        raise kind(f"the peer said {text}")

    return answer


def broken_body(text: str) -> Response:
    def chunks() -> Iterator[bytes]:
        yield b"a"
        request = Request("GET", STORAGE_URL, {"Authorization": f"Bearer {TOKEN}"}, info=RequestInfo(anonymous=True))
        raise ReadError("reset by the peer", request=request)

    return Response(200, {"Content-Length": "5"}, chunks())


PLACES: dict[str, Callable[[str], Response]] = {
    "text": failed(),
    "text of a server error": failed(500),
    "HTML": lambda text: Response(403, (), f'<html><a href="{text}">{text}</a></html>'.encode()),
    "XML": lambda text: Response(403, (), f"<Error><Signature>{text}</Signature></Error>".encode()),
    "JSON message": lambda text: Response(403, (), b'{"errors": [{"message": "%b"}]}' % text.encode()),
    "JSON code": lambda text: Response(403, (), b'{"errors": [{"code": "%b"}]}' % text.encode()),
    "JSON detail": lambda text: Response(403, (), b'{"errors": [{"detail": {"%b": ["%b"]}}]}' % ((text.encode(),) * 2)),
    "Location": with_header("Location"),
    "Location of no redirect": with_header("Location", "https://storage.example/{}"),
    "Content-Location": with_header("Content-Location"),
    "Link": with_header("Link", "<{}>; rel=next"),
    "Warning": with_header("Warning", '299 - "{}"'),
    "Warning of a success": with_header("Warning", '299 - "{}"', 200),
    "WWW-Authenticate": with_header("WWW-Authenticate", 'Bearer error="{}"'),
    "scope of a challenge": with_header("WWW-Authenticate", 'Bearer realm="https://auth.example/x",scope="{}"', 401),
    "realm of a challenge": with_header("WWW-Authenticate", 'Bearer realm="https://auth.example/{}"', 401),
    "realm that is refused": with_header("WWW-Authenticate", 'Bearer realm="http://127.0.0.1/{}"', 401),
    "an unknown header": with_header("X-Error"),
    "Retry-After": with_header("Retry-After", "{}", 429),
    "Set-Cookie": with_header("Set-Cookie"),
    "Content-Range": with_header("Content-Range", "bytes {}/3", 206),
    "Docker-Content-Digest": with_header("Docker-Content-Digest", "sha256:{}", 200),
    "Content-Type": with_header("Content-Type", "application/{}", 200),
    "a redirect that is refused": with_header("Location", "http://{}", 307),
    "a redirect that is none": with_header("Location", "https://a.example/\N{BROKEN BAR}{}", 307),
    "a broken body": broken_body,
    **{f"a {kind.__name__}": raised_as(kind) for kind in (ProtocolError, ReadError, ConnectError, TransportTimeout)},
}


def operations(client: Client) -> list[Callable[[], object]]:
    return [
        lambda: client.get_blob("app", DIGEST).read(),
        lambda: client.resolve_manifest("app", DIGEST),
        lambda: client.push_blob("app", DIGEST, b"abc"),
        lambda: client.get_blob_range("app", DIGEST, 1, 2).read(),
        lambda: client.resolve_blob("app", DIGEST),
        lambda: client.get_tag("app", "latest").read(),
        lambda: list(client.tags("app")),
        lambda: list(client.referrers("app", DIGEST)),
        lambda: client.delete_manifest("app", DIGEST),
    ]


@pytest.mark.parametrize(
    "encode",
    [
        pytest.param(encode, id=name, marks=[] if name in USUAL_ENCODINGS else pytest.mark.slow)
        for name, encode in ENCODINGS.items()
    ],
)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize(
    "speaker", [name if name == "storage" else pytest.param(name, marks=pytest.mark.slow) for name in ECHOED]
)
def test_secret_repeated_by_peer_is_masked_everywhere(
    speaker: str, place: Callable[[str], Response], encode: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    secrets = ECHOED[speaker]
    text = encode(" ".join((*secrets, f"https://elsewhere.example/x?{STORAGE_QUERY}")))

    def base(request: Request) -> Response:
        if request.url.startswith(REALM):
            granted = Response(200, (), json.dumps({"token": TOKEN}).encode())
            return place(text) if speaker == "token server" else granted
        if request.url.startswith("https://storage.example"):
            return place(text)
        if "authorization" not in request.headers:
            return bearer()
        return place(text) if speaker == "registry" else Response(307, {"Location": STORAGE_URL})

    def with_cookie(request: Request) -> Response:
        return stack.round_trip(request.with_headers({"Cookie": f"id={COOKIE}"}))

    source: CredentialSource = Source(Credential(username="me", password=PASSWORD))
    inner = LogTransport(FunctionTransport(base))
    stack = LogTransport(default_transport(base=inner, credentials=source, retry=urllib3.Retry(1, backoff_factor=0)))
    client = Client(HOST, FunctionTransport(with_cookie))
    calls = operations(client)[: None if encode is ENCODINGS["raw"] else 3]
    failures = [error for call in calls if (error := failure_of(call)) is not None]
    for error in failures:
        assert_no_leak(error, (*secrets, STORAGE_QUERY))
    assert_no_leak_in_records(caplog.records, (*secrets, STORAGE_QUERY))


def failure_of(call: Callable[[], object]) -> OciwireError | None:
    try:
        call()
    except OciwireError as error:
        return error
    return None


# --- a layer or a transport without a client ---


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
def test_signature_of_earlier_redirect_is_masked_in_later_response(encode: Callable[[str], str]) -> None:
    """The last response repeats the URL of an earlier redirect, which its own request does not contain."""
    script = ScriptedTransport(
        [
            Response(307, {"Location": STORAGE_URL}),
            Response(307, {"Location": "https://mirror.example/"}),
            Response(403, (), encode(STORAGE_QUERY).encode()),
        ]
    )
    response = RedirectTransport(script).round_trip(Request("GET", f"https://{HOST}/v2/a/blobs/{DIGEST}"))
    assert_no_leak(error_from_response(response), (SIGNATURE, STORAGE_TOKEN))


def test_earlier_token_is_masked_in_later_response() -> None:
    """The response repeats the first token and its password, after the second token was sent."""
    tokens = iter(["first-token-1", "second-token-2"])
    answers = iter([Response(200), bearer()])

    def answer(request: Request) -> Response:
        if request.url.startswith(REALM):
            return Response(200, (), json.dumps({"token": next(tokens)}).encode())
        if request.headers.get("authorization") == "Bearer second-token-2":
            return Response(403, (), f"not first-token-1 but second-token-2 of {PASSWORD}".encode())
        return next(answers) if "authorization" in request.headers else bearer()

    source = Source(Credential(username="me", password=PASSWORD))
    transport = AuthTransport(FunctionTransport(answer), credentials=source)
    info = RequestInfo(required_scope=Scope.repository("app", "pull"))
    request = Request("GET", f"https://{HOST}/v2/app/tags/list", info=info)
    assert transport.round_trip(request).status == 200
    error = error_from_response(transport.round_trip(request))
    assert error.status == 403
    assert_no_leak(error, ("first-token-1", "second-token-2", PASSWORD))


def test_error_request_has_no_secrets() -> None:
    request = Request(
        "GET",
        STORAGE_URL,
        {"Authorization": f"Bearer {TOKEN}", "Cookie": f"a={COOKIE}", "Accept": "a/b"},
        info=RequestInfo(anonymous=True),
    )
    text = " ".join((TOKEN, COOKIE, STORAGE_URL))
    for error in (ReadError(text, request=request), errors.Denied(text, body=text.encode(), request=request)):
        assert_no_leak(error, (TOKEN, COOKIE, SIGNATURE, STORAGE_TOKEN))
        assert error.request is not None
        assert error.request.url == "https://storage.example/blob"
        assert list(error.request.headers.items()) == [("Accept", "a/b")]


def test_error_token_request_has_no_body() -> None:
    request = Request("POST", REALM, (), f"refresh_token={TOKEN}".encode(), RequestInfo(operation="token"))
    assert_no_leak(ReadError("reset", request=request), (TOKEN,))


def test_repr_of_messages_shows_no_signed_query() -> None:
    request = Request("GET", STORAGE_URL, {"Link": f"<{STORAGE_URL}>"}, info=RequestInfo(anonymous=True))
    response = Response(307, {"Location": STORAGE_URL, "Content-Location": f"/x?{STORAGE_QUERY}", "X": STORAGE_URL})
    for thing in (request, response, request.headers, response.headers):
        for text in (repr(thing), str(thing)):
            assert quote(SIGNATURE, safe="") not in text
            assert quote(STORAGE_TOKEN, safe="") not in text


@contextmanager
def server_that_repeats() -> Iterator[str]:
    """Transport that answers every request with 500, and repeats what it was sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            content = self.requestline.encode() + bytes(self.headers) + body
            self.send_response(500)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PUT = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("credential", CREDENTIALS.values(), ids=CREDENTIALS)
def test_failed_exchange_over_socket_shows_no_secret(credential: Credential | None) -> None:
    with server_that_repeats() as url:
        host = url.removeprefix("http://")
        wire = UrllibTransport(trust_env=False)

        def answer(request: Request) -> Response:
            if "authorization" in request.headers or request.info.operation == "token":
                return wire.round_trip(request)
            return bearer(f"{url}/token?{CANARY}")

        transport = default_transport(base=FunctionTransport(answer, close=wire.close), credentials=Source(credential))
        with pytest.raises(OciwireError) as caught:
            Client(host, transport, insecure=True).get_tag("app", "latest")
        assert_unseen(caught.value)
        transport.close()


def test_proxy_error_shows_no_password() -> None:
    proxy = f"http://me:{quote(CANARY, safe='')}@127.0.0.1:1"
    transport = default_transport(proxy=proxy, credentials=Source(CREDENTIALS["registry token"]))
    for scheme in ("http", "https"):
        request = Request(
            "GET", f"{scheme}://{HOST}/v2/", info=RequestInfo(required_scope=Scope.repository("a", "pull"))
        )
        with pytest.raises(ConnectError) as caught:
            transport.round_trip(request)
        assert_unseen(caught.value)
    assert_unseen(transport)
    transport.close()


def test_referrers_update_error_shows_no_token() -> None:
    token = "t0k3n-of-the-registry"
    content = json.dumps({"subject": {"digest": DIGEST}}).encode()

    def answer(request: Request) -> Response:
        sent = request.with_headers({"Authorization": f"Bearer {token}"})
        if request.method == "PUT":
            return Response(201, (), b"", sent)
        return Response(200, {"Content-Type": f"application/{token}"}, b"{}", sent)

    with pytest.raises(ReferrersUpdateError, match="refusing to replace the referrers tag ") as caught:
        Client(HOST, FunctionTransport(answer)).push_manifest("app", content, "application/x")
    assert_no_leak(caught.value, (token,))
    assert_no_leak(caught.value.__cause__, (token,))


# --- quotes that are cut within a secret ---

LONG_PASSWORD = "Zq7Xw9Kv3Jt5Yp"  # shorter than the parts by which a cut secret is recognized
CONTENT_DIGEST = str(Digest.of(b"content"))
INDEX, MANIFEST = "application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json"


def manifest_of(field: str, value: Callable[[str], Any], media_type: str = MANIFEST) -> Callable[[str], Response]:
    def response(text: str) -> Response:
        content = {"schemaVersion": 2, "mediaType": media_type, "config": None, field: value(text)}
        return Response(200, {"Content-Type": media_type}, json.dumps(content).encode())

    return response


def get_range(client: Client) -> None:
    client.get_blob_range("app", CONTENT_DIGEST, 1, 4).read()


def copy_image(client: Client) -> None:
    copy(client, "app:1", client, "other:1")


QUOTED: dict[str, tuple[Callable[[Client], Any], Callable[[str], Response]]] = {
    "Content-Range": (get_range, lambda text: Response(206, {"Content-Range": text})),
    "Location": (get_range, lambda text: Response(307, {"Location": f"/{text}"})),
    "Location that is logged": (get_range, lambda text: Response(201, {"Location": f"https://other.example/{text}"})),
    "Link": (lambda client: list(client.tags("app")), lambda text: Response(200, {"Link": f"</{text}>; rel=next"})),
    "upload": (
        lambda client: client.push_blob("app", Descriptor.of(b"content"), b"content"),
        lambda text: Response(202, {"Location": f"/{text}"}),
    ),
    "a copied manifest": (
        copy_image,
        lambda text: Response(200, {"Content-Type": MANIFEST}, json.dumps([text]).encode()),
    ),
    "its fields": (copy_image, manifest_of("layers", lambda text: text)),
    "its media type": (copy_image, manifest_of("mediaType", lambda text: text)),
    "its config": (copy_image, manifest_of("config", lambda text: text)),
    "a digest": (copy_image, manifest_of("config", lambda text: {"mediaType": "a/b", "size": 1, "digest": text})),
    "a digest of sha256": (
        copy_image,
        manifest_of("config", lambda text: {"mediaType": "a/b", "size": 1, "digest": f"sha256:{text}"}),
    ),
    "a size": (
        copy_image,
        manifest_of("config", lambda text: {"mediaType": "a/b", "size": text, "digest": CONTENT_DIGEST}),
    ),
    "an entry of an index": (copy_image, manifest_of("manifests", lambda text: [{"text": text}], INDEX)),
}


@pytest.mark.parametrize("quoted", QUOTED)
def test_quote_cut_within_a_secret_shows_no_part_of_it(quoted: str, caplog: pytest.LogCaptureFixture) -> None:
    call, respond = QUOTED[quoted]
    for length in (0, *range(40, 100, 4), *range(140, 200, 4), *range(260, 300, 4), *range(460, 500, 4)):

        def answer(request: Request, length: int = length) -> Response:
            if "authorization" not in request.headers:
                return Response(401, {"WWW-Authenticate": "Basic"})
            return respond("x" * length + LONG_PASSWORD)

        credentials = StaticCredentials(HOST, Credential(username="me", password=LONG_PASSWORD))
        stack = default_transport(base=FunctionTransport(answer), credentials=credentials, retry=False)
        with suppress(OciwireError):
            try:
                call(Client(HOST, LogTransport(stack)))
            except OciwireError as error:
                assert_no_leak(error, [LONG_PASSWORD[:4]])
                raise
    assert_no_leak_in_records(caplog.records, [LONG_PASSWORD[:4]])


def test_pickled_error_of_logged_request_has_no_credentials() -> None:
    def answer(request: Request) -> Response:
        return Response(403, (), b"", request)

    log = LogTransport(FunctionTransport(answer))  # below the layers that add credentials
    headers = {"Authorization": f"Bearer {CANARY}"}
    with log.round_trip(Request("PUT", f"https://{HOST}/v2/", headers, b"content")) as response:
        error = error_from_response(response)
    assert CANARY.encode() not in pickle.dumps(error)
