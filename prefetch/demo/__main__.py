"""`python -m prefetch.demo --port-file FILE [--spec FILE]`: the upstream as a process of its own.

The port file holds `127.0.0.1:port`, written whole once the upstream answers. It runs until
SIGTERM or SIGINT. The specification is `settings.Specification`'s JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from prefetch.demo.settings import Specification
from prefetch.demo.upstream import Upstream
from prefetch.errors import PrefetchError


async def _run(specification: Specification, port_file: Path) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    upstream = Upstream(specification.settings)
    upstream.prepare(specification)
    async with upstream:
        await asyncio.to_thread(_write_whole, port_file, upstream.address)
        await stop.wait()


def _write_whole(path: Path, text: str) -> None:
    """Nobody reads half a file: it appears under its name when it is written."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(text)
    draft.replace(path)


def main() -> int:
    """Parse the command line and serve; 2 for a specification that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m prefetch.demo")
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--spec", type=Path)
    arguments = parser.parse_args()
    text = arguments.spec.read_text() if arguments.spec else "{}"
    try:
        specification = Specification.parse(text)
        asyncio.run(_run(specification, arguments.port_file))
    except PrefetchError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
