"""The ``ociwire`` command: what passes through the layers, for a real reference or for an artifact on loopback.

Exit status: 0 when it went well, 1 when the registry or the way to it said no, 2 when the command line is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import closing

from ._cli.demo import LAYER, STEPS, credentials_for, serve_demonstration
from ._cli.hints import advice
from ._cli.render import Style, summary, tree
from ._cli.trace import Hop, Trace, traced
from ._client.client import Client
from ._oci.descriptor import Descriptor
from ._oci.reference import Reference
from ._version import __version__
from .auth import DockerConfig
from .errors import OciwireError, RegistryError, UsageError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="ociwire",
        description="Without a command: push an artifact to a registry of its own, and show what each layer did.",
    )
    parser.add_argument("--version", action="version", version=f"ociwire {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands")
    explaining = commands.add_parser("explain", help="show, layer by layer, the conversation that resolves a reference")
    explaining.add_argument("reference", help="as docker pull takes it: [HOST/]NAME[:TAG][@DIGEST]")
    explaining.add_argument("--insecure", action="store_true", help="speak plain http")
    explaining.add_argument("--ca", metavar="FILE", help="trust these CAs, and no others")
    explaining.add_argument("--proxy", metavar="URL", help="go through this proxy: http://[USER:PASSWORD@]HOST[:PORT]")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "explain":
            return _explain(chosen)
        return _demonstrate()
    except BrokenPipeError:
        # Whoever read along has seen enough (`| head`). What is still to be flushed goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _explain(chosen: argparse.Namespace) -> int:
    trace, style = Trace(), _style()
    try:
        reference = Reference.parse(chosen.reference)
        credentials = DockerConfig.load()
        # What fails is shown as it failed the first time.
        transport = traced(trace, credentials, retry=False, tls=chosen.ca, proxy=chosen.proxy)
        with closing(transport):
            wanted = reference.digest or reference.tag or "latest"
            print(style.paint("bold", f"resolve {reference.repository} {wanted} at {reference.host}"))
            print(f"  credentials for {credentials.explain(reference.host, reference.repository)}\n", flush=True)
            found = _resolve(Client(reference.host, transport, insecure=chosen.insecure), reference)
    except UsageError as error:
        print(f"ociwire: {error}", file=sys.stderr)
        return 2
    except OciwireError as error:
        _print(trace.take(), style)
        print(f"ociwire: {error}", file=sys.stderr)
        print(f"  {advice(error)}", file=sys.stderr)
        return 1
    _print(trace.take(), style)
    print(f"\n  {found.digest}\n  {found.media_type}, {found.size} bytes")
    return 0


def _resolve(client: Client, reference: Reference) -> Descriptor:
    repository, tag, digest = reference.repository, reference.tag or "latest", reference.digest
    try:
        return client.resolve_manifest(repository, digest) if digest else client.resolve_tag(repository, tag)
    except RegistryError as error:
        if error.code or error.status == 429:
            raise
        # The answer to a HEAD cannot say why: ask again, so that it can.
        reader = client.get_manifest(repository, digest) if digest else client.get_tag(repository, tag)
        return reader.descriptor


def _demonstrate() -> int:
    style, conversation = _style(), list[Hop]()
    trace = Trace()
    with serve_demonstration() as host:
        transport = traced(trace, credentials_for(host))
        try:
            client = Client(host, transport, insecure=True)
            print(style.paint("bold", f"ociwire {__version__}: an artifact goes to a registry on loopback and back"))
            print("The registry wants tokens, keeps its blobs on another server, and is overloaded once.")
            for title, step in STEPS:
                step(client)
                passed = trace.take()
                conversation += passed
                print(style.paint("bold", f"\n{title}"))
                _print(passed, style)
        finally:
            transport.close()
    print(style.paint("bold", "\nwhat each layer did"))
    for line in summary(conversation, style):
        print(line)
    print("\nNo byte of the generator left before the registry had said 100 (Continue).")
    print(f"{LAYER.size} bytes came back, and are {LAYER.digest}.")
    return 0


def _style() -> Style:
    return Style(colours=sys.stdout.isatty() and not os.environ.get("NO_COLOR"))


def _print(hops: list[Hop], style: Style) -> None:
    for hop in hops:
        for line in tree(hop, style):
            print(line)
    sys.stdout.flush()  # before anything that goes to stderr


if __name__ == "__main__":
    sys.exit(main())
