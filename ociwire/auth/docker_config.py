"""Credentials as docker and podman find them: JSON files, and the helpers that they name.

The first file with an entry for the registry counts; entries are not merged. Files are read at each lookup and not
before, so that a broken file is an error only where it is needed. Errors name the file and the field, never the value.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, final

from .._oci.reference import DOCKER_HUB, registry_name
from ..errors import AuthError, UsageError
from ._credential_helpers import Helpers
from .credentials import Credential

__all__ = ["DockerConfig"]

_LOG = logging.getLogger("ociwire.auth")

_LONGEST = 4 * 1024 * 1024
_HUB_SERVER = f"https://index.{DOCKER_HUB}/v1/"
"""What docker calls Docker Hub in its file, and to helpers."""


@final
class DockerConfig:
    """A `CredentialSource` that reads what ``docker login`` and ``podman login`` have written.

    ``$DOCKER_AUTH_CONFIG`` (the JSON itself) is read first. If it has no entry for the registry, the files follow.
    ``$REGISTRY_AUTH_FILE``, or else ``$DOCKER_CONFIG/config.json``, is the only file if its variable is set. Otherwise
    ``~/.docker/config.json``, ``$XDG_RUNTIME_DIR/containers/auth.json`` and ``$XDG_CONFIG_HOME/containers/auth.json``
    (``~/.config`` by default) are read, and the first file with an entry is used. Only regular files are read. Changes
    to a file take effect at the next lookup.

    A file's entries are, in this order: ``credHelpers`` for the host, ``credsStore`` if it has credentials, and
    ``auths`` by host, URL or, as podman writes it, ``HOST/NAME``, the longest that matches. A ``credsStore`` whose
    program is not installed is ignored. If the program fails, the failure is logged as a warning and kept for a minute,
    `lookup` returns `None` unless a later file has an entry, and `failure` returns the error. A helper of
    ``credHelpers`` that is not installed or fails is an error.

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
            AuthError: A file or an entry is malformed or cannot be read, or a helper that ``credHelpers`` names failed
                or is not installed.
        """
        return self._find(host, repository).credential

    def failure(self, host: str, repository: str | None = None, /) -> AuthError | None:
        """The error of a ``credsStore`` helper because of which `lookup` returned `None`; `None` if there is none.

        `AuthTransport` raises it if the registry refuses an anonymous request, and before it pushes. After a
        minute, the helper is asked again.
        """
        try:
            found = self._find(host, repository)
        except AuthError as error:
            return error
        return AuthError(found.failure) if found.credential is None and found.failure else None

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
        reasons, failure = [], ""
        for file in _files(self._env):
            found = self._from_helper(file, name, repository) or _from_auths(file, name, repository)
            if found.credential is not None or found.is_final:
                return found
            reasons.append(found.how)
            failure = failure or found.failure
        if not reasons:
            looked = ", ".join(place.path for place in _places(self._env)) or "no variable that names one is set"
            reasons = [f"no Docker configuration found: {looked}"]
        return _Found(None, "; ".join(reasons), failure=failure)

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
        try:
            credential = self._helpers.get(helper, program, server, how, keep_failure=key is None)
        except AuthError as error:
            if key is not None:
                raise
            failure = f"{error} ({field} of {file.name} names it)"
            return _Found(None, failure, failure=failure)
        how = how if credential is not None else f"{how}, has nothing for {server}"
        return _Found(credential, how, is_final=key is not None)

    def __repr__(self) -> str:
        return "DockerConfig()"


class _Found(NamedTuple):
    """What a file says about a registry.

    Attributes:
        credential: The credential, or None.
        how: Its file and entry, or why there is none.
        is_final: Whether later files do not count, even if there is no credential.
        failure: The text of the error of a ``credsStore`` helper; empty if none failed.
    """

    credential: Credential | None
    how: str
    is_final: bool = False
    failure: str = ""


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


class _Place(NamedTuple):
    """A path where a file may be, and whether it is skipped if this user may not read it."""

    path: str
    skip_denied: bool = False


def _places(env: Mapping[str, str]) -> Iterator[_Place]:
    """The places where a file may be, in the order in which they count."""
    if path := env.get("REGISTRY_AUTH_FILE"):
        yield _Place(path)
        return
    if folder := env.get("DOCKER_CONFIG"):
        yield _Place(os.path.join(folder, "config.json"))
        return
    home = env.get("HOME")
    if home:
        yield _Place(os.path.join(home, ".docker", "config.json"))
    # podman's files (containers-auth.json(5)). After `su`, XDG_RUNTIME_DIR may be another user's, which is mode 0700.
    if runtime := env.get("XDG_RUNTIME_DIR"):
        yield _Place(os.path.join(runtime, "containers", "auth.json"), skip_denied=True)
    if config := env.get("XDG_CONFIG_HOME") or (home and os.path.join(home, ".config")):
        yield _Place(os.path.join(config, "containers", "auth.json"), skip_denied=True)


def _files(env: Mapping[str, str]) -> Iterator[_File]:
    """The files that exist, each read when it is its turn."""
    if inline := env.get("DOCKER_AUTH_CONFIG"):
        yield _parsed("$DOCKER_AUTH_CONFIG", inline.encode("utf-8", "surrogateescape"))
    for place in _places(env):
        data = _read(place.path, skip_denied=place.skip_denied)
        if data is not None:
            yield _parsed(place.path, data)


def _read(path: str, *, skip_denied: bool) -> bytes | None:
    """Read a regular file, at most one byte beyond the limit; None if there is no file."""
    try:
        # Without O_NONBLOCK, opening a FIFO waits for a writer.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode):
                return file.read(_LONGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        if skip_denied and isinstance(error, PermissionError):
            _LOG.info("skipping %s: %s", path, error.strerror)
            return None
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise AuthError(f"cannot read Docker's configuration {path}: {reason}") from None
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "a special file")
    raise AuthError(f"cannot read Docker's configuration {path}: it is {kind}, expected a regular file")


_KINDS = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISCHR, "a character device"), (stat.S_ISBLK, "a block device"))


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
    # A URL is for the whole registry, and so are the entries of docker's first versions: HOST/v1/, or HOST/v1.
    path = path.strip("/")
    return name, "" if separator or path in ("v1", "v2") else path


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
    # Go's decoder ignores line breaks; other tools wrap, indent or leave out the padding, or use the URL-safe alphabet.
    encoded = re.sub(r"[ \t\r\n]", "", encoded).rstrip("=").replace("-", "+").replace("_", "/")
    with suppress(ValueError):  # which binascii.Error is, too
        text = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True).decode()
    # Raised here, with nothing chained to it: the exception of a decoder holds what it was given.
    if text is None:
        raise file.wrong(field, "is not the base64 of a text")
    username, colon, password = text.partition(":")
    if not colon:
        raise file.wrong(field, "is not the base64 of USERNAME:PASSWORD")
    return username, password.rstrip("\0")
