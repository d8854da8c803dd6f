"""`freeze` and `thaw`: a maintenance window, for every `serve` on the state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

from prefetch.app.requests import Place
from prefetch.app.runtime import open_state, settings_for
from prefetch.app.signals import run
from prefetch.clock import SystemClock
from prefetch.errors import UsageError
from prefetch.state.database import State

T = TypeVar("T")


def run_freeze(place: Place, until: datetime | None) -> datetime:
    """Freeze from now on, until then or until thawed; returns now. Raises UsageError."""
    clock = SystemClock()

    async def work(state: State) -> datetime:
        now = clock.now()
        if until is not None and until <= now:
            raise UsageError("--until: that moment has passed")
        await state.freezes.freeze(now, until)
        return now

    return _with_state(place, work)


def run_thaw(place: Place) -> bool:
    """End the freeze; False when there was none."""
    return _with_state(place, lambda state: state.freezes.thaw())


def _with_state(place: Place, work: Callable[[State], Awaitable[T]]) -> T:
    async def opened() -> T:
        async with open_state(await settings_for(place)) as state:
            return await work(state)

    result, _ = run(lambda _: opened())
    return result
