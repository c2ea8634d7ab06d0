"""ociwire, oras-py and dxf behind one set of verbs: each as its own documentation has it, with its own defaults.

What its package has no means for raises `NotOfferedError`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
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
    """The package has nothing for it; the message, if there is one, becomes a footnote."""

    def __init__(self, reason: str = "", verdict: str = "no") -> None:
        super().__init__(reason)
        self.verdict = verdict


class Contender:
    """What is compared: over https with the CA's file, over plain http without; with a password unless told not to."""

    name: ClassVar[str]
    package: ClassVar[str]
    distribution: ClassVar[str]
    commands: ClassVar[tuple[str, str]] = ("push", "pull")

    def __init__(self, host: str, ca: Path | None = None, *, login: bool = True) -> None:
        raise NotImplementedError

    def pull(self, digest: str, folder: Path) -> bytes:
        """A blob's content; the folder is there to be used."""
        raise NotOfferedError

    def push(self, file: Path) -> object:
        """A file as a blob, with or without a manifest."""
        raise NotOfferedError

    def push_stream(self, chunks: Iterator[bytes], descriptor: Descriptor) -> object:
        """What can be read once."""
        raise NotOfferedError

    def push_chunked(self, file: Path, kept: Path) -> object:
        """In chunks if it can; what it takes to go on after a fault is kept in a file of that name."""
        raise NotOfferedError

    def push_told(self, file: Path) -> int:
        """How many bytes it has told of while it pushed."""
        raise NotOfferedError

    def push_folder(self, folder: Path) -> object:
        """A folder as an artifact."""
        raise NotOfferedError

    def pull_folder(self, target: Path) -> object:
        """That artifact, into a folder."""
        raise NotOfferedError

    def pull_layout(self, tag: str, target: Path) -> object:
        """An image as an OCI image layout."""
        raise NotOfferedError

    def write_login(self, config: Path) -> object:
        """Name and password, into a file as Docker has it."""
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
        return self.push(file)  # one PUT is what it has

    def push_told(self, file: Path) -> int:
        told: list[int] = []
        self._dxf.push_blob(str(file), progress=lambda digest, chunk, size: told.append(len(chunk)))
        return sum(told)


def _authenticate(registry: Any, response: Any) -> None:
    registry.authenticate(USER, PASSWORD, response=response)


CONTENDERS: tuple[type[Contender], ...] = (Ociwire, Oras, Dxf)


def undisturbed() -> Any:
    """While it lasts, oras-py does not wait between its attempts, which would take two minutes."""
    return mock.patch.object(oras.decorator, "time")


def slept() -> float:
    """How many seconds oras-py would have waited since then."""
    return float(sum(call.args[0] for call in oras.decorator.time.sleep.call_args_list))


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Another Python, to its end, with some variables more."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        check=False,
        timeout=30,
    )
