"""Clients on a ledger of their own, and small servers that answer as a test says."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from remote_support import IMPATIENT, Connect, Connected, Handler, Seen, Serve, Server

from prefetch.clock import Clock, SystemClock
from prefetch.credentials.credential import Login
from prefetch.events import Event
from prefetch.remote.registry import RegistryClient
from prefetch.remote.settings import RegistrySettings, TransportSettings
from prefetch.state.database import State
from prefetch.state.ledger import Ledger


@pytest.fixture
async def connect(tmp_path: Path) -> AsyncIterator[Connect]:
    """`await connect("http://127.0.0.1:5000", login, max_concurrency=2, …)`."""
    async with AsyncExitStack() as stack:

        async def start(
            endpoint: str,
            login: Login | None = None,
            *,
            name: str | None = None,
            clock: Clock | None = None,
            transport: TransportSettings = IMPATIENT,
            idle_timeout: float = 0.4,
            **settings: Any,
        ) -> Connected:
            clock = clock or SystemClock()
            state = await State.open(
                f"sqlite:///{tmp_path}/prefetch.db", data_dir=tmp_path, clock=clock
            )
            stack.push_async_callback(state.close)
            ledger = await Ledger.open(state, directory=tmp_path / "locks", clock=clock)
            stack.push_async_callback(ledger.close)
            events: list[Event] = []
            client = await RegistryClient.open(
                RegistrySettings(
                    name or endpoint.partition("://")[2],
                    endpoint,
                    idle_timeout=idle_timeout,
                    **settings,
                ),
                login,
                ledger=ledger,
                data_dir=tmp_path,
                clock=clock,
                emit=events.append,
                transport=transport,
            )
            stack.push_async_callback(client.close)
            return Connected(client, ledger, events)

        yield start


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """`await serve(handler)`: a server on loopback that answers with the handler."""
    async with AsyncExitStack() as stack:

        async def start(
            handler: Handler, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
        ) -> Server:
            running = Server("")

            async def answer(request: web.BaseRequest) -> web.StreamResponse:
                headers = {name.title(): value for name, value in request.headers.items()}
                seen = Seen(request.method, request.path, request.query_string, headers)
                running.seen.append(seen)
                seen.body = await request.read()
                return await handler(request)

            runner = web.ServerRunner(web.Server(answer, access_log=None), shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
            await site.start()
            scheme = "https" if tls else "http"
            running.url = f"{scheme}://{host}:{runner.addresses[0][1]}"
            return running

        yield start
