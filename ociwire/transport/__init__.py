"""The transports, in the order in which a request meets them, and what composes them."""

from .auth import AuthTransport
from .base import FunctionTransport, Layer, Transport, stack
from .default import default_transport
from .headers import HeadersTransport
from .log import LogTransport
from .redirect import RedirectTransport
from .retry import RetryTransport
from .tls import docker_certs_d
from .wire import UrllibTransport

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
