"""Every sync of these tests is priced before, and judged by its price."""

from __future__ import annotations

from typing import Any

import pytest

from prefetch.demo.upstream import Upstream
from support.factories import UpstreamFactory, UpstreamProcessFactory
from support.foreseeing import Beside, Foreseeing, Watched, Within
from support.processes import CommandLine, UpstreamProcess


@pytest.fixture
def upstreams() -> list[Watched]:
    """Those that a test has started."""
    return []


@pytest.fixture
def upstream(upstream: UpstreamFactory, upstreams: list[Watched]) -> UpstreamFactory:
    async def start(**settings: Any) -> Upstream:
        running = await upstream(**settings)
        upstreams.append(Within(running))
        return running

    return start


@pytest.fixture
def upstream_process(
    upstream_process: UpstreamProcessFactory, upstreams: list[Watched]
) -> UpstreamProcessFactory:
    async def start(**specification: Any) -> UpstreamProcess:
        running = await upstream_process(**specification)
        upstreams.append(Beside(running))
        return running

    return start


@pytest.fixture
def cli(cli: CommandLine, upstreams: list[Watched]) -> CommandLine:
    return Foreseeing(cli.home, cli.data_dir, upstreams)
