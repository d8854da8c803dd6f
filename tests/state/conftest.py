"""A clock to turn, and a state in a directory of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from prefetch.state.database import State


class TurnedClock:
    """A clock that tests turn; sleeping really yields, for no time."""

    def __init__(self) -> None:
        self.wall = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self.steady = 1000.0

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)

    def turn(self, seconds: float) -> None:
        """Time passes."""
        self.wall += timedelta(seconds=seconds)
        self.steady += max(seconds, 0)

    def jump(self, seconds: float) -> None:
        """Somebody sets the clock."""
        self.wall += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
async def state(tmp_path: Path, clock: TurnedClock) -> AsyncIterator[State]:
    opened = await State.open(f"sqlite:///{tmp_path}/prefetch.db", data_dir=tmp_path, clock=clock)
    yield opened
    await opened.close()
