"""Mapping of exceptions of urllib3, http.client, ssl and sockets to the exceptions of `ociwire.errors`."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from urllib3 import exceptions

from ..._http.messages import Request, redactor_of
from ..._http.urls import Origin
from ..._oci.host import redact_url
from ..._text import sanitize
from ...errors import (
    ConnectError,
    ConnectTimeout,
    OciwireError,
    ProtocolError,
    ReadError,
    ReadTimeout,
    TransportError,
    TransportTimeout,
)
from .response_head import NO_RESPONSE, SPEAKS_TLS

__all__ = ["HasConnected", "map_errors", "to_transport_error"]

_MAX_TEXT = 1000
"""Maximum length of a quoted exception text in characters. A part of the text may come from a proxy or server."""
# Texts in an exception, and the hint for each. The first text that matches determines the hint.
_HINTS = (
    (NO_RESPONSE, "if it requires TLS, remove insecure=True"),
    (SPEAKS_TLS, "remove insecure=True"),
    ("certificate verify failed", "put a private CA into /etc/docker/certs.d/{host}/ca.crt, or pass it with tls="),
    ("wrong version number", "if the server uses plain http, pass Client(..., insecure=True)"),
    ("http request", "if the server uses plain http, pass Client(..., insecure=True)"),
    ("Tunnel connection failed: 407", "the proxy requires credentials: pass proxy='http://USER:PASSWORD@HOST:PORT'"),
)

# The first class that matches determines the mapping. Before the lookup, `_root` unwraps nested exceptions.
_CLASSES: tuple[tuple[type[BaseException], type[TransportError]], ...] = (
    (exceptions.NewConnectionError, ConnectError),
    (exceptions.ConnectTimeoutError, ConnectTimeout),
    (exceptions.TimeoutError, ReadTimeout),
    (exceptions.TimeoutStateError, ReadTimeout),
    (exceptions.SSLError, ReadError),
    (exceptions.ProxyError, ConnectError),
    (exceptions.PoolError, ConnectError),
    (exceptions.LocationValueError, ConnectError),
    (exceptions.ProxySchemeUnsupported, ConnectError),
    (exceptions.IncompleteRead, ReadError),
    (exceptions.ProtocolError, ProtocolError),
    (exceptions.InvalidChunkLength, ProtocolError),
    (exceptions.InvalidHeader, ProtocolError),
    (exceptions.HeaderParsingError, ProtocolError),
    (exceptions.DecodeError, ProtocolError),
    (exceptions.ResponseError, ProtocolError),
    (exceptions.BodyNotHttplibCompatible, ProtocolError),
    (exceptions.UnrewindableBodyError, ProtocolError),
    (TimeoutError, ReadTimeout),
    (http.client.IncompleteRead, ReadError),
    (OSError, ReadError),
    (http.client.HTTPException, ProtocolError),
    (ValueError, ConnectError),  # a host name that does not match a certificate, or that IDNA cannot encode
)
# Classes to use instead if no connection was established. urllib3 reports a timeout of the TLS handshake as a read
# timeout, and a failure of the TLS handshake as an SSLError.
_WITHOUT_CONNECTION: dict[type[TransportError], type[TransportError]] = {
    ReadError: ConnectError,
    ReadTimeout: ConnectTimeout,
}


class HasConnected(Protocol):
    """Protocol of objects that record whether a connection was established."""

    @property
    def connected(self) -> bool:
        """Whether a connection was established before the exception was raised."""
        ...


def to_transport_error(error: BaseException, request: Request, *, connected: bool, proxy: str = "") -> TransportError:
    """Return the `TransportError` for an exception of urllib3, http.client, ssl or a socket.

    Args:
        error: The exception. Use it as the cause when you raise the result (``raise ... from error``).
        request: The request that failed.
        connected: Whether a connection was established before the exception was raised.
        proxy: The URL of the proxy without its password; empty if no proxy is used.
    """
    root = _root(error)
    cls = next((mapped for known, mapped in _CLASSES if isinstance(root, known)), ReadError)
    # Mask secrets before truncating: the reason phrase of a proxy may repeat the credentials sent to the proxy.
    text = sanitize(redactor_of(request).redact_text(str(root.__cause__ or root)), _MAX_TEXT) or type(root).__name__
    if not connected:
        cls = _WITHOUT_CONNECTION.get(cls, cls)
    elif cls is ReadError and "ALERT_CERTIFICATE_REQUIRED" in text:
        # In TLS 1.3, the server refuses a client certificate after the client has completed the handshake (RFC 8446,
        # section 4.4). The alert arrives only when the first response is read.
        cls = ConnectError
    if cls is ConnectError:
        through = f" through the proxy {proxy}" if proxy else ""
        message = f"cannot connect to {Origin.of(request.url)}{through}: {text}{_hint(text, request)}"
    else:
        failed = "timed out" if issubclass(cls, TransportTimeout) else "failed"
        message = f"{request.method} {redact_url(request.url)} {failed}: {text}{_hint(text, request)}"
    return cls(message, request=request)


@contextmanager
def map_errors(request: Request, state: HasConnected, *, proxy: str = "") -> Iterator[None]:
    """Map exceptions of urllib3 and http.client to `TransportError`, and mask secrets in them.

    To a `TransportError` that has no request yet, the request is added, and a hint if one matches.
    """
    try:
        yield
    except OciwireError as error:
        if isinstance(error, TransportError) and error.request is None:
            if hint := _hint(str(error), request):
                error.args = (f"{error}{hint}",)
            error.request = request
        raise
    except (exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
        try:
            raise to_transport_error(error, request, connected=state.connected, proxy=proxy) from error
        except TransportError as mapped:
            # Mask secrets again now that `__cause__` is set: http.client quotes invalid response lines in exceptions.
            redactor_of(request).redact_error(mapped)
            raise


def _root(error: BaseException) -> BaseException:
    """Return the innermost of the exceptions that urllib3 has wrapped in each other."""
    inner: Any = getattr(error, "reason", None) or getattr(error, "original_error", None)
    if isinstance(error, (exceptions.ProtocolError, exceptions.SSLError)) and not isinstance(inner, BaseException):
        inner = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
    # The `reason` of an ssl.SSLError is a string, such as CERTIFICATE_VERIFY_FAILED.
    return error if isinstance(error, ssl.SSLError) or not isinstance(inner, BaseException) else _root(inner)


def _hint(text: str, request: Request) -> str:
    if "mismatch" in text:
        return ""  # the certificate is for another host name: a private CA does not help
    if request.url.startswith("https:") and (NO_RESPONSE in text or SPEAKS_TLS in text):
        return ""  # `insecure=True` is not the cause; an https proxy may have been configured with an http URL
    for sign, hint in _HINTS:
        if sign in text or sign.upper().replace(" ", "_") in text:
            return f" ({hint.format(host=Origin.of(request.url).netloc)})"
    return ""
