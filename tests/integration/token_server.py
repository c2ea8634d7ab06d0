"""A token server with GET and POST that issues JWTs which docker-registry verifies, and records its requests.

It follows the "Token Authentication Specification" (GET) and "OAuth2 Token Authentication" (POST) of the distribution
project. It uses no code of ociwire, so that both cannot have the same bug.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import ssl
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import jwt
import trustme

EVERYTHING = frozenset({"pull", "push", "delete"})

_SCOPE = re.compile(r"([a-z]+):(.+):([^:]+)")


@dataclass(frozen=True)
class User:
    """User with permissions.

    Attributes:
        password: The password for Basic authentication.
        permissions: The permitted actions by pattern of repository names.
        identity_token: The refresh token for POST. Empty means none.
    """

    password: str
    permissions: Mapping[str, frozenset[str]] = field(default_factory=dict)
    identity_token: str = ""

    def allowed(self, repository: str) -> frozenset[str]:
        """Return the permitted actions for a repository."""
        patterns = self.permissions.items()
        return frozenset().union(*(actions for pattern, actions in patterns if fnmatch(repository, pattern)))


class ReceivedRequest(NamedTuple):
    """Received token request.

    Attributes:
        method: The method.
        scopes: The requested scopes ``type:name:action,action`` in order. The actions are sorted, because
            docker-registry lists them in any order.
        kind: The kind of authentication: ``basic``, ``identity_token``, or ``""`` for none.
        status: The status of the response.
    """

    method: str
    scopes: tuple[str, ...]
    kind: str
    status: int


class TokenServer:
    """Token server on a free loopback port. Thread-safe.

    Args:
        users: The users by name. ``""`` is the anonymous user; without it, anonymous requests get no token.
        leaf: The certificate whose key signs the tokens.
        tls: The TLS context. None means plain http.

    Attributes:
        requests: The token requests since the start, or since `reset`.
        expires_in: The ``expires_in`` of responses, in seconds.
    """

    service = "registry.test"
    issuer = "tokens.test"

    def __init__(self, users: Mapping[str, User], leaf: trustme.LeafCert, tls: ssl.SSLContext | None) -> None:
        self._users = users
        self._key = leaf.private_key_pem.bytes().decode()
        # RFC 7515, section 4.1.6: the certificate chain of the key. The registry trusts its root.
        self._chain = ["".join(pem.bytes().decode().split("-----")[2].split()) for pem in leaf.cert_chain_pems]
        self._server = _Server(self)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.realm = f"{'http' if tls is None else 'https'}://127.0.0.1:{self._server.server_address[1]}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.reset()

    def reset(self) -> None:
        """Clear the requests and restore the defaults."""
        self.requests: list[ReceivedRequest] = []
        self.expires_in = 300

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def token(self, user: str, scopes: tuple[str, ...], *, age: int = 0) -> str:
        """Return a token for the requested actions that the user is permitted.

        Args:
            user: The name of the user.
            scopes: The scopes, as in `Asked.scopes`.
            age: The age of the token in seconds. docker-registry accepts a token for a minute after its expiry.
        """
        issued = int(time.time()) - age
        claims = {
            "iss": self.issuer,
            "sub": user,
            "aud": self.service,
            "iat": issued,
            "nbf": issued,
            "exp": issued + 300,
            "jti": uuid.uuid4().hex,
            "access": self._access(user, scopes),
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"x5c": self._chain})

    def _access(self, user: str, scopes: tuple[str, ...]) -> list[dict[str, Any]]:
        access = []
        for scope in scopes:
            match = _SCOPE.fullmatch(scope)
            if match is None or match[1] != "repository":
                continue
            allowed = self._users[user].allowed(match[2])
            actions = [action for action in match[3].split(",") if action in allowed]
            access.append({"type": "repository", "name": match[2], "actions": actions})
        return access

    def answer(self, method: str, form: dict[str, list[str]], authorization: str) -> tuple[int, dict[str, Any]]:
        """Return the status and the JSON content of the response to a request."""
        scopes = tuple(scope for text in form.get("scope", []) for scope in text.split())
        user, kind = self._user_of_form(form) if method == "POST" else self._user_of_basic(authorization)
        is_valid = form.get("service") == [self.service]
        status = 400 if not is_valid else 200 if user in self._users else 401
        self.requests.append(ReceivedRequest(method, tuple(map(_sort_actions, scopes)), kind, status))
        if user is None or status != 200:
            return status, {"errors": [{"code": "UNAUTHORIZED", "message": "incorrect username or password"}]}
        name = "access_token" if method == "POST" else "token"
        return 200, {name: self.token(user, scopes), "expires_in": self.expires_in}

    def _user_of_form(self, form: dict[str, list[str]]) -> tuple[str | None, str]:
        if form.get("grant_type") != ["refresh_token"] or not form.get("client_id"):
            return None, ""
        token = form.get("refresh_token", [""])[0]
        names = (name for name, user in self._users.items() if token and user.identity_token == token)
        return next(names, None), "identity_token"

    def _user_of_basic(self, authorization: str) -> tuple[str | None, str]:
        scheme, _, encoded = authorization.partition(" ")
        if not scheme:
            return "", ""
        if scheme != "Basic":
            return None, scheme.lower()
        try:
            name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return None, "basic"
        user = self._users.get(name)
        return (name if name and user is not None and user.password == password else None), "basic"


def _sort_actions(scope: str) -> str:
    name, _, actions = scope.rpartition(":")
    return f"{name}:{','.join(sorted(actions.split(',')))}"


class _Server(ThreadingHTTPServer):
    """Server with a daemon thread for each connection, which ends when the client closes the connection."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, tokens: TokenServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.tokens = tokens


class _Handler(BaseHTTPRequestHandler):
    """Handler of token requests."""

    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(urlsplit(self.path).query)

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

    def _answer(self, query: str) -> None:
        status, content = self.server.tokens.answer(
            self.command, parse_qs(query), self.headers.get("Authorization", "")
        )
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Suppress log messages."""
