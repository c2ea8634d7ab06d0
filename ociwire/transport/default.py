"""The default stack of layers, which `Client` uses if no transport is passed to it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, cast

import urllib3

from .._argument_checks import OTHER_TRANSPORT_OPTIONS, suggest_options
from .._http.transport import Layer, Transport, check_transport
from ..auth.credentials import CredentialFunction, CredentialSource
from ..auth.docker_config import DockerConfig
from ..errors import UsageError
from ._urllib3.tls import TLS
from ._urllib3.transport import UrllibTransport
from .auth import AuthTransport
from .base import stack
from .headers import HeadersTransport
from .redirect import RedirectTransport
from .retry import RetryTransport

__all__ = ["compose_default_stack", "default_transport"]


@suggest_options(
    {
        **OTHER_TRANSPORT_OPTIONS,
        **dict.fromkeys(
            ("auth", "username", "password"), "credentials=StaticCredentials(host, Credential(username, password))"
        ),
    }
)
def default_transport(
    *,
    base: Transport | None = None,
    credentials: CredentialSource | CredentialFunction | None = None,
    user_agent: str | None = None,
    retry: int | urllib3.Retry | None = None,
    timeout: float | urllib3.Timeout | None = None,
    expect_timeout: float | None = None,
    tls: TLS | None = None,
    proxy: str | None = None,
    trust_env: bool | None = None,
    pool_size: int | None = None,
    trusted_realms: Mapping[str, Collection[str]] | None = None,
    sleep: Callable[[float], object] | None = None,
    clock: Callable[[], float] | None = None,
) -> RetryTransport:
    """Return the default stack: the default layers over a base transport.

    The layers are, outermost first, `RetryTransport`, `RedirectTransport`, `HeadersTransport` and `AuthTransport`. Use
    the stack as a context manager to close it.

    >>> from ociwire import Client, default_transport
    >>> from ociwire.auth import Anonymous
    >>> with Client("ghcr.io", default_transport(credentials=Anonymous(), timeout=30)) as client:
    ...     client.host
    'ghcr.io'

    Args:
        base: The innermost transport. `None` means a new `UrllibTransport`, which receives the options `timeout`,
            `expect_timeout`, `tls`, `proxy`, `trust_env` and `pool_size`. These cannot be combined with another base.
        credentials: A credential source, or a function with the arguments of `CredentialSource.lookup`. `None` means
            `DockerConfig.load`, the credentials of ``docker login``. A single `Credential` is refused, because it
            does not name its host: use `StaticCredentials`.
        user_agent: See `HeadersTransport`. The user agent of a `Client` takes precedence.
        retry: See `RetryTransport`: the number of retries, a `urllib3.util.Retry`, `False` for no retries, or `None`
            for the default policy. It also applies to token requests.
        timeout: See `UrllibTransport`. `None` means its default.
        expect_timeout: See `UrllibTransport`. `None` means its default.
        tls: See `UrllibTransport`.
        proxy: See `UrllibTransport`.
        trust_env: See `UrllibTransport`. `None` means its default.
        pool_size: See `UrllibTransport`. `None` means its default.
        trusted_realms: See `AuthTransport`.
        sleep: See `RetryTransport`. Function that waits before a retry. Pass ``lambda seconds: None`` in tests.
        clock: See `RetryTransport`. Wall clock for Retry-After, such as `time.time`, in seconds since the epoch.
            Deadlines are not affected: they are values of `time.monotonic`.

    Raises:
        UsageError: An argument is invalid, or an option of `UrllibTransport` is combined with `base`.
    """
    options: dict[str, Any] = {
        "timeout": timeout,
        "expect_timeout": expect_timeout,
        "tls": tls,
        "proxy": proxy,
        "trust_env": trust_env,
        "pool_size": pool_size,
    }
    base_options = {name: value for name, value in options.items() if value is not None}
    if base is not None and base_options:
        raise UsageError(
            f"{' and '.join(base_options)} cannot be combined with base: pass it to the base transport instead, such as"
            f" base=UrllibTransport({next(iter(base_options))}=...)"
        )
    transport = compose_default_stack(
        UrllibTransport(**base_options) if base is None else check_transport("base", base),
        credentials=DockerConfig.load() if credentials is None else credentials,
        user_agent=user_agent,
        retry=retry,
        trusted_realms=trusted_realms,
        sleep=sleep,
        clock=clock,
    )
    return cast("RetryTransport", transport)  # without `wrap`, this is the outermost layer


def compose_default_stack(
    base: Transport,
    *,
    credentials: CredentialSource | CredentialFunction,
    user_agent: str | None = None,
    retry: int | urllib3.Retry | None = None,
    trusted_realms: Mapping[str, Collection[str]] | None = None,
    sleep: Callable[[float], object] | None = None,
    clock: Callable[[], float] | None = None,
    wrap: Callable[[str, Transport], Transport] | None = None,
) -> Transport:
    """Return the default stack over a base transport. The layers, their order and their options are defined only here.

    Args:
        base: The innermost transport.
        credentials: See `default_transport`.
        user_agent: See `default_transport`.
        retry: See `default_transport`.
        trusted_realms: See `default_transport`.
        sleep: See `default_transport`.
        clock: See `default_transport`.
        wrap: Function that is called for the base and for each layer, innermost first, with the class name and the
            transport, and returns the transport to use instead. `None` means no wrapping. The layers for token requests
            are not wrapped, but they use the same wrapped base.
    """
    if wrap is not None:
        base = wrap(type(base).__name__, base)
    # Retry and Redirect are outside Auth, so that each attempt gets a valid token, and the Authorization for a registry
    # is not sent to the Location of a redirect. Retry is outside Redirect, because a redirect may have expired.
    headers = partial(HeadersTransport, user_agent=user_agent)
    retries = partial(RetryTransport, retry=retry, sleep=sleep, clock=clock)
    auth = partial(
        AuthTransport,
        credentials=credentials,
        token_transport=stack(base, headers, retries),
        trusted_realms=trusted_realms,
        probe_auth=True,
    )
    layers: dict[str, Layer] = {
        "AuthTransport": auth,
        "HeadersTransport": headers,
        "RedirectTransport": RedirectTransport,
        "RetryTransport": retries,
    }
    transport = base
    for name, layer in layers.items():
        transport = layer(transport)
        if wrap is not None:
            transport = wrap(name, transport)
    return transport
