"""Start-up is what a cron job pays: a command imports only what it uses."""

from __future__ import annotations

import subprocess
import sys

import pytest


def imported_by(*command: str) -> set[str]:
    """Run ``prefetch COMMAND`` in a new process; return the packages that it imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "prefetch", *command],
        capture_output=True,
        text=True,
        check=True,
    )
    timings = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in timings}


@pytest.mark.parametrize("command", [["--version"]], ids=" ".join)
def test_what_only_prints_imports_nothing_heavy(command: list[str]) -> None:
    imported = imported_by(*command)
    assert {"click", "prefetch"} <= imported
    assert (
        imported & {"aiohttp", "alembic", "apscheduler", "pydantic", "rich", "sqlalchemy"} == set()
    )
