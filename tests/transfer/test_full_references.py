"""Transfers with full references, which open and close their clients, and the forms of their arguments."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ociwire
from ociwire import Client, Descriptor, Platform, Reference, Request, Response, copy, download, errors, transfer, upload
from ociwire.registry import MemoryRegistry

SOURCE, TARGET, NAME = "source.example", "target.example:5000", "team/app"
CONTENT = b"content " * 1000
BLOB = Descriptor.of(CONTENT)


class Hosts:
    """Base transport of all default stacks: a registry in memory for each host.

    Attributes:
        registries: The registries by host.
        opened: Number of transports that were created.
        closed: Number of transports that were closed.
        lines: ``METHOD HOST`` of each request.
    """

    def __init__(self) -> None:
        self.registries = {SOURCE: MemoryRegistry(), TARGET: MemoryRegistry()}
        self.opened = self.closed = 0
        self.lines: list[str] = []

    def __call__(self, **options: Any) -> Hosts:
        self.opened += 1
        return self

    def round_trip(self, request: Request, /) -> Response:
        host = request.url.split("/")[2]
        self.lines.append(f"{request.method} {host}")
        return self.registries[host].round_trip(request)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    hosts = Hosts()
    monkeypatch.setattr("ociwire.transport.default.UrllibTransport", hosts)
    return hosts


@pytest.fixture
def source(hosts: Hosts) -> Client:
    return Client(SOURCE, hosts.registries[SOURCE])


@pytest.fixture
def target(hosts: Hosts) -> Client:
    return Client(TARGET, hosts.registries[TARGET])


# download


DOWNLOADS: dict[str, Callable[[Client, str, Path], Descriptor]] = {
    "client, repository, digest, path": lambda client, reference, path: download(client, NAME, BLOB.digest, path),
    "descriptor": lambda client, reference, path: download(client, NAME, BLOB, path),
    "keywords": lambda client, reference, path: download(client=client, repository=NAME, digest=BLOB.digest, path=path),
    "client, reference, path": lambda client, reference, path: download(client, reference, path),
    "short reference": lambda client, reference, path: download(f"{NAME}@{BLOB.digest}", path, client=client),
    "reference, path": lambda client, reference, path: download(reference, path),
    "Reference": lambda client, reference, path: download(Reference.parse(reference), path=path),
    "no client": lambda client, reference, path: download(None, reference, path),
    "reference with tag": lambda client, reference, path: download(reference.replace("@", ":v1@"), path),
}


@pytest.mark.parametrize("form", DOWNLOADS.values(), ids=DOWNLOADS)
def test_download_of_each_form_downloads(
    hosts: Hosts, source: Client, tmp_path: Path, form: Callable[[Client, str, Path], Descriptor]
) -> None:
    source.push_blob(NAME, CONTENT)
    assert form(source, f"{SOURCE}/{NAME}@{BLOB.digest}", tmp_path / "file") == BLOB
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert hosts.opened == hosts.closed


@pytest.mark.parametrize("existing", ["nothing", "target", "part"])
def test_download_descriptor_of_another_size_raises_size_mismatch(
    source: Client, tmp_path: Path, existing: str
) -> None:
    source.push_blob(NAME, CONTENT)
    path = tmp_path / "file"
    if existing != "nothing":
        name = "file" if existing == "target" else f".file.{BLOB.digest.encoded[:12]}.part"
        (tmp_path / name).write_bytes(CONTENT)
    with pytest.raises(errors.SizeMismatch, match="has 8000 bytes: expected 7999"):
        download(source, NAME, BLOB.replace(size=7999), path)
    assert path.exists() == (existing == "target")


@pytest.mark.parametrize(
    "arguments",
    [
        (f"{SOURCE}/{NAME}:v1", "file"),
        (f"{SOURCE}/{NAME}", "file"),
        (f"{NAME}@{BLOB.digest}", "file"),
        (f"{SOURCE}/{NAME}", BLOB.digest, "file"),
        (SOURCE, NAME, BLOB.digest, "file"),
        ("a b", "file"),
        (f"{SOURCE}/{NAME}@{BLOB.digest}",),
        (None, NAME, BLOB.digest, "file"),
        (),
        (f"{SOURCE}/{NAME}@{BLOB.digest}", "/missing/folder/file"),
    ],
)
def test_download_other_arguments_raise_usage_error(hosts: Hosts, arguments: Any) -> None:
    with pytest.raises(errors.UsageError):
        download(*arguments)
    assert hosts.lines == []
    assert hosts.opened == hosts.closed


def test_transfer_other_arguments_name_both_forms() -> None:
    with pytest.raises(errors.UsageError, match=r"invalid arguments \(str, str, str\): expected download\(client, "):
        download(SOURCE, NAME, "file")  # type: ignore[call-overload]
    with pytest.raises(errors.UsageError, match=r"\(str, client=\.\.\.\): expected upload\(client, .* or upload"):
        upload(NAME, client=Client(SOURCE, MemoryRegistry()))  # type: ignore[call-overload]
    with pytest.raises(errors.UsageError, match=r"expected copy\(source, source_reference, .* or copy\('ghcr.io"):
        copy(SOURCE)  # type: ignore[call-overload]


@pytest.mark.parametrize("function", [copy, download, upload])
def test_transfer_of_reference_without_host_and_client_raises_usage_error(hosts: Hosts, function: Any) -> None:
    with pytest.raises(errors.UsageError, match=r"without a Client: expected one with a host, such as docker\.io/"):
        function(f"{NAME}@{BLOB.digest}", "other/app")
    assert hosts.opened == 0


def test_download_of_reference_of_another_host_raises_usage_error(source: Client) -> None:
    with pytest.raises(errors.UsageError, match="cannot use the reference"):
        download(f"{TARGET}/{NAME}@{BLOB.digest}", "file", client=source)


# upload


UPLOADS: dict[str, Callable[[Client], Descriptor]] = {
    "client, repository, source": lambda client: upload(client, NAME, CONTENT),
    "keywords": lambda client: upload(client=client, repository=NAME, source=CONTENT),
    "descriptor": lambda client: upload(client, NAME, CONTENT, digest=BLOB),
    "reference, source": lambda client: upload(f"{SOURCE}/{NAME}", CONTENT),
    "reference with digest": lambda client: upload(f"{SOURCE}/{NAME}@{BLOB.digest}", CONTENT),
    "two equal digests": lambda client: upload(f"{SOURCE}/{NAME}@{BLOB.digest}", CONTENT, digest=BLOB.digest),
    "short reference": lambda client: upload(NAME, CONTENT, client=client),
}


@pytest.mark.parametrize("form", UPLOADS.values(), ids=UPLOADS)
def test_upload_of_each_form_uploads(hosts: Hosts, source: Client, form: Callable[[Client], Descriptor]) -> None:
    assert form(source) == BLOB
    assert source.get_blob(NAME, BLOB).read() == CONTENT
    assert hosts.opened == hosts.closed


@pytest.mark.parametrize(
    ("reference", "options"),
    [
        (f"{SOURCE}/{NAME}:v1", {}),
        (f"{SOURCE}/{NAME}@{BLOB.digest}", {"digest": Descriptor.of(b"").digest}),
        (f"{SOURCE}/{NAME}", {"digest": "sha256:0"}),
        (NAME, {}),
    ],
)
def test_upload_other_reference_raises_usage_error(hosts: Hosts, reference: str, options: Any) -> None:
    with pytest.raises(errors.UsageError):
        upload(reference, CONTENT, **options)
    assert hosts.lines == []
    assert hosts.opened == hosts.closed


@pytest.mark.parametrize("content", [CONTENT, iter([CONTENT])], ids=["bytes", "iterator"])
def test_upload_descriptor_of_another_size_raises_size_mismatch(source: Client, content: Any) -> None:
    with pytest.raises(errors.SizeMismatch, match="the content has 8000 bytes: expected 7999"):
        upload(source, NAME, content, digest=BLOB.replace(size=7999))


# copy


COPIES: dict[str, Callable[[Client, Client], Descriptor]] = {
    "clients": lambda source, target: copy(source, f"{NAME}:v1", target, f"{NAME}:v1"),
    "references": lambda source, target: copy(f"{SOURCE}/{NAME}:v1", f"{TARGET}/{NAME}:v1"),
    "Reference": lambda source, target: copy(
        Reference(SOURCE, NAME, "v1"), target_reference=Reference(TARGET, NAME, "v1")
    ),
    "target": lambda source, target: copy(f"{SOURCE}/{NAME}:v1", f"{NAME}:v1", target=target),
    "source": lambda source, target: copy(f"{NAME}:v1", f"{TARGET}/{NAME}:v1", source=source),
    "no clients": lambda source, target: copy(None, f"{SOURCE}/{NAME}:v1", None, f"{TARGET}/{NAME}:v1"),  # type: ignore[call-overload]
    "keywords": lambda source, target: copy(
        source=source, source_reference=f"{NAME}:v1", target=target, target_reference=f"{NAME}:v1"
    ),
}


@pytest.mark.parametrize("form", COPIES.values(), ids=COPIES)
def test_copy_of_each_form_copies(
    hosts: Hosts, source: Client, target: Client, form: Callable[[Client, Client], Descriptor]
) -> None:
    image = hosts.registries[SOURCE].seed(f"{NAME}:v1").root
    assert form(source, target) == image
    assert target.resolve_tag(NAME, "v1") == image
    assert hosts.opened == hosts.closed


@pytest.mark.parametrize("form", ["client first", "client keyword", "references", "source", "target"])
def test_copy_within_a_registry_uses_one_client_and_mounts(hosts: Hosts, source: Client, form: str) -> None:
    image = hosts.registries[SOURCE].seed(f"{NAME}:v1").root
    full = f"{SOURCE}/{NAME}:v1", f"{SOURCE}/other:v2"
    copied = {
        "client first": lambda: copy(source, f"{NAME}:v1", "other:v2"),
        "client keyword": lambda: copy(f"{NAME}:v1", "other:v2", client=source),
        "references": lambda: copy(*full),
        "source": lambda: copy(*full, source=source),
        "target": lambda: copy(*full, target=source),
    }[form]()
    assert copied == source.resolve_tag("other", "v2") == image
    assert hosts.opened == hosts.closed == (1 if form == "references" else 0)


def test_copy_client_with_source_raises_usage_error(hosts: Hosts, source: Client) -> None:
    with pytest.raises(errors.UsageError, match="client must not be combined with source or target"):
        copy(f"{NAME}:v1", "other:v2", client=source, target=source)  # type: ignore[call-overload]


def test_copy_that_fails_closes_its_clients(hosts: Hosts) -> None:
    with pytest.raises(errors.NotFound):
        copy(f"{SOURCE}/missing:v1", f"{TARGET}/other:v2")
    assert hosts.opened == hosts.closed == 2


@pytest.mark.parametrize("platforms", ["linux/arm64", Platform("arm64", "linux"), ["linux/arm64"]], ids=str)
def test_copy_platforms_takes_one_or_several(hosts: Hosts, source: Client, target: Client, platforms: Any) -> None:
    hosts.registries[SOURCE].seed(f"{NAME}:v1", platforms=["linux/amd64", "linux/arm64"])
    copied = copy(source, f"{NAME}:v1", target, f"{NAME}:v1", platforms=platforms)
    index = source.fetch_manifest(NAME, "v1")
    assert copied.digest == index.select("linux/arm64").digest  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda: copy("a", "b", platform="linux/arm64"), "use platforms='linux/arm64'"),  # type: ignore[call-overload]
        (lambda: download("a", "b", chunk_size=1), "use part_size="),  # type: ignore[call-overload]
        (lambda: upload("a", "b", part_size=1), "use chunk_size="),  # type: ignore[call-overload]
    ],
)
def test_transfer_option_of_another_name_names_the_right_one(call: Callable[[], object], hint: str) -> None:
    with pytest.raises(errors.UsageError, match=hint):
        call()


# Exports


def test_transfers_are_exported_lazily() -> None:
    assert (ociwire.copy, ociwire.download, ociwire.upload) == (transfer.copy, transfer.download, transfer.upload)
    script = "import sys, ociwire; print('ociwire.transfer' in sys.modules); from ociwire import download"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")
