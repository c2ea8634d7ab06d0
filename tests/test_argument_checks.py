"""Every numeric option of the public API refuses invalid values with a `UsageError` that names the value."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
import urllib3

from ociwire import (
    Body,
    Client,
    Descriptor,
    Digest,
    FunctionTransport,
    Reference,
    Request,
    RequestInfo,
    Response,
    default_transport,
)
from ociwire._argument_checks import MAX_WAIT, check_integer, check_seconds, resolve_timeout, safe_repr
from ociwire._http.messages import shorten_timeout
from ociwire.auth import Anonymous, Credential
from ociwire.errors import UsageError
from ociwire.testing import AuthGuard, FaultTransport, MemoryRegistry
from ociwire.transfer import copy, download, upload
from ociwire.transport import RedirectTransport, RetryTransport, UrllibTransport

CONTENT = b"content"
DIGEST = Digest.of(CONTENT)
REGISTRY = MemoryRegistry()
CLIENT = Client("registry.example", REGISTRY)
CLIENT.push_blob("a", Descriptor.of(CONTENT), CONTENT)
UPLOAD = CLIENT.push_blob_chunked("a").id


class Number:
    """Object that converts to numbers, as a numpy scalar does, but is not a Python number."""

    def __index__(self) -> int:
        return 1

    def __float__(self) -> float:
        return 1.0

    __int__ = __index__

    def __le__(self, other: object) -> bool:
        return False

    __lt__ = __le__

    def __ge__(self, other: object) -> bool:
        return True

    __gt__ = __ge__


class Unprintable:
    """Object whose repr raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


NEITHER = [
    10**400,
    -(10**400),
    10**5000,
    -(10**5000),
    math.nan,
    True,
    "1",
    b"1",
    1j,
    Decimal(1),
    Fraction(1),
    Decimal("NaN"),
    Number(),
    Unprintable(),
    [10**5000],
    datetime(2030, 1, 1),
    object(),
]
"""Values that are not a valid integer, duration or time for any option."""
NO_INTEGER = [*NEITHER, 1.0, math.inf, -math.inf, 2**63, 10**20, -1]
NO_DURATION = [*NEITHER, -1, -0.5, -math.inf]

INTEGERS: dict[str, Callable[[Any], object]] = {
    "Body.of length": lambda value: Body.of(b"", value),
    "Response.iter_bytes size": lambda value: list(Response(200, body=b"x").iter_bytes(value)),
    "Response.json limit": lambda value: Response(200, body=b"{}").json(limit=value),
    "get_blob_range start": lambda value: CLIENT.get_blob_range("a", DIGEST, value),
    "get_blob_range stop": lambda value: CLIENT.get_blob_range("a", DIGEST, 0, value),
    "push_blob_chunked chunk_size": lambda value: CLIENT.push_blob_chunked("a", value),
    "push_blob_chunked_resume offset": lambda value: CLIENT.push_blob_chunked_resume("a", UPLOAD, value),
    "push_blob_chunked_resume chunk_size": lambda value: CLIENT.push_blob_chunked_resume("a", UPLOAD, None, value),
    "download workers": lambda value: download(CLIENT, "a", DIGEST, "/dev/null", workers=value),
    "download part_size": lambda value: download(CLIENT, "a", DIGEST, "/dev/null", part_size=value),
    "upload chunk_size": lambda value: upload(CLIENT, "a", b"x", chunk_size=value),
    "copy workers": lambda value: copy(CLIENT, "a", CLIENT, "b", workers=value),
    "RedirectTransport max_redirects": lambda value: RedirectTransport(REGISTRY, max_redirects=value),
    "UrllibTransport pool_size": lambda value: UrllibTransport(pool_size=value),
    "FaultTransport limit": lambda value: FaultTransport(REGISTRY, limit=value),
    "MemoryRegistry min_chunk_length": lambda value: MemoryRegistry(min_chunk_length=value),
    "MemoryRegistry page_size": lambda value: MemoryRegistry(page_size=value),
    "MemoryRegistry manifest_limit": lambda value: MemoryRegistry(manifest_limit=value),
    "MemoryRegistry max_bytes": lambda value: MemoryRegistry(max_bytes=value),
}
LIMITS: dict[str, Callable[[Any], object]] = {
    "tags limit": lambda value: CLIENT.tags("a", limit=value),
    "repositories limit": lambda value: CLIENT.repositories(limit=value),
}
DURATIONS: dict[str, Callable[[Any], object]] = {
    "RequestInfo timeout": lambda value: RequestInfo(timeout=value),
    "with_options timeout": lambda value: CLIENT.with_options(timeout=value),
    "Client timeout": lambda value: Client("registry.example", REGISTRY, timeout=value),
    "UrllibTransport timeout": lambda value: UrllibTransport(timeout=value),
    "default_transport timeout": lambda value: default_transport(credentials=Anonymous(), timeout=value),
    "UrllibTransport expect_timeout": lambda value: UrllibTransport(expect_timeout=value),
    "RetryTransport max_wait": lambda value: RetryTransport(REGISTRY, max_wait=value),
    "AuthGuard expires_in": lambda value: AuthGuard(REGISTRY, users={}, expires_in=value),
}
MOMENTS: dict[str, Callable[[Any], object]] = {
    "RequestInfo deadline": lambda value: RequestInfo(deadline=value),
    "RequestInfo.replace deadline": lambda value: RequestInfo().replace(deadline=value),
    "Credential expires_at": lambda value: Credential(expires_at=value),
}
FUTURE: dict[str, Callable[[Any], object]] = {
    "with_options deadline": lambda value: CLIENT.with_options(deadline=value),
}


def label(value: object) -> str:
    """Return a test id that is the same in each process, without the address of an object."""
    return safe_repr(value, 20) if isinstance(value, (int, float, str)) else type(value).__name__


def kinds(calls: dict[str, Callable[[Any], object]], values: list[Any]) -> pytest.MarkDecorator:
    cases = [pytest.param(call, value, id=f"{name}-{label(value)}") for name, call in calls.items() for value in values]
    return pytest.mark.parametrize(("call", "value"), cases)


@kinds(INTEGERS, NO_INTEGER)
def test_integer_option_other_value_raises_usage_error(call: Callable[[Any], object], value: Any) -> None:
    with pytest.raises(UsageError):
        call(value)


@kinds(LIMITS, [value for value in NO_INTEGER if type(value) is not int or value < 0])
def test_limit_other_value_raises_usage_error(call: Callable[[Any], object], value: Any) -> None:
    with pytest.raises(UsageError):
        call(value)


@kinds(LIMITS, [10**20, 10**400, 10**5000])
def test_limit_of_any_size_is_accepted(call: Callable[[Any], object], value: Any) -> None:
    call(value)


@kinds(DURATIONS, NO_DURATION)
def test_duration_option_other_value_raises_usage_error(call: Callable[[Any], object], value: Any) -> None:
    with pytest.raises(UsageError):
        call(value)


@kinds(MOMENTS | FUTURE, NEITHER)
def test_moment_option_other_value_raises_usage_error(call: Callable[[Any], object], value: Any) -> None:
    with pytest.raises(UsageError):
        call(value)


@kinds(DURATIONS | MOMENTS, [1, 0.5, 1e308, 10**300, math.inf, sys.float_info.min])
def test_duration_and_moment_option_number_is_accepted(call: Callable[[Any], object], value: Any) -> None:
    call(value)


@kinds(FUTURE, [1e308, 10**300, math.inf])
def test_deadline_of_a_client_in_the_future_is_accepted(call: Callable[[Any], object], value: Any) -> None:
    call(value)


@kinds(FUTURE, [1, 0.5, -1, -1e308, -math.inf])
def test_deadline_of_a_client_in_the_past_raises_usage_error(call: Callable[[Any], object], value: Any) -> None:
    with pytest.raises(UsageError, match=r"time\.monotonic\(\)"):
        call(value)


@kinds(MOMENTS, [-1, -1e308, -math.inf])
def test_moment_option_number_in_the_past_is_accepted(call: Callable[[Any], object], value: Any) -> None:
    call(value)


@pytest.mark.parametrize("rate", [*NEITHER, -0.1, 1.1, math.inf], ids=label)
def test_fault_rate_other_value_raises_usage_error(rate: Any) -> None:
    with pytest.raises(UsageError, match="invalid rate"):
        FaultTransport(REGISTRY, rate=rate)


@pytest.mark.parametrize("seed", [*NEITHER, 1.0], ids=label)
def test_fault_seed_other_value_raises_usage_error(seed: Any) -> None:
    with pytest.raises(UsageError, match="invalid seed"):
        FaultTransport(REGISTRY, seed=seed)


@pytest.mark.parametrize(
    "parts",
    [
        {"connect": Decimal(1)},
        {"read": Fraction(1)},
        {"total": Decimal(1)},
        {"total": Decimal(1), "read": 1.0},
        {"total": math.nan},
        {"connect": math.nan},
        {"read": math.nan},
        {"connect": Number()},
        {"total": Number()},
    ],
    ids=lambda parts: "-".join(f"{name}={label(value)}" for name, value in parts.items()),
)
def test_urllib3_timeout_with_odd_values_raises_usage_error(parts: dict[str, Any]) -> None:
    timeout = urllib3.Timeout(**parts)
    for call in (
        lambda: RequestInfo(timeout=timeout),
        lambda: CLIENT.with_options(timeout=timeout),
        lambda: UrllibTransport(timeout=timeout),
    ):
        with pytest.raises(UsageError, match="invalid timeout"):
            call()


@pytest.mark.parametrize("name", ["total", "connect", "read", "status", "other"])
@pytest.mark.parametrize("value", [math.nan, math.inf, 1.5, "1", Decimal(1), Number()], ids=label)
def test_retry_count_other_value_raises_usage_error(name: str, value: Any) -> None:
    retry = urllib3.Retry(total=3)
    setattr(retry, name, value)
    with pytest.raises(UsageError, match=f"invalid {name} .* of retry"):
        RetryTransport(REGISTRY, retry=retry)


@pytest.mark.parametrize("name", ["backoff_factor", "backoff_max", "backoff_jitter", "retry_after_max"])
@pytest.mark.parametrize("value", NEITHER, ids=label)
def test_retry_duration_other_value_raises_usage_error(name: str, value: Any) -> None:
    retry = urllib3.Retry(total=3)
    setattr(retry, name, value)
    with pytest.raises(UsageError, match=f"invalid {name} .* of retry"):
        RetryTransport(REGISTRY, retry=retry)


def test_retry_backoff_of_the_largest_numbers_is_bounded() -> None:
    waits: list[float] = []
    retry = urllib3.Retry(total=4, backoff_factor=10**300, status_forcelist=[503])
    transport = FunctionTransport(lambda request: Response(503, (), b"", request))
    RetryTransport(transport, retry=retry, sleep=waits.append).round_trip(Request("GET", "https://r.example/"))
    assert waits == [60.0, 60.0, 60.0]


TEXTS: dict[str, Callable[[Any], object]] = {
    "Client host": Client,
    "repository": lambda value: CLIENT.tags(value),
    "tag": lambda value: CLIENT.get_tag("a", value),
    "digest": lambda value: CLIENT.get_blob("a", value),
    "algorithm": lambda value: CLIENT.push_blob_chunked("a", algorithm=value),
    "upload id": lambda value: CLIENT.push_blob_chunked_resume("a", value),
    "media type of a manifest": lambda value: CLIENT.push_manifest("a", b"{}", value),
    "media type of a descriptor": lambda value: Descriptor(value, DIGEST, 1),
    "size of a descriptor": lambda value: Descriptor("a/b", DIGEST, value),
    "descriptor": lambda value: Descriptor.from_dict({"size": value}),
    "start_after": lambda value: list(CLIENT.tags("a", start_after=value)),
    "artifact type": lambda value: CLIENT.referrers("a", DIGEST, artifact_type=value),
    "method": lambda value: Request(value, "/"),
    "header name": lambda value: Request("GET", "/", [(value, "a")]),
    "reference": Reference.parse,
    "client": lambda value: upload(value, "a", b""),
    "path": lambda value: download(CLIENT, "a", DIGEST, value),
    "media type of an upload": lambda value: upload(CLIENT, "a", b"", media_type=value),
    "progress": lambda value: upload(CLIENT, "a", b"", progress=value),
    "platforms": lambda value: copy(CLIENT, "a", CLIENT, "b", platforms=value),
    "platform": lambda value: copy(CLIENT, "a", CLIENT, "b", platforms=[value]),
    "retry": lambda value: RetryTransport(REGISTRY, retry=value),
    "scheme": lambda value: AuthGuard(REGISTRY, users={}, scheme=value),
}


@kinds(TEXTS, [10**5000, Unprintable()])
def test_other_option_value_without_a_repr_raises_usage_error(call: Callable[[Any], object], value: Any) -> None:
    with pytest.raises(UsageError):
        call(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (10**5000, "<int of 16610 bits>"),
        (-(10**5000), "<int of 16610 bits>"),
        ([10**5000], "<list>"),
        (Unprintable(), "<Unprintable>"),
        ("x" * 200, "'" + "x" * 98 + "…"),
        (1.5, "1.5"),
    ],
    ids=label,
)
def test_show_any_value_is_short_and_never_raises(value: object, text: str) -> None:
    assert safe_repr(value) == text


@pytest.mark.parametrize("size", ["1", b"1", 1.5, math.nan, Decimal(1), [1]], ids=label)
def test_read_other_size_raises_usage_error(size: Any) -> None:
    with CLIENT.get_blob("a", DIGEST) as reader, pytest.raises(UsageError, match="invalid size"):
        reader.read(size)
    with Response(200, (), CONTENT) as response, pytest.raises(UsageError, match="invalid size"):
        response.read(size)


@pytest.mark.parametrize("size", [None, -1, 10**5000, -(10**5000)], ids=label)
def test_read_any_integer_reads_at_most_the_rest(size: Any) -> None:
    assert CLIENT.get_blob("a", DIGEST).read(size) == CONTENT
    assert Response(200, (), CONTENT).read(size) == CONTENT
    assert Response(200, (), CONTENT).read(Number()) == CONTENT[:1]  # type: ignore[arg-type]


@pytest.mark.parametrize("status", ["200", None, 200.0, 99, 1000, 10**5000], ids=label)
def test_response_other_status_raises_usage_error(status: Any) -> None:
    with pytest.raises(UsageError, match="invalid status"):
        Response(status)


@pytest.mark.parametrize("seconds", [*NEITHER, -1], ids=label)
def test_shorten_timeout_other_duration_raises_usage_error(seconds: Any) -> None:
    with Response(200, (), CONTENT) as response, pytest.raises(UsageError, match="invalid seconds"):
        shorten_timeout(response, seconds)


def test_message_names_the_value_and_what_is_expected() -> None:
    with pytest.raises(UsageError) as caught:
        check_integer("chunk size", 0, minimum=1)
    assert str(caught.value) == "invalid chunk size 0: expected an integer from 1 to 2**63 - 1"
    with pytest.raises(UsageError) as caught:
        check_seconds("max_wait", 10**5000)
    assert str(caught.value) == "invalid max_wait <int of 16610 bits>: expected a number of seconds, 0 or more"


def test_resolve_timeout_is_cut_to_the_longest_wait() -> None:
    assert resolve_timeout(math.inf) == (MAX_WAIT, MAX_WAIT)
    assert resolve_timeout(urllib3.Timeout(connect=1, read=1e300)) == (1, MAX_WAIT)
    assert resolve_timeout(urllib3.Timeout(connect=None, read=None)) == (None, None)
    assert check_seconds("max_wait", 0) == 0
