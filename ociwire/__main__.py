"""The ``ociwire`` command: what passes through the layers, for one real reference or for a blob on loopback.

Exit status: 0 when it went well, 1 when the registry or the way to it said no, 2 when the command line is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence

from ._demonstration import serve_blobs
from ._trace import Trace, traced
from ._version import __version__
from .auth import Anonymous, DockerConfig
from .client import Client
from .descriptor import DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, OCI_INDEX, OCI_MANIFEST, Descriptor
from .errors import OciwireError, Unauthorized, UsageError
from .message import Request, RequestInfo
from .reference import Reference
from .scope import Scope
from .status import check_response

__all__ = ["main"]

_ACCEPT = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_MANIFEST_LIST, DOCKER_MANIFEST, "*/*"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="ociwire",
        description="Without a command: push and pull a blob on a registry of its own, and show what each layer did.",
    )
    parser.add_argument("--version", action="version", version=f"ociwire {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands")
    explaining = commands.add_parser("explain", help="show, layer by layer, the conversation that resolves a reference")
    explaining.add_argument("reference", help="as docker pull takes it: [HOST/]NAME[:TAG][@DIGEST]")
    explaining.add_argument("--insecure", action="store_true", help="speak plain http")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "explain":
            return _explain(chosen.reference, insecure=chosen.insecure)
        return _demonstrate()
    except BrokenPipeError:
        # Whoever read along has seen enough (`| head`). What is still to be flushed goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _explain(text: str, *, insecure: bool) -> int:
    trace = Trace()
    credentials = DockerConfig.load()
    transport = traced(trace, credentials)
    try:
        reference = Reference.parse(text)
        wanted = reference.digest or reference.tag or "latest"
        print(f"resolve {reference.repository} {wanted} at {reference.host}")
        print(f"  credentials for {credentials.explain(reference.host, reference.repository)}", flush=True)
        client = Client(reference.host, transport, insecure=insecure)
        request = Request(
            "HEAD",
            f"/v2/{reference.repository}/manifests/{wanted}",
            {"Accept": _ACCEPT},
            info=RequestInfo(operation="explain"),
        )
        with client.do(request, scope=Scope.repository(reference.repository, "pull")) as response:
            _print(trace)
            check_response(response, 200)
            for name in ("docker-content-digest", "content-type", "content-length"):
                print(f"  {name:<22} {response.headers.get(name, 'not told')}")
    except UsageError as error:
        print(f"ociwire: {error}", file=sys.stderr)
        return 2
    except OciwireError as error:
        _print(trace)
        print(f"ociwire: {error}", file=sys.stderr)
        if isinstance(error, Unauthorized):
            challenge = "" if error.headers is None else error.headers.get("www-authenticate", "none")
            print(f"  The credentials named above, if any, are not enough for it. Its challenge: {challenge:.500}")
        return 1
    finally:
        transport.close()
    return 0


def _demonstrate() -> int:
    chunk = bytes(range(256)) * 4096
    content = chunk * 3
    descriptor = Descriptor.of(content)

    def produced() -> Iterator[bytes]:
        yield from (chunk, chunk, chunk)

    trace = Trace()
    with serve_blobs() as host:
        transport = traced(trace, Anonymous())
        try:
            client = Client(host, transport, insecure=True)
            print(
                f"ociwire {__version__}: a generator of {descriptor.size} bytes goes to a registry on loopback and back"
            )
            print("\nclient.push_blob: the generator is not touched before the registry says 100 (Continue)")
            client.push_blob("demonstration", descriptor, produced())
            _print(trace)
            print("\nclient.resolve_blob")
            client.resolve_blob("demonstration", descriptor.digest)
            _print(trace)
            print("\nclient.get_blob")
            with client.get_blob("demonstration", descriptor.digest) as reader:
                reader.verify()
            _print(trace)
            print(f"\n{descriptor.size} bytes came back, and are {descriptor.digest}")
        finally:
            transport.close()
    return 0


def _print(trace: Trace) -> None:
    for line in trace.take():
        print(line)
    sys.stdout.flush()  # before anything that goes to stderr


if __name__ == "__main__":
    sys.exit(main())
