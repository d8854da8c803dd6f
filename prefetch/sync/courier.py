"""Brings what waits in the outbox to its hooks, beside whatever else goes on.

A hook gets its notices one after the other, from one process at a time: a kernel lock a hook. One
that does not take them is left alone for a while, longer each time, or as long as it asks; the
others do not wait for it. A notice has the same id at each attempt, so that receivers can tell.
What was not taken within a day is given up.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final

from prefetch.clock import Clock
from prefetch.errors import PrefetchError
from prefetch.events import Emit, NoticeDelivered, NoticeFailed
from prefetch.filelock import FileLock
from prefetch.ratelimit.throttle import backoff
from prefetch.state.outbox import NoticeRecord, Outbox
from prefetch.sync.exechooks import execute
from prefetch.sync.hooks import Attempt, Hook, Message, Webhook
from prefetch.sync.webhooks import post
from prefetch.tasks import end_all

KEPT: Final = timedelta(days=1)
"""For so long a notice is tried."""

_LOOK_SECONDS = 1.0
_POLL_SECONDS = 0.05
_SWEEP_SECONDS = 60.0
# When the state cannot be used.
_TROUBLE_SECONDS = 60.0
_LONGEST_WAIT = 3600.0
_CUT_SHORT = "the run ended before it was taken"


async def deliver(
    hook: Hook, message: Message, *, environ: Mapping[str, str], clock: Clock
) -> Attempt:
    """One attempt."""
    if isinstance(hook, Webhook):
        return await post(hook, message, environ=environ, clock=clock)
    return await execute(hook, message, environ=environ)


@dataclass(frozen=True, slots=True)
class Route:
    """What a courier works with; `hooks` are those of now, `locks` the state's lock files."""

    outbox: Outbox
    hooks: Callable[[], Sequence[Hook]]
    locks: Path
    environ: Mapping[str, str]
    clock: Clock
    emit: Emit


class Courier:
    """Delivers for as long as it runs."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._clock = route.clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._woken = asyncio.Event()
        self._next_sweep = 0.0

    def wake(self) -> None:
        """There is something new: do not wait for the next look."""
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled; then what is under way is broken off, and is for another time."""
        try:
            while True:
                self._woken.clear()
                pause = _LOOK_SECONDS
                try:
                    await self._begin()
                except (PrefetchError, OSError):
                    pause = _TROUBLE_SECONDS  # whoever uses the state for more has told of it
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._woken.wait()
        finally:
            await end_all(list(self._tasks.values()))

    async def settled(self) -> None:
        """Returns once nothing is due: all was taken, or is put off."""
        known = {hook.name for hook in self._route.hooks()}
        while known & await self._route.outbox.due_hooks(self._clock.now()):
            self.wake()
            await self._clock.sleep(_POLL_SECONDS)

    async def _begin(self) -> None:
        """Give up what is too old, and start on each hook that something is due for."""
        now = self._clock.now()
        if self._clock.monotonic() >= self._next_sweep:
            self._next_sweep = self._clock.monotonic() + _SWEEP_SECONDS
            await self._give_up(now - KEPT)
        due = await self._route.outbox.due_hooks(now)
        for hook in self._route.hooks():
            if hook.name in due and hook.name not in self._tasks:
                task = asyncio.create_task(self._serve(hook))
                self._tasks[hook.name] = task
                task.add_done_callback(partial(self._ended, hook.name))

    async def _give_up(self, before: datetime) -> None:
        """What has waited since before that."""
        for old in await self._route.outbox.take_expired(before):
            reason = f"not taken within a day: {old.error or 'nobody delivers to that hook'}"
            self._tell(old, Attempt(taken=False, said=reason, again=False))

    def _ended(self, hook: str, _: asyncio.Task[None]) -> None:
        self._tasks.pop(hook, None)

    async def _serve(self, hook: Hook) -> None:
        """All that is due for a hook, unless another process is at it."""
        lock = FileLock(self._route.locks / f"{lock_name(hook.name)}.lock")
        with suppress(PrefetchError, OSError):
            if not lock.try_acquire():
                return
            try:
                while await self._attempt(hook):
                    pass
            finally:
                lock.release()

    async def _attempt(self, hook: Hook) -> bool:
        """Deliver the first that is due; False: there is none, or the hook is to be left alone."""
        outbox, clock = self._route.outbox, self._clock
        notice = await outbox.first_due(hook.name, clock.now())
        if notice is None:
            return False
        try:
            attempt = await deliver(
                hook, message_of(notice), environ=self._route.environ, clock=clock
            )
        except asyncio.CancelledError:
            await self._put_off(notice, Attempt(taken=False, said=_CUT_SHORT))
            raise
        self._tell(notice, attempt)
        if attempt.taken or not attempt.again:
            await outbox.remove(notice)
            return True
        await self._put_off(notice, attempt)
        return False

    async def _put_off(self, notice: NoticeRecord, attempt: Attempt) -> None:
        wait = attempt.wait
        if wait is None:
            wait = backoff(notice.attempts, random.random())  # noqa: S311
        until = self._clock.now() + timedelta(seconds=min(max(wait, 1.0), _LONGEST_WAIT))
        await self._route.outbox.put_off(notice, until, attempt.said)

    def _tell(self, notice: NoticeRecord, attempt: Attempt) -> None:
        if attempt.taken:
            event = NoticeDelivered(notice.hook, notice.event, notice.id, attempt.output)
            self._route.emit(event)
            return
        self._route.emit(
            NoticeFailed(
                notice.hook,
                notice.event,
                notice.id,
                attempt.said,
                notice.attempts + 1,
                given_up=not attempt.again,
                output=attempt.output,
            )
        )


def message_of(notice: NoticeRecord) -> Message:
    """What goes out."""
    text = str(json.loads(notice.body)["text"])
    return Message(notice.id, notice.event, notice.body, text)


def lock_name(hook: str) -> str:
    """Of the lock file, less `.lock`, that whoever delivers to a hook holds."""
    return f"notify-{sha256(hook.encode()).hexdigest()[:32]}"
