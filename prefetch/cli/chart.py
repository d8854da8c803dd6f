"""A timetable as a chart of bars, as wide as the terminal; in ASCII where that is safer."""

from __future__ import annotations

import math
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from prefetch.cli.text import local, plural, terminal_width
from prefetch.sync.horizon import Slot, Timetable

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
# A row stands for so many seconds, the first of these that makes few enough rows.
_STEPS = (
    *(1, 2, 5, 10, 30, _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE, _HOUR),
    *(2 * _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 7 * _DAY, 30 * _DAY),
)
_MOST_ROWS = 28
_SHORTEST_BAR = 10
_EIGHTHS = " ▏▎▍▌▋▊▉"
_HEADER = ("PULLS", "IMAGES", "SO FAR")


@dataclass(frozen=True, slots=True)
class _Row:
    label: str
    pulls: int
    images: int
    so_far: int


def chart(timetable: Timetable, *, width: int | None = None, ascii_only: bool | None = None) -> str:
    """A block for each registry: a bar for each stretch of time in which images start."""
    width = width or terminal_width()
    plain = is_plain() if ascii_only is None else ascii_only
    by_registry: defaultdict[str, list[Slot]] = defaultdict(list)
    for slot in timetable.slots:
        by_registry[slot.registry].append(slot)
    lines: list[str] = []
    for registry, slots in sorted(by_registry.items()):
        last = slots[-1]
        lines.append(
            f"{registry}: {plural(last.images_so_far, 'image')}, "
            f"{plural(last.pulls_so_far, 'pull')}, the last at {local(last.at)}"
        )
        lines += _bars(list(_rows(slots)), width, plain=plain)
    until = local(timetable.until)
    if timetable.later:
        lines.append(f"{plural(timetable.later, 'image')} later than {until}")
    if timetable.never:
        lines.append(f"{plural(timetable.never, 'image')} never: others spend all that comes back")
    return "\n".join(lines) or f"nothing has to be fetched until {until}"


def is_plain() -> bool:
    """Whether this terminal had better be given ASCII (NO_COLOR: https://no-color.org)."""
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    return (
        encoding != "utf8" or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    )


def _rows(slots: Sequence[Slot]) -> Iterator[_Row]:
    """Slots put together by stretches of equal length, counted from local midnight."""
    first, last = slots[0].at.astimezone(), slots[-1].at
    midnight = first.replace(hour=0, minute=0, second=0, microsecond=0)
    span = (last - first).total_seconds()
    step = next((step for step in _STEPS if span / step < _MOST_ROWS - 1), _STEPS[-1])
    groups: defaultdict[int, list[Slot]] = defaultdict(list)
    for slot in slots:
        groups[int((slot.at - midnight).total_seconds() // step)].append(slot)
    form = "%m-%d %H:%M:%S" if step < _MINUTE else "%m-%d %H:%M"
    for number, group in sorted(groups.items()):
        at = (midnight.astimezone(UTC) + timedelta(seconds=number * step)).astimezone()
        yield _Row(
            _label(at, group, form),
            sum(slot.pulls for slot in group),
            sum(slot.images for slot in group),
            group[-1].pulls_so_far,
        )


def _label(at: datetime, group: Sequence[Slot], form: str) -> str:
    """The one moment of a stretch, or its beginning."""
    moments = {slot.at for slot in group}
    return (min(moments).astimezone() if len(moments) == 1 else at).strftime(form)


def _bars(rows: Sequence[_Row], width: int, *, plain: bool) -> Iterator[str]:
    numbers = [(str(row.pulls), str(row.images), str(row.so_far)) for row in rows]
    columns = [max(map(len, column)) for column in zip(_HEADER, *numbers, strict=True)]
    label = max(len(row.label) for row in rows)
    room = max(_SHORTEST_BAR, width - label - sum(columns) - 2 * (len(columns) + 2))
    most = max(1, *(row.pulls for row in rows))
    yield _line("START".ljust(label), "".ljust(room), _HEADER, columns)
    for row, cells in zip(rows, numbers, strict=True):
        bar = _bar(row.pulls / most * room, plain=plain)
        yield _line(row.label.ljust(label), bar.ljust(room), cells, columns)


def _line(label: str, bar: str, cells: Iterable[str], columns: Iterable[int]) -> str:
    right = "  ".join(cell.rjust(size) for cell, size in zip(cells, columns, strict=True))
    return f"  {label}  {bar}  {right}"


def _bar(length: float, *, plain: bool) -> str:
    """Exact to an eighth of a column; something for everything but nothing."""
    if plain:
        return "#" * math.ceil(length - 0.5 if length > 1 else length)
    eighths = math.ceil(length * 8 - 0.5) if length > 1 / 8 else math.ceil(length)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
