"""Each fault does what it says, to the requests it was ordered for and no others."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import time
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from prefetch.demo.images import Image, manifest
from prefetch.demo.layers import layer
from prefetch.demo.misbehaviour import EDITS, REFUSALS
from prefetch.demo.upstream import Upstream
from prefetch.errors import UsageError
from support.clock import ManualClock
from support.factories import UpstreamFactory
from support.http import bearer


@dataclass(frozen=True)
class Shop:
    """An upstream with one image, and a client before it."""

    upstream: Upstream
    session: aiohttp.ClientSession
    image: Image

    def order(self, name: str, **details: Any) -> None:
        self.upstream.faults.add(name, **details)

    async def manifest(self, method: str = "GET", **options: Any) -> aiohttp.ClientResponse:
        url = f"{self.upstream.url}/v2/app/manifests/1"
        return await self.session.request(method, url, allow_redirects=False, **options)

    async def blob(self, start: int | None = None) -> aiohttp.ClientResponse:
        url = f"{self.upstream.url}/v2/app/blobs/{self.content.digest}"
        return await self.session.get(
            url, headers={} if start is None else {"Range": f"bytes={start}-"}
        )

    @property
    def content(self) -> Any:
        return self.image.blobs[-1]


async def authorization(running: Upstream, session: aiohttp.ClientSession) -> dict[str, str]:
    answer = await session.get(f"{running.doorkeeper.realm}?scope=repository:app:pull")
    return bearer((await answer.json())["token"])


@pytest.fixture
async def shop(
    upstream: UpstreamFactory, session: aiohttp.ClientSession, clock: ManualClock
) -> Shop:
    running = await upstream(auth="none", cdn=False, clock=clock)
    made = manifest("app", layers=[layer("app", 1000)])
    return Shop(running, session, running.content.put("app", made, "1"))


async def test_faults_are_told_apart_by_request_occurrence_and_count(shop: Shop) -> None:
    shop.order("server-error", method="GET", kind="manifest", reference="1", nth=2, count=2)
    heads = [(await shop.manifest("HEAD")).status for _ in range(4)]
    gets = [(await shop.manifest()).status for _ in range(5)]

    assert heads == [200] * 4
    assert gets == [200, 503, 503, 200, 200]
    assert shop.upstream.faults.struck("server-error") == 2
    assert shop.upstream.log.pulls == 3


async def test_chance_is_repeatable(shop: Shop) -> None:
    shop.order("server-error", probability=0.5, count=None)
    first = [(await shop.manifest("HEAD")).status for _ in range(40)]
    shop.upstream.faults.clear()
    shop.order("server-error", probability=0.5, count=None)
    second = [(await shop.manifest("HEAD")).status for _ in range(40)]

    assert first == second
    assert 5 < first.count(503) < 35


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(UsageError, match="no fault is called 'flood'"):
        Upstream().faults.add("flood")


async def test_a_challenge_uses_no_fault_up(
    upstream: UpstreamFactory, session: aiohttp.ClientSession
) -> None:
    running = await upstream()
    running.content.put("app", manifest("app"), "1")
    running.faults.add("server-error", kind="manifest")
    url = f"{running.url}/v2/app/manifests/1"

    challenge = await session.head(url)
    issued = await (
        await session.get(f"{running.doorkeeper.realm}?scope=repository:app:pull")
    ).json()
    struck = await session.head(url, headers={"Authorization": f"Bearer {issued['token']}"})

    assert (challenge.status, struck.status) == (401, 503)


@pytest.mark.parametrize(
    ("name", "details", "status", "text"),
    [
        ("pull-limit", {}, 429, "You have reached your unauthenticated pull rate limit"),
        ("throttle", {"retry_after": "none"}, 429, "Too Many Requests (HAP429)"),
        ("secondary-limit", {}, 403, "secondary rate limit"),
        ("expired-token", {}, 401, "UNAUTHORIZED"),
        ("link-expired", {}, 403, "Request has expired"),
        ("server-error", {"status": 500}, 500, "upstream connect error"),
        ("html", {}, 200, "<!DOCTYPE html>"),
        ("not-allowed", {}, 405, "UNSUPPORTED"),
        ("not-found", {}, 404, "MANIFEST_UNKNOWN"),
    ],
)
async def test_refusals(
    shop: Shop, name: str, details: dict[str, Any], status: int, text: str
) -> None:
    shop.order(name, **details)
    answer = await shop.manifest()
    assert answer.status == status
    assert text in await answer.text()
    assert shop.upstream.log.pulls == 0


async def test_throttling_names_its_end_in_every_form(shop: Shop, clock: ManualClock) -> None:
    end = clock.now() + timedelta(seconds=90)
    values = {}
    for form in ("seconds", "date", "epoch", "duration"):
        shop.order("throttle", retry_after=form, seconds=90)
        values[form] = (await shop.manifest("HEAD")).headers["Retry-After"]

    assert values["seconds"] == "90"
    assert parsedate_to_datetime(values["date"]) == end
    assert values["epoch"] == str(int(end.timestamp()))
    assert values["duration"] == "90000.000ms"


@pytest.mark.parametrize("location", ["file:///etc/passwd", "http://169.254.169.254/latest/"])
async def test_redirects_lead_astray(shop: Shop, location: str) -> None:
    shop.order("redirect", text=location)
    astray = await shop.manifest()
    assert (astray.status, astray.headers["Location"]) == (307, location)

    shop.upstream.faults.clear()
    shop.order("redirect-loop")
    loop = await shop.manifest()
    assert loop.headers["Location"] == "/v2/app/manifests/1"


@pytest.mark.parametrize("realm", ["file:///etc/passwd", "http://169.254.169.254/token"])
async def test_a_realm_that_is_somewhere_else(
    upstream: UpstreamFactory, session: aiohttp.ClientSession, realm: str
) -> None:
    running = await upstream()
    running.faults.add("bad-realm", text=realm)
    answer = await session.get(f"{running.url}/v2/")
    assert f'Bearer realm="{realm}"' in answer.headers["WWW-Authenticate"]


async def test_a_huge_manifest_is_streamed(shop: Shop) -> None:
    shop.order("huge-manifest")
    answer = await shop.manifest()
    first = await answer.content.readexactly(1000)
    answer.close()
    assert int(answer.headers["Content-Length"]) > 200 << 20
    assert first.startswith(b'{"schemaVersion":2')


async def test_headers_that_are_missing_blank_or_wrong(shop: Shop) -> None:
    async def headers(name: str, **details: Any) -> Any:
        shop.upstream.faults.clear()
        shop.order(name, **details)
        return (await shop.manifest("HEAD")).headers

    assert "ratelimit-remaining" not in await headers("no-rate-headers")
    assert (await headers("blank-rate-headers"))["ratelimit-remaining"] == ";w=21600"
    assert "Docker-Content-Digest" not in await headers("no-digest")
    assert (await headers("wrong-digest"))["Docker-Content-Digest"] == "sha256:" + "0" * 64
    hostile = await headers("wrong-digest", text="sha256:../../etc/passwd")
    assert hostile["Docker-Content-Digest"] == "sha256:../../etc/passwd"
    assert "Content-Length" not in await headers("no-length")
    assert (await headers("wrong-type", text="text/html"))["Content-Type"] == "text/html"
    changed = await headers("headers", headers={"Warning": '299 - "old"', "ratelimit-limit": None})
    assert changed["Warning"] == '299 - "old"'
    assert "ratelimit-limit" not in changed


async def test_a_body_without_length_is_whole(shop: Shop) -> None:
    shop.order("no-length")
    answer = await shop.blob()
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert await answer.read() == shop.content.read()


async def test_ranges_ignored_and_wrong(shop: Shop) -> None:
    shop.order("ignored-range")
    ignored = await shop.blob(start=100)
    shop.upstream.faults.clear()
    shop.order("wrong-range")
    wrong = await shop.blob(start=100)

    assert (ignored.status, await ignored.read()) == (200, shop.content.read())
    assert wrong.status == 206
    assert wrong.headers["Content-Range"].startswith("bytes 99-")
    assert await wrong.read() == shop.content.read(99)


async def test_a_cut_body(shop: Shop) -> None:
    shop.order("cut", kind="blob", at=300)
    answer = await shop.blob()
    with pytest.raises(aiohttp.ClientPayloadError):
        await answer.read()
    assert int(answer.headers["Content-Length"]) == shop.content.size
    assert shop.upstream.log.select(kind="blob")[0].bytes_sent == 300
    assert await (await shop.blob(start=300)).read() == shop.content.read(300)


async def test_a_token_that_expires_in_mid_blob(
    upstream: UpstreamFactory, session: aiohttp.ClientSession
) -> None:
    running = await upstream(cdn=False)
    made = running.content.put("app", manifest("app"), "1")
    running.faults.add("cut-and-expire", kind="blob")
    issued = await (
        await session.get(f"{running.doorkeeper.realm}?scope=repository:app:pull")
    ).json()
    headers = {"Authorization": f"Bearer {issued['token']}"}
    url = f"{running.url}/v2/app/blobs/{made.blobs[-1].digest}"

    answer = await session.get(url, headers=headers)
    with pytest.raises(aiohttp.ClientPayloadError):
        await answer.read()
    assert (await session.get(url, headers=headers)).status == 401


async def test_a_closed_connection(shop: Shop) -> None:
    shop.order("reset", count=None)
    with pytest.raises(aiohttp.ClientConnectionError):
        await shop.manifest("POST")


async def test_bodies_too_short_too_long_and_corrupt(shop: Shop) -> None:
    honest = shop.content.read()

    async def body(name: str, **details: Any) -> bytes:
        shop.upstream.faults.clear()
        shop.order(name, **details)
        return await (await shop.blob()).read()

    assert await body("truncated", at=10) == honest[:10]
    assert await body("overlong") == honest + b"!"
    corrupt = await body("corrupt", at=500)
    assert len(corrupt) == len(honest)
    assert [at for at, byte in enumerate(corrupt) if byte != honest[at]] == [500]


async def test_forced_compression(shop: Shop) -> None:
    shop.order("gzip")
    answer = await shop.manifest()
    assert answer.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(await answer.read()) == shop.image.raw


async def test_a_tag_that_moves_after_its_head(shop: Shop) -> None:
    other = shop.upstream.content.put("app", manifest("other"))
    shop.order("tag-moves", method="HEAD", text=other.digest)
    head, get = await shop.manifest("HEAD"), await shop.manifest()
    assert head.headers["Docker-Content-Digest"] == shop.image.digest
    assert get.headers["Docker-Content-Digest"] == other.digest


async def test_stalled_and_slow_bodies(
    upstream: UpstreamFactory, session: aiohttp.ClientSession
) -> None:
    running = await upstream(auth="none", cdn=False)
    shop = Shop(running, session, running.content.put("app", manifest("app"), "1"))
    shop.order("stall", kind="blob", at=100, seconds=30)
    shop.order("slow", kind="manifest", bytes_per_second=2 * len(shop.image.raw))

    stalled = await shop.blob()
    assert await stalled.content.readexactly(100) == shop.content.read(0, 100)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await stalled.content.read(1)
    stalled.close()
    began = time.monotonic()
    assert hashlib.sha256(await (await shop.manifest()).read()).hexdigest() in shop.image.digest
    assert time.monotonic() - began > 0.3


def test_every_fault_says_what_it_does() -> None:
    assert not REFUSALS.keys() & EDITS.keys()
    for function in [*REFUSALS.values(), *EDITS.values()]:
        assert function.__doc__
