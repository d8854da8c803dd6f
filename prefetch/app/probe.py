"""`probe`: a running cache asked as its clients will ask it."""

from __future__ import annotations

from dataclasses import dataclass

from prefetch.app.cacheserver import CacheOptions, server_of
from prefetch.app.signals import run
from prefetch.clock import SystemClock
from prefetch.sync.probe import ProbeReport
from prefetch.sync.probing import probe_cache


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """What is asked for, as the command line has it."""

    cache: CacheOptions
    references: tuple[str, ...] = ()
    any_registry: bool = False


def run_probe(request: ProbeRequest) -> ProbeReport:
    """Ask the cache; whatever it does is in the report. Raises UsageError."""
    server = server_of(request.cache)
    references, any_registry = request.references, request.any_registry

    async def work() -> ProbeReport:
        try:
            return await probe_cache(
                server, references, any_registry=any_registry, clock=SystemClock()
            )
        finally:
            await server.close()

    report, _ = run(lambda _: work())
    return report
