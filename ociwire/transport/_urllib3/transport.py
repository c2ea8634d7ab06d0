"""The base of the default stack: answers a request from a socket, by way of urllib3.

Promises that a one-shot body can still be sent whole after any answer that came before it: not one chunk is pulled
until the server says 100 (Continue) or the wait runs out. Never retries, redirects, decodes or reads netrc. A request
is resent only if a kept-alive connection was closed, and the request is idempotent or no byte of it was written.
"""

from __future__ import annotations

from typing import Any, final

import urllib3

from ..._arguments import check_integer, check_seconds
from ..._http.body import Body
from ..._http.headers import Headers
from ..._http.messages import Request, Response, exchange_redactor, with_redactor
from ..._http.urls import Origin, split_url
from ...errors import ConnectError, ReadError, UsageError
from .exchange import ContentFailed, Exchange, ReusedConnection
from .expect_continue import Expectations
from .map_exceptions import failures_of
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
    """A `Transport` over HTTP/1.1, with urllib3's pools, TLS, proxies and timeouts.

    Args:
        timeout: Seconds for connecting, all its steps together, and for each wait on the socket, or a `urllib3.Timeout`
            (its ``total`` bounds both). ``RequestInfo.timeout`` overrides it for a request.
        expect_timeout: Seconds to wait for a 100 (Continue) before a body that is one-shot or larger than 256 KiB.
        tls: A CA bundle's path, an `ssl.SSLContext`, or a function from ``host[:port]`` to one (None: the system's
            CAs), asked once a host. None is `docker_certs_d` over the system's CAs.
        proxy: The URL of a proxy; its userinfo becomes Proxy-Authorization. Loopback is never proxied.
        trust_env: Whether the environment may name a proxy, where `proxy` does not.
        pool_size: How many idle connections are kept for each origin. More are opened where more are needed.

    Raises:
        UsageError: An argument is not what it should be.
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
        self._expectations = Expectations()
        self._pools = PoolCache(TLSContextCache(tls), ProxySelector(proxy, trust_env=trust_env), pool_size)

    def round_trip(self, request: Request, /) -> Response:
        """Send the request and read the head of its answer; the body is read from the response.

        Raises:
            UsageError: The URL is not absolute, a header is the wire's own to send, or the transport is closed.
            ConnectError: There was no connection to be had.
            TransportTimeout: A timeout or the deadline passed.
            ReadError: The connection broke before an answer.
            ProtocolError: The answer is not HTTP/1.1.
            BodyConsumedError: The body is one-shot, and was pulled from before.
            SizeMismatch: The body is longer or shorter than its length. The request was not sent whole.
            Exception: Whatever the body's content raised, as it was raised.
        """
        origin, target = split_url(request.url)
        for name in _FRAMING:
            if name in request.headers:
                raise UsageError(f"the header {name} is the transport's to set: leave it out")
        pool = self._pools.get(origin, anonymous=request.info.anonymous)
        if pool.urllib3_pool.proxy_headers:
            request = _with_proxy_secrets(request, pool)
        response = self._exchange(request, origin, pool, target)
        if response.status != 417 or "expect" not in response.request.headers:  # type: ignore[union-attr]
            return response
        self._expectations.refuses(origin)
        if request.body is None or not request.body.resendable:
            return response
        response.drain()
        return self._exchange(request, origin, pool, target)

    def close(self) -> None:
        """Close all idle connections, and refuse further requests. Responses that are open can be read to their end."""
        self._pools.close()

    def _exchange(self, request: Request, origin: Origin, pool: OriginPool, target: str) -> Response:
        """One request and its response; once more, on a fresh connection, if a reused one turns out to be dead."""
        if request.body is None or request.body.length == 0 or not self._expectations.allow(origin):
            request = request.with_headers({"Expect": None}) if "expect" in request.headers else request
        fresh = False
        while True:
            exchange = self._prepare(request, origin, pool.target_prefix + target, fresh=fresh)
            try:
                return self._send(request, origin, pool, exchange)
            except ReusedConnection:
                continue  # the pool has dropped it; the next may be fresh
            except ReadError:
                if not exchange.may_resend:
                    raise
                fresh = True

    def _prepare(self, request: Request, origin: Origin, target: str, *, fresh: bool) -> Exchange:
        fields = [("Host", origin.netloc), *request.headers.items()]
        if "accept-encoding" not in request.headers:
            fields.append(("Accept-Encoding", "identity"))  # a digest is of the bytes as they are stored
        fields += _framing(request.method, request.body)
        waits = (
            request.body is not None
            and request.headers.get("expect", "").lower() == "100-continue"
            and self._expectations.worth_waiting(origin, request.body)
        )
        timeouts = self._timeouts if request.info.timeout is None else Timeouts(request.info.timeout)
        return Exchange(
            target,
            fields,
            request.body,
            TimeLimit(timeouts, request.info.deadline),
            expect_wait=self._expect_timeout if waits else None,
            fresh=fresh,
            idempotent=request.idempotent,
        )

    def _send(self, request: Request, origin: Origin, pool: OriginPool, exchange: Exchange) -> Response:
        try:
            with failures_of(request, exchange, proxy=pool.proxy):
                exchange.open_body()
                pooled: Any = pool.urllib3_pool.urlopen(
                    request.method,
                    # urllib3 rewrites what it is given, and logs it: the target goes by way of the exchange.
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
            if isinstance(error.__cause__, urllib3.exceptions.ClosedPoolError):  # close() came after the look-up
                raise UsageError("the transport is closed") from None
            raise
        else:
            if exchange.continued:
                self._expectations.continues(origin)
            elif exchange.waited_in_vain:
                self._expectations.silent(origin)
            return _response(request, pooled, exchange)
        try:
            raise failure  # outside the handler: the content's own exception, with no other for its context
        finally:
            del failure


def _with_proxy_secrets(request: Request, pool: OriginPool) -> Request:
    """Mask a proxy's password: the proxy may repeat it in a reason phrase, or in the body of a 407."""
    request = with_redactor(request)
    redactor = exchange_redactor(request.info)
    if redactor is not None:
        redactor.add_headers(Headers(pool.urllib3_pool.proxy_headers))
    return request


def _response(request: Request, pooled: urllib3.HTTPResponse, exchange: Exchange) -> Response:
    raw = exchange.response
    if raw.length == 0 and not raw.chunked:
        raw.finish()
        release(raw, pooled)  # there is nothing to read: the connection can go back at once
        return Response(raw.status, raw.fields, b"", request)
    return Response(raw.status, raw.fields, WireBody(raw, pooled, request), request)


def _framing(method: str, body: Body | None) -> list[tuple[str, str]]:
    if body is None:
        return [("Content-Length", "0")] if method in _WANTS_LENGTH else []
    return [("Transfer-Encoding", "chunked") if body.length is None else ("Content-Length", str(body.length))]
