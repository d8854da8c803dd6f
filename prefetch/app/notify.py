"""`notify`: hooks tried out, and what waits for them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefetch.app.requests import Place
from prefetch.app.runtime import open_state, settings_for
from prefetch.app.signals import run
from prefetch.clock import Clock, SystemClock, rfc3339, rfc3339_due
from prefetch.config.settings import Settings
from prefetch.errors import UsageError
from prefetch.state.outbox import NoticeRecord
from prefetch.sync.courier import deliver, message_of
from prefetch.sync.hooks import Attempt, Hook, Message
from prefetch.sync.notices import test_notice

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tried:
    """What a hook made of a test notice, and how many seconds it took."""

    hook: str
    attempt: Attempt
    seconds: float

    def document(self) -> JSON:
        """One object of `notify --test -o json`."""
        return {
            "hook": self.hook,
            "delivered": self.attempt.taken,
            "message": self.attempt.said,
            "output": self.attempt.output,
            "seconds": round(self.seconds, 3),
        }


def try_hooks(place: Place, names: Sequence[str]) -> list[Tried]:
    """Send each of the named hooks, or all, a test notice now. Raises UsageError."""

    async def work() -> list[Tried]:
        hooks = _chosen(await settings_for(place), names)
        clock = SystemClock()
        notice = test_notice(clock.now())
        message = Message(notice.id, notice.event, notice.body(), notice.text)
        return await asyncio.gather(*(_tried(hook, message, clock) for hook in hooks))

    found, _ = run(lambda _: work())
    return found


async def _tried(hook: Hook, message: Message, clock: Clock) -> Tried:
    began = clock.monotonic()
    attempt = await deliver(hook, message, environ=os.environ, clock=clock)
    return Tried(hook.name, attempt, clock.monotonic() - began)


def _chosen(settings: Settings, names: Sequence[str]) -> list[Hook]:
    known = {hook.name: hook for hook in settings.notify}
    if not known:
        where = "and no configuration file" if settings.path is None else f"in {settings.path}"
        raise UsageError(f"there is no notify {where}", hint="docs/notices.md says how to write it")
    stranger = next((name for name in names if name not in known), None)
    if stranger is not None:
        raise UsageError(f"there is no hook {stranger!a}; there are {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)] if names else list(known.values())


def list_waiting(place: Place) -> list[NoticeRecord]:
    """What no hook has taken yet, the oldest first."""

    async def work() -> list[NoticeRecord]:
        async with open_state(await settings_for(place)) as state:
            return await state.outbox.waiting()

    found, _ = run(lambda _: work())
    return found


def waiting_document(notice: NoticeRecord) -> JSON:
    """One object of `notify --list -o json`."""
    return {
        "id": notice.id,
        "hook": notice.hook,
        "event": notice.event,
        "text": message_of(notice).text,
        "created_at": rfc3339(notice.created_at),
        "attempts": notice.attempts,
        "next_at": rfc3339_due(notice.next_at),
        "error": notice.error,
    }
