"""Bodies from files: what reaches the client, and what becomes of clients that do not take it."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from prefetch.clock import SystemClock
from prefetch.server.bodies import FileBody
from prefetch.server.pump import WINDOW, Pump

SIZE = 6 * WINDOW + 12345
STALL = 0.4
LONG = 60.0
# More than the buffers of both sides hold.
PLENTY = 64 << 20
# What a timeout and the look after it may take on a busy machine.
SOON = 10.0


class File:
    """A source of bodies with a descriptor; `read` is what TLS uses."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY)
        self.reads = 0

    def fileno(self) -> int | None:
        return self.fd

    async def read(self, offset: int, length: int) -> bytes:
        self.reads += 1
        return os.pread(self.fd, length, offset)


class Site:
    """Serves `GET /<start>-<end>` of one file; `/fill-<size>` is as many bytes that asyncio sends.

    Before the answer to `/jam-<end>`, asyncio has more to send than the socket takes.

    `failures` are what bodies ended with, `sent` what they say has left, `waiting` how much asyncio
    still had to send when they began.
    """

    def __init__(self, source: File, pump: Pump) -> None:
        self.source = source
        self.pump = pump
        self.stall = LONG
        self.address = ("", 0)
        self.tasks: list[asyncio.Task[object]] = []
        self.failures: list[BaseException] = []
        self.sent: list[int] = []
        self.waiting: list[int] = []

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        first, _, last = request.path.strip("/").partition("-")
        if first == "fill":
            return web.Response(body=b"f" * int(last))
        if first == "jam":
            jam(request)
        start, end = int(first) if first.isdigit() else 0, int(last)
        response = web.StreamResponse()
        response.content_length = end - start
        body = FileBody(request, response, self.source, self.pump, self.stall)
        task = asyncio.current_task()
        assert task is not None
        assert request.transport is not None
        self.tasks.append(task)
        self.waiting.append(request.transport.get_write_buffer_size())
        try:
            await body.begin()
            await body.send(start, end - start)
            await body.end()
        except (ConnectionError, TimeoutError, asyncio.CancelledError) as error:
            self.failures.append(error)
            raise
        except OSError as error:
            self.failures.append(error)
            return web.Response(status=500, text="internal error")
        finally:
            self.sent.append(body.sent)
        return response

    async def failure(self) -> BaseException:
        await until(lambda: bool(self.failures))
        return self.failures[0]


def jam(request: web.BaseRequest) -> None:
    transport = request.transport
    assert transport is not None
    while not transport.get_write_buffer_size():
        transport.write(b"j" * 32768)


class Client:
    """A connection that asks and reads by itself."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    async def ask(self, *paths: str) -> None:
        text = "".join(f"GET /{path} HTTP/1.1\r\nHost: cache\r\n\r\n" for path in paths)
        await asyncio.get_running_loop().sock_sendall(self.sock, text.encode())

    async def read(self, count: int = 1 << 20) -> bytes:
        async with asyncio.timeout(SOON):
            return await asyncio.get_running_loop().sock_recv(self.sock, count)

    async def read_to_the_end(self) -> bytes:
        """All there is until the connection is closed, however that is done."""
        data = b""
        with suppress(ConnectionError):
            while part := await self.read():
                data += part
        return data

    async def ended_well(self) -> bool:
        """Read to the end; whether the server closed the connection in good order."""
        try:
            while await self.read():
                pass
        except ConnectionResetError:
            return False
        return True

    async def body(self) -> bytes:
        """One answer's body; nothing beyond it is read."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = await self.read(1)
            assert byte, head
            head += byte
        assert head.startswith(b"HTTP/1.1 200 "), head
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        data = bytearray()
        while len(data) < length:
            part = await self.read(min(1 << 20, length - len(data)))
            assert part, f"{len(data)} of {length} bytes"
            data += part
        return bytes(data)

    async def get(self, path: str) -> bytes:
        await self.ask(path)
        return await self.body()


@pytest.fixture(scope="module")
def content() -> bytes:
    return random.Random(4).randbytes(SIZE)


@pytest.fixture
def source(tmp_path: Path, content: bytes) -> Iterator[File]:
    path = tmp_path / "blob"
    path.write_bytes(content)
    file = File(path)
    yield file
    os.close(file.fd)


@pytest.fixture
async def pump() -> AsyncIterator[Pump]:
    pump = Pump(2, SystemClock())
    yield pump
    await pump.close()


@pytest.fixture
async def site(source: File, pump: Pump) -> AsyncIterator[Site]:
    async with serving(source, pump) as site:
        yield site


@asynccontextmanager
async def serving(
    source: File, pump: Pump, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Site]:
    site = Site(source, pump)
    server = web.Server(site.handle, access_log=None)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(server, "127.0.0.1", 0, ssl=tls)
    site.address = listener.sockets[0].getsockname()
    yield site
    listener.close()
    for task in site.tasks:
        task.cancel()
    await server.shutdown(0.1)
    await until(lambda: not server.connections)


@asynccontextmanager
async def connected(site: Site, receive_buffer: int | None = None) -> AsyncIterator[Client]:
    with socket.socket() as sock:
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(sock, site.address)
        yield Client(sock)


@asynccontextmanager
async def pair(buffer: int = 1 << 16) -> AsyncIterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection without a server: who sends, who reads."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        reader.connect(listener.getsockname())
        sender, _ = listener.accept()
        with sender:
            for sock in (reader, sender):
                sock.setblocking(False)
            yield sender, reader


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not condition():
            await asyncio.sleep(0.01)


def descriptors() -> int:
    """How many are open, but for what earlier tests have left to the collector.

    Those of the loop or of other tests may still be closed meanwhile, so more is what matters.
    """
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def switches() -> int:
    """How often the pump's threads have gone to sleep so far."""
    total = 0
    for thread in threading.enumerate():
        if thread.name.startswith("pump-"):
            status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
            total += int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])
    return total


def drain(reader: socket.socket) -> int:
    """Read what is there now; its length."""
    count = 0
    with suppress(BlockingIOError):
        while part := reader.recv(1 << 20):
            count += len(part)
    return count


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (0, SIZE),
        (0, 1),
        (0, 0),
        (SIZE - 1, SIZE),
        (4095, 4097),
        (4096, WINDOW),
        (1, WINDOW + 2),
        (WINDOW - 1, 3 * WINDOW + 1),
        (SIZE - WINDOW, SIZE),
    ],
)
async def test_ranges_arrive_as_they_lie(site: Site, content: bytes, start: int, end: int) -> None:
    async with connected(site) as client:
        assert await client.get(f"{start}-{end}") == content[start:end]
        await until(lambda: site.sent == [end - start])
    assert site.source.reads == 0


async def test_a_connection_serves_one_request_after_another(site: Site, content: bytes) -> None:
    async with connected(site) as client:
        for start in (0, 77, SIZE - 9):
            assert await client.get(f"{start}-{SIZE}") == content[start:]
        assert await client.get("fill-10") == b"f" * 10
    assert not site.failures


async def test_pipelined_requests_are_answered_in_order(site: Site, content: bytes) -> None:
    async with connected(site) as client:
        await client.ask("5-900000", "fill-10", "900000-900001", f"1-{SIZE}", "fill-3")
        assert await client.body() == content[5:900000]
        assert await client.body() == b"f" * 10
        assert await client.body() == content[900000:900001]
        assert await client.body() == content[1:]
        assert await client.body() == b"fff"


async def test_a_body_waits_for_what_asyncio_still_has_to_send(site: Site, content: bytes) -> None:
    async with connected(site, receive_buffer=4096) as client:
        await client.ask("jam-100000")
        await until(lambda: bool(site.waiting))
        assert site.waiting[0] > 0
        before = switches()
        await asyncio.sleep(0.2)
        assert not site.sent
        assert switches() == before
        data = b""
        while not data.endswith(content[99_000:100_000]):
            part = await client.read()
            assert part
            data += part
        jam, _, rest = data.partition(b"HTTP/1.1 200 OK\r\n")
        assert set(jam) == set(b"j")
        assert rest.partition(b"\r\n\r\n")[2] == content[:100_000]
        assert await client.get("7-9") == content[7:9]
    assert not site.failures


async def test_fifty_clients_at_once_get_every_byte(site: Site, content: bytes) -> None:
    wanted = hashlib.sha256(content).digest()

    async def download() -> bytes:
        async with connected(site) as client:
            return hashlib.sha256(await client.get(f"0-{SIZE}")).digest()

    async with asyncio.timeout(60):
        found = await asyncio.gather(*(download() for _ in range(50)))
    assert found == [wanted] * 50


async def test_a_client_that_goes_away_leaves_nothing_behind(site: Site, content: bytes) -> None:
    await asyncio.to_thread(int)  # the loop's own threads have started
    async with connected(site) as steady:
        assert await steady.get("0-1") == content[:1]
        before, threads = descriptors(), threading.active_count()
        for _ in range(5):
            async with connected(site, receive_buffer=1 << 16) as client:
                await client.ask(*[f"0-{SIZE}"] * 3)
                await client.read(1000)
            assert await steady.get(f"0-{SIZE}") == content
        await until(lambda: len(site.failures) == 5)
        assert all(isinstance(error, ConnectionError) for error in site.failures)
        assert all(0 < sent < SIZE for sent in site.sent if sent not in {1, SIZE})
        await until(lambda: descriptors() <= before)
        assert threading.active_count() == threads


async def test_a_stalled_client_is_given_up_and_holds_nobody_up(site: Site, content: bytes) -> None:
    site.stall = STALL
    downloads = 0
    async with connected(site, receive_buffer=4096) as stalled, connected(site) as other:
        began = time.monotonic()
        await stalled.ask(*[f"0-{SIZE}"] * 8)
        while not site.failures:
            assert await other.get(f"0-{SIZE}") == content
            downloads += 1
            assert time.monotonic() - began < SOON
        took = time.monotonic() - began
        assert isinstance(site.failures[0], TimeoutError)
        assert took >= STALL
        assert downloads >= 3
        # What was queued for it has been dropped, and the connection with it.
        assert not await stalled.ended_well()


async def test_a_client_that_reads_slowly_is_not_given_up(pump: Pump, source: File) -> None:
    # The sender's buffer is so large that in all this time it does not become writable again.
    os.truncate(source.path, PLENTY)
    async with pair(buffer=1 << 14) as (sender, reader):
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 << 20)
        ends: list[int] = []
        task = asyncio.create_task(
            pump.send(sender, source.fd, 0, PLENTY, stall=STALL, report=ends.append)
        )
        began, taken = time.monotonic(), 0
        while time.monotonic() - began < 4 * STALL:
            assert not task.done()
            with suppress(BlockingIOError):
                taken += len(reader.recv(4096))
            await asyncio.sleep(STALL / 20)
        # It becomes so when a third of what it holds has been taken.
        assert 0 < taken < 600_000
        while not task.done():
            taken += drain(reader)
            await asyncio.sleep(0.001)
        await task
        assert ends == [PLENTY]


async def test_cancelled_it_sends_nothing_more(pump: Pump, source: File) -> None:
    os.truncate(source.path, PLENTY)
    async with pair() as (sender, reader):
        before = descriptors()
        ends: list[int] = []
        task = asyncio.create_task(
            pump.send(sender, source.fd, 0, PLENTY, stall=LONG, report=ends.append)
        )
        taken = 0
        while taken < WINDOW:
            taken += drain(reader)
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert descriptors() <= before
        sender.shutdown(socket.SHUT_WR)
        reader.setblocking(True)
        while part := reader.recv(1 << 20):
            taken += len(part)
        assert ends == [taken]
        assert taken < PLENTY


async def test_cancelled_twice_it_still_waits_for_its_thread(pump: Pump, source: File) -> None:
    sending, go_on = threading.Event(), threading.Event()
    send = socket.socket.send

    class Slow(socket.socket):
        def send(self, data: object, flags: int = 0) -> int:  # type: ignore[override]
            sending.set()
            assert go_on.wait(SOON)
            return send(self, data, flags)  # type: ignore[arg-type]

    class Connection:
        def dup(self) -> socket.socket:
            return Slow(fileno=os.dup(sender.fileno()))

    async with pair() as (sender, _):
        task = asyncio.create_task(pump.send(Connection(), source.fd, 0, SIZE, stall=LONG))
        await asyncio.to_thread(sending.wait, SOON)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.01)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_closing_breaks_off_what_is_under_way(source: File) -> None:
    await asyncio.to_thread(int)  # the loop's own threads have started
    before = descriptors()
    pump = Pump(2, SystemClock())
    async with pair() as (sender, _):
        # Three jobs on two threads, all of them waiting for the reader.
        os.truncate(source.path, PLENTY)
        tasks = [
            asyncio.create_task(pump.send(sender, source.fd, 0, PLENTY, stall=LONG))
            for _ in range(3)
        ]
        await asyncio.sleep(0.1)
        running = {thread.name for thread in threading.enumerate()}
        assert {"pump-0", "pump-1"} <= running
        await pump.close()
        for task in tasks:
            with pytest.raises(ConnectionAbortedError):
                await task
        with pytest.raises(ConnectionAbortedError):
            await pump.send(sender, source.fd, 0, 1, stall=LONG)
        await pump.close()
    assert not any(thread.name.startswith("pump-") for thread in threading.enumerate())
    assert descriptors() <= before


async def test_nothing_runs_while_there_is_nothing_to_do(pump: Pump, source: File) -> None:
    async with pair() as (sender, _):
        await asyncio.sleep(0.05)
        idle = switches()
        await asyncio.sleep(0.3)
        assert switches() == idle
        os.truncate(source.path, PLENTY)
        task = asyncio.create_task(pump.send(sender, source.fd, 0, PLENTY, stall=LONG))
        await asyncio.sleep(0.2)
        stuck = switches()
        assert stuck > idle
        await asyncio.sleep(0.3)
        assert switches() == stuck
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_file_that_is_too_short_breaks_the_connection(site: Site, content: bytes) -> None:
    async with connected(site) as client, connected(site) as other:
        await client.ask(f"0-{SIZE + 3 * WINDOW}", "fill-10")
        data = await client.read_to_the_end()
        failure = await site.failure()
        assert isinstance(failure, OSError)
        assert not isinstance(failure, ConnectionError | TimeoutError)
        # Not a byte that is no part of the file: no error page, no other answer.
        assert content.startswith(data.partition(b"\r\n\r\n")[2])
        assert await other.get(f"0-{SIZE}") == content


async def test_a_range_that_cannot_be_is_refused(pump: Pump, source: File) -> None:
    async with pair() as (sender, _):
        for start, count in ((-1, 5), (5, -1)):
            with pytest.raises(ValueError, match="no range"):
                await pump.send(sender, source.fd, start, count, stall=LONG)


async def test_a_closed_socket_is_a_lost_connection(pump: Pump, source: File) -> None:
    async with pair() as (sender, _):
        sender.close()
        with pytest.raises(ConnectionError):
            await pump.send(sender, source.fd, 0, 1, stall=LONG)


class Tls:
    """A server's context, and the clients' that trusts it."""

    def __init__(self) -> None:
        authority = trustme.CA()
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(self.server)
        self.client = ssl.create_default_context()
        authority.configure_trust(self.client)


async def test_over_tls_bodies_go_through_asyncio(source: File, pump: Pump, content: bytes) -> None:
    tls = Tls()
    async with serving(source, pump, tls.server) as site:
        reader, writer = await asyncio.open_connection(*site.address, ssl=tls.client)
        for start in (0, 4097, SIZE - 1):
            writer.write(f"GET /{start}-{SIZE} HTTP/1.1\r\nHost: cache\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(SIZE - start) == content[start:]
        writer.close()
        await writer.wait_closed()
        assert site.sent == [SIZE, SIZE - 4097, 1]
        assert source.reads > 2 * SIZE // WINDOW


async def test_over_tls_a_stalled_client_is_given_up(source: File, pump: Pump) -> None:
    tls = Tls()
    async with serving(source, pump, tls.server) as site:
        site.stall = STALL
        reader, writer = await asyncio.open_connection(*site.address, ssl=tls.client, limit=1024)
        began = time.monotonic()
        writer.write(f"GET /0-{SIZE} HTTP/1.1\r\nHost: cache\r\n\r\n".encode() * 8)
        assert isinstance(await site.failure(), TimeoutError)
        assert time.monotonic() - began >= STALL
        with suppress(ConnectionError, ssl.SSLError):
            while await reader.read(1 << 20):
                pass
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()
