"""Images out of the ordinary: nested, nameless, attested, foreign, embedded, obsolete."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from prefetch.demo.images import OCI_MANIFEST, Image, document, image, index, manifest, schema1
from prefetch.demo.layers import layer
from support.evidence import assert_blobs_sound, assert_no_crash
from support.factories import UpstreamFactory
from support.processes import CommandLine
from support.scenarios import PLATFORM, TAG, Scenario, Ward, heals, refuses, run_ward, sync_all


def nested(seed: str) -> Image:
    return index([index([manifest(seed), manifest(seed, platform="linux/arm64")])])


def inline(seed: str) -> Image:
    return index([manifest(seed, inline=True)])


def large(seed: str) -> Image:
    """Two MiB more than a manifest may have, but otherwise right."""
    made = manifest(seed)
    return document(made.raw + b" " * (6 << 20), OCI_MANIFEST, blobs=made.blobs, platform=PLATFORM)


def lone(seed: str) -> Image:
    return manifest(seed, layers=[layer(seed)])


def foreign(seed: str) -> Image:
    """A layer with URLs that the registry has all the same."""
    here = layer(seed, urls=("http://203.0.113.1:9/never-asked",))
    return index([manifest(seed, layers=[here])])


def gone(seed: str) -> Image:
    """The registry lacks what its index names."""
    made = manifest(seed)
    return document(index([made]).raw, index([made]).media_type, platform=None)


SCENARIOS = [
    replace(heals("nested", content=nested), unforeseen=True),
    heals("lone-manifest", content=lone),
    heals("null-platform", content=lambda seed: index([lone(seed)], platforms="null")),
    heals("absent-platform", content=lambda seed: index([lone(seed)], platforms="absent")),
    heals("attested", content=lambda seed: image(seed, attestations=True)),
    heals("inline", content=inline),
    heals("foreign-but-held", content=foreign),
    heals("sha512", content=lambda seed: image(seed, algorithm="sha512")),
    heals("docker", content=lambda seed: image(seed, docker=True)),
    heals("docker-lone", content=lambda seed: manifest(seed, docker=True)),
    refuses("schema-1", "MANIFEST_INVALID", "schema 1.*push it again", lambda s: schema1(s, TAG)),
    refuses("large", "MANIFEST_INVALID", "larger than 4194304 bytes", large),
    refuses("child-gone", "MANIFEST_UNKNOWN", "answered 404", gone),
    refuses(
        "other-platform",
        "PLATFORM_MISSING",
        "none of the wanted platforms.*linux/amd64",
        lambda seed: image(seed, platforms=("linux/s390x",)),
    ),
]


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    return asyncio.run(run_ward(tmp_path_factory.mktemp("content"), SCENARIOS))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_content(ward: Ward, scenario: Scenario) -> None:
    ward.check(scenario)


def test_what_stays_behind(ward: Ward) -> None:
    ward.check_all(SCENARIOS)


def test_embedded_content_is_not_asked_for(ward: Ward) -> None:
    config, only_layer = ward.images["inline"].child(PLATFORM).blobs
    asked = {each.reference for each in ward.asked("inline", kind="blob")}
    assert asked == {only_layer.digest}
    assert (ward.cli.cache / "blobs" / config.digest.replace(":", "/")).exists()


def test_what_other_platforms_need_is_left(ward: Ward) -> None:
    """A nested index costs a pull more; neither attestations nor other platforms any."""
    pulls = {"nested": 3, "lone-manifest": 1, "attested": 2, "docker-lone": 1}
    for name, expected in pulls.items():
        assert ward.result(name)["pulls"] == expected
        assert len(ward.asked(name, kind="manifest", method="GET")) == expected


async def test_attestations_when_asked_for(cli: CommandLine, upstream: UpstreamFactory) -> None:
    registry = await upstream()
    made = image("attested", layers=1, attestations=True)
    registry.content.put("attested", made, TAG)
    everything = await sync_all(cli, registry, ["attested"], "--platform", "all")
    assert everything.json["images"][0]["pulls"] == 3
    asked = await sync_all(cli, registry, ["attested"], "--platform", "unknown/unknown")
    assert (asked.code, asked.json["images"][0]["outcome"]) == (0, "synced"), asked.stdout
    attestations = [part for part in made.walk() if part.platform == "unknown/unknown"]
    here = {path.name for path in (cli.cache / "blobs/sha256").iterdir()}
    assert any(part.digest.partition(":")[2] in here for part in attestations)
    assert_blobs_sound(cli.cache)
    assert_no_crash(everything, asked)


async def test_foreign_layer_from_its_own_address(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    """The registry is asked first; then the URL, without any authorisation."""
    registry = await upstream()
    elsewhere = await upstream(auth="none", cdn=False)
    content = layer("foreign")
    elsewhere.content.put("layers", manifest("any", layers=[content]))
    url = f"{elsewhere.url}/v2/layers/blobs/{content.blob.digest}"
    there = layer("foreign", urls=("gopher://nowhere", url), held=False)
    lost = layer("lost", urls=(f"{url}x",), held=False)
    registry.content.put("foreign", manifest("foreign", layers=[there]), TAG)
    registry.content.put("lost", manifest("lost", layers=[lost]), TAG)
    result = await sync_all(cli, registry, ["foreign", "lost"])
    found = {each["reference"].split("/")[1]: each for each in result.json["images"]}
    assert found[f"foreign:{TAG}"]["outcome"] == "synced", result.stdout
    assert found[f"lost:{TAG}"]["error"]["message"].endswith("answered 404 for a foreign layer")
    assert registry.log.select(kind="blob", reference=content.blob.digest, status=404)
    assert not any(each.has_authorization for each in elsewhere.log)
    assert_blobs_sound(cli.cache)
    assert_no_crash(result)


async def test_tag_that_moves_between_head_and_get(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    """What HEAD named is what comes; the next run brings what the tag is then."""
    registry = await upstream()
    old, new = (manifest(seed, layers=[layer(seed)]) for seed in ("old", "new"))
    for name in ("told", "untold"):
        registry.content.put(name, new)
        registry.content.put(name, old, TAG)
        registry.faults.add("tag-moves", method="HEAD", repository=name, text=new.digest)
    registry.faults.add("no-digest", method="HEAD", repository="untold", count=None)
    moves = {"changes": "the tag moves at the first HEAD"}
    first = await sync_all(cli, registry, ["told", "untold"], judged=moves)
    assert [each["digest"] for each in first.json["images"]] == [old.digest, new.digest]
    again = await sync_all(cli, registry, ["told", "untold"])
    assert [each["digest"] for each in again.json["images"]] == [new.digest, new.digest]
    assert (first.code, again.code) == (0, 0)
    assert_blobs_sound(cli.cache)
