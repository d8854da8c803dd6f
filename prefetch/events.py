"""What happens, as typed values: one stream that progress, history and metrics listen to.

An `Emit` is called synchronously on the event loop and must return at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run began; `references` is how many distinct references its sources name."""

    run_id: str
    references: int


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that a person should know and that is no error: one line."""

    text: str


@dataclass(frozen=True, slots=True)
class ReferenceResolved:
    """A tag's digest is known (free), or the attempt has failed (`digest` None)."""

    reference: str
    digest: str | None


@dataclass(frozen=True, slots=True)
class PlanReady:
    """The plan is made: images to fetch, and the price in pulls (`pulls_max` None: no bound)."""

    images: int
    to_fetch: int
    pulls_min: int
    pulls_max: int | None


@dataclass(frozen=True, slots=True)
class ImageStarted:
    """An image was admitted: its pulls are held."""

    reference: str


@dataclass(frozen=True, slots=True)
class ImageFinished:
    """What became of a reference: `synced`, `unchanged`, `deferred` or `failed`."""

    reference: str
    outcome: str
    pulls: int = 0
    bytes_fetched: int = 0
    message: str | None = None
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PullSpent:
    """One counted manifest GET was answered; `remaining` is the registry's last word.

    `alternate`: it was sent to an alternate, and cost the named registry nothing.
    """

    registry: str
    identity: str
    reference: str
    remaining: int | None
    alternate: bool = False


@dataclass(frozen=True, slots=True)
class AlternateDropped:
    """An alternate sent what is not what was asked for: it is asked for the repository no more."""

    alternate: str
    repository: str
    reason: str

    @property
    def text(self) -> str:
        """One line for a person."""
        return (
            f"{self.alternate}, an alternate, is asked no more for {self.repository}: {self.reason}"
        )


@dataclass(frozen=True, slots=True)
class AlternateRested:
    """An alternate does not answer, or has no pulls left for us: it is left alone until then."""

    alternate: str
    reason: str
    until: datetime

    @property
    def text(self) -> str:
        """One line for a person."""
        return f"{self.alternate}, an alternate, is left alone for now: {self.reason}"


@dataclass(frozen=True, slots=True)
class BlobStarted:
    """A blob's transfer began at `offset` (bytes kept from before) of `total`."""

    digest: str
    total: int
    offset: int


@dataclass(frozen=True, slots=True)
class BlobProgress:
    """Bytes of a blob that have reached the disk so far."""

    digest: str
    offset: int


@dataclass(frozen=True, slots=True)
class BlobFinished:
    """A blob is whole and verified, or (`ok` False) its transfer was given up."""

    digest: str
    fetched: int
    ok: bool = True


@dataclass(frozen=True, slots=True)
class ThrottleEvent:
    """A registry throttles: every request to it waits until then."""

    registry: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Slowed:
    """A registry has throttled us: from now on it is asked at most `per_second` times a second."""

    registry: str
    per_second: float


@dataclass(frozen=True, slots=True)
class BudgetChanged:
    """A meter's estimate moved: `available` pulls are left above `reserve`."""

    registry: str
    identity: str
    limit: int | None
    remaining: int | None
    reserve: int
    available: int | None


@dataclass(frozen=True, slots=True)
class WaitStarted:
    """The run waits for budget; `deferred` references are put off until about `until`."""

    until: datetime
    deferred: int


@dataclass(frozen=True, slots=True)
class PullsSpread:
    """A run spends smoothly: the pulls that are available are spread until `until`."""

    registry: str
    identity: str
    pulls: int
    until: datetime


@dataclass(frozen=True, slots=True)
class DeadlineMissed:
    """These references will not be warm by then; `reason` says why, in a few words.

    None: which they are is not known, of an entry of the schedule whose sources cannot be read.
    """

    by: datetime
    images: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class ReserveThreatened:
    """Others will have used up the `available` pulls above a meter's reserve at about `used_up_at`,
    before its window of `window_seconds` is over."""

    registry: str
    identity: str
    limit: int | None
    remaining: int | None
    reserve: int
    available: int | None
    foreign_burn_per_hour: float
    window_seconds: float | None
    used_up_at: datetime


@dataclass(frozen=True, slots=True)
class ImmutableTagMoved:
    """A tag that the configuration calls immutable has another digest (`found`) than it had.

    `kept`: it stays at the recorded one in this cache, since that was complete.
    """

    reference: str
    recorded: str
    found: str
    kept: bool


@dataclass(frozen=True, slots=True)
class NoticeDelivered:
    """A hook has taken a notice; `output` is the start of what a program has printed."""

    hook: str
    notice: str
    id: str
    output: str | None = None


@dataclass(frozen=True, slots=True)
class NoticeFailed:
    """A hook has not taken a notice; unless `given_up` it is tried again."""

    hook: str
    notice: str
    id: str
    reason: str
    attempts: int
    given_up: bool
    output: str | None = None


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run ended: `complete`, `deferred`, `failed` or `interrupted`.

    `errors` entries of its sources could not be read; `message` is what kept it from its end.
    """

    run_id: str
    outcome: str
    errors: int = 0
    message: str | None = None


Event = (
    RunStarted
    | Remark
    | ReferenceResolved
    | PlanReady
    | ImageStarted
    | ImageFinished
    | PullSpent
    | AlternateDropped
    | AlternateRested
    | BlobStarted
    | BlobProgress
    | BlobFinished
    | ThrottleEvent
    | Slowed
    | BudgetChanged
    | WaitStarted
    | PullsSpread
    | DeadlineMissed
    | ReserveThreatened
    | ImmutableTagMoved
    | NoticeDelivered
    | NoticeFailed
    | RunFinished
)
Emit = Callable[[Event], None]


@dataclass(slots=True)
class Stream:
    """Hands each event to all listeners, in the order in which they came."""

    listeners: list[Emit] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        """Tell every listener."""
        for listener in self.listeners:
            listener(event)
