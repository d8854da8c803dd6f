from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trustme
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from prefetch.clock import SystemClock
from prefetch.server.slowclients import MAX_HEADERS, PatientServer, bytes_taken

TIMEOUT = 0.4
# What a timeout and the look after it may take on a busy machine.
SOON = 5.0
GET = b"GET / HTTP/1.1\r\nHost: cache\r\n\r\n"


class Site:
    """A server with short patience, and what it told of its clients."""

    def __init__(
        self, server: PatientServer, address: tuple[str, int], complaints: list[BaseException]
    ) -> None:
        self.server = server
        self.address = address
        self.count = 0
        self.seen = 0
        self.complaints = complaints
        self.wires: list[Wire] = []

    async def connect(self, receive_buffer: int | None = None) -> Wire:
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.wires.append(Wire(sock))
        await asyncio.get_running_loop().sock_connect(sock, self.address)
        return self.wires[-1]

    async def empties(self) -> None:
        """All connections are gone, for the server and for the metrics."""
        async with asyncio.timeout(SOON):
            while self.server.connected or self.count:
                await asyncio.sleep(0.01)


class Wire:
    """A client that does with its socket what it likes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.since = time.monotonic()

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def read(self, count: int = 1 << 16) -> bytes:
        """b"" when the server has closed the connection, however it did."""
        try:
            async with asyncio.timeout(SOON):
                return await asyncio.get_running_loop().sock_recv(self.sock, count)
        except ConnectionError:
            return b""

    async def closed_after(self) -> float:
        """Read to the end; the seconds until the server has closed the connection."""
        while await self.read():
            pass
        return time.monotonic() - self.since

    async def answer(self) -> bytes:
        """A whole answer of the test's handler to a request that names no size."""
        data = b""
        while not data.endswith(b"hello"):
            part = await self.read()
            assert part, data
            data += part
        return data


async def respond(request: web.BaseRequest) -> web.StreamResponse:
    """`/` says hello, `/<size>` is as many bytes, `/slow` takes longer than a client may."""
    if request.method == "CONNECT":
        return web.Response(headers={"X-Target": repr(request.raw_path)})
    what = request.path.strip("/")
    if what == "slow":
        await asyncio.sleep(3 * TIMEOUT)
    if what == "broken":
        raise RuntimeError("a bug")
    return web.Response(body=bytes(int(what)) if what.isdigit() else b"hello")


@asynccontextmanager
async def serving(
    handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] = respond,
    *,
    tls: ssl.SSLContext | None = None,
    **settings: Any,
) -> AsyncIterator[Site]:
    def counted(change: int) -> None:
        site.count += change
        site.seen += change > 0

    complaints: list[BaseException] = []
    server = PatientServer(
        handler,
        clock=SystemClock(),
        counted=counted,
        complained=complaints.append,
        **{"client_timeout": TIMEOUT, **settings},
    )
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(server, "127.0.0.1", 0, ssl=tls)
    site = Site(server, listener.sockets[0].getsockname(), complaints)
    try:
        yield site
    finally:
        listener.close()
        server.pre_shutdown()
        await server.shutdown(1)
        for wire in site.wires:
            wire.sock.close()


async def test_a_connection_that_says_nothing_is_closed() -> None:
    async with serving() as site:
        wire = await site.connect()
        assert await wire.closed_after() > TIMEOUT * 0.9
        await site.empties()
        assert site.seen == 1
        assert site.complaints == []


async def test_a_first_request_is_waited_for_even_where_aiohttp_does_not() -> None:
    async with serving() as site:
        # As in those versions of aiohttp whose own timer starts after the first answer.
        wire = await site.connect()
        while not site.server.connections:
            await asyncio.sleep(0.01)
        (handler,) = site.server.connections
        handler.keep_alive(True)
        assert handler._keepalive_handle is None
        assert await wire.closed_after() > TIMEOUT * 0.9
        await site.empties()


async def test_a_head_that_comes_byte_by_byte_is_cut_off() -> None:
    async with serving() as site:
        wire = await site.connect()

        async def dribble() -> None:
            with suppress(ConnectionError):
                for byte in b"GET / HTTP/1.1\r\nX-Never: " + b"ends" * 1000:
                    await wire.send(bytes([byte]))
                    await asyncio.sleep(TIMEOUT / 5)

        dribbling = asyncio.create_task(dribble())
        assert await wire.closed_after() < SOON
        await dribbling
        await site.empties()


async def test_a_connection_that_idles_between_requests_is_closed() -> None:
    async with serving() as site:
        wire = await site.connect()
        await wire.send(GET)
        await wire.answer()
        await asyncio.sleep(TIMEOUT / 2)
        await wire.send(GET)
        await wire.answer()
        # The last answer, not the connection's start, is what it is measured from.
        wire.since = time.monotonic()
        assert TIMEOUT * 0.9 < await wire.closed_after() < SOON
        await site.empties()


async def test_the_next_head_may_not_dribble_either() -> None:
    async with serving() as site:
        wire = await site.connect()
        await wire.send(GET)
        await wire.answer()
        await wire.send(b"GET / HT")
        assert await wire.closed_after() < SOON
        await site.empties()


async def test_a_request_under_way_may_take_its_time() -> None:
    async with serving() as site:
        wire = await site.connect()
        await wire.send(GET.replace(b"/ ", b"/slow ", 1))
        assert (await wire.answer()).startswith(b"HTTP/1.1 200 ")
        assert time.monotonic() - wire.since > 2 * TIMEOUT


async def test_a_slow_but_steady_download_is_not_cut_off() -> None:
    async with serving(client_timeout=1.0) as site:
        wire = await site.connect(receive_buffer=4096)
        await wire.send(GET.replace(b"/ ", b"/30000000 ", 1))

        async def read_slowly() -> None:
            until = time.monotonic() + 1.2
            # Far too little for the kernel to ask for more of it meanwhile.
            while time.monotonic() < until:
                assert await wire.read(2048)
                await asyncio.sleep(0.02)

        await read_slowly()
        # Not taking anything for half of the time is not yet too long.
        await asyncio.sleep(0.6)
        await read_slowly()
        assert site.server.connected == 1
        wire.sock.close()


async def test_a_client_that_takes_nothing_of_an_answer_is_cut_off() -> None:
    async with serving() as site:
        stuck, fine = await site.connect(receive_buffer=4096), await site.connect()
        await stuck.send(GET.replace(b"/ ", b"/30000000 ", 1))
        await fine.send(GET)
        await fine.answer()
        fine.sock.close()
        await site.empties()
        assert time.monotonic() - stuck.since > TIMEOUT * 0.9


async def test_what_is_left_of_a_finished_answer_holds_no_connection_open() -> None:
    finished = asyncio.Event()

    async def fill(request: web.BaseRequest) -> web.StreamResponse:
        # So much that it stays in our buffer, so little that nobody waits for it to leave.
        transport = request.transport
        assert transport is not None
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        response = web.StreamResponse(headers={"Content-Length": "60000"})
        await response.prepare(request)
        await response.write(bytes(60000))
        await response.write_eof()
        assert transport.get_write_buffer_size() > 0
        finished.set()
        return response

    async with serving(fill) as site:
        wire = await site.connect(receive_buffer=4096)
        await wire.send(GET)
        await finished.wait()
        await site.empties()


async def test_connections_beyond_the_most_are_closed_at_once() -> None:
    async with serving(max_connections=2, client_timeout=60) as site:
        first, second = await site.connect(), await site.connect()
        for wire in (first, second):
            await wire.send(GET)
            await wire.answer()
        third = await site.connect()
        assert await third.closed_after() < SOON
        await first.send(GET)
        await first.answer()
        second.sock.close()
        while site.server.connected > 1:
            await asyncio.sleep(0.01)
        fourth = await site.connect()
        await fourth.send(GET)
        await fourth.answer()
        assert site.count == 2
        assert site.seen == 4


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"a" * 9000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-Many: a\r\n" * (MAX_HEADERS + 1) + b"\r\n",
        b"\x16\x03\x01 this is no HTTP\r\n\r\n",
    ],
    ids=["line", "field", "fields", "garbage"],
)
async def test_a_head_that_is_too_large_or_none_is_refused_and_not_logged(
    head: bytes, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async with serving() as site:
        wire = await site.connect()
        await wire.send(head)
        assert (await wire.read()).startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))
        await wire.closed_after()
        (complaint,) = site.complaints
        assert isinstance(complaint, HttpProcessingError)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("before", [b"", GET])
async def test_a_request_without_a_target_is_for_the_handler(before: bytes) -> None:
    """aiohttp's parser in C makes it a request without a path, or with the last one's URL."""
    async with serving() as site:
        wire = await site.connect()
        await wire.send(before + b"CONNECT  \r\nHost: cache\r\n\r\n")
        if before:
            await wire.answer()
        assert b"\r\nX-Target: ''\r\n" in await wire.read()
        assert site.complaints == []


async def test_a_bug_is_handed_over() -> None:
    async with serving() as site:
        wire = await site.connect()
        await wire.send(GET.replace(b"/ ", b"/broken ", 1))
        assert (await wire.read()).startswith(b"HTTP/1.1 500 ")
        assert [str(each) for each in site.complaints] == ["a bug"]


async def test_the_same_over_tls() -> None:
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    async with serving(tls=server_side) as site:
        host, port = site.address
        reader, writer = await asyncio.open_connection(host, port, ssl=client_side)
        since = time.monotonic()
        assert await asyncio.wait_for(reader.read(), SOON) == b""
        assert time.monotonic() - since > TIMEOUT * 0.8
        writer.close()

        reader, writer = await asyncio.open_connection(host, port, ssl=client_side, limit=1024)
        writer.write(GET.replace(b"/ ", b"/30000000 ", 1))
        await reader.readexactly(100)
        # It reads no more.
        await site.empties()
        writer.transport.abort()


async def test_how_much_a_peer_has_taken_grows_as_it_reads() -> None:
    async def told(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        sock = request.transport.get_extra_info("socket")
        before.append(bytes_taken(sock))
        return web.Response(body=b"hello")

    before: list[int | None] = []
    async with serving(told) as site:
        wire = await site.connect()
        for _ in range(3):
            await wire.send(GET)
            await wire.answer()
    first, second, third = before
    assert first is not None
    assert second is not None
    assert third is not None
    assert first < second < third
    # A whole answer each time: about 160 bytes.
    assert 100 < second - first == third - second < 400
    here, there = socket.socketpair()
    assert bytes_taken(here) is None
    here.close()
    there.close()
