"""What streaming to many clients costs in memory: nothing that grows with them or with the blob."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from blob_serving import MIB, content_gets, get, introduced, one_layer, serving

from support.cache import Cache
from support.factories import UpstreamFactory
from support.processes import CommandLine

_CLIENTS = 50
_SIZE = 64 * MIB
_MOST = 200 * MIB


async def test_fifty_clients_of_a_cold_blob(cli: CommandLine, upstream: UpstreamFactory) -> None:
    up, layer = await one_layer(upstream, size=_SIZE)
    async with serving(cli, up) as cache:
        path = await introduced(cache, layer.digest)
        drains = (_Drain.run(cache, path) for _ in range(_CLIENTS - 1))
        checked, *received = await asyncio.gather(get(cache, path), *drains)
        peak = _peak(cache.pid)
    assert (checked.complete, checked.digest) == (True, layer.digest)
    assert received == [layer.size] * (_CLIENTS - 1)
    assert content_gets(up)[layer.digest] == 1
    assert peak < _MOST, f"{peak / MIB:.0f} MiB"


class _Drain(asyncio.BufferedProtocol):
    """A client that asks once, and looks at nothing but how much comes."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._buffer = memoryview(bytearray(MIB))
        self._headers = b""
        self._length = -1
        self.received = 0
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @classmethod
    async def run(cls, cache: Cache, path: str) -> int:
        """The bytes of the body that have come."""
        request = f"GET {path} HTTP/1.1\r\nHost: cache.test\r\n\r\n".encode()
        host, _, port = cache.address.rpartition(":")
        loop = asyncio.get_running_loop()
        transport, client = await loop.create_connection(lambda: cls(request), host, int(port))
        try:
            async with asyncio.timeout(60):
                return await client.done
        finally:
            transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(self._request)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._length < 0:
            self._headers += self._buffer[:nbytes]
            head, end, rest = self._headers.partition(b"\r\n\r\n")
            if not end:
                return
            found = re.search(rb"Content-Length: (\d+)", head)
            assert head.startswith(b"HTTP/1.1 200 ")
            assert found
            self._length, nbytes = int(found[1]), len(rest)
        self.received += nbytes
        if self.received == self._length:
            self.done.set_result(self.received)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(self.received)


def _peak(pid: int) -> int:
    """The most memory that a process has had resident, in bytes (proc(5), VmHWM)."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024
