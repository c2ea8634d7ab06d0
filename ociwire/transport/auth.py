"""Authenticate requests: by Bearer tokens (the distribution project's token specifications) or by Basic (RFC 7617).

A request is first sent without authorization, or, once the registry has challenged, with a token for
`RequestInfo.required_scope`. The first row that matches the response decides (`_AuthAttempt._next_authorization`):

========  ======================  =============================  ==================================================
status    sent                    challenge                      next
========  ======================  =============================  ==================================================
400       a cached token, by GET  any                            a fresh token (public.ecr.aws)
401       a cached token          within the token's, or none    a fresh token
401       a fresh token           smaller than the token's       token for the challenge's scope alone
401       a fresh token           the token's, or none           return the response
401       any token               not within the token's         token for exactly what the challenge names
401       nothing                 Bearer, the same repository    token for the challenge's and the required scope
401       nothing                 Bearer, another repository     token for the challenge's scope alone
401       nothing                 Basic                          user name and password
401       Basic                   Bearer                         token for the challenge's scope
401       Basic, registry token   Basic, or none                 look the credential up again; repeat if it changed
403, 404  nothing, or a token     not within the token's         as 401 (RFC 6750, ``insufficient_scope``)
403, 404  nothing                 none                           probe ``GET /v2/``; repeat with credentials
403       any credential          none, or within the token's    refresh the credential; repeat if it changed (ECR)
any       any                     any                            return the response
========  ======================  =============================  ==================================================

A challenge is within a token's if it names the same realm and service and no other scope.

A token that is requested ahead of a challenge is a guess. If the token server refuses it, the request is sent without a
token, and the challenge decides.

A request is sent at most three times, and at most two requests are sent to token servers for it. A secret that was
answered 401 is not sent to the same realm or registry again. A request is not repeated if its single-use body is partly
consumed, nor if the response comes from another origin than the registry's.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import final

from .._http.messages import Request, Response, redactor_of, with_redactor
from .._http.status import is_temporary_status
from .._http.transport import Transport
from .._http.urls import Origin
from .._oci.reference import registry_name
from .._oci.scope import Scope
from .._text import sanitize
from ..auth._challenge_cache import AcceptedChallenge, ChallengeCache
from ..auth._credential_cache import CredentialCache, CredentialKey, LookupResult
from ..auth._single_flight import copy_error
from ..auth._token_cache import Token
from ..auth._token_provider import TokenProvider, TokenRequest
from ..auth.challenge import Challenge
from ..auth.credentials import Credential, CredentialSource, first_repository
from ..errors import AuthError, AuthTimeout, CredentialsRejected
from .base import with_request

__all__ = ["AuthTransport"]

_LOG = logging.getLogger("ociwire.auth")
_MAX_SENDS = 3
_MAX_TOKEN_REQUESTS = 2
_MAX_SERVER_READ_AHEAD = 256 * 1024
_MAX_SHOWN_SCOPE = 200


@final
class AuthTransport:
    """Authenticates requests for the scope that they need, and answers the registry's challenges.

    A request that has an Authorization header passes unchanged. A request that needs no scope is sent without
    credentials until it is challenged. Thread-safe: threads that need the same token share one token request.

    Args:
        inner: The transport to wrap.
        credentials: The credential source; see `ociwire.auth`.
        token_transport: The transport for token requests; the caller closes it. Defaults to `inner`.
        trusted_realms: For a registry's ``host[:port]``, the origins of token servers that are allowed for it although
            `origin_policy` would refuse them: ``{"registry.corp": ["http://auth.corp:8080"]}``.
        probe_auth: Whether to send ``GET /v2/`` to an unknown registry before a single-use body of at most 256 KiB or
            of unknown length: some servers answer 401 only after they have read it. Defaults to False.

    Raises:
        UsageError: The credentials have no ``lookup`` method, or a host or an origin is not valid.
    """

    def __init__(
        self,
        inner: Transport,
        *,
        credentials: CredentialSource,
        token_transport: Transport | None = None,
        trusted_realms: Mapping[str, Collection[str]] | None = None,
        probe_auth: bool = False,
    ) -> None:
        self._inner = inner
        self._credentials = CredentialCache(credentials)
        self._challenges = ChallengeCache()
        self._tokens = TokenProvider(
            (inner if token_transport is None else token_transport).round_trip,
            trusted_realms=trusted_realms or {},
            source_name=self._credentials.source_name,
        )
        self._probe_auth = probe_auth

    def round_trip(self, request: Request, /) -> Response:
        """Send a request with the authorization that it needs, and again as the registry's challenge demands.

        Raises:
            AuthError: A credential source or a token server failed, or the token server must not be asked.
            CredentialsRejected: The token server refused the credentials.
            AuthTimeout: No token came in time.
        """
        if "authorization" in request.headers:
            return with_request(self._inner.round_trip(request), request)
        return _AuthAttempt(self, with_redactor(request)).run()

    def close(self) -> None:
        """Close the inner transport. Idempotent."""
        self._inner.close()


@dataclass(frozen=True, slots=True)
class _Authorization:
    """What a request is authorized with: nothing, a token, or a credential itself (Basic, or a registry token)."""

    header: str = field(default="", repr=False)
    credential: Credential | None = None  # None for an anonymous token, too
    token: Token | None = None
    token_request: TokenRequest | None = None  # what the token was requested for
    fresh: bool = False  # whether the token was granted during this request

    @property
    def is_credential(self) -> bool:
        """Whether the header holds the credential itself."""
        return self.token is None and bool(self.header)

    def secrets(self) -> tuple[str, ...]:
        """The header's value after its scheme, and the secrets of the credential."""
        return (self.header.partition(" ")[2], *(() if self.credential is None else self.credential.secrets()))


_NO_AUTHORIZATION = _Authorization()


class _AuthAttempt:
    """One request on its way through the layer."""

    _sends = 0
    _token_requests = 0
    _sent_at = 0.0  # value of `time.monotonic` when the request was last sent
    _credential_cached: bool | None = None  # whether the credential was in the cache before this request
    _reloaded = False
    _lookup_result: LookupResult | None = None  # the last one of the credential source
    _probed = False
    _preemptive_token_rejected = False  # no token could be obtained ahead of the challenge
    _accepted: AcceptedChallenge | None = None  # to remember if the next response is not a refusal

    def __init__(self, layer: AuthTransport, request: Request) -> None:
        self._layer, self._request = layer, request
        self._credentials, self._challenges, self._tokens = layer._credentials, layer._challenges, layer._tokens
        self._required = request.info.required_scope
        self._origin = origin = Origin.of(request.url)
        self._key = CredentialKey(_lookup_name(origin), first_repository(self._required))
        # A source is asked for REGISTRY:443 as for REGISTRY, whose credential must not be sent in clear text to the
        # port of https: the scheme decides which port is the default.
        self._anonymous = request.info.anonymous or (origin.scheme == "http" and origin.port == 443)
        self._refused_headers: set[str] = set()  # Basic and registry tokens
        self._refusals: list[tuple[TokenRequest, AuthError]] = []

    def run(self) -> Response:
        """Send the request until the response is the result."""
        authorization = self._initial_authorization()
        while True:
            request = self._request
            if authorization is not _NO_AUTHORIZATION:
                # A later response may repeat this token after another one was sent, or the password behind it.
                redactor_of(request).add(authorization)
                request = request.with_headers({"Authorization": authorization.header})
            self._sent_at = time.monotonic()
            self._sends += 1
            response = with_request(self._layer._inner.round_trip(request), request)
            next_authorization = None
            if response.status in (400, 401, 403, 404):
                try:
                    next_authorization = self._reauthenticate(authorization, response)
                    if (
                        next_authorization is None
                        and response.status in (401, 403)
                        and authorization.credential is None
                    ):
                        self._raise_helper_failure()
                except BaseException:
                    response.drain()
                    raise
            if next_authorization is None:
                self._remember_result(authorization, response.status)
                return response
            response.drain()
            authorization = next_authorization

    # Before the first response

    def _initial_authorization(self) -> _Authorization:
        """The authorization that the registry is known to require; nothing before its first challenge."""
        challenge = self._challenges.get(self._origin)
        if not self._required:
            if challenge is None or challenge.scheme != "bearer":
                return _NO_AUTHORIZATION
            # A token that was requested without a scope before. The source is not asked for it.
            cached = None if self._anonymous else self._credentials.get(self._key)
            credential = None if cached is None else cached.credential
            token_request = TokenRequest(self._origin, self._key.host, challenge, credential, Scope.EMPTY)
            token = self._tokens.get(token_request)
            if token is None:
                return _NO_AUTHORIZATION
            self._credential_cached = cached is not None
            return _Authorization(f"Bearer {token.value}", credential, token, token_request)
        credential = self._look_up_credential()
        if credential is None and self._is_write():
            self._raise_helper_failure()  # a push must not become anonymous because a helper failed
        if _is_registry_token(credential):
            return _from_credential(credential, "bearer")
        if challenge is None and self._needs_probe():
            challenge = self._probe_challenge()
        return self._authorize_preemptively(challenge, credential)

    def _is_write(self) -> bool:
        """Whether the request changes something, or belongs to an operation that does."""
        actions = {member.action for member in self._required if member.resource_type == "repository"}
        return self._request.method not in ("GET", "HEAD") or not actions.isdisjoint(("push", "delete", "*"))

    def _needs_probe(self) -> bool:
        """Whether a 401 could come too late for the request's body.

        Servers written in Go read up to 256 KiB of a body before they answer, with or without Expect: by then a
        single-use body is consumed. A longer body with a Content-Length is refused at once.
        """
        body = self._request.body
        if not self._layer._probe_auth or body is None or self._challenges.is_marked(self._origin, "open"):
            return False
        return body.single_use and body.length != 0 and (body.length or 0) <= _MAX_SERVER_READ_AHEAD

    def _probe_challenge(self) -> Challenge | None:
        """The challenge of ``GET /v2/`` (distribution specification, "Determining Support"); None if there is none."""
        self._probed = True
        agent = {name: value for name, value in self._request.headers.items() if name.lower() == "user-agent"}
        info = self._request.info.replace(required_scope=Scope.EMPTY, idempotent=None)
        response = self._layer._inner.round_trip(Request("GET", f"{self._origin}/v2/", agent, None, info))
        response.drain()
        if not self._is_from_registry(response):
            return None
        challenge = self._remember_challenge(response)
        if challenge is None and not is_temporary_status(response.status):
            self._challenges.mark(self._origin, "open")
        return challenge

    def _authorize_preemptively(self, challenge: Challenge | None, credential: Credential | None) -> _Authorization:
        """The authorization for a challenge that this request has not received; nothing if it cannot be known.

        Scope and realm are guesses, or were learned and may have changed. If the token server refuses them, the request
        is sent without a token, and the registry's challenge tells what is right.
        """
        if challenge is None:
            return _NO_AUTHORIZATION
        if challenge.scheme == "basic":
            return _from_credential(credential, "basic")
        if self._required == Scope.UNLIMITED:
            return _NO_AUTHORIZATION
        hidden = self._sends > 0  # the registry has answered 403 or 404
        guess = self._challenges.get_accepted(self._origin, self._required, self._request.url)
        if guess is None and not hidden and self._challenges.is_marked(self._origin, "unpredictable"):
            return _NO_AUTHORIZATION
        guess = guess or AcceptedChallenge(challenge, self._required)
        try:
            return self._authorize(guess.challenge, credential, guess.scope)
        except AuthError as error:
            if isinstance(error, AuthTimeout) or is_temporary_status(error.status):
                raise
            if hidden and error.status not in (400, 401, 403):
                raise  # the registry's 404 says nothing as long as the token server has not refused
            if not hidden and self._request.body is not None and self._request.body.single_use:
                raise  # the body could be consumed before the registry's challenge
            self._preemptive_token_rejected = True
            self._challenges.invalidate(self._origin, self._required)
            level = logging.WARNING if isinstance(error, CredentialsRejected) else logging.INFO
            _LOG.log(level, "%s; continuing without a token", error)
            return _NO_AUTHORIZATION

    # After a response

    def _reauthenticate(self, authorization: _Authorization, response: Response) -> _Authorization | None:
        """The authorization to repeat the request with; None if the response is the result."""
        status, is_read = response.status, self._request.method in ("GET", "HEAD")
        if not self._is_from_registry(response):
            return None  # a transport below followed a redirect: its target must not get this registry's credentials
        if status == 400 and (authorization.token is None or authorization.fresh or not is_read):
            return None
        challenge = None if status == 400 else self._remember_challenge(response)
        if challenge is None and status == 401 and authorization.is_credential:
            challenge = Challenge("basic")  # some gateways send no challenge with their 401
        next_authorization = self._next_authorization(authorization, response, challenge)
        if authorization.is_credential:
            self._refused_headers.add(authorization.header)
        # A credential that has changed in another field only is not sent again.
        if next_authorization is _NO_AUTHORIZATION or (
            next_authorization is not None and next_authorization.header in self._refused_headers
        ):
            return None
        return next_authorization

    def _next_authorization(
        self, authorization: _Authorization, response: Response, challenge: Challenge | None
    ) -> _Authorization | None:
        """What the table above says. A challenge that is not within the token's is beyond it, and so is Basic."""
        status, body = response.status, self._request.body
        is_covered = _covers(authorization, challenge)
        if is_covered and status in (400, 401) and authorization.token is not None:
            self._tokens.evict(authorization.token)

        is_exhausted = self._sends >= _MAX_SENDS or self._token_requests >= _MAX_TOKEN_REQUESTS
        if is_exhausted or (body is not None and not body.resendable):
            if status == 401 and authorization.fresh:
                self._credentials.invalidate(self._key, authorization.credential)
            if (
                status == 401
                and authorization is _NO_AUTHORIZATION
                and self._preemptive_token_rejected
                and challenge is not None
            ):
                # The refusal of the guess says more than the 401 to the request without a token.
                raise self._add_scopes(self._refusals[-1][1], _parse_scope(challenge))
            return None

        if is_covered and status in (400, 401):  # a token was sent for what the challenge names
            return self._replace_token(authorization, challenge)
        if challenge is not None and (status == 401 or not (is_covered or authorization.is_credential)):
            return self._answer_challenge(authorization, challenge, response)
        if authorization is _NO_AUTHORIZATION and status in (403, 404):  # without a challenge
            return self._authorize_after_denial()
        if authorization is not _NO_AUTHORIZATION and status == 403:
            return self._refresh_credential(authorization, challenge)
        return None

    def _replace_token(self, authorization: _Authorization, challenge: Challenge | None) -> _Authorization | None:
        """A token in place of one that was refused although it covers the challenge; None if no other can help."""
        if authorization.token is None or authorization.token_request is None:
            return None
        answered = challenge or authorization.token_request.challenge
        scope, challenge_scope = authorization.token.scope, _parse_scope(answered)
        if authorization.fresh:
            if challenge is None or not challenge_scope or challenge_scope == scope:
                # The source may have another the next time.
                self._credentials.invalidate(self._key, authorization.credential)
                return None
            scope = challenge_scope  # some token servers grant nothing if they refuse a part of what was requested
        elif self._required <= scope:  # which may be larger than this request needs
            scope = challenge_scope | self._required
        # Older tokens may have been revoked with the refused one.
        return self._authorize(answered, self._look_up_credential(), scope, not_before=self._sent_at)

    def _answer_challenge(
        self, authorization: _Authorization, challenge: Challenge, response: Response
    ) -> _Authorization | None:
        """The authorization for a challenge that the one sent before does not cover."""
        is_basic = challenge.scheme == "basic"
        if authorization.is_credential and (is_basic or _is_registry_token(authorization.credential)):
            credential = self._reload_credential(authorization.credential)
            if credential == authorization.credential:
                source = (credential and credential.source) or self._credentials.source_name
                _LOG.warning(
                    "%s refused the credentials from %s; public content may be available without them",
                    self._key.host,
                    source,
                )
                return None
        else:
            credential = self._look_up_credential()
        if is_basic or _is_registry_token(credential):
            replacement = _from_credential(credential, challenge.scheme)
            if replacement is _NO_AUTHORIZATION:
                self._credentials.invalidate(self._key, credential)  # the source may have one the next time
            return replacement
        response.drain()  # so that its connection can serve the token request
        scope, required = _parse_scope(challenge), self._required
        resources = {member[:2] for member in scope}
        if required != Scope.UNLIMITED:
            if authorization is not _NO_AUTHORIZATION or self._preemptive_token_rejected:
                scope = scope or required  # the guess was wrong: exactly what the challenge names
            elif not scope or not required or any(member[:2] in resources for member in required):
                scope = scope | required  # a push that is challenged for pull needs push next
            else:
                self._challenges.mark(self._origin, "unpredictable")
        return self._authorize(challenge, credential, scope)

    def _authorize_after_denial(self) -> _Authorization | None:
        """Authorization after 403 or 404 to a request without any: some registries hide private content that way."""
        if self._request.url == f"{self._origin}/v2/" or self._probed or self._preemptive_token_rejected:
            return None
        credential = self._look_up_credential()
        if credential is None or self._challenges.is_marked(self._origin, "open"):
            return None
        return self._authorize_preemptively(self._challenges.get(self._origin) or self._probe_challenge(), credential)

    def _refresh_credential(self, authorization: _Authorization, challenge: Challenge | None) -> _Authorization | None:
        """Another credential after 403: ECR answers 403 when a password has expired, after 12 hours.

        Only a credential that was cached can have expired; the source is asked at most once a minute.
        """
        if authorization.credential is None or not self._credential_cached or self._reloaded:
            return None
        self._reloaded = True
        credential = self._credentials.refresh(self._key, authorization.credential, self._request.info.deadline)
        if credential == authorization.credential:
            return None
        _LOG.info("%s answered 403; the credential has changed since", self._key.host)
        self._tokens.evict_credential(self._origin, authorization.credential)
        if challenge is None:
            challenge = (
                self._challenges.get(self._origin)
                if authorization.token_request is None
                else authorization.token_request.challenge
            )
        is_basic = authorization.header.startswith("Basic ") or _is_registry_token(credential)
        if challenge is None or challenge.scheme == "basic" or is_basic:
            return _from_credential(credential, "basic")
        scope = self._required if authorization.token is None else authorization.token.scope
        return None if scope == Scope.UNLIMITED else self._authorize(challenge, credential, scope)

    # Credentials, tokens and challenges

    def _look_up_credential(self) -> Credential | None:
        if self._anonymous:
            return None
        cached = self._credentials.get(self._key)
        if self._credential_cached is None:
            self._credential_cached = cached is not None
        self._lookup_result = cached or self._credentials.lookup(self._key, self._request.info.deadline)
        return self._lookup_result.credential

    def _reload_credential(self, rejected: Credential | None) -> Credential | None:
        """The source's credential after a rejection; the same one if the source has no other."""
        if self._anonymous or self._reloaded:
            return rejected
        self._reloaded = True
        self._credentials.invalidate(self._key, rejected)
        return self._look_up_credential()

    def _raise_helper_failure(self) -> None:
        """Raise the failure of a credential helper, if there is no credential because of it."""
        if self._lookup_result is not None and self._lookup_result.failure is not None:
            # A copy: the source keeps its exception, whose traceback would grow with each request.
            raise copy_error(self._lookup_result.failure)

    def _authorize(
        self, challenge: Challenge, credential: Credential | None, scope: Scope, *, not_before: float = -math.inf
    ) -> _Authorization:
        """A token for a scope, cached or requested.

        If the token server refuses a scope that is larger than the challenge's (400, 403), the challenge's scope alone
        is requested. If it refuses the credential, the source is asked again, and its answer sent if it differs.
        """
        while True:
            token_request = TokenRequest(self._origin, self._key.host, challenge, credential, scope, not_before)
            token = self._tokens.get(token_request)
            fresh = token is None
            try:
                if token is None:
                    token = self._fetch_token(token_request)
            except AuthError as error:
                challenge_scope = _parse_scope(challenge)
                is_rejection = isinstance(error, CredentialsRejected)
                if is_rejection and credential is None:
                    self._raise_helper_failure()
                if self._token_requests >= _MAX_TOKEN_REQUESTS:
                    raise self._add_scopes(error, challenge_scope) from error.__cause__
                refuses_scope = error.status == 403 or (error.status == 400 and not is_rejection)
                if refuses_scope and challenge_scope and challenge_scope != scope and challenge_scope <= scope:
                    scope = challenge_scope
                    continue
                rejected = credential
                credential = self._reload_credential(rejected) if is_rejection else rejected
                if credential == rejected:
                    raise self._add_scopes(error, challenge_scope) from error.__cause__
                _LOG.info("%s; the source has another one now", error)
            else:
                self._accepted = AcceptedChallenge(challenge, scope)
                return _Authorization(f"Bearer {token.value}", credential, token, token_request, fresh)

    def _fetch_token(self, token_request: TokenRequest) -> Token:
        for refused, error in self._refusals:
            # Neither the same request again, nor a secret again to the realm that has rejected it.
            is_rejection = isinstance(error, CredentialsRejected) and error.status != 403
            same_realm = token_request.key.realm == refused.key.realm
            if (token_request.key, token_request.scope) == (refused.key, refused.scope) or (
                is_rejection and same_realm and _share_secret(token_request.credential, refused.credential)
            ):
                raise error
        if not self._take_token_request():  # the callers check it first, and have a better error or the response
            raise AuthError(f"{self._key.host} needs more than {_MAX_TOKEN_REQUESTS} token requests for one request")
        try:
            return self._tokens.fetch(token_request, self._request, self._take_token_request)
        except AuthError as error:
            self._refusals.append((token_request, error))
            raise

    def _take_token_request(self) -> bool:
        """Count a request to a token server; False if there have been as many as are allowed."""
        if self._token_requests >= _MAX_TOKEN_REQUESTS:
            return False
        self._token_requests += 1
        return True

    def _add_scopes(self, error: AuthError, challenge_scope: Scope) -> AuthError:
        """A token server's refusal, with the requested scopes and that of the registry's challenge, if they differ."""
        requested = dict.fromkeys(token_request.scope for token_request, _ in self._refusals)
        if not error.status or list(requested) == [challenge_scope]:
            return error
        redactor = redactor_of(self._request)
        scopes = [
            repr(sanitize(redactor.redact_text(str(scope)), _MAX_SHOWN_SCOPE))
            for scope in (*requested, challenge_scope)
        ]
        ending = f"; the registry's challenge names {scopes[-1]}" if challenge_scope else ""
        copied = copy_error(error)
        if copied is error:
            return error  # it cannot be copied, and its owner may raise it again
        copied.args = (f"{error}. Requested scope: {', then '.join(scopes[:-1])}{ending}",)
        return copied

    def _is_from_registry(self, response: Response) -> bool:
        return response.request is None or Origin.of(response.request.url) == self._origin

    def _remember_challenge(self, response: Response) -> Challenge | None:
        """The challenge to answer: Bearer is preferred to Basic. Remembered for its origin."""
        if "www-authenticate" not in response.headers:
            return None
        challenges = Challenge.parse(*response.headers.get_all("www-authenticate"))
        bearer = (challenge for challenge in challenges if challenge.scheme == "bearer" and "realm" in challenge.params)
        basic = (challenge for challenge in challenges if challenge.scheme == "basic")
        chosen = next(bearer, None) or next(basic, None)
        if chosen is not None:
            self._challenges.put(self._origin, chosen)
        return chosen

    def _remember_result(self, authorization: _Authorization, status: int) -> None:
        required = self._required
        if authorization is _NO_AUTHORIZATION and status < 300:
            if self._preemptive_token_rejected:  # with a wrong password, each further guess would be a failed login
                self._challenges.mark(self._origin, "unpredictable")
            if any(member.action == "push" for member in required):  # an anonymous pull says nothing about pushes
                self._challenges.mark(self._origin, "open")
        # A request without a scope of its own says nothing about the next one, which may be for another repository.
        is_specific = bool(required) and required != Scope.UNLIMITED
        if self._accepted is not None and self._sends > 1 and is_specific and status not in (400, 401, 403):
            self._challenges.put_accepted(self._origin, required, self._request.url, self._accepted)


@lru_cache(maxsize=1024)
def _lookup_name(origin: Origin) -> str:
    """The host that is passed to a credential source."""
    return registry_name(origin.netloc)


def _parse_scope(challenge: Challenge) -> Scope:
    return Scope.parse(challenge.params.get("scope", ""))


def _covers(authorization: _Authorization, challenge: Challenge | None) -> bool:
    """Whether a token was sent that covers a challenge: its scope, realm and service. Without a challenge it does."""
    if authorization.token is None or authorization.token_request is None:
        return False
    if challenge is None:
        return True
    if (
        challenge.scheme != "bearer"
        or replace(authorization.token_request, challenge=challenge).key != authorization.token_request.key
    ):
        return False
    return _parse_scope(challenge) <= authorization.token.scope


def _share_secret(first: Credential | None, second: Credential | None) -> bool:
    if first is None or second is None:
        return first is second
    return not set(first.secrets()).isdisjoint(second.secrets())


def _is_registry_token(credential: Credential | None) -> bool:
    return credential is not None and credential.registry_token is not None


def _from_credential(credential: Credential | None, scheme: str) -> _Authorization:
    """The authorization that a credential gives without a token server; nothing if it has none for a scheme."""
    if credential is not None and credential.registry_token is not None:
        return _Authorization(f"Bearer {credential.registry_token}", credential)
    if credential is not None and credential.basic is not None and scheme == "basic":
        return _Authorization(credential.basic, credential)
    return _NO_AUTHORIZATION
