"""Start-up is what a cron job pays: a command imports only what it uses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence

import pytest

from support.factories import UpstreamProcessFactory
from support.processes import CommandLine


def imported_by(command: Sequence[str], environment: Mapping[str, str] | None = None) -> set[str]:
    """Run a Python command in a new process; return the packages that it imported."""
    python, *words = command
    done = subprocess.run(
        [python, "-X", "importtime", *words],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    timings = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in timings}


@pytest.mark.parametrize("words", [["--version"]], ids=" ".join)
def test_what_only_prints_imports_nothing_heavy(words: list[str]) -> None:
    imported = imported_by([sys.executable, "-m", "prefetch", *words])
    assert {"click", "prefetch"} <= imported
    assert (
        imported & {"aiohttp", "alembic", "apscheduler", "pydantic", "rich", "sqlalchemy"} == set()
    )


async def test_an_unchanged_sync_imports_only_what_it_needs(
    cli: CommandLine, upstream_process: UpstreamProcessFactory
) -> None:
    running = await upstream_process(images=[{"repository": "team/app", "layer_size": 64}])
    sync = ["sync", "-o", "json", "--image", running.references()[0]]
    first = await cli(*sync)
    assert first.json["totals"]["synced"] == 1, first.stderr
    imported = imported_by(cli.arguments(*sync), cli.environment())
    assert {"aiohttp", "sqlalchemy"} <= imported
    assert imported & {"alembic", "apscheduler", "rich"} == set()
    assert running.counts()["HEAD manifest"] == 2
