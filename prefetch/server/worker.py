"""One worker: a server on a listening socket, from its start to the end of its drain."""

from __future__ import annotations

import asyncio
import math
import resource
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
from prefetch.server.slowclients import MAX_CONNECTIONS, PatientServer
from prefetch.server.witness import Witness, places
from prefetch.tasks import end_all

_BACKLOG = 1024
# Open files for all but clients: databases, locks, connections to registries.
_OTHER_FILES = 128
_TOLD_SECONDS = 1.0


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
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_telling(log, clock))
    chores = [asyncio.create_task(chore()) for chore in service.chores]
    server = PatientServer(
        service.registry.handle,
        client_timeout=settings.client_timeout,
        clock=clock,
        counted=service.witness.connected,
        complained=service.witness.complained,
        malformed=answers.malformed,
        max_connections=most_connections(),
    )
    runner = web.ServerRunner(server, shutdown_timeout=settings.drain)
    await runner.setup()
    listening = await loop.create_server(
        server,
        sock=listener,
        ssl=tls,
        backlog=_BACKLOG,
        ssl_handshake_timeout=None if tls is None else settings.client_timeout,
    )
    watch = asyncio.create_task(_any_failed(chores))
    try:
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([stopped, watch], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        service.pulse.drain()
        log.info("draining", seconds=settings.drain)
    finally:
        listening.close()
        await runner.cleanup()
        await end_all((watch, *chores))


def most_connections() -> int:
    """How many connections may be open: each may want a file, too, and something must be left."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, (files - _OTHER_FILES) // 2))


def _telling(
    log: ServerLog, clock: Clock
) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """Tells in a line, once a second, what asyncio would tell in a stack trace each time.

    Without files for more connections that would be a thousand of them, with every try.
    """
    told: dict[str, float] = {}

    def tell(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        what, now = str(context.get("message")), clock.monotonic()
        if now - told.get(what, -math.inf) < _TOLD_SECONDS:
            return
        told[what] = now
        error = context.get("exception")
        kind = None if error is None else type(error).__name__
        where = None if error is None else places(error)
        log.error("event loop error", what=what, type=kind, where=where)

    return tell


async def _any_failed(chores: list[asyncio.Task[None]]) -> None:
    """Return when one of what should never end has ended."""
    await asyncio.wait(chores, return_when=asyncio.FIRST_COMPLETED)
