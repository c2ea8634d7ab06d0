"""The base transport of the default stack: sends a request over a socket with urllib3's connection pools.

A single-use body can still be sent whole after an early response: no chunk is pulled from it until the server sends 100
(Continue) or the wait times out. The transport never follows redirects, decodes content or reads netrc. It resends a
request only if a kept-alive connection was found closed, and the request is idempotent or no byte of it was written.
"""

from __future__ import annotations

from typing import Any, final

import urllib3

from ..._argument_checks import check_integer, check_seconds
from ..._http.headers import Headers
from ..._http.messages import Request, Response, redactor_of, with_redactor
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
_WANTS_LENGTH = ("POST", "PUT", "PATCH")  # RFC 9110, section 8.6: methods that expect content
_NO_RETRIES = urllib3.Retry(total=False, redirect=False)


@final
class UrllibTransport:
    """A `Transport` over HTTP/1.1, with urllib3's pools, TLS, proxies and timeouts. Thread-safe.

    Args:
        timeout: Timeout in seconds for connecting (all its steps together) and for each wait on the socket, or a
            `urllib3.Timeout` (its ``total`` bounds both). ``RequestInfo.timeout`` overrides it for a request. Defaults
            to 10 seconds for connecting and 120 for each wait.
        expect_timeout: Seconds to wait for 100 (Continue) before a body that is single-use or larger than 256 KiB.
            Defaults to 1.
        tls: Path of a CA bundle, an `ssl.SSLContext`, or a function from ``host[:port]`` to one (None: the system's
            CAs), called once per host. `None` means `docker_certs_d`, on top of the system's CAs.
        proxy: The URL of a proxy; its userinfo becomes Proxy-Authorization. Loopback is never proxied.
        trust_env: Whether the environment may name a proxy if `proxy` is `None`. Defaults to true.
        pool_size: Maximum number of idle connections per origin. Connections in use are not limited. Defaults to 10.

    Raises:
        UsageError: An argument is invalid.
    """

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
        self._timeouts = Timeouts(timeout)
        self._expect_timeout = check_seconds("expect_timeout", expect_timeout)
        self._expect_support = ExpectSupport()
        self._pools = PoolCache(TLSContextCache(tls), ProxySelector(proxy, trust_env=trust_env), pool_size)

    def round_trip(self, request: Request, /) -> Response:
        """Send the request and read the head of the response. The body is read from the response.

        Raises:
            UsageError: The URL is not absolute, a header is reserved for the transport, or the transport is closed.
            ConnectError: No connection could be made.
            ConnectTimeout: No connection was made before the connect timeout or the deadline.
            ReadTimeout: Sending or receiving took longer than the read timeout, or the deadline passed.
            ReadError: The connection was lost before a response.
            ProtocolError: The response is not valid HTTP/1.1.
            BodyConsumedError: The body is single-use, and was pulled from before.
            SizeMismatch: The body is longer or shorter than its length. The request was not sent completely.
            Exception: Any exception of the body's content, unchanged.
        """
        origin, target = split_url(request.url)
        for name in _FRAMING:
            if name in request.headers:
                raise UsageError(f"the header {name} is the transport's to set: leave it out")
        pool = self._pools.get(origin, anonymous=request.info.anonymous)
        if pool.urllib3_pool.proxy_headers:
            request = _with_proxy_secrets(request, pool)
        response = self._send(request, origin, pool, target)
        if response.status != 417 or "expect" not in response.request.headers:  # type: ignore[union-attr]
            return response
        # RFC 9110, section 10.1.1: after 417 the request should be repeated without Expect.
        self._expect_support.record_refusal(origin)
        if request.body is None or not request.body.resendable:
            return response
        response.drain()
        return self._send(request, origin, pool, target)

    def close(self) -> None:
        """Close idle connections and refuse further requests. Open responses can still be read to their end."""
        self._pools.close()

    def _send(self, request: Request, origin: Origin, pool: OriginPool, target: str) -> Response:
        """Send a request; once more on a fresh connection if a kept-alive one was found closed."""
        body, headers = request.body, request.headers
        if "expect" in headers and (body is None or body.length == 0 or not self._expect_support.may_expect(origin)):
            request = request.with_headers({"Expect": None})
            headers = request.headers
        fields = [("Host", origin.netloc), *headers.items()]
        if "accept-encoding" not in headers:
            fields.append(("Accept-Encoding", "identity"))  # a digest is computed over the bytes as they are stored
        if body is not None:
            fields.append(
                ("Transfer-Encoding", "chunked") if body.length is None else ("Content-Length", str(body.length))
            )
        elif request.method in _WANTS_LENGTH:
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
                continue  # the pool has dropped that connection; the next may be fresh
            except ReadError:
                if not exchange.may_resend:
                    raise
                fresh = True

    def _attempt(self, request: Request, origin: Origin, pool: OriginPool, exchange: Exchange) -> Response:
        """Send a request on one connection and read the head of the response."""
        try:
            with map_errors(request, exchange, proxy=pool.proxy):
                exchange.open_body()
                pooled: Any = pool.urllib3_pool.urlopen(
                    request.method,
                    # urllib3 normalizes and logs this URL, whose query may be secret; the connection sends
                    # `exchange.target`.
                    exchange.target.partition("?")[0],
                    body=exchange,  # type: ignore[arg-type]
                    headers={},
                    retries=_NO_RETRIES,
                    redirect=False,
                    assert_same_host=False,
                    timeout=exchange.time_limit.for_urllib3(),
                    preload_content=False,
                    decode_content=False,
                )
        except ContentFailed as signal:
            failure = signal.error
        except ConnectError as error:
            if isinstance(error.__cause__, urllib3.exceptions.ClosedPoolError):  # close() ran after the look-up
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
                release(raw, pooled)  # there is no body to read: return the connection at once
                return Response(raw.status, raw.fields, b"", request)
            return Response(raw.status, raw.fields, WireBody(raw, pooled, request), request)
        try:
            raise failure  # outside of the handler, so that the content's exception gets no `__context__`
        finally:
            del failure  # its traceback refers to this frame


def _with_proxy_secrets(request: Request, pool: OriginPool) -> Request:
    """Have the proxy's password masked: the proxy may repeat it in a reason phrase, or in the body of a 407."""
    request = with_redactor(request)
    redactor_of(request).add_headers(Headers(pool.urllib3_pool.proxy_headers))
    return request
