"""A cache that serves in front of a scripted upstream, and those who ask it."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from prefetch.demo.images import Image, image
from prefetch.demo.upstream import Upstream
from support.cache import Cache, start_cache
from support.evidence import assert_no_crash
from support.processes import CommandLine, Result

PLATFORM = "linux/amd64"
ACCEPT = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
TYPICAL_DEADLINE = 15.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Reply:
    """What was answered, header names in lower case; `seconds` is how long it took."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float = 0.0

    @property
    def digest(self) -> str | None:
        return self.headers.get("docker-content-digest")

    @property
    def warning(self) -> str:
        return self.headers.get("warning", "")

    @property
    def message(self) -> str:
        """The first error's words."""
        return str(json.loads(self.body)["errors"][0]["message"])


class Line:
    """One connection that is kept, and asks one thing at a time."""

    def __init__(self, address: str) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, path: str, *, method: str = "GET", **headers: str) -> Reply:
        """One request and its answer; `cache_control` and the like become header names."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        named = {"Host": "cache.test", "Accept": ACCEPT}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in named.items())]
        began = time.perf_counter()
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = dict(line.split(": ", 1) for line in head[1:] if line)
        found = {name.lower(): value for name, value in fields.items()}
        length = 0 if method == "HEAD" else int(found.get("content-length", "0"))
        body = await reader.readexactly(length)
        status = int(head[0].split()[1])
        return Reply(status, found, body, time.perf_counter() - began)

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def ask(cache: Cache, path: str, *, method: str = "GET", **headers: str) -> Reply:
    """One request on a connection of its own."""
    line = Line(cache.address)
    try:
        async with asyncio.timeout(60):
            return await line.ask(path, method=method, **headers)
    finally:
        await line.close()


async def ask_many(cache: Cache, paths: Sequence[str], *, lines: int = 8) -> list[Reply]:
    """All of `paths`, over so many connections, in any order."""
    waiting = list(reversed(paths))
    replies = []

    async def work() -> None:
        line = Line(cache.address)
        try:
            while waiting:
                replies.append(await line.ask(waiting.pop()))
        finally:
            await line.close()

    async with asyncio.timeout(100), asyncio.TaskGroup() as group:
        for _ in range(lines):
            group.create_task(work())
    return replies


async def ask_together(cache: Cache, paths: Sequence[str]) -> list[Reply]:
    """All of `paths` at the same time, each on its own connection, opened before."""
    lines = [Line(cache.address) for _ in paths]
    try:
        await asyncio.gather(*(line.ask("/healthz") for line in lines))
        pairs = zip(lines, paths, strict=True)
        return await asyncio.gather(*(line.ask(path) for line, path in pairs))
    finally:
        for line in lines:
            await line.close()


async def until(
    condition: Callable[[], Awaitable[Any]], *, seconds: float = TYPICAL_DEADLINE
) -> float:
    """Wait until it holds; returns how long that took. AssertionError after `seconds`."""
    began = time.monotonic()
    while not await condition():
        waited = time.monotonic() - began
        assert waited < seconds, f"not within {seconds} s"
        await asyncio.sleep(_POLL_SECONDS)
    return time.monotonic() - began


def manifest_path(name: str, reference: str) -> str:
    return f"/v2/{name}/manifests/{reference}"


def blob_path(name: str, digest: str) -> str:
    return f"/v2/{name}/blobs/{digest}"


def configure(path: Path, endpoints: Mapping[str, str], **settings: Any) -> Path:
    """A `prefetch.yaml`: registries by name at these URLs; `settings` are `serve`'s.

    `registry` among them holds further settings of each registry.
    """
    more = settings.pop("registry", {})
    registries = {name: {"endpoint": url, **more} for name, url in endpoints.items()}
    # YAML has JSON within it.
    document = {"platforms": [PLATFORM], "registries": registries, "serve": settings}
    path.write_text(json.dumps(document))
    return path


def put_image(upstream: Upstream, repository: str, *tags: str, version: str = "") -> Image:
    """A two-platform image under these tags; another one for each `version`."""
    return upstream.content.put(repository, image(f"{repository}{version}", layers=1), *tags)


async def sync(cli: CommandLine, config: Path, *references: str, code: int = 0) -> Result:
    """`prefetch sync` of these; AssertionError unless it exits with `code`."""
    words = [word for reference in references for word in ("--image", reference)]
    done = await cli("--config", config, "sync", "-o", "json", *words)
    assert done.code == code, done.stderr + done.stdout
    return done


def child_of(item: Image) -> Image:
    return item.child(PLATFORM)


def parts_of(name: str, item: Image) -> list[tuple[str, str]]:
    """Everything that a client of our platform asks for after the tag: paths and digests."""
    child = child_of(item)
    documents = [(manifest_path(name, each.digest), each.digest) for each in (item, child)]
    return documents + [(blob_path(name, blob.digest), blob.digest) for blob in child.blobs]


async def pulls_whole(cache: Cache, name: str, tag: str, item: Image) -> None:
    """A client pulls the image by its tag, as podman does; AssertionError unless all comes."""
    top = await ask(cache, manifest_path(name, tag))
    assert (top.status, top.digest, top.body) == (200, item.digest, item.raw), top
    wanted = {blob.digest: blob.read() for blob in child_of(item).blobs}
    wanted[child_of(item).digest] = child_of(item).raw
    for path, digest in parts_of(name, item)[1:]:
        reply = await ask(cache, path)
        assert (reply.status, reply.body) == (200, wanted[digest]), (path, reply)


async def metrics(cache: Cache) -> dict[str, float]:
    """`/metrics` by series, as they are written."""
    page = (await ask(cache, "/metrics")).body.decode()
    lines = [line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#")]
    return {series: float(value) for series, value in lines}


def asked(upstream: Upstream, *, method: str | None = None) -> int:
    """How many manifest requests the upstream has had."""
    return upstream.log.counts(kind="manifest", method=method)


class Mute:
    """A registry that accepts connections and never says a word."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self.connections = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self._port, reuse_address=True
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        while await reader.read(65536):
            pass
        writer.close()


def median(numbers: Iterable[float]) -> float:
    ordered = sorted(numbers)
    return ordered[len(ordered) // 2]


def unresolvable() -> str:
    """A host name that no resolver knows (RFC 6761, section 6.4)."""
    return "registry.invalid"


def closed_port() -> int:
    """A loopback port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def running(
    cli: CommandLine, config: Path, *words: str | Path, ends_with: Iterable[int] = (0,)
) -> AsyncIterator[Cache]:
    """`prefetch serve` while the block lasts; afterwards AssertionError if it was not well."""
    cache = await start_cache(cli, *words, config=config)
    try:
        yield cache
    finally:
        ended = await cache.stop()
    assert ended.code in ends_with, ended.stderr
    assert_no_crash(ended)
    assert "internal error" not in ended.stderr, ended.stderr
