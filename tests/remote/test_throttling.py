"""Throttling: who waits, how long, and what is told."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from aiohttp import web
from remote_support import Connect, Serve, layer_of, put_image

from prefetch.errors import ServerFault, Throttled
from prefetch.events import Slowed, ThrottleEvent
from prefetch.oci.reference import Repository
from support.clock import ManualClock
from support.factories import UpstreamFactory


@pytest.mark.parametrize("form", ["seconds", "date", "epoch", "duration"])
async def test_retry_after_in_every_form(
    upstream: UpstreamFactory, connect: Connect, clock: ManualClock, form: str
) -> None:
    registry = await upstream(clock=clock)
    repository, _ = put_image(registry)
    registry.faults.add("throttle", kind="manifest", seconds=60.0, retry_after=form)
    connected = await connect(registry.url, clock=clock)
    began = clock.now()
    assert (await connected.client.resolve(repository, "latest")).digest is not None
    waited = (clock.now() - began).total_seconds()
    assert 59 <= waited <= 75
    slowed, event = connected.events
    assert slowed == Slowed(registry.address, 10.0)
    assert isinstance(event, ThrottleEvent)
    assert event.registry == registry.address
    assert event.until - began >= timedelta(seconds=59)


async def test_without_retry_after_the_wait_grows(
    upstream: UpstreamFactory, connect: Connect, clock: ManualClock
) -> None:
    registry = await upstream(clock=clock)
    repository, _ = put_image(registry)
    registry.faults.add("throttle", kind="manifest", retry_after="none", count=4)
    connected = await connect(registry.url, clock=clock)
    began = clock.monotonic()
    await connected.client.resolve(repository, "latest")
    assert 1 + 2 + 4 + 8 <= clock.monotonic() - began <= 1.25 * (1 + 2 + 4 + 8) + 5
    assert registry.log.counts(kind="manifest") == 5


async def test_throttling_that_does_not_end_is_given_up(
    upstream: UpstreamFactory, connect: Connect, clock: ManualClock
) -> None:
    registry = await upstream(clock=clock)
    repository, _ = put_image(registry)
    registry.faults.add("throttle", kind="manifest", retry_after="none", count=None)
    connected = await connect(registry.url, clock=clock)
    with pytest.raises(Throttled, match="answered 429"):
        await connected.client.resolve(repository, "latest")
    assert registry.log.counts(kind="manifest") == 8


async def test_what_a_registry_may_ask_for_is_bounded(
    upstream: UpstreamFactory, connect: Connect, clock: ManualClock
) -> None:
    registry = await upstream(clock=clock)
    repository, _ = put_image(registry)
    registry.faults.add("throttle", kind="manifest", seconds=80_000.0)
    connected = await connect(registry.url, clock=clock)
    began = clock.monotonic()
    await connected.client.resolve(repository, "latest")
    assert clock.monotonic() - began <= 330


async def test_every_request_waits_whoever_was_throttled(
    upstream: UpstreamFactory, connect: Connect, clock: ManualClock
) -> None:
    registry = await upstream(clock=clock)
    repository, image = put_image(registry)
    connected = await connect(registry.url, clock=clock)
    await connected.client.resolve(repository, "latest")
    await connected.ledger.throttled(registry.address, 30.0)
    began = clock.monotonic()
    await connected.client.manifest(repository, image.digest, hold=None)
    assert clock.monotonic() - began >= 29.9


async def test_requests_that_were_throttled_together_teach_once(
    upstream: UpstreamFactory, connect: Connect
) -> None:
    registry = await upstream()
    repository, _ = put_image(registry)
    registry.faults.add("throttle", kind="manifest", retry_after="none", count=8)
    connected = await connect(registry.url)
    await asyncio.gather(*(connected.client.resolve(repository, "latest") for _ in range(8)))
    assert [each for each in connected.events if isinstance(each, Slowed)] == [
        Slowed(registry.address, 10.0)
    ]


async def test_what_another_origin_says_teaches_nothing(
    upstream: UpstreamFactory, connect: Connect, clock: ManualClock
) -> None:
    registry = await upstream(clock=clock)
    repository, image = put_image(registry)
    registry.faults.add("throttle", kind="cdn", seconds=20.0)
    connected = await connect(registry.url, clock=clock)
    async with connected.client.open_blob(repository, layer_of(image)):
        pass
    assert registry.faults.struck("throttle") == 1
    assert [type(event) for event in connected.events] == [ThrottleEvent]


async def test_another_process_waits_as_well(
    upstream: UpstreamFactory, connect: Connect, clock: ManualClock
) -> None:
    registry = await upstream(clock=clock)
    repository, _ = put_image(registry)
    one = await connect(registry.url, clock=clock)
    other = await connect(registry.url, clock=clock)
    await one.ledger.throttled(registry.address, 30.0)
    began = clock.monotonic()
    await other.client.resolve(repository, "latest")
    assert clock.monotonic() - began >= 29.9


@pytest.mark.parametrize("kind", ["token", "ping", "tags", "blob"])
async def test_throttled_anywhere(
    upstream: UpstreamFactory, connect: Connect, clock: ManualClock, kind: str
) -> None:
    registry = await upstream(clock=clock, auth="none" if kind == "ping" else "token")
    repository, image = put_image(registry)
    registry.faults.add("throttle", kind=kind, seconds=20.0)
    connected = await connect(registry.url, clock=clock)
    began = clock.monotonic()
    await connected.client.tags(repository)
    async with connected.client.open_blob(repository, layer_of(image)) as stream:
        assert stream.offset == 0
    assert 20 <= clock.monotonic() - began <= 26
    assert registry.faults.struck("throttle") == 1


async def test_a_secondary_limit_is_throttling(
    upstream: UpstreamFactory, connect: Connect, clock: ManualClock
) -> None:
    registry = await upstream(clock=clock)
    repository, image = put_image(registry)
    registry.faults.add("secondary-limit", method="GET", kind="manifest")
    connected = await connect(registry.url, clock=clock)
    assert (await connected.client.manifest(repository, image.digest, hold=None)).raw == image.raw
    assert [type(event) for event in connected.events[-2:]].count(ThrottleEvent) == 1


@pytest.mark.parametrize("kind", ["text/html", "text/plain"])
async def test_429_is_throttling_whatever_page_comes_with_it(
    connect: Connect, serve: Serve, clock: ManualClock, kind: str
) -> None:
    answers = [web.Response(status=429, text="<html>slow down</html>", content_type=kind)]

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v2/":
            return web.json_response({})
        return answers.pop() if answers else web.json_response({"tags": ["1"]})

    server = await serve(answer)
    connected = await connect(server.url, clock=clock)
    repository = Repository(connected.client.settings.name, "team/app")
    assert await connected.client.tags(repository) == ["1"]
    assert [type(event) for event in connected.events] == [Slowed, ThrottleEvent]


@pytest.mark.parametrize(("asked", "least"), [("40", 40.0), ("9999", 300.0), (None, 0.0)])
async def test_5xx_honours_retry_after_within_bounds(
    connect: Connect, serve: Serve, clock: ManualClock, asked: str | None, least: float
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v2/":
            return web.json_response({})
        headers = {} if asked is None else {"Retry-After": asked}
        return web.Response(status=503, headers=headers, text="<html>", content_type="text/html")

    server = await serve(answer)
    connected = await connect(server.url, clock=clock)
    began = clock.monotonic()
    with pytest.raises(ServerFault, match="answered 503 Service Unavailable"):
        await connected.client.tags(Repository(connected.client.settings.name, "team/app"))
    assert 4 * least <= clock.monotonic() - began <= 4 * least + 1
    assert not connected.events
