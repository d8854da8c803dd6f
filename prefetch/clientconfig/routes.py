"""Where a node's configuration sends the pulls of a registry, and what that means for a cache."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, TypeAlias

from prefetch.clientconfig.endpoints import API

_QUERY = re.compile("[?#]")

Verdict: TypeAlias = Literal["cache", "fallback", "bypass"]
"""All through the cache; through it, and to the registry where it fails; past it."""


@dataclass(frozen=True, slots=True)
class Place:
    """A mirror as it is configured: `host` is `name[:port]`, `path` what follows it.

    `namespaced` clients name the registry beside the path (`?ns=`); others name it in the path, or
    not at all, in which case a cache takes it for docker.io.
    """

    host: str
    path: str = ""
    namespaced: bool = True

    @classmethod
    def parse(cls, text: str, *, namespaced: bool = True) -> Place:
        """`https://host/path` or `host/path`; no user or query is kept, which may be secret."""
        bare = _QUERY.split(text.rpartition("://")[2])[0]
        host, _, path = bare.rpartition("@")[2].partition("/")
        return cls(host.lower(), path.strip("/"), namespaced)

    def asks_for(self, registry: str) -> bool:
        """Whether a cache that is asked here takes the question for one about this registry."""
        named = [part for part in self.path.split("/") if part and part != API.strip("/")]
        if named:
            return named == [registry]
        return self.namespaced or registry == "docker.io"

    def __str__(self) -> str:
        return f"{self.host}/{self.path}" if self.path else self.host


@dataclass(frozen=True, slots=True)
class Route:
    """Whom a node asks for a registry's images: `places` in order, then the registry `itself`."""

    registry: str
    places: tuple[Place, ...] = ()
    itself: bool = True
    note: str = ""

    def verdict(self, caches: Collection[str]) -> Verdict:
        """What this means where `caches` are the hosts of caches."""
        if not self.places or self.misled(caches) or self.places[0].host not in caches:
            return "bypass"
        others = any(place.host not in caches for place in self.places)
        return "fallback" if self.itself or others else "cache"

    def described(self) -> str:
        """`a, b, then quay.io itself`."""
        places = ", ".join(map(str, self.places))
        if not self.places:
            return f"{self.registry} itself"
        return f"{places}, then {self.registry} itself" if self.itself else places

    def misled(self, caches: Collection[str]) -> bool:
        """Whether a cache is asked, but would take the question for another registry's."""
        return any(
            place.host in caches and not place.asks_for(self.registry) for place in self.places
        )
