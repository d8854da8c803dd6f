"""Access rules: which names see which private repositories."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefetch.server.access import AccessRules
from prefetch.server.settings import Access


def matches(pattern: str, name: str) -> bool:
    registry, _, repository = name.partition("/")
    rules = AccessRules((Access(("ci",), (pattern,)),), has_users=True)
    return rules.may_see("ci", registry, repository)


def test_without_rules_every_authenticated_user_sees_everything() -> None:
    rules = AccessRules(None, has_users=True)
    assert rules.may_see("ci", "ghcr.io", "corp/app")
    assert not rules.may_see("anonymous", "ghcr.io", "corp/app")


def test_without_users_nobody_is_authenticated() -> None:
    assert not AccessRules(None, has_users=False).may_see("ci", "ghcr.io", "corp/app")
    named = (Access(("ci", "*", "anonymous"), ("*",)),)
    assert not AccessRules(named, has_users=False).may_see("ci", "ghcr.io", "corp/app")
    assert AccessRules(named, has_users=False).may_see("anonymous", "ghcr.io", "corp/app")


def test_a_rule_names_both_the_user_and_the_repository() -> None:
    rules = AccessRules(
        (
            Access(("ci", "ops"), ("ghcr.io/corp/*", "quay.io/corp/app")),
            Access(("ops",), ("docker.io/corp/*",)),
        ),
        has_users=True,
    )
    assert rules.may_see("ci", "ghcr.io", "corp/app")
    assert rules.may_see("ci", "quay.io", "corp/app")
    assert rules.may_see("ops", "docker.io", "corp/app")
    assert not rules.may_see("ci", "docker.io", "corp/app")
    assert not rules.may_see("ci", "quay.io", "corp/other")
    assert not rules.may_see("eve", "ghcr.io", "corp/app")
    assert not rules.may_see("anonymous", "ghcr.io", "corp/app")


def test_star_is_every_user_and_anonymous_is_nobody() -> None:
    everyone = AccessRules((Access(("*",), ("ghcr.io/corp/*",)),), has_users=True)
    assert everyone.may_see("ci", "ghcr.io", "corp/app")
    assert not everyone.may_see("anonymous", "ghcr.io", "corp/app")
    nobody = AccessRules((Access(("anonymous",), ("ghcr.io/corp/*",)),), has_users=True)
    assert nobody.may_see("anonymous", "ghcr.io", "corp/app")
    assert not nobody.may_see("ci", "ghcr.io", "corp/app")


@pytest.mark.parametrize("rules", [(), (Access((), ("*",)),), (Access(("ci",), ()),)])
def test_rules_that_name_nothing_let_nobody_in(rules: tuple[Access, ...]) -> None:
    assert not AccessRules(rules, has_users=True).may_see("ci", "ghcr.io", "corp/app")


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("ghcr.io/corp/app", "ghcr.io/corp/app"),
        ("ghcr.io/corp/*", "ghcr.io/corp/app"),
        ("ghcr.io/corp/*", "ghcr.io/corp/team/deep/app"),
        ("ghcr.io/*", "ghcr.io/corp/app"),
        ("*", "ghcr.io/corp/app"),
        ("*/corp/*", "ghcr.io/corp/team/app"),
        ("ghcr.io/corp*", "ghcr.io/corporate/app"),
        ("ghcr.io/*/app", "ghcr.io/corp/app"),
        ("ghcr.io/c*p/a*", "ghcr.io/corp/app"),
        ("ghcr.io/*o*p/app", "ghcr.io/coop/app"),
        ("ghcr.io/a*ab*b/x", "ghcr.io/aababb/x"),
        ("ghcr.io/corp/app-?", "ghcr.io/corp/app-1"),
        ("ghcr.io/*a*a", "ghcr.io/aa"),
        ("ghcr.io/*-?-*/x", "ghcr.io/a-b-c-d/x"),
        ("[::1]:5000/corp/*", "[::1]:5000/corp/app"),
        ("localhost:5000/*-app", "localhost:5000/my-app"),
    ],
)
def test_what_a_pattern_matches(pattern: str, name: str) -> None:
    assert matches(pattern, name)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("ghcr.io/corp/app", "ghcr.io/corp/app2"),
        ("ghcr.io/corp/app", "ghcr.io/corp/app/below"),
        ("ghcr.io/corp/app", "ghcr_io/corp/app"),
        ("ghcr.io/corp/*", "ghcr.io/corp"),
        ("ghcr.io/corp/*", "ghcr.io/corporate/app"),
        ("ghcr.io/corp/*", "evil/ghcr.io/corp/app"),
        ("ghcr.io/*/app", "ghcr.io/corp/team/app"),
        ("ghcr.io/*/app", "ghcr.io/app"),
        ("*/app", "ghcr.io/corp/app"),
        ("ghcr.io/*o*p/app", "ghcr.io/co/op/app"),
        ("ghcr.io/a*ab*b/x", "ghcr.io/aab/x"),
        ("ghcr.io/corp/app-?", "ghcr.io/corp/app-"),
        ("ghcr.io/corp?app", "ghcr.io/corp/app"),
        ("[::1]:5000/corp/*", "1:5000/corp/app"),
        ("ghcr.io/corp/a|ghcr.io/b", "ghcr.io/b"),
    ],
)
def test_what_a_pattern_does_not_match(pattern: str, name: str) -> None:
    assert not matches(pattern, name)


def by_backtracking(pattern: str, name: str) -> bool:
    """What the words of the documentation say, without a care for time."""
    below = pattern.endswith("*")
    body = "".join(
        {"*": "[^/]*", "?": "[^/]"}.get(character, re.escape(character))
        for character in pattern.removesuffix("*")
    )
    return re.fullmatch(body + ("(?s:.*)" if below else ""), name) is not None


@settings(max_examples=500, deadline=None)
@given(
    pattern=st.text("ab/*?", min_size=1, max_size=10), name=st.text("ab/", min_size=1, max_size=12)
)
def test_matching_is_what_backtracking_would_find(pattern: str, name: str) -> None:
    name = f"r/{name}"
    assert matches(f"r/{pattern}", name) == by_backtracking(f"r/{pattern}", name)


def test_long_names_take_no_longer_than_their_length() -> None:
    def seconds(length: int) -> float:
        rules = AccessRules((Access(("ci",), ("r/" + "a*" * 30 + "b/c",)),), has_users=True)
        best = float("inf")
        for _ in range(3):
            started = time.perf_counter()
            assert not rules.may_see("ci", "r", "a" * length)
            best = min(best, time.perf_counter() - started)
        return best

    # With a backtracking matcher even the short one would not come back.
    assert seconds(40_000) < max(40 * seconds(4_000), 0.5)
