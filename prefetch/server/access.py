"""Who may see private content."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from prefetch.server.settings import ANONYMOUS, EVERY_USER, Access

_WITHIN: Final = "[^/]*"
_ONE: Final = "[^/]"


class AccessRules:
    """Decides which repositories' private content a user may see.

    Without rules every authenticated user sees all of it. With rules, one of them must name both
    the user (`anonymous` is whoever is nobody, `*` every authenticated user) and the repository.
    Its patterns are matched against the whole of `<registry>/<repository>`: `?` is one character,
    `*` any number of them, neither of them a slash; but a `*` at the very end stands for
    everything below, too. All else stands for itself.

    `has_users` says whether anybody can be authenticated at all.
    """

    def __init__(self, rules: tuple[Access, ...] | None, has_users: bool) -> None:
        self._has_users = has_users
        self._rules = None if rules is None else tuple(map(_compiled, rules))

    def may_see(self, user: str, registry: str, repository: str) -> bool:
        """Whether `user`, a name that was authenticated or `anonymous`, may see it."""
        known = self._has_users and user != ANONYMOUS
        if self._rules is None:
            return known
        if not known and user != ANONYMOUS:
            return False
        name = f"{registry}/{repository}"
        return any(
            (user in rule.users or (known and EVERY_USER in rule.users))
            and rule.repositories.fullmatch(name) is not None
            for rule in self._rules
        )


@dataclass(frozen=True, slots=True)
class _Rule:
    users: Collection[str]
    repositories: re.Pattern[str]


def _compiled(rule: Access) -> _Rule:
    """All of a rule's patterns as one expression; without any it matches no name."""
    patterns = "|".join(map(_expression, rule.repositories))
    return _Rule(frozenset(rule.users), re.compile(patterns, re.DOTALL))


def _expression(pattern: str) -> str:
    below = ".*" if pattern.endswith("*") else ""
    return "/".join(map(_part, pattern.removesuffix("*").split("/"))) + below


def _part(text: str) -> str:
    """One part of a path.

    What stands between two stars is looked for once, from the left, and never again: an atomic
    group is not gone back into, so that no name takes longer than its length times the pattern's.
    """
    first, *others = [_literal(piece) for piece in re.split(r"\*+", text)]
    if not others:
        return first
    *middle, last = others
    return first + "".join(f"(?>{_WITHIN}?{piece})" for piece in middle) + _WITHIN + last


def _literal(text: str) -> str:
    return "".join(_ONE if character == "?" else re.escape(character) for character in text)
