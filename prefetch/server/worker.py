"""One worker: a server on a listening socket, from its start to the end of its drain."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from prefetch.clock import Clock
from prefetch.server import answers
from prefetch.server.accesslog import ServerLog
from prefetch.server.pulse import Pulse
from prefetch.server.registry import Registry
from prefetch.server.settings import ServeSettings
from prefetch.server.slowclients import PatientServer
from prefetch.server.witness import Witness

_BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Service:
    """A registry and what runs beside it: `chores`, which go on for ever."""

    registry: Registry
    pulse: Pulse
    witness: Witness
    chores: tuple[Callable[[], Coroutine[Any, Any, None]], ...]


async def serve(
    service: Service,
    listener: socket.socket,
    settings: ServeSettings,
    *,
    tls: ssl.SSLContext | None,
    stop: asyncio.Event,
    log: ServerLog,
    clock: Clock,
) -> None:
    """Serve until `stop` is set, then let requests under way end, for `settings.drain` at most."""
    chores = [asyncio.create_task(chore()) for chore in service.chores]
    server = PatientServer(
        service.registry.handle,
        client_timeout=settings.client_timeout,
        clock=clock,
        counted=service.witness.connected,
        complained=service.witness.complained,
        malformed=answers.malformed,
    )
    runner = web.ServerRunner(server, shutdown_timeout=settings.drain)
    await runner.setup()
    site = web.SockSite(runner, listener, ssl_context=tls, backlog=_BACKLOG)
    await site.start()
    watch = asyncio.create_task(_any_failed(chores))
    try:
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([stopped, watch], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        service.pulse.drain()
        log.info("draining", seconds=settings.drain)
    finally:
        await runner.cleanup()
        for task in (watch, *chores):
            task.cancel()
        await asyncio.gather(watch, *chores, return_exceptions=True)


async def _any_failed(chores: list[asyncio.Task[None]]) -> None:
    """Return when one of what should never end has ended."""
    await asyncio.wait(chores, return_when=asyncio.FIRST_COMPLETED)
