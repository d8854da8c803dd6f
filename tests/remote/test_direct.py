"""A server that is asked directly: what is sent where, and what of the answer is read."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from aiohttp import web
from remote_support import Serve
from yarl import URL

from prefetch.credentials.credential import Credential, Secret
from prefetch.errors import NetworkError
from prefetch.remote.direct import DirectServer, Trust

ALICE = Credential("alice", Secret("pw-5b1c9e"))


def direct(url: str) -> DirectServer:
    return DirectServer(URL(url), trust=Trust(), timeout=5, credential=ALICE)


async def answer(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(body=b"x" * 100)


async def test_credentials_go_to_this_machine_or_over_tls(serve: Serve) -> None:
    running = await serve(answer)
    server = direct(running.url)
    await server.connect()
    await server.ask("GET", "/", anonymously=False)
    await server.ask("GET", "/")
    # As if it had been found elsewhere.
    server._address = "10.1.2.3"
    await server.ask("GET", "/", anonymously=False)
    await server.close()
    assert ["Authorization" in seen.headers for seen in running.seen] == [True, False, False]
    assert {seen.headers["Cache-Control"] for seen in running.seen} == {"only-if-cached"}


async def test_the_name_is_looked_up_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever answers for it later is not asked."""
    running = await serve(answer, host="cache.test")
    asked = []

    async def look_up(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def found(host: Any, port: Any, **options: Any) -> list[Any]:
        names = look_up if host == "cache.test" else real
        return list(await names(host, port, **options))

    monkeypatch.setattr(loop, "getaddrinfo", found)
    server = direct(running.url)
    assert await server.connect() == "127.0.0.1"
    for _ in range(3):
        assert (await server.ask("GET", "/")).status == 200
    await server.close()
    assert asked == ["cache.test"]


@pytest.mark.parametrize(
    ("limit", "read", "more"), [(0, 0, True), (99, 99, True), (100, 100, False)]
)
async def test_no_more_is_kept_than_was_wanted(
    serve: Serve, limit: int, read: int, more: bool
) -> None:
    running = await serve(answer)
    server = direct(running.url)
    await server.connect()
    reply = await server.ask("GET", "/", limit=limit)
    await server.close()
    assert (len(reply.body), reply.more) == (read, more)


async def test_paths_go_out_as_they_are(serve: Serve) -> None:
    paths: list[str] = []

    async def keep(request: web.BaseRequest) -> web.StreamResponse:
        paths.append(request.raw_path)
        return web.Response()

    running = await serve(keep)
    server = direct(running.url)
    await server.connect()
    await server.ask("GET", "/v2/a%2Fb/manifests/1?ns=localhost%3A5000")
    await server.close()
    assert paths == ["/v2/a%2Fb/manifests/1?ns=localhost%3A5000"]


async def test_what_is_not_connected_cannot_be_asked() -> None:
    with pytest.raises(RuntimeError):
        await direct("http://127.0.0.1:1").ask("GET", "/")
    with pytest.raises(NetworkError, match=r"cannot reach 127\.0\.0\.1:1"):
        await direct("http://127.0.0.1:1").connect()
