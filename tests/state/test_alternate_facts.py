"""What is remembered of alternates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prefetch.state.database import State
from prefetch.state.records import AlternateRecord

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
KEY = ("docker.io", "library/nginx", "mirror.gcr.io")


async def known(state: State) -> AlternateRecord:
    [record] = (await state.alternates.of(*KEY[:2])).values()
    return record


async def test_nothing_is_known_at_first_and_each_repository_is_apart(state: State) -> None:
    assert await state.alternates.of(*KEY[:2]) == {}
    await state.alternates.worked(*KEY, NOW)
    await state.alternates.worked("docker.io", "library/redis", KEY[2], NOW)
    await state.alternates.worked(*KEY[:2], "quay.io/hub", NOW)
    assert set(await state.alternates.of(*KEY[:2])) == {KEY[2], "quay.io/hub"}
    assert await state.alternates.of("quay.io", KEY[1]) == {}


async def test_what_lacks_is_counted_until_something_is_there(state: State) -> None:
    for times in range(1, 4):
        await state.alternates.lacks(*KEY, NOW + times * HOUR)
        record = await known(state)
        assert (record.lacked, record.lacked_at) == (times, NOW + times * HOUR)
    await state.alternates.has(*KEY)
    assert (await known(state)).lacked == 0
    await state.alternates.lacks(*KEY, NOW)
    await state.alternates.worked(*KEY, NOW + HOUR)
    assert await known(state) == AlternateRecord(*KEY, worked_at=NOW + HOUR, lacked_at=NOW)


async def test_that_it_has_something_begins_nothing(state: State) -> None:
    await state.alternates.has(*KEY)
    assert await state.alternates.of(*KEY[:2]) == {}


async def test_a_lie_stays_with_its_words(state: State) -> None:
    await state.alternates.worked(*KEY, NOW)
    await state.alternates.lied(*KEY, NOW + HOUR, "other bytes")
    await state.alternates.worked(*KEY, NOW + 2 * HOUR)
    assert await known(state) == AlternateRecord(
        *KEY, worked_at=NOW + 2 * HOUR, lied_at=NOW + HOUR, lie="other bytes"
    )


async def test_facts_that_nobody_is_served_by_move_no_generation(state: State) -> None:
    before = await state.generation()
    await state.alternates.worked(*KEY, NOW)
    await state.alternates.lacks(*KEY, NOW)
    assert await state.generation() == before
