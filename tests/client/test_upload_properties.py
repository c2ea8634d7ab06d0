"""Chunked uploads with calls in any order, to endpoints with any quirks that lose requests and responses."""

from __future__ import annotations

from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize

from ociwire import Client, FunctionTransport
from ociwire._client import blob_writer as writer_module
from tests._support.examples import example_count
from tests._support.upload_model import HOST, RANGE_FORMS, Endpoint, Quirks, UploadMachine

DEFAULT_CHUNK = 12
MIN_CHUNK = 2


@st.composite
def quirks(draw: st.DrawFn) -> Quirks:
    minimum = draw(st.sampled_from([0, 0, 1, 3, 6]))
    min_limit = 2 * max(minimum, MIN_CHUNK)  # a limit that chunks reach when they are halved
    return Quirks(
        minimum=minimum,
        maximum=draw(st.none() | st.integers(min_limit, min_limit + 8)),
        too_large=draw(st.sampled_from([413, 416])),
        code=draw(st.sampled_from(["RANGE_INVALID", "", "BLOB_UPLOAD_INVALID"])),  # zot sends BLOB_UPLOAD_INVALID
        repeats_first_range=draw(st.booleans()),
        patch_status=draw(st.sampled_from([202, 201])),
        absolute=draw(st.booleans()),
        range_form=draw(st.sampled_from(sorted(RANGE_FORMS))),
        checks_put=draw(st.booleans()),
    )


class EndpointMachine(UploadMachine):
    def __init__(self) -> None:
        super().__init__()
        self._patches = [
            mock.patch.object(writer_module, "DEFAULT_CHUNK_SIZE", DEFAULT_CHUNK),
            mock.patch.object(writer_module, "_LARGE_CHUNK", 2 * MIN_CHUNK),
        ]
        for patch in self._patches:
            patch.start()

    @initialize(quirks=quirks())
    def open_endpoint(self, quirks: Quirks) -> None:
        self.endpoint = Endpoint(quirks)
        self.begin_with(Client(HOST, FunctionTransport(self.endpoint)), self.endpoint.faults)

    def check_chunks(self, *, full: bool) -> None:
        sizes, minimum = self.endpoint.patch_sizes[:], self.endpoint.quirks.minimum
        self.endpoint.patch_sizes.clear()
        # A first chunk whose first byte is stored is sent without that byte. A writer that is resumed at a given offset
        # has not requested the status, which states the minimum.
        if full and not self.offset_given:
            assert all(size >= minimum - 1 for size in sizes)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            for patch in self._patches:
                patch.stop()


EndpointMachine.TestCase.settings = settings(max_examples=example_count(300), stateful_step_count=20, deadline=None)
TestUploads = EndpointMachine.TestCase
