"""The rate of requests to one registry, over all processes.

    <data dir>/locks/<registry>.rate    when the next request may leave, and what was taught

Where no rate is in force, a process looks into the file a few times a second and leaves there how
much it has sent; where one is, each request takes its place in it. What throttling taught stays in
the file for those who come later.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from prefetch.clock import Clock
from prefetch.filelock import FileLock
from prefetch.ratelimit.rate import BUCKET_SECONDS, SLOWEST, Pace, bucket, decode
from prefetch.remote.pacing import file_name, try_lock, unusable

_POLL: Final = 0.001
_FIELD: Final = 1024
_NEVER: Final = float("-inf")

T = TypeVar("T")


class Rate:
    """At most so many requests a second: what is configured, or less once the registry throttles.

    `ceiling` is what is configured, None for as many as there are. `waiting` bounds how many may
    stand in line, and thus how far ahead the next place can truly be.
    """

    def __init__(
        self, directory: Path, registry: str, ceiling: float | None, waiting: int, clock: Clock
    ) -> None:
        self._lock = FileLock(directory / f"{file_name(registry)}.rate")
        self._ceiling = ceiling
        self._waiting = waiting
        self._mutex = asyncio.Lock()
        self._clock = clock
        self._random = random.SystemRandom()
        self._unseen: Counter[int] = Counter()
        # Until then no rate is in force, as far as this process knows.
        self._free_until = _NEVER

    async def wait(self) -> bool:
        """Return when the caller's request may leave, and whether that took waiting.

        Raises StateError.
        """
        now = self._clock.monotonic()
        if now < self._free_until:
            self._unseen[bucket(now)] += 1
            return False
        leaves = await self._change(self._take)
        pause = leaves - self._clock.monotonic()
        if pause <= 0:
            return False
        await self._clock.sleep(pause)
        return True

    async def throttled(self, left: float) -> float | None:
        """A request that left at that moment (monotonic) was throttled.

        Returns the new rate in requests a second; None where that is no news. Raises StateError.
        """

        def learn(pace: Pace, now: float) -> tuple[float | None, Pace]:
            wall = self._clock.now().timestamp()
            after = pace.taught(left, now, wall, self._ceiling)
            return None if after is pace else after.in_force(self._ceiling, wall), after

        self._free_until = _NEVER
        return await self._change(learn)

    def _take(self, pace: Pace, now: float) -> tuple[float, Pace]:
        per_second = pace.in_force(self._ceiling, self._clock.now().timestamp())
        if per_second is None:
            self._free_until = now + BUCKET_SECONDS
            return now, pace.counted({bucket(now): 1}, now)
        self._free_until = _NEVER
        return pace.taken(per_second, now, self._random.random())

    async def _change(self, work: Callable[[Pace, float], tuple[T, Pace]]) -> T:
        """Read the file, let `work` change it, write it, under its lock."""
        async with self._mutex:
            while not try_lock(self._lock):
                await self._clock.sleep(_POLL)
            try:
                now = self._clock.monotonic()
                unseen, self._unseen = self._unseen, Counter()
                answer, pace = work(self._read(now).counted(unseen, now), now)
                text = pace.encoded().ljust(_FIELD)
                os.pwrite(self._lock.fileno(), text.encode(), 0)
            except OSError as error:
                raise unusable(self._lock, error) from None
            finally:
                self._lock.release()
        return answer

    def _read(self, now: float) -> Pace:
        raw = os.pread(self._lock.fileno(), _FIELD, 0)
        slowest = min(self._ceiling or SLOWEST, SLOWEST)
        return decode(raw.decode("utf-8", "replace"), latest=now + (self._waiting + 2) / slowest)
