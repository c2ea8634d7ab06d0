"""Chunked uploads with calls in any order, to docker-registry over a transport that loses requests."""

from __future__ import annotations

import hashlib

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from ociwire import Client, FunctionTransport, Request, Response, UrllibTransport, errors
from tests._support.upload_model import UploadMachine

UNIT = 10_007


class RegistryMachine(UploadMachine):
    """`UploadMachine` over a transport that loses requests, but no responses.

    A lost response would end an upload to docker-registry, whose Location contains the offset. docker-registry answers
    ``0-0`` for one byte and for none, and never 416.
    """

    unit = UNIT
    content = hashlib.shake_256(b"noise").digest(700 * UNIT)
    detects_one_byte = False

    def __init__(self, host: str, transport: UrllibTransport) -> None:
        super().__init__()
        self.transport = transport
        self.begin_with(Client(host, FunctionTransport(self.send), insecure=True), [])

    def send(self, request: Request) -> Response:
        if self.faults and self.faults.pop(0) is not None:
            raise errors.ReadError("the request is lost", request=request)
        return self.transport.round_trip(request)


def test_blob_writer_any_calls_commit_what_was_written(registry_host: str) -> None:
    transport = UrllibTransport()
    try:
        run_state_machine_as_test(
            lambda: RegistryMachine(registry_host, transport),
            settings=settings(
                max_examples=10,
                stateful_step_count=15,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
    finally:
        transport.close()
