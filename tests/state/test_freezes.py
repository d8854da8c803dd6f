"""One freeze for all processes, until it is thawed or its time is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from prefetch.state.database import State
from prefetch.state.freezes import FreezeRecord

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
HOUR = timedelta(hours=1)


async def test_nothing_is_frozen_at_first(state: State) -> None:
    assert await state.freezes.get(NOW) is None
    assert await state.freezes.thaw() is False


async def test_one_without_an_end_holds_until_it_is_thawed(state: State) -> None:
    await state.freezes.freeze(NOW, None)
    assert await state.freezes.get(NOW + 10_000 * HOUR) == FreezeRecord(NOW, None)
    assert await state.freezes.thaw() is True
    assert await state.freezes.get(NOW) is None
    assert await state.freezes.thaw() is False


async def test_one_with_an_end_is_over_at_that_moment(state: State) -> None:
    await state.freezes.freeze(NOW, NOW + HOUR)
    last = NOW + HOUR - timedelta(milliseconds=1)
    assert await state.freezes.get(last) == FreezeRecord(NOW, NOW + HOUR)
    assert await state.freezes.get(NOW + HOUR) is None
    assert await state.freezes.thaw() is True


async def test_another_replaces_it(state: State) -> None:
    await state.freezes.freeze(NOW, NOW + HOUR)
    await state.freezes.freeze(NOW + HOUR, None)
    assert await state.freezes.get(NOW + 2 * HOUR) == FreezeRecord(NOW + HOUR, None)
    await state.freezes.freeze(NOW, NOW + HOUR)
    assert await state.freezes.get(NOW + 2 * HOUR) is None


async def test_it_outlives_its_process_and_holds_for_others(state: State, tmp_path: Path) -> None:
    other = await State.open(
        f"sqlite:///{tmp_path}/prefetch.db", data_dir=tmp_path, clock=state.clock
    )
    before = await state.generation()
    await other.freezes.freeze(NOW, None)
    await other.close()
    assert await state.freezes.get(NOW) == FreezeRecord(NOW, None)
    assert await state.generation() > before
