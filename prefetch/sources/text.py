"""Text lists: one reference a line.

    # a comment
    docker.io/library/nginx:1.27        # so is this
    quay.io/corp/app:2 platform=linux/amd64,linux/arm64 priority=10

`platform=` may be repeated, and may say `all`. The lists that k3s, RKE2 and Rancher publish
(`k3s-images.txt`, `rke2-images.linux-amd64.txt`, `rancher-images.txt`) are of this form; Rancher's
lists also hold Helm charts, which are skipped, and a name that ends in `-sources.txt` marks a list
with a second column, which is not ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from prefetch.errors import InvalidReference, SourceError
from prefetch.oci.platform import PlatformSet
from prefetch.oci.reference import Reference
from prefetch.sources.selector import Note, Origin, Parsed, Selector, parse_platforms, shown

MAX_LINE: Final = 4096
"""Bytes in a line at most."""

_COMMENT = re.compile(r"(?:^|\s)#.*")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]")
_PRIORITY = re.compile(r"[+-]?[0-9]{1,9}")
_BLOCK: Final = 1 << 20
_CHARTS: Final = "rancher/charts/"
_TWO_COLUMNS: Final = "-sources.txt"


def parse(data: bytes, name: str) -> Parsed:
    """Read a text list. `name` stands in origins and errors. Raises nothing."""
    parsed = Parsed()
    two_columns = name.endswith(_TWO_COLUMNS)
    seen: set[bytes] = set()
    for number, raw in enumerate(lines(data), 1):
        bare = raw.lstrip()
        # A line that says what one before it has said adds nothing, and costs nothing.
        if not bare or bare.startswith(b"#") or raw in seen:
            continue
        origin = Origin(name, number)
        if parsed.is_full(origin):
            break
        try:
            words = _words(raw, origin)
            if words:
                selector = _entry(words[:1] if two_columns else words, origin)
                _sort_out(selector, parsed)
                seen.add(raw)
        except SourceError as error:
            parsed.refuse(error)
        except InvalidReference as error:
            parsed.refuse(origin.error(str(error)))
    return parsed


def lines(data: bytes) -> Iterator[bytes]:
    """The lines of `data`, a block's at a time: all at once take several times its size."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start + _BLOCK) + 1 or len(data)
        yield from data[start:end].splitlines()
        start = end


def _words(raw: bytes, origin: Origin) -> list[str]:
    if len(raw) > MAX_LINE:
        raise origin.error(f"the line is longer than {MAX_LINE} bytes")
    try:
        line = raw.decode("utf-8-sig" if origin.line == 1 else "utf-8")
    except UnicodeDecodeError:
        raise origin.error("the line is not UTF-8") from None
    if _CONTROL.search(line):
        raise origin.error(f"the line has control characters: {shown(line)}")
    return (_COMMENT.sub("", line) if "#" in line else line).split()


def _entry(words: list[str], origin: Origin) -> Selector:
    platforms: list[str] = []
    priority = 0
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if key == "platform" and equals:
            platforms.append(value)
        elif key == "priority" and _PRIORITY.fullmatch(value):
            priority = int(value)
        else:
            raise origin.error(
                f"unexpected {shown(word)} after the reference",
                hint="platform=linux/arm64 and priority=10 may stand there",
            )
    wanted: PlatformSet | None = parse_platforms(platforms) if platforms else None
    return Selector(origin, Reference.parse(words[0]), platforms=wanted, priority=priority)


def _sort_out(selector: Selector, parsed: Parsed) -> None:
    reference = selector.reference
    if reference is not None and reference.repository.path.startswith(_CHARTS):
        parsed.note(Note(selector.origin, f"{reference} is a Helm chart, skipped"))
    else:
        parsed.selectors.append(selector)
