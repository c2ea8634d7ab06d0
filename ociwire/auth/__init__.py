"""Credentials and credential sources for `ociwire.AuthTransport`. Names are imported on first use (PEP 562).

To implement a custom source, you need only `Credential`; see `CredentialSource`.
"""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .challenge import Challenge as Challenge  # noqa: I001 - "as" exports a name
    from .credentials import (
        Anonymous as Anonymous,
        ChainedCredentials as ChainedCredentials,
        Credential as Credential,
        CredentialFunction as CredentialFunction,
        CredentialSource as CredentialSource,
        StaticCredentials as StaticCredentials,
    )
    from .docker_config import DockerConfig as DockerConfig

# The module of each name. Type checkers read the block above; a test checks that both list the same names.
_MODULE_OF_NAME = {
    "Challenge": ".challenge",
    "Credential": ".credentials",
    "CredentialSource": ".credentials",
    "CredentialFunction": ".credentials",
    "Anonymous": ".credentials",
    "StaticCredentials": ".credentials",
    "ChainedCredentials": ".credentials",
    "DockerConfig": ".docker_config",
}

__all__ = [*_MODULE_OF_NAME]

if not TYPE_CHECKING:  # type checkers import the names directly
    __getattr__, __dir__ = lazy_names(__name__, _MODULE_OF_NAME)
