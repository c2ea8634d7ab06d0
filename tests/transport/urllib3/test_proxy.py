"""Proxies: CONNECT for https, the absolute form for http, and who goes through one at all."""

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
from tests.transport.urllib3.scripts import (
    CONTINUE,
    Content,
    Script,
    Server,
    answers,
    answers_early,
    get,
    put,
    read,
    reads,
    reply,
    takes,
    tunnels_to,
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
    def test_the_tunnel_is_kept(self, wire: Wire, proxy_kind: str) -> None:
        server = registry(wire, answers(reply(200, b"first"), reply(201, b"next")))
        proxy = wire.serve(tunnels_to(server), kind=proxy_kind)
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
    def test_the_name_is_the_proxys_to_resolve(self, wire: Wire, names: list[str]) -> None:
        server = registry(wire, answers(reply(200)))
        proxy = wire.serve(tunnels_to(server), kind="http")
        read(wire.transport(proxy=proxy.url).round_trip(get(server.url)))
        assert "registry.test" not in names

    @proxy_kinds
    @tls_kinds
    @pytest.mark.parametrize("framing", ["sized", "chunked"])
    def test_a_401_before_the_body_costs_nothing_of_it(self, wire: Wire, proxy_kind: str, framing: str) -> None:
        server = registry(wire, answers_early(reply(401, b"log in")), takes(CONTINUE))
        proxy = wire.serve(tunnels_to(server), tunnels_to(server), kind=proxy_kind)
        transport = wire.transport(proxy=proxy.url)
        given = Content(b"one", b"two" * 10_000)
        body = given.body(framing)
        assert read(transport.round_trip(put(server.url, body))) == (401, b"log in")
        assert given.pulled == 0
        assert read(transport.round_trip(put(server.url, body))) == (201, b"")
        assert server.peer(1).bodies == [given.whole]
        assert [peer.field("expect") for peer in proxy.peers] == [None, None]
        assert [peer.field("expect") for peer in server.peers] == [b"100-continue"] * 2

    @proxy_kinds
    @tls_kinds
    def test_the_wait_runs_out(self, wire: Wire, proxy_kind: str) -> None:
        server = registry(wire, answers(reply(201, b"first"), reply(201, b"second")))
        proxy = wire.serve(tunnels_to(server), kind=proxy_kind)
        transport = wire.transport(proxy=proxy.url, expect_timeout=0.02)
        for answer in (b"first", b"second"):
            given = Content(b"one", b"two" * 10_000)
            assert read(transport.round_trip(put(server.url, given.body("chunked")))) == (201, answer)

    @one_tls_kind
    @pytest.mark.parametrize(
        "response", [reply(200), reply(200, b"", "X: y", "Via: 1.1 x"), b"HTTP/1.0 200 OK\r\n\r\n"]
    )
    def test_answers_that_are_good(self, wire: Wire, response: bytes) -> None:
        server = registry(wire, answers(reply(200, b"ok")))
        proxy = wire.serve(tunnels_to(server, response), kind="http")
        assert read(wire.transport(proxy=proxy.url).round_trip(get(server.url))) == (200, b"ok")

    @one_tls_kind
    def test_a_dead_tunnel_is_dug_anew(self, wire: Wire) -> None:
        server = registry(
            wire,
            lambda peer: (answers(reply(200, b"first"))(peer), peer.read_head(), peer.close()),
            answers(reply(200, b"next")),
        )
        proxy = wire.serve(tunnels_to(server), tunnels_to(server), kind="http")
        transport = wire.transport(proxy=url_of(proxy, "user:p%40ss:word"))
        assert read(transport.round_trip(get(server.url))) == (200, b"first")
        assert read(transport.round_trip(get(server.url))) == (200, b"next")
        assert [peer.field("proxy-authorization") for peer in proxy.peers] == [BASIC, BASIC]

    @one_tls_kind
    @pytest.mark.parametrize("userinfo", ["", "user:wrong-password"])
    def test_407_says_what_is_wanted(self, wire: Wire, userinfo: str) -> None:
        proxy = wire.serve(answers_early(reply(407, b"who?", "Proxy-Authenticate: Basic realm=x")), kind="http")
        given = Content(b"abc")
        with pytest.raises(ConnectError, match="407") as raised:
            wire.transport(proxy=url_of(proxy, userinfo)).round_trip(
                put("https://registry.test/v2/", given.body("sized"))
            )
        assert "proxy=" in str(raised.value)
        assert "wrong-password" not in str(raised.value)
        assert raised.value.request is not None
        assert given.pulled == 0

    @one_tls_kind
    @pytest.mark.parametrize("status", [403, 502, 503])
    def test_other_refusals_keep_their_number(self, wire: Wire, status: int) -> None:
        proxy = wire.serve(answers_early(reply(status, b"no")), kind="http")
        with pytest.raises(ConnectError, match=str(status)):
            wire.transport(proxy=proxy.url).round_trip(get("https://registry.test/v2/"))

    @one_tls_kind
    def test_what_a_refusal_says_is_harmless(self, wire: Wire) -> None:
        proxy = wire.serve(answers_early(b"HTTP/1.1 500 \x1b[2Jevil\x07\r\nContent-Length: 0\r\n\r\n"), kind="http")
        with pytest.raises(ConnectError, match="evil") as raised:
            wire.transport(proxy=proxy.url).round_trip(get("https://registry.test/v2/"))
        assert str(raised.value).isprintable()

    @one_tls_kind
    @pytest.mark.parametrize("said", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nX: y\r\n"])
    def test_a_proxy_that_hangs_up(self, wire: Wire, said: bytes) -> None:
        proxy = wire.serve(lambda peer: (peer.read_head(), peer.send(said), peer.close()), kind="http")
        with pytest.raises((ConnectError, ProtocolError)) as raised:
            wire.transport(proxy=proxy.url).round_trip(get("https://registry.test/v2/"))
        assert raised.value.request is not None

    @one_tls_kind
    @pytest.mark.parametrize(
        "said",
        [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 2x0 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"],
    )
    def test_a_proxy_that_is_none(self, wire: Wire, said: bytes) -> None:
        proxy = wire.serve(answers_early(said), kind="http")
        with pytest.raises(TransportError) as raised:
            wire.transport(proxy=proxy.url).round_trip(get("https://registry.test/v2/"))
        assert type(raised.value) in (ConnectError, ProtocolError)

    def test_a_proxy_that_is_not_there(self, wire: Wire) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        scheme = "http" if wire.kind == "http" else "https"
        with pytest.raises(ConnectError):
            wire.transport(proxy=f"http://127.0.0.1:{port}").round_trip(get(f"{scheme}://registry.test/"))

    @one_tls_kind
    def test_a_proxys_certificate_counts(self, wire: Wire) -> None:
        server = registry(wire)
        proxy = wire.serve(reads, kind="tls1.2", handshake_fails=True)
        with pytest.raises(ConnectError, match="certificate verify failed"):
            wire.transport(proxy=proxy.url, tls=ssl.create_default_context()).round_trip(get(server.url))


class TestForward:
    """An http origin through a proxy."""

    @plain
    @proxy_kinds
    def test_the_target_is_absolute(self, wire: Wire, proxy_kind: str) -> None:
        proxy = wire.serve(answers(reply(200, b"first"), reply(200, b"next"), reply(200, b"last")), kind=proxy_kind)
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
    def test_the_target_goes_out_as_it_was_given(self, wire: Wire, target: str) -> None:
        proxy = wire.serve(answers(reply(200)))
        read(wire.transport(proxy=proxy.url).round_trip(get(f"http://registry.test{target}")))
        assert proxy.peer(0).line() == f"GET http://registry.test{target} HTTP/1.1".encode()

    @plain
    @proxy_kinds
    @pytest.mark.parametrize("framing", ["sized", "chunked"])
    def test_a_401_before_the_body_costs_nothing_of_it(self, wire: Wire, proxy_kind: str, framing: str) -> None:
        proxy = wire.serve(answers_early(reply(401, b"log in")), takes(CONTINUE), kind=proxy_kind)
        transport = wire.transport(proxy=proxy.url)
        given = Content(b"one", b"two" * 10_000)
        body = given.body(framing)
        assert read(transport.round_trip(put("http://registry.test/v2/", body))) == (401, b"log in")
        assert given.pulled == 0
        assert read(transport.round_trip(put("http://registry.test/v2/", body))) == (201, b"")
        assert proxy.peer(1).bodies == [given.whole]

    @plain
    def test_a_407_is_an_answer(self, wire: Wire) -> None:
        proxy = wire.serve(answers(reply(407, b"who?")))
        response = wire.transport(proxy=proxy.url).round_trip(get("http://registry.test/v2/"))
        assert read(response) == (407, b"who?")


class TestChoice:
    """Who goes through a proxy."""

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1.2.3", "x.localhost"])
    @plain
    def test_loopback_never(self, wire: Wire, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
        proxy = wire.serve()
        server = wire.serve(answers(reply(200, b"direct")), answers(reply(200, b"direct")), host=host)
        monkeypatch.setenv("http_proxy", proxy.url)
        for options in ({"proxy": proxy.url}, {"trust_env": True}):
            assert read(wire.transport(**options).round_trip(get(server.url))) == (200, b"direct")

    @pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY"])
    @plain
    def test_by_the_environment(self, wire: Wire, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
        proxy = wire.serve(answers(reply(200, b"through")))
        monkeypatch.setenv(variable, url_of(proxy, "user:p%40ss:word"))
        transport = wire.transport(trust_env=True)
        assert read(transport.round_trip(get("http://registry.test/"))) == (200, b"through")
        assert proxy.peer(0).field("proxy-authorization") == BASIC

    @one_tls_kind
    def test_by_the_environment_for_https(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        server = registry(wire, answers(reply(200, b"through")))
        proxy = wire.serve(tunnels_to(server), kind="http")
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        assert read(wire.transport(trust_env=True).round_trip(get(server.url))) == (200, b"through")

    @pytest.mark.parametrize("no_proxy", ["registry.test", ".test", "*", "a.example, registry.test:{port}"])
    def test_but_for_no_proxy(self, wire: Wire, no_proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
        proxy = wire.serve(kind="http")
        server = registry(wire, answers(reply(200, b"direct")))
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", no_proxy.format(port=server.port))
        assert read(wire.transport(trust_env=True).round_trip(get(server.url))) == (200, b"direct")

    @plain
    def test_others_than_no_proxy_names(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        proxy = wire.serve(answers(reply(200, b"through")))
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "other.test,gistry.test")
        transport = wire.transport(trust_env=True)
        assert read(transport.round_trip(get("http://registry.test/"))) == (200, b"through")

    def test_not_if_the_environment_is_not_trusted(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        server = registry(wire, answers(reply(200, b"direct")))
        for variable in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(variable, "http://127.0.0.1:1")
        assert read(wire.transport(trust_env=False).round_trip(get(server.url))) == (200, b"direct")

    @plain
    def test_the_argument_wins(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        proxy = wire.serve(answers(reply(200, b"through")))
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        monkeypatch.setenv("no_proxy", "*")
        transport = wire.transport(proxy=proxy.url, trust_env=True)
        assert read(transport.round_trip(get("http://registry.test/"))) == (200, b"through")

    @plain
    @pytest.mark.parametrize("form", ["{netloc}", "http://{netloc}/", "HTTP://{netloc}"])
    def test_ways_to_write_one(self, wire: Wire, form: str) -> None:
        proxy = wire.serve(answers(reply(200, b"through")))
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
    def test_ways_to_write_credentials(self, wire: Wire, userinfo: str, credentials: bytes) -> None:
        # RFC 7617, section 2: there is a colon, whatever stands on either side of it.
        proxy = wire.serve(answers(reply(200)))
        read(wire.transport(proxy=url_of(proxy, userinfo)).round_trip(get("http://registry.test/")))
        assert proxy.peer(0).field("proxy-authorization") == b"Basic " + b64encode(credentials)

    @pytest.mark.parametrize(
        "proxy", ["", "http://", "ftp://proxy.test", "socks5://proxy.test:1080", "http://a b", "a:b:c"]
    )
    def test_nonsense(self, proxy: str) -> None:
        with pytest.raises(UsageError):
            UrllibTransport(proxy=proxy, trust_env=False)

    @plain
    def test_nonsense_in_the_environment(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", "socks5://user:secret@proxy.test")
        transport = wire.transport(trust_env=True)
        with pytest.raises(UsageError) as raised:
            transport.round_trip(get("http://registry.test/"))
        assert "secret" not in str(raised.value)


def test_a_proxy_that_cannot_be_reached_is_named() -> None:
    with contextlib.closing(UrllibTransport(proxy="http://me:s3cret@127.0.0.1:1")) as transport:
        for scheme in ("http", "https"):
            with pytest.raises(ConnectError, match=r"through the proxy http://127\.0\.0\.1:1: ") as caught:
                transport.round_trip(Request("GET", f"{scheme}://registry.test/"))
            assert "s3cret" not in str(caught.value)
