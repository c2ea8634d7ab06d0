"""`DockerConfig`: files, entries, credential helpers, and errors."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ociwire import AuthTransport, Request, Response
from ociwire.auth import Credential, DockerConfig
from ociwire.auth import _credential_helpers as helper
from ociwire.errors import AuthError, UsageError
from ociwire.testing import ScriptedTransport
from tests._support.doubles import FakeClock

SECRET = "sEcReT-42"
HUB = "https://index.docker.io/v1/"
URL_SAFE = str.maketrans("+/", "-_")
JSON_KEY = '{\n\t"type": "service_account",\r\n "private_key": "ü\\n"\n}\n'


def encoded(username: str = "me", password: str = SECRET) -> str:
    return base64.b64encode(f"{username}:{password}".encode()).decode()


def user(name: str) -> dict[str, str]:
    return {"auth": encoded(name)}


def config_of(content: object, **env: str) -> DockerConfig:
    return DockerConfig.load(env={"DOCKER_AUTH_CONFIG": json.dumps(content), **env})


def iter_chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all exceptions that are chained to it, even if a traceback does not show them."""
    pending, seen = [error], set()
    while pending:
        chained = pending.pop()
        if id(chained) not in seen:
            seen.add(id(chained))
            yield chained
            pending += [other for other in (chained.__cause__, chained.__context__) if other is not None]


def format_all(error: BaseException) -> str:
    parts = ["".join(traceback.format_exception(error))]
    for chained in iter_chain(error):
        parts += [
            str(chained),
            repr(chained),
            *(repr(getattr(chained, name, None)) for name in dir(chained) if not name.startswith("__")),
        ]
    return "\n".join(parts)


def failure(config: DockerConfig, host: str = "ghcr.io", repository: str | None = None) -> AuthError:
    """Return the error of a lookup. Check that it contains no secret, and that `explain` also raises it."""
    for call in (config.lookup, config.explain):
        with pytest.raises(AuthError) as caught:
            call(host, repository)
        text = format_all(caught.value)
        for secret in (SECRET, encoded(), base64.b64encode(SECRET.encode()).decode().rstrip("=")):
            assert secret not in text
    return caught.value


def username(config: DockerConfig, host: str, repository: str | None = None) -> str | None:
    credential = config.lookup(host, repository)
    return None if credential is None else credential.username


# --- selection of the file ---


class Files:
    """Paths of configuration files below a directory."""

    def __init__(self, root: Path) -> None:
        self.named = {
            "REGISTRY_AUTH_FILE": str(root / "registry" / "auth.json"),
            "DOCKER_CONFIG": str(root / "docker"),
        }
        self.env = {
            "HOME": str(root / "home"),
            "XDG_RUNTIME_DIR": str(root / "run"),
            "XDG_CONFIG_HOME": str(root / "config"),
        }
        self.paths = {
            "REGISTRY_AUTH_FILE": root / "registry" / "auth.json",
            "DOCKER_CONFIG": root / "docker" / "config.json",
            "HOME": root / "home" / ".docker" / "config.json",
            "XDG_RUNTIME_DIR": root / "run" / "containers" / "auth.json",
            "XDG_CONFIG_HOME": root / "config" / "containers" / "auth.json",
        }

    def name(self, variable: str) -> None:
        """Set a variable that names the only file."""
        self.env[variable] = self.named[variable]

    def write(self, variable: str, content: object) -> Path:
        path = self.paths[variable]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def config(self, **variables: str) -> DockerConfig:
        return DockerConfig.load(env={**self.env, **variables})


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


ORDER = ["DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"]
DEFAULTS = ORDER[3:]


def write_all(files: Files, variables: list[str], content: object = None) -> DockerConfig:
    """Write a file for each of the variables, by default with a user of that name. Return the configuration."""
    inline_env = {}
    for variable in variables:
        entry_content = {"auths": {"ghcr.io": user(variable)}} if content is None else content
        if variable == "DOCKER_AUTH_CONFIG":
            inline_env[variable] = entry_content if isinstance(entry_content, str) else json.dumps(entry_content)
            continue
        files.write(variable, entry_content)
        if variable in files.named:
            files.name(variable)
    return files.config(**inline_env)


@pytest.mark.parametrize("first", ORDER)
def test_lookup_several_files_reads_first_with_entry(files: Files, first: str) -> None:
    config = write_all(files, ORDER[ORDER.index(first) :])
    assert username(config, "ghcr.io") == first
    assert (str(files.paths[first]) if first in files.paths else "$DOCKER_AUTH_CONFIG") in config.explain("ghcr.io")


NO_ENTRY = ["{}", '{"auths": {}}', '{"auths": {"quay.io": {}}}', '{"auths": null}', '{"auths": {"ghcr.io": {}}}']
EMPTY = ["", " \n"]


@pytest.mark.parametrize("content", NO_ENTRY)
@pytest.mark.parametrize("answering", ORDER[1:])
def test_lookup_variable_without_entry_reads_files(files: Files, content: str, answering: str) -> None:
    write_all(files, [answering])
    config = files.config(DOCKER_AUTH_CONFIG=content)
    assert username(config, "ghcr.io") == answering
    assert str(files.paths[answering]) in config.explain("ghcr.io")


@pytest.mark.parametrize("content", [*NO_ENTRY, *EMPTY])
@pytest.mark.parametrize("answering", DEFAULTS[1:])
def test_lookup_default_files_uses_first_with_entry(files: Files, content: str, answering: str) -> None:
    write_all(files, DEFAULTS[: DEFAULTS.index(answering)], content)
    assert username(write_all(files, DEFAULTS[DEFAULTS.index(answering) :]), "ghcr.io") == answering


@pytest.mark.parametrize("content", [None, *NO_ENTRY, *EMPTY])
@pytest.mark.parametrize("variable", ["REGISTRY_AUTH_FILE", "DOCKER_CONFIG"])
def test_lookup_named_file_reads_no_default_file(files: Files, variable: str, content: str | None) -> None:
    write_all(files, DEFAULTS)
    files.name(variable)
    if content is not None:
        files.write(variable, content)
    assert files.config().lookup("ghcr.io") is None


def test_lookup_both_variables_reads_registry_auth_file(files: Files) -> None:
    write_all(files, ["DOCKER_CONFIG"])
    config = write_all(files, ["REGISTRY_AUTH_FILE"], "{}")
    assert config.lookup("ghcr.io") is None


def test_lookup_without_xdg_config_home_reads_below_home(tmp_path: Path) -> None:
    path = tmp_path / ".config" / "containers" / "auth.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"auths": {"ghcr.io": user("me")}}))
    assert username(DockerConfig.load(env={"HOME": str(tmp_path), "XDG_CONFIG_HOME": ""}), "ghcr.io") == "me"


def test_lookup_entry_found_does_not_read_later_files(files: Files) -> None:
    write_all(files, DEFAULTS, "not JSON")
    files.write("HOME", {"auths": {"ghcr.io": user("me")}})
    assert username(files.config(), "ghcr.io") == "me"
    assert str(files.paths["XDG_RUNTIME_DIR"]) in str(failure(files.config(), "quay.io"))


def test_explain_without_entry_names_every_file(files: Files) -> None:
    explanation = write_all(files, DEFAULTS).explain("quay.io")
    assert all(str(files.paths[variable]) in explanation for variable in DEFAULTS)


@pytest.mark.parametrize("variable", ["XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"])
def test_lookup_podman_file_without_permission_is_skipped(
    files: Files, variable: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ociwire.auth")
    config = write_all(files, [variable])
    deny_access(monkeypatch, files.paths[variable])
    assert config.lookup("ghcr.io") is None
    assert str(files.paths[variable]) in caplog.text


def deny_access(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Make `open` fail for a file, as for an unprivileged user. The tests may run as root."""
    original_open = open

    def fail(name: object, *args: Any, **kwargs: Any) -> Any:
        if name == str(path):
            raise PermissionError(13, "Permission denied", name)
        return original_open(name, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr("builtins.open", fail)


@pytest.mark.parametrize("variable", ["REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "HOME"])
@pytest.mark.parametrize("kind", ["a pipe", "a character device"])
def test_lookup_special_file_raises_auth_error(files: Files, variable: str, kind: str) -> None:
    path = files.paths[variable]
    path.parent.mkdir(parents=True)
    if kind == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    if variable in files.named:
        files.name(variable)
    message = str(failure(files.config()))
    assert str(path) in message
    assert f"it is {kind}, expected a regular file" in message


@pytest.mark.parametrize("variable", ORDER)
def test_lookup_empty_variable_is_ignored(files: Files, variable: str) -> None:
    other = "HOME" if variable == "XDG_RUNTIME_DIR" else "XDG_RUNTIME_DIR"
    files.write(other, {"auths": {"ghcr.io": user("other")}})
    assert username(files.config(**{variable: ""}), "ghcr.io") == "other"


def test_lookup_without_file_returns_none(files: Files) -> None:
    assert files.config().lookup("ghcr.io") is None
    assert DockerConfig.load(env={}).lookup("ghcr.io") is None
    explanation = files.config().explain("ghcr.io")
    assert all(str(files.paths[variable]) in explanation for variable in DEFAULTS)
    assert "ghcr.io" in DockerConfig.load(env={}).explain("ghcr.io")


def test_lookup_file_instead_of_directory_returns_none(tmp_path: Path, files: Files) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".docker").write_text("not a folder")
    files.write("XDG_RUNTIME_DIR", {"auths": {"ghcr.io": user("podman")}})
    assert username(files.config(), "ghcr.io") == "podman"


def test_lookup_env_given_uses_its_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("mine", "process"):
        (tmp_path / name / ".docker").mkdir(parents=True)
        (tmp_path / name / ".docker" / "config.json").write_text(json.dumps({"auths": {"ghcr.io": user(name)}}))
    monkeypatch.setenv("HOME", str(tmp_path / "process"))
    assert username(DockerConfig.load(env={"HOME": str(tmp_path / "mine")}), "ghcr.io") == "mine"
    assert DockerConfig.load(env={}).lookup("ghcr.io") is None
    assert username(DockerConfig.load(), "ghcr.io") == "process"


def test_lookup_without_env_reads_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    config = DockerConfig.load()
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps({"auths": {"ghcr.io": user("me")}}))
    assert username(config, "ghcr.io") == "me"


def test_lookup_reads_file_each_time(files: Files) -> None:
    path = files.write("HOME", f'{{"auths": {SECRET}')
    config = files.config()
    assert str(path) in str(failure(config))
    files.write("HOME", {"auths": {"ghcr.io": user("fixed")}})
    assert username(config, "ghcr.io") == "fixed"


def test_lookup_byte_order_mark_is_skipped(files: Files) -> None:
    files.write("HOME", "\ufeff" + json.dumps({"auths": {"ghcr.io": user("me")}}))
    assert username(files.config(), "ghcr.io") == "me"


# --- invalid files ---


@pytest.mark.parametrize(
    "content",
    [
        f'{{"auths": {{"ghcr.io": {{"auth": "{encoded()}"}}',
        f'{{"auths": {{"ghcr.io": {{"password": "{SECRET}", }}}}}}',
        f"{SECRET}",
        f'"{SECRET}"',
        f'["{SECRET}"]',
        f'{{"{SECRET}\n": 1}}',
        f'{{"password": "{SECRET}\\x"}}',
        f'{{"password": "{SECRET}"}} {{}}',
        "null",
        "7",
        "[" * 100_000 + SECRET,
        '{"n": ' + "1" * 5000 + f'}}, "{SECRET}"',
    ],
)
@pytest.mark.parametrize("variable", ["DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE", "HOME"])
def test_lookup_file_not_json_object_raises_auth_error(files: Files, variable: str, content: str) -> None:
    if variable == "DOCKER_AUTH_CONFIG":
        config, name = files.config(DOCKER_AUTH_CONFIG=content), "$DOCKER_AUTH_CONFIG"
    else:
        config, name = write_all(files, [variable], content), str(files.paths[variable])
    files.write("XDG_RUNTIME_DIR", {"auths": {"ghcr.io": user("me")}})
    assert name in str(failure(config))


def test_lookup_invalid_json_error_names_position(files: Files) -> None:
    files.write("HOME", f'{{\n"auths": {SECRET}\n}}')
    assert "line 2, column 10" in str(failure(files.config()))


def test_lookup_file_not_utf_8_raises_auth_error(files: Files) -> None:
    path = files.write("HOME", "")
    path.write_bytes(b'{"password": "' + SECRET.encode() + b'\xff"}')
    assert str(path) in str(failure(files.config()))


def test_lookup_file_too_long_raises_auth_error(files: Files) -> None:
    path = files.write("HOME", json.dumps({"auths": {"ghcr.io": user("me")}}) + " " * 4 * 1024 * 1024)
    assert str(path) in str(failure(files.config()))


@pytest.mark.parametrize("variable", ["REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "HOME"])
def test_lookup_unreadable_file_raises_auth_error(files: Files, variable: str) -> None:
    files.paths[variable].mkdir(parents=True)
    if variable in files.named:
        files.name(variable)
    files.write("XDG_RUNTIME_DIR", {"auths": {"ghcr.io": user("me")}})
    assert str(files.paths[variable]) in str(failure(files.config()))


def test_lookup_file_without_permission_raises_auth_error(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files.write("HOME", {"auths": {"ghcr.io": user("me")}})

    deny_access(monkeypatch, path)
    message = str(failure(files.config()))
    assert str(path) in message
    assert "Permission denied" in message


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a\0b", "a b: expected a path without NUL"),
        ("/dev/null/\0\n", "/dev/null/ : expected a path without NUL"),
        ("a" * 5000, "a" * 4096 + ": File name too long"),
    ],
)
def test_lookup_invalid_path_raises_auth_error_on_one_line(path: str, expected: str) -> None:
    error = failure(DockerConfig.load(env={"REGISTRY_AUTH_FILE": path}))
    assert str(error) == f"cannot read Docker's configuration {expected}"


def test_explain_path_with_control_characters_is_sanitized(tmp_path: Path) -> None:
    path = tmp_path / "a\nb.json"
    path.write_text("{}")
    config = DockerConfig.load(env={"REGISTRY_AUTH_FILE": str(path)})
    assert config.explain("ghcr.io") == f"ghcr.io: anonymous ({tmp_path}/a b.json has no entry for it)"


@pytest.mark.parametrize("section", ["auths", "credHelpers"])
@pytest.mark.parametrize("value", [[SECRET], SECRET, 7, True, [{"ghcr.io": SECRET}]])
def test_lookup_section_not_object_raises_auth_error(files: Files, section: str, value: object) -> None:
    path = files.write("HOME", {section: value})
    message = str(failure(files.config()))
    assert str(path) in message
    assert section in message


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        (SECRET, "auths['ghcr.io']"),
        ([SECRET], "auths['ghcr.io']"),
        (7, "auths['ghcr.io']"),
        ({"auth": 7}, "auths['ghcr.io'].auth"),
        ({"auth": [encoded()]}, "auths['ghcr.io'].auth"),
        ({"auth": {"x": SECRET}}, "auths['ghcr.io'].auth"),
        ({"auth": SECRET}, "auths['ghcr.io'].auth"),
        ({"auth": f"!{encoded()}"}, "auths['ghcr.io'].auth"),
        ({"auth": encoded()[:-3]}, "auths['ghcr.io'].auth"),
        ({"auth": base64.b64encode(SECRET.encode()).decode()}, "auths['ghcr.io'].auth"),
        ({"auth": base64.b64encode(b"me:\xff" + SECRET.encode()).decode()}, "auths['ghcr.io'].auth"),
        ({"auth": f"é{encoded()}"}, "auths['ghcr.io'].auth"),
        ({"auth": encoded("me\n")}, "auths['ghcr.io']"),
        ({"username": ["me"], "password": SECRET}, "auths['ghcr.io'].username"),
        ({"username": "me", "password": [SECRET]}, "auths['ghcr.io'].password"),
        ({"username": "me", "password": {SECRET: 1}}, "auths['ghcr.io'].password"),
        ({"username": "a:b", "password": SECRET}, "auths['ghcr.io']"),
        ({"username": "me", "password": f"{SECRET}\udc80"}, "auths['ghcr.io']"),
        ({"password": SECRET}, "auths['ghcr.io']"),
        ({"identitytoken": [SECRET]}, "auths['ghcr.io'].identitytoken"),
        ({"identitytoken": f"{SECRET}\udc80"}, "auths['ghcr.io']"),
        ({"registrytoken": {"x": SECRET}}, "auths['ghcr.io'].registrytoken"),
        ({"registrytoken": f"{SECRET} \n"}, "auths['ghcr.io']"),
    ],
)
def test_lookup_broken_entry_fails_for_its_host_only(files: Files, entry: object, field: str) -> None:
    auths = {"ghcr.io": entry, "quay.io": user("me"), "ghcr.io/other": user("you"), "no host!": entry, "": entry}
    path = files.write("HOME", {"auths": auths})
    config = files.config()
    message = str(failure(config))
    assert str(path) in message
    assert field in message
    assert username(config, "quay.io") == "me"
    assert username(config, "ghcr.io", "other/app") == "you"
    assert config.lookup("docker.io") is None


@pytest.mark.parametrize("host", ["", "https://ghcr.io", "ghcr.io/x", "a b"])
def test_lookup_invalid_host_raises_usage_error(host: str) -> None:
    for call in (config_of({}).lookup, config_of({}).explain):
        with pytest.raises(UsageError):
            call(host)


# --- auths: selection of the entry ---


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("ghcr.io", "ghcr.io"),
        ("GHCR.io", "ghcr.io"),
        ("ghcr.io", "GHCR.IO"),
        ("ghcr.io", "ghcr.io:443"),
        ("ghcr.io:443", "ghcr.io"),
        ("https://ghcr.io", "ghcr.io"),
        ("https://ghcr.io/", "ghcr.io"),
        ("https://ghcr.io/v1/", "ghcr.io"),
        ("https://ghcr.io/v2/", "ghcr.io"),
        ("https://ghcr.io:443/v2/", "ghcr.io"),
        ("http://ghcr.io", "ghcr.io"),
        ("ghcr.io/v1/", "ghcr.io"),
        ("ghcr.io/v1", "ghcr.io"),
        ("ghcr.io/v2", "ghcr.io"),
        ("https://ghcr.io/v2", "ghcr.io"),
        ("http://ghcr.io:80/v2", "ghcr.io"),
        ("https://ghcr.io/team/app", "ghcr.io"),
        ("https://index.docker.io/v1", "docker.io"),
        ("http://index.docker.io/v1/", "docker.io"),
        ("index.docker.io/v1", "docker.io"),
        ("my_registry.corp:5000", "my_registry.corp:5000"),
        ("ghcr.io/", "ghcr.io"),
        ("localhost:5000", "localhost:5000"),
        ("http://localhost:5000/v2/", "localhost:5000"),
        ("[::1]:5000", "[::1]:5000"),
        *((key, host) for key in (HUB, "docker.io", "index.docker.io") for host in ("docker.io", "index.docker.io")),
        ("registry-1.docker.io", "docker.io"),
        ("https://registry-1.docker.io/v2/", "docker.io"),
        ("docker.io", "registry-1.docker.io"),
        ("https://docker.io/", "docker.io"),
    ],
)
def test_lookup_matching_key_returns_entry(key: str, host: str) -> None:
    config = config_of({"auths": {key: user("me")}})
    assert username(config, host) == "me"
    assert username(config, host, "team/app") == "me"


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("ghcr.io", "quay.io"),
        ("ghcr.io", "ghcr.io:5000"),
        ("ghcr.io:5000", "ghcr.io"),
        ("ghcr.io", "sub.ghcr.io"),
        ("sub.ghcr.io", "ghcr.io"),
        ("ghcr.io.evil.example", "ghcr.io"),
        ("ghcr", "ghcr.io"),
        ("*.io", "ghcr.io"),
        ("*", "ghcr.io"),
        ("", "ghcr.io"),
        ("https://evil.example/ghcr.io", "ghcr.io"),
        ("evil.example/ghcr.io", "ghcr.io"),
        ("ghcr.io@evil.example", "ghcr.io"),
        ("me@ghcr.io", "ghcr.io"),
        ("https://auth.docker.io/token", "docker.io"),
        ("hub.docker.com", "docker.io"),
        ("localhost:5000", "127.0.0.1:5000"),
    ],
)
def test_lookup_key_of_other_host_returns_none(key: str, host: str) -> None:
    config = config_of({"auths": {key: user("me")}})
    assert config.lookup(host) is None
    assert config.lookup(host, "ghcr.io") is None


NAMESPACED = {
    "ghcr.io/team/app/deep": user("deep"),
    "ghcr.io": user("host"),
    "ghcr.io/team/app": user("app"),
    "ghcr.io/team": user("team"),
    "ghcr.io/TEAM": user("TEAM"),
    "ghcr.io/slash/": user("slash"),
    "docker.io/library": user("library"),
    "quay.io/only/this": user("only"),
    "https://registry.example/team/app": user("url"),
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("host", "repository", "expected"),
    [
        ("ghcr.io", None, "host"),
        ("ghcr.io", "team", "team"),
        ("ghcr.io", "team/app", "app"),
        ("ghcr.io", "team/app/deep", "deep"),
        ("ghcr.io", "team/app/deep/er", "deep"),
        ("ghcr.io", "team/app/deeper", "app"),
        ("ghcr.io", "team/application", "team"),
        ("ghcr.io", "team/ap", "team"),
        ("ghcr.io", "teams/app", "host"),
        ("ghcr.io", "tea", "host"),
        ("ghcr.io", "my/team/app", "host"),
        ("ghcr.io", "slash/x", "slash"),
        ("docker.io", "library/alpine", "library"),
        ("registry-1.docker.io", "library/alpine", "library"),
        ("docker.io", "librarian/alpine", None),
        ("docker.io", None, None),
        ("quay.io", "only/this", "only"),
        ("quay.io", "only", None),
        ("quay.io", None, None),
        ("quay.io", "only/this/too", "only"),
        ("registry.example", None, "url"),
        ("registry.example", "other", "url"),
    ],
)
def test_lookup_several_namespaces_returns_longest(
    host: str, repository: str | None, expected: str | None, reverse: bool
) -> None:
    keys = sorted(NAMESPACED, reverse=reverse)
    assert username(config_of({"auths": {key: NAMESPACED[key] for key in keys}}), host, repository) == expected


@pytest.mark.parametrize(
    ("own", "other", "host"), [(HUB, "docker.io", "docker.io"), ("ghcr.io", "https://ghcr.io", "ghcr.io")]
)
def test_lookup_equal_keys_prefers_dockers_form(own: str, other: str, host: str) -> None:
    for keys in ((own, other), (other, own)):
        assert username(config_of({"auths": {key: user(key.replace(":", "")) for key in keys}}), host) == own.replace(
            ":", ""
        )


# --- auths: fields of an entry ---


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"auth": encoded()}, Credential(username="me", password=SECRET)),
        ({"auth": encoded(password="a:b:c")}, Credential(username="me", password="a:b:c")),
        ({"auth": encoded("müller", "☃ ")}, Credential(username="müller", password="☃ ")),
        ({"auth": encoded(password=f"{SECRET}\0")}, Credential(username="me", password=SECRET)),
        ({"auth": encoded(password=f"{SECRET}\0\0\0")}, Credential(username="me", password=SECRET)),
        ({"auth": encoded(password="a")}, Credential(username="me", password="a")),
        ({"auth": encoded(password="ab").rstrip("=")}, Credential(username="me", password="ab")),
        ({"auth": encoded(password="abc").rstrip("=")}, Credential(username="me", password="abc")),
        ({"auth": f" {encoded()[:5]}\t {encoded()[5:]}\n"}, Credential(username="me", password=SECRET)),
        ({"auth": encoded(password="~~~???>>>").translate(URL_SAFE)}, Credential(username="me", password="~~~???>>>")),
        ({"auth": encoded("_json_key", JSON_KEY)}, Credential(username="_json_key", password=JSON_KEY)),
        ({"username": "_json_key", "password": JSON_KEY}, Credential(username="_json_key", password=JSON_KEY)),
        ({"auth": encoded(password=f"\0{SECRET}")}, Credential(username="me", password=f"\0{SECRET}")),
        ({"identitytoken": f"{SECRET}\n"}, Credential(identity_token=f"{SECRET}\n")),
        ({"auth": encoded(""), "email": "x"}, Credential(username="", password=SECRET)),
        ({"username": "me", "password": SECRET}, Credential(username="me", password=SECRET)),
        ({"auth": "", "username": "me", "password": SECRET}, Credential(username="me", password=SECRET)),
        ({"auth": None, "username": "me", "password": SECRET}, Credential(username="me", password=SECRET)),
        ({"auth": encoded(), "username": "you", "password": "x"}, Credential(username="me", password=SECRET)),
        ({"identitytoken": SECRET}, Credential(identity_token=SECRET)),
        (
            {"auth": encoded(), "identitytoken": "id"},
            Credential(username="me", password=SECRET, identity_token="id"),
        ),
        ({"registrytoken": SECRET}, Credential(registry_token=SECRET)),
        ({"username": "me", "registrytoken": SECRET}, Credential(username="me", registry_token=SECRET)),
        ({}, None),
        ({"auth": ""}, None),
        ({"auth": None, "username": None, "password": None, "identitytoken": None, "registrytoken": None}, None),
        ({"username": "", "password": ""}, None),
        ({"email": "me@example.com"}, None),
    ],
)
def test_lookup_entry_returns_its_fields(entry: dict[str, Any], expected: Credential | None) -> None:
    credential = config_of({"auths": {"ghcr.io": entry}}).lookup("ghcr.io")
    assert credential == expected
    if credential is not None:
        assert "$DOCKER_AUTH_CONFIG" in credential.source
        assert "ghcr.io" in credential.source
        assert credential.expires_at is None


def test_lookup_identity_token_without_password_is_only_sent_by_post() -> None:
    # docker login writes this entry for Azure. It has no password for a GET.
    entry = {"auth": encoded("00000000-0000-0000-0000-000000000000", ""), "identitytoken": SECRET}
    challenge = Response(401, {"WWW-Authenticate": 'Bearer realm="https://ghcr.io/token"'})
    script = ScriptedTransport([challenge, Response(404)])
    transport = AuthTransport(script, credentials=config_of({"auths": {"ghcr.io": entry}}))
    with script, pytest.raises(AuthError, match=r"answered with status 404$"):
        transport.round_trip(Request("GET", "https://ghcr.io/v2/"))
    assert [request.method for request in script.requests] == ["GET", "POST"]
    body = script.requests[1].body
    assert body is not None
    assert f"refresh_token={SECRET}".encode() in b"".join(body.open())


def test_lookup_base64_with_line_breaks_is_decoded() -> None:
    # The decoder of Go, which docker uses, ignores them.
    text = encoded(password="x" * 80)
    credential = config_of({"auths": {"ghcr.io": {"auth": f"{text[:76]}\r\n{text[76:]}\n"}}}).lookup("ghcr.io")
    assert credential == Credential(username="me", password="x" * 80)


# --- explain ---


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        ({"auth": encoded()}, "password"),
        ({"username": "me", "password": SECRET}, "password"),
        ({"username": "me", "identitytoken": SECRET}, "identity"),
        ({"username": "me", "registrytoken": SECRET}, "registry"),
    ],
)
def test_explain_entry_names_file_and_entry(files: Files, entry: dict[str, str], kind: str) -> None:
    path = files.write("HOME", {"auths": {"ghcr.io": user("x"), "ghcr.io/team": entry}})
    explanation = files.config().explain("GHCR.io", "team/app")
    assert all(word in explanation for word in ("ghcr.io", "'me'", kind, str(path), "auths['ghcr.io/team']"))
    assert SECRET not in explanation
    assert encoded() not in explanation


def test_explain_without_entry_states_anonymous_access(files: Files) -> None:
    path = files.write("HOME", {"auths": {"ghcr.io": user("me")}})
    explanation = files.config().explain("quay.io")
    assert explanation.startswith("quay.io: anonymous")
    assert str(path) in explanation


def test_repr_shows_no_environment() -> None:
    assert SECRET not in repr(config_of({"auths": {"ghcr.io": {"username": "me", "password": SECRET}}}, TOKEN=SECRET))


# --- helpers ---


class Programs:
    """Installs credential helpers and records their input."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "bin"
        self.folder.mkdir()
        self.log = root / "log"

    def install(self, name: str, script: str, *, path: Path | None = None) -> Path:
        path = self.folder / f"docker-credential-{name}" if path is None else path
        path.write_text(
            f"#!/bin/sh\nserver=$(/bin/cat)\nprintf '%s %s\\n' \"$*\" \"$server\" >>'{self.log}'\n{script}\n"
        )
        path.chmod(0o755)
        return path

    def install_credential(
        self, name: str, username: object = "me", secret: object = SECRET, *, path: Path | None = None
    ) -> Path:
        return self.install(name, print_json({"ServerURL": "x", "Username": username, "Secret": secret}), path=path)

    @property
    def requests(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def config(self, content: Mapping[str, object], **env: str) -> DockerConfig:
        return config_of(content, **{"PATH": str(self.folder), **env})


def print_json(answer: object) -> str:
    text = json.dumps(answer)
    assert "'" not in text
    return f"printf '%s\\n' '{text}'"


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


STORE = {"credsStore": "vault"}
CRED_HELPER = {"credHelpers": {"ghcr.io": "vault"}}


@pytest.mark.parametrize(
    ("host", "server"),
    [
        ("ghcr.io", "ghcr.io"),
        ("GHCR.io:443", "ghcr.io"),
        ("localhost:5000", "localhost:5000"),
        ("docker.io", HUB),
        ("index.docker.io", HUB),
        ("registry-1.docker.io", HUB),
    ],
)
def test_helper_receives_host_on_stdin(programs: Programs, host: str, server: str) -> None:
    programs.install_credential("vault")
    credential = programs.config(STORE).lookup(host, "team/app")
    assert credential == Credential(username="me", password=SECRET)
    assert programs.requests == [f"get {server}"]


@pytest.mark.parametrize("key", ["ghcr.io", "https://ghcr.io", "GHCR.io:443", "ghcr.io/team"])
def test_lookup_cred_helper_precedes_store(programs: Programs, key: str) -> None:
    programs.install_credential("vault", "store")
    programs.install_credential("own", "own")
    config = programs.config({**STORE, "credHelpers": {key: "own"}, "auths": {"ghcr.io": user("file")}})
    assert username(config, "ghcr.io", "team/app") == "own"
    assert username(config, "quay.io", "team/app") == "store"


@pytest.mark.parametrize("key", ["docker.io", "index.docker.io", HUB, "registry-1.docker.io"])
def test_lookup_cred_helper_of_docker_hub_matches_any_alias(programs: Programs, key: str) -> None:
    programs.install_credential("own", "own")
    assert username(programs.config({"credHelpers": {key: "own"}}), "docker.io") == "own"
    assert programs.requests == [f"get {HUB}"]


def test_lookup_store_precedes_auths(programs: Programs) -> None:
    programs.install_credential("vault", "store")
    assert username(programs.config({**STORE, "auths": {"ghcr.io": user("file")}}), "ghcr.io") == "store"


def test_lookup_store_not_installed_is_skipped(programs: Programs) -> None:
    config = programs.config({**STORE, "auths": {"ghcr.io": user("file")}})
    assert username(config, "ghcr.io") == "file"
    assert config.lookup("quay.io") is None
    assert "auths" in config.explain("ghcr.io")


def test_lookup_cred_helper_not_installed_raises_auth_error(programs: Programs) -> None:
    programs.install_credential("vault", "store")
    config = programs.config({**STORE, "credHelpers": {"ghcr.io": "gone"}, "auths": {"ghcr.io": user("file")}})
    message = str(failure(config))
    assert "docker-credential-gone" in message
    assert "$DOCKER_AUTH_CONFIG" in message
    assert "credHelpers['ghcr.io']" in message
    assert username(config, "quay.io") == "store"


@pytest.mark.parametrize("store", ["", None])
def test_lookup_empty_store_name_is_ignored(programs: Programs, store: str | None) -> None:
    assert username(programs.config({"credsStore": store, "auths": {"ghcr.io": user("file")}}), "ghcr.io") == "file"


@pytest.mark.parametrize("value", [7, ["vault"], {"x": SECRET}, True])
def test_lookup_helper_not_string_raises_auth_error(programs: Programs, value: object) -> None:
    assert "credsStore" in str(failure(programs.config({"credsStore": value})))
    assert "credHelpers['ghcr.io']" in str(failure(programs.config({"credHelpers": {"ghcr.io": value}})))
    assert programs.config({"credHelpers": {"ghcr.io": value}}).lookup("quay.io") is None


@pytest.mark.parametrize(
    "name", ["../../x", "/x", "x/y", "./x", "a b", "x;y", "$(x)", "x\n", "\n", "x\0", "é", "x|y", "-x&", " "]
)
def test_lookup_helper_name_is_path_raises_auth_error(programs: Programs, tmp_path: Path, name: str) -> None:
    (programs.folder / "docker-credential-..").mkdir()
    programs.install_credential("x", path=tmp_path / "x")
    programs.install_credential("x", path=programs.folder / "x")
    for content, field in (({"credsStore": name}, "credsStore"), ({"credHelpers": {"ghcr.io": name}}, "credHelpers")):
        message = str(failure(programs.config(content)))
        assert field in message
        assert "$DOCKER_AUTH_CONFIG" in message
    assert programs.requests == []


@pytest.mark.parametrize("name", ["vault", "ecr-login", "osx_key.chain2", "A"])
def test_lookup_helper_name_valid_is_run(programs: Programs, name: str) -> None:
    programs.install_credential(name)
    assert username(programs.config({"credsStore": name}), "ghcr.io") == "me"


@pytest.mark.parametrize("path", ["", ":", ".", "bin", "./bin", "../here/bin", "::bin:", "/nonexistent:bin"])
def test_lookup_relative_path_entries_are_not_searched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    programs = Programs(here)
    programs.install_credential("vault")
    programs.install_credential("vault", path=here / "docker-credential-vault")
    monkeypatch.chdir(here)
    assert programs.config(STORE, PATH=path).lookup("ghcr.io") is None
    assert programs.requests == []
    assert username(programs.config(STORE, PATH=f"{path}:{programs.folder}"), "ghcr.io") == "me"


def test_lookup_uses_path_of_env(monkeypatch: pytest.MonkeyPatch, programs: Programs) -> None:
    programs.install_credential("vault")
    monkeypatch.setenv("PATH", str(programs.folder))
    assert config_of(STORE).lookup("ghcr.io") is None
    assert programs.requests == []


def test_helper_runs_with_env(monkeypatch: pytest.MonkeyPatch, programs: Programs) -> None:
    programs.install("vault", """printf '{"Username": "%s/%s", "Secret": "x"}' "$MINE" "$PROCESS" """)
    monkeypatch.setenv("PROCESS", "seen")
    assert username(programs.config(STORE, MINE="mine"), "ghcr.io") == "mine/"


def test_lookup_helper_not_executable_is_skipped(programs: Programs) -> None:
    programs.install_credential("vault").chmod(0o644)
    assert username(programs.config({**STORE, "auths": {"ghcr.io": user("file")}}), "ghcr.io") == "file"


@pytest.mark.parametrize("content", ["echo no interpreter line\n", "#!/nonexistent/interpreter\n", "\x7fELF?"])
def test_lookup_helper_cannot_run_raises_auth_error(programs: Programs, content: str) -> None:
    path = programs.install_credential("vault")
    path.write_text(content)
    message = str(failure(programs.config(CRED_HELPER)))
    assert str(path) in message


def test_helper_username_token_returns_identity_token(programs: Programs) -> None:
    programs.install_credential("vault", "<token>")
    credential = programs.config(STORE).lookup("ghcr.io")
    assert credential == Credential(identity_token=SECRET)
    assert credential is not None
    assert credential.username is None


@pytest.mark.parametrize("status", [1, 2, 255])
@pytest.mark.parametrize(
    "text", ["credentials not found in native keychain", "Credentials Not Found", "credentials not found"]
)
def test_helper_credentials_not_found_returns_none(programs: Programs, text: str, status: int) -> None:
    programs.install("vault", f"echo '{text}'; exit {status}")
    config = programs.config({**STORE, "auths": {"quay.io": user("file")}})
    assert config.lookup("ghcr.io") is None
    explanation = config.explain("ghcr.io")
    assert "anonymous" in explanation
    assert "docker-credential-vault" in explanation


def test_helper_writes_stderr_is_ignored(programs: Programs) -> None:
    noise = f"i=0; while [ $i -lt 3000 ]; do echo 'warning: {SECRET} is not JSON' >&2; i=$((i+1)); done"
    programs.install("vault", f"{noise}\n{print_json({'Username': 'me', 'Secret': SECRET})}\n{noise}")
    assert programs.config(STORE).lookup("ghcr.io") == Credential(username="me", password=SECRET)


@pytest.mark.parametrize(
    "script",
    [
        "exit 3",
        f"echo {SECRET}; exit 1",
        f"echo {SECRET} >&2; exit 1",
        "echo credentials not found >&2; exit 1",
        f"{print_json({'Username': 'me', 'Secret': SECRET})}; exit 1",
        "kill -9 $$",
        f"echo {SECRET}; kill -15 $$",
    ],
)
def test_helper_exits_nonzero_raises_auth_error(programs: Programs, script: str) -> None:
    programs.install("vault", script)
    message = str(failure(programs.config({**CRED_HELPER, "auths": {"ghcr.io": user("file")}})))
    assert "docker-credential-vault" in message
    assert "ghcr.io" in message


@pytest.mark.parametrize(
    "script",
    [
        "",
        f"echo {SECRET}",
        f"echo '\"{SECRET}\"'",
        f"echo '[\"{SECRET}\"]'",
        "echo null",
        f'echo \'{{"Secret": "{SECRET}"\'',
        f"printf '{SECRET}\\377'",
        f"echo 'warning: {SECRET}'; {print_json({'Username': 'me', 'Secret': SECRET})}",
        print_json({"Username": "me", "Secret": SECRET}) * 2,
        print_json({}),
        print_json({"Username": "me"}),
        print_json({"Secret": SECRET}),
        print_json({"Username": None, "Secret": SECRET}),
        print_json({"Username": ["me"], "Secret": SECRET}),
        print_json({"Username": "me", "Secret": [SECRET]}),
        print_json({"Username": "me", "Secret": {"x": SECRET}}),
        print_json({"Username": SECRET, "Secret": 7}),
        print_json({"username": "me", "secret": SECRET}),
        print_json({"Username": "a:b", "Secret": SECRET}),
        print_json({"Username": "me\n", "Secret": SECRET}),
        print_json({"Username": "<token>", "Secret": f"{SECRET}\udc80"}),
        print_json({"Username": "me", "Secret": f"{SECRET}\udc80"}),
        f"printf '%0100000d{SECRET}' 0",
        "echo credentials not found",
    ],
)
def test_helper_invalid_output_raises_auth_error(programs: Programs, script: str) -> None:
    programs.install("vault", script)
    assert "docker-credential-vault" in str(failure(programs.config(CRED_HELPER)))


def test_helper_does_not_read_stdin_returns_credential(programs: Programs) -> None:
    path = programs.folder / "docker-credential-vault"
    path.write_text(f"#!/bin/sh\nexec <&-\n{print_json({'Username': 'me', 'Secret': SECRET})}\n")
    path.chmod(0o755)
    assert username(programs.config(STORE), "ghcr.io") == "me"


def test_explain_helper_names_it(programs: Programs) -> None:
    programs.install_credential("vault")
    programs.install_credential("own", "<token>")
    config = programs.config({**STORE, "credHelpers": {"ghcr.io": "own"}})
    explanation = {host: config.explain(host) for host in ("ghcr.io", "quay.io")}
    assert all(word in explanation["quay.io"] for word in ("quay.io", "'me'", "docker-credential-vault", "credsStore"))
    assert all(
        word in explanation["ghcr.io"] for word in ("identity", "docker-credential-own", "credHelpers['ghcr.io']")
    )
    assert all("$DOCKER_AUTH_CONFIG" in text and SECRET not in text for text in explanation.values())
    credential = config.lookup("ghcr.io")
    assert credential is not None
    assert "docker-credential-own" in credential.source


# --- cached answers of helpers ---


@pytest.mark.parametrize(
    "script", [print_json({"Username": "me", "Secret": SECRET}), "echo credentials not found; exit 1"]
)
def test_helper_answer_is_cached_for_a_minute(programs: Programs, clock: FakeClock, script: str) -> None:
    programs.install("vault", script)
    config = programs.config(STORE)
    first = config.lookup("ghcr.io")
    clock.now += 59.9
    assert config.lookup("ghcr.io", "other/repository") == first
    assert programs.requests == ["get ghcr.io"]
    config.lookup("quay.io")
    assert programs.requests == ["get ghcr.io", "get quay.io"]
    clock.now += 0.2
    assert config.lookup("ghcr.io") == first
    assert programs.requests == ["get ghcr.io", "get quay.io", "get ghcr.io"]


def test_helper_new_answer_is_used_after_a_minute(programs: Programs, clock: FakeClock) -> None:
    programs.install_credential("vault", "old")
    config = programs.config(STORE)
    assert username(config, "ghcr.io") == "old"
    programs.install_credential("vault", "new")
    assert username(config, "ghcr.io") == "old"
    clock.now += 60.1
    assert username(config, "ghcr.io") == "new"


def test_helper_failure_is_not_cached(programs: Programs, clock: FakeClock) -> None:
    programs.install("vault", "exit 1")
    config = programs.config(CRED_HELPER)
    failure(config)
    programs.install_credential("vault")
    assert username(config, "ghcr.io") == "me"


# --- helpers that do not exit ---


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Path]:
    """Named pipe that is empty until the test ends."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR)
    yield path
    os.close(end)


@pytest.fixture
def helper_processes(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """Record the processes of helpers, and set their timeout to 0.2 s."""
    processes: list[subprocess.Popen[bytes]] = []

    class RecordedPopen(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            processes.append(self)

    monkeypatch.setattr(subprocess, "Popen", RecordedPopen)
    monkeypatch.setattr(helper, "_TIMEOUT", 0.2)
    return processes


BlockingScript = Callable[[Path], str]


@pytest.mark.parametrize(
    "blocking_script",
    [
        pytest.param(lambda fifo: f"read -r x <'{fifo}'", id="no_output"),
        pytest.param(lambda fifo: f"echo {SECRET}; echo {SECRET} >&2; read -r x <'{fifo}'", id="partial_output"),
        pytest.param(lambda fifo: f"exec 3<'{fifo}'; echo {SECRET}; read -r x <&3 & exit 0", id="grandchild"),
        pytest.param(lambda fifo: f"exec 3<'{fifo}'; trap '' TERM INT HUP; read -r x <&3", id="ignores_signals"),
    ],
)
def test_helper_times_out_is_killed(
    programs: Programs, fifo: Path, helper_processes: list[subprocess.Popen[bytes]], blocking_script: BlockingScript
) -> None:
    programs.install("vault", blocking_script(fifo))
    message = str(failure(programs.config(CRED_HELPER)))
    assert "docker-credential-vault" in message
    assert "ghcr.io" in message
    assert len(helper_processes) == 2  # failures are not cached, so `explain` calls the helper again
    for process in helper_processes:
        assert process.returncode is not None
        assert all(pipe is not None and pipe.closed for pipe in (process.stdin, process.stdout))
        assert process.stderr is None


@pytest.mark.usefixtures("helper_processes")
def test_helper_timed_out_is_called_again(programs: Programs, fifo: Path) -> None:
    programs.install("vault", f"read -r x <'{fifo}'")
    config = programs.config(CRED_HELPER)
    failure(config)
    programs.install_credential("vault")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(helper, "_TIMEOUT", 60.0)
        assert username(config, "ghcr.io") == "me"


def test_helper_floods_stdout_is_killed(programs: Programs) -> None:
    programs.install(
        "vault", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done"
    )
    assert f"more than {1024 * 1024} bytes" in str(failure(programs.config(CRED_HELPER)))


def test_helper_floods_stderr_returns_credential(programs: Programs) -> None:
    noise = "/bin/dd if=/dev/zero bs=65536 count=64 >&2 2>/dev/null"
    programs.install("vault", f"{noise}\n{print_json({'Username': 'me', 'Secret': SECRET})}")
    assert username(programs.config(CRED_HELPER), "ghcr.io") == "me"


@pytest.mark.usefixtures("helper_processes")
def test_helper_closes_pipes_without_exit_is_killed(programs: Programs, fifo: Path) -> None:
    programs.install("vault", f"exec 3<'{fifo}' >&- 2>&-; read -r x <&3")
    assert "did not answer" in str(failure(programs.config(CRED_HELPER)))


def test_helper_password_with_line_breaks_returns_it(programs: Programs) -> None:
    programs.install("vault", "printf '%s' '" + json.dumps({"Username": "_json_key", "Secret": JSON_KEY}) + "'")
    assert programs.config(STORE).lookup("ghcr.io") == Credential(username="_json_key", password=JSON_KEY)


# --- Windows ---


def test_lookup_without_posix_flags_reads_file(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_NONBLOCK")
    monkeypatch.delattr(os, "O_CLOEXEC")
    files.write("HOME", {"auths": {"ghcr.io": user("me")}})
    assert username(files.config(), "ghcr.io") == "me"


def test_lookup_without_home_reads_below_userprofile(files: Files) -> None:
    files.write("HOME", {"auths": {"ghcr.io": user("me")}})
    assert username(DockerConfig.load(env={"USERPROFILE": files.env["HOME"]}), "ghcr.io") == "me"


def test_lookup_path_is_split_at_separator_of_system(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    programs.install_credential("vault")
    monkeypatch.setattr(os, "pathsep", ";")
    assert username(programs.config(STORE, PATH=f"bin;{programs.folder};/nonexistent"), "ghcr.io") == "me"


def test_helper_on_windows_raises_auth_error(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    programs.install_credential("vault")
    monkeypatch.setattr(helper, "_CAN_SELECT_PIPES", False)
    message = str(failure(programs.config(CRED_HELPER)))
    assert "docker-credential-vault: credential helpers are not supported on Windows, pass credentials=" in message
    config = programs.config(STORE)
    assert config.lookup("ghcr.io") is None
    assert "not supported on Windows" in str(config.failure("ghcr.io"))
    assert programs.requests == []


def test_import_auth_without_posix_modules_succeeds() -> None:
    """Windows has neither these modules nor these flags of `os`."""
    script = """
import os, sys
sys.modules.update(dict.fromkeys(("fcntl", "pwd", "grp", "resource", "termios")))
del os.O_NONBLOCK, os.O_CLOEXEC
import ociwire.auth
assert all(getattr(ociwire.auth, name) for name in ociwire.auth.__all__)
assert ociwire.auth.DockerConfig(env={}).lookup("ghcr.io") is None
"""
    subprocess.run([sys.executable, "-c", script], check=True)


# --- failing stores ---


FAILING_SCRIPTS = [
    "exit 3",
    f"echo {SECRET}; exit 1",
    f"echo '{SECRET}'",
    print_json({"Username": "a:b", "Secret": SECRET}),
    "kill -9 $$",
]


def failure_of_store(config: DockerConfig) -> AuthError:
    """Return the failure of a store. Check that it contains no secret."""
    error = config.failure("ghcr.io")
    assert error is not None
    assert SECRET not in format_all(error)
    return error


@pytest.mark.parametrize("script", FAILING_SCRIPTS)
def test_lookup_failing_store_returns_none_and_logs_warning(
    programs: Programs, caplog: pytest.LogCaptureFixture, script: str
) -> None:
    programs.install("vault", script)
    config = programs.config({**STORE, "auths": {"ghcr.io": user("file")}})
    assert config.lookup("ghcr.io") is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "docker-credential-vault" in caplog.text
    assert SECRET not in caplog.text
    message = str(failure_of_store(config))
    assert all(word in message for word in ("docker-credential-vault", "credsStore", "$DOCKER_AUTH_CONFIG"))
    assert config.explain("ghcr.io").startswith("ghcr.io: anonymous (the credential helper docker-credential-vault")


def test_failure_of_store_is_cached_for_a_minute(
    programs: Programs, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    programs.install("vault", "exit 1")
    config = programs.config(STORE)
    for _ in range(3):
        assert config.lookup("ghcr.io") is None
        assert config.failure("ghcr.io") is not config.failure("ghcr.io")  # a new exception for each caller
    clock.now += 59.9
    assert config.failure("ghcr.io") is not None
    assert programs.requests == ["get ghcr.io"]
    assert len(caplog.records) == 1
    programs.install_credential("vault")
    assert config.lookup("ghcr.io") is None
    clock.now += 0.2
    assert config.failure("ghcr.io") is None
    assert username(config, "ghcr.io") == "me"


def test_failure_store_still_fails_after_a_minute_returns_error(programs: Programs, clock: FakeClock) -> None:
    programs.install("vault", "exit 1")
    config = programs.config(STORE)
    assert config.lookup("ghcr.io") is None
    clock.now += 3600
    assert config.failure("ghcr.io") is not None


def test_lookup_failing_store_reads_later_file(files: Files, programs: Programs) -> None:
    programs.install("vault", "exit 1")
    files.write("HOME", STORE)
    files.write("XDG_RUNTIME_DIR", {"auths": {"ghcr.io": user("podman")}})
    config = files.config(PATH=str(programs.folder))
    assert username(config, "ghcr.io") == "podman"
    assert config.failure("ghcr.io") is None
    assert config.failure("quay.io") is not None


@pytest.mark.parametrize(
    "content",
    [{}, {"credsStore": "gone"}, {"auths": {"ghcr.io": user("me")}}, {"credsStore": "", "auths": {"ghcr.io": {}}}],
)
def test_failure_without_failing_helper_returns_none(programs: Programs, content: dict[str, Any]) -> None:
    assert programs.config(content).failure("ghcr.io") is None


def test_failure_of_cred_helper_is_also_raised_by_lookup(programs: Programs) -> None:
    programs.install("vault", "exit 1")
    config = programs.config(CRED_HELPER)
    assert "docker-credential-vault" in str(failure(config))
    assert "docker-credential-vault" in str(failure_of_store(config))


@pytest.mark.parametrize("script", ["echo credentials not found; exit 1", print_json({"Username": "", "Secret": ""})])
def test_lookup_store_without_credentials_reads_next_file(files: Files, programs: Programs, script: str) -> None:
    programs.install("vault", script)
    files.write("HOME", STORE)
    files.write("XDG_CONFIG_HOME", {"auths": {"ghcr.io": user("podman")}})
    config = files.config(PATH=str(programs.folder))
    assert username(config, "ghcr.io") == "podman"
    assert config.failure("quay.io") is None


def test_lookup_cred_helper_without_credentials_ends_search(files: Files, programs: Programs) -> None:
    programs.install("vault", "echo credentials not found; exit 1")
    files.write("HOME", CRED_HELPER)
    files.write("XDG_CONFIG_HOME", {"auths": {"ghcr.io": user("podman")}})
    assert files.config(PATH=str(programs.folder)).lookup("ghcr.io") is None
