"""The five fields of a crontab line, as crontab(5) of Debian's cron has them.

    minute 0-59, hour 0-23, day of month 1-31, month 1-12 or jan-dec, day of week 0-7 or sun-sat

A field is a comma list of `*`, `N`, `N-M`, each perhaps with `/STEP`; 0 and 7 are Sunday. Where
both days are restricted (neither field begins with `*`), one of the two suffices.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

_PART: Final = re.compile(r"(?:\*|([0-9]+|[a-z]{3})(?:-([0-9]+|[a-z]{3}))?)(?:/([1-9][0-9]*))?")
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # days, by month
_SUNDAY = 7
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()


_FIELDS: Final = (
    _Field("a minute", 0, 59),
    _Field("an hour", 0, 23),
    _Field("a day of month", 1, 31),
    _Field("a month", 1, 12, ("", *_MONTHS)),
    _Field("a day of week", 0, _SUNDAY, tuple(_DAYS)),
)


@dataclass(frozen=True, slots=True)
class Crontab:
    """What each field allows; `weekdays` from 0, Sunday, to 6.

    `either_day`: a day of the month or one of the week suffices, else it takes both.
    """

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `0 3 * * mon-fri`. Raises ValueError with what was expected."""
        fields = text.lower().split()
        if len(fields) != len(_FIELDS):
            raise ValueError(f"expected five fields as in crontab, got {_shown(text)}")
        minutes, hours, days, months, weekdays = map(_values, fields, _FIELDS)
        either = not fields[2].startswith("*") and not fields[4].startswith("*")
        if not either and not any(min(days) <= _LONGEST[month - 1] for month in months):
            raise ValueError(f"expected a day that comes, got {_shown(text)}")
        sundays = frozenset(day % _SUNDAY for day in weekdays)
        return cls(minutes, hours, days, months, sundays, either)


def _values(text: str, field: _Field) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        first, last, step = match.groups() if match else ("-", None, None)
        low = field.low if first is None else _number(first, field)
        # `*`, and `N/STEP`, go on to the end.
        high = _number(last or first, field) if first and (last or not step) else field.high
        if not field.low <= low <= high <= field.high:
            raise ValueError(
                f"expected {field.name} from {field.low} to {field.high}, got {_shown(text)}"
            )
        found.update(range(low, high + 1, int(step or 1)))
    return frozenset(found)


def _number(text: str, field: _Field) -> int:
    if text.isdigit():
        return int(text)
    return field.words.index(text) if text in field.words else -1


def _shown(text: str) -> str:
    shown = ascii(text)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
