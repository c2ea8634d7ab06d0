"""What goes wrong below, in the words of `ociwire.errors`: every exception of urllib3 and the socket, mapped once."""

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
from ...errors import ConnectError, OciwireError, ProtocolError, ReadError, TransportError, TransportTimeout

__all__ = ["failures_of", "translate"]

# The first that fits. What is named here is what urllib3 wraps nothing in; wrappers are opened before.
_KINDS: tuple[tuple[type[BaseException], type[TransportError]], ...] = (
    (exceptions.NewConnectionError, ConnectError),
    (exceptions.TimeoutError, TransportTimeout),
    (exceptions.TimeoutStateError, TransportTimeout),
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
    (TimeoutError, TransportTimeout),
    (http.client.IncompleteRead, ReadError),
    (OSError, ReadError),
    (http.client.HTTPException, ProtocolError),
    (ValueError, ConnectError),  # a name that a certificate does not have, or that IDNA cannot write
)


class HasConnected(Protocol):
    """What knows whether there was a connection by the time that something failed."""

    @property
    def connected(self) -> bool: ...


_LONGEST = 1000
"""How much of an exception's text is repeated, in characters: a proxy, or a server, may have written it."""
_NO_ANSWER = "closed the connection without a response"
_HINTS = (
    (_NO_ANSWER, "does it speak TLS? Then leave insecure=True out"),
    ("certificate verify failed", "a private CA belongs in /etc/docker/certs.d/{host}/ca.crt, or in tls="),
    ("wrong version number", "the server seems to speak plain http: Client(..., insecure=True)"),
    ("http request", "the server seems to speak plain http: Client(..., insecure=True)"),
    ("Tunnel connection failed: 407", "the proxy wants credentials: proxy='http://USER:PASSWORD@HOST:PORT'"),
)


def translate(error: BaseException, request: Request, *, connected: bool, proxy: str = "") -> TransportError:
    """The `TransportError` for an exception of urllib3, http.client, ssl or the socket; to be raised ``from`` it.

    Args:
        error: The exception.
        request: The request that it ended.
        connected: Whether there was a connection, so that it is the exchange that failed, not the connecting.
        proxy: The proxy that the connection was to go through, without its password; empty if there is none.
    """
    root = _root(error)
    kind = next((kind for known, kind in _KINDS if isinstance(root, known)), ReadError)
    # Masked before it is cut: the reason phrase of a proxy's refusal may repeat the credentials that it was sent.
    said = sanitize(redactor_of(request).text(str(root.__cause__ or root)), _LONGEST) or type(root).__name__
    # TLS 1.3 refuses a client's certificate, or the lack of one, only when the first answer is read.
    if kind is ReadError and (not connected or "ALERT_CERTIFICATE_REQUIRED" in said):
        kind = ConnectError
    if kind is ConnectError:
        through = f" through the proxy {proxy}" if proxy else ""
        text = f"cannot connect to {Origin.of(request.url)}{through}: {said}{_hint(said, request)}"
    else:
        broken = "timed out" if kind is TransportTimeout else "failed"
        text = f"{request.method} {redact_url(request.url)} {broken}: {said}{_hint(said, request)}"
    return kind(text, request=request)


@contextmanager
def failures_of(request: Request, has_connected: HasConnected, *, proxy: str = "") -> Iterator[None]:
    """Translate exceptions of urllib3 and http.client, set the request of ociwire's own, and mask secrets in all."""
    try:
        yield
    except OciwireError as error:
        if isinstance(error, TransportError) and error.request is None:
            error.request = request
        raise
    except (exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
        try:
            raise translate(error, request, connected=has_connected.connected, proxy=proxy) from error
        except TransportError as failure:
            # Again, because the cause is set only now: http.client's exceptions hold the line that they could not read.
            redactor_of(request).error(failure)
            raise


def _root(error: BaseException) -> BaseException:
    """The exception that urllib3 wrapped, however often it did."""
    inner: Any = getattr(error, "reason", None) or getattr(error, "original_error", None)
    if isinstance(error, (exceptions.ProtocolError, exceptions.SSLError)) and not isinstance(inner, BaseException):
        inner = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
    # An ssl.SSLError has a `reason` too: a word, such as CERTIFICATE_VERIFY_FAILED.
    return error if isinstance(error, ssl.SSLError) or not isinstance(inner, BaseException) else _root(inner)


def _hint(said: str, request: Request) -> str:
    if "mismatch" in said:
        return ""  # a certificate of another host: no CA mends that
    if _NO_ANSWER in said and request.url.startswith("https:"):
        return ""
    for sign, hint in _HINTS:
        if sign in said or sign.upper().replace(" ", "_") in said:
            return f" ({hint.format(host=Origin.of(request.url).netloc)})"
    return ""
