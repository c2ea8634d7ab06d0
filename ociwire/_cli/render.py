"""Tells what a trace holds, for people: a tree for each request, and what each layer has done in all.

It shows no secrets: of headers the values of a few names that hold none, of queries what the specification defines, of
tokens what they grant. With colours where it is told to.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .._http.messages import Request, redactor_of
from .._http.urls import Origin
from .._oci.host import redact_url
from .._text import format_size, sanitize, status_line
from ..auth import Challenge
from .trace import Hop

__all__ = ["Style", "summary", "tree"]

_SHOWN = frozenset({"user-agent", "expect", "content-type", "accept", "range"})
_SHORT = 30
_COLOURS = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "cyan": 36}


class Style:
    """Paints words, or leaves them as they are.

    Args:
        colours: Whether to.
    """

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    def paint(self, colour: str, text: str) -> str:
        """A text in a colour of the terminal's."""
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self._colours and text else text

    def outcome(self, hop: Hop) -> str:
        """What a hop came to, in 24 columns."""
        if hop.response is None:
            return self.paint("red", f"{type(hop.error).__name__:<24.24}")
        status = hop.response.status
        colour = "green" if status < 300 else "yellow" if status < 400 or status == 401 else "red"
        return self.paint(colour, f"{status_line(status):<24.24}")


def tree(hop: Hop, style: Style) -> Iterator[str]:
    """The lines for one request of a client's, and what each layer did with it."""
    url = redactor_of(hop.request).url(hop.request.url)
    yield f"  {style.paint('bold', hop.request.method)} {style.paint('cyan', url)}"
    own = _fields(hop.request, known=())
    yield f"    {'Client':<26}{style.outcome(hop)}{hop.seconds * 1e3:8.1f} ms   {own}".rstrip()
    yield from _branch(hop, style, 0)


def _branch(hop: Hop, style: Style, depth: int) -> Iterator[str]:
    name = f"{'  ' * depth}{hop.layer}"
    yield f"    {name:<26}{style.outcome(hop)}{hop.seconds * 1e3:8.1f} ms   {_did(hop)}".rstrip()
    for number, below in enumerate(hop.below):
        if below.request.info.operation == "token" and hop.request.info.operation != "token":
            yield f"    {'  ' * (depth + 1)}{style.paint('dim', _token_asked(below))}"
        elif number and below.request.url != hop.below[number - 1].request.url:
            elsewhere = f"{below.request.method} {redactor_of(below.request).url(below.request.url)}"
            yield f"    {'  ' * (depth + 1)}{style.paint('dim', elsewhere)}"
        yield from _branch(below, style, depth + 1)


def _did(hop: Hop) -> str:
    """What a layer has done, in a few words."""
    if hop.layer == "UrllibTransport":
        return "; ".join(part for part in (_sent(hop), _granted(hop), _challenge(hop)) if part)
    asked = [below for below in hop.below if below.request.info.operation == hop.request.info.operation]
    said = []
    if hop.layer == "RedirectTransport" and len(asked) > 1:
        leaves = any(Origin.of(one.request.url) != Origin.of(hop.request.url) for one in asked)
        said.append(f"followed {_times(len(asked) - 1, 'redirect')}{', and left as nobody' if leaves else ''}")
    elif len(asked) > 1:
        said.append(f"asked {len(asked)} times")
    added = _fields(asked[-1].request, known=hop.request.headers) if asked else ""
    if hop.layer == "HeadersTransport" and not added:
        said.append("both are there, by the client's own")
    return "; ".join([*said, added] if added else said)


def _fields(request: Request, *, known: Container[object]) -> str:
    added = [(name, value) for name, value in request.headers.items() if name not in known]
    shown = [
        f"{name}: {_short(value)}" if name.lower() in _SHOWN else f"{name}: {_kind(value)}" for name, value in added
    ]
    return f"+ {', '.join(shown)}" if shown else ""


def _short(value: str) -> str:
    return value if len(value) <= _SHORT else f"{value[:_SHORT]}…"


def _kind(value: str) -> str:
    """Of a header that may hold a secret, its scheme: ``Bearer ***``."""
    scheme, space, _ = value.partition(" ")
    return f"{scheme} ***" if space else "***"


def _sent(hop: Hop) -> str:
    return f"sent {format_size(hop.sent)}, the first byte after {hop.first_byte * 1e3:.1f} ms" if hop.sent else ""


def _challenge(hop: Hop) -> str:
    """What a 401 asks for."""
    if hop.response is None or hop.response.status != 401 or hop.request.info.operation == "token":
        return ""
    redactor = redactor_of(hop.request)
    challenges = Challenge.parse(*map(redactor.text, hop.response.headers.get_all("www-authenticate")))
    told = []
    for challenge in challenges:
        scope = challenge.params.get("scope", "")
        told.append(f"wants {challenge.scheme.title()}{f' for {sanitize(scope, 200)}' if scope else ''}")
        if "error" in challenge.params:
            told.append(sanitize(challenge.params["error"], 50))
    return ", ".join(told) or "wants nothing that it names"


def _token_asked(hop: Hop) -> str:
    """Whose token is asked for, where, and for what."""
    url = urlsplit(hop.request.url)
    scope = " ".join(parse_qs(url.query).get("scope", [])) or "(in the form)"
    basic = hop.request.headers.get("authorization", "").startswith("Basic ")
    who = "with a password" if basic else "with an identity token" if hop.request.method == "POST" else "as nobody"
    return f"token: {hop.request.method} {redact_url(hop.request.url)}, {who}, for {sanitize(scope, 200)}"


def _granted(hop: Hop) -> str:
    """What a token server has granted, as far as that can be told."""
    if hop.request.info.operation != "token" or hop.response is None or hop.response.status >= 300:
        return ""
    answer: Any = None
    with suppress(ValueError, RecursionError):
        answer = json.loads(bytes(hop.said))
    if not isinstance(answer, dict):
        return "grants nothing that is a token"
    life = answer.get("expires_in")
    lasts = f", for {life} s" if isinstance(life, (int, float)) else ""
    token = answer.get("token") or answer.get("access_token")
    access = _access(token) if isinstance(token, str) else None
    stated = answer.get("scope") if isinstance(answer.get("scope"), str) else None
    granted = access if access is not None else stated
    granted = granted and redactor_of(hop.request).text(granted)
    return f"grants {sanitize(granted, 200) or 'nothing'}{lasts}" if granted is not None else f"grants a token{lasts}"


def _access(token: str) -> str | None:
    """What a token grants by its own claim, where it is a JWT of the distribution project's; not verified."""
    with suppress(ValueError, RecursionError, TypeError, KeyError, AttributeError):
        payload = token.split(".")[1] if token.count(".") == 2 else ""
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return " ".join(f"{one['type']}:{one['name']}:{','.join(one['actions'])}" for one in claims["access"])
    return None


def _times(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def summary(hops: list[Hop], style: Style) -> Iterator[str]:
    """What each layer has done in all: how often it was asked, what it answered, what it added, in what time."""
    layers: dict[str, list[Hop]] = {}
    for hop in hops:
        for one in hop.walk():
            layers.setdefault(one.layer, []).append(one)
    yield style.paint("bold", f"  {'layer':<20}{'asked':>6}{'asks':>6}{'own time':>12}   answered, added")
    for layer, asked in layers.items():
        asks = sum(len(hop.below) for hop in asked)
        own = sum(hop.seconds - sum(below.seconds for below in hop.below) for hop in asked)
        answers = Counter(str(hop.response.status) if hop.response else type(hop.error).__name__ for hop in asked)
        counted = ", ".join(f"{count} x {status}" for status, count in sorted(answers.items()))
        added = Counter(name for hop in asked for name in _added(hop))
        shown = "".join(f"; + {name} x {count}" for name, count in added.items())
        yield f"  {layer:<20}{len(asked):>6}{asks:>6}{own * 1e3:>9.1f} ms   {counted}{shown}"


def _added(hop: Hop) -> set[str]:
    asked = [below for below in hop.below if below.request.info.operation == hop.request.info.operation]
    return {name.title() for below in asked for name in below.request.headers if name not in hop.request.headers}
