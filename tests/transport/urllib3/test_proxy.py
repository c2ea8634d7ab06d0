"""Proxies: CONNECT for https, the absolute form for http, and the selection of a proxy."""

from __future__ import annotations

import contextlib
import socket
import ssl
from base64 import b64encode

import pytest

from ociwire import Request
from ociwire.errors import ConnectError, ProtocolError, TransportError, UsageError
from ociwire.transport import UrllibTransport
from tests.transport.urllib3.conftest import Wire
from tests.transport.urllib3.scripted_server import (
    CONTINUE,
    Content,
    Script,
    Server,
    get,
    put,
    read,
    read_until_close,
    reply,
    respond,
    respond_after_body,
    respond_early,
    tunnel_to,
)

tls_kinds = pytest.mark.parametrize("kind", ["tls1.2", "tls1.3"])
one_tls_kind = pytest.mark.parametrize("kind", ["tls1.3"])
plain = pytest.mark.parametrize("kind", ["http"])
proxy_kinds = pytest.mark.parametrize("proxy_kind", ["http", "tls1.2", "tls1.3"])
pytestmark = pytest.mark.usefixtures("names")

BASIC = b"Basic " + b64encode(b"user:p@ss:word")


def url_of(proxy: Server, userinfo: str = "") -> str:
    return proxy.url.replace("://", f"://{userinfo}@") if userinfo else proxy.url


def registry(wire: Wire, *scripts: Script) -> Server:
    return wire.serve(*scripts, host="registry.test")


class TestConnect:
    """An https origin through a proxy."""

    @proxy_kinds
    @tls_kinds
    def test_connect_tunnel_is_reused(self, wire: Wire, proxy_kind: str) -> None:
        server = registry(wire, respond(reply(200, b"first"), reply(201, b"next")))
        proxy = wire.serve(tunnel_to(server), kind=proxy_kind)
        transport = wire.transport(proxy=url_of(proxy, "user:p%40ss:word"))
        assert read(transport.round_trip(get(f"{server.url}/v2/"))) == (200, b"first")
        assert read(transport.round_trip(put(server.url, b"abc"))) == (201, b"next")
        connect = proxy.peer(0)
        assert connect.line().startswith(b"CONNECT registry.test:%d HTTP/1." % server.port)
        assert connect.field("proxy-authorization") == BASIC
        assert [connect.field(name) for name in ("expect", "authorization", "content-length")] == [None] * 3
        assert [server.peer(0).field("proxy-authorization", index) for index in (0, 1)] == [None, None]
        assert server.peer(0).line(0) == b"GET /v2/ HTTP/1.1"
        assert server.peer(0).field("host") == server.netloc.encode()

    @tls_kinds
    def test_connect_name_is_resolved_by_proxy(self, wire: Wire, names: list[str]) -> None:
        server = registry(wire, respond(reply(200)))
        proxy = wire.serve(tunnel_to(server), kind="http")
        read(wire.transport(proxy=proxy.url).round_trip(get(server.url)))
        assert "registry.test" not in names

    @proxy_kinds
    @tls_kinds
    @pytest.mark.parametrize("framing", ["sized", "chunked"])
    def test_proxy_early_401_body_is_not_read(self, wire: Wire, proxy_kind: str, framing: str) -> None:
        server = registry(wire, respond_early(reply(401, b"log in")), respond_after_body(CONTINUE))
        proxy = wire.serve(tunnel_to(server), tunnel_to(server), kind=proxy_kind)
        transport = wire.transport(proxy=proxy.url)
        content = Content(b"one", b"two" * 10_000)
        body = content.body(framing)
        assert read(transport.round_trip(put(server.url, body))) == (401, b"log in")
        assert content.chunks_read == 0
        assert read(transport.round_trip(put(server.url, body))) == (201, b"")
        assert server.peer(1).bodies == [content.data]
        assert [peer.field("expect") for peer in proxy.peers] == [None, None]
        assert [peer.field("expect") for peer in server.peers] == [b"100-continue"] * 2

    @proxy_kinds
    @tls_kinds
    def test_connect_silent_server_body_is_sent_after_wait(self, wire: Wire, proxy_kind: str) -> None:
        server = registry(wire, respond(reply(201, b"first"), reply(201, b"second")))
        proxy = wire.serve(tunnel_to(server), kind=proxy_kind)
        transport = wire.transport(proxy=proxy.url, expect_timeout=0.02)
        for answer in (b"first", b"second"):
            content = Content(b"one", b"two" * 10_000)
            assert read(transport.round_trip(put(server.url, content.body("chunked")))) == (201, answer)

    @one_tls_kind
    @pytest.mark.parametrize(
        "response", [reply(200), reply(200, b"", "X: y", "Via: 1.1 x"), b"HTTP/1.0 200 OK\r\n\r\n"]
    )
    def test_connect_2xx_opens_tunnel(self, wire: Wire, response: bytes) -> None:
        server = registry(wire, respond(reply(200, b"ok")))
        proxy = wire.serve(tunnel_to(server, response), kind="http")
        assert read(wire.transport(proxy=proxy.url).round_trip(get(server.url))) == (200, b"ok")

    @one_tls_kind
    def test_connect_stale_tunnel_is_replaced(self, wire: Wire) -> None:
        server = registry(
            wire,
            lambda peer: (respond(reply(200, b"first"))(peer), peer.read_head(), peer.close()),
            respond(reply(200, b"next")),
        )
        proxy = wire.serve(tunnel_to(server), tunnel_to(server), kind="http")
        transport = wire.transport(proxy=url_of(proxy, "user:p%40ss:word"))
        assert read(transport.round_trip(get(server.url))) == (200, b"first")
        assert read(transport.round_trip(get(server.url))) == (200, b"next")
        assert [peer.field("proxy-authorization") for peer in proxy.peers] == [BASIC, BASIC]

    @one_tls_kind
    @pytest.mark.parametrize("userinfo", ["", "user:wrong-password"])
    def test_connect_407_error_names_remedy(self, wire: Wire, userinfo: str) -> None:
        proxy = wire.serve(respond_early(reply(407, b"who?", "Proxy-Authenticate: Basic realm=x")), kind="http")
        content = Content(b"abc")
        with pytest.raises(ConnectError, match="407") as raised:
            wire.transport(proxy=url_of(proxy, userinfo)).round_trip(
                put("https://registry.test/v2/", content.body("sized"))
            )
        assert "proxy=" in str(raised.value)
        assert "wrong-password" not in str(raised.value)
        assert raised.value.request is not None
        assert content.chunks_read == 0

    @one_tls_kind
    @pytest.mark.parametrize("status", [403, 502, 503])
    def test_connect_refusal_error_has_status(self, wire: Wire, status: int) -> None:
        proxy = wire.serve(respond_early(reply(status, b"no")), kind="http")
        with pytest.raises(ConnectError, match=str(status)):
            wire.transport(proxy=proxy.url).round_trip(get("https://registry.test/v2/"))

    @one_tls_kind
    def test_connect_refusal_text_is_sanitized(self, wire: Wire) -> None:
        proxy = wire.serve(respond_early(b"HTTP/1.1 500 \x1b[2Jevil\x07\r\nContent-Length: 0\r\n\r\n"), kind="http")
        with pytest.raises(ConnectError, match="evil") as raised:
            wire.transport(proxy=proxy.url).round_trip(get("https://registry.test/v2/"))
        assert str(raised.value).isprintable()

    @one_tls_kind
    @pytest.mark.parametrize("data", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nX: y\r\n"])
    def test_connect_closed_by_proxy_raises_connect_error(self, wire: Wire, data: bytes) -> None:
        proxy = wire.serve(lambda peer: (peer.read_head(), peer.send(data), peer.close()), kind="http")
        with pytest.raises((ConnectError, ProtocolError)) as raised:
            wire.transport(proxy=proxy.url).round_trip(get("https://registry.test/v2/"))
        assert raised.value.request is not None

    @one_tls_kind
    @pytest.mark.parametrize(
        "data",
        [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 2x0 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"],
    )
    def test_connect_proxy_not_http_raises_connect_error(self, wire: Wire, data: bytes) -> None:
        proxy = wire.serve(respond_early(data), kind="http")
        with pytest.raises(TransportError) as raised:
            wire.transport(proxy=proxy.url).round_trip(get("https://registry.test/v2/"))
        assert type(raised.value) in (ConnectError, ProtocolError)

    def test_connect_proxy_unreachable_raises_connect_error(self, wire: Wire) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        scheme = "http" if wire.kind == "http" else "https"
        with pytest.raises(ConnectError):
            wire.transport(proxy=f"http://127.0.0.1:{port}").round_trip(get(f"{scheme}://registry.test/"))

    @one_tls_kind
    def test_connect_proxy_certificate_is_verified(self, wire: Wire) -> None:
        server = registry(wire)
        proxy = wire.serve(read_until_close, kind="tls1.2", handshake_fails=True)
        with pytest.raises(ConnectError, match="certificate verify failed"):
            wire.transport(proxy=proxy.url, tls=ssl.create_default_context()).round_trip(get(server.url))


class TestForward:
    """An http origin through a proxy."""

    @plain
    @proxy_kinds
    def test_forward_target_is_absolute(self, wire: Wire, proxy_kind: str) -> None:
        proxy = wire.serve(respond(reply(200, b"first"), reply(200, b"next"), reply(200, b"last")), kind=proxy_kind)
        transport = wire.transport(proxy=url_of(proxy, "user:p%40ss:word"))
        assert read(transport.round_trip(get("http://registry.test:5000/v2/?n=1"))) == (200, b"first")
        assert read(transport.round_trip(get("http://registry.test:5000/v2/"))) == (200, b"next")
        assert read(transport.round_trip(get("http://registry.test:5000"))) == (200, b"last")
        peer = proxy.peer(0)
        assert peer.line(0) == b"GET http://registry.test:5000/v2/?n=1 HTTP/1.1"
        assert peer.line(1) == b"GET http://registry.test:5000/v2/ HTTP/1.1"
        assert peer.line(2) == b"GET http://registry.test:5000/ HTTP/1.1"
        assert [peer.field("host", index) for index in range(3)] == [b"registry.test:5000"] * 3
        assert [peer.field("proxy-authorization", index) for index in range(3)] == [BASIC] * 3

    @plain
    @pytest.mark.parametrize("target", ["/v2/a%2fb", "/?sig=a%2bb%3d", "/a/../b/./c", "/double//slash"])
    def test_forward_target_is_unchanged(self, wire: Wire, target: str) -> None:
        proxy = wire.serve(respond(reply(200)))
        read(wire.transport(proxy=proxy.url).round_trip(get(f"http://registry.test{target}")))
        assert proxy.peer(0).line() == f"GET http://registry.test{target} HTTP/1.1".encode()

    @plain
    @proxy_kinds
    @pytest.mark.parametrize("framing", ["sized", "chunked"])
    def test_proxy_early_401_body_is_not_read(self, wire: Wire, proxy_kind: str, framing: str) -> None:
        proxy = wire.serve(respond_early(reply(401, b"log in")), respond_after_body(CONTINUE), kind=proxy_kind)
        transport = wire.transport(proxy=proxy.url)
        content = Content(b"one", b"two" * 10_000)
        body = content.body(framing)
        assert read(transport.round_trip(put("http://registry.test/v2/", body))) == (401, b"log in")
        assert content.chunks_read == 0
        assert read(transport.round_trip(put("http://registry.test/v2/", body))) == (201, b"")
        assert proxy.peer(1).bodies == [content.data]

    @plain
    def test_forward_407_is_returned(self, wire: Wire) -> None:
        proxy = wire.serve(respond(reply(407, b"who?")))
        response = wire.transport(proxy=proxy.url).round_trip(get("http://registry.test/v2/"))
        assert read(response) == (407, b"who?")


class TestSelection:
    """Selection of the requests that use a proxy."""

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1.2.3", "x.localhost"])
    @plain
    def test_proxy_loopback_is_direct(self, wire: Wire, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
        proxy = wire.serve()
        server = wire.serve(respond(reply(200, b"direct")), respond(reply(200, b"direct")), host=host)
        monkeypatch.setenv("http_proxy", proxy.url)
        for options in ({"proxy": proxy.url}, {"trust_env": True}):
            assert read(wire.transport(**options).round_trip(get(server.url))) == (200, b"direct")

    @pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY"])
    @plain
    def test_proxy_of_environment_is_used_for_http(
        self, wire: Wire, variable: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proxy = wire.serve(respond(reply(200, b"through")))
        monkeypatch.setenv(variable, url_of(proxy, "user:p%40ss:word"))
        transport = wire.transport(trust_env=True)
        assert read(transport.round_trip(get("http://registry.test/"))) == (200, b"through")
        assert proxy.peer(0).field("proxy-authorization") == BASIC

    @one_tls_kind
    def test_proxy_of_environment_is_used_for_https(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        server = registry(wire, respond(reply(200, b"through")))
        proxy = wire.serve(tunnel_to(server), kind="http")
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        assert read(wire.transport(trust_env=True).round_trip(get(server.url))) == (200, b"through")

    @pytest.mark.parametrize("no_proxy", ["registry.test", ".test", "*", "a.example, registry.test:{port}"])
    def test_proxy_no_proxy_is_direct(self, wire: Wire, no_proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
        proxy = wire.serve(kind="http")
        server = registry(wire, respond(reply(200, b"direct")))
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", no_proxy.format(port=server.port))
        assert read(wire.transport(trust_env=True).round_trip(get(server.url))) == (200, b"direct")

    @plain
    def test_proxy_no_proxy_of_another_host_is_used(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        proxy = wire.serve(respond(reply(200, b"through")))
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "other.test,gistry.test")
        transport = wire.transport(trust_env=True)
        assert read(transport.round_trip(get("http://registry.test/"))) == (200, b"through")

    def test_proxy_trust_env_false_is_direct(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        server = registry(wire, respond(reply(200, b"direct")))
        for variable in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(variable, "http://127.0.0.1:1")
        assert read(wire.transport(trust_env=False).round_trip(get(server.url))) == (200, b"direct")

    @plain
    def test_proxy_argument_overrides_environment(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        proxy = wire.serve(respond(reply(200, b"through")))
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        monkeypatch.setenv("no_proxy", "*")
        transport = wire.transport(proxy=proxy.url, trust_env=True)
        assert read(transport.round_trip(get("http://registry.test/"))) == (200, b"through")

    @plain
    @pytest.mark.parametrize("form", ["{netloc}", "http://{netloc}/", "HTTP://{netloc}"])
    def test_proxy_url_forms_are_accepted(self, wire: Wire, form: str) -> None:
        proxy = wire.serve(respond(reply(200, b"through")))
        transport = wire.transport(proxy=form.format(netloc=proxy.netloc))
        assert read(transport.round_trip(get("http://registry.test/"))) == (200, b"through")

    @plain
    @pytest.mark.parametrize(
        ("userinfo", "credentials"),
        [
            ("user:", b"user:"),
            ("user", b"user:"),
            (":word", b":word"),
            ("us%3Aer:p%25", b"us:er:p%"),
            ("a:b@c", b"a:b@c"),
        ],
    )
    def test_proxy_credentials_forms_are_accepted(self, wire: Wire, userinfo: str, credentials: bytes) -> None:
        # RFC 7617, section 2: the credentials always contain a colon.
        proxy = wire.serve(respond(reply(200)))
        read(wire.transport(proxy=url_of(proxy, userinfo)).round_trip(get("http://registry.test/")))
        assert proxy.peer(0).field("proxy-authorization") == b"Basic " + b64encode(credentials)

    @pytest.mark.parametrize(
        "proxy", ["", "http://", "ftp://proxy.test", "socks5://proxy.test:1080", "http://a b", "a:b:c"]
    )
    def test_proxy_invalid_url_raises_usage_error(self, proxy: str) -> None:
        with pytest.raises(UsageError):
            UrllibTransport(proxy=proxy, trust_env=False)

    @plain
    def test_proxy_invalid_url_in_environment_raises_usage_error(
        self, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", "socks5://user:secret@proxy.test")
        transport = wire.transport(trust_env=True)
        with pytest.raises(UsageError) as raised:
            transport.round_trip(get("http://registry.test/"))
        assert "secret" not in str(raised.value)


def test_proxy_unreachable_error_names_proxy() -> None:
    with contextlib.closing(UrllibTransport(proxy="http://me:s3cret@127.0.0.1:1")) as transport:
        for scheme in ("http", "https"):
            with pytest.raises(ConnectError, match=r"through the proxy http://127\.0\.0\.1:1: ") as caught:
                transport.round_trip(Request("GET", f"{scheme}://registry.test/"))
            assert "s3cret" not in str(caught.value)
