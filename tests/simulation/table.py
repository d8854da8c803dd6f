"""`make simulate`: all seeds, on all cores, as a table."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from statistics import median

from simulation.cases import SEEDS, Result, case_of, try_case


def try_seeds(seeds: Iterable[int], processes: int | None = None) -> list[Result]:
    """Every case, several at once; each that is done is told of on stderr."""
    found = []
    with ProcessPoolExecutor(processes or os.cpu_count()) as pool:
        for result in pool.map(try_case, map(case_of, seeds)):
            found.append(result)
            print(f"{result.case}: {result.ratio:.3f}", *result.problems, sep="; ", file=sys.stderr)
    return found


def rows(results: Sequence[Result]) -> list[str]:
    """The table as Markdown: a row for each kind of case, and one for all."""
    head = (
        "| window | refill | counts | others | cases | 429s | below reserve | restarts "
        "| time ÷ least: median, worst | forecast within 15 % |"
    )
    kinds: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        case = result.case
        key = (
            f"{case.hours} h",
            "rolling" if case.rolling else "at once",
            "every GET" if case.every == 1 else "every second",
            "bursts" if case.burn.bursts else "steady",
        )
        kinds.setdefault(key, []).append(result)
    lines = [head, "|---" * 10 + "|"]
    order = sorted(kinds, key=lambda key: (int(key[0][:-2]), *key[1:]))
    lines += [_row(key, kinds[key]) for key in order]
    return [*lines, _row(("all", "", "", ""), results)]


def _row(key: tuple[str, ...], results: Sequence[Result]) -> str:
    ratios = [result.ratio for result in results]
    told = [result for result in results if result.forecast is not None]
    close = sum(result.forecast_is_close for result in told)
    cells = (
        *key,
        str(len(results)),
        str(sum(result.refused for result in results)),
        str(sum(result.low for result in results)),
        str(sum(result.restarts for result in results)),
        f"{median(ratios):.3f}, {max(ratios):.3f}",
        f"{close} of {len(told)}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Print the table; 1 when something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    results = try_seeds(range(options.first, options.first + options.seeds))
    print("\n".join(rows(results)))
    return int(any(result.problems for result in results))


if __name__ == "__main__":
    sys.exit(main())
