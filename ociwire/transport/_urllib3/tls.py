"""TLS contexts by host. Certificates are always verified, unless the caller's own context disables it.

`docker_certs_d` follows Docker's "Verify repository client with certificates" and containers-certs.d(5): a folder for
each host, named ``HOST[:PORT]``.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import final

from ..._http.urls import Origin
from ...errors import UsageError
from .keyed_cache import KeyedCache

__all__ = ["TLSContextCache", "TLS", "docker_certs_d"]

_LOG = logging.getLogger("ociwire.tls")
_MAX_HOSTS = 1024
_SYSTEM = ("", True)
"""Key of the context with the system's CAs, which hosts share. No host is empty."""
_STANDARD_ROOTS = ("~/.config/containers/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d")

TLS = str | os.PathLike[str] | ssl.SSLContext | Callable[[str], ssl.SSLContext | None]
"""Path of a CA bundle, a context, or a function from ``host[:port]`` to a context (None: the system's CAs)."""


def docker_certs_d(root: str | os.PathLike[str] | None = None) -> Callable[[str], ssl.SSLContext | None]:
    """Return a function for ``tls=`` that reads the same certificate folders as podman and Docker.

    ``ROOT/HOST[:PORT]/*.crt`` are CAs that are trusted besides the system's; ``*.cert`` with ``*.key`` of the same name
    are client certificates. Requests with `RequestInfo.anonymous` are sent without client certificates.

    A folder that this user may not read is skipped, and logged: Docker's package makes ``/etc/docker`` mode 0700.

    Args:
        root: The folder that contains the folders of the hosts. `None` means those of podman and Docker, in podman's
            order: ``~/.config/containers/certs.d``, ``/etc/containers/certs.d``, ``/etc/docker/certs.d``. The CAs of
            all of them are trusted for the host; client certificates are taken from the first that has one.

    Raises:
        UsageError: (Raised by the function.) A file does not contain what its name says, cannot be read or is not a
            regular file, or one of a pair is missing.
    """
    if root is not None:
        return _CertsD([Path(root)])
    return _CertsD([Path(os.path.expanduser(folder)) for folder in _STANDARD_ROOTS])


@final
class _CertsD:
    """Makes the context of a host from its certificate folders."""

    def __init__(self, roots: list[Path]) -> None:
        self._roots = roots

    def __call__(self, host: str) -> ssl.SSLContext | None:
        """The context with the host's CAs and client certificate; None if the host has no files."""
        return self._load(host, with_client=True)

    def anonymous(self, host: str) -> ssl.SSLContext | None:
        """The context with the host's CAs alone, for requests that must not identify the client."""
        return self._load(host, with_client=False)

    def _load(self, host: str, *, with_client: bool) -> ssl.SSLContext | None:
        ca_files: list[Path] = []
        client_files: list[Path] = []
        # `docker pull HOST:443/NAME` reads HOST:443; here the default port is already removed.
        names = [host] if re.search(r":[0-9]+$", host) else [host, f"{host}:443"]
        for folder in (root / name for root in self._roots for name in names):
            paths = list(_list_files(folder))
            ca_files += [path for path in paths if path.suffix == ".crt"]
            # In one context, the client certificates of several folders would replace each other.
            client_files = client_files or [path for path in paths if path.suffix in (".cert", ".key")]
        paths = ca_files + (client_files if with_client else [])
        if not paths:
            return None
        context = ssl.create_default_context()
        for path in paths:
            _load_file(context, path)
        return context


def _list_files(folder: Path) -> Iterator[Path]:
    """The files of a folder, sorted; none if there is no folder or this user may not read it."""
    try:
        names = sorted(os.listdir(folder))
        os.stat(os.path.join(folder, "."))  # without the permission to search it, its files cannot be opened
    except (FileNotFoundError, NotADirectoryError):
        return
    except PermissionError as error:
        # Without it, fewer CAs are trusted. If the handshake fails because of that, this log line says why.
        _LOG.info("skipping the certificates of %s: %s", folder, error.strerror)
        return
    except OSError as error:
        raise UsageError(f"cannot read {folder}: {error.strerror}") from error
    yield from (folder / name for name in names)


def _load_file(context: ssl.SSLContext, path: Path) -> None:
    try:
        if path.suffix == ".crt":
            _check_regular(path)
            context.load_verify_locations(path)
        elif path.suffix == ".cert":
            key = path.with_suffix(".key")
            if not key.exists():
                raise UsageError(f"{path} is a client certificate without its key {key.name} (CAs are named *.crt)")
            for file in (path, key):
                _check_regular(file)
            context.load_cert_chain(path, key)
        elif path.suffix == ".key" and not path.with_suffix(".cert").exists():
            raise UsageError(f"{path} is a client key without its certificate {path.stem}.cert")
    except (ssl.SSLError, OSError) as error:
        raise UsageError(f"cannot use the certificate file {path}: {error}") from error


def _check_regular(path: Path) -> None:
    if path.exists() and not path.is_file():
        # Reading a FIFO would wait for a writer.
        raise UsageError(f"cannot use the certificate file {path}: expected a regular file")


class TLSContextCache:
    """The TLS context of each host, created once: loading the system's CAs takes longer than a handshake.

    Args:
        tls: See `TLS`; None means `docker_certs_d`.

    Raises:
        UsageError: The CA bundle cannot be read.
    """

    def __init__(self, tls: TLS | None) -> None:
        self._contexts: KeyedCache[tuple[str, bool], ssl.SSLContext] = KeyedCache(_MAX_HOSTS)
        self._context_for: Callable[[str], ssl.SSLContext | None] = docker_certs_d() if tls is None else _parse(tls)
        # A client certificate cannot be removed from a context of the caller. Only folders have a variant without one.
        self._anonymous_for = self._context_for.anonymous if isinstance(self._context_for, _CertsD) else None

    def get(self, origin: Origin, *, anonymous: bool = False) -> ssl.SSLContext:
        """Return the context for an origin, without a client certificate if `anonymous` and if that is possible."""
        return self._contexts.get((origin.netloc, anonymous and self._anonymous_for is not None), self._make)

    def _make(self, key: tuple[str, bool]) -> ssl.SSLContext:
        host, anonymous = key
        if key == _SYSTEM:
            return ssl.create_default_context()
        context_for = self._anonymous_for if anonymous and self._anonymous_for is not None else self._context_for
        context = context_for(host)
        return self._contexts.get(_SYSTEM, self._make) if context is None else context


def _parse(tls: TLS) -> Callable[[str], ssl.SSLContext | None]:
    if isinstance(tls, ssl.SSLContext):
        return lambda host: tls
    if isinstance(tls, (str, os.PathLike)):
        try:
            context = ssl.create_default_context(cafile=tls)
        except (ssl.SSLError, OSError) as error:
            raise UsageError(f"cannot use the CA bundle {os.fspath(tls)}: {error}") from error
        return lambda host: context
    if not callable(tls):
        raise UsageError(f"tls takes a path, an ssl.SSLContext or a function of a host, not {type(tls).__name__}")
    return tls
