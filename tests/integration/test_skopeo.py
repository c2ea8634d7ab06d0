"""skopeo against MemoryRegistry over HTTP: images of umoci are pushed, copied, pulled and deleted."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ociwire import BlobReader, Client, Descriptor, Digest, Scope, default_transport
from ociwire.auth import Anonymous, Credential, StaticCredentials
from ociwire.errors import NotFound
from ociwire.media_types import OCI_INDEX, OCI_MANIFEST
from ociwire.testing import AuthGuard, MemoryRegistry, serve
from ociwire.testing.server import ServerURL
from tests.integration.conftest import Certificates

TIMEOUT = 60
"""Timeout in seconds of a program."""
USER, PASSWORD = "me", "correct horse"
GREETING = b"greetings from umoci\n"


class ProgramError(AssertionError):
    """Raised if the exit status of a program is not 0."""


@dataclass(frozen=True)
class Programs:
    """Runner of skopeo and umoci with a separate home directory.

    Attributes:
        folder: The home directory.
    """

    folder: Path

    def run(self, *command: str) -> str:
        """Run a program and return its standard output."""
        home = str(self.folder)
        env = {
            "PATH": os.environ["PATH"],
            "HOME": home,
            "XDG_RUNTIME_DIR": home,
            "REGISTRY_AUTH_FILE": f"{home}/auth.json",
            "TMPDIR": home,
            "NO_PROXY": "127.0.0.1",
        }
        result = subprocess.run(
            command, cwd=home, env=env, capture_output=True, timeout=TIMEOUT, text=True, check=False
        )
        if result.returncode:
            raise ProgramError(f"{' '.join(command)}: {result.stderr[-2000:]}")
        return result.stdout

    def skopeo(self, command: str, *args: str) -> str:
        return self.run("skopeo", "--insecure-policy", command, *args)

    def copy(self, source: str, destination: str, *options: str) -> None:
        """Copy an image with its digests. Plain http is used unless there are options for certificates."""
        plain = [f"--{side}-tls-verify=false" for side in ("src", "dest") if f"--{side}-cert-dir" not in options]
        self.skopeo("copy", "--quiet", "--preserve-digests", *plain, *options, source, destination)


@dataclass(frozen=True)
class Layout:
    """OCI image layout on disk.

    Attributes:
        folder: The directory of the layout.
    """

    folder: Path

    def image(self, tag: str) -> str:
        return f"oci:{self.folder}:{tag}"

    def blob(self, digest: str) -> bytes:
        return self.folder.joinpath("blobs", *digest.split(":")).read_bytes()

    def descriptor(self, tag: str) -> Descriptor:
        index = json.loads(self.folder.joinpath("index.json").read_bytes())
        (entry,) = [
            entry for entry in index["manifests"] if entry["annotations"]["org.opencontainers.image.ref.name"] == tag
        ]
        return Descriptor.from_dict(entry)

    def blobs(self, digest: str) -> dict[str, bytes]:
        """Return a manifest and the contents that it references, by digest."""
        blobs = {digest: self.blob(digest)}
        content = json.loads(blobs[digest])
        for child in content.get("manifests", []):
            blobs |= self.blobs(child["digest"])
        for blob in [content["config"], *content["layers"]] if "config" in content else []:
            blobs[blob["digest"]] = self.blob(blob["digest"])
        return blobs


@dataclass
class Images:
    """Images created with umoci.

    Attributes:
        layout: The layout with the tags ``amd64``, ``arm64``, and ``all`` for an index of both.
        index: The descriptor of the index.
    """

    layout: Layout
    index: Descriptor = field(init=False)

    def __post_init__(self) -> None:
        platforms = [
            {**self.layout.descriptor(name).to_dict(), "platform": {"architecture": name, "os": "linux"}}
            for name in ("amd64", "arm64")
        ]
        for platform in platforms:
            platform.pop("annotations", None)
        content = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": platforms}).encode()
        self.index = Descriptor.of(content, media_type=OCI_INDEX)
        self.layout.folder.joinpath("blobs", *self.index.digest.split(":")).write_bytes(content)
        path = self.layout.folder / "index.json"
        top = json.loads(path.read_bytes())
        top["manifests"].append({**self.index.to_dict(), "annotations": {"org.opencontainers.image.ref.name": "all"}})
        path.write_text(json.dumps(top))

    def digest(self, tag: str) -> Digest:
        return self.layout.descriptor(tag).digest


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    for name in ("skopeo", "umoci"):
        if shutil.which(name) is None:
            reason = f"{name} is not installed"
            if os.environ.get("OCIWIRE_REQUIRE_REGISTRY") == "1":
                pytest.fail(reason)
            pytest.skip(reason)
    return Programs(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def images(programs: Programs) -> Images:
    folder = programs.folder / "images"
    programs.run("umoci", "init", "--layout", str(folder))
    programs.folder.joinpath("greeting").write_bytes(GREETING)
    for name in ("amd64", "arm64"):
        image = f"{folder}:{name}"
        programs.run("umoci", "new", "--image", image)
        programs.run("umoci", "config", "--image", image, "--architecture", name, "--os", "linux")
        programs.run("umoci", "insert", "--rootless", "--image", image, "greeting", f"/etc/{name}")
    return Images(Layout(folder))


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
def url(registry: MemoryRegistry) -> Iterator[ServerURL]:
    with serve(registry) as url:
        yield url


@contextlib.contextmanager
def open_client(url: ServerURL, *, tls: ssl.SSLContext | None = None, credentials: Any = None) -> Iterator[Client]:
    """Yield a client with the default stack."""
    stack = default_transport(credentials=credentials or Anonymous(), tls=tls, trust_env=False)
    with contextlib.closing(stack):
        yield Client(url.host, stack, insecure=tls is None)


def fetch_image(client: Client, repository: str, digest: str) -> dict[str, bytes]:
    """Read and verify a manifest and the contents that it references. Return the contents by digest."""
    blobs = {digest: read_verified(client.get_manifest(repository, digest))}
    content = json.loads(blobs[digest])
    for child in content.get("manifests", []):
        blobs |= fetch_image(client, repository, child["digest"])
    for blob in [content["config"], *content["layers"]] if "config" in content else []:
        blobs[blob["digest"]] = read_verified(client.get_blob(repository, blob["digest"]))
    return blobs


def read_verified(reader: BlobReader) -> bytes:
    with reader:
        content = reader.read()
        reader.verify()
        return content


def test_skopeo_copy_to_registry_is_verified_by_client(
    programs: Programs, images: Images, registry: MemoryRegistry, url: ServerURL
) -> None:
    digest = images.digest("amd64")
    programs.copy(images.layout.image("amd64"), f"docker://{url.host}/team/app:v1")
    with open_client(url) as client:
        assert client.resolve_tag("team/app", "v1").digest == digest
        assert client.resolve_tag("team/app", "v1").media_type == OCI_MANIFEST
        assert fetch_image(client, "team/app", digest) == images.layout.blobs(digest)
    assert registry.open_uploads == 0


def test_skopeo_copy_between_repositories_keeps_blobs(
    programs: Programs, images: Images, registry: MemoryRegistry, url: ServerURL, tmp_path: Path
) -> None:
    digest = images.digest("amd64")
    programs.copy(images.layout.image("amd64"), f"docker://{url.host}/team/app:v1")
    stored = registry.stored_bytes
    programs.copy(f"docker://{url.host}/team/app:v1", f"docker://{url.host}/other/copy:v2")
    assert registry.stored_bytes == stored, "a blob is stored once"
    out = Layout(tmp_path / "out")
    programs.copy(f"docker://{url.host}/other/copy:v2", out.image("copy"))
    assert out.descriptor("copy").digest == digest
    assert out.blobs(digest) == images.layout.blobs(digest)
    assert set(os.listdir(out.folder / "blobs" / "sha256")) == {
        Digest(name).encoded for name in images.layout.blobs(digest)
    }
    programs.run("umoci", "unpack", "--rootless", "--image", f"{out.folder}:copy", str(tmp_path / "unpacked"))
    assert (tmp_path / "unpacked/rootfs/etc/amd64").read_bytes() == GREETING


def test_skopeo_copy_index_keeps_all_platforms(
    programs: Programs, images: Images, url: ServerURL, tmp_path: Path
) -> None:
    digest = images.index.digest
    programs.copy(images.layout.image("all"), f"docker://{url.host}/team/app:all", "--all")
    with open_client(url) as client:
        resolved = client.resolve_tag("team/app", "all")
        assert (resolved.digest, resolved.media_type) == (digest, OCI_INDEX)
        blobs = fetch_image(client, "team/app", digest)
        assert blobs == images.layout.blobs(digest)
        children = json.loads(blobs[digest])["manifests"]
        configs = [json.loads(blobs[json.loads(blobs[child["digest"]])["config"]["digest"]]) for child in children]
        assert [config["architecture"] for config in configs] == ["amd64", "arm64"]
    out = Layout(tmp_path / "out")
    programs.copy(f"docker://{url.host}/team/app:all", out.image("all"), "--all")
    assert out.descriptor("all").digest == digest
    assert out.blobs(digest) == images.layout.blobs(digest)


def test_skopeo_copy_of_image_pushed_by_client_keeps_blobs(
    programs: Programs, images: Images, url: ServerURL, tmp_path: Path
) -> None:
    digest = images.digest("arm64")
    blobs = images.layout.blobs(digest)
    manifest = blobs.pop(digest)
    with open_client(url) as client:
        for content in blobs.values():
            client.push_blob("from/ociwire", Descriptor.of(content), content)
        client.push_manifest("from/ociwire", manifest, OCI_MANIFEST, tags=["v1", "v2"])
    out = Layout(tmp_path / "out")
    programs.copy(f"docker://{url.host}/from/ociwire:v2", out.image("v2"))
    assert out.blobs(digest) == {digest: manifest, **blobs}


def test_skopeo_inspect_list_and_delete_match_registry(programs: Programs, images: Images, url: ServerURL) -> None:
    digest = images.digest("amd64")
    image = f"docker://{url.host}/team/app"
    for tag in ("v1", "v2"):
        programs.copy(images.layout.image("amd64"), f"{image}:{tag}")
    programs.copy(images.layout.image("arm64"), f"{image}:other")

    inspected = json.loads(programs.skopeo("inspect", "--tls-verify=false", f"{image}:v1"))
    assert inspected["Digest"] == digest
    assert (inspected["Architecture"], inspected["Os"]) == ("amd64", "linux")
    assert inspected["Layers"] == [layer["digest"] for layer in json.loads(images.layout.blob(digest))["layers"]]
    raw = programs.skopeo("inspect", "--tls-verify=false", "--raw", f"{image}@{digest}")
    assert raw.encode() == images.layout.blob(digest)
    tags = json.loads(programs.skopeo("list-tags", "--tls-verify=false", image))
    assert tags["Tags"] == ["other", "v1", "v2"]

    programs.skopeo("delete", "--tls-verify=false", f"{image}:v1")  # deletes the manifest with all its tags
    tags = json.loads(programs.skopeo("list-tags", "--tls-verify=false", image))
    assert tags["Tags"] == ["other"]
    with open_client(url) as client:
        with pytest.raises(NotFound):
            client.resolve_tag("team/app", "v2")
        with pytest.raises(NotFound):
            client.resolve_manifest("team/app", digest)
        assert client.resolve_tag("team/app", "other").digest == images.digest("arm64")


def test_skopeo_missing_image_is_reported_as_unknown(programs: Programs, url: ServerURL) -> None:
    with pytest.raises(ProgramError, match="manifest unknown"):
        programs.skopeo("inspect", "--tls-verify=false", f"docker://{url.host}/team/app:v1")
    with pytest.raises(ProgramError, match="404"):
        programs.skopeo("list-tags", "--tls-verify=false", f"docker://{url.host}/team/app")


def test_skopeo_copy_over_tls_keeps_blobs(programs: Programs, images: Images, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    shutil.copy(certificates.ca, trusted / "ca.crt")
    digest = images.digest("amd64")
    with serve(MemoryRegistry(), tls=certificates.server()) as url:
        image = f"docker://{url.host}/team/app:v1"
        with pytest.raises(ProgramError, match="x509"):
            programs.skopeo("copy", images.layout.image("amd64"), image)
        programs.skopeo(
            "copy", "--preserve-digests", "--dest-cert-dir", str(trusted), images.layout.image("amd64"), image
        )
        out = Layout(tmp_path / "out")
        programs.skopeo("copy", "--preserve-digests", "--src-cert-dir", str(trusted), image, out.image("v1"))
        with open_client(url, tls=ssl.create_default_context(cafile=certificates.ca)) as client:
            assert fetch_image(client, "team/app", digest) == images.layout.blobs(digest)
    assert out.blobs(digest) == images.layout.blobs(digest)


@pytest.mark.parametrize("scheme", ["bearer", "basic"])
def test_skopeo_copy_with_auth_guard_requires_password(
    programs: Programs, images: Images, tmp_path: Path, scheme: str
) -> None:
    digest = images.digest("amd64")
    registry = MemoryRegistry()
    guard = AuthGuard(registry, users={USER: PASSWORD}, scheme=scheme, realm="/token")
    with serve(guard) as url:
        image = f"docker://{url.host}/team/app:v1"
        with pytest.raises(ProgramError, match="unauthorized"):
            programs.copy(images.layout.image("amd64"), image, "--dest-creds", f"{USER}:wrong")
        assert registry.stored_bytes == 0
        programs.copy(images.layout.image("amd64"), image, "--dest-creds", f"{USER}:{PASSWORD}")
        out = Layout(tmp_path / "out")
        programs.copy(image, out.image("v1"), "--src-creds", f"{USER}:{PASSWORD}")
        assert out.blobs(digest) == images.layout.blobs(digest)
        with pytest.raises(ProgramError):
            programs.copy(image, Layout(tmp_path / "none").image("v1"), "--src-no-creds")
        credentials = StaticCredentials(url.host, Credential(username=USER, password=PASSWORD))
        with open_client(url, credentials=credentials) as client:
            assert fetch_image(client, "team/app", digest) == images.layout.blobs(digest)
    assert guard.challenged
    if scheme == "bearer":
        required = Scope.repository("team/app", "pull", "push")
        assert any(required <= scope for scope in guard.asked)
