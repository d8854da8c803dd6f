"""What does not exist, or may not be had: remembered, so that a back-off is no flood."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tag_serving import (
    ask,
    ask_many,
    ask_together,
    asked,
    blob_path,
    child_of,
    configure,
    manifest_path,
    metrics,
    pulls_whole,
    put_image,
    running,
    sync,
    until,
)

from prefetch.demo.settings import UpstreamSettings
from prefetch.demo.upstream import Upstream
from support.cache import Cache
from support.processes import CommandLine

NOWHERE = "sha256:" + "0" * 64


@dataclass(frozen=True)
class Place:
    """A cache that has nothing yet, and its upstream; what is missing is remembered for 3 s."""

    cli: CommandLine
    config: Path
    cache: Cache
    upstream: Upstream


@pytest.fixture
async def place(cli: CommandLine, tmp_path: Path) -> AsyncIterator[Place]:
    async with Upstream(UpstreamSettings(limit=1000)) as upstream:
        config = configure(
            tmp_path / "prefetch.yaml",
            {"docker.io": upstream.url},
            negative_ttl="3s",
            misses_per_second=10_000,
        )
        async with running(cli, config) as cache:
            yield Place(cli, config, cache, upstream)


async def test_a_flood_of_requests_for_missing_tags_is_a_handful(place: Place) -> None:
    put_image(place.upstream, "library/app", "1")
    paths = [manifest_path("library/app", f"no-{number % 5}") for number in range(1000)]

    replies = await ask_many(place.cache, paths, lines=20)

    assert {reply.status for reply in replies} == {404}
    assert {reply.message for reply in replies} == {"manifest unknown to the registry"}
    assert asked(place.upstream) == 5
    assert place.upstream.log.pulls == 0


MISSING = {
    "tag": manifest_path("library/app", "none"),
    "repository": manifest_path("library/none", "1"),
    "manifest": manifest_path("library/app", NOWHERE),
    "blob": blob_path("library/app", NOWHERE),
    "for others": manifest_path("library/secret", "1"),
}


@pytest.mark.parametrize("what", MISSING)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_is_missing_is_asked_for_once(place: Place, what: str, method: str) -> None:
    put_image(place.upstream, "library/app", "1")
    put_image(place.upstream, "library/secret", "1")
    place.upstream.content.repositories["library/secret"].readers = frozenset({"somebody"})

    first = await ask(place.cache, MISSING[what], method=method)
    cost = len(place.upstream.log)
    replies = [await ask(place.cache, MISSING[what], method=method) for _ in range(20)]

    assert {reply.status for reply in [first, *replies]} == {404}
    assert cost >= 1
    assert len(place.upstream.log) == cost


async def test_a_crowd_that_asks_for_a_missing_tag_is_one_question(place: Place) -> None:
    replies = await ask_together(place.cache, [MISSING["tag"]] * 100)

    assert {reply.status for reply in replies} == {404}
    assert asked(place.upstream) == 1


async def test_it_is_noticed_that_a_tag_exists_after_all(place: Place) -> None:
    app = put_image(place.upstream, "library/app")
    assert (await ask(place.cache, manifest_path("library/app", "1"))).status == 404
    place.upstream.content.move("library/app", "1", app.digest)
    assert (await ask(place.cache, manifest_path("library/app", "1"))).status == 404

    async def found() -> bool:
        return (await ask(place.cache, manifest_path("library/app", "1"))).status == 200

    assert 1 < await until(found) < 6
    await pulls_whole(place.cache, "library/app", "1", app)


async def test_no_manifest_is_no_word_about_a_blob(place: Place) -> None:
    """A layer's digest that is asked for as a manifest does not keep the layer from anybody."""
    app = put_image(place.upstream, "library/app", "1")
    layer = child_of(app).blobs[-1]
    assert (await ask(place.cache, manifest_path("library/app", layer.digest))).status == 404

    reply = await ask(place.cache, blob_path("library/app", layer.digest))

    assert (reply.status, reply.body) == (200, layer.read())


async def test_broken_manifests_are_not_paid_for_again_and_again(place: Place) -> None:
    """Each pull of an image whose manifest is corrupt would cost two pulls."""
    app = put_image(place.upstream, "library/app", "1")
    place.upstream.faults.add(
        "corrupt", kind="manifest", method="GET", reference=app.digest, count=None
    )

    for _ in range(20):
        reply = await ask(place.cache, manifest_path("library/app", "1"))
        assert reply.status == 503
        assert int(reply.headers["retry-after"]) >= 1

    assert 1 <= place.upstream.log.pulls <= 2
    place.upstream.faults.clear()
    await asyncio.sleep(3)
    await pulls_whole(place.cache, "library/app", "1", app)


async def test_one_broken_image_keeps_nobody_from_the_others(place: Place) -> None:
    put_image(place.upstream, "library/broken", "1")
    images = {f"library/good{n}": put_image(place.upstream, f"library/good{n}", "1") for n in "ab"}
    place.upstream.faults.add("server-error", repository="library/broken", count=None)

    for name, image in images.items():
        for _ in range(5):
            broken = await ask(place.cache, manifest_path("library/broken", "1"))
            assert broken.status == 503
        await pulls_whole(place.cache, name, "1", image)

    assert place.upstream.log.counts(repository="library/broken", kind="manifest") <= 3


async def test_several_broken_images_are_a_registry_that_is_down(place: Place) -> None:
    place.upstream.faults.add("server-error", count=None)

    paths = [manifest_path(f"library/app{number}", "1") for number in range(50)]
    replies = [await ask(place.cache, path) for path in paths]

    assert {reply.status for reply in replies} == {503}
    assert len({request.repository for request in place.upstream.log}) <= 10
    errors = await metrics(place.cache)
    assert errors['prefetch_errors_total{cause="upstream_down"}'] > 30


async def test_a_client_that_asks_for_too_much_is_held_up_alone(
    cli: CommandLine, tmp_path: Path
) -> None:
    async with Upstream(UpstreamSettings(limit=1000)) as upstream:
        app = put_image(upstream, "library/app", "1")
        config = configure(
            tmp_path / "prefetch.yaml", {"docker.io": upstream.url}, misses_per_second=5
        )
        await sync(cli, config, "app:1")
        async with running(cli, config) as cache:
            paths = [manifest_path("library/app", f"no-{number}") for number in range(100)]
            replies = await ask_many(cache, paths)
            assert {reply.status for reply in replies} == {404, 503}
            refused = [reply for reply in replies if reply.status == 503]
            assert {reply.headers["retry-after"] for reply in refused} == {"1"}
            assert asked(upstream, method="HEAD") <= 30
            # What is cached is no miss.
            await pulls_whole(cache, "library/app", "1", app)
