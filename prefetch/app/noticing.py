"""Notices of what a command does: kept in the state, and sent beside the work.

Nothing here can fail or hold up the work: what cannot be kept or sent is told, and left.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Protocol

from prefetch.app.requests import Place
from prefetch.app.runtime import Runtime, open_runtime
from prefetch.app.signals import first_cause
from prefetch.config.settings import Settings
from prefetch.errors import PrefetchError
from prefetch.events import (
    DeadlineMissed,
    Emit,
    Event,
    ImmutableTagMoved,
    NoticeDelivered,
    NoticeFailed,
    Remark,
    ReserveThreatened,
    RunFinished,
    Stream,
)
from prefetch.state.database import State
from prefetch.state.meters import MeterKey, MeterPolicy
from prefetch.tasks import end_all

if TYPE_CHECKING:
    from prefetch.sync.courier import Route
    from prefetch.sync.hooks import Hook

PATIENCE = 5.0
"""Seconds that a command goes on at its end, at most, so that its notices are taken."""


class Log(Protocol):
    """Where it is told what became of notices; `ServerLog` is one."""

    def debug(self, event: str, /, **facts: object) -> None: ...

    def info(self, event: str, /, **facts: object) -> None: ...

    def warning(self, event: str, /, **facts: object) -> None: ...


def logging_to(log: Log, **facts: object) -> Emit:
    """A listener with a line for each thing that notices are about, and for each notice."""

    def listen(event: Event) -> None:
        match event:
            case ImmutableTagMoved(reference, recorded, found, kept):
                digests = {"recorded": recorded, "found": found, "kept": kept}
                log.warning("immutable tag moved", **facts, reference=reference, **digests)
            case ReserveThreatened(registry, identity, used_up_at=moment):
                meter = {"registry": registry, "identity": identity}
                log.warning("reserve threatened", **facts, **meter, used_up_at=moment)
            case DeadlineMissed(by, images, reason):
                count = len(images)
                log.warning("deadline missed", **facts, by=by, images=count, reason=reason)
            case NoticeDelivered() | NoticeFailed():
                _log_notice(log, event)

    return listen


def _log_notice(log: Log, event: NoticeDelivered | NoticeFailed) -> None:
    facts = {"hook": event.hook, "notice": event.notice, "id": event.id}
    if event.output is not None:
        log.debug("hook said", hook=event.hook, output=event.output)
    if isinstance(event, NoticeDelivered):
        log.info("notice delivered", **facts)
    else:
        word = "notice given up" if event.given_up else "notice not taken"
        log.warning(word, **facts, reason=event.reason, attempts=event.attempts)


@asynccontextmanager
async def open_noticing_runtime(
    settings: Settings,
    place: Place,
    emit: Emit,
    *,
    entry: str | None = None,
    deliver: bool = True,
    patience: float = PATIENCE,
    hurry: asyncio.Event | None = None,
) -> AsyncIterator[Runtime]:
    """`open_runtime`, whose events become notices where the configuration has hooks.

    `entry` is the entry of the schedule that is run; without `deliver` another task sends them.
    `hurry` ends the `patience` with which it is waited for that they are taken.
    """
    if not settings.notify:
        async with open_runtime(settings, place, emit) as runtime:
            yield runtime
        return
    from prefetch.sync.courier import Courier
    from prefetch.sync.noticing import Noticing, Threats

    stream = Stream([emit])
    async with open_runtime(settings, place, stream.emit) as runtime:
        route = _route(runtime.state, lambda: settings.notify, stream.emit)
        threats = Threats(route, runtime.ledger, lambda: _meters(runtime))
        courier = Courier(route) if deliver else None
        noticing = Noticing(route, threats, entry=entry, courier=courier)
        stream.listeners.append(noticing.listen)
        noticing.start()
        try:
            yield runtime
        finally:
            try:
                await noticing.finish(patience, hurry or asyncio.Event())
            except (PrefetchError, OSError) as error:
                emit(Remark(f"notices are not kept: {error}"))
            finally:
                await noticing.close()


@asynccontextmanager
async def delivering(
    state: State, hooks: Callable[[], Sequence[Hook]], log: Log
) -> AsyncIterator[None]:
    """Send what waits in the state, for as long as this goes on; `hooks` may change meanwhile."""
    from prefetch.sync.courier import Courier

    courier = Courier(_route(state, hooks, logging_to(log)))
    running = asyncio.create_task(courier.run())
    try:
        yield
    finally:
        await end_all((running,))


@contextmanager
def failing_aloud(runtime: Runtime, run_id: str) -> Iterator[None]:
    """Tell of a run that an error keeps from its end; the error goes on."""
    try:
        yield
    except Exception as error:
        runtime.emit(RunFinished(run_id, "failed", message=why_failed(error)))
        raise


def why_failed(error: BaseException) -> str:
    """What an error says, where it is one that says something to people."""
    cause = first_cause(error)
    return str(cause) if isinstance(cause, PrefetchError | OSError) else type(cause).__name__


def _route(state: State, hooks: Callable[[], Sequence[Hook]], emit: Emit) -> Route:
    from prefetch.sync.courier import Route

    state.locks.mkdir(parents=True, exist_ok=True)
    return Route(state.outbox, hooks, state.locks, os.environ, state.clock, emit)


async def _meters(runtime: Runtime) -> list[tuple[MeterKey, MeterPolicy]]:
    return [(client.meter, client.policy) for client in runtime.upstreams.opened()]
