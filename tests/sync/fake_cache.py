"""A cache of a test's own: it answers as `prefetch serve` does, but for what a test spoils."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from yarl import URL

from prefetch.clock import SystemClock
from prefetch.credentials.credential import Credential, Secret
from prefetch.demo.images import Image
from prefetch.oci.distribution import parse_endpoint, requested_range
from prefetch.remote.direct import DirectServer, Trust
from prefetch.sync.probe import Check, ProbeReport
from prefetch.sync.probing import probe_cache
from support.http import basic

API = {"Docker-Distribution-API-Version": "registry/2.0"}
REFERENCE = "docker.io/library/app:1"

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse | None]]


@dataclass(slots=True)
class FakeCache:
    """`images` by `registry/repository:tag`; `spoil` may answer before the cache does.

    `password` is alice's, who is asked for it then. `seen` has `METHOD path?query`, in order, and
    `headers` what came with each.
    """

    images: dict[str, Image] = field(default_factory=dict)
    spoil: Answer | None = None
    password: str | None = None
    ready: tuple[int, str] = (200, "ready\n")
    catalog: Any = None
    url: str = ""
    seen: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append(f"{request.method} {request.raw_path}")
        self.headers.append({name.title(): value for name, value in request.headers.items()})
        spoilt = None if self.spoil is None else await self.spoil(request)
        return self.sound(request) if spoilt is None else spoilt

    def sound(self, request: web.BaseRequest) -> web.Response:
        """What `prefetch serve` answers."""
        if request.path == "/readyz":
            return web.Response(status=self.ready[0], text=self.ready[1])
        if request.path == "/healthz":
            return web.Response(text="ok\n")
        prefix, _, rest = request.path.partition("/v2/")
        registry = prefix.strip("/") or request.query.get("ns", "")
        endpoint = parse_endpoint(f"/v2/{rest}")
        assert endpoint is not None, request.path
        if endpoint.kind == "ping":
            return self._ping(request)
        if endpoint.kind == "catalog":
            return web.json_response(self._catalog(), headers=API)
        name = endpoint.name
        if not registry and not set(name.partition("/")[0]) & set(".:"):
            registry = "docker.io"
        repository = f"{registry}/{name}" if registry else name
        if endpoint.kind == "tags":
            tags = [each.rpartition(":")[2] for each in self._names(repository)]
            return web.json_response({"name": name, "tags": tags}, headers=API)
        return self._content(request, repository, endpoint.argument)

    def _ping(self, request: web.BaseRequest) -> web.Response:
        given = request.headers.get("Authorization")
        if self.password is not None and given != basic("alice", self.password)["Authorization"]:
            challenge = {"WWW-Authenticate": 'Basic realm="prefetch"', **API}
            return web.json_response({"errors": []}, status=401, headers=challenge)
        return web.json_response({}, headers=API)

    def _catalog(self) -> Any:
        if self.catalog is not None:
            return self.catalog
        return {"repositories": sorted({name.rpartition(":")[0] for name in self.images})}

    def _names(self, repository: str) -> list[str]:
        return [name for name in self.images if name.rpartition(":")[0] == repository]

    def _content(self, request: web.BaseRequest, repository: str, argument: str) -> web.Response:
        for name in self._names(repository):
            top = self.images[name]
            for part in top.walk():
                if argument == part.digest or (part is top and name.endswith(f":{argument}")):
                    return _document(part)
            blob = top.all_blobs().get(argument)
            if blob is not None:
                return _blob(request, blob.read(), argument)
        return not_here()


def not_here() -> web.Response:
    """As `serve` says it."""
    error = {"code": "UNAVAILABLE", "message": "not whole in the cache, and only-if-cached"}
    return web.json_response({"errors": [error]}, status=504, headers=API)


def _document(part: Image) -> web.Response:
    headers = {"Content-Type": part.media_type, "Docker-Content-Digest": part.digest, **API}
    return web.Response(body=part.raw, headers=headers)


def _blob(request: web.BaseRequest, data: bytes, digest: str) -> web.Response:
    headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest, **API}
    found = requested_range(request.headers.get("Range"), len(data))
    if found == "whole":
        return web.Response(body=data, headers=headers)
    assert found != "unsatisfiable", request.headers
    headers["Content-Range"] = str(found)
    return web.Response(status=206, body=data[found.start : found.end], headers=headers)


@asynccontextmanager
async def running(cache: FakeCache, tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeCache]:
    """The cache on a port of loopback."""
    server = web.Server(cache.answer, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    cache.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield cache
    finally:
        await runner.cleanup()


async def probe(
    url: str,
    *references: str,
    timeout: float = 5.0,
    password: str | None = None,
    trust: Trust | None = None,
    any_registry: bool = False,
) -> ProbeReport:
    """A probe by alice, if there is a password."""
    credential = None if password is None else Credential("alice", Secret(password))
    server = DirectServer(URL(url), trust=trust or Trust(), timeout=timeout, credential=credential)
    try:
        async with asyncio.timeout(60):
            return await probe_cache(
                server, references, any_registry=any_registry, clock=SystemClock()
            )
    finally:
        await server.close()


def failed(report: ProbeReport) -> list[tuple[str, Check]]:
    """Each client with its check that failed."""
    return [
        (client.client, check)
        for client in report.clients
        for pulled in client.pulled
        for check in pulled.checks
        if not check.ok
    ]


def step(report: ProbeReport, name: str) -> tuple[bool, str]:
    """What became of a step of the connection."""
    [found] = [each for each in report.connection if each.step == name]
    return found.ok, found.message


def everything(report: ProbeReport) -> str:
    """All that is ever printed."""
    return json.dumps(report.document(), ensure_ascii=False)
