"""Pagination of lists with Link headers (RFC 8288), or with ``last=`` if responses have no Link header.

The OCI distribution specification, "Listing Tags", describes both. Each page is read and closed before its items are
yielded.
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
"""Maximum number of names to request per page. ECR refuses more."""

MAX_PAGE_SIZE = 16 * 1024 * 1024
"""Maximum size of a page of a list in bytes."""
_MAX_EMPTY_PAGES = 100
_MAX_SEEN = 10_000
"""Maximum number of page URLs whose hashes are stored to detect a loop (512 KiB)."""

# RFC 8288, section 3: a URL in angle brackets, followed by parameters whose values are tokens or quoted strings.
_LINK = re.compile(r"<([^<>]*)>((?:\s*;\s*[\w!#$%&'*+.^`|~-]+\s*(?:=\s*(?:\"(?:[^\"\\]|\\.)*\"|[^\s\",;]+))?)*)")
_PARAMETER = re.compile(r";\s*([\w!#$%&'*+.^`|~-]+)\s*(?:=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s\",;]+)))?")


def iter_pages(send: Callable[[str], Response], url: str, key: str) -> Iterator[tuple[dict[str, Any], Response]]:
    """Follow Link headers, and yield the JSON object and the closed response of each page of a list.

    Args:
        send: Function that sends a GET to a path or URL, and returns the response.
        url: Path or URL of the first page.
        key: Name of the list in each page.

    Raises:
        ProtocolError: A page is not a JSON object or too large, there is a pagination loop, a Link is cross-origin, or
            too many consecutive pages have no items under `key`.
        ContentError: A page is an HTML page.
        RegistryError: Raised by `send`.
        TransportError: Raised by `send`, or the connection failed.
    """
    seen: set[int] = set()  # hashes instead of URLs, because there may be many pages with long URLs
    empty_pages = 0
    next_url: str | None = url
    while next_url is not None:
        response, page = _read_page(send, next_url)
        empty_pages = 0 if page.get(key) else empty_pages + 1
        if empty_pages > _MAX_EMPTY_PAGES:
            raise ProtocolError(
                f"too many empty pages: expected at most {_MAX_EMPTY_PAGES} consecutive pages without {key}",
                request=response.request,
            )
        yield page, response
        if len(seen) >= _MAX_SEEN:
            seen.clear()  # a loop of fewer pages is detected in its next iteration
        if response.request is not None:
            seen.add(hash(response.request.url))
        next_url = _next_url(response)
        if hash(next_url) in seen:
            raise ProtocolError(
                "pagination loop: the Link of a page leads to an earlier page", request=response.request
            )
        seen.add(hash(next_url))  # after a redirect, the URL of the response differs from this one


def _read_page(send: Callable[[str], Response], url: str) -> tuple[Response, dict[str, Any]]:
    """Read and parse a page. This is a separate function to free the bytes (up to 16 MiB) before items are yielded."""
    response, body = read_with_retry(lambda: send(url), limit=MAX_PAGE_SIZE)
    if is_html_body(response, body):
        raise ContentError(f"expected a list in JSON{HTML_HINT}")
    page = Response(200, body=body, request=response.request).json(limit=MAX_PAGE_SIZE)
    if not isinstance(page, dict):
        raise ProtocolError("invalid page of a list: expected a JSON object", request=response.request)
    return response, page


def iter_names(
    send: Callable[[str], Response], url: str, key: str, start_after: str | None, limit: int | None
) -> Iterator[str]:
    """Yield the names under `key` of each page. Entries that are not strings are skipped with a log line.

    Args:
        send: Function that sends a GET to a path or URL, and returns a response with status 200.
        url: Path of the first page, without a query.
        key: ``tags`` or ``repositories``.
        start_after: Name after which to begin. `None` means the first name.
        limit: Maximum number of names. `None` means no limit.

    Raises:
        UsageError: The limit is not an integer of 0 or more, or `start_after` is not a printable string.
        ContentError: A page is an HTML page.
        ProtocolError: See `iter_pages`. Also raised if the value of `key` is not a list.
        OciwireError: Raised by `send`.
    """
    if limit is not None:
        # `islice` accepts at most `sys.maxsize`.
        limit = check_integer("limit", min(limit, sys.maxsize) if type(limit) is int else limit)
    if start_after is not None and not (isinstance(start_after, str) and start_after.isprintable()):
        raise UsageError(f"invalid start_after {safe_repr(start_after, 200)}: expected a printable string")
    page_size = None if limit is None else min(limit, PAGE_SIZE)
    return islice(_iter_names(send, url, key, start_after, page_size), limit)


def _iter_names(
    send: Callable[[str], Response], url: str, key: str, start_after: str | None, page_size: int | None
) -> Iterator[str]:
    """Yield the names of all pages. If a full first page has no Link, request the next names with ``last=``."""
    last_name, last_names = start_after, frozenset[str]()
    while page_size != 0:
        page_count, entry_count, names = 0, 0, list[str]()
        parameters = {"n": page_size, "last": last_name}
        query = urlencode({name: value for name, value in parameters.items() if value is not None})
        for page, response in iter_pages(send, f"{url}?{query}" if query else url, key):
            names, entry_count = _read_names(page, key, response)
            if not page_count and not last_names.isdisjoint(names):
                # The registry ignores last=, and sends the same list again: yield only the names before the first known
                # name.
                yield from names[: next(index for index, name in enumerate(names) if name in last_names)]
                return
            yield from names
            page_count += 1
        # A full page without a Link may not be the last one: some registries support last=, but send no Link.
        if page_count > 1 or page_size is None or entry_count < page_size or not names:
            return
        last_name, last_names = names[-1], frozenset(names)


def _read_names(page: dict[str, Any], key: str, response: Response) -> tuple[list[str], int]:
    """Return the names in a page, and the number of all entries, including those that are skipped."""
    entries = page.get(key)
    if entries is None:
        return [], 0  # Go serializes an empty list as null
    if not isinstance(entries, list):
        raise ProtocolError(f"invalid page of a list: expected a list under {key!r}", request=response.request)
    names = [name for name in entries if isinstance(name, str) and not SURROGATE.search(name)]
    if len(names) < len(entries):
        _LOG.warning("skipped %d of %d entries of %s: expected strings", len(entries) - len(names), len(entries), key)
    return names, len(entries)


def _next_url(response: Response) -> str | None:
    """Return the URL of the next page from the Link header (RFC 8288); `None` if there is none."""
    for target, parameters in _LINK.findall(response.headers.get("link", "")):
        # A Link without a relation is followed, because a list has no other links.
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
