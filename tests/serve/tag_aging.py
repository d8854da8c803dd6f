"""What the tests of tags past their `tag_ttl` share: a short one, and what stale answers say."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tag_serving import asked, configure, manifest_path

from prefetch.demo.upstream import Upstream

NAME = "library/app"
TAG = manifest_path(NAME, "1")
TTL = 1.0
BEHIND = "the upstream has another one, which is being fetched"
NO_PULLS = "there are no pulls left for what it has now"
FAILED = "the upstream could not be asked"


def configured(tmp_path: Path, upstream: Upstream, **settings: object) -> Path:
    """A configuration with a short `tag_ttl`, and a `tag_wait` that is long enough."""
    given = {"tag_ttl": f"{TTL}s", "tag_wait": "2s", **settings}
    return configure(tmp_path / "prefetch.yaml", {"docker.io": upstream.url}, **given)


async def expired() -> None:
    """Wait until what was looked at now has to be looked at again."""
    await asyncio.sleep(1.1 * TTL)


def heads(upstream: Upstream) -> int:
    """How many HEADs the upstream has had."""
    return asked(upstream, method="HEAD")
