"""`prefetch schedule` as a process, and what it says on stderr."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from support.processes import CommandLine, UpstreamProcess

PATIENCE = 30.0
NEVER_SOON = "0 3 1 1 *"

Line = dict[str, Any]
Start = Callable[[Path], Awaitable["Scheduling"]]


def write_schedule(
    directory: Path, upstream: UpstreamProcess, *entries: Mapping[str, Any], **keys: Any
) -> Path:
    """A `prefetch.yaml` that syncs all that the upstream has, without a reserve."""
    (directory / "images.txt").write_text("\n".join(upstream.references()))
    path = directory / "prefetch.yaml"
    content = {
        "platforms": ["all"],
        "registries": {upstream.address: {"reserve": 0}},
        "sources": ["images.txt"],
        "schedule": entries,
        **keys,
    }
    # YAML has JSON within it.
    path.write_text(json.dumps(content))
    return path


class Scheduling:
    """A running `prefetch schedule`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[Line] = []
        self._news = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, cli: CommandLine, config: Path) -> Scheduling:
        process = await cli.start("--config", config, "--log-format", "json", "schedule")
        return cls(process)

    def of(self, event: str, **facts: Any) -> list[Line]:
        """The lines so far of an event with these facts."""
        return [
            line
            for line in self.lines
            if line["event"] == event and all(line.get(k) == v for k, v in facts.items())
        ]

    async def wait_for(self, event: str, number: int = 1, **facts: Any) -> list[Line]:
        """The first so many lines of an event, once they are there."""
        async with asyncio.timeout(PATIENCE):
            while len(found := self.of(event, **facts)) < number:
                assert not self._reading.done(), (event, facts, self.lines)
                self._news.clear()
                await self._news.wait()
        return found[:number]

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
            await self._reading
        return code

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(json.loads(line))
            self._news.set()
        self._news.set()


def past_runs(cli: CommandLine, entry: str) -> list[tuple[str, str | None]]:
    """Cause and outcome of an entry's runs, the oldest first."""
    return [(cause, outcome) for cause, outcome in _ask(cli, _RUNS, (entry,))]


def turn_back(cli: CommandLine, seconds: float) -> None:
    """Let all that has been be so much longer ago."""
    for table, columns in (
        ("runs", ("started_at", "finished_at")),
        ("run_images", ("retry_at",)),
    ):
        moved = ", ".join(f"{column} = {column} - {seconds}" for column in columns)
        _ask(cli, f"UPDATE {table} SET {moved}", ())


_RUNS = "SELECT cause, outcome FROM runs WHERE entry = ? ORDER BY id"


def _ask(cli: CommandLine, statement: str, values: Sequence[Any]) -> list[Any]:
    with closing(sqlite3.connect(cli.data_dir / "prefetch.db", timeout=10)) as database, database:
        return database.execute(statement, values).fetchall()
