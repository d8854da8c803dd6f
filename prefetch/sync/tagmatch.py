"""Regular expressions over tags, in a process of their own.

Python's `re` backtracks and cannot be interrupted from another thread: a pattern like `(a+)+b` on
a tag of 128 characters would stop the event loop for years. A child process can be killed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Final

from prefetch.sources.selector import Origin

TIMEOUT: Final = 10.0
"""Seconds that a pattern may take over all tags of a repository."""
MAX_TAG: Final = 128
"""Characters in a tag at most (distribution-spec, "Pulling manifests")."""

_PROGRAM: Final = """\
import json, re, sys
pattern, tags = json.load(sys.stdin)
json.dump([i for i, tag in enumerate(tags) if re.fullmatch(pattern, tag)], sys.stdout)
"""


async def matching(
    pattern: str, tags: Sequence[str], origin: Origin, *, timeout: float = TIMEOUT
) -> list[str]:
    """The tags that `pattern` matches as a whole, in their order.

    Raises SourceError, at `origin`, for a pattern that takes longer than `timeout` seconds.
    """
    candidates = [tag for tag in tags if len(tag) <= MAX_TAG]
    if not candidates:
        return []
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-I", "-S", "-W", "ignore", "-c", _PROGRAM),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(timeout):
            out, _ = await process.communicate(json.dumps([pattern, candidates]).encode())
    except TimeoutError:
        raise origin.error(f"the regular expression took longer than {timeout:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise origin.error("the regular expression cannot be used")
    return [candidates[position] for position in json.loads(out)]
