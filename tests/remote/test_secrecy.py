"""No secret in any error, event, repr or log, whatever goes wrong."""

from __future__ import annotations

import asyncio
import base64
import logging
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from remote_support import Connect, Serve, challenge, layer_of, put_image
from yarl import URL

from prefetch.credentials.credential import Credential, IdentityToken, Login, Secret
from prefetch.demo.tokens import Account
from prefetch.errors import PrefetchError, ServerFault
from prefetch.oci.model import Descriptor
from prefetch.oci.reference import Digest, Repository
from prefetch.remote.logins import by_get, by_post
from support.clock import ManualClock
from support.factories import UpstreamFactory

PASSWORD = "hush-hush-password"
FORMS = (PASSWORD, base64.b64encode(f"alice:{PASSWORD}".encode()).decode(), "granted-token")


def leaks(*texts: object) -> list[str]:
    return [form for form in FORMS for text in texts if form in str(text) or form in repr(text)]


def told(error: BaseException) -> str:
    """All that a log with a traceback would show."""
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize("login", [Credential("alice", Secret(PASSWORD)), None])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
async def test_a_token_service_that_repeats_what_it_was_sent(
    connect: Connect, serve: Serve, clock: ManualClock, login: Login | None, status: int
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/token":
            sent = request.headers.get("Authorization", "")
            errors = [{"code": "X", "message": f"{sent} {PASSWORD if sent else ''}"}]
            return web.json_response({"errors": errors}, status=status)
        return challenge(server)

    server = await serve(answer)
    connected = await connect(server.url, login, clock=clock)
    with pytest.raises(PrefetchError) as caught:
        await connected.client.resolve(Repository(connected.client.settings.name, "a/b"), "1")
    assert not leaks(caught.value, told(caught.value), connected.events)


@pytest.mark.parametrize(
    "fault", ["server-error", "reset", "cut", "stall", "html", "link-expired", "gzip", "redirect"]
)
async def test_faults_on_the_way(
    upstream: UpstreamFactory, connect: Connect, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    caplog.set_level(logging.DEBUG)
    registry = await upstream(accounts={"alice": Account(password=PASSWORD)})
    repository, image = put_image(registry)
    registry.faults.add(fault, kind="cdn", count=None, seconds=3.0, text="http://[")
    connected = await connect(registry.url, Credential("alice", Secret(PASSWORD)))

    async def fetch() -> None:
        async with connected.client.open_blob(repository, layer_of(image)) as stream:
            async for _ in stream.chunks:
                pass

    with pytest.raises(PrefetchError) as caught:
        await fetch()
    assert "expires=" not in told(caught.value)
    assert not leaks(caught.value, told(caught.value), connected.events, caplog.text)


@asynccontextmanager
async def raw_server(answer: bytes) -> AsyncIterator[int]:
    """A server that answers every connection with these bytes."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("answer", [b"NONSENSE\r\n\r\n", b"HTTP/1.1 200 OK\r\nA b\x00: c\r\n\r\n"])
async def test_a_signed_link_that_leads_to_nonsense(
    connect: Connect, serve: Serve, answer: bytes
) -> None:
    async with raw_server(answer) as port:

        async def redirect(request: web.BaseRequest) -> web.StreamResponse:
            if request.path == "/v2/":
                return web.json_response({})
            raise web.HTTPTemporaryRedirect(f"http://127.0.0.1:{port}/x?sig=granted-token#f")

        server = await serve(redirect)
        client = (await connect(server.url)).client
        repository = Repository(client.settings.name, "team/app")
        with pytest.raises(ServerFault, match="sent no valid HTTP answer") as caught:
            async with client.open_blob(repository, Descriptor("x/y", Digest.of(b"x"), 1)):
                pass
        assert caught.value.url == f"http://127.0.0.1:{port}/x"
        assert not leaks(caught.value, told(caught.value))


def test_requests_for_tokens_show_nothing() -> None:
    realm = URL("https://auth.example/token")
    get = by_get(realm, "s", ["repository:a/b:pull"], Credential("alice", Secret(PASSWORD)))
    post = by_post(realm, "s", ["repository:a/b:pull"], IdentityToken(Secret(PASSWORD)))
    assert PASSWORD.encode() in (post.body or b"")
    assert not leaks(get, post)
