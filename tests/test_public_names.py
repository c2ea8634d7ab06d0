"""The public names, their docstrings, and the order in which modules build on each other."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import GenericAlias, ModuleType
from typing import Any

import pytest

import ociwire
import ociwire.auth
import ociwire.errors
import ociwire.testing
import ociwire.transfer
import ociwire.transport

ROOT = Path(ociwire.__file__).parent

ERRORS = [
    "OciwireError",
    "UsageError",
    "TransportError",
    "ConnectError",
    "TransportTimeout",
    "ReadError",
    "ProtocolError",
    "RedirectError",
    "BodyConsumedError",
    "AuthError",
    "CredentialsRejected",
    "AuthTimeout",
    "ContentError",
    "DigestMismatch",
    "SizeMismatch",
    "ReferrersUpdateError",
    "RegistryError",
    "NotFound",
    "BlobUnknown",
    "ManifestUnknown",
    "NameUnknown",
    "BlobUploadUnknown",
    "Unauthorized",
    "Denied",
    "TooManyRequests",
    "Unsupported",
    "BlobUploadInvalid",
    "DigestInvalid",
    "ManifestInvalid",
    "ManifestBlobUnknown",
    "NameInvalid",
    "SizeInvalid",
    "RangeInvalid",
]
TRANSPORTS = [
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
NAMES = {
    "ociwire": [
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
        "Origin",
        "BlobReader",
        "BlobWriter",
        "Scope",
        "ResourceScope",
        *TRANSPORTS,
        "check_response",
        "error_from_response",
        *ERRORS,
    ],
    "ociwire.transport": TRANSPORTS,
    "ociwire.errors": ERRORS,
    "ociwire.auth": [
        "Challenge",
        "Credential",
        "CredentialSource",
        "Anonymous",
        "StaticCredentials",
        "ChainedCredentials",
        "DockerConfig",
    ],
    "ociwire.transfer": ["download", "upload", "copy", "Progress", "ProgressCallback"],
    "ociwire.testing": [
        "ScriptedTransport",
        "AuthGuard",
        "FaultTransport",
        "FAULTS",
        "MemoryRegistry",
        "check_transport",
        "serve",
    ],
}

# A module imports only from those above it.
ORDER = [
    "_version",
    "errors",
    "text",
    "arguments",
    "scope",
    "digest",
    "descriptor",
    "origin",
    "reference",
    "headers",
    "redact",
    "body",
    "reader",
    "message",
    "auth",
    "transport",
    "status",
    "blob",
    "session",
    "listing",
    "manifest",
    "referrers",
    "download",
    "upload",
    "writer",
    "client",
    "transfer",
    "testing",
    "_trace",
    "_report",
    "_advice",
    "_demonstration",
    "__main__",
]
INNER_ORDER = {
    "transfer": [
        "progress",
        "arguments",
        "registry",
        "threads",
        "parts",
        "probe",
        "source",
        "partial",
        "verifier",
        "fetch",
        "download",
        "hashing",
        "content",
        "outgoing",
        "upload",
        "graph",
        "crew",
        "relay",
        "survey",
        "copy",
    ],
    "auth": [
        "challenge",
        "credentials",
        "helper",
        "docker_config",
        "_single_flight",
        "_credential_cache",
        "_challenge_cache",
        "_token_cache",
        "exchange",
        "_token_provider",
    ],
    "transport": [
        "clock",
        "once",
        "head",
        "inbox",
        "exchange",
        "failures",
        "response",
        "connection",
        "tls",
        "proxy",
        "pools",
        "expectations",
        "base",
        "log",
        "retry_policy",
        "retry",
        "redirect",
        "headers",
        "auth",
        "wire",
        "default",
    ],
    "testing": [
        "scripted",
        "faults",
        "guard",
        "memory_http",
        "memory_manifest",
        "memory_store",
        "memory_blobs",
        "memory_manifests",
        "memory_lists",
        "memory",
        "server",
        "conformance",
    ],
}

FILES = sorted(ROOT.rglob("*.py"))
IDS = [str(path.relative_to(ROOT)) for path in FILES]


# --- names ---


@pytest.mark.parametrize("module", NAMES)
def test_the_names_are_these(module: str) -> None:
    assert sorted(importlib.import_module(module).__all__) == sorted(NAMES[module])
    assert len(set(NAMES[module])) == len(NAMES[module])


@pytest.mark.parametrize("module", NAMES)
def test_every_name_is_there_by_a_star_import(module: str) -> None:
    space: dict[str, Any] = {}
    exec(f"from {module} import *", space)
    assert set(NAMES[module]) <= set(space)


def test_every_error_of_the_module_is_public() -> None:
    defined = {name for name, value in vars(ociwire.errors).items() if isinstance(value, type) and name[0] != "_"}
    assert {name for name in defined if issubclass(getattr(ociwire.errors, name), Exception)} == set(ERRORS)


def test_a_name_is_the_same_everywhere() -> None:
    for module in NAMES:
        for name in set(NAMES[module]) & set(NAMES["ociwire"]):
            assert getattr(importlib.import_module(module), name) is getattr(ociwire, name)


def test_what_type_checkers_read_is_what_is_imported_when_asked_for() -> None:
    [block] = [node for node in parsed(ROOT / "__init__.py").body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert {name.asname: node.module for node in imports for name in node.names} == ociwire._HOMES
    assert {name.asname == name.name for node in imports for name in node.names} == {True}


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    seen = """
import sys, ociwire
assert {"Client", "Request", "testing"} <= set(dir(ociwire))
assert not {"urllib3", "ociwire.client", "ociwire.message", "ociwire.testing", "dataclasses"} & set(sys.modules)
assert ociwire.testing.MemoryRegistry and ociwire.digest.Digest and ociwire.Client is ociwire.client.Client
try:
    ociwire.Cleint
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("module 'ociwire' has no attribute 'Cleint'\n", "")


def public_things(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The classes and functions of a module, and their public methods and properties."""
    for name in module.__all__:
        value = getattr(module, name)
        if isinstance(value, GenericAlias) or not (inspect.isclass(value) or inspect.isroutine(value)):
            continue
        yield name, value
        for member, found in vars(value).items() if inspect.isclass(value) else ():
            if member[0] != "_" and (inspect.isroutine(found) or isinstance(found, (property, classmethod))):
                yield f"{name}.{member}", found


@pytest.mark.parametrize("module", NAMES)
def test_everything_public_is_documented(module: str) -> None:
    things = dict(public_things(importlib.import_module(module)))
    assert things
    # a dataclass without a docstring is given its signature for one
    bare = [
        name
        for name, thing in things.items()
        if not (thing.__doc__ or "").strip() or thing.__doc__.startswith(f"{name}(")
    ]
    assert bare == []


# --- modules ---


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def name_of(path: Path) -> tuple[str, ...]:
    """``('transport', 'wire')`` of ``transport/wire.py``; ``('transport',)`` of its package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


MODULES = {name_of(path): path for path in FILES}


def runs(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        yield node
        yield from runs(node)


def imported(path: Path) -> set[tuple[str, ...]]:
    """The modules of ociwire that a module imports when it runs."""
    package = name_of(path) if path.name == "__init__.py" else name_of(path)[:-1]
    found: set[tuple[str, ...]] = set()
    for node in runs(parsed(path)):
        if isinstance(node, ast.Import):
            absolute = [tuple(alias.name.split(".")) for alias in node.names]
            found |= {name[1:] for name in absolute if name[0] == "ociwire"}
        elif isinstance(node, ast.ImportFrom):
            base = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                base = package[: len(package) - node.level + 1] + base
            elif base[0] == "ociwire":
                base = base[1:]
            else:
                continue
            # `from . import errors` is the module of that name, `from .errors import X` is not
            found |= {(*base, alias.name) if (*base, alias.name) in MODULES else base for alias in node.names}
    return found


def test_imports_are_found() -> None:
    assert imported(ROOT / "status.py") >= {("errors",), ("headers",), ("message",)}
    assert imported(ROOT / "transport" / "wire.py") >= {("body",), ("transport", "clock")}
    assert ("message",) not in imported(ROOT / "errors.py")  # for a type checker only
    assert imported(ROOT / "testing" / "conformance.py") >= {("transport",), ("body",)}


def test_every_module_has_its_place() -> None:
    outer = {name[0] for name in MODULES if name}
    assert outer <= set(ORDER)
    for package, order in INNER_ORDER.items():
        assert {name[1] for name in MODULES if name[:1] == (package,) and len(name) > 1} <= set(order)
    packages = {name[0] for name in MODULES if len(name) > 1}
    assert packages <= set(INNER_ORDER)


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_a_module_imports_only_from_those_above_it(path: Path) -> None:
    name = name_of(path)
    if not name:
        return  # ociwire itself hands on all of them
    for other in imported(path):
        assert other, f"{name} imports from ociwire itself"
        if other[0] != name[0]:
            assert ORDER.index(other[0]) < ORDER.index(name[0]), f"{name} imports {other}"
        elif len(name) > 1:
            assert len(other) > 1, f"{name} imports its own package"
            order = INNER_ORDER[name[0]]
            assert order.index(other[1]) < order.index(name[1]), f"{name} imports {other}"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_a_module_begins_with_a_docstring(path: Path) -> None:
    docstring = ast.get_docstring(parsed(path))
    assert docstring
    assert parsed(path).body[0].lineno == 1
