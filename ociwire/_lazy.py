"""Lazy imports of the public names of a package (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(
    package: str, module_of_name: Mapping[str, str], submodules: Collection[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the functions ``__getattr__`` and ``__dir__`` for a package that imports its names on first use.

    Args:
        package: The name of the package.
        module_of_name: The module of each public name, relative to the package.
        submodules: The names of public submodules, which are also imported on first use.
    """

    def get(name: str) -> Any:
        if name in submodules:
            return import_module(f".{name}", package)
        if name not in module_of_name:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(module_of_name[name], package), name)
        setattr(sys.modules[package], name, value)  # later accesses find the attribute and do not call this function
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *module_of_name, *submodules})

    return get, names
