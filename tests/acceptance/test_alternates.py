"""Alternates: what they have costs the limited registry nothing, and their lies nobody anything."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from acceptance_support import outcomes
from alternates_support import PLATFORM, PREFIX, PRICE, Island, named, wanted

from prefetch.demo.images import image
from prefetch.demo.upstream import Upstream
from support.factories import UpstreamFactory
from support.processes import CommandLine, free_port

JSON = ("-o", "json")


async def test_forty_images_that_an_alternate_has_cost_nothing(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    island = Island(cli, await upstream(limit=100), 40)
    alternate = island.copied(await upstream(limit=None))
    island.configure([alternate])

    plan = (await island("plan", *JSON)).json
    done = await island("sync", *JSON)

    assert done.code == 0, done.stderr
    assert island.limited.log.pulls == done.json["totals"]["pulls"] == 0
    assert done.json["totals"]["pulls_alternates"] == alternate.log.pulls == 40 * PRICE
    assert island.limited.log.counts(kind="blob", method="GET") == 0
    assert {tuple(each["fetched_from"]) for each in done.json["images"]} == {(alternate.address,)}
    assert {each["source"] for each in done.json["images"]} == {"docker.io"}
    assert plan["totals"]["pulls_expected"] == plan["totals"]["pulls_min"] == 0
    assert plan["totals"]["pulls_max"] == 40 * PRICE
    assert {each["exact"] for each in plan["images"]} == {False}
    assert {tuple(each["fetched_from"]) for each in await island.listed()} == {(alternate.address,)}
    island.assert_whole()
    # By digest alone: what a tag is, is for the registry to say.
    assert {request.reference for request in alternate.log.select(kind="manifest")} == {
        digest for made in island.images.values() for digest in wanted(made)[:2]
    }


async def test_what_an_alternate_has_half_of_costs_half(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    island = Island(cli, await upstream(limit=100), 40)
    half = list(island.images)[::2]
    alternate = island.copied(await upstream(limit=None), half)
    island.configure([alternate])

    plan = (await island("plan", *JSON)).json
    done = await island("sync", *JSON)

    assert done.code == 0, done.stderr
    assert island.limited.log.pulls == done.json["totals"]["pulls"] == 20 * PRICE
    assert plan["totals"]["pulls_expected"] == 20 * PRICE
    assert plan["totals"]["pulls_min"] <= 20 * PRICE <= plan["totals"]["pulls_max"]
    sources = {each["reference"]: each["fetched_from"] for each in done.json["images"]}
    for repository in island.images:
        came = alternate.address if repository in half else "docker.io"
        assert sources[f"docker.io/{repository}:1"] == [came]
    island.assert_whole()


async def test_half_of_the_manifests_of_each_image_cost_half(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    island = Island(cli, await upstream(limit=100), 10)
    alternate = island.copied(await upstream(limit=None))
    for repository, made in island.images.items():
        del alternate.content.repositories[f"{PREFIX}/{repository}"].manifests[
            made.child(PLATFORM).digest
        ]
    island.configure([alternate])

    done = await island("sync", *JSON)

    assert done.code == 0, done.stderr
    assert island.limited.log.pulls == done.json["totals"]["pulls"] == 10
    assert done.json["totals"]["pulls_alternates"] == 10
    island.assert_whole()


LIES = {
    "corrupt-manifests": [{"name": "corrupt", "kind": "manifest", "method": "GET"}],
    "truncated-manifests": [{"name": "truncated", "kind": "manifest", "method": "GET"}],
    "corrupt-blobs": [{"name": "corrupt", "kind": "blob", "method": "GET"}],
    "truncated-blobs": [{"name": "truncated", "kind": "blob", "method": "GET"}],
    "overlong-blobs": [{"name": "overlong", "kind": "blob", "method": "GET"}],
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_liar_is_dropped_and_told_of(
    cli: CommandLine, upstream: UpstreamFactory, lie: str
) -> None:
    island = Island(cli, await upstream(limit=100), 6)
    liar = island.copied(await upstream(limit=None, cdn=False))
    for fault in LIES[lie]:
        liar.faults.add(**fault, count=None)
    honest = island.copied(await upstream(limit=None))
    island.configure([liar, honest])

    plan = (await island("plan", *JSON)).json
    done = await island("sync", *JSON)

    assert done.code == 0, done.stderr
    assert outcomes(done.json) == {"synced"}
    assert island.limited.log.pulls == 0
    assert plan["totals"]["pulls_min"] == 0
    told = {(each["alternate"], each["repository"]) for each in done.json["alternates_dropped"]}
    assert told == {
        (f"{liar.address}/{PREFIX}", f"docker.io/{repository}") for repository in island.images
    }
    island.assert_whole()
    struck = liar.faults.struck(LIES[lie][0]["name"])
    # At most one document and the blobs under way, once each: then no more of that repository.
    assert len(island.images) <= struck <= 2 * len(island.images)

    # Nor in later runs, which find it in the state.
    liar.log.reset()
    later = await island("sync", "--platform=linux/arm64", *JSON)
    assert later.code == 0, later.stderr
    assert not named(liar)
    assert island.limited.log.pulls == 0


@pytest.mark.parametrize("kind", ["manifest", "blob"])
async def test_without_another_the_registry_itself_gives_what_a_liar_does_not(
    cli: CommandLine, upstream: UpstreamFactory, kind: str
) -> None:
    island = Island(cli, await upstream(limit=100), 5)
    liar = island.copied(await upstream(limit=None, cdn=False))
    liar.faults.add("corrupt", kind=kind, method="GET", count=None)
    island.configure([liar])

    plan = (await island("plan", *JSON)).json
    done = await island("sync", *JSON)

    assert done.code == 0, done.stderr
    assert len(done.json["alternates_dropped"]) == 5
    spent = done.json["totals"]["pulls"]
    assert spent == island.limited.log.pulls == (5 * PRICE if kind == "manifest" else 0)
    assert plan["totals"]["pulls_min"] <= spent <= plan["totals"]["pulls_max"]
    island.assert_whole()

    # What is remembered makes the next price exact.
    later = (await island("plan", "--platform=linux/arm64", *JSON)).json
    assert {each["exact"] for each in later["images"]} == {True}
    assert later["totals"]["pulls_expected"] == 5


async def test_one_that_says_429_is_left_until_it_may_be_asked(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    island = Island(cli, await upstream(limit=100), 10)
    busy = island.copied(await upstream(limit=None))
    busy.faults.add("throttle", kind="manifest", method="GET", count=None, seconds=120)
    honest = island.copied(await upstream(limit=None), list(island.images)[:6])
    island.configure([busy, honest])

    done = await island("sync", *JSON)

    assert done.code == 0, done.stderr
    assert island.limited.log.pulls == 4 * PRICE
    # Those under way, of which its slots let through no more than eight.
    assert 1 <= busy.faults.struck("throttle") <= 8
    assert done.json["totals"]["seconds"] < 60
    assert not done.json["alternates_dropped"]
    island.assert_whole()

    busy.log.reset()
    await island("sync", *JSON)
    assert not busy.log.requests


async def test_after_its_time_it_is_asked_again(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    island = Island(cli, await upstream(limit=100), 2)
    busy = island.copied(await upstream(limit=None))
    busy.faults.add("throttle", kind="manifest", count=1, seconds=3)
    island.configure([busy])
    first, second = island.references

    throttled = await island("sync", *JSON, images=[first])
    await asyncio.sleep(3)
    later = await island("sync", *JSON, images=[second])

    assert (throttled.code, later.code) == (0, 0), throttled.stderr + later.stderr
    assert throttled.json["images"][0]["fetched_from"] == ["docker.io"]
    assert later.json["images"][0]["fetched_from"] == [busy.address]
    assert island.limited.log.pulls == PRICE


async def test_an_alternate_has_a_meter_and_a_reserve_of_its_own(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    island = Island(cli, await upstream(limit=100), 10)
    alternate = island.copied(await upstream(limit=10))
    island.configure([alternate], **{alternate.address: {"reserve": 4}})

    done = await island("sync", *JSON)

    assert done.code == 0, done.stderr
    assert alternate.log.pulls <= 6
    assert not alternate.log.select(status=429)
    assert island.limited.log.pulls == 10 * PRICE - alternate.log.pulls
    meters = {each["registry"]: each["remaining"] for each in done.json["budgets"]}
    assert meters[alternate.address] == 10 - alternate.log.pulls
    assert island.limited.log.pulls == done.json["totals"]["pulls"]
    island.assert_whole()


async def test_what_comes_from_elsewhere_needs_no_budget(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    limited = await upstream(limit=20)
    limited.limits.meter().spend(18)
    island = Island(cli, limited, 8)
    some = list(island.images)[:5]
    alternate = island.copied(await upstream(limit=None), some)
    island.configure([alternate])

    plan = (await island("plan", *JSON)).json
    done = await island("sync", *JSON)

    # Eighteen are spent and four reserved: nothing of it may be pulled.
    assert done.code == 75, done.stderr
    ended = {each["reference"]: each["outcome"] for each in done.json["images"]}
    assert limited.log.pulls == 0
    for repository in island.images:
        expected = ("synced", "sync") if repository in some else ("deferred", "defer")
        reference = f"docker.io/{repository}:1"
        [planned] = [each for each in plan["images"] if each["reference"] == reference]
        assert (ended[reference], planned["action"]) == expected


async def test_what_an_alternate_fails_to_give_is_deferred_without_budget(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    limited = await upstream(limit=20)
    limited.limits.meter().spend(18)
    island = Island(cli, limited, 3)
    liar = island.copied(await upstream(limit=None))
    liar.faults.add("corrupt", kind="manifest", method="GET", count=None)
    island.configure([liar])

    done = await island("sync", *JSON, changes="the alternate fails to give what it says it has")

    assert done.code == 75, done.stderr
    assert outcomes(done.json) == {"deferred"}
    assert {each["error"]["code"] for each in done.json["images"]} == {"BUDGET_EXHAUSTED"}
    assert limited.log.pulls == 0


async def test_one_that_is_down_costs_a_moment(cli: CommandLine, upstream: UpstreamFactory) -> None:
    island = Island(cli, await upstream(limit=100), 10)
    silent = island.copied(await upstream(limit=None))
    silent.faults.add("stall", at=0, seconds=60, count=None)
    island.configure([f"127.0.0.1:{free_port()}/{PREFIX}", silent])

    done = await island("sync", *JSON)

    assert done.code == 0, done.stderr
    assert island.limited.log.pulls == 10 * PRICE
    assert len(silent.log.requests) <= 2
    assert done.json["totals"]["seconds"] < 60
    island.assert_whole()


@dataclass(frozen=True)
class Halves:
    """One image with a `layer` that two alternates, asked one after the other, both have."""

    island: Island
    layer: str
    first: Upstream
    second: Upstream

    def ranges(self, registry: Upstream) -> list[str | None]:
        """The parts of the layer that a registry was asked for."""
        asked = registry.log.select(kind="blob", method="GET", reference=self.layer)
        return [request.range for request in asked]

    def spoil(self, registry: Upstream, name: str, at: int) -> None:
        """Have all that a registry sends of the layer be cut, or corrupt, at that byte."""
        registry.faults.add(
            name, kind="blob", reference=self.layer, method="GET", at=at, count=None
        )


@pytest.fixture
async def halves(cli: CommandLine, upstream: UpstreamFactory) -> Halves:
    island = Island(cli, await upstream(limit=100, cdn=False), 1)
    [made] = island.images.values()
    first, second = [island.copied(await upstream(limit=None, cdn=False)) for _ in range(2)]
    island.configure([first, second])
    return Halves(island, made.child(PLATFORM).blobs[-1].digest, first, second)


async def test_a_half_fetched_blob_goes_on_from_another_source(halves: Halves) -> None:
    island = halves.island
    for each in (halves.first, halves.second):
        halves.spoil(each, "cut", at=6_000)

    done = await island("sync", *JSON)

    assert done.code == 0, done.stderr
    assert halves.ranges(halves.first) == [None]
    assert halves.ranges(halves.second) == ["bytes=6000-"]
    assert halves.ranges(island.limited) == ["bytes=12000-"]
    assert done.json["images"][0]["fetched_from"] == sorted(["docker.io", halves.first.address])
    assert done.json["images"][0]["bytes_fetched"] == sum(
        blob.size for blob in island.images["library/app0"].child(PLATFORM).all_blobs().values()
    )
    island.assert_whole()


@pytest.mark.long
async def test_a_blob_that_trickles_goes_on_from_another_source(halves: Halves) -> None:
    island = halves.island
    slow = {"kind": "blob", "reference": halves.layer, "method": "GET", "count": None}
    halves.first.faults.add("slow", bytes_per_second=400, **slow)

    done = await island("sync", *JSON)

    assert done.code == 0, done.stderr
    [went_on] = halves.ranges(halves.second)
    assert went_on is not None
    assert 3_000 < int(went_on.removeprefix("bytes=").removesuffix("-")) < 15_000
    assert halves.ranges(island.limited) == []
    assert done.json["alternates_dropped"] == []
    island.assert_whole()


async def test_nobody_is_blamed_for_what_another_has_sent(halves: Halves) -> None:
    island = halves.island
    halves.spoil(halves.first, "corrupt", at=9)
    halves.spoil(halves.first, "cut", at=6_000)

    done = await island("sync", *JSON)

    assert done.code == 0, done.stderr
    assert done.json["alternates_dropped"] == []
    assert halves.ranges(halves.second) == ["bytes=6000-", None]
    assert halves.ranges(island.limited) == []
    island.assert_whole()


async def test_other_content_under_the_tag_and_the_digest_is_not_taken(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    island = Island(cli, await upstream(limit=100), 4)
    other = await upstream(limit=None)
    for number, (repository, made) in enumerate(island.images.items()):
        held = f"{PREFIX}/{repository}"
        fake = other.content.put(held, image(f"other {number}", layers=1), "1")
        other.content.repositories[held].manifests[made.digest] = fake
    island.configure([other])

    done = await island("sync", *JSON)

    assert done.code == 0, done.stderr
    assert island.limited.log.pulls == 4 * PRICE
    assert {each["digest"] for each in done.json["images"]} == {
        made.digest for made in island.images.values()
    }
    assert len(done.json["alternates_dropped"]) == 4
    island.assert_whole()


async def test_what_people_read_of_it(cli: CommandLine, upstream: UpstreamFactory) -> None:
    island = Island(cli, await upstream(limit=100), 2)
    alternate = island.copied(await upstream(limit=None))
    liar = island.copied(await upstream(limit=None), ["library/app0"])
    liar.faults.add("corrupt", kind="manifest", method="GET", count=None)
    island.configure([liar, alternate])

    plan = await island("plan")
    done = await island("sync")

    assert plan.code == done.code == 0, plan.stderr + done.stderr
    assert "0-4 pulls needed (0 if the alternates give what they have)" in plan.stdout
    told = f"{liar.address}/{PREFIX}, an alternate, is asked no more for docker.io/library/app0: "
    assert done.stdout.count(told) == done.stderr.count(told) == 1
    assert done.stdout.count(f"fetched from {alternate.address})") == 2
    listed = await cli("--config", island.config, "images")
    assert [line.split()[-1] for line in listed.stdout.splitlines()] == [
        "FROM", alternate.address, alternate.address,
    ]  # fmt: skip
