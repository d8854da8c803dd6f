"""Words and numbers for people: sizes, moments, tables that fit the terminal."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime

from prefetch.events import PullsSpread, Slowed

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_STEP = 1000
_MIN_CELL = 12
_WEEK = 7


def size(count: int | None) -> str:
    """`12.3 MB`; `-` for what is not known."""
    if count is None:
        return "-"
    amount = float(count)
    for unit in _UNITS:
        if amount < _STEP or unit == _UNITS[-1]:
            return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= _STEP
    return "-"


def plural(count: int, word: str) -> str:
    """`1 pull`, `2 pulls`."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def local(moment: datetime | None) -> str:
    """A moment in the reader's time zone: `2026-01-02 03:04:05`; `-` for none."""
    return "-" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def told(event: Slowed | PullsSpread) -> str:
    """How requests, or pulls, are held back, in a line."""
    if isinstance(event, Slowed):
        often = f"{event.per_second:g} times a second"
        return f"{event.registry} throttles: it is asked at most {often} from now on"
    name = f"{event.registry} ({event.identity})"
    return f"{name}: {plural(event.pulls, 'pull')} spread until about {local(event.until)}"


def near(moment: datetime | None, now: datetime) -> str:
    """A moment in the reader's time zone, as short as `now` allows: `03:04:05` on the same day,
    `Fri 03:04` within six days of it, else the date; `-` for none.
    """
    if moment is None:
        return "-"
    there, here = moment.astimezone(), now.astimezone()
    days = abs((there.date() - here.date()).days)
    form = "%Y-%m-%d" if days >= _WEEK else "%a %H:%M" if days else "%H:%M:%S"
    return there.strftime(form)


def short_digest(digest: str | None) -> str:
    """`sha256:0123456789ab`, enough to tell images apart."""
    algorithm, _, value = (digest or "").partition(":")
    return f"{algorithm}:{value[:12]}" if value else "-"


def terminal_width() -> int:
    """Columns of the terminal, 80 without one."""
    return shutil.get_terminal_size((80, 24)).columns


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, width: int | None = None) -> str:
    """Columns under a header, the first one shortened in the middle until a line fits a terminal.

    Numbers (cells of a column whose header ends in a space) are aligned to the right. In a pipe
    nothing is shortened, unless COLUMNS says how wide it is.
    """
    if width is None:
        fits = sys.stdout.isatty() or "COLUMNS" in os.environ
        width = terminal_width() if fits else sys.maxsize
    cells = [list(map(str.strip, header)), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    spare = width - sum(widths[1:]) - 2 * (len(widths) - 1)
    widths[0] = max(min(widths[0], spare), _MIN_CELL)
    lines = []
    for row in cells:
        parts = [middle(row[0], widths[0]).ljust(widths[0])]
        for column in range(1, len(row)):
            right = header[column].endswith(" ")
            cell = row[column]
            parts.append(cell.rjust(widths[column]) if right else cell.ljust(widths[column]))
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def middle(text: str, width: int) -> str:
    """The text, its middle left out where it is longer than `width`."""
    if len(text) <= width:
        return text
    tail = (width - 1) * 2 // 3
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"
