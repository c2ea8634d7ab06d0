"""The security policy: which URLs are followed, and which origins are sent secrets.

Secrets are given to an origin (scheme, host and port, RFC 6454), never to a host name alone.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from .._oci.host import redact_url
from ..errors import AuthError, ProtocolError, RedirectError, UsageError
from .urls import Origin, resolve_url

__all__ = [
    "check_realm",
    "is_internal",
    "is_loopback",
    "next_page",
    "redirect_target",
    "token_redirect",
    "upload_location",
]

_LOCALHOSTS = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})
# IPv6 addresses whose last four bytes are an IPv4 address: mapped, compatible (RFC 4291), translated (RFC 2765), NAT64
# (RFC 6052).
_EMBEDDING = tuple(ip_network(net) for net in ("::ffff:0:0/96", "::/96", "::ffff:0:0:0/96", "64:ff9b::/96"))
# What some versions of Python take for global: protocol assignments, local NAT64, documentation, segment routing.
_SPECIAL = tuple(ip_network(net) for net in ("192.0.0.0/24", "64:ff9b:1::/48", "3fff::/20", "5f00::/16"))
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
        url, leads_to = resolve_url(base, target)
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
        raise ProtocolError(f"the answer of {redact_url(base)} opens an upload but has no Location header")
    asked = Origin.of(base)
    try:
        url, leads_to = resolve_url(base, location)
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
        url, leads_to = resolve_url(base, location)
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
        url, target = resolve_url(realm, location)
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


def _leaves_https(asked: Origin, leads_to: Origin) -> bool:
    return asked.scheme == "https" and leads_to.scheme == "http"


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
