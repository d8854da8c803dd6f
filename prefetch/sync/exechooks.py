"""One notice given to a program: JSON on standard input, no shell, nothing secret around it.

It runs in a process group of its own, which is killed when it takes too long. What it prints is
kept to the first 4 KiB, for the debug log. Exit status 0 has taken the notice.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from prefetch.remote.faults import sanitise
from prefetch.sync.hooks import Attempt, ExecHook, Message
from prefetch.tasks import end_all

_PASSED_ON: Final = ("PATH", "HOME", "LANG", "TZ")
_MOST_OUTPUT: Final = 4096
_CHUNK: Final = 65536
# What was printed before the end is in the pipe; what runs on in the background may hold it open.
_LAST_WORDS_SECONDS: Final = 0.2


async def execute(hook: ExecHook, message: Message, *, environ: Mapping[str, str]) -> Attempt:
    """Run the program once; whatever goes wrong is told in the attempt."""
    # A pipe of our own: with one of asyncio's, `wait` waits for whoever still holds it, too.
    reading, writing = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *hook.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=writing,
            stderr=writing,
            env=_environment(message, environ),
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        os.close(reading)
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return Attempt(taken=False, said=f"cannot be run: {reason}")
    finally:
        os.close(writing)
    output = bytearray()
    talking = [
        asyncio.create_task(_give(process, message.body.encode())),
        asyncio.create_task(_listen(reading, output)),
    ]
    try:
        async with asyncio.timeout(hook.timeout):
            status = await process.wait()
        await asyncio.wait(talking, timeout=_LAST_WORDS_SECONDS)
    except TimeoutError:
        said = f"killed: it took longer than {hook.timeout:g} s"
        return Attempt(taken=False, said=said, output=_shown(output))
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        await end_all(talking)
    said = f"exit status {status}" if status >= 0 else f"killed by {_name(-status)}"
    return Attempt(taken=status == 0, said=said, output=_shown(output))


def _environment(message: Message, environ: Mapping[str, str]) -> dict[str, str]:
    kept = {name: environ[name] for name in _PASSED_ON if name in environ}
    return {
        **kept,
        "PREFETCH_EVENT": message.event,
        "PREFETCH_NOTICE_ID": message.id,
        "PREFETCH_TEXT": message.text,
    }


async def _give(process: asyncio.subprocess.Process, body: bytes) -> None:
    """The document; a program that does not read it is none the worse."""
    if process.stdin is None:
        return
    with suppress(OSError):
        process.stdin.write(body)
        await process.stdin.drain()
    with suppress(OSError):
        process.stdin.close()
        await process.stdin.wait_closed()


async def _listen(reading: int, output: bytearray) -> None:
    """Read all that it prints, so that it is not held up, and keep the start."""
    loop, stream = asyncio.get_running_loop(), asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(reading, "rb", 0)
    )
    try:
        while chunk := await stream.read(_CHUNK):
            output += chunk[: _MOST_OUTPUT - len(output)]
    finally:
        transport.close()


def _shown(output: bytearray) -> str | None:
    return sanitise(output.decode(errors="replace"), _MOST_OUTPUT) or None


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
