"""Clients that read blobs while they arrive, and what a cache and its upstream tell of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from prefetch.demo.blobs import Blob
from prefetch.demo.images import OCI_INDEX, OCI_MANIFEST, Image, image
from prefetch.demo.upstream import Upstream
from support.cache import Cache, start_cache
from support.factories import UpstreamFactory
from support.processes import CommandLine, UpstreamProcess

PLATFORM = "linux/amd64"
NAME = "library/app"
MIB = 1 << 20
_ACCEPT = f"{OCI_INDEX}, {OCI_MANIFEST}"
_DEADLINE = 20.0
_POLL = 0.02
_READ = 1 << 16


class Stream:
    """An answer that is being read. `complete` is whether all that was promised has come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._hash = hashlib.sha256()
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.received = 0
        self.first = bytearray()

    @classmethod
    async def open(cls, cache: Cache, path: str, *, method: str = "GET", **headers: str) -> Self:
        """Ask on a connection of its own, and read the headers of the answer."""
        host, _, port = cache.address.rpartition(":")
        stream = cls(*await asyncio.open_connection(host, int(port), limit=4 * _READ))
        try:
            await stream._ask(path, method, headers)
        except BaseException:
            stream.close()
            raise
        return stream

    @property
    def length(self) -> int:
        return int(self.headers.get("content-length", "0"))

    @property
    def complete(self) -> bool:
        return self.status in (200, 206) and self.received == self.length

    @property
    def digest(self) -> str:
        """Of what has come."""
        return f"sha256:{self._hash.hexdigest()}"

    @property
    def message(self) -> str:
        """The words of an error that has been read."""
        return str(json.loads(bytes(self.first))["errors"][0]["message"])

    async def read(self, most: int = _READ) -> bytes:
        """Some bytes of the body; none at its end, and when it breaks off."""
        wanted = min(most, self.length - self.received)
        try:
            data = await self._reader.read(wanted) if wanted else b""
        except ConnectionError:
            data = b""
        self.received += len(data)
        self._hash.update(data)
        if len(self.first) < _READ:
            self.first += data
        return data

    async def take(self, count: int) -> bool:
        """Read on until `count` bytes have come in all; False if it breaks off before."""
        while self.received < count:
            if not await self.read(min(_READ, count - self.received)):
                return False
        return True

    async def rest(self) -> Self:
        """Read to the end and close."""
        try:
            while await self.read():
                pass
        finally:
            self.close()
        return self

    def close(self) -> None:
        self._writer.close()

    async def _ask(self, path: str, method: str, headers: Mapping[str, str]) -> None:
        named = {"Host": "cache.test", "Accept": _ACCEPT}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in named.items())]
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.status = int(head[0].split()[1])
        fields = (line.split(": ", 1) for line in head[1:] if line)
        self.headers = {name.lower(): value for name, value in fields}


async def get(
    cache: Cache, path: str, *, seconds: float = 60, method: str = "GET", **headers: str
) -> Stream:
    """One answer, read to its end; a HEAD has none."""
    async with asyncio.timeout(seconds):
        stream = await Stream.open(cache, path, method=method, **headers)
        if method == "HEAD":
            stream.close()
            return stream
        return await stream.rest()


async def get_stubbornly(
    cache: Cache, path: str, *, seconds: float = 60, statuses: Sequence[int] = (200, 503)
) -> Stream:
    """As clients do: a connection that breaks is made again, and an error waited for."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                stream = await get(cache, path)
                if stream.complete:
                    return stream
                assert stream.status in statuses, stream.status
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            await asyncio.sleep(_POLL)


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a client has of an image: the digest of each part, as computed."""

    documents: tuple[str, ...]
    blobs: tuple[str, ...]


Get = Callable[[str], Awaitable[Stream]]


async def pull(get_part: Get, name: str, tag: str, platform: str = PLATFORM) -> Pulled:
    """Pull an image as podman does: tag, manifest of the platform, blobs at once."""
    top, manifest = await pull_documents(get_part, name, tag, platform)
    document = json.loads(bytes(manifest.first))
    digests = [each["digest"] for each in (document["config"], *document["layers"])]
    blobs = await asyncio.gather(*(get_part(blob_path(name, each)) for each in digests))
    assert all(blob.complete for blob in blobs)
    return Pulled((top.digest, manifest.digest), tuple(blob.digest for blob in blobs))


async def pull_documents(
    get_part: Get, name: str, tag: str, platform: str = PLATFORM
) -> tuple[Stream, Stream]:
    """What comes before the blobs: the index, and the platform's manifest."""
    top = await get_part(manifest_path(name, tag))
    assert top.complete, (top.status, top.first)
    system, architecture = platform.split("/")
    child = next(
        entry["digest"]
        for entry in json.loads(bytes(top.first))["manifests"]
        if entry["platform"] == {"os": system, "architecture": architecture}
    )
    manifest = await get_part(manifest_path(name, child))
    assert manifest.complete, (manifest.status, manifest.first)
    return top, manifest


async def introduced(cache: Cache, digest: str, name: str = NAME, tag: str = "1") -> str:
    """The path of a blob; the cache has been made to know the manifest that names it."""
    await pull_documents(lambda path: get(cache, path), name, tag)
    return blob_path(name, digest)


def whole(item: Image, platform: str = PLATFORM) -> Pulled:
    """What a client should have of an image."""
    child = item.child(platform)
    return Pulled((item.digest, child.digest), tuple(blob.digest for blob in child.blobs))


@asynccontextmanager
async def serving(
    cli: CommandLine,
    endpoints: Mapping[str, str] | Upstream | UpstreamProcess,
    *words: str,
    platforms: Sequence[str] = (PLATFORM,),
    registry: Mapping[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Cache]:
    """A cache of its own; `endpoints` are the registries' URLs, one alone is docker.io's.

    `registry` holds more settings of each registry, `settings` are `serve`'s. AssertionError if
    it has met a bug, or does not end well.
    """
    config = write(cli, endpoints, platforms=platforms, registry=registry, **settings)
    cache = await start_cache(cli, *words, config=config)
    try:
        yield cache
    finally:
        done = await cache.stop()
    assert "internal error" not in done.stderr, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert cache.killed or done.code == 0, done.stderr


def write(
    cli: CommandLine,
    endpoints: Mapping[str, str] | Upstream | UpstreamProcess,
    *,
    platforms: Sequence[str] = (PLATFORM,),
    registry: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """The `prefetch.yaml` that `serving` starts with."""
    if isinstance(endpoints, Upstream | UpstreamProcess):
        endpoints = {"docker.io": endpoints.url}
    registries = {name: {"endpoint": url, **(registry or {})} for name, url in endpoints.items()}
    document = {"platforms": list(platforms), "registries": registries, "serve": settings}
    path = cli.home / "prefetch.yaml"
    path.write_text(json.dumps(document))  # YAML has JSON within it
    return path


def manifest_path(name: str, reference: str) -> str:
    return f"/v2/{name}/manifests/{reference}"


def blob_path(name: str, digest: str) -> str:
    return f"/v2/{name}/blobs/{digest}"


async def until(condition: Callable[[], Any], *, seconds: float = _DEADLINE) -> None:
    """Wait until it holds, plainly or when awaited; AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return
        assert time.monotonic() < end, f"not within {seconds} s"
        await asyncio.sleep(_POLL)


async def metric(cache: Cache, series: str) -> float:
    """A value out of `/metrics`, by its series as it is written there; 0 if there is none."""
    page = (await asyncio.to_thread(cache.get, "/metrics"))[2].decode()
    lines = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    return float(lines.get(series, "0"))


async def one_layer(
    upstream: UpstreamFactory, *, size: int, rate: float | None = None, **settings: Any
) -> tuple[Upstream, Blob]:
    """An upstream with an image of one layer, which comes at `rate` bytes a second."""
    up = await upstream(**settings)
    app = up.content.put(NAME, image("app", layers=1, layer_size=size), "1")
    layer = app.child(PLATFORM).blobs[1]
    if rate is not None:
        up.faults.add("slow", kind="cdn", reference=layer.digest, count=None, bytes_per_second=rate)
    return up, layer


def stored(cli: CommandLine, digest: str) -> bool:
    """Whether it lies in the cache, whatever it is worth."""
    return (cli.cache / "blobs" / digest.replace(":", "/")).exists()


def ingested(cli: CommandLine, digest: str) -> int:
    """How many bytes of it are under way."""
    path = cli.data_dir / "ingest" / digest.replace(":", "-")
    return path.stat().st_size if path.exists() else 0


def starts_at(header: str | None) -> int:
    """Where a request that was resumed by `Range: bytes=<start>-` begins; 0 without one."""
    return int(header.removeprefix("bytes=").removesuffix("-")) if header else 0


def content_gets(upstream: Upstream) -> dict[str, int]:
    """How often each manifest and blob was fetched from the upstream, by digest or tag."""
    counts: dict[str, int] = {}
    for request in upstream.log:
        if request.method == "GET" and request.kind in ("manifest", "cdn"):
            counts[request.reference] = counts.get(request.reference, 0) + 1
    return counts
