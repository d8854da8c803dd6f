"""Fixtures for every layer, and the rule for tests that need real programs."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from prefetch.clock import Clock
from prefetch.demo.settings import UpstreamSettings
from prefetch.demo.upstream import Upstream
from support.cache import Cache, ServeFactory, start_cache
from support.clock import ManualClock
from support.evidence import assert_no_crash
from support.factories import DockerRegistryFactory, UpstreamFactory, UpstreamProcessFactory
from support.parts import lacks
from support.processes import (
    CommandLine,
    DockerRegistry,
    UpstreamProcess,
    start_docker_registry,
    start_upstream,
)
from support.processes import free_port as find_free_port

# Machines that run the tests do other work, too: how long an example takes tells nothing.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.real("skopeo")`: skip where it is missing, fail where it must not be."""
    for mark in item.iter_markers("real"):
        missing = [reason for part in mark.args if (reason := lacks(part))]
        if not missing:
            continue
        reason = f"needs {', '.join(missing)}"
        if os.environ.get("PREFETCH_REQUIRE_REAL") == "1":
            pytest.fail(f"{reason}, and PREFETCH_REQUIRE_REAL is set", pytrace=False)
        pytest.skip(reason)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def free_port() -> int:
    return find_free_port()


@pytest.fixture
async def upstream() -> AsyncIterator[UpstreamFactory]:
    """`await upstream(limit=30, …)`: one in this process, by `UpstreamSettings`' keywords."""
    async with AsyncExitStack() as stack:

        async def start(*, clock: Clock | None = None, **settings: Any) -> Upstream:
            running = Upstream(UpstreamSettings(**settings), clock=clock)
            return await stack.enter_async_context(running)

        yield start


@pytest.fixture
async def upstream_process(tmp_path: Path) -> AsyncIterator[UpstreamProcessFactory]:
    """`await upstream_process(settings={…}, images=[…], faults=[…], burn=…)`: one of its own."""
    numbers = itertools.count()
    with_stop = AsyncExitStack()

    async def start(**specification: Any) -> UpstreamProcess:
        directory = tmp_path / f"upstream-{next(numbers)}"
        running = await start_upstream(directory, specification)
        with_stop.callback(running.stop)
        return running

    async with with_stop:
        yield start


@pytest.fixture
async def docker_registry(tmp_path: Path) -> AsyncIterator[DockerRegistryFactory]:
    """`await docker_registry(users={"ci": "secret"})`; mark the test `real("docker-registry")`."""
    numbers = itertools.count()
    with_stop = AsyncExitStack()

    async def start(users: Mapping[str, str] | None = None) -> DockerRegistry:
        directory = tmp_path / f"docker-registry-{next(numbers)}"
        running = await start_docker_registry(directory, users)
        with_stop.callback(running.stop)
        return running

    async with with_stop:
        yield start


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    """`await cli("sync", "-o", "json", …)`: the command in a clean environment."""
    home = tmp_path / "home"
    home.mkdir()
    return CommandLine(home, tmp_path / "data")


@pytest.fixture
async def serve(cli: CommandLine) -> AsyncIterator[ServeFactory]:
    """`await serve("--workers", "2", config=…)`, as `start_cache`: it must end well, too."""
    running: list[Cache] = []
    async with AsyncExitStack() as stack:

        async def start(*words: str, **settings: Any) -> Cache:
            cache = await start_cache(cli, *words, **settings)
            stack.push_async_callback(cache.stop)
            running.append(cache)
            return cache

        yield start
        for each in running:
            ended = await each.stop()
            assert each.killed or ended.code == 0, ended.stderr
            assert_no_crash(ended)
