"""Every remedy that an error message suggests works: each row provokes an error, applies the remedy and succeeds."""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import re
import shutil
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import trustme

from ociwire import (
    Body,
    Client,
    Descriptor,
    FunctionTransport,
    Request,
    Response,
    Transport,
    UrllibTransport,
    default_transport,
    docker_certs_d,
)
from ociwire._oci.scope import Scope
from ociwire.auth import Anonymous, Credential, CredentialSource, DockerConfig, StaticCredentials
from ociwire.errors import OciwireError
from ociwire.testing import AuthGuard, MemoryRegistry, serve
from ociwire.transfer import copy

HOST = "registry.example"
CONTENT = b"content"
ME = Credential(username="me", password="s3cret", source="a vault")
AUTH = base64.b64encode(b"me:s3cret").decode()


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """A remedy that an error message suggests.

    Attributes:
        name: Test id.
        says: Pattern of the message.
        fails: Function that provokes the error.
        applied: Function that does the same with the remedy applied. It gets the message, which may contain the option.
    """

    name: str
    says: str
    fails: Callable[[Path], object]
    applied: Callable[[Path, str], object]


def registry(*, realm: str = "/token", public: bool = False, users: dict[str, str] | None = None) -> Transport:
    """Registry with one blob that requires a token. With `public`, anonymous users may pull."""
    memory = MemoryRegistry()
    with Client(HOST, memory) as client:
        client.push_blob("app", Descriptor.of(CONTENT), CONTENT)
    scopes = {"": Scope.parse("repository:app:pull")} if public else None
    guard = AuthGuard(memory, users={"me": "s3cret"} if users is None else users, scopes=scopes, realm=realm)
    return FunctionTransport(guard.round_trip)


def pull(base: Transport, host: str = HOST, *, insecure: bool = False, **options: Any) -> None:
    """Pull the blob through the default stack."""
    options.setdefault("credentials", StaticCredentials(host, ME))
    transport = default_transport(base=base, retry=False, **options)
    client = Client(host, transport, insecure=insecure)
    assert client.get_blob("app", Descriptor.of(CONTENT).digest).read() == CONTENT


def option(message: str, name: str) -> Any:
    """Return the value of an option that a message suggests."""
    text = message.partition(f"{name}=")[2]
    for end in range(1, len(text) + 1):
        try:
            return ast.literal_eval(text[:end])
        except (SyntaxError, ValueError):
            continue
    raise AssertionError(f"{message!r} does not spell {name}")


def redirecting(target: str) -> Transport:
    """Registry whose token server redirects to another origin, which grants the tokens."""
    inner = registry(realm="/token")

    def answer(request: Request) -> Response:
        path = request.url.partition("://")[2].partition("/")[2]
        if path.startswith("token") and not request.url.startswith(target):
            return Response(307, {"Location": f"{target}/{path}"}, b"", request)
        return inner.round_trip(request)

    return FunctionTransport(answer)


def behind_tls_proxy(status: int) -> Transport:
    """Registry that uses http in its absolute Locations unless X-Forwarded-Proto is https."""
    memory = MemoryRegistry()

    def answer(request: Request) -> Response:
        scheme = request.headers.get("x-forwarded-proto", "http")
        if "/old/" in request.url:
            location = re.sub("^https", scheme, request.url).replace("/old/", "/new/")
            return Response(status, {"Location": location}, b"", request)
        response = memory.round_trip(request)
        location = response.headers.get("location", "")
        return response.replace(headers=response.headers.updated({"Location": f"{scheme}://{HOST}{location}"}))

    return FunctionTransport(answer)


def forwarded(inner: Transport) -> Transport:
    """Proxy that sends X-Forwarded-Proto."""
    return FunctionTransport(lambda request: inner.round_trip(request.with_headers({"X-Forwarded-Proto": "https"})))


def push(base: Transport, repository: str = "app", content: object = CONTENT) -> None:
    transport = default_transport(base=base, retry=False, credentials=Anonymous())
    Client(HOST, transport).push_blob(repository, Descriptor.of(CONTENT), content)


def put_over_redirect(content: object) -> None:
    """Send a PUT that is redirected after its body was read."""

    def answer(request: Request) -> Response:
        if request.body is not None:
            b"".join(request.body.open())
        if "/old" in request.url:
            return Response(307, {"Location": "/new"}, b"", request)
        return Response(201, (), b"", request)

    transport = default_transport(base=FunctionTransport(answer), retry=False, credentials=Anonymous())
    response = transport.round_trip(Request("PUT", f"https://{HOST}/old", (), content))  # type: ignore[arg-type]
    assert response.status == 201


def docker_login(folder: Path, content: object) -> CredentialSource:
    """Write a configuration file, and put its credential helpers on PATH."""
    (folder / "config.json").write_text(json.dumps(content))
    return DockerConfig.load(env={"DOCKER_CONFIG": str(folder), "PATH": str(folder)})


def helped(folder: Path, script: str = "") -> Credential | None:
    """Look the host up with its own helper, which is installed if a script is given."""
    if script:
        path = folder / "docker-credential-vault"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return docker_login(folder, {"credHelpers": {HOST: "vault"}}).lookup(HOST)


def ask_helper(folder: Path, message: str) -> None:
    """Run the command that a message suggests."""
    command = re.search(r"echo \S+ \| docker-credential-vault get", message)
    assert command is not None
    ran = subprocess.run(["/bin/sh", "-c", command[0]], env={"PATH": f"{folder}"}, capture_output=True, check=False)
    assert ran.stderr == b"the vault is sealed\n"


def over_wire(folder: Path, *, tls: bool, **options: Any) -> None:
    """Pull from a server on loopback. `certs_d` installs its CA in the folder that the message names."""
    insecure, installs = options.pop("insecure", False), options.pop("certs_d", None)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with serve(registry(realm="/token"), tls=context if tls else None) as url:
        if options.get("tls") == "ca.pem":
            options["tls"] = str(folder / "ca.pem")
        if installs is not None:
            where = folder / re.sub("^/etc/docker/", "", installs.format(host=url.host))
            where.parent.mkdir(parents=True)
            shutil.copy(folder / "ca.pem", where)
            options["tls"] = docker_certs_d(where.parent.parent)
        base = UrllibTransport(trust_env=False, **options)
        try:
            pull(base, url.host, insecure=insecure)
        finally:
            base.close()


def over_wire_with(headers: dict[str, str]) -> None:
    with (
        serve(MemoryRegistry()) as url,
        contextlib.closing(UrllibTransport(trust_env=False)) as transport,
        transport.round_trip(Request("GET", f"{url}/v2/", headers)) as response,
    ):
        response.read()


def certs_d(folder: Path, name: str) -> None:
    """Read a host's folder that contains one CA file with the given name."""
    host = folder / name / HOST
    host.mkdir(parents=True)
    trustme.CA().cert_pem.write_to_path(str(host / name))
    assert docker_certs_d(host.parent)(HOST) is not None


def through_proxy(userinfo: str) -> None:
    """Send CONNECT to a proxy that requires credentials, and then a request that it does not forward."""

    def answer(request: Request) -> Response:
        return Response(407 if "proxy-authorization" not in request.headers else 200, (), b"", request)

    with serve(FunctionTransport(answer)) as url:
        transport = UrllibTransport(proxy=f"http://{userinfo}{url.host}", trust_env=False)
        try:
            response = transport.round_trip(Request("GET", "http://registry.example/v2/"))
            assert response.status == 200
        finally:
            transport.close()


def resumed(digest: object) -> None:
    client = Client(HOST, MemoryRegistry())
    writer = client.push_blob_chunked("app")
    writer.write(CONTENT)
    writer.close()
    again = client.push_blob_chunked_resume("app", writer.id)
    again.commit(digest)  # type: ignore[arg-type]


def copied(source: object) -> None:
    client = Client(HOST, MemoryRegistry())
    manifest = client.push_manifest("app", INDEX, "application/vnd.oci.image.index.v1+json")
    copy(source or client, f"app@{manifest.digest}", Client(HOST, MemoryRegistry()), "app:latest")  # type: ignore[arg-type]


INDEX = b'{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}'

REMEDIES = (
    Remedy(
        name="trusted_realms_allows_an_http_token_server",
        says="to the token server http://auth.example: it goes from https to http",
        fails=lambda _: pull(registry(realm="http://auth.example/token")),
        applied=lambda _, message: pull(
            registry(realm="http://auth.example/token"), trusted_realms=option(message, "trusted_realms")
        ),
    ),
    Remedy(
        name="trusted_realms_allows_an_internal_token_server",
        says="it has an internal address, but the registry has a public one",
        fails=lambda _: pull(registry(realm="https://10.0.0.1:8443/token")),
        applied=lambda _, message: pull(
            registry(realm="https://10.0.0.1:8443/token"), trusted_realms=option(message, "trusted_realms")
        ),
    ),
    Remedy(
        name="trusted_realms_allows_a_token_server_that_redirects",
        says="redirects (307): refusing to send credentials to https://login.example",
        fails=lambda _: pull(redirecting("https://login.example")),
        applied=lambda _, message: pull(
            redirecting("https://login.example"), trusted_realms=option(message, "trusted_realms")
        ),
    ),
    Remedy(
        name="trusted_realms_takes_a_collection_for_each_host",
        says="must map a host to a collection of origins: expected {'registry.example': ['http://auth.example']}",
        fails=lambda _: pull(registry(realm="http://auth.example/token"), trusted_realms={HOST: "http://auth.example"}),
        applied=lambda _, message: pull(
            registry(realm="http://auth.example/token"),
            trusted_realms=ast.literal_eval(message[message.index("{") :]),
        ),
    ),
    Remedy(
        name="anonymous_pulls_what_is_public",
        says="remove them (docker logout, or credentials=Anonymous())",
        fails=lambda _: pull(registry(public=True, users={"me": "changed"})),
        applied=lambda _, __: pull(registry(public=True, users={"me": "changed"}), credentials=Anonymous()),
    ),
    Remedy(
        name="docker_logout_pulls_what_is_public",
        says="docker logout",
        fails=lambda folder: pull(
            registry(public=True, users={"me": "changed"}),
            credentials=docker_login(folder, {"auths": {HOST: {"auth": AUTH}}}),
        ),
        applied=lambda folder, _: pull(
            registry(public=True, users={"me": "changed"}), credentials=docker_login(folder, {"auths": {}})
        ),
    ),
    Remedy(
        name="docker_login_pulls_what_is_private",
        says="run docker login, or pass credentials=",
        fails=lambda folder: pull(registry(), credentials=docker_login(folder, {})),
        applied=lambda folder, _: pull(registry(), credentials=docker_login(folder, {"auths": {HOST: {"auth": AUTH}}})),
    ),
    Remedy(
        name="credentials_option_pulls_what_is_private",
        says="run docker login, or pass credentials=",
        fails=lambda folder: pull(registry(), credentials=docker_login(folder, {})),
        applied=lambda _, __: pull(registry(), credentials=StaticCredentials(HOST, ME)),
    ),
    Remedy(
        name="static_credentials_replace_a_bare_credential",
        says="StaticCredentials(host, credential)",
        fails=lambda _: pull(registry(), credentials=ME),
        applied=lambda _, __: pull(registry(), credentials=StaticCredentials(HOST, ME)),
    ),
    Remedy(
        name="static_credentials_replace_userinfo_in_a_url",
        says="credentials=StaticCredentials(host, credential)",
        fails=lambda _: Request("GET", f"https://me:s3cret@{HOST}/v2/"),
        applied=lambda _, __: pull(registry(), credentials=StaticCredentials(HOST, ME)),
    ),
    Remedy(
        name="strip_removes_the_newline_of_a_registry_token",
        says="strip() the newline at its end",
        fails=lambda _: Credential(registry_token="token\n"),
        applied=lambda _, __: Credential(registry_token="token\n".strip()),
    ),
    Remedy(
        name="time_zone_makes_expires_at_a_moment",
        says="datetime.now(timezone.utc)",
        fails=lambda _: Credential(expires_at=datetime(2030, 1, 1)),  # type: ignore[arg-type]
        applied=lambda _, __: Credential(expires_at=datetime.now(timezone.utc)),  # type: ignore[arg-type]
    ),
    Remedy(
        name="command_shows_what_a_failing_helper_says",
        says="to see why, run echo registry.example | docker-credential-vault get",
        fails=lambda folder: helped(folder, "echo 'the vault is sealed' >&2; exit 1"),
        applied=ask_helper,
    ),
    Remedy(
        name="installed_helper_answers",
        says="docker-credential-vault is not on PATH",
        fails=helped,
        applied=lambda folder, _: helped(folder, """echo '{"Username": "me", "Secret": "s3cret"}'"""),
    ),
    Remedy(
        name="forwarded_proto_keeps_an_upload_on_https",
        says="configure the proxy to send X-Forwarded-Proto",
        fails=lambda _: push(behind_tls_proxy(307)),
        applied=lambda _, __: push(forwarded(behind_tls_proxy(307))),
    ),
    Remedy(
        name="forwarded_proto_keeps_a_redirect_on_https",
        says="configure the proxy to send X-Forwarded-Proto",
        fails=lambda _: push(behind_tls_proxy(308), "old/app"),
        applied=lambda _, __: push(forwarded(behind_tls_proxy(308)), "old/app"),
    ),
    Remedy(
        name="relative_urls_keep_an_upload_on_https",
        says="or the registry to send relative URLs",
        fails=lambda _: push(behind_tls_proxy(307)),
        applied=lambda _, __: push(FunctionTransport(MemoryRegistry().round_trip)),
    ),
    Remedy(
        name="bytes_can_be_redirected",
        says="pass bytes or a seekable file",
        fails=lambda _: put_over_redirect(iter([CONTENT])),
        applied=lambda _, __: put_over_redirect(CONTENT),
    ),
    Remedy(
        name="seekable_file_can_be_redirected",
        says="pass bytes or a seekable file",
        fails=lambda _: put_over_redirect(iter([CONTENT])),
        applied=lambda _, __: put_over_redirect(io.BytesIO(CONTENT)),
    ),
    Remedy(
        name="encoded_text_is_a_body",
        says="text.encode()",
        fails=lambda _: push(MemoryRegistry(), content="content"),
        applied=lambda _, __: push(MemoryRegistry(), content=b"content"),
    ),
    Remedy(
        name="binary_mode_makes_a_file_a_body",
        says="open the file in binary mode",
        fails=lambda _: push(MemoryRegistry(), content=io.StringIO("content")),
        applied=lambda _, __: push(MemoryRegistry(), content=io.BytesIO(CONTENT)),
    ),
    Remedy(
        name="bytes_can_be_sent_again",
        says="use bytes or a seekable file",
        fails=lambda _: [list(body.open()) for body in [Body.of(iter([CONTENT]))] * 2],
        applied=lambda _, __: [list(body.open()) for body in [Body.of(CONTENT)] * 2],
    ),
    Remedy(
        name="descriptor_of_describes_content",
        says="Descriptor.of",
        fails=lambda _: Client(HOST, MemoryRegistry()).push_blob("app", CONTENT, CONTENT),  # type: ignore[arg-type]
        applied=lambda _, __: Client(HOST, MemoryRegistry()).push_blob("app", Descriptor.of(CONTENT), CONTENT),
    ),
    Remedy(
        name="upload_replaces_a_mount_that_is_not_supported",
        says="upload the blob instead",
        fails=lambda _: Client(HOST, MemoryRegistry(mounts=False)).mount_blob("a", "b", Descriptor.of(CONTENT).digest),
        applied=lambda _, __: push(MemoryRegistry(mounts=False)),
    ),
    Remedy(
        name="header_of_the_transport_is_left_out",
        says="remove it",
        fails=lambda _: over_wire_with({"Host": HOST}),
        applied=lambda _, __: over_wire_with({}),
    ),
    Remedy(
        name="ca_is_named_crt",
        says="CAs are named *.crt",
        fails=lambda folder: certs_d(folder, "ca.cert"),
        applied=lambda folder, _: certs_d(folder, "ca.crt"),
    ),
    Remedy(
        name="commit_takes_the_digest_of_a_resumed_upload",
        says="pass it to commit(digest)",
        fails=lambda _: resumed(None),
        applied=lambda _, __: resumed(Descriptor.of(CONTENT).digest),
    ),
    Remedy(
        name="client_replaces_a_host_in_transfers",
        says="Client('ghcr.io')",
        fails=lambda _: copied("ghcr.io"),
        applied=lambda _, __: copied(None),
    ),
    Remedy(
        name="insecure_speaks_plain_http",
        says="Client(..., insecure=True)",
        fails=lambda folder: over_wire(folder, tls=False),
        applied=lambda folder, _: over_wire(folder, tls=False, insecure=True),
    ),
    Remedy(
        name="without_insecure_tls_is_spoken",
        says="remove insecure=True",
        fails=lambda folder: over_wire(folder, tls=True, insecure=True),
        applied=lambda folder, _: over_wire(folder, tls=True, certs_d="certs.d/{host}/ca.crt"),
    ),
    Remedy(
        name="certs_d_trusts_a_private_ca",
        says="put a private CA into /etc/docker/certs.d/",
        fails=lambda folder: over_wire(folder, tls=True),
        applied=lambda folder, _: over_wire(folder, tls=True, certs_d="/etc/docker/certs.d/{host}/ca.crt"),
    ),
    Remedy(
        name="percent_encoding_lets_a_proxy_password_have_an_at_sign",
        says="percent-encode special characters",
        fails=lambda _: through_proxy("user:p@ss@/"),
        applied=lambda _, __: through_proxy("user:p%40ss%40%2F@"),
    ),
)


@pytest.mark.parametrize("remedy", REMEDIES, ids=lambda remedy: remedy.name)
def test_remedy_in_error_message_works(remedy: Remedy, tmp_path: Path) -> None:
    with pytest.raises(OciwireError) as caught:
        remedy.fails(tmp_path)
    assert remedy.says in str(caught.value)
    remedy.applied(tmp_path, str(caught.value))
