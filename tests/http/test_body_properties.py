"""A body opened, half-read, reopened and mapped in any order: the same bytes again, or never any."""

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
    """A function for `Body.map` that gives the same bytes however the content is cut, and undoes itself."""
    return chunk.translate(FLIP)


class Unseekable:
    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def read(self, size: int) -> bytes:
        return self._file.read(size)


def at_an_offset(file: Any, content: bytes) -> Any:
    file.write(b"before" + content)
    file.seek(6)
    return file


def real_file(content: bytes) -> Any:
    return at_an_offset(tempfile.TemporaryFile(), content)


def cut(content: bytes) -> list[bytes]:
    """The content in pieces, an empty one among them."""
    return [content[:1], b"", content[1:6], content[6:]]


def generated(content: bytes) -> Iterator[bytes]:
    yield from cut(content)


BUFFERS: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "list": cut,
}
FILES: dict[str, Callable[[bytes], Any]] = {
    "BytesIO": io.BytesIO,
    "BytesIO at an offset": lambda content: at_an_offset(io.BytesIO(), content),
    "real file": real_file,
}
SINGLE_USE: dict[str, Callable[[bytes], Any]] = {
    "reader": Unseekable,
    "generator": generated,
}
KINDS = BUFFERS | FILES | SINGLE_USE


@dataclass(eq=False)
class Opening:
    chunks: Iterator[bytes]
    expected: bytes
    got: bytes = b""
    ended: bool = False


class BodyMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self._patches = [mock.patch.object(body_module, name, CHUNK) for name in ("CHUNK_SIZE", "STREAM_CHUNK_SIZE")]
        for patch in self._patches:
            patch.start()
        self.openings: list[Opening] = []
        self.latest: Opening | None = None
        self.pulled = False
        self.content: Any = None

    @initialize(kind=st.sampled_from(sorted(KINDS)), content=st.binary(min_size=1, max_size=14))
    def begin(self, kind: str, content: bytes) -> None:
        self.kind = kind
        self.content = KINDS[kind](content)
        self.length = None if kind in SINGLE_USE else len(content)
        # every handle on the body, with what it is to yield and the length it was given
        self.handles = [(Body.of(self.content), content, self.length)]

    def teardown(self) -> None:
        for patch in self._patches:
            patch.stop()
        if isinstance(self.content, io.IOBase):
            assert not self.content.closed, "the content is borrowed"
            self.content.close()

    @rule(data=st.data())
    def open(self, data: st.DataObject) -> None:
        body, expected, _ = data.draw(st.sampled_from(self.handles))
        if self.kind in SINGLE_USE and self.pulled:
            with pytest.raises(BodyConsumedError):
                body.open()
            return
        self.latest = Opening(body.open(), expected)
        self.openings.append(self.latest)

    @rule()
    @precondition(lambda self: len(self.handles) < 4)
    def map(self) -> None:
        body, expected, length = self.handles[-1]
        self.handles.append((body.map(flip), flip(expected), length))

    @rule(length=st.integers(0, 20))
    @precondition(lambda self: len(self.handles) < 4)
    def say_the_length(self, length: int) -> None:
        body, expected, _ = self.handles[0]
        self.handles.append((Body.of(body, length), expected, length))

    @rule(data=st.data())
    @precondition(lambda self: self.openings)
    def pull(self, data: st.DataObject) -> None:
        self._pull(data.draw(st.sampled_from(self.openings)))

    @rule()
    @precondition(lambda self: self.latest)
    def pull_from_the_latest(self) -> None:
        assert self.latest is not None
        self._pull(self.latest)

    @rule(data=st.data())
    @precondition(lambda self: self.openings)
    def read_to_the_end(self, data: st.DataObject) -> None:
        opening = data.draw(st.sampled_from(self.openings))
        while not opening.ended:
            self._pull(opening)

    def _pull(self, opening: Opening) -> None:
        alive = opening is self.latest or self.kind in BUFFERS
        chunk = next(opening.chunks, None)
        if not alive:
            assert chunk is None, "a later opening ends the earlier ones"
            opening.ended = True
            return
        self.pulled = True
        if chunk is None:
            assert opening.got == opening.expected, "an iterator that was not ended yields all there is"
            opening.ended = True
            return
        assert not opening.ended
        assert type(chunk) is bytes
        opening.got += chunk
        assert opening.expected.startswith(opening.got)

    @invariant()
    def it_tells_the_truth(self) -> None:
        for body, _, length in getattr(self, "handles", ()):
            assert body.single_use == (self.kind in SINGLE_USE)
            assert body.resendable == (self.kind not in SINGLE_USE or not self.pulled)
            assert body.length == length


BodyMachine.TestCase.settings = settings(max_examples=example_count(200), stateful_step_count=25, deadline=None)
TestBody = BodyMachine.TestCase


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_body_kinds_match_single_use(kind: str) -> None:
    content = KINDS[kind](b"content")
    assert Body.of(content).single_use == (kind in SINGLE_USE)
    if isinstance(content, io.IOBase):
        content.close()
