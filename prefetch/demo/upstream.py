"""The upstream: a registry on loopback that speaks as Docker Hub does, and lies when told to.

    who asks? ── a fault that refuses, or the honest answer ── faults that spoil it ── send

Paths are distribution-spec's; the CDN answers `/cdn/<repository>/<digest>` on a second port,
the token service `/token` here or on a third. `/_demo/…` asks and scripts the upstream itself
(see `control`); those requests are not logged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from aiohttp import web

from prefetch.clock import Clock, SystemClock
from prefetch.demo.answers import Answer, send
from prefetch.demo.content import Content
from prefetch.demo.control import CONTROL_PREFIX, Control
from prefetch.demo.faults import Faults
from prefetch.demo.misbehaviour import BEFORE_ENTRY, EDITS, REFUSALS, Scene, throttle_answer
from prefetch.demo.ratelimits import PullLimits
from prefetch.demo.registry import RegistryApi
from prefetch.demo.requests import Log, Request, Target
from prefetch.demo.settings import Specification, UpstreamSettings
from prefetch.demo.tokens import Doorkeeper

_HOST = "127.0.0.1"
_CLOSING_SECONDS = 0.2

_Serve = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Upstream:
    """A registry that is running from `start` (or `async with`) to `close`.

    Its parts are open to tests: `content`, `limits`, `doorkeeper`, `faults` and `log`.
    """

    def __init__(
        self, settings: UpstreamSettings | None = None, *, clock: Clock | None = None
    ) -> None:
        self.settings = settings or UpstreamSettings()
        self.clock = clock or SystemClock()
        self.content = Content()
        self.limits = PullLimits(
            self.settings,
            {name: account.limit for name, account in self.settings.accounts.items()},
            self.clock,
        )
        self.doorkeeper = Doorkeeper(self.settings, self.content, self.clock)
        self.faults = Faults([*REFUSALS, *EDITS])
        self.log = Log()
        self.port = 0
        self._api = RegistryApi(self.settings, self.content, self.limits, self.clock)
        self._control = Control(self.content, self.limits, self.doorkeeper, self.faults, self.log)
        self._began = self.clock.monotonic()
        self._number = 0
        self._runners: list[web.ServerRunner] = []

    @property
    def address(self) -> str:
        """`127.0.0.1:port`, as it stands in references."""
        return f"{_HOST}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self._scheme}://{self.address}"

    async def start(self) -> None:
        """Listen on the registry's port, and on those of the CDN and the token service."""
        self.port = await self._listen(self._serve_registry, self.settings.port)
        token_port = self.port
        if self.settings.token_port:
            token_port = await self._listen(self._serve_logged)
        if self.settings.cdn:
            cdn_port = await self._listen(self._serve_logged)
            self._api.cdn_origin = f"{self._scheme}://{self.settings.cdn_host}:{cdn_port}"
        self.doorkeeper.realm = f"{self._scheme}://{_HOST}:{token_port}/token"

    async def close(self) -> None:
        """Stop listening; requests under way are broken off."""
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self.close()

    def prepare(self, specification: Specification) -> None:
        """Make the images and order the faults of a specification (its settings come first)."""
        for order in specification.images:
            order.fill(self.content)
        for fault in specification.faults:
            self.faults.add(**fault)
        meter = self.limits.meter()
        if meter is not None and specification.burn:
            meter.burn(specification.burn)

    @property
    def _scheme(self) -> str:
        return "https" if self.settings.tls else "http"

    async def _listen(self, serve: _Serve, port: int = 0) -> int:
        server = web.Server(serve, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=_CLOSING_SECONDS)
        await runner.setup()
        self._runners.append(runner)
        site = web.TCPSite(runner, _HOST, port, ssl_context=self.settings.tls)
        await site.start()
        return int(runner.addresses[0][1])

    async def _serve_registry(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.startswith(CONTROL_PREFIX):
            body = await request.read()
            answer = self._control.answer(request.method, request.path, body)
            return web.Response(status=answer.status, body=answer.body.read())
        return await self._serve_logged(request)

    async def _serve_logged(self, request: web.BaseRequest) -> web.StreamResponse:
        record = self._record(request)
        try:
            answer = await self._answer(request, record)
            record.status = answer.status
            return await send(answer, request, record, self.clock)
        finally:
            record.ended = self.clock.monotonic() - self._began

    async def _answer(self, request: web.BaseRequest, record: Request) -> Answer:
        """The honest answer, or what the faults that strike make of it."""
        turned_away = self._turn_away(request, record)
        faults = self.faults.strike(record, BEFORE_ENTRY if turned_away else None)
        record.faults = tuple(fault.name for fault in faults)
        scenes = [
            Scene(fault, record, self.content, self.doorkeeper, self.clock) for fault in faults
        ]
        for scene in scenes:
            if scene.fault.name in REFUSALS:
                return REFUSALS[scene.fault.name](scene)
        answer = turned_away or await self._honest(request, record)
        for scene in scenes:
            EDITS[scene.fault.name](answer, scene)
        return answer

    def _turn_away(self, request: web.BaseRequest, record: Request) -> Answer | None:
        """An answer for who asks too often or must say who he is; else the identity is noted."""
        if record.kind in {"cdn", "token"}:
            return None
        if self.limits.abused():
            return throttle_answer("1")
        identity = self.doorkeeper.identify(request.headers.get("Authorization"), record.repository)
        if isinstance(identity, Answer):
            return identity
        record.identity = identity
        return None

    async def _honest(self, request: web.BaseRequest, record: Request) -> Answer:
        if record.kind != "token":
            return self._api.answer(record)
        if request.method == "POST":
            form = await request.post()
            return self.doorkeeper.exchange({name: str(value) for name, value in form.items()})
        return self.doorkeeper.issue(
            request.headers.get("Authorization"),
            request.query.getall("scope", []),
            offline=request.query.get("offline_token") == "true",
        )

    def _record(self, request: web.BaseRequest) -> Request:
        self._number += 1
        scheme = request.headers.get("Authorization", "").partition(" ")[0]
        record = Request(
            number=self._number,
            method=request.method,
            path=request.path,
            target=Target.of(request.path),
            started=self.clock.monotonic() - self._began,
            address=request.remote or _HOST,
            query=request.query_string,
            authorization=scheme or None,
            range=request.headers.get("Range"),
            accept_encoding=request.headers.get("Accept-Encoding"),
            cache_control=request.headers.get("Cache-Control"),
        )
        self.log.requests.append(record)
        return record
