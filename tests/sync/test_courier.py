"""A courier over a real outbox, receivers on loopback and real programs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from prefetch.clock import SystemClock
from prefetch.credentials.credential import Secret
from prefetch.events import Event, NoticeDelivered, NoticeFailed
from prefetch.filelock import FileLock
from prefetch.state.database import State
from prefetch.state.outbox import NoticeRecord
from prefetch.sync.courier import KEPT, Courier, Route, lock_name
from prefetch.sync.hooks import ExecHook, Hook, SecretSource, Webhook
from prefetch.tasks import end_all
from support.receiver import Receiver, Reply


class Post:
    """A state with an outbox, and couriers for some hooks."""

    def __init__(self, state: State, directory: Path) -> None:
        self.state = state
        self.told: list[Event] = []
        self.hooks: list[Hook] = []
        self.directory = directory

    async def put(self, name: str, *hooks: str, age: float = 0.0) -> None:
        at = self.state.clock.now() - timedelta(seconds=age)
        body = f'{{"event": "{name}", "text": "{name}"}}'
        rows = [NoticeRecord(f"msg_{name}", hook, name, body, at, at) for hook in hooks]
        await self.state.outbox.put(rows, None, at)

    @asynccontextmanager
    async def delivering(self) -> AsyncIterator[Courier]:
        self.directory.mkdir(exist_ok=True)
        clock, outbox = self.state.clock, self.state.outbox
        courier = Courier(
            Route(outbox, lambda: self.hooks, self.directory, {}, clock, self.told.append)
        )
        running = asyncio.create_task(courier.run())
        try:
            yield courier
        finally:
            await end_all((running,))

    async def until(self, done: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(20):
            while not await done():
                await asyncio.sleep(0.02)

    async def waits_for(self, *hooks: str) -> bool:
        return [row.hook for row in await self.state.outbox.waiting()] == list(hooks)

    async def empty(self) -> bool:
        return not await self.state.outbox.waiting()


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Post]:
    state = await State.open(f"sqlite:///{tmp_path}/p.db", data_dir=tmp_path, clock=SystemClock())
    yield Post(state, tmp_path / "locks")
    await state.close()


def webhook(name: str, receiver: Receiver, timeout: float = 5.0) -> Webhook:
    return Webhook(name, SecretSource(Secret(receiver.url)), timeout=timeout)


async def test_what_is_taken_leaves_in_order(box: Post) -> None:
    for number in range(3):
        await box.put(f"n{number}", "ops")
    async with Receiver() as receiver:
        box.hooks = [webhook("ops", receiver)]
        async with box.delivering():
            await box.until(box.empty)
    assert receiver.events == ["n0", "n1", "n2"]
    assert [each.headers["webhook-id"] for each in receiver.received][:2] == ["msg_n0", "msg_n1"]
    assert [type(event) for event in box.told] == [NoticeDelivered] * 3


async def test_what_is_not_taken_is_tried_again_under_the_same_id(box: Post) -> None:
    await box.put("first", "ops")
    await box.put("second", "ops")
    async with Receiver(Reply(500), Reply(200)) as receiver:
        box.hooks = [webhook("ops", receiver)]
        async with box.delivering():
            await box.until(box.empty)
    assert receiver.events == ["first", "first", "second"]
    assert len({each.headers["webhook-id"] for each in receiver.received}) == 2
    assert receiver.received[1].at - receiver.received[0].at >= 1.0
    assert box.told[0] == NoticeFailed("ops", "first", "msg_first", "answered 500", 1, False)


async def test_retry_after_is_honoured(box: Post) -> None:
    await box.put("n", "ops")
    async with Receiver(Reply(429, (("Retry-After", "3"),)), Reply(204)) as receiver:
        box.hooks = [webhook("ops", receiver)]
        async with box.delivering():
            await box.until(box.empty)
    assert 3.0 <= receiver.received[1].at - receiver.received[0].at < 6.0


async def test_what_will_never_be_taken_is_given_up(box: Post) -> None:
    await box.put("n", "ops")
    await box.put("old", "ops", "unknown", age=KEPT.total_seconds() + 5)
    async with Receiver(Reply(410)) as receiver:
        box.hooks = [webhook("ops", receiver)]
        async with box.delivering():
            await box.until(box.empty)
    assert receiver.events == ["n"]
    failed = [event for event in box.told if isinstance(event, NoticeFailed)]
    assert all(event.given_up for event in failed)
    assert [(event.hook, event.notice) for event in failed] == [
        ("ops", "old"),
        ("unknown", "old"),
        ("ops", "n"),
    ]


async def test_a_hook_that_hangs_holds_up_no_other(box: Post) -> None:
    await box.put("n", "slow", "quick")
    async with Receiver(Reply(seconds=30)) as slow, Receiver() as quick:
        box.hooks = [webhook("slow", slow, timeout=20), webhook("quick", quick)]
        async with box.delivering():
            await slow.wait_for("n")
            await box.until(lambda: box.waits_for("slow"))
            began = asyncio.get_running_loop().time()
        # Told to end, it breaks off what is under way.
        assert asyncio.get_running_loop().time() - began < 2
    (left,) = await box.state.outbox.waiting()
    assert (left.hook, left.attempts) == ("slow", 1)
    assert left.error == "the run ended before it was taken"


async def test_one_process_at_a_time_delivers_to_a_hook(box: Post) -> None:
    await box.put("n", "ops")
    box.directory.mkdir()
    lock = FileLock(box.directory / f"{lock_name('ops')}.lock")
    assert lock.try_acquire()
    async with Receiver() as receiver:
        box.hooks = [webhook("ops", receiver)]
        async with box.delivering() as courier:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await courier.settled()
            assert receiver.received == []
            lock.release()
            await courier.settled()
        assert receiver.events == ["n"]
        for number in range(5):
            await box.put(f"m{number}", "ops")
        async with box.delivering(), box.delivering():
            await box.until(box.empty)
    assert receiver.events == ["n", *(f"m{number}" for number in range(5))]


async def test_a_program_that_fails_is_tried_again(box: Post, tmp_path: Path) -> None:
    script = (
        "import os, sys; path = sys.argv[1]; new = not os.path.exists(path); "
        "open(path, 'a').write(os.environ['PREFETCH_EVENT'] + '\\n'); sys.exit(new)"
    )
    await box.put("n", "program")
    box.hooks = [ExecHook("program", (sys.executable, "-c", script, str(tmp_path / "log")))]
    async with box.delivering():
        await box.until(box.empty)
    assert (tmp_path / "log").read_text() == "n\nn\n"


async def test_hooks_that_are_changed_are_used_as_they_are_now(box: Post) -> None:
    await box.put("n", "ops")
    async with Receiver() as receiver, box.delivering():
        await asyncio.sleep(0.1)
        box.hooks = [webhook("ops", receiver)]
        await box.until(box.empty)
        assert receiver.events == ["n"]
