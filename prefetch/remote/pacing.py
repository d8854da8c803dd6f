"""Pacing: how many requests at once, over all processes.

    <data dir>/locks/<registry>.slot.<n>    held by whoever has a request under way

It rests on kernel file locks: what a dead process held is free again at once.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Final

from prefetch.clock import Clock
from prefetch.errors import StateError
from prefetch.filelock import FileLock

_POLL: Final = 0.01


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
                taken = try_lock(lock)
            finally:
                if not taken:
                    self._free.append(lock)
            if taken:
                return lock
        if download or self._kept is None or self._kept.held or not try_lock(self._kept):
            return None
        return self._kept


def try_lock(lock: FileLock) -> bool:
    """Take a lock if it is free. Raises StateError."""
    try:
        return lock.try_acquire()
    except OSError as error:
        raise unusable(lock, error) from None


def unusable(lock: FileLock, error: OSError) -> StateError:
    """The error for a lock file that cannot be opened, read or written."""
    return StateError(f"{lock.path}: cannot be used as a lock: {error.strerror}")
