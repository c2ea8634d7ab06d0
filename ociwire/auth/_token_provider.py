"""Obtain bearer tokens from a cache or a token server. Threads that need the same token share one request.

Follows the distribution project's "Token Authentication Specification" (GET) and "OAuth2 Token Authentication" (POST).
A credential is sent to a token server only if `origin_policy.check_realm` allows it. Every failure is an `AuthError`,
and no message contains a secret.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, final
from urllib.parse import urlencode, urljoin

from .._bounded_cache import BoundedCache
from .._http.messages import Request, Response, redactor_of
from .._http.origin_policy import check_realm, token_redirect_target
from .._http.redact import Redactor
from .._http.status import REDIRECT_STATUSES
from .._http.urls import Origin
from .._oci.host import redact_url
from .._oci.manifest import parse_json_object
from .._oci.reference import registry_name
from .._oci.scope import Scope
from .._text import sanitize
from ..errors import AuthError, AuthTimeout, CredentialsRejected, TransportError, TransportTimeout, UsageError
from ._single_flight import SingleFlight
from .challenge import Challenge
from .credentials import Credential

__all__ = ["Token", "TokenKey", "TokenProvider", "TokenRequest"]

_LOG = logging.getLogger("ociwire.auth")
_MAX_TOKENS = 1024
_MAX_BYTES = 8 * 1024 * 1024
_BYTES_PER_ACTION = 256
"""Estimated memory size in bytes of one action of a `Scope`. A hostile challenge may name thousands of actions."""
_MAX_RESPONSE = 1024 * 1024
_MAX_TOKEN = 64 * 1024
"""Maximum number of characters of a token: more than any server accepts in a header."""
_DEFAULT_LIFETIME = 60.0
"""Lifetime in seconds of a token whose response has no ``expires_in`` (the specification's default)."""
_MAX_LIFETIME = 30 * 24 * 3600.0
_EXPIRY_MARGIN = 30.0
"""A token is not used in the last seconds before its expiry: this number, or a quarter of its lifetime if less."""
_MAX_QUOTED = 200
"""Maximum number of characters that a message quotes of a server's text or of a scope."""
_ABSOLUTE_URL = re.compile(r"//|[A-Za-z][A-Za-z0-9+.-]*:")
_VISIBLE_ASCII = re.compile(r"[!-~]+")


class TokenKey(NamedTuple):
    """Registry, user and token server of a token: the cache key without the scope.

    The credential is `None` for an anonymous token.
    """

    origin: Origin
    credential: Credential | None
    realm: str = ""
    service: str | None = None

    @classmethod
    def from_challenge(cls, origin: Origin, credential: Credential | None, challenge: Challenge) -> TokenKey:
        """Return the key for a challenge. A relative realm is resolved against the registry's own origin."""
        realm = challenge.params["realm"]
        if realm and not _ABSOLUTE_URL.match(realm):
            realm = urljoin(f"{origin}/", realm)
        return cls(origin, credential, realm, challenge.params.get("service"))


@final
@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """A bearer token. Compares by identity, because a token server may return the same text twice."""

    key: TokenKey
    value: str = field(repr=False)
    scope: Scope  # the requested scope; the token server may have granted less
    valid_until: float  # value of `time.monotonic`, in seconds, after which the token is no longer sent


class TokenRequest(NamedTuple):
    """A request for a token. The last two fields are only for error messages."""

    key: TokenKey
    scope: Scope
    host: str  # the registry, as it is passed to the credential source
    challenge_scope: Scope = Scope.EMPTY
    refused_scopes: tuple[Scope, ...] = ()  # scopes of earlier token requests on behalf of the same request


@final
class TokenProvider:
    """Obtains tokens; concurrent requests for the same token share one fetch. Thread-safe.

    At most 1,024 tokens and 8 MiB are cached.

    Args:
        send: Sends a request to a token server.
        trusted_realms: See `AuthTransport`.
        source_name: Name of the credential source for messages.

    Raises:
        UsageError: A host or an origin of `trusted_realms` is not valid.
    """

    def __init__(
        self, send: Callable[[Request], Response], *, trusted_realms: Mapping[str, Collection[str]], source_name: str
    ) -> None:
        self._tokens: BoundedCache[tuple[TokenKey, Scope], Token] = BoundedCache(_MAX_TOKENS, _MAX_BYTES)
        self._send = send
        self._source_name = source_name
        self._single_flight = SingleFlight("a token")
        self._trusted_origins: dict[str, set[Origin]] = {}
        for host, origins in trusted_realms.items():
            if isinstance(origins, str) or not isinstance(origins, Iterable):
                raise UsageError(
                    f"trusted_realms must map a host to a collection of origins: expected {{{host!r}: [{origins!r}]}}"
                )
            self._trusted_origins.setdefault(registry_name(host), set()).update(map(Origin.of, origins))

    def get(self, key: TokenKey, scope: Scope, *, exact: bool = False) -> Token | None:
        """Return a cached token with this scope or, unless `exact` is true, a token with a larger scope.

        The empty scope is always matched exactly, although every scope contains it: a token that grants access must not
        be sent with a request that needs no access.
        """
        now = time.monotonic()
        token = self._tokens.get((key, scope))
        if token is not None and now < token.valid_until:
            return token
        if exact or not scope:
            return None
        return self._tokens.find(lambda entry, token: scope <= entry[1] and entry[0] == key and now < token.valid_until)

    def put(self, token: Token) -> None:
        """Cache a token. Replaces a cached token with the same key and scope."""
        key = token.key
        text_size = len(token.value) + len(str(token.scope)) + len(key.realm) + len(key.service or "")
        weight = text_size + _BYTES_PER_ACTION * (1 + sum(1 for _ in token.scope))
        self._tokens.put((key, token.scope), token, weight)

    def evict(self, token: Token) -> None:
        """Remove a token from the cache, unless another token has replaced it."""
        self._tokens.remove(lambda _, cached: cached is token)

    def fetch(self, token_request: TokenRequest, request: Request) -> Token:
        """Request a token on behalf of a request, or wait for another thread that requests the same token.

        Raises:
            AuthError: The token server failed, or the origin policy forbids the request.
            CredentialsRejected: The token server refused the credential.
            AuthTimeout: The token server or the other thread took too long.
        """
        key, scope = token_request.key, token_request.scope

        def request_token() -> Token:
            redactor = redactor_of(request)
            try:
                token = self._request_token(token_request, request, redactor)
            except AuthError as error:
                redactor.redact_error(error)
                raise
            self.put(token)
            return token

        # Look up exactly this scope: an older token with a larger scope may have been revoked together with the refused
        # token.
        return self._single_flight.fetch(
            (key, scope), scope, lambda: self.get(key, scope, exact=True), request_token, request.info.deadline
        )

    def _request_token(self, token_request: TokenRequest, request: Request, redactor: Redactor) -> Token:
        key, scope, host, *_ = token_request
        if key.credential is not None:
            redactor.add(key.credential)
        trusted: Collection[Origin] = self._trusted_origins.get(host, ())
        realm = check_realm(key.realm, key.origin, trusted)
        server = f"the token server {redact_url(realm)} (of {host})"
        if _LOG.isEnabledFor(logging.DEBUG):
            shown = sanitize(redactor.redact_text(str(scope)), 1000) or "a token without a scope"
            _LOG.debug("requesting %s from %s", shown, redactor.redact_text(server))
        requested_at = time.monotonic()
        http_request = _build_request(token_request, realm, request)
        response, body = self._exchange(http_request, server)

        # A redirect is followed once, to an origin that the caller trusts. After 303, a POST would become a GET.
        location = response.headers.get("location")
        followed = REDIRECT_STATUSES - {303} if http_request.method == "POST" else REDIRECT_STATUSES
        if location is not None and response.status in followed:
            subject = f"{server} redirects ({response.status})"
            url = token_redirect_target(realm, location, key.origin, trusted, subject=subject)
            http_request = http_request.replace(url=url)
            redactor.add_request(http_request)  # the server may quote a signature of this URL
            response, body = self._exchange(http_request, server)
        if not 200 <= response.status < 300:
            raise self._to_error(token_request, realm, server, response.status, body, redactor)
        value, lifetime = _parse_token(body, server)
        return Token(key, value, scope, requested_at + lifetime - min(_EXPIRY_MARGIN, lifetime / 4))

    def _exchange(self, request: Request, server: str) -> tuple[Response, bytes]:
        """Send a request, and return the response with the first megabyte of its body."""
        try:
            with self._send(request) as response:
                return response, response.read(_MAX_RESPONSE + 1)
        except AuthError:
            raise
        except TransportTimeout as error:
            raise AuthTimeout(f"{server} did not respond in time") from error
        except TransportError as error:
            raise AuthError(f"the request to {server} failed: {error}") from error

    def _to_error(
        self, token_request: TokenRequest, realm: str, server: str, status: int, body: bytes, redactor: Redactor
    ) -> AuthError:
        """Build the error for a response that is not a success. It quotes the server's text, with secrets redacted."""
        credential = token_request.key.credential
        if 300 <= status < 400:
            return AuthError(
                f"{server} redirects ({status}): refused, because credentials are sent to the realm's origin only",
                status=status,
            )
        answer = parse_json_object(body) or {}
        # The error text of OAuth2 (RFC 6749, section 5.2), the distribution specification, or Docker Hub.
        errors = answer.get("errors")
        first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
        texts = (answer.get("error_description"), first.get("message"), answer.get("details"), answer.get("error"))
        reason = redactor.redact_text(next((text for text in texts if isinstance(text, str) and text), ""))
        reason = re.sub(r"[^!-~]+", " ", reason[:_MAX_QUOTED]).strip()
        details = f": it said {reason!r}" if reason else ""
        scopes = dict.fromkeys((*token_request.refused_scopes, token_request.scope))
        if list(scopes) != [token_request.challenge_scope]:
            shown = [
                repr(sanitize(redactor.redact_text(str(scope)), _MAX_QUOTED))
                for scope in (*scopes, token_request.challenge_scope)
            ]
            details += f". Requested scope: {', then '.join(shown[:-1])}"
            details += f"; the registry's challenge names {shown[-1]}" if token_request.challenge_scope else ""
        if status not in (401, 403) and not (
            status == 400 and answer.get("error") in ("invalid_grant", "invalid_client")
        ):
            return AuthError(f"{server} answered with status {status}{details}", status=status)
        if credential is None:
            message = (
                f"{server} refused an anonymous token (status {status}){details}. {self._source_name} has no"
                f" credentials for {token_request.host}: run docker login, or pass credentials="
            )
        else:
            user = f" of user {credential.username!r}" if credential.username else ""
            message = (
                f"{server} refused the credentials{user} from {credential.source or self._source_name} (status"
                f" {status}){details}. Replace them, or remove them (docker logout, or credentials=Anonymous()): public"
                " content may be available without them"
            )
        return CredentialsRejected(message, host=token_request.host, realm=redact_url(realm), status=status)


def _build_request(token_request: TokenRequest, realm: str, request: Request) -> Request:
    """Build a GET, with Basic if there is a password, or a POST with the identity token (RFC 6749, section 6).

    If the credential has both, the password is sent with a GET: every token server supports GET, and some token servers
    respond to POST with 404 or 405.
    """
    info = request.info.replace(required_scope=Scope.EMPTY, operation="token", anonymous=False, idempotent=True)
    agent = request.headers.get("user-agent")
    headers = {"Accept": "application/json"} if agent is None else {"User-Agent": agent, "Accept": "application/json"}
    credential, service = token_request.key.credential, token_request.key.service
    params = [] if service is None else [("service", service)]
    if credential is not None and credential.identity_token is not None and not credential.password:
        form = [("grant_type", "refresh_token"), ("refresh_token", credential.identity_token), ("client_id", "ociwire")]
        form += params + ([("scope", str(token_request.scope))] if token_request.scope else [])
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        return Request("POST", realm, headers, urlencode(form).encode(), info)
    if credential is not None and credential.basic is not None:
        headers["Authorization"] = credential.basic
    # In a GET, there is one scope parameter for each resource ("Token Scope Documentation").
    query = urlencode([*params, *(("scope", word) for word in str(token_request.scope).split())], safe=":,/")
    separator = "" if not query else "&" if "?" in realm else "?"
    return Request("GET", f"{realm}{separator}{query}", headers, None, info)


def _parse_token(body: bytes, server: str) -> tuple[str, float]:
    """Return the token of a response, and its lifetime in seconds."""
    if len(body) > _MAX_RESPONSE:
        raise AuthError(f"{server} answered with more than {_MAX_RESPONSE} bytes")
    answer = parse_json_object(body) or {}
    value = answer.get("token") or answer.get("access_token")
    if not isinstance(value, str) or not _VISIBLE_ASCII.fullmatch(value) or len(value) > _MAX_TOKEN:
        raise AuthError(
            f"{server} answered without a valid token: expected a JSON object with the string token or access_token, at"
            f" most {_MAX_TOKEN} characters of visible ASCII"
        )
    try:  # some servers send a string; `float` would accept JSON's true as 1.0
        lifetime = float(answer["expires_in"]) if answer["expires_in"] is not True else math.nan
    except (KeyError, TypeError, ValueError, OverflowError):
        lifetime = math.nan
    is_valid = math.isfinite(lifetime) and lifetime > 0
    return value, min(lifetime, _MAX_LIFETIME) if is_valid else _DEFAULT_LIFETIME
