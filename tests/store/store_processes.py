"""Other processes that write into a store, and what lies on the disk after them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefetch.oci.reference import Digest

WRITER = Path(__file__).with_name("writer_process.py")
BIG = b"".join(number.to_bytes(4, "big") for number in range(1 << 20))
BIG_DIGEST = Digest.of(BIG)


@contextmanager
def writer_process(
    place: Path, pause: float, *, hold_at: int = -1, restarts: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes BIG in 64 KiB chunks and prints each offset it has reached.

    At `hold_at` it waits for `go_on`, and restarts from 0 if it is to.
    """
    arguments = [str(place), str(pause), str(hold_at), str(int(restarts))]
    with subprocess.Popen(
        [sys.executable, str(WRITER), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def lies_in(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
