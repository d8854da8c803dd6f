"""The loop around the ledger: no counted request leaves without a spend drawn for it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

from prefetch.clock import Clock, rfc3339_due
from prefetch.errors import BudgetExhausted, PullLimitReached
from prefetch.oci.reference import Digest
from prefetch.ratelimit.headers import Observation
from prefetch.state.ledger import Ledger
from prefetch.state.meters import (
    Busy,
    Granted,
    Hold,
    MeterKey,
    MeterPolicy,
    Observe,
    Refused,
    Spend,
    Stamp,
)

_SHORTEST_WAIT: Final = 0.02
_LONGEST_WAIT: Final = 0.1

Look = Callable[[], Awaitable[None]]


class Meter:
    """One registry's and one identity's pulls, as the ledger keeps them."""

    def __init__(self, ledger: Ledger, key: MeterKey, policy: MeterPolicy, clock: Clock) -> None:
        self.key = key
        self.policy = policy
        self._ledger = ledger
        self._clock = clock
        self._looking = asyncio.Lock()

    async def draw(
        self, repository: str, digest: Digest | None, hold: Hold | None, look: Look
    ) -> Spend:
        """A spend for one GET from a repository, journaled; it must be settled.

        `look` sends a HEAD to that repository and gives what it reads to `observe`. Raises
        BudgetExhausted, and whatever `look` raises.
        """
        name = None if digest is None else str(digest)
        looked = False
        while True:
            answer = await self._ledger.spend(
                hold, self.key, self.policy, repository=repository, digest=name
            )
            match answer:
                case Granted(spend):
                    return spend
                case Refused():
                    raise self._refusal(answer.reason, answer.retry_at)
                case Observe() if not looked:
                    looked = await self._look(look)
                case Observe() | Busy():
                    looked = False
                    pause = random.uniform(_SHORTEST_WAIT, _LONGEST_WAIT)  # noqa: S311
                    await self._clock.sleep(pause)

    async def _look(self, look: Look) -> bool:
        """Look, or wait for whoever is looking; whether it was us.

        One at a time: a HEAD that a proxy counts must not be under way beside the pull that another
        one's answer allows.
        """
        if self._looking.locked():
            async with self._looking:
                return False
        async with self._looking:
            await look()
        return True

    async def head_stamp(self, repository: str) -> Stamp:
        """To be taken just before a HEAD is sent: then it is observed, or it is `unheard`."""
        return await self._ledger.head_stamp(self.key, repository)

    async def unheard(self, stamp: Stamp) -> None:
        """A HEAD has ended without an answer that tells anything."""
        await self._ledger.unheard(stamp)

    async def observe(self, repository: str, stamp: Stamp, reading: Observation | None) -> None:
        """What a HEAD's answer said of the meter; None: it should have, and said nothing."""
        await self._ledger.observe(self.key, stamp, reading, repository=repository, method="HEAD")

    async def settle(self, spend: Spend, reading: Observation | None, *, found: bool) -> None:
        """The spend's request has ended; `found` says that the manifest came."""
        await self._ledger.settle(spend, reading, answered=found)

    async def exhausted(self, error: PullLimitReached) -> BudgetExhausted:
        """Tell the ledger of a 429 by the pull limit; the error for those who wanted to pull."""
        stamp = await self._ledger.stamp(self.key)
        await self._ledger.pull_limit_reached(self.key, stamp, None, error.retry_after)
        moment = await self._ledger.forecast(self.key, self.policy, 1)
        return self._refusal("the registry says that its pull limit is reached", moment)

    def _refusal(self, reason: str, retry_at: datetime) -> BudgetExhausted:
        return BudgetExhausted(
            f"{self.key.registry} has no pulls left above the reserve (as {self.key.identity}): "
            f"{reason}; expected back at {rfc3339_due(retry_at)}",
            retry_at=retry_at,
        )
