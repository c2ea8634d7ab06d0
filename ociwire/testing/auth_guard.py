"""Authentication and a token server in front of any transport, without sockets.

This module implements the server side of the token specification of the distribution project. It shares no code with
the client side, so that a bug on one side cannot hide a bug on the other.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, final
from urllib.parse import parse_qs, urlsplit

from .._argument_checks import check_seconds, safe_repr
from .._http.messages import Request, Response
from .._http.transport import BaseTransport, check_transport
from .._http.urls import Origin
from .._oci.scope import ResourceScope, Scope
from ..errors import UsageError
from ..registry._messages import JSON, complete_response, error_response, make_response
from ..transport import Transport

__all__ = ["AuthGuard"]

_REPOSITORY = re.compile(r"/v2/(.+)/(?:blobs|manifests|tags|referrers)/")
_ACTIONS = {"GET": ("pull",), "HEAD": ("pull",), "DELETE": ("delete",)}


class _Grant(NamedTuple):
    """Scope and expiry of an issued token."""

    scope: Scope
    expires_at: float


@final
class AuthGuard(BaseTransport):
    """Layer that requires authentication, and a token server. Thread-safe.

    Authorized requests are forwarded to the inner transport without their Authorization header. All other requests are
    answered with 401 and a challenge. With the scheme ``bearer``, the token server answers requests to `realm`. It
    supports GET with Basic credentials, anonymous GET, and POST with an identity token. A token grants the part of the
    requested scope that the user has. With the scheme ``basic``, every user has access to everything.

    Args:
        inner: The inner transport.
        users: Password of each user name. The mapping is not copied, so later changes take effect.
        scheme: ``bearer`` or ``basic``. Defaults to ``bearer``.
        scopes: Scope of each user, in which the action ``*`` means all actions. Users that are not listed have every
            scope. The user ``""`` is the anonymous user, whose scope is empty unless it is listed.
        identity_tokens: User of each identity token. Defaults to none.
        realm: URL of the token server, or its path on the host of each request. Defaults to ``/token``.
        service: Name of the registry in challenges. Defaults to ``registry.example``.
        expires_in: Lifetime of tokens in seconds. Responses contain it as an integer. Defaults to 300.
        now: Function that returns the time in seconds. Defaults to `time.monotonic`, looked up at each call.

    Attributes:
        asked: Scopes of all token requests in order, including refused ones.
        challenged: Number of registry requests that were answered with 401.

    Raises:
        UsageError: The scheme is neither ``bearer`` nor ``basic``, or `expires_in` is negative or not a number.

    >>> from ociwire import Client, Descriptor, stack
    >>> from ociwire.auth import Credential, StaticCredentials
    >>> from ociwire.testing import AuthGuard, MemoryRegistry
    >>> from ociwire.transport import AuthTransport
    >>> guard = AuthGuard(MemoryRegistry(), users={"alice": "secret"})
    >>> credentials = StaticCredentials("registry.example", Credential(username="alice", password="secret"))
    >>> client = Client("registry.example", AuthTransport(guard, credentials=credentials))
    >>> _ = client.push_blob("models/llm", Descriptor.of(b"weights"), b"weights")
    >>> guard.challenged
    1
    """

    def __init__(
        self,
        inner: Transport,
        *,
        users: Mapping[str, str],
        scheme: str = "bearer",
        scopes: Mapping[str, Scope] | None = None,
        identity_tokens: Mapping[str, str] | None = None,
        realm: str = "/token",
        service: str = "registry.example",
        expires_in: float = 300.0,
        now: Callable[[], float] | None = None,
    ) -> None:
        if scheme not in ("bearer", "basic"):
            raise UsageError(f"invalid scheme {safe_repr(scheme)}: expected 'bearer' or 'basic'")
        if not isinstance(users, Mapping):
            # The value is not shown, because it may contain a password.
            raise UsageError(f"users must be a mapping of user names to passwords, got {type(users).__name__}")
        self._inner = check_transport("inner", inner)
        self._scheme = scheme
        self._users = users
        self._scopes = {"": Scope.EMPTY, **(scopes or {})}
        self._identity_tokens = dict(identity_tokens or {})
        self._realm = realm
        self._service = service
        self._expires_in = check_seconds("expires_in", expires_in)
        self._now = now
        self._closed = False
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._grants: dict[str, _Grant] = {}
        self.asked: list[Scope] = []
        self.challenged: int = 0

    def round_trip(self, request: Request, /) -> Response:
        """Answer a token request, forward an authorized request, or return a 401 without reading the body.

        Raises:
            UsageError: The transport is closed.
        """
        if self._closed:
            raise UsageError("the transport is closed")
        realm = f"{Origin.of(request.url)}{self._realm}" if self._realm.startswith("/") else self._realm
        if self._scheme == "bearer" and _is_at(realm, request.url):
            return self._answer_token_request(request)
        authorization = request.headers.get("authorization", "")
        if self._scheme == "basic":
            challenge = "" if self._get_user(authorization) else 'Basic realm="registry"'
        else:
            challenge = self._bearer_challenge(authorization, _required_scope(request), realm)
        if not challenge:
            return self._inner.round_trip(request.with_headers({"Authorization": None}))
        with self._lock:
            self.challenged += 1
        headers = {"WWW-Authenticate": challenge}
        response = error_response(401, "UNAUTHORIZED", "authentication required", headers=headers)
        return complete_response(request, response)

    def revoke(self) -> None:
        """Revoke all tokens that have been issued. Identity tokens remain valid."""
        with self._lock:
            self._grants.clear()

    def close(self) -> None:
        """Close this transport and the inner one. Idempotent if the inner transport's `close` is."""
        self._closed = True
        self._inner.close()

    def _bearer_challenge(self, authorization: str, required: Scope, realm: str) -> str:
        """Return the challenge for a request, or an empty string if its token grants the required scope."""
        scheme, _, value = authorization.partition(" ")
        with self._lock:
            grant = self._grants.get(value) if scheme.lower() == "bearer" else None
        if grant is not None and self._clock() < grant.expires_at:
            if all(_includes(grant.scope, member) for member in required):
                return ""
            error = ',error="insufficient_scope"'
        else:
            error = ',error="invalid_token"' if authorization else ""
        scope = f',scope="{required}"' if required else ""
        return f'Bearer realm="{realm}",service="{self._service}"{scope}{error}'

    def _answer_token_request(self, request: Request) -> Response:
        if request.method == "POST" and request.body is not None:
            form = parse_qs(b"".join(request.body.open()).decode("utf-8", "replace"))
            user = self._identity_tokens.get(form.get("refresh_token", [""])[0])
        else:
            form = parse_qs(urlsplit(request.url).query)
            authorization = request.headers.get("authorization", "")
            user = self._get_user(authorization) if authorization else ""
        requested = Scope.parse(" ".join(form.get("scope", [])))
        with self._lock:
            self.asked.append(requested)
        allowed = Scope.EMPTY if user is None else self._scopes.get(user, Scope.UNLIMITED)
        if user is None or not (user or allowed):
            return complete_response(request, error_response(401, "UNAUTHORIZED", "invalid credentials"))
        granted = _intersect(requested, allowed)
        with self._lock:
            value = f"token-{next(self._numbers)}"
            self._grants[value] = _Grant(granted, self._clock() + self._expires_in)
        content = {"token": value, "access_token": value, "expires_in": int(self._expires_in)}
        return complete_response(request, make_response(200, (), json.dumps(content).encode(), JSON))

    def _get_user(self, authorization: str) -> str | None:
        """Return the user of a Basic Authorization header, or None if the user or the password is wrong."""
        scheme, _, encoded = authorization.partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:
            return None
        return user if user and self._users.get(user) == password else None

    def _clock(self) -> float:
        return time.monotonic() if self._now is None else self._now()


def _includes(scope: Scope, member: ResourceScope) -> bool:
    """Return whether a scope grants an action. The action ``*`` grants all actions on its resource."""
    return member in scope or ResourceScope(member.resource_type, member.resource, "*") in scope


def _intersect(requested: Scope, allowed: Scope) -> Scope:
    """Return the intersection of both scopes. A requested ``*`` means all allowed actions on its resource."""
    granted = {member for member in requested if _includes(allowed, member)}
    for member in requested:
        if member.action == "*" and member not in granted:
            granted |= {other for other in allowed if other[:2] == member[:2]}
    return Scope(granted)


def _is_at(realm: str, url: str) -> bool:
    return url == realm or url.startswith(realm + ("&" if "?" in realm else "?"))


def _required_scope(request: Request) -> Scope:
    """Return the scope that a registry requires for a request."""
    url = urlsplit(request.url)
    if url.path == "/v2/_catalog":
        return Scope.CATALOG
    match = _REPOSITORY.match(url.path)
    if match is None:
        return Scope.EMPTY
    scope = Scope.repository(match[1], *_ACTIONS.get(request.method, ("pull", "push")))
    source = parse_qs(url.query).get("from", [""])[0]  # a mount reads from another repository
    return scope | Scope.repository(source, "pull") if source else scope
