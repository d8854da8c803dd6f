"""Blobs: ranges, broken bodies, links that expire, foreign layers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from remote_support import IMPATIENT, Connect, Serve, layer_of, put_image

from prefetch.errors import (
    ForbiddenAddress,
    NetworkError,
    NotFound,
    PrefetchError,
    RegistryError,
    ServerFault,
    SizeMismatch,
    Unauthorized,
)
from prefetch.oci.model import Descriptor
from prefetch.oci.reference import Digest, Repository
from prefetch.remote.registry import RegistryClient
from support.factories import UpstreamFactory

CONTENT = bytes(range(256)) * 1024
LAYER = Descriptor("application/octet-stream", Digest.of(CONTENT), len(CONTENT))


async def fetch(
    client: RegistryClient, repository: Repository, descriptor: Descriptor, offset: int = 0
) -> tuple[int, bytes]:
    async with client.open_blob(repository, descriptor, offset) as stream:
        assert stream.total == descriptor.size
        return stream.offset, b"".join([chunk async for chunk in stream.chunks])


async def resumed(
    client: RegistryClient, repository: Repository, descriptor: Descriptor
) -> tuple[bytes, int]:
    """The whole blob, as a transfer fetches it: resumed wherever it broke off."""
    got, attempts = b"", 0
    while True:
        attempts += 1
        try:
            async with client.open_blob(repository, descriptor, len(got)) as stream:
                got = got[: stream.offset]
                async for chunk in stream.chunks:
                    got += chunk
        except PrefetchError as error:
            if not error.retryable or attempts > 5:
                raise
        else:
            return got, attempts


@pytest.mark.parametrize("cdn", [True, False])
@pytest.mark.parametrize("offset", [0, 1, 4000])
async def test_from_an_offset(
    upstream: UpstreamFactory, connect: Connect, cdn: bool, offset: int
) -> None:
    registry = await upstream(cdn=cdn)
    repository, image = put_image(registry)
    layer = layer_of(image)
    client = (await connect(registry.url)).client
    start, content = await fetch(client, repository, layer, offset)
    assert start == offset
    assert content == image.all_blobs()[str(layer.digest)].read(offset)
    assert registry.log.pulls == 0
    (sent,) = registry.log.select(kind="cdn" if cdn else "blob")
    assert sent.range == (f"bytes={offset}-" if offset else None)
    assert sent.accept_encoding == "identity"


async def test_authorization_stays_with_the_registry(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    client = (await connect(registry.url)).client
    await fetch(client, repository, layer_of(image))
    assert registry.log.select(kind="blob")[0].authorization == "Bearer"
    assert registry.log.select(kind="cdn")[0].authorization is None


async def test_an_ignored_range_begins_anew(upstream: UpstreamFactory, connect: Connect) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    registry.faults.add("ignored-range", kind="cdn")
    client = (await connect(registry.url)).client
    start, content = await fetch(client, repository, layer_of(image), 1000)
    assert start == 0
    assert Digest.of(content) == layer_of(image).digest


async def test_a_wrong_range_is_asked_for_whole(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    registry.faults.add("wrong-range", kind="cdn", count=None)
    client = (await connect(registry.url)).client
    start, content = await fetch(client, repository, layer_of(image), 1000)
    assert start == 0
    assert Digest.of(content) == layer_of(image).digest


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (416, {}),
        (206, {}),
        (206, {"Content-Range": "bytes 5-9/10"}),
        (206, {"Content-Range": "nonsense"}),
        (206, {"Content-Range": "bytes 1001-262143/262144"}),
        (206, {"Content-Type": "multipart/byteranges; boundary=x"}),
    ],
)
async def test_ranges_that_will_not_do(
    connect: Connect, serve: Serve, status: int, headers: dict[str, str]
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v2/":
            return web.json_response({})
        if "Range" in request.headers:
            return web.Response(status=status, headers=headers, body=CONTENT[1000:])
        return web.Response(body=CONTENT)

    server = await serve(answer)
    client = (await connect(server.url)).client
    repository = Repository(client.settings.name, "team/app")
    assert await fetch(client, repository, LAYER, 1000) == (0, CONTENT)


async def test_a_206_that_nobody_asked_for_is_a_fault(connect: Connect, serve: Serve) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=206, body=CONTENT[:10])

    server = await serve(answer)
    client = (await connect(server.url)).client
    with pytest.raises(ServerFault, match="206 to a plain request"):
        await fetch(client, Repository(client.settings.name, "team/app"), LAYER)


async def test_a_range_of_another_total_is_a_size_mismatch(connect: Connect, serve: Serve) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        headers = {"Content-Range": "bytes 10-99/100"}
        return web.Response(status=206, headers=headers, body=bytes(90))

    server = await serve(answer)
    client = (await connect(server.url)).client
    with pytest.raises(SizeMismatch, match="sends 100 bytes, the manifest says 262144"):
        await fetch(client, Repository(client.settings.name, "team/app"), LAYER, 10)


@pytest.mark.parametrize("fault", ["cut", "stall", "cut-and-expire"])
async def test_a_broken_body_is_resumed_from_where_it_broke(
    upstream: UpstreamFactory, connect: Connect, fault: str
) -> None:
    registry = await upstream()
    repository, image = put_image(registry, layer_size=300_000)
    layer = layer_of(image)
    registry.faults.add(fault, kind="cdn", at=100_000, seconds=3.0)
    client = (await connect(registry.url)).client
    content, attempts = await resumed(client, repository, layer)
    assert Digest.of(content) == layer.digest
    assert attempts == 2
    second = registry.log.select(kind="cdn")[1]
    assert second.range is not None
    assert 0 < int(second.range.removeprefix("bytes=").rstrip("-")) <= 100_000


@pytest.mark.parametrize(("fault", "error"), [("cut", NetworkError), ("stall", NetworkError)])
async def test_a_broken_body_is_a_network_error(
    upstream: UpstreamFactory, connect: Connect, fault: str, error: type[PrefetchError]
) -> None:
    registry = await upstream()
    repository, image = put_image(registry, layer_size=300_000)
    registry.faults.add(fault, kind="cdn", at=100_000, seconds=3.0)
    client = (await connect(registry.url)).client
    with pytest.raises(error):
        await fetch(client, repository, layer_of(image))


async def test_a_body_without_a_length_that_ends_early(connect: Connect, serve: Serve) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v2/":
            return web.json_response({})
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(CONTENT[:1000])
        await response.write_eof()
        return response

    server = await serve(answer)
    client = (await connect(server.url)).client
    with pytest.raises(NetworkError, match="stopped after 1000 of 262144 bytes"):
        await fetch(client, Repository(client.settings.name, "team/app"), LAYER)


async def test_a_body_without_a_length_that_does_not_end(connect: Connect, serve: Serve) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v2/":
            return web.json_response({})
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            while True:
                await response.write(CONTENT)
        except ConnectionError:
            return response

    server = await serve(answer)
    client = (await connect(server.url)).client
    with pytest.raises(SizeMismatch, match="the manifest says 262144"):
        await fetch(client, Repository(client.settings.name, "team/app"), LAYER)


@pytest.mark.parametrize("fault", ["truncated", "overlong"])
async def test_a_length_that_is_not_the_manifests(
    upstream: UpstreamFactory, connect: Connect, fault: str
) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    registry.faults.add(fault, kind="cdn")
    client = (await connect(registry.url)).client
    with pytest.raises(SizeMismatch):
        await fetch(client, repository, layer_of(image))


async def test_an_encoded_body_is_named_as_such(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    registry.faults.add("gzip", kind="cdn")
    client = (await connect(registry.url)).client
    with pytest.raises(RegistryError, match="Content-Encoding gzip though identity was asked"):
        await fetch(client, repository, layer_of(image))


async def test_a_web_page_in_place_of_a_blob(upstream: UpstreamFactory, connect: Connect) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    registry.faults.add("html", kind="cdn")
    client = (await connect(registry.url)).client
    with pytest.raises(ServerFault, match="does not look like a registry"):
        await fetch(client, repository, layer_of(image))


async def test_an_expired_link_is_asked_for_anew_at_the_registry(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    registry.faults.add("link-expired", kind="cdn")
    client = (await connect(registry.url)).client
    _, content = await fetch(client, repository, layer_of(image))
    assert Digest.of(content) == layer_of(image).digest
    assert registry.log.counts(kind="blob") == 2
    assert registry.log.counts(kind="token") == 1


async def test_links_that_are_always_refused(upstream: UpstreamFactory, connect: Connect) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    registry.faults.add("link-expired", kind="cdn", count=None)
    client = (await connect(registry.url)).client
    with pytest.raises(Unauthorized) as caught:
        await fetch(client, repository, layer_of(image))
    assert not caught.value.retryable
    assert registry.log.counts(kind="blob") == 3


async def test_an_expired_token_is_renewed_for_a_blob(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    client = (await connect(registry.url)).client
    await client.resolve(repository, "latest")
    registry.doorkeeper.revoke()
    _, content = await fetch(client, repository, layer_of(image))
    assert Digest.of(content) == layer_of(image).digest


async def test_faults_of_opening_are_left_to_who_resumes(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    registry.faults.add("server-error", kind="blob", headers={})
    client = (await connect(registry.url)).client
    with pytest.raises(ServerFault):
        await fetch(client, repository, layer_of(image))
    assert registry.log.counts(kind="blob") == 1


async def test_leaving_in_mid_body_frees_the_slot(connect: Connect, serve: Serve) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=CONTENT)

    server = await serve(answer)
    client = (await connect(server.url, max_concurrency=1)).client
    repository = Repository(client.settings.name, "team/app")
    async with client.open_blob(repository, LAYER) as stream:
        await anext(stream.chunks)
    async with asyncio.timeout(2):
        assert await fetch(client, repository, LAYER) == (0, CONTENT)


async def test_no_more_blobs_at_once_than_slots(connect: Connect, serve: Serve) -> None:
    running = most = 0

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal running, most
        if request.path == "/v2/":
            return web.json_response({})
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return web.Response(body=CONTENT)

    server = await serve(answer)
    client = (await connect(server.url, max_concurrency=3)).client
    repository = Repository(client.settings.name, "team/app")
    await asyncio.gather(*(fetch(client, repository, LAYER) for _ in range(20)))
    # One slot is left to what is small.
    assert most == 2


async def test_an_empty_blob(connect: Connect, serve: Serve) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"")

    server = await serve(answer)
    client = (await connect(server.url)).client
    empty = Descriptor("application/octet-stream", Digest.of(b""), 0)
    assert await fetch(client, Repository(client.settings.name, "team/app"), empty) == (0, b"")


def foreign(*urls: str) -> Descriptor:
    return Descriptor(LAYER.media_type, LAYER.digest, LAYER.size, urls=urls)


async def test_a_foreign_layer_comes_from_its_url_once_the_registry_lacks_it(
    connect: Connect, serve: Serve
) -> None:
    async def elsewhere(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=CONTENT)

    async def lacks(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({}, status=200 if request.path == "/v2/" else 404)

    other, server = await serve(elsewhere), await serve(lacks)
    client = (await connect(server.url)).client
    repository = Repository(client.settings.name, "team/app")
    layer = foreign("not a url", "ftp://x/y", f"{other.url}/layer")
    assert await fetch(client, repository, layer) == (0, CONTENT)
    assert len(server.seen) == 2
    assert "Authorization" not in other.seen[0].headers


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest/meta-data", "https://u:p@cdn.example/x", "file:///x"]
)
async def test_a_foreign_layer_from_where_we_must_not_go(
    upstream: UpstreamFactory, connect: Connect, url: str
) -> None:
    registry = await upstream()
    repository, _ = put_image(registry)
    client = (await connect(registry.url)).client
    with pytest.raises(ForbiddenAddress):
        await fetch(client, repository, foreign(url))


async def test_a_foreign_layer_that_is_nowhere(connect: Connect, serve: Serve) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=200 if request.path == "/v2/" else 404)

    server = await serve(answer)
    client = (await connect(server.url)).client
    layer = foreign(f"{server.url}/layer")
    with pytest.raises(NotFound, match="foreign layer"):
        await fetch(client, Repository(client.settings.name, "team/app"), layer)


@pytest.mark.parametrize(
    ("location", "error"),
    [
        ("http://169.254.169.254/latest/meta-data", ForbiddenAddress),
        ("http://[::ffff:169.254.169.254]/", ForbiddenAddress),
        ("file:///etc/passwd", ForbiddenAddress),
        ("gopher://127.0.0.1/", ForbiddenAddress),
        ("http://user:secret@127.0.0.1/", ForbiddenAddress),
        ("http://[", ServerFault),
        ("", ServerFault),
        ("http://127.0.0.1:99999/", ServerFault),
    ],
)
async def test_a_malicious_location(
    upstream: UpstreamFactory, connect: Connect, location: str, error: Any
) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    registry.faults.add("redirect", kind="blob", text=location, count=None)
    client = (await connect(registry.url)).client
    with pytest.raises(error) as caught:
        await fetch(client, repository, layer_of(image))
    assert "secret" not in str(caught.value)


async def test_redirects_end(upstream: UpstreamFactory, connect: Connect) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    registry.faults.add("redirect-loop", kind="blob", count=None)
    client = (await connect(registry.url)).client
    with pytest.raises(ServerFault, match="redirects more than 10 times"):
        await fetch(client, repository, layer_of(image))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_every_kind_of_redirect_is_followed_as_it_is_written(
    connect: Connect, serve: Serve, status: int
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v2/":
            return web.json_response({})
        if request.path.startswith("/v2/"):
            where = "/signed%2Fpath?sig=a%2Bb%2F%3D&x=%41"
            return web.Response(status=status, headers={"Location": where})
        return web.Response(body=request.raw_path.encode())

    server = await serve(answer)
    client = (await connect(server.url)).client
    expected = b"/signed%2Fpath?sig=a%2Bb%2F%3D&x=%41"
    descriptor = Descriptor("text/plain", Digest.of(expected), len(expected))
    repository = Repository(client.settings.name, "team/app")
    assert await fetch(client, repository, descriptor) == (0, expected)


async def test_what_is_only_wanted_if_cached_says_so_to_the_registry_alone(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream(cdn=True)
    repository, made = put_image(registry)
    asking = replace(IMPATIENT, only_if_cached=True)
    client = (await connect(registry.url, transport=asking)).client
    await client.resolve(repository, "latest")
    await fetch(client, repository, layer_of(made))
    told = {request.kind: request.cache_control for request in registry.log}
    asked = "only-if-cached"
    told.pop("ping")
    assert told == {"manifest": asked, "token": None, "blob": asked, "cdn": None}
