"""Throttling: when a registry says "too many requests", every request to it waits.

The moment until which to wait is in the ledger, so that it holds for all processes and identities.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from prefetch.clock import Clock
from prefetch.events import Emit, ThrottleEvent
from prefetch.state.ledger import Ledger

# Two ways to round one moment must not make a busy loop.
_SHORTEST: Final = 0.001


class Throttle:
    """One registry's gate: open, or closed until a moment.

    `longest` bounds, in seconds, what a registry may ask for.
    """

    def __init__(
        self, registry: str, ledger: Ledger, *, clock: Clock, emit: Emit, longest: float
    ) -> None:
        self.registry = registry
        self._ledger = ledger
        self._clock = clock
        self._emit = emit
        self._longest = longest
        self._announced: datetime | None = None

    async def wait(self) -> bool:
        """Return when requests may be sent, and whether that took waiting.

        One event tells of each moment waited for.
        """
        waited = False
        while (until := await self._ledger.throttled_until(self.registry)) is not None:
            self._announce(until)
            remaining = (until - self._clock.now()).total_seconds()
            await self._clock.sleep(min(max(remaining, _SHORTEST), self._longest))
            waited = True
        return waited

    async def close(self, seconds: float | None) -> None:
        """Close for as long as the registry asks; None: it did not say, longer each time."""
        bounded = None if seconds is None else min(seconds, self._longest)
        # Whoever was told so need not be the one who waits: it may give up, or never ask again.
        self._announce(await self._ledger.throttled(self.registry, bounded))

    def _announce(self, until: datetime) -> None:
        if until != self._announced:
            self._announced = until
            self._emit(ThrottleEvent(self.registry, until))
