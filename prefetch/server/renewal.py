"""Images whose tag has moved: fetched behind the clients' backs, as a sync would fetch them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from prefetch.errors import PrefetchError
from prefetch.oci.reference import Digest
from prefetch.server.accesslog import ServerLog
from prefetch.server.exclusion import Exclusion
from prefetch.server.library import Library
from prefetch.sync.wanted import ImageResult, Wanted
from prefetch.tasks import end_all

_AT_ONCE = 4
_LOOK_SECONDS = 0.1

Sync = Callable[[Wanted], Awaitable[ImageResult]]
"""Fetches one reference as `prefetch sync` does: whole or not at all, above the reserve."""


@dataclass(frozen=True, slots=True)
class _Renewal:
    """A fetch under way of what a reference has become, and the digest that it had."""

    old: Digest
    task: asyncio.Task[None]


class Renewals:
    """At most one a reference, over all workers, and a few at once in this one."""

    def __init__(self, sync: Sync, library: Library, exclusion: Exclusion, log: ServerLog) -> None:
        self._sync = sync
        self._library = library
        self._exclusion = exclusion
        self._log = log
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._under_way: dict[str, _Renewal] = {}

    def replaces(self, name: str, digest: Digest) -> bool:
        """Whether this worker is fetching what the reference is now instead of that digest.

        Another digest is what the fetch has brought: its task ends only after that is known.
        """
        renewal = self._under_way.get(name)
        return renewal is not None and renewal.old == digest

    def start(self, wanted: Wanted, old: Digest) -> None:
        """Fetch what the reference is now, unless that is under way; `old` is what it was."""
        name = wanted.name
        if name not in self._under_way:
            task = asyncio.create_task(self._renew(wanted))
            self._under_way[name] = _Renewal(old, task)
            task.add_done_callback(lambda _: self._under_way.pop(name, None))

    async def close(self) -> None:
        """End what is under way; its progress is kept."""
        await end_all([renewal.task for renewal in self._under_way.values()])

    async def _renew(self, wanted: Wanted) -> None:
        lock = f"renew {wanted.name}"
        async with self._turn, self._exclusion.unless_held(lock) as ours:
            if not ours:
                # Another worker is at it: until it is done, the tag is behind for us, too.
                async with self._exclusion.of(lock):
                    pass
                await self._library.forget_references(wanted.reference.repository)
                return
            try:
                result = await self._unless_frozen(wanted)
                await self._library.forget_references(wanted.reference.repository)
            except PrefetchError as error:
                self._log.warning("renewal failed", reference=wanted.name, reason=str(error))
                return
            if result is None:
                self._log.info("renewal put off by a freeze", reference=wanted.name)
                return
            self._log.info(
                "renewed", reference=wanted.name, outcome=str(result.outcome), pulls=result.pulls
            )

    async def _unless_frozen(self, wanted: Wanted) -> ImageResult | None:
        """The sync's result; None when it was broken off, since the cache has been frozen."""
        work = asyncio.ensure_future(self._sync(wanted))
        try:
            while not work.done() and self._library.freeze() is None:
                await asyncio.wait([work], timeout=_LOOK_SECONDS)
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait([work])
        return None if work.cancelled() else work.result()
