"""Bodies that trickle, on a clock of the test's own."""

from __future__ import annotations

from prefetch.remote.blobs import LeastRate
from support.clock import ManualClock


class Body:
    """A body that comes in pieces, each of which takes its time."""

    def __init__(self, clock: ManualClock, bytes_per_second: float) -> None:
        self._clock = clock
        self._least = LeastRate(bytes_per_second, clock)

    async def gives(self, size: int, *, after: float) -> bool:
        """Whether the next piece is one too few."""

        async def read() -> bytes:
            self._clock.advance(after)
            return b"x" * size

        assert await self._least.take(read()) == b"x" * size
        return self._least.is_missed()


async def test_a_byte_now_and_then_is_too_slow(clock: ManualClock) -> None:
    body = Body(clock, 100)
    assert [await body.gives(1, after=9) for _ in range(4)] == [False, True, False, True]


async def test_what_comes_at_the_least_rate_goes_on(clock: ManualClock) -> None:
    body = Body(clock, 100)
    assert not any([await body.gives(500, after=5) for _ in range(100)])


async def test_what_came_early_does_not_pay_for_what_comes_late(clock: ManualClock) -> None:
    body = Body(clock, 100)
    assert not await body.gives(1_000_000, after=15)
    assert await body.gives(1499, after=15)


async def test_the_time_that_we_take_does_not_count(clock: ManualClock) -> None:
    body = Body(clock, 100)
    for _ in range(10):
        assert not await body.gives(1, after=0.01)
        clock.advance(60)


async def test_where_there_is_none_it_may_trickle(clock: ManualClock) -> None:
    body = Body(clock, 0)
    assert not any([await body.gives(1, after=29) for _ in range(20)])
