"""One after the other: runs of one and the same sync, whoever starts them.

Started again and again by a clock that does not look whether the last run is done, they would pile
up, all of them waiting for the same transfers. One runs, one waits for it, and there is no third.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

from prefetch.app.requests import SourceRequest
from prefetch.clock import Clock
from prefetch.filelock import Lease
from prefetch.sources.detect import STDIN
from prefetch.sources.selector import Parsed

_POLL_SECONDS = 0.2


def job_name(request: SourceRequest, parsed: Parsed) -> str:
    """What is the same for two runs that were asked for the same, from the same place."""
    read = repr(parsed.selectors) if STDIN in request.sources else ""
    return f"{Path.cwd()} {os.environ.get('PREFETCH_CONFIG')} {request!r} {read}"


@asynccontextmanager
async def turn(locks: Path, job: str, clock: Clock, deadline: float | None) -> AsyncIterator[bool]:
    """Have the turn of a job within, once the run that has it is over; False: there is none.

    That is so when another run waits already, and when it has not come by `deadline` (monotonic
    seconds; None: wait for as long as it takes). `locks` is the directory of the state's lock
    files. A turn ends with its process. Raises OSError.
    """
    own, next_one = (_lease_name(job, place) for place in ("runs", "waits"))
    lease = _free(locks, own) or await _waited(locks, own, next_one, clock, deadline)
    try:
        yield lease is not None
    finally:
        if lease is not None:
            lease.release()


async def _waited(
    locks: Path, own: str, next_one: str, clock: Clock, deadline: float | None
) -> Lease | None:
    waits = _free(locks, next_one)
    if waits is None:
        return None
    try:
        while deadline is None or clock.monotonic() < deadline:
            await clock.sleep(_POLL_SECONDS)
            lease = _free(locks, own)
            if lease is not None:
                return lease
        return None
    finally:
        waits.release()


def _lease_name(job: str, place: str) -> str:
    """Of the form that leases without a name have: what a kill leaves is swept away with those."""
    return sha256(f"{place} {job}".encode(errors="surrogateescape")).hexdigest()[:32]


def _free(locks: Path, name: str) -> Lease | None:
    try:
        return Lease.acquire(locks, name)
    except BlockingIOError:
        return None
