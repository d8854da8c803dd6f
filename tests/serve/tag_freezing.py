"""A cache and an upstream for tests of freezes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tag_serving import (
    Reply,
    configure,
    manifest_path,
    put_image,
    sync,
)

from prefetch.demo.images import Image
from prefetch.demo.settings import UpstreamSettings
from prefetch.demo.upstream import Upstream
from support.processes import CommandLine

NAME = "library/app"
TAG = manifest_path(NAME, "1")
COLD = manifest_path("library/cold", "1")
FROZEN = "the cache is frozen"
BEHIND = "the upstream has another one"


@dataclass(frozen=True)
class Place:
    """An upstream with `library/app:1`, which is cached, and `library/cold:1`, which is not."""

    cli: CommandLine
    config: Path
    upstream: Upstream
    app: Image
    cold: Image

    async def freeze(self, *words: str) -> None:
        """Freeze, and wait for as long as every server may take to notice."""
        done = await self.cli("freeze", *words)
        assert (done.code, done.stderr) == (0, "")
        assert done.stdout.startswith("frozen until ")
        await asyncio.sleep(1)

    async def thaw(self) -> None:
        done = await self.cli("thaw")
        assert (done.code, done.stdout) == (0, "thawed\n")


@asynccontextmanager
async def place_to_freeze(cli: CommandLine, tmp_path: Path) -> AsyncIterator[Place]:
    async with Upstream(UpstreamSettings(limit=1000)) as upstream:
        app, cold = put_image(upstream, NAME, "1"), put_image(upstream, "library/cold", "1")
        config = configure(
            tmp_path / "prefetch.yaml", {"docker.io": upstream.url}, tag_ttl="1s", tag_wait="2s"
        )
        await sync(cli, config, "app:1")
        yield Place(cli, config, upstream, app, cold)


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


@asynccontextmanager
async def nothing_asked(upstream: Upstream) -> AsyncIterator[None]:
    upstream.log.reset()
    yield
    assert [(each.method, each.path) for each in upstream.log] == []


def is_frozen_503(reply: Reply, *, longest: int) -> bool:
    retry_after = int(reply.headers.get("retry-after", "0"))
    return reply.status == 503 and "frozen" in reply.message and 1 <= retry_after <= longest
