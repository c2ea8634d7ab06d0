"""Authenticate requests: by Bearer tokens (the distribution project's token specifications) or by Basic (RFC 7617).

A request is first sent without authorization, or, once the registry has challenged, with a token for
`RequestInfo.required_scope`. The next step depends on the response:

========  ======================  =============================  ==================================================
status    sent                    challenge                      next
========  ======================  =============================  ==================================================
401       nothing                 Bearer, the same repository    token for the challenge's and the required scope
401       nothing                 Bearer, another repository     token for the challenge's scope alone
401       nothing                 Basic                          user name and password
401       a cached token          within the token's, or none    a fresh token
401       any token               not within the token's         a token for exactly what the challenge names
401       a fresh token           smaller than the token's       token for the challenge's scope alone
401       a fresh token           the token's, or none           return the response
401       Basic, registry token   Basic, or none                 look the credential up again; repeat if it changed
401       Basic                   Bearer                         token for the challenge's scope
400       a cached token, by GET  any                            a fresh token (public.ecr.aws)
403       any credential          none, or within the token's    refresh the credential; repeat if it changed (ECR)
403, 404  nothing, or a token     not within the token's         as 401 (RFC 6750, ``insufficient_scope``)
403, 404  nothing                 none                           probe ``GET /v2/``; repeat with credentials
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
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import final

from .._http.messages import Request, Response, exchange_redactor, redactor_of, with_redactor
from .._http.transport import Transport
from .._http.urls import Origin
from .._oci.reference import registry_name
from .._oci.scope import Scope
from .._text import sanitize
from ..auth._challenge_cache import ChallengeCache, LearnedChallenge
from ..auth._credential_cache import CredentialCache, CredentialKey
from ..auth._single_flight import copy_of
from ..auth._token_cache import Token, TokenKey
from ..auth._token_provider import TokenProvider, TokenRequest
from ..auth.challenge import Challenge
from ..auth.credentials import Credential, CredentialSource, first_repository
from ..errors import AuthError, AuthTimeout, CredentialsRejected

__all__ = ["AuthTransport"]

_LOG = logging.getLogger("ociwire.auth")
_MAX_SENDS = 3
_MAX_TOKEN_REQUESTS = 2
_READ_BY_SERVERS = 256 * 1024
_MAX_SHOWN_SCOPE = 200


@dataclass(frozen=True, slots=True)
class _Authorization:
    """The Authorization header of a request, and its origin.

    Attributes:
        header: The value of the Authorization header.
        credential: The credential that was used; None for an anonymous token.
        token: The token in the header; None if the header holds the credential itself.
        key: The token's key in the cache.
        challenge: The challenge that named the token's realm and service.
        fresh: Whether the token was granted during this request.
    """

    header: str = field(repr=False)
    credential: Credential | None
    token: Token | None = None
    key: TokenKey | None = None
    challenge: Challenge | None = None
    fresh: bool = False

    def secrets(self) -> tuple[str, ...]:
        """The header's value after its scheme, and the secrets of the credential."""
        return (self.header.partition(" ")[2], *(() if self.credential is None else self.credential.secrets()))


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A token request that failed.

    Attributes:
        key: Token server and credential.
        scope: The scope that was requested.
        error: Why it failed.
    """

    key: TokenKey
    scope: Scope
    error: AuthError

    def forbids(self, wanted: TokenRequest) -> bool:
        """Whether a token request would repeat this one, or send a secret again to the realm that has rejected it."""
        key = wanted.key
        if (key, wanted.scope) == (self.key, self.scope):
            return True
        is_rejection = isinstance(self.error, CredentialsRejected) and self.error.status != 403
        return is_rejection and key.realm == self.key.realm and _share_secret(key.credential, self.key.credential)


@dataclass(slots=True)
class _AuthAttempt:
    """One request on its way through the layer."""

    request: Request
    origin: Origin
    key: CredentialKey
    sends: int = 0
    refused_headers: set[str] = field(default_factory=set)  # Basic or a registry token
    token_requests: int = 0
    tokens_before: int = 0  # sequence number of the newest token when the request was last sent
    credential_cached: bool | None = None  # whether the credential was in the cache before this request
    credential_renewed: bool = False  # the source was asked again during this request
    probed: bool = False
    helper_failure: AuthError | None = None  # why there is no credential
    refusals: list[_Refusal] = field(default_factory=list)
    guess_refused: bool = False  # no token could be obtained ahead of the challenge
    learned: LearnedChallenge | None = None  # to remember if the next response is not a refusal

    @property
    def required(self) -> Scope:
        return self.request.info.required_scope

    @property
    def deadline(self) -> float | None:
        return self.request.info.deadline

    @property
    def anonymous(self) -> bool:
        # A source is asked for REGISTRY:443 as for REGISTRY, whose credential must not be sent in clear text to the
        # port of https: the scheme decides which port is the default.
        return self.request.info.anonymous or (self.origin.scheme == "http" and self.origin.port == 443)

    @property
    def writes(self) -> bool:
        """Whether the request changes something, or belongs to an operation that does."""
        actions = {member.action for member in self.required if member.resource_type == "repository"}
        return self.request.method not in ("GET", "HEAD") or not actions.isdisjoint(("push", "delete", "*"))

    @property
    def can_resend(self) -> bool:
        return self.request.body is None or self.request.body.resendable

    @property
    def is_exhausted(self) -> bool:
        return self.sends >= _MAX_SENDS or self.token_requests >= _MAX_TOKEN_REQUESTS

    def may_request_token(self) -> bool:
        """Count an HTTP request to a token server; False if there have been as many as are allowed."""
        if self.token_requests >= _MAX_TOKEN_REQUESTS:
            return False
        self.token_requests += 1
        return True


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
        self._provider = TokenProvider(
            (inner if token_transport is None else token_transport).round_trip,
            trusted_realms=trusted_realms or {},
            source_name=self._credentials.source_name,
        )
        self._tokens = self._provider.tokens
        self._challenges = ChallengeCache()
        self._ask_first = probe_auth

    def round_trip(self, request: Request, /) -> Response:
        """Send a request with the authorization that it needs, and again as the registry's challenge demands.

        Raises:
            AuthError: A credential source or a token server failed, or the token server must not be asked.
            CredentialsRejected: The token server refused the credentials.
            AuthTimeout: No token came in time.
        """
        if "authorization" in request.headers:
            response = self._inner.round_trip(request)
            return response if response.request is not None else response.replace(request=request)
        origin = Origin.of(request.url)
        key = CredentialKey(_lookup_name(origin), first_repository(request.info.required_scope))
        request = with_redactor(request)
        attempt = _AuthAttempt(request, origin, key)
        authorization = self._initial_authorization(attempt)
        while True:
            sent = request if authorization is None else _authorized(request, authorization)
            attempt.tokens_before = self._tokens.latest
            response = self._inner.round_trip(sent)
            attempt.sends += 1
            status = response.status
            if status in (400, 401, 403, 404):
                try:
                    following = self._next_authorization(attempt, authorization, response)
                    is_anonymous = authorization is None or authorization.credential is None
                    if following is None and is_anonymous and status in (401, 403):
                        _raise_helper_failure(attempt)
                except BaseException:
                    response.drain()
                    raise
                if following is not None:
                    response.drain()
                    authorization = following
                    continue
            elif authorization is None and status < 300:
                self._remember_no_auth(attempt)
            if attempt.sends > 1 and status not in (400, 401, 403):
                self._remember_learned(attempt)
            return response if response.request is not None else response.replace(request=sent)

    def close(self) -> None:
        """Close the inner transport. Idempotent."""
        self._inner.close()

    # Authorization of the first request

    def _initial_authorization(self, attempt: _AuthAttempt) -> _Authorization | None:
        """The authorization that the registry is known to require; None before its first challenge."""
        challenge = self._challenges.get(attempt.origin)
        if not attempt.required:
            return self._cached_scopeless_token(attempt, challenge)
        credential = self._credential(attempt)
        if credential is None and attempt.writes:
            _raise_helper_failure(attempt)  # a push must not become anonymous because a helper failed
        if _is_registry_token(credential):
            return _from_credential(credential, "bearer")
        if challenge is None and self._needs_probe(attempt):
            challenge = self._probe_challenge(attempt)
        if challenge is None:
            return None
        if challenge.scheme == "basic":
            return _from_credential(credential, "basic")
        if attempt.required == Scope.UNLIMITED:
            return None
        learned = self._challenges.find(attempt.origin, attempt.required, attempt.request.url)
        if learned is None and self._challenges.is_unpredictable(attempt.origin):
            return None
        return self._authorize_ahead(attempt, learned or LearnedChallenge(challenge, attempt.required), credential)

    def _authorize_ahead(
        self, attempt: _AuthAttempt, guess: LearnedChallenge, credential: Credential | None
    ) -> _Authorization | None:
        """A token ahead of the challenge; None if the token server refuses it.

        Scope and realm are guesses, or were learned and may have changed. Only the registry's challenge tells whether
        they are right.
        """
        try:
            return self._authorize(attempt, guess.challenge, credential, guess.scope)
        except AuthError as error:
            single_use = attempt.request.body is not None and attempt.request.body.single_use
            if single_use or isinstance(error, AuthTimeout) or error.status >= 500 or error.status in (408, 429):
                raise
            attempt.guess_refused = True
            self._challenges.forget(attempt.origin, attempt.required)
            level = logging.WARNING if isinstance(error, CredentialsRejected) else logging.INFO
            _LOG.log(level, "%s; sending the request without a token", error)
            return None

    def _cached_scopeless_token(self, attempt: _AuthAttempt, challenge: Challenge | None) -> _Authorization | None:
        """A token that was requested without a scope before. No credential is looked up for it."""
        if challenge is None or challenge.scheme != "bearer":
            return None
        credential = None if attempt.anonymous else self._credentials.cached(attempt.key)
        key = self._token_request(attempt, challenge, credential, Scope.EMPTY).key
        token = self._tokens.find(key, Scope.EMPTY)
        if token is None:
            return None
        attempt.credential_cached = credential is not None
        return _Authorization(f"Bearer {token.value}", credential, token, key, challenge)

    def _needs_probe(self, attempt: _AuthAttempt) -> bool:
        """Whether a 401 could come too late for the request's body.

        Servers written in Go read up to 256 KiB of a body before they answer, with or without Expect: by then a
        single-use body is consumed. A longer body with a Content-Length is refused at once.
        """
        body = attempt.request.body
        if not self._ask_first or self._challenges.is_open(attempt.origin) or body is None:
            return False
        return body.single_use and body.length != 0 and (body.length or 0) <= _READ_BY_SERVERS

    def _probe_challenge(self, attempt: _AuthAttempt) -> Challenge | None:
        """The challenge of ``GET /v2/`` (distribution specification, "Determining Support"); None if there is none."""
        attempt.probed = True
        request = attempt.request
        agent = {name: value for name, value in request.headers.items() if name.lower() == "user-agent"}
        info = request.info.replace(required_scope=Scope.EMPTY, idempotent=None)
        response = self._inner.round_trip(Request("GET", f"{attempt.origin}/v2/", agent, None, info))
        response.drain()
        if not _is_from(response, attempt.origin):
            return None
        challenge = self._remember_challenge(attempt, response)
        if challenge is None and response.status < 500 and response.status not in (408, 429):
            self._challenges.mark_open(attempt.origin)
        return challenge

    def _remember_no_auth(self, attempt: _AuthAttempt) -> None:
        """Remember a registry that accepts an anonymous push. That it allows anonymous pulls says nothing.

        Remember also a registry that serves what its token server has refused a token for: with a wrong password,
        each further guess would be a failed login.
        """
        if attempt.guess_refused:
            self._challenges.mark_unpredictable(attempt.origin)
        if any(member.action == "push" for member in attempt.required):
            self._challenges.mark_open(attempt.origin)

    def _remember_learned(self, attempt: _AuthAttempt) -> None:
        # A request without a scope of its own says nothing about the next one, which may be for another repository.
        if attempt.learned is not None and attempt.required and attempt.required != Scope.UNLIMITED:
            self._challenges.learn(attempt.origin, attempt.required, attempt.request.url, attempt.learned)

    # Authorization after a response

    def _next_authorization(
        self, attempt: _AuthAttempt, used: _Authorization | None, response: Response
    ) -> _Authorization | None:
        """The authorization to repeat the request with; None if the response is the result."""
        following = self._follow(attempt, used, response)
        if used is not None and used.token is None:
            attempt.refused_headers.add(used.header)
        # A credential that has changed in another field only is not sent again.
        return None if following is None or following.header in attempt.refused_headers else following

    def _follow(self, attempt: _AuthAttempt, used: _Authorization | None, response: Response) -> _Authorization | None:
        """The authorization to repeat the request with, by the table above."""
        status = response.status
        if not _is_from(response, attempt.origin):
            return None  # a transport below followed a redirect: its target must not get this registry's credentials
        is_read = attempt.request.method in ("GET", "HEAD")
        if status == 400 and not (is_read and used is not None and used.token is not None and not used.fresh):
            return None
        offered = self._remember_challenge(attempt, response) if status != 400 else None
        if offered is None and status == 401 and used is not None and used.token is None:
            offered = Challenge("basic")  # some gateways send no challenge with their 401
        token = None if used is None else used.token
        covered = self._covers(attempt, used, offered)
        is_refused = covered and status in (400, 401)
        if is_refused and used is not None and used.key is not None and token is not None:
            self._tokens.evict(used.key, token)
        if not attempt.can_resend or attempt.is_exhausted:
            if status == 401:
                self._give_up(attempt, used, offered)
            return None
        if is_refused:
            return self._fresh_token(attempt, used, offered)
        if offered is not None and (status == 401 or used is None or (token is not None and not covered)):
            return self._answer_challenge(attempt, used, offered, response)
        if status in (403, 404) and used is None:
            return self._retry_with_credentials(attempt)
        return self._refresh_credential(attempt, used, offered) if status == 403 else None

    def _give_up(self, attempt: _AuthAttempt, used: _Authorization | None, offered: Challenge | None) -> None:
        """Raise the refusal of a guess if there is one: it says more than the 401 to the request without a token."""
        if used is not None and used.fresh:
            self._credentials.invalidate(attempt.key, used.credential)
        if used is None and attempt.guess_refused and offered is not None:
            raise _naming(attempt, attempt.refusals[-1], _scope_of(offered))

    def _answer_challenge(
        self, attempt: _AuthAttempt, used: _Authorization | None, offered: Challenge, response: Response
    ) -> _Authorization | None:
        """The authorization for a challenge that the one sent before does not cover."""
        if (
            used is not None
            and used.token is None
            and (offered.scheme == "basic" or _is_registry_token(used.credential))
        ):
            credential = self._look_up_again(attempt, used.credential)
            if credential == used.credential:
                self._log_rejection(attempt, credential)
                return None
        else:
            credential = self._credential(attempt)
        if offered.scheme == "basic" or _is_registry_token(credential):
            authorization = _from_credential(credential, offered.scheme)
            if authorization is None:
                self._credentials.invalidate(attempt.key, credential)  # the source may have one the next time
            return authorization
        response.drain()  # so that its connection can serve the token request
        scope = _scope_of(offered)
        if used is not None or attempt.guess_refused:
            # The guess was wrong: exactly what the challenge names.
            wanted = scope if scope or attempt.required == Scope.UNLIMITED else attempt.required
        elif attempt.required == Scope.UNLIMITED:
            wanted = scope
        elif not scope or not attempt.required or _share_resource(scope, attempt.required):
            wanted = scope | attempt.required  # a push that is challenged for pull needs push next
        else:
            wanted = scope
            self._challenges.mark_unpredictable(attempt.origin)
        return self._authorize(attempt, offered, credential, wanted)

    def _fresh_token(
        self, attempt: _AuthAttempt, used: _Authorization | None, offered: Challenge | None
    ) -> _Authorization | None:
        """A token in place of one that was refused although it covers the challenge; None if no other can help."""
        if used is None or used.token is None:
            return None
        challenge = offered or used.challenge  # the token's own: another repository's may name another realm
        if challenge is None:
            return None
        scope, named = used.token.scope, _scope_of(challenge)
        if used.fresh:
            if offered is None or not named or named == scope:
                self._credentials.invalidate(attempt.key, used.credential)  # the source may have another the next time
                return None
            scope = named  # some token servers grant nothing if they refuse a part of what was requested
        elif attempt.required <= scope:  # which may be larger than this request needs
            scope = named | attempt.required
        return self._authorize(attempt, challenge, self._credential(attempt), scope, renew=True)

    def _refresh_credential(
        self, attempt: _AuthAttempt, used: _Authorization | None, offered: Challenge | None
    ) -> _Authorization | None:
        """Another credential after 403: ECR answers 403 when a password has expired, after 12 hours.

        Only a credential that was cached can have expired; the source is asked at most once a minute.
        """
        if used is None or used.credential is None or not attempt.credential_cached or attempt.credential_renewed:
            return None
        attempt.credential_renewed = True
        credential = self._credentials.refresh(attempt.key, used.credential, attempt.deadline)
        if credential == used.credential:
            return None
        _LOG.info("%s answered 403; the credential has changed since", attempt.key.host)
        self._tokens.evict_credential(attempt.origin, used.credential)
        challenge = offered or used.challenge or self._challenges.get(attempt.origin)
        is_basic = used.header.startswith("Basic ") or _is_registry_token(credential)
        if challenge is None or challenge.scheme == "basic" or is_basic:
            return _from_credential(credential, "basic")
        scope = attempt.required if used.token is None else used.token.scope
        return None if scope == Scope.UNLIMITED else self._authorize(attempt, challenge, credential, scope)

    def _retry_with_credentials(self, attempt: _AuthAttempt) -> _Authorization | None:
        """Authorization after 403 or 404 to a request without any: some registries hide private content that way."""
        is_probe = attempt.request.url == f"{attempt.origin}/v2/"
        if attempt.anonymous or is_probe or attempt.probed or attempt.guess_refused:
            return None
        credential = self._credential(attempt)
        if credential is None or self._challenges.is_open(attempt.origin):
            return None
        challenge = self._challenges.get(attempt.origin) or self._probe_challenge(attempt)
        if challenge is None:
            return None
        if challenge.scheme == "basic":
            return _from_credential(credential, "basic")
        if attempt.required == Scope.UNLIMITED:
            return None
        try:
            return self._authorize(attempt, challenge, credential, attempt.required)
        except AuthError as error:
            if error.status not in (400, 401, 403):
                raise
            _LOG.warning("%s", error)  # the registry's own answer is the result
            return None

    # Credentials and tokens

    def _credential(self, attempt: _AuthAttempt) -> Credential | None:
        if attempt.anonymous:
            return None
        answer = self._credentials.find(attempt.key)
        if attempt.credential_cached is None:
            attempt.credential_cached = answer is not None
        if answer is None:
            answer = self._credentials.get_answer(attempt.key, attempt.deadline)
        attempt.helper_failure = answer.failure
        return answer.credential

    def _look_up_again(self, attempt: _AuthAttempt, rejected: Credential | None) -> Credential | None:
        """The source's credential after a rejection; the same one if the source has no other."""
        if attempt.anonymous or attempt.credential_renewed:
            return rejected
        attempt.credential_renewed = True
        return self._credentials.get_after_rejection(attempt.key, rejected, attempt.deadline)

    def _authorize(
        self,
        attempt: _AuthAttempt,
        challenge: Challenge,
        credential: Credential | None,
        scope: Scope,
        *,
        renew: bool = False,
    ) -> _Authorization:
        """A token for a scope, cached or requested.

        If the token server refuses a scope that is larger than the challenge's (400, 403), the challenge's scope alone
        is requested. If it refuses the credential, the source is asked again, and its answer sent if it differs.
        """
        refused: Scope | None = None
        while True:
            try:
                authorization = self._token(attempt, challenge, credential, scope, refused, renew=renew)
            except AuthError as error:
                if attempt.token_requests >= _MAX_TOKEN_REQUESTS:
                    raise
                refuses_scope = error.status == 403 or (
                    error.status == 400 and not isinstance(error, CredentialsRejected)
                )
                named = _scope_of(challenge)
                if refuses_scope and named and named != scope and named <= scope:
                    scope, refused = named, scope
                    continue
                if not isinstance(error, CredentialsRejected):
                    raise
                renewed = self._look_up_again(attempt, credential)
                if renewed == credential:
                    raise
                _LOG.info("%s; the source has another one now", error)
                credential = renewed
            else:
                attempt.learned = LearnedChallenge(challenge, scope)
                return authorization

    def _token(
        self,
        attempt: _AuthAttempt,
        challenge: Challenge,
        credential: Credential | None,
        scope: Scope,
        refused: Scope | None,
        *,
        renew: bool,
    ) -> _Authorization:
        newer_than = attempt.tokens_before if renew else 0  # older tokens may have been revoked with the refused one
        wanted = self._token_request(attempt, challenge, credential, scope, refused, newer_than)
        for refusal in attempt.refusals:
            if refusal.forbids(wanted):
                raise _naming(attempt, refusal, _scope_of(challenge))
        before = attempt.token_requests
        try:
            token, fetched = self._provider.get(wanted, attempt.request, attempt.may_request_token)
        except AuthError as error:
            attempt.token_requests = max(attempt.token_requests, before + 1)
            attempt.refusals.append(_Refusal(wanted.key, scope, error))
            if credential is None and isinstance(error, CredentialsRejected):
                _raise_helper_failure(attempt)
            raise
        if fetched:  # at least once: another thread may have requested it
            attempt.token_requests = max(attempt.token_requests, before + 1)
        return _Authorization(f"Bearer {token.value}", credential, token, wanted.key, challenge, fetched)

    def _token_request(
        self,
        attempt: _AuthAttempt,
        challenge: Challenge,
        credential: Credential | None,
        scope: Scope,
        refused: Scope | None = None,
        newer_than: int = 0,
    ) -> TokenRequest:
        return TokenRequest(attempt.origin, attempt.key.host, challenge, credential, scope, refused, newer_than)

    # Challenges

    def _remember_challenge(self, attempt: _AuthAttempt, response: Response) -> Challenge | None:
        """The challenge to answer: Bearer is preferred to Basic. Remembered for its origin."""
        if "www-authenticate" not in response.headers:
            return None
        challenges = Challenge.parse(*response.headers.get_all("www-authenticate"))
        bearer = next((one for one in challenges if one.scheme == "bearer" and "realm" in one.params), None)
        chosen = bearer or next((one for one in challenges if one.scheme == "basic"), None)
        if chosen is not None:
            self._challenges.put(attempt.origin, chosen)
        return chosen

    def _covers(self, attempt: _AuthAttempt, used: _Authorization | None, offered: Challenge | None) -> bool:
        """Whether the token that was sent is for the scope, realm and service of a challenge, if there is one."""
        if used is None or used.token is None:
            return False
        if offered is None:
            return True
        if offered.scheme != "bearer":
            return False
        same_server = self._token_request(attempt, offered, used.credential, Scope.EMPTY).key == used.key
        return same_server and _scope_of(offered) <= used.token.scope

    def _log_rejection(self, attempt: _AuthAttempt, credential: Credential | None) -> None:
        came_from = (credential and credential.source) or self._credentials.source_name
        _LOG.warning(
            "%s refused the credentials from %s; public content may be available without them",
            attempt.key.host,
            came_from,
        )


def _authorized(request: Request, authorization: _Authorization) -> Request:
    redactor = exchange_redactor(request.info)
    if redactor is not None:
        # A later response may repeat this token after another one was sent, or the password that it was obtained with.
        redactor.add(authorization)
    return request.with_headers({"Authorization": authorization.header})


@lru_cache(maxsize=1024)
def _lookup_name(origin: Origin) -> str:
    """The host that is passed to a credential source."""
    return registry_name(origin.netloc)


def _raise_helper_failure(attempt: _AuthAttempt) -> None:
    """Raise the failure of a credential helper, if there is no credential because of it."""
    if attempt.helper_failure is not None:
        # A copy: the source keeps its exception, whose traceback would grow with each request.
        raise copy_of(attempt.helper_failure)


def _naming(attempt: _AuthAttempt, refusal: _Refusal, challenged: Scope) -> AuthError:
    """A token server's refusal, which names the scope of the registry's challenge, too."""
    error = copy_of(refusal.error)
    if challenged and challenged != refusal.scope and refusal.error.status:
        shown = sanitize(redactor_of(attempt.request).text(str(challenged)), _MAX_SHOWN_SCOPE)
        error.args = (f"{error}. The registry's challenge names {shown!r}",)
    return error


def _share_secret(first: Credential | None, second: Credential | None) -> bool:
    if first is None or second is None:
        return first is second
    return not set(first.secrets()).isdisjoint(second.secrets())


def _is_from(response: Response, origin: Origin) -> bool:
    return response.request is None or Origin.of(response.request.url) == origin


def _scope_of(challenge: Challenge) -> Scope:
    return Scope.parse(challenge.params.get("scope", ""))


def _share_resource(first: Scope, second: Scope) -> bool:
    resources = {member[:2] for member in first}
    return any(member[:2] in resources for member in second)


def _is_registry_token(credential: Credential | None) -> bool:
    return credential is not None and credential.registry_token is not None


def _from_credential(credential: Credential | None, scheme: str) -> _Authorization | None:
    """The authorization that a credential gives without a token server; None if it has none for a scheme."""
    if credential is None:
        return None
    if credential.registry_token is not None:
        return _Authorization(f"Bearer {credential.registry_token}", credential)
    return None if scheme != "basic" or credential.basic is None else _Authorization(credential.basic, credential)
