"""Mapping of exceptions to `TransportError`, and invalid arguments, which are refused before a request is sent."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from urllib3 import exceptions

from ociwire._http.messages import Request
from ociwire.errors import (
    ConnectError,
    ConnectTimeout,
    OciwireError,
    ProtocolError,
    ReadError,
    ReadTimeout,
    TransportError,
    TransportTimeout,
    UsageError,
)
from ociwire.transport import UrllibTransport
from ociwire.transport._urllib3.map_exceptions import map_errors, to_transport_error
from tests.transport.urllib3.conftest import Wire
from tests.transport.urllib3.scripted_server import get, read, reply, respond

REQUEST = Request("GET", "https://registry.test:5000/v2/?token=secret")
one_kind = pytest.mark.parametrize("kind", ["http"])


def subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    """Yield each subclass once."""
    for subclass in cls.__subclasses__():
        yield subclass
        yield from subclasses(subclass)


Stub: Any = SimpleNamespace(tell=lambda: 0, length_remaining=5)
FACTORIES: dict[str, Callable[[Any], BaseException]] = {
    "PoolError": lambda cls: cls(None, "broken"),
    "RequestError": lambda cls: cls(None, "/", "broken"),
    "MaxRetryError": lambda cls: cls(None, "/"),
    "HostChangedError": lambda cls: cls(None, "/"),
    "ReadTimeoutError": lambda cls: cls(None, "/", "broken"),
    "NewConnectionError": lambda cls: cls(Stub, "broken"),
    "NameResolutionError": lambda cls: cls("registry.test", Stub, socket.gaierror("broken")),
    "EmptyPoolError": lambda cls: cls(None, "broken"),
    "FullPoolError": lambda cls: cls(None, "broken"),
    "ClosedPoolError": lambda cls: cls(None, "broken"),
    "ProxyError": lambda cls: cls("broken", OSError("broken")),
    "IncompleteRead": lambda cls: cls(3, 5),
    "InvalidChunkLength": lambda cls: cls(Stub, b"x"),
    "HeaderParsingError": lambda cls: cls([], b"x"),
}
KNOWN = sorted(
    {*subclasses(exceptions.HTTPError), exceptions.ProxySchemeUnsupported},
    key=lambda cls: (cls.__module__, cls.__name__),
)
URLLIB3 = [cls for cls in KNOWN if cls.__module__ == "urllib3.exceptions" and not issubclass(cls, Warning)]
HTTP_CLIENT = sorted(
    {cls for cls in subclasses(http.client.HTTPException) if cls.__module__ == "http.client"},
    key=lambda cls: cls.__name__,
)
SOCKET = [
    OSError(errno.EIO, "broken"),
    OSError(errno.EHOSTUNREACH, "no route"),
    OSError("broken"),
    OSError(),
    ConnectionResetError("reset"),
    ConnectionRefusedError("refused"),
    ConnectionAbortedError("aborted"),
    BrokenPipeError("broken"),
    InterruptedError("interrupted"),
    BlockingIOError("would block"),
    TimeoutError("timed out"),
    socket.gaierror(-2, "unknown"),
    socket.herror("unknown"),
    ssl.SSLError("broken"),
    ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"),
    ssl.SSLEOFError("eof"),
    ssl.SSLZeroReturnError("closed"),
    ssl.SSLWantReadError("more"),
    ssl.SSLSyscallError("broken"),
    ssl.SSLCertVerificationError("certificate verify failed"),
    UnicodeError("label too long"),
    exceptions.SSLError("hostname 'a' doesn't match 'b'"),
]


def make(cls: type[Any]) -> BaseException:
    return FACTORIES.get(cls.__name__, lambda cls: cls("broken"))(cls)


def name_of(value: Any) -> str | None:
    if isinstance(value, BaseException):
        return f"{type(value).__module__}.{type(value).__name__} {value}"
    return getattr(value, "__name__", None)


WRAPPERS: list[Callable[[Any], BaseException]] = [
    lambda error: error,
    lambda error: exceptions.ProtocolError("Connection aborted.", error),
    lambda error: exceptions.MaxRetryError(None, "/", error),  # type: ignore[arg-type]
    lambda error: exceptions.ProxyError("Unable to connect to proxy", error),
    lambda error: exceptions.SSLError(error),
    lambda error: exceptions.MaxRetryError(  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        "/",
        exceptions.ProxyError("Unable to connect to proxy", exceptions.SSLError(error)),
    ),
]
wrapped = pytest.mark.parametrize(
    "wrap", WRAPPERS, ids=["bare", "ProtocolError", "MaxRetryError", "ProxyError", "SSLError", "all"]
)


def check(error: BaseException) -> TransportError:
    """Check that an exception is mapped before and after the connection is established."""
    for connected in (False, True):
        with pytest.raises(TransportError) as raised, map_errors(REQUEST, SimpleNamespace(connected=connected)):  # type: ignore[arg-type]
            raise error
        assert type(raised.value) is not TransportError
        assert type(raised.value).__module__ == "ociwire.errors"
        assert raised.value.__cause__ is error
        assert raised.value.request is REQUEST
        assert "registry.test:5000" in str(raised.value)
        assert "secret" not in str(raised.value)
        assert not str(raised.value).endswith(": ")
        error.__traceback__ = None
    return raised.value


class TestMapErrors:
    """Each exception is mapped to a strict subclass of `TransportError`."""

    @wrapped
    @pytest.mark.parametrize("cls", URLLIB3, ids=name_of)
    def test_map_errors_urllib3_exception_becomes_transport_error(
        self, cls: type[Any], wrap: Callable[[Any], BaseException]
    ) -> None:
        check(wrap(make(cls)))

    @wrapped
    @pytest.mark.parametrize("cls", HTTP_CLIENT, ids=name_of)
    def test_map_errors_http_client_exception_becomes_transport_error(
        self, cls: type[Any], wrap: Callable[[Any], BaseException]
    ) -> None:
        check(wrap(cls("broken")))

    @wrapped
    @pytest.mark.parametrize("error", SOCKET, ids=name_of)
    def test_map_errors_socket_exception_becomes_transport_error(
        self, error: BaseException, wrap: Callable[[Any], BaseException]
    ) -> None:
        check(wrap(error))

    @wrapped
    @pytest.mark.parametrize(
        ("error", "before", "after"),
        [
            (ConnectionResetError("reset"), ConnectError, ReadError),
            (socket.gaierror("unknown"), ConnectError, ReadError),
            (ssl.SSLError("broken"), ConnectError, ReadError),
            (TimeoutError("slow"), ConnectTimeout, ReadTimeout),
            (exceptions.ReadTimeoutError(None, "/", "slow"), ConnectTimeout, ReadTimeout),  # type: ignore[arg-type]
            (exceptions.ConnectTimeoutError("slow"), ConnectTimeout, ConnectTimeout),
            (http.client.RemoteDisconnected("gone"), ConnectError, ReadError),
            (http.client.IncompleteRead(b"x", 5), ConnectError, ReadError),
            (http.client.BadStatusLine("what"), ProtocolError, ProtocolError),
        ],
        ids=name_of,
    )
    def test_map_errors_class_depends_on_connection(
        self, error: Any, before: Any, after: Any, wrap: Callable[[Any], BaseException]
    ) -> None:
        assert type(to_transport_error(wrap(error), REQUEST, connected=False)) is before
        assert type(to_transport_error(wrap(error), REQUEST, connected=True)) is after

    @pytest.mark.parametrize(
        "cls", ["NewConnectionError", "NameResolutionError", "ClosedPoolError", "LocationParseError"]
    )
    def test_map_errors_connect_failure_becomes_connect_error(self, cls: str) -> None:
        assert type(check(make(getattr(exceptions, cls)))) is ConnectError

    @pytest.mark.parametrize(
        ("cls", "expected"),
        [("ReadTimeoutError", ReadTimeout), ("ConnectTimeoutError", ConnectTimeout), ("TimeoutError", ReadTimeout)],
    )
    def test_map_errors_timeout_of_urllib3_has_its_class(self, cls: str, expected: type[TransportTimeout]) -> None:
        assert type(check(make(getattr(exceptions, cls)))) is expected

    def test_transport_errors_are_standard_library_errors(self) -> None:
        assert issubclass(ConnectError, ConnectionError)
        assert issubclass(TransportTimeout, TimeoutError)
        assert issubclass(ConnectTimeout, (ConnectionError, ConnectError))
        assert issubclass(ConnectTimeout, TransportTimeout)
        assert not issubclass(ReadTimeout, (ConnectError, ReadError))

    @pytest.mark.parametrize(
        "error", [KeyError("x"), RuntimeError("x"), KeyboardInterrupt(), MemoryError()], ids=name_of
    )
    def test_map_errors_other_exception_propagates(self, error: BaseException) -> None:
        with pytest.raises(type(error)) as raised, map_errors(REQUEST, SimpleNamespace(connected=True)):  # type: ignore[arg-type]
            raise error
        assert raised.value is error
        assert raised.value.__cause__ is None

    def test_map_errors_ociwire_error_gets_request(self) -> None:
        own, other = ProtocolError("mine"), get("http://other.test")
        with pytest.raises(ProtocolError) as raised, map_errors(REQUEST, SimpleNamespace(connected=True)):  # type: ignore[arg-type]
            raise own
        assert raised.value is own
        assert own.request is REQUEST
        with pytest.raises(ProtocolError), map_errors(other, SimpleNamespace(connected=True)):  # type: ignore[arg-type]
            raise own
        assert own.request is REQUEST

    def test_map_errors_hint_names_remedy(self) -> None:
        def message_for(text: str) -> str:
            return str(to_transport_error(ssl.SSLError(1, text), REQUEST, connected=False))

        assert "/etc/docker/certs.d/registry.test:5000/ca.crt" in message_for(
            "[SSL: CERTIFICATE_VERIFY_FAILED] (_ssl.c:1)"
        )
        assert "/etc/docker/certs.d/registry.test:5000/ca.crt" in message_for(
            "certificate verify failed: unable to get issuer"
        )
        assert "insecure=True" in message_for("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1)")
        assert "insecure=True" in message_for("[SSL: HTTP_REQUEST] http request (_ssl.c:1)")


class TestConnectErrors:
    """Connection errors of real sockets."""

    def test_connect_refused_raises_connect_error(self, wire: Wire) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        scheme = "http" if wire.kind == "http" else "https"
        with pytest.raises(ConnectError, match=f"{scheme}://127.0.0.1:{port}") as raised:
            wire.transport().round_trip(get(f"{scheme}://127.0.0.1:{port}/v2/?secret"))
        assert isinstance(raised.value, ConnectionError)
        assert isinstance(raised.value.__cause__, exceptions.HTTPError)
        assert raised.value.request is not None
        assert "secret" not in str(raised.value)

    @pytest.mark.parametrize(
        "error", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long")], ids=name_of
    )
    def test_connect_unresolvable_name_raises_connect_error(
        self, wire: Wire, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def fail(*args: Any, **options: Any) -> Any:
            raise error

        monkeypatch.setattr(socket, "getaddrinfo", fail)
        with pytest.raises(ConnectError, match=r"registry\.invalid") as raised:
            wire.transport().round_trip(get("http://registry.invalid/v2/"))
        assert raised.value.request is not None

    @one_kind
    def test_connect_name_too_long_for_dns_raises(self, wire: Wire) -> None:
        with pytest.raises((ConnectError, UsageError)):
            wire.transport().round_trip(get(f"http://{'x' * 64}.test/"))

    def test_connect_failure_next_request_succeeds(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        server = wire.serve(respond(reply(200)))
        transport = wire.transport()
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "connect", refuse)
            with pytest.raises(ConnectError):
                transport.round_trip(get(server.url))
        assert read(transport.round_trip(get(server.url))) == (200, b"")


def refuse(*_: Any) -> None:
    raise ConnectionRefusedError("refused")


class TestUsageErrors:
    """Invalid arguments raise `UsageError` before a connection is opened."""

    @pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "CONNECTION", "Host"])
    def test_framing_header_raises_usage_error(self, wire: Wire, name: str) -> None:
        server = wire.serve()
        with pytest.raises(UsageError, match=rf"(?i){name}"):
            wire.transport().round_trip(Request("PUT", server.url, {name: "5"}, b"hello"))

    @one_kind
    @pytest.mark.parametrize(
        "url",
        [
            "/v2/",
            "http://",
            "https:///v2/",
            "http://user:secret@{netloc}/",
            "http://user@{netloc}/",
            "http://{netloc}:1/",
        ],
    )
    def test_url_not_absolute_raises_usage_error(self, wire: Wire, url: str) -> None:
        server = wire.serve()
        with pytest.raises(UsageError) as raised:
            wire.transport().round_trip(Request("GET", url.format(netloc=server.netloc)))
        assert "secret" not in str(raised.value)

    @pytest.mark.parametrize("url", ["ftp://registry.test/", "registry.test", "", "http://a b/"])
    def test_request_invalid_url_raises_usage_error(self, url: str) -> None:
        with pytest.raises(UsageError):
            Request("GET", url)

    @pytest.mark.parametrize(
        "options",
        [
            {"pool_size": 0},
            {"pool_size": True},
            {"pool_size": 1.5},
            {"pool_size": "10"},
            {"proxy": 5},
            {"timeout": "x"},
        ],
        ids=str,
    )
    def test_urllib_transport_invalid_option_raises_usage_error(self, options: dict[str, Any]) -> None:
        with pytest.raises(UsageError):
            UrllibTransport(**{"trust_env": False, **options})

    def test_usage_error_is_ociwire_error_and_value_error(self) -> None:
        assert issubclass(UsageError, OciwireError)
        assert issubclass(UsageError, ValueError)
