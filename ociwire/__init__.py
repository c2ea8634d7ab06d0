"""OCI registry client built from composable transports that you can extend, replace, or fake in tests.

`Client` has one method for each operation of a registry. It sends its requests through a `Transport`. The default is
the stack of layers that `default_transport` composes. All exceptions derive from `OciwireError`.

>>> from ociwire import Client, Descriptor, Response
>>> from ociwire.testing import ScriptedTransport
>>> transport = ScriptedTransport([Response(200, {"Content-Length": "5"}, b"hello")])
>>> client = Client("registry.example", transport)
>>> client.get_blob("greetings", Descriptor.of(b"hello").digest).read()
b'hello'

Names and subpackages are imported on first use (PEP 562), so that ``import ociwire`` is fast.
"""

from typing import TYPE_CHECKING

from ._lazy import lazy_names
from ._version import __version__
from .errors import *  # noqa: F403 - exports every exception without repeating the list
from .errors import __all__ as _errors

if TYPE_CHECKING:
    from . import (  # noqa: I001 - "as" re-exports a name to type checkers
        aio as aio,
        auth as auth,
        errors as errors,
        media_types as media_types,
        registry as registry,
        testing as testing,
        transfer as transfer,
        transport as transport,
    )
    from ._client.blob_reader import BlobReader as BlobReader
    from ._client.blob_writer import BlobWriter as BlobWriter
    from ._client.client import Client as Client
    from ._client.error_mapping import check_response as check_response, error_from_response as error_from_response
    from ._http.body import Body as Body
    from ._http.headers import Headers as Headers
    from ._http.messages import Request as Request, RequestInfo as RequestInfo, Response as Response
    from ._http.urls import Origin as Origin
    from ._oci.descriptor import Descriptor as Descriptor, Platform as Platform
    from ._oci.digest import Digest as Digest
    from ._oci.image_manifest import Index as Index, Manifest as Manifest
    from ._oci.reference import Reference as Reference
    from ._oci.scope import ResourceScope as ResourceScope, Scope as Scope
    from .aio import AsyncClient as AsyncClient
    from .auth import Credential as Credential
    from .transfer import copy as copy, download as download, upload as upload
    from .transport import (
        AuthTransport as AuthTransport,
        FunctionTransport as FunctionTransport,
        HeadersTransport as HeadersTransport,
        Layer as Layer,
        LogTransport as LogTransport,
        RedirectTransport as RedirectTransport,
        RetryTransport as RetryTransport,
        TLSConfig as TLSConfig,
        Transport as Transport,
        UrllibTransport as UrllibTransport,
        default_transport as default_transport,
        docker_certs_d as docker_certs_d,
        stack as stack,
    )

# The module of each public name. Type checkers read the imports above instead; a test checks that both agree.
_MODULE_OF_NAME = {
    "Client": "._client.client",
    "Request": "._http.messages",
    "RequestInfo": "._http.messages",
    "Response": "._http.messages",
    "Headers": "._http.headers",
    "Body": "._http.body",
    "Digest": "._oci.digest",
    "Descriptor": "._oci.descriptor",
    "Platform": "._oci.descriptor",
    "Manifest": "._oci.image_manifest",
    "Index": "._oci.image_manifest",
    "Reference": "._oci.reference",
    "Origin": "._http.urls",
    "BlobReader": "._client.blob_reader",
    "BlobWriter": "._client.blob_writer",
    "Scope": "._oci.scope",
    "ResourceScope": "._oci.scope",
    "Transport": ".transport",
    "Layer": ".transport",
    "stack": ".transport",
    "default_transport": ".transport",
    "FunctionTransport": ".transport",
    "LogTransport": ".transport",
    "RetryTransport": ".transport",
    "RedirectTransport": ".transport",
    "HeadersTransport": ".transport",
    "AuthTransport": ".transport",
    "UrllibTransport": ".transport",
    "TLSConfig": ".transport",
    "docker_certs_d": ".transport",
    "AsyncClient": ".aio",
    "Credential": ".auth",
    "copy": ".transfer",
    "download": ".transfer",
    "upload": ".transfer",
    "check_response": "._client.error_mapping",
    "error_from_response": "._client.error_mapping",
}
_SUBMODULES = ("aio", "auth", "errors", "media_types", "registry", "testing", "transfer", "transport")

__all__ = ["__version__", *_MODULE_OF_NAME, *_errors]

if not TYPE_CHECKING:  # with a module `__getattr__`, type checkers would accept any name
    __getattr__, __dir__ = lazy_names(__name__, _MODULE_OF_NAME, _SUBMODULES)
