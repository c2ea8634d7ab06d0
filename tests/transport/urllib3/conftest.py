"""Fixtures of the socket tests: scripted servers over http and TLS, and transports that must close all connections."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from ociwire.transport import UrllibTransport
from tests.transport.urllib3.scripted_server import PATIENCE, Script, Server

KINDS = ("http", "tls1.2", "tls1.3")
_VERSIONS = {"tls1.2": ssl.TLSVersion.TLSv1_2, "tls1.3": ssl.TLSVersion.TLSv1_3}


class Certificates:
    """A CA and the certificates that it issued.

    Args:
        folder: The folder to write the CA's certificate to.
    """

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.pem = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(str(self.pem))
        self._leaf = self.ca.issue_cert("127.0.0.1", "localhost", "registry.test", "proxy.test")
        self._servers = {kind: self.server(kind) for kind in _VERSIONS}
        self.client = ssl.create_default_context(cafile=str(self.pem))

    def server(self, kind: str, leaf: trustme.LeafCert | None = None) -> ssl.SSLContext:
        """Return a new context for a server. With TLS 1.3 the server sends session tickets."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = context.maximum_version = _VERSIONS[kind]
        (leaf or self._leaf).configure_cert(context)
        return context

    def shared(self, kind: str) -> ssl.SSLContext | None:
        """Return the shared context for servers. None for plain http."""
        return self._servers.get(kind)


class Wire:
    """Servers and transports of one kind, which are closed after the test.

    Args:
        kind: One of `KINDS`.
        certificates: The certificates for TLS.
    """

    def __init__(self, kind: str, certificates: Certificates) -> None:
        self.kind = kind
        self.certificates = certificates
        self._servers: list[Server] = []
        self._transports: list[UrllibTransport] = []

    def serve(self, *scripts: Script, kind: str | None = None, **options: Any) -> Server:
        """Start a server of this kind, or of `kind`."""
        options.setdefault("context", self.certificates.shared(kind or self.kind))
        server = Server(*scripts, **options)
        self._servers.append(server)
        return server

    def transport(self, **options: Any) -> UrllibTransport:
        """Return a transport that trusts the CA, and waits for 100 (Continue) for longer than a server waits."""
        options = {
            "timeout": PATIENCE,
            "expect_timeout": 60.0,
            "tls": self.certificates.client,
            "trust_env": False,
            **options,
        }
        transport = UrllibTransport(**options)
        self._transports.append(transport)
        return transport

    def close(self) -> None:
        """Close everything. The test fails if a server has open connections afterwards."""
        for transport in self._transports:
            transport.close()
        with contextlib.ExitStack() as stack:
            for server in self._servers:
                stack.callback(server.close)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("ca"))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Return each of `KINDS`. A test for fewer kinds parametrizes `kind`."""
    kind: str = request.param
    return kind


@pytest.fixture
def wire(kind: str, certificates: Certificates) -> Iterator[Wire]:
    wire = Wire(kind, certificates)
    yield wire
    wire.close()


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Resolve all names to loopback, and return the list of resolved names."""
    resolved: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: str, *args: Any, **options: Any) -> Any:
        resolved.append(host)
        return real("127.0.0.1", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return resolved
