"""The budget as it is kept: the upstream counts, and its log is the referee."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from acceptance_support import (
    FORTY,
    breaches,
    outcomes,
    pulls_by_repository,
    refused,
    write_list,
)

from support.factories import UpstreamProcessFactory
from support.processes import CommandLine, UpstreamProcess

RESERVE = 5
OTHERS = "others pull meanwhile"
DOZEN = {**FORTY, "count": 12}


def limited(window: int, **more: Any) -> dict[str, Any]:
    # Without tokens, so that a test can read the meter itself.
    return {"limit": 30, "window": window, "auth": "none", **more}


def moment(text: str) -> float:
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()


def remaining(upstream: UpstreamProcess) -> int:
    """What the meter says now."""
    request = urllib.request.Request(f"{upstream.url}/v2/app0/manifests/latest", method="HEAD")
    with urllib.request.urlopen(request, timeout=5) as answer:
        return int(answer.headers["ratelimit-remaining"].partition(";")[0])


async def refilled_at(upstream: UpstreamProcess, pulls: int) -> float:
    """The moment at which the meter has `pulls` beyond the reserve again."""
    while remaining(upstream) - RESERVE < pulls:
        await asyncio.sleep(0.05)
    return time.time()


def assert_kept(upstream: UpstreamProcess) -> None:
    requests = upstream.requests()
    assert refused(upstream) == []
    assert breaches(requests, RESERVE) == []


async def run_out(
    cli: CommandLine,
    upstream_process: UpstreamProcessFactory,
    tmp_path: Path,
    kind: str,
    window: int,
) -> None:
    """A sync that cannot end within the window, and one at the moment that it named."""
    upstream = await upstream_process(settings=limited(window, window_kind=kind), images=[FORTY])
    listed = write_list(tmp_path / "images.txt", upstream.references())
    sync = ("sync", listed, "--platform", "all", "--reserve", RESERVE, "-o", "json")
    upstream.ask("burn", {"pulls_per_second": 0.3})

    first = await cli(*sync, changes=OTHERS)

    assert first.code == 75, first.stderr
    assert first.json["outcome"] == "deferred"
    assert outcomes(first.json) == {"synced", "deferred"}
    assert first.json["totals"]["pulls"] == upstream.pulls
    assert 15 <= upstream.pulls <= 25
    assert_kept(upstream)
    deferred = [image for image in first.json["images"] if image["outcome"] == "deferred"]
    assert all(image["error"]["code"] == "BUDGET_EXHAUSTED" for image in deferred)
    moments = sorted(moment(image["retry_at"]) for image in deferred)
    # What is left needs several windows, and says so.
    assert moments[-1] - moments[0] >= window

    truth = await refilled_at(upstream, 3)
    print(f"{kind}: retry_at {moments[0] - truth:+.2f} s from the refill")
    assert -0.5 <= moments[0] - truth <= 2
    await asyncio.sleep(max(0.0, moments[0] - time.time()))
    second = await cli(*sync, changes=OTHERS)
    assert second.json["totals"]["synced"] > 0
    assert_kept(upstream)


def test_the_referee_sees_a_breach() -> None:
    def request(number: int, method: str, remaining: int, ended: float) -> dict[str, Any]:
        return {
            "number": number,
            "method": method,
            "kind": "manifest",
            "counted": method == "GET",
            "remaining": remaining,
            "started": float(number),
            "ended": ended,
        }

    head, last = request(1, "HEAD", 7, 1.5), request(3, "GET", 5, 3.5)
    slow, fast = request(2, "GET", 6, 9.0), request(2, "GET", 6, 2.5)

    assert breaches([head, slow, last], RESERVE) == []
    assert breaches([head, fast, last], RESERVE) == []
    too_many = request(4, "GET", 4, 9.5)
    assert len(breaches([head, slow, last, too_many], RESERVE)) == 1
    # Nobody else's pull is excused: what an answer said counts from its end on.
    assert len(breaches([head, {**fast, "remaining": 5}, last], RESERVE)) == 1
    assert len(breaches([last], RESERVE)) == 1


@pytest.mark.parametrize("kind", ["fixed", "rolling"])
async def test_a_sync_stops_at_the_reserve_and_says_when_to_go_on(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path, kind: str
) -> None:
    await run_out(cli, upstream_process, tmp_path, kind, 6)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["fixed", "rolling"])
async def test_a_sync_stops_at_the_reserve_in_a_longer_window(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path, kind: str
) -> None:
    await run_out(cli, upstream_process, tmp_path, kind, 20)


async def wait_to_the_end(
    cli: CommandLine,
    upstream: UpstreamProcess,
    tmp_path: Path,
    timeout: float,
) -> None:
    references = upstream.references()
    listed = write_list(tmp_path / "images.txt", references)
    upstream.ask("burn", {"pulls_per_second": 0.3})

    words = ("sync", listed, "--platform", "all", "--reserve", RESERVE, "--wait", "-o", "json")
    waited = await cli(*words, timeout=timeout, changes=OTHERS)

    assert waited.code == 0, waited.stderr
    assert waited.json["outcome"] == "complete"
    assert upstream.pulls == waited.json["totals"]["pulls"] == 3 * len(references)
    assert_kept(upstream)
    print(f"{waited.json['totals']['seconds']:.1f} s")


@pytest.mark.parametrize("kind", ["fixed", "rolling"])
async def test_waiting_ends_complete(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path, kind: str
) -> None:
    upstream = await upstream_process(settings=limited(4, window_kind=kind), images=[DOZEN])
    await wait_to_the_end(cli, upstream, tmp_path, 40)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_waiting_ends_complete_after_several_windows(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings=limited(20), images=[FORTY])
    await wait_to_the_end(cli, upstream, tmp_path, 280)


async def test_waiting_ends_at_its_timeout(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings=limited(600), images=[DOZEN])
    listed = write_list(tmp_path / "images.txt", upstream.references())

    words = ("sync", listed, "--platform", "all", "--reserve", RESERVE, "-o", "json")
    ended = await cli(*words, "--wait", "--timeout", "3s")

    assert ended.code == 75, ended.stderr
    assert ended.json["outcome"] == "deferred"
    assert ended.json["totals"]["seconds"] < 6
    assert (ended.json["totals"]["synced"], ended.json["totals"]["deferred"]) == (8, 4)
    assert_kept(upstream)


async def test_deferred_is_ok_when_told_so(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings=limited(600), images=[DOZEN])
    listed = write_list(tmp_path / "images.txt", upstream.references())

    words = ("sync", listed, "--platform", "all", "--reserve", "20%", "--deferred-ok")
    ended = await cli(*words, "-o", "json")

    assert ended.code == 0, ended.stderr
    assert ended.json["outcome"] == "deferred"
    [budget] = ended.json["budgets"]
    assert (budget["limit"], budget["remaining"], budget["reserve"]) == (30, 6, 6)
    assert (budget["available"], budget["window_seconds"]) == (0, 600)


@pytest.mark.parametrize("limit", [None, 30], ids=["unlimited", "limited"])
async def test_two_syncs_at_once_cost_what_one_costs(
    cli: CommandLine,
    upstream_process: UpstreamProcessFactory,
    tmp_path: Path,
    limit: int | None,
) -> None:
    settings = limited(4) if limit else {"limit": None}
    order = {**DOZEN, "layer_size": 100_000}
    upstream = await upstream_process(settings=settings, images=[order])
    listed = write_list(tmp_path / "images.txt", upstream.references())
    words = ("sync", listed, "--platform", "all", "--reserve", RESERVE, "--wait", "-o", "json")

    alone = {"changes": "the other one fetches what this one lacks"}
    both = await asyncio.gather(cli(*words, **alone), cli(*words, **alone))

    assert [each.code for each in both] == [0, 0], [each.stderr for each in both]
    assert {each.json["outcome"] for each in both} == {"complete"}
    assert upstream.pulls == 36
    assert sum(each.json["totals"]["pulls"] for each in both) == 36
    # A config and a layer for each of two platforms: each fetched once, by one of the two.
    assert upstream.counts()["GET cdn"] == 12 * 4
    if limit:
        assert_kept(upstream)


async def test_a_plan_spends_nothing_and_tells_the_price(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    orders = [
        {"repository": "index{n}", "count": 3},
        {"repository": "single", "single": True},
    ]
    upstream = await upstream_process(settings={"limit": 100}, images=orders)
    listed = write_list(tmp_path / "images.txt", upstream.references())

    async def priced_then_spent(*words: str) -> tuple[Any, Any]:
        upstream.reset()
        plans = [
            await cli("plan", listed, *words, "-o", "json"),
            await cli("sync", listed, *words, "--dry-run", "-o", "json"),
        ]
        assert [plan.code for plan in plans] == [0, 0], plans
        assert plans[0].json["images"][0].keys() == plans[1].json["images"][0].keys()
        assert upstream.pulls == 0
        assert upstream.counts().get("GET cdn", 0) == 0
        done = await cli("sync", listed, *words, "-o", "json")
        assert done.code == 0, done.stderr
        for planned, spent in zip(plans[1].json["images"], done.json["images"], strict=True):
            assert planned["reference"] == spent["reference"]
            if planned["exact"]:
                assert planned["pulls"] == spent["pulls"]
                if planned["bytes"] is not None:
                    assert planned["bytes"] == spent["bytes_fetched"]
            assert planned["pulls_min"] <= spent["pulls"]
            assert planned["pulls_max"] is None or spent["pulls"] <= planned["pulls_max"]
        return plans[0].json, done.json

    cold, done = await priced_then_spent("--platform", "linux/amd64")
    assert [each["exact"] for each in cold["images"]] == [False, False, False, True]
    assert (cold["totals"]["pulls_min"], cold["totals"]["pulls_max"]) == (4, 7)
    assert done["totals"]["pulls"] == 7

    half, done = await priced_then_spent("--platform", "all")
    assert [each["pulls"] for each in half["images"]] == [1, 1, 1, 0]
    assert done["totals"]["pulls"] == 3

    warm, done = await priced_then_spent("--platform", "all")
    assert {each["action"] for each in warm["images"]} == {"none"}
    assert (warm["totals"]["pulls_max"], warm["totals"]["bytes"]) == (0, 0)
    assert done["totals"]["pulls"] == 0


async def test_a_plan_defers_what_the_budget_lacks(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings=limited(600), images=[DOZEN])
    listed = write_list(tmp_path / "images.txt", upstream.references())

    plan = await cli("plan", listed, "--platform", "all", "--reserve", RESERVE, "-o", "json")

    assert plan.code == 0, plan.stderr
    actions = [image["action"] for image in plan.json["images"]]
    assert (actions.count("sync"), actions.count("defer")) == (8, 4)
    assert plan.json["totals"]["pulls_available"] == 25
    finish = moment(plan.json["totals"]["finish_at"])
    assert finish == max(moment(image["start_at"]) for image in plan.json["images"])
    assert 500 < finish - time.time() <= 601
    assert upstream.pulls == 0


async def test_an_account_has_a_meter_of_its_own(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    accounts = {"alice": {"password": "s3cret", "limit": 50}}
    upstream = await upstream_process(
        settings={"limit": 30, "window": 600, "accounts": accounts}, images=[DOZEN]
    )
    first, second, *rest = upstream.references()
    config = tmp_path / "prefetch.yaml"
    registry = {"username": "alice", "password_env": "HUB_TOKEN"}
    config.write_text(json.dumps({"registries": {upstream.address: registry}}))
    as_alice = ("--config", config)
    sync = ("sync", "--platform", "all", "--reserve", RESERVE, "-o", "json")
    secret = {"HUB_TOKEN": "s3cret"}

    anonymous = await cli(*sync, "--image", first)
    known = await cli(*as_alice, *sync, "--image", second, env=secret)
    asked = await cli(*as_alice, "budget", "--reserve", RESERVE, "-o", "json", env=secret)
    many = [word for reference in rest for word in ("--image", reference)]
    again = await cli(*sync, *many)

    def meter(document: Any) -> tuple[Any, ...]:
        [budget] = document
        return (budget["identity"], budget["limit"], budget["remaining"])

    assert meter(anonymous.json["budgets"]) == ("anonymous", 30, 27)
    assert meter(known.json["budgets"]) == ("alice", 50, 47)
    assert meter(asked.json) == ("alice", 50, 47)
    assert asked.json[0]["available"] == 42
    # 22 were left to us: seven images and a pull.
    assert again.code == 75
    assert meter(again.json["budgets"]) == ("anonymous", 30, 6)
    assert again.json["budgets"][0]["available"] == 1
    assert "s3cret" not in known.stdout + known.stderr + asked.stdout + asked.stderr
    identities = {r["identity"] for r in upstream.requests() if r["counted"]}
    assert identities == {"anonymous", "alice"}


@pytest.mark.long
async def test_foreign_burn_is_what_others_burn(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    upstream = await upstream_process(
        settings={"limit": 1000, "window": 20, "window_kind": "rolling", "auth": "none"},
        images=[FORTY],
    )
    references = upstream.references()

    async def burn_after(*references: str) -> float:
        words = [word for reference in references for word in ("--image", reference)]
        synced = await cli("sync", *words, "-o", "json", changes=OTHERS)
        assert synced.code == 0, synced.stderr
        return float(synced.json["budgets"][0]["foreign_burn_per_hour"])

    assert await burn_after(*references[:15]) == 0.0
    assert await burn_after(*references[15:25]) == 0.0
    upstream.ask("burn", {"pulls_per_second": 4})
    began, found = time.time(), 0.0
    for reference in references[25:]:
        found = await burn_after(reference)
        if time.time() - began > 9:
            break
        await asyncio.sleep(0.6)
    print(f"{found / 3600:.2f} a second were found of 4")
    assert found == pytest.approx(4 * 3600, rel=0.3)


async def test_an_image_dearer_than_a_window_goes_in_parts(
    cli: CommandLine, upstream_process: UpstreamProcessFactory
) -> None:
    order = {
        "repository": "many",
        "platforms": [f"linux/{name}" for name in ("386", "amd64", "arm64", "ppc64le", "s390x")],
        "layers": 1,
    }
    upstream = await upstream_process(settings=limited(3, limit=4), images=[order])
    [reference] = upstream.references()
    sync = ("sync", "--image", reference, "--platform", "all", "--reserve", "1", "-o", "json")

    first = await cli(*sync)
    second = await cli(*sync, "--wait")

    assert first.code == 75, first.stderr
    assert first.json["images"][0]["outcome"] == "deferred"
    assert first.json["totals"]["pulls"] == 3
    assert second.code == 0, second.stderr
    assert second.json["totals"]["pulls"] == 3
    assert upstream.pulls == 6
    assert refused(upstream) == []
    assert breaches(upstream.requests(), 1) == []


async def test_a_higher_priority_goes_first(
    cli: CommandLine, upstream_process: UpstreamProcessFactory, tmp_path: Path
) -> None:
    upstream = await upstream_process(settings=limited(600, limit=14), images=[DOZEN])
    references = upstream.references()
    lines = [f"{reference} priority={number}" for number, reference in enumerate(references)]
    listed = write_list(tmp_path / "images.txt", lines)

    ended = await cli("sync", listed, "--platform", "all", "--reserve", RESERVE, "-o", "json")

    assert ended.code == 75, ended.stderr
    assert pulls_by_repository(upstream) == {"app11": 3, "app10": 3, "app9": 3}
    # The sooner of those that wait are the more important ones.
    waiting = {image["reference"]: image["retry_at"] for image in ended.json["images"][:9]}
    assert list(waiting.values()) == sorted(waiting.values(), reverse=True)


@pytest.mark.long
async def test_what_has_starved_for_two_windows_goes_first(
    cli: CommandLine, upstream_process: UpstreamProcessFactory
) -> None:
    window = 5
    platforms = ["linux/amd64", "linux/arm64", "linux/s390x", "linux/ppc64le"]
    dear = {"repository": "dear", "platforms": platforms, "layers": 1}
    orders = [dear, {**FORTY, "count": 3}]
    upstream = await upstream_process(settings=limited(window, limit=6), images=orders)
    starving, *rivals = upstream.references()

    async def sync_with_rival() -> tuple[str, str]:
        """In a new window, of which somebody else has taken one pull, and a sixth is reserved."""
        await asyncio.sleep(window + 0.2)
        await asyncio.to_thread(upstream.ask, "spend", {"pulls": 1})
        words = ("--image", starving, "--image", rivals.pop(), "--platform", "all")
        ended = await cli("sync", *words, "--reserve", "1", "-o", "json")
        first, second = ended.json["images"]
        return first["outcome"], second["outcome"]

    # Four pulls are left: the index has come and its four manifests no longer fit, but the rival.
    assert await sync_with_rival() == ("deferred", "synced")
    # They would fit now, but the rival is cheaper.
    assert await sync_with_rival() == ("deferred", "synced")
    # Two windows later the dear one goes first, and the rival waits.
    await asyncio.sleep(window)
    assert await sync_with_rival() == ("synced", "deferred")
    assert pulls_by_repository(upstream)["dear"] == 1 + len(platforms)
    assert refused(upstream) == []
