"""Versions in tags, and ranges of them.

A tag is a version if it is `[v]MAJOR[.MINOR[.PATCH]]`, alone or with a suffix: a prerelease
(`-rc.1`, `rc1`, `-beta2`, …) or anything else (`-alpine`, `-debian-11-r0`), which names a
*variant*. Missing numbers are zero. One number of six digits and more is a date, not a version.

Ranges are those of npm and Masterminds/semver: comparators `=`, `!=`, `>`, `>=`, `<`, `<=`, `~`
and `^` before a version, missing or `x` parts matching any; `1.2 - 1.5`; spaces or commas for
*and*, `||` for *or*. Prereleases lie only in a range whose alternative names one: `>=1.2.0-0`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

MAX_RANGE: Final = 256
"""Characters in a range at most."""

_PRE_WORD = (
    r"(?:-?(?:alpha|beta|rc|cr|pre|preview|dev|snapshot|nightly|canary|milestone|ea)(?![a-z])"
    r"|[ab](?=[0-9]))"
)
_TAG = re.compile(
    r"v?([0-9]{1,18})(?:\.([0-9]{1,18}))?(?:\.([0-9]{1,18}))?"
    rf"(?:\.?({_PRE_WORD}(?:[.-]?[0-9]+(?:[.-][0-9]+)*)?))?"
    r"(?:[-_]([A-Za-z0-9_.-]+))?",
    re.IGNORECASE,
)
_DATE_DIGITS: Final = 6
_PART = r"(?:[0-9]{1,18}|[xX*])"
_COMPARATOR = re.compile(
    rf"(?P<op>[<>!]=|=[<>]|~>|[~^<>=]|)\s*v?"
    rf"(?P<major>{_PART})(?:\.(?P<minor>{_PART}))?(?:\.(?P<patch>{_PART}))?"
    r"(?:-(?P<pre>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?(?=[\s,]|$)"
)
_HYPHEN = re.compile(r"(\S+)\s+-\s+(\S+)")
_NATURAL = re.compile(r"[0-9]+|[A-Za-z]+")

_Key = tuple[tuple[bool, int, str], ...]


@dataclass(frozen=True, slots=True)
class Version:
    """Three numbers and a prerelease, empty for a release."""

    numbers: tuple[int, int, int]
    prerelease: str = ""

    @property
    def key(self) -> tuple[tuple[int, int, int], bool, _Key]:
        """Orders versions as SemVer 2.0.0 section 11 does, save that `rc10` is later than `rc9`."""
        return (self.numbers, not self.prerelease, _natural(self.prerelease))


@dataclass(frozen=True, slots=True)
class TagVersion:
    """A tag that is a version; `parts` is how many numbers it has."""

    tag: str
    version: Version
    variant: str
    parts: int

    @classmethod
    def parse(cls, tag: str) -> TagVersion | None:
        """None for a tag that is no version."""
        match = _TAG.fullmatch(tag)
        if match is None:
            return None
        *numbers, prerelease, variant = match.groups()
        given = [int(number) for number in numbers if number is not None]
        if len(given) == 1 and len(numbers[0] or "") >= _DATE_DIGITS:
            return None
        major, minor, patch = (*given, 0, 0)[:3]
        version = Version((major, minor, patch), (prerelease or "").lower().strip("-"))
        return cls(tag, version, variant or "", len(given))

    @property
    def key(self) -> tuple[object, ...]:
        """Orders tags: by version, and of equals the more precise, then the later variant, last."""
        return (self.version.key, self.parts, _natural(self.variant), self.tag)


@dataclass(frozen=True, slots=True)
class _Bounds:
    """`low` <= version < `high`, or the opposite; None is no bound."""

    low: tuple[object, ...] | None = None
    high: tuple[object, ...] | None = None
    inverted: bool = False

    def __contains__(self, version: Version) -> bool:
        within = (self.low is None or self.low <= version.key) and (
            self.high is None or version.key < self.high
        )
        return within != self.inverted


@dataclass(frozen=True, slots=True)
class _Alternative:
    bounds: tuple[_Bounds, ...]
    prereleases: bool


@dataclass(frozen=True, slots=True)
class Range:
    """A set of versions: any of its alternatives, each all of its bounds."""

    alternatives: tuple[_Alternative, ...]

    @classmethod
    def parse(cls, text: str) -> Range:
        """Raises ValueError."""
        if len(text) > MAX_RANGE:
            raise ValueError(f"a version range may have {MAX_RANGE} characters at most")
        return cls(tuple(_alternative(part) for part in text.split("||")))

    def __contains__(self, version: Version) -> bool:
        return any(
            all(version in bounds for bounds in alternative.bounds)
            for alternative in self.alternatives
            if alternative.prereleases or not version.prerelease
        )


def _alternative(text: str) -> _Alternative:
    rest = _HYPHEN.sub(r">=\1 <=\2", text).strip().strip(",")
    bounds: list[_Bounds] = []
    prereleases = False
    while rest:
        match = _COMPARATOR.match(rest)
        if match is None:
            raise ValueError(f"{ascii(text)[:80]} is not a version range")
        bounds.append(_bounds(match))
        prereleases = prereleases or match["pre"] is not None
        rest = rest[match.end() :].lstrip(" \t\n,")
    if not bounds:
        raise ValueError("a version range is empty")
    return _Alternative(tuple(bounds), prereleases)


def _bounds(match: re.Match[str]) -> _Bounds:
    given: list[int] = []
    for name in ("major", "minor", "patch"):
        if match[name] is None or match[name] in "xX*":
            break
        given.append(int(match[name]))
    major, minor, patch = (*given, 0, 0, 0)[:3]
    version = Version((major, minor, patch), match["pre"] or "")
    exact = bool(given) and (len(given) == 3 or bool(version.prerelease))  # noqa: PLR2004
    low = version.key
    above = (*low, True) if exact else _floor(given, len(given) - 1)
    match match["op"]:
        case "<":
            return _Bounds(high=low if exact else (version.numbers, False, ()))
        case "<=" | "=<":
            return _Bounds(high=above)
        case ">":
            return _Bounds(low=above) if above else _Bounds(low=low, high=low)
        case ">=" | "=>":
            return _Bounds(low=low)
        case "~" | "~>":
            return _Bounds(low, _floor(given, min(1, len(given) - 1)))
        case "^":
            return _Bounds(low, _floor(given, _leading(given)))
        case op:
            return _Bounds(low, above, inverted=op == "!=")


def _leading(given: list[int]) -> int:
    """The part that `^` holds still: the first that is not zero, else the last one given."""
    return next((at for at, number in enumerate(given) if number), len(given) - 1)


def _floor(given: list[int], at: int) -> tuple[object, ...] | None:
    """Below every version, prereleases too, with part `at` one higher; None without parts."""
    if at < 0:
        return None
    numbers = (*given[:at], given[at] + 1, 0, 0)[:3]
    return (numbers, False, ())


def _natural(text: str) -> _Key:
    return tuple(
        (False, int(part), "") if part.isdigit() else (True, 0, part)
        for part in _NATURAL.findall(text.lower())
    )
