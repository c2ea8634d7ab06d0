"""Sphinx directives for generated content: ``stack-picture``, ``error-tree``, ``operations`` and ``help``."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import drawing
import operations
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective


class _Picture(SphinxDirective):
    has_content = False

    def svg(self) -> str:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", self.svg(), format="html")]


class StackPicture(_Picture):
    """Directive that draws the default stack, with links to the reference."""

    def svg(self) -> str:
        up = "../" * self.env.docname.count("/")
        return drawing.stack(f"{up}reference/transports.html")


class ErrorTree(_Picture):
    """Directive that draws the tree of exceptions, with links to their descriptions on the page."""

    def svg(self) -> str:
        return drawing.errors()


class Operations(SphinxDirective):
    """Directive that shows the table of operations."""

    has_content = False

    def run(self) -> list[nodes.Node]:
        found = nodes.container(classes=["operations"])
        self.state.nested_parse(StringList(operations.table(), source=operations.__file__), 0, found)
        return [found]


class Help(SphinxDirective):
    """Directive that shows the command's help. The optional argument is a subcommand."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        command = [sys.executable, "-m", "ociwire", *self.arguments, "--help"]
        environment = {**os.environ, "COLUMNS": "79"}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        return [nodes.literal_block(done.stdout, done.stdout, language="text")]


def _without_what_is_inherited(
    app: Any, what: str, name: str, thing: Any, options: Any, signature: str, returned: str
) -> tuple[str, str] | None:
    """Return an empty signature for an exception that inherits its constructor, to keep the page short."""
    return ("", "") if what == "exception" and signature and "__init__" not in vars(thing) else None


def setup(app: Any) -> dict[str, bool]:
    """Register the extension. Called by Sphinx."""
    app.add_directive("stack-picture", StackPicture)
    app.add_directive("error-tree", ErrorTree)
    app.add_directive("operations", Operations)
    app.add_directive("help", Help)
    app.connect("autodoc-process-signature", _without_what_is_inherited)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
