"""Renders a trace as text: a tree per request, and a summary per layer.

The output contains no secrets. Values are shown only for headers that cannot contain secrets, and for query parameters
that the specifications define. For tokens, only the scopes are shown.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

from .._http.messages import Request, redactor_of
from .._http.urls import Origin
from .._oci.host import redact_url
from .._oci.manifest import parse_json_object
from .._text import format_size, sanitize, status_line
from ..auth import Challenge
from .trace import Span

__all__ = ["Style", "render_summary", "render_tree"]

_SHOWN_HEADERS = frozenset({"user-agent", "expect", "content-type", "accept", "range"})
_MAX_HEADER_VALUE = 30
_COLOURS = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "cyan": 36}


class Style:
    """Formatter of text for a terminal.

    Args:
        colours: Whether to use colours. If false, text is returned unchanged.
    """

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    def paint(self, colour: str, text: str) -> str:
        """Return text in a colour or in bold."""
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self._colours and text else text

    def outcome(self, span: Span) -> str:
        """Return the status or the exception of a span, in 24 columns."""
        if span.response is None:
            return self.paint("red", f"{type(span.error).__name__:<24.24}")
        status = span.response.status
        colour = "green" if status < 300 else "yellow" if status < 400 or status == 401 else "red"
        return self.paint(colour, f"{status_line(status):<24.24}")


def render_tree(span: Span, style: Style) -> Iterator[str]:
    """Yield lines that show a request of a client and what each layer did."""
    url = redactor_of(span.request).redact_url(span.request.url)
    yield f"  {style.paint('bold', span.request.method)} {style.paint('cyan', url)}"
    headers = _format_headers(span.request, known=())
    yield f"    {'Client':<26}{style.outcome(span)}{span.seconds * 1e3:8.1f} ms   {headers}".rstrip()
    yield from _render_branch(span, style, 0)


def _render_branch(span: Span, style: Style, depth: int) -> Iterator[str]:
    name = f"{'  ' * depth}{span.layer}"
    yield f"    {name:<26}{style.outcome(span)}{span.seconds * 1e3:8.1f} ms   {_describe(span)}".rstrip()
    indent = f"    {'  ' * (depth + 1)}"
    for number, child in enumerate(span.children):
        if child.request.info.operation == "token" and span.request.info.operation != "token":
            yield f"{indent}{style.paint('dim', _describe_token_request(child))}"
        elif number and child.request.url != span.children[number - 1].request.url:
            redirected = f"{child.request.method} {redactor_of(child.request).redact_url(child.request.url)}"
            yield f"{indent}{style.paint('dim', redirected)}"
        yield from _render_branch(child, style, depth + 1)


def _describe(span: Span) -> str:
    """Return a short description of what a layer did."""
    if span.layer == "UrllibTransport":
        sent = f"sent {format_size(span.sent)}, first byte after {span.first_byte * 1e3:.1f} ms" if span.sent else ""
        return "; ".join(part for part in (sent, _describe_token_response(span), _describe_challenge(span)) if part)
    requests = _requests_of_same_operation(span)
    parts = []
    if span.layer == "RedirectTransport" and len(requests) > 1:
        is_cross_origin = any(Origin.of(request.url) != Origin.of(span.request.url) for request in requests)
        count = len(requests) - 1
        ending = ", without credentials to another origin" if is_cross_origin else ""
        parts.append(f"followed {count} redirect{'' if count == 1 else 's'}{ending}")
    elif len(requests) > 1:
        parts.append(f"sent {len(requests)} times")
    added = _format_headers(requests[-1], known=span.request.headers) if requests else ""
    if added:
        parts.append(added)
    elif span.layer == "HeadersTransport":
        parts.append("headers already set")
    return "; ".join(parts)


def _requests_of_same_operation(span: Span) -> list[Request]:
    """Return the requests that a layer sent to handle a request, except token requests."""
    operation = span.request.info.operation
    return [child.request for child in span.children if child.request.info.operation == operation]


def _format_headers(request: Request, *, known: Container[object]) -> str:
    """Return the headers of a request that are not in `known`. Values that may be secret are masked."""
    shown = []
    for name, value in request.headers.items():
        if name in known:
            continue
        if name.lower() in _SHOWN_HEADERS:
            text = value if len(value) <= _MAX_HEADER_VALUE else f"{value[:_MAX_HEADER_VALUE]}…"
        else:
            scheme, space, _ = value.partition(" ")  # keep the scheme of an Authorization: `Bearer ***`
            text = f"{scheme} ***" if space else "***"
        shown.append(f"{name}: {text}")
    return f"+ {', '.join(shown)}" if shown else ""


def _describe_challenge(span: Span) -> str:
    """Return the scheme, scope and error of each challenge of a 401."""
    if span.response is None or span.response.status != 401 or span.request.info.operation == "token":
        return ""
    redactor = redactor_of(span.request)
    challenges = Challenge.parse(*map(redactor.redact_text, span.response.headers.get_all("www-authenticate")))
    parts = []
    for challenge in challenges:
        scope = challenge.params.get("scope", "")
        parts.append(f"requires {challenge.scheme.title()}{f' for {sanitize(scope, 200)}' if scope else ''}")
        if "error" in challenge.params:
            parts.append(sanitize(challenge.params["error"], 50))
    return ", ".join(parts) or "no challenge"


def _describe_token_request(span: Span) -> str:
    """Return the URL, the kind of credential and the scope of a token request."""
    url = urlsplit(span.request.url)
    # The scope of a POST is in the form, which is not read because it contains the identity token.
    scope = " ".join(parse_qs(url.query).get("scope", [])) or "(in the form)"
    if span.request.headers.get("authorization", "").startswith("Basic "):
        credential = "with a password"
    elif span.request.method == "POST":
        credential = "with an identity token"
    else:
        credential = "anonymous"
    return f"token: {span.request.method} {redact_url(span.request.url)}, {credential}, for {sanitize(scope, 200)}"


def _describe_token_response(span: Span) -> str:
    """Return the scope and lifetime of a granted token, from the response or from the claims of a JWT."""
    if span.request.info.operation != "token" or span.response is None or span.response.status >= 300:
        return ""
    content = parse_json_object(bytes(span.token_response))
    if content is None:
        return "no token in the response"
    expires_in = content.get("expires_in")
    lifetime = f", for {expires_in} s" if isinstance(expires_in, (int, float)) else ""
    token = content.get("token") or content.get("access_token")
    scope = _scope_of_jwt(token) if isinstance(token, str) else None
    if scope is None and isinstance(content.get("scope"), str):
        scope = content["scope"]
    if scope is None:
        return f"grants a token{lifetime}"
    return f"grants {sanitize(redactor_of(span.request).redact_text(scope), 200) or 'nothing'}{lifetime}"


def _scope_of_jwt(token: str) -> str | None:
    """Return the scope of a JWT of the distribution project without verifying it, or None for other tokens."""
    with suppress(ValueError, RecursionError, TypeError, KeyError, AttributeError):
        payload = token.split(".")[1] if token.count(".") == 2 else ""
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return " ".join(f"{grant['type']}:{grant['name']}:{','.join(grant['actions'])}" for grant in claims["access"])
    return None


def render_summary(spans: list[Span], style: Style) -> Iterator[str]:
    """Yield the lines of a table with the requests, time, outcomes and added headers of each layer."""
    layers: dict[str, list[Span]] = {}
    for root in spans:
        for span in root.walk():
            layers.setdefault(span.layer, []).append(span)
    yield style.paint("bold", f"  {'layer':<20}{'in':>6}{'out':>6}{'own time':>12}   outcomes, added headers")
    for layer, layer_spans in layers.items():
        requests = sum(len(span.children) for span in layer_spans)
        seconds = sum(span.seconds - sum(child.seconds for child in span.children) for span in layer_spans)
        outcomes = Counter(
            str(span.response.status) if span.response else type(span.error).__name__ for span in layer_spans
        )
        counted = ", ".join(f"{count} x {outcome}" for outcome, count in sorted(outcomes.items()))
        added = Counter(
            header
            for span in layer_spans
            for header in {
                name.title()
                for request in _requests_of_same_operation(span)
                for name in request.headers
                if name not in span.request.headers
            }
        )
        shown = "".join(f"; + {name} x {count}" for name, count in added.items())
        yield f"  {layer:<20}{len(layer_spans):>6}{requests:>6}{seconds * 1e3:>9.1f} ms   {counted}{shown}"
