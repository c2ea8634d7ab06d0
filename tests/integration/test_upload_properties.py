"""The machine of the in-process endpoint, against a registry that others have written."""

from __future__ import annotations

import hashlib

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from ociwire import Client, FunctionTransport, Request, Response, UrllibTransport, errors
from tests._support.upload_model import UploadMachine

UNIT = 10_007


class RegistryMachine(UploadMachine):
    """Requests are lost before they are sent: docker-registry's Location has the offset in it, so that an upload whose
    answer was lost can't be found again by anybody. It answers 0-0 to one byte and to none, and never 416.
    """

    unit = UNIT
    content = hashlib.shake_256(b"noise").digest(700 * UNIT)
    tells_one = False

    def __init__(self, host: str, wire: UrllibTransport) -> None:
        super().__init__()
        self.wire = wire
        self.begin_with(Client(host, FunctionTransport(self.send), insecure=True), [])

    def send(self, request: Request) -> Response:
        if self.faults and self.faults.pop(0) is not None:
            raise errors.ReadError("lost on the way", request=request)
        return self.wire.round_trip(request)


def test_blob_writer_any_calls_commit_what_was_written(registry_host: str) -> None:
    wire = UrllibTransport()
    try:
        run_state_machine_as_test(
            lambda: RegistryMachine(registry_host, wire),
            settings=settings(
                max_examples=10,
                stateful_step_count=15,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
    finally:
        wire.close()
