"""Configuration that docker, podman and curl also read or write: proxies, credentials and certificates."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

from ociwire import Client, Descriptor, Scope, default_transport, docker_certs_d
from ociwire._http.urls import Origin
from ociwire.auth import DockerConfig
from ociwire.errors import AuthError
from ociwire.testing import AuthGuard, MemoryRegistry
from ociwire.transport._urllib3 import tls
from ociwire.transport._urllib3.proxy import ProxySelector
from tests.field.rows import Row

TITLE = "Configuration of the machine"


@dataclass(frozen=True, kw_only=True)
class NoProxy(Row):
    """Value of ``no_proxy``, and the URLs to which the client connects directly.

    Attributes:
        no_proxy: The value of the variable.
        direct: URLs without a proxy.
        proxied: URLs with a proxy.
    """

    no_proxy: str
    direct: tuple[str, ...]
    proxied: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Login(Row):
    """Configuration files, and the user that is found for a registry.

    Attributes:
        files: The JSON of files, by path below the home directory.
        env: Additional environment variables. ``{home}`` is replaced by the home directory.
        host: The host of the registry.
        user: The expected user. None means anonymous access.
        helper: A shell script that is installed as docker-credential-desktop. Empty means none.
        failure: A part of the message of `DockerConfig.failure`. Empty means no failure.
    """

    files: dict[str, object] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    host: str = "registry.example"
    user: str | None
    helper: str = ""
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class Certificates(Row):
    """Directory with the certificates of a host, and whether they are used.

    Attributes:
        folder: The directory with a CA certificate.
        denied: The directory that the user cannot list. Empty means none.
        trusted: Whether the CA is trusted.
    """

    folder: str
    denied: str = ""
    trusted: bool


def auth(user: str) -> str:
    return base64.b64encode(f"{user}:s3cret".encode()).decode()


def auths(user: str, key: str = "registry.example") -> dict[str, object]:
    return {"auths": {key: {"auth": auth(user)}}}


RUNTIME = {"XDG_RUNTIME_DIR": "{home}/run"}
STORE = {"auths": {"https://index.docker.io/v1/": {}}, "credsStore": "desktop"}

ROWS: tuple[Row, ...] = (
    NoProxy(
        name="no_proxy_with_networks",
        registry="curl and Go programs",
        behaviour="`no_proxy` contains networks, such as `10.0.0.0/8`.",
        result="Connects directly to addresses in these networks; host names are not resolved.",
        source="[curl#9773](https://github.com/curl/curl/issues/9773)",
        no_proxy=".domain1,.domain2,127.0.0.1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fd00::/8",
        direct=("http://10.10.20.1", "https://192.168.3.4:5000", "https://[fd00::1]", "https://a.domain2"),
        proxied=("http://11.10.20.1", "https://registry.example", "https://[2001:db8::1]"),
    ),
    NoProxy(
        name="no_proxy_with_an_asterisk",
        registry="Machines with a proxy",
        behaviour="`no_proxy` contains `*.DOMAIN`.",
        result="Connects directly to the subdomains, but not to the domain itself.",
        source="[request#2194](https://github.com/request/request/issues/2194)",
        no_proxy="*.corp.example",
        direct=("https://registry.corp.example", "https://a.b.corp.example:5000"),
        proxied=("https://corp.example", "https://xcorp.example"),
    ),
    NoProxy(
        name="no_proxy_with_ipv6_in_brackets",
        registry="Go programs",
        behaviour="`no_proxy` contains IPv6 addresses in brackets, with or without a port.",
        result="Compares the address, and the port if there is one.",
        source="[golang.org/x/net/http/httpproxy](https://pkg.go.dev/golang.org/x/net/http/httpproxy)",
        no_proxy="[2001:db8::1], [2001:db8::2]:5000",
        direct=("https://[2001:db8::1]", "https://[2001:DB8:0:0::1]:5000", "https://[2001:db8::2]:5000"),
        proxied=("https://[2001:db8::2]", "https://[2001:db8::3]"),
    ),
    NoProxy(
        name="no_proxy_with_spaces_and_domains",
        registry="Docker Desktop",
        behaviour="`no_proxy` contains addresses, networks and a domain with a leading dot.",
        result="Connects directly to the domain and its subdomains.",
        source="[for-mac#5844](https://github.com/docker/for-mac/issues/5844)",
        no_proxy="localhost, 127.0.0.1, 172.16.0.0/12 .dev.example.com",
        direct=("https://registry.dev.example.com", "https://172.20.1.1"),
        proxied=("https://registry-1.docker.io", "https://example.com"),
    ),
    Login(
        name="variable_without_an_entry",
        registry="docker",
        behaviour="`DOCKER_AUTH_CONFIG` has credentials for another registry.",
        result="Reads the files if the variable has no entry for the registry.",
        source="[cli#6008](https://github.com/docker/cli/pull/6008)",
        env={"DOCKER_AUTH_CONFIG": json.dumps(auths("ci", "other.example"))},
        files={".docker/config.json": auths("docker")},
        user="docker",
    ),
    Login(
        name="variable_with_an_entry",
        registry="GitLab CI",
        behaviour="`DOCKER_AUTH_CONFIG` and `~/.docker/config.json` both have an entry.",
        result="Uses the entry of the variable, as docker does.",
        source="[cli#6156](https://github.com/docker/cli/issues/6156)",
        env={"DOCKER_AUTH_CONFIG": json.dumps(auths("ci"))},
        files={".docker/config.json": auths("docker")},
        user="ci",
    ),
    Login(
        name="docker_config_json_without_an_entry",
        registry="docker and podman",
        behaviour="`~/.docker/config.json` exists, but `podman login` wrote the credentials.",
        result="Uses the first file with an entry.",
        source="[go-containerregistry#1145](https://github.com/google/go-containerregistry/issues/1145)",
        env=RUNTIME,
        files={".docker/config.json": {"auths": {}}, "run/containers/auth.json": auths("podman")},
        user="podman",
    ),
    Login(
        name="podman_config_below_the_home",
        registry="podman",
        behaviour="The credentials are in `~/.config/containers/auth.json`, which survives a reboot.",
        result="Reads it last.",
        source="[podman#7563](https://github.com/podman-container-tools/podman/issues/7563)",
        env=RUNTIME,
        files={".config/containers/auth.json": auths("podman")},
        user="podman",
    ),
    Login(
        name="named_file_is_the_only_one",
        registry="skopeo in a container",
        behaviour="`REGISTRY_AUTH_FILE` names a file that has no entry, and there are others.",
        result="Reads no other file.",
        source="[skopeo#1909](https://github.com/podman-container-tools/skopeo/issues/1909)",
        env={"REGISTRY_AUTH_FILE": "{home}/auth.json"},
        files={"auth.json": {}, ".docker/config.json": auths("docker")},
        user=None,
    ),
    Login(
        name="key_without_a_trailing_slash",
        registry="docker",
        behaviour="Docker Hub's key is written without its trailing slash, or without a scheme.",
        result="Accepts it.",
        source="[docker/cli: ConvertToHostname]"
        "(https://github.com/docker/cli/blob/master/cli/config/credentials/file_store.go)",
        files={".docker/config.json": auths("docker", "https://index.docker.io/v1")},
        host="docker.io",
        user="docker",
    ),
    Login(
        name="base64_without_padding",
        registry="Tools that write config.json",
        behaviour="The base64 of `auth` has no padding, is wrapped or uses the URL-safe alphabet.",
        result="Decodes it.",
        source="[RFC 4648, section 3.2](https://www.rfc-editor.org/rfc/rfc4648#section-3.2)",
        files={".docker/config.json": {"auths": {"registry.example": {"auth": f"{auth('me').rstrip('=')}\n"}}}},
        user="me",
    ),
    Login(
        name="json_key_as_a_password_field",
        registry="Google Container Registry",
        behaviour="The file has `username` and `password` instead of `auth`, and the password is a JSON key.",
        result="Uses both unchanged.",
        source="[podman-container-tools/container-libs#249]"
        "(https://github.com/podman-container-tools/container-libs/issues/249)",
        files={
            ".docker/config.json": {
                "auths": {"https://registry.example": {"username": "_json_key", "password": '{\n"type": "x"\n}\n'}}
            }
        },
        user="_json_key",
    ),
    Login(
        name="credentials_store_that_fails",
        registry="Docker Desktop",
        behaviour="`credsStore` names a helper that fails, although only public content is pulled.",
        result="Logs a warning and pulls anonymously; raises the failure if the pull is refused, or before a push.",
        source="[go-containerregistry#666](https://github.com/google/go-containerregistry/issues/666)",
        files={".docker/config.json": STORE},
        helper="echo 'not signed in' >&2; exit 1",
        user=None,
        failure="docker-credential-desktop failed for registry.example with exit status 1",
    ),
    Login(
        name="credentials_store_that_is_not_installed",
        registry="Docker Desktop",
        behaviour="`credsStore` names a helper that is no longer installed.",
        result="Ignores the store.",
        source="[docker-credential-helpers#149](https://github.com/docker/docker-credential-helpers/issues/149)",
        files={".docker/config.json": {**auths("docker"), "credsStore": "desktop"}},
        user="docker",
    ),
    Certificates(
        name="certs_d_that_is_not_readable",
        registry="Docker's package",
        behaviour="`/etc/docker` has mode 0700, so an unprivileged user cannot look for certificates.",
        result="Skips and logs it.",
        source="[image#297](https://github.com/containers/image/issues/297)",
        folder="/etc/docker/certs.d",
        denied="/etc/docker/certs.d",
        trusted=False,
    ),
    Certificates(
        name="certs_d_of_the_host_that_is_not_readable",
        registry="Rootless Docker",
        behaviour="The folder of one registry is not readable.",
        result="Skips and logs it.",
        source="[moby#40236](https://github.com/moby/moby/issues/40236)",
        folder="/etc/docker/certs.d",
        denied="/etc/docker/certs.d/registry.example",
        trusted=False,
    ),
    Certificates(
        name="certs_d_of_the_host_that_is_not_searchable",
        registry="Machines where a folder was copied with mode 0744",
        behaviour="The folder of one registry can be listed, but its files cannot be opened.",
        result="Skips and logs it.",
        source="[path_resolution(7)](https://man7.org/linux/man-pages/man7/path_resolution.7.html)",
        folder="/etc/docker/certs.d",
        denied="/etc/docker/certs.d/registry.example/.",
        trusted=False,
    ),
    Certificates(
        name="certs_d_of_containers",
        registry="podman",
        behaviour="The CA is in `/etc/containers/certs.d`.",
        result="Trusts the CA for the host.",
        source="[containers-certs.d(5)](https://github.com/containers/image/blob/main/docs/containers-certs.d.5.md)",
        folder="/etc/containers/certs.d",
        trusted=True,
    ),
    Certificates(
        name="certs_d_below_the_home",
        registry="podman",
        behaviour="The CA is in `~/.config/containers/certs.d`.",
        result="Trusts the CA for the host.",
        source="[containers-certs.d(5)](https://github.com/containers/image/blob/main/docs/containers-certs.d.5.md)",
        folder="~/.config/containers/certs.d",
        trusted=True,
    ),
)


@pytest.mark.parametrize("row", [row for row in ROWS if isinstance(row, NoProxy)], ids=str)
def test_proxies_no_proxy_bypasses_like_curl_and_go(row: NoProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.setenv(name, row.no_proxy if name == "no_proxy" else "http://proxy.example:3128")
    proxies = ProxySelector(None, trust_env=True)
    assert [url for url in row.direct + row.proxied if proxies.get(Origin.of(url)) is None] == list(row.direct)


@pytest.mark.parametrize("row", [row for row in ROWS if isinstance(row, Login)], ids=str)
def test_docker_config_lookup_finds_user(row: Login, tmp_path: Path) -> None:
    for path, content in row.files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(json.dumps(content))
    if row.helper:
        program = tmp_path / "docker-credential-desktop"
        program.write_text(f"#!/bin/sh\n{row.helper}\n")
        program.chmod(0o755)
    env = {name: value.replace("{home}", str(tmp_path)) for name, value in row.env.items()}
    config = DockerConfig.load(env={"HOME": str(tmp_path), "PATH": str(tmp_path), **env})
    credential = config.lookup(row.host)
    assert (None if credential is None else credential.username) == row.user
    assert row.failure in str(config.failure(row.host) or "")
    assert (config.failure(row.host) is None) == (row.failure == "")


@pytest.mark.parametrize("row", [row for row in ROWS if isinstance(row, Certificates)], ids=str)
def test_docker_certs_d_is_read_or_skipped(
    row: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ociwire.tls")

    def relocate(path: str) -> str:
        return path.replace("/etc/", f"{tmp_path}/etc/").replace("~", str(tmp_path / "home"))

    original_listdir, original_stat = os.listdir, os.stat

    def check_permission(path: Any) -> None:
        # File permissions do not apply to root, and the tests may run as root.
        if row.denied and f"{path}/".startswith(f"{relocate(row.denied)}/"):
            raise PermissionError(13, "Permission denied", str(path))

    def listdir(path: Any) -> list[str]:
        check_permission(path)
        return original_listdir(path)

    def stat(path: Any, **options: Any) -> os.stat_result:
        check_permission(path)
        return original_stat(path, **options)

    host = Path(relocate(row.folder)) / "registry.example"
    host.mkdir(parents=True)
    trustme.CA().cert_pem.write_to_path(str(host / "ca.crt"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tls, "_STANDARD_ROOTS", [relocate(root) for root in tls._STANDARD_ROOTS])
    monkeypatch.setattr(os, "listdir", listdir)
    monkeypatch.setattr(os, "stat", stat)
    assert (docker_certs_d()("registry.example") is not None) == row.trusted
    assert ("Permission denied" in caplog.text) == bool(row.denied)


@pytest.mark.parametrize(("public", "push"), [(True, False), (False, False), (True, True)])
def test_docker_config_failed_store_permits_only_public_pulls(tmp_path: Path, public: bool, push: bool) -> None:
    row = next(row for row in ROWS if row.name == "credentials_store_that_fails" and isinstance(row, Login))
    (tmp_path / "config.json").write_text(json.dumps(STORE))
    program = tmp_path / "docker-credential-desktop"
    program.write_text(f"#!/bin/sh\n{row.helper}\n")
    program.chmod(0o755)
    memory = MemoryRegistry()
    blob = Descriptor.of(b"content")
    Client("registry.example", memory).push_blob("app", blob, b"content")
    anonymous_scopes = {"": Scope.parse("repository:app:pull,push")} if public else {}
    guard = AuthGuard(memory, users={"me": "s3cret"}, scopes=anonymous_scopes)
    config = DockerConfig.load(env={"DOCKER_CONFIG": str(tmp_path), "PATH": str(tmp_path)})
    client = Client("registry.example", default_transport(base=guard, credentials=config))
    if push:
        with pytest.raises(AuthError, match=row.failure):
            client.push_blob("app", Descriptor.of(b"other"), b"other")
    elif public:
        assert client.get_blob("app", blob.digest).read() == b"content"
    else:
        with pytest.raises(AuthError, match=row.failure):
            client.get_blob("app", blob.digest)
