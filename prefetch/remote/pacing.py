"""Pacing: how many requests at once and how many a second, over all processes.

    <data dir>/locks/<registry>.slot.<n>    held by whoever has a request under way
    <data dir>/locks/<registry>.rate        when the next request may leave

Both rest on kernel file locks: what a dead process held is free again at once.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

from prefetch.clock import Clock
from prefetch.errors import StateError
from prefetch.filelock import FileLock

_POLL: Final = 0.01
_RATE_POLL: Final = 0.001
_RATE_FIELD: Final = 32


def file_name(registry: str) -> str:
    """A registry's name as part of a file name; different registries never share one."""
    safe = re.sub(r"[^a-z0-9.-]", "_", registry.lower())[:100]
    return safe if safe == registry else f"{safe}.{sha256(registry.encode()).hexdigest()[:8]}"


class Slots:
    """At most `count` requests at once to a registry, counted over all processes.

    Downloads leave one slot, where there are several, to requests that are small: who asks what a
    tag is does not wait until a layer has come. Whoever is in a slot must not ask for another:
    with one slot it would wait for itself.
    """

    def __init__(self, directory: Path, registry: str, count: int, clock: Clock) -> None:
        name = file_name(registry)
        kept, *others = [FileLock(directory / f"{name}.slot.{n}") for n in range(count)]
        # The same one for all processes.
        self._kept = kept if others else None
        self._free = deque(others or [kept])
        # Processes that begin at different slots seldom try each other's.
        self._free.rotate(os.getpid())
        self._turn = asyncio.Semaphore(count)
        self._downloads = asyncio.Semaphore(max(1, count - 1))
        self._clock = clock

    @asynccontextmanager
    async def hold(self, *, download: bool = False) -> AsyncIterator[None]:
        """Be one of the `count`; waits for a free slot. Raises StateError."""
        async with self._downloads if download else nullcontext(), self._turn:
            lock = self._take(download=download)
            while lock is None:
                await self._clock.sleep(_POLL)
                lock = self._take(download=download)
            try:
                yield
            finally:
                lock.release()
                if lock is not self._kept:
                    self._free.append(lock)

    def _take(self, *, download: bool) -> FileLock | None:
        for _ in range(len(self._free)):
            lock = self._free.popleft()
            taken = False
            try:
                taken = _try(lock)
            finally:
                if not taken:
                    self._free.append(lock)
            if taken:
                return lock
        if download or self._kept is None or self._kept.held or not _try(self._kept):
            return None
        return self._kept


class Rate:
    """At most `per_second` requests a second to a registry, over all processes.

    The file holds the monotonic time, which all processes share, at which the next request may
    leave; each request takes that time for itself and moves it on. `waiting` bounds how many may
    stand in line, and thus how far ahead the time can truly be: one farther ahead is left over
    from before a reboot.
    """

    def __init__(
        self, directory: Path, registry: str, per_second: float, waiting: int, clock: Clock
    ) -> None:
        self._lock = FileLock(directory / f"{file_name(registry)}.rate")
        self._interval = 1.0 / per_second
        self._horizon = (waiting + 1) * self._interval + 1.0
        self._mutex = asyncio.Lock()
        self._clock = clock

    async def wait(self) -> None:
        """Return when the caller's request may leave. Raises StateError."""
        async with self._mutex:
            while not _try(self._lock):
                await self._clock.sleep(_RATE_POLL)
            try:
                leaves = self._reserve()
            except OSError as error:
                raise _unusable(self._lock, error) from None
            finally:
                self._lock.release()
        await self._clock.sleep(leaves - self._clock.monotonic())

    def _reserve(self) -> float:
        now = self._clock.monotonic()
        leaves = now
        with suppress(ValueError):
            leaves = float(os.pread(self._lock.fileno(), _RATE_FIELD, 0) or now)
        if not now <= leaves <= now + self._horizon:
            leaves = now
        text = f"{leaves + self._interval:.6f}".ljust(_RATE_FIELD)
        os.pwrite(self._lock.fileno(), text.encode(), 0)
        return leaves


def _try(lock: FileLock) -> bool:
    try:
        return lock.try_acquire()
    except OSError as error:
        raise _unusable(lock, error) from None


def _unusable(lock: FileLock, error: OSError) -> StateError:
    return StateError(f"{lock.path}: cannot be used as a lock: {error.strerror}")
