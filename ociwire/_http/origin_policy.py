"""The security policy: which URLs are followed, and which origins are sent secrets.

Secrets belong to an origin (scheme, host and port, RFC 6454), never to a host name alone. Relative URLs are resolved
before the rules are applied.

| URL that a server names         | Followed, if                                      | Sent with secrets, if     |
|---------------------------------|---------------------------------------------------|---------------------------|
| Link to the next page           | same origin                                       | followed                  |
| Location of an upload           | not from https to http                            | same origin               |
| Location of a redirect          | not from https to http                            | same origin               |
| realm of a challenge            | see `check_realm`                                 | followed                  |
| Location of a token redirect    | the caller trusts its origin for this registry    | followed                  |
"""

from __future__ import annotations

import re
import socket
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from .._oci.host import redact_url
from ..errors import AuthError, OciwireError, ProtocolError, RedirectError, UsageError
from .urls import Origin, resolve_url

__all__ = [
    "check_realm",
    "is_internal",
    "is_loopback",
    "next_page",
    "redirect_target",
    "token_redirect_target",
    "upload_location",
]

_LOCALHOST_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})
# IPv6 addresses whose last four bytes are an IPv4 address: mapped, compatible (RFC 4291), translated (RFC 2765), NAT64
# (RFC 6052).
_WITH_EMBEDDED_IPV4 = tuple(ip_network(net) for net in ("::ffff:0:0/96", "::/96", "::ffff:0:0:0/96", "64:ff9b::/96"))
# Networks that some versions of Python take for global: protocol assignments (RFC 6890), local-use NAT64 (RFC 8215),
# documentation (RFC 9637), segment routing (RFC 9602).
_NOT_GLOBAL = tuple(ip_network(net) for net in ("192.0.0.0/24", "64:ff9b:1::/48", "3fff::/20", "5f00::/16"))
_TLS_PROXY_HINT = (
    "The registry probably stands behind a proxy that ends TLS, and is not told so: have the proxy send"
    " X-Forwarded-Proto, or the registry use relative URLs"
)


def next_page(base: str, target: str) -> str:
    """Return the URL of the next page of a list.

    Args:
        base: The URL of the request, after redirects.
        target: The URL in the response's Link header.

    Raises:
        ProtocolError: The target is not a valid URL, or is cross-origin.
    """
    origin = Origin.of(base)
    url, target_origin = _resolve(base, target, ProtocolError, f"a Link of {origin} is not to be used")
    if target_origin != origin:
        raise ProtocolError(f"a Link of {origin} leads to another origin ({target_origin}): refused")
    return url


def upload_location(base: str, location: str | None) -> str:
    """Return the URL of an upload. The caller sends secrets there only if it is same-origin.

    Follows the OCI distribution specification, "Pushing blobs": the Location may be relative or absolute.

    Args:
        base: The URL of the request, after redirects.
        location: The response's Location header.

    Raises:
        ProtocolError: There is no Location, it is not a valid URL, or it leads from https to http.
    """
    if not location:
        raise ProtocolError(f"the answer of {redact_url(base)} opens an upload but has no Location header")
    origin = Origin.of(base)
    url, target = _resolve(base, location, ProtocolError, f"the upload Location of {origin} is not to be used")
    if _is_downgrade(origin, target):
        raise ProtocolError(
            f"the upload Location of {origin} leads to plain http ({target}): refused. {_TLS_PROXY_HINT}"
        )
    return url


def redirect_target(base: str, location: str) -> tuple[str, bool]:
    """Return the URL of a redirect, and whether it is cross-origin: secrets must not be sent there then.

    Args:
        base: The URL of the request.
        location: The response's Location header (RFC 9110, section 10.2.2): absolute or relative.

    Raises:
        RedirectError: The location is not a valid URL, or leads from https to http.
    """
    origin = Origin.of(base)
    url, target = _resolve(base, location, RedirectError, f"a redirect of {origin} is not to be followed")
    if _is_downgrade(origin, target):
        raise RedirectError(f"a redirect of {origin} leads to plain http ({target}): refused. {_TLS_PROXY_HINT}")
    return url, target != origin


def check_realm(realm: str, registry: Origin, trusted: Collection[Origin] = ()) -> str:
    """Check that a registry's credentials may be sent to the token server that it names, and return its URL.

    The first rule that applies decides. Host names are not resolved: with a proxy, they could not be.

    1. An origin that the caller trusts for this registry is allowed.
    2. An http URL on the host of an https registry, without a port, is turned into an https URL. Harbor sends such a
       realm behind a proxy that terminates TLS (goharbor/harbor#3114).
    3. Plain http is allowed only for an http registry, and only on its own host (any port; loopback hosts are one).
    4. An internal address (`is_internal`) is allowed only for a registry at an internal address.
    5. Any other https URL is allowed.

    Args:
        realm: The realm of the challenge: an absolute URL.
        registry: The origin of the registry that sent the challenge.
        trusted: The origins that the caller trusts for this registry.

    Returns:
        The URL of the token server, without a fragment.

    Raises:
        AuthError: The realm is not a valid URL or is not allowed. The message names the rule, and how to allow it.
    """
    try:
        target = Origin.of(realm)
    except UsageError as error:
        raise AuthError(f"the token server that {registry} names is not to be used: {error}") from None
    url = realm.partition("#")[0]
    if target in trusted:
        return url
    if _is_downgrade(registry, target):
        netloc = re.split("[/?]", url[len("http://") :])[0]  # as written: `target` has the default port, too
        if netloc.lower() == registry.host:
            return f"https{url[len('http') :]}"
        rule = "an https registry's credentials do not go over plain http"
    elif target.scheme == "http" and not _is_same_host(target.host, registry.host):
        rule = "credentials go over plain http to the registry's own host only"
    elif is_internal(target.host) and not is_internal(registry.host):
        rule = "a registry out there does not send credentials to an internal address"
    else:
        return url
    raise AuthError(
        f"{registry} names {target} as its token server: refused, for {rule}. {_trust_hint(registry, target)}"
    )


def token_redirect_target(
    realm: str, location: str, registry: Origin, trusted: Collection[Origin] = (), *, subject: str = "a redirect"
) -> str:
    """The URL that a token server redirects to. Its origin must be trusted, because the request carries credentials.

    Args:
        realm: The URL of the token request.
        location: The response's Location header.
        registry: The origin of the registry that the credentials are for.
        trusted: See `check_realm`.
        subject: How the message names the redirect.

    Raises:
        AuthError: The origin is not trusted, or there is no usable URL. The message says how to trust it.
    """
    url, target = _resolve(realm, location, AuthError, f"{subject}: refused, because its Location is not usable")
    if target in trusted:
        return url
    raise AuthError(
        f"{subject}: refused, because credentials are sent to the realm only. It leads to {target}."
        f" {_trust_hint(registry, target)}"
    )


def _resolve(base: str, reference: str, error_class: type[OciwireError], subject: str) -> tuple[str, Origin]:
    """Resolve a URL reference of a server; a `UsageError` becomes an error of another class, which begins so."""
    try:
        return resolve_url(base, reference)
    except UsageError as error:
        raise error_class(f"{subject}: {error}") from None


def _trust_hint(registry: Origin, target: Origin) -> str:
    return (
        f"If it is meant so, allow it: trusted_realms={{{registry.netloc!r}: [{str(target)!r}]}} (of AuthTransport and"
        " default_transport)"
    )


def _is_downgrade(origin: Origin, target: Origin) -> bool:
    return origin.scheme == "https" and target.scheme == "http"


def _is_same_host(host: str, other: str) -> bool:
    return host == other or (is_loopback(host) and is_loopback(other))


def is_loopback(host: str) -> bool:
    """Whether a host, without its port, is literally a loopback address or a name of one. No DNS lookup.

    The names are ``localhost``, all names below it (RFC 6761, section 6.3), and those of common hosts files. Addresses
    are recognized in every spelling that ``inet_aton`` accepts, and inside IPv6 addresses.
    """
    address = _parse_address(host)
    return _is_localhost_name(host) if address is None else address.is_loopback


def is_internal(host: str) -> bool:
    """Whether a host, without its port, literally is reachable only from this machine or network. No DNS lookup.

    That is ``localhost``, and any loopback, private, link-local, unspecified, multicast or otherwise not global
    address, in every spelling that ``inet_aton`` accepts, and inside IPv6 addresses.
    """
    address = _parse_address(host)
    if address is None:
        return _is_localhost_name(host)
    # Deprecated site-local addresses (RFC 3879) are global for Python.
    if not address.is_global or address.is_multicast or getattr(address, "is_site_local", False):
        return True
    return any(address in network for network in _NOT_GLOBAL if network.version == address.version)


def _is_localhost_name(host: str) -> bool:
    name = host.lower().rstrip(".")
    return name in _LOCALHOST_NAMES or name.endswith(".localhost")


def _parse_address(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host is, as a resolver would read it; an IPv4 address embedded in IPv6; None for a name."""
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        try:
            # Resolvers take 127.1, 0x7f.0.0.1 and 2130706433 for addresses; ipaddress does not.
            return IPv4Address(socket.inet_aton(host.rstrip(".")))
        except OSError:
            return None
    # ::1 and :: are within ::/96, but embed no IPv4 address.
    if isinstance(address, IPv4Address) or address.is_loopback or address.is_unspecified:
        return address
    if any(address in network for network in _WITH_EMBEDDED_IPV4):
        return IPv4Address(address.packed[-4:])
    return address.sixtofour or address
