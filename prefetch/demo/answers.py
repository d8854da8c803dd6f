"""Answers as values: made honest, spoilt by faults, then sent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from aiohttp import web

from prefetch.clock import Clock
from prefetch.demo.blobs import EMPTY, Blob
from prefetch.demo.requests import Request

_SMALL = 1 << 16
_TICKS = 20  # how often a second a throttled body is sent on
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass(slots=True)
class Answer:
    """An answer not yet sent: `body` from `start` up to `end`.

    The rest is for faults. `sized` sends a Content-Length. `reset` closes the connection without
    an answer; `cut_at` after so many bytes of the body; at `stall_at` nothing comes for
    `stall_seconds`; the byte at `corrupt_at` is flipped; `bytes_per_second` slows the body down.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Blob = EMPTY
    start: int = 0
    end: int | None = None
    sized: bool = True
    reset: bool = False
    cut_at: int | None = None
    stall_at: int | None = None
    stall_seconds: float = 0.0
    corrupt_at: int | None = None
    bytes_per_second: float | None = None

    @property
    def stop(self) -> int:
        return self.body.size if self.end is None else self.end

    @classmethod
    def text(cls, status: int, body: str, content_type: str = "text/plain") -> Answer:
        return cls(status, {"Content-Type": content_type}, Blob.of(body.encode()))

    @classmethod
    def json(cls, document: Any, status: int = 200) -> Answer:
        return cls.text(status, json.dumps(document), "application/json")

    @classmethod
    def error(cls, status: int, code: str, message: str) -> Answer:
        """A registry's error (distribution-spec, "Error codes")."""
        return cls.json({"errors": [{"code": code, "message": message, "detail": None}]}, status)

    @classmethod
    def blob(cls, blob: Blob, range_header: str | None) -> Answer:
        """A blob, or the part that a single range asks for (RFC 9110, section 14)."""
        headers = {
            "Content-Type": "application/octet-stream",
            "Accept-Ranges": "bytes",
            "Docker-Content-Digest": blob.digest,
        }
        match = _RANGE.fullmatch(range_header or "")
        if match is None:
            return cls(200, headers, blob)
        start = int(match[1])
        end = min(int(match[2]) + 1, blob.size) if match[2] else blob.size
        if start >= end:
            return cls(416, {"Content-Range": f"bytes */{blob.size}"})
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{blob.size}"
        return cls(206, headers, blob, start, end)


async def send(
    answer: Answer, request: web.BaseRequest, record: Request, clock: Clock
) -> web.StreamResponse:
    """Send an answer, faults and all; `record.bytes_sent` follows as the body goes out."""
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    if answer.reset:
        _hang_up(request)
        return response
    if answer.sized:
        response.content_length = answer.stop - answer.start
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    for piece in _pieces(answer):
        if record.bytes_sent == answer.stall_at:
            await clock.sleep(answer.stall_seconds)
        await response.write(piece)
        record.bytes_sent += len(piece)
        if answer.bytes_per_second:
            await clock.sleep(len(piece) / answer.bytes_per_second)
    if answer.cut_at is not None:
        _hang_up(request)
    return response


def _pieces(answer: Answer) -> Iterator[memoryview]:
    """The body, in pieces that end where something is to happen."""
    length = answer.stop - answer.start
    if answer.cut_at is not None:
        length = min(length, answer.cut_at)
    marks = {0, length}
    if answer.stall_at is not None:
        marks.add(min(answer.stall_at, length))
    if answer.corrupt_at is not None:
        marks |= {min(answer.corrupt_at, length), min(answer.corrupt_at + 1, length)}
    for begin, end in pairwise(sorted(marks)):
        for piece in answer.body.chunks(answer.start + begin, answer.start + end):
            if begin == answer.corrupt_at:
                yield memoryview(bytes([piece[0] ^ 0xFF]))
            else:
                yield from _slow_pieces(piece, answer.bytes_per_second)


def _slow_pieces(piece: memoryview, bytes_per_second: float | None) -> Iterator[memoryview]:
    if not bytes_per_second:
        yield piece
        return
    step = max(1, min(_SMALL, int(bytes_per_second / _TICKS)))
    for at in range(0, len(piece), step):
        yield piece[at : at + step]


def _hang_up(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.close()
