"""The upstream counts pulls as Docker Hub does, and says so in its headers."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefetch.demo.images import image, manifest, referrer
from prefetch.demo.ratelimits import LimitSettings, Meter
from prefetch.demo.tokens import Account
from support.clock import ManualClock
from support.factories import UpstreamFactory, UpstreamProcessFactory
from support.http import basic
from support.processes import CommandLine, run


async def test_only_a_manifest_get_costs_a_pull(
    upstream: UpstreamFactory, session: aiohttp.ClientSession
) -> None:
    running = await upstream(auth="none", limit=10, window=60, cdn=False)
    made = running.content.put("library/app", image("app"), "1")
    base = f"{running.url}/v2/library/app"

    head = await session.head(f"{base}/manifests/1")
    get = await session.get(f"{base}/manifests/{made.digest}")
    blob = await session.get(f"{base}/blobs/{next(iter(made.all_blobs()))}")
    missing = await session.get(f"{base}/manifests/2")

    assert head.headers["ratelimit-remaining"] == "10;w=60"
    assert head.headers["Content-Length"] == str(len(made.raw))
    assert get.headers["ratelimit-remaining"] == "9;w=60"
    assert get.headers["ratelimit-limit"] == "10;w=60"
    assert get.headers["docker-ratelimit-source"] == "127.0.0.1"
    assert await get.read() == made.raw
    assert (blob.status, missing.status) == (200, 404)
    assert running.log.pulls == 1
    assert running.log.counts(kind="manifest") == 3
    assert [each.remaining for each in running.log.select(kind="manifest", status=200)] == [10, 9]


async def test_the_limit_refuses_in_hubs_words_and_returns_with_the_window(
    upstream: UpstreamFactory, session: aiohttp.ClientSession, clock: ManualClock
) -> None:
    running = await upstream(auth="none", limit=1, window=20, clock=clock)
    running.content.put("app", manifest("app"), "1")
    url = f"{running.url}/v2/app/manifests/1"

    first, second, head = await session.get(url), await session.get(url), await session.head(url)
    clock.advance(20)
    third = await session.get(url)

    assert [each.status for each in (first, second, head, third)] == [200, 429, 200, 200]
    assert "pull rate limit" in (await second.json())["errors"][0]["message"]
    assert running.log.pulls == 2


async def test_each_identity_has_its_own_meter(
    upstream: UpstreamFactory, session: aiohttp.ClientSession
) -> None:
    accounts = {"alice": Account(password="x", limit=7), "pro": Account(password="x", limit=None)}
    running = await upstream(auth="basic", accounts=accounts, limit=3)
    running.content.put("app", manifest("app"), "1")
    url = f"{running.url}/v2/app/manifests/1"

    anonymous = await session.get(url)
    alice = await session.get(url, headers=basic("alice", "x"))
    pro = await session.get(url, headers=basic("pro", "x"))

    assert anonymous.headers["ratelimit-remaining"] == "2;w=21600"
    assert alice.headers["ratelimit-remaining"] == "6;w=21600"
    assert uuid.UUID(alice.headers["docker-ratelimit-source"])
    assert "ratelimit-limit" not in pro.headers


async def test_addresses_alternate_when_told_to(
    upstream: UpstreamFactory, session: aiohttp.ClientSession
) -> None:
    running = await upstream(auth="none", sources=("203.0.113.7", "203.0.113.8"), exempt=("free",))
    for name in ("app", "free"):
        running.content.put(name, manifest(name), "1")

    answers = [await session.get(f"{running.url}/v2/app/manifests/1") for _ in range(3)]
    free = await session.get(f"{running.url}/v2/free/manifests/1")

    assert [each.headers["docker-ratelimit-source"][-1] for each in answers] == ["7", "8", "7"]
    assert [each.headers["ratelimit-remaining"] for each in answers] == [
        "99;w=21600",
        "99;w=21600",
        "98;w=21600",
    ]
    assert "ratelimit-remaining" not in free.headers


@pytest.mark.parametrize(
    ("style", "name", "value"),
    [
        ("ietf-old", "RateLimit-Reset", "60"),
        ("gitlab", "RateLimit-Reset", "1767225660"),
        ("ietf", "RateLimit", '"pulls";r=9;t=60'),
    ],
)
def test_other_registries_headers(style: Any, name: str, value: str, clock: ManualClock) -> None:
    meter = Meter(10, LimitSettings(window=60, header_style=style), clock, "a")
    meter.take()
    assert meter.headers()[name] == value


def test_a_rolling_window_gives_back_one_by_one(clock: ManualClock) -> None:
    meter = Meter(2, LimitSettings(window=10, window_kind="rolling"), clock, "a")
    meter.take()
    clock.advance(6)
    meter.take()
    assert not meter.take()
    clock.advance(4)
    assert meter.remaining() == 1
    assert meter.resets_in() == pytest.approx(6)


def test_others_burn_what_time_lets_them(clock: ManualClock) -> None:
    meter = Meter(30, LimitSettings(window=100), clock, "a")
    meter.burn(0.25)
    clock.advance(20)
    assert meter.remaining() == 25
    meter.burn(0)
    meter.spend(10)
    clock.advance(50)
    assert meter.remaining() == 15


@settings(max_examples=50, deadline=None)
@given(
    kind=st.sampled_from(["fixed", "rolling"]),
    steps=st.lists(st.tuples(st.floats(0, 30), st.integers(0, 4)), max_size=20),
)
def test_a_window_never_gives_more_than_its_limit(
    kind: Any, steps: list[tuple[float, int]]
) -> None:
    clock = ManualClock()
    meter = Meter(5, LimitSettings(window=20, window_kind=kind), clock, "a")
    taken: list[float] = []
    for wait, pulls in steps:
        clock.advance(wait)
        taken += [clock.monotonic() for _ in range(pulls) if meter.take()]
        recent = [moment for moment in taken if moment > clock.monotonic() - 20]
        bound = 5 if kind == "rolling" else 10
        assert len(recent) <= bound
        assert 0 <= meter.remaining() <= 5


async def test_the_abuse_limit_hits_every_request(
    upstream: UpstreamFactory, session: aiohttp.ClientSession, clock: ManualClock
) -> None:
    running = await upstream(auth="none", requests_per_second=2, clock=clock)
    answers = [await session.get(f"{running.url}/v2/") for _ in range(3)]
    clock.advance(1)
    again = await session.get(f"{running.url}/v2/")

    assert [each.status for each in answers] == [200, 200, 429]
    assert answers[2].headers["Retry-After"] == "1"
    assert answers[2].content_type == "text/plain"
    assert again.status == 200


async def test_tag_lists_come_in_pages(
    upstream: UpstreamFactory, session: aiohttp.ClientSession
) -> None:
    running = await upstream(auth="none", page_size=2)
    running.content.put("app", manifest("app"), *"edcba")
    url: str | None = f"{running.url}/v2/app/tags/list"
    seen: list[str] = []
    while url:
        answer = await session.get(url)
        seen += (await answer.json())["tags"]
        following = answer.links.get("next")
        url = str(following["url"]) if following else None

    assert seen == list("abcde")
    assert running.log.counts(kind="tags") == 3


async def test_referrers_are_listed_where_the_api_is_on(
    upstream: UpstreamFactory, session: aiohttp.ClientSession
) -> None:
    hub, other = await upstream(auth="none"), await upstream(auth="none", referrers=True)
    subject = manifest("app")
    for running in (hub, other):
        running.content.put("app", subject, "1")
        running.content.put("app", referrer(subject, "application/x.sbom", b"{}"))

    absent = await session.get(f"{hub.url}/v2/app/referrers/{subject.digest}")
    listed = await session.get(f"{other.url}/v2/app/referrers/{subject.digest}")
    kinds = [each["artifactType"] for each in (await listed.json(content_type=None))["manifests"]]

    assert absent.status == 404
    assert kinds == ["application/x.sbom"]


async def test_it_runs_as_a_process_and_is_scripted(
    upstream_process: UpstreamProcessFactory, session: aiohttp.ClientSession
) -> None:
    running = await upstream_process(
        settings={"auth": "none", "limit": 5, "accounts": {"alice": {"password": "x"}}},
        images=[{"repository": "app-{n}", "count": 3, "tags": ["1", "2"], "shared_layers": True}],
        faults=[{"name": "server-error", "method": "HEAD", "status": 502}],
    )
    url = f"{running.url}/v2/app-0/manifests/1"

    statuses = [(await session.head(url)).status for _ in range(2)]
    await session.get(url)
    running.ask("spend", {"pulls": 2})
    left = (await session.head(url)).headers["ratelimit-remaining"]

    assert statuses == [502, 200]
    assert left == "2;w=21600"
    assert running.pulls == 1
    assert running.counts() == {"HEAD manifest": 3, "GET manifest": 1}
    assert len(running.references()) == 6
    assert running.requests()[0]["faults"] == ["server-error"]
    running.reset()
    assert running.counts() == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"settings": {"limmit": 3}}', "UpstreamSettings has no 'limmit'"),
        ('{"faults": [{"name": "flood"}]}', "no fault is called 'flood'"),
        ('{"faults": [{"name": "cut", "where": 1}]}', "the fault 'cut' cannot be ordered so"),
        ("{", "the specification is not JSON"),
    ],
)
async def test_a_wrong_specification_is_one_clear_line(
    tmp_path: Path, cli: CommandLine, text: str, message: str
) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(text)
    python = cli.arguments()[0]
    result = await run(
        python, "-m", "prefetch.demo", "--port-file", tmp_path / "p", "--spec", spec,
        env=cli.environment(),
    )  # fmt: skip
    assert result.code == 2
    assert result.stderr.startswith(message)
    assert len(result.stderr.splitlines()) == 1
