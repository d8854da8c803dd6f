"""The types of the fixtures in conftest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from prefetch.demo.upstream import Upstream
from support.processes import DockerRegistry, UpstreamProcess

UpstreamFactory = Callable[..., Awaitable[Upstream]]
UpstreamProcessFactory = Callable[..., Awaitable[UpstreamProcess]]
DockerRegistryFactory = Callable[..., Awaitable[DockerRegistry]]
