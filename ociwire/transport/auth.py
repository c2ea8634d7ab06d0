"""Turns what a request needs (`RequestInfo.required_scope`) into an Authorization header, and answers a 401.

A secret goes where the registry's challenge and `ociwire.origin` let it, to no other place, and never twice for one
refusal: a 401 to a token that was just granted, or to a credential that the source still stands by, is handed back.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import final

from ..auth.challenge import Challenge
from ..auth.credentials import Credential, CredentialSource, first_repository
from ..auth.lookups import Lookups, Who
from ..auth.tokens import Holder, Token
from ..errors import CredentialsRejected
from ..message import Request, Response
from ..origin import Origin
from ..reference import registry_name
from ..scope import Scope
from .base import Transport
from .token_desk import TokenDesk, Wish

__all__ = ["AuthTransport"]

_LOG = logging.getLogger("ociwire.auth")
_MAX_ORIGINS = 1024
_READ_BY_SERVERS = 256 * 1024


@dataclass(frozen=True, slots=True)
class _Proof:
    """What a request was sent with.

    Attributes:
        header: The value of Authorization.
        credential: Who sent it.
        token: The token in it; None where it is the credential itself.
        fresh: Whether the token was granted during this request.
    """

    header: str = field(repr=False)
    credential: Credential | None
    token: Token | None = None
    fresh: bool = False


@dataclass(slots=True)
class _Errand:
    """One request on its way through the layer."""

    request: Request
    origin: Origin
    who: Who
    renewed: bool = False  # the one re-authentication is spent
    tokens_before: int = 0  # how many tokens there had been when the request was last sent

    @property
    def required(self) -> Scope:
        return self.request.info.required_scope

    @property
    def deadline(self) -> float | None:
        return self.request.info.deadline


@final
class AuthTransport:
    """Turns the scope that a request needs into its Authorization, and answers a 401.

    By Bearer tokens (the distribution project's token specifications), or by Basic (RFC 7617).

    A request that has an Authorization header passes untouched. One that needs nothing is sent with nothing, until it
    is challenged. May be shared by threads: of those who want the same token, one asks for it.

    Args:
        inner: The transport to ask.
        credentials: Who one is; see `ociwire.auth`.
        token_transport: What token servers are asked through; None is `inner`. It is not closed.
        trusted_realms: For a registry's ``host[:port]``, the origins of token servers that are allowed for it though
            `ociwire.origin` would refuse them: ``{"registry.corp": ["http://auth.corp:8080"]}``.
        ask_first: Whether a registry of which nothing is known is asked ``GET /v2/`` before it is sent a body that is
            one-shot, and of at most 256 KiB or of unknown length: there are servers whose 401 would come after it.

    Raises:
        UsageError: The credentials have no ``lookup``, or a host or an origin is not valid.
    """

    def __init__(
        self,
        inner: Transport,
        *,
        credentials: CredentialSource,
        token_transport: Transport | None = None,
        trusted_realms: Mapping[str, Collection[str]] | None = None,
        ask_first: bool = False,
    ) -> None:
        self._inner = inner
        self._lookups = Lookups(credentials)
        self._desk = TokenDesk(
            inner if token_transport is None else token_transport,
            trusted_realms=trusted_realms or {},
            source_name=self._lookups.source_name,
        )
        self._tokens = self._desk.tokens
        self._ask_first = ask_first
        self._challenges: dict[Origin, Challenge] = {}
        self._silent: set[Origin] = set()  # asked what they want, they wanted nothing

    def round_trip(self, request: Request, /) -> Response:
        """Ask the inner transport, with what the request needs; after a 401, with what the registry asks for.

        Raises:
            AuthError: A credential source or a token server failed, or the token server must not be asked.
            CredentialsRejected: The token server refused the credentials.
            AuthTimeout: There was no token in time.
        """
        if "authorization" in request.headers:
            response = self._inner.round_trip(request)
            return response if response.request is not None else response.replace(request=request)
        errand = _errand(request)
        proof = self._foreseen(errand)
        while True:
            sent = request if proof is None else request.with_headers({"Authorization": proof.header})
            errand.tokens_before = self._tokens.latest
            response = self._inner.round_trip(sent)
            if response.status in (400, 401):
                try:
                    proof = self._renewed(errand, proof, response)
                except BaseException:
                    response.discard()
                    raise
                if proof is not None:
                    response.discard()
                    continue
            elif proof is None and response.status < 300:
                self._note_silence(errand)
            return response if response.request is not None else response.replace(request=sent)

    def close(self) -> None:
        """Close the inner transport."""
        self._inner.close()

    def _kept(self, errand: _Errand) -> Credential | None:
        return None if errand.request.info.anonymous else self._lookups.kept(errand.who)

    def _credential(self, errand: _Errand) -> Credential | None:
        return None if errand.request.info.anonymous else self._lookups.of(errand.who, errand.deadline)

    def _another(self, errand: _Errand, rejected: Credential | None) -> Credential | None:
        """What the source says instead of what was rejected; the same if it stands by it."""
        if errand.request.info.anonymous:
            return rejected
        return self._lookups.after_rejection(errand.who, rejected, errand.deadline)

    def _foreseen(self, errand: _Errand) -> _Proof | None:
        """What the first request carries: what is known to be wanted."""
        challenge = self._challenges.get(errand.origin)
        if not errand.required:
            # Nothing is needed, so nobody is asked; a token that grants nothing may have been had before.
            holder = Holder(errand.origin, self._kept(errand))
            token = self._tokens.find(holder, Scope.EMPTY)
            return None if token is None else _Proof(f"Bearer {token.value}", holder.credential, token)
        credential = self._credential(errand)
        if _is_registry_token(credential):
            return _proof_of(credential, "bearer")
        if challenge is None and self._ask_first and errand.origin not in self._silent and _is_at_risk(errand.request):
            challenge = self._asked_for(errand)
        if challenge is None:
            return None
        if challenge.scheme == "basic":
            return _proof_of(credential, "basic")
        if errand.required == Scope.UNLIMITED:
            return None
        return self._granted(errand, challenge, credential, errand.required)

    def _asked_for(self, errand: _Errand) -> Challenge | None:
        """What the registry wants, by a request that has nothing to lose (specification, "Determining Support")."""
        request = errand.request
        agent = {name: value for name, value in request.headers.items() if name.lower() == "user-agent"}
        info = request.info.replace(required_scope=Scope.EMPTY, idempotent=None)
        response = self._inner.round_trip(Request("GET", f"{errand.origin}/v2/", agent, None, info))
        response.discard()
        answers = response.request is None or Origin.of(response.request.url) == errand.origin
        challenge = self._challenge(errand, response, known_will_do=False) if answers else None
        if challenge is None:
            self._note_silence(errand)
        return challenge

    def _note_silence(self, errand: _Errand) -> None:
        """Remember a registry that takes a push from anybody. That it lets anybody pull says nothing."""
        if errand.origin not in self._silent and any(one.action == "push" for one in errand.required):
            if len(self._silent) >= _MAX_ORIGINS:
                self._silent.clear()
            self._silent.add(errand.origin)

    def _renewed(self, errand: _Errand, proof: _Proof | None, response: Response) -> _Proof | None:
        """What to send the request with once more; None if the response is the answer."""
        token = None if proof is None else proof.token
        is_stale = proof is not None and token is not None and not proof.fresh
        if response.status == 400 and not (is_stale and errand.request.method in ("GET", "HEAD")):
            return None  # public.ecr.aws says 400, without a challenge, to a token that has expired
        if response.request is not None and Origin.of(response.request.url) != errand.origin:
            return None  # a transport below has followed a redirect: who answers has no claim on these credentials
        challenge = self._challenge(errand, response, known_will_do=token is not None)
        if challenge is None:
            return None
        if proof is not None and token is not None and _scope_of(challenge) <= token.scope:
            self._tokens.evict(Holder(errand.origin, proof.credential), token)
        if errand.request.body is not None and not errand.request.body.resendable:
            return None
        if proof is not None:
            if proof.fresh:
                self._lookups.forget(errand.who, proof.credential)  # the source may know better the next time
            if errand.renewed or proof.fresh:
                return None
            errand.renewed = True
        return self._answered(errand, proof, challenge, response)

    def _answered(
        self, errand: _Errand, proof: _Proof | None, challenge: Challenge, response: Response
    ) -> _Proof | None:
        """What a challenge is answered with; None if there is nothing that was not refused already."""
        refused = proof is not None and proof.token is None
        if proof is not None and refused and (challenge.scheme == "basic" or _is_registry_token(proof.credential)):
            credential = self._another(errand, proof.credential)
            if credential == proof.credential:
                self._log_rejection(errand, credential)
                return None
        else:
            credential = self._credential(errand)
        if challenge.scheme == "basic" or _is_registry_token(credential):
            answer = _proof_of(credential, challenge.scheme)
            if answer is None:
                self._lookups.forget(errand.who, credential)  # who has nothing to say may have something the next time
            return answer
        response.discard()  # its connection may serve for the token
        wanted = _scope_of(challenge)
        if errand.required != Scope.UNLIMITED:  # which nobody can ask for: what the challenge says must do
            wanted = wanted | errand.required  # the challenge's own text, where that is enough
        return self._granted(errand, challenge, credential, wanted)

    def _challenge(self, errand: _Errand, response: Response, *, known_will_do: bool) -> Challenge | None:
        """What the registry asks for: Bearer before Basic. Remembered for its origin."""
        offered = Challenge.parse(*response.headers.get_all("www-authenticate"))
        usable = [one for one in offered if one.scheme == "basic" or (one.scheme == "bearer" and "realm" in one.params)]
        chosen = next((one for one in usable if one.scheme == "bearer"), usable[0] if usable else None)
        if chosen is None:
            known = self._challenges.get(errand.origin) if known_will_do else None
            # Its scope was another request's.
            return known and Challenge(known.scheme, {**known.params, "scope": ""})
        if len(self._challenges) >= _MAX_ORIGINS:
            self._challenges.clear()
        self._challenges[errand.origin] = chosen
        return chosen

    def _granted(self, errand: _Errand, challenge: Challenge, credential: Credential | None, scope: Scope) -> _Proof:
        """A token for a scope: kept, or granted now."""
        try:
            return self._token(errand, challenge, credential, scope)
        except CredentialsRejected as error:
            renewed = self._another(errand, credential)
            if renewed == credential:
                raise
            _LOG.info("%s; the source has others now", error)
            return self._token(errand, challenge, renewed, scope)

    def _token(self, errand: _Errand, challenge: Challenge, credential: Credential | None, scope: Scope) -> _Proof:
        newer_than = errand.tokens_before if errand.renewed else 0  # what was there before may be as stale
        wish = Wish(errand.origin, errand.who.host, challenge, credential, scope, newer_than)
        token, fresh = self._desk.grant(wish, errand.request)
        return _Proof(f"Bearer {token.value}", credential, token, fresh)

    def _log_rejection(self, errand: _Errand, credential: Credential | None) -> None:
        came_from = (credential and credential.source) or self._lookups.source_name
        _LOG.warning(
            "%s refused the credentials that came from %s; what is public may be pulled without them",
            errand.who.host,
            came_from,
        )


def _errand(request: Request) -> _Errand:
    origin = Origin.of(request.url)
    return _Errand(request, origin, Who(_name_of(origin), first_repository(request.info.required_scope)))


@lru_cache(maxsize=_MAX_ORIGINS)
def _name_of(origin: Origin) -> str:
    return registry_name(origin.netloc)


def _is_at_risk(request: Request) -> bool:
    """Whether a 401 to the request can come too late.

    Servers written in Go read up to 256 KiB of a body before they answer anything, Expect or no Expect: what is
    one-shot is gone by then. What is longer than that, and says so, they refuse at once.
    """
    body = request.body
    return body is not None and body.one_shot and body.length != 0 and (body.length or 0) <= _READ_BY_SERVERS


def _scope_of(challenge: Challenge) -> Scope:
    return Scope.parse(challenge.params.get("scope", ""))


def _is_registry_token(credential: Credential | None) -> bool:
    return credential is not None and credential.registry_token is not None


def _proof_of(credential: Credential | None, scheme: str) -> _Proof | None:
    """What a credential says by itself; None if it has nothing to say in a scheme."""
    if credential is None:
        return None
    if credential.registry_token is not None:
        return _Proof(f"Bearer {credential.registry_token}", credential)
    return None if scheme != "basic" or credential.basic is None else _Proof(credential.basic, credential)
