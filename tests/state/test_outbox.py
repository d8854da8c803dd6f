"""The outbox: what waits for hooks, and what has been told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from prefetch.state.database import State
from prefetch.state.outbox import CAPACITY, Condition, NoticeRecord
from support.clock import ManualClock

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def notice(name: str, hook: str = "ops", second: float = 0.0) -> NoticeRecord:
    return NoticeRecord(name, hook, "run_failed", "{}", at(second), at(second))


@pytest.fixture
async def state(tmp_path: Path, clock: ManualClock) -> AsyncIterator[State]:
    opened = await State.open(f"sqlite:///{tmp_path}/p.db", data_dir=tmp_path, clock=clock)
    yield opened
    await opened.close()


async def test_the_oldest_that_is_due_comes_first_and_each_hook_has_its_own(state: State) -> None:
    box = state.outbox
    await box.put([notice("b", second=2), notice("b", "other", 2)], None, at(2))
    await box.put([notice("a", second=1)], None, at(2))
    assert await box.due_hooks(at(0)) == set()
    assert await box.due_hooks(at(1)) == {"ops"}
    assert await box.due_hooks(at(2)) == {"ops", "other"}
    first = await box.first_due("ops", at(2))
    assert first == notice("a", second=1)
    await box.remove(first)
    assert await box.first_due("ops", at(2)) == notice("b", second=2)
    assert [each.hook for each in await box.waiting()] == ["ops", "other"]


async def test_a_hook_that_is_put_off_is_left_alone_with_all_that_waits(state: State) -> None:
    box = state.outbox
    await box.put([notice("a"), notice("b"), notice("a", "other")], None, at(0))
    await box.put_off(notice("a"), at(60), "answered 500")
    assert await box.due_hooks(at(59)) == {"other"}
    rows = {(row.id, row.hook): (row.attempts, row.error) for row in await box.waiting()}
    assert rows == {
        ("a", "ops"): (1, "answered 500"),
        ("b", "ops"): (0, None),
        ("a", "other"): (0, None),
    }
    assert await box.first_due("ops", at(60)) is not None


async def test_what_is_old_is_given_up_and_the_oldest_make_room(state: State) -> None:
    box = state.outbox
    many = [notice(f"{number:04}", second=number) for number in range(CAPACITY)]
    assert await box.put(many, None, at(0)) == []
    dropped = await box.put([notice("new", second=5000), notice("newer", second=5001)], None, at(0))
    assert dropped is not None
    assert [row.id for row in dropped] == ["0000", "0001"]
    assert [row.id for row in await box.take_expired(at(4))] == ["0002", "0003"]
    assert len(await box.waiting()) == CAPACITY - 2
    assert await box.take_expired(at(4)) == []


async def test_a_condition_is_told_once_while_it_lasts(state: State) -> None:
    box = state.outbox
    lasting = Condition("reserve_threatened", "docker.io anonymous")
    passing = Condition("run_failed", "entry a", "x", at(100))
    for condition in (lasting, passing):
        assert await box.put([notice(condition.event)], condition, at(0)) == []
        assert await box.put([notice(f"{condition.event} 2")], condition, at(50)) is None
    assert len(await box.waiting()) == 2
    assert await box.is_told(lasting, at(10**6))
    assert await box.is_told(passing, at(99))
    assert not await box.is_told(passing, at(100))
    other = Condition("run_failed", "entry a", "y", at(100))
    assert await box.put([], other, at(50)) == []
    assert await box.put([notice("again")], passing, at(100)) == []

    await box.clear("docker.io anonymous", ["reserve_threatened"])
    assert not await box.is_told(lasting, at(1))
    await box.clear("entry a", ["run_deferred"])
    assert await box.put([], other, at(60)) == []  # it was forgotten when its time was over


async def test_two_processes_tell_a_condition_once(
    state: State, tmp_path: Path, clock: ManualClock
) -> None:
    second = await State.open(f"sqlite:///{tmp_path}/p.db", data_dir=tmp_path, clock=clock)
    condition = Condition("registry_throttled", "docker.io", until=at(900))
    assert await state.outbox.put([notice("a")], condition, at(0)) == []
    assert await second.outbox.put([notice("b")], condition, at(0)) is None
    assert [row.id for row in await second.outbox.waiting()] == ["a"]
    await second.close()
