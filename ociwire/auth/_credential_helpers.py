"""Run Docker's credential helpers.

Follows the protocol of docker-credential-helpers: ``docker-credential-NAME get`` reads the server from standard input
and writes JSON to standard output. A helper is run without a shell, and its name must not be a path. Error messages do
not contain its output, which may be the secret.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress

from .._oci.manifest import parse_json_object
from .._text import format_path
from ..errors import AuthError, UsageError
from .credentials import Credential

__all__ = ["find_helper", "run_helper"]

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_TIMEOUT = 60.0
"""Timeout in seconds of a helper, which may prompt the user for a passphrase."""
_MAX_OUTPUT = 1024 * 1024
_CAN_SELECT_PIPES = os.name != "nt"


def find_helper(name: str, path: str) -> str | None:
    """Return the path of a helper's program; `None` if it is not installed.

    Raises:
        AuthError: The name contains characters other than letters, digits, ``.``, ``_`` and ``-``. A name with a slash
            could run a program outside of PATH.
    """
    if not _NAME.fullmatch(name):
        raise AuthError(f"invalid credential helper {name!r:.100}: expected letters, digits, '.', '_' and '-'")
    folders = os.pathsep.join(filter(os.path.isabs, path.split(os.pathsep)))  # never the current directory
    return shutil.which(f"docker-credential-{name}", path=folders) if folders else None


def run_helper(program: str, server: str, env: Mapping[str, str], source: str) -> Credential | None:
    """Return the credential that a helper has for a server, which is a host or the URL of Docker Hub.

    Raises:
        AuthError: The helper failed, took longer than a minute, or printed invalid output; or the system is Windows.
    """
    name = os.path.basename(program)
    helper = f"the credential helper {name}"
    if not _CAN_SELECT_PIPES:
        raise AuthError(f"cannot run {helper}: credential helpers are not supported on Windows, pass credentials=")
    try:
        status, output = _run(helper, program, server, env)
    except OSError as error:
        raise AuthError(f"cannot run {helper} ({format_path(program)}): {error.strerror}") from error
    if status != 0:
        if "credentials not found" in output[:200].decode("utf-8", "replace").lower():
            return None
        raise AuthError(
            f"{helper} failed for {server} with exit status {status}: to see why, run echo {server} | {name} get"
        )
    answer = parse_json_object(output) or {}
    username, secret = answer.get("Username"), answer.get("Secret")
    if not isinstance(username, str) or not isinstance(secret, str):
        raise AuthError(f"{helper} printed invalid output: expected a JSON object with the strings Username and Secret")
    if not secret and username in ("", "<token>"):
        return None
    try:
        if username == "<token>":  # the protocol's name for an identity token
            return Credential(identity_token=secret, source=source)
        return Credential(username=username, password=secret, source=source)
    except UsageError as error:
        raise AuthError(f"{helper} printed invalid output: {error}") from None


def _run(helper: str, program: str, server: str, env: Mapping[str, str]) -> tuple[int, bytes]:
    """Return the exit status and the standard output of a helper."""
    import selectors  # imported here because most processes never run a helper
    import subprocess

    output = bytearray()
    ends_at = time.monotonic() + _TIMEOUT
    with (
        selectors.DefaultSelector() as selector,
        subprocess.Popen(  # noqa: S603 - the name is checked, and comes from the user's configuration file
            [program, "get"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(env),
            bufsize=0,
        ) as process,
    ):
        try:
            if process.stdin is not None and process.stdout is not None:  # always true: both are pipes
                with suppress(BrokenPipeError):  # a helper may exit without reading
                    process.stdin.write(server.encode())  # never blocks: a host fits into the buffer of a pipe
                process.stdin.close()
                selector.register(process.stdout, selectors.EVENT_READ)
            # `Popen.communicate` is not used, because it does not limit the output, and it also waits for background
            # processes of the helper that inherited the pipe.
            while (remaining := ends_at - time.monotonic()) > 0 and (ready := selector.select(remaining)):
                data = os.read(ready[0][0].fd, 64 * 1024)
                output += data
                if len(output) > _MAX_OUTPUT:
                    raise AuthError(f"{helper} printed more than {_MAX_OUTPUT} bytes for {server}")
                if not data:
                    return process.wait(max(0.0, ends_at - time.monotonic())), bytes(output)
        except subprocess.TimeoutExpired:
            pass
        finally:
            process.kill()  # no effect if the process has ended
    raise AuthError(f"{helper} did not answer for {server} within {_TIMEOUT:g} s")
