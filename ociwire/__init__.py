"""An OCI registry client whose wire is a chain of small transports: compose them, extend them, fake them.

>>> from ociwire import Client, Descriptor
>>> from ociwire.testing import ScriptedTransport
>>> from ociwire import Response
>>> transport = ScriptedTransport([Response(200, {"Content-Length": "5"}, b"hello")])
>>> client = Client("registry.example", transport)
>>> client.get_blob("greetings", Descriptor.of(b"hello").digest).read()
b'hello'
"""

from ._version import __version__
from .blob import BlobReader
from .client import Client
from .descriptor import Descriptor, Platform
from .digest import Digest
from .errors import *  # noqa: F403 - all of them, and none is listed twice
from .errors import __all__ as _errors
from .message import Body, Headers, Request, RequestInfo, Response
from .reference import Reference
from .scope import ResourceScope, Scope
from .status import check_response, error_from_response
from .transport import (
    AuthTransport,
    FunctionTransport,
    HeadersTransport,
    Layer,
    LogTransport,
    RedirectTransport,
    RetryTransport,
    Transport,
    UrllibTransport,
    default_transport,
    docker_certs_d,
    stack,
)
from .writer import BlobWriter

__all__ = [
    "__version__",
    "Client",
    "Request",
    "RequestInfo",
    "Response",
    "Headers",
    "Body",
    "Digest",
    "Descriptor",
    "Platform",
    "Reference",
    "BlobReader",
    "BlobWriter",
    "Scope",
    "ResourceScope",
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
    "check_response",
    "error_from_response",
    *_errors,
]
