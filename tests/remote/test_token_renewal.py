"""Tokens that were revoked before they could be used, and those that never help."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from remote_support import SOME_DIGEST, Connect, Serve, challenge, found, put_image

from prefetch.demo.tokens import Account
from prefetch.errors import NotFound, Unauthorized
from prefetch.oci.model import OCI_INDEX
from prefetch.oci.reference import Digest, Repository
from support.factories import UpstreamFactory

ACCOUNTS = {"alice": Account(password="correct horse")}
LIMITS = {"ratelimit-limit": "100;w=60", "ratelimit-remaining": "90;w=60"}


async def test_a_token_revoked_before_its_first_use_is_renewed(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    repository, _ = put_image(registry)
    registry.faults.add("expired-token", kind="manifest", method="HEAD")
    client = (await connect(registry.url)).client
    assert (await client.resolve(repository, "latest")).digest is not None
    assert registry.log.counts(kind="token") == 2
    assert registry.log.counts(kind="manifest") == 2


async def test_a_token_revoked_while_its_request_waited_is_renewed(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    repository, _ = put_image(registry)
    registry.faults.add("server-error", kind="manifest", method="HEAD")
    registry.faults.add("expired-token", kind="manifest", method="HEAD", nth=2)
    client = (await connect(registry.url)).client
    assert (await client.resolve(repository, "latest")).digest is not None
    assert registry.log.counts(kind="token") == 2


async def test_tokens_that_are_revoked_each_time_are_given_up_after_the_second(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    repository, _ = put_image(registry)
    registry.faults.add("expired-token", kind="manifest", count=None)
    client = (await connect(registry.url)).client
    with pytest.raises(Unauthorized):
        await client.resolve(repository, "latest")
    assert registry.log.counts(kind="token") == registry.log.counts(kind="manifest") == 2
    with pytest.raises(Unauthorized):
        await client.resolve(repository, "latest")
    assert registry.log.counts(kind="token") == 2
    assert registry.log.counts(kind="manifest") == 3


async def test_many_requests_at_once_share_the_second_token(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    repository, _ = put_image(registry)
    registry.faults.add("expired-token", kind="manifest", method="HEAD")
    client = (await connect(registry.url)).client
    await asyncio.gather(*(client.resolve(repository, "latest") for _ in range(8)))
    assert registry.log.counts(kind="token") == 2
    assert registry.log.counts(kind="manifest") <= 16


async def test_after_a_success_a_token_may_be_revoked_early_again(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    repository, _ = put_image(registry)
    client = (await connect(registry.url)).client
    await client.resolve(repository, "latest")
    for _ in range(3):
        # The one that has worked, and the one that takes its place.
        registry.faults.add("expired-token", kind="manifest", method="HEAD", count=2)
        assert (await client.resolve(repository, "latest")).digest is not None


async def test_a_good_token_for_nothing_of_ours_is_not_renewed(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    """`insufficient_scope`: the registry knows the token, and it is not for this repository."""
    registry = await upstream(accounts=ACCOUNTS)
    repository, _ = put_image(registry, readers=("alice",))
    client = (await connect(registry.url)).client
    with pytest.raises(Unauthorized, match="none are configured"):
        await client.resolve(repository, "latest")
    assert registry.log.counts(kind="token") == registry.log.counts(kind="manifest") == 1


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_without_a_reason_costs_one_more_of_each(
    connect: Connect, serve: Serve, status: int
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response({"token": f"token-{len(server.seen)}"})
        refusal = challenge(server)
        refusal.set_status(401 if request.path == "/v2/" else status)
        return refusal

    server = await serve(answer)
    client = (await connect(server.url)).client
    repository = Repository(client.settings.name, "team/app")
    with pytest.raises(Unauthorized):
        await client.resolve(repository, "latest")
    assert server.paths().count("GET /token") == 2
    assert server.paths().count("HEAD /v2/team/app/manifests/latest") == 2
    with pytest.raises(Unauthorized):
        await client.tags(repository)
    assert server.paths().count("GET /token") == 2


async def test_no_pull_is_sent_again_where_no_token_has_ever_worked(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream(limit=100)
    other, _ = put_image(registry, "team/other")
    repository, image = put_image(registry)
    client = (await connect(registry.url)).client
    # The meter has been read, so that the repository's first request is its pull.
    await client.resolve(other, "latest")
    registry.faults.add("expired-token", kind="manifest", method="GET")
    with pytest.raises(Unauthorized):
        await client.manifest(repository, image.digest, hold=None)
    assert registry.log.counts(kind="manifest", repository="team/app") == 1
    assert client.pulls == 1
    # A free request then finds out that it had only been revoked.
    await client.resolve(repository, "latest")
    assert (await client.manifest(repository, image.digest, hold=None)).raw == image.raw
    assert (client.pulls, registry.log.pulls) == (2, 1)


async def test_pulls_at_once_survive_a_token_that_had_worked(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream(limit=100)
    made = [put_image(registry, "team/app", tags=(f"v{n}",)) for n in range(6)]
    repository = made[0][0]
    client = (await connect(registry.url)).client
    await client.resolve(repository, "v0")
    registry.doorkeeper.revoke()
    await asyncio.gather(
        *(client.manifest(repository, image.digest, hold=None) for _, image in made)
    )
    assert registry.log.counts(kind="manifest", method="GET", status=401) > 1
    assert registry.log.pulls == 6
    assert registry.log.counts(kind="token") == 2


async def test_pulls_at_once_survive_a_token_that_was_shared_in_vain(
    connect: Connect, serve: Serve
) -> None:
    """A service that grants only the first of several: the others' pulls get their own token."""
    body = (
        b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
    )
    waiting = asyncio.Barrier(2)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response({"token": request.query["scope"].split(":")[1]})
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if request.method == "HEAD":
            return web.Response(headers={"Docker-Content-Digest": SOME_DIGEST, **LIMITS})
        if request.path.startswith(f"/v2/{given}/") and given:
            return web.Response(body=body, content_type=OCI_INDEX, headers=LIMITS)
        if given:
            # Both are refused before either may try again.
            await asyncio.wait_for(waiting.wait(), 5)
        return challenge(server)

    server = await serve(answer)
    client = (await connect(server.url)).client
    first, second = (Repository(client.settings.name, f"team/{name}") for name in "ab")
    await client.prepare([first, second])
    await client.resolve(first, "latest")
    digest = str(Digest.of(body))
    await asyncio.gather(*(client.manifest(second, digest, hold=None) for _ in range(2)))
    assert server.paths().count("GET /token") == 2
    assert server.paths().count(f"GET /v2/team/b/manifests/{digest}") == 4


async def test_no_pull_is_sent_again_for_a_token_that_another_request_has_renewed(
    connect: Connect, serve: Serve
) -> None:
    """Unless that one has worked, which a 404 does not show."""
    pulled, renewed = asyncio.Event(), asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response({"token": f"token-{server.paths().count('GET /token')}"})
        if request.path.startswith("/v2/team/other/"):
            return web.Response(headers={"Docker-Content-Digest": SOME_DIGEST, **LIMITS})
        if request.headers.get("Authorization") == "Bearer token-3":
            renewed.set()
            return web.Response(status=404)
        if request.method == "HEAD":
            await asyncio.wait_for(pulled.wait(), 5)
        elif request.path != "/v2/":
            pulled.set()
            await asyncio.wait_for(renewed.wait(), 5)
        return challenge(server)

    server = await serve(answer)
    client = (await connect(server.url)).client
    await client.resolve(Repository(client.settings.name, "team/other"), "latest")
    repository = Repository(client.settings.name, "team/app")
    pull, look = await asyncio.gather(
        client.manifest(repository, SOME_DIGEST, hold=None),
        client.resolve(repository, "latest"),
        return_exceptions=True,
    )
    assert isinstance(pull, Unauthorized)
    assert isinstance(look, NotFound)
    assert server.paths().count(f"GET /v2/team/app/manifests/{SOME_DIGEST}") == 1


async def test_a_token_that_helps_is_kept(connect: Connect, serve: Serve) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response({"token": f"token-{len(server.seen)}"})
        if "Authorization" not in request.headers:
            return challenge(server)
        return found() if request.path.endswith("/latest") else web.Response(status=404)

    server = await serve(answer)
    client = (await connect(server.url)).client
    repository = Repository(client.settings.name, "team/app")
    await client.resolve(repository, "latest")
    for tag in ("a", "b"):
        with pytest.raises(NotFound):
            await client.resolve(repository, tag)
    assert server.paths().count("GET /token") == 1
