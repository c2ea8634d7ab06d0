"""Authenticate requests: by Bearer tokens (the distribution project's token specifications) or by Basic (RFC 7617).

A request is first sent without authorization, or, once the registry has challenged, with a token for
`RequestInfo.required_scope`. The first row that matches the response decides (`_AuthAttempt._next_authorization`):

=============  ==============================  ==================================================================
status         sent                            next
=============  ==============================  ==================================================================
400            a cached token, by GET or HEAD  repeat with a fresh token (public.ecr.aws)
401            a token that covers             repeat with a fresh token; after a fresh one, only for a smaller scope
401            a credential that covers        look the credential up again; repeat if it changed
403            any credential that covers      the same, if the source has not returned it within a minute (ECR)
401, 403, 404  anything else, and a challenge  answer the challenge (403: RFC 6750, ``insufficient_scope``)
403, 404       nothing, and no challenge       probe ``GET /v2/``; repeat with the authorization that it demands
any            any                             return the response
=============  ==============================  ==================================================================

What was sent covers a challenge if it already answers it: a token, if the challenge has the same realm and service and
no other scope; Basic, if it is Basic; a registry token, always. Without a challenge, anything that was sent covers.

A challenge is answered with a token for its scope and the required one; with its scope alone if it names another
repository, or if a token was sent. If the token server refuses a scope larger than the challenge's, the challenge's
alone is requested; if it refuses the credential, the credential is looked up again.

A token that is requested before a challenge is a guess. If the token server refuses it, the request is sent without a
token, and the challenge decides.

A request is sent at most three times, and at most two requests are sent to token servers for it. A secret that was
answered 401 is not sent to the same realm or registry again. A request is not repeated if its single-use body is partly
consumed, nor if the response comes from another origin than the registry's.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import final

from .._http.messages import Request, Response, redactor_of, with_redactor
from .._http.status import is_temporary_status
from .._http.transport import Transport
from .._http.urls import Origin
from .._oci.scope import Scope
from ..auth._authorizer import Authorization, Authorizer, parse_scope
from ..auth._challenge_cache import AcceptedChallenge, ChallengeCache
from ..auth._credential_cache import CredentialCache
from ..auth._token_provider import TokenKey, TokenProvider
from ..auth.challenge import Challenge
from ..auth.credentials import Credential, CredentialSource
from ..errors import AuthError, AuthTimeout, CredentialsRejected
from .base import with_request

__all__ = ["AuthTransport"]

_LOG = logging.getLogger("ociwire.auth")
_MAX_SENDS = 3
_MAX_READ_AHEAD = 256 * 1024
"""Bytes of a body that servers written in Go read before they answer."""
_BASIC = Challenge("basic")
_NOTHING = Authorization(_BASIC)


@final
class AuthTransport:
    """Transport that authenticates requests and answers the registry's challenges.

    Requests are authenticated for `RequestInfo.required_scope`; one that needs no scope is sent without credentials
    until it is challenged. A request that has an Authorization header passes unchanged. Thread-safe: threads that need
    the same token share one token request.

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
            AuthError: A credential source or a token server failed, or the origin policy forbids the token server.
            CredentialsRejected: The token server refused the credentials.
            AuthTimeout: No token was obtained in time.
        """
        if "authorization" in request.headers:
            return with_request(self._inner.round_trip(request), request)
        return _AuthAttempt(self, with_redactor(request)).run()

    def close(self) -> None:
        """Close the inner transport. Idempotent."""
        self._inner.close()


class _AuthAttempt:
    """One request on its way through the layer."""

    _sends = 0
    _guess_error: AuthError | None = None  # why the token server refused a token before the registry's challenge

    def __init__(self, layer: AuthTransport, request: Request) -> None:
        self._layer, self._request, self._required = layer, request, request.info.required_scope
        self._challenges, self._origin = layer._challenges, Origin.of(request.url)
        self._authorizer = Authorizer(layer._credentials, layer._tokens, request, self._origin)
        self._is_read = request.method in ("GET", "HEAD")

    def run(self) -> Response:
        """Send the request until the response is the result."""
        sent = self._initial_authorization()
        while True:
            request = self._request
            if sent.header:
                # A later response may repeat this token after another one was sent, or the password behind it.
                redactor_of(request).add(sent)
                request = request.with_headers({"Authorization": sent.header})
            self._sends += 1
            response = with_request(self._layer._inner.round_trip(request), request)
            following = None
            if response.status in (400, 401, 403, 404) and self._is_from_registry(response):
                try:
                    following = self._next_authorization(sent, response)
                    if following is None and response.status in (401, 403) and sent.credential is None:
                        self._authorizer.raise_failure()
                except BaseException:
                    response.drain()
                    raise
            if following is None:
                self._remember_result(sent, response.status)
                return response
            response.drain()
            sent = following

    # Before the first response

    def _initial_authorization(self) -> Authorization:
        """Return the authorization that the registry is known to require; nothing before its first challenge."""
        required, body = self._required, self._request.body
        challenge = self._challenges.get(self._origin).challenge
        if not required and self._challenges.get_accepted(self._origin, required, self._request.url) is None:
            return _NOTHING
        credential = self._authorizer.look_up()
        if credential is None:
            actions = {member.action for member in required if member.resource_type == "repository"}
            if not (self._is_read and actions.isdisjoint(("push", "delete", "*"))):
                self._authorizer.raise_failure()  # a push must not become anonymous because a helper failed
        elif credential.registry_token is not None:
            challenge = challenge or _BASIC
        if challenge is None and self._layer._probe_auth and body is not None and body.single_use:
            # A server may read ahead, with or without Expect: by the time of its 401, the body is consumed. A longer
            # body with a Content-Length is refused at once.
            challenge = self._probe() if body.length is None or 0 < body.length <= _MAX_READ_AHEAD else None
        return _NOTHING if challenge is None else self._guess(challenge, credential)

    def _probe(self) -> Challenge | None:
        """Return the challenge of ``GET /v2/`` (distribution specification, "Determining Support"), if there is one."""
        if self._challenges.get(self._origin).is_open:
            return None
        agent = {name: value for name, value in self._request.headers.items() if name.lower() == "user-agent"}
        info = self._request.info.replace(required_scope=Scope.EMPTY, idempotent=None)
        response = self._layer._inner.round_trip(Request("GET", f"{self._origin}/v2/", agent, None, info))
        response.drain()
        if not self._is_from_registry(response):
            return None
        challenge = self._remember_challenge(response)
        if challenge is None and not is_temporary_status(response.status):
            self._challenges.update(self._origin, is_open=True)
        return challenge

    def _guess(self, challenge: Challenge, credential: Credential | None) -> Authorization:
        """Return the authorization for a challenge that this request has not received; nothing if it is refused.

        Scope and realm are guesses, or were accepted before and may have changed.
        """
        scope, body = self._required, self._request.body
        is_hidden = self._sends > 0  # the registry has answered 403 or 404
        if challenge.scheme == "bearer" and (credential is None or credential.registry_token is None):
            accepted = self._challenges.get_accepted(self._origin, scope, self._request.url)
            is_known = accepted is not None or is_hidden or self._challenges.get(self._origin).is_predictable
            if scope == Scope.UNLIMITED or not is_known:
                return _NOTHING
            challenge, scope = accepted or (challenge, scope)
        try:
            return self._authorizer.authorize(challenge, credential, scope, is_guess=True) or _NOTHING
        except AuthError as error:
            if isinstance(error, AuthTimeout) or is_temporary_status(error.status):
                raise
            if is_hidden and error.status not in (400, 401, 403):
                raise  # the registry's 404 says nothing unless the token server has refused
            if not is_hidden and body is not None and body.single_use:
                raise  # the body could be consumed before the registry's challenge
            self._guess_error = error
            self._challenges.invalidate(self._origin, self._required)
            level = logging.WARNING if isinstance(error, CredentialsRejected) else logging.INFO
            _LOG.log(level, "%s; continuing without a token", error)
            return _NOTHING

    # After a response

    def _next_authorization(self, sent: Authorization, response: Response) -> Authorization | None:
        """Return the authorization to repeat the request with, by the table above; None to return the response."""
        status, token, body = response.status, sent.token, self._request.body
        if status == 400 and (token is None or sent.fresh or not self._is_read):
            return None
        challenge = None if status == 400 else self._remember_challenge(response)
        answered = challenge or sent.challenge
        covers = self._covers(sent, challenge)
        if status in (400, 401) and (covers or token is None):
            self._authorizer.record_refusal(sent)
        # After a fresh token, only a smaller one can be accepted: some token servers grant nothing if they refuse a
        # part of what was requested.
        is_smaller = token is not None and parse_scope(answered) not in (Scope.EMPTY, token.scope)
        if covers and sent.fresh and status == 401 and not is_smaller:
            self._authorizer.invalidate(sent.credential)
            return None

        is_exhausted = self._sends >= _MAX_SENDS or self._authorizer.is_exhausted
        if is_exhausted or (body is not None and not body.resendable):
            if status == 401 and self._guess_error is not None and not sent.header:
                raise self._guess_error  # it says more than the 401 to the request without a token
            return None
        if covers and token is not None and status in (400, 401):
            scope = parse_scope(answered) if sent.fresh else sent.scope | parse_scope(answered)
            return self._authorizer.authorize(answered, self._authorizer.look_up(), scope, reuse=False)
        if covers and status in (401, 403):
            scope = sent.scope if token is not None else self._choose_scope(sent, answered)
            return self._authorizer.replace(sent, answered, status, scope)
        if challenge is not None and not covers:
            if challenge.scheme == "bearer":
                response.drain()  # so that its connection can serve the token request
            scope = self._choose_scope(sent, challenge)
            return self._authorizer.authorize(challenge, self._authorizer.look_up(), scope)
        return self._authorize_hidden() if not sent.header and status in (403, 404) else None

    def _authorize_hidden(self) -> Authorization | None:
        """Authorize after 403 or 404 to a request without any: some registries hide private content that way."""
        if self._request.url == f"{self._origin}/v2/" or self._guess_error is not None:
            return None
        credential = self._authorizer.look_up()
        challenge = None if credential is None else self._challenges.get(self._origin).challenge or self._probe()
        authorization = _NOTHING if challenge is None else self._guess(challenge, credential)
        return authorization if authorization.header else None

    def _covers(self, sent: Authorization, challenge: Challenge | None) -> bool:
        """Whether what was sent already answers a challenge, so that only another token or credential can help."""
        if challenge is None or not sent.header:
            return bool(sent.header)
        if sent.token is None:
            return challenge.scheme == "basic" or not sent.header.startswith("Basic ")
        is_same_server = (
            challenge.scheme == "bearer"
            and TokenKey.from_challenge(self._origin, sent.credential, challenge) == sent.token.key
        )
        return is_same_server and parse_scope(challenge) <= sent.token.scope

    def _choose_scope(self, sent: Authorization, challenge: Challenge) -> Scope:
        """Return the scope of the token that answers a challenge."""
        scope, required = parse_scope(challenge), self._required
        if required == Scope.UNLIMITED or not required:
            return scope
        if sent.header or self._guess_error is not None:
            return scope or required  # the guess was wrong: exactly what the challenge names
        resources = {member[:2] for member in scope}
        if not scope or any(member[:2] in resources for member in required):
            return scope | required  # a push that is challenged for pull needs push next
        self._challenges.update(self._origin, is_predictable=False)
        return scope

    def _is_from_registry(self, response: Response) -> bool:
        """Whether no transport below followed a redirect: its target must not get this registry's credentials."""
        return response.request is None or Origin.of(response.request.url) == self._origin

    def _remember_challenge(self, response: Response) -> Challenge | None:
        """Return the challenge to answer, and remember it for the origin. Bearer is preferred to Basic."""
        challenges = Challenge.parse(*response.headers.get_all("www-authenticate"))
        bearer = (challenge for challenge in challenges if challenge.scheme == "bearer" and "realm" in challenge.params)
        basic = (challenge for challenge in challenges if challenge.scheme == "basic")
        chosen = next(bearer, None) or next(basic, None)
        if chosen is not None:
            self._challenges.put(self._origin, chosen)
        return chosen

    def _remember_result(self, sent: Authorization, status: int) -> None:
        required, is_refused = self._required, self._guess_error is not None
        if not sent.header and status < 300:
            # An anonymous pull says nothing about pushes. With a wrong password, each further guess would be a failed
            # login.
            is_open = any(member.action == "push" for member in required)
            if is_open or is_refused:
                self._challenges.update(self._origin, is_open=is_open, is_predictable=not is_refused)
        # A request without a scope of its own says nothing about the next one, which may be for another repository.
        is_specific = required != Scope.UNLIMITED and bool(required or not sent.scope)
        if sent.token is not None and self._sends > 1 and is_specific and status not in (400, 401, 403):
            accepted = AcceptedChallenge(sent.challenge, sent.scope)
            self._challenges.put_accepted(self._origin, required, self._request.url, accepted)
