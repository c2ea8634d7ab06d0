"""The workers of a download: the caller's thread, the hashing one, and as many others as turn out to pay.

The caller's thread, which is stream 0, sees it through; the others help. One that loses its connection gives back what
it has not got, and ends alone. Any other error ends all of them, and all are joined before `Fetch.run` returns,
whatever has happened.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from .._client.blob_reader import BlobReader
from .._oci.descriptor import Descriptor
from ..errors import AuthError, ReadError, RegistryError, TransportError
from ._partial_file import PartialFile
from ._parts import Claim, Plan, buffer_size_for, next_reserve, part_size_for, workers_for
from ._probe import Probe, Stage
from ._progress import Progress, ProgressCallback
from ._source import Source
from ._threads import join_all
from ._verifier import Verifier

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["Fetch", "Options"]

_LOST = (TransportError, AuthError, RegistryError)
"""What costs a worker its connection, and no more than that."""
_FLUSH = 0.2
"""A buffer that is not full goes on after so many seconds: what is on the disk need not be fetched again."""
_FLUSH_PROBING = 0.05
"""The same while rates are measured."""
GLANCE = 0.5
"""How often who has nothing to do looks whether another one has stalled, in seconds."""


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
        source: What has them; of no more use when `run` is over.
        file: Where they are written.
        descriptor: Of the whole.
        hasher: Of what is before `start`; in the end, of the whole.
        start: The first byte to get.
        options: The caller's.
    """

    def __init__(
        self, source: Source, file: PartialFile, descriptor: Descriptor, hasher: _Hash, start: int, options: Options
    ) -> None:
        left, size = descriptor.size - start, descriptor.size
        self._workers = workers = workers_for(left, options.workers, options.part_size)
        self._source, self._extra = source, source.extra()
        self._file = file
        self._descriptor = descriptor
        self._progress = options.progress
        # Entered as a lock: a Condition does it in two steps, and a signal that came between them would keep it locked.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        # Under the lock: who has which bytes, how many connections there are to be, and who helps.
        self._plan = Plan(start, size, part_size_for(left, workers, options.part_size))
        self._probe = Probe(workers, left, self._plan.part_size)
        self._helpers = 0
        self._error: BaseException | None = None
        buffer_size = buffer_size_for(left, workers)
        self._verifier = Verifier(
            file, hasher, start, size, buffer_size=buffer_size, workers=workers, check=source.check_deadline
        )
        self._telling = threading.Lock()
        self._done = start
        self._threads: list[threading.Thread] = []
        self._context = contextvars.copy_context()

    def run(self, reader: BlobReader) -> None:
        """Get them all, beginning with a reader that is at `start`, and which is closed in the end.

        Raises:
            OciwireError: Stream 0 could not go on, or what came is wrong; so with all errors that are not a helper's
                connection.
        """
        try:
            with reader:
                self._tell(0)
                self._start(self._verifier.run)
                with self._lock:
                    claim = self._plan.take(0, time.monotonic())
                if claim is not None:
                    self._get(claim, self._descriptor.size, reader)
            self._go_on(0)
            with self._lock:  # nobody may start a thread after this
                self._source.over.set()
        except BaseException as error:  # noqa: BLE001 - raised again when all threads have ended
            self._fail(error)
        try:
            join_all(self._threads, self._fail)
            if self._error is not None:
                raise self._error
        finally:
            self._error = None  # its traceback has this frame

    def prefix(self) -> int:
        """How many bytes of the file there are without a gap, once `run` is over."""
        return self._verifier.prefix()

    # Threads

    def _start(self, function: Callable[[], None]) -> bool:
        """Have a thread do it, unless all is over; what it raises is raised in the caller's thread."""

        def guarded() -> None:
            try:
                function()
            except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
                self._fail(error)

        thread = threading.Thread(target=self._context.copy().run, args=(guarded,), name="ociwire download")
        with self._lock:
            if self._source.over.is_set():
                return False
            self._threads.append(thread)  # before it starts: what interrupts that leaves it to be joined
            thread.start()
            return True

    def _fail(self, error: BaseException) -> None:
        """All is over."""
        with self._lock:
            if self._error is None:
                self._error = error
            self._source.over.set()
            self._changed.notify_all()
        self._verifier.end()

    def _start_helper(self, stream: int) -> None:
        with self._lock:
            try:
                self._helpers += self._start(lambda: self._help(stream))
            except RuntimeError:  # no thread to be had: it goes without
                self._leave(stream)

    def _help(self, stream: int) -> None:
        """What stream 0 can do without."""
        try:
            if stream > 1 or self._try_second():
                self._go_on(stream)
        except _LOST:
            pass  # a connection too many, or one that is lost: there are others
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            self._fail(error)
        finally:
            with self._lock:
                self._helpers -= 1
                self._leave(stream)

    def _leave(self, stream: int) -> None:
        """What this stream has not got is for others; the second one shows nothing any more."""
        self._plan.give_back(stream)
        if stream == 1:
            self._probe.gone()
        self._changed.notify_all()

    # Decisions

    def _next_claim(self, stream: int) -> Claim | None:
        """What this stream is to get next: what is nobody's, or what another one is too slow with.

        It waits for that until all is there, since others may stall. None if it is not needed any more.
        """
        with self._lock:
            while not self._source.over.is_set() and (stream == 0 or self._probe.stage is not Stage.ONE):
                now = time.monotonic()
                claim = self._plan.take(stream, now) or self._plan.steal(stream, now)
                if claim is not None or not self._plan.busy:
                    return claim
                self._changed.wait(GLANCE)
        return None

    def _end_of_request(self, claim: Claim) -> int:
        """Up to where to ask. A lone stream asks for all that is left, and goes on from part to part in it."""
        with self._lock:
            many = self._probe.stage is Stage.MANY and self._helpers
            return claim.stop if claim.worker or many else self._plan.end_of_run(claim)

    def _consider(self, stream: int, count: int) -> None:
        """Whether more streams pay, as far as that is known now."""
        if self._probe.final or stream > 1:
            return
        with self._lock:
            stage = self._probe.sample(stream, time.monotonic(), count)
            if stage is Stage.ASKED and self._helpers:
                self._probe.gone()  # the second stream of the probe before is still waiting for something
            elif stage is Stage.ASKED:
                self._start_helper(1)
            elif stage is Stage.MANY:
                for number in range(2, self._workers):
                    self._start_helper(number)
            elif stage is Stage.ONE:
                self._leave(1)  # whatever it waits for

    # Bytes

    def _go_on(self, stream: int) -> None:
        """Get one part after the other, as long as there are any."""
        while (claim := self._next_claim(stream)) is not None:
            self._get(claim, self._end_of_request(claim))

    def _get(self, claim: Claim, until: int, reader: BlobReader | None = None) -> None:
        """Get the bytes of a claim. That the connection is lost means nothing once others have taken them over."""
        source = self._extra if claim.worker else self._source
        try:
            with source.any_part(self._descriptor, claim.start, until) if reader is None else reader as opened:
                self._receive(opened, claim, until)
        except _LOST:
            with self._lock:
                if self._error is not None or self._plan.holds(claim):
                    raise

    def _try_second(self) -> bool:
        """The second stream's first part, which shows whether it pays; False if there is none to be had."""
        with self._lock:
            start = self._plan.ahead()
        reader = None if start is None else self._open_second(start)
        if reader is None or start is None:
            return False
        with reader:
            with self._lock:
                claim = self._plan.take_at(start, 1, time.monotonic())
                if claim is None:  # the first stream was there before it
                    self._probe.missed()
                    return False
                self._probe.opened(time.monotonic())
            self._get(claim, claim.stop, reader)
        return True

    def _open_second(self, start: int) -> BlobReader | None:
        """A range, if there is one to be had; before anything is written with gaps, the file is marked."""
        stop = min(start + self._plan.part_size, self._descriptor.size)
        reader = self._extra.part(self._descriptor, start, stop)
        marked = False
        try:
            marked = reader is not None and self._file.scatter()
        finally:
            if reader is not None and not marked:
                reader.close()
        return reader if marked else None

    def _receive(self, reader: BlobReader, claim: Claim, until: int) -> None:
        """The bytes of a claim, and of those that it goes on into, into the file and the hash."""
        most = min(self._verifier.buffer_size, self._plan.part_size)
        while True:
            with self._lock:
                position, stop = claim.position, self._plan.reserve(claim, most, until)
                if stop == position:
                    self._changed.notify_all()
            buffer = self._verifier.borrow() if stop > position else None
            if buffer is None:
                return
            written = 0
            try:
                with memoryview(buffer) as view:
                    count = self._fill(reader, view[: stop - position])
                    with self._lock:  # what has gone to another meanwhile is his
                        kept = self._plan.commit(claim, count, time.monotonic())
                    self._file.write(view[:kept], position)
                written = kept
            finally:
                self._verifier.hand(buffer, written, position)
            most = next_reserve(most, count, stop - position - count, self._verifier.buffer_size)
            if kept:
                self._tell(kept)
                self._consider(claim.worker, kept)

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
            if self._source.over.is_set() or time.monotonic() - began >= enough:
                break
        return filled

    def _tell(self, count: int) -> None:
        with self._telling:
            self._done += count
            if self._progress is None:
                return
            try:
                self._progress(Progress("download", self._source.digest, self._done, self._descriptor.size))
            except BaseException as error:
                self._fail(error)  # whatever its class: it is the caller's, not the connection's
                raise
