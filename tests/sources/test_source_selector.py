"""Merging what several sources ask for, and images named on the command line."""

from __future__ import annotations

import pytest

from prefetch.oci.platform import ALL, Platform
from prefetch.oci.reference import Reference, Repository
from prefetch.sources import selector as limits
from prefetch.sources.detect import parse
from prefetch.sources.selector import (
    Demand,
    Note,
    Origin,
    Parsed,
    Selector,
    TagQuery,
    images_from_args,
    merge,
)

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
NGINX = Reference.parse("nginx:1.27")


def test_the_same_image_from_two_places_is_one() -> None:
    merged = merge(
        [
            Selector(Origin("a", 1), NGINX, platforms=(ARM64,), priority=1),
            Selector(Origin("a", 2), Reference.parse("redis")),
            Selector(Origin("b", 9), NGINX, priority=5),
        ],
        default=(AMD64,),
    )
    assert [str(selector.reference) for selector in merged] == [
        "docker.io/library/nginx:1.27",
        "docker.io/library/redis:latest",
    ]
    assert merged[0].platforms == (ARM64, AMD64)
    assert merged[0].priority == 5
    assert merged[0].origin == Origin("a", 1)
    assert merged[1].platforms == (AMD64,)


def test_all_platforms_swallow_the_others() -> None:
    merged = merge(
        [
            Selector(Origin("a"), NGINX, platforms=ALL),
            Selector(Origin("b"), NGINX, platforms=(ARM64,), priority=-2),
        ],
        default=(AMD64,),
    )
    assert merged == [Selector(Origin("a"), NGINX, platforms=ALL, priority=0)]


def test_queries_merge_only_when_they_ask_the_same() -> None:
    repository = Repository.parse("nginx")
    newest, regex = TagQuery(newest=2), TagQuery(regex="1.*")
    merged = merge(
        [
            Selector(Origin("a"), repository=repository, tags=newest),
            Selector(Origin("b"), repository=repository, tags=regex),
            Selector(Origin("c"), repository=repository, tags=TagQuery(newest=2), platforms=ALL),
        ],
        default=(AMD64,),
    )
    assert [(selector.tags, selector.platforms) for selector in merged] == [
        (newest, ALL),
        (regex, (AMD64,)),
    ]


def test_demands_are_added() -> None:
    merged = merge(
        [
            Selector(Origin("a"), NGINX),
            Selector(Origin("b"), NGINX, demand=Demand(2, askers=("x",))),
            Selector(Origin("c"), NGINX, demand=Demand(1, always=True, askers=("y",))),
            Selector(Origin("d"), NGINX),
        ],
        default=(AMD64,),
    )
    assert [each.demand for each in merged] == [Demand(3, always=True, askers=("x", "y"))]


MANY = {
    "text": b"".join(b"app:%d\n" % n for n in range(20)),
    "bad text": b"?\n" * 20,
    "charts": b"".join(b"rancher/charts/a:%d\n" % n for n in range(20)),
    "list": b"images: [" + b"a, " * 20 + b"]",
    "objects": b"kind: List\nitems:\n" + b"- kind: Pod\n" * 20,
    "odd objects": b"kind: List\nitems:\n" + b"- text\n" * 20,
    "containers": b"kind: Pod\nspec:\n  containers:\n" + b"  - image: a\n" * 20,
    "services": b"services:\n" + b"".join(b"  s%d: {image: a}\n" % n for n in range(20)),
    "documents": b"--- text\n" * 20,
}


@pytest.mark.parametrize("kind", MANY)
def test_a_source_has_so_many_entries_only(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ENTRIES", 10)
    parsed = parse(MANY[kind], "x")
    stop = [error for error in parsed.errors if "more than 10 entries" in str(error)]
    assert len(stop) == 1
    assert stop[0].line is not None
    assert len(parsed.selectors) + len(parsed.errors) + len(parsed.notes) == 10 + 1


@pytest.mark.parametrize(("kind", "told"), [("bad text", 20), ("documents", 20), ("objects", 20)])
def test_errors_beyond_the_first_are_counted(
    kind: str, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_TOLD", 3)
    parsed = parse(MANY[kind], "x")
    assert len(parsed.errors) == 4
    assert str(parsed.errors[3]) == f"x: … and {told - 3} more errors"


def test_notes_beyond_the_first_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_TOLD", 3)
    parsed = parse(MANY["charts"], "x")
    assert [str(note) for note in parsed.notes[3:]] == ["x: … and 17 more notes"]


def test_what_is_put_together_is_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_TOLD", 3)
    whole = Parsed()
    for number in range(4):
        part = Parsed(more_errors=5)
        part.refuse(Origin("x", number).error("bad"))
        part.note(Note(Origin("x", number), "odd"))
        whole.extend(part)
    assert str(whole.summed_up("x").errors[-1]) == "x: … and 21 more errors"
    assert str(whole.notes[-1]) == "x: … and 1 more notes"


def test_images_from_the_command_line() -> None:
    parsed = images_from_args(["nginx:1.27", "Not An Image", "quay.io/a/b@sha256:" + "0" * 64])
    assert [str(selector.reference) for selector in parsed.selectors] == [
        "docker.io/library/nginx:1.27",
        "quay.io/a/b@sha256:" + "0" * 64,
    ]
    (error,) = parsed.errors
    assert str(error).startswith("--image: ")
    assert "Not An Image" in str(error)
