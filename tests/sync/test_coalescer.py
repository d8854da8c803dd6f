"""One task a key, whoever asks."""

from __future__ import annotations

import asyncio

import pytest

from prefetch.errors import NetworkError
from prefetch.sync.transfer import Coalescer


async def test_concurrent_callers_share_one_task() -> None:
    coalescer, begun = Coalescer(), 0

    async def work() -> int:
        nonlocal begun
        begun += 1
        await asyncio.sleep(0.01)
        return 7

    answers = await asyncio.gather(*(coalescer.run("key", work) for _ in range(5)))
    assert begun == 1
    assert sorted(answers) == [(7, False)] * 4 + [(7, True)]


async def test_the_next_caller_starts_anew() -> None:
    coalescer = Coalescer()

    async def work() -> str:
        return "done"

    assert await coalescer.run("key", work) == ("done", True)
    assert await coalescer.run("key", work) == ("done", True)


async def test_all_callers_learn_of_a_failure() -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise ValueError("broken")

    coalescer = Coalescer()
    answers = await asyncio.gather(
        *(coalescer.run("key", work) for _ in range(3)), return_exceptions=True
    )
    assert [str(answer) for answer in answers] == ["broken"] * 3


async def test_a_caller_that_leaves_does_not_stop_the_others() -> None:
    coalescer, go = Coalescer(), asyncio.Event()

    async def work() -> str:
        await go.wait()
        return "done"

    leaver = asyncio.create_task(coalescer.run("key", work))
    stayer = asyncio.create_task(coalescer.run("key", work))
    await asyncio.sleep(0)
    leaver.cancel()
    await asyncio.sleep(0)
    go.set()
    assert await stayer == ("done", False)


async def test_the_work_ends_when_the_last_caller_has_left() -> None:
    coalescer, ended = Coalescer(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    caller = asyncio.create_task(coalescer.run("key", work))
    await asyncio.sleep(0.01)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()


async def test_a_failure_of_another_source_is_not_passed_on() -> None:
    coalescer = Coalescer()

    async def fail() -> str:
        await asyncio.sleep(0)
        raise NetworkError("another_source is out of reach")

    async def work() -> str:
        return "done"

    failed, same, other = await asyncio.gather(
        coalescer.run("key", fail, source="one"),
        coalescer.run("key", work, source="one"),
        coalescer.run("key", work, source="another"),
        return_exceptions=True,
    )
    assert isinstance(failed, NetworkError)
    assert isinstance(same, NetworkError)
    assert other == ("done", True)
