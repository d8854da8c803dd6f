"""Schedules as processes, which do not outlive their test."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from scheduling import Scheduling, Start

from support.processes import CommandLine


@pytest.fixture
async def start(cli: CommandLine) -> AsyncIterator[Start]:
    running = []

    async def begin(config: Path) -> Scheduling:
        running.append(await Scheduling.start(cli, config))
        return running[-1]

    yield begin
    for each in running:
        await each.end(signal.SIGKILL)
