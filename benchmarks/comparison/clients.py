"""ociwire, oras-py and dxf behind a common interface, used as their documentation says and with their defaults.

A method raises `NotOfferedError` if the package does not have the feature.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import dxf
import oras.client
import oras.decorator
import oras.layout
import oras.oci

from ociwire import Client, Descriptor, Digest, default_transport
from ociwire.auth import Credential, StaticCredentials
from ociwire.transfer import Progress, upload

REPOSITORY, USER, PASSWORD = "team/app", "me", "s3cret"
CHUNK = 64 * 1024


class NotOfferedError(Exception):
    """The package does not have the feature. A message becomes a footnote of the table."""

    def __init__(self, reason: str = "", verdict: str = "no") -> None:
        super().__init__(reason)
        self.verdict = verdict


class Contender:
    """Base class of the packages that are compared. With a CA file it uses https, otherwise plain http."""

    name: ClassVar[str]
    package: ClassVar[str]
    distribution: ClassVar[str]
    commands: ClassVar[tuple[str, str]] = ("push", "pull")

    def __init__(self, host: str, ca: Path | None = None, *, login: bool = True) -> None:
        raise NotImplementedError

    def pull(self, digest: str, folder: Path) -> bytes:
        """Pull a blob and return its content. The folder is for temporary files."""
        raise NotOfferedError

    def push(self, file: Path) -> object:
        """Push a file as a blob, with or without a manifest."""
        raise NotOfferedError

    def push_stream(self, chunks: Iterator[bytes], descriptor: Descriptor) -> object:
        """Push content that can be read once."""
        raise NotOfferedError

    def push_chunked(self, file: Path, kept: Path) -> object:
        """Push a file, in chunks if possible. `kept` is a file for the state with which to resume the upload."""
        raise NotOfferedError

    def push_told(self, file: Path) -> int:
        """Push a file, and return the number of bytes that were reported as progress."""
        raise NotOfferedError

    def push_folder(self, folder: Path) -> object:
        """Push a folder as an artifact."""
        raise NotOfferedError

    def pull_folder(self, target: Path) -> object:
        """Pull this artifact to a folder."""
        raise NotOfferedError

    def pull_layout(self, tag: str, target: Path) -> object:
        """Pull an image as an OCI image layout."""
        raise NotOfferedError

    def write_login(self, config: Path) -> object:
        """Write user and password to a configuration file in Docker's format."""
        raise NotOfferedError


class Ociwire(Contender):
    name, package, distribution = "ociwire", "ociwire", "ociwire"

    def __init__(self, host: str, ca: Path | None = None, *, login: bool = True) -> None:
        mine = StaticCredentials(host, Credential(username=USER, password=PASSWORD)) if login else None
        transport = default_transport(credentials=mine, tls=None if ca is None else str(ca))
        self._client = Client(host, transport, insecure=ca is None)

    def pull(self, digest: str, folder: Path) -> bytes:
        with self._client.get_blob(REPOSITORY, digest) as blob:
            return blob.read()

    def push(self, file: Path) -> object:
        with file.open("rb") as content:
            return self._client.push_blob(REPOSITORY, Descriptor.of(file.read_bytes()), content)

    def push_stream(self, chunks: Iterator[bytes], descriptor: Descriptor) -> object:
        return self._client.push_blob(REPOSITORY, descriptor, chunks)

    def push_chunked(self, file: Path, kept: Path) -> object:
        content = file.read_bytes()
        if kept.exists():
            writer = self._client.push_blob_chunked_resume(REPOSITORY, kept.read_text())
        else:
            writer = self._client.push_blob_chunked(REPOSITORY, CHUNK)
        try:
            writer.write(content[writer.size :])
            return writer.commit(Digest.of(content))
        except Exception:
            kept.write_text(writer.id)
            raise

    def push_told(self, file: Path) -> int:
        told: list[Progress] = []
        upload(self._client, REPOSITORY, file, progress=told.append)
        return told[-1].done


class Oras(Contender):
    name, package, distribution = "oras-py", "oras", "oras"

    def __init__(self, host: str, ca: Path | None = None, *, login: bool = True) -> None:
        verify = True if ca is None else str(ca)
        self._client = oras.client.OrasClient(hostname=host, insecure=ca is None, tls_verify=verify)
        self._target = f"{host}/{REPOSITORY}"
        self._host = host
        if login:
            self._client.auth.set_basic_auth(USER, PASSWORD)

    def pull(self, digest: str, folder: Path) -> bytes:
        return Path(self._client.download_blob(self._target, digest, str(folder / "pulled"))).read_bytes()

    def push(self, file: Path) -> object:
        return self._client.push(f"{self._target}:v1", files=[str(file)], disable_path_validation=True, quiet=True)

    def push_stream(self, chunks: Iterator[bytes], descriptor: Descriptor) -> object:
        raise NotOfferedError("It accepts files, not streams, and buffers monolithic uploads in memory.", "n.a.")

    def push_chunked(self, file: Path, kept: Path) -> object:
        layer = oras.oci.NewLayer(str(file))
        answer = self._client.upload_blob(str(file), self._target, layer, do_chunked=True, chunk_size=CHUNK)
        return answer.raise_for_status()

    def push_folder(self, folder: Path) -> object:
        return self.push(folder)

    def pull_folder(self, target: Path) -> object:
        return self._client.pull(f"{self._target}:v1", outdir=str(target))

    def pull_layout(self, tag: str, target: Path) -> object:
        return oras.layout.NewLayoutFromRegistry(str(target), self._client, f"{self._target}:{tag}")

    def write_login(self, config: Path) -> object:
        return self._client.login(USER, PASSWORD, hostname=self._host, config_path=str(config))


class Dxf(Contender):
    name, package, distribution = "dxf", "dxf", "python-dxf"
    commands = ("push-blob", "pull-blob")

    def __init__(self, host: str, ca: Path | None = None, *, login: bool = True) -> None:
        verify = True if ca is None else str(ca)
        self._dxf = dxf.DXF(host, REPOSITORY, _authenticate if login else None, ca is None, tlsverify=verify)

    def pull(self, digest: str, folder: Path) -> bytes:
        return b"".join(self._dxf.pull_blob(digest))

    def push(self, file: Path) -> object:
        return self._dxf.push_blob(str(file))

    def push_stream(self, chunks: Iterator[bytes], descriptor: Descriptor) -> object:
        return self._dxf.push_blob(data=chunks, digest=str(descriptor.digest))

    def push_chunked(self, file: Path, kept: Path) -> object:
        return self.push(file)  # supports only monolithic uploads

    def push_told(self, file: Path) -> int:
        told: list[int] = []
        self._dxf.push_blob(str(file), progress=lambda digest, chunk, size: told.append(len(chunk)))
        return sum(told)


def _authenticate(registry: Any, response: Any) -> None:
    registry.authenticate(USER, PASSWORD, response=response)


CONTENDERS: tuple[type[Contender], ...] = (Ociwire, Oras, Dxf)


def without_sleeps() -> AbstractContextManager[object]:
    """While the block runs, oras-py does not sleep between its attempts, which would take two minutes."""
    return mock.patch.object(oras.decorator, "time")


def slept() -> float:
    """Return the number of seconds that oras-py would have slept in the block of `without_sleeps`."""
    return float(sum(call.args[0] for call in oras.decorator.time.sleep.call_args_list))


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run Python in a subprocess with additional environment variables."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        check=False,
        timeout=30,
    )
