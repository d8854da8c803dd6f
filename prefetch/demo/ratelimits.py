"""Pull limits as registries keep and report them, and the abuse limit beside them.

Headers: Docker Hub's (Docker documentation, "Pull usage and limits"), the IETF draft's older and
newer forms (draft-ietf-httpapi-ratelimit-headers), and GitLab's, whose reset is a Unix time.
"""

from __future__ import annotations

import fnmatch
import math
import uuid
from collections import deque
from dataclasses import dataclass
from typing import Literal

from prefetch.clock import Clock

ANONYMOUS = "anonymous"

WindowKind = Literal["fixed", "rolling"]
HeaderStyle = Literal["docker", "ietf-old", "ietf", "gitlab"]


@dataclass(frozen=True, kw_only=True)
class LimitSettings:
    """How pulls are counted.

    `limit` pulls in `window` seconds for one anonymous address; None is no limit, and no
    headers. A `fixed` window opens with its first pull and gives all back at once; a `rolling`
    one gives each pull back when it is a window old. `sources` makes anonymous requests come
    from these addresses in turn, each with a meter of its own. Repositories that match
    `exempt` cost nothing and report nothing. `requests_per_second` is the abuse limit.
    """

    limit: int | None = 100
    window: float = 21600
    window_kind: WindowKind = "fixed"
    header_style: HeaderStyle = "docker"
    heads_counted: bool = False
    sources: tuple[str, ...] = ()
    exempt: tuple[str, ...] = ()
    requests_per_second: float | None = None


class Meter:
    """The pulls of one identity. Times are the clock's monotonic seconds."""

    def __init__(self, limit: int, settings: LimitSettings, clock: Clock, source: str) -> None:
        self.limit = limit
        self.source = source
        self._settings = settings
        self._clock = clock
        self._pulls: deque[float] = deque()
        self._burn_interval = math.inf
        self._next_burn = math.inf

    def take(self) -> bool:
        """Count one pull; False, and nothing counted, when none is left."""
        now = self._advance()
        if len(self._pulls) >= self.limit:
            return False
        self._pulls.append(now)
        return True

    def remaining(self) -> int:
        self._advance()
        return self.limit - len(self._pulls)

    def spend(self, pulls: int) -> None:
        """Pulls that somebody else makes now; what is beyond the limit is refused them."""
        for _ in range(pulls):
            self.take()

    def burn(self, pulls_per_second: float) -> None:
        """Somebody else pulls at this rate from now on; 0 ends it."""
        now = self._advance()
        self._burn_interval = 1 / pulls_per_second if pulls_per_second > 0 else math.inf
        self._next_burn = now + self._burn_interval

    def resets_in(self) -> float:
        """Seconds until the oldest pull is given back; 0 when none is out."""
        now = self._advance()
        return self._pulls[0] + self._settings.window - now if self._pulls else 0.0

    def headers(self) -> dict[str, str]:
        """What an answer says of this meter."""
        window, remaining = int(self._settings.window), self.remaining()
        reset = math.ceil(self.resets_in())
        match self._settings.header_style:
            case "docker":
                return {
                    "ratelimit-limit": f"{self.limit};w={window}",
                    "ratelimit-remaining": f"{remaining};w={window}",
                    "docker-ratelimit-source": self.source,
                }
            case "ietf-old":
                return _triple(self.limit, remaining, reset)
            case "gitlab":
                return _triple(self.limit, remaining, int(self._clock.now().timestamp()) + reset)
            case "ietf":
                return {
                    "RateLimit-Policy": f'"pulls";q={self.limit};w={window}',
                    "RateLimit": f'"pulls";r={remaining};t={reset}',
                }

    def _advance(self) -> float:
        """Let time pass: foreign pulls happen when they were due, old ones come back."""
        now = self._clock.monotonic()
        while self._next_burn <= now:
            self._give_back(self._next_burn)
            if len(self._pulls) < self.limit:
                self._pulls.append(self._next_burn)
            self._next_burn += self._burn_interval
        self._give_back(now)
        return now

    def _give_back(self, now: float) -> None:
        due = now - self._settings.window
        if self._settings.window_kind == "fixed":
            if self._pulls and self._pulls[0] <= due:
                self._pulls.clear()
        else:
            while self._pulls and self._pulls[0] <= due:
                self._pulls.popleft()


class PullLimits:
    """Every meter of the upstream, made when first asked for."""

    def __init__(
        self, settings: LimitSettings, accounts: dict[str, int | None], clock: Clock
    ) -> None:
        self.settings = settings
        self._accounts = accounts
        self._clock = clock
        self._meters: dict[str, Meter] = {}
        self._turn = 0
        self._tokens = settings.requests_per_second or 0.0
        self._filled = clock.monotonic()

    def meter(self, identity: str = ANONYMOUS, address: str = "127.0.0.1") -> Meter | None:
        """An account's meter, or an anonymous address's; None where nothing is limited."""
        if identity != ANONYMOUS:
            source = str(uuid.uuid5(uuid.NAMESPACE_DNS, identity))
            return self._meter(source, self._accounts.get(identity))
        sources = self.settings.sources
        if sources:
            address = sources[self._turn % len(sources)]
            self._turn += 1
        return self._meter(address, self.settings.limit)

    def exempt(self, repository: str) -> bool:
        return any(fnmatch.fnmatchcase(repository, each) for each in self.settings.exempt)

    def abused(self) -> bool:
        """Count one request, of whatever kind, against the abuse limit: a bucket of a second."""
        rate = self.settings.requests_per_second
        if rate is None:
            return False
        now = self._clock.monotonic()
        self._tokens = min(max(rate, 1.0), self._tokens + (now - self._filled) * rate)
        self._filled = now
        if self._tokens < 1:
            return True
        self._tokens -= 1
        return False

    def _meter(self, source: str, limit: int | None) -> Meter | None:
        if limit is None:
            return None
        if source not in self._meters:
            self._meters[source] = Meter(limit, self.settings, self._clock, source)
        return self._meters[source]


def _triple(limit: int, remaining: int, reset: int) -> dict[str, str]:
    return {
        "RateLimit-Limit": str(limit),
        "RateLimit-Remaining": str(remaining),
        "RateLimit-Reset": str(reset),
    }
