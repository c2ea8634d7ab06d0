"""Pagination: the next page by Link (RFC 8288), or else by ``last=``; a pagination loop is an error.

Follows the OCI distribution specification, "Listing Tags". Each page is read and closed before its items are yielded.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any
from urllib.parse import urlencode

from .._argument_checks import check_integer, safe_repr
from .._http.messages import Response
from .._http.origin_policy import next_page
from .._text import SURROGATE
from ..errors import ContentError, ProtocolError, UsageError
from .error_mapping import HTML_HINT, is_html_body
from .request_sender import read_with_retry

__all__ = ["MAX_PAGE_SIZE", "iter_names", "iter_pages"]

_LOG = logging.getLogger("ociwire.client")

PAGE_SIZE = 1000
"""Maximum number of names that are requested in a page: some registries refuse more (ECR)."""

MAX_PAGE_SIZE = 16 * 1024 * 1024
"""Maximum size of a page of a list in bytes."""
_MAX_EMPTY_PAGES = 100
_MAX_SEEN = 10_000
"""Maximum number of page URLs whose hashes are remembered (512 KiB)."""

_LINK = re.compile(r"<([^<>]*)>((?:\s*;\s*[\w!#$%&'*+.^`|~-]+\s*(?:=\s*(?:\"(?:[^\"\\]|\\.)*\"|[^\s\",;]+))?)*)")
_PARAMETER = re.compile(r";\s*([\w!#$%&'*+.^`|~-]+)\s*(?:=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s\",;]+)))?")


def iter_pages(send: Callable[[str], Response], url: str, key: str) -> Iterator[tuple[dict[str, Any], Response]]:
    """Iterate over the pages of a list by following Link: the JSON object of each, and its response, closed.

    Args:
        send: Sends a GET to a path or URL and returns its response.
        url: The URL of the first page.
        key: The name of the list in each page.

    Raises:
        ProtocolError: A page is not a JSON object or too large; there is a pagination loop; a Link leads to another
            origin; or too many consecutive pages have nothing under `key`.
        ContentError: A page is an HTML page.
        RegistryError: What `send` raises.
        TransportError: What `send` raises, or the connection failed.
    """
    seen: set[int] = set()  # hashes of URLs: there may be very many pages
    empty_pages = 0
    next_url: str | None = url
    while next_url is not None:
        response, page = _read_page(send, next_url)
        empty_pages = 0 if page.get(key) else empty_pages + 1
        if empty_pages > _MAX_EMPTY_PAGES:
            raise ProtocolError(f"more than {_MAX_EMPTY_PAGES} pages in a row without {key}", request=response.request)
        yield page, response
        if len(seen) >= _MAX_SEEN:
            seen.clear()  # a loop of fewer pages is still detected, in its next round
        if response.request is not None:
            seen.add(hash(response.request.url))
        next_url = _next_url(response)
        if hash(next_url) in seen:
            raise ProtocolError("the pages of a list go in a circle (Link)", request=response.request)
        seen.add(hash(next_url))  # after a redirect, the requested URL and that of the response differ


def _read_page(send: Callable[[str], Response], url: str) -> tuple[Response, dict[str, Any]]:
    """Read a page. Its bytes, up to 16 MiB, are not kept while its items are yielded."""
    response, body = read_with_retry(lambda: send(url), limit=MAX_PAGE_SIZE)
    if is_html_body(response, body):
        raise ContentError(f"expected a list in JSON{HTML_HINT}")
    page = Response(200, body=body, request=response.request).json(limit=MAX_PAGE_SIZE)
    if not isinstance(page, dict):
        raise ProtocolError("a page of a list is no JSON object", request=response.request)
    return response, page


def iter_names(
    send: Callable[[str], Response], url: str, key: str, start_after: str | None, limit: int | None
) -> Iterator[str]:
    """Iterate over the names under `key` of each page: tags, or repositories.

    Args:
        send: Sends a GET to a path or URL and returns its response, if that is a 200.
        url: The URL of the first page, without a query.
        key: ``tags`` or ``repositories``.
        start_after: The name after which to begin.
        limit: Maximum number of names.

    Raises:
        UsageError: The limit is not a number, or `start_after` is not a printable string.
        ContentError: As `iter_pages`.
        ProtocolError: As `iter_pages`; or there is no list under `key`. Entries that are not strings are skipped and
            logged.
        OciwireError: What `send` raises.
    """
    if limit is not None:
        # `islice` accepts no larger number, and no list is longer.
        limit = check_integer("limit", min(limit, sys.maxsize) if type(limit) is int else limit)
    if start_after is not None and not (isinstance(start_after, str) and start_after.isprintable()):
        raise UsageError(f"not a name to start after: {safe_repr(start_after, 200)}")
    page_size = None if limit is None else min(limit, PAGE_SIZE)
    return islice(_iter_names(send, url, key, start_after, page_size), limit)


def _iter_names(
    send: Callable[[str], Response], url: str, key: str, start_after: str | None, page_size: int | None
) -> Iterator[str]:
    """Follow Link within each round; where there never was a Link, begin another round with ``last=``."""
    last, known = start_after, frozenset[str]()
    while page_size != 0:
        page_count, entry_count, names = 0, 0, list[str]()
        parameters = {"n": page_size, "last": last}
        query = urlencode({name: value for name, value in parameters.items() if value is not None})
        for page, response in iter_pages(send, f"{url}?{query}" if query else url, key):
            names, entry_count = _read_names(page, key, response)
            if not page_count and not known.isdisjoint(names):
                # The registry ignores last= and has no pages: it sends the same list again.
                yield from names[: next(index for index, name in enumerate(names) if name in known)]
                return
            yield from names
            page_count += 1
        # A full page without a Link may be only the first of several.
        if page_count > 1 or page_size is None or entry_count < page_size or not names:
            return
        last, known = names[-1], frozenset(names)


def _read_names(page: dict[str, Any], key: str, response: Response) -> tuple[list[str], int]:
    """Get the names of a page, and the number of all its entries."""
    entries = page.get(key)
    if entries is None:
        return [], 0  # Go serializes an empty list as null
    if not isinstance(entries, list):
        raise ProtocolError(f"a page of a list has no list under {key!r}", request=response.request)
    names = [name for name in entries if isinstance(name, str) and not SURROGATE.search(name)]
    if len(names) < len(entries):
        _LOG.warning("skipped %d of %d entries of %s: expected text", len(entries) - len(names), len(entries), key)
    return names, len(entries)


def _next_url(response: Response) -> str | None:
    """Get the URL of the next page from the Link header (RFC 8288). Returns `None` if there is none."""
    for target, parameters in _LINK.findall(response.headers.get("link", "")):
        # Without a relation it is taken to be the next page: a list has no other link.
        pairs = _PARAMETER.findall(parameters)
        relations = next((quoted or bare for name, quoted, bare in pairs if name.lower() == "rel"), "next")
        if "next" not in relations.lower().split():
            continue
        if response.request is None:
            raise ProtocolError("cannot follow the Link of a page: the response has no request")
        try:
            return next_page(response.request.url, target)
        except ProtocolError as error:
            error.request = response.request
            raise
    return None
