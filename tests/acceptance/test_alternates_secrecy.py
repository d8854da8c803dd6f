"""Whom a repository's name is told: never a stranger, unless everybody may know it."""

from __future__ import annotations

import pytest
from alternates_support import PREFIX, PRICE, Island, named, wanted

from prefetch.demo.images import image
from prefetch.demo.tokens import Account
from prefetch.demo.upstream import Upstream
from support.factories import UpstreamFactory
from support.processes import CommandLine
from support.scenarios import ALICE, PASSWORD

JSON = ("-o", "json")
SECRET = "corp/secret"
ENV = {"ALICE_PASSWORD": PASSWORD}


async def guarded(cli: CommandLine, upstream: UpstreamFactory) -> tuple[Island, Upstream]:
    """Three public images and a private one, all of which an alternate has, too."""
    limited = await upstream(limit=100, accounts={"alice": Account(password=PASSWORD)})
    island = Island(cli, limited, 3)
    made = island.images[SECRET] = image("secret", layers=1)
    limited.content.put(SECRET, made, "1", readers=["alice"])
    return island, island.copied(await upstream(limit=None))


async def test_a_private_repository_is_never_named_to_an_alternate(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    island, alternate = await guarded(cli, upstream)
    island.configure([alternate], hub=ALICE)

    plan = await island("plan", *JSON, env=ENV)
    done = await island("sync", *JSON, env=ENV)
    later = await island("sync", "--platform=all", *JSON, env=ENV)

    assert plan.code == done.code == later.code == 0, done.stderr
    priced = {each["reference"]: each["pulls_expected"] for each in plan.json["images"]}
    assert priced.pop(f"docker.io/{SECRET}:1") == PRICE
    assert set(priced.values()) == {0}
    came = {each["reference"]: each["fetched_from"] for each in done.json["images"]}
    assert came.pop(f"docker.io/{SECRET}:1") == ["docker.io"]
    assert set(map(tuple, came.values())) == {(alternate.address,)}
    assert alternate.log.requests
    assert not [word for word in named(alternate) if "secret" in word or "corp" in word]
    for digest in wanted(island.images[SECRET]):
        assert not alternate.log.select(reference=digest)
    assert PASSWORD not in done.stdout + done.stderr
    island.assert_whole()


async def test_one_that_is_trusted_is_asked_for_private_content_too(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    island, alternate = await guarded(cli, upstream)
    trusted = {"registry": f"{alternate.address}/{PREFIX}", "private": True}
    island.configure([trusted], hub=ALICE)

    done = await island("sync", *JSON, env=ENV)

    assert done.code == 0, done.stderr
    assert island.limited.log.pulls == 0
    assert f"{PREFIX}/{SECRET}" in named(alternate)
    [private] = [each for each in done.json["images"] if SECRET in each["reference"]]
    assert private["visibility"] == "private"
    assert private["fetched_from"] == [alternate.address]
    island.assert_whole()


async def test_what_may_be_private_is_not_named_either(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    island, alternate = await guarded(cli, upstream)
    island.configure([alternate], hub=ALICE)
    # Alice has her token; whether a stranger gets one is not clear.
    island.limited.faults.add("server-error", kind="token", count=None, nth=2)

    done = await island("sync", *JSON, images=["docker.io/library/app0:1"], env=ENV)

    assert done.code == 0, done.stderr
    assert island.limited.faults.struck("server-error") > 0
    assert done.json["images"][0]["visibility"] == "unknown"
    assert not alternate.log.requests


async def test_an_alternate_has_a_login_of_its_own(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    island = Island(cli, await upstream(limit=100), 3)
    alternate = await upstream(limit=None, accounts={"alice": Account(password=PASSWORD)})
    for repository, made in island.images.items():
        alternate.content.put(f"{PREFIX}/{repository}", made, readers=["alice"])
    island.configure([alternate])

    without = await island("plan", *JSON)
    assert without.json["totals"]["pulls_expected"] == 3 * PRICE

    island.configure([alternate], **{alternate.address: ALICE})
    done = await island("sync", *JSON, data_dir=cli.data_dir / "other", env=ENV)

    assert done.code == 0, done.stderr
    assert island.limited.log.pulls == 0
    meters = {(each["registry"], each["identity"]) for each in done.json["budgets"]}
    assert (alternate.address, "alice") in meters


async def test_a_login_that_an_alternate_refuses_is_told_of(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    island = Island(cli, await upstream(limit=100), 3)
    alternate = island.copied(
        await upstream(limit=None, accounts={"alice": Account(password="another")})
    )
    island.configure([alternate], **{alternate.address: ALICE})

    done = await island("sync", env=ENV)

    assert done.code == 0, done.stderr
    assert done.stderr.count("an alternate, refuses its login") == 1
    assert PASSWORD not in done.stdout + done.stderr
    assert island.limited.log.pulls == 3 * PRICE


@pytest.mark.parametrize("private", [False, True])
async def test_another_s_private_content_is_not_linked_for_coming_from_an_alternate(
    cli: CommandLine, upstream: UpstreamFactory, private: bool
) -> None:
    """A public repository that names a private one's layer, which an alternate gives for it."""
    island, alternate = await guarded(cli, upstream)
    secret = island.images[SECRET]
    claimed = "library/claims"
    island.limited.content.put(claimed, secret, "1")
    island.limited.content.repositories[claimed].blobs.clear()
    alternate.content.put(f"{PREFIX}/{claimed}", secret)
    entry = {"registry": f"{alternate.address}/{PREFIX}", "private": private}
    island.configure([entry], hub=ALICE)

    # The private one's content is known first; then it is lost from the disk.
    first = await island("sync", *JSON, images=[f"docker.io/{SECRET}:1"], env=ENV)
    assert first.code == 0, first.stderr
    for digest in wanted(secret)[2:]:
        algorithm, _, name = digest.partition(":")
        (cli.cache / "blobs" / algorithm / name).unlink()
    done = await island("sync", *JSON, images=[f"docker.io/{claimed}:1"], env=ENV)

    assert done.code == 0, done.stderr
    linked = island.linked(claimed)
    assert secret.digest in linked
    assert not set(wanted(secret)[2:]) & linked


async def test_who_may_see_a_repository_is_asked_once_for_all_its_tags(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    island, alternate = await guarded(cli, upstream)
    made = [image(f"tag {number}", layers=1) for number in range(6)]
    for number, each in enumerate(made):
        island.limited.content.put("library/many", each, f"{number}")
        alternate.content.put(f"{PREFIX}/library/many", each)
    # All but the first to wish for it wait for the answer.
    island.limited.faults.add("stall", kind="token", nth=2, at=0, seconds=2)
    island.configure([alternate], hub=ALICE)
    names = [f"docker.io/library/many:{number}" for number in range(6)]

    done = await island("sync", *JSON, images=names, env=ENV)

    assert done.code == 0, done.stderr
    assert island.limited.faults.struck("stall") == 1
    assert island.limited.log.pulls == 0
