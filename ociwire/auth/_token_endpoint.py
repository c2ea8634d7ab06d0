"""Build token requests and read their responses. Sends nothing itself.

Follows the distribution project's "Token Authentication Specification" (GET) and "OAuth2 Token Authentication" (POST).
Any response yields a token or an `AuthError`. No error shows a secret.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, final
from urllib.parse import urlencode

from .._http.messages import Request, RequestInfo, Response, exchange_redactor, info_with_redactor, redactor_of
from .._http.redact import Redactor
from .._oci.host import redact_url
from .._oci.scope import Scope
from .._text import sanitize
from ..errors import AuthError, AuthTimeout, CredentialsRejected, TransportError, TransportTimeout
from ._token_cache import Token
from .credentials import Credential

__all__ = ["Exchange"]

_LARGEST = 1024 * 1024
"""Bytes of a response that are read."""
_LONGEST_TOKEN = 64 * 1024
"""Characters that a token may have: more than any server accepts in a header."""
_DEFAULT_LIFE = 60.0
"""Lifetime in seconds of a token whose response has no ``expires_in`` (the specification's default)."""
_LONGEST_LIFE = 30 * 24 * 3600.0
_MARGIN = 30.0
"""Seconds before its expiry that a token is no longer sent, or a quarter of its lifetime if that is less."""
_QUOTED = 200
"""Characters of a server's text that a message quotes."""
_CLIENT_ID = "ociwire"
_SENDABLE = re.compile(r"[!-~]+")


@final
@dataclass(frozen=True, slots=True)
class Exchange:
    """The exchange of a credential for a token.

    Attributes:
        host: The registry, as credentials are looked up.
        realm: The token server's URL, checked by `origin_policy.check_realm`.
        service: The challenge's ``service``; None if it has none.
        scope: The scope to request.
        credential: The credential to send; None for anonymous access.
        source_name: Name of the credential source for messages.
        refused: A larger scope that the token server refused before, for messages.
        challenged: The scope that the registry's challenge names, for messages.
    """

    host: str
    realm: str
    service: str | None
    scope: Scope
    credential: Credential | None
    source_name: str
    refused: Scope | None = None
    challenged: Scope = Scope.EMPTY

    def request(self, waiting: Request, *, get: bool = False) -> Request:
        """The request for the token.

        A POST with an identity token (RFC 6749, section 6), else a GET, with Basic if there is a password.

        Args:
            waiting: The request that needs the token; its timeout and deadline are used.
            get: Send a GET although there is an identity token, if there is a password, too.
        """
        info = RequestInfo(
            operation="token",
            debug_id=waiting.info.debug_id,
            timeout=waiting.info.timeout,
            deadline=waiting.info.deadline,
            idempotent=True,
            extra=waiting.info.extra,
        )
        info = info_with_redactor(info, exchange_redactor(waiting.info))
        agent = waiting.headers.get("user-agent")
        headers = (
            {"Accept": "application/json"} if agent is None else {"User-Agent": agent, "Accept": "application/json"}
        )
        service = {} if self.service is None else {"service": self.service}
        if self.posts and not (get and self.can_get) and self.credential is not None:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": self.credential.identity_token or "",
                "client_id": _CLIENT_ID,
                **service,
            }
            if self.scope:
                form["scope"] = str(self.scope)
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            return Request("POST", self.realm, headers, urlencode(form).encode(), info)
        if self.credential is not None and self.credential.basic is not None:
            headers["Authorization"] = self.credential.basic
        # By GET each resource has a scope parameter of its own ("Token Scope Documentation").
        query = urlencode([*service.items(), *(("scope", word) for word in str(self.scope).split())], safe=":,/")
        joint = "" if not query else "&" if "?" in self.realm else "?"
        return Request("GET", f"{self.realm}{joint}{query}", headers, None, info)

    @property
    def posts(self) -> bool:
        """Whether the first request is a POST."""
        return self.credential is not None and self.credential.identity_token is not None

    @property
    def can_get(self) -> bool:
        """Whether there is a password for a GET."""
        return self.credential is not None and bool(self.credential.password)

    def must_get(self, response: Response) -> bool:
        """Whether the token server does not support POST, and there is a password for a GET."""
        return self.posts and response.status in (404, 405) and self.can_get

    def token(self, response: Response, asked_at: float) -> Token:
        """Return the token of a response. Reads the response and does not close it.

        Args:
            response: The token server's response.
            asked_at: The moment of `time.monotonic` at which the request was sent.

        Raises:
            CredentialsRejected: The token server refused the credential.
            AuthError: The response has no valid token.
        """
        status = response.status
        try:
            body = response.read(_LARGEST + 1)
        except TransportTimeout as error:
            raise AuthTimeout(f"{self.server} did not finish its answer in time") from error
        except TransportError as error:
            raise AuthError(f"{self.server}: the answer broke off") from error
        redactor = self._redactor(response)
        if status in (401, 403) or (status == 400 and _oauth_error(body) in ("invalid_grant", "invalid_client")):
            raise CredentialsRejected(
                f"{self._refused(status)}{self._scopes(redactor)}{self._said(body, redactor)}",
                host=self.host,
                realm=redact_url(self.realm),
                status=status,
            )
        if 300 <= status < 400:
            raise AuthError(
                f"{self.server} redirects ({status}): refused, for credentials stay at the realm's origin",
                status=status,
            )
        if not 200 <= status < 300:
            raise AuthError(
                f"{self.server} answered {status}{self._scopes(redactor)}{self._said(body, redactor)}", status=status
            )
        if len(body) > _LARGEST:
            raise AuthError(f"{self.server} answered with more than {_LARGEST} bytes")
        answer = _object(body)
        if answer is None:
            raise AuthError(f"{self.server} did not answer with a JSON object")
        value = answer.get("token") or answer.get("access_token")
        if not isinstance(value, str) or not _SENDABLE.fullmatch(value):
            raise AuthError(
                f"{self.server} answered without a token (the string token or access_token, in visible ASCII)"
            )
        if len(value) > _LONGEST_TOKEN:
            raise AuthError(f"{self.server} answered with a token of more than {_LONGEST_TOKEN} characters")
        life = _life(answer.get("expires_in"))
        return Token(value, self.scope, asked_at + life - min(_MARGIN, life / 4))

    @property
    def server(self) -> str:
        """The token server, for messages."""
        return f"the token server {redact_url(self.realm)} (of {self.host})"

    def _scopes(self, redactor: Redactor) -> str:
        """The requested and the challenged scope, if they differ."""
        if self.scope == self.challenged and self.refused is None:
            return ""
        text = f". Requested scope: {_shown(self.scope, redactor)}"
        if self.refused is not None:
            text += f", and before that {_shown(self.refused, redactor)}"
        if self.challenged:
            text += f"; the registry's challenge names {_shown(self.challenged, redactor)}"
        return text

    def _refused(self, status: int) -> str:
        if self.credential is None:
            return (
                f"{self.server} gives no token without credentials ({status}), and {self.source_name} has none for"
                f" {self.host} (docker login, or credentials=)"
            )
        came_from = self.credential.source or self.source_name
        user = f" of user {self.credential.username!r}" if self.credential.username else ""
        return (
            f"{self.server} refused ({status}) the credentials{user} from {came_from}. Public content may be available"
            " without them: replace or remove them (docker logout), or use credentials=Anonymous()"
        )

    def _redactor(self, response: Response) -> Redactor:
        redactor = redactor_of(response.request)
        if self.credential is not None:
            redactor.add(self.credential)
        return redactor

    def _said(self, body: bytes, redactor: Redactor) -> str:
        """The server's error text, with the secrets of the exchange masked."""
        said = redactor.text(_reason(body))
        shown = re.sub(r"[^!-~]+", " ", said[:_QUOTED]).strip()
        return f". It says: {shown}" if shown else ""


def _shown(scope: Scope, redactor: Redactor) -> str:
    return repr(sanitize(redactor.text(str(scope)), _QUOTED))


def _object(body: bytes) -> dict[str, Any] | None:
    # An exception of json holds the text, which may hold a token.
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _oauth_error(body: bytes) -> object:
    """The error code of RFC 6749, section 5.2."""
    return (_object(body) or {}).get("error")


def _reason(body: bytes) -> str:
    """The error text in OAuth2's, the distribution specification's or Docker Hub's JSON."""
    answer = _object(body) or {}
    listed = answer.get("errors")
    first = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], dict) else {}
    found = (answer.get("error_description"), first.get("message"), answer.get("details"), answer.get("error"))
    return next((text for text in found if isinstance(text, str) and text), "")


def _life(stated: object) -> float:
    """``expires_in`` in seconds; some servers write it as a string."""
    try:
        seconds = float(stated) if isinstance(stated, (int, float, str)) and not isinstance(stated, bool) else math.nan
    except (ValueError, OverflowError):
        return _DEFAULT_LIFE
    return min(seconds, _LONGEST_LIFE) if math.isfinite(seconds) and seconds > 0 else _DEFAULT_LIFE
