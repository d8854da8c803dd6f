"""SIGINT and SIGTERM end a run cleanly: what was fetched stays, the report is still printed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def end_at_once(status: int) -> None:
    """From now on SIGINT and SIGTERM end the process with this status, until something else takes
    care of them: for when nothing is under way yet."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(status))


class Interruption:
    """Which signal has come, if any. The second one ends the process at once: nothing is lost.

    `hurry` is set then, for what waits after the work is done.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.hurry = asyncio.Event()
        self._cut = True
        self._task: asyncio.Task[Any] | None = None

    def watch(self, task: asyncio.Task[Any]) -> None:
        """Cancel `task` when a signal comes."""
        self._task = task
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._caught, number)

    def settle(self) -> bool:
        """Whether a signal has come; from here on one is only remembered, since what is left to do
        is short.
        """
        if self._task is not None:
            self._task, self._cut = None, self.signal is not None
        return self._cut and self.signal is not None

    @property
    def cut_by(self) -> int | None:
        """The signal that cut the work short; one that comes when all is settled cuts nothing."""
        return self.signal if self._cut else None

    def _caught(self, number: int) -> None:
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = number
        self.hurry.set()
        if self._task is not None:
            self._task.cancel()


def run(work: Callable[[Interruption], Coroutine[Any, Any, T]]) -> tuple[T, int | None]:
    """Run to the end; returns the result and the number of the signal that cut it short.

    `work` has to catch the CancelledError of an interruption to return a result; one that does
    not exits with the signal's status.
    """
    interruption = Interruption()

    async def main() -> T:
        task = asyncio.current_task()
        if task is not None:
            interruption.watch(task)
        return await work(interruption)

    try:
        return asyncio.run(main()), interruption.cut_by
    except asyncio.CancelledError:
        raise SystemExit(128 + (interruption.signal or signal.SIGTERM)) from None
    except BaseExceptionGroup as group:
        # Tasks fail in groups; people are told the first cause.
        raise first_cause(group) from group


def first_cause(error: BaseException) -> BaseException:
    """The error itself, or of a group the first one that is none."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
