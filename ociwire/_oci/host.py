"""Validation of registry hosts, and redaction of URLs for error messages."""

from __future__ import annotations

import re
from ipaddress import IPv6Address

from .._argument_checks import safe_repr
from .._text import truncate
from ..errors import UsageError

__all__ = ["DEFAULT_PORTS", "check_host", "is_host", "redact_url", "split_port"]

DEFAULT_PORTS = {"http": 80, "https": 443}
"""The default port of each scheme (RFC 9110, section 4.2)."""

# The "domain" of the distribution project's reference grammar: a name, an IPv4 address, or an IPv6 address in brackets.
# Underscores are also accepted: RFC 3986, section 3.2.2, allows them, and Docker Compose uses them in the names of
# containers.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[A-Fa-f0-9:.]+\])(?::[0-9]{{1,5}})?"
_HOST = re.compile(_DOMAIN)
# Three groups: scheme and slashes; netloc and path; query and fragment. The pattern does not match a path that begins
# with a single slash.
_URL_PARTS = re.compile(r"(?!/(?!/))((?:[a-z][a-z0-9+.-]*:)?//|)([^?#]*)(.*)", re.DOTALL | re.IGNORECASE)
_MAX_LENGTH = 200


def check_host(host: str) -> str:
    """Validate the ``host`` or ``host:port`` of a registry, and return it in lower case.

    Raises:
        UsageError: The host is invalid. For example, it is empty, or it has a scheme, a path, a query or userinfo.
    """
    if not isinstance(host, str) or not _HOST.fullmatch(host):
        redacted, hint = host, ""
        if isinstance(host, str):
            redacted = redact_url(host)
            if "://" in host:
                hint = ", without a scheme"
            elif "/" in host:
                hint = "; for a reference, use Client.from_reference(...)"
        raise UsageError(
            f"invalid registry host {safe_repr(redacted, 250)}: expected HOST or HOST:PORT, such as ghcr.io or"
            f" localhost:5000{hint}"
        )
    name, port = split_port(host)
    if name.startswith("["):
        try:
            IPv6Address(name[1:-1])
        except ValueError:
            raise UsageError(f"invalid registry host {host!r}: expected an IPv6 address in the brackets") from None
    if port is not None and port > 65535:
        raise UsageError(f"invalid registry host {host!r}: expected a port of at most 65535")
    if len(name) > 253 or any(len(label) > 63 for label in name.split(".")):  # RFC 1035, section 2.3.4
        raise UsageError(
            f"invalid registry host {safe_repr(host, 80)}: expected at most 253 characters, and at most 63 between dots"
        )
    return host.lower()


def is_host(text: str) -> bool:
    """Return whether `check_host` accepts a text."""
    try:
        check_host(text)
    except UsageError:
        return False
    return True


def split_port(host: str) -> tuple[str, int | None]:
    """Split a valid host into its name and its port.

    The name includes the brackets of an IPv6 address. The port is `None` if the host has no port.
    """
    if host.endswith("]"):
        return host, None
    name, colon, port = host.rpartition(":")
    return (name, int(port)) if colon else (host, None)


def redact_url(url: str) -> str:
    """Redact a URL for messages: remove the query, fragment and userinfo, and truncate it to 200 characters.

    Everything before an ``@`` is masked, because a password may contain a ``/``, ``?`` or ``#`` that should have been
    percent-encoded. An invalid netloc is masked, too: it may be the beginning of such a password.
    """
    match = _URL_PARTS.match(url)
    if match is None:  # a path without a host
        return truncate(re.split(r"[?#]", url, maxsplit=1)[0], _MAX_LENGTH)
    prefix, netloc_and_path, query_and_fragment = match.groups()
    _, at, host_and_path = netloc_and_path.rpartition("@")
    netloc = re.split(r"[/\\]", host_and_path, maxsplit=1)[0]
    # An @ after a ? or # may be the end of userinfo. The text before it then looks like a host and port, as in
    # https://user:123?4@host/, or like a host, as in https://token?4@host/.
    hides_userinfo = (
        "@" in query_and_fragment and not at and (":" in netloc or netloc == host_and_path or not is_host(netloc))
    )
    if hides_userinfo or ((at or prefix) and not is_host(netloc)):
        return truncate(f"{prefix}***", _MAX_LENGTH)
    return truncate(f"{prefix}{'***@' if at else ''}{host_and_path}", _MAX_LENGTH)
