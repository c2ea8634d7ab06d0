"""Docstrings: every example runs, and the public names are documented."""

from __future__ import annotations

import doctest
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import GenericAlias

import pytest

import ociwire

ROOT = Path(ociwire.__file__).parent
MODULES = sorted(
    ".".join(("ociwire", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if path.name != "__main__.py"
)
PUBLIC = ["ociwire", *(f"ociwire.{name}" for name in ociwire._SUBMODULES)]


def public_objects(module: str) -> Iterator[tuple[str, object]]:
    """Yield the classes and functions in ``__all__`` of a module, and their public methods and properties."""
    for name in importlib.import_module(module).__all__:
        value = getattr(importlib.import_module(module), name)
        # The docstring of a constant or a type alias follows its assignment, and is not accessible. On Python 3.10,
        # `isclass` is true for an alias.
        if isinstance(value, GenericAlias) or not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        yield f"{module}.{name}", value
        for member_name, member in vars(value).items() if inspect.isclass(value) else ():
            member = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
            if not member_name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                yield f"{module}.{name}.{member_name}", member


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.failed == 0


def test_docstrings_contain_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    tests = [test for module in MODULES for test in finder.find(importlib.import_module(module)) if test.examples]
    assert len(tests) >= 15


@pytest.mark.parametrize("module", PUBLIC)
def test_public_name_has_a_docstring(module: str) -> None:
    # The docstring of a dataclass without one is its signature.
    missing = [
        name
        for name, value in public_objects(module)
        if not (value.__doc__ or "").strip() or (value.__doc__ or "").startswith(f"{name.rpartition('.')[2]}(")
    ]
    assert missing == []
