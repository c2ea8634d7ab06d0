"""Property tests of `Body`: content is resent from its start, or refused after its first chunk."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ociwire._http import body as body_module
from ociwire._http.body import Body
from ociwire.errors import BodyConsumedError
from tests._support.examples import example_count

CHUNK = 4
FLIP = bytes(range(255, -1, -1))


def flip(chunk: bytes) -> bytes:
    """Invert each byte. The result does not depend on the chunks, and a second call restores the content."""
    return chunk.translate(FLIP)


class Unseekable:
    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def read(self, size: int) -> bytes:
        return self._file.read(size)


def file_at_offset(file: Any, content: bytes) -> Any:
    file.write(b"before" + content)
    file.seek(6)
    return file


def real_file(content: bytes) -> Any:
    return file_at_offset(tempfile.TemporaryFile(), content)


def to_chunks(content: bytes) -> list[bytes]:
    """Return the content in chunks, one of which is empty."""
    return [content[:1], b"", content[1:6], content[6:]]


def generate_chunks(content: bytes) -> Iterator[bytes]:
    yield from to_chunks(content)


BUFFERS: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "list": to_chunks,
}
FILES: dict[str, Callable[[bytes], Any]] = {
    "BytesIO": io.BytesIO,
    "BytesIO at an offset": lambda content: file_at_offset(io.BytesIO(), content),
    "real file": real_file,
}
SINGLE_USE: dict[str, Callable[[bytes], Any]] = {
    "reader": Unseekable,
    "generator": generate_chunks,
}
KINDS = BUFFERS | FILES | SINGLE_USE


@dataclass(eq=False)
class Opening:
    chunks: Iterator[bytes]
    expected: bytes
    received: bytes = b""
    ended: bool = False


class BodyMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self._patches = [mock.patch.object(body_module, name, CHUNK) for name in ("CHUNK_SIZE", "STREAM_CHUNK_SIZE")]
        for patch in self._patches:
            patch.start()
        self.openings: list[Opening] = []
        self.latest: Opening | None = None
        self.was_read = False
        self.content: Any = None

    @initialize(kind=st.sampled_from(sorted(KINDS)), content=st.binary(min_size=1, max_size=14))
    def begin(self, kind: str, content: bytes) -> None:
        self.kind = kind
        self.content = KINDS[kind](content)
        self.length = None if kind in SINGLE_USE else len(content)
        # each body over the content, with the expected bytes and length
        self.bodies = [(Body.of(self.content), content, self.length)]

    def teardown(self) -> None:
        for patch in self._patches:
            patch.stop()
        if isinstance(self.content, io.IOBase):
            assert not self.content.closed, "the body does not close the content"
            self.content.close()

    @rule(data=st.data())
    def open(self, data: st.DataObject) -> None:
        body, expected, _ = data.draw(st.sampled_from(self.bodies))
        if self.kind in SINGLE_USE and self.was_read:
            with pytest.raises(BodyConsumedError):
                body.open()
            return
        self.latest = Opening(body.open(), expected)
        self.openings.append(self.latest)

    @rule()
    @precondition(lambda self: len(self.bodies) < 4)
    def map(self) -> None:
        body, expected, length = self.bodies[-1]
        self.bodies.append((body.map(flip), flip(expected), length))

    @rule(length=st.integers(0, 20))
    @precondition(lambda self: len(self.bodies) < 4)
    def set_length(self, length: int) -> None:
        body, expected, _ = self.bodies[0]
        self.bodies.append((Body.of(body, length), expected, length))

    @rule(data=st.data())
    @precondition(lambda self: self.openings)
    def read_chunk(self, data: st.DataObject) -> None:
        self._read_chunk(data.draw(st.sampled_from(self.openings)))

    @rule()
    @precondition(lambda self: self.latest)
    def read_chunk_from_latest(self) -> None:
        assert self.latest is not None
        self._read_chunk(self.latest)

    @rule(data=st.data())
    @precondition(lambda self: self.openings)
    def read_to_end(self, data: st.DataObject) -> None:
        opening = data.draw(st.sampled_from(self.openings))
        while not opening.ended:
            self._read_chunk(opening)

    def _read_chunk(self, opening: Opening) -> None:
        is_active = opening is self.latest or self.kind in BUFFERS
        chunk = next(opening.chunks, None)
        if not is_active:
            assert chunk is None, "a later opening ends the earlier ones"
            opening.ended = True
            return
        self.was_read = True
        if chunk is None:
            assert opening.received == opening.expected, "an iterator that was not ended yields all bytes"
            opening.ended = True
            return
        assert not opening.ended
        assert type(chunk) is bytes
        opening.received += chunk
        assert opening.expected.startswith(opening.received)

    @invariant()
    def attributes_match_state(self) -> None:
        for body, _, length in getattr(self, "handles", ()):
            assert body.single_use == (self.kind in SINGLE_USE)
            assert body.resendable == (self.kind not in SINGLE_USE or not self.was_read)
            assert body.length == length


BodyMachine.TestCase.settings = settings(max_examples=example_count(200), stateful_step_count=25, deadline=None)
TestBody = BodyMachine.TestCase


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_body_kinds_match_single_use(kind: str) -> None:
    content = KINDS[kind](b"content")
    assert Body.of(content).single_use == (kind in SINGLE_USE)
    if isinstance(content, io.IOBase):
        content.close()
