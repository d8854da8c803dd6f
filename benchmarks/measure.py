"""One command measured: wall time, processor time, and the most memory it ever had."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True, slots=True)
class Run:
    """A command that has ended; `memory` is the peak resident set in bytes."""

    seconds: float
    cpu_seconds: float
    memory: int


def seconds(runs: Sequence[Run]) -> float:
    """The median wall time."""
    return median(run.seconds for run in runs)


def cpu_seconds(runs: Sequence[Run]) -> float:
    """The median processor time, user's and system's."""
    return median(run.cpu_seconds for run in runs)


def measure(command: Sequence[str | Path], environment: Mapping[str, str], output: Path) -> Run:
    """Run a command from its start as a process to its end; stdout goes to the file `output`.

    Raises RuntimeError with what it wrote to stderr unless it exits with 0.
    """
    errors = output.with_suffix(".stderr")
    with output.open("wb") as stdout, errors.open("wb") as stderr:
        began = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=dict(environment),
        )
        # Not Popen.wait: only wait4 tells what this one child has used.
        _, status, usage = os.wait4(process.pid, 0)
        elapsed = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(
            f"{command[0]} exited with {process.returncode}: {errors.read_text()[-2000:]}"
        )
    return Run(elapsed, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def alternate(rounds: int, sides: Mapping[str, Callable[[], Run]]) -> dict[str, list[Run]]:
    """A B A B …: whatever slows the machine down for a while slows down every side."""
    runs: dict[str, list[Run]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            runs[name].append(side())
    return runs
