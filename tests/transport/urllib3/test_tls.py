"""TLS: trusted CAs, host names, client certificates, and errors."""

from __future__ import annotations

import dataclasses
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from ociwire.errors import ConnectError, ProtocolError, ReadError, TransportError, UsageError
from ociwire.transport import TLSConfig, UrllibTransport, docker_certs_d
from ociwire.transport._urllib3 import tls
from tests.transport.urllib3.conftest import Certificates, Wire
from tests.transport.urllib3.scripted_server import Server, get, read, read_until_close, reply, respond, respond_early


@pytest.fixture(params=["tls1.2", "tls1.3"])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


def causes(error: BaseException | None) -> list[BaseException]:
    """Return an exception and its causes."""
    errors = []
    while error is not None and error not in errors:
        errors.append(error)
        error = error.__cause__ or error.__context__
    return errors


@pytest.fixture
def certs_d(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that creates the folder of a host."""

    def folder(server: Server, name: str = "{netloc}") -> Path:
        path = tmp_path / "certs.d" / name.format(netloc=server.netloc)
        path.mkdir(parents=True)
        return path

    return folder


@pytest.fixture
def mutual_tls(kind: str, certificates: Certificates) -> ssl.SSLContext:
    """Return the context of a server that requires a client certificate."""
    context = certificates.server(kind)
    context.verify_mode = ssl.CERT_REQUIRED
    certificates.ca.configure_trust(context)
    return context


class TestTrust:
    """Types of the argument `tls`."""

    @pytest.mark.parametrize("form", [str, Path])
    def test_tls_path_trusts_ca_bundle(self, wire: Wire, certificates: Certificates, form: Any) -> None:
        server = wire.serve(respond(reply(200, b"ok")))
        assert read(wire.transport(tls=form(certificates.pem)).round_trip(get(server.url))) == (200, b"ok")

    @pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")  # the test disables verification
    def test_tls_context_is_used_unchanged(self, wire: Wire) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        server = wire.serve(respond(reply(200, b"ok")))
        assert read(wire.transport(tls=context).round_trip(get(server.url))) == (200, b"ok")
        assert (context.check_hostname, context.verify_mode) == (False, ssl.CERT_NONE)

    @pytest.mark.usefixtures("names")
    def test_tls_context_without_hostname_check_is_obeyed(self, wire: Wire, certificates: Certificates) -> None:
        context = ssl.create_default_context(cafile=str(certificates.pem))
        context.check_hostname = False
        server = wire.serve(respond(reply(200, b"ok")), host="other.test")
        assert read(wire.transport(tls=context).round_trip(get(server.url))) == (200, b"ok")

    def test_tls_function_is_called_once_per_host(self, wire: Wire, certificates: Certificates) -> None:
        hosts: list[str] = []

        def choose(host: str) -> ssl.SSLContext:
            hosts.append(host)
            return certificates.client

        servers = [wire.serve(respond(reply(200)), respond(reply(200))) for _ in range(2)]
        transport = wire.transport(tls=choose)
        for server in servers:
            for anonymous in (False, True):
                read(transport.round_trip(get(server.url, anonymous=anonymous)))
        assert hosts == [server.netloc for server in servers]

    def test_tls_function_returning_none_trusts_system(
        self, wire: Wire, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.pem))
        server = wire.serve(respond(reply(200, b"ok")))
        assert read(wire.transport(tls=lambda host: None).round_trip(get(server.url))) == (200, b"ok")

    def test_tls_function_exception_propagates(self, wire: Wire) -> None:
        def choose(host: str) -> ssl.SSLContext:
            raise OSError("my vault is locked")

        server = wire.serve()
        with pytest.raises(OSError, match="my vault is locked") as raised:
            wire.transport(tls=choose).round_trip(get(server.url))
        assert type(raised.value) is OSError

    @pytest.mark.parametrize("tls", ["/no/such/file.pem", __file__, 5, b"x"])
    def test_tls_invalid_value_raises_usage_error(self, tls: Any) -> None:
        with pytest.raises(UsageError) as raised:
            UrllibTransport(tls=tls, trust_env=False)
        assert not isinstance(tls, str) or tls in str(raised.value)


class TestTLSConfig:
    """`TLSConfig`: a CA bundle, a client certificate, or both."""

    @pytest.fixture
    def config(self, certificates: Certificates, tmp_path: Path) -> TLSConfig:
        client = certificates.ca.issue_cert("client@example.org")
        client.cert_chain_pems[0].write_to_path(str(tmp_path / "client.pem"))
        client.private_key_pem.write_to_path(str(tmp_path / "client.key"))
        return TLSConfig(certificates.pem, tmp_path / "client.pem", str(tmp_path / "client.key"))

    @pytest.mark.parametrize("separate", [True, False])
    def test_tls_config_sends_the_client_certificate(
        self, wire: Wire, mutual_tls: ssl.SSLContext, config: TLSConfig, tmp_path: Path, separate: bool
    ) -> None:
        if not separate:
            both = (tmp_path / "client.pem").read_bytes() + (tmp_path / "client.key").read_bytes()
            (tmp_path / "client.pem").write_bytes(both)
            config = TLSConfig(config.ca, config.cert)
        server = wire.serve(respond(reply(200, b"ok")), context=mutual_tls)
        assert read(wire.transport(tls=config).round_trip(get(server.url))) == (200, b"ok")

    def test_tls_config_anonymous_request_sends_no_client_certificate(
        self, wire: Wire, certificates: Certificates, config: TLSConfig, kind: str
    ) -> None:
        optional = certificates.server(kind)
        optional.verify_mode = ssl.CERT_OPTIONAL
        certificates.ca.configure_trust(optional)
        shown: list[bool] = []

        def script(peer: Any) -> None:
            peer.read_head()
            shown.append(peer.sock.getpeercert() is not None)
            peer.send(reply(200, b"ok"))

        server = wire.serve(script, script, context=optional)
        transport = wire.transport(tls=config)
        for anonymous in (False, True):
            assert read(transport.round_trip(get(server.url, anonymous=anonymous))) == (200, b"ok")
        assert shown == [True, False]

    def test_tls_config_without_ca_trusts_the_system(
        self, wire: Wire, certificates: Certificates, config: TLSConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.pem))
        server = wire.serve(respond(reply(200, b"ok")))
        transport = wire.transport(tls=TLSConfig(cert=config.cert, key=config.key))
        assert read(transport.round_trip(get(server.url))) == (200, b"ok")

    def test_tls_config_of_another_ca_is_not_trusted(self, wire: Wire, config: TLSConfig, tmp_path: Path) -> None:
        trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
        server = wire.serve(read_until_close, handshake_fails=True)
        with pytest.raises(ConnectError, match="certificate verify failed"):
            wire.transport(tls=TLSConfig(ca=tmp_path / "other.pem")).round_trip(get(server.url))

    @pytest.mark.parametrize("fields", [{"ca": b"x"}, {"cert": 5}, {"key": "client.key"}, {"ca": True}])
    def test_tls_config_invalid_fields_raise_usage_error(self, fields: Any) -> None:
        with pytest.raises(UsageError, match="must be"):
            TLSConfig(**fields)

    @pytest.mark.parametrize("name", ["ca", "cert", "key"])
    @pytest.mark.parametrize("path", ["/no/such/file.pem", __file__, "a\0b"])
    def test_tls_config_unusable_file_raises_usage_error(self, config: TLSConfig, name: str, path: str) -> None:
        with pytest.raises(UsageError, match="cannot use the"):
            UrllibTransport(tls=dataclasses.replace(config, **{name: path}), trust_env=False)  # type: ignore[arg-type]

    def test_tls_config_encrypted_key_raises_usage_error(self, config: TLSConfig, tmp_path: Path) -> None:
        key = serialization.load_pem_private_key((tmp_path / "client.key").read_bytes(), None)
        encryption = serialization.BestAvailableEncryption(b"secret")
        formats = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
        (tmp_path / "client.key").write_bytes(key.private_bytes(*formats, encryption))
        with pytest.raises(UsageError, match=r"pass an ssl\.SSLContext if the key is encrypted"):
            UrllibTransport(tls=config, trust_env=False)


class TestDistrust:
    """A failed handshake is a `ConnectError`."""

    def test_tls_unknown_ca_raises_connect_error(self, wire: Wire) -> None:
        server = wire.serve(read_until_close, handshake_fails=True)
        with pytest.raises(ConnectError, match="certificate verify failed") as raised:
            wire.transport(tls=ssl.create_default_context()).round_trip(get(f"{server.url}/v2/?secret"))
        assert f"/etc/docker/certs.d/{server.netloc}/ca.crt" in str(raised.value)
        assert "secret" not in str(raised.value)
        assert raised.value.request is not None
        assert raised.value.__cause__ is not None
        assert any(isinstance(error, ssl.SSLCertVerificationError) for error in causes(raised.value))

    @pytest.mark.usefixtures("names")
    def test_tls_wrong_name_raises_connect_error(self, wire: Wire) -> None:
        server = wire.serve(read_until_close, host="other.test", handshake_fails=True)
        with pytest.raises(ConnectError, match=r"(?i)other\.test") as raised:
            wire.transport().round_trip(get(server.url))
        assert "ca.crt" not in str(raised.value)  # the CA is trusted: another one would not help

    def test_tls_client_certificate_missing_raises_connect_error(self, wire: Wire, mutual_tls: ssl.SSLContext) -> None:
        server = wire.serve(read_until_close, context=mutual_tls, handshake_fails=True)
        with pytest.raises(TransportError) as raised:
            wire.transport().round_trip(get(server.url))
        assert raised.value.request is not None
        # With TLS 1.3 the alert is received after the handshake, but it is still a failure to connect.
        assert type(raised.value) is ConnectError

    def test_tls_closed_during_handshake_raises_connect_error(self, wire: Wire) -> None:
        server = wire.serve(lambda peer: peer.close(), kind="http")
        with pytest.raises(ConnectError):
            wire.transport().round_trip(get(f"https://{server.netloc}"))

    @pytest.mark.parametrize("data", [reply(400, b"Client sent an HTTP request"), b"HTTP/1.0 400 Bad Request\r\n\r\n"])
    def test_tls_to_plain_server_raises_connect_error(self, wire: Wire, data: bytes) -> None:
        def script(peer: Any) -> None:
            peer.sock.recv(1)
            peer.send(data)

        server = wire.serve(script, kind="http")
        with pytest.raises(ConnectError, match="insecure=True") as raised:
            wire.transport().round_trip(get(f"https://{server.netloc}"))
        assert any(isinstance(error, ssl.SSLError) for error in causes(raised.value))

    def test_plain_http_to_tls_server_error_names_remedy(self, wire: Wire) -> None:
        server = wire.serve(read_until_close, handshake_fails=True)
        with pytest.raises((ProtocolError, ReadError), match="remove insecure=True"):
            wire.transport().round_trip(get(server.url.replace("https", "http")))

    def test_tls_old_version_raises_connect_error(self, wire: Wire, certificates: Certificates, kind: str) -> None:
        context = ssl.create_default_context(cafile=str(certificates.pem))
        other = ssl.TLSVersion.TLSv1_2 if kind == "tls1.3" else ssl.TLSVersion.TLSv1_3
        context.minimum_version = context.maximum_version = other
        server = wire.serve(read_until_close, handshake_fails=True)
        with pytest.raises(ConnectError):
            wire.transport(tls=context).round_trip(get(server.url))


def make_unreadable(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Make a folder unreadable, also for root, by patching the function that lists it."""
    list_folder = os.listdir

    def refuse(name: Path) -> list[str]:
        if path == name or path in name.parents:
            raise PermissionError(13, "Permission denied", str(name))
        return list_folder(name)

    monkeypatch.setattr(os, "listdir", refuse)


def standard_roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Return the default folders of `docker_certs_d`, with those of the system below `tmp_path`."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    roots = [folder.replace("/etc/", f"{tmp_path}/etc/") for folder in tls._STANDARD_ROOTS]
    monkeypatch.setattr(tls, "_STANDARD_ROOTS", roots)
    return [Path(root.replace("~", str(tmp_path / "home"))) for root in roots]


class TestDockerCertsD:
    """`docker_certs_d`: one folder per host."""

    def test_certs_d_private_ca_is_trusted(
        self, wire: Wire, certificates: Certificates, certs_d: Callable[..., Path]
    ) -> None:
        server = wire.serve(respond(reply(200, b"ok")))
        folder = certs_d(server)
        certificates.ca.cert_pem.write_to_path(str(folder / "ca.crt"))
        (folder / "README").write_text("not a certificate")
        transport = wire.transport(tls=docker_certs_d(folder.parent))
        assert read(transport.round_trip(get(server.url))) == (200, b"ok")

    def test_certs_d_one_of_several_cas_is_trusted(
        self, wire: Wire, certificates: Certificates, certs_d: Callable[..., Path]
    ) -> None:
        server = wire.serve(respond(reply(200, b"ok")))
        folder = certs_d(server)
        trustme.CA().cert_pem.write_to_path(str(folder / "a.crt"))
        certificates.ca.cert_pem.write_to_path(str(folder / "b.crt"))
        transport = wire.transport(tls=docker_certs_d(str(folder.parent)))
        assert read(transport.round_trip(get(server.url))) == (200, b"ok")

    @pytest.mark.parametrize("name", ["127.0.0.1", "127.0.0.1:1", "localhost"])
    def test_certs_d_ca_of_another_host_is_not_trusted(
        self, wire: Wire, certificates: Certificates, certs_d: Callable[..., Path], name: str
    ) -> None:
        server = wire.serve(read_until_close, handshake_fails=True)
        folder = certs_d(server, name)
        certificates.ca.cert_pem.write_to_path(str(folder / "ca.crt"))
        with pytest.raises(ConnectError, match="certificate verify failed"):
            wire.transport(tls=docker_certs_d(folder.parent)).round_trip(get(server.url))

    def test_certs_d_system_cas_are_trusted(
        self, wire: Wire, certificates: Certificates, certs_d: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.pem))
        server = wire.serve(respond(reply(200, b"ok")))
        folder = certs_d(server)
        trustme.CA().cert_pem.write_to_path(str(folder / "ca.crt"))
        transport = wire.transport(tls=docker_certs_d(folder.parent))
        assert read(transport.round_trip(get(server.url))) == (200, b"ok")

    def test_certs_d_client_certificate_is_sent(
        self, wire: Wire, certificates: Certificates, certs_d: Callable[..., Path], mutual_tls: ssl.SSLContext
    ) -> None:
        server = wire.serve(respond(reply(200, b"ok"), reply(200, b"next")), context=mutual_tls)
        folder = certs_d(server)
        certificates.ca.cert_pem.write_to_path(str(folder / "ca.crt"))
        client = certificates.ca.issue_cert("client@example.org")
        client.cert_chain_pems[0].write_to_path(str(folder / "client.cert"))
        client.private_key_pem.write_to_path(str(folder / "client.key"))
        transport = wire.transport(tls=docker_certs_d(folder.parent))
        assert read(transport.round_trip(get(server.url))) == (200, b"ok")
        assert read(transport.round_trip(get(server.url))) == (200, b"next")

    @pytest.mark.parametrize("first", ["authenticated", "anonymous"])
    def test_certs_d_anonymous_request_sends_no_client_certificate(
        self, wire: Wire, certificates: Certificates, certs_d: Callable[..., Path], kind: str, first: str
    ) -> None:
        optional = certificates.server(kind)
        optional.verify_mode = ssl.CERT_OPTIONAL
        certificates.ca.configure_trust(optional)
        certificate_received: list[bool] = []

        def script(peer: Any) -> None:
            peer.read_head()
            certificate_received.append(peer.sock.getpeercert() is not None)
            peer.send(reply(200, b"ok"))

        server = wire.serve(script, script, context=optional)
        folder = certs_d(server)
        certificates.ca.cert_pem.write_to_path(str(folder / "ca.crt"))
        client = certificates.ca.issue_cert("client@example.org")
        client.cert_chain_pems[0].write_to_path(str(folder / "client.cert"))
        client.private_key_pem.write_to_path(str(folder / "client.key"))
        transport = wire.transport(tls=docker_certs_d(folder.parent))
        for anonymous in (first == "anonymous", first != "anonymous"):  # each needs its own connection
            assert read(transport.round_trip(get(server.url, anonymous=anonymous))) == (200, b"ok")
        assert certificate_received == [first != "anonymous", first == "anonymous"]

    @pytest.mark.parametrize("missing_name", ["client.cert", "client.key"])
    def test_certs_d_incomplete_pair_raises_usage_error(
        self, wire: Wire, certificates: Certificates, certs_d: Callable[..., Path], missing_name: str
    ) -> None:
        server = wire.serve()
        folder = certs_d(server)
        client = certificates.ca.issue_cert("client@example.org")
        client.cert_chain_pems[0].write_to_path(str(folder / "client.cert"))
        client.private_key_pem.write_to_path(str(folder / "client.key"))
        (folder / missing_name).unlink()
        with pytest.raises(UsageError, match=missing_name.replace(".", r"\.")):
            wire.transport(tls=docker_certs_d(folder.parent)).round_trip(get(server.url))

    @pytest.mark.parametrize("name", ["ca.crt", "client.cert"])
    def test_certs_d_invalid_file_raises_usage_error(
        self, wire: Wire, certificates: Certificates, certs_d: Callable[..., Path], name: str
    ) -> None:
        server = wire.serve()
        folder = certs_d(server)
        (folder / name).write_text("no certificate")
        (folder / "client.cert").touch()
        certificates.ca.issue_cert("client@example.org").private_key_pem.write_to_path(str(folder / "client.key"))
        with pytest.raises(UsageError, match=name.replace(".", r"\.")):
            wire.transport(tls=docker_certs_d(folder.parent)).round_trip(get(server.url))

    @pytest.mark.parametrize("folder", ["certs.d", "certs.d/{host}"])
    def test_certs_d_unreadable_folder_is_skipped_and_logged(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        folder: str,
    ) -> None:
        caplog.set_level("INFO", "ociwire.tls")
        (tmp_path / "certs.d" / "registry.test").mkdir(parents=True)
        make_unreadable(monkeypatch, tmp_path / folder.format(host="registry.test"))
        assert docker_certs_d(tmp_path / "certs.d")("registry.test") is None
        assert str(tmp_path / "certs.d" / "registry.test") in caplog.text

    @pytest.mark.parametrize("name", ["ca.crt", "client.cert", "client.key"])
    def test_certs_d_fifo_raises_usage_error(self, tmp_path: Path, certificates: Certificates, name: str) -> None:
        folder = tmp_path / "registry.test"
        folder.mkdir()
        client = certificates.ca.issue_cert("client@example.org")
        client.cert_chain_pems[0].write_to_path(str(folder / "client.cert"))
        client.private_key_pem.write_to_path(str(folder / "client.key"))
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
        with pytest.raises(UsageError, match=f"{name}: expected a regular file"):
            docker_certs_d(tmp_path)("registry.test")

    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_certs_d_default_folders_are_those_of_podman_and_docker(
        self,
        wire: Wire,
        certificates: Certificates,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        number: int,
    ) -> None:
        roots = standard_roots(monkeypatch, tmp_path)
        server = wire.serve(respond(reply(200, b"ok")))
        for root in roots:
            (root / server.netloc).mkdir(parents=True)
            trustme.CA().cert_pem.write_to_path(str(root / server.netloc / "other.crt"))
        certificates.ca.cert_pem.write_to_path(str(roots[number] / server.netloc / "ca.crt"))
        transport = wire.transport(tls=docker_certs_d())
        assert read(transport.round_trip(get(server.url))) == (200, b"ok")

    def test_certs_d_client_certificate_of_first_folder_is_used(
        self,
        wire: Wire,
        certificates: Certificates,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        mutual_tls: ssl.SSLContext,
    ) -> None:
        roots = standard_roots(monkeypatch, tmp_path)
        server = wire.serve(respond(reply(200, b"ok")), context=mutual_tls)
        for root, authority in ((roots[0], certificates.ca), (roots[2], trustme.CA())):
            folder = root / server.netloc
            folder.mkdir(parents=True)
            authority.cert_pem.write_to_path(str(folder / "ca.crt"))
            client = authority.issue_cert("client@example.org")
            client.cert_chain_pems[0].write_to_path(str(folder / "client.cert"))
            client.private_key_pem.write_to_path(str(folder / "client.key"))
        transport = wire.transport(tls=docker_certs_d())
        assert read(transport.round_trip(get(server.url))) == (200, b"ok")

    def test_certs_d_folder_with_default_port_is_read(self, tmp_path: Path, certificates: Certificates) -> None:
        (tmp_path / "registry.test:443").mkdir()
        certificates.ca.cert_pem.write_to_path(str(tmp_path / "registry.test:443" / "ca.crt"))
        assert docker_certs_d(tmp_path)("registry.test") is not None
        assert docker_certs_d(tmp_path)("registry.test:80") is None

    @pytest.mark.parametrize("root", ["no/such/folder", "empty"])
    def test_certs_d_no_folder_returns_none(self, tmp_path: Path, root: str) -> None:
        (tmp_path / "empty" / "registry.test").mkdir(parents=True)
        assert docker_certs_d(tmp_path / root)("registry.test") is None


def test_tls_connection_is_reused_after_early_response(wire: Wire) -> None:
    # The session tickets of TLS 1.3 are received first: they make the socket readable, but are not a response.
    server = wire.serve(respond(*[reply(200, b"%d" % n) for n in range(3)]), respond_early(reply(200)))
    transport = wire.transport()
    assert [read(transport.round_trip(get(server.url)))[1] for _ in range(3)] == [b"0", b"1", b"2"]
    server.peer(0).sock.shutdown(socket.SHUT_RDWR)
    server.ended(0)
    assert read(transport.round_trip(get(server.url))) == (200, b"")
