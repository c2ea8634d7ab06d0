"""Read the credentials of Docker and Podman from their JSON files and credential helpers.

The first file that has an entry for the registry is used; entries are not merged. Files are read only during a lookup,
so that an invalid file causes an error only if it is needed. Error messages contain the file and the field, never the
value. Errors have no ``__cause__``, because the exception of a decoder contains the decoded text and its secrets.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, final

from .._bounded_cache import BoundedCache
from .._oci.reference import DOCKER_HUB, registry_name
from .._text import format_path
from ..errors import AuthError, UsageError
from ._credential_helpers import find_helper, run_helper
from .credentials import Credential

__all__ = ["DockerConfig"]

_LOG = logging.getLogger("ociwire.auth")
_MAX_FILE = 4 * 1024 * 1024
_MAX_CACHED = 1024
_LIFETIME = 60.0
"""Seconds for which the result of a helper is cached."""
_FILE_TYPES = {stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a character device", stat.S_IFBLK: "a block device"}


@final
class DockerConfig:
    """A `CredentialSource` that reads what ``docker login`` and ``podman login`` have written.

    The variable ``$DOCKER_AUTH_CONFIG``, which contains the JSON itself, is read first. If it has no entry for the
    registry, files are read. If ``$REGISTRY_AUTH_FILE`` is set, only this file is read. Otherwise, if
    ``$DOCKER_CONFIG`` is set, only ``$DOCKER_CONFIG/config.json`` is read. If neither is set, the first of these files
    that has an entry is used: ``~/.docker/config.json``, ``$XDG_RUNTIME_DIR/containers/auth.json`` and
    ``$XDG_CONFIG_HOME/containers/auth.json`` (``~/.config`` by default). Only regular files are read. Changes to a file
    take effect at the next lookup.

    Within a file, the following entries are used, in this order: ``credHelpers`` for the host, ``credsStore`` if it has
    credentials, and the most specific matching key of ``auths``. A key is a host, a URL or, as Podman writes it,
    ``HOST/NAME``. A ``credsStore`` helper that is not installed is ignored. If an installed one fails, the error is
    logged as a warning and cached for a minute, `lookup` returns `None` unless a later file has an entry, and `failure`
    returns the error. If a helper of ``credHelpers`` is not installed or fails, `lookup` raises an error. On
    Windows, every helper fails.

    Args:
        env: The environment. Defaults to `os.environ`.
    """

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        if env is not None and not isinstance(env, Mapping):
            raise UsageError(
                f"env must be a mapping, got {type(env).__name__}: for a file, use"
                " DockerConfig(env={**os.environ, 'REGISTRY_AUTH_FILE': path})"
            )
        self._env: Mapping[str, str] = os.environ if env is None else env
        # Maps program and server to the expiry and either the credential or an error message. The exception itself is
        # not cached, because its traceback would grow with each `raise`.
        self._cache: BoundedCache[tuple[str, str], tuple[float, Credential | str | None]] = BoundedCache(_MAX_CACHED)

    @classmethod
    def load(cls, *, env: Mapping[str, str] | None = None) -> DockerConfig:
        """Return the configuration of an environment. Nothing is read yet.

        Args:
            env: The environment, from which ``HOME`` (or ``USERPROFILE``) and ``PATH`` are also read. Helpers run with
                this environment. Defaults to `os.environ`.
        """
        return cls(env)

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        """Return the credential for a registry; `None` if no file has one.

        Raises:
            UsageError: The host is invalid.
            AuthError: A file or an entry is malformed or cannot be read, or a helper of ``credHelpers`` failed or is
                not installed.
        """
        return self._find(registry_name(host), repository).credential

    def failure(self, host: str, repository: str | None = None, /) -> AuthError | None:
        """Return the error if `lookup` returned `None` because a ``credsStore`` helper failed, or else `None`.

        `AuthTransport` raises this error before a push, or if the registry refuses an anonymous request. After a
        minute, the helper is run again.
        """
        try:
            result = self._find(registry_name(host), repository)
        except AuthError as error:
            return error
        return AuthError(result.failure) if result.credential is None and result.failure else None

    def explain(self, host: str, repository: str | None = None) -> str:
        """Describe which file, and which entry or helper in this file, `lookup` uses. Contains no secrets.

        Raises the same errors as `lookup`.
        """
        name = registry_name(host)
        credential, source, *_ = self._find(name, repository)
        if credential is None:
            return f"{name}: anonymous ({source})"
        kinds = [kind for kind in ("password", "identity_token", "registry_token") if getattr(credential, kind)]
        user = f"user {credential.username!r}, " if credential.username else ""
        return f"{name}: {user}{' and '.join(kinds) or 'no secret'}, from {source}"

    def __repr__(self) -> str:
        return "DockerConfig()"

    def _find(self, name: str, repository: str | None) -> _Result:
        reasons, failure = [], ""
        for file in _read_files(self._env):
            result = self._from_helper(file, name, repository) or _from_auths(file, name, repository)
            if result.credential is not None or result.is_final:
                return result
            reasons.append(result.source)
            failure = failure or result.failure
        if not reasons:
            paths = ", ".join(format_path(path) for path, _ in _list_paths(self._env))
            paths = paths or "no variable that names one is set"
            reasons = [f"no Docker configuration found: {paths}"]
        return _Result(None, "; ".join(reasons), failure=failure)

    def _from_helper(self, file: _File, name: str, repository: str | None) -> _Result | None:
        """Return the helper's result for a registry; None if no helper is set, or ``credsStore`` is not installed."""
        helpers = file.section("credHelpers")
        key = next(_matching_keys(helpers, name, repository), None)
        field = "credsStore" if key is None else f"credHelpers[{key!r}]"
        helper = file.content.get("credsStore") if key is None else helpers[key]
        if helper == "" or (key is None and not helper):
            return None  # an empty name in `credHelpers` means that docker uses no helper for the host
        if not isinstance(helper, str):
            raise file.error(field, "expected a string")
        try:
            program = find_helper(helper, self._env.get("PATH", ""))
        except AuthError as error:
            raise file.error(field, str(error)) from None
        if program is None and key is None:
            return None
        if program is None:
            raise file.error(field, f"docker-credential-{helper} is not on PATH")
        server = _server_name(name)
        source = f"docker-credential-{helper}, which {field} of {file.name} names"
        try:
            credential = self._ask_helper(program, server, source, cache_failure=key is None)
        except AuthError as error:
            if key is not None:
                raise
            failure = f"{error} ({field} of {file.name} names it)"
            return _Result(None, failure, failure=failure)
        source = source if credential is not None else f"{source}, has nothing for {server}"
        return _Result(credential, source, is_final=key is not None)

    def _ask_helper(self, program: str, server: str, source: str, *, cache_failure: bool) -> Credential | None:
        expires_at, result = self._cache.get((program, server)) or (0.0, None)
        if time.monotonic() >= expires_at:
            try:
                result = run_helper(program, server, self._env, source)
            except AuthError as error:
                if not cache_failure:
                    raise
                result = str(error)
                _LOG.warning("%s; continuing without credentials for %s", result, server)
            self._cache.put((program, server), (time.monotonic() + _LIFETIME, result))
        if isinstance(result, str):
            raise AuthError(result)
        return result


class _Result(NamedTuple):
    """Result of the look-up of a registry in one file."""

    credential: Credential | None
    source: str  # file and entry of the credential, or the reason why there is none
    is_final: bool = False  # whether to skip later files even if there is no credential
    failure: str = ""  # the error of a ``credsStore`` helper


class _File(NamedTuple):
    """A configuration file: its path, sanitized for messages, and the JSON object in it."""

    name: str
    content: dict[str, Any]

    def section(self, field: str) -> dict[str, Any]:
        """Return the object in a field; an empty one if the field is absent."""
        value = self.content.get(field)
        if value is not None and not isinstance(value, dict):
            raise self.error(field, "expected an object")
        return value or {}

    def error(self, field: str, problem: str) -> AuthError:
        return AuthError(f"invalid {field} in {self.name}: {problem}")


def _list_paths(env: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
    """Yield the path of each file, in order, and whether to skip the file if the user is not permitted to read it."""
    if path := env.get("REGISTRY_AUTH_FILE"):
        yield path, False
        return
    if folder := env.get("DOCKER_CONFIG"):
        yield os.path.join(folder, "config.json"), False
        return
    home = env.get("HOME") or env.get("USERPROFILE")  # Windows has only the latter
    if home:
        yield os.path.join(home, ".docker", "config.json"), False
    # Podman's files (containers-auth.json(5)). After `su`, XDG_RUNTIME_DIR may be another user's folder (mode 0700).
    if runtime := env.get("XDG_RUNTIME_DIR"):
        yield os.path.join(runtime, "containers", "auth.json"), True
    if config := env.get("XDG_CONFIG_HOME") or (home and os.path.join(home, ".config")):
        yield os.path.join(config, "containers", "auth.json"), True


def _read_files(env: Mapping[str, str]) -> Iterator[_File]:
    """Yield the files that exist. A file is read only when the iterator reaches it."""
    if inline := env.get("DOCKER_AUTH_CONFIG"):
        yield _parse("$DOCKER_AUTH_CONFIG", inline.encode("utf-8", "surrogateescape"))
    # Without O_NONBLOCK, opening a FIFO waits for a writer. Windows has neither O_NONBLOCK nor FIFOs.
    nonblock = getattr(os, "O_NONBLOCK", 0)
    for path, skip_denied in _list_paths(env):
        try:
            with open(path, "rb", opener=lambda name, flags: os.open(name, flags | nonblock)) as file:
                mode = os.fstat(file.fileno()).st_mode
                data = file.read(_MAX_FILE + 1) if stat.S_ISREG(mode) else None
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            if skip_denied and isinstance(error, PermissionError):
                _LOG.info("skipping %s: %s", format_path(path), error.strerror)
                continue
            # `open` raises ValueError for a path with NUL.
            reason = error.strerror if isinstance(error, OSError) else "expected a path without NUL"
            raise AuthError(f"cannot read Docker's configuration {format_path(path)}: {reason}") from None
        if data is None:
            kind = _FILE_TYPES.get(stat.S_IFMT(mode), "a special file")
            raise AuthError(
                f"cannot read Docker's configuration {format_path(path)}: it is {kind}, expected a regular file"
            )
        yield _parse(format_path(path), data)


def _parse(name: str, data: bytes) -> _File:
    if len(data) > _MAX_FILE:
        raise AuthError(f"invalid Docker configuration {name}: it is longer than {_MAX_FILE} bytes")
    content, position = None, ""
    try:
        content = json.loads(data.decode("utf-8-sig").strip() or "{}")
    except json.JSONDecodeError as error:
        position = f" ({error.msg}, line {error.lineno}, column {error.colno})"
    except (ValueError, RecursionError):
        pass
    if not isinstance(content, dict):  # raised outside the `except` block, so that the error has no `__context__`
        raise AuthError(f"invalid Docker configuration {name}: expected a JSON object{position}")
    return _File(name, content)


def _from_auths(file: _File, name: str, repository: str | None) -> _Result:
    auths = file.section("auths")
    for key in _matching_keys(auths, name, repository):
        field = f"auths[{key!r}]"
        credential = None if auths[key] is None else _parse_entry(file, field, auths[key])
        if credential is not None:
            return _Result(credential, credential.source)
    return _Result(None, f"{file.name} has no entry for it")


def _matching_keys(entries: Mapping[str, Any], name: str, repository: str | None) -> Iterator[str]:
    """Return the keys of ``auths`` or ``credHelpers`` for a registry or a part of it, the most specific first.

    A key is a host, a URL, or ``HOST/NAME`` for the repositories below a name, as Podman writes it.
    """
    server = _server_name(name)
    matching = []
    for key in entries:
        scheme, separator, rest = key.rpartition("://")
        host, _, path = rest.partition("/")
        # A URL applies to the whole registry, as do HOST/v1/ and HOST/v1, which the first versions of docker wrote.
        path = path.strip("/")
        path = "" if separator or path in ("v1", "v2") else path
        with suppress(UsageError):  # not the host of a registry
            if registry_name(host, scheme.lower() or "https") == name and (
                not path or (repository is not None and f"{repository}/".startswith(f"{path}/"))
            ):
                matching.append((-len(path), key != server, key))
    # Among equally specific keys, the key that docker writes is first; the others keep their order (stable sort).
    return (key for _, _, key in sorted(matching, key=lambda match: match[:2]))


def _server_name(name: str) -> str:
    """Return the registry name that Docker's files and helpers use: the host, or a URL for Docker Hub."""
    return f"https://index.{DOCKER_HUB}/v1/" if name == DOCKER_HUB else name


def _parse_entry(file: _File, field: str, entry: object) -> Credential | None:
    if not isinstance(entry, dict):
        raise file.error(field, "expected an object")
    texts = {key: entry.get(key) for key in ("auth", "username", "password", "identitytoken", "registrytoken")}
    for key, value in texts.items():
        if value is not None and not isinstance(value, str):
            raise file.error(f"{field}.{key}", "expected a string")
    encoded, username, password, identity_token, registry_token = (value or None for value in texts.values())
    if encoded is not None:
        # Go's decoder ignores line breaks. Other tools wrap or indent, omit the padding, or use the URL-safe alphabet.
        encoded = re.sub(r"[ \t\r\n]", "", encoded).rstrip("=").replace("-", "+").replace("_", "/")
        text = ""
        with suppress(ValueError):  # includes binascii.Error and UnicodeDecodeError
            text = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True).decode()
        username, colon, password = text.partition(":")
        if not colon:
            raise file.error(f"{field}.auth", "expected the base64 of USERNAME:PASSWORD")
        password = password.rstrip("\0")
    if not (username or password or identity_token or registry_token):
        return None  # docker writes an empty entry if a helper stores the secret
    try:
        return Credential(
            username=username,
            password=password,
            identity_token=identity_token,
            registry_token=registry_token,
            source=f"{file.name}, {field}",
        )
    except UsageError as error:
        raise file.error(field, str(error)) from None
