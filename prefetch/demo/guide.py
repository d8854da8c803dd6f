"""The guided run: the real command against an upstream of its own, step by step.

The upstream allows few pulls in a window of seconds, so that a newcomer sees in half a minute what
a cluster sees in a day: the budget runs out, images are deferred, the window returns.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prefetch.demo.settings import ImageOrder, Specification, UpstreamSettings
from prefetch.demo.upstream import Upstream

_IMAGES: Final = 7
_LIMIT: Final = 12
_WINDOW_SECONDS: Final = 8.0
_RESERVE: Final = 3
_LAYER_SIZE: Final = 6 << 20
_BYTES_PER_SECOND: Final = 12 << 20

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Step:
    """One command, and what to look at in it."""

    story: str
    words: tuple[str, ...]


_STEPS = (
    Step(
        "1. The plan, with free requests only: what it would cost, and when it would be done.",
        ("plan", "images.txt"),
    ),
    Step(
        "2. A sync spends what the budget allows, keeps the reserve, and defers the rest "
        "(exit status 75, which cron can tell from a failure).",
        ("sync", "images.txt"),
    ),
    Step(
        "3. With --wait it stays until the window returns, and ends complete.",
        ("sync", "images.txt", "--wait"),
    ),
    Step("4. Once more: nothing has changed, so it costs no pull.", ("sync", "images.txt", "-q")),
    Step("5. What the cache holds now.", ("images",)),
)


async def guided_run(say: Say, directory: Path) -> bool:
    """Run the steps in `directory`; True when all went as it should.

    The steps' own output goes to this process's standard output and error.
    """
    specification = Specification(
        settings=UpstreamSettings(limit=_LIMIT, window=_WINDOW_SECONDS, auth="token"),
        images=(ImageOrder(repository="library/app-{n}", count=_IMAGES, layer_size=_LAYER_SIZE),),
    )
    upstream = Upstream(specification.settings)
    await asyncio.to_thread(upstream.prepare, specification)
    upstream.faults.add("slow", kind="cdn", count=None, bytes_per_second=_BYTES_PER_SECOND)
    async with upstream:
        names = [f"{upstream.address}/library/app-{number}" for number in range(_IMAGES)]
        listing = "".join(f"{name}:latest platform=all\n" for name in names)
        await asyncio.to_thread((directory / "images.txt").write_text, listing)
        say(
            f"A registry on {upstream.address} allows {_LIMIT} pulls in {_WINDOW_SECONDS:g} "
            f"seconds. {_IMAGES} images of two platforms cost 3 pulls each: {3 * _IMAGES} in all."
        )
        statuses = [await _take(step, say, directory) for step in _STEPS]
        refused = upstream.log.counts(status=429)
        say(f"The registry has counted {upstream.log.pulls} pulls, and refused {refused} requests.")
        return statuses == [0, 75, 0, 0, 0] and upstream.log.pulls == 3 * _IMAGES and not refused


async def _take(step: Step, say: Say, directory: Path) -> int:
    words = [*step.words, "--data-dir", "data"]
    if step.words[0] != "images":
        words += ["--reserve", str(_RESERVE)]
    say("")
    say(step.story)
    say(f"$ prefetch {' '.join(words)}")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "prefetch",
        *words,
        cwd=directory,
        env=_environment(directory),
    )
    return await process.wait()


def _environment(directory: Path) -> dict[str, str]:
    """The caller's, without what would lead the demo to somebody's real registries."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PREFETCH_") and not name.lower().endswith("_proxy")
    }
    return {**kept, "HOME": str(directory), "XDG_CONFIG_HOME": str(directory)}
