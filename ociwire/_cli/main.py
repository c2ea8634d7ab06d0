"""The ``ociwire`` command, which sends requests to a registry and shows what each layer does.

Exit status: 0 on success, 1 if the registry or the connection fails, 2 if the command line is invalid.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import closing

from .._client.client import Client
from .._oci.descriptor import Descriptor
from .._oci.reference import Reference
from .._version import __version__
from ..auth import DockerConfig
from ..errors import OciwireError, RegistryError, UsageError
from .demo import LAYER, STEPS, get_credentials, serve_demo
from .hints import get_hint
from .render import Style, render_summary, render_tree
from .trace import Span, Trace, traced_stack

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    Args:
        arguments: Command line arguments without the program name. Defaults to ``sys.argv[1:]``.
    """
    parser = argparse.ArgumentParser(
        prog="ociwire",
        description="Without a command: push an artifact to a local registry, pull it, and show what each layer did.",
    )
    parser.add_argument("--version", action="version", version=f"ociwire {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands")
    explain = commands.add_parser("explain", help="resolve a reference, and show the requests layer by layer")
    explain.add_argument("reference", help="reference as for docker pull: [HOST/]NAME[:TAG][@DIGEST]")
    explain.add_argument("--insecure", action="store_true", help="use plain HTTP")
    explain.add_argument("--ca", metavar="FILE", help="trust only the CA certificates in this file")
    explain.add_argument("--proxy", metavar="URL", help="proxy: http://[USER:PASSWORD@]HOST[:PORT]")
    options = parser.parse_args(arguments)
    try:
        return _explain(options) if options.command == "explain" else _demonstrate()
    except BrokenPipeError:
        # The reader of the pipe has closed it (`| head`). Redirect stdout, because the flush at exit would fail, too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _explain(options: argparse.Namespace) -> int:
    """Resolve a reference and print the requests and what each layer did."""
    trace, style = Trace(), _make_style()
    try:
        reference = Reference.parse(options.reference)
        credentials = DockerConfig.load()
        # No retries, so that the first failure is shown.
        transport = traced_stack(trace, credentials, retry=False, tls=options.ca, proxy=options.proxy)
        with closing(transport):
            tag_or_digest = reference.digest or reference.tag or "latest"
            print(style.paint("bold", f"resolve {reference.repository} {tag_or_digest} at {reference.host}"))
            print(f"  credentials for {credentials.explain(reference.host, reference.repository)}\n", flush=True)
            descriptor = _resolve(Client(reference.host, transport, insecure=options.insecure), reference)
    except UsageError as error:
        print(f"ociwire: {error}", file=sys.stderr)
        return 2
    except OciwireError as error:
        _print_spans(trace.pop_spans(), style)
        print(f"ociwire: {error}", file=sys.stderr)
        print(f"  {get_hint(error)}", file=sys.stderr)
        return 1
    _print_spans(trace.pop_spans(), style)
    print(f"\n  {descriptor.digest}\n  {descriptor.media_type}, {descriptor.size} bytes")
    return 0


def _resolve(client: Client, reference: Reference) -> Descriptor:
    repository, tag, digest = reference.repository, reference.tag or "latest", reference.digest
    try:
        return client.resolve_manifest(repository, digest) if digest else client.resolve_tag(repository, tag)
    except RegistryError as error:
        if error.code or error.status == 429:
            raise
        # A response to HEAD has no body with an error code. Repeat the request as GET to get the reason.
        reader = client.get_manifest(repository, digest) if digest else client.get_tag(repository, tag)
        return reader.descriptor


def _demonstrate() -> int:
    """Push an artifact to a registry on loopback, pull it, and print the requests and what each layer did."""
    trace, style, all_spans = Trace(), _make_style(), list[Span]()
    with serve_demo() as host, closing(traced_stack(trace, get_credentials(host))) as transport:
        client = Client(host, transport, insecure=True)
        print(style.paint("bold", f"ociwire {__version__}: push an artifact to a registry on loopback and pull it"))
        print("The registry requires tokens, redirects blob downloads, and answers 503 once.")
        for title, step in STEPS:
            step(client)
            spans = trace.pop_spans()
            all_spans += spans
            print(style.paint("bold", f"\n{title}"))
            _print_spans(spans, style)
    print(style.paint("bold", "\nwhat each layer did"))
    for line in render_summary(all_spans, style):
        print(line)
    print("\nThe generator was not read before the registry responded with 100 (Continue).")
    print(f"Pulled and verified {LAYER.size} bytes with the digest {LAYER.digest}.")
    return 0


def _make_style() -> Style:
    return Style(colours=sys.stdout.isatty() and not os.environ.get("NO_COLOR"))


def _print_spans(spans: list[Span], style: Style) -> None:
    for span in spans:
        for line in render_tree(span, style):
            print(line)
    sys.stdout.flush()  # so that the lines appear before the error message on stderr
