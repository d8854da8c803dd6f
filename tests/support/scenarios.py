"""Faults told as tables: what a registry does to one repository, and what a sync makes of it.

One upstream has a repository for each scenario and one `sync` takes them all; a second one, after
the registry has recovered, shows that no fault leaves anything behind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefetch.demo.images import Image, image
from prefetch.demo.requests import Request
from prefetch.demo.settings import UpstreamSettings
from prefetch.demo.upstream import Upstream
from support.evidence import assert_blobs_sound, assert_no_crash, assert_no_secret
from support.foreseeing import Foreseeing, Within
from support.processes import CommandLine, Result

TAG = "1"
PLATFORM = "linux/amd64"
LAYER_SIZE = 40_000
ALICE = {"username": "alice", "password_env": "ALICE_PASSWORD"}
PASSWORD = "a-password-of-alice's"


@dataclass(frozen=True, slots=True)
class Order:
    """A fault for a part of an image: its `tag`, `index`, `child` or `layer`; None is any."""

    name: str
    part: str | None
    details: dict[str, Any]

    def give(self, upstream: Upstream, repository: str, made: Image) -> None:
        reference = None if self.part is None else part_of(made, self.part)
        upstream.faults.add(self.name, repository=repository, reference=reference, **self.details)


def order(name: str, part: str | None = None, **details: Any) -> Order:
    """A fault that strikes always, unless `count` says how often."""
    return Order(name, part, {"count": None, **details})


def part_of(made: Image, part: str) -> str:
    """The tag, or the digest of the index, of the child for PLATFORM, or of its last layer."""
    if part == "tag":
        return TAG
    if part == "index":
        return made.digest
    child = made.child(PLATFORM)
    return child.digest if part == "child" else child.blobs[-1].digest


def usual(seed: str) -> Image:
    """Two platforms, each with a layer that is worth resuming."""
    return image(seed, layers=1, layer_size=LAYER_SIZE)


@dataclass(frozen=True, slots=True)
class Scenario:
    """With `code` None the image is synced, else it fails with that code and `says` why (a
    pattern); a `lasting` failure is one of the content, which no recovery of the registry heals.
    What is `unforeseen` costs more than its bound: its index names indexes."""

    name: str
    orders: Sequence[Order]
    content: Callable[[str], Image] = usual
    code: str | None = None
    says: str = ""
    status: int | None = None
    lasting: bool = False
    unforeseen: bool = False

    @property
    def costs_pulls(self) -> bool:
        """Whether a fault strikes a pull, so that it is sent again, or spares those after it."""
        details = [each.details for each in self.orders]
        return any(d.get("kind") == "manifest" and d.get("method") != "HEAD" for d in details)

    def __str__(self) -> str:
        return self.name


def heals(name: str, *orders: Order, content: Callable[[str], Image] = usual) -> Scenario:
    """The image is complete in the end, at the first attempt of the user's."""
    return Scenario(name, orders, content)


def fails(name: str, code: str, says: str, *orders: Order, status: int | None = None) -> Scenario:
    """The image fails; once the registry has recovered, it does not any more."""
    return Scenario(name, orders, code=code, says=says, status=status)


def refuses(name: str, code: str, says: str, content: Callable[[str], Image]) -> Scenario:
    """What the registry has is not acceptable, however often it is asked."""
    return Scenario(name, (), content, code=code, says=says, lasting=True)


@dataclass(frozen=True, slots=True)
class Ward:
    """What two syncs made of all scenarios; `requests` are those of the first."""

    upstream: Upstream
    cli: CommandLine
    images: dict[str, Image]
    first: Result
    again: Result
    requests: Sequence[Request]

    def asked(self, name: str, **fields: Any) -> list[Request]:
        """The requests for one scenario's repository with these fields."""
        return [
            each
            for each in self.requests
            if each.repository == name and all(getattr(each, k) == v for k, v in fields.items())
        ]

    def result(self, name: str, result: Result | None = None) -> dict[str, Any]:
        """One image's line of a report, of the first one unless told otherwise."""
        reference = f"{self.upstream.address}/{name}:{TAG}"
        document = (result or self.first).json
        (found,) = [each for each in document["images"] if each["reference"] == reference]
        return dict(found)

    def check(self, scenario: Scenario) -> None:
        """The scenario's image came out as it should, in both runs."""
        found = self.result(scenario.name)
        if scenario.code is None:
            assert (found["outcome"], found["error"]) == ("synced", None)
            assert found["digest"] == self.images[scenario.name].digest
        else:
            self._check_failure(scenario, found)
        after = self.result(scenario.name, self.again)
        if scenario.lasting:
            self._check_failure(scenario, after)
        else:
            assert after["error"] is None
            assert after["outcome"] == ("unchanged" if scenario.code is None else "synced")

    def _check_failure(self, scenario: Scenario, found: dict[str, Any]) -> None:
        error = found["error"]
        assert found["outcome"] == "failed"
        assert error["code"] == scenario.code, error
        assert re.search(scenario.says, error["message"]), error
        assert "\n" not in error["message"]
        if scenario.status is not None:
            assert error["http_status"] == scenario.status, error

    def check_all(self, scenarios: Sequence[Scenario]) -> None:
        """Exit statuses, the store, and what was written where."""
        failing = any(scenario.code for scenario in scenarios)
        lasting = any(scenario.lasting for scenario in scenarios)
        assert (self.first.code, self.again.code) == (int(failing), int(lasting))
        assert self.first.json["outcome"] == ("failed" if failing else "complete")
        assert assert_blobs_sound(self.cli.cache) > 0
        assert_no_crash(self.first, self.again)
        assert_no_secret(
            self.cli, [PASSWORD, *self.upstream.doorkeeper.issued], self.first, self.again
        )


def configure(cli: CommandLine, *upstreams: Upstream, **registry: Any) -> Path:
    """A `prefetch.yaml` with these settings for each upstream."""
    path = cli.home / "prefetch.yaml"
    # YAML has JSON within it.
    path.write_text(json.dumps({"registries": {each.address: registry for each in upstreams}}))
    return path


async def sync_all(
    cli: CommandLine,
    upstream: Upstream,
    names: Sequence[str],
    *words: str | Path,
    judged: Mapping[str, Any] | None = None,
    **registry: Any,
) -> Result:
    """`sync -o json` of one tag of each repository, with all that it may log.

    `judged` is what a `Foreseeing` is told of the scenario, `registry` goes to the configuration.
    """
    config = configure(cli, upstream, **registry)
    return await cli(
        *("--config", config, "--log-level", "debug", "--log-format", "json"),
        *("sync", "-", "-o", "json", "--platform", PLATFORM, *words),
        stdin="\n".join(f"{upstream.address}/{name}:{TAG}" for name in names),
        env={"ALICE_PASSWORD": PASSWORD},
        timeout=90,
        **(judged or {}),
    )


def _references(upstream: Upstream, scenarios: Iterable[Scenario]) -> list[str]:
    return [f"{upstream.address}/{each.name}:{TAG}" for each in scenarios]


async def run_ward(directory: Path, scenarios: Sequence[Scenario], **settings: Any) -> Ward:
    """Prepare an upstream, sync twice; `settings` are UpstreamSettings'."""
    cli = Foreseeing(directory / "home", directory / "data")
    cli.home.mkdir(parents=True)
    async with Upstream(UpstreamSettings(**{"limit": 10_000, **settings})) as upstream:
        cli.upstreams.append(Within(upstream))
        images = {}
        for scenario in scenarios:
            made = images[scenario.name] = scenario.content(scenario.name)
            upstream.content.put(scenario.name, made, TAG)
            for each in scenario.orders:
                each.give(upstream, scenario.name, made)
        patience = {"idle_timeout": "1s", "max_concurrency": 32}
        judged = {
            "unforeseen": _references(upstream, (s for s in scenarios if s.unforeseen)),
            "scripted": _references(upstream, (s for s in scenarios if s.costs_pulls)),
        }
        first = await sync_all(cli, upstream, list(images), judged=judged, **patience)
        requests = list(upstream.log)
        upstream.faults.clear()
        again = await sync_all(cli, upstream, list(images), **patience)
        return Ward(upstream, cli, images, first, again, requests)
