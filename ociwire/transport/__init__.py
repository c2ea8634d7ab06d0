"""The transports, in the order in which a request meets them, and what composes them."""

from .._http.transport import Layer, Transport
from ._urllib3.tls import docker_certs_d
from ._urllib3.transport import UrllibTransport
from .auth import AuthTransport
from .base import FunctionTransport, stack
from .default import default_transport
from .headers import HeadersTransport
from .log import LogTransport
from .redirect import RedirectTransport
from .retry import RetryTransport

__all__ = [
    "Transport",
    "Layer",
    "stack",
    "default_transport",
    "FunctionTransport",
    "LogTransport",
    "RetryTransport",
    "RedirectTransport",
    "HeadersTransport",
    "AuthTransport",
    "UrllibTransport",
    "docker_certs_d",
]
