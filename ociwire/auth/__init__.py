"""Who one is, to which registry, and what a server asks for: decisions, without a socket.

`AuthTransport` (of `ociwire.transport`) acts on them. A source of one's own needs nothing from here but `Credential`.
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
