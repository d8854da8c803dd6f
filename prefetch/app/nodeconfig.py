"""`probe --target`: what a node's own configuration does with its pulls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefetch.app.requests import Place
from prefetch.app.runtime import settings_at
from prefetch.clientconfig.endpoints import parse_endpoint
from prefetch.clientconfig.reading import read_routes
from prefetch.clientconfig.request import registry_name
from prefetch.clientconfig.routes import Route, Verdict


@dataclass(frozen=True, slots=True)
class NodeReport:
    """Where the pulls of each registry go; `caches` are hosts, `required` registries that must."""

    path: Path
    target: str
    caches: frozenset[str]
    routes: Sequence[Route]
    required: frozenset[str]

    def verdict(self, route: Route) -> Verdict:
        """What becomes of one registry's pulls."""
        return route.verdict(self.caches)

    def notes(self, route: Route) -> list[str]:
        """What has to be known of one registry besides."""
        misled = "the cache is asked, but without the registry's name: it takes it for docker.io"
        return [*([misled] if route.misled(self.caches) else []), *filter(None, [route.note])]

    @property
    def ok(self) -> bool:
        """Whether all required registries go through the cache; without any, whether one does."""
        if any(route.misled(self.caches) for route in self.routes):
            return False
        through = {r.registry for r in self.routes if self.verdict(r) != "bypass"}
        return self.required <= through if self.required else bool(through)

    def document(self) -> dict[str, Any]:
        """`probe --target -o json`."""
        return {
            "config": str(self.path),
            "target": self.target,
            "ok": self.ok,
            "registries": [
                {
                    "registry": route.registry,
                    "pulls": self.verdict(route),
                    "mirrors": [str(place) for place in route.places],
                    "itself": route.itself,
                    "notes": self.notes(route),
                }
                for route in self.routes
            ],
        }


def run_node_probe(
    target: str, path: Path, cache_urls: Sequence[str], registries: Sequence[str]
) -> NodeReport:
    """Read what a node of the kind `target` reads; no request is sent. Raises UsageError."""
    caches = [parse_endpoint(url, "--cache-url", cache=True).host for url in cache_urls]
    required = list(dict.fromkeys(registry_name(name, "--registry") for name in registries))
    asked = required or list(settings_at(Place()).registries)
    routes = read_routes(target, path, asked)
    return NodeReport(path, target, frozenset(caches), routes, frozenset(required))
