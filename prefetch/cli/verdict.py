"""A deadline in words: what can be promised, which images are late, what would help."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from prefetch.cli.text import plural
from prefetch.sync.deadline import Kind
from prefetch.sync.deadlinereport import Deadline, moment_of, why_late
from prefetch.sync.remedies import Change, Remedy

_MOST_NAMED = 10


def verdict_lines(deadline: Deadline) -> Iterator[str]:
    """The verdict, for people; times in the deadline's zone."""
    verdict, by = deadline.verdict, shown(deadline, deadline.by)
    price = f"{_bounds(verdict.pulls_min, verdict.pulls_max)} needed"
    expected = _moment(deadline, verdict.expected_at)
    if verdict.kind is Kind.FEASIBLE:
        promised = _moment(deadline, verdict.ready_at)
        yield f"everything will be warm by {by}: {price}, promised by {promised}"
        return
    if verdict.kind is Kind.IMPOSSIBLE:
        yield f"it cannot be warm by {by}: {price}, {why_late(verdict)}"
        yield from _names("will not make it", verdict.late)
    elif verdict.lost:
        yield f"not everything will be warm by {by}: {price}"
        yield from _names("expected later", verdict.late[: -len(verdict.lost)])
    elif verdict.late:
        yield f"it will probably not be warm by {by}: {price}, all of it expected by {expected}"
        yield from _names("expected later", verdict.late)
    else:
        yield f"it may be late for {by}: {price}, expected by {expected}, which is no promise"
        yield from _names("not promised", verdict.at_risk)
    yield from _names("cannot be fetched", verdict.lost)
    if deadline.changes:
        yield "what would do, each by itself:"
        yield from (f"  {_words(deadline, change)}" for change in deadline.changes)


def shown(deadline: Deadline, moment: datetime) -> str:
    """`2026-12-05 02:00:00 Europe/Berlin (+01:00)`."""
    local = moment.astimezone(deadline.by.tzinfo)
    offset = local.strftime("%z")
    return f"{local:%Y-%m-%d %H:%M:%S} {deadline.timezone} ({offset[:3]}:{offset[3:5]})"


def _moment(deadline: Deadline, seconds: float | None) -> str:
    if seconds is None:
        return "nobody knows when"
    return f"{moment_of(seconds + 0.999999).astimezone(deadline.by.tzinfo):%Y-%m-%d %H:%M:%S}"


def _bounds(low: int, high: int | None) -> str:
    if high is None:
        return f"{low} pulls or more"
    return plural(low, "pull") if low == high else f"{low} to {high} pulls"


def _names(word: str, names: Sequence[str]) -> Iterator[str]:
    if not names:
        return
    yield f"{plural(len(names), 'image')} {word}:"
    yield from (f"  {name}" for name in names[:_MOST_NAMED])
    if len(names) > _MOST_NAMED:
        yield f"  and {len(names) - _MOST_NAMED} more"


def _words(deadline: Deadline, change: Change) -> str:
    ready = f"ready by {_moment(deadline, change.ready_at)}"
    value = change.value
    match change.remedy, value:
        case Remedy.LATER, int() | float():
            later = moment_of(value).astimezone(deadline.by.tzinfo)
            return f"later: --by {later.isoformat(timespec='seconds')}"
        case Remedy.START, int() | float():
            return f"an earlier start: at {_moment(deadline, value)}, with a full meter"
        case Remedy.ACCOUNT, _:
            return f"an account at {change.registry} ({value} pulls): {ready}"
        case Remedy.ALTERNATE, _:
            return (
                f"an alternate for {change.registry} that has everything: "
                f"{plural(change.saved, 'pull')} less, {ready}"
            )
        case Remedy.RESERVE, _:
            return f"a smaller reserve: --reserve {value}, {ready}"
        case Remedy.PLATFORMS, tuple():
            options = " ".join(f"--platform {platform}" for platform in value)
            return f"fewer platforms: {options}, {plural(change.saved, 'pull')} less, {ready}"
    return (
        f"fewer images: without the {plural(len(change.images), 'least important one')}, "
        f"{plural(change.saved, 'pull')} less, {ready}"
    )
