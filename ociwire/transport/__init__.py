"""Transports, layers, and functions that compose them.

Names are imported on first use (PEP 562), so that a client that uses another transport does not import the default
stack.
"""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .._http.transport import Layer as Layer, Transport as Transport  # noqa: I001 - "as" exports a name
    from ._urllib3.tls import TLSConfig as TLSConfig, docker_certs_d as docker_certs_d
    from ._urllib3.transport import UrllibTransport as UrllibTransport
    from .auth import AuthTransport as AuthTransport
    from .base import FunctionTransport as FunctionTransport, stack as stack
    from .default import default_transport as default_transport
    from .headers import HeadersTransport as HeadersTransport
    from .log import LogTransport as LogTransport
    from .redirect import RedirectTransport as RedirectTransport
    from .retry import RetryTransport as RetryTransport

# The module of each name. Type checkers read the imports above. A test compares both lists.
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
    "TLSConfig": "._urllib3.tls",
    "docker_certs_d": "._urllib3.tls",
}

__all__ = [*_MODULE_OF_NAME]

if not TYPE_CHECKING:  # with a module `__getattr__`, type checkers would accept any name
    __getattr__, __dir__ = lazy_names(__name__, _MODULE_OF_NAME)
