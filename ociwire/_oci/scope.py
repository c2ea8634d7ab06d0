"""Token scopes. A request requires a scope, and a token grants a scope.

The syntax is specified by https://distribution.github.io/distribution/spec/auth/scope/. A scope consists of words that
are separated by white space. Each word has the form ``type:name:action,action``. An example is
``repository:foo/bar:pull,push registry:catalog:*``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, ClassVar, NamedTuple, final

__all__ = ["ResourceScope", "Scope"]

# A name may contain colons, for example before the port of a host. Therefore, the type ends at the first colon, and the
# actions begin after the last colon.
_WORD = re.compile(r"([^:]+):(.+):([^:,]+(?:,[^:,]+)*)", re.DOTALL)


class ResourceScope(NamedTuple):
    """A single action on a single resource.

    If a word does not have the expected form, `resource_type` is the word, and the other fields are empty.

    Attributes:
        resource_type: Type of the resource: ``repository``, ``registry`` or another one.
        resource: Name of the resource, such as ``library/alpine`` or ``catalog``.
        action: ``pull``, ``push``, ``delete``, ``*`` or another action.
    """

    resource_type: str
    resource: str
    action: str

    def __str__(self) -> str:
        return _format_word(self.resource_type, self.resource, [self.action])


@final
class Scope:
    """Immutable set of `ResourceScope` that preserves the text that it was parsed from.

    ``a | b`` is the union. Its text is the text of ``a``, followed by the members that are only in ``b``. ``a <= b`` is
    true if ``b`` contains ``a``. Iteration yields the members in sorted order, without duplicates. ``==`` and ``hash``
    ignore the text. An empty scope is false.

    >>> scope = Scope.repository("app", "pull") | Scope.repository("app", "push")
    >>> str(scope)
    'repository:app:pull repository:app:push'
    >>> str(scope.canonical())
    'repository:app:pull,push'
    >>> Scope.parse("repository:app:pull") <= scope
    True

    Args:
        members: The members of the set. Its text is canonical. Defaults to an empty scope.
    """

    __slots__ = ("_members", "_text", "_unlimited")

    EMPTY: ClassVar[Scope]
    """The empty scope, for requests that require no token."""
    UNLIMITED: ClassVar[Scope]
    """The scope that contains every scope. It has no members to iterate over, and its text is ``*``."""
    CATALOG: ClassVar[Scope]
    """The scope ``registry:catalog:*``, which is required to list repositories."""

    def __init__(self, members: Iterable[ResourceScope] = ()) -> None:
        self._members = frozenset(members)
        self._text = _canonical_text(self._members)
        self._unlimited = False

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Parse a scope. Never raises: words that do not have the expected form are preserved verbatim."""
        return cls._make(frozenset(member for word in text.split() for member in _parse_word(word)), text)

    @classmethod
    def repository(cls, name: str, *actions: str) -> Scope:
        """Return the scope ``repository:NAME:ACTIONS`` with the actions in the given order; `EMPTY` without actions."""
        return cls.parse(_format_word("repository", name, actions)) if actions else cls.EMPTY

    @classmethod
    def _make(cls, members: frozenset[ResourceScope], text: str, *, unlimited: bool = False) -> Scope:
        scope = cls()
        scope._members, scope._text, scope._unlimited = members, text, unlimited
        return scope

    def canonical(self) -> Scope:
        """Return an equal scope whose text has one word for each resource, sorted by type, name and action."""
        return self if self._unlimited else Scope(self._members)

    def __or__(self, other: Scope) -> Scope:
        if not isinstance(other, Scope):
            return NotImplemented
        if self._unlimited or other <= self:
            return self
        if other._unlimited or not self._members:
            return other
        seen = set(self._members)
        words = [self._text]
        for word in other._text.split():
            added = [member for member in _parse_word(word) if member not in seen]
            if added:
                seen.update(added)
                first = added[0]
                words.append(_format_word(first.resource_type, first.resource, dict.fromkeys(m.action for m in added)))
        return Scope._make(frozenset(seen), " ".join(words))

    def __le__(self, other: Scope) -> bool:
        if not isinstance(other, Scope):
            return NotImplemented
        return other._unlimited or (not self._unlimited and self._members <= other._members)

    def __contains__(self, member: ResourceScope) -> bool:
        return self._unlimited or member in self._members

    def __iter__(self) -> Iterator[ResourceScope]:
        return iter(sorted(self._members))

    def __bool__(self) -> bool:
        return self._unlimited or bool(self._members)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scope):
            return NotImplemented
        return self._unlimited == other._unlimited and self._members == other._members

    def __hash__(self) -> int:
        return hash((self._members, self._unlimited))

    def __str__(self) -> str:
        return self._text

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._members, self._text, self._unlimited)

    def __repr__(self) -> str:
        return "Scope.UNLIMITED" if self._unlimited else f"Scope.parse({self._text!r})"


def _restore(members: frozenset[ResourceScope], text: str, unlimited: bool) -> Scope:  # noqa: FBT001 - called by pickle
    return Scope._make(members, text, unlimited=unlimited)


def _parse_word(word: str) -> list[ResourceScope]:
    match = _WORD.fullmatch(word)
    if match is None:
        return [ResourceScope(word, "", "")]
    resource_type, resource, actions = match.groups()
    return [ResourceScope(resource_type, resource, action) for action in actions.split(",")]


def _format_word(resource_type: str, resource: str, actions: Iterable[str]) -> str:
    joined = ",".join(actions)
    return f"{resource_type}:{resource}:{joined}" if joined else resource_type


def _canonical_text(members: Iterable[ResourceScope]) -> str:
    resources = groupby(sorted(members), key=lambda member: (member.resource_type, member.resource))
    return " ".join(_format_word(kind, name, [member.action for member in group]) for (kind, name), group in resources)


Scope.EMPTY = Scope()
Scope.UNLIMITED = Scope._make(frozenset(), "*", unlimited=True)
Scope.CATALOG = Scope.parse("registry:catalog:*")
