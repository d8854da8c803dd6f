"""How one registry is spoken to, and how patiently."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from prefetch.errors import InvalidReference
from prefetch.oci.reference import Repository
from prefetch.oci.registries import endpoint_for
from prefetch.ratelimit.budget import DEFAULT_RESERVE, Reserve
from prefetch.ratelimit.pace import Pace


@dataclass(frozen=True, slots=True)
class Alternate:
    """Where a registry's content may be had as well: a registry, and a path that goes before names.

    With `private` it may also be asked for repositories that not everybody can see.
    """

    registry: str
    prefix: str = ""
    private: bool = False

    def __str__(self) -> str:
        return f"{self.registry}/{self.prefix}" if self.prefix else self.registry

    def repository(self, original: Repository) -> Repository | None:
        """What a repository of the registry is called there; None: the name becomes too long."""
        try:
            return Repository.parse(f"{self}/{original.path}")
        except InvalidReference:
            return None


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """One registry: where it is, what we may spend there and how fast. Who we are is apart.

    `name` is the registry's name in references, `endpoint` its URL (http:// is plain HTTP).
    `ca_file` is trusted besides the system's authorities; `cert_file` and `key_file` are shown to
    the registry's own host alone (PEM). `limit` is pulls and seconds, for a registry that reports
    none. `idle_timeout` bounds, in seconds, any silence of a peer, before and within a body.
    `pace`, `alternates` and `immutable_tags` (matched whole) are for those who plan. `public_only`
    is for a registry that a client has named: it is contacted at public addresses alone.
    """

    name: str
    endpoint: str
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    reserve: Reserve = DEFAULT_RESERVE
    limit: tuple[int, float] | None = None
    pace: Pace = Pace.BURST
    requests_per_second: float | None = None
    max_concurrency: int = 8
    idle_timeout: float = 30.0
    alternates: tuple[Alternate, ...] = ()
    immutable_tags: tuple[re.Pattern[str], ...] = ()
    public_only: bool = False

    def is_immutable(self, tag: str | None) -> bool:
        """Whether a tag is said never to move."""
        return tag is not None and any(each.fullmatch(tag) for each in self.immutable_tags)

    @classmethod
    def default(cls, name: str) -> RegistrySettings:
        """The settings of a registry that is not configured."""
        return cls(name=name, endpoint=endpoint_for(name))


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """Patience, in seconds.

    `connect_timeout` covers name, TCP and TLS, `document_timeout` a manifest, token or tag list as
    a whole. Blobs have no total limit, but one that comes at less than `least_rate` bytes a second
    is broken off. Failed requests are sent at most `attempts` times (throttled ones
    `throttle_attempts`), after `first_wait` doubling to `longest_wait`, with jitter; `longest_wait`
    also bounds what Retry-After may ask for. Without `waits_out_throttling`, what would have to
    wait for a registry that throttles raises Throttled instead. `only_if_cached` asks a cache for
    what it has, and not to fetch it (RFC 9111, section 5.2.1.7).
    """

    connect_timeout: float = 10.0
    document_timeout: float = 120.0
    attempts: int = 5
    throttle_attempts: int = 8
    first_wait: float = 0.5
    longest_wait: float = 300.0
    max_redirects: int = 10
    least_rate: float = 0.0
    waits_out_throttling: bool = True
    only_if_cached: bool = False
