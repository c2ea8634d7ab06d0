"""First guesses of users of other clients: each works, or fails with an error that names the right spelling."""

from __future__ import annotations

import io
import json
import pathlib
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import urllib3

from ociwire import (
    AsyncClient,
    AuthTransport,
    Client,
    Descriptor,
    FunctionTransport,
    HeadersTransport,
    Index,
    LogTransport,
    Manifest,
    RedirectTransport,
    Reference,
    Request,
    Response,
    RetryTransport,
    TLSConfig,
    UrllibTransport,
    copy,
    default_transport,
    download,
    errors,
    stack,
    upload,
)
from ociwire.auth import Anonymous, Credential, DockerConfig, StaticCredentials
from ociwire.media_types import DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from ociwire.testing import AuthGuard, FaultTransport, MemoryRegistry, ScriptedTransport

HOST, NAME = "registry.example", "a"
CONFIG, LAYER = Descriptor.of(b"{}", OCI_CONFIG), Descriptor.of(b"layer", OCI_LAYER)
FIELDS = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG.to_dict(), "layers": [LAYER.to_dict()]}


@pytest.fixture
def client() -> Client:
    client = Client(HOST, MemoryRegistry())
    client.push_blob(NAME, CONFIG, b"{}")
    client.push_blob(NAME, LAYER, b"layer")
    return client


# Client(...)

SECRET = "hunter2-secret"


def over(base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the default stack use `base` instead of sockets."""
    monkeypatch.setattr("ociwire.transport.default.UrllibTransport", lambda **options: base)


@pytest.mark.parametrize(
    "credentials",
    [
        ("me", SECRET),
        ["me", SECRET],
        Credential("me", SECRET),
        StaticCredentials(HOST, Credential("me", SECRET)),
        lambda host, repository: Credential("me", SECRET) if host == HOST else None,
    ],
    ids=["pair", "list", "Credential", "source", "function"],
)
@pytest.mark.parametrize("scheme", ["bearer", "basic"])
def test_client_credentials_of_each_form_are_used(
    credentials: Any, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    over(AuthGuard(MemoryRegistry(), users={"me": SECRET}, scheme=scheme), monkeypatch)
    with Client(HOST, credentials=credentials) as client:
        assert client.push_blob(NAME, b"hello").size == 5


@pytest.mark.parametrize("credentials", [("me", SECRET), Credential("me", SECRET)], ids=["pair", "Credential"])
def test_client_pair_is_used_for_the_host_of_the_client_only(credentials: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = AuthGuard(MemoryRegistry(), users={"me": SECRET}, scheme="basic")
    over(guard, monkeypatch)
    client = Client(HOST, credentials=credentials)
    client.ping()
    with client.do(Request("GET", "https://other.example/v2/")) as response:
        assert response.status == 401
    with pytest.raises(errors.Unauthorized):
        Client("other.example", client.transport).ping()


def test_client_pair_of_docker_hub_is_used_for_its_other_name(monkeypatch: pytest.MonkeyPatch) -> None:
    over(AuthGuard(MemoryRegistry(), users={"me": SECRET}), monkeypatch)
    for host in ("docker.io", "index.docker.io", "registry-1.docker.io"):
        Client(host, credentials=("me", SECRET)).push_blob(NAME, b"hello")


@pytest.mark.parametrize(
    "credentials",
    [
        f"me:{SECRET}",
        ("me", None),
        (None, None),
        ("me", SECRET, "x"),
        (SECRET,),
        {"username": "me", "password": SECRET},
        b"me",
        7,
        lambda: None,
        lambda host: None,
        Credential,
        StaticCredentials,
        (SECRET + ":colon", "x"),
    ],
)
def test_client_other_credentials_raise_usage_error_without_secrets(credentials: Any) -> None:
    with pytest.raises(errors.UsageError, match="credential") as caught:
        Client(HOST, credentials=credentials)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("credentials", [("me", SECRET), Credential("me", SECRET)], ids=["pair", "Credential"])
def test_default_transport_credential_without_host_names_static_credentials(credentials: Any) -> None:
    with pytest.raises(errors.UsageError, match=r"StaticCredentials\(host, credential\)") as caught:
        default_transport(credentials=credentials)
    assert SECRET not in str(caught.value)


def test_default_transport_credential_function_is_named_if_it_fails() -> None:
    def look_up(host: str, repository: str | None) -> Credential | None:
        raise KeyError(SECRET)

    transport = default_transport(base=AuthGuard(MemoryRegistry(), users={}), credentials=look_up)
    with pytest.raises(errors.AuthError, match=r"source .*look_up failed for registry.example: KeyError"):
        Client(HOST, transport).push_blob(NAME, b"hello")


@pytest.mark.parametrize(
    "options",
    [
        {"credentials": ("me", SECRET)},
        {"retry": 3},
        {"retry": False},
        {"tls": "ca.pem"},
        {"proxy": "http://proxy.example"},
        {"trust_env": False},
        {"credentials": Anonymous(), "retry": 0},
    ],
)
def test_client_option_of_the_stack_with_a_transport_raises_usage_error(options: dict[str, Any]) -> None:
    names = " and ".join(options)
    with pytest.raises(errors.UsageError, match=rf"^{names} cannot be combined with transport: .*default_transport"):
        Client(HOST, MemoryRegistry(), **options)


def test_client_own_options_combine_with_any_transport() -> None:
    transport = ScriptedTransport([Response(200)])
    client = Client(HOST, transport, timeout=5, insecure=True, user_agent="me/1", debug_id="mine")
    client.ping()
    [request] = transport.requests
    assert (request.info.timeout, request.info.debug_id) == (5, "mine")
    assert (request.url, request.headers["user-agent"]) == (f"http://{HOST}/v2/", "me/1")


def test_client_timeout_applies_to_token_requests_and_can_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    timeouts = []
    guard = AuthGuard(MemoryRegistry(), users={"me": SECRET})

    def observe(request: Request) -> Response:
        timeouts.append((request.info.operation, request.info.timeout))
        return guard.round_trip(request)

    over(FunctionTransport(observe), monkeypatch)
    client = Client(HOST, timeout=5, credentials=("me", SECRET))
    client.push_blob(NAME, b"hello")
    assert {timeout for _, timeout in timeouts} == {5}
    assert "token" in dict(timeouts)
    timeouts.clear()
    client.with_options(timeout=None).resolve_blob(NAME, Descriptor.of(b"hello"))
    assert {timeout for _, timeout in timeouts} == {None}


def test_client_options_reach_the_default_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    base = ScriptedTransport([errors.ReadError("lost")] * 2)
    monkeypatch.setattr("ociwire.transport.default.UrllibTransport", lambda **options: (made.append(options), base)[1])
    tls = TLSConfig(ca="ca.pem")
    options: dict[str, Any] = {"tls": tls, "proxy": "http://proxy.example", "trust_env": False}
    with Client(HOST, retry=1, **options) as client, pytest.raises(errors.ReadError):
        client.ping()
    assert len(base.requests) == 2
    assert made == [options]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": (3, 10)}, r"urllib3\.Timeout\(connect=5, read=60\)"),
        ({"timeout": 0}, "invalid timeout 0"),
        ({"timeout": "5"}, "invalid timeout '5'"),
        ({"retry": True}, "invalid retry True: expected the number of retries"),
        ({"retry": "3"}, "invalid retry '3'"),
        ({"tls": False}, "tls must be a path, a TLSConfig, an ssl.SSLContext or a function, got bool"),
        ({"tls": ("a.pem", "a.key")}, r"got tuple: use TLSConfig\(cert=\.\.\., key=\.\.\.\)"),
        ({"tls": "/missing/ca.pem"}, "cannot use the CA bundle /missing/ca.pem: "),
        ({"proxy": "socks5://proxy.example"}, "SOCKS proxies are not supported"),
        ({"proxy": {"https": "http://proxy.example"}}, "invalid proxy URL"),
        ({"insecure": "false"}, "invalid insecure 'false': expected True or False"),
        ({"trust_env": "no"}, "invalid trust_env 'no': expected True or False"),
    ],
)
def test_client_invalid_option_raises_usage_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.UsageError, match=message):
        Client(HOST, **options)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"auth": ("me", SECRET)}, r"unknown option auth: use credentials=\(username, password\)"),
        ({"username": "me", "password": SECRET}, r"use credentials=\(username, password\)"),
        ({"verify": False}, "use tls="),
        ({"cert": ("a", "b")}, "use tls=TLSConfig"),
        ({"proxies": {}}, "use proxy="),
        ({"max_retries": 3}, "use retry=3"),
        ({"retries": 3}, "use retry=3"),
        ({"headers": {}}, "layer that adds headers"),
    ],
)
@pytest.mark.parametrize("make", [Client, Client.from_reference], ids=["Client", "from_reference"])
def test_client_option_of_another_library_names_the_right_one(make: Any, options: dict[str, Any], hint: str) -> None:
    with pytest.raises(errors.UsageError, match=hint) as caught:
        make("ghcr.io/a", **options) if make is not Client else make("ghcr.io", **options)
    assert SECRET not in str(caught.value)
    with pytest.raises(TypeError, match="something"):
        make("ghcr.io/a", something=1) if make is not Client else make("ghcr.io", something=1)


@pytest.mark.parametrize(
    ("transport", "message"),
    [
        (MemoryRegistry, r"got the class MemoryRegistry: pass an instance, such as MemoryRegistry\(\.\.\.\)"),
        (SECRET, r"got str: pass a user name and password as credentials=\(username, password\)"),
        (("me", SECRET), "got tuple"),
        (lambda request: Response(200), r"got function: use FunctionTransport\(function\)"),
        (object(), r"with round_trip\(request\) and close\(\), got object"),
    ],
)
def test_client_other_transport_raises_usage_error(transport: Any, message: str) -> None:
    for make in (partial(Client, HOST), lambda value: default_transport(base=value), RetryTransport, stack):
        with pytest.raises(errors.UsageError, match="must be a transport") as caught:
            make(transport)
        assert SECRET not in str(caught.value)
    with pytest.raises(errors.UsageError, match=message):
        Client(HOST, transport)


@pytest.mark.parametrize(
    ("reference", "host"),
    [
        ("ghcr.io/org/app:v1", "ghcr.io"),
        ("localhost:5000/app", "localhost:5000"),
        ("alpine", "registry-1.docker.io"),
        (Reference("quay.io", "a/b"), "quay.io"),
    ],
)
def test_client_from_reference_is_a_client_of_its_host(reference: Any, host: str) -> None:
    with Client.from_reference(reference, MemoryRegistry(), timeout=5) as client:
        assert client.host == host
        client.push_blob("a", b"hello")
    with Client.from_reference(reference) as client:
        assert client.host == host


@pytest.mark.parametrize(
    ("host", "hint"),
    [("https://ghcr.io", "without a scheme"), ("ghcr.io/org/app:v1", r"use Client\.from_reference\(\.\.\.\)")],
)
def test_client_url_or_reference_as_host_names_the_right_spelling(host: str, hint: str) -> None:
    with pytest.raises(errors.UsageError, match=hint):
        Client(host)


@pytest.mark.parametrize(
    "host", ["ghcr.io", "localhost:5000", "localhost", "ghcr.io:443", "ghcr.io@sha256:" + "0" * 64]
)
def test_client_from_reference_of_a_host_alone_raises_usage_error(host: str) -> None:
    with pytest.raises(errors.UsageError, match=r"for a host, use Client\(host\)"):
        Client.from_reference(host)
    assert Client.from_reference("alpine:3.20", MemoryRegistry()).host == "registry-1.docker.io"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("auth", r"use credentials=\(username, password\), passed to Client"),
        ("timeout", r"use timeout=\.\.\., passed"),
        ("verify", "use tls="),
        ("insecure", "use insecure="),
    ],
)
def test_client_option_that_is_assigned_raises(client: Client, name: str, hint: str) -> None:
    with pytest.raises(AttributeError, match=hint):
        setattr(client, name, "x")
    client.my_attribute = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda: default_transport(retries=3), "use retry=3"),  # type: ignore[call-arg]
        (lambda: default_transport(auth=("me", SECRET)), r"use credentials=StaticCredentials\(host, Credential\("),  # type: ignore[call-arg]
        (lambda: UrllibTransport(verify=False), "use tls="),  # type: ignore[call-arg]
        (lambda: RetryTransport(MemoryRegistry(), max_retries=3), "use retry=3"),  # type: ignore[call-arg]
        (lambda: Client(HOST, MemoryRegistry()).with_options(retry=3), r"use Client\(host, retry=\.\.\.\)"),  # type: ignore[call-arg]
    ],
)
def test_transport_option_of_another_library_names_the_right_one(make: Callable[[], object], hint: str) -> None:
    with pytest.raises(errors.UsageError, match=hint) as caught:
        make()
    assert SECRET not in str(caught.value)


# with_options


def test_with_options_within_is_a_deadline_from_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    transport = ScriptedTransport([Response(200)])
    Client(HOST, transport).with_options(within=10).ping()
    assert transport.requests[0].info.deadline == 110.0


@pytest.mark.parametrize("deadline", [lambda: 10, lambda: time.monotonic() - 1, lambda: time.time() + 60])
def test_with_options_deadline_of_another_clock_explains_monotonic(
    client: Client, deadline: Callable[[], float]
) -> None:
    with pytest.raises(errors.UsageError, match=r"time\.monotonic\(\) value, such as .*within=60"):
        client.with_options(deadline=deadline())


def test_with_options_deadline_that_has_passed_is_a_timeout(client: Client) -> None:
    with pytest.raises(errors.TransportTimeout, match=r"passed .* s ago"):
        client.with_options(deadline=time.monotonic() - 1)


@pytest.mark.parametrize("within", [-1, "10", True, float("nan")])
def test_with_options_invalid_within_raises_usage_error(client: Client, within: Any) -> None:
    with pytest.raises(errors.UsageError, match="within"):
        client.with_options(within=within)


def test_with_options_deadline_and_within_raise_usage_error(client: Client) -> None:
    with pytest.raises(errors.UsageError, match="deadline and within must not be combined"):
        client.with_options(deadline=time.monotonic() + 10, within=10)
    client.with_options(deadline=None, within=10)


# Transports

LAYERS: list[Callable[[Any], Any]] = [
    RetryTransport,
    RedirectTransport,
    HeadersTransport,
    LogTransport,
    partial(AuthTransport, credentials=Anonymous()),
    partial(AuthGuard, users={"me": SECRET}),
    FaultTransport,
]
BASES: list[Callable[[], Any]] = [
    UrllibTransport,
    MemoryRegistry,
    partial(ScriptedTransport, []),
    partial(FunctionTransport, lambda request: Response(200)),
    partial(default_transport, credentials=StaticCredentials(HOST, Credential("me", SECRET))),
]


@pytest.mark.parametrize("make", [*BASES, *(partial(stack, MemoryRegistry(), layer) for layer in LAYERS)])
def test_every_transport_is_a_context_manager(make: Callable[[], Any]) -> None:
    with make() as transport:
        assert callable(transport.round_trip)
    with pytest.raises(errors.UsageError, match="closed"):
        transport.round_trip(Request("GET", f"https://{HOST}/v2/"))
    transport.close()


def test_context_manager_closes_after_an_exception() -> None:
    closed: list[bool] = []
    with pytest.raises(KeyError), FunctionTransport(lambda request: Response(200), close=lambda: closed.append(True)):
        raise KeyError
    assert closed == [True]


def test_repr_of_a_stack_shows_its_layers() -> None:
    transport = default_transport(proxy=f"http://me:{SECRET}@proxy.example", credentials=Anonymous())
    assert repr(transport) == (
        "<RetryTransport over <RedirectTransport over <HeadersTransport over <AuthTransport over <UrllibTransport>>>>>"
    )


@pytest.mark.parametrize("layer", LAYERS)
def test_repr_of_each_layer_shows_its_inner_transport_and_no_secret(layer: Callable[[Any], Any]) -> None:
    shown = repr(layer(MemoryRegistry()))
    name = getattr(layer, "func", layer).__name__
    assert shown == f"<{name} over <MemoryRegistry>>"


def test_repr_of_function_transport_names_the_function() -> None:
    def answer(request: Request) -> Response:
        return Response(200)

    assert repr(FunctionTransport(answer)).endswith("<locals>.answer>")
    assert repr(FunctionTransport(partial(answer))).endswith("<locals>.answer>")


def test_function_transport_without_function_raises_usage_error() -> None:
    with pytest.raises(errors.UsageError, match="function must take a request and return a response"):
        FunctionTransport(MemoryRegistry())  # type: ignore[arg-type]


def test_function_transport_that_returns_no_response_raises_usage_error() -> None:
    with pytest.raises(errors.UsageError, match=r"<lambda> must return a Response, got NoneType"):
        Client(HOST, FunctionTransport(lambda request: None)).ping()  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (([RetryTransport],), r"got list: pass the layers as separate arguments, such as stack\(base, \*layers\)"),
        (
            (RetryTransport(MemoryRegistry()),),
            r"got RetryTransport: pass the class, such as stack\(base, RetryTransport",
        ),
        (("RetryTransport",), "got str"),
        ((RetryTransport, None), "got NoneType"),
        ((lambda inner: None,), "the result of the layer .*<lambda> must be a transport.*got NoneType"),
        ((lambda inner: RetryTransport,), "the result of the layer .* got the class RetryTransport"),
    ],
)
def test_stack_other_layer_raises_usage_error(layers: Any, message: str) -> None:
    with pytest.raises(errors.UsageError, match=message):
        stack(MemoryRegistry(), *layers)


def test_stack_calls_no_layer_if_one_is_invalid() -> None:
    with pytest.raises(errors.UsageError):
        stack(MemoryRegistry(), lambda inner: pytest.fail("called"), None)  # type: ignore[arg-type]


def test_default_transport_sleep_and_clock_make_a_429_immediate() -> None:
    sleeps: list[float] = []
    base = ScriptedTransport([Response(429, {"Retry-After": "Thu, 01 Jan 1970 00:00:30 GMT"}), Response(200)])
    with default_transport(base=base, credentials=Anonymous(), sleep=sleeps.append, clock=lambda: 10.0) as transport:
        assert transport.round_trip(Request("GET", f"https://{HOST}/v2/")).status == 200
    assert sleeps == [20.0]


@pytest.mark.parametrize("retry", [3, urllib3.Retry(3)])
def test_retry_transport_number_means_that_many_retries(retry: Any) -> None:
    base = ScriptedTransport([Response(429)] * 4)
    transport = RetryTransport(base, retry=retry, sleep=lambda seconds: None)
    transport.round_trip(Request("GET", f"https://{HOST}/v2/")).close()
    assert len(base.requests) == (4 if retry == 3 else 1)  # a urllib3.Retry lists its own statuses


# Response


def test_response_with_headers_changes_them_and_moves_the_body() -> None:
    first = Response(200, {"X-One": "1", "X-Two": "2"}, iter([b"hello"]), Request("GET", "/v2/"))
    second = first.with_headers({"x-one": None, "X-Three": "3"})
    assert dict(second.headers) == {"X-Two": "2", "X-Three": "3"}
    assert (second.status, second.request, second.read()) == (200, first.request, b"hello")
    assert first.closed
    for changes in ({"a b": "1"}, [("A", "1")], {1: "1"}, None):
        with pytest.raises(errors.UsageError, match="header"):
            second.with_headers(changes)  # type: ignore[arg-type]


def test_response_of_a_mapping_raises_usage_error() -> None:
    with pytest.raises(errors.UsageError, match=r"body must be bytes, a binary reader .* got dict"):
        Response(200, {}, {"tags": ["v1"]})  # type: ignore[arg-type]


def test_dict_of_headers_keeps_the_names_as_they_came() -> None:
    response = Response(200, [("Docker-Content-Digest", "x"), ("LINK", "a"), ("link", "b")])
    assert dict(response.headers) == {"Docker-Content-Digest": "x", "LINK": "a, b"}
    assert list(response.headers) == list(response.headers.keys()) == ["Docker-Content-Digest", "LINK"]
    assert response.headers["docker-content-digest"] == "x"


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("", "héllo".encode(), "héllo"),
        ("text/plain; charset=latin-1", "héllo".encode("latin-1"), "héllo"),
        ('text/plain; boundary=x; CHARSET="UTF-16"', "héllo".encode("utf-16"), "héllo"),
        ("text/plain; charset=unknown", b"hello", "hello"),
        ("text/plain; charset=base64", b"hello", "hello"),
        ("text/plain; charset=a\0b", b"hello", "hello"),
        ("text/plain", b"h\xffllo", "h\ufffdllo"),
    ],
)
def test_response_text_decodes_the_body(content_type: str, body: bytes, text: str) -> None:
    response = Response(200, (), body)
    response.headers = type(response.headers).received([("Content-Type", content_type)])
    assert response.text() == text


def test_response_text_longer_than_its_limit_raises_protocol_error() -> None:
    response = Response(200, (), b"hello")
    with pytest.raises(errors.ProtocolError, match="the body is longer than the limit of 4 bytes"):
        response.text(limit=4)
    assert response.closed
    with pytest.raises(errors.UsageError):
        response.text()


def test_response_raise_for_status_returns_a_success() -> None:
    response = Response(204)
    assert response.raise_for_status() is response
    assert not response.closed


@pytest.mark.parametrize(("status", "kind"), [(301, "RegistryError"), (404, "NotFound"), (429, "TooManyRequests")])
def test_response_raise_for_status_raises_and_closes(status: int, kind: str) -> None:
    response = Response(status, (), iter([b'{"errors": [{"message": "hello"}]}']))
    with pytest.raises(errors.RegistryError, match="hello") as caught:
        response.raise_for_status()
    assert type(caught.value).__name__ == kind
    assert response.closed


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("status_code", "response.status$"),
        ("content", r"response\.read\(\)"),
        ("ok", "raise_for_status"),
        ("url", "request"),
    ],
)
def test_response_names_of_other_libraries_name_the_right_one(name: str, hint: str) -> None:
    with pytest.raises(AttributeError, match=hint):
        getattr(Response(200), name)
    assert not hasattr(Response(200), "something_else")


# push_blob


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, io.BytesIO])
def test_push_blob_without_descriptor_computes_it(client: Client, make: Any) -> None:
    pushed = client.push_blob(NAME, make(b"hello"))
    assert pushed == Descriptor.of(b"hello")
    assert client.get_blob(NAME, pushed).read() == b"hello"
    assert client.push_blob(NAME, content=make(b"hello")) == pushed


def test_push_blob_of_a_path_sends_the_file(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello")
    assert client.push_blob(NAME, tmp_path / "file") == Descriptor.of(b"hello")
    with_type = Descriptor.of(tmp_path / "file", "text/plain")
    assert client.push_blob(NAME, with_type, tmp_path / "file").media_type == "text/plain"


def test_push_blob_of_a_file_starts_at_its_position(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello")
    with (tmp_path / "file").open("rb") as file:
        file.seek(2)
        assert client.push_blob(NAME, file) == Descriptor.of(b"llo")
        assert not file.closed


@pytest.mark.parametrize("arguments", [("hello",), (Descriptor.of(b"hello"), "hello")])
def test_push_blob_of_a_str_names_both_spellings(client: Client, arguments: Any) -> None:
    with pytest.raises(errors.UsageError) as caught:
        client.push_blob(NAME, *arguments)
    assert "text.encode()" in str(caught.value)
    assert "pathlib.Path(name)" in str(caught.value)


@pytest.mark.parametrize("content", [iter([b"hello"]), [b"hello"], {"a": 1}, None, 7])
def test_push_blob_of_other_content_needs_a_descriptor(client: Client, content: Any) -> None:
    with pytest.raises(errors.UsageError, match="descriptor"):
        client.push_blob(NAME, content)


def test_push_blob_of_a_missing_path_raises_os_error(client: Client, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client.push_blob(NAME, tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        client.push_blob(NAME, tmp_path)
    with pytest.raises(errors.UsageError, match="not a regular file"):
        client.push_blob(NAME, pathlib.Path("/dev/null"))


# Descriptor.of


def test_descriptor_of_a_file_leaves_its_position(tmp_path: Path) -> None:
    file = io.BytesIO(b"hello")
    file.seek(1)
    assert Descriptor.of(file, algorithm="sha512") == Descriptor.of(b"ello", algorithm="sha512")
    assert file.tell() == 1
    assert Descriptor.of(memoryview(b"hello")[::2]) == Descriptor.of(b"hlo")


@pytest.mark.parametrize("content", ["hello", [b"hello"], None, io.StringIO("hello")])
def test_descriptor_of_other_content_raises_usage_error(content: Any) -> None:
    with pytest.raises(errors.UsageError, match="content must be"):
        Descriptor.of(content)


def test_descriptor_of_an_unseekable_file_raises_usage_error() -> None:
    class Pipe(io.RawIOBase):
        def readable(self) -> bool:
            return True

    with pytest.raises(errors.UsageError, match="not seekable"):
        Descriptor.of(Pipe())  # type: ignore[arg-type]


# push_manifest


@pytest.mark.parametrize(
    "content",
    [
        FIELDS,
        json.dumps(FIELDS).encode(),
        Manifest(CONFIG, [LAYER]),
        {k: v for k, v in FIELDS.items() if k != "mediaType"},
    ],
)
def test_push_manifest_without_media_type_takes_that_of_the_content(client: Client, content: Any) -> None:
    pushed = client.push_manifest(NAME, content, tags="latest")
    assert pushed.media_type == OCI_MANIFEST
    assert client.fetch_manifest(NAME, "latest").layers == (LAYER,)  # type: ignore[union-attr]


def test_push_manifest_of_a_mapping_is_written_without_spaces(client: Client) -> None:
    pushed = client.push_manifest(NAME, FIELDS)
    assert client.get_manifest(NAME, pushed.digest).read() == json.dumps(FIELDS, separators=(",", ":")).encode()


@pytest.mark.parametrize("content", [b"text", b"{}", {}, {"layers": []}])
def test_push_manifest_of_unknown_type_raises_usage_error(client: Client, content: Any) -> None:
    with pytest.raises(errors.UsageError, match="the media type of the manifest is unknown"):
        client.push_manifest(NAME, content)


def test_push_manifest_of_another_media_type_raises_usage_error(client: Client) -> None:
    with pytest.raises(errors.UsageError, match=re.escape(f"expected '{OCI_MANIFEST}', the mediaType of the manifest")):
        client.push_manifest(NAME, FIELDS, DOCKER_MANIFEST)


@pytest.mark.parametrize("tags", [[], ["one"], ["one", "two"]])
@pytest.mark.parametrize("supports_tag_parameter", [True, False])
def test_push_manifest_digest_of_another_algorithm_is_stored_under_it(
    client: Client, tags: list[str], supports_tag_parameter: bool
) -> None:
    content = json.dumps(FIELDS).encode()
    digest = Descriptor.of(content, algorithm="sha512").digest
    registry, requests = client.transport, []

    class Registry:
        def round_trip(self, request: Request, /) -> Response:
            if not supports_tag_parameter:
                request = request.replace(url=request.url.partition("?")[0])
            requests.append(f"{request.method} {request.url.rpartition('/')[2]}")
            return registry.round_trip(request)

        def close(self) -> None:
            pass

    other = Client(HOST, Registry())
    assert other.push_manifest(NAME, content, digest=digest, tags=tags).digest == digest
    assert other.fetch_manifest(NAME, digest).to_bytes() == content
    for tag in tags:
        assert other.resolve_manifest(NAME, tag).size == len(content)
    puts = [line for line in requests if line.startswith("PUT")]
    assert len(puts) == 1 + (0 if supports_tag_parameter else len(tags))


# References, digests and descriptors


def test_get_manifest_takes_a_tag_a_digest_or_a_descriptor(client: Client) -> None:
    pushed = client.push_manifest(NAME, Manifest(CONFIG, [LAYER]), tags=["latest"])
    for reference in ("latest", pushed.digest, str(pushed.digest), pushed):
        assert client.get_manifest(NAME, reference).descriptor == pushed
        assert client.resolve_manifest(NAME, reference) == pushed
        assert client.fetch_manifest(NAME, reference) == Manifest(CONFIG, [LAYER])
        assert client.has_manifest(NAME, reference)


def test_fetch_manifest_of_an_index_returns_an_index(client: Client) -> None:
    client.push_manifest(NAME, Index(), tags=["list"])
    assert client.fetch_manifest(NAME, "list") == Index()


@pytest.mark.parametrize("body", [b'{"manifests":[{"size":1}]}', b'{"mediaType":"a/b","manifests":[]}'])
def test_fetch_manifest_of_invalid_content_raises_content_error(body: bytes) -> None:
    client = Client(HOST, ScriptedTransport([Response(200, {"Content-Type": OCI_INDEX}, body)]))
    with pytest.raises(errors.ContentError):
        client.fetch_manifest(NAME, "latest")


WRONG_SIZE = LAYER.replace(size=4)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.get_blob(NAME, WRONG_SIZE),
        lambda client: client.get_blob_range(NAME, WRONG_SIZE, 1, 3),
        lambda client: client.resolve_blob(NAME, WRONG_SIZE),
        lambda client: client.has_blob(NAME, WRONG_SIZE),
        lambda client: client.mount_blob(NAME, "b", WRONG_SIZE),
    ],
)
def test_descriptor_of_another_size_raises_size_mismatch(client: Client, call: Any) -> None:
    with pytest.raises(errors.SizeMismatch, match="has 5 bytes: expected 4") as caught:
        call(client)
    assert (caught.value.expected, caught.value.actual) == (4, 5)


@pytest.mark.parametrize("method", ["get_manifest", "resolve_manifest", "fetch_manifest", "has_manifest", "tag"])
def test_descriptor_of_a_manifest_of_another_size_raises_size_mismatch(client: Client, method: str) -> None:
    pushed = client.push_manifest(NAME, FIELDS)
    arguments = ["new"] if method == "tag" else []
    with pytest.raises(errors.SizeMismatch):
        getattr(client, method)(NAME, pushed.replace(size=7), *arguments)
    assert not client.has_manifest(NAME, "new")


def test_descriptor_is_taken_wherever_a_digest_is(client: Client) -> None:
    assert client.get_blob(NAME, LAYER).read() == b"layer"
    assert client.get_blob_range(NAME, LAYER, 1, 3).read() == b"ay"
    assert client.resolve_blob(NAME, LAYER).size == 5
    assert client.mount_blob(NAME, "b", LAYER).size == 5
    pushed = client.push_manifest(NAME, FIELDS)
    assert list(client.referrers(NAME, pushed)) == []
    client.delete_manifest(NAME, pushed)
    client.delete_blob(NAME, LAYER)
    assert not client.has_blob(NAME, LAYER)
    assert not client.has_manifest(NAME, pushed)


@pytest.mark.parametrize("status", [401, 500])
def test_has_blob_refused_raises(status: int) -> None:
    client = Client(HOST, ScriptedTransport([Response(status), Response(status)]))
    with pytest.raises(errors.RegistryError):
        client.has_blob(NAME, LAYER)


# tag, ping


def test_tag_adds_and_moves_tags(client: Client) -> None:
    first = client.push_manifest(NAME, FIELDS, tags=["v1", "latest"])
    second = client.push_manifest(NAME, Index(), tags=["v2"])
    assert client.tag(NAME, "v2", "latest", "stable", "latest") == second
    assert client.tag(NAME, first.digest, "old") == client.tag(NAME, first, "older") == first
    assert sorted(client.tags(NAME)) == ["latest", "old", "older", "stable", "v1", "v2"]
    assert client.resolve_tag(NAME, "latest") == client.resolve_tag(NAME, "stable") == second


@pytest.mark.parametrize("tags", [(), ("a b",), (None,), ("ok", "")])
def test_tag_invalid_tags_raise_usage_error(client: Client, tags: Any) -> None:
    client.push_manifest(NAME, FIELDS, tags=["v1"])
    with pytest.raises(errors.UsageError):
        client.tag(NAME, "v1", *tags)
    assert list(client.tags(NAME)) == ["v1"]


def test_ping_returns_or_raises() -> None:
    Client(HOST, MemoryRegistry()).ping()
    with pytest.raises(errors.NotFound):
        Client(HOST, ScriptedTransport([Response(404)])).ping()


# Names of other clients


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("list_tags", r"use client\.tags\("),
        ("get", r"use client\.do\(Request"),
        ("login", "use Client"),
        ("pull", "fetch"),
        ("pull_blob", r"use client\.get_blob\("),
        ("catalog", "repositories"),
    ],
)
def test_client_names_of_other_clients_name_the_right_one(client: Client, name: str, hint: str) -> None:
    with pytest.raises(AttributeError, match=hint):
        getattr(client, name)
    assert not hasattr(client, "something_else")


# Fakes in tests


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (Response(200), r"answers must be an iterable, got Response: pass \[Response\(200\)\]"),
        (ValueError(), "answers must be an iterable, got ValueError"),
        (200, "answers must be an iterable, got int"),
        ([Response(200), 404], "invalid script entry 2: expected a Response, .* got int"),
        ([(200, {}, b"")], "got tuple"),
        ({"/v2/": Response(200)}, "got str"),
        ([ConnectionError], "got the class ConnectionError"),
    ],
)
def test_scripted_transport_other_answers_raise_usage_error(answers: Any, message: str) -> None:
    with pytest.raises(errors.UsageError, match=message):
        ScriptedTransport(answers)


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda: MemoryRegistry(users={"me": SECRET}), r"unknown option users: use AuthGuard\(registry, users="),  # type: ignore[call-arg]
        (lambda: MemoryRegistry().seed("a:v1", platform="linux/arm64"), "use platforms="),  # type: ignore[call-arg]
        (lambda: MemoryRegistry().seed("a", tags=["v1"]), r"use seed\('NAME:TAG'\)"),  # type: ignore[call-arg]
    ],
)
def test_memory_registry_option_of_another_name_names_the_right_one(call: Callable[[], object], hint: str) -> None:
    with pytest.raises(errors.UsageError, match=hint):
        call()


@pytest.mark.parametrize("users", [("me", SECRET), [("me", SECRET)], "me"])
def test_auth_guard_users_that_are_no_mapping_raise_usage_error_without_secrets(users: Any) -> None:
    with pytest.raises(errors.UsageError, match="users must be a mapping of user names to passwords, got") as caught:
        AuthGuard(MemoryRegistry(), users=users)
    assert SECRET not in str(caught.value)


async def coroutine_function(*_arguments: Any) -> Any:
    """Never called, because nothing would await it."""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sleep": 0}, "invalid sleep 0: expected a function that takes seconds, .* got int"),
        ({"sleep": coroutine_function}, "invalid sleep .* got a coroutine function"),
        ({"clock": 0}, "invalid clock 0: expected a function that returns seconds since the epoch, .* got int"),
    ],
)
def test_default_transport_other_sleep_or_clock_raises_usage_error(options: Any, message: str) -> None:
    with pytest.raises(errors.UsageError, match=message):
        default_transport(base=MemoryRegistry(), credentials=Anonymous(), **options)


def test_docker_config_of_a_path_names_the_environment() -> None:
    for path in ("config.json", Path("config.json")):
        with pytest.raises(errors.UsageError, match=r"env must be a mapping, got .* 'REGISTRY_AUTH_FILE': path"):
            DockerConfig(path)  # type: ignore[arg-type]


class OtherTransport:
    """Transport that returns a given value."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def round_trip(self, request: Request, /) -> Any:
        return self._value

    def close(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize("value", [None, 200, {"status": 200}])
@pytest.mark.parametrize("layer", [lambda inner: inner, RetryTransport, RedirectTransport, LogTransport])
def test_transport_that_returns_no_response_raises_usage_error(layer: Any, value: Any) -> None:
    client = Client(HOST, layer(OtherTransport(value)))
    with pytest.raises(errors.UsageError, match=f"round_trip must return a Response, got {type(value).__name__}"):
        client.ping()


def test_transport_of_coroutines_raises_usage_error() -> None:
    transport = OtherTransport(None)
    transport.round_trip = coroutine_function  # type: ignore[method-assign]
    for make in (partial(Client, HOST), RetryTransport, stack, partial(AsyncClient, HOST)):
        with pytest.raises(errors.UsageError, match=r"whose round_trip\(request\) is not a coroutine function"):
            make(transport)


def test_progress_that_is_a_coroutine_function_raises_usage_error(client: Client, tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError, match=r"a function that takes a Progress.* got a coroutine function"):
        download(client, NAME, LAYER, tmp_path / "file", progress=coroutine_function)


# AsyncClient


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("list_tags", r"'AsyncClient' object has no attribute 'list_tags'; use client\.tags\("),
        ("download", r"or ociwire\.aio\.download\("),
        ("close", r"use await client\.aclose\(\)"),
        ("login", r"use AsyncClient\(host, credentials="),
    ],
)
def test_async_client_names_of_other_clients_name_the_right_one(name: str, hint: str) -> None:
    client = AsyncClient(HOST, MemoryRegistry())
    with pytest.raises(AttributeError, match=hint):
        getattr(client, name)
    assert not hasattr(client, "something_else")


@pytest.mark.parametrize("name", ["auth", "timeout", "verify", "headers", "retry"])
def test_async_client_option_that_is_assigned_raises(name: str) -> None:
    client = AsyncClient(HOST, MemoryRegistry())
    with pytest.raises(AttributeError, match=rf"cannot set {name} of a client.* passed to AsyncClient\(host"):
        setattr(client, name, 3)
    client.my_attribute = 1  # type: ignore[attr-defined]


# Arguments of other libraries


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda client: client.with_options(retries=3), r"use retry=3, passed to Client\(host"),
        (lambda client: client.with_options(verify=False), "use tls="),
        (lambda client: client.with_options(headers={}), "transport layer that adds headers"),
        (lambda client: client.push_manifest(NAME, FIELDS, tag="v1"), r"use tags=\['v1'\]"),
        (lambda client: client.push_manifest(NAME, FIELDS, "v1"), r"'v1': .*for a tag, use tags=\[\.\.\.\]"),
        (lambda client: client.push_blob(NAME, b"x", media_type="a/b"), r"Descriptor\.of\(content, media_type\)"),
        (lambda client: client.push_blob(NAME, data=b"x"), "use content="),
        (lambda client: client.fetch_manifest(NAME, "v1", platform="linux/arm64"), r"\.select\('linux/arm64'\)"),
        (lambda client: client.tags(NAME, n=1), "use limit="),
        (lambda client: client.tag(NAME, "v1", ["v2"]), r"such as tag\(repository, source, \*tags\)"),
        (lambda client: client.push_manifest(NAME, FIELDS, tags=[["v1"]]), r"invalid tag \['v1'\]"),
        (lambda client: copy(client, "a:v1", "a:v2", timeout=5), r"Client\(host, timeout=\.\.\.\)"),
        (lambda client: copy("a.example/a:v1", "b.example/a:v1", auth=("me", SECRET)), r"Client\(host, credentials="),
        (lambda client: upload("a.example/a", b"x", insecure=True), r"Client\(host, insecure="),
        (lambda client: download("a.example/a", "x", verify=False), r"Client\(host, tls="),
        (lambda client: copy("docker://a.example/a:v1", "b.example/a:v1"), "invalid reference .* without a scheme"),
        (lambda client: Client.from_reference("https://me:hunter2-secret@a.example/a:v1"), "without a scheme"),
        (lambda client: client.do(Request("get", "/v2/")), "invalid method 'get': expected 'GET'"),
    ],
)
def test_argument_of_another_library_names_the_right_one_before_a_request(call: Any, hint: str) -> None:
    with pytest.raises(errors.UsageError, match=hint) as caught:
        call(Client(HOST, ScriptedTransport([])))
    assert SECRET not in str(caught.value)


def test_headers_that_are_changed_in_place_name_with_headers() -> None:
    headers = Request("GET", "https://a.example/v2/", {"A": "1"}).headers
    with pytest.raises(TypeError, match=r"use request\.with_headers\(\{'X-Tenant': \.\.\.\}\)"):
        headers["X-Tenant"] = "blue"  # type: ignore[index]
    with pytest.raises(TypeError, match=r"use request\.with_headers\(\{'A': None\}\)"):
        del headers["A"]  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"use request\.with_headers\("):
        headers.update({})  # type: ignore[attr-defined]
    assert not hasattr(headers, "something_else")


def test_push_manifest_of_a_mapping_with_descriptors_writes_them(client: Client) -> None:
    content = MappingProxyType({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG, "layers": [LAYER]})
    pushed = client.push_manifest(NAME, content)
    assert client.fetch_manifest(NAME, pushed) == Manifest(CONFIG, [LAYER])
    with pytest.raises(errors.UsageError, match="expected JSON values and descriptors, got object"):
        client.push_manifest(NAME, {"config": object()})
