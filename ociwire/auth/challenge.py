"""Parse the WWW-Authenticate header.

Follows RFC 9110, section 11.6.1: one header may contain several challenges, and there may be several headers. Text that
is not a challenge is skipped without an exception, because the header is untrusted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, final

from .._http.headers import HTTP_TOKEN

__all__ = ["Challenge"]

_MAX_HEADER = 16 * 1024
_SEPARATOR = re.compile(r"[ \t,]*")
_SCHEME = re.compile(rf"({HTTP_TOKEN.pattern})(?=[ \t,]|$)")
# The RFC requires an unquoted value to be a token, but some servers do not quote URLs.
_PARAM = re.compile(rf'({HTTP_TOKEN.pattern})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s",=][^\s",]*))')
# A single value instead of parameters, as in a Negotiate challenge (RFC 9110, section 11.2). It is skipped.
_TOKEN68 = re.compile(r"[ \t]+[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")
# An unterminated quoted string matches up to the end of the text: searching for its end again and again would take
# quadratic time.
_GARBAGE = re.compile(r'(?:"(?:[^"\\]|\\.)*(?:"|\\?$)|[^",])*', re.DOTALL)


@final
@dataclass(frozen=True, slots=True)
class Challenge:
    """An authentication challenge from a server.

    Attributes:
        scheme: Authentication scheme in lower case, such as ``bearer`` or ``basic``.
        params: The parameters, with names in lower case. If a parameter is repeated, the first value is kept.
    """

    scheme: str
    params: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", MappingProxyType(dict(self.params)))

    def __reduce__(self) -> tuple[Any, ...]:
        return Challenge, (self.scheme, dict(self.params))

    @classmethod
    def parse(cls, *headers: str) -> list[Challenge]:
        """Parse the values of WWW-Authenticate, in order. Never raises.

        Args:
            headers: The values. The first 16 KiB of each are read.
        """
        return [challenge for header in headers for challenge in _parse(header[:_MAX_HEADER])]


def _parse(text: str) -> list[Challenge]:
    parsed: list[tuple[str, dict[str, str]]] = []
    position = _end(_SEPARATOR, text, 0)
    while position < len(text):
        param, scheme = _PARAM.match(text, position), _SCHEME.match(text, position)
        if param is not None and parsed:
            name, quoted, bare = param.groups()
            parsed[-1][1].setdefault(name.lower(), bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
            position = param.end()
        elif scheme is not None:
            parsed.append((scheme[1].lower(), {}))
            position = scheme.end()
            if _PARAM.match(text, _end(_SEPARATOR, text, position)) is None:
                position = _end(_TOKEN68, text, position)
        else:
            position = _end(_GARBAGE, text, position)
        position = _end(_SEPARATOR, text, position)
    return [Challenge(scheme, params) for scheme, params in parsed]


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return position if match is None else match.end()
