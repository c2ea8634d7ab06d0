"""Authentication in front of any transport, token server included: the whole flow, without a socket.

It is the server's side, to the letter of the distribution project's token specifications; nothing of the client's side
is used in it, so that the two do not err together.
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

from .._arguments import check_seconds, show
from .._http.messages import Request, Response
from .._http.urls import Origin
from .._oci.scope import Scope
from ..errors import UsageError
from ..transport import Transport

__all__ = ["AuthGuard"]

_REPOSITORY = re.compile(r"/v2/(.+)/(?:blobs|manifests|tags|referrers)/")
_ACTIONS = {"GET": ("pull",), "HEAD": ("pull",), "DELETE": ("delete",)}


class _Grant(NamedTuple):
    """What a token stands for."""

    scope: Scope
    expires_at: float


@final
class AuthGuard:
    """Lets a request pass to its inner transport if it is authorized, and challenges it if it is not.

    With ``bearer``, requests to `realm` are answered by its token server: by GET with Basic or without a name, and by
    POST with an identity token. What is granted, of what was asked for, is what the user's scope has. With ``basic``,
    every user may do everything. May be shared by threads.

    Args:
        inner: The transport to guard.
        users: Passwords, by user. Not copied: a password that is changed in it is changed.
        scheme: ``bearer`` or ``basic``.
        scopes: What a user may do; a user that is not named may do everything. The user ``""`` is nobody, who may do
            nothing unless it is named.
        identity_tokens: Users, by the identity token that they may show instead of a password.
        realm: The token server's path, on whichever host is asked; or its URL.
        service: What the challenge calls the registry.
        expires_in: Seconds that a token is good for; clients are told them as a whole number.
        now: The clock, in seconds; None is `time.monotonic`, looked up at each call.

    Attributes:
        asked: The scopes that tokens were asked for, in order, refused ones included.
        challenged: How many requests were answered 401.

    Raises:
        UsageError: The scheme is none of the two.
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
            raise UsageError(f"AuthGuard knows the schemes 'bearer' and 'basic', not {show(scheme)}")
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
        """Answer for the token server, pass an authorized request on, or challenge it. No body is pulled for a 401."""
        if self._closed:
            raise UsageError("the transport is closed")
        realm = f"{Origin.of(request.url)}{self._realm}" if self._realm.startswith("/") else self._realm
        if self._scheme == "bearer" and _is_at(realm, request.url):
            return self._token(request)
        needed = _needed(request)
        proof = request.headers.get("authorization", "")
        if self._scheme == "basic":
            refused = "" if self._user(proof) else 'Basic realm="registry"'
        else:
            refused = self._missing(proof, needed, realm)
        if not refused:
            return self._inner.round_trip(request.with_headers({"Authorization": None}))
        with self._lock:
            self.challenged += 1
        return _answer(
            request, 401, {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}, refused
        )

    def revoke(self) -> None:
        """Forget all tokens: whatever was granted is refused from now on."""
        with self._lock:
            self._grants.clear()

    def close(self) -> None:
        """Close the inner transport, and refuse further requests."""
        self._closed = True
        self._inner.close()

    def _missing(self, proof: str, needed: Scope, realm: str) -> str:
        """The challenge for a request; empty if its token is good for it."""
        scheme, _, value = proof.partition(" ")
        with self._lock:
            grant = self._grants.get(value) if scheme.lower() == "bearer" else None
        if grant is not None and self._clock() < grant.expires_at:
            if needed <= grant.scope:
                return ""
            error = ',error="insufficient_scope"'
        else:
            error = ',error="invalid_token"' if proof else ""
        scope = f',scope="{needed}"' if needed else ""
        return f'Bearer realm="{realm}",service="{self._service}"{scope}{error}'

    def _token(self, request: Request) -> Response:
        if request.method == "POST" and request.body is not None:
            form = parse_qs(b"".join(request.body.open()).decode("utf-8", "replace"))
            user = self._identity_tokens.get(form.get("refresh_token", [""])[0])
        else:
            form = parse_qs(urlsplit(request.url).query)
            proof = request.headers.get("authorization", "")
            user = self._user(proof) if proof else ""
        asked = Scope.parse(" ".join(form.get("scope", [])))
        with self._lock:
            self.asked.append(asked)
        allowed = Scope.EMPTY if user is None else self._scopes.get(user, Scope.UNLIMITED)
        if user is None or not (user or allowed):
            return _answer(request, 401, {"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]})
        granted = Scope(member for member in asked if member in allowed)
        with self._lock:
            value = f"token-{next(self._numbers)}"
            self._grants[value] = _Grant(granted, self._clock() + self._expires_in)
        return _answer(request, 200, {"token": value, "access_token": value, "expires_in": int(self._expires_in)})

    def _user(self, proof: str) -> str | None:
        """Who a Basic Authorization is from; None if nobody that is known."""
        scheme, _, encoded = proof.partition(" ")
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


def _needed(request: Request) -> Scope:
    """What a registry would demand for a request."""
    url = urlsplit(request.url)
    if url.path == "/v2/_catalog":
        return Scope.CATALOG
    match = _REPOSITORY.match(url.path)
    if match is None:
        return Scope.EMPTY
    needed = Scope.repository(match[1], *_ACTIONS.get(request.method, ("pull", "push")))
    source = parse_qs(url.query).get("from", [""])[0]
    return needed | Scope.repository(source, "pull") if source else needed


def _answer(request: Request, status: int, content: object, challenge: str = "") -> Response:
    headers = {"Content-Type": "application/json", **({"WWW-Authenticate": challenge} if challenge else {})}
    return Response(status, headers, b"" if request.method == "HEAD" else json.dumps(content).encode(), request)
