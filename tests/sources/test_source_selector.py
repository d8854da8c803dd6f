"""Merging what several sources ask for, and images named on the command line."""

from __future__ import annotations

from prefetch.oci.platform import ALL, Platform
from prefetch.oci.reference import Reference, Repository
from prefetch.sources.selector import Origin, Selector, TagQuery, images_from_args, merge

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


def test_images_from_the_command_line() -> None:
    parsed = images_from_args(["nginx:1.27", "Not An Image", "quay.io/a/b@sha256:" + "0" * 64])
    assert [str(selector.reference) for selector in parsed.selectors] == [
        "docker.io/library/nginx:1.27",
        "quay.io/a/b@sha256:" + "0" * 64,
    ]
    (error,) = parsed.errors
    assert str(error).startswith("--image: ")
    assert "Not An Image" in str(error)
