"""Registry hosts: their grammar, and how a host or a URL is shown in an error message."""

from __future__ import annotations

import re
from ipaddress import IPv6Address

from .._arguments import show
from .._text import cut
from ..errors import UsageError

__all__ = ["check_host", "split_port", "redact_url"]

# The domain of the distribution project's reference grammar (a name, an IPv4 address or an IPv6 address in brackets),
# and underscores: RFC 3986, section 3.2.2, allows them, and so do DNS and the names of buckets and containers.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[A-Fa-f0-9:.]+\])(?::[0-9]{{1,5}})?"
_HOST = re.compile(_DOMAIN)
# Three groups: scheme and slashes; netloc and path; query and fragment. A path begins with a single slash.
_SHOWN = re.compile(r"(?!/(?!/))((?:[a-z][a-z0-9+.-]*:)?//|)([^?#]*)(.*)", re.DOTALL | re.IGNORECASE)
_LONGEST_SHOWN = 200


def check_host(host: str) -> str:
    """A registry's ``host`` or ``host:port`` in lower case.

    Raises:
        UsageError: It is not a valid one: empty, or with a scheme, a path, a query, userinfo, white space or two ports
            in it.
    """
    if not isinstance(host, str) or not _HOST.fullmatch(host):
        shown = redact_url(host) if isinstance(host, str) else host
        raise UsageError(
            f"not a registry host: {show(shown, 250)} (a host reads name or name:port, such as ghcr.io or"
            " localhost:5000)"
        )
    name, port = split_port(host)
    if name.startswith("["):
        try:
            IPv6Address(name[1:-1])
        except ValueError:
            raise UsageError(f"not a registry host: {host!r} (no IPv6 address stands in the brackets)") from None
    if port is not None and port > 65535:
        raise UsageError(f"not a registry host: {host!r} (a port is at most 65535)")
    if len(name) > 253 or any(len(label) > 63 for label in name.split(".")):
        raise UsageError(f"not a registry host: {show(host, 80)} (a name has at most 253 characters, 63 between dots)")
    return host.lower()


def is_host(text: str) -> bool:
    try:
        check_host(text)
    except UsageError:
        return False
    return True


def split_port(host: str) -> tuple[str, int | None]:
    if host.endswith("]"):
        return host, None
    name, colon, port = host.rpartition(":")
    return (name, int(port)) if colon else (host, None)


def redact_url(url: str) -> str:
    """A URL for a message: without query, fragment and userinfo, at most 200 characters.

    A netloc that does not parse is not shown. A password may hold ``/``, ``?`` or ``#`` that should have been
    percent-encoded: everything before an ``@`` is hidden, wherever it is.
    """
    match = _SHOWN.match(url)
    if match is None:  # a path
        return cut(re.split(r"[?#]", url, maxsplit=1)[0], _LONGEST_SHOWN)
    prefix, rest, tail = match.groups()
    _, at, shown = rest.rpartition("@")
    netloc = re.split(r"[/\\]", shown, maxsplit=1)[0]
    # In https://user:123?4@host/ the netloc seems to be a host and a port, in https://token?4@host/ a host.
    hides_userinfo = "@" in tail and not at and (":" in netloc or netloc == shown or not is_host(netloc))
    if hides_userinfo or ((at or prefix) and not is_host(netloc)):
        return cut(f"{prefix}***", _LONGEST_SHOWN)
    return cut(f"{prefix}{'***@' if at else ''}{shown}", _LONGEST_SHOWN)
