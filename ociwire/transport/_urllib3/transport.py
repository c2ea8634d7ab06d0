"""The base transport of the default stack, which sends requests with urllib3's connection pools.

A single-use body is not read until the server sends 100 (Continue) or the wait times out. After an early response,
such as a 401, the body can therefore still be sent. The transport never follows redirects, decodes content or reads
``.netrc``. It resends a request only if a kept-alive connection was closed and the request is idempotent or was not
written yet.
"""

from __future__ import annotations

from typing import Any, final

import urllib3

from ..._argument_checks import OTHER_TRANSPORT_OPTIONS, check_boolean, check_integer, check_seconds, suggest_options
from ..._http.headers import Headers
from ..._http.messages import Request, Response, redactor_of, with_redactor
from ..._http.transport import BaseTransport
from ..._http.urls import Origin, split_url
from ...errors import ConnectError, ReadError, UsageError
from .exchange import ContentFailed, Exchange, ReusedConnection
from .expect_continue import ExpectSupport
from .map_exceptions import map_errors
from .pools import OriginPool, PoolCache
from .proxy import ProxySelector
from .response import WireBody, release
from .timeouts import TimeLimit, Timeouts
from .tls import TLS, TLSContextCache

__all__ = ["UrllibTransport"]

_FRAMING = ("content-length", "transfer-encoding", "connection", "host")
# RFC 9110, section 8.6: methods that expect content are sent with Content-Length: 0 if they have none.
_METHODS_WITH_CONTENT = ("POST", "PUT", "PATCH")
_NO_RETRIES = urllib3.Retry(total=False, redirect=False)


@final
class UrllibTransport(BaseTransport):
    """Sends requests over HTTP/1.1 with urllib3's connection pools, TLS, proxies and timeouts. Thread-safe.

    >>> from ociwire import UrllibTransport
    >>> transport = UrllibTransport(timeout=30, proxy="http://proxy.example:3128")
    >>> transport.close()

    Args:
        timeout: Timeout in seconds for connecting (all its steps together) and for each wait on the socket, or a
            `urllib3.Timeout`, whose ``total`` bounds both. `RequestInfo.timeout` overrides it for a request. Defaults
            to 10 seconds for connecting and 120 seconds for each wait.
        expect_timeout: Seconds to wait for 100 (Continue) before a body that is single-use or larger than 256 KiB.
            Defaults to 1.
        tls: Path of a CA bundle, a `TLSConfig`, an `ssl.SSLContext`, or a function. The function is called once per
            host with ``host[:port]``; it returns the context, or `None` for a context with the CAs of the system. If
            `tls` is `None`, `docker_certs_d` is used.
        proxy: URL of a proxy. Its userinfo is sent as Proxy-Authorization. Loopback hosts never use a proxy. `None`
            means the proxy in the environment, if `trust_env` is true.
        trust_env: Whether to use ``http_proxy``, ``https_proxy`` and ``no_proxy``. Defaults to true.
        pool_size: Maximum number of idle connections per origin. Connections in use are not limited. Defaults to 10.

    Raises:
        UsageError: An argument is invalid.
    """

    @suggest_options(OTHER_TRANSPORT_OPTIONS)
    def __init__(
        self,
        *,
        timeout: float | urllib3.Timeout = urllib3.Timeout(connect=10, read=120),  # noqa: B008 - never changed
        expect_timeout: float = 1.0,
        tls: TLS | None = None,
        proxy: str | None = None,
        trust_env: bool = True,
        pool_size: int = 10,
    ) -> None:
        check_integer("pool_size", pool_size, minimum=1)
        check_boolean("trust_env", trust_env)
        self._timeouts = Timeouts(timeout)
        self._expect_timeout = check_seconds("expect_timeout", expect_timeout)
        self._expect_support = ExpectSupport()
        self._pools = PoolCache(TLSContextCache(tls), ProxySelector(proxy, trust_env=trust_env), pool_size)

    def round_trip(self, request: Request, /) -> Response:
        """Send the request, and read the head of the response. The body is read when the caller reads the response.

        Raises:
            UsageError: The URL is not absolute, a header is set by the transport itself, or the transport is closed.
            ConnectError: Connecting failed.
            ConnectTimeout: The connect timeout or the deadline expired while connecting.
            ReadTimeout: The read timeout or the deadline expired while sending or receiving.
            ReadError: The connection was lost before a response was received.
            ProtocolError: The response is not valid HTTP/1.1.
            BodyConsumedError: The body is single-use, and was consumed before.
            SizeMismatch: The body is longer or shorter than its length. The request was not sent completely.
            Exception: Any exception that the content of the body raises, unchanged.
        """
        origin, target = split_url(request.url)
        for name in _FRAMING:
            if name in request.headers:
                raise UsageError(f"invalid header {name}: the transport sets it itself (remove it)")
        pool = self._pools.get(origin, anonymous=request.info.anonymous)
        if pool.urllib3_pool.proxy_headers:
            request = _with_proxy_secrets(request, pool)
        response = self._send(request, origin, pool, target)
        if response.status != 417 or "expect" not in response.request.headers:  # type: ignore[union-attr]
            return response
        # RFC 9110, section 10.1.1: after 417, the client should repeat the request without Expect.
        self._expect_support.record_refusal(origin)
        if request.body is None or not request.body.resendable:
            return response
        response.drain()
        return self._send(request, origin, pool, target)

    def close(self) -> None:
        """Close idle connections, and refuse further requests. Open responses can still be read to their end."""
        self._pools.close()

    def _send(self, request: Request, origin: Origin, pool: OriginPool, target: str) -> Response:
        """Send a request, and resend it on a fresh connection if a kept-alive one was closed and this is safe."""
        body, headers = request.body, request.headers
        if "expect" in headers and (body is None or body.length == 0 or not self._expect_support.may_expect(origin)):
            request = request.with_headers({"Expect": None})
            headers = request.headers
        fields = [("Host", origin.netloc), *headers.items()]
        if "accept-encoding" not in headers:
            # Without this header, some proxies compress responses, and the digest of the content would not match.
            fields.append(("Accept-Encoding", "identity"))
        if body is not None:
            fields.append(
                ("Transfer-Encoding", "chunked") if body.length is None else ("Content-Length", str(body.length))
            )
        elif request.method in _METHODS_WITH_CONTENT:
            fields.append(("Content-Length", "0"))
        waits = (
            body is not None
            and headers.get("expect", "").lower() == "100-continue"
            and self._expect_support.should_wait(origin, body)
        )
        timeouts = self._timeouts if request.info.timeout is None else Timeouts(request.info.timeout)
        fresh = False
        while True:
            exchange = Exchange(
                pool.target_prefix + target,
                fields,
                body,
                TimeLimit(timeouts, request.info.deadline),
                expect_wait=self._expect_timeout if waits else None,
                fresh=fresh,
                idempotent=request.idempotent,
            )
            try:
                return self._attempt(request, origin, pool, exchange)
            except ReusedConnection:
                continue  # the pool has discarded that connection; the next one may be fresh
            except ReadError:
                if not exchange.may_resend:
                    raise
                fresh = True

    def _attempt(self, request: Request, origin: Origin, pool: OriginPool, exchange: Exchange) -> Response:
        """Send a request on one connection, and read the head of the response."""
        try:
            with map_errors(request, exchange, proxy=pool.proxy):
                exchange.open_body()
                pooled: Any = pool.urllib3_pool.urlopen(
                    request.method,
                    # urllib3 logs and normalizes this URL. The query is omitted because it may be secret. The
                    # connection sends `exchange.target` instead of this URL.
                    exchange.target.partition("?")[0],
                    body=exchange,  # type: ignore[arg-type]
                    headers={},
                    retries=_NO_RETRIES,
                    redirect=False,
                    assert_same_host=False,  # the request target has no host
                    timeout=exchange.time_limit.for_urllib3(),
                    preload_content=False,
                    decode_content=False,
                )
        except ContentFailed as signal:
            failure = signal.error
        except ConnectError as error:
            if isinstance(error.__cause__, urllib3.exceptions.ClosedPoolError):  # closed by another thread meanwhile
                raise UsageError("the transport is closed") from None
            raise
        else:
            if exchange.continued:
                self._expect_support.record_continue(origin)
            elif exchange.expect_timed_out:
                self._expect_support.record_timeout(origin)
            raw = exchange.response
            if raw.length == 0 and not raw.chunked:
                raw.finish()
                release(raw, pooled)  # there is no body to read: return the connection immediately
                return Response(raw.status, raw.fields, b"", request)
            return Response(raw.status, raw.fields, WireBody(raw, pooled, request), request)
        try:
            raise failure  # outside the handler, so that the exception gets no `__context__`
        finally:
            del failure  # breaks the reference cycle with its traceback


def _with_proxy_secrets(request: Request, pool: OriginPool) -> Request:
    """Add the password of the proxy to the redactor, because the proxy may repeat it in a reason phrase or a 407."""
    request = with_redactor(request)
    redactor_of(request).add_headers(Headers(pool.urllib3_pool.proxy_headers))
    return request
