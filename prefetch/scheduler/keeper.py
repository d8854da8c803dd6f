"""Runs the entries of a schedule: each when it is due, and one run of it at a time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from prefetch.clock import Clock
from prefetch.errors import PrefetchError
from prefetch.filelock import FileLock
from prefetch.scheduler.plan import REMEMBERED, Cause, Entry, Plan, next_run
from prefetch.state.records import EntryHistory
from prefetch.state.runs import Runs
from prefetch.tasks import end_all

# Other processes run entries, too, and clocks are set: nothing is slept through for longer.
_LOOK_SECONDS = 15.0
# After an attempt that has left nothing in the state, and when the state cannot be read.
_TROUBLE_SECONDS = 60.0
# So much less on the wall than by the steady clock: the time of day has been set back.
_SET_BACK_SECONDS = 1.0
_TRIES = 3
_TRY_SECONDS = 0.2

Work = Callable[[str, Cause], Awaitable[None]]
"""Runs the entry of that name; what fails is told there. Cancelled, it ends in order."""


class Log(Protocol):
    """Where it is told what happens; `ServerLog` is one."""

    def info(self, event: str, /, **facts: object) -> None: ...

    def warning(self, event: str, /, **facts: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Means:
    """What all keepers use; `locks` is the directory of the state's lock files."""

    runs: Runs
    locks: Path
    work: Work
    clock: Clock
    log: Log


class Scheduler:
    """Keeps each entry by a task of its own, so that different entries may run at once."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._keepers: dict[str, Keeper] = {}
        self._tasks: dict[asyncio.Task[None], Keeper] = {}
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def keep(self, entries: Iterable[Entry]) -> None:
        """From now on these and no others; a run that is under way goes on to its end."""
        wanted = {entry.name: entry for entry in entries}
        for name in [name for name in self._keepers if name not in wanted]:
            self._keepers.pop(name).change(None)
        for name, entry in wanted.items():
            if name in self._keepers:
                self._keepers[name].change(entry)
                continue
            keeper = self._keepers[name] = Keeper(entry, self._means)
            task = asyncio.create_task(keeper.run())
            self._tasks[task] = keeper
            task.add_done_callback(self._ended)

    async def until(self, stop: asyncio.Event) -> None:
        """Keep on until `stop` is set. Raises what a keeper has died of, which only a bug does."""
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((stopped, self._broken), return_when=asyncio.FIRST_COMPLETED)
            if self._broken.done():
                await self._broken
        finally:
            await end_all((stopped,))

    async def close(self) -> None:
        """Cut short what runs, in order; returns when that has ended."""
        for keeper in self._tasks.values():
            keeper.change(None)
        await end_all(self._tasks)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if task.cancelled() or self._broken.done():
            return
        error = task.exception()
        if error is not None:
            self._broken.set_exception(error)


class Keeper:
    """One entry, in one process. Others may keep the same."""

    def __init__(self, entry: Entry, means: Means) -> None:
        self._entry: Entry | None = entry
        self._means = means
        self._clock = means.clock
        self._woken = asyncio.Event()
        self._lock = FileLock(means.locks / f"{lock_name(entry.name)}.lock")
        # What the plan rests on: the entry's line, and the latest run as the state has it.
        self._basis: object = None
        self._plan: Plan | None = None
        self._at: datetime | None = None
        self._covered: datetime | None = None
        self._not_before: datetime | None = None
        self._looked = means.clock.now(), means.clock.monotonic()

    def change(self, entry: Entry | None) -> None:
        """Another line for the entry; None: no longer keep it."""
        self._entry = entry
        self._woken.set()

    async def run(self) -> None:
        """Until the entry is no longer kept."""
        while self._entry is not None:
            self._woken.clear()
            entry = self._entry
            try:
                await self._step(entry)
            except (PrefetchError, OSError) as error:
                self._means.log.warning("the schedule waits", entry=entry.name, reason=str(error))
                await self._sleep(_TROUBLE_SECONDS)

    async def _step(self, entry: Entry) -> None:
        """Look at the state; then sleep for a while, or run the entry."""
        plan, at = await self._planned(entry)
        wait = (at - self._clock.now()).total_seconds()
        if wait > 0:
            await self._sleep(min(wait, _LOOK_SECONDS))
        else:
            await self._attempt(entry, plan)

    async def _planned(self, entry: Entry) -> tuple[Plan, datetime]:
        """What is next and when, thought out anew where something has changed."""
        history = await self._means.runs.of_entry(entry.name, REMEMBERED)
        basis = _basis(entry, history)
        if self._was_set_back():
            self._plan = None
        if self._plan is not None and self._at is not None and basis == self._basis:
            return self._plan, self._at
        now = self._clock.now()
        plan = next_run(entry, history, now, covered=self._covered)
        at = plan.at + timedelta(seconds=random.uniform(0, plan.spread))  # noqa: S311
        if self._not_before is not None:
            at = max(at, min(self._not_before, now + timedelta(seconds=_TROUBLE_SECONDS)))
        if basis != self._basis:
            self._means.log.info("scheduled", entry=entry.name, cause=plan.cause, at=at)
        self._basis, self._plan, self._at = basis, plan, at
        return plan, at

    async def _attempt(self, entry: Entry, plan: Plan) -> None:
        self._plan = None
        if not await self._locked():
            await self._cover(entry)
            self._put_off(_LOOK_SECONDS)
            if plan.cause is not Cause.RESUMED:
                self._means.log.info(
                    "skipped: it is being run already", entry=entry.name, cause=plan.cause
                )
            return
        try:
            # Another process may have been faster, and be done.
            if not await self._has_moved(entry):
                await self._means.work(entry.name, plan.cause)
                if not await self._has_moved(entry):
                    self._put_off(_TROUBLE_SECONDS)
        finally:
            self._lock.release()

    async def _cover(self, entry: Entry) -> None:
        """Whoever runs the entry now deals with its ticks, unless that is a retry."""
        history = await self._means.runs.of_entry(entry.name, 1)
        newest = history.runs[0] if history.runs else None
        if newest is None or newest.outcome is not None or newest.cause != Cause.RETRY:
            self._covered = self._clock.now()

    async def _locked(self) -> bool:
        """Take the entry's lock; whoever only looks whether it is held lets go in a moment."""
        for _ in range(_TRIES):
            if self._lock.try_acquire():
                return True
            await self._clock.sleep(_TRY_SECONDS)
        return False

    async def _has_moved(self, entry: Entry) -> bool:
        history = await self._means.runs.of_entry(entry.name, 1)
        return _basis(entry, history) != self._basis

    def _was_set_back(self) -> bool:
        """Whether the clock has been, since this was last asked: moments thought out before may lie
        far ahead then."""
        (wall, steady), self._looked = self._looked, (self._clock.now(), self._clock.monotonic())
        gone = (self._looked[0] - wall).total_seconds()
        return gone < self._looked[1] - steady - _SET_BACK_SECONDS

    def _put_off(self, seconds: float) -> None:
        self._not_before = self._clock.now() + timedelta(seconds=seconds)

    async def _sleep(self, seconds: float) -> None:
        """Until then, or until the entry is changed."""
        waiting = (
            asyncio.create_task(self._clock.sleep(seconds)),
            asyncio.create_task(self._woken.wait()),
        )
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_all(waiting)


def lock_name(entry: str) -> str:
    """Of the lock file, less `.lock`, that whoever runs an entry holds; of an entry's name."""
    return f"schedule-{sha256(entry.encode()).hexdigest()[:32]}"


def _basis(entry: Entry, history: EntryHistory) -> object:
    newest = history.runs[0] if history.runs else None
    return entry, newest and (newest.id, newest.outcome)
