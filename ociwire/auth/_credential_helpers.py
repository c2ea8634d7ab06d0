"""Run Docker's credential helpers and cache their answers.

Follows the protocol of docker-credential-helpers: ``docker-credential-NAME get``, the server on standard input, JSON on
standard output. A helper is run without a shell, by a name that is not a path. No message shows what it prints: that
may be the secret.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress

from .._bounded_cache import BoundedCache
from .._oci.manifest import parse_json_object
from ..errors import AuthError, UsageError
from .credentials import Credential

__all__ = ["CredentialHelpers"]

_LOG = logging.getLogger("ociwire.auth")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_TIMEOUT = 60.0
"""Seconds for a helper to answer: it may have to ask a person for a passphrase."""
_LIFETIME = 60.0
"""Seconds for which an answer is cached."""
_MAX_ANSWERS = 1024
_MAX_OUTPUT = 1024 * 1024


class CredentialHelpers:
    """Runs the credential helpers on a PATH. Answers are cached for a minute, None included; failures only on request.

    Args:
        env: Where PATH is looked up, and what a helper is run with.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        # Expiry, and the credential or the text of a failure: a cached exception would collect tracebacks.
        self._answers: BoundedCache[tuple[str, str], tuple[float, Credential | str | None]] = BoundedCache(_MAX_ANSWERS)

    def find_program(self, name: str) -> str | None:
        """The path of a helper's program; None if it is not installed.

        Raises:
            AuthError: The name is not valid: it could name a program outside of PATH.
        """
        if not _NAME.fullmatch(name):
            raise AuthError(f"not the name of a credential helper: {name!r:.100} (letters, digits, '.', '_' and '-')")
        folders = self._env.get("PATH", "").split(":")
        absolute = ":".join(folder for folder in folders if folder.startswith("/"))  # never the current directory
        return shutil.which(f"docker-credential-{name}", path=absolute) if absolute else None

    def get(
        self, name: str, program: str, server: str, source: str, *, cache_failure: bool = False
    ) -> Credential | None:
        """Return the credential that a helper has for a server: a host, or Docker Hub's URL.

        With `cache_failure`, a failure is logged as a warning, and cached for a minute like an answer.

        Raises:
            AuthError: The helper failed, took longer than a minute, or its answer is not valid.
        """
        cached = self._answers.get((program, server))
        if cached is None or time.monotonic() >= cached[0]:
            helper = f"the credential helper docker-credential-{name}"
            answer: Credential | str | None
            try:
                output = _run(helper, program, server, self._env)
                answer = None if output is None else _parse(helper, output, source)
            except AuthError as error:
                if not cache_failure:
                    raise
                answer = str(error)
                _LOG.warning("%s; continuing without credentials for %s", answer, server)
            cached = (time.monotonic() + _LIFETIME, answer)
            self._answers.put((program, server), cached)
        if isinstance(cached[1], str):
            raise AuthError(cached[1])
        return cached[1]


def _run(helper: str, program: str, server: str, env: Mapping[str, str]) -> bytes | None:
    """The standard output of a helper; None if it has no credentials for the server."""
    import selectors
    import subprocess  # imported here because it takes time that most users never need

    output = bytearray()
    is_complete = False
    ends_at = time.monotonic() + _TIMEOUT
    try:
        with (
            selectors.DefaultSelector() as selector,
            subprocess.Popen(  # noqa: S603 - its name is checked, and comes from the user's own file
                [program, "get"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=dict(env),
                bufsize=0,
            ) as process,
        ):
            try:
                if process.stdin is not None and process.stdout is not None:  # always: both are pipes
                    with suppress(BrokenPipeError):  # a helper may answer without reading
                        process.stdin.write(server.encode())  # never blocks: a host is shorter than a pipe
                    process.stdin.close()
                    selector.register(process.stdout, selectors.EVENT_READ)
                # `Popen.communicate` has no limit, and waits for what the helper has started, if that holds the pipe.
                while not is_complete and len(output) <= _MAX_OUTPUT and time.monotonic() < ends_at:
                    for key, _ in selector.select(ends_at - time.monotonic()):
                        data = os.read(key.fd, 64 * 1024)
                        output += data
                        is_complete = not data
                if is_complete:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(max(0.0, ends_at - time.monotonic()))
            finally:
                is_complete = process.returncode is not None
                process.kill()  # does nothing to a process that has ended
    except OSError as error:
        raise AuthError(f"{helper} cannot be run: {error.strerror} ({program})") from error
    if len(output) > _MAX_OUTPUT:
        raise AuthError(f"{helper} printed more than {_MAX_OUTPUT} bytes for {server}: expected one JSON object")
    if not is_complete:
        raise AuthError(f"{helper} did not answer for {server} within {_TIMEOUT:g} s")
    if process.returncode == 0:
        return bytes(output)
    if "credentials not found" in output[:200].decode("utf-8", "replace").lower():
        return None
    raise AuthError(
        f"{helper} failed for {server} with exit status {process.returncode}; see what it says:"
        f" echo {server} | {os.path.basename(program)} get"
    )


def _parse(helper: str, output: bytes, source: str) -> Credential | None:
    answer = parse_json_object(output)
    if answer is None:
        raise AuthError(f"{helper} did not answer with a JSON object")
    username, secret = answer.get("Username"), answer.get("Secret")
    if not isinstance(username, str) or not isinstance(secret, str):
        raise AuthError(f"{helper} answered without the strings Username and Secret")
    if not secret and username in ("", "<token>"):
        return None
    try:
        if username == "<token>":  # the protocol's name for an identity token
            return Credential(identity_token=secret, source=source)
        return Credential(username=username, password=secret, source=source)
    except UsageError as error:
        raise AuthError(f"{helper} answered with what cannot be used: {error}") from None
