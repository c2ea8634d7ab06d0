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
from dataclasses import dataclass, field, replace
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
from ..auth._single_flight import copy_error
from ..auth._token_cache import Token
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
        wanted: What the token was requested for.
        fresh: Whether the token was granted during this request.
    """

    header: str = field(repr=False)
    credential: Credential | None
    token: Token | None = None
    wanted: TokenRequest | None = None
    fresh: bool = False

    def secrets(self) -> tuple[str, ...]:
        """The header's value after its scheme, and the secrets of the credential."""
        return (self.header.partition(" ")[2], *(() if self.credential is None else self.credential.secrets()))


@dataclass(slots=True)
class _AuthAttempt:
    """One request on its way through the layer."""

    request: Request
    origin: Origin
    key: CredentialKey
    sends: int = 0
    token_requests: int = 0
    latest_token: int = 0  # sequence number of the newest token when the request was last sent
    refused_headers: set[str] = field(default_factory=set)  # Basic or a registry token
    refusals: list[tuple[TokenRequest, AuthError]] = field(default_factory=list)
    credential_cached: bool | None = None  # whether the credential was in the cache before this request
    looked_up_again: bool = False
    helper_failure: AuthError | None = None  # why there is no credential
    probed: bool = False
    guess_refused: bool = False  # no token could be obtained ahead of the challenge
    learned: LearnedChallenge | None = None  # to remember if the next response is not a refusal

    @property
    def required(self) -> Scope:
        return self.request.info.required_scope

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

    def may_request_token(self) -> bool:
        """Count a request to a token server; False if there have been as many as are allowed."""
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
            response = self._inner.round_trip(request)
            return response if response.request is not None else response.replace(request=request)
        origin = Origin.of(request.url)
        key = CredentialKey(_lookup_name(origin), first_repository(request.info.required_scope))
        request = with_redactor(request)
        attempt = _AuthAttempt(request, origin, key)
        authorization = self._initial_authorization(attempt)
        while True:
            sent = request
            if authorization is not None:
                redactor = exchange_redactor(request.info)
                if redactor is not None:
                    # A later response may repeat this token after another one was sent, or the password behind it.
                    redactor.add(authorization)
                sent = request.with_headers({"Authorization": authorization.header})
            attempt.latest_token = self._tokens.cache.latest
            attempt.sends += 1
            response = self._inner.round_trip(sent)
            if response.status in (400, 401, 403, 404):
                try:
                    following = self._next_authorization(attempt, authorization, response)
                except BaseException:
                    response.drain()
                    raise
                if following is not None:
                    response.drain()
                    authorization = following
                    continue
            self._remember_result(attempt, authorization, response.status)
            return response if response.request is not None else response.replace(request=sent)

    def close(self) -> None:
        """Close the inner transport. Idempotent."""
        self._inner.close()

    # Before the first response

    def _initial_authorization(self, attempt: _AuthAttempt) -> _Authorization | None:
        """The authorization that the registry is known to require; None before its first challenge."""
        challenge = self._challenges.get(attempt.origin)
        if not attempt.required:
            if challenge is None or challenge.scheme != "bearer":
                return None
            # A token that was requested without a scope before. The source is not asked for it.
            answer = None if attempt.anonymous else self._credentials.find(attempt.key)
            attempt.credential_cached = answer is not None
            credential = None if answer is None else answer.credential
            wanted = TokenRequest(attempt.origin, attempt.key.host, challenge, credential, Scope.EMPTY)
            token = self._tokens.find(wanted)
            return None if token is None else _Authorization(f"Bearer {token.value}", credential, token, wanted)
        credential = self._credential(attempt)
        if credential is None and attempt.writes:
            _raise_helper_failure(attempt)  # a push must not become anonymous because a helper failed
        if _is_registry_token(credential):
            return _from_credential(credential, "bearer")
        if challenge is None and self._needs_probe(attempt):
            challenge = self._probe_challenge(attempt)
        return self._authorize_ahead(attempt, challenge, credential)

    def _needs_probe(self, attempt: _AuthAttempt) -> bool:
        """Whether a 401 could come too late for the request's body.

        Servers written in Go read up to 256 KiB of a body before they answer, with or without Expect: by then a
        single-use body is consumed. A longer body with a Content-Length is refused at once.
        """
        body = attempt.request.body
        if not self._probe_auth or body is None or self._challenges.is_marked(attempt.origin, "open"):
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
            self._challenges.mark(attempt.origin, "open")
        return challenge

    def _authorize_ahead(
        self, attempt: _AuthAttempt, challenge: Challenge | None, credential: Credential | None
    ) -> _Authorization | None:
        """The authorization for a challenge that this request has not got yet; None if it cannot be known.

        Scope and realm are guesses, or were learned and may have changed. If the token server refuses them, the request
        is sent without a token, and the registry's challenge tells what is right.
        """
        if challenge is None or challenge.scheme == "basic":
            return None if challenge is None else _from_credential(credential, "basic")
        required, hidden = attempt.required, attempt.sends > 0  # hidden: the registry has answered 403 or 404
        if required == Scope.UNLIMITED:
            return None
        learned = self._challenges.find(attempt.origin, required, attempt.request.url)
        if learned is None and not hidden and self._challenges.is_marked(attempt.origin, "unpredictable"):
            return None
        try:
            guess = learned or LearnedChallenge(challenge, required)
            return self._authorize(attempt, guess.challenge, credential, guess.scope)
        except AuthError as error:
            if isinstance(error, AuthTimeout) or error.status >= 500 or error.status in (408, 429):
                raise
            body = attempt.request.body
            if (hidden and not error.status) or (not hidden and body is not None and body.single_use):
                raise  # without an answer of the token server, 404 could be wrong; a single-use body has one chance
            attempt.guess_refused = True
            self._challenges.forget(attempt.origin, required)
            level = logging.WARNING if isinstance(error, CredentialsRejected) else logging.INFO
            _LOG.log(level, "%s; continuing without a token", error)
            return None

    # After a response

    def _next_authorization(
        self, attempt: _AuthAttempt, sent: _Authorization | None, response: Response
    ) -> _Authorization | None:
        """The authorization to repeat the request with; None if the response is the result."""
        status = response.status
        if not _is_from(response, attempt.origin):
            return None  # a transport below followed a redirect: its target must not get this registry's credentials
        if status == 400:
            is_read = attempt.request.method in ("GET", "HEAD")
            if not is_read or sent is None or sent.token is None or sent.fresh:
                return None
        offered = None if status == 400 else self._remember_challenge(attempt, response)
        if offered is None and status == 401 and sent is not None and sent.token is None:
            offered = Challenge("basic")  # some gateways send no challenge with their 401
        following = self._follow_table(attempt, sent, offered, response)
        if following is None and status in (401, 403) and (sent is None or sent.credential is None):
            _raise_helper_failure(attempt)
        if sent is not None and sent.token is None:
            attempt.refused_headers.add(sent.header)
        # A credential that has changed in another field only is not sent again.
        return None if following is None or following.header in attempt.refused_headers else following

    def _follow_table(
        self, attempt: _AuthAttempt, sent: _Authorization | None, offered: Challenge | None, response: Response
    ) -> _Authorization | None:
        status, body = response.status, attempt.request.body
        token = None if sent is None else sent.token
        within = sent is not None and _is_within(offered, sent)
        if token is not None and within and status in (400, 401):
            self._tokens.cache.evict(token)
        is_exhausted = attempt.sends >= _MAX_SENDS or attempt.token_requests >= _MAX_TOKEN_REQUESTS
        if is_exhausted or (body is not None and not body.resendable):
            if status == 401 and sent is not None and sent.fresh:
                self._credentials.invalidate(attempt.key, sent.credential)
            if status == 401 and sent is None and attempt.guess_refused and offered is not None:
                # The refusal of the guess says more than the 401 to the request without a token.
                raise _with_scopes(attempt, attempt.refusals[-1][1], _scope_of(offered))
            return None
        if sent is not None and token is not None and within and status in (400, 401):
            return self._replace_token(attempt, sent, token, offered)
        if offered is not None and (status == 401 or sent is None or (token is not None and not within)):
            return self._answer_challenge(attempt, sent, offered, response)
        if sent is None:
            return self._authorize_hidden(attempt) if status in (403, 404) else None
        return self._refresh_credential(attempt, sent, offered) if status == 403 else None

    def _replace_token(
        self, attempt: _AuthAttempt, sent: _Authorization, token: Token, offered: Challenge | None
    ) -> _Authorization | None:
        """A token in place of one that was refused although it covers the challenge; None if no other can help."""
        challenge = offered or (
            None if sent.wanted is None else sent.wanted.challenge
        )  # another repository's may name another realm
        if challenge is None:
            return None
        scope, named = token.scope, _scope_of(challenge)
        if sent.fresh:
            if offered is None or not named or named == scope:
                self._credentials.invalidate(attempt.key, sent.credential)  # the source may have another the next time
                return None
            scope = named  # some token servers grant nothing if they refuse a part of what was requested
        elif attempt.required <= scope:  # which may be larger than this request needs
            scope = named | attempt.required
        # Older tokens may have been revoked with the refused one.
        return self._authorize(attempt, challenge, self._credential(attempt), scope, newer_than=attempt.latest_token)

    def _answer_challenge(
        self, attempt: _AuthAttempt, sent: _Authorization | None, offered: Challenge, response: Response
    ) -> _Authorization | None:
        """The authorization for a challenge that the one sent before does not cover."""
        sent_itself = sent is not None and sent.token is None
        if sent is not None and sent_itself and (offered.scheme == "basic" or _is_registry_token(sent.credential)):
            credential = self._look_up_again(attempt, sent.credential)
            if credential == sent.credential:
                _LOG.warning(
                    "%s refused the credentials from %s; public content may be available without them",
                    attempt.key.host,
                    (credential and credential.source) or self._credentials.source_name,
                )
                return None
        else:
            credential = self._credential(attempt)
        if offered.scheme == "basic" or _is_registry_token(credential):
            authorization = _from_credential(credential, offered.scheme)
            if authorization is None:
                self._credentials.invalidate(attempt.key, credential)  # the source may have one the next time
            return authorization
        response.drain()  # so that its connection can serve the token request
        return self._authorize(attempt, offered, credential, self._scope_to_request(attempt, sent, _scope_of(offered)))

    def _scope_to_request(self, attempt: _AuthAttempt, sent: _Authorization | None, named: Scope) -> Scope:
        """The scope to request for a challenge that names a scope."""
        required = attempt.required
        if required == Scope.UNLIMITED:
            return named
        if sent is not None or attempt.guess_refused:
            return named or required  # the guess was wrong: exactly what the challenge names
        resources = {member[:2] for member in named}
        if not named or not required or any(member[:2] in resources for member in required):
            return named | required  # a push that is challenged for pull needs push next
        self._challenges.mark(attempt.origin, "unpredictable")
        return named

    def _authorize_hidden(self, attempt: _AuthAttempt) -> _Authorization | None:
        """Authorization after 403 or 404 to a request without any: some registries hide private content that way."""
        is_probe = attempt.request.url == f"{attempt.origin}/v2/"
        if is_probe or attempt.probed or attempt.guess_refused:
            return None
        credential = self._credential(attempt)
        if credential is None or self._challenges.is_marked(attempt.origin, "open"):
            return None
        challenge = self._challenges.get(attempt.origin) or self._probe_challenge(attempt)
        return self._authorize_ahead(attempt, challenge, credential)

    def _refresh_credential(
        self, attempt: _AuthAttempt, sent: _Authorization, offered: Challenge | None
    ) -> _Authorization | None:
        """Another credential after 403: ECR answers 403 when a password has expired, after 12 hours.

        Only a credential that was cached can have expired; the source is asked at most once a minute.
        """
        if sent.credential is None or not attempt.credential_cached or attempt.looked_up_again:
            return None
        attempt.looked_up_again = True
        credential = self._credentials.refresh(attempt.key, sent.credential, attempt.request.info.deadline)
        if credential == sent.credential:
            return None
        _LOG.info("%s answered 403; the credential has changed since", attempt.key.host)
        self._tokens.cache.evict_credential(attempt.origin, sent.credential)
        known = self._challenges.get(attempt.origin) if sent.wanted is None else sent.wanted.challenge
        challenge = offered or known
        is_basic = sent.header.startswith("Basic ") or _is_registry_token(credential)
        if challenge is None or challenge.scheme == "basic" or is_basic:
            return _from_credential(credential, "basic")
        scope = attempt.required if sent.token is None else sent.token.scope
        return None if scope == Scope.UNLIMITED else self._authorize(attempt, challenge, credential, scope)

    # Credentials, tokens and challenges

    def _credential(self, attempt: _AuthAttempt) -> Credential | None:
        if attempt.anonymous:
            return None
        answer = self._credentials.find(attempt.key)
        if attempt.credential_cached is None:
            attempt.credential_cached = answer is not None
        if answer is None:
            answer = self._credentials.get(attempt.key, attempt.request.info.deadline)
        attempt.helper_failure = answer.failure
        return answer.credential

    def _look_up_again(self, attempt: _AuthAttempt, rejected: Credential | None) -> Credential | None:
        """The source's credential after a rejection; the same one if the source has no other."""
        if attempt.anonymous or attempt.looked_up_again:
            return rejected
        attempt.looked_up_again = True
        self._credentials.invalidate(attempt.key, rejected)
        return self._credentials.get(attempt.key, attempt.request.info.deadline).credential

    def _authorize(
        self,
        attempt: _AuthAttempt,
        challenge: Challenge,
        credential: Credential | None,
        scope: Scope,
        *,
        newer_than: int = 0,
    ) -> _Authorization:
        """A token for a scope, cached or requested.

        If the token server refuses a scope that is larger than the challenge's (400, 403), the challenge's scope alone
        is requested. If it refuses the credential, the source is asked again, and its answer sent if it differs.
        """
        while True:
            wanted = TokenRequest(attempt.origin, attempt.key.host, challenge, credential, scope, newer_than)
            token = self._tokens.find(wanted)
            fresh = token is None
            if token is None:
                try:
                    token = self._fetch_token(attempt, wanted)
                except AuthError as error:
                    scope, credential = self._after_refusal(attempt, wanted, error)
                    continue
            attempt.learned = LearnedChallenge(challenge, scope)
            return _Authorization(f"Bearer {token.value}", credential, token, wanted, fresh)

    def _fetch_token(self, attempt: _AuthAttempt, wanted: TokenRequest) -> Token:
        for refused, error in attempt.refusals:
            # Neither the same request again, nor a secret again to the realm that has rejected it.
            is_rejection = isinstance(error, CredentialsRejected) and error.status != 403
            same_realm = wanted.key.realm == refused.key.realm
            if (wanted.key, wanted.scope) == (refused.key, refused.scope) or (
                is_rejection and same_realm and _share_secret(wanted.credential, refused.credential)
            ):
                raise error
        attempt.token_requests += 1
        try:
            return self._tokens.fetch(wanted, attempt.request, attempt.may_request_token)
        except AuthError as error:
            attempt.refusals.append((wanted, error))
            raise

    def _after_refusal(
        self, attempt: _AuthAttempt, wanted: TokenRequest, error: AuthError
    ) -> tuple[Scope, Credential | None]:
        """Scope and credential to request a token with after a refusal; raises if nothing else can be tried."""
        is_rejection = isinstance(error, CredentialsRejected)
        if is_rejection and wanted.credential is None:
            _raise_helper_failure(attempt)
        named = _scope_of(wanted.challenge)
        if attempt.token_requests < _MAX_TOKEN_REQUESTS:
            refuses_scope = error.status == 403 or (error.status == 400 and not is_rejection)
            if refuses_scope and named and named != wanted.scope and named <= wanted.scope:
                return named, wanted.credential
            if is_rejection:
                credential = self._look_up_again(attempt, wanted.credential)
                if credential != wanted.credential:
                    _LOG.info("%s; the source has another one now", error)
                    return wanted.scope, credential
        raise _with_scopes(attempt, error, named)

    def _remember_challenge(self, attempt: _AuthAttempt, response: Response) -> Challenge | None:
        """The challenge to answer: Bearer is preferred to Basic. Remembered for its origin."""
        if "www-authenticate" not in response.headers:
            return None
        challenges = Challenge.parse(*response.headers.get_all("www-authenticate"))
        bearer = (challenge for challenge in challenges if challenge.scheme == "bearer" and "realm" in challenge.params)
        basic = (challenge for challenge in challenges if challenge.scheme == "basic")
        chosen = next(bearer, None) or next(basic, None)
        if chosen is not None:
            self._challenges.put(attempt.origin, chosen)
        return chosen

    def _remember_result(self, attempt: _AuthAttempt, sent: _Authorization | None, status: int) -> None:
        required = attempt.required
        if sent is None and status < 300:
            if attempt.guess_refused:  # with a wrong password, each further guess would be a failed login
                self._challenges.mark(attempt.origin, "unpredictable")
            if any(member.action == "push" for member in required):  # an anonymous pull says nothing about pushes
                self._challenges.mark(attempt.origin, "open")
        # A request without a scope of its own says nothing about the next one, which may be for another repository.
        is_specific = bool(required) and required != Scope.UNLIMITED
        if attempt.learned is not None and attempt.sends > 1 and is_specific and status not in (400, 401, 403):
            self._challenges.learn(attempt.origin, required, attempt.request.url, attempt.learned)


@lru_cache(maxsize=1024)
def _lookup_name(origin: Origin) -> str:
    """The host that is passed to a credential source."""
    return registry_name(origin.netloc)


def _raise_helper_failure(attempt: _AuthAttempt) -> None:
    """Raise the failure of a credential helper, if there is no credential because of it."""
    if attempt.helper_failure is not None:
        # A copy: the source keeps its exception, whose traceback would grow with each request.
        raise copy_error(attempt.helper_failure)


def _with_scopes(attempt: _AuthAttempt, error: AuthError, named: Scope) -> AuthError:
    """A token server's refusal, with the requested scopes and that of the registry's challenge, if they differ."""
    requested = dict.fromkeys(wanted.scope for wanted, _ in attempt.refusals)
    if not error.status or list(requested) == [named]:
        return error
    redactor = redactor_of(attempt.request)
    scopes = [repr(sanitize(redactor.text(str(scope)), _MAX_SHOWN_SCOPE)) for scope in (*requested, named)]
    error = copy_error(error)
    ending = f"; the registry's challenge names {scopes[-1]}" if named else ""
    error.args = (f"{error}. Requested scope: {', then '.join(scopes[:-1])}{ending}",)
    return error


def _share_secret(first: Credential | None, second: Credential | None) -> bool:
    if first is None or second is None:
        return first is second
    return not set(first.secrets()).isdisjoint(second.secrets())


def _is_from(response: Response, origin: Origin) -> bool:
    return response.request is None or Origin.of(response.request.url) == origin


def _scope_of(challenge: Challenge) -> Scope:
    return Scope.parse(challenge.params.get("scope", ""))


def _is_within(offered: Challenge | None, sent: _Authorization) -> bool:
    """Whether the token that was sent is for the scope, realm and service of a challenge, if there is one."""
    if sent.token is None or sent.wanted is None:
        return False
    if offered is None:
        return True
    if offered.scheme != "bearer" or replace(sent.wanted, challenge=offered).key != sent.wanted.key:
        return False
    return _scope_of(offered) <= sent.token.scope


def _is_registry_token(credential: Credential | None) -> bool:
    return credential is not None and credential.registry_token is not None


def _from_credential(credential: Credential | None, scheme: str) -> _Authorization | None:
    """The authorization that a credential gives without a token server; None if it has none for a scheme."""
    if credential is None:
        return None
    if credential.registry_token is not None:
        return _Authorization(f"Bearer {credential.registry_token}", credential)
    return None if scheme != "basic" or credential.basic is None else _Authorization(credential.basic, credential)
