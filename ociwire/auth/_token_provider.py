"""Obtain bearer tokens: from the cache, or from a token server, one request for all threads that need the same token.

A credential is sent to a token server only if `origin_policy.check_realm` allows it. Every failure is an `AuthError`.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import final
from urllib.parse import urljoin

from .._http.messages import Request, Response, redactor_of, with_redactor
from .._http.origin_policy import check_realm, token_redirect
from .._http.urls import Origin
from .._oci.reference import registry_name
from .._oci.scope import Scope
from .._text import sanitize
from ..errors import AuthError, AuthTimeout, TransportError, TransportTimeout, UsageError
from ._single_flight import SingleFlight
from ._token_cache import Token, TokenCache, TokenKey
from ._token_endpoint import Exchange
from .challenge import Challenge
from .credentials import Credential

__all__ = ["TokenProvider", "TokenRequest"]

_LOG = logging.getLogger("ociwire.auth")
_MAX_LOGGED_SCOPE = 1000
"""Maximum number of characters of a scope that are logged, because the registry chooses it."""
_MAX_GET_ONLY = 64
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


@final
@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A token that is needed.

    Attributes:
        origin: The registry's origin.
        host: The registry's host, as it is passed to the credential source.
        challenge: The challenge that names realm and service.
        credential: The credential to send; None for anonymous access.
        scope: The scope to request.
        refused: A larger scope that the token server refused before; None if there was none.
        newer_than: Only tokens with a higher sequence number are accepted.
    """

    origin: Origin
    host: str
    challenge: Challenge
    credential: Credential | None
    scope: Scope
    refused: Scope | None = None
    newer_than: int = 0

    @property
    def realm(self) -> str:
        """The token server's URL. A relative one is resolved against the registry's own origin."""
        realm = self.challenge.params["realm"]
        if not realm or realm.startswith(("https://", "//")) or _ABSOLUTE.match(realm):
            return realm  # absolute, or refused by check_realm
        return urljoin(f"{self.origin}/", realm)

    @property
    def key(self) -> TokenKey:
        """The token's key in the cache."""
        return TokenKey(self.origin, self.credential, self.realm, self.challenge.params.get("service"))


@final
class TokenProvider:
    """Obtains tokens; concurrent requests for the same token share one fetch. Thread-safe.

    Args:
        send: Sends a request to a token server.
        trusted_realms: See `AuthTransport`.
        source_name: Name of the credential source for messages.

    Attributes:
        tokens: The cache.

    Raises:
        UsageError: A host or an origin of `trusted_realms` is not valid.
    """

    def __init__(
        self, send: Callable[[Request], Response], *, trusted_realms: Mapping[str, Collection[str]], source_name: str
    ) -> None:
        self._send = send
        self._trusted = _trusted(trusted_realms)
        self._source_name = source_name
        self._single_flight: SingleFlight[Token] = SingleFlight("a token")
        self._get_only: set[str] = set()  # realms that answered 404 or 405 to a POST
        self.tokens = TokenCache()

    def get(
        self, wanted: TokenRequest, waiting: Request, may_send: Callable[[], bool] = lambda: True
    ) -> tuple[Token, bool]:
        """Return a token, and whether it was fetched now, by this thread or by another.

        Args:
            wanted: The token.
            waiting: The request that needs it; its deadline and timeout are the token request's, too.
            may_send: Called before each HTTP request to the token server. If it returns False, a POST that the token
                server does not support is not repeated as a GET.

        Raises:
            AuthError: The token server refused, failed, or must not be asked.
        """
        key = wanted.key

        def find() -> Token | None:
            return self.tokens.find(key, wanted.scope, newer_than=wanted.newer_than)

        def fetch() -> Token:
            token = self._fetch(wanted, waiting, may_send)
            self.tokens.put(key, token)
            return token

        cached = find()
        if cached is not None:
            return cached, False
        return self._single_flight.fetch((key, wanted.scope), wanted.scope, find, fetch, waiting.info.deadline), True

    def _fetch(self, wanted: TokenRequest, waiting: Request, may_send: Callable[[], bool]) -> Token:
        waiting = with_redactor(waiting)
        redactor = redactor_of(waiting)
        if wanted.credential is not None:
            redactor.add(wanted.credential)
        try:
            return self._request_token(wanted, waiting, may_send)
        except AuthError as error:
            redactor.error(error)
            raise

    def _request_token(self, wanted: TokenRequest, waiting: Request, may_send: Callable[[], bool]) -> Token:
        exchange = Exchange(
            host=wanted.host,
            realm=check_realm(wanted.realm, wanted.origin, self._trusted.get(wanted.host, ())),
            service=wanted.challenge.params.get("service"),
            scope=wanted.scope,
            credential=wanted.credential,
            source_name=self._source_name,
            refused=wanted.refused,
            challenged=Scope.parse(wanted.challenge.params.get("scope", "")),
        )
        if _LOG.isEnabledFor(logging.DEBUG):
            redactor = redactor_of(waiting)
            scope = sanitize(redactor.text(str(wanted.scope)), _MAX_LOGGED_SCOPE) or "a token without a scope"
            _LOG.debug("requesting %s from %s", scope, redactor.text(exchange.server))
        asked_at = time.monotonic()
        may_send()
        get = exchange.realm in self._get_only
        response = self._ask(exchange, exchange.request(waiting, get=get))
        if exchange.must_get(response) and not get and may_send():
            response.drain()
            if len(self._get_only) < _MAX_GET_ONLY:
                self._get_only.add(exchange.realm)
            response = self._ask(exchange, exchange.request(waiting, get=True))
        response = self._follow_trusted(wanted, exchange, response)
        try:
            return exchange.token(response, asked_at)
        finally:
            response.drain()

    def _follow_trusted(self, wanted: TokenRequest, exchange: Exchange, response: Response) -> Response:
        """Follow one redirect, if the caller trusts its origin: the request carries credentials."""
        request, location = response.request, response.headers.get("location")
        # A 303 to a POST means another request.
        statuses = (301, 302, 307, 308) if exchange.posts else (301, 302, 303, 307, 308)
        if response.status not in statuses or location is None or request is None:
            return response
        trusted = self._trusted.get(wanted.host, ())
        what = f"{exchange.server} redirects ({response.status})"
        try:
            url = token_redirect(exchange.realm, location, wanted.origin, trusted, what=what)
        finally:
            response.drain()
        return self._ask(exchange, request.replace(url=url))

    def _ask(self, exchange: Exchange, request: Request) -> Response:
        try:
            return self._send(request)
        except AuthError:
            raise
        except TransportTimeout as error:
            raise AuthTimeout(f"{exchange.server} did not answer in time") from error
        except TransportError as error:
            raise AuthError(f"{exchange.server} could not be asked: {error}") from error


def _trusted(given: Mapping[str, Collection[str]]) -> dict[str, tuple[str, ...]]:
    trusted: dict[str, tuple[str, ...]] = {}
    for host, origins in given.items():
        if isinstance(origins, str) or not isinstance(origins, Iterable):
            raise UsageError(f"trusted_realms has a collection of origins for each host: {{{host!r}: [{origins!r}]}}")
        listed = tuple(origins)
        for origin in listed:
            Origin.of(origin)
        name = registry_name(host)
        trusted[name] = trusted.get(name, ()) + listed
    return trusted
