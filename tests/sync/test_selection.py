"""Tag queries expanded with a registry's list of tags."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefetch.errors import NetworkError, SourceError
from prefetch.oci.platform import ALL, Platform
from prefetch.oci.reference import Reference, Repository
from prefetch.sources.selector import Origin, Selector, TagQuery
from prefetch.sync.selection import Selection, choose, expand
from prefetch.sync.tagmatch import matching

AMD64 = (Platform("linux", "amd64"),)
NGINX = Repository.parse("nginx")
ORIGIN = Origin("l.yaml", 3)
TAGS = [
    *("latest", "1", "1.26", "1.26.2", "1.27", "1.27.0", "1.27.2", "1.27.10", "1.28.0-rc1"),
    *("1.27.2-alpine", "1.27.10-alpine", "1.26.2-alpine", "mainline", "20240101"),
]


class Registry:
    """Lists tags, and counts how often it was asked."""

    def __init__(self, tags: Sequence[str] = TAGS) -> None:
        self.tags = tags
        self.asked: list[str] = []

    async def list(self, repository: Repository) -> Sequence[str]:
        self.asked.append(str(repository))
        await asyncio.sleep(0)
        if repository.path.endswith("unreachable"):
            raise NetworkError("no answer")
        return self.tags


def query(tags: TagQuery, repository: Repository = NGINX, **rest: int) -> Selector:
    return Selector(ORIGIN, repository=repository, tags=tags, **rest)


async def tags_of(tags: TagQuery, listed: Sequence[str] = TAGS) -> list[str | None]:
    selection = await expand([query(tags)], Registry(listed).list, AMD64)
    assert selection.errors == []
    return [wanted.reference.tag for wanted in selection.wanted]


async def test_names_are_taken_as_given_and_list_nothing() -> None:
    registry = Registry()
    selection = await expand([query(TagQuery(("edge", "stable")))], registry.list, AMD64)
    assert [wanted.name for wanted in selection.wanted] == [
        "docker.io/library/nginx:edge",
        "docker.io/library/nginx:stable",
    ]
    assert registry.asked == []


async def test_a_regex_matches_whole_tags() -> None:
    assert await tags_of(TagQuery(regex=r"1\.27")) == ["1.27"]
    assert await tags_of(TagQuery(regex=r"1\.2[67]\.\d+")) == [
        "1.26.2",
        "1.27.0",
        "1.27.2",
        "1.27.10",
    ]


async def test_a_range_leaves_out_prereleases_and_variants() -> None:
    assert await tags_of(TagQuery(semver=">=1.27.1")) == ["1.27.2", "1.27.10"]
    assert await tags_of(TagQuery(semver=">=1.28.0-0")) == ["1.28.0-rc1"]


async def test_newest_goes_by_version_not_by_text_or_date() -> None:
    assert await tags_of(TagQuery(newest=2)) == ["1.27.2", "1.27.10"]
    assert await tags_of(TagQuery(newest=1, semver="1.26.x")) == ["1.26.2"]
    assert len(await tags_of(TagQuery(newest=99))) == 7


async def test_a_regex_says_which_variants() -> None:
    assert await tags_of(TagQuery(regex=".*-alpine", newest=2)) == [
        "1.27.2-alpine",
        "1.27.10-alpine",
    ]
    assert await tags_of(TagQuery(regex=".*-alpine", semver="1.26")) == ["1.26.2-alpine"]


async def test_names_come_with_what_else_is_asked_for() -> None:
    assert await tags_of(TagQuery(names=("latest", "1.27.10"), newest=1)) == ["latest", "1.27.10"]


async def test_no_match_is_an_error_at_the_origin_and_the_rest_goes_on() -> None:
    selection = await expand(
        [query(TagQuery(regex="none")), Selector(ORIGIN, Reference.parse("redis"))],
        Registry().list,
        AMD64,
    )
    assert [wanted.name for wanted in selection.wanted] == ["docker.io/library/redis:latest"]
    assert [str(error) for error in selection.errors] == [
        "l.yaml:3: docker.io/library/nginx: no tag matches"
    ]


async def test_a_registry_that_fails_is_an_error_at_the_origin() -> None:
    repository = Repository.parse("unreachable")
    selection = await expand(
        [query(TagQuery(newest=1), repository), query(TagQuery(newest=1))], Registry().list, AMD64
    )
    assert len(selection.wanted) == 1
    assert [str(error) for error in selection.errors] == [
        "l.yaml:3: docker.io/library/unreachable: its tags cannot be listed: no answer"
    ]


async def test_a_repository_is_listed_once() -> None:
    registry = Registry()
    queries = [query(TagQuery(newest=n)) for n in (1, 2, 3)]
    selection = await expand(queries, registry.list, AMD64)
    assert registry.asked == ["docker.io/library/nginx"]
    assert len(selection.wanted) == 3


async def test_expanded_and_named_references_merge() -> None:
    arm = (Platform("linux", "arm64"),)
    selection = await expand(
        [
            Selector(Origin("a", 1), Reference.parse("nginx:1.27.10"), platforms=arm, priority=7),
            Selector(Origin("a", 2), Reference.parse("busybox"), platforms=ALL),
            query(TagQuery(newest=1)),
        ],
        Registry().list,
        AMD64,
    )
    first, second = selection.wanted
    assert (first.name, first.priority) == ("docker.io/library/nginx:1.27.10", 7)
    assert first.platforms == (*arm, *AMD64)
    assert second.platforms is ALL


async def test_tags_that_no_tag_can_be_are_dropped() -> None:
    assert await tags_of(TagQuery(regex=".*"), ["ok", "a b", "../x", "", "x" * 129, "é"]) == ["ok"]


async def test_a_pattern_that_backtracks_is_cut_off() -> None:
    started = time.monotonic()
    with pytest.raises(
        SourceError, match=r"l.yaml:3: the regular expression took longer than 0.5 s"
    ):
        await matching("(a+)+b", ["a" * 60], ORIGIN, timeout=0.5)
    assert time.monotonic() - started < 5


async def test_a_pattern_that_does_not_compile_is_told() -> None:
    with pytest.raises(SourceError, match="cannot be used"):
        await matching("(", ["a"], ORIGIN)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.from_regex(r"v?[0-9]{1,2}(\.[0-9]{1,2}){0,2}(-rc[0-9]|-alpine)?", fullmatch=True)),
    st.integers(1, 5),
)
def test_newest_is_a_part_of_what_the_range_allows(tags: list[str], newest: int) -> None:
    allowed = choose(TagQuery(semver=">=1"), tags)
    assert choose(TagQuery(semver=">=1", newest=newest), tags) == allowed[-newest:]
    assert not [tag for tag in allowed if "rc" in tag or "alpine" in tag]


async def test_nothing_wanted_is_nothing_selected() -> None:
    assert await expand([], Registry().list, AMD64) == Selection([], [])
