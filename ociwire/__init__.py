"""An OCI registry client whose wire is a chain of small transports: compose them, extend them, fake them.

>>> from ociwire import Client, Descriptor
>>> from ociwire.testing import ScriptedTransport
>>> from ociwire import Response
>>> transport = ScriptedTransport([Response(200, {"Content-Length": "5"}, b"hello")])
>>> client = Client("registry.example", transport)
>>> client.get_blob("greetings", Descriptor.of(b"hello").digest).read()
b'hello'

Names and subpackages are imported when they are first asked for (PEP 562): a program that only may talk to a registry
pays for it when it does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .errors import *  # noqa: F403 - all of them, and none is listed twice
from .errors import __all__ as _errors

if TYPE_CHECKING:
    from .blob import BlobReader as BlobReader  # noqa: I001 - "as" is what hands a name on to type checkers
    from .client import Client as Client
    from .descriptor import Descriptor as Descriptor, Platform as Platform
    from .digest import Digest as Digest
    from .message import (
        Body as Body,
        Headers as Headers,
        Request as Request,
        RequestInfo as RequestInfo,
        Response as Response,
    )
    from .origin import Origin as Origin
    from .reference import Reference as Reference
    from .scope import ResourceScope as ResourceScope, Scope as Scope
    from .status import check_response as check_response, error_from_response as error_from_response
    from .transport import (
        AuthTransport as AuthTransport,
        FunctionTransport as FunctionTransport,
        HeadersTransport as HeadersTransport,
        Layer as Layer,
        LogTransport as LogTransport,
        RedirectTransport as RedirectTransport,
        RetryTransport as RetryTransport,
        Transport as Transport,
        UrllibTransport as UrllibTransport,
        default_transport as default_transport,
        docker_certs_d as docker_certs_d,
        stack as stack,
    )
    from .writer import BlobWriter as BlobWriter

# Where each name comes from; what type checkers read is above, and a test holds the two together.
_HOMES = {
    "Client": "client",
    "Request": "message",
    "RequestInfo": "message",
    "Response": "message",
    "Headers": "message",
    "Body": "message",
    "Digest": "digest",
    "Descriptor": "descriptor",
    "Platform": "descriptor",
    "Reference": "reference",
    "Origin": "origin",
    "BlobReader": "blob",
    "BlobWriter": "writer",
    "Scope": "scope",
    "ResourceScope": "scope",
    "Transport": "transport",
    "Layer": "transport",
    "stack": "transport",
    "default_transport": "transport",
    "FunctionTransport": "transport",
    "LogTransport": "transport",
    "RetryTransport": "transport",
    "RedirectTransport": "transport",
    "HeadersTransport": "transport",
    "AuthTransport": "transport",
    "UrllibTransport": "transport",
    "docker_certs_d": "transport",
    "check_response": "status",
    "error_from_response": "status",
}
_PACKAGES = ("auth", "testing", "transfer", "transport")
_MODULES = {*_PACKAGES, *_HOMES.values()}

__all__ = ["__version__", *_HOMES, *_errors]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value  # found at once the next time
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PACKAGES})
