"""JSON from strangers: one reading only, the same that every client has.

Duplicate keys, NaN, excessive nesting, a byte order mark and anything but UTF-8 are refused, since
parsers differ over them (RFC 8259 sections 4, 6, 8.1 and 9).
"""

from __future__ import annotations

import json
from typing import Final, NoReturn

from prefetch.errors import InvalidManifest

MAX_NESTING: Final = 32
"""Objects and arrays within one another; no document of the format has more than six."""


def load_object(raw: bytes) -> dict[str, object]:
    """The JSON object in `raw`. Raises InvalidManifest, never RecursionError.

    The parser's own recursion guard stops hostile nesting at Python's limit; that far, values
    that nobody looks into are held to MAX_NESTING with `check_nesting`.
    """
    try:
        value = _DECODER.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidManifest("the document is not UTF-8") from error
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise InvalidManifest(_not_json(raw, error)) from error
    if not isinstance(value, dict):
        raise InvalidManifest("the document is not a JSON object")
    return value


def check_nesting(value: object) -> None:
    """Raise InvalidManifest for more than MAX_NESTING levels; level by level, not recursive."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MAX_NESTING):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (dict, list))
        ]
    if level:
        raise _too_deep()


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise InvalidManifest("the document has an object with duplicate keys")
    return result


def _no_constant(name: str) -> NoReturn:
    raise InvalidManifest(f"the document is not JSON: {name} is no JSON number")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def _too_deep() -> InvalidManifest:
    return InvalidManifest(f"the document is nested more than {MAX_NESTING} levels deep")


def _not_json(raw: bytes, error: ValueError) -> str:
    if raw[:64].lstrip().startswith(b"<"):
        return "the document is HTML or XML, not JSON: something else than a registry answered"
    if isinstance(error, json.JSONDecodeError):
        return f"the document is not JSON: {error.msg} at character {error.pos}"
    return "the document is not JSON that can be read: a number has too many digits"
