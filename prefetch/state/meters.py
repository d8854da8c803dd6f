"""What the ledger takes and gives: meters, stamps, holds, spends and its answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from prefetch.ratelimit.budget import DEFAULT_RESERVE, Reserve

ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class MeterKey:
    """Whose pulls are counted together: a registry, and `anonymous` or the account's name."""

    registry: str
    identity: str = ANONYMOUS


@dataclass(frozen=True, slots=True)
class MeterPolicy:
    """What the configuration says of a meter.

    `limit` is pulls and seconds, for a registry that reports none (or too many).
    """

    reserve: Reserve = DEFAULT_RESERVE
    limit: tuple[int, float] | None = None


@dataclass(frozen=True, slots=True, order=True)
class Stamp:
    """When a request left: the ledger's sequence known then, and this process's own count.

    `spend` is the journal's row of a HEAD that costs a pull.
    """

    sequence: int
    counter: int
    spend: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Hold:
    """Pulls set aside for one image; it dies with its process."""

    id: int
    meter: MeterKey
    policy: MeterPolicy
    label: str
    exempt: bool = False


@dataclass(frozen=True, slots=True)
class Spend:
    """One pull, journaled before its request leaves; it must be settled."""

    id: int
    meter: MeterKey
    repository: str
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Granted:
    """Send the request now."""

    spend: Spend


@dataclass(frozen=True, slots=True)
class Observe:
    """Send a free HEAD to this very repository first, then ask again."""


@dataclass(frozen=True, slots=True)
class Busy:
    """Others' holds, or pulls under way, are in the way: wait a little, then ask again."""


@dataclass(frozen=True, slots=True)
class Refused:
    """No pulls above the reserve; `retry_at` is when the forecast has them back.

    Of a hold: `busy` means that only holds and pulls under way are in the way, `stale` that a
    free HEAD may change the answer.
    """

    retry_at: datetime
    available: int
    reason: str
    busy: bool = False
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Budget:
    """A meter as reports show it; numbers are None where no limit is known.

    `back_at` is when all of it is back; None where no window is known.
    """

    meter: MeterKey
    source: str | None
    limit: int | None
    remaining: int | None
    reserve: int
    available: int | None
    window_seconds: float | None
    observed_at: datetime | None
    foreign_burn_per_hour: float
    back_at: datetime | None = None
