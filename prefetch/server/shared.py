"""Work that several requests wait for, and that outlives all of them.

A pull that has been paid for, or half a blob, is worth finishing even when every client that
wanted it has gone: unlike the sync's, these tasks end only by themselves or with the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar

from prefetch.server.refusals import unavailable
from prefetch.tasks import end_all

# Tasks that wait for their turn, for each that works; more are refused.
_WAITING = 16

T = TypeVar("T")


class Shared:
    """One task a key; `joined` is called for each later wish.

    At most `at_once` work at a time, and a few times as many wait for their turn. What is run is
    small, and does not queue behind what is started, which may take as long as a download.
    """

    def __init__(self, at_once: int, joined: Callable[[], None]) -> None:
        self._turn = asyncio.Semaphore(at_once)
        self._small_turn = asyncio.Semaphore(at_once)
        self._most = at_once * _WAITING
        self._joined = joined
        self._tasks: dict[Hashable, asyncio.Task[Any]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def running(self, key: Hashable) -> bool:
        """Whether there is a task for `key`."""
        return key in self._tasks

    def start(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """The task for `key`, begun now unless it is under way; never to be cancelled.

        Raises Refusal (503) when too many are under way.
        """
        return self._task(key, work, self._turn)

    async def run(
        self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]], *, timeout: float
    ) -> T:
        """The result of the task for `key`.

        Raises what it raises, and Refusal (503) as `start` does, or after `timeout` seconds, when
        it goes on alone.
        """
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(self._task(key, work, self._small_turn))
        except TimeoutError:
            raise unavailable("the registry takes its time", "upstream_down", 5) from None

    async def close(self) -> None:
        """End all tasks; what they have written so far stays."""
        await end_all(self._tasks.values())

    def _task(
        self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]], turn: asyncio.Semaphore
    ) -> asyncio.Task[T]:
        task = self._tasks.get(key)
        if task is not None:
            self._joined()
            return task
        if len(self._tasks) >= self._most:
            raise unavailable("too many fetches are under way", "too_many_misses", 2)
        task = asyncio.create_task(_in_turn(turn, work))
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._ended(key, done))
        return task

    def _ended(self, key: Hashable, done: asyncio.Task[Any]) -> None:
        del self._tasks[key]
        if not done.cancelled():
            done.exception()  # looked at, so that it is not lamented when nobody waits any more


async def _in_turn(turn: asyncio.Semaphore, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    async with turn:
        return await work()
