"""Answers whose head comes a byte at a time: never silent, and never there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from remote_support import IMPATIENT, SOME_DIGEST, Connect

from prefetch.errors import NetworkError
from prefetch.oci.model import Descriptor
from prefetch.oci.reference import Digest, Repository
from prefetch.tasks import end_all

_HASTY = replace(IMPATIENT, document_timeout=1.0, attempts=1)
_WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
async def trickler() -> AsyncIterator[str]:
    """A registry that answers `/v2/`, and all else a byte a tenth of a second."""
    connections: list[asyncio.Task[None]] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.ensure_future(answer(reader, writer)))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if head.startswith(b"GET /v2/ "):
                    writer.write(_WHOLE)
                    continue
                writer.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
                while True:
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.1)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    await end_all(connections)


async def test_no_request_waits_for_it_longer_than_for_a_document(
    connect: Connect, trickler: str
) -> None:
    client = (await connect(trickler, transport=_HASTY)).client
    repository = Repository(client.settings.name, "team/app")
    layer = Descriptor("application/octet-stream", Digest.parse(SOME_DIGEST), 9)

    async def download() -> None:
        async with client.open_blob(repository, layer):
            pass

    for work in (
        lambda: client.resolve(repository, "1"),
        lambda: client.manifest(repository, SOME_DIGEST, hold=None),
        lambda: client.blob_size(repository, layer.digest),
        download,
    ):
        began = time.monotonic()
        with pytest.raises(NetworkError, match="did not answer in time"):
            await work()
        assert 0.9 < time.monotonic() - began < 5
