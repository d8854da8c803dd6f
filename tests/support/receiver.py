"""A webhook's receiver on loopback, which answers to order and keeps what it was sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiohttp import web

_PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Received:
    """One request; `at` is the loop's time."""

    path: str
    headers: Mapping[str, str]
    body: str
    at: float

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, given after so many seconds."""

    status: int = 204
    headers: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0
    text: str = ""


class Receiver:
    """`replies` are given in turn, the last of them from then on."""

    def __init__(self, *replies: Reply, port: int = 0, tls: Any = None) -> None:
        self.replies = list(replies) or [Reply()]
        self.received: list[Received] = []
        self._news = asyncio.Event()
        self._port = port
        self._tls = tls
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        server = web.Server(self._answer)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._tls)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def events(self) -> list[str]:
        """What it was told of, in order, each attempt counted."""
        return [each.json["event"] for each in self.received]

    async def wait_for(self, event: str, number: int = 1) -> Received:
        """The request with that number among those of an event, once it is there."""
        async with asyncio.timeout(_PATIENCE):
            while self.events.count(event) < number:
                self._news.clear()
                await self._news.wait()
        return [each for each in self.received if each.json["event"] == event][number - 1]

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = (await request.read()).decode()
        now = asyncio.get_running_loop().time()
        self.received.append(Received(request.path_qs, request.headers, body, now))
        self._news.set()
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        await asyncio.sleep(reply.seconds)
        return web.Response(status=reply.status, headers=dict(reply.headers), text=reply.text)
