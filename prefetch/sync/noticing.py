"""Notices kept and sent while something else goes on, which never waits for them.

events ─► Composer ─► queue ─► outbox ─► Courier ─► hooks
            ▲
          watch: once a minute, whether others threaten a reserve
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from prefetch.errors import PrefetchError
from prefetch.events import Event, NoticeFailed, Remark, ReserveThreatened, RunFinished
from prefetch.ratelimit.threat import Pressure, is_threatened, used_up_at
from prefetch.state.ledger import Ledger, MeterKey, MeterPolicy
from prefetch.state.outbox import NoticeRecord
from prefetch.sync.courier import Courier, Route
from prefetch.sync.notices import Composer, Ended, Notice, threat_of
from prefetch.tasks import end_all

_WATCH_SECONDS = 60.0

Meters = Callable[[], Awaitable[Sequence[tuple[MeterKey, MeterPolicy]]]]
"""Which meters are watched, and what may be spent from them."""


class Noticing:
    """From events to hooks. `listen` is to hear all events.

    `entry` is the entry of the schedule whose run it is; `courier` None leaves the sending to
    others.
    """

    def __init__(
        self, route: Route, threats: Threats, *, entry: str | None, courier: Courier | None
    ) -> None:
        self._route = route
        self._threats = threats
        self._courier = courier
        self._queue: asyncio.Queue[Notice | Ended] = asyncio.Queue()
        self._composer = Composer(self._queue.put_nowait, route.clock, entry)
        self._interrupted = False
        self._work: list[asyncio.Task[None]] = []
        self._sending: list[asyncio.Task[None]] = []

    def listen(self, event: Event) -> None:
        """Take in one event."""
        if isinstance(event, RunFinished):
            self._interrupted = event.outcome == "interrupted"
        self._composer.listen(event)

    def start(self) -> None:
        """Begin to keep, to watch and to send."""
        self._work = [asyncio.create_task(w) for w in (self._keep_on(), self._threats.watch())]
        if self._courier is not None:
            self._sending = [asyncio.create_task(self._courier.run())]

    async def finish(self, seconds: float, hurry: asyncio.Event) -> None:
        """Look at the meters once more, keep what has come, and wait until it is sent, for that
        long at most, until there is a `hurry`, or not at all when the run was told to end.

        Raises StateError when nothing can be kept.
        """
        await end_all(self._work)
        with suppress(PrefetchError):
            await self._threats.look()
        while not self._queue.empty():
            await self._keep(self._queue.get_nowait())
        if self._courier is not None and seconds > 0 and not self._interrupted:
            waits = [
                asyncio.ensure_future(each) for each in (self._courier.settled(), hurry.wait())
            ]
            try:
                await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await end_all(waits)

    async def close(self) -> None:
        """End all of it; what was not sent stays in the outbox."""
        await end_all([*self._work, *self._sending])

    async def _keep_on(self) -> None:
        while True:
            notice = await self._queue.get()
            keeping = asyncio.ensure_future(self._keep(notice))
            try:
                await asyncio.shield(keeping)
            except asyncio.CancelledError:
                # Told to end, what was taken from the queue is kept first.
                with suppress(PrefetchError):
                    await keeping
                raise
            except PrefetchError as error:
                self._route.emit(Remark(f"a notice is not kept: {error}"))

    async def _keep(self, notice: Notice | Ended) -> None:
        """Into the outbox, for every hook that wants to hear of it."""
        outbox, emit = self._route.outbox, self._route.emit
        if isinstance(notice, Ended):
            await outbox.clear(notice.subject, notice.events)
            return
        body = notice.body()
        rows = [
            NoticeRecord(notice.id, hook.name, notice.event, body, notice.at, notice.at)
            for hook in self._route.hooks()
            if notice.event in hook.events
        ]
        dropped = await outbox.put(rows, notice.condition, notice.at)
        for old in dropped or ():
            reason = "dropped: too many notices wait"
            emit(NoticeFailed(old.hook, old.event, old.id, reason, old.attempts, given_up=True))
        if self._courier is not None:
            self._courier.wake()


class Threats:
    """Looks whether others threaten a reserve, and says so once."""

    def __init__(self, route: Route, ledger: Ledger, meters: Meters) -> None:
        self._outbox = route.outbox
        self._clock = route.clock
        self._emit = route.emit
        self._ledger = ledger
        self._meters = meters

    async def watch(self) -> None:
        """Once a minute, until cancelled."""
        while True:
            await self._clock.sleep(_WATCH_SECONDS)
            with suppress(PrefetchError):
                await self.look()

    async def look(self) -> None:
        """Now."""
        for meter, policy in await self._meters():
            pressure = await self._ledger.pressure(meter, policy)
            if pressure is not None:
                await self._judge(meter, policy, pressure)

    async def _judge(self, meter: MeterKey, policy: MeterPolicy, pressure: Pressure) -> None:
        condition = threat_of(meter.registry, meter.identity)
        told = await self._outbox.is_told(condition, self._clock.now())
        threatened = is_threatened(pressure, told=told)
        if told and not threatened:
            await self._outbox.clear(condition.subject, [condition.event])
        moment = used_up_at(pressure)
        if told or not threatened or moment is None:
            return
        budget = await self._ledger.budget(meter, policy)
        self._emit(
            ReserveThreatened(
                meter.registry,
                meter.identity,
                budget.limit,
                budget.remaining,
                budget.reserve,
                budget.available,
                budget.foreign_burn_per_hour,
                budget.window_seconds,
                datetime.fromtimestamp(moment, UTC),
            )
        )
