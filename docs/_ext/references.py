"""Resolves references in docstrings, which use short names, so that Sphinx's ``nitpicky`` reports only wrong ones.

A docstring refers to a class as `Client`, to a parameter as `timeout`, and to the standard library as `ssl.SSLContext`.
Sphinx finds none of these: it expects the full name in its reference.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.ext.napoleon.docstring import GoogleDocstring

PACKAGES = (
    "ociwire",
    "ociwire.aio",
    "ociwire.auth",
    "ociwire.errors",
    "ociwire.registry",
    "ociwire.testing",
    "ociwire.transfer",
    "ociwire.transport",
)
EXTERNAL = ("asyncio", "collections", "datetime", "logging", "os", "random", "ssl", "time", "urllib3")
"""Packages whose names are rendered as literals. A link would require their inventory, and thus the network."""
CONSTANTS = ("False", "None", "True")


def _parameters() -> set[str]:
    """Return the names of all parameters of public functions, classes and methods."""
    names: set[str] = set()
    for package in map(importlib.import_module, PACKAGES):
        for thing in (getattr(package, name) for name in package.__all__):
            # Statically, because descriptors of exceptions cannot be read from their class.
            members = [inspect.getattr_static(thing, name) for name in dir(thing)] if inspect.isclass(thing) else []
            for function in [thing, *members]:
                try:
                    names.update(inspect.signature(getattr(function, "__func__", function)).parameters)
                except (TypeError, ValueError):  # a constant, a property, or a method of a built-in class
                    continue
    return names


def _exists(target: str) -> bool:
    """Return whether a dotted name of another package exists."""
    names = target.split(".")
    if names[0] not in EXTERNAL:
        return False
    thing: Any = importlib.import_module(names[0])
    for depth, name in enumerate(names[1:], 2):
        if not hasattr(thing, name):
            try:
                importlib.import_module(".".join(names[:depth]))
            except ImportError:
                return False
        thing = getattr(thing, name)
    return True


def _is_attribute(target: str) -> bool:
    """Return whether a name is that of an attribute in the docstring of a public class, such as ``Progress.done``."""
    owner, _, attribute = target.rpartition(".")
    classes = [getattr(package, owner, None) for package in map(importlib.import_module, PACKAGES)]
    return any(
        re.search(rf"^ +{re.escape(attribute)}: ", thing.__doc__ or "", re.MULTILINE) for thing in classes if thing
    )


def resolve(app: Any, env: Any, node: pending_xref, content: nodes.Element) -> nodes.Node | None:
    """Return a link for a short name of a documented object, or the name itself if it exists elsewhere."""
    if node["refdomain"] != "py":
        return None
    target = node["reftarget"].partition("[")[0]  # of an annotation, `Mapping[str` is left by Sphinx's parser
    domain = env.get_domain("py")
    full = [name for name in domain.objects if name.endswith(f".{target.removeprefix('ociwire.')}")]
    documented = {domain.objects[name].docname for name in full}
    if full and len(documented) == 1:
        node["reftarget"] = min(full, key=len)
        found: nodes.Node | None = domain.resolve_xref(
            env, node["refdoc"], app.builder, "obj", node["reftarget"], node, content
        )
        return found
    known = target in env.ociwire_parameters or target in CONSTANTS or target in PACKAGES or _is_attribute(target)
    return content if known or _exists(target) or _exists(f"collections.abc.{target}") else None


def _collect_parameters(app: Any) -> None:
    app.env.ociwire_parameters = _parameters()


def setup(app: Any) -> dict[str, bool]:
    """Register the extension. Called by Sphinx."""
    # Napoleon reads "Whether X is set: Y." in the docstring of a property as a type and a description.
    GoogleDocstring._consume_inline_attribute = lambda self: ("", self._dedent(self._consume_to_end()))  # type: ignore[method-assign]
    app.connect("builder-inited", _collect_parameters)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
