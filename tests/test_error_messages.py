"""The form of all error messages: their texts in the source, and the check of the texts that tests raise."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ociwire import Client, FunctionTransport, Response, errors
from ociwire.errors import AuthError, OciwireError, UsageError
from tests._support.messages import PACKAGE, MessageRecorder, check_form, check_text, recorder

ERRORS = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, OciwireError)}
BUILTIN = {
    name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)
}


class Site(NamedTuple):
    """A place in the source that creates an exception."""

    place: str
    kind: str
    message: str


def message_of(node: ast.expr, function: ast.AST) -> str:
    """Return the text of an expression, with ``…`` for each part that is not literal.

    A variable stands for the last string that is assigned to it in the function before its use.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return message_of(node.left, function) + message_of(node.right, function)
    if isinstance(node, ast.Name):
        values = [
            assignment.value
            for assignment in ast.walk(function)
            if isinstance(assignment, ast.Assign)
            and assignment.lineno < node.lineno
            and any(isinstance(target, ast.Name) and target.id == node.id for target in assignment.targets)
            and isinstance(assignment.value, (ast.Constant, ast.JoinedStr))
        ]
        return message_of(values[-1], function) if values else "…"
    return "…"


def sites(path: Path) -> Iterator[Site]:
    """Yield the calls of ociwire's exceptions, and those of built-in ones in a raise statement, that have a message."""
    tree = ast.parse(path.read_text("utf-8"))
    raised = {id(node.exc) for node in ast.walk(tree) if isinstance(node, ast.Raise)}
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.Lambda))]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        kind = getattr(node.func, "id", "") or getattr(node.func, "attr", "")
        arguments = node.args[2:] if kind == "ErrorResponse" else node.args[:1]  # that of `ociwire.registry`
        if not (kind in ERRORS or kind == "ErrorResponse" or (kind in BUILTIN and id(node) in raised)):
            continue
        around = [function for function in functions if any(inner is node for inner in ast.walk(function))]
        for argument in arguments:
            place = f"{path.relative_to(PACKAGE)}:{node.lineno}"
            yield Site(place, kind, message_of(argument, around[-1] if around else tree))


MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
SITES = {module: list(sites(PACKAGE / module)) for module in MODULES}


@pytest.mark.parametrize("module", [module for module in MODULES if SITES[module]])
def test_module_messages_have_the_form(module: str) -> None:
    wrong = [f"{site.place}: {site.message!r}: {what}" for site in SITES[module] for what in check_form(*site[1:])]
    assert not wrong, "\n" + "\n".join(wrong)


def test_sites_are_found() -> None:
    found = [site for module_sites in SITES.values() for site in module_sites]
    assert len(found) > 200
    assert {site.kind for site in found} > {"UsageError", "ProtocolError", "OSError", "ErrorResponse"}
    literal = [site for site in found if site.message.strip("…: ")]
    assert len(literal) > 0.9 * len(found)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("UsageError", "invalid tag …: expected 1 to 128 characters of [A-Za-z0-9_.-]"),
        ("UsageError", "content must be bytes, a path, a binary file or an iterable of bytes, got …"),
        ("UsageError", "cannot download to …: it is a directory"),
        ("UsageError", "the transport is closed"),
        ("RedirectError", "refusing to follow the redirect to …: it goes from https to http"),
        ("AuthError", "the token server … answered with status …: …"),
        ("Unsupported", "Docker schema 1 manifests are not supported: push the image again with a current tool"),
        ("ContentError", "…: expected a manifest"),
    ],
)
def test_check_form_good_message_passes(kind: str, message: str) -> None:
    assert check_form(kind, message) == []


@pytest.mark.parametrize(
    "message",
    [
        "not a tag: … (a tag reads [A-Za-z0-9_.-])",
        "invalid platform …: expected os/architecture (it reads like a tag)",
        "a page of a list is no JSON object",
        "the pages of a list go in a circle",
        "Invalid status: expected an integer",
        "invalid status: expected an integer.",
        "invalid status:  expected an integer",
        "invalid status:\nexpected an integer",
        "invalid status …",
        "headers are a mapping",
        "the registry wants chunks of … bytes: expected fewer",
        "the manifest says that it is …, expected …",
        "",
    ],
)
def test_check_form_bad_message_is_reported(message: str) -> None:
    assert check_form("UsageError", message)


@pytest.mark.parametrize(
    "message", ["two\nlines", "\x1b[31m", "a\rb", "\u2028", "\ud800", "a" * 40_001, "the password is hunter2"]
)
def test_check_text_bad_message_is_reported(message: str) -> None:
    assert check_text(message)


def test_recorder_counts_messages_of_ociwire_only() -> None:
    before = recorder.count
    UsageError("created by a test\n")
    assert recorder.count == before
    with pytest.raises(UsageError):
        Client("not a host")
    with pytest.raises(errors.NotFound):
        Client("registry.example", FunctionTransport(lambda request: Response(404))).resolve_tag("a", "b")
    assert recorder.count >= before + 2
    assert recorder.pop_violations() == []


def test_recorder_message_with_line_break_is_a_violation() -> None:
    source = "def create(kind, *args): return kind(*args)"
    names: dict[str, object] = {}
    exec(compile(source, str(PACKAGE / "__main__.py"), "exec"), names)
    create = names["create"]
    assert callable(create)
    for kind in (UsageError, AuthError, errors.ConnectError, errors.NotFound):
        create(kind, "two\nlines")
        [violation] = recorder.pop_violations()
        assert violation.startswith(f"__main__.py:1: {kind.__name__}: line break")


def test_recorder_is_installed() -> None:
    assert isinstance(recorder, MessageRecorder)
    assert OciwireError.__init__.__qualname__ == "_call_next"
