"""`serve`: the embedded registry, in one process or several."""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from prefetch.app.listening import listen
from prefetch.app.noticing import logging_to, open_noticing_runtime
from prefetch.app.registry import open_service
from prefetch.app.requests import Place
from prefetch.app.runtime import open_runtime, settings_at
from prefetch.app.schedule import ScheduleRequest, check_schedule, keep_schedule
from prefetch.app.workers import raise_file_limit, supervise
from prefetch.clock import SystemClock
from prefetch.config.settings import Settings
from prefetch.config.values import listen as parse_listen
from prefetch.errors import PrefetchError, UsageError
from prefetch.events import Stream
from prefetch.server.accesslog import DirectLines, Logs, ServerLog
from prefetch.server.counting import counting
from prefetch.server.identity import Htpasswd, read_users
from prefetch.server.metrics import Metrics, Share, forget, shared_directory
from prefetch.server.settings import Listen, Tls
from prefetch.server.tls import ReloadingContext
from prefetch.server.worker import serve


@dataclass(frozen=True, slots=True)
class ServeRequest:
    """What `serve` is asked for; None: what the configuration says.

    `tls` is a certificate chain and its key; `no_schedule` leaves the schedule to others.
    """

    place: Place
    listen: str | None = None
    workers: int | None = None
    log_level: str = "info"
    log_format: str = "text"
    tls: tuple[Path, Path] | None = None
    no_schedule: bool = False


def run_serve(request: ServeRequest) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status.

    Raises UsageError, ConfigError, StoreError and StateError before anything is served.
    """
    settings = serve_settings(request)
    _check(settings, request)
    raise_file_limit()
    where = settings.serve.listen
    listeners = listen(where.host, where.port, settings.serve.workers)
    log = _announce(settings, request, listeners[0])
    # A sync's work would hold up answers: it is done in a process of its own.
    scheduler = len(listeners) if settings.schedule else None
    if len(listeners) == 1 and scheduler is None:
        return _work(settings, request, listeners[0], None)
    with shared_directory() as directory:

        def work(index: int) -> int:
            own = None if index == scheduler else listeners[index]
            for each in listeners:
                if each is not own:
                    each.close()
            if own is None:
                return _schedule(settings, request)
            return _work(settings, request, own, Share(directory, index))

        def stopping() -> None:
            # What was not accepted by now goes elsewhere, instead of waiting in vain.
            for each in listeners:
                each.close()

        return supervise(
            len(listeners) + (scheduler is not None),
            work,
            roles={} if scheduler is None else {scheduler: "scheduler"},
            drain=settings.serve.drain,
            tell=log.info,
            died=lambda index: forget(Share(directory, index)),
            stopping=stopping,
        )


def serve_settings(request: ServeRequest) -> Settings:
    """The configuration, with what was asked for in its place. Raises UsageError, ConfigError."""
    settings = settings_at(request.place)
    chosen = settings.serve
    if request.listen is not None:
        try:
            chosen = replace(chosen, listen=parse_listen(request.listen))
        except ValueError as error:
            raise UsageError(f"--listen: {error}") from None
    if request.workers is not None:
        chosen = replace(chosen, workers=request.workers)
    if request.tls is not None:
        chosen = replace(chosen, tls=Tls(*request.tls))
    schedule = () if request.no_schedule else settings.schedule
    return replace(settings, serve=chosen, schedule=schedule)


def _check(settings: Settings, request: ServeRequest) -> None:
    """Open everything once, in this process, so that what is wrong is told before the port is
    taken; and make the database, so that the workers find one.
    """

    async def opened() -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(open_runtime(settings, request.place, Stream().emit))
            if settings.serve.htpasswd_file is not None:
                read_users(settings.serve.htpasswd_file)
            if settings.serve.tls is not None:
                ReloadingContext(settings.serve.tls, clock=SystemClock(), warn=_unheard)

    check_schedule(settings)
    asyncio.run(opened())


def _unheard(_: str) -> None:
    """Nothing has changed yet that anybody could be told of."""


def _announce(settings: Settings, request: ServeRequest, listener: socket.socket) -> ServerLog:
    scheme = "https" if settings.serve.tls else "http"
    host, port = listener.getsockname()[:2]
    log = ServerLog(
        DirectLines(), form=request.log_format, level=request.log_level, clock=SystemClock()
    )
    log.info(f"listening on {scheme}://{Listen(host, port)}", workers=settings.serve.workers)
    return log


def _schedule(settings: Settings, request: ServeRequest) -> int:
    """The scheduler process, from its start to its end; returns its exit status."""
    asked = ScheduleRequest(request.place, request.log_level, request.log_format)
    return keep_schedule(settings, asked)


def _work(
    settings: Settings, request: ServeRequest, listener: socket.socket, share: Share | None
) -> int:
    """One worker, from its start to its end; returns its exit status."""
    clock = SystemClock()
    logs = Logs.open(form=request.log_format, level=request.log_level, clock=clock)
    metrics = Metrics(share)
    try:
        asyncio.run(_serve(settings, request, listener, metrics, logs))
    except PrefetchError as error:
        logs.server.error("cannot serve", reason=str(error))
        return error.exit_code
    finally:
        metrics.close()
        logs.close()
    return 0


async def _serve(
    settings: Settings,
    request: ServeRequest,
    listener: socket.socket,
    metrics: Metrics,
    logs: Logs,
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # Certificates and users are read again by themselves.
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: None)
    clock, log = SystemClock(), logs.server
    async with AsyncExitStack() as stack:
        emit = Stream([counting(metrics), logging_to(log)]).emit
        runtime = await stack.enter_async_context(
            open_noticing_runtime(settings, request.place, emit, patience=0)
        )
        users = None
        if settings.serve.htpasswd_file is not None:
            users = Htpasswd(settings.serve.htpasswd_file, clock=clock, warn=log.warning)
            stack.push_async_callback(users.close)
        tls = None
        if settings.serve.tls is not None:
            tls = ReloadingContext(settings.serve.tls, clock=clock, warn=log.warning)
        service = await stack.enter_async_context(
            open_service(runtime, users=users, metrics=metrics, logs=logs)
        )
        if tls is not None:
            service = replace(service, chores=(*service.chores, tls.watch))
        await serve(
            service,
            listener,
            settings.serve,
            tls=None if tls is None else tls.context,
            stop=stop,
            log=log,
            clock=clock,
        )
