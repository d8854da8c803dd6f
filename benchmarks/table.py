"""What a benchmark has found, as a table for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_NAMES = ("what", "prefetch", "the peer", "result", "target")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `ok` None: there is no target, the figure is told for its own sake."""

    what: str
    prefetch: str
    peer: str = ""
    result: str = ""
    target: str = ""
    ok: bool | None = None
    value: float | None = None


def at_least(value: float, bound: float) -> dict[str, Any]:
    """The columns of a ratio that should be large."""
    return {
        "result": f"{value:.1f} times",
        "target": f"at least {bound:g} times",
        "ok": value >= bound,
        "value": round(value, 3),
    }


def at_most(value: float, bound: float, unit: str) -> dict[str, Any]:
    """The columns of a figure of ours that should be small."""
    return {
        "target": f"at most {bound:,g} {unit}",
        "ok": value <= bound,
        "value": round(value, 3),
    }


def no_more_than(ours: float, theirs: float) -> dict[str, Any]:
    """The columns of a figure that should be no larger than the peer's."""
    ratio = ours / theirs
    return {
        "result": f"{ratio:.2f} of it",
        "target": "at most the peer's",
        "ok": ratio <= 1.0,
        "value": round(ratio, 3),
    }


def text(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table."""
    cells = [_NAMES, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_NAMES))]
    lines = [_line(cells[0], widths), _line(["-" * width for width in widths], widths)]
    lines += [_line(line, widths) for line in cells[1:]]
    return "\n".join(lines)


def document(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The rows as JSON objects."""
    return [
        {
            "what": row.what,
            "prefetch": row.prefetch,
            "peer": row.peer or None,
            "value": row.value,
            "target": row.target or None,
            "ok": row.ok,
        }
        for row in rows
    ]


def _cells(row: Row) -> tuple[str, ...]:
    verdict = {True: "met", False: "target missed", None: ""}[row.ok]
    result = ", ".join(part for part in (row.result, verdict) if part)
    return (row.what, row.prefetch, row.peer, result, row.target)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return f"| {' | '.join(padded)} |"
