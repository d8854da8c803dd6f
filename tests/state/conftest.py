"""A clock to turn, and a state in a directory of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from prefetch.state.database import State
from support.turned_clock import TurnedClock


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
async def state(tmp_path: Path, clock: TurnedClock) -> AsyncIterator[State]:
    opened = await State.open(f"sqlite:///{tmp_path}/prefetch.db", data_dir=tmp_path, clock=clock)
    yield opened
    await opened.close()
