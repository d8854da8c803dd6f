"""`make bench`: prefetch against Debian's skopeo and docker-registry, in one run.

Prints absolute figures and ratios; docs/benchmarks.md says what they mean.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

# Upstream and registry are started as the tests start them.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from cold import cold
from lab import GIB, Lab, require
from memory import blob, many
from serving import memory, serving
from table import Row, document, text
from unchanged import unchanged


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One of them: what it runs, what it needs besides, and bytes of disk (a quick one's, too)."""

    run: Callable[..., list[Row]]
    programs: tuple[str, ...]
    disk: int
    quick_disk: int


BENCHMARKS = {
    "cold": Benchmark(cold, ("skopeo", "docker-registry"), 3 * GIB, GIB // 2),
    "unchanged": Benchmark(unchanged, ("skopeo", "docker-registry"), GIB // 2, GIB // 8),
    "blob": Benchmark(blob, (), 9 * GIB // 2, GIB // 2),
    "many": Benchmark(many, (), GIB // 2, GIB // 8),
    "serving": Benchmark(serving, ("skopeo", "docker-registry", "wrk"), GIB, GIB // 4),
    "memory": Benchmark(memory, ("wrk",), 2 * GIB, GIB // 4),
}


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/run.py", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, one round, no targets")
    parser.add_argument(
        "--only", action="append", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS)
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each side runs (3)")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.add_argument(
        "--directory", type=Path, default=Path(tempfile.gettempdir()), help="where to work"
    )
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    arguments = _arguments(words)
    # Whatever ends it, servers are stopped and the disk is given back.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    chosen = [BENCHMARKS[name] for name in arguments.only or BENCHMARKS]
    disk = max(each.quick_disk if arguments.quick else each.disk for each in chosen)
    require(arguments.directory, disk, sorted({p for each in chosen for p in each.programs}))
    rows: list[Row] = []
    for benchmark in chosen:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.directory) as directory:
            lab = Lab(Path(directory), _say)
            try:
                rounds = 1 if arguments.quick else arguments.rounds
                rows += benchmark.run(lab, rounds=rounds, quick=arguments.quick)
            finally:
                lab.close()
    if arguments.quick:
        # Start-up weighs too much there for the targets to mean anything.
        rows = [replace(row, target="", ok=None) for row in rows]
    print(json.dumps(document(rows), indent=2) if arguments.output == "json" else text(rows))
    return int(arguments.check and any(row.ok is False for row in rows))


def _say(text: str) -> None:
    print(f"… {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
