"""The exception hierarchy: documented tree, messages and pickling."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Iterator
from typing import Any

import pytest

from ociwire import errors
from ociwire._http.body import Body
from ociwire._http.headers import Headers
from ociwire._http.messages import Request, RequestInfo
from ociwire._oci.descriptor import Descriptor
from ociwire._oci.scope import Scope
from ociwire.errors import (
    AuthError,
    AuthTimeout,
    BodyConsumedError,
    ConnectError,
    CredentialsRejected,
    DigestMismatch,
    OciwireError,
    ReferrersUpdateError,
    RegistryError,
    SizeMismatch,
    TooManyRequests,
    TransportError,
    TransportTimeout,
    UsageError,
)

# A line of the tree: indentation of four spaces per level, name, other base in brackets, remark after two spaces.
BRANCH = re.compile(r" {4}((?:│   |    )*(?:[├└]── )?)([A-Z]\w+)(?:\((\w+)\))?(?: {2,}\S.*)?")

CLASSES = [found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, OciwireError)]
REQUEST = Request(
    "GET", "https://ghcr.io/v2/", {"Accept": "*/*"}, info=RequestInfo(required_scope=Scope.CATALOG, operation="x")
)


def drawn_tree() -> dict[str, tuple[str, ...]]:
    """Return each class in the docstring's tree with the names of its bases, in order."""
    tree: dict[str, tuple[str, ...]] = {}
    ancestors: list[str] = []
    for match in filter(None, map(BRANCH.fullmatch, (errors.__doc__ or "").splitlines())):
        branch, name, other_base = match.groups()
        depth = len(branch) // 4
        ancestors[depth:] = [name]
        parent = ancestors[depth - 1] if depth else "Exception"
        tree[name] = (parent, other_base) if other_base else (parent,)
    return tree


def attributes_of(kind: type[OciwireError], request: Request) -> dict[str, Any]:
    """Return a value that is not the default for each attribute that the docstring of a class lists."""
    attributes: dict[str, Any] = {}
    if issubclass(kind, TransportError):
        attributes = {"request": request}
    elif issubclass(kind, CredentialsRejected):
        attributes = {"host": "ghcr.io", "realm": "https://ghcr.io/token", "status": 401}
    elif issubclass(kind, DigestMismatch):
        attributes = {"expected": "sha256:a", "actual": "sha256:b"}
    elif issubclass(kind, SizeMismatch):
        attributes = {"expected": 3, "actual": 4}
    elif issubclass(kind, ReferrersUpdateError):
        attributes = {"descriptor": Descriptor.of(b"manifest")}
    elif issubclass(kind, RegistryError):
        attributes = {
            "status": 429,
            "code": "TOOMANYREQUESTS",
            "detail": {"limit": [1]},
            "errors": ({"code": "TOOMANYREQUESTS"}, {"code": "DENIED"}),
            "headers": Headers({"Retry-After": "3"}),
            "body": b"{}",
            "request": request,
        }
    return attributes


def example(kind: type[OciwireError], request: Request = REQUEST) -> Any:
    error = kind("it went wrong", **attributes_of(kind, request))
    if isinstance(error, TooManyRequests):
        error.retry_after = 3.0
    return error


def chunks() -> Iterator[bytes]:
    yield b"abc"


def test_docstring_tree_matches_classes() -> None:
    assert drawn_tree() == {kind.__name__: tuple(base.__name__ for base in kind.__bases__) for kind in CLASSES}


def test_all_lists_classes_in_order_of_tree() -> None:
    assert errors.__all__ == list(drawn_tree())


@pytest.mark.parametrize("kind", CLASSES)
def test_class_has_own_docstring(kind: type[OciwireError]) -> None:
    assert kind.__dict__.get("__doc__")


@pytest.mark.parametrize(
    ("kind", "caught_as"),
    [
        (UsageError, ValueError),
        (ConnectError, ConnectionError),
        (ConnectError, OSError),
        (TransportTimeout, TimeoutError),
        (BodyConsumedError, TransportError),
        (TooManyRequests, RegistryError),
    ],
)
def test_error_is_caught_as_builtin(kind: type[OciwireError], caught_as: type[Exception]) -> None:
    with pytest.raises(caught_as, match=r"^it went wrong$|429 Too Many Requests: toomanyrequests: it went wrong"):
        raise example(kind)


@pytest.mark.parametrize("kind", CLASSES)
def test_error_attributes_are_kept(kind: type[OciwireError]) -> None:
    attributes = attributes_of(kind, REQUEST)
    error = kind("it went wrong", **attributes)
    assert {name: getattr(error, name) for name in attributes} == attributes
    assert error.args == ("it went wrong",)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", CLASSES)
def test_pickle_error_keeps_attributes(kind: type[OciwireError], protocol: int) -> None:
    error = example(kind)
    arrived = pickle.loads(pickle.dumps(error, protocol))
    assert type(arrived) is kind
    assert str(arrived) == str(error)
    assert arrived.args == error.args
    assert vars(arrived) == vars(error)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
@pytest.mark.parametrize("kind", CLASSES)
def test_copy_error_keeps_attributes(kind: type[OciwireError], duplicate: Any) -> None:
    error = example(kind)
    other = duplicate(error)
    assert other is not error
    assert type(other) is kind
    assert str(other) == str(error)
    assert vars(other) == vars(error)


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if hasattr(example(kind), "request")])
def test_pickle_error_of_request_with_generator_body_drops_content(kind: type[OciwireError]) -> None:
    request = REQUEST.replace(method="PUT", body=Body.of(chunks(), length=3))
    arrived = pickle.loads(pickle.dumps(example(kind, request)))
    assert arrived.request.replace(body=None) == request.replace(body=None)
    assert arrived.request.body.length == 3
    assert b"".join(arrived.request.body.open()) == b""
    assert request.body is not None
    assert b"".join(request.body.open()) == b"abc", "pickling must not pull from the original"


def test_deepcopy_error_shares_request_body() -> None:
    request = REQUEST.replace(body=Body.of(chunks()))
    other = copy.deepcopy(TransportError("lost", request=request))
    assert other.request is not None
    assert other.request.body is request.body


def test_pickle_error_of_request_with_mapped_body_works() -> None:
    counted: list[int] = []
    body = Body.of(b"abc").map(lambda chunk: counted.append(len(chunk)) or chunk)
    arrived = pickle.loads(pickle.dumps(TransportError("lost", request=REQUEST.replace(body=body))))
    assert str(arrived) == "lost"
    assert arrived.request.body.length == 3


@pytest.mark.parametrize(
    ("kind", "defaults"),
    [
        (TransportError, {"request": None}),
        (AuthError, {"status": 0}),
        (AuthTimeout, {"status": 0, "request": None}),
        (CredentialsRejected, {"host": "", "realm": "", "status": 0}),
        (DigestMismatch, {"expected": "", "actual": ""}),
        (SizeMismatch, {"expected": 0, "actual": 0}),
        (
            RegistryError,
            {
                "message": "it",
                "status": 0,
                "code": "",
                "detail": None,
                "errors": (),
                "headers": None,
                "body": b"",
                "request": None,
            },
        ),
    ],
)
def test_error_without_attributes_has_message(kind: type[OciwireError], defaults: dict[str, object]) -> None:
    error = kind("it")
    assert str(error) == "it"
    assert vars(error) == defaults


def test_retry_after_defaults_to_none() -> None:
    assert TooManyRequests("slow down", status=429).retry_after is None


def test_retry_after_is_keyword_argument() -> None:
    error: Any = TooManyRequests
    assert error("slow down", status=429, retry_after=3.0).retry_after == 3.0


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            RegistryError("manifest (x) unknown to registry", status=404, code="MANIFEST_UNKNOWN"),
            "404 Not Found: manifest unknown: manifest (x) unknown to registry",
        ),
        (RegistryError("unexpected status 207"), "unexpected status 207"),
        (RegistryError("no", status=401), "401 Unauthorized: no"),
        (RegistryError(status=403, code="DENIED"), "403 Forbidden: denied"),
        (RegistryError(code="BLOB_UPLOAD_UNKNOWN"), "blob upload unknown"),
        (RegistryError("odd", status=799), "799: odd"),
        (RegistryError(status=500), "500 Internal Server Error"),
        (RegistryError(), ""),
    ],
)
def test_registry_error_str(error: RegistryError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if hasattr(example(kind), "request")])
def test_error_str_hides_request(kind: type[OciwireError]) -> None:
    request = REQUEST.with_headers({"Authorization": "Basic c2VjcmV0"})
    error = example(kind, request)
    assert "c2VjcmV0" not in f"{error} {error!r}"
