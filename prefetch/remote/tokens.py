"""Bearer tokens as token services hand them out (distribution, "Token Authentication")."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from prefetch.errors import ServerFault

TOKEN_BODY_LIMIT: Final = 1024 * 1024

# A shorter life is a mistake of the service's: other clients assume a minute, too.
_SHORTEST_LIFE: Final = 60.0
_LONGEST_LIFE: Final = 24 * 3600.0
_LONGEST_MARGIN: Final = 30.0
_TOKEN = re.compile(r"[\x21-\x7e]{1,32768}")


@dataclass(frozen=True, slots=True)
class Token:
    """A token for one or several repositories.

    `header` is the whole Authorization value (never shown), `renew_at` the monotonic time from
    which a new one is asked for, somewhat before it expires.
    """

    header: str
    renew_at: float
    paths: frozenset[str]

    def __repr__(self) -> str:
        return f"Token(for {len(self.paths)} repositories)"


def parse_token(
    body: bytes, paths: frozenset[str], *, service: str, now: datetime, monotonic: float
) -> Token:
    """From a token service's JSON: `token` or `access_token`, `expires_in` in seconds (60 when
    missing, and at least 60), `issued_at` (RFC 3339).

    `now` and `monotonic` are when the request was sent. Raises ServerFault.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ServerFault(f"the token service {service} sent no JSON object")
    value = document.get("token") or document.get("access_token")
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise ServerFault(f"the token service {service} sent no usable token")
    life = _life(document.get("expires_in"))
    age = _age(document.get("issued_at"), now)
    # An age beyond the life says that the clocks disagree, not that the token was born dead.
    life -= age if age < life - _SHORTEST_LIFE / 2 else 0.0
    return Token(f"Bearer {value}", monotonic + life - min(_LONGEST_MARGIN, life / 5), paths)


def _life(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _SHORTEST_LIFE
    if isinstance(value, float) and not math.isfinite(value):
        return _SHORTEST_LIFE
    return float(min(max(value, _SHORTEST_LIFE), _LONGEST_LIFE))


def _age(value: object, now: datetime) -> float:
    """Seconds since a token was issued; none if its clock and ours disagree."""
    if not isinstance(value, str):
        return 0.0
    try:
        issued = datetime.fromisoformat(value[:64])
    except ValueError:
        return 0.0
    if issued.tzinfo is None:
        issued = issued.replace(tzinfo=UTC)
    age = (now - issued).total_seconds()
    return age if 0 < age < _LONGEST_LIFE else 0.0
