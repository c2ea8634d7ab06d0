"""Authorize one request: look up its credential, and obtain the token or header that answers a challenge.

For each request, at most two token requests are sent, and the credential is looked up again at most once. A secret that
was refused with 401 is not sent to the same realm or registry again. A failed token request is not repeated.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import lru_cache
from typing import final

from .._http.messages import Request
from .._http.urls import Origin
from .._oci.reference import registry_name
from .._oci.scope import Scope
from ..errors import AuthError, CredentialsRejected
from ._credential_cache import CredentialCache, CredentialKey, LookupResult
from ._single_flight import copy_error
from ._token_provider import Token, TokenKey, TokenProvider, TokenRequest
from .challenge import Challenge
from .credentials import Credential, first_repository

__all__ = ["Authorization", "Authorizer", "parse_scope"]

_LOG = logging.getLogger("ociwire.auth")
_MAX_TOKEN_REQUESTS = 2
_MIN_AGE_AT_403 = 60.0
"""Minimum age in seconds at which a credential is considered expired after a 403, and is looked up again."""


@final
@dataclass(frozen=True, slots=True)
class Authorization:
    """Value of the Authorization header of a request, and its origin: a token, or a credential (Basic, registry token).

    An empty header means that the request is sent without authorization.
    """

    challenge: Challenge  # the challenge that the authorization answers
    header: str = field(default="", repr=False)
    credential: Credential | None = None  # also None for an anonymous token
    scope: Scope = Scope.EMPTY  # the scope for which a token was needed; the token's scope may be larger
    token: Token | None = None
    fresh: bool = False  # whether the token was obtained during this request, not from the cache

    def secrets(self) -> tuple[str, ...]:
        """Return the header's value without its scheme, and the secrets of the credential."""
        return (self.header.partition(" ")[2], *(() if self.credential is None else self.credential.secrets()))


@final
class Authorizer:
    """Authorizes one request. The credentials and tokens are shared with other requests."""

    _token_requests = 0
    _renewed = False  # whether the credential was looked up again
    _lookup_result: LookupResult | None = None

    def __init__(self, credentials: CredentialCache, tokens: TokenProvider, request: Request, origin: Origin) -> None:
        self._credentials, self._tokens, self._request, self._origin = credentials, tokens, request, origin
        self._key = CredentialKey(_lookup_name(origin), first_repository(request.info.required_scope))
        # Sources look up REGISTRY:443 as REGISTRY. Do not send its credential to the https port in clear text.
        self._anonymous = request.info.anonymous or (origin.scheme == "http" and origin.port == 443)
        self._refused: dict[tuple[object, object], AuthError | None] = {}  # token requests, and (realm, secret) pairs
        self._refused_scopes: list[Scope] = []

    @property
    def is_exhausted(self) -> bool:
        """Whether no other token request may be sent."""
        return self._token_requests >= _MAX_TOKEN_REQUESTS

    def look_up(self) -> Credential | None:
        """Return the credential from the cache or the source; `None` for anonymous access."""
        if self._anonymous:
            return None
        self._lookup_result = self._credentials.lookup(self._key, self._request.info.deadline)
        return self._lookup_result.credential

    def raise_failure(self) -> None:
        """Raise the failure of a credential helper, if there is no credential because the helper failed."""
        if self._lookup_result is not None and self._lookup_result.failure is not None:
            # Raise a copy: the source caches the exception, and its traceback would grow with each request.
            raise copy_error(self._lookup_result.failure)

    def invalidate(self, credential: Credential | None) -> None:
        """Remove a credential from the cache, so that the source is called again for the next request."""
        self._credentials.invalidate(self._key, credential)

    def reauthorize(self, sent: Authorization, challenge: Challenge, status: int, scope: Scope) -> Authorization | None:
        """Look up the credential again after a 401 or 403; return the authorization if it has changed, else `None`.

        ECR responds with 403 after a password has expired (after 12 hours). Most other 403 responses mean that the user
        lacks a permission. Therefore, after a 403, the source is not called if it returned the credential within the
        last minute.
        """
        if sent.credential is None:
            return None
        credential = self._renew(sent.credential, min_age=0.0 if status == 401 else _MIN_AGE_AT_403)
        if credential != sent.credential:
            _LOG.info("%s answered with status %d; the credentials have changed since", self._key.host, status)
            return self.authorize(challenge, credential, scope)
        if status == 401:
            source = credential.source or self._credentials.source_name
            message = "%s refused the credentials from %s; public content may be available without them"
            _LOG.warning(message, self._key.host, source)
        return None

    def authorize(
        self,
        challenge: Challenge,
        credential: Credential | None,
        scope: Scope,
        *,
        reuse: bool = True,
        is_preemptive: bool = False,
    ) -> Authorization | None:
        """Return the authorization that answers a challenge; `None` if the credential provides none that may be sent.

        If the token server refuses the token request, a second request is sent, either for the scope of the challenge
        alone, or with the credential that a second look-up returns.

        Args:
            challenge: The challenge.
            credential: The credential, or `None` for an anonymous token.
            scope: Scope for which the token is needed.
            reuse: Whether a cached token with a larger scope may be used. Defaults to true.
            is_preemptive: Whether the challenge was not received in response to this request. If true, the credential
                stays in the cache, even if it provides no authorization for the challenge. Defaults to false.

        Raises:
            AuthError: The token server failed, or refused both requests.
        """
        try:
            authorization = self._authorize_once(challenge, credential, scope, reuse=reuse)
        except AuthError as error:
            if self.is_exhausted:
                raise
            challenge_scope, is_rejection = parse_scope(challenge), isinstance(error, CredentialsRejected)
            refuses_scope = error.status == 403 or (error.status == 400 and not is_rejection)
            rejected = credential
            if refuses_scope and challenge_scope and challenge_scope != scope:
                scope = challenge_scope
            elif not is_rejection or (credential := self._renew(rejected)) == rejected:
                raise
            authorization = self._authorize_once(challenge, credential, scope, reuse=reuse)
        if authorization is None and not is_preemptive:
            self.invalidate(credential)
        return authorization

    def record_refusal(self, sent: Authorization) -> None:
        """Record that the registry refused an authorization, so that its token or credential is not sent again."""
        if sent.token is not None:
            self._tokens.evict(sent.token)
        elif sent.header:
            self._refused[self._origin, sent.header] = None

    def _renew(self, used: Credential | None, *, min_age: float = 0.0) -> Credential | None:
        """Look up the credential again after a refusal; the result may be the same credential."""
        if self._anonymous or self._renewed:
            return used
        self._renewed = True
        self._lookup_result = self._credentials.renew(self._key, used, self._request.info.deadline, min_age=min_age)
        return self._lookup_result.credential

    def _authorize_once(
        self, challenge: Challenge, credential: Credential | None, scope: Scope, *, reuse: bool
    ) -> Authorization | None:
        registry_token = None if credential is None else credential.registry_token
        if registry_token is not None or challenge.scheme == "basic":
            basic = None if credential is None else credential.basic
            header = basic or "" if registry_token is None else f"Bearer {registry_token}"
            # Compare the headers: a credential that differs only in other fields would be refused again.
            is_usable = bool(header) and (self._origin, header) not in self._refused
            return Authorization(challenge, header, credential) if is_usable else None

        key = TokenKey.from_challenge(self._origin, credential, challenge)
        token = self._tokens.get(key, scope) if reuse else None
        if token is not None:
            return Authorization(challenge, f"Bearer {token.value}", credential, scope, token)
        secrets = [(key.realm, secret) for secret in (() if credential is None else credential.secrets())]
        for entry in ((key, scope), *secrets):
            if (refusal := self._refused.get(entry)) is not None:
                raise refusal
        self._token_requests += 1
        refused_scopes = tuple(self._refused_scopes)
        token_request = TokenRequest(key, scope, self._key.host, parse_scope(challenge), refused_scopes)
        try:
            token = self._tokens.fetch(token_request, self._request)
        except AuthError as error:
            self._refused[key, scope] = error
            self._refused_scopes.append(scope)
            if isinstance(error, CredentialsRejected) and credential is None:
                self.raise_failure()
            if isinstance(error, CredentialsRejected) and error.status != 403:
                self._refused.update(dict.fromkeys(secrets, error))
            raise
        return Authorization(challenge, f"Bearer {token.value}", credential, scope, token, fresh=True)


def parse_scope(challenge: Challenge) -> Scope:
    """Return the scope that a challenge names; empty if it names none."""
    return Scope.parse(challenge.params.get("scope", ""))


@lru_cache(maxsize=1024)
def _lookup_name(origin: Origin) -> str:
    """Return the host that is passed to a credential source."""
    return registry_name(origin.netloc)
