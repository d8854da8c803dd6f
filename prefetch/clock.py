"""The one source of time. Tests replace it; nothing else calls `time` or `datetime.now`."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What a clock answers: wall time for people, monotonic time for measuring."""

    def now(self) -> datetime:
        """Wall time, aware, in UTC. It may jump; never order events by it."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed point; never goes back within a process."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; returns at once for zero and below."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


def rfc3339(moment: datetime) -> str:
    """`2026-01-02T03:04:05Z`, to the second (RFC 3339)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_due(moment: datetime) -> str:
    """The same rounded up: whoever comes back at that second does not come too early."""
    return rfc3339(whole_second(moment))


def whole_second(moment: datetime) -> datetime:
    """The moment, or the first whole second after it."""
    return (moment + timedelta(microseconds=999_999)).replace(microsecond=0)
