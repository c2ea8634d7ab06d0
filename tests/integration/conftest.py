"""Fixtures that run docker-registry of Debian on loopback, with and without authentication."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import trustme

from tests.integration.token_server import EVERYTHING, TokenServer, User

ATTEMPTS = 400
PAUSE = 0.05
"""Time between attempts to connect to a starting registry, in seconds."""

PASSWORD = "correct horse"
USERS = {
    "me": User(PASSWORD, {"*": EVERYTHING}, identity_token="me again"),
    "reader": User(PASSWORD, {"*": frozenset({"pull"})}),
    "": User("", {"public/*": frozenset({"pull"})}),
}
"""The users of the guarded registries. ``""`` is anonymous. With htpasswd, each named user has all permissions."""
GUARDED = ("token-http", "token-https", "htpasswd-http", "htpasswd-https")
"""The guarded registries: the kind of authentication and the scheme."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests in this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)


@dataclass(frozen=True)
class Guarded:
    """A registry with authentication.

    Attributes:
        host: ``127.0.0.1:PORT``.
        ca: The CA of its certificate. None means plain http.
        tokens: Its token server. None means Basic authentication.
    """

    host: str
    ca: Path | None
    tokens: TokenServer | None

    @property
    def insecure(self) -> bool:
        return self.ca is None


class Certificates:
    """Files of a CA and a server certificate.

    Args:
        folder: The directory of the files.
    """

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.leaf = authority.issue_cert("127.0.0.1")
        self.ca, self.chain, self.key = (folder / name for name in ("ca.pem", "chain.pem", "key.pem"))
        authority.cert_pem.write_to_path(str(self.ca))
        self.chain.write_bytes(b"".join(blob.bytes() for blob in self.leaf.cert_chain_pems))
        self.leaf.private_key_pem.write_to_path(str(self.key))

    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.leaf.configure_cert(context)
        return context


class Registries:
    """Starts registries with different configurations.

    Args:
        binary: The path of docker-registry.
        make_directory: Creates a directory with this prefix.
        processes: Stops the registries when it is closed.
    """

    def __init__(self, binary: str, make_directory: Callable[[str], Path], processes: contextlib.ExitStack) -> None:
        self._binary = binary
        self._make_directory = make_directory
        self._processes = processes

    def start(self, *, certificates: Certificates | None = None, **sections: dict[str, Any]) -> str:
        """Start a registry, wait until it responds, and return its ``127.0.0.1:PORT``.

        Args:
            certificates: The certificates for TLS. None means plain http.
            sections: Sections of the configuration that are added or replaced.
        """
        directory = self._make_directory("registry")
        port = free_port()
        config, log = directory / "config.yml", directory / "log"
        content = {**configuration(directory, port, certificates), **sections}
        config.write_text(json.dumps(content))  # JSON is YAML
        with log.open("wb") as file:
            process = subprocess.Popen(
                [self._binary, "serve", str(config)], stdout=file, stderr=file, stdin=subprocess.DEVNULL
            )
        self._processes.callback(stop, process)
        wait_for_answer(process, port, log, certificates)
        return f"127.0.0.1:{port}"


@pytest.fixture(scope="session")
def registries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registries]:
    """Yield a starter of registries, which run until the end of the session."""
    binary = shutil.which("docker-registry")
    if binary is None:
        reason = "docker-registry is not installed"
        if os.environ.get("OCIWIRE_REQUIRE_REGISTRY") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with contextlib.ExitStack() as processes:
        yield Registries(binary, tmp_path_factory.mktemp, processes)


@pytest.fixture(scope="session")
def registry_host(registries: Registries) -> str:
    """Return ``127.0.0.1:PORT`` of a registry without authentication that all tests share."""
    return registries.start()


@pytest.fixture(scope="session")
def guard(registries: Registries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Guarded]]:
    """Yield a function that returns a registry of `GUARDED`. Each is started on first use and shared by all tests."""
    server_certificates = Certificates(tmp_path_factory.mktemp("tls"))
    token_certificates = Certificates(tmp_path_factory.mktemp("tokens"))
    started: dict[str, Guarded] = {}
    with contextlib.ExitStack() as servers:

        def start(name: str) -> Guarded:
            kind, _, scheme = name.partition("-")
            certificates = server_certificates if scheme == "https" else None
            tokens = None
            if kind == "token":
                tokens = TokenServer(
                    USERS, token_certificates.leaf, None if certificates is None else certificates.server()
                )
                servers.callback(tokens.close)
                auth = token_auth(tokens, token_certificates)
            else:
                auth = htpasswd_auth(tmp_path_factory.mktemp("htpasswd"))
            host = registries.start(certificates=certificates, auth=auth)
            return Guarded(host, None if certificates is None else certificates.ca, tokens)

        def get(name: str) -> Guarded:
            if name not in started:
                started[name] = start(name)
            guarded = started[name]
            if guarded.tokens is not None:
                guarded.tokens.reset()
            return guarded

        yield get


def token_auth(server: TokenServer, certificates: Certificates) -> dict[str, Any]:
    bundle = str(certificates.ca)
    return {
        "token": {
            "realm": server.realm,
            "service": server.service,
            "issuer": server.issuer,
            "rootcertbundle": bundle,
        }
    }


def htpasswd_auth(directory: Path) -> dict[str, Any]:
    path = directory / "htpasswd"
    lines = [
        f"{name}:{bcrypt.hashpw(user.password.encode(), bcrypt.gensalt(4)).decode()}\n"
        for name, user in USERS.items()
        if name
    ]
    path.write_text("".join(lines))
    return {"htpasswd": {"realm": "registry", "path": str(path)}}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def configuration(directory: Path, port: int, certificates: Certificates | None) -> dict[str, Any]:
    tls = {} if certificates is None else {"certificate": str(certificates.chain), "key": str(certificates.key)}
    return {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(directory / "storage")},
            "delete": {"enabled": True},
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
        "http": {"addr": f"127.0.0.1:{port}", **({"tls": tls} if tls else {})},
    }


def wait_for_answer(process: subprocess.Popen[bytes], port: int, log: Path, certificates: Certificates | None) -> None:
    pause = threading.Event()
    context = None if certificates is None else ssl.create_default_context(cafile=certificates.ca)
    for _ in range(ATTEMPTS):
        if is_ready(port, context):
            return
        if process.poll() is not None:
            break
        pause.wait(PAUSE)
    pytest.fail(f"docker-registry does not respond; log: {log.read_text('utf-8', 'replace')[-2000:]}")


def is_ready(port: int, context: ssl.SSLContext | None) -> bool:
    """Return whether the status of ``GET /v2/`` is 200 or 401."""
    try:
        with contextlib.ExitStack() as sockets:
            sock = sockets.enter_context(socket.create_connection(("127.0.0.1", port), timeout=1))
            if context is not None:
                sock = sockets.enter_context(context.wrap_socket(sock, server_hostname="127.0.0.1"))
            sock.sendall(b"GET /v2/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            return sock.recv(12) in (b"HTTP/1.1 200", b"HTTP/1.1 401")
    except OSError:
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
