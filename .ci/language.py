"""Finds phrases that CONTRIBUTING.md, "Language", rules out, in docstrings, comments, messages and pages.

Usage: ``python .ci/language.py [PATH...]``. Of a directory, and without a path, it checks all committed files. The exit
status is 1 if a phrase is found. A phrase is also found if it is broken across lines. To allow one, for example in a
quotation, end its first line with ``language: ok``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

# Each phrase as a regular expression that ignores case, and what to write instead.
PHRASES = {
    # Persons for programs
    r"\bnobody\b": "anonymous, no client, without credentials",
    r"\b(?:any|every|some)body\b": "any client, all users, another program",
    r"\bwho(?:ever|soever)\b|\bwhoso\b": "the caller, a client, the server",
    r"\bwhom\b": "which",
    r"\bstrangers?\b": "another program, an untrusted server",
    r"\bother people's\b": "other, third-party",
    r"\b(?:server|registry|proxy|client|layer)s? (?:that )?wants?\b": "requires, expects",
    r"\bspeaks? (?:plain )?https?\b": "uses HTTP",
    r"\bsays no\b|\bsaid no\b": "refuses, refused",
    r"\bmeans? ill\b": "is hostile",
    r"\bbear with\b": "tolerate",
    r"\b(?:is|are|was|were|be|being) told\b|\btold of\b": "gets, is passed, is informed of",
    # Old or literary words
    r"\banew\b": "again",
    r"\bone's\b": "your, the caller's",
    r"\bof (?:one's|your|its|their) own\b": "your own X, its own X, custom",
    r"\bone-shot\b": "single-use",
    r"\bhalf-spent\b": "partially consumed",
    r"\bpulled from (?:a|the) body\b": "read from the body",
    r"\bby way of\b": "through",
    r"\bwithout a thought\b": "safely",
    r"\bin a circle\b": "in a loop",
    r"\bhow many(?:eth)\b": "the sequence number",
    r"\bhowever (?:often|many|much|long)\b": "regardless of how often",
    r"\bthough it be\b": "even if it is",
    r"\bso (?:many|much) bytes\b": "`count` bytes, a number of bytes",
    r"\bhas nothing to say\b": "is empty",
    r"\bis of no use\b": "is useless",
    r"\bhand(?:s|ed)? on\b": "forward, pass",
    r"\bgo(?:es|ne)? on with\b": "continue, resume",
    r"\btaken up again\b": "resumed",
    r"\bput to sleep\b": "wait",
    r"\blets? go of\b": "release, close",
    r"\b(?:gives?|gave|given) (?:it|them) up\b|\bwas given up\b": "drop, cancel",
    r"\bleft alone\b": "not changed, not contacted",
    r"\bmend(?:ed)?\b": "fix",
    r"\bthe wire\b": "the network, the connection",
    r"\bthe other ends?\b": "the server, the peer",
    # Sentences that hide their subject, and old forms of messages
    r"\bSupported is\b": "put the subject first",
    r"\bwhat is none\b": "anything else",
    r"\bis no (?:number|index|error|page|string|list|mapping|object)\b": "is not a ...",
    r"\(it reads\b|: it reads\b": "expected ...",
    r"[\"']not an? [a-z]+(?: [a-z]+)*: ": "invalid X '...': expected ...",
    r"\"\"\"(?:What|Who|How|That|Where|Until)\b": "a verb or a noun phrase",
}

EXCLUDED = (
    ".ci/language.py",
    "LICENSE",
    "tests/_support/messages.py",  # lists such forms
    "tests/test_error_messages.py",
    "tests/test_language_check.py",
    # Pages that are still written in the old style. Remove a path when its pages are rewritten.
    "docs/howto/",
    "docs/explanation/",
    "docs/tutorial",
)
SUFFIXES = {".cfg", ".md", ".py", ".toml", ".yaml", ".yml", ".sh", ""}
ALLOWED = "language: ok"
# A space in a phrase also matches a line break, with the comment sign and the indentation of the next line.
PATTERNS = {
    re.compile(phrase.replace(" ", r"(?: |\s*\n[ \t]*(?:# )?)"), re.IGNORECASE): better
    for phrase, better in PHRASES.items()
}


def committed_files(directory: str = ".") -> list[Path]:
    """Return the files under version control in a directory."""
    command = ["git", "ls-files", "--", directory]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - no shell
    return [Path(name) for name in output.splitlines()]


def is_checked(path: Path) -> bool:
    """Return whether a file has text to check and is not excluded."""
    return path.suffix in SUFFIXES and path.is_file() and not str(path).startswith(EXCLUDED)


def findings(path: Path) -> list[str]:
    """Return a line for each phrase in a file: its place, the phrase, and what to write instead."""
    text = path.read_text("utf-8")
    lines = text.splitlines()
    found = []
    for pattern, better in PATTERNS.items():
        for match in pattern.finditer(text):
            number = text.count("\n", 0, match.start()) + 1
            if not lines[number - 1].rstrip(" ->").endswith(ALLOWED):
                phrase = " ".join(match[0].split())
                found.append((number, f"{path}:{number}: {phrase!r}: write: {better}"))
    return [line for _, line in sorted(found)]


def main() -> int:
    """Print all findings and return the exit status."""
    paths: list[Path] = []
    for name in sys.argv[1:] or ["."]:
        paths += committed_files(name) if Path(name).is_dir() else [Path(name)]
    found = [line for path in paths if is_checked(path) for line in findings(path)]
    print("\n".join([*found, f"{len(found)} phrases found"]) if found else "no phrases found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
