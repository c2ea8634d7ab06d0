"""Authentication in front of any transport, with a token server, without a socket.

It implements the server side of the distribution project's token specification. It shares no code with the client side,
so that an error in one is not hidden by the other.
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
from .._http.urls import Origin
from .._oci.scope import Scope
from ..errors import UsageError
from ..registry._messages import JSON, complete_response, error_response, make_response
from ..transport import Transport

__all__ = ["AuthGuard"]

_REPOSITORY = re.compile(r"/v2/(.+)/(?:blobs|manifests|tags|referrers)/")
_ACTIONS = {"GET": ("pull",), "HEAD": ("pull",), "DELETE": ("delete",)}


class _Grant(NamedTuple):
    """The scope and the end of a token that was granted."""

    scope: Scope
    expires_at: float


@final
class AuthGuard:
    """Passes authorized requests on to its inner transport, and answers the others 401 with a challenge.

    With ``bearer``, it also answers requests to `realm` as a token server: GET with Basic credentials or anonymously,
    and POST with an identity token. A token grants the part of the requested scope that the user has. With ``basic``,
    every user has every scope. May be shared by threads.

    Args:
        inner: The inner transport.
        users: The password of each user. Not copied: changes of the mapping take effect.
        scheme: ``bearer`` or ``basic``. Defaults to ``bearer``.
        scopes: The scope of each user. A user that is not listed has every scope. The user ``""`` is anonymous, and has
            none unless it is listed.
        identity_tokens: The user of each identity token.
        realm: The path of the token server, which is on the host of each request; or its URL.
        service: The name of the registry in challenges.
        expires_in: Lifetime of tokens in seconds; responses state it as an integer. Defaults to 300.
        now: Returns the time in seconds. Defaults to `time.monotonic`, looked up at each call.

    Attributes:
        asked: The scopes of all token requests, in order, refused ones included.
        challenged: Number of requests that were answered 401.

    Raises:
        UsageError: The scheme is neither ``bearer`` nor ``basic``.
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
            raise UsageError(f"AuthGuard knows the schemes 'bearer' and 'basic', not {safe_repr(scheme)}")
        self._inner = inner
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
        self.challenged = 0

    def round_trip(self, request: Request, /) -> Response:
        """Answer a token request, pass an authorized request on, or answer 401 without reading the body."""
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
        """Revoke all tokens."""
        with self._lock:
            self._grants.clear()

    def close(self) -> None:
        """Close the inner transport, and refuse further requests."""
        self._closed = True
        self._inner.close()

    def _bearer_challenge(self, authorization: str, required: Scope, realm: str) -> str:
        """The challenge for a request; empty if its token grants the required scope."""
        scheme, _, value = authorization.partition(" ")
        with self._lock:
            grant = self._grants.get(value) if scheme.lower() == "bearer" else None
        if grant is not None and self._clock() < grant.expires_at:
            if required <= grant.scope:
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
            return complete_response(request, error_response(401, "UNAUTHORIZED", "who are you?"))
        granted = Scope(member for member in requested if member in allowed)
        with self._lock:
            value = f"token-{next(self._numbers)}"
            self._grants[value] = _Grant(granted, self._clock() + self._expires_in)
        content = {"token": value, "access_token": value, "expires_in": int(self._expires_in)}
        return complete_response(request, make_response(200, (), json.dumps(content).encode(), JSON))

    def _get_user(self, authorization: str) -> str | None:
        """The user of a Basic Authorization; None if the user or the password is wrong."""
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


def _is_at(realm: str, url: str) -> bool:
    return url == realm or url.startswith(realm + ("&" if "?" in realm else "?"))


def _required_scope(request: Request) -> Scope:
    """The scope that a registry requires for a request."""
    url = urlsplit(request.url)
    if url.path == "/v2/_catalog":
        return Scope.CATALOG
    match = _REPOSITORY.match(url.path)
    if match is None:
        return Scope.EMPTY
    scope = Scope.repository(match[1], *_ACTIONS.get(request.method, ("pull", "push")))
    source = parse_qs(url.query).get("from", [""])[0]  # a mount reads from another repository
    return scope | Scope.repository(source, "pull") if source else scope
