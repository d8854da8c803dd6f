"""One at a time, over all workers: kernel locks for what has no file of its own to lock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path

from prefetch.clock import Clock
from prefetch.errors import StateError
from prefetch.filelock import FileLock

_FIRST_POLL = 0.005
_LAST_POLL = 0.1


class Exclusion:
    """Names that one process at a time may hold: `<data dir>/locks/serve-<hash>.lock`."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        """Hold `name`, waiting while another holds it. Raises StateError."""
        lock, pause = self._lock(name), _FIRST_POLL
        while not _taken(lock):
            await self._clock.sleep(pause)
            pause = min(2 * pause, _LAST_POLL)
        try:
            yield
        finally:
            _give_up(lock)

    @asynccontextmanager
    async def unless_held(self, name: str) -> AsyncIterator[bool]:
        """Hold `name` if nobody does; says whether it is held now. Raises StateError."""
        lock = self._lock(name)
        taken = _taken(lock)
        try:
            yield taken
        finally:
            if taken:
                _give_up(lock)

    def _lock(self, name: str) -> FileLock:
        return FileLock(self._directory / f"serve-{sha256(name.encode()).hexdigest()[:32]}.lock")


def _taken(lock: FileLock) -> bool:
    try:
        return lock.try_acquire()
    except OSError as error:
        raise StateError(f"{lock.path}: cannot be used as a lock: {error.strerror}") from None


def _give_up(lock: FileLock) -> None:
    # Whoever waits for the removed file finds that it no longer stands for the lock. Where it
    # cannot be removed, since the disk has become read-only, it stays, and does no harm.
    with suppress(OSError):
        lock.path.unlink()
    lock.release()
