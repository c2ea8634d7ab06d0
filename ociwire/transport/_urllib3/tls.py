"""Which TLS context a host gets. Whatever the source, certificates are verified unless a caller's own context does not.

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

TLS = str | os.PathLike[str] | ssl.SSLContext | Callable[[str], ssl.SSLContext | None]
"""A CA bundle's path, a context, or a function from ``host[:port]`` to a context (None: the system's CAs)."""


def docker_certs_d(root: str | os.PathLike[str] | None = None) -> Callable[[str], ssl.SSLContext | None]:
    """A function for ``tls=`` that reads the certificates that podman and Docker would.

    ``ROOT/HOST[:PORT]/*.crt`` are CAs that are trusted besides the system's; ``*.cert`` with ``*.key`` of the same name
    are client certificates. Requests with `RequestInfo.anonymous` are sent without these.

    A folder that this user may not read is skipped, and logged: Docker's package makes ``/etc/docker`` mode 0700.

    Args:
        root: The folder that has the hosts' folders. `None` is podman's and Docker's, in podman's order:
            ``~/.config/containers/certs.d``, ``/etc/containers/certs.d``, ``/etc/docker/certs.d``. The CAs of all of
            them are trusted for the host; client certificates are taken from the first that has one.

    Raises:
        UsageError: (The function does.) A file is not what its name says, cannot be read or is not a regular file, or
            one of a pair is missing.
    """
    if root is not None:
        return _CertsD([Path(root)])
    return _CertsD([Path(os.path.expanduser(folder)) for folder in _STANDARD_ROOTS])


_STANDARD_ROOTS = ("~/.config/containers/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d")


@final
class _CertsD:
    """Makes the context of a host from its folders."""

    def __init__(self, roots: list[Path]) -> None:
        self._roots = roots

    def __call__(self, host: str) -> ssl.SSLContext | None:
        return self._made_of(host, with_client=True)

    def for_nobody(self, host: str) -> ssl.SSLContext | None:
        """The context of a host that is not to learn who is asking."""
        return self._made_of(host, with_client=False)

    def _made_of(self, host: str, *, with_client: bool) -> ssl.SSLContext | None:
        cas: list[Path] = []
        client: list[Path] = []
        # `docker pull HOST:443/NAME` reads HOST:443; here the default port is already removed.
        names = [host] if re.search(r":[0-9]+$", host) else [host, f"{host}:443"]
        for folder in (root / name for root in self._roots for name in names):
            paths = list(_list_files(folder))
            cas += [path for path in paths if path.suffix == ".crt"]
            # In one context, the client certificates of several folders would replace each other.
            client = client or [path for path in paths if path.suffix in (".cert", ".key")]
        used = cas + (client if with_client else [])
        if not used:
            return None
        context = ssl.create_default_context()
        for path in used:
            _load(context, path)
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


def _load(context: ssl.SSLContext, path: Path) -> None:
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
    """The context of each host, made once: loading the system's CAs takes longer than a handshake.

    Args:
        tls: See `TLS`; None is `docker_certs_d`.

    Raises:
        UsageError: The CA bundle cannot be read.
    """

    def __init__(self, tls: TLS | None) -> None:
        self._made: KeyedCache[tuple[str, bool], ssl.SSLContext] = KeyedCache(_MAX_HOSTS)
        self._choose: Callable[[str], ssl.SSLContext | None] = docker_certs_d() if tls is None else _chooser(tls)
        # What a caller's own function or context holds, nobody can take out of it.
        self._for_nobody = self._choose.for_nobody if isinstance(self._choose, _CertsD) else None

    def get(self, origin: Origin, *, anonymous: bool = False) -> ssl.SSLContext:
        """The context for an origin, which may not be told who is asking."""
        return self._made.get((origin.netloc, anonymous and self._for_nobody is not None), self._make)

    def _make(self, key: tuple[str, bool]) -> ssl.SSLContext:
        host, anonymous = key
        if not host:
            return ssl.create_default_context()
        choose = self._for_nobody if anonymous and self._for_nobody is not None else self._choose
        chosen = choose(host)
        # The system's CAs are loaded once, under a name that no host has.
        return self._made.get(("", True), self._make) if chosen is None else chosen


def _chooser(tls: TLS) -> Callable[[str], ssl.SSLContext | None]:
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
