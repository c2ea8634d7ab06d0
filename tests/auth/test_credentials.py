"""`Credential`, `Anonymous`, `StaticCredentials` and `ChainedCredentials`."""

from __future__ import annotations

import base64
import copy
import dataclasses
import doctest
import pickle
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from ociwire._oci.reference import registry_name
from ociwire._oci.scope import Scope
from ociwire.auth import Anonymous, ChainedCredentials, Credential, CredentialSource, DockerConfig, StaticCredentials
from ociwire.auth import credentials as credentials_module
from ociwire.auth.credentials import as_credential_source, first_repository
from ociwire.errors import AuthError, UsageError

SECRET = "sEcReT-42"
ME = Credential(username="me", password=SECRET)
OTHER = Credential(username="other", password="x")
FULL = Credential(
    username="me",
    password=SECRET,
    identity_token=f"{SECRET}-identity",
    registry_token=f"{SECRET}-registry",
    expires_at=1e9,
    source="the vault",
)


class RecordingSource:
    """Source that returns a fixed credential and records its arguments."""

    def __init__(self, answer: Credential | Exception | None) -> None:
        self.answer = answer
        self.lookups: list[tuple[str, str | None]] = []

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        self.lookups.append((host, repository))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


# --- Credential ---


def test_credential_without_fields_has_no_secrets() -> None:
    empty = Credential()
    assert (empty.username, empty.password, empty.identity_token, empty.registry_token) == (None, None, None, None)
    assert (empty.expires_at, empty.source, empty.basic, empty.secrets()) == (None, "", None, ())


@pytest.mark.parametrize(
    "fields",
    [
        {"username": 1},
        {"username": b"me"},
        {"username": "me", "password": b"secret"},
        {"username": "me", "password": 7},
        {"identity_token": b"x"},
        {"registry_token": ["x"]},
        {"username": "a:b", "password": SECRET},
        {"username": "a:b"},
        {"password": SECRET},
        {"password": ""},
        {"username": "me\n"},
        {"username": "me\t", "password": SECRET},
        {"username": "me\0", "password": SECRET},
        {"username": "me\udc80", "password": SECRET},
        {"username": "me", "password": f"{SECRET}\udc80"},
        {"identity_token": f"{SECRET}\udc80"},
        {"registry_token": f"{SECRET}\n"},
        {"registry_token": f"{SECRET} x"},
        {"registry_token": f"{SECRET}é"},
        {"registry_token": ""},
        {"expires_at": "tomorrow"},
        {"expires_at": True},
        {"expires_at": timedelta(seconds=1)},
        {"expires_at": datetime(2030, 1, 1)},
    ],
)
def test_credential_unsendable_field_raises_usage_error(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        Credential(**fields)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "fields",
    [
        {"username": "me"},
        {"username": "me", "password": ""},
        {"username": "", "password": SECRET},
        {"username": "me", "password": "a:b:c"},
        {"username": "müller", "password": "☃ and spaces "},
        {"identity_token": SECRET},
        {"registry_token": SECRET},
        {"username": "me", "identity_token": SECRET},
        {"username": "_json_key", "password": '{\n\t"private_key": "-----BEGIN\\n"\r\n}\n'},
        {"username": "me", "password": "\0\x07\x1b\x7f\x85\u2028\u202e\U0001f511"},
        {"identity_token": f"{SECRET}\r\n☃"},
    ],
)
def test_credential_sendable_field_is_accepted(fields: dict[str, Any]) -> None:
    credential = Credential(**fields)
    assert all(getattr(credential, name) == value for name, value in fields.items())


def test_credential_takes_user_name_and_password_by_position_and_is_frozen() -> None:
    assert Credential("me", SECRET) == Credential(username="me", password=SECRET)
    with pytest.raises(TypeError):
        Credential("me", SECRET, "identity")  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        ME.username = "you"  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        ME.nickname = "you"  # type: ignore[attr-defined]


def test_basic_unicode_is_utf_8_in_base64() -> None:
    basic = Credential(username="müller", password="a:☃").basic
    assert basic is not None
    scheme, _, encoded = basic.partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(encoded, validate=True).decode() == "müller:a:☃"


@pytest.mark.parametrize(
    ("credential", "has_basic"),
    [
        (Credential(username="me"), False),
        (Credential(identity_token="x"), False),
        (Credential(registry_token="x"), False),
        (Credential(username="me", password=""), True),
        (Credential(username="", password="x"), True),
    ],
)
def test_basic_without_username_or_password_is_none(credential: Credential, has_basic: bool) -> None:
    assert (credential.basic is not None) == has_basic


def test_repr_shows_no_secret() -> None:
    shown = f"{FULL!r} {FULL} {[FULL]} {StaticCredentials('ghcr.io', FULL)!r} {FULL.__format__('')}"
    assert SECRET not in shown
    assert base64.b64encode(f"me:{SECRET}".encode()).decode() not in shown
    assert "username='me'" in repr(FULL)
    for kind in ("password", "identity_token", "registry_token"):
        assert f"{kind}=***" in repr(FULL)
        assert kind not in repr(Credential(username="me"))


def test_secrets_returns_every_sent_form() -> None:
    encoded = base64.b64encode(f"me:{SECRET}".encode()).decode()
    assert set(FULL.secrets()) == {SECRET, f"{SECRET}-identity", f"{SECRET}-registry", encoded}
    assert Credential(username="me").secrets() == ()
    assert Credential(username="me", password="").secrets() == (base64.b64encode(b"me:").decode(),)


def test_credential_other_expiry_or_source_compares_equal() -> None:
    later = dataclasses.replace(FULL, expires_at=2e9, source="elsewhere")
    assert later == FULL
    assert hash(later) == hash(FULL)
    assert (later.expires_at, later.source) == (2e9, "elsewhere")


@pytest.mark.parametrize("field", ["username", "password", "identity_token", "registry_token"])
def test_credential_other_secret_compares_unequal(field: str) -> None:
    changes: dict[str, Any] = {field: "different"}
    assert dataclasses.replace(FULL, **changes) != FULL
    assert Credential(username="me", password="") != Credential(username="me")


def test_credential_pickled_or_copied_keeps_all_fields() -> None:
    for again in (pickle.loads(pickle.dumps(FULL)), copy.deepcopy(FULL), copy.copy(FULL)):
        assert again == FULL
        assert (again.expires_at, again.source) == (FULL.expires_at, FULL.source)


@pytest.mark.parametrize(
    ("given", "timestamp"),
    [
        (None, None),
        (0, 0.0),
        (1234567890, 1234567890.0),
        (1234567890.5, 1234567890.5),
        (datetime(2009, 2, 13, 23, 31, 30, tzinfo=timezone.utc), 1234567890.0),
        (datetime(2009, 2, 14, 1, 31, 30, tzinfo=timezone(timedelta(hours=2))), 1234567890.0),
    ],
)
def test_expires_at_number_or_datetime_is_timestamp(given: Any, timestamp: float | None) -> None:
    assert Credential(expires_at=given).expires_at == timestamp


@pytest.mark.parametrize("far", [10**400, -(10**400), float("nan")], ids=["future", "past", "nan"])
def test_expires_at_invalid_raises_usage_error(far: int) -> None:
    with pytest.raises(UsageError):
        Credential(expires_at=far)


# --- names of registries ---


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("ghcr.io", "ghcr.io"),
        ("GHCR.IO", "ghcr.io"),
        ("ghcr.io:443", "ghcr.io"),
        ("ghcr.io:80", "ghcr.io:80"),
        ("ghcr.io:5000", "ghcr.io:5000"),
        ("ghcr.io:8443", "ghcr.io:8443"),
        ("ghcr.io:4430", "ghcr.io:4430"),
        ("localhost:5000", "localhost:5000"),
        ("[::1]", "[::1]"),
        ("[::1]:443", "[::1]"),
        ("[::443]", "[::443]"),
        ("[2001:DB8::80]:5000", "[2001:db8::80]:5000"),
        ("docker.io", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("Registry-1.Docker.IO:443", "docker.io"),
        ("docker.io:5000", "docker.io:5000"),
        ("auth.docker.io", "auth.docker.io"),
        ("evil-docker.io", "evil-docker.io"),
        ("docker.io.evil.example", "docker.io.evil.example"),
    ],
)
def test_registry_name_valid_host_is_normalized(host: str, name: str) -> None:
    assert registry_name(host) == name
    assert registry_name(name) == name


@pytest.mark.parametrize("host", ["", "https://ghcr.io", "ghcr.io/x", "a b", "me@ghcr.io", "h:1:2", "h:99999", None, 5])
def test_registry_name_invalid_host_raises_usage_error(host: Any) -> None:
    with pytest.raises(UsageError):
        registry_name(host)


# --- sources ---


def test_anonymous_any_host_returns_none() -> None:
    assert Anonymous().lookup("ghcr.io") is None
    assert Anonymous().lookup("docker.io", "library/alpine") is None


@pytest.mark.parametrize("bound", ["docker.io", "index.docker.io", "registry-1.docker.io", "REGISTRY-1.docker.io:443"])
@pytest.mark.parametrize("host", ["docker.io", "index.docker.io", "registry-1.docker.io"])
def test_static_credentials_docker_hub_alias_returns_credential(bound: str, host: str) -> None:
    assert StaticCredentials(bound, ME).lookup(host, "library/alpine") is ME


@pytest.mark.parametrize(
    ("bound", "host", "is_found"),
    [
        ("ghcr.io", "ghcr.io", True),
        ("GHCR.io", "ghcr.io", True),
        ("ghcr.io:443", "ghcr.io", True),
        ("ghcr.io", "ghcr.io:443", True),
        ("ghcr.io:5000", "ghcr.io:5000", True),
        ("ghcr.io:5000", "ghcr.io", False),
        ("ghcr.io", "ghcr.io:5000", False),
        ("ghcr.io", "sub.ghcr.io", False),
        ("ghcr.io", "ghcr.io.evil.example", False),
        ("ghcr.io", "xghcr.io", False),
        ("ghcr.io", "docker.io", False),
        ("docker.io", "auth.docker.io", False),
        ("docker.io", "ghcr.io", False),
        ("[::1]:5000", "[::1]:5000", True),
        ("[::1]:5000", "[::1]", False),
        ("localhost:5000", "127.0.0.1:5000", False),
    ],
)
def test_static_credentials_other_host_returns_none(bound: str, host: str, is_found: bool) -> None:
    assert StaticCredentials(bound, ME).lookup(host) is (ME if is_found else None)
    assert StaticCredentials(bound, ME).lookup(host, "app") is (ME if is_found else None)


@pytest.mark.parametrize("host", ["", "https://ghcr.io", "ghcr.io/app", "*", "me@ghcr.io", None])
def test_static_credentials_invalid_host_raises_usage_error(host: Any) -> None:
    with pytest.raises(UsageError):
        StaticCredentials(host, ME)


@pytest.mark.parametrize("credential", [None, "secret", ("me", SECRET), {"username": "me"}, Credential])
def test_static_credentials_wrong_type_raises_usage_error(credential: Any) -> None:
    with pytest.raises(UsageError) as caught:
        StaticCredentials("ghcr.io", credential)
    assert SECRET not in str(caught.value)


def test_chain_several_sources_returns_first_credential() -> None:
    without, first, second = RecordingSource(None), RecordingSource(ME), RecordingSource(OTHER)
    chain = ChainedCredentials([without, first, second])
    assert chain.lookup("ghcr.io", "app") is ME
    assert without.lookups == first.lookups == [("ghcr.io", "app")]
    assert second.lookups == []


def test_chain_without_credential_returns_none() -> None:
    assert ChainedCredentials([]).lookup("ghcr.io") is None
    assert ChainedCredentials([Anonymous(), StaticCredentials("ghcr.io", ME)]).lookup("quay.io") is None


class FailingSource:
    """Source without credentials, because it failed."""

    def __init__(self, text: str | None) -> None:
        self._text = text

    def lookup(self, host: str, repository: str | None = None, /) -> Credential | None:
        return None

    def failure(self, host: str, repository: str | None = None, /) -> AuthError | None:
        return None if self._text is None else AuthError(f"{self._text} {host} {repository}")


def test_chain_failure_returns_first_failure() -> None:
    chain = ChainedCredentials([Anonymous(), FailingSource(None), FailingSource("first"), FailingSource("second")])
    assert chain.lookup("ghcr.io", "app") is None
    assert str(chain.failure("ghcr.io", "app")) == "first ghcr.io app"
    assert str(ChainedCredentials([chain]).failure("ghcr.io")) == "first ghcr.io None"
    assert ChainedCredentials([Anonymous(), RecordingSource(None)]).failure("ghcr.io") is None


def test_chain_empty_credential_ends_search() -> None:
    empty = Credential()
    assert ChainedCredentials([RecordingSource(empty), RecordingSource(ME)]).lookup("ghcr.io") is empty


def test_chain_from_iterator_can_be_used_twice() -> None:
    def sources() -> Iterator[CredentialSource]:
        yield Anonymous()
        yield StaticCredentials("ghcr.io", ME)

    chain = ChainedCredentials(sources())
    assert [chain.lookup("ghcr.io") for _ in range(2)] == [ME, ME]


@pytest.mark.parametrize("error", [AuthError("broken"), ValueError("broken"), KeyError("x")])
def test_chain_source_raises_propagates(error: Exception) -> None:
    later = RecordingSource(ME)
    with pytest.raises(type(error)) as caught:
        ChainedCredentials([Anonymous(), RecordingSource(error), later]).lookup("ghcr.io")
    assert caught.value is error
    assert later.lookups == []


def test_chain_repr_shows_no_secret() -> None:
    shown = repr(ChainedCredentials([Anonymous(), StaticCredentials("ghcr.io", FULL)]))
    assert SECRET not in shown
    assert "ghcr.io" in shown


@pytest.mark.parametrize(
    "source",
    [None, "me:secret", ("me", SECRET), {"ghcr.io": ME}, ME, DockerConfig, StaticCredentials, lambda host: ME, 5],
)
def test_as_credential_source_without_lookup_raises_usage_error(source: Any) -> None:
    with pytest.raises(UsageError) as caught:
        as_credential_source(source)
    assert SECRET not in str(caught.value)
    with pytest.raises(UsageError):
        ChainedCredentials([Anonymous(), source])


def test_as_credential_source_credential_raises_usage_error_with_advice() -> None:
    with pytest.raises(UsageError, match=r"got Credential: use StaticCredentials\(host, credential\)$"):
        as_credential_source(ME)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "source",
    [Anonymous(), StaticCredentials("ghcr.io", ME), ChainedCredentials([]), DockerConfig(), RecordingSource(None)],
)
def test_as_credential_source_with_lookup_returns_it(source: CredentialSource) -> None:
    assert isinstance(source, CredentialSource)
    assert as_credential_source(source) is source


@pytest.mark.parametrize(
    ("scope", "repository"),
    [
        (Scope.EMPTY, None),
        (Scope.UNLIMITED, None),
        (Scope.CATALOG, None),
        (Scope.repository("app", "pull"), "app"),
        (Scope.parse("repository:z:pull,push repository:a:pull"), "z"),
        (Scope.repository("z", "push") | Scope.repository("a", "pull"), "z"),
        (Scope.parse("registry:catalog:* repository:a/b:pull"), "a/b"),
        (Scope.parse("nonsense repository repository:x repository:a:pull"), "a"),
    ],
)
def test_first_repository_scope_returns_first_in_text(scope: Scope, repository: str | None) -> None:
    assert first_repository(scope) == repository


def test_docstring_examples_of_module_are_true() -> None:
    results = doctest.testmod(credentials_module)
    assert results.attempted > 0
    assert results.failed == 0
