"""Many requests for what is warm, with the upstream there, gone, and silent."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tag_serving import (
    Mute,
    Reply,
    ask,
    ask_many,
    configure,
    manifest_path,
    metrics,
    put_image,
    running,
    sync,
    until,
)

from prefetch.demo.images import Image
from prefetch.demo.settings import UpstreamSettings
from prefetch.demo.upstream import Upstream
from support.cache import Cache
from support.processes import CommandLine, free_port

IMAGES = 20
WAIT = 0.5


@dataclass(frozen=True)
class Place:
    """A cache with twenty images, and the upstream that they are from."""

    cache: Cache
    upstream: Upstream
    images: dict[str, Image]

    def requests(self, count: int) -> list[str]:
        """Half of them by tag, half by digest, in a mixed order."""
        names = list(self.images)
        paths = [manifest_path(names[n % IMAGES], "1") for n in range(count // 2)]
        digests = [(name, image.digest) for name, image in self.images.items()]
        paths += [manifest_path(*digests[n % IMAGES]) for n in range(count // 2)]
        random.Random(1).shuffle(paths)
        return paths

    async def ask(self, count: int) -> list[Reply]:
        """AssertionError unless all is answered, with what was asked for."""
        replies = await ask_many(self.cache, self.requests(count))
        assert len(replies) == count
        assert {reply.status for reply in replies} == {200}
        assert {reply.digest for reply in replies} == {each.digest for each in self.images.values()}
        return replies


@pytest.fixture
async def place(cli: CommandLine, tmp_path: Path) -> AsyncIterator[Place]:
    async with Upstream(UpstreamSettings(limit=1000, port=free_port())) as upstream:
        names = [f"library/app{number}" for number in range(IMAGES)]
        images = {name: put_image(upstream, name, "1") for name in names}
        config = configure(
            tmp_path / "prefetch.yaml",
            {"docker.io": upstream.url},
            tag_ttl="1s",
            tag_wait=f"{WAIT}s",
        )
        await sync(cli, config, *(f"{name}:1" for name in names))
        async with running(cli, config) as cache:
            yield Place(cache, upstream, images)


def percentile(replies: Sequence[Reply], share: float) -> float:
    ordered = sorted(reply.seconds for reply in replies)
    return ordered[int(share * (len(ordered) - 1))]


async def test_ten_thousand_requests_without_an_upstream(place: Place) -> None:
    before = await place.ask(3000)
    await place.upstream.close()

    replies = await place.ask(10_000)

    assert any("cannot be reached" in reply.warning for reply in replies)
    for share in (0.5, 0.99):
        allowed = 3 * percentile(before, share) + 0.02
        assert percentile(replies, share) < allowed, f"at {share}"
    # That is no reason to take the cache out of service.
    assert (await ask(place.cache, "/readyz")).status == 200
    told = await metrics(place.cache)
    assert told['prefetch_stale_answers_total{reason="down"}'] > 0
    assert told['prefetch_requests_total{kind="manifest",method="GET",status="200"}'] == 13_000


async def test_many_requests_beside_a_silent_upstream(place: Place) -> None:
    await place.ask(2000)
    await place.upstream.close()
    async with Mute(place.upstream.port) as mute:

        async def reached() -> bool:
            await place.ask(2 * IMAGES)
            return mute.connections > 0

        await until(reached)
        replies = await place.ask(3000)
        # No more is under way at once than the registry may be asked at once.
        assert 1 <= mute.connections <= 8
    waited = [reply for reply in replies if reply.seconds > 0.6 * WAIT]
    # Eight lines may wait for one tag's check together.
    assert len(waited) <= 8 * IMAGES
    assert sum(reply.seconds for reply in waited) <= 8 * (WAIT + 0.5) * IMAGES
    assert percentile(replies, 0.5) < 0.1
