"""`schedule`: timed syncs, in a process of their own; also what `serve` runs beside its workers."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass

from prefetch.app.noticing import delivering
from prefetch.app.offloop import off_loop
from prefetch.app.reloading import Watch, reloaded
from prefetch.app.requests import Place
from prefetch.app.runtime import open_runtime, open_state, settings_at
from prefetch.app.signals import run
from prefetch.app.timedsync import TimedSync
from prefetch.clock import SystemClock
from prefetch.config.settings import ScheduleEntry, Settings
from prefetch.errors import PrefetchError, UsageError
from prefetch.events import Stream
from prefetch.scheduler.keeper import Means, Scheduler
from prefetch.scheduler.plan import Cause, Entry
from prefetch.scheduler.status import Status, statuses
from prefetch.scheduler.ticks import Ahead, Interval, Ticks, Times
from prefetch.server.accesslog import Logs, ServerLog
from prefetch.tasks import end_all


@dataclass(frozen=True, slots=True)
class ScheduleRequest:
    """What `schedule` is asked for."""

    place: Place
    log_level: str = "info"
    log_format: str = "text"


def run_schedule(request: ScheduleRequest) -> int:
    """Keep the schedule until SIGTERM or SIGINT; returns the exit status.

    Raises UsageError, ConfigError, StoreError and StateError before anything is run.
    """
    settings = _scheduled(request.place)
    # What is wrong is told at once, not at three in the morning.
    check_schedule(settings)

    async def opened() -> None:
        async with open_runtime(settings, request.place, Stream().emit):
            pass

    asyncio.run(opened())
    return keep_schedule(settings, request, hasty=True)


def keep_schedule(settings: Settings, request: ScheduleRequest, *, hasty: bool = False) -> int:
    """The same in a process that has nothing else to do; its errors go to the log.

    `hasty`: a second signal ends the process at once.
    """
    # The configuration is read below; until then there is nothing to read again.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    clock = SystemClock()
    logs = Logs.open(form=request.log_format, level=request.log_level, clock=clock)
    try:
        asyncio.run(_Keeping(settings, request.place, logs.server, hasty=hasty).run())
    except PrefetchError as error:
        logs.server.error("cannot keep the schedule", reason=str(error))
        return error.exit_code
    finally:
        logs.close()
    return 0


def check_schedule(settings: Settings) -> None:
    """Raises UsageError when the entries' times cannot be told here."""
    for each in settings.schedule:
        _entry(each)


def list_schedule(place: Place) -> list[Status]:
    """What the entries did, and what is next. Raises UsageError without a schedule."""
    settings = _scheduled(place)

    async def listed() -> list[Status]:
        async with open_state(settings) as state:
            entries = [(_entry(each), each.platforms) for each in settings.schedule]
            return await statuses(entries, state.runs, state.locks, state.clock.now())

    found, _ = run(lambda _: listed())
    return found


class _Keeping:
    """The schedule in its process: settings that may change, and what ends it."""

    def __init__(self, settings: Settings, place: Place, log: ServerLog, *, hasty: bool) -> None:
        self._settings = settings
        self._place = place
        self._log = log
        self._hasty = hasty
        self._stop = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop, number)
        watch = Watch(self._place)
        loop.add_signal_handler(signal.SIGHUP, watch.tell)
        async with open_state(self._settings) as state:
            state.locks.mkdir(parents=True, exist_ok=True)
            means = Means(state.runs, state.locks, self._work, state.clock, self._log)
            scheduler = Scheduler(means)
            tasks = (
                asyncio.create_task(scheduler.until(self._stop)),
                asyncio.create_task(self._follow(watch, scheduler)),
            )
            try:
                async with delivering(state, lambda: self._settings.notify, self._log):
                    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
            finally:
                self._stop.set()
                await end_all(tasks)
                await scheduler.close()

    def _told_to_stop(self, number: int) -> None:
        if self._stop.is_set() and self._hasty:
            os._exit(128 + number)
        self._log.info("stopping", signal=signal.Signals(number).name)
        self._stop.set()

    async def _follow(self, watch: Watch, scheduler: Scheduler) -> None:
        """Keep the schedule that the configuration has, now and whenever that changes.

        A scheduler that is started again may begin with what its supervisor had read long ago.
        """
        await watch.take()
        before = self._settings
        if not await self._reload(scheduler):
            self._keep(scheduler, before)
        while True:
            told = await watch.wait()
            before = self._settings
            if await self._reload(scheduler) and (told or self._settings != before):
                self._log.info("configuration reloaded", entries=len(self._settings.schedule))

    async def _reload(self, scheduler: Scheduler) -> bool:
        """Read the configuration again; one that cannot be used changes nothing."""
        old = self._settings
        try:
            self._keep(scheduler, await off_loop(lambda: reloaded(old, self._place)))
        except PrefetchError as error:
            self._log.error("the configuration is not used", reason=str(error))
            return False
        return True

    def _keep(self, scheduler: Scheduler, settings: Settings) -> None:
        scheduler.keep([_entry(each) for each in settings.schedule])
        self._settings = settings

    async def _work(self, name: str, cause: Cause) -> None:
        settings = self._settings
        entry = next((each for each in settings.schedule if each.name == name), None)
        if entry is not None:
            sync = TimedSync(settings, self._place, entry, cause, self._log, self._stop.is_set)
            await sync.run()


def _scheduled(place: Place) -> Settings:
    settings = settings_at(place)
    if not settings.schedule:
        where = "and no configuration file" if settings.path is None else f"in {settings.path}"
        raise UsageError(
            f"there is no schedule {where}", hint="docs/scheduling.md says how to write one"
        )
    return settings


def _entry(configured: ScheduleEntry) -> Entry:
    by = None if configured.by is None else Ticks(configured.by, configured.timezone)
    return Entry(configured.name, _times(configured, by), configured.jitter, by)


def _times(configured: ScheduleEntry, by: Ticks | None) -> Times:
    if configured.every is not None:
        return Interval(configured.every)
    if configured.cron is None and by is not None:
        return Ahead(by, configured.lead)
    return Ticks(configured.cron or "", configured.timezone)
