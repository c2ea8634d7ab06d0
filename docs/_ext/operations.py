"""Generates the table of a client's operations. Each is run with a registry in memory, which records its requests."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import ociwire
from ociwire import Client, Descriptor, Request, Response
from ociwire.media_types import OCI_INDEX
from ociwire.testing import MemoryRegistry

_HELD = Descriptor.of(b"held")
_MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
_REFERENCE = Descriptor.of(_MANIFEST, OCI_INDEX)


def _uploaded(client: Client) -> None:
    with client.push_blob_chunked("app") as writer:
        writer.write(b"new")
        writer.commit()


def _resumed(client: Client) -> None:
    writer = client.push_blob_chunked("app")
    writer.write(b"new")
    writer.close()
    again = client.push_blob_chunked_resume("app", writer.id)
    again.commit(Descriptor.of(b"new").digest)


# How each operation is called. `rows` raises LookupError for one without an entry, so that the build fails.
_DONE: dict[str, Callable[[Client], Any]] = {
    "get_blob": lambda client: client.get_blob("app", _HELD.digest).close(),
    "get_blob_range": lambda client: client.get_blob_range("app", _HELD.digest, 1, 3).close(),
    "get_manifest": lambda client: client.get_manifest("app", _REFERENCE.digest).close(),
    "get_tag": lambda client: client.get_tag("app", "v1").close(),
    "fetch_manifest": lambda client: client.fetch_manifest("app", "v1"),
    "resolve_blob": lambda client: client.resolve_blob("app", _HELD.digest),
    "resolve_manifest": lambda client: client.resolve_manifest("app", _REFERENCE.digest),
    "resolve_tag": lambda client: client.resolve_tag("app", "v1"),
    "has_blob": lambda client: client.has_blob("app", _HELD.digest),
    "has_manifest": lambda client: client.has_manifest("app", "v1"),
    "push_blob": lambda client: client.push_blob("app", Descriptor.of(b"new"), b"new"),
    "push_blob_chunked": _uploaded,
    "push_blob_chunked_resume": _resumed,
    "mount_blob": lambda client: client.mount_blob("app", "other", _HELD.digest),
    "push_manifest": lambda client: client.push_manifest("app", _MANIFEST, OCI_INDEX, tags=["v2"]),
    "tag": lambda client: client.tag("app", "v1", "v3"),
    "delete_blob": lambda client: client.delete_blob("app", _HELD.digest),
    "delete_manifest": lambda client: client.delete_manifest("app", _REFERENCE.digest),
    "delete_tag": lambda client: client.delete_tag("app", "v1"),
    "tags": lambda client: list(client.tags("app")),
    "repositories": lambda client: list(client.repositories()),
    "referrers": lambda client: list(client.referrers("app", _REFERENCE.digest)),
    "ping": lambda client: client.ping(),
    "do": lambda client: client.do(Request("GET", "/v2/")).close(),
}
_NO_OPERATIONS = {"host", "transport", "close", "with_options", "from_reference"}


class Row(NamedTuple):
    """An operation, its requests with the scope of each, and the errors that it documents."""

    name: str
    requests: list[str]
    scopes: list[str]
    errors: list[str]


def rows() -> Iterator[Row]:
    """Return the rows of all operations of a client, in the order of the class.

    Raises:
        LookupError: An operation has no entry.
    """
    for name, member in vars(Client).items():
        if name.startswith("_") or name in _NO_OPERATIONS:
            continue
        if name not in _DONE:
            raise LookupError(f"Client.{name} is not in the table of operations: add it to {__name__}._DONE")
        seen = _seen(_DONE[name])
        scopes = list(dict.fromkeys(_actions(request) for request in seen))
        yield Row(name, [_shape(request) for request in seen], scopes, _errors(member))


def table() -> list[str]:
    """Return the table in Markdown."""
    lines = ["| operation | requests | scope | errors |", "|---|---|---|---|"]
    for row in rows():
        name = f"{{py:meth}}`{row.name} <ociwire.Client.{row.name}>`"
        errors = ", ".join(f"{{py:class}}`{error} <ociwire.{error}>`" for error in row.errors)
        cells = (name, *("<br>".join(f"`{one}`" for one in many if one) for many in (row.requests, row.scopes)), errors)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _seen(done: Callable[[Client], Any]) -> list[Request]:
    """Return the requests of an operation to a registry that has a blob, a manifest and a tag."""
    registry = MemoryRegistry()
    before = Client("registry.example", registry)
    before.push_blob("app", _HELD, b"held")
    before.push_manifest("app", _MANIFEST, OCI_INDEX, tags=["v1"])
    seen: list[Request] = []

    class Watched:
        def round_trip(self, request: Request, /) -> Response:
            seen.append(request)
            return registry.round_trip(request)

        def close(self) -> None:
            pass

    done(Client("registry.example", Watched()))
    return seen


def _shape(request: Request) -> str:
    """Return a request's method and its path below ``/v2/NAME/``, with placeholders for values of the examples."""
    path = request.url.partition("registry.example")[2]
    path = re.sub(r"uploads/[^/?]+", "uploads/ID", path)
    path = re.sub(r"sha256(:|%3A)[0-9a-f]{64}", "DIGEST", path)
    path = re.sub(r"/v[12]$", "/TAG", path) if "/manifests/" in path else path
    path = re.sub(r"[0-9]+$", "N", path) if "n=" in path else path
    path = re.sub(r"^/v2/(app|other)/", "", path).replace("from=app", "from=OTHER")
    extra = "".join(f" + {name}" for name in ("Range", "Content-Range") if name in request.headers)
    return f"{request.method} {path}{extra}"


def _actions(request: Request) -> str:
    """Return a request's scope: the actions for its repository, and other members in full."""
    name = "other" if "/other/" in request.url else "app"
    here: list[str] = []
    elsewhere: list[str] = []
    for one in request.info.required_scope:
        if one.resource == name:
            here.append(one.action)
        else:
            elsewhere.append(f"OTHER: {one.action}" if one.resource_type == "repository" else str(one))
    return "; ".join(filter(None, [", ".join(here), *elsewhere]))


def _errors(member: Any) -> list[str]:
    """Return the exceptions of ociwire in the ``Raises`` section of a docstring."""
    _, _, raises = (inspect.getdoc(member) or "").partition("\nRaises:\n")
    names: list[str] = []
    for line in raises.splitlines():
        if match := re.match(r" {4}(\w+(?:, \w+)*):", line):
            names += match[1].split(", ")
    return [name for name in names if name in ociwire.errors.__all__]
