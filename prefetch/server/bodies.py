"""Files as bodies of answers: past the event loop where that can be, through it over TLS."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from aiohttp import web

from prefetch.server.pump import Connection, Pump

_SLICE: Final = 256 << 10


class Source(Protocol):
    """What a body is read from: a whole blob, or one that still grows."""

    def fileno(self) -> int | None:
        """A descriptor to send from; None where there is none."""
        ...

    async def read(self, offset: int, length: int) -> bytes:
        """Bytes that are known to be there."""
        ...


class FileBody:
    """The body of `response`, which has a Content-Length, sent in parts of `source`.

    `sent` counts its bytes that have left. `stall` is how many seconds the client may take
    nothing. All methods raise ConnectionError when the client has gone and TimeoutError when it
    has stalled; `send` also what reading the source raises. When `send` fails the connection is
    broken: whatever came next would be taken for the rest of the body.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        response: web.StreamResponse,
        source: Source,
        pump: Pump,
        stall: float,
    ) -> None:
        self.sent = 0
        self._request = request
        self._response = response
        self._source = source
        self._pump = pump
        self._stall = stall

    async def begin(self) -> None:
        """Send the headers, and see them off: what follows must not overtake them."""
        async with asyncio.timeout(self._stall):
            await self._response.prepare(self._request)
            self._request.writer.send_headers()
            if self._plain_socket() is not None:
                await self._empty(self._transport())

    async def send(self, start: int, count: int) -> None:
        """Send `count` bytes of the source from `start` on."""
        try:
            fd, sock = self._source.fileno(), self._plain_socket()
            if fd is None or sock is None:
                await self._write(start, count)
            else:
                await self._pump.send(sock, fd, start, count, stall=self._stall, report=self._count)
        except BaseException:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise

    async def end(self) -> None:
        """The answer is complete."""
        await self._response.write_eof()

    async def _write(self, start: int, count: int) -> None:
        while count:
            data = await self._source.read(start, min(count, _SLICE))
            if not data:
                raise OSError("the file has become shorter")
            async with asyncio.timeout(self._stall):
                await self._response.write(data)
            start, count = start + len(data), count - len(data)
            self._count(len(data))

    async def _empty(self, transport: asyncio.Transport) -> None:
        """Wait until asyncio has sent all that it holds; by its own marks, some may be left."""
        low, high = transport.get_write_buffer_limits()
        transport.set_write_buffer_limits(high=0)
        try:
            await self._request.writer.drain()
        finally:
            transport.set_write_buffer_limits(high=high, low=low)

    def _count(self, sent: int) -> None:
        self.sent += sent

    def _plain_socket(self) -> Connection | None:
        """The socket, unless what goes over it must be encrypted first."""
        transport = self._transport()
        if transport.get_extra_info("sslcontext") is not None:
            return None
        found: Connection | None = transport.get_extra_info("socket")
        return found

    def _transport(self) -> asyncio.Transport:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        return transport
