"""The columns of "Registries in practice" that every row of the tables in this folder has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """Behaviour of a registry, which a test reproduces and docs/registries.md describes.

    A test module extends this class with the attributes that its test needs: a fake registry and the expected result.
    Its rows are in ``ROWS``, and the heading of its section is ``TITLE``.

    Attributes:
        name: The id of the test, which describes the behaviour, such as ``challenge_names_another_repository``.
        registry: The registry or tool, such as ``Artifactory`` or ``Go registries behind nginx``.
        behaviour: What the registry does, in one sentence.
        result: What ociwire does, in one sentence.
        source: A Markdown link to the report, the documentation or the source code.
        real: Whether a test in tests/integration reproduces it with the real server. Defaults to false.
    """

    name: str
    registry: str
    behaviour: str
    result: str
    source: str
    real: bool = False

    def __str__(self) -> str:
        return self.name
