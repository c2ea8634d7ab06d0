"""Form of error messages: rules for their source text, and a check of every message that a test makes ociwire raise."""

from __future__ import annotations

import functools
import inspect
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ociwire
from ociwire import errors
from ociwire.errors import OciwireError

PACKAGE = Path(ociwire.__file__).parent
MAX_LENGTH = 40_000
"""Maximum number of characters of a message. A `RegistryError` has the repr of up to 8 KiB of the response."""
SECRETS = ("s3cret", "hunter2")
"""Passwords that many tests use. No message may contain one."""
PROPER_NAMES = ("Docker", "JSON", "URL")
"""First words of messages that keep their capital letter."""

BANNED = {
    r"^not an? ": "invalid X '...': expected ...",
    r"\bit reads\b|\breads \S+[:/@]": "expected ...",
    r"\bis no [a-z]+\b(?<!longer)": "is not a ...",
    r"\bwhich (?:is|has) none\b|\bwhat is none\b": "anything else",
    r"\bcircle\b": "loop",
    r"\bwants?\b|\btells?\b|\btold\b|\bknows?\b|\bsays\b": "personification: requires, sends, supports, contains",
    r"\bgo(?:es)? (?:out|on|with|deeper|in)\b|\bwent on\b": "is sent, continues, exceeds",
    r"\bnobody\b|\banew\b|\bwhoever\b|\bwhat (?:is|was|names|cannot)\b": "put the subject first",
    r"\bin all\b|\bone belongs\b|\bof no use\b|\bhand(?:s|ed) on\b": "use the standard term",
    r"\banswers for\b|\bnot to be used\b": "use the standard term",
}
"""Forms that a message must not have, and what to write instead."""
EXPLANATION = re.compile(
    r"\b(?:expected|must|cannot|requires?|needs?|refusing|unsupported|closed|committed|missing|mismatch|unexpected)\b"
    r"|[:;(] ?(?:create|delete|download|encode|leave|open|pass|push|remove|set|start|upload|use)\b"
)
"""What the message of a `UsageError` contains: what was expected, or an instruction."""


def check_form(kind: str, message: str) -> list[str]:
    """Return what is wrong with the form of a message in the source. Placeholders in it are written ``…``."""
    wrong = [f"{match[0]!r}: write {better}" for form, better in BANNED.items() if (match := re.search(form, message))]
    if "\n" in message:
        wrong.append("more than one line")
    if "  " in message or message != message.strip():
        wrong.append("superfluous space")
    if message.endswith(".") and not message.endswith("..."):
        wrong.append("final full stop")
    if message[:1].isupper() and not message.startswith(PROPER_NAMES):
        wrong.append("starts with a capital letter")
    if kind == "UsageError" and not EXPLANATION.search(message):
        wrong.append("says neither what was expected nor what to do: expected ..., must ..., cannot ...")
    return wrong


def check_text(message: str) -> list[str]:
    """Return what is wrong with the text of a message that was raised, whatever it quotes."""
    wrong = []
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in message):
        wrong.append("line break, control character or surrogate")
    if len(message) > MAX_LENGTH:
        wrong.append(f"{len(message)} characters, expected at most {MAX_LENGTH}")
    wrong += [f"contains the secret {secret}" for secret in SECRETS if secret in message]
    return wrong


class MessageRecorder:
    """Checks the text of each `OciwireError` that ociwire creates while the tests run.

    It wraps the constructors of the exceptions, so that messages of swallowed and wrapped errors are also checked.
    Errors that a test creates are not. Each process of pytest-xdist has its own recorder.
    """

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.count = 0

    def install(self) -> None:
        """Wrap the constructors of all exceptions of `ociwire.errors`."""
        for kind in list(vars(errors).values()):
            if not (isinstance(kind, type) and issubclass(kind, OciwireError)):
                continue
            if "__init__" in vars(kind):
                kind.__init__ = self._wrap(vars(kind)["__init__"])  # type: ignore[method-assign]
            elif kind is OciwireError:
                kind.__init__ = self._wrap(_call_next)  # type: ignore[method-assign]

    def pop_violations(self) -> list[str]:
        """Return the violations since the last call."""
        violations, self.violations = self.violations, []
        return violations

    def _wrap(self, constructor: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(constructor)
        def wrapper(error: OciwireError, *args: Any, **kwargs: Any) -> None:
            constructor(error, *args, **kwargs)
            if type(error).__init__ is wrapper:  # the last constructor of the chain
                self._check(error)

        return wrapper

    def _check(self, error: OciwireError) -> None:
        frame = inspect.currentframe()
        while frame is not None and frame.f_code.co_filename in (__file__, errors.__file__):
            frame = frame.f_back
        if frame is None or not frame.f_code.co_filename.startswith(str(PACKAGE)):
            return
        self.count += 1
        message = str(error)
        site = f"{Path(frame.f_code.co_filename).relative_to(PACKAGE).as_posix()}:{frame.f_lineno}"
        self.violations += [
            f"{site}: {type(error).__name__}: {wrong}: {message!r:.300}" for wrong in check_text(message)
        ]


def _call_next(error: OciwireError, *args: object) -> None:
    super(OciwireError, error).__init__(*args)


recorder = MessageRecorder()
