"""What those who run the server ask: is it alive, can it work, what has it counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

from aiohttp import web

from prefetch.clock import Clock
from prefetch.errors import PrefetchError
from prefetch.oci.reference import Digest
from prefetch.server import answers
from prefetch.server.exchange import Exchange
from prefetch.server.library import Library
from prefetch.server.metrics import Metrics
from prefetch.state.meters import Budget
from prefetch.state.records import EntryTotal

# A probe waits for seconds at most.
_PATIENCE = 2.0
# What nobody ever fetches, and the room that there should be for something small.
_PROBE = Digest.of(b"prefetch: is there room?")
_ROOM = 1 << 20

Budgets = Callable[[], Coroutine[Any, Any, Sequence[Budget]]]

T = TypeVar("T")


class Pulse:
    """`/healthz`, `/readyz` and `/metrics`."""

    def __init__(self, library: Library, metrics: Metrics, budgets: Budgets, clock: Clock) -> None:
        self._library = library
        self._metrics = metrics
        self._budgets = _Single(budgets)
        self._schedule = _Single(library.state.runs.entry_totals)
        self._clock = clock
        self._draining = False
        self._trial = _Single(self._try)
        self._answers = {
            "/healthz": self._health,
            "/readyz": self._readiness,
            "/metrics": self._counts,
        }

    def drain(self) -> None:
        """No longer be ready: new clients should go elsewhere."""
        self._draining = True

    async def answer(self, exchange: Exchange) -> web.Response | None:
        """The answer to one of these paths; None for any other."""
        answer = self._answers.get(exchange.path)
        return None if answer is None else await answer()

    async def _health(self) -> web.Response:
        return answers.plain("ok")

    async def _readiness(self) -> web.Response:
        """Whether storage and state can be used; what the upstreams do does not matter."""
        if self._draining:
            return answers.plain("draining", 503)
        try:
            await self._trial.result()
        except TimeoutError:
            return answers.plain("not ready: the database or the disk does not answer", 503)
        except PrefetchError as error:
            return answers.plain(f"not ready: {error.code}", 503)
        return answers.plain("ready")

    async def _try(self) -> None:
        """Read the database, take its write lock, make a file that is gone again at once."""
        await self._library.state.generation()
        await self._library.state.run(lambda _: None)
        writer = await self._library.store.open_writer(_PROBE, _ROOM)
        if writer is not None:
            await writer.close()

    async def _counts(self) -> web.Response:
        budgets: Sequence[Budget] = ()
        schedule: Sequence[EntryTotal] = ()
        # What has been counted is told all the same.
        with suppress(TimeoutError, PrefetchError):
            budgets = await self._budgets.result()
            schedule = await self._schedule.result()
        frozen = self._library.freeze() is not None
        body, content_type = await asyncio.to_thread(
            self._metrics.render,
            budgets,
            frozen=frozen,
            now=self._clock.now(),
            schedule=schedule,
        )
        return web.Response(body=body, headers={"Content-Type": content_type})


class _Single(Generic[T]):
    """Work that is done once for all who ask meanwhile, and that nobody waits long for.

    Behind a lock that somebody holds, one wish for each who asks would only queue up.
    """

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._work = work
        self._task: asyncio.Task[T] | None = None

    async def result(self) -> T:
        """What the work gives. Raises what it raises, and TimeoutError."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
            self._task.add_done_callback(_looked_at)
        async with asyncio.timeout(_PATIENCE):
            return await asyncio.shield(self._task)


def _looked_at(done: asyncio.Task[Any]) -> None:
    """That nobody has waited for how it ended is no reason to lament."""
    if not done.cancelled():
        done.exception()
