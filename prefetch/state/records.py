"""Rows as values: what the repositories take and give.

Digests are text, `sha256:…`; times are aware datetimes in UTC; sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

ChildKind = Literal["manifest", "index", "config", "layer"]
Visibility = Literal["public", "private", "unknown"]


@dataclass(frozen=True, slots=True)
class ReferenceRecord:
    """A reference and what it was when last looked at.

    `name` is the key: the canonical reference, `docker.io/library/nginx:1.27` or
    `docker.io/library/nginx@sha256:…`. `platforms` is what was last asked for: a comma list, or
    `all`. `changed_at` is when the tag last moved, `deferred_since` when it was first put off in
    the present row of deferrals, `absent_since` when the upstream was first found not to have it.
    """

    name: str
    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None
    media_type: str | None = None
    platforms: str = ""
    warm: bool = False
    pinned: bool = False
    resolved_at: datetime | None = None
    changed_at: datetime | None = None
    synced_at: datetime | None = None
    deferred_since: datetime | None = None
    absent_since: datetime | None = None
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class ChildRecord:
    """A descriptor in a manifest or an index; `platform` is `os/arch[/variant]`, if given."""

    digest: str
    kind: ChildKind
    media_type: str
    size: int
    platform: str | None = None


@dataclass(frozen=True, slots=True)
class ManifestRecord:
    """A manifest or an index whose document has been seen, with its children in order.

    `subject` is the digest of what it refers to (image-spec, "subject"), if it says so.
    """

    digest: str
    media_type: str
    size: int
    children: tuple[ChildRecord, ...] = ()
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class BlobRecord:
    """Content in the store: its size and the registry that it came from."""

    digest: str
    size: int
    registry: str | None = None
    fetched_at: datetime | None = None
    last_served_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """Content known to be in a repository, and who may see it there."""

    registry: str
    repository: str
    digest: str
    visibility: Visibility = "unknown"


@dataclass(frozen=True, slots=True)
class AlternateRecord:
    """What asking an alternate for one repository's content has come to.

    `worked_at` is when it last gave some, whole and right; `lacked` how often in a row it had
    nothing, lastly at `lacked_at`; `lied_at` when it last sent what was not asked for, `lie` what
    that was, in words.
    """

    registry: str
    repository: str
    alternate: str
    worked_at: datetime | None = None
    lacked_at: datetime | None = None
    lacked: int = 0
    lied_at: datetime | None = None
    lie: str | None = None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run; `outcome` is None while it goes on, or when it was killed.

    `entry` is the entry of the schedule that it was a run of, None for any other; `cause` is why it
    was started then.
    """

    id: str
    command: str
    started_at: datetime
    finished_at: datetime | None = None
    outcome: str | None = None
    images: int = 0
    pulls: int = 0
    bytes_fetched: int = 0
    entry: str | None = None
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class EntryHistory:
    """What the state knows of an entry of the schedule.

    Its latest runs, the newest first; how many images the last of them that got so far as to look
    at any has put off, and the earliest moment at which one of those may be tried again (None: none
    has a moment). `whole` is the latest run that was no retry, which asks for some images only.
    """

    runs: tuple[RunRecord, ...] = ()
    deferred: int = 0
    retry_at: datetime | None = None
    whole: RunRecord | None = None


@dataclass(frozen=True, slots=True)
class EntryTotal:
    """How many runs of an entry of the schedule ended so, and when the latest of them did."""

    entry: str
    outcome: str
    runs: int
    last: datetime


@dataclass(frozen=True, slots=True)
class RunImageRecord:
    """What became of one reference in a run."""

    reference: str
    outcome: str
    digest: str | None = None
    platforms: str = ""
    pulls: int = 0
    bytes_fetched: int = 0
    bytes_reused: int = 0
    retry_at: datetime | None = None
    error_code: str | None = None
    error: str | None = None
    http_status: int | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """What past runs tell of transfers: the best `rate` in bytes a second, and the bytes of an
    image on average. None: no run has told."""

    rate: float | None = None
    image: int | None = None
