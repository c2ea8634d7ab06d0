"""Where tokens are had: kept ones, or new ones from a token server, once for all threads that want the same.

A credential goes to a token server only if `ociwire.origin.check_realm` lets it. What fails there is an `AuthError`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import final

from ..auth.challenge import Challenge
from ..auth.credentials import Credential
from ..auth.exchange import Exchange
from ..auth.flights import Flights
from ..auth.tokens import Holder, Token, Tokens
from ..errors import AuthError, AuthTimeout, TransportError, TransportTimeout, UsageError
from ..message import Request, Response
from ..origin import Origin, check_realm
from ..reference import registry_name
from ..scope import Scope
from ..text import one_line
from .base import Transport

__all__ = ["TokenDesk", "Wish"]

_LOG = logging.getLogger("ociwire.auth")
_LONGEST_SCOPE = 1000
"""How much of a scope a log has, in characters: a registry has written it."""


@final
@dataclass(frozen=True, slots=True)
class Wish:
    """A token that is wanted.

    Attributes:
        origin: The registry's, which has challenged.
        host: What it is called where credentials are looked up.
        challenge: What it has said: the realm, and the service.
        credential: Who wants it; None is nobody.
        scope: What it has to grant.
        newer_than: The number of the token before which none will do.
    """

    origin: Origin
    host: str
    challenge: Challenge
    credential: Credential | None
    scope: Scope
    newer_than: int


@final
class TokenDesk:
    """Grants wishes. Shared by threads.

    Args:
        transport: What token servers are asked through.
        trusted_realms: See `AuthTransport`.
        source_name: What messages call the source of credentials.

    Attributes:
        tokens: Those that were granted.

    Raises:
        UsageError: A host or an origin of `trusted_realms` is not valid.
    """

    def __init__(
        self, transport: Transport, *, trusted_realms: Mapping[str, Collection[str]], source_name: str
    ) -> None:
        self._transport = transport
        self._trusted = _trusted(trusted_realms)
        self._source_name = source_name
        self._flights: Flights[Token] = Flights("a token")
        self.tokens = Tokens()

    def grant(self, wish: Wish, waiting: Request) -> tuple[Token, bool]:
        """A token, and whether it had to be asked for, by this thread or by another.

        Args:
            wish: Which.
            waiting: The request that waits for it.

        Raises:
            AuthError: It is not to be had, or must not be asked for.
        """
        holder = Holder(wish.origin, wish.credential)

        def find() -> Token | None:
            return self.tokens.find(holder, wish.scope, newer_than=wish.newer_than)

        def fetch() -> Token:
            token = self._exchange(wish, waiting)
            self.tokens.keep(holder, token)
            return token

        found = find()
        if found is not None:
            return found, False
        return self._flights.fetch((holder, wish.scope), wish.scope, find, fetch, waiting.info.deadline), True

    def _exchange(self, wish: Wish, waiting: Request) -> Token:
        exchange = Exchange(
            host=wish.host,
            realm=check_realm(wish.challenge.params["realm"], wish.origin, self._trusted.get(wish.host, ())),
            service=wish.challenge.params.get("service"),
            scope=wish.scope,
            credential=wish.credential,
            source_name=self._source_name,
        )
        scope = one_line(str(wish.scope), _LONGEST_SCOPE) or "a token without a scope"
        _LOG.debug("%s is asked for %s", exchange.server, scope)
        asked_at = time.monotonic()
        response = self._ask(exchange, exchange.request(waiting))
        if exchange.posts and exchange.must_get(response):
            response.discard()
            response = self._ask(exchange, exchange.request(waiting, get=True))
        try:
            return exchange.token(response, asked_at)
        finally:
            response.discard()

    def _ask(self, exchange: Exchange, request: Request) -> Response:
        try:
            return self._transport.round_trip(request)
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
