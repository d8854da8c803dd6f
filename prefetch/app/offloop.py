"""Work that may block for ever, done where a signal can leave it behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def off_loop(work: Callable[[], T]) -> T:
    """What `work` returns or raises, on a thread of its own.

    Cancelled, the thread is left alone: a pipe that nobody writes to, or a network filesystem that
    hangs, cannot be called back. Neither the loop's end nor the interpreter's waits for it, as
    they would for one of the loop's executor.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:  # noqa: BLE001
            error = raised
        with suppress(RuntimeError):  # the loop has ended without us
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="off-loop", daemon=True).start()
    return await future
