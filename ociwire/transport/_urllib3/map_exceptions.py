"""Maps the exceptions of urllib3, http.client, ssl and the socket to those of `ociwire.errors`, in one place."""

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
"""Maximum length in characters of quoted exception texts, which a proxy or a server may have written."""
# The first sign that is in the text of an exception decides.
_HINTS = (
    (NO_RESPONSE, "does it speak TLS? Then leave insecure=True out"),
    (SPEAKS_TLS, "leave insecure=True out"),
    ("certificate verify failed", "a private CA belongs in /etc/docker/certs.d/{host}/ca.crt, or in tls="),
    ("wrong version number", "the server seems to speak plain http: Client(..., insecure=True)"),
    ("http request", "the server seems to speak plain http: Client(..., insecure=True)"),
    ("Tunnel connection failed: 407", "the proxy wants credentials: proxy='http://USER:PASSWORD@HOST:PORT'"),
)

# The first match decides. Exceptions that wrap another one are unwrapped before, by `_root`.
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
# Without a connection, the failure is one to connect. urllib3 reports a TLS handshake that takes too long as a read
# timeout, and one that fails as an SSLError.
_WITHOUT_CONNECTION: dict[type[TransportError], type[TransportError]] = {
    ReadError: ConnectError,
    ReadTimeout: ConnectTimeout,
}


class HasConnected(Protocol):
    """Tells whether a connection was established when an exception was raised."""

    @property
    def connected(self) -> bool: ...


def to_transport_error(error: BaseException, request: Request, *, connected: bool, proxy: str = "") -> TransportError:
    """Return the `TransportError` for an exception of urllib3, http.client, ssl or the socket.

    Args:
        error: The exception. Raise the result ``from`` it.
        request: The request that failed.
        connected: Whether a connection was established before.
        proxy: The URL of the proxy in use, without its password; empty if there is none.
    """
    root = _root(error)
    cls = next((mapped for known, mapped in _CLASSES if isinstance(root, known)), ReadError)
    # Mask before cutting: a proxy's reason phrase may repeat the credentials that it was sent.
    text = sanitize(redactor_of(request).redact_text(str(root.__cause__ or root)), _MAX_TEXT) or type(root).__name__
    if not connected:
        cls = _WITHOUT_CONNECTION.get(cls, cls)
    elif cls is ReadError and "ALERT_CERTIFICATE_REQUIRED" in text:
        # TLS 1.3 refuses a client's certificate, or the lack of one, only when the first response is read.
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

    Exceptions of ociwire that have no request yet are given this one, and a hint if there is one.
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
            # Masked again, now that the cause is set: exceptions of http.client contain the line that is invalid.
            redactor_of(request).redact_error(mapped)
            raise


def _root(error: BaseException) -> BaseException:
    """The innermost of the exceptions that urllib3 has wrapped in each other."""
    inner: Any = getattr(error, "reason", None) or getattr(error, "original_error", None)
    if isinstance(error, (exceptions.ProtocolError, exceptions.SSLError)) and not isinstance(inner, BaseException):
        inner = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
    # The `reason` of an ssl.SSLError is a string, such as CERTIFICATE_VERIFY_FAILED.
    return error if isinstance(error, ssl.SSLError) or not isinstance(inner, BaseException) else _root(inner)


def _hint(text: str, request: Request) -> str:
    if "mismatch" in text:
        return ""  # the certificate is another host's: no CA helps
    if request.url.startswith("https:") and (NO_RESPONSE in text or SPEAKS_TLS in text):
        return ""  # `insecure=True` was not given; an https proxy may have been configured as an http one
    for sign, hint in _HINTS:
        if sign in text or sign.upper().replace(" ", "_") in text:
            return f" ({hint.format(host=Origin.of(request.url).netloc)})"
    return ""
