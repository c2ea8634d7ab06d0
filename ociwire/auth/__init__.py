"""Credentials, where they are looked up, and the challenges of servers.

`ociwire.transport.AuthTransport` uses them. A source of your own needs only `Credential`.
"""

from .challenge import Challenge
from .credentials import Anonymous, ChainedCredentials, Credential, CredentialSource, StaticCredentials
from .docker_config import DockerConfig

__all__ = [
    "Challenge",
    "Credential",
    "CredentialSource",
    "Anonymous",
    "StaticCredentials",
    "ChainedCredentials",
    "DockerConfig",
]
