"""Binding and validation of the arguments of `download`, `upload` and `copy`, before any request is sent."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

from .._argument_checks import check_function, check_integer, safe_repr
from .._client.client import Client
from .._client.repository import sender_of
from .._oci.digest import Digest
from .._oci.reference import DOCKER_HUB, Reference, registry_name
from ..errors import UsageError
from ._progress import ProgressCallback

__all__ = [
    "COPY",
    "DOWNLOAD",
    "OPTIONS_OF_CLIENTS",
    "UPLOAD",
    "Forms",
    "bind_arguments",
    "check_client",
    "check_number",
    "check_path",
    "check_progress",
    "check_workers",
    "locate",
    "open_client",
    "resolve_reference",
]

OPTIONS_OF_CLIENTS = {
    name: f"a Client as the first argument, such as Client(host, {option}=...)"
    for name, option in {"auth": "credentials", "verify": "tls", "retries": "retry"}.items()
    | {(name, name) for name in ("credentials", "timeout", "retry", "tls", "proxy", "insecure")}
}
"""Options of `Client` that are not arguments of a transfer, and what to pass instead; for messages."""
_PLACEHOLDER_HOST = "host.invalid"


class Forms(NamedTuple):
    """Call signatures of a transfer.

    Attributes:
        usage: The two main forms, for messages.
        names: Names of the positional arguments of each form.
        clients: Names of the arguments that are clients. They may be omitted if the references have a host.
    """

    usage: str
    names: tuple[tuple[str, ...], ...]
    clients: Collection[str]


DOWNLOAD = Forms(
    "download(client, repository, digest, path) or download('ghcr.io/org/app@sha256:...', path)",
    (("client", "repository", "digest", "path"), ("reference", "path"), ("client", "reference", "path")),
    ("client",),
)
UPLOAD = Forms(
    "upload(client, repository, source) or upload('ghcr.io/org/app', source)",
    (("client", "repository", "source"), ("reference", "source")),
    ("client",),
)
COPY = Forms(
    "copy(source, source_reference, target, target_reference) or copy('ghcr.io/org/app:v1', 'quay.io/org/app:v1')",
    (
        ("source", "source_reference", "target", "target_reference"),
        ("source_reference", "target_reference"),
        ("client", "source_reference", "target_reference"),
    ),
    ("client", "source", "target"),
)


def bind_arguments(forms: Forms, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a transfer, keyed by name, according to the first form that fits.

    Args:
        forms: The forms.
        args: Positional arguments. The first one of a form without a client is a `str` or a `Reference`.
        keywords: Keyword arguments. `None` means that an argument is not given.

    Raises:
        UsageError: No form fits.
    """
    given = {name: value for name, value in keywords.items() if value is not None}
    for names in forms.names:
        positional = dict(zip(names, args, strict=False))
        all_names = positional.keys() | given.keys()
        fits = len(args) <= len(names) and not positional.keys() & given.keys()
        is_complete = {*names} - {*forms.clients} <= all_names <= {*names, *forms.clients}
        # Forms of the same length differ in whether the first argument is a client. `check_client` checks that of the
        # first form.
        starts_with_client = bool(args) and not isinstance(args[0], (str, Reference))
        is_ambiguous = bool(args) and names != forms.names[0]
        if fits and is_complete and not (is_ambiguous and (names[0] in forms.clients) != starts_with_client):
            return {**given, **positional}
    types = ", ".join([type(value).__name__ for value in args] + [f"{name}=..." for name in given])
    raise UsageError(f"invalid arguments ({types}): expected {forms.usage}")


def resolve_reference(
    opened: ExitStack,
    *,
    client: Client | None = None,
    repository: Any = None,
    digest: Any = None,
    reference: str | Reference | None = None,
    **_others: Any,
) -> tuple[Client, str, Any]:
    """Return the client, the repository and the digest of a transfer of a blob.

    Args:
        opened: Exit stack that closes the client, if this function creates one.
        client: The client. `None` means to create one for the reference.
        repository: Name of the repository, unless there is a reference.
        digest: Digest, unless there is a reference.
        reference: The reference.

    Raises:
        UsageError: An argument is invalid, or the reference has another host than the client, or a tag but no digest.
    """
    if reference is None:
        return check_client(client), repository, digest
    if client is None:
        client = open_client(opened, reference)
    name, tag, digest = locate(client, reference)
    if tag is not None and digest is None:
        raise UsageError(f"invalid reference {str(reference)!r:.300} to a blob: expected HOST/NAME@DIGEST, got a tag")
    return client, name, digest


def open_client(opened: ExitStack, reference: str | Reference, other: Client | None = None) -> Client:
    """Return a client for a reference that has a host.

    Args:
        opened: Exit stack that closes the client, if this function creates one.
        reference: The reference.
        other: Client that is returned if the reference has its host.

    Raises:
        UsageError: The reference is invalid, or has no host.
    """
    parsed = reference if isinstance(reference, Reference) else Reference.parse(reference)
    # Unlike Docker, do not default to Docker Hub: a program that omits the client by mistake must not push there.
    if not isinstance(reference, Reference) and not _has_host(parsed, reference):
        raise UsageError(
            f"invalid reference {safe_repr(reference, 300)} without a Client: expected one with a host, such as"
            f" {DOCKER_HUB}/{parsed.repository}"
        )
    if other is not None:
        scheme = sender_of(other).origin.scheme
        if registry_name(parsed.host, scheme) == registry_name(other.host, scheme):
            return other
    return opened.enter_context(Client.from_reference(parsed))


def _has_host(parsed: Reference, reference: str) -> bool:
    return parsed.host != DOCKER_HUB or reference.startswith((f"{DOCKER_HUB}/", f"index.{DOCKER_HUB}/"))


def locate(client: Any, reference: str | Reference) -> tuple[str, str | None, Digest | None]:
    """Return the repository, tag and digest of a reference. Its host may be omitted, or must be that of the client.

    Raises:
        UsageError: The client is not a `Client`, or the reference is invalid or has another host.
    """
    scheme = sender_of(check_client(client)).origin.scheme
    host = registry_name(client.host, scheme)
    if isinstance(reference, Reference):
        parsed, has_host = reference, True
    else:
        parsed = Reference.parse(reference)
        has_host = _has_host(parsed, reference)
        if not has_host and host != DOCKER_HUB:
            parsed = Reference.parse(f"{_PLACEHOLDER_HOST}/{reference}")  # avoids the ``library/`` prefix of Docker Hub
    if has_host and registry_name(parsed.host, scheme) != host:
        raise UsageError(f"cannot use the reference {str(reference)!r:.300} with a client of {client.host}")
    return parsed.repository, parsed.tag, parsed.digest


def check_client(client: Any) -> Client:
    """Return a `Client` unchanged; `UsageError` for other values."""
    if not isinstance(client, Client):
        raise UsageError(f"invalid client {safe_repr(client)}: expected a Client, such as Client('ghcr.io')")
    return client


def check_number(name: str, value: Any) -> int:
    """Return an integer of 1 or more unchanged; `UsageError` for other values, with the argument's name."""
    return check_integer(name, value, minimum=1)


def check_workers(workers: Any) -> int:
    """Return a number of workers unchanged; `UsageError` for other values."""
    return check_number("number of workers", workers)


def check_progress(progress: Any) -> ProgressCallback | None:
    """Return a progress callback or `None` unchanged; `UsageError` for other values."""
    if progress is not None:
        check_function("progress", progress, "a function that takes a Progress, or None")
    return progress  # type: ignore[no-any-return]


def check_path(path: Any) -> str:
    """Return a path as a string; `UsageError` for other values."""
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise UsageError(f"invalid path {safe_repr(path, 300)}: expected a str or pathlib.Path, not empty, without NUL")
    return text
