"""What a command costs: its peak of memory and its processor time."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from support.processes import CommandLine, Result, finish

# In a small process of its own: a child's peak begins with that of whoever started it.
_MEASURE = """
import json, resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as facts:
    json.dump({"peak": usage.ru_maxrss * 1024, "cpu": usage.ru_utime + usage.ru_stime}, facts)
sys.exit(code)
"""


@dataclass(frozen=True)
class Measured:
    """A command's end, its peak resident bytes and its processor seconds."""

    result: Result
    peak: int
    cpu: float


async def measured(cli: CommandLine, *words: str | Path, timeout: float = 60) -> Measured:
    """Run the command line and measure the process."""
    facts = cli.home / "usage.json"
    command = [sys.executable, "-c", _MEASURE, facts, *cli.arguments(*words)]
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=cli.environment(),
    )
    result = await finish(process, timeout=timeout)
    usage = json.loads(facts.read_text())
    return Measured(result, usage["peak"], usage["cpu"])
