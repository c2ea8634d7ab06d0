"""The transports and layers, and the functions that compose them.

Names are imported on first use (PEP 562): a client of another transport needs neither the default stack nor `auth`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .._http.transport import Layer as Layer, Transport as Transport  # noqa: I001 - "as" exports a name
    from ._urllib3.tls import docker_certs_d as docker_certs_d
    from ._urllib3.transport import UrllibTransport as UrllibTransport
    from .auth import AuthTransport as AuthTransport
    from .base import FunctionTransport as FunctionTransport, stack as stack
    from .default import default_transport as default_transport
    from .headers import HeadersTransport as HeadersTransport
    from .log import LogTransport as LogTransport
    from .redirect import RedirectTransport as RedirectTransport
    from .retry import RetryTransport as RetryTransport

# The module of each name. Type checkers read the block above; a test compares the two.
_MODULE_OF_NAME = {
    "Transport": ".._http.transport",
    "Layer": ".._http.transport",
    "stack": ".base",
    "default_transport": ".default",
    "FunctionTransport": ".base",
    "LogTransport": ".log",
    "RetryTransport": ".retry",
    "RedirectTransport": ".redirect",
    "HeadersTransport": ".headers",
    "AuthTransport": ".auth",
    "UrllibTransport": "._urllib3.transport",
    "docker_certs_d": "._urllib3.tls",
}

__all__ = [*_MODULE_OF_NAME]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF_NAME[name], __name__), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
