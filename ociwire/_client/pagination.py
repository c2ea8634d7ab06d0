"""Lists that come in pages: the next one by Link (RFC 8288), else by ``last=``, and never the same one twice.

Follows the OCI distribution specification, "Listing Tags". Each page is read and closed before an item of it is given.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any
from urllib.parse import urlencode

from .._arguments import show
from .._http.messages import Response
from .._http.origin_policy import next_page
from .._text import SURROGATE
from ..errors import ContentError, ProtocolError, UsageError
from .error_mapping import is_html_body
from .session import read_anew

__all__ = ["MAX_PAGE_SIZE", "names", "pages"]

_LOG = logging.getLogger("ociwire.client")

PAGE_SIZE = 1000
"""The most that is asked for in a page: more is refused by some registries (ECR)."""

MAX_PAGE_SIZE = 16 * 1024 * 1024
"""Maximum size of a page of a list in bytes."""
_MAX_EMPTY = 100
_MAX_SEEN = 10_000
"""Maximum number of page URLs whose hashes are remembered (512 KiB)."""

_LINK = re.compile(r"<([^<>]*)>((?:\s*;\s*[\w!#$%&'*+.^`|~-]+\s*(?:=\s*(?:\"(?:[^\"\\]|\\.)*\"|[^\s\",;]+))?)*)")
_PARAMETER = re.compile(r";\s*([\w!#$%&'*+.^`|~-]+)\s*(?:=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s\",;]+)))?")


def pages(send: Callable[[str], Response], url: str, key: str) -> Iterator[tuple[Any, Response]]:
    """The JSON of a page after the other, as far as Link leads, with its response, which is closed.

    Raises:
        ProtocolError: A page is no JSON object or too large; a Link repeats itself, or leads to another origin; or too
            many pages in a row have nothing under `key`.
        ContentError: A page is an HTML page.
        RegistryError: What `send` raises.
        TransportError: What `send` raises, or the connection failed.
    """
    seen: set[int] = set()
    empty = 0
    next_url: str | None = url
    while next_url is not None:
        response, page = _page(send, next_url)
        if not isinstance(page, dict):
            raise ProtocolError("a page of a list is no JSON object", request=response.request)
        empty = 0 if page.get(key) else empty + 1
        if empty > _MAX_EMPTY:
            raise ProtocolError(f"more than {_MAX_EMPTY} pages in a row without {key}", request=response.request)
        yield page, response
        if len(seen) >= _MAX_SEEN:
            seen.clear()  # a loop of fewer pages is still noticed, in its next round
        if response.request is not None:
            seen.add(hash(response.request.url))  # enough to remember a URL by: there may be very many pages
        next_url = _next_url(response)
        if hash(next_url) in seen:
            raise ProtocolError("the pages of a list go in a circle (Link)", request=response.request)
        seen.add(hash(next_url))  # what is asked and what answers may differ, by a redirect


def _page(send: Callable[[str], Response], url: str) -> tuple[Response, Any]:
    response, body = read_anew(lambda: send(url), limit=MAX_PAGE_SIZE)
    if is_html_body(response, body):
        raise ContentError(
            "expected a list in JSON, got an HTML page: a login page, a captive portal or a firewall may have answered"
            " instead of the registry"
        )
    return response, Response(200, body=body, request=response.request).json(limit=MAX_PAGE_SIZE)


def names(
    send: Callable[[str], Response], path: str, key: str, start_after: str | None, limit: int | None
) -> Iterator[str]:
    """The names under `key` of each page: tags, or repositories.

    Args:
        send: Sends a GET to a path or URL and returns its response, if that is a 200.
        path: The first page's path.
        key: ``tags`` or ``repositories``.
        start_after: The name after which to begin.
        limit: The most names to give in all.

    Raises:
        UsageError: The name to start after is no string.
        ContentError: As `pages`.
        ProtocolError: As `pages`; or there is no list under `key`. Other entries than strings are skipped and logged.
        OciwireError: What `send` raises.
    """
    if start_after is not None and not (isinstance(start_after, str) and start_after.isprintable()):
        raise UsageError(f"not a name to start after: {show(start_after, 200)}")
    count = None if limit is None else min(limit, PAGE_SIZE)
    pieces = _pieces(send, path, key, start_after, count)
    return islice((name for piece in pieces for name in piece), limit)


def _pieces(
    send: Callable[[str], Response], path: str, key: str, start_after: str | None, count: int | None
) -> Iterator[list[str]]:
    last, known = start_after, frozenset[str]()
    while count != 0:
        linked, size, found = 0, 0, list[str]()
        for page, response in pages(send, path + _query(count, last), key):
            found, size = _strings(page, key, response)
            if not linked and not known.isdisjoint(found):
                # Asked with last=, it tells again what it has told: it knows no pages, and all that it has is told.
                yield found[: next(index for index, name in enumerate(found) if name in known)]
                return
            yield found
            linked += 1
        # Where there never was a Link, a full page may be only the first of several.
        if linked > 1 or count is None or size < count or not found:
            return
        last, known = found[-1], frozenset(found)


def _query(count: int | None, last: str | None) -> str:
    parameters = {"n": count, "last": last}
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


def _strings(page: dict[str, Any], key: str, response: Response) -> tuple[list[str], int]:
    """The names of a page, and the number of all its entries."""
    listed = page.get(key)
    if listed is None:
        return [], 0  # an empty list, as Go writes it
    if not isinstance(listed, list):
        raise ProtocolError(f"a page of a list has no list under {key!r}", request=response.request)
    found = [name for name in listed if isinstance(name, str) and not SURROGATE.search(name)]
    if len(found) < len(listed):
        _LOG.warning("skipped %d of %d entries of %s: expected text", len(listed) - len(found), len(listed), key)
    return found, len(listed)


def _next_url(response: Response) -> str | None:
    for target, parameters in _LINK.findall(response.headers.get("link", "")):
        # Without a relation it is taken to be the next page: there is no other link in a list.
        found = _PARAMETER.findall(parameters)
        relations = next((quoted or bare for name, quoted, bare in found if name.lower() == "rel"), "next")
        if "next" in relations.lower().split():
            return _followed(response, target)
    return None


def _followed(response: Response, target: str) -> str:
    if response.request is None:
        raise ProtocolError("a page's Link cannot be followed: nobody knows what was asked")
    try:
        return next_page(response.request.url, target)
    except ProtocolError as error:
        error.request = response.request
        raise
