"""What a run was asked for, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from prefetch.errors import (
    InvalidManifest,
    NotFound,
    PlatformMissing,
    PrefetchError,
    RegistryError,
    Unauthorized,
)
from prefetch.oci.platform import ALL, Platform, PlatformSet
from prefetch.oci.reference import Reference
from prefetch.sources.selector import Demand, platforms_words
from prefetch.state.ledger import Hold
from prefetch.state.records import ManifestRecord, ReferenceRecord
from prefetch.sync.closure import Closure, closure_of

_MAX_OFFERED = 12
_REFUSALS = (401, 403)
_NOBODY = Demand()


@dataclass(frozen=True, slots=True)
class Wanted:
    """One reference, for some platforms; a higher `priority` goes first, then more `demand`.

    That its upstream does not have what is `optional` is no failure.
    """

    reference: Reference
    platforms: PlatformSet
    priority: int = 0
    demand: Demand = _NOBODY
    optional: bool = False

    @property
    def name(self) -> str:
        """The reference as reports and the database have it."""
        return str(self.reference)

    @property
    def registry(self) -> str:
        """The registry's normalised name, `docker.io`."""
        return self.reference.repository.registry

    @property
    def platforms_text(self) -> str:
        """`all`, or the platforms separated by commas: what the database keeps."""
        return ",".join(platforms_words(self.platforms))


def platforms_from_text(text: str) -> PlatformSet:
    """The opposite of `Wanted.platforms_text`."""
    if text == "all":
        return ALL
    return tuple(Platform.parse(part) for part in text.split(",") if part)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an image has failed or waits: a code, one line for people, the HTTP status if any.

    `retryable`: the same may succeed later.
    """

    code: str
    message: str
    http_status: int | None = None
    retryable: bool = False

    @property
    def is_refusal(self) -> bool:
        """Whether a registry did not like who asked."""
        return self.http_status in _REFUSALS

    @classmethod
    def of(cls, error: PrefetchError) -> Problem:
        """The problem that an exception tells of."""
        status = error.status if isinstance(error, RegistryError) else None
        return cls(error.code, str(error), status, error.retryable)


class Action(StrEnum):
    """What a plan says of an image (`plan -o json`)."""

    NONE = "none"
    SYNC = "sync"
    DEFER = "defer"
    MISSING = "missing"
    ERROR = "error"


@dataclass(slots=True)
class PlannedImage:
    """An image with its price.

    `pulls_min` and `pulls_max` bound the pulls (`pulls_max` None: no bound); `lacks` are the
    documents that they are for, as far as they are known. `pulls_expected` is the price if the
    alternates give what they say that they have; None where none has anything. `bytes` is what will
    be fetched, None while some manifest is not known. `closure` is None before the root document is
    known, and `whole` tells whether the store has all of it. `checked_at` (monotonic seconds) is
    when the registry was asked last.
    """

    wanted: Wanted
    record: ReferenceRecord | None = None
    digest: str | None = None
    media_type: str | None = None
    size: int | None = None
    checked_at: float | None = None
    closure: Closure | None = None
    pulls_min: int = 0
    pulls_max: int | None = 0
    lacks: frozenset[str] = frozenset()
    pulls_expected: int | None = None
    bytes: int | None = 0
    bytes_present: int = 0
    whole: bool = False
    action: Action = Action.SYNC
    problem: Problem | None = None
    start_at: datetime | None = None

    @property
    def exact(self) -> bool:
        """Whether every manifest that will be pulled is known by its digest."""
        return self.problem is None and self.pulls_min == self.pulls_max

    @property
    def needs_nothing(self) -> bool:
        """All of the closure is in the store."""
        return self.closure is not None and self.whole

    def enclose(self, root: str, records: Mapping[str, ManifestRecord]) -> Closure:
        """The image's closure from `root`, which must be in `records`.

        Raises PlatformMissing when none of the wanted platforms is there, and InvalidManifest.
        """
        platforms = self.wanted.platforms
        try:
            closure = closure_of(root, records, platforms)
        except InvalidManifest as error:
            raise InvalidManifest(f"{self.wanted.name}: {error.message}") from None
        if platforms is ALL or len(closure.missing) < len(platforms):
            return closure
        offered = [child.platform for child in records[root].children if child.platform]
        raise PlatformMissing(
            f"{self.wanted.name}: has none of the wanted platforms ({', '.join(closure.missing)})",
            hint=f"it has {', '.join(offered[:_MAX_OFFERED])}" if offered else None,
        )

    @property
    def absent(self) -> bool:
        """Optional, and its upstream does not have it."""
        return self.wanted.optional and self.action is Action.MISSING

    def fail(self, error: PrefetchError, action: Action = Action.ERROR) -> None:
        """Mark the image as one that cannot be fetched.

        Registries refuse to tell strangers what is private from what is not there: what nobody
        asks for counts as the latter.
        """
        if self.wanted.optional and isinstance(error, NotFound | Unauthorized | PlatformMissing):
            action = Action.MISSING
        self.action = action
        self.problem = Problem.of(error)
        self.pulls_min, self.pulls_max, self.pulls_expected, self.bytes = 0, 0, None, None
        self.lacks = frozenset()


class Outcome(StrEnum):
    """What became of an image (`sync -o json`)."""

    SYNCED = "synced"
    UNCHANGED = "unchanged"
    DEFERRED = "deferred"
    FAILED = "failed"
    ABSENT = "absent"


@dataclass(slots=True)
class ImageResult:
    """One image's line of the report.

    `pulls` were sent to its registry, `pulls_alternates` to alternates; `fetched_from` are the
    registries that content really came from in this run.
    """

    reference: str
    registry: str
    outcome: Outcome
    digest: str | None = None
    platforms: tuple[str, ...] = ()
    platforms_missing: tuple[str, ...] = ()
    pulls: int = 0
    pulls_alternates: int = 0
    fetched_from: tuple[str, ...] = ()
    bytes_fetched: int = 0
    bytes_reused: int = 0
    visibility: str = "unknown"
    retry_at: datetime | None = None
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """What an image was admitted with: a hold on so many pulls (none for an image that costs none).

    `whole` says that no child is pulled unless the hold covers all of them.
    """

    hold: Hold | None = None
    pulls: int = 0
    whole: bool = True


@dataclass(slots=True)
class Spent:
    """What fetching one image has cost so far.

    `pulls` were sent to its registry, `pulls_alternates` to alternates; `fetched` has each digest
    that came, and the registry that it came from.
    """

    pulls: int = 0
    pulls_alternates: int = 0
    bytes_fetched: int = 0
    fetched: dict[str, str] = field(default_factory=dict)

    def count(self, digest: str | None, registry: str) -> None:
        """One pull of a document, whose digest is not known where a tag was pulled."""
        self.pulls += 1
        if digest is not None:
            self.fetched[digest] = registry

    @property
    def sources(self) -> tuple[str, ...]:
        """The registries that content came from."""
        return tuple(sorted(set(self.fetched.values())))
