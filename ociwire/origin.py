"""May this URL be followed, and with secrets? The one security policy.

An origin is a scheme, a host and a port with its default filled in (RFC 6454): secrets are given to an origin, never to
a host name alone. Userinfo in a URL is refused everywhere: it is a secret in a place that is logged.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Collection
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple, final
from urllib.parse import urljoin

from .arguments import show
from .errors import AuthError, ProtocolError, RedirectError, UsageError
from .text import cut

__all__ = [
    "Origin",
    "check_host",
    "check_realm",
    "check_url",
    "is_loopback",
    "next_page",
    "redirect_target",
    "token_redirect",
    "upload_location",
    "without_query",
]

# The domain of the distribution project's reference grammar (a name, an IPv4 address or an IPv6 address in brackets),
# and underscores: RFC 3986, section 3.2.2, allows them, and so do DNS and the names of buckets and containers.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[A-Fa-f0-9:.]+\])(?::[0-9]{{1,5}})?"
_HOST = re.compile(_DOMAIN)
_URL = re.compile(r"(https?)://([^/?#\\]*)([^#]*)(?:#.*)?", re.IGNORECASE)
# A backslash is a slash to some and part of the host to others: no URL that can be read in two ways is followed.
_HOSTLESS = re.compile(r"(?:https?:(?!//[^/?#])|//(?![^/?#]))", re.IGNORECASE)
_FORBIDDEN = re.compile(r"[^!-~]|\\")
_AMBIGUOUS = re.compile(r"[\x00-\x1f\x7f\\]")
# RFC 3986, section 2: characters that no URL has, though servers send them in Location and Link. Browsers encode them;
# Tomcat, and so Artifactory, answers 400 to a raw one.
_UNENCODED = re.compile(r'[^!-~]|["<>^`{|}]')
_DEFAULT_PORTS = {"http": 80, "https": 443}


@final
class Origin(NamedTuple):
    """Scheme, host and port: what a secret belongs to.

    Attributes:
        scheme: ``http`` or ``https``.
        host: Lower case; an IPv6 address in its brackets.
        port: Never the absence of one.
    """

    scheme: str
    host: str
    port: int

    @property
    def netloc(self) -> str:
        """What the Host header says, which is ``host``, or ``host:port`` where the port is not the scheme's default."""
        return self.host if _DEFAULT_PORTS[self.scheme] == self.port else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"

    @classmethod
    def of(cls, url: str) -> Origin:
        """The origin of an absolute http or https URL.

        Raises:
            UsageError: It is no such URL, has userinfo in it, or its host or port is not valid.
        """
        return split_url(url)[0]


def split_url(url: str) -> tuple[Origin, str]:
    """An absolute URL as its origin and the request target (path and query, at least ``/``); the fragment is dropped.

    Raises:
        UsageError: It is not an absolute http or https URL, has userinfo in it, or its host or port is not valid.
    """
    text = _text(url)
    return _split(text) if len(text) <= _LONGEST_CACHED else _split.__wrapped__(text)


_LONGEST_SHOWN = 200
_LONGEST_CACHED = 2048
"""Maximum length of a cached URL: a registry may send many Locations and Links of 64 KiB."""


@lru_cache(maxsize=1024)  # every layer of a stack asks
def _split(url: str) -> tuple[Origin, str]:
    _check_characters(url)
    match = _URL.fullmatch(url)
    if match is None:
        raise UsageError(f"not an absolute http or https URL: {without_query(url)!r}")
    scheme, netloc, target = match.groups()
    origin = _origin(scheme.lower(), netloc)
    return origin, target if target.startswith("/") else f"/{target}"


def check_url(url: str) -> None:
    """Refuse a URL that could not be sent as it is: neither absolute nor a path, or with characters that no URL holds.

    Raises:
        UsageError: It is one of these.
    """
    if _text(url).startswith("/"):
        _check_characters(url)
    elif url[:8].lower().startswith(("http://", "https://")):
        split_url(url)
    else:
        _check_characters(url)
        raise UsageError(
            f"not a URL: {without_query(url)!r} (a URL begins with http://, https:// or, as a path, with /)"
        )


def _text(url: object) -> str:
    if not isinstance(url, str):
        raise UsageError(f"a URL is a str, not {type(url).__name__}")
    return url


def _check_characters(url: str) -> None:
    if _FORBIDDEN.search(url):
        raise UsageError(f"not a URL: {without_query(url)!r} holds a character that must be percent-encoded")


@lru_cache(maxsize=1024)
def _origin(scheme: str, netloc: str) -> Origin:
    if "@" in netloc:
        raise UsageError(
            f"userinfo in a URL is refused: {without_query(f'{scheme}://{netloc}')} (remove it; pass the credentials as"
            " credentials=StaticCredentials(host, credential) to default_transport)"
        )
    if not _is_host(netloc):
        # Not shown: in https://user:pass/word@host/ this is the beginning of a password.
        raise UsageError(f"invalid URL {scheme}://***: expected HOST or HOST:PORT after {scheme}://")
    name, port = _split_port(netloc.lower())
    return Origin(scheme, name, _DEFAULT_PORTS[scheme] if port is None else port)


def check_host(host: str) -> str:
    """A registry's ``host`` or ``host:port`` in lower case.

    Raises:
        UsageError: It is not a valid one: empty, or with a scheme, a path, a query, userinfo, white space or two ports
            in it.
    """
    if not isinstance(host, str) or not _HOST.fullmatch(host):
        shown = without_query(host) if isinstance(host, str) else host
        raise UsageError(
            f"not a registry host: {show(shown, 250)} (a host reads name or name:port, such as ghcr.io or"
            " localhost:5000)"
        )
    name, port = _split_port(host)
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


def _is_host(text: str) -> bool:
    try:
        check_host(text)
    except UsageError:
        return False
    return True


def _split_port(host: str) -> tuple[str, int | None]:
    if host.endswith("]"):
        return host, None
    name, colon, port = host.rpartition(":")
    return (name, int(port)) if colon else (host, None)


def is_loopback(host: str) -> bool:
    """Whether a host, without its port, is this machine by its own writing; names are not resolved.

    ``localhost`` and all below it (RFC 6761, section 6.3), and the loopback addresses in every spelling that
    ``inet_aton`` reads or IPv6 can map.
    """
    address = _address(host)
    return _is_localhost(host) if address is None else address.is_loopback


def is_internal(host: str) -> bool:
    """Whether a host, without its port, is by its own writing one that only this machine or network can reach.

    That is a loopback, private, link-local, unspecified or otherwise not global address, in every spelling, inside of
    IPv6 included; and ``localhost``. Names are not resolved: what they lead to, whoever resolves them decides.
    """
    address = _address(host)
    if address is None:
        return _is_localhost(host)
    special = not address.is_global or address.is_multicast or getattr(address, "is_site_local", False)
    return special or any(address in network for network in _SPECIAL if network.version == address.version)


def _is_localhost(host: str) -> bool:
    name = host.lower().rstrip(".")
    return name in _LOCALHOSTS or name.endswith(".localhost")


_LOCALHOSTS = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})
# IPv6 addresses whose last four bytes are an IPv4 address: mapped, compatible (RFC 4291), translated (RFC 2765), NAT64
# (RFC 6052).
_EMBEDDING = tuple(ip_network(net) for net in ("::ffff:0:0/96", "::/96", "::ffff:0:0:0/96", "64:ff9b::/96"))
# What some versions of Python take for global: protocol assignments, local NAT64, documentation, segment routing.
_SPECIAL = tuple(ip_network(net) for net in ("192.0.0.0/24", "64:ff9b:1::/48", "3fff::/20", "5f00::/16"))


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        try:
            return IPv4Address(socket.inet_aton(host.rstrip(".")))
        except OSError:
            return None
    if isinstance(address, IPv4Address) or address.is_loopback or address.is_unspecified:
        return address
    if any(address in network for network in _EMBEDDING):
        return IPv4Address(address.packed[-4:])
    return address.sixtofour or address


def _resolve(base: str, reference: str) -> tuple[str, Origin]:
    """A URL reference (RFC 3986, section 5) as an absolute URL without its fragment, and its origin.

    Raises:
        UsageError: It is no http or https URL, could be read in two ways, or has userinfo in it.
    """
    if _AMBIGUOUS.search(reference):
        raise UsageError(
            f"not a URL: {without_query(reference)!r} holds a control character or a backslash, which parsers read in"
            " different ways"
        )
    reference = _UNENCODED.sub(_percent_encoded, reference)
    if _HOSTLESS.match(reference):
        raise UsageError(f"not a URL: {without_query(reference)!r} has no host where one belongs")
    try:
        url = urljoin(base, reference)
    except ValueError:  # its text repeats the netloc, which may hold a password
        raise UsageError(f"not a URL: {without_query(reference)!r} has no valid host") from None
    return url.partition("#")[0], Origin.of(url)


def _percent_encoded(match: re.Match[str]) -> str:
    # A header arrives as latin-1: each character up to U+00FF stands for the byte that the server sent.
    character = match[0]
    data = character.encode("latin-1") if character <= "\xff" else character.encode("utf-8", "surrogatepass")
    return "".join(f"%{byte:02X}" for byte in data)


def _leaves_https(asked: Origin, leads_to: Origin) -> bool:
    return asked.scheme == "https" and leads_to.scheme == "http"


_TLS_IS_ENDED = (
    "The registry probably stands behind a proxy that ends TLS, and is not told so: have the proxy send"
    " X-Forwarded-Proto, or the registry use relative URLs"
)


def next_page(base: str, target: str) -> str:
    """Where a list goes on: at the same origin, or nowhere.

    Args:
        base: The URL that was really asked.
        target: The answer's Link.

    Raises:
        ProtocolError: It is no URL, or leads to another origin.
    """
    asked = Origin.of(base)
    try:
        url, leads_to = _resolve(base, target)
    except UsageError as error:
        raise ProtocolError(f"a Link of {asked} is not to be used: {error}") from None
    if leads_to != asked:
        raise ProtocolError(f"a Link of {asked} leads to another origin ({leads_to}): refused")
    return url


def upload_location(base: str, location: str | None) -> str:
    """Where an upload goes on. Secrets may go there too only if it is the registry's own origin.

    Follows the OCI distribution specification, "Pushing blobs": the Location may be relative or absolute.

    Args:
        base: The URL that was really asked.
        location: The answer's Location header.

    Raises:
        ProtocolError: There is none, it is no URL, or it leaves https.
    """
    if not location:
        raise ProtocolError(f"the answer of {without_query(base)} opens an upload but has no Location header")
    asked = Origin.of(base)
    try:
        url, leads_to = _resolve(base, location)
    except UsageError as error:
        raise ProtocolError(f"the upload Location of {asked} is not to be used: {error}") from None
    if _leaves_https(asked, leads_to):
        raise ProtocolError(
            f"the upload Location of {asked} leads to plain http ({leads_to}): refused. {_TLS_IS_ENDED}"
        )
    return url


def redirect_target(base: str, location: str) -> tuple[str, bool]:
    """Where a redirect leads, and whether that is another origin, which is given no secrets.

    Args:
        base: The URL that was really asked.
        location: The answer's Location header (RFC 9110, section 10.2.2): absolute or relative.

    Raises:
        RedirectError: It is no URL, or leaves https.
    """
    asked = Origin.of(base)
    try:
        url, leads_to = _resolve(base, location)
    except UsageError as error:
        raise RedirectError(f"a redirect of {asked} is not to be followed: {error}") from None
    if _leaves_https(asked, leads_to):
        raise RedirectError(f"a redirect of {asked} leads to plain http ({leads_to}): refused. {_TLS_IS_ENDED}")
    return url, leads_to != asked


def check_realm(realm: str, registry: Origin, trusted: Collection[str] = ()) -> str:
    """Whether the token server that a registry names may be given the registry's credentials.

    Names are not resolved, so that a proxy, or none, makes no difference.

    Args:
        realm: What the challenge says.
        registry: Who says it.
        trusted: The origins that the caller allows for this registry, whatever the other rules say.

    Returns:
        The URL of the token server, without its fragment. It is an https URL if an https registry names an http URL on
        its own host without a port: Harbor does so behind a proxy that ends TLS (goharbor/harbor#3114).

    Raises:
        AuthError: It may not. The message says which rule forbids it, and how to allow it.
    """
    try:
        target = Origin.of(realm)
        url = realm.partition("#")[0]
    except UsageError as error:
        raise AuthError(f"the token server that {registry} names is not to be used: {error}") from None
    if target in {Origin.of(origin) for origin in trusted}:
        return url
    if _leaves_https(registry, target) and re.split("[/?]", url[len("http://") :])[0].lower() == registry.host:
        return f"https{url[len('http') :]}"
    same_host = target.host == registry.host or (is_loopback(target.host) and is_loopback(registry.host))
    if _leaves_https(registry, target):
        rule = "an https registry's credentials do not go over plain http"
    elif target.scheme == "http" and not same_host:
        rule = "credentials go over plain http to the registry's own host only"
    elif is_internal(target.host) and not is_internal(registry.host):
        rule = "a registry out there does not send credentials to an internal address"
    else:
        return url
    raise AuthError(
        f"{registry} names {target} as its token server: refused, for {rule}. {_how_to_trust(registry, target)}"
    )


def token_redirect(
    realm: str, location: str, registry: Origin, trusted: Collection[str] = (), *, what: str = "a redirect"
) -> str:
    """The URL that a token server redirects to. Its origin must be trusted, because the request carries credentials.

    Args:
        realm: The URL that was asked.
        location: The answer's Location header.
        registry: The registry that the credentials are for.
        trusted: See `check_realm`.
        what: How the message names the redirect.

    Raises:
        AuthError: The origin is not trusted, or there is no usable URL. The message says how to trust it.
    """
    try:
        url, target = _resolve(realm, location)
    except UsageError as error:
        raise AuthError(f"{what}: refused, because its Location is not usable: {error}") from None
    if target in {Origin.of(origin) for origin in trusted}:
        return url
    raise AuthError(
        f"{what}: refused, because credentials are sent to the realm only. It leads to {target}."
        f" {_how_to_trust(registry, target)}"
    )


def _how_to_trust(registry: Origin, target: Origin) -> str:
    return (
        f"If it is meant so, allow it: trusted_realms={{{registry.netloc!r}: [{str(target)!r}]}} (of AuthTransport and"
        " default_transport)"
    )


def without_query(url: str) -> str:
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
    hides_userinfo = "@" in tail and not at and (":" in netloc or netloc == shown or not _is_host(netloc))
    if hides_userinfo or ((at or prefix) and not _is_host(netloc)):
        return cut(f"{prefix}***", _LONGEST_SHOWN)
    return cut(f"{prefix}{'***@' if at else ''}{shown}", _LONGEST_SHOWN)


# Three groups: scheme and slashes; netloc and path; query and fragment. A path begins with a single slash.
_SHOWN = re.compile(r"(?!/(?!/))((?:[a-z][a-z0-9+.-]*:)?//|)([^?#]*)(.*)", re.DOTALL | re.IGNORECASE)
