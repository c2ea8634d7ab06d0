"""The default stack: what a `Client` sends through where it is given no transport."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

import urllib3

from .._http.transport import Transport
from ..auth.credentials import CredentialSource
from ..auth.docker_config import DockerConfig
from ._urllib3.tls import TLS
from ._urllib3.transport import UrllibTransport
from .auth import AuthTransport
from .base import stack
from .headers import HeadersTransport
from .redirect import RedirectTransport
from .retry import RetryTransport

__all__ = ["default_transport"]


def default_transport(
    *,
    base: Transport | None = None,
    credentials: CredentialSource | None = None,
    user_agent: str | None = None,
    retry: urllib3.Retry | bool | None = None,
    timeout: float | urllib3.Timeout = urllib3.Timeout(connect=10, read=120),  # noqa: B008 - never changed
    expect_timeout: float = 1.0,
    tls: TLS | None = None,
    proxy: str | None = None,
    trust_env: bool = True,
    trusted_realms: Mapping[str, Collection[str]] | None = None,
) -> Transport:
    """The layers of ociwire, in their order, over any base.

    Args:
        base: What answers in the end; None is a `UrllibTransport` made of `timeout`, `expect_timeout`, `tls`, `proxy`
            and `trust_env`, which mean nothing to a base that is given.
        credentials: For `AuthTransport`; None is `DockerConfig.load`: what ``docker login`` has left.
        user_agent: For `HeadersTransport`: of what has none yet. What comes from a `Client` has that client's.
        retry: For `RetryTransport`: a `urllib3.util.Retry`, False for none, None for its own. It is the policy of
            requests for tokens, too.
        timeout: For `UrllibTransport`.
        expect_timeout: For `UrllibTransport`.
        tls: For `UrllibTransport`.
        proxy: For `UrllibTransport`.
        trust_env: For `UrllibTransport`.
        trusted_realms: For `AuthTransport`.

    Raises:
        UsageError: An argument is not what it should be.
    """
    if base is None:
        base = UrllibTransport(
            timeout=timeout, expect_timeout=expect_timeout, tls=tls, proxy=proxy, trust_env=trust_env
        )
    headers = partial(HeadersTransport, user_agent=user_agent)
    retries = partial(RetryTransport, retry=retry)
    authenticated = partial(
        AuthTransport,
        credentials=DockerConfig.load() if credentials is None else credentials,
        token_transport=stack(base, headers, retries),
        trusted_realms=trusted_realms,
        probe_auth=True,
    )
    return stack(base, authenticated, headers, RedirectTransport, retries)
