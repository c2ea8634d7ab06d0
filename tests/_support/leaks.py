"""Searches all texts of an exception, a log record or a value for secrets."""

from __future__ import annotations

import html
import json
import logging
import pickle
import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from urllib.parse import quote, quote_plus, unquote

from ociwire import Body, Headers, Request


def _json_escaped(text: str) -> str:
    return json.dumps(text)[1:-1]


def _as_units(text: str) -> str:
    units = re.findall("....", text.encode("utf-16-be").hex())
    return "".join(f"\\u{unit}" if not chr(int(unit, 16)).isalnum() else chr(int(unit, 16)) for unit in units)


def _as_references(text: str, form: str) -> str:
    return "".join(char if char.isalnum() else form.format(ord(char)) for char in text)


ENCODINGS: dict[str, Callable[[str], str]] = {
    "raw": lambda text: text,
    "percent": lambda text: quote(text, safe=""),
    "percent, lower case": lambda text: re.sub("%..", lambda match: match[0].lower(), quote(text, safe="")),
    "percent, mixed case": lambda text: quote(text, safe="").replace("%2F", "%2f"),
    "form": quote_plus,
    "percent twice": lambda text: quote(quote(text, safe=""), safe=""),
    "JSON": _json_escaped,
    "JSON with slashes": lambda text: _json_escaped(text).replace("/", r"\/"),
    "JSON with units": _as_units,
    "HTML": html.escape,
    "HTML, decimal": lambda text: _as_references(text, "&#{};"),
    "HTML, hexadecimal": lambda text: _as_references(text, "&#x{:X};"),
    "HTML, named": lambda text: html.escape(text).replace("+", "&plus;").replace("/", "&sol;").replace("=", "&equals;"),
    "HTML in JSON": lambda text: _json_escaped(html.escape(text)).replace("&", r"\u0026"),
    "percent in JSON in HTML": lambda text: html.escape(_json_escaped(quote(text, safe=""))),
}
"""Encodings in which a server may repeat a secret."""

USUAL_ENCODINGS = ("raw", "percent", "JSON with units", "HTML", "percent in JSON in HTML")
"""Encodings that large matrices test in every run. All others are slow. tests/http/test_redact.py tests all of them."""


def iter_texts(value: object) -> Iterator[str]:
    """Yield all texts of an object, its attributes and its chained exceptions."""
    seen: set[int] = set()

    def walk(value: object) -> Iterator[str]:
        if id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, bytes):
            yield value.decode("latin-1")
            return
        yield f"{value}\n{value!r}"
        inner: Iterable[object] = ()
        if isinstance(value, BaseException):
            # Without the frames, which are slow to format and contain only lines of source.
            yield from traceback.format_exception_only(value)
            yield pickle.dumps(value).decode("latin-1") if _is_ociwire_error(value) else ""
            inner = (value.args, vars(value), value.__cause__, value.__context__)
        elif isinstance(value, dict):
            inner = (*value.keys(), *value.values())
        elif isinstance(value, (list, tuple)):
            inner = value
        elif isinstance(value, Headers):
            inner = tuple(value.items())
        elif isinstance(value, Request):
            inner = (value.url, value.headers, value.body, value.info, getattr(value.info, "_redactor", None))
        elif isinstance(value, Body):
            inner = (b"".join(value.open()),) if value.resendable else ()
        elif hasattr(value, "__slots__"):
            inner = [getattr(value, name) for name in value.__slots__ if hasattr(value, name)]
        for item in inner:
            yield from walk(item)

    return walk(value)


def _is_ociwire_error(error: BaseException) -> bool:
    return type(error).__module__.startswith("ociwire")


@lru_cache(maxsize=10_000)  # most texts occur in several places
def _decoded(text: str) -> frozenset[str]:
    """Return a text and all forms of it whose escapes are decoded, up to four levels deep."""
    forms, last = {text}, {text}
    for _ in range(4):
        last = {
            decoded
            for form in last
            for decoded in (
                unquote(form),
                html.unescape(form),
                re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), form),
                re.sub(r'\\(["/\\])', r"\1", form),
            )
        } - forms
        forms |= last
    return frozenset(form.replace("+", " ") for form in forms)


def assert_no_leak(value: object, secrets: Iterable[str]) -> None:
    searched = [(secret, secret.replace("+", " ")) for secret in secrets]
    for text in set(iter_texts(value)):
        for form in _decoded(text):
            for secret, with_spaces in searched:
                assert with_spaces not in form, f"{secret!r} in {text!r}"


def assert_no_leak_in_records(records: Iterable[logging.LogRecord], secrets: Iterable[str]) -> None:
    for record in records:
        assert_no_leak((record.getMessage(), record.args), secrets)
