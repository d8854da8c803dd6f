"""How the alternates of a run have answered so far, and what they were seen to have.

All of it is one process's memory. What holds for other processes is in the state (what became of a
repository) and in the ledger (throttles, meters).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

from prefetch.clock import Clock

REST_SECONDS = 60.0
"""How long an alternate that does not answer is left alone."""

# So many faults in a row are no longer those of one piece of content.
_FEW = 3
_SEEN_SECONDS = 300.0
_MOST_SEEN = 20_000


class Standing:
    """One alternate registry: whether it has ever answered, and until when it is left alone."""

    def __init__(self, clock: Clock) -> None:
        self.has_answered = False
        self._clock = clock
        self._first = asyncio.Lock()
        self._faults = 0
        self._rests_until = 0.0
        self._broke_until = 0.0
        self._throttles_until = 0.0

    @asynccontextmanager
    async def contact(self) -> AsyncIterator[None]:
        """Within it something is asked. One at a time until there was an answer: where nobody
        listens, nobody waits for more than one connection that is not made.
        """
        if not self.has_answered:
            async with self._first:
                if not self.has_answered:
                    yield
                    return
        yield

    @property
    def rests(self) -> bool:
        """Whether it is not to be asked for anything now."""
        return self._clock.monotonic() < self._rests_until

    @property
    def is_broke(self) -> bool:
        """Whether its own meter has no pulls for us now; what is free may be asked."""
        return self._clock.monotonic() < self._broke_until

    def answered(self) -> None:
        """It has answered something that makes sense."""
        self.has_answered = True
        self._faults = 0

    def failed(self) -> bool:
        """It has not answered, or made no sense; whether it rests for that from now on."""
        self._faults += 1
        if self.rests or (self.has_answered and self._faults < _FEW):
            return False
        self.rest(REST_SECONDS)
        return True

    def rest(self, seconds: float) -> None:
        """Leave it alone for so long."""
        self._faults = 0
        self._rests_until = self._clock.monotonic() + seconds

    def broke(self, seconds: float) -> bool:
        """Ask it for no counted manifest for so long; whether that is news."""
        news = not self.is_broke
        self._broke_until = self._clock.monotonic() + seconds
        return news

    def throttles(self, seconds: float) -> bool:
        """It asks to be left alone, which the ledger sees to; whether that is news."""
        now = self._clock.monotonic()
        news = now >= self._throttles_until
        self._throttles_until = max(self._throttles_until, now + seconds)
        return news


class Seen:
    """What somebody was lately seen to have or not to have."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: OrderedDict[Hashable, tuple[float, bool]] = OrderedDict()

    def get(self, key: Hashable) -> bool | None:
        """Whether it is there; None: not known."""
        found = self._known.get(key)
        if found is None or self._clock.monotonic() >= found[0]:
            return None
        return found[1]

    def put(self, key: Hashable, *, there: bool) -> None:
        """Remember it for five minutes."""
        self._known[key] = (self._clock.monotonic() + _SEEN_SECONDS, there)
        self._known.move_to_end(key)
        while len(self._known) > _MOST_SEEN:
            self._known.popitem(last=False)
