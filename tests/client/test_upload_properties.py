"""Chunked uploads in any order, to an endpoint with any quirks, that loses requests and answers."""

from __future__ import annotations

from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize

from ociwire import Client, FunctionTransport
from ociwire._client import blob_writer as writer_module
from tests._support.upload_model import HOST, SPELLINGS, Endpoint, Quirks, UploadMachine

DEFAULT_CHUNK = 12
SMALLEST_CHUNK = 2


@st.composite
def quirks(draw: st.DrawFn) -> Quirks:
    minimum = draw(st.sampled_from([0, 0, 1, 3, 6]))
    least = 2 * max(minimum, SMALLEST_CHUNK)  # any chunk that is refused can be halved until it is taken
    return Quirks(
        minimum=minimum,
        maximum=draw(st.none() | st.integers(least, least + 8)),
        too_large=draw(st.sampled_from([413, 416])),
        code=draw(st.sampled_from(["RANGE_INVALID", "", "BLOB_UPLOAD_INVALID"])),  # the last is zot's
        stuck=draw(st.booleans()),
        patched=draw(st.sampled_from([202, 201])),
        absolute=draw(st.booleans()),
        spelling=draw(st.sampled_from(sorted(SPELLINGS))),
        checks_put=draw(st.booleans()),
    )


class EndpointMachine(UploadMachine):
    def __init__(self) -> None:
        super().__init__()
        self._patches = [
            mock.patch.object(writer_module, "DEFAULT_CHUNK_SIZE", DEFAULT_CHUNK),
            mock.patch.object(writer_module, "_LARGE_CHUNK", 2 * SMALLEST_CHUNK),
        ]
        for patch in self._patches:
            patch.start()

    @initialize(quirks=quirks())
    def open_the_endpoint(self, quirks: Quirks) -> None:
        self.endpoint = Endpoint(quirks)
        self.begin_with(Client(HOST, FunctionTransport(self.endpoint)), self.endpoint.faults)

    def check_chunks(self, *, full: bool) -> None:
        chunks, least = self.endpoint.patched[:], self.endpoint.quirks.minimum
        self.endpoint.patched.clear()
        # One byte less is the rest of a first chunk whose first byte is there. Told the offset, no one asks for either.
        if full and not self.told:
            assert all(size >= least - 1 for size in chunks)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            for patch in self._patches:
                patch.stop()


EndpointMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=20, deadline=None)
TestUploads = EndpointMachine.TestCase
