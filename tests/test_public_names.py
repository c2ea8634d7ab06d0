"""Public names, their docstrings, and the order in which packages import each other."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from types import GenericAlias, ModuleType
from typing import Any

import pytest

import ociwire
import ociwire.errors

ROOT = Path(ociwire.__file__).parent
REFERENCE = ROOT.parent / "docs" / "reference"

PUBLIC = ["ociwire", *(f"ociwire.{name}" for name in ociwire._SUBMODULES)]

# A package or module may import only from those above it.
ORDER = [
    "_version",
    "_lazy",
    "_text",
    "errors",
    "_bounded_cache",
    "_argument_checks",
    "_files",
    "media_types",
    "_oci",
    "_http",
    "auth",
    "transport",
    "_client",
    "transfer",
    "aio",
    "registry",
    "testing",
    "_pytest_plugin",
    "_cli",
    "__main__",
]

# An error masks the secrets of its request when it is set, and `errors` is above every module that could do that.
EXCEPTIONS = {"errors": {"_redacted_for"}}

FILES = sorted(ROOT.rglob("*.py"))
IDS = [str(path.relative_to(ROOT)) for path in FILES]


def module_name(path: Path) -> str:
    """Return the dotted name: ``transport.retry`` for ``transport/retry.py``, and ``""`` for ociwire itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


# --- names ---


@pytest.mark.parametrize("module", PUBLIC)
def test_star_import_yields_exactly_the_public_names(module: str) -> None:
    names = importlib.import_module(module).__all__
    space: dict[str, Any] = {}
    exec(f"from {module} import *", space)
    assert set(space) - {"__builtins__"} == set(names)
    assert len(set(names)) == len(names)


def test_public_modules_are_those_without_underscore() -> None:
    packages = {name.split(".")[0] for name in MODULES if name}
    assert {name for name in packages if not name.startswith("_")} == set(ociwire._SUBMODULES)


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_the_reference(module: str) -> None:
    text = "\n".join(path.read_text("utf-8") for path in REFERENCE.glob("*.md"))
    if f"automodule:: {module}\n   :members:" in text:
        return  # the page lists all names
    names = set(importlib.import_module(module).__all__) - {"__version__"}
    missing = sorted(name for name in names if name not in text)
    assert missing == []


def test_every_error_is_public() -> None:
    defined = {name for name, value in vars(ociwire.errors).items() if isinstance(value, type) and name[0] != "_"}
    errors = {name for name in defined if issubclass(getattr(ociwire.errors, name), Exception)}
    assert errors == set(ociwire.errors.__all__)
    assert errors <= set(ociwire.__all__)


def test_public_name_is_the_same_object_in_every_module() -> None:
    coroutines = {"copy", "download", "upload"}  # of `ociwire.aio`, the counterparts of the functions of `ociwire`
    for module in PUBLIC:
        other_names = coroutines if module == "ociwire.aio" else set()
        for name in set(importlib.import_module(module).__all__) & set(ociwire.__all__) - other_names:
            assert getattr(importlib.import_module(module), name) is getattr(ociwire, name)


@pytest.mark.parametrize(
    "package", [ociwire, ociwire.auth, ociwire.transport], ids=["ociwire", "ociwire.auth", "ociwire.transport"]
)
def test_imports_for_type_checkers_match_the_lazy_imports(package: Any) -> None:
    blocks = [node for node in parse(Path(package.__file__)).body if isinstance(node, ast.If)]
    [block] = [node for node in blocks if ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    modules = {
        name.asname: f"{'.' * node.level}{node.module}" for node in imports if node.module for name in node.names
    }
    assert modules == package._MODULE_OF_NAME
    submodules = {name.asname for node in imports if not node.module for name in node.names}
    assert submodules == set(getattr(package, "_SUBMODULES", ()))
    assert {name.asname == name.name for node in imports for name in node.names} == {True}


def test_import_of_ociwire_imports_nothing_else() -> None:
    script = """
import sys, ociwire
assert {"Client", "Request", "testing"} <= set(dir(ociwire))
assert not {"urllib3", "ociwire._client.client", "ociwire._http.messages", "ociwire.testing"} & set(sys.modules)
assert "dataclasses" not in sys.modules
assert ociwire.testing.MemoryRegistry and ociwire.media_types.OCI_INDEX
try:
    ociwire.Cleint
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("module 'ociwire' has no attribute 'Cleint'\n", "")


def test_import_of_client_imports_no_layer_of_the_default_stack() -> None:
    script = """
import sys
from ociwire import Client
from ociwire.testing import ScriptedTransport
Client("registry.example", ScriptedTransport([]))
modules = {f"ociwire.transport.{name}" for name in ("auth", "default", "log", "redirect", "_urllib3.transport")}
print(sorted(modules & set(sys.modules)))
from ociwire.transport import *
print(sorted(modules & set(sys.modules)) == sorted(modules), UrllibTransport.__name__)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\nTrue UrllibTransport\n", "")


@pytest.mark.parametrize("statement", ["from ociwire import redirect", "from ociwire import client", "ociwire.message"])
def test_private_module_cannot_be_imported_by_its_short_name(statement: str) -> None:
    with pytest.raises((ImportError, AttributeError)):
        exec(f"import ociwire\n{statement}", {})


def test_functions_of_transfer_are_functions_whatever_was_imported_before() -> None:
    script = """
import ociwire.transfer, importlib, pkgutil
for module in pkgutil.iter_modules(ociwire.transfer.__path__):
    importlib.import_module(f"ociwire.transfer.{module.name}")
from ociwire.transfer import copy, download, upload
print(callable(copy), callable(download), callable(upload))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True True True\n", "")


def public_objects(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Return the classes and functions of a module, and their public methods and properties."""
    for name in module.__all__:
        value = getattr(module, name)
        if isinstance(value, GenericAlias) or not (inspect.isclass(value) or inspect.isroutine(value)):
            continue
        yield name, value
        for member, attribute in vars(value).items() if inspect.isclass(value) else ():
            if member[0] != "_" and (inspect.isroutine(attribute) or isinstance(attribute, (property, classmethod))):
                yield f"{name}.{member}", attribute


@pytest.mark.parametrize("module", [name for name in PUBLIC if name != "ociwire.media_types"])
def test_every_public_object_has_a_docstring(module: str) -> None:
    objects = dict(public_objects(importlib.import_module(module)))
    assert objects
    # the default docstring of a dataclass is its signature
    undocumented = [
        name
        for name, value in objects.items()
        if not (value.__doc__ or "").strip() or value.__doc__.startswith(f"{name}(")
    ]
    assert undocumented == []


# --- modules ---


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes except those in ``if TYPE_CHECKING:``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        yield node
        yield from runtime_nodes(node)


def imported_modules(path: Path) -> set[str]:
    """Return the modules of ociwire that a module imports at run time."""
    package = ["ociwire", *module_name(path).split(".")] if module_name(path) else ["ociwire"]
    package = package if path.name == "__init__.py" else package[:-1]
    imported: set[str] = set()
    for node in runtime_nodes(parse(path)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            # `from . import errors` imports a module, `from .errors import X` does not
            names = {f"{module}.{alias.name}" for alias in node.names}
            imported |= {name if name.removeprefix("ociwire.") in MODULES else module for name in names}
    return {name.removeprefix("ociwire").removeprefix(".") for name in imported if name.split(".")[0] == "ociwire"}


def test_imported_modules_finds_relative_and_deferred_imports() -> None:
    assert imported_modules(ROOT / "_client" / "error_mapping.py") >= {"errors", "_http.headers", "_http.messages"}
    assert "transport._urllib3.timeouts" in imported_modules(ROOT / "transport" / "_urllib3" / "transport.py")
    assert "_http.messages" not in imported_modules(ROOT / "errors.py")  # only for type checkers


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_module_imports_only_packages_above_it(path: Path) -> None:
    name = module_name(path)
    if not name:
        return  # ociwire itself exports the names of all packages
    package = name.split(".")[0]
    for other in imported_modules(path):
        assert other, f"{name} imports ociwire itself"
        assert other != package or other == name or "." not in name, f"{name} imports its own package"
        other_package = other.split(".")[0]
        if other_package != package:
            assert ORDER.index(other_package) < ORDER.index(package), f"{name} imports {other}"


def test_modules_have_no_import_cycle() -> None:
    graph = {name: imported_modules(path) - {name} for name, path in MODULES.items() if name}
    TopologicalSorter(graph).prepare()  # raises CycleError


def private_names(tree: ast.AST) -> tuple[set[str], set[str]]:
    """Return the private attributes that a module uses on objects other than ``self``, and those that it defines."""
    accessed, defined = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
        elif isinstance(node, ast.Attribute):
            is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            (defined if is_own or isinstance(node.ctx, ast.Store) else accessed).add(node.attr)
    return {name for name in accessed if name.startswith("_") and not name.startswith("__")}, defined


def test_package_uses_no_private_attribute_of_another() -> None:
    accessed: dict[str, set[str]] = {}
    defined: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        package = name.split(".")[0]
        uses, definitions = private_names(parse(path))
        accessed.setdefault(package, set()).update(uses)
        defined.setdefault(package, set()).update(definitions)
    foreign = {package: names - defined[package] for package, names in accessed.items()}
    assert {package: names for package, names in foreign.items() if names} == EXCEPTIONS


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_module_begins_with_a_docstring(path: Path) -> None:
    assert ast.get_docstring(parse(path))
    assert parse(path).body[0].lineno == 1
