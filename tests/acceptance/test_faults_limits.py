"""Limits of every kind: pull limits, throttling, and what registries say of them, or do not."""

from __future__ import annotations

import re
from typing import Any

import pytest
from acceptance_support import breaches

from prefetch.demo.images import manifest
from prefetch.demo.upstream import Upstream
from support.evidence import assert_blobs_sound, assert_no_crash, assert_no_secret
from support.factories import UpstreamFactory
from support.processes import CommandLine, Result
from support.scenarios import TAG, sync_all

AGAIN = {"changes": "what is throttled is sent again, and each attempt is a pull"}


def put(registry: Upstream, *names: str) -> list[str]:
    """A lone manifest in each repository: one pull each."""
    for name in names:
        registry.content.put(name, manifest(name), TAG)
    return list(names)


def check(cli: CommandLine, registry: Upstream, *results: Result) -> None:
    assert_blobs_sound(cli.cache)
    assert_no_crash(*results)
    assert_no_secret(cli, registry.doorkeeper.issued, *results)


async def test_throttled_in_every_form(cli: CommandLine, upstream: UpstreamFactory) -> None:
    """HEADs, pulls, blobs and tokens that are put off come when Retry-After has passed."""
    registry = await upstream()
    names = put(registry, "date", "epoch", "duration", "seconds", "secondary", "blob")
    for name in names[:4]:
        registry.faults.add(
            "throttle", method="GET", kind="manifest", repository=name, retry_after=name
        )
    registry.faults.add("throttle", kind="token", retry_after="duration", seconds=0.2)
    registry.faults.add("throttle", kind="blob", repository="blob", seconds=1)
    registry.faults.add("throttle", method="HEAD", repository="date", retry_after="none")
    registry.faults.add("secondary-limit", method="GET", kind="manifest", repository="secondary")
    result = await sync_all(cli, registry, names, judged=AGAIN)
    assert (result.code, result.json["totals"]["synced"]) == (0, len(names)), result.stdout
    assert registry.faults.struck("throttle") == 7
    assert registry.faults.struck("secondary-limit") == 1
    assert "throttle event" in result.stderr
    check(cli, registry, result)


async def test_ghcr_s_words_in_a_body(cli: CommandLine, upstream: UpstreamFactory) -> None:
    registry = await upstream()
    words = "toomanyrequests: retry-after: 880.092µs, allowed: 44000/minute"
    registry.faults.add("throttle", kind="manifest", text=words, retry_after="none", count=2)
    result = await sync_all(cli, registry, put(registry, "app"), judged=AGAIN)
    assert (result.code, result.json["outcome"]) == (0, "complete"), result.stdout
    assert result.json["totals"]["seconds"] < 5
    check(cli, registry, result)


async def test_pull_limit_defers_and_is_waited_for(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    """One 429 by the pull limit ends all pulls, whatever the meter said before."""
    registry = await upstream(limit=100, window=600)
    names = put(registry, *(f"app-{number}" for number in range(6)))
    registry.faults.add("pull-limit", method="GET", kind="manifest", count=None)
    refuses = {"changes": "no HEAD tells that pulls are refused"}
    deferred = await sync_all(cli, registry, names, max_concurrency=1, judged=refuses)
    assert (deferred.code, deferred.json["outcome"]) == (75, "deferred"), deferred.stdout
    for found in deferred.json["images"]:
        assert found["error"]["code"] == "BUDGET_EXHAUSTED"
        assert re.search("no pulls left.*expected back at", found["error"]["message"])
        assert found["retry_at"]
    assert registry.log.counts(kind="manifest", method="GET") == 1
    registry.faults.clear()
    again = await sync_all(cli, registry, names, "--wait", "--timeout", "30s")
    assert (again.code, again.json["totals"]["synced"]) == (0, 6), again.stdout
    check(cli, registry, deferred, again)


async def test_no_headers_at_all(cli: CommandLine, upstream: UpstreamFactory) -> None:
    registry = await upstream(limit=None)
    result = await sync_all(cli, registry, put(registry, "one", "two"))
    assert (result.code, result.json["totals"]["synced"]) == (0, 2), result.stdout
    (budget,) = result.json["budgets"]
    assert (budget["limit"], budget["remaining"], budget["available"]) == (None, None, None)
    check(cli, registry, result)


async def test_a_configured_limit_holds_where_there_are_no_headers(
    cli: CommandLine, upstream: UpstreamFactory
) -> None:
    registry = await upstream(limit=None)
    names = put(registry, "one", "two", "three", "four")
    limit = {"pulls": 3, "window": "10m"}
    result = await sync_all(cli, registry, names, limit=limit, reserve=1)
    assert (result.code, result.json["totals"]["synced"]) == (75, 2), result.stdout
    assert registry.log.pulls == 2
    check(cli, registry, result)


async def test_no_headers_on_one_repository(cli: CommandLine, upstream: UpstreamFactory) -> None:
    """An exempt repository is synced though nothing is left, and says nothing of the meter."""
    registry = await upstream(limit=10, window=600, exempt=("free",))
    meter = registry.limits.meter()
    assert meter is not None
    meter.spend(8)
    names = put(registry, "free", "counted")
    result = await sync_all(cli, registry, names)
    assert [each["outcome"] for each in result.json["images"]] == ["synced", "deferred"]
    (budget,) = result.json["budgets"]
    assert (result.code, budget["limit"], budget["remaining"]) == (75, 10, 2)
    check(cli, registry, result)


@pytest.mark.parametrize("fault", ["blank-rate-headers", "no-rate-headers"])
async def test_unknown_is_neither_none_nor_any(
    cli: CommandLine, upstream: UpstreamFactory, fault: str
) -> None:
    """Headers that say nothing once a pull has been sent stop no sync and breach no reserve."""
    registry = await upstream(limit=10, window=600)
    registry.faults.add(fault, kind="manifest", method="GET", count=None)
    untold = {"changes": "answers to pulls do not tell what answers to HEADs do"}
    result = await sync_all(cli, registry, put(registry, *"abcdefghijkl"), judged=untold)
    assert result.code in (0, 75), result.stdout
    assert result.json["totals"]["failed"] == 0
    assert not registry.log.counts(status=429)
    check(cli, registry, result)


STYLES: list[dict[str, Any]] = [
    {"header_style": "docker", "window_kind": "rolling"},
    {"header_style": "ietf-old"},
    {"header_style": "ietf"},
    {"header_style": "gitlab"},
    {"sources": ("192.0.2.1", "192.0.2.2")},
]


@pytest.mark.parametrize("style", STYLES, ids=lambda each: "-".join(map(str, each.values())))
async def test_every_style_of_header_keeps_the_reserve(
    cli: CommandLine, upstream: UpstreamFactory, style: dict[str, Any]
) -> None:
    registry = await upstream(limit=8, window=600, **style)
    judged = {"changes": "two meters take turns"} if "sources" in style else {}
    result = await sync_all(cli, registry, put(registry, *"abcdefghijkl"), reserve=3, judged=judged)
    assert result.code == 75, result.stdout
    assert not registry.log.counts(status=429)
    told = [each.remaining for each in registry.log if each.remaining is not None]
    assert min(told) >= 3
    assert result.json["totals"]["pulls"] == registry.log.pulls >= 3
    assert result.json["budgets"][0]["limit"] == 8
    check(cli, registry, result)


async def test_heads_that_a_proxy_counts(cli: CommandLine, upstream: UpstreamFactory) -> None:
    """HEADs then cost, too: the pulls that follow leave the reserve alone."""
    registry = await upstream(limit=20, window=600, heads_counted=True)
    counted = {"changes": "a plan's HEADs cost pulls"}
    result = await sync_all(cli, registry, put(registry, *"abcdef"), reserve=5, judged=counted)
    assert result.json["totals"]["failed"] == 0
    pulls = registry.log.select(kind="manifest", method="GET")
    assert pulls
    assert not registry.log.counts(status=429)
    names = ("number", "method", "kind", "started", "ended", "counted", "remaining")
    requests = [{name: getattr(each, name) for name in names} for each in registry.log]
    assert breaches(requests, 5) == []
    check(cli, registry, result)


async def test_abuse_limit(cli: CommandLine, upstream: UpstreamFactory) -> None:
    """More requests a second than are allowed: slower, not fewer."""
    registry = await upstream(requests_per_second=12)
    names = put(registry, *"abcdef")
    result = await sync_all(cli, registry, names, requests_per_second=10, judged=AGAIN)
    assert (result.code, result.json["totals"]["synced"]) == (0, 6), result.stdout
    check(cli, registry, result)
