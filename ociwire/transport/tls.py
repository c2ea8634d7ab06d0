"""Which TLS context a host gets. Whatever the source, certificates are verified unless a caller's own context does not.

`docker_certs_d` follows Docker's "Verify repository client with certificates": a folder a host, named ``HOST[:PORT]``.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import final

from ..errors import UsageError
from ..origin import Origin
from .once import OncePerKey

__all__ = ["Contexts", "TLS", "docker_certs_d"]

_MAX_HOSTS = 1024

TLS = str | os.PathLike[str] | ssl.SSLContext | Callable[[str], ssl.SSLContext | None]
"""A CA bundle's path, a context, or a function from ``host[:port]`` to a context (None: the system's CAs)."""


def docker_certs_d(root: str | os.PathLike[str] = "/etc/docker/certs.d") -> Callable[[str], ssl.SSLContext | None]:
    """A function for ``tls=`` that reads the certificates that Docker would.

    ``ROOT/HOST[:PORT]/*.crt`` are CAs that are trusted besides the system's; ``*.cert`` with ``*.key`` of the same name
    are client certificates. What is asked as nobody (`RequestInfo.anonymous`) is asked without these.

    Raises:
        UsageError: (The function does.) A file is not what its name says, or one of a pair is missing.
    """
    return _CertsD(Path(root))


@final
class _CertsD:
    """Makes the context of a host from its folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(self, host: str) -> ssl.SSLContext | None:
        return self._made_of(host, {".crt", ".cert", ".key"})

    def for_nobody(self, host: str) -> ssl.SSLContext | None:
        """The context of a host that is not to learn who is asking."""
        return self._made_of(host, {".crt"})

    def _made_of(self, host: str, suffixes: set[str]) -> ssl.SSLContext | None:
        folder = self._root / host
        try:
            names = sorted(folder.iterdir()) if folder.is_dir() else []
        except OSError as error:
            raise UsageError(f"cannot read {folder}: {error.strerror}") from error
        paths = [path for path in names if path.suffix in suffixes]
        if not paths:
            return None
        context = ssl.create_default_context()
        for path in paths:
            _load(context, path)
        return context


def _load(context: ssl.SSLContext, path: Path) -> None:
    try:
        if path.suffix == ".crt":
            context.load_verify_locations(path)
        elif path.suffix == ".cert":
            key = path.with_suffix(".key")
            if not key.is_file():
                raise UsageError(f"{path} is a client certificate without its key {key.name} (CAs are named *.crt)")
            context.load_cert_chain(path, key)
        elif path.suffix == ".key" and not path.with_suffix(".cert").is_file():
            raise UsageError(f"{path} is a client key without its certificate {path.stem}.cert")
    except (ssl.SSLError, OSError) as error:
        raise UsageError(f"cannot use the certificate file {path}: {error}") from error


class Contexts:
    """The context of each host, made once: loading the system's CAs takes longer than a handshake.

    Args:
        tls: See `TLS`; None is `docker_certs_d`.

    Raises:
        UsageError: The CA bundle cannot be read.
    """

    def __init__(self, tls: TLS | None) -> None:
        self._made: OncePerKey[tuple[str, bool], ssl.SSLContext] = OncePerKey(_MAX_HOSTS)
        self._choose: Callable[[str], ssl.SSLContext | None] = docker_certs_d() if tls is None else _chooser(tls)
        # What a caller's own function or context holds, nobody can take out of it.
        self._for_nobody = self._choose.for_nobody if isinstance(self._choose, _CertsD) else None

    def of(self, origin: Origin, *, anonymous: bool = False) -> ssl.SSLContext:
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
