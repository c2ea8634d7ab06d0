"""TLS contexts of hosts. Certificates are always verified, unless a context of the user disables verification.

The folders of `docker_certs_d` are specified by Docker's "Verify repository client with certificates" and by
containers-certs.d(5): there is a folder for each host, named ``HOST[:PORT]``.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from ..._http.urls import Origin
from ..._text import format_path
from ...errors import UsageError
from .keyed_cache import KeyedCache

__all__ = ["TLSConfig", "TLSContextCache", "TLS", "docker_certs_d"]

_LOG = logging.getLogger("ociwire.tls")
_MAX_HOSTS = 1024
_SYSTEM = ("", True)
"""Key of the shared context with the CAs of the system. It differs from the key of any host, because a host is not
empty."""
_STANDARD_ROOTS = ("~/.config/containers/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d")


@final
@dataclass(frozen=True, slots=True)
class TLSConfig:
    """Certificates for the option ``tls``: a CA bundle, a client certificate, or both.

    The files are read when the transport is created. Requests with `RequestInfo.anonymous` are sent without the client
    certificate.

    >>> from ociwire import TLSConfig
    >>> TLSConfig(ca="ca.pem", cert="client.pem", key="client.key").ca
    'ca.pem'

    Attributes:
        ca: Path of a PEM file with the CAs to trust instead of the CAs of the system. `None` means the CAs of the
            system.
        cert: Path of a PEM file with the client certificate and its chain. `None` means no client certificate.
        key: Path of a PEM file with the unencrypted key of the client certificate. `None` means that the file of the
            certificate contains the key.

    Raises:
        UsageError: A field is not a path, or there is a key without a certificate.
    """

    ca: str | os.PathLike[str] | None = None
    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        for name in ("ca", "cert", "key"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, (str, os.PathLike)):
                raise UsageError(f"{name} must be a path, got {type(value).__name__}")
        if self.key is not None and self.cert is None:
            raise UsageError("key must be given together with cert, the path of the client certificate")


TLS = str | os.PathLike[str] | TLSConfig | ssl.SSLContext | Callable[[str], ssl.SSLContext | None]
"""Type of the option ``tls``: the path of a CA bundle, a `TLSConfig`, an `ssl.SSLContext`, or a function. The function
is called with ``host[:port]`` and returns a context, or `None` for a context with the CAs of the system."""


def docker_certs_d(root: str | os.PathLike[str] | None = None) -> Callable[[str], ssl.SSLContext | None]:
    """Return a function for the option ``tls`` that reads the certificate folders of Podman and Docker.

    ``ROOT/HOST[:PORT]/*.crt`` are CAs that are trusted in addition to the CAs of the system. ``*.cert`` and ``*.key``
    files of the same name are client certificates and their keys. Requests with `RequestInfo.anonymous` are sent
    without client certificates. Folders without read permission are skipped with a log line, because Docker's packages
    create ``/etc/docker`` with mode 0700.

    >>> from ociwire import UrllibTransport, docker_certs_d
    >>> transport = UrllibTransport(tls=docker_certs_d("certs.d"))

    Args:
        root: Folder that contains the folders of the hosts. `None` means ``~/.config/containers/certs.d``,
            ``/etc/containers/certs.d`` and ``/etc/docker/certs.d``, in the same order as Podman. The CAs in all of them
            are trusted; client certificates are read from the first folder that has any.

    Raises:
        UsageError: Raised when the returned function is called: the content of a file does not match its suffix, a file
            cannot be read or is not a regular file, or a certificate has no key or a key has no certificate.
    """
    if root is not None:
        return _CertsD([Path(root)])
    return _CertsD([Path(os.path.expanduser(folder)) for folder in _STANDARD_ROOTS])


@final
class _CertsD:
    """Function that creates the context of a host from its certificate folders."""

    def __init__(self, roots: list[Path]) -> None:
        self._roots = roots

    def __call__(self, host: str) -> ssl.SSLContext | None:
        """Return a context with the CAs and client certificates of a host; `None` if it has no files."""
        return self._load(host, with_client=True)

    def anonymous(self, host: str) -> ssl.SSLContext | None:
        """Return a context with only the CAs of a host, for anonymous requests; `None` if it has no CAs."""
        return self._load(host, with_client=False)

    def _load(self, host: str, *, with_client: bool) -> ssl.SSLContext | None:
        ca_files: list[Path] = []
        client_files: list[Path] = []
        # Docker reads the folder HOST:443 for `docker pull HOST:443/NAME`. Both folders are read, because `host` does
        # not include the default port.
        names = [host] if re.search(r":[0-9]+$", host) else [host, f"{host}:443"]
        for folder in (root / name for root in self._roots for name in names):
            paths = list(_list_files(folder))
            ca_files += [path for path in paths if path.suffix == ".crt"]
            # Use only the client certificates of the first folder that has any: in one context, they would replace each
            # other.
            client_files = client_files or [path for path in paths if path.suffix in (".cert", ".key")]
        paths = ca_files + (client_files if with_client else [])
        if not paths:
            return None
        context = ssl.create_default_context()
        for path in paths:
            _load_file(context, path)
        return context


@final
class _ConfiguredTLS:
    """Function that returns the context of a `TLSConfig`, which is the same for all hosts."""

    def __init__(self, config: TLSConfig) -> None:
        self._without_client = _load_bundle(config.ca)
        self._context = self._without_client
        if config.cert is None:
            return
        self._context = _load_bundle(config.ca)
        try:
            # With an empty password, OpenSSL refuses an encrypted key instead of prompting for its password.
            self._context.load_cert_chain(config.cert, config.key, password="")
        except (ssl.SSLError, OSError, ValueError) as error:
            key = "" if config.key is None else f" with the key {format_path(config.key)}"
            raise UsageError(
                f"cannot use the client certificate {format_path(config.cert)}{key}: {error} (pass an ssl.SSLContext if"
                " the key is encrypted)"
            ) from error

    def __call__(self, host: str) -> ssl.SSLContext:
        return self._context

    def anonymous(self, host: str) -> ssl.SSLContext:
        """Return the context without the client certificate."""
        return self._without_client


def _load_bundle(path: str | os.PathLike[str] | None) -> ssl.SSLContext:
    """Return a context with the CAs of a file, or of the system."""
    try:
        return ssl.create_default_context(cafile=path)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise UsageError(f"cannot use the CA bundle {format_path(path or '')}: {error}") from error


def _list_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder, sorted by name. Yield none if the folder does not exist or cannot be read."""
    try:
        names = sorted(os.listdir(folder))
        os.stat(os.path.join(folder, "."))  # raises PermissionError if the files in the folder cannot be opened
    except (FileNotFoundError, NotADirectoryError):
        return
    except PermissionError as error:
        # Without the folder, fewer CAs are trusted. The log line explains a handshake that fails because of this.
        _LOG.info("skipping the certificates of %s: %s", folder, error.strerror)
        return
    except OSError as error:
        raise UsageError(f"cannot read {format_path(folder)}: {error.strerror}") from error
    yield from (folder / name for name in names)


def _load_file(context: ssl.SSLContext, path: Path) -> None:
    shown = format_path(path)
    try:
        if path.suffix == ".crt":
            _check_regular(path)
            context.load_verify_locations(path)
        elif path.suffix == ".cert":
            key = path.with_suffix(".key")
            if not key.exists():
                raise UsageError(
                    f"the client certificate {shown} has no key: expected {format_path(key.name)} (CAs are named *.crt)"
                )
            for file in (path, key):
                _check_regular(file)
            context.load_cert_chain(path, key)
        elif path.suffix == ".key" and not path.with_suffix(".cert").exists():
            raise UsageError(f"the client key {shown} has no certificate: expected {format_path(path.stem)}.cert")
    except (ssl.SSLError, OSError) as error:
        raise UsageError(f"cannot use the certificate file {shown}: {error}") from error


def _check_regular(path: Path) -> None:
    if path.exists() and not path.is_file():
        # Opening a FIFO would block until another process writes to it.
        raise UsageError(f"cannot use the certificate file {format_path(path)}: expected a regular file")


class TLSContextCache:
    """Caches the TLS context of each host, because loading the CAs of the system takes longer than a handshake.

    Args:
        tls: See `TLS`. `None` means `docker_certs_d`.

    Raises:
        UsageError: The CA bundle cannot be read, or `tls` has another type.
    """

    def __init__(self, tls: TLS | None) -> None:
        self._contexts: KeyedCache[tuple[str, bool], ssl.SSLContext] = KeyedCache(_MAX_HOSTS)
        self._context_for: Callable[[str], ssl.SSLContext | None] = docker_certs_d() if tls is None else _parse(tls)
        # A client certificate can be omitted when a context is created here, but not removed from a user's context.
        self._anonymous_for: Callable[[str], ssl.SSLContext | None] | None = None
        if isinstance(self._context_for, (_CertsD, _ConfiguredTLS)):
            self._anonymous_for = self._context_for.anonymous

    def get(self, origin: Origin, *, anonymous: bool = False) -> ssl.SSLContext:
        """Return the context for an origin. If `anonymous`, omit a client certificate that this module has loaded."""
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
        return _ConfiguredTLS(TLSConfig(ca=tls))
    if isinstance(tls, TLSConfig):
        return _ConfiguredTLS(tls)
    if not callable(tls) or isinstance(tls, type):
        got = f"the class {tls.__name__}" if isinstance(tls, type) else type(tls).__name__
        hint = ": use TLSConfig(cert=..., key=...)" if isinstance(tls, (tuple, list)) else ""
        raise UsageError(f"tls must be a path, a TLSConfig, an ssl.SSLContext or a function, got {got}{hint}")
    return tls
