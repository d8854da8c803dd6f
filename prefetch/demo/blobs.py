"""Content of any size that is made while it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Self

CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Blob:
    """`head + block * times + tail`: gigabytes cost the memory of one block.

    `digest` is `algorithm:hex` over the whole, `size` its length in bytes.
    """

    digest: str
    size: int
    head: bytes = b""
    block: bytes = b""
    times: int = 0
    tail: bytes = b""

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Self:
        """A blob of these very bytes."""
        return cls.repeated(data, b"", 0, algorithm=algorithm)

    @classmethod
    def repeated(
        cls, head: bytes, block: bytes, times: int, tail: bytes = b"", *, algorithm: str = "sha256"
    ) -> Self:
        """A blob that repeats `block`; hashing it takes about a second a gigabyte."""
        hasher = hashlib.new(algorithm)
        for part in chain((head,), repeat(block, times), (tail,)):
            hasher.update(part)
        size = len(head) + len(block) * times + len(tail)
        return cls(f"{algorithm}:{hasher.hexdigest()}", size, head, block, times, tail)

    def chunks(self, start: int = 0, end: int | None = None) -> Iterator[memoryview]:
        """The bytes from `start` up to `end` (exclusive), in pieces of at most 1 MiB."""
        stop = self.size if end is None else min(end, self.size)
        position = start
        while position < stop:
            part, at = self._locate(position)
            piece = memoryview(part)[at : at + min(CHUNK, stop - position)]
            yield piece
            position += len(piece)

    def read(self, start: int = 0, end: int | None = None) -> bytes:
        """The bytes from `start` up to `end`, in memory."""
        return b"".join(self.chunks(start, end))

    def _locate(self, position: int) -> tuple[bytes, int]:
        if position < len(self.head):
            return self.head, position
        position -= len(self.head)
        if position < len(self.block) * self.times:
            return self.block, position % len(self.block)
        return self.tail, position - len(self.block) * self.times


EMPTY = Blob.of(b"")


def pseudo_random(seed: str, size: int) -> bytes:
    """`size` incompressible bytes, always the same for one seed (SHAKE-256)."""
    return hashlib.shake_256(seed.encode()).digest(size)
