"""A cache and an upstream whose pulls are few."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tag_serving import (
    Reply,
    configure,
    manifest_path,
    put_image,
    running,
)

from prefetch.demo.images import Image
from prefetch.demo.ratelimits import Meter
from prefetch.demo.settings import UpstreamSettings
from prefetch.demo.upstream import Upstream
from support.cache import Cache
from support.processes import CommandLine

ONE, TWO = "library/one", "library/two"
_MOMENT = re.compile(r"expected back at (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)")


@dataclass(frozen=True)
class Place:
    """A cache that has nothing, and an upstream with two images of two pulls each."""

    cli: CommandLine
    config: Path
    cache: Cache
    upstream: Upstream
    one: Image
    two: Image

    @property
    def meter(self) -> Meter:
        found = self.upstream.limits.meter()
        assert found is not None
        return found

    def refused(self) -> int:
        """How often the upstream had to say that it is enough."""
        return self.upstream.log.counts(status=429)


PlaceFactory = Callable[..., Awaitable[Place]]


@asynccontextmanager
async def places(cli: CommandLine, tmp_path: Path) -> AsyncIterator[PlaceFactory]:
    """`await place(limit=10, spent=3, reserve_for_sync=True)`."""
    async with AsyncExitStack() as stack:

        async def make(
            *, limit: int, spent: int = 0, window: float = 3600, workers: int = 1, **serve: Any
        ) -> Place:
            settings = UpstreamSettings(limit=limit, window=window)
            upstream = await stack.enter_async_context(Upstream(settings))
            images = [put_image(upstream, name, "1") for name in (ONE, TWO)]
            config = configure(tmp_path / "prefetch.yaml", {"docker.io": upstream.url}, **serve)
            words = ("--workers", str(workers))
            cache = await stack.enter_async_context(running(cli, config, *words))
            made = Place(cli, config, cache, upstream, images[0], images[1])
            made.meter.spend(spent)
            return made

        yield make


def tag(name: str) -> str:
    return manifest_path(name, "1")


def moment_of(reply: Reply) -> datetime:
    """When the body says that there will be pulls again."""
    found = _MOMENT.search(reply.message)
    assert found is not None, reply.message
    return datetime.fromisoformat(found[1])


def is_out_of_budget(reply: Reply) -> bool:
    """503 with a moment, and a Retry-After that leads there."""
    left = (moment_of(reply) - datetime.now(UTC)).total_seconds()
    return reply.status == 503 and abs(int(reply.headers["retry-after"]) - left) <= 2
