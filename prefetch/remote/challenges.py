"""`WWW-Authenticate`: the challenges of a 401 (RFC 9110 section 11.6.1).

One header may carry several challenges and one answer several headers; commas separate challenges
as well as parameters, so a word followed by `=` is a parameter and any other begins a challenge.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

_MAX_LENGTH: Final = 8192
_MAX_CHALLENGES: Final = 16

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'[\s,]*({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))')
_SCHEME = re.compile(rf"[\s,]*({_WORD})(?=[\s,]|$)")
_REST = re.compile(r"[^,]*(?:,|$)")
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge: its scheme and its parameters, both lowercase; the first of a name counts."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """All challenges in the order in which they came. Never raises; what makes no sense is left
    out, as is what exceeds 8 KiB a header or 16 challenges.
    """
    found: list[Challenge] = []
    for header in headers:
        found += _parse(header[:_MAX_LENGTH])
    return found[:_MAX_CHALLENGES]


def _parse(header: str) -> list[Challenge]:
    found: list[Challenge] = []
    parameters: dict[str, str] = {}
    position = 0
    while position < len(header):
        if match := _PARAMETER.match(header, position):
            name, quoted, bare = match.groups()
            value = bare if quoted is None else _ESCAPE.sub(r"\1", quoted)
            parameters.setdefault(name.lower(), value)
        elif match := _SCHEME.match(header, position):
            parameters = {}
            found.append(Challenge(match[1].lower(), parameters))
        else:
            match = _REST.match(header, position)
        position = max(match.end(), position + 1) if match else len(header)
    return found
