"""No secret is shown: in no repr, no log line, no text of an exception, nor in what an exception is chained to.

A canary is planted in every kind of credential, every failure that it can meet is provoked, and all that a person could
see of it is searched.
"""

from __future__ import annotations

import base64
import json
import logging
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from ociwire import AuthTransport, Client, FunctionTransport, Request, RequestInfo, Response, Scope, UrllibTransport
from ociwire.auth import ChainedCredentials, Credential, CredentialSource, DockerConfig, StaticCredentials
from ociwire.errors import AuthError, ConnectError, OciwireError, ReadError, TransportTimeout
from ociwire.transport import default_transport

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
    "nobody, but the token is secret": None,
}


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        yield from chain(error.__cause__)
        error = error.__context__


def shown(thing: object) -> list[str]:
    """All that a person could be shown of a thing."""
    texts = [repr(thing), str(thing)]
    if isinstance(thing, BaseException):
        texts += traceback.format_exception(thing)
        for error in chain(thing):
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


def told(request: Request) -> bytes:
    """All of a request, as a server that repeats it would."""
    content = b"" if request.body is None else b"".join(request.body.open())
    return "\n".join(f"{name}: {value}" for name, value in request.headers.items()).encode() + content


def echo(status: int, wrap: Callable[[str], Any] = lambda text: text) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        proof = request.headers.get("authorization", "")
        said = f"{told(request).decode()} {base64.b64decode(BASIC).decode() if BASIC in proof else ''}"
        content = wrap(said)
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
    "wants Basic": lambda request: Response(401, {"WWW-Authenticate": "Basic"}, told(request)),
    "has a bad realm": lambda request: bearer("http://127.0.0.1/"),
    "has userinfo in its realm": lambda request: bearer("https://me:theirs@auth.example/"),
    "repeats": echo(403, lambda text: {"errors": [{"code": "DENIED", "message": text, "detail": text}]}),
    "repeats as text": echo(500),
    "repeats with escapes": echo(500, lambda text: json.dumps(text).replace("/", "\\/")),
    "repeats with escapes in JSON": lambda request: Response(
        403,
        (),
        json.dumps({"errors": [{"code": "DENIED", "message": told(request).decode()}]}).replace("/", "\\/").encode(),
    ),
    "breaks": raising(ReadError("reset")),
}


@pytest.mark.parametrize("credential", CREDENTIALS.values(), ids=CREDENTIALS)
@pytest.mark.parametrize("token_server", TOKEN_SERVERS.values(), ids=TOKEN_SERVERS)
@pytest.mark.parametrize("registry", REGISTRIES.values(), ids=REGISTRIES)
def test_a_failing_exchange_shows_nothing(
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
    for _ in range(2):  # what is kept from the first time must not show the second
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
    """A source that has one credential, whose repr is its own affair."""

    def __init__(self, credential: Credential | None) -> None:
        self._credential = credential

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        return self._credential


@pytest.mark.parametrize("credential", CREDENTIALS.values(), ids=CREDENTIALS)
def test_values_and_sources_show_nothing(credential: Credential | None) -> None:
    if credential is None:
        return
    static = StaticCredentials(HOST, credential)
    assert_unseen(credential, static, ChainedCredentials([static]), AuthTransport(Failing(), credentials=static))


class Failing:
    """A transport without an answer."""

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
def test_a_credential_that_is_none_shows_nothing(fields: dict[str, Any]) -> None:
    with pytest.raises(OciwireError) as caught:
        Credential(**fields)
    assert_unseen(caught.value)


@pytest.mark.parametrize("value", [CANARY + "\r\nX: y", CANARY + "\N{SNOWMAN}", CANARY.encode()])
def test_a_header_that_is_none_shows_nothing(value: Any) -> None:
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
def test_a_malformed_file_shows_nothing(content: str | bytes, inline: bool, tmp_path: Path) -> None:
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
def test_what_explains_shows_nothing(key: str) -> None:
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
def test_a_failing_helper_shows_nothing(script: str, tmp_path: Path) -> None:
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


@contextmanager
def server_that_repeats() -> Iterator[str]:
    """Answers everything 500, and repeats what it was sent."""

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
def test_nothing_is_shown_on_a_real_wire(credential: Credential | None) -> None:
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


def test_a_proxy_s_password_is_not_shown() -> None:
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
