"""Obtain bearer tokens: from the cache, or from a token server, one request for all threads that need the same token.

Follows the distribution project's "Token Authentication Specification" (GET) and "OAuth2 Token Authentication" (POST).
A credential is sent to a token server only if `origin_policy.check_realm` allows it. Every failure is an `AuthError`,
and none shows a secret.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import final
from urllib.parse import urlencode, urljoin

from .._http.messages import Request, Response, redactor_of, with_redactor
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
from ._token_cache import Token, TokenCache, TokenKey
from .challenge import Challenge
from .credentials import Credential

__all__ = ["TokenProvider", "TokenRequest"]

_LOG = logging.getLogger("ociwire.auth")
_MAX_REALMS_WITHOUT_POST = 64
_MAX_RESPONSE = 1024 * 1024
_MAX_TOKEN = 64 * 1024
"""Maximum number of characters of a token: more than any server accepts in a header."""
_DEFAULT_LIFETIME = 60.0
"""Lifetime in seconds of a token whose response has no ``expires_in`` (the specification's default)."""
_MAX_LIFETIME = 30 * 24 * 3600.0
_EXPIRY_MARGIN = 30.0
"""Seconds before its expiry that a token is no longer sent, or a quarter of its lifetime if that is less."""
_MAX_LOGGED_SCOPE = 1000
_MAX_QUOTED = 200
"""Maximum number of characters of a server's text that a message quotes."""
_ABSOLUTE_URL = re.compile(r"//|[A-Za-z][A-Za-z0-9+.-]*:")
_VISIBLE_ASCII = re.compile(r"[!-~]+")


@final
@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A token that is needed."""

    origin: Origin  # the registry
    host: str  # the registry, as it is passed to the credential source
    challenge: Challenge  # names realm and service
    credential: Credential | None  # None for anonymous access
    scope: Scope
    not_before: float = -math.inf  # a token that was requested before this `time.monotonic` value is not used

    @property
    def key(self) -> TokenKey:
        """The token's key in the cache. A relative realm is resolved against the registry's own origin."""
        realm = self.challenge.params["realm"]
        if realm and not _ABSOLUTE_URL.match(realm):
            realm = urljoin(f"{self.origin}/", realm)
        return TokenKey(self.origin, self.credential, realm, self.challenge.params.get("service"))


@final
class TokenProvider:
    """Obtains tokens; concurrent requests for the same token share one fetch. Thread-safe.

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
        self._cache = TokenCache()
        self._inner_send = send
        self._source_name = source_name
        self._single_flight = SingleFlight("a token")
        self._realms_without_post: set[str] = set()  # they answered 404 or 405 to one
        self._trusted_origins: dict[str, set[Origin]] = {}
        for host, origins in trusted_realms.items():
            if isinstance(origins, str) or not isinstance(origins, Iterable):
                raise UsageError(
                    f"trusted_realms has a collection of origins for each host: {{{host!r}: [{origins!r}]}}"
                )
            self._trusted_origins.setdefault(registry_name(host), set()).update(map(Origin.of, origins))

    def get(self, token_request: TokenRequest) -> Token | None:
        """A cached token, if there is one."""
        return self._cache.get(token_request.key, token_request.scope, not_before=token_request.not_before)

    def evict(self, token: Token) -> None:
        """Drop a cached token, unless another one has replaced it."""
        self._cache.evict(token)

    def evict_credential(self, origin: Origin, credential: Credential | None) -> None:
        """Drop all cached tokens that were requested for an origin with a credential."""
        self._cache.evict_credential(origin, credential)

    def fetch(self, token_request: TokenRequest, request: Request, take_request: Callable[[], bool]) -> Token:
        """Request a token for a request that waits for it, or share the one that another thread requests.

        `take_request` is called before a POST that the token server does not support is repeated as a GET.

        Raises:
            AuthError: The token server failed, or must not be asked.
            CredentialsRejected: The token server refused the credential.
            AuthTimeout: No token came in time.
        """
        key = token_request.key

        def request_token() -> Token:
            request_with_redactor = with_redactor(request)
            redactor = redactor_of(request_with_redactor)
            if token_request.credential is not None:
                redactor.add(token_request.credential)
            try:
                token = self._request_token(token_request, request_with_redactor, redactor, take_request)
            except AuthError as error:
                redactor.redact_error(error)
                raise
            self._cache.put(key, token)
            return token

        return self._single_flight.fetch(
            (key, token_request.scope),
            token_request.scope,
            lambda: self.get(token_request),
            request_token,
            request.info.deadline,
        )

    def _request_token(
        self, token_request: TokenRequest, request: Request, redactor: Redactor, take_request: Callable[[], bool]
    ) -> Token:
        credential = token_request.credential
        trusted: Collection[Origin] = self._trusted_origins.get(token_request.host, ())
        realm = check_realm(token_request.key.realm, token_request.origin, trusted)
        server = f"the token server {redact_url(realm)} (of {token_request.host})"
        if _LOG.isEnabledFor(logging.DEBUG):
            scope = (
                sanitize(redactor.redact_text(str(token_request.scope)), _MAX_LOGGED_SCOPE) or "a token without a scope"
            )
            _LOG.debug("requesting %s from %s", scope, redactor.redact_text(server))

        has_password = credential is not None and bool(credential.password)
        post = credential is not None and credential.identity_token is not None
        if post and has_password and realm in self._realms_without_post:
            post = False
        requested_at = time.monotonic()
        http_request = _build_request(token_request, realm, request, post=post)
        response = self._send(http_request, server)
        if post and has_password and response.status in (404, 405) and take_request():
            response.drain()
            if len(self._realms_without_post) < _MAX_REALMS_WITHOUT_POST:
                self._realms_without_post.add(realm)
            post = False
            http_request = _build_request(token_request, realm, request, post=False)
            response = self._send(http_request, server)

        # A redirect is followed once, to an origin that the caller trusts. After 303, a POST would become a GET.
        location = response.headers.get("location")
        if location is not None and response.status in (REDIRECT_STATUSES - {303} if post else REDIRECT_STATUSES):
            response.drain()
            what = f"{server} redirects ({response.status})"
            url = token_redirect_target(realm, location, token_request.origin, trusted, subject=what)
            http_request = http_request.replace(url=url)
            redactor.add_request(http_request)  # the server may quote a signature of this URL
            response = self._send(http_request, server)
        try:
            body = response.read(_MAX_RESPONSE + 1)
        except TransportTimeout as error:
            raise AuthTimeout(f"{server} did not finish its answer in time") from error
        except TransportError as error:
            raise AuthError(f"{server}: the answer broke off") from error
        finally:
            response.drain()

        if not 200 <= response.status < 300:
            raise self._to_error(token_request, realm, server, response, body, redactor)
        value, lifetime = _parse_token(body, server)
        return Token(
            value, token_request.scope, requested_at + lifetime - min(_EXPIRY_MARGIN, lifetime / 4), requested_at
        )

    def _send(self, request: Request, server: str) -> Response:
        try:
            return self._inner_send(request)
        except AuthError:
            raise
        except TransportTimeout as error:
            raise AuthTimeout(f"{server} did not answer in time") from error
        except TransportError as error:
            raise AuthError(f"{server} could not be asked: {error}") from error

    def _to_error(
        self, token_request: TokenRequest, realm: str, server: str, response: Response, body: bytes, redactor: Redactor
    ) -> AuthError:
        """The error for a response that is not a success. It quotes the server's text, with the secrets masked."""
        status, credential = response.status, token_request.credential
        if 300 <= status < 400:
            return AuthError(
                f"{server} redirects ({status}): refused, for credentials stay at the realm's origin", status=status
            )
        answer = parse_json_object(body) or {}
        # The error text of OAuth2 (RFC 6749, section 5.2), the distribution specification, or Docker Hub.
        errors = answer.get("errors")
        first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
        texts = (answer.get("error_description"), first.get("message"), answer.get("details"), answer.get("error"))
        reason = redactor.redact_text(next((text for text in texts if isinstance(text, str) and text), ""))
        reason = re.sub(r"[^!-~]+", " ", reason[:_MAX_QUOTED]).strip()
        quoted = f". It says: {reason}" if reason else ""
        if status not in (401, 403) and not (
            status == 400 and answer.get("error") in ("invalid_grant", "invalid_client")
        ):
            return AuthError(f"{server} answered {status}{quoted}", status=status)
        if credential is None:
            message = (
                f"{server} gives no token without credentials ({status}), and {self._source_name} has none for"
                f" {token_request.host} (docker login, or credentials=)"
            )
        else:
            user = f" of user {credential.username!r}" if credential.username else ""
            message = (
                f"{server} refused ({status}) the credentials{user} from {credential.source or self._source_name}."
                " Public content may be available without them: replace or remove them (docker logout), or use"
                " credentials=Anonymous()"
            )
        return CredentialsRejected(message + quoted, host=token_request.host, realm=redact_url(realm), status=status)


def _build_request(token_request: TokenRequest, realm: str, request: Request, *, post: bool) -> Request:
    """A POST with the identity token (RFC 6749, section 6), or a GET, with Basic if there is a password."""
    info = request.info.replace(required_scope=Scope.EMPTY, operation="token", anonymous=False, idempotent=True)
    agent = request.headers.get("user-agent")
    headers = {"Accept": "application/json"} if agent is None else {"User-Agent": agent, "Accept": "application/json"}
    credential, service = token_request.credential, token_request.key.service
    params = [] if service is None else [("service", service)]
    if post and credential is not None:
        form = [("grant_type", "refresh_token"), ("refresh_token", credential.identity_token or "")]
        form += [
            ("client_id", "ociwire"),
            *params,
            *([("scope", str(token_request.scope))] if token_request.scope else []),
        ]
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        return Request("POST", realm, headers, urlencode(form).encode(), info)
    if credential is not None and credential.basic is not None:
        headers["Authorization"] = credential.basic
    # By GET each resource has a scope parameter of its own ("Token Scope Documentation").
    query = urlencode([*params, *(("scope", word) for word in str(token_request.scope).split())], safe=":,/")
    separator = "" if not query else "&" if "?" in realm else "?"
    return Request("GET", f"{realm}{separator}{query}", headers, None, info)


def _parse_token(body: bytes, server: str) -> tuple[str, float]:
    """The token of a response, and its lifetime in seconds."""
    if len(body) > _MAX_RESPONSE:
        raise AuthError(f"{server} answered with more than {_MAX_RESPONSE} bytes")
    answer = parse_json_object(body) or {}
    value = answer.get("token") or answer.get("access_token")
    if not isinstance(value, str) or not _VISIBLE_ASCII.fullmatch(value):
        raise AuthError(
            f"{server} answered without a token: expected a JSON object with the string token or access_token, in"
            " visible ASCII"
        )
    if len(value) > _MAX_TOKEN:
        raise AuthError(f"{server} answered with a token of more than {_MAX_TOKEN} characters")
    stated = answer.get("expires_in")
    try:  # some servers write it as a string
        lifetime = float(stated) if isinstance(stated, (int, float, str)) and not isinstance(stated, bool) else math.nan
    except (ValueError, OverflowError):
        lifetime = math.nan
    is_valid = math.isfinite(lifetime) and lifetime > 0
    return value, min(lifetime, _MAX_LIFETIME) if is_valid else _DEFAULT_LIFETIME
