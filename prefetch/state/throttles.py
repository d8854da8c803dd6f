"""Throttling: it belongs to a registry, whatever the identity, and to every process."""

from __future__ import annotations

import random
from datetime import UTC, datetime

from sqlalchemy import Connection, select

from prefetch.clock import Clock
from prefetch.ratelimit.headers import MAX_RETRY_AFTER
from prefetch.ratelimit.throttle import LONGEST_BACKOFF, backoff
from prefetch.state.models import throttles
from prefetch.state.rows import Session, upsert_into

_REREAD_SECONDS = 1.0
_SAVE = upsert_into(throttles)


class Throttles:
    """Until when each registry wants to be left alone."""

    def __init__(self, session: Session, clock: Clock) -> None:
        self._session = session
        self._clock = clock
        self._random = random.SystemRandom()
        self._known: dict[str, tuple[float, float | None]] = {}

    async def add(self, registry: str, seconds: float | None) -> datetime:
        """The registry has throttled us; returns when to ask again.

        `seconds` is what Retry-After said. Without it the wait doubles from 1 s to 5 min, once
        for each wait that was not enough: requests under way together count as one.
        """
        now = self._clock.now().timestamp()
        jitter = self._random.random()

        def work(connection: Connection) -> float:
            row = connection.execute(
                select(throttles).where(throttles.c.registry == registry)
            ).first()
            if row is not None and not row.since <= now <= row.until + LONGEST_BACKOFF:
                row = None
            waiting = row is not None and now < row.until
            step = 0
            if row is not None:
                step = row.step if waiting or seconds is not None else row.step + 1
            if seconds is not None:
                wait = min(max(seconds, 0.0), MAX_RETRY_AFTER)
            else:
                wait = 0.0 if waiting else backoff(step, jitter)
            until = max(now + wait, row.until if row is not None else 0.0)
            since = row.since if row is not None and waiting else now
            new = {"registry": registry, "since": since, "until": until, "step": step}
            connection.execute(_SAVE, [new])
            return until

        until = await self._session.run(work)
        self._known[registry] = (self._clock.monotonic(), until)
        return datetime.fromtimestamp(until, UTC)

    async def until(self, registry: str) -> datetime | None:
        """Until when to wait, if so; read from the database at most once a second."""
        now = self._clock.now().timestamp()
        read_at, until = self._known.get(registry, (None, None))
        if read_at is None or self._clock.monotonic() - read_at >= _REREAD_SECONDS:
            # Whoever comes while this is read makes do with what was known.
            self._known[registry] = (self._clock.monotonic(), until)
            until = await self._session.read(lambda connection: _read(connection, registry, now))
            self._known[registry] = (self._clock.monotonic(), until)
        if until is None or until <= now:
            return None
        return datetime.fromtimestamp(until, UTC)


def _read(connection: Connection, registry: str, now: float) -> float | None:
    row = connection.execute(
        select(throttles.c.since, throttles.c.until).where(throttles.c.registry == registry)
    ).first()
    # One that began in the future was written before the clock was set back.
    return None if row is None or row.since > now else float(row.until)
