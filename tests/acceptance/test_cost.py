"""What a sync costs: pulls and requests, counted by the upstream."""

from __future__ import annotations

from pathlib import Path

import pytest
from acceptance_support import (
    FORTY,
    UNLIMITED,
    manifest_requests,
    outcomes,
    pulls_by_repository,
    refused,
    write_list,
)

from support.factories import UpstreamProcessFactory
from support.measuring import measured
from support.processes import CommandLine


async def test_forty_images_cost_three_pulls_each_and_then_nothing(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": 1000}, images=[FORTY])
    listed = write_list(tmp_path / "images.txt", upstream.references())
    sync = ("sync", listed, "--platform", "all", "-o", "json")

    first = await cli(*sync)

    assert first.code == 0, first.stderr
    assert first.json["outcome"] == "complete"
    assert outcomes(first.json) == {"synced"}
    assert {image["pulls"] for image in first.json["images"]} == {3}
    assert first.json["totals"]["pulls"] == upstream.pulls == 120
    assert first.json["totals"]["requests"] == sum(upstream.counts().values())
    assert not refused(upstream)

    upstream.reset()
    again = await cli(*sync)

    assert again.code == 0, again.stderr
    assert outcomes(again.json) == {"unchanged"}
    assert upstream.pulls == again.json["totals"]["pulls"] == 0
    assert manifest_requests(upstream) <= 1.1 * 40
    assert upstream.counts().get("GET blob", 0) == 0

    [moved] = upstream.ask(
        "images", [{"repository": "app7", "tags": ["next"], "layers": 1, "seed": "newer"}]
    )
    upstream.ask("tag", {"repository": "app7", "tag": "latest", "digest": moved["digest"]})
    upstream.reset()
    after = await cli(*sync)

    changed = [image for image in after.json["images"] if image["outcome"] == "synced"]
    assert [image["digest"] for image in changed] == [moved["digest"]]
    assert pulls_by_repository(upstream) == {"app7": 3}
    assert after.json["totals"]["pulls"] == 3


async def test_one_platform_costs_two_pulls_an_image(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings={"limit": 1000}, images=[FORTY])
    listed = write_list(tmp_path / "images.txt", upstream.references())

    first = await cli("sync", listed, "--platform", "linux/amd64", "-o", "json")

    assert first.code == 0, first.stderr
    assert upstream.pulls == 80
    assert set(pulls_by_repository(upstream).values()) == {2}

    upstream.reset()
    more = await cli("sync", listed, "--platform", "all", "-o", "json")

    assert more.code == 0, more.stderr
    assert upstream.pulls == more.json["totals"]["pulls"] == 40


@pytest.mark.parametrize("at_once", [True, False], ids=["one-run", "later"])
@pytest.mark.parametrize("elsewhere", [True, False], ids=["second-repository", "second-tag"])
async def test_known_content_is_never_pulled_again(
    cli: CommandLine,
    upstream_process: UpstreamProcessFactory,
    tmp_path: Path,
    at_once: bool,
    elsewhere: bool,
) -> None:
    orders = [{"repository": "app", "tags": ["1", "2"], "same_content": True}]
    if elsewhere:
        orders = [
            {"repository": name, "tags": ["1"], "seed": "the same"} for name in ("app", "copy")
        ]
    upstream = await upstream_process(settings={"limit": 1000}, images=orders)
    first, second = upstream.references()
    if not at_once:
        primed = await cli("sync", "--image", first, "--platform", "all")
        assert primed.code == 0, primed.stderr
        assert upstream.pulls == 3
        upstream.reset()

    both = await cli("sync", "--image", first, "--image", second, "--platform", "all", "-o", "json")

    assert both.code == 0, both.stderr
    assert both.json["outcome"] == "complete"
    assert upstream.pulls == both.json["totals"]["pulls"] == (3 if at_once else 0)
    # Two layers and a config a platform, each fetched once.
    assert upstream.counts().get("GET cdn", 0) == (6 if at_once else 0)
    listed = (await cli("images", "-o", "json")).json
    assert [(each["reference"], each["warm"]) for each in listed] == [(first, True), (second, True)]


async def test_warm_digests_and_immutable_tags_cost_no_request_at_all(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    upstream = await upstream_process(
        settings=UNLIMITED,
        images=[{"repository": "app{n}", "count": 5, "tags": ["v1.2.3"]}],
    )
    tags = upstream.references()
    digests = [
        f"{upstream.address}/{each['repository']}@{each['digest']}"
        for each in upstream.ask("images")
    ]
    config = tmp_path / "prefetch.yaml"
    config.write_text(
        f"registries:\n  '{upstream.address}':\n    immutable_tags: ['v\\d+\\.\\d+\\.\\d+']\n"
    )
    listed = write_list(tmp_path / "images.txt", [*tags, *digests])
    sync = ("--config", config, "sync", listed, "--platform", "all", "-o", "json")
    first = await cli(*sync)
    assert first.code == 0, first.stderr
    assert upstream.pulls == 15

    upstream.reset()
    again = await cli(*sync)

    assert again.code == 0, again.stderr
    assert outcomes(again.json) == {"unchanged"}
    assert upstream.requests() == []
    assert again.json["totals"]["requests"] == 0


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_ten_thousand_unchanged_references(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    order = {
        "repository": "team{n}/app",
        "count": 2000,
        "tags": [f"v{number}" for number in range(5)],
        "layers": 1,
        "layer_size": 512,
        "single": True,
        "shared_layers": True,
        "same_content": True,
    }
    upstream = await upstream_process(settings=UNLIMITED, images=[order])
    listed = write_list(tmp_path / "images.txt", upstream.references())
    first = await cli("sync", listed, "-o", "json", timeout=300)
    assert first.code == 0, first.stderr
    assert upstream.pulls == 2000

    upstream.reset()
    again = await measured(cli, "sync", listed, "-o", "json", timeout=120)

    assert again.result.code == 0, again.result.stderr
    totals = again.result.json["totals"]
    assert (totals["images"], totals["unchanged"], totals["pulls"]) == (10_000, 10_000, 0)
    requests = sum(upstream.counts().values())
    print(
        f"{requests / 10_000:.3f} requests a reference, {again.peak / 1e6:.0f} MB, "
        f"{totals['seconds']:.1f} s, {again.cpu:.1f} s of processor"
    )
    assert requests <= 1.3 * 10_000
    assert again.peak <= 300e6
