"""Origin policy: which URLs of a server are followed, and which origins receive credentials.

Credentials belong to an origin (scheme, host and port, RFC 6454), not to a host name alone. Relative URLs are resolved
before the rules are applied.

| URL that a server sends      | Followed if                                   | Receives credentials if |
|------------------------------|-----------------------------------------------|-------------------------|
| Link to the next page        | same-origin                                   | followed                |
| Location of an upload        | not from https to http                        | same-origin             |
| Location of a redirect       | not from https to http                        | same-origin             |
| realm of a challenge         | see `check_realm`                             | followed                |
| Location of a token redirect | the caller trusts its origin for the registry | followed                |
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
# IPv6 addresses whose last four bytes are an IPv4 address: mapped and compatible (RFC 4291, section 2.5.5), translated
# (RFC 2765), NAT64 (RFC 6052).
_WITH_EMBEDDED_IPV4 = tuple(ip_network(net) for net in ("::ffff:0:0/96", "::/96", "::ffff:0:0:0/96", "64:ff9b::/96"))
# Networks that some versions of Python treat as global: protocol assignments (RFC 6890), local-use NAT64 (RFC 8215),
# documentation (RFC 9637), segment routing (RFC 9602).
_NOT_GLOBAL = tuple(ip_network(net) for net in ("192.0.0.0/24", "64:ff9b:1::/48", "3fff::/20", "5f00::/16"))
_TLS_PROXY_HINT = (
    "(the registry is probably behind a proxy that terminates TLS: configure the proxy to send X-Forwarded-Proto, or"
    " the registry to send relative URLs)"
)


def next_page(base: str, target: str) -> str:
    """Return the absolute URL of the next page of a list.

    Args:
        base: The URL of the request, after redirects.
        target: The URL in the Link header of the response.

    Raises:
        ProtocolError: The target is not a valid URL, or is cross-origin.
    """
    origin = Origin.of(base)
    url, target_origin = _resolve(base, target, ProtocolError, f"cannot follow the Link of {origin}")
    if target_origin != origin:
        raise ProtocolError(f"refusing to follow the Link of {origin}: it leads to another origin, {target_origin}")
    return url


def upload_location(base: str, location: str | None) -> str:
    """Return the absolute URL of an upload session. The caller must send credentials only to a same-origin URL.

    The Location may be relative or absolute (OCI distribution specification, "Pushing blobs").

    Args:
        base: The URL of the request, after redirects.
        location: The Location header of the response; `None` or empty if it is absent.

    Raises:
        ProtocolError: There is no Location, it is not a valid URL, or it goes from https to http.
    """
    if not location:
        raise ProtocolError(f"the response of {redact_url(base)} has no Location header: expected the URL of an upload")
    origin = Origin.of(base)
    url, target = _resolve(base, location, ProtocolError, f"cannot use the upload Location of {origin}")
    if _is_downgrade(origin, target):
        raise ProtocolError(
            f"refusing to use the upload Location {target} of {origin}: it goes from https to http {_TLS_PROXY_HINT}"
        )
    return url


def redirect_target(base: str, location: str) -> tuple[str, bool]:
    """Return the absolute URL of a redirect, and whether it is cross-origin. Cross-origin URLs get no credentials.

    Args:
        base: The URL of the request.
        location: The Location header of the response, absolute or relative (RFC 9110, section 10.2.2).

    Raises:
        RedirectError: The location is not a valid URL, or goes from https to http.
    """
    origin = Origin.of(base)
    url, target = _resolve(base, location, RedirectError, f"cannot follow the redirect of {origin}")
    if _is_downgrade(origin, target):
        raise RedirectError(
            f"refusing to follow the redirect of {origin} to {target}: it goes from https to http {_TLS_PROXY_HINT}"
        )
    return url, target != origin


def check_realm(realm: str, registry: Origin, trusted: Collection[Origin] = ()) -> str:
    """Check that the token server in a challenge may receive the credentials of the registry, and return its URL.

    The first rule that applies decides. Host names are not resolved, because DNS may be available only to a proxy.

    1. An origin that the caller trusts for the registry is allowed.
    2. If the registry uses https, an http URL with the same host and no port is changed to https. Harbor sends such a
       realm if it is behind a proxy that terminates TLS (goharbor/harbor#3114).
    3. Plain http is allowed only for an http registry, and only with the same host. The port may differ, and all
       loopback hosts count as the same host.
    4. An internal address (`is_internal`) is allowed only for a registry at an internal address.
    5. Any other https URL is allowed.

    Args:
        realm: The realm of the challenge: an absolute URL.
        registry: The origin of the registry that sent the challenge.
        trusted: The origins that the caller trusts for the registry.

    Returns:
        The URL of the token server, without a fragment.

    Raises:
        AuthError: The realm is not a valid URL, or is not allowed. The message states the rule and how to allow it.
    """
    try:
        target = Origin.of(realm)
    except UsageError as error:
        raise AuthError(f"cannot use the token server of {registry}: {error}") from None
    url = realm.partition("#")[0]
    if target in trusted:
        return url
    if _is_downgrade(registry, target):
        netloc = re.split("[/?]", url[len("http://") :])[0]  # not from `target`, which includes the default port
        if netloc.lower() == registry.host:
            return f"https{url[len('http') :]}"
        rule = "it goes from https to http"
    elif target.scheme == "http" and not _is_same_host(target.host, registry.host):
        rule = "plain http is allowed only to the host of the registry"
    elif is_internal(target.host) and not is_internal(registry.host):
        rule = "it has an internal address, but the registry has a public one"
    else:
        return url
    raise AuthError(
        f"refusing to send credentials of {registry} to the token server {target}: {rule}"
        f" {_trust_hint(registry, target)}"
    )


def token_redirect_target(
    realm: str, location: str, registry: Origin, trusted: Collection[Origin] = (), *, subject: str = "a redirect"
) -> str:
    """Return the absolute URL of a token server's redirect, and check that its origin is trusted with credentials.

    Args:
        realm: The URL of the token request.
        location: The Location header of the response.
        registry: The origin of the registry whose credentials are used.
        trusted: The origins that the caller trusts for the registry.
        subject: Beginning of the error message, such as a description of the redirect.

    Raises:
        AuthError: The origin is not trusted, or the Location is not a valid URL. The message states how to trust it.
    """
    url, target = _resolve(realm, location, AuthError, f"{subject}: cannot follow the redirect")
    if target in trusted:
        return url
    raise AuthError(
        f"{subject}: refusing to send credentials to {target}, which is not the realm {_trust_hint(registry, target)}"
    )


def _resolve(base: str, reference: str, error_class: type[OciwireError], subject: str) -> tuple[str, Origin]:
    """Resolve a URL reference from a server. If it is invalid, raise `error_class` with `subject` as a prefix."""
    try:
        return resolve_url(base, reference)
    except UsageError as error:
        raise error_class(f"{subject}: {error}") from None


def _trust_hint(registry: Origin, target: Origin) -> str:
    return (
        f"(if you trust it, pass trusted_realms={{{registry.netloc!r}: [{str(target)!r}]}} to AuthTransport or"
        " default_transport)"
    )


def _is_downgrade(origin: Origin, target: Origin) -> bool:
    return origin.scheme == "https" and target.scheme == "http"


def _is_same_host(host: str, other: str) -> bool:
    return host == other or (is_loopback(host) and is_loopback(other))


def is_loopback(host: str) -> bool:
    """Return whether a host literal, without a port, is a loopback address or name. No DNS lookup.

    Loopback names are ``localhost``, its subdomains (RFC 6761, section 6.3), and the names in common hosts files.
    Addresses are recognized in every notation that ``inet_aton`` accepts, and when embedded in IPv6 addresses.
    """
    address = _parse_address(host)
    return _is_localhost_name(host) if address is None else address.is_loopback


def is_internal(host: str) -> bool:
    """Return whether a host literal, without a port, is an internal address or ``localhost``. No DNS lookup.

    Internal addresses are loopback, private, link-local, unspecified, multicast and all other addresses that are not
    global. They are recognized in every notation that ``inet_aton`` accepts, and when embedded in IPv6 addresses.
    """
    address = _parse_address(host)
    if address is None:
        return _is_localhost_name(host)
    # Python treats deprecated site-local addresses (RFC 3879) and multicast addresses as global.
    if not address.is_global or address.is_multicast or getattr(address, "is_site_local", False):
        return True
    return any(address in network for network in _NOT_GLOBAL if network.version == address.version)


def _is_localhost_name(host: str) -> bool:
    name = host.lower().rstrip(".")
    return name in _LOCALHOST_NAMES or name.endswith(".localhost")


def _parse_address(host: str) -> IPv4Address | IPv6Address | None:
    """Parse a host literal as a resolver does; return `None` for a name.

    For an IPv6 address with an embedded IPv4 address, return the IPv4 address.
    """
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        try:
            # Resolvers accept 127.1, 0x7f.0.0.1 and 2130706433 as addresses; `ipaddress` does not.
            return IPv4Address(socket.inet_aton(host.rstrip(".")))
        except OSError:
            return None
    # ::1 and :: are in ::/96 (compatible addresses), but do not embed an IPv4 address.
    if isinstance(address, IPv4Address) or address.is_loopback or address.is_unspecified:
        return address
    if any(address in network for network in _WITH_EMBEDDED_IPV4):
        return IPv4Address(address.packed[-4:])
    return address.sixtofour or address
