"""Selectors: what a source asks for, before any registry is asked.

Selector(reference)            one image
Selector(repository, tags)     the tags of a repository that a query chooses
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from prefetch.credentials.credential import Login
from prefetch.errors import InvalidReference, SourceError
from prefetch.oci.platform import ALL, Platform, PlatformSet
from prefetch.oci.reference import Reference, Repository

MAX_ENTRIES: Final = 250_000
"""Entries of a source that are looked at, the bad and the skipped ones counted."""
MAX_TOLD: Final = 1_000
"""Errors, and notes, of a source that are told one by one; the others are counted."""

_ALL_WORD: Final = "all"
_SHOWN: Final = 80
_ASKERS: Final = 10  # that are named for an image


@dataclass(frozen=True, slots=True)
class Origin:
    """Where something was asked for: a source's name, and the line in it (from 1)."""

    source: str
    line: int | None = None

    def error(self, message: str, *, hint: str | None = None) -> SourceError:
        """An error about this place."""
        return SourceError(self.source, self.line, message, hint=hint)


@dataclass(frozen=True, slots=True)
class Note:
    """Something that was skipped on purpose, for people to know."""

    origin: Origin
    message: str

    def __str__(self) -> str:
        where = "" if self.origin.line is None else f":{self.origin.line}"
        return f"{self.origin.source}{where}: {self.message}"


@dataclass(frozen=True, slots=True)
class TagQuery:
    """Which tags of a repository are wanted: `names`, and those that pass all else that is set.

    `regex` matches whole tags; `semver` is a version range; `newest` keeps that many of the
    highest versions.
    """

    names: tuple[str, ...] = ()
    regex: str | None = None
    semver: str | None = None
    newest: int | None = None

    @property
    def needs_listing(self) -> bool:
        """Whether the registry's list of tags is needed to answer."""
        return self.regex is not None or self.semver is not None or self.newest is not None


@dataclass(frozen=True, slots=True)
class Demand:
    """Who asks for an image in a cluster, and how urgently.

    `pods` is how many run with it or are to be started, `always` whether one of them pulls at each
    start, `priority` the highest value of their priority classes. `askers` names some of them.
    """

    pods: int = 0
    always: bool = False
    priority: int = 0
    askers: tuple[str, ...] = ()

    @property
    def rank(self) -> tuple[int, bool, int]:
        """The greater goes first."""
        return self.priority, self.always, self.pods

    def __add__(self, other: Demand) -> Demand:
        askers = self.askers
        if len(askers) < _ASKERS:
            askers = tuple(dict.fromkeys((*askers, *other.askers)))[:_ASKERS]
        return Demand(
            self.pods + other.pods,
            self.always or other.always,
            max(self.priority, other.priority),
            askers,
        )

    def __str__(self) -> str:
        """`12 pods, Always, priority 1000`; nothing for nobody."""
        pods = f"{self.pods} pod{'' if self.pods == 1 else 's'}" if self.pods else ""
        priority = f"priority {self.priority}" if self.priority else ""
        return ", ".join(filter(None, (pods, "Always" if self.always else "", priority)))


_NOBODY: Final = Demand()


@dataclass(frozen=True, slots=True)
class Selector:
    """One entry of a source: either `reference`, or `repository` with `tags`.

    `platforms` None means whatever the run asks for; a higher `priority` goes first, then what is
    more in `demand`. What is `optional` was seen somewhere and is asked for by nobody: that its
    upstream does not have it is no failure.
    """

    origin: Origin
    reference: Reference | None = None
    repository: Repository | None = None
    tags: TagQuery | None = None
    platforms: PlatformSet | None = None
    priority: int = 0
    demand: Demand = _NOBODY
    optional: bool = False

    def __add__(self, other: Selector) -> Selector:
        """Both in one, where they ask for the same; what this one says of its origin stays. Either
        both name platforms, or neither does.
        """
        return replace(
            self,
            platforms=_union(self.platforms, other.platforms),
            priority=max(self.priority, other.priority),
            demand=self.demand + other.demand,
            optional=self.optional and other.optional,
        )


@dataclass(slots=True)
class Parsed:
    """What came out of sources; bad entries are errors here, and the others stand.

    `more_errors` and `more_notes` are how many there were beyond those that are told one by one.
    `logins` are what a cluster's pods show to exactly these repositories, the most used first.
    """

    selectors: list[Selector] = field(default_factory=list)
    errors: list[SourceError] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    logins: dict[Repository, tuple[Login, ...]] = field(default_factory=dict)
    more_errors: int = 0
    more_notes: int = 0
    _stopped: bool = False

    def refuse(self, error: SourceError) -> None:
        """Take an error in: told, or counted where there are many already."""
        if len(self.errors) < MAX_TOLD:
            self.errors.append(error)
        else:
            self.more_errors += 1

    def note(self, note: Note) -> None:
        """Take a note in, in the same way."""
        if len(self.notes) < MAX_TOLD:
            self.notes.append(note)
        else:
            self.more_notes += 1

    def is_full(self, origin: Origin) -> bool:
        """Whether nothing more is to be read; an error says so, once, with the place."""
        told = len(self.errors) + len(self.notes) + self.more_errors + self.more_notes
        if len(self.selectors) + told < MAX_ENTRIES:
            return False
        if not self._stopped:
            self._stopped = True
            limit = f"more than {MAX_ENTRIES:,} entries: from here on nothing is read"
            self.errors.append(origin.error(limit, hint="divide it among several sources"))
        return True

    def extend(self, other: Parsed) -> None:
        """Add what another source, or a part of this one, has yielded."""
        self.selectors += other.selectors
        for error in other.errors:
            self.refuse(error)
        for note in other.notes:
            self.note(note)
        self.logins = {**other.logins, **self.logins}
        self._stopped = self._stopped or other._stopped
        self.more_errors += other.more_errors
        self.more_notes += other.more_notes

    def summed_up(self, source: str) -> Parsed:
        """The same, with a last error and note for those that are only counted."""
        if self.more_errors:
            self.errors.append(Origin(source).error(f"… and {self.more_errors:,} more errors"))
        if self.more_notes:
            self.notes.append(Note(Origin(source), f"… and {self.more_notes:,} more notes"))
        self.more_errors = self.more_notes = 0
        return self


def merge(selectors: Iterable[Selector], default: PlatformSet) -> list[Selector]:
    """Each image or query once, in the order of first mention.

    Platforms are united (`default` standing in where none are named, so that every result names
    some), demands added; the highest priority and the first origin stay. It is optional only where
    everything that names it says so.
    """
    merged: dict[object, Selector] = {}
    for selector in selectors:
        key = selector.reference or (selector.repository, selector.tags)
        platforms = default if selector.platforms is None else selector.platforms
        first = merged.get(key)
        if first is None:
            named = selector.platforms is not None
            merged[key] = selector if named else replace(selector, platforms=platforms)
        elif (platforms, selector.priority, selector.demand, selector.optional) != (
            first.platforms,
            first.priority,
            _NOBODY,
            first.optional,
        ):
            merged[key] = first + replace(selector, platforms=platforms)
    return list(merged.values())


def images_from_args(references: Sequence[str], source: str = "--image") -> Parsed:
    """The images named on the command line; one that cannot be parsed is an error among others."""
    parsed = Parsed()
    origin = Origin(source)
    for text in references:
        try:
            parsed.selectors.append(Selector(origin, Reference.parse(text)))
        except InvalidReference as error:
            parsed.errors.append(origin.error(str(error)))
    return parsed


def parse_platforms(words: Iterable[str]) -> PlatformSet:
    """Platforms from words, each one or several separated by commas; `all` wins over the rest.

    Raises InvalidReference.
    """
    names = [name for word in words for name in word.split(",")]
    if _ALL_WORD in names:
        return ALL
    return tuple(dict.fromkeys(Platform.parse(name) for name in names))


def platforms_words(platforms: PlatformSet) -> list[str]:
    """The opposite of `parse_platforms`."""
    return [_ALL_WORD] if platforms is ALL else [str(platform) for platform in platforms]


def shown(text: object) -> str:
    """A source's own words, safe to print: escaped, quoted and cut."""
    quoted = ascii(text)
    return quoted if len(quoted) <= _SHOWN else f"{quoted[:_SHOWN]}…"


def _union(first: PlatformSet | None, second: PlatformSet | None) -> PlatformSet | None:
    if first is None or second is None:
        return None
    if first is ALL or second is ALL:
        return ALL
    return tuple(dict.fromkeys((*first, *second)))
