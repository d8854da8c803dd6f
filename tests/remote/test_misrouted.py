"""Ways that lead to no registry: asked once, whatever is asked, and a pull is spent once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from remote_support import Connect, Serve, challenge, layer_of, put_image

from prefetch.errors import Misrouted, ServerFault
from prefetch.oci.reference import Digest, Repository
from support.factories import UpstreamFactory

PAGE = "answered with a web page.*does not look like a registry; check the endpoint"
CIRCLE = "redirects more than 10 times"
# The fault, and what the error says with the requests that one attempt takes.
WAYS = [("html", (PAGE, 1)), ("redirect-loop", (CIRCLE, 11))]

SpendsOf = Callable[[], list[str]]


@pytest.fixture
def spends(tmp_path: Path) -> SpendsOf:
    """The digests of the pulls that the ledger has on its books."""

    def read() -> list[str]:
        with sqlite3.connect(tmp_path / "prefetch.db") as database:
            rows = database.execute("SELECT digest FROM spends WHERE method = 'GET'").fetchall()
        database.close()
        return [digest for (digest,) in rows]

    return read


def test_it_is_a_server_fault_that_no_retry_mends() -> None:
    assert issubclass(Misrouted, ServerFault)
    assert Misrouted.code == ServerFault.code == "SERVER_FAULT"
    assert ServerFault.retryable
    assert not Misrouted.retryable


@pytest.mark.parametrize(("fault", "outcome"), WAYS)
async def test_a_pull_is_spent_once(
    upstream: UpstreamFactory,
    connect: Connect,
    spends: SpendsOf,
    fault: str,
    outcome: tuple[str, int],
) -> None:
    says, requests = outcome
    registry = await upstream()
    repository, image = put_image(registry)
    registry.faults.add(fault, method="GET", kind="manifest", count=None)
    client = (await connect(registry.url)).client
    with pytest.raises(Misrouted, match=says) as caught:
        await client.manifest(repository, image.digest, hold=None)
    assert caught.value.code == "SERVER_FAULT"
    assert caught.value.url
    assert spends() == [image.digest]
    assert client.pulls == 1
    assert registry.log.counts(kind="manifest", method="GET") == requests


@pytest.mark.parametrize("fault", ["html", "redirect-loop"])
async def test_a_fault_that_passes_may_still_come_first(
    upstream: UpstreamFactory, connect: Connect, spends: SpendsOf, fault: str
) -> None:
    registry = await upstream()
    repository, image = put_image(registry)
    registry.faults.add("server-error", method="GET", kind="manifest")
    registry.faults.add(fault, method="GET", kind="manifest", nth=2, count=None)
    client = (await connect(registry.url)).client
    with pytest.raises(Misrouted):
        await client.manifest(repository, image.digest, hold=None)
    assert spends() == [image.digest] * 2


@pytest.mark.parametrize(("fault", "outcome"), WAYS)
async def test_free_requests_are_not_repeated_either(
    upstream: UpstreamFactory, connect: Connect, fault: str, outcome: tuple[str, int]
) -> None:
    says, requests = outcome
    registry = await upstream()
    repository, image = put_image(registry)
    client = (await connect(registry.url)).client
    await client.resolve(repository, "latest")
    registry.faults.add(fault, count=None)
    for attempt in (
        client.resolve(repository, "latest"),
        client.tags(repository),
        client.blob_size(repository, Digest.parse(image.blobs[0].digest)),
    ):
        asked = len(registry.log)
        with pytest.raises(Misrouted, match=says):
            await attempt
        assert len(registry.log) == asked + requests


@pytest.mark.parametrize(("fault", "outcome"), WAYS)
async def test_a_blob_does_not_invite_its_writer_to_try_again(
    upstream: UpstreamFactory, connect: Connect, fault: str, outcome: tuple[str, int]
) -> None:
    says, requests = outcome
    registry = await upstream(cdn=False)
    repository, image = put_image(registry)
    registry.faults.add(fault, kind="blob", count=None)
    client = (await connect(registry.url)).client
    with pytest.raises(Misrouted, match=says) as caught:
        async with client.open_blob(repository, layer_of(image)):
            pass
    assert not caught.value.retryable
    assert registry.log.counts(kind="blob") == requests


@pytest.mark.parametrize("where", ["/v2/", "/token"])
async def test_circles_before_anything_was_asked(
    connect: Connect, serve: Serve, where: str
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == where:
            raise web.HTTPTemporaryRedirect(request.path)
        return challenge(server)

    server = await serve(answer)
    client = (await connect(server.url)).client
    with pytest.raises(Misrouted, match=CIRCLE):
        await client.manifest(Repository(client.settings.name, "team/app"), "latest", hold=None)
    assert server.paths().count(f"GET {where}") == 11
    assert client.pulls == 0


async def test_a_long_way_that_ends_is_no_circle(connect: Connect, serve: Serve) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        hop = int(request.query.get("hop", "0"))
        if request.path != "/v2/" and hop < 10:
            raise web.HTTPTemporaryRedirect(f"{request.path}?hop={hop + 1}")
        return web.json_response({"tags": ["a"]})

    server = await serve(answer)
    client = (await connect(server.url)).client
    assert await client.tags(Repository(client.settings.name, "team/app")) == ["a"]
