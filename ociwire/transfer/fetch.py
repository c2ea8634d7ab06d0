"""The workers of a download: the caller's thread, the hashing one, and as many others as turn out to pay.

The first error ends all of them, and all are joined before `Fetch.run` returns, whatever has happened.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from ..blob import BlobReader
from ..descriptor import Descriptor
from ..errors import OciwireError, ReadError
from .partial import PartialFile
from .parts import Claim, Plan, Probe, Verdict, buffer_size_for, next_reserve, part_size_for
from .progress import Progress, ProgressCallback
from .source import Source
from .verifier import Verifier

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["Fetch", "Options"]

_FLUSH = 0.2
"""A buffer that is not full goes on after so many seconds: what is on the disk need not be fetched again."""
_FLUSH_PROBING = 0.05
"""The same while rates are measured."""


@final
@dataclass(frozen=True, slots=True)
class Options:
    """What the caller wants of a download.

    Attributes:
        workers: The most connections at a time.
        part_size: Of a part, in bytes; None leaves it to the size of the whole.
        progress: Called with each event.
    """

    workers: int
    part_size: int | None
    progress: ProgressCallback | None


@final
class Fetch:
    """Gets the bytes from `start` on into a file, and into a hash.

    Args:
        source: What has them.
        file: Where they are written.
        descriptor: Of the whole.
        hasher: Of what is before `start`; in the end, of the whole.
        start: The first byte to get.
        options: The caller's.
    """

    def __init__(
        self, source: Source, file: PartialFile, descriptor: Descriptor, hasher: _Hash, start: int, options: Options
    ) -> None:
        left = descriptor.size - start
        self._source = source
        self._file = file
        self._descriptor = descriptor
        self._options = options
        self._plan = Plan(start, descriptor.size, options.part_size or part_size_for(left, options.workers))
        self._probe = Probe(options.workers, left, self._plan.part_size)
        self._verifier = Verifier(
            file,
            hasher,
            start,
            descriptor.size,
            buffer_size=buffer_size_for(left, options.workers),
            workers=options.workers,
        )
        self._lock = threading.Lock()
        self._telling = threading.Lock()
        self._done = start
        self._threads: list[threading.Thread] = []
        self._context = contextvars.copy_context()
        self._error: BaseException | None = None
        self._grown = False

    def run(self, reader: BlobReader) -> None:
        """Get them all, beginning with a reader that is at `start`, and which is closed in the end.

        Raises:
            OciwireError: The first error of any worker; so with all others.
        """
        try:
            with reader:
                self._tell(0)
                self._start(self._verifier.run)
                self._receive(0, reader, self._plan.take(), self._descriptor.size)
            self._go_on(0)
        except BaseException as error:  # noqa: BLE001 - raised again when all threads have ended
            self._fail(error)
        self._join()
        error_, self._error = self._error, None
        try:
            if error_ is not None:
                raise error_
        finally:
            del error_  # its traceback has this frame

    def prefix(self) -> int:
        """How many bytes of the file there are without a gap, once `run` is over."""
        return self._verifier.prefix()

    def _start(self, function: Callable[..., None], *args: object) -> None:
        def guarded() -> None:
            try:
                function(*args)
            except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
                self._fail(error)

        thread = threading.Thread(target=self._context.copy().run, args=(guarded,), name="ociwire download")
        with self._lock:
            if self._error is None:
                thread.start()
                self._threads.append(thread)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if self._error is None:
                self._error = error
        self._verifier.end()

    def _join(self) -> None:
        """Wait for all threads; an interrupt makes them stop, and is not lost."""
        while self._threads:
            try:
                thread = self._threads[-1]
                thread.join()
                self._threads.remove(thread)  # the list is empty once nobody is left who could start another
            except KeyboardInterrupt as error:
                self._fail(error)

    def _go_on(self, stream: int) -> None:
        """Get one part after the other, as long as there are any."""
        while (claim := self._next_claim(stream)) is not None:
            # A lone stream asks for all that is left at once, and goes on from part to part in it.
            until = claim.stop if self._grown or stream else self._plan_end(claim)
            with self._source.any_part(self._descriptor, claim.start, until) as reader:
                self._receive(stream, reader, claim, until)

    def _next_claim(self, stream: int) -> Claim | None:
        with self._lock:
            if self._error is not None or (stream and self._probe.over and not self._grown):
                return None
            return self._plan.take() or (self._plan.steal() if self._grown else None)

    def _plan_end(self, claim: Claim) -> int:
        with self._lock:
            return self._plan.end_of_run(claim)

    def _receive(self, stream: int, reader: BlobReader, claim: Claim | None, until: int) -> None:
        """Get the bytes of a claim, and of those that it goes on into."""
        position, most = 0 if claim is None else claim.start, self._verifier.buffer_size
        while claim is not None:
            with self._lock:
                stop = self._plan.reserve(claim, position, most, until)
            buffer = self._verifier.borrow() if stop > position else None
            if buffer is None:
                return
            with memoryview(buffer) as view, view[: stop - position] as wanted:
                count = self._fill(reader, wanted)
                with wanted[:count] as got:
                    self._file.write(got, position)
            self._verifier.hand(buffer, count, position)
            position += count
            most = next_reserve(most, count, stop - position, self._verifier.buffer_size)
            self._tell(count)
            self._consider(stream, count)

    def _fill(self, reader: BlobReader, view: memoryview) -> int:
        """Read until the buffer is full, or it has been long enough, or all is over."""
        filled, began = 0, time.monotonic()
        enough = _FLUSH if self._probe.over else _FLUSH_PROBING
        while filled < len(view):
            with view[filled:] as rest:
                count = reader.readinto(rest)
            if count == 0:
                raise ReadError(f"the content of {self._source.digest} ends too early")
            filled += count
            if self._error is not None or time.monotonic() - began >= enough:
                break
        return filled

    def _tell(self, count: int) -> None:
        with self._telling:
            self._done += count
            if self._options.progress is not None:
                event = Progress("download", self._source.digest, self._done, self._descriptor.size)
                self._options.progress(event)

    def _consider(self, stream: int, count: int) -> None:
        """Whether more streams pay, as far as that is known now."""
        if self._probe.over or stream > 1:
            return
        with self._lock:
            verdict = self._probe.sample(stream, time.monotonic(), count)
            self._grown = self._grown or verdict is Verdict.GROW
        if verdict is Verdict.ASK:
            self._start(self._second)
        elif verdict is Verdict.GROW:
            for number in range(2, self._options.workers):
                self._start(self._go_on, number)

    def _second(self) -> None:
        """The second stream, which shows whether it pays; the download does not depend on it."""
        with self._lock:
            start = self._plan.ahead()
        reader = None if start is None else self._open_second(start)
        if reader is None or start is None:
            self._probe.opened(ranges=False)
            return
        with reader:
            with self._lock:
                claim = self._plan.take_at(start)
                self._probe.opened(ranges=claim is not None)
            if claim is not None:
                self._receive(1, reader, claim, claim.stop)
        self._go_on(1)

    def _open_second(self, start: int) -> BlobReader | None:
        """A range, if there is one to be had; before anything is written with gaps, the file is marked."""
        try:
            stop = min(start + self._plan.part_size, self._descriptor.size)
            reader = self._source.part(self._descriptor, start, stop)
        except OciwireError:
            return None  # one stream has to do
        if reader is not None:
            marked = False
            try:
                self._file.scatter()
                marked = True
            finally:
                if not marked:
                    reader.close()
        return reader
