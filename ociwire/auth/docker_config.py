"""Credentials as docker and podman find them: one JSON file, and the helpers that it names.

The first file that exists counts, and nothing is merged. It is read when a credential is wanted and not before, so that
a broken file hurts only those who need it; what is wrong with it is said by file and field, never by value.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, final

from ..errors import AuthError, UsageError
from ..reference import DOCKER_HUB, registry_name
from .credentials import Credential
from .helper import Helpers

__all__ = ["DockerConfig"]

_LONGEST = 4 * 1024 * 1024
_HUB_SERVER = f"https://index.{DOCKER_HUB}/v1/"
"""What docker calls Docker Hub in its file, and to helpers."""


@final
class DockerConfig:
    """A `CredentialSource` that reads what ``docker login`` and ``podman login`` have written.

    The file is the first that exists of ``$DOCKER_AUTH_CONFIG`` (the JSON itself), ``$REGISTRY_AUTH_FILE``,
    ``$DOCKER_CONFIG/config.json``, ``~/.docker/config.json`` and ``$XDG_RUNTIME_DIR/containers/auth.json``. In it
    count, in this order: ``credHelpers`` for the host, ``credsStore`` (passed over where its program is not installed),
    and ``auths`` by host, URL or, as podman has it, ``HOST/NAME``, the longest that fits. A file that has changed is
    seen at the next lookup.

    Args:
        env: The environment; None is `os.environ`.
    """

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self._env: Mapping[str, str] = os.environ if env is None else env
        self._helpers = Helpers(self._env)

    @classmethod
    def load(cls, *, env: Mapping[str, str] | None = None) -> DockerConfig:
        """The configuration of an environment. Nothing is read yet.

        Args:
            env: Where the variables are looked up, ``HOME`` and ``PATH`` too, and what helpers are run with; None is
                `os.environ`.
        """
        return cls(env)

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        """The credential for a registry; None if the file has none, or there is no file.

        Raises:
            UsageError: The host is not valid.
            AuthError: The file or the entry is malformed or cannot be read, or a helper failed or is not installed.
        """
        return self._find(host, repository).credential

    def explain(self, host: str, repository: str | None = None) -> str:
        """Which file, and which entry or helper of it, `lookup` answers from; in words, without a secret.

        Raises what `lookup` does.
        """
        name = registry_name(host)
        found = self._find(name, repository)
        if found.credential is None:
            return f"{name}: nobody ({found.how})"
        kinds = [name for name in ("password", "identity_token", "registry_token") if getattr(found.credential, name)]
        user = f"user {found.credential.username!r}, " if found.credential.username else ""
        return f"{name}: {user}{' and '.join(kinds) or 'no secret'}, from {found.how}"

    def _find(self, host: str, repository: str | None) -> _Found:
        name = registry_name(host)
        file = _read(self._env)
        if file is None:
            looked = ", ".join(_places(self._env)) or "no variable that names one is set"
            return _Found(None, f"no Docker configuration is there: {looked}")
        return self._from_helper(file, name, repository) or _from_auths(file, name, repository)

    def _from_helper(self, file: _File, name: str, repository: str | None) -> _Found | None:
        helpers = file.section("credHelpers")
        key = next(_matching(helpers, name, repository), None)
        field = "credsStore" if key is None else f"credHelpers[{key!r}]"
        helper = file.content.get("credsStore") if key is None else helpers[key]
        if not helper and (key is None or helper == ""):
            return None  # an empty name is how docker is told to use no helper for a host
        if not isinstance(helper, str):
            raise file.wrong(field, "is not a string")
        try:
            program = self._helpers.find(helper)
        except AuthError as error:
            raise file.wrong(field, str(error)) from None
        if program is None:
            if key is None:
                return None
            raise file.wrong(field, f"names a helper that is not installed: docker-credential-{helper} is not on PATH")
        how = f"docker-credential-{helper}, which {field} of {file.name} names"
        server = _HUB_SERVER if name == DOCKER_HUB else name
        credential = self._helpers.get(helper, program, server, how)
        return _Found(credential, how if credential is not None else f"{how}, has nothing for {server}")

    def __repr__(self) -> str:
        return "DockerConfig()"


class _Found(NamedTuple):
    """A credential, and how it was come by."""

    credential: Credential | None
    how: str


@dataclass(frozen=True, slots=True)
class _File:
    """A file that was read: what it is called, and the object in it."""

    name: str
    content: dict[str, Any]

    def section(self, field: str) -> dict[str, Any]:
        """An object of the file; empty where it is absent."""
        value = self.content.get(field)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(field, "is not an object")
        return value or {}

    def wrong(self, field: str, what: str) -> AuthError:
        """The error that names a field; never its value."""
        return AuthError(f"{self.name}: {field} {what}")


def _places(env: Mapping[str, str]) -> Iterator[str]:
    """The paths where a file may be, the first first."""
    if path := env.get("REGISTRY_AUTH_FILE"):
        yield path
    if folder := env.get("DOCKER_CONFIG"):
        yield os.path.join(folder, "config.json")
    if home := env.get("HOME"):
        yield os.path.join(home, ".docker", "config.json")
    if runtime := env.get("XDG_RUNTIME_DIR"):
        yield os.path.join(runtime, "containers", "auth.json")


def _read(env: Mapping[str, str]) -> _File | None:
    if inline := env.get("DOCKER_AUTH_CONFIG"):
        return _parsed("$DOCKER_AUTH_CONFIG", inline.encode("utf-8", "surrogateescape"))
    for path in _places(env):
        try:
            with open(path, "rb") as file:
                return _parsed(path, file.read(_LONGEST + 1))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a path"
            raise AuthError(f"cannot read Docker's configuration {path}: {reason}") from None
    return None


def _parsed(name: str, data: bytes) -> _File:
    if len(data) > _LONGEST:
        raise AuthError(f"{name}: longer than {_LONGEST} bytes, which no Docker configuration is")
    content: Any = None
    where = ""
    try:
        content = json.loads(data.decode("utf-8-sig").strip() or "{}")
    except json.JSONDecodeError as error:
        where = f" ({error.msg}, line {error.lineno}, column {error.colno})"
    except (ValueError, RecursionError):
        pass
    # Raised here, with nothing chained to it: an exception of json's holds the whole text, and so the secrets.
    if not isinstance(content, dict):
        raise AuthError(f"{name}: not a JSON object{where}")
    return _File(name, content)


def _from_auths(file: _File, name: str, repository: str | None) -> _Found:
    auths = file.section("auths")
    for key in _matching(auths, name, repository):
        how = f"{file.name}, auths[{key!r}]"
        credential = _credential(file, f"auths[{key!r}]", auths[key], how)
        if credential is not None:
            return _Found(credential, how)
    return _Found(None, f"{file.name} has no entry for it")


def _matching(entries: Mapping[str, Any], name: str, repository: str | None) -> Iterator[str]:
    """The keys that stand for a registry or for part of it, those that say most first."""
    server = _HUB_SERVER if name == DOCKER_HUB else name
    found = []
    for key in entries:
        host, path = _split(key)
        namespace = f"{path}/"
        if host == name and (not path or (repository is not None and f"{repository}/".startswith(namespace))):
            found.append((-len(path), key != server, key))
    # A stable sort: of keys that say the same, the one that is written as docker would, then the first of the file.
    return (key for _, _, key in sorted(found, key=lambda one: one[:2]))


def _split(key: str) -> tuple[str, str]:
    """A key of ``auths``: the registry that it names, and the repositories, if it is not for all of them."""
    scheme, separator, rest = key.rpartition("://")
    host, _, path = rest.partition("/")
    try:
        name = registry_name(host, scheme.lower() or "https")
    except UsageError:
        return "", ""
    # A URL is for the whole registry, and so is what docker's oldest logins have written: HOST/v1/.
    return name, "" if separator or path in ("v1/", "v2/") else path.strip("/")


def _credential(file: _File, field: str, entry: object, how: str) -> Credential | None:
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise file.wrong(field, "is not an object")
    texts = {}
    for key in ("auth", "username", "password", "identitytoken", "registrytoken"):
        value = entry.get(key)
        if value is not None and not isinstance(value, str):
            raise file.wrong(f"{field}.{key}", "is not a string")
        texts[key] = value or None
    username, password = texts["username"], texts["password"]
    if texts["auth"] is not None:
        username, password = _decoded(file, f"{field}.auth", texts["auth"])
    if not (username or password or texts["identitytoken"] or texts["registrytoken"]):
        return None  # docker leaves an empty entry where a helper keeps the secret
    try:
        return Credential(
            username=username,
            password=password,
            identity_token=texts["identitytoken"],
            registry_token=texts["registrytoken"],
            source=how,
        )
    except UsageError as error:
        raise file.wrong(field, f"cannot be used: {error}") from None


def _decoded(file: _File, field: str, encoded: str) -> tuple[str, str]:
    text = None
    with suppress(ValueError):  # which binascii.Error is, too
        text = base64.b64decode(re.sub(r"[\r\n]", "", encoded), validate=True).decode()
    # Raised here, with nothing chained to it: the exception of a decoder holds what it was given.
    if text is None:
        raise file.wrong(field, "is not the base64 of a text")
    username, colon, password = text.partition(":")
    if not colon:
        raise file.wrong(field, "is not the base64 of USERNAME:PASSWORD")
    return username, password.rstrip("\0")
