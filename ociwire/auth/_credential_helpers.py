"""Docker's credential helpers: programs that are asked for a host and answer with a user and a secret.

Follows the protocol of docker-credential-helpers: ``docker-credential-NAME get``, the server on standard input, JSON on
standard output. A helper is run without a shell, by a name that is no path, and what it prints is in no message: it may
be the secret.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import AuthError, UsageError
from .credentials import Credential

if TYPE_CHECKING:
    import subprocess

__all__ = ["Helpers"]

_LOG = logging.getLogger("ociwire.auth")

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_NOT_FOUND = "credentials not found"
_TIMEOUT = 60.0
"""Seconds for a helper to answer: it may have to ask a person for a passphrase."""
_KEPT = 60.0
"""Seconds for which a helper's answer is kept."""
_MAX_KEPT = 1024
_LONGEST = 1024 * 1024
"""Maximum number of bytes that a helper may print on standard output."""
_READ_SIZE = 64 * 1024


class Helpers:
    """Runs the credential helpers on a PATH. Answers are cached for a minute, None included; failures only on request.

    Args:
        env: Where PATH is looked up, and what a helper is run with.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], _Kept] = {}

    def find(self, name: str) -> str | None:
        """Where the program of a helper is; None if it is not installed.

        Raises:
            AuthError: The name is not valid: it would lead elsewhere than into PATH.
        """
        if not _NAME.fullmatch(name):
            raise AuthError(f"not the name of a credential helper: {name!r:.100} (letters, digits, '.', '_' and '-')")
        folders = self._env.get("PATH", "").split(":")
        absolute = ":".join(folder for folder in folders if folder.startswith("/"))  # never the folder one stands in
        return shutil.which(f"docker-credential-{name}", path=absolute) if absolute else None

    def get(
        self, name: str, program: str, server: str, source: str, *, keep_failure: bool = False
    ) -> Credential | None:
        """Return the credential that a helper has for a server.

        Args:
            name: The helper's.
            program: Its path.
            server: What is asked for: a host, or Docker Hub's URL.
            source: For `Credential.source`.
            keep_failure: Whether a failure is logged as a warning, and kept for a minute like an answer.

        Raises:
            AuthError: It failed, took longer than a minute, or answered with something else.
        """
        kept = self._kept.get((program, server))
        if kept is not None and time.monotonic() < kept.expires_at:
            return kept.get()
        answer: Credential | None = None
        failure = ""
        try:
            output = _run(name, program, server, self._env)
            answer = None if output is None else _credential(name, output, source)
        except AuthError as error:
            if not keep_failure:
                raise
            # The text alone: an exception that is kept and raised again collects tracebacks.
            failure = str(error)
            _LOG.warning("%s; continuing without credentials for %s", failure, server)
        kept = _Kept(time.monotonic() + _KEPT, answer, failure)
        with self._lock:
            while len(self._kept) >= _MAX_KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[program, server] = kept
        return kept.get()


class _Kept(NamedTuple):
    """What a helper answered, or the text of its failure."""

    expires_at: float
    answer: Credential | None
    failure: str

    def get(self) -> Credential | None:
        if self.failure:
            raise AuthError(self.failure)
        return self.answer


class _TooLongError(Exception):
    """A helper printed more than `_LONGEST` bytes."""


def _run(name: str, program: str, server: str, env: Mapping[str, str]) -> bytes | None:
    import subprocess  # costs an import of its own, which most users never need

    output = bytearray()
    problem = ""
    ends_at = time.monotonic() + _TIMEOUT
    try:
        with subprocess.Popen(  # noqa: S603 - its name is checked, and comes from the user's own file
            [program, "get"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env),
            bufsize=0,
        ) as process:
            try:
                _communicate(process, server.encode(), output, ends_at)
                process.wait(max(0.0, ends_at - time.monotonic()))
            except BaseException:
                process.kill()  # what it has started may hold the pipes open: they are not read to their end
                raise
    except subprocess.TimeoutExpired:
        problem = f"did not answer for {server} within {_TIMEOUT:g} s"
    except _TooLongError:
        problem = f"printed more than {_LONGEST} bytes for {server}: expected one JSON object"
    except OSError as error:
        raise AuthError(f"{_says(name)} cannot be run: {error.strerror} ({program})") from error
    if problem:  # raised here, with nothing chained to it: a traceback's frames hold what was printed so far
        raise AuthError(f"{_says(name)} {problem}")
    if process.returncode == 0:
        return bytes(output)
    if _NOT_FOUND in output[:200].decode("utf-8", "replace").lower():
        return None
    raise AuthError(
        f"{_says(name)} failed for {server} with exit status {process.returncode}; see what it says:"
        f" echo {server} | docker-credential-{name} get"
    )


def _communicate(process: subprocess.Popen[bytes], question: bytes, output: bytearray, ends_at: float) -> None:
    """Write the question, and read both pipes to their ends. At most `_LONGEST` bytes of stdout are kept.

    `subprocess.Popen.communicate` has no bound. What goes to stderr is read, so that the helper does not block, and
    dropped.

    Raises:
        subprocess.TimeoutExpired: The pipes are still open at `ends_at`, a time of `time.monotonic`.
        _TooLongError: There is more on stdout.
    """
    import selectors
    import subprocess

    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    if stdin is None or stdout is None or stderr is None:  # never: all three are pipes
        return
    with suppress(BrokenPipeError):  # a helper may answer without reading
        stdin.write(question)  # never blocks: a host is shorter than a pipe
    stdin.close()
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        selector.register(stderr, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, ends_at - time.monotonic()))
            if not ready or time.monotonic() >= ends_at:
                raise subprocess.TimeoutExpired(process.args, _TIMEOUT)
            for key, _ in ready:
                data = os.read(key.fd, _READ_SIZE)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fd == stdout.fileno():
                    output += data
                    if len(output) > _LONGEST:
                        raise _TooLongError


def _credential(name: str, output: bytes, source: str) -> Credential | None:
    # An exception of json's holds the text that it could not read, so that none is chained to what is raised here.
    answer: Any = None
    with suppress(ValueError, RecursionError):
        answer = json.loads(output)
    if not isinstance(answer, dict):
        raise AuthError(f"{_says(name)} did not answer with a JSON object")
    username, secret = answer.get("Username"), answer.get("Secret")
    if not isinstance(username, str) or not isinstance(secret, str):
        raise AuthError(f"{_says(name)} answered without the strings Username and Secret")
    if not secret and username in ("", "<token>"):
        return None
    try:
        if username == "<token>":
            return Credential(identity_token=secret, source=source)
        return Credential(username=username, password=secret, source=source)
    except UsageError as error:
        raise AuthError(f"{_says(name)} answered with what cannot be used: {error}") from None


def _says(name: str) -> str:
    return f"the credential helper docker-credential-{name}"
