"""A token server as a registry expects it: GET and POST, JWTs that it can verify, and a record of all that is asked.

Follows the distribution project's "Token Authentication Specification" (GET) and "OAuth2 Token Authentication" (POST).
Nothing of ociwire is used in it, so that the two do not err together.
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

_WORD = re.compile(r"([a-z]+):(.+):([^:]+)")


@dataclass(frozen=True)
class User:
    """Somebody, and what they may do.

    Attributes:
        password: What they show by Basic.
        may: Actions, by a pattern of repositories.
        identity_token: What they show by POST; empty is nothing.
    """

    password: str
    may: Mapping[str, frozenset[str]] = field(default_factory=dict)
    identity_token: str = ""

    def allowed(self, repository: str) -> frozenset[str]:
        """What they may do with a repository."""
        return frozenset().union(*(actions for pattern, actions in self.may.items() if fnmatch(repository, pattern)))


class Asked(NamedTuple):
    """A request for a token.

    Attributes:
        method: Its method.
        scopes: The resources that the token is wanted for, as ``type:name:action,action``, in the order in which they
            were asked for; the actions are sorted, for the registry's challenges have them in any order.
        kind: What it was authorized by: ``basic``, ``identity_token``, or ``""`` for nothing.
        status: What it was answered.
    """

    method: str
    scopes: tuple[str, ...]
    kind: str
    status: int


class TokenServer:
    """A token server on a free loopback port, until it is closed. Shared by threads.

    Args:
        users: Whom it knows; ``""`` is who does not say who they are, and gets no token unless they are there.
        leaf: What signs the tokens.
        tls: None is plain http.

    Attributes:
        asked: All that it was asked since it began, or since `reset`.
        expires_in: What it says of how long a token is good, in seconds.
    """

    service = "registry.test"
    issuer = "tokens.test"

    def __init__(self, users: Mapping[str, User], leaf: trustme.LeafCert, tls: ssl.SSLContext | None) -> None:
        self._users = users
        self._key = leaf.private_key_pem.bytes().decode()
        # RFC 7515, section 4.1.6: the chain, whose root the registry has.
        self._chain = ["".join(pem.bytes().decode().split("-----")[2].split()) for pem in leaf.cert_chain_pems]
        self._server = _Server(self)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.realm = f"{'http' if tls is None else 'https'}://127.0.0.1:{self._server.server_address[1]}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.reset()

    def reset(self) -> None:
        """As it was at first."""
        self.asked: list[Asked] = []
        self.expires_in = 300

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def token(self, user: str, words: tuple[str, ...], *, age: int = 0) -> str:
        """A token for a user: of what is asked for, what they may do.

        Args:
            user: Their name.
            words: The resources, as in `Asked.scopes`.
            age: How many seconds ago it was issued. The registry lets a minute pass after the end of its life.
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
            "access": self._access(user, words),
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"x5c": self._chain})

    def _access(self, user: str, words: tuple[str, ...]) -> list[dict[str, Any]]:
        access = []
        for word in words:
            match = _WORD.fullmatch(word)
            if match is None or match[1] != "repository":
                continue
            allowed = self._users[user].allowed(match[2])
            actions = [action for action in match[3].split(",") if action in allowed]
            access.append({"type": "repository", "name": match[2], "actions": actions})
        return access

    def answer(self, method: str, form: dict[str, list[str]], authorization: str) -> tuple[int, dict[str, Any]]:
        """Status and content for a request."""
        words = tuple(word for text in form.get("scope", []) for word in text.split())
        user, kind = self._posted(form) if method == "POST" else self._named(authorization)
        wrong = form.get("service") != [self.service]
        status = 400 if wrong else 200 if user in self._users else 401
        self.asked.append(Asked(method, tuple(map(_sorted, words)), kind, status))
        if user is None or status != 200:
            return status, {"errors": [{"code": "UNAUTHORIZED", "message": "incorrect username or password"}]}
        name = "access_token" if method == "POST" else "token"
        return 200, {name: self.token(user, words), "expires_in": self.expires_in}

    def _posted(self, form: dict[str, list[str]]) -> tuple[str | None, str]:
        if form.get("grant_type") != ["refresh_token"] or not form.get("client_id"):
            return None, ""
        shown = form.get("refresh_token", [""])[0]
        named = (name for name, user in self._users.items() if shown and user.identity_token == shown)
        return next(named, None), "identity_token"

    def _named(self, authorization: str) -> tuple[str | None, str]:
        scheme, _, encoded = authorization.partition(" ")
        if not scheme:
            return "", ""
        if scheme != "Basic":
            return None, scheme.lower()
        try:
            name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return None, "basic"
        known = self._users.get(name)
        return (name if name and known is not None and known.password == password else None), "basic"


def _sorted(word: str) -> str:
    name, _, actions = word.rpartition(":")
    return f"{name}:{','.join(sorted(actions.split(',')))}"


class _Server(ThreadingHTTPServer):
    """A thread for each connection, which ends when the client closes it; nobody waits for it."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, tokens: TokenServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.tokens = tokens


class _Handler(BaseHTTPRequestHandler):
    """Reads requests, and writes what the token server answers."""

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
        """Say nothing."""
