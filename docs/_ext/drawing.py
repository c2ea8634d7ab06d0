"""Draws the default stack and the tree of exceptions as SVG.

``python docs/_ext/drawing.py`` prints the stack, which the README shows from ``docs/images/stack.svg``.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from html import escape

import ociwire
from ociwire import Client, OciwireError, Transport, default_transport
from ociwire.auth import Anonymous

_WIDTH = 480
_FONT = "font-family:ui-monospace,SFMono-Regular,Menlo,monospace"
_STYLE = f"""<style>
.drawn {{ max-width: {_WIDTH * 1.25:.0f}px; width: 100%; height: auto; }}
.drawn text {{ fill: var(--color-foreground-primary, #1f2328); font: 13px system-ui, sans-serif; }}
.drawn .name {{ {_FONT}; font-size: 14px; font-weight: 600; }}
.drawn .small {{ fill: var(--color-foreground-secondary, #59636e); }}
.drawn a {{ text-decoration: none; }}
.drawn a .name {{ fill: var(--color-link, #0a53ba); }}
.drawn .box {{ fill: var(--color-background-secondary, #f6f8fa); stroke: var(--color-foreground-border, #878787); }}
.drawn .line {{ fill: none; stroke: var(--color-foreground-border, #878787); stroke-width: 1.5; }}
.drawn .tip {{ fill: var(--color-foreground-border, #878787); }}
</style>"""


def stack(links: str = "") -> str:
    """Return a drawing of a client on top of the default stack, with the first sentence of each docstring.

    Args:
        links: Prefix of the link of each name. Defaults to no links.
    """
    top, gap, margin = 8, 18, 64
    parts: list[str] = []
    for kind in _kinds():
        lines = textwrap.wrap(_summary(kind), 52)
        height = 30 + 17 * len(lines)
        box = f'<rect class="box" x="{margin}" y="{top}" width="{_WIDTH - 2 * margin}" height="{height}" rx="6"/>'
        name = f'<text class="name" x="{margin + 12}" y="{top + 21}">{kind.__name__}</text>'
        parts += [box, _linked(name, f"{links}#ociwire.{kind.__name__}" if links else "")]
        parts += [
            f'<text class="small" x="{margin + 12}" y="{top + 40 + 17 * number}">{escape(line)}</text>'
            for number, line in enumerate(lines)
        ]
        top += height + gap
    parts.append(f'<text class="name" x="{_WIDTH / 2}" y="{top + 14}" text-anchor="middle">the registry</text>')
    down, up, end = margin / 2, _WIDTH - margin / 2, top
    for x, label, tip in ((down, "request", f"{down},{end + 8}"), (up, "response", f"{up},4")):
        away = -8 if label == "request" else 8
        parts.append(f'<path class="line" d="M{x} {12 if away > 0 else 4} V{end + (8 if away > 0 else 0)}"/>')
        x_tip, y_tip = (float(number) for number in tip.split(","))
        parts.append(f'<path class="tip" d="M{x_tip} {y_tip} l-5 {away} h10 z"/>')
        turned = f'transform="rotate(-90 {x} {end / 2})"'
        parts.append(f'<text class="small" x="{x}" y="{end / 2 - 6}" text-anchor="middle" {turned}>{label}</text>')
    return _svg(top + 24, parts, "A request's way through the default stack, from the client to the registry and back")


def errors() -> str:
    """Return a drawing of the tree of exceptions."""
    row, indent = 26, 24
    rows = list(_tree(OciwireError, 0))
    parts: list[str] = []
    last_at: dict[int, int] = {}
    for number, (kind, depth) in enumerate(rows):
        x, y = 8 + depth * indent, 20 + number * row
        if depth:
            parts.append(f'<path class="line" d="M{x - 16} {last_at[depth - 1] + 7} V{y - 4} H{x - 4}"/>')
        last_at[depth] = y
        name = f'<text class="name" x="{x}" y="{y}">{kind.__name__}</text>'
        parts.append(_linked(name, f"#ociwire.{kind.__name__}"))
        also = [base.__name__ for base in kind.__bases__ if not _is_parent(base, kind)]
        if also:
            aside = x + 9 * len(kind.__name__) + 10
            parts.append(f'<text class="small" x="{aside}" y="{y}">and a {escape(", ".join(also))}</text>')
    return _svg(len(rows) * row + 10, parts, "The tree of ociwire's exceptions")


def _kinds() -> Iterator[type]:
    """Yield the client and the transports of the default stack, from the outermost layer to the base transport."""
    yield Client
    transport: Transport | None = default_transport(credentials=Anonymous())
    while transport is not None:
        yield type(transport)
        transport = getattr(transport, "_inner", None)


def _summary(kind: type) -> str:
    """Return the first sentence of a class's docstring without its markup."""
    first = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
    sentence = re.split(r"(?<=[a-z)])\. ", first)[0].rstrip(".")
    return sentence.replace("`", "")


def _tree(kind: type, depth: int) -> Iterator[tuple[type, int]]:
    yield kind, depth
    for name in ociwire.errors.__all__:
        child = getattr(ociwire.errors, name)
        if child.__bases__[0] is kind:
            yield from _tree(child, depth + 1)


def _is_parent(base: type, kind: type) -> bool:
    return base in (Exception, kind.__bases__[0])


def _linked(text: str, target: str) -> str:
    return f'<a href="{target}">{text}</a>' if target else text


def _svg(height: float, parts: list[str], title: str) -> str:
    box = f'viewBox="0 0 {_WIDTH} {height:g}" width="{_WIDTH}" height="{height:g}"'
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" class="drawn" {box} role="img">'
    return "\n".join([opening, f"<title>{title}</title>", _STYLE, *parts, "</svg>", ""])


if __name__ == "__main__":
    print(stack(), end="")  # noqa: T201 - prints the drawing
