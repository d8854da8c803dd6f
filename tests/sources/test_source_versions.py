"""Versions in tags, and npm's and Masterminds' ranges over them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefetch.sources.versions import Range, TagVersion, Version


def version(tag: str) -> Version:
    parsed = TagVersion.parse(tag)
    assert parsed is not None, tag
    return parsed.version


@pytest.mark.parametrize(
    ("tag", "numbers", "prerelease", "variant"),
    [
        ("1.27.3", (1, 27, 3), "", ""),
        ("v1.27", (1, 27, 0), "", ""),
        ("17", (17, 0, 0), "", ""),
        ("22.04", (22, 4, 0), "", ""),
        ("1.2.3-rc.1", (1, 2, 3), "rc.1", ""),
        ("1.2.3-RC1", (1, 2, 3), "rc1", ""),
        ("3.14.0a2", (3, 14, 0), "a2", ""),
        ("3.13.0rc1-slim", (3, 13, 0), "rc1", "slim"),
        ("1.2.3-alpha", (1, 2, 3), "alpha", ""),
        ("1.27.3-alpine", (1, 27, 3), "", "alpine"),
        ("1.27.3-alpine3.20", (1, 27, 3), "", "alpine3.20"),
        ("v1.30.2-rke2r1", (1, 30, 2), "", "rke2r1"),
        ("5.0.1-debian-11-r0", (5, 0, 1), "", "debian-11-r0"),
        ("1.2.3-1", (1, 2, 3), "", "1"),
    ],
)
def test_tags_that_are_versions(
    tag: str, numbers: tuple[int, int, int], prerelease: str, variant: str
) -> None:
    parsed = TagVersion.parse(tag)
    assert parsed is not None
    assert (parsed.version, parsed.variant) == (Version(numbers, prerelease), variant)


@pytest.mark.parametrize(
    "tag", ["latest", "jammy", "20240101", "1.2.3.4", "sha-1a2b3c", "v", "", "1.", "jammy-1.2"]
)
def test_tags_that_are_not(tag: str) -> None:
    assert TagVersion.parse(tag) is None


def test_a_hostile_tag_costs_no_time() -> None:
    assert TagVersion.parse("1-rc" + "1" * 123 + "!") is None
    assert TagVersion.parse("1-rc" + "1.1-" * 30 + "!") is None


def test_the_order_of_versions() -> None:
    ordered = ["0.9", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-beta2", "1.0.0-beta11", "1.0.0-rc9"]
    ordered += ["1.0.0-rc10", "1", "1.0.1", "1.9", "1.10"]
    keys = [version(tag).key for tag in ordered]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)
    numeric, word = Version((1, 0, 0), "alpha.1"), Version((1, 0, 0), "alpha.beta")
    assert numeric.key < word.key


def test_of_equal_versions_the_more_precise_tag_is_later() -> None:
    tags = [TagVersion.parse(tag) for tag in ("1.27.0", "1.27", "v1.27.0")]
    assert [tag.tag for tag in sorted(filter(None, tags), key=lambda tag: tag.key)] == [
        "1.27",
        "1.27.0",
        "v1.27.0",
    ]


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (">=1.2 <2", "1.2.0 1.9.9", "1.1.9 2.0.0 1.5.0-rc1"),
        (">=1.2, <2", "1.2.0 1.9.9", "2.0.0"),
        (">= 1.2.3", "1.2.3 v7", "1.2.2"),
        ("^1.4", "1.4.0 1.99", "2.0.0 1.3.9 2.0.0-rc1"),
        ("^0.2.3", "0.2.3 0.2.9", "0.3.0 0.2.2"),
        ("^0.0.3", "0.0.3", "0.0.4 0.0.2"),
        ("^0.0", "0.0.0 0.0.9", "0.1.0"),
        ("^0", "0.0.1 0.9", "1.0.0"),
        ("~1.4", "1.4.0 1.4.9", "1.5.0"),
        ("~1.4.2", "1.4.2 1.4.9", "1.4.1 1.5.0"),
        ("~1", "1.0.0 1.9", "2.0.0"),
        ("~>1.4", "1.4.5", "1.5.0"),
        ("1.x", "1.0.0 1.9", "2 0.9"),
        ("1.2.*", "1.2.0 1.2.7", "1.3.0"),
        ("1.2", "1.2.0 1.2.7", "1.3.0 1.1.9"),
        ("v1.2.3", "1.2.3 v1.2.3", "1.2.4"),
        ("=1.2.3", "1.2.3", "1.2.4"),
        ("!=1.2", "1.3.0 1.1.9", "1.2.0 1.2.5"),
        (">1.2", "1.3.0", "1.2.9 1.2.0"),
        (">1.2.3", "1.2.4", "1.2.3"),
        ("<=1.2", "1.2.9 0.1", "1.3.0"),
        ("<=1.2.3", "1.2.3", "1.2.4"),
        ("<1.2", "1.1.9", "1.2.0"),
        ("1.2 - 1.5", "1.2.0 1.5.9", "1.6.0 1.1.9"),
        ("1.2.3 - 1.5.1", "1.2.3 1.5.1", "1.5.2"),
        ("^1.4 || ~3.1", "1.4.0 3.1.5", "2.0.0 3.2.0"),
        ("*", "0.0.0 99", "1.0.0-rc1"),
        ("22.04", "22.04", "22.10"),
        (">=1.2.0-0 <2", "1.2.0-rc1 1.5.0-beta1 1.9.0", "2.0.0-rc1 1.1.0"),
        ("^1.4.0-rc.1", "1.4.0-rc.2 1.4.0", "1.4.0-beta 2.0.0-rc.1"),
        (">=0-0", "0.0.1-rc1 5", ""),
        (">*", "", "1.0.0"),
    ],
)
def test_ranges(text: str, inside: str, outside: str) -> None:
    allowed = Range.parse(text)
    assert [tag for tag in inside.split() if version(tag) not in allowed] == []
    assert [tag for tag in outside.split() if version(tag) in allowed] == []


@pytest.mark.parametrize(
    "text", ["", " ", "newest", ">=", ">=1.2.3.4", "1 ||", "^^1", ">=>1", "1.2.3-", "1" * 300, ",,"]
)
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(ValueError, match="range"):
        Range.parse(text)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789.xX*<>=~^!|-v, rca\n", max_size=60))
def test_any_text_is_a_range_or_a_value_error(text: str) -> None:
    try:
        allowed = Range.parse(text)
    except ValueError:
        return
    assert (Version((1, 2, 3)) in allowed) in (True, False)


@settings(max_examples=200, deadline=None)
@given(*[st.tuples(*[st.integers(0, 5)] * 3)] * 2)
def test_operators_agree_with_the_order(
    bound: tuple[int, int, int], numbers: tuple[int, int, int]
) -> None:
    text = ".".join(map(str, bound))
    asked = Version(numbers)
    assert (asked in Range.parse(f">={text}")) == (numbers >= bound)
    assert (asked in Range.parse(f">{text}")) == (numbers > bound)
    assert (asked in Range.parse(f"<={text}")) == (numbers <= bound)
    assert (asked in Range.parse(f"<{text}")) == (numbers < bound)
    assert (asked in Range.parse(f"={text}")) == (numbers == bound)
    assert (asked in Range.parse(f"!={text}")) == (numbers != bound)
