"""Authenticate requests with Bearer tokens (the distribution project's token specifications) or Basic (RFC 7617).

1. First request. Until the registry has sent a challenge, requests are sent without authorization. Later requests are
   sent with preemptive authorization: Basic, or a token for `RequestInfo.required_scope`, which is obtained before the
   request is sent. If the token server refuses this token, the request is sent without a token. There are two
   exceptions: a registry token is sent even before the first challenge, and with `probe_auth`, ``GET /v2/`` is sent to
   obtain a challenge.
2. Response. The table below determines whether the request is repeated, and with which authorization.
3. Repetition. The response to a repeated request is handled in the same way. Each request is sent at most three times
   and causes at most two requests to token servers.

A 401 or 403 with a challenge means that the authorization is missing, wrong or refused. If the authorization that was
sent *matches* the challenge, it was refused, and another token or credential is needed. A token matches if it has the
realm, the service and the scope of the challenge. Basic matches a Basic challenge. A registry token matches every
challenge. If a response has no challenge, any authorization matches.

The first row that applies is used (`_AuthAttempt._next_authorization`):

=============  =========================  =======================================================================
status         sent authorization         next
=============  =========================  =======================================================================
400            cached token, GET or HEAD  repeat with a new token (public.ecr.aws)
401            matching token             repeat with a new token; if the token was new, only with a smaller scope
401            matching Basic or          look up the credential again; repeat if it has changed
               registry token
403            matching, of any kind      the same, unless the credential was looked up within the last minute (ECR)
401, 403, 404  any; with a challenge      answer the challenge (403: RFC 6750, ``insufficient_scope``)
403, 404       none; without a challenge  with a credential: answer the cached challenge, or probe ``GET /v2/``
any            any                        return the response
=============  =========================  =======================================================================

A challenge is answered with a token for the union of its scope and the required scope. If the challenge is for another
repository, or if a request with a token was refused, the token is only for the scope of the challenge. If the token
server refuses a scope that is larger than the scope of the challenge, a token for the scope of the challenge is
requested. If the token server refuses the credential, the credential is looked up again.

A secret that was refused with 401 is not sent to the same realm or registry again. A request is not repeated if its
single-use body is partially consumed, or if the response comes from an origin other than the origin of the request.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import final

from .._http.messages import Request, Response, redactor_of, with_redactor
from .._http.status import is_temporary_status
from .._http.transport import BaseTransport, Transport, check_transport
from .._http.urls import Origin
from .._oci.scope import Scope
from ..auth._authorizer import Authorization, Authorizer, parse_scope
from ..auth._challenge_cache import AcceptedChallenge, ChallengeCache
from ..auth._credential_cache import CredentialCache
from ..auth._token_provider import TokenKey, TokenProvider
from ..auth.challenge import Challenge
from ..auth.credentials import Credential, CredentialFunction, CredentialSource
from ..errors import AuthError, AuthTimeout, CredentialsRejected
from .base import with_request

__all__ = ["AuthTransport"]

_LOG = logging.getLogger("ociwire.auth")
_MAX_SENDS = 3
_MAX_READ_AHEAD = 256 * 1024
"""Maximum number of bytes of a request body that servers written in Go read before they respond."""
_BASIC = Challenge("basic")
_NO_AUTHORIZATION = Authorization(_BASIC)


@final
class AuthTransport(BaseTransport):
    """Transport that authenticates requests and answers the registry's challenges.

    Requests are authenticated for `RequestInfo.required_scope`. A request with an empty scope is sent without
    credentials first, and a request that already has an Authorization header is sent unchanged. Thread-safe: threads
    that need the same token share one token request.

    Args:
        inner: The transport to wrap.
        credentials: The credential source (see `ociwire.auth`), or a function with the arguments of its ``lookup``.
        token_transport: The transport for token requests; the caller closes it. Defaults to `inner`.
        trusted_realms: Maps the ``host[:port]`` of a registry to the origins of additional token servers, which
            `origin_policy` would refuse: ``{"registry.corp": ["http://auth.corp:8080"]}``.
        probe_auth: Whether to send ``GET /v2/`` to an unknown registry before sending a single-use body of at most
            256 KiB or of unknown length. Some servers read such a body before they respond with 401, so that it cannot
            be sent again. Defaults to false.

    Raises:
        UsageError: The credentials have no ``lookup`` method and are not a function, or a host or an origin is invalid.
    """

    def __init__(
        self,
        inner: Transport,
        *,
        credentials: CredentialSource | CredentialFunction,
        token_transport: Transport | None = None,
        trusted_realms: Mapping[str, Collection[str]] | None = None,
        probe_auth: bool = False,
    ) -> None:
        self._inner = check_transport("inner", inner)
        self._credentials = CredentialCache(credentials)
        self._challenges = ChallengeCache()
        self._tokens = TokenProvider(
            (inner if token_transport is None else check_transport("token_transport", token_transport)).round_trip,
            trusted_realms=trusted_realms or {},
            source_name=self._credentials.source_name,
        )
        self._probe_auth = probe_auth

    def round_trip(self, request: Request, /) -> Response:
        """Send a request with authorization, and repeat it as described in the module docstring.

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
    """Authenticates one request: sends it for the first time and repeats it if necessary."""

    _sends = 0
    _preemptive_error: AuthError | None = None  # set if the token server refused a preemptive token

    def __init__(self, layer: AuthTransport, request: Request) -> None:
        self._layer, self._request, self._required = layer, request, request.info.required_scope
        self._challenges, self._origin = layer._challenges, Origin.of(request.url)
        self._authorizer = Authorizer(layer._credentials, layer._tokens, request, self._origin)
        self._is_read = request.method in ("GET", "HEAD")

    def run(self) -> Response:
        """Send the request until there is no other authorization to try; return the last response."""
        sent = self._initial_authorization()
        while True:
            request = self._request
            if sent.header:
                # A later response may quote this token, or the password with which it was requested.
                redactor_of(request).add(sent)
                request = request.with_headers({"Authorization": sent.header})
            self._sends += 1
            response = with_request(self._layer._inner.round_trip(request), request)
            next_authorization = None
            if response.status in (400, 401, 403, 404) and self._is_from_registry(response):
                try:
                    next_authorization = self._next_authorization(sent, response)
                    if next_authorization is None and response.status in (401, 403) and sent.credential is None:
                        self._authorizer.raise_failure()
                except BaseException:
                    response.drain()
                    raise
            if next_authorization is None:
                self._remember_result(sent, response.status)
                return response
            response.drain()
            sent = next_authorization

    # Before the first response

    def _initial_authorization(self) -> Authorization:
        """Return the preemptive authorization of the request; no authorization before the first challenge."""
        required, body = self._required, self._request.body
        challenge = self._challenges.get(self._origin).challenge
        if not required and self._challenges.get_accepted(self._origin, required, self._request.url) is None:
            return _NO_AUTHORIZATION
        credential = self._authorizer.look_up()
        if credential is None:
            actions = {member.action for member in required if member.resource_type == "repository"}
            if not (self._is_read and actions.isdisjoint(("push", "delete", "*"))):
                self._authorizer.raise_failure()  # a push must not become anonymous because a helper failed
        elif credential.registry_token is not None:
            challenge = challenge or _BASIC  # a registry token needs no challenge: it is sent in any case
        if challenge is None and self._layer._probe_auth and body is not None and body.single_use:
            # With or without Expect, a server may read the body before it responds with 401, so that the body is
            # consumed. If the Content-Length is larger, the server responds without reading the body.
            challenge = self._probe() if body.length is None or 0 < body.length <= _MAX_READ_AHEAD else None
        return _NO_AUTHORIZATION if challenge is None else self._authorize_preemptively(challenge, credential)

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

    def _authorize_preemptively(self, challenge: Challenge, credential: Credential | None) -> Authorization:
        """Return the authorization for the challenge to an earlier request; no authorization if it is refused.

        The scope and the realm are guesses, or come from an earlier request and may be outdated.
        """
        scope, body = self._required, self._request.body
        is_repetition = self._sends > 0  # after a 403 or 404 without a challenge
        if challenge.scheme == "bearer" and (credential is None or credential.registry_token is None):
            accepted = self._challenges.get_accepted(self._origin, scope, self._request.url)
            is_known = accepted is not None or is_repetition or self._challenges.get(self._origin).is_predictable
            if scope == Scope.UNLIMITED or not is_known:
                return _NO_AUTHORIZATION
            challenge, scope = accepted or (challenge, scope)
        try:
            authorization = self._authorizer.authorize(challenge, credential, scope, is_preemptive=True)
            return authorization or _NO_AUTHORIZATION
        except AuthError as error:
            if isinstance(error, AuthTimeout) or is_temporary_status(error.status):
                raise
            if is_repetition and error.status not in (400, 401, 403):
                raise  # the registry's 403 or 404 is returned only if the token server refused the token
            if not is_repetition and body is not None and body.single_use:
                raise  # without a token, the body could be consumed before the challenge
            self._preemptive_error = error
            self._challenges.invalidate(self._origin, self._required)
            level = logging.WARNING if isinstance(error, CredentialsRejected) else logging.INFO
            _LOG.log(level, "%s; continuing without a token", error)
            return _NO_AUTHORIZATION

    # After a response

    def _next_authorization(self, sent: Authorization, response: Response) -> Authorization | None:
        """Return the authorization with which to repeat the request; `None` to return the response.

        Implements the table in the module docstring.
        """
        status, token, body = response.status, sent.token, self._request.body
        if status == 400 and (token is None or sent.fresh or not self._is_read):
            return None
        challenge = None if status == 400 else self._remember_challenge(response)
        last_challenge = challenge or sent.challenge
        matches = self._matches(sent, challenge)
        if status in (400, 401) and (matches or token is None):
            self._authorizer.record_refusal(sent)
        # A new token was refused. Only a token with a smaller scope may still be accepted: some token servers grant
        # nothing at all if they refuse a part of the requested scope.
        can_reduce_scope = token is not None and parse_scope(last_challenge) not in (Scope.EMPTY, token.scope)
        if matches and sent.fresh and status == 401 and not can_reduce_scope:
            self._authorizer.invalidate(sent.credential)
            return None

        is_exhausted = self._sends >= _MAX_SENDS or self._authorizer.is_exhausted
        if is_exhausted or (body is not None and not body.resendable):
            if status == 401 and self._preemptive_error is not None and not sent.header:
                raise self._preemptive_error  # the reason why the request was sent without a token
            return None
        if matches and token is not None and status in (400, 401):
            scope = parse_scope(last_challenge) if sent.fresh else sent.scope | parse_scope(last_challenge)
            return self._authorizer.authorize(last_challenge, self._authorizer.look_up(), scope, reuse=False)
        if matches and status in (401, 403):
            scope = sent.scope if token is not None else self._choose_scope(sent, last_challenge)
            return self._authorizer.reauthorize(sent, last_challenge, status, scope)
        if challenge is not None and not matches:
            if challenge.scheme == "bearer":
                response.drain()  # so that its connection can serve the token request
            scope = self._choose_scope(sent, challenge)
            return self._authorizer.authorize(challenge, self._authorizer.look_up(), scope)
        return self._authorize_without_challenge() if not sent.header and status in (403, 404) else None

    def _authorize_without_challenge(self) -> Authorization | None:
        """Return the authorization after an anonymous request was refused with 403 or 404 without a challenge.

        Some registries respond in this way to hide private repositories. Return `None` if there is no authorization.
        """
        if self._request.url == f"{self._origin}/v2/" or self._preemptive_error is not None:
            return None
        credential = self._authorizer.look_up()
        challenge = None if credential is None else self._challenges.get(self._origin).challenge or self._probe()
        if challenge is None:
            return None
        authorization = self._authorize_preemptively(challenge, credential)
        return authorization if authorization.header else None

    def _matches(self, sent: Authorization, challenge: Challenge | None) -> bool:
        """Whether a sent authorization matches a challenge, as the module docstring defines it."""
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
        if sent.header or self._preemptive_error is not None:
            return scope or required  # the required scope was refused: request only the scope of the challenge
        resources = {member[:2] for member in scope}
        if not scope or any(member[:2] in resources for member in required):
            # The first challenge of a push may request only pull. Without the union, another challenge would follow for
            # push.
            return scope | required
        self._challenges.update(self._origin, is_predictable=False)
        return scope

    def _is_from_registry(self, response: Response) -> bool:
        """Whether the response comes from the origin of the request, because no inner transport followed a redirect.

        The target of a redirect must not get the credentials of this registry.
        """
        return response.request is None or Origin.of(response.request.url) == self._origin

    def _remember_challenge(self, response: Response) -> Challenge | None:
        """Return the challenge of a response, and cache it for the origin. Bearer is preferred to Basic."""
        challenges = Challenge.parse(*response.headers.get_all("www-authenticate"))
        bearer = (challenge for challenge in challenges if challenge.scheme == "bearer" and "realm" in challenge.params)
        basic = (challenge for challenge in challenges if challenge.scheme == "basic")
        chosen = next(bearer, None) or next(basic, None)
        if chosen is not None:
            self._challenges.put(self._origin, chosen)
        return chosen

    def _remember_result(self, sent: Authorization, status: int) -> None:
        """Update the cache for later requests after the last response."""
        required, is_refused = self._required, self._preemptive_error is not None
        if not sent.header and status < 300:
            # A registry that accepts an anonymous pull may still require authentication for a push. Only an anonymous
            # push therefore shows that the registry requires none. After a refusal, no token is requested
            # preemptively: with a wrong password, each token request would be a failed login.
            is_open = any(member.action == "push" for member in required)
            if is_open or is_refused:
                self._challenges.update(self._origin, is_open=is_open, is_predictable=not is_refused)
        # If the request does not specify a scope, the accepted scope cannot be reused: the next request may be for
        # another repository.
        is_specific = required != Scope.UNLIMITED and bool(required or not sent.scope)
        if sent.token is not None and self._sends > 1 and is_specific and status not in (400, 401, 403):
            accepted = AcceptedChallenge(sent.challenge, sent.scope)
            self._challenges.put_accepted(self._origin, required, self._request.url, accepted)
