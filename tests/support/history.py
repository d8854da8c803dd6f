"""What happened when: the history's rows and the upstream's log, by one clock."""

from __future__ import annotations

import sqlite3
import time
import urllib.error
import urllib.request
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from support.processes import UpstreamProcess


@dataclass(frozen=True, slots=True)
class PastRun:
    """A row of the history; its moments are Unix times."""

    began: float
    ended: float | None
    outcome: str | None
    pulls: int
    entry: str | None
    cause: str | None


def past_runs_of(data_dir: Path) -> list[PastRun]:
    """All runs, the oldest first."""
    with closing(sqlite3.connect(data_dir / "prefetch.db", timeout=10)) as database:
        rows = database.execute(
            "SELECT started_at, finished_at, outcome, pulls, entry, cause FROM runs ORDER BY id"
        )
        return [PastRun(*row) for row in rows]


def pulls_at(upstream: UpstreamProcess) -> list[float]:
    """When each pull came, as Unix times, to some milliseconds: the log counts from a start that a
    request of ours tells."""
    began = time.time()
    try:
        urllib.request.urlopen(f"{upstream.url}/v2/?when", timeout=30).close()
    except urllib.error.HTTPError as error:
        error.close()
    requests = upstream.requests()
    (ours,) = [request for request in requests if request["query"] == "when"]
    return [began - ours["started"] + each["started"] for each in requests if each["counted"]]
