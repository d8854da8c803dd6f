"""Who is asked again, and when: what alternates did, and how they answer."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from prefetch.errors import (
    DigestMismatch,
    ForbiddenAddress,
    NetworkError,
    NotFound,
    PrefetchError,
    ServerFault,
    Unauthorized,
)
from prefetch.state.records import AlternateRecord
from prefetch.sync.conduct import lacks, may_ask
from prefetch.sync.standing import REST_SECONDS, Seen, Standing
from support.clock import ManualClock

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MOMENT = timedelta(seconds=1)


def record(**facts: object) -> AlternateRecord:
    return AlternateRecord("docker.io", "library/nginx", "mirror.gcr.io", **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("facts", "asked"),
    [
        ({}, True),
        ({"worked_at": NOW - HOUR}, True),
        ({"lacked": 2, "lacked_at": NOW - MOMENT}, True),
        ({"lacked": 3, "lacked_at": NOW - MOMENT}, False),
        ({"lacked": 3, "lacked_at": NOW - HOUR + MOMENT}, False),
        ({"lacked": 3, "lacked_at": NOW - HOUR}, True),
        ({"lacked": 30, "lacked_at": NOW - MOMENT, "worked_at": NOW - DAY + MOMENT}, True),
        ({"lacked": 30, "lacked_at": NOW - MOMENT, "worked_at": NOW - DAY}, False),
        ({"lied_at": NOW - MOMENT, "worked_at": NOW}, False),
        ({"lied_at": NOW - DAY + MOMENT}, False),
        ({"lied_at": NOW - DAY}, True),
        # The clock has been set back: what lies ahead tells nothing.
        ({"lied_at": NOW + HOUR, "lacked": 3, "lacked_at": NOW + HOUR}, True),
    ],
)
def test_what_is_remembered_is_forgotten_in_time(facts: dict[str, object], asked: bool) -> None:
    assert may_ask(record(**facts), NOW) is asked


@pytest.mark.parametrize(
    ("error", "lacking"),
    [
        (NotFound("no"), True),
        (Unauthorized("no", status=401), True),
        (ServerFault("not cached", status=504), True),
        (ServerFault("broken", status=503), False),
        (NetworkError("gone"), False),
        (ForbiddenAddress("away"), False),
        (DigestMismatch("other"), False),
    ],
)
def test_which_errors_say_that_it_is_not_there(error: PrefetchError, lacking: bool) -> None:
    assert lacks(error) is lacking


def test_the_first_failure_is_enough_until_it_has_answered(clock: ManualClock) -> None:
    standing = Standing(clock)
    assert standing.failed()
    assert standing.rests
    assert not standing.failed()
    clock.advance(REST_SECONDS)
    assert not standing.rests
    standing.answered()
    assert [standing.failed() for _ in range(3)] == [False, False, True]
    clock.advance(REST_SECONDS)
    assert not standing.failed()
    standing.answered()
    assert [standing.failed() for _ in range(2)] == [False, False]


def test_without_pulls_only_what_is_free_is_asked(clock: ManualClock) -> None:
    standing = Standing(clock)
    assert standing.broke(30)
    assert not standing.broke(30)
    assert standing.is_broke
    assert not standing.rests
    clock.advance(30)
    assert not standing.is_broke
    assert standing.broke(1)


async def test_until_the_first_answer_one_asks_and_the_others_wait(clock: ManualClock) -> None:
    standing = Standing(clock)
    inside = most = 0

    async def ask(*, answered: bool) -> None:
        nonlocal inside, most
        async with standing.contact():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.01)
            if answered:
                standing.answered()
            inside -= 1

    await asyncio.gather(*(ask(answered=False) for _ in range(4)))
    assert most == 1
    await asyncio.gather(*(ask(answered=True) for _ in range(4)))
    # Those that had waited go on together.
    assert most == 3


def test_what_was_seen_is_good_for_five_minutes(clock: ManualClock) -> None:
    seen = Seen(clock)
    assert seen.get("a") is None
    seen.put("a", there=True)
    clock.advance(100)
    seen.put("b", there=False)
    assert (seen.get("a"), seen.get("b")) == (True, False)
    clock.advance(200)
    assert (seen.get("a"), seen.get("b")) == (None, False)
