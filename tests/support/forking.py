"""Commands of prefetch as forks of a process that has imported what they need.

They are processes as any other, but have not started as a user's do. What is about starting, or
about another kind of environment (another network, a tracer, another locale), is started anew.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO

import prefetch
from support.nursery import MESSAGE

ROOT = Path(prefetch.__file__).parents[1]
# What the interpreter, or a library, looks at before a command is there.
_EARLY = ("PYTHON", "LD_", "LC_", "LANG", "SSL_", "OPENSSL_")
_LANG = "C.UTF-8"
_LONGEST_INPUT = 60000
_KINDS = ("mnt", "net", "user", "pid")


def _namespaces() -> tuple[str, ...]:
    return tuple(os.readlink(f"/proc/thread-self/ns/{kind}") for kind in _KINDS)


_HOME = _namespaces()


class Fork:
    """A command under way; what `subprocess.Popen` offers of one."""

    def __init__(self, args: Sequence[str], answers: socket.socket) -> None:
        self.args = args
        self.pid = int(answers.recv(64))
        self.returncode: int | None = None
        self._answers = answers

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        with suppress(BlockingIOError):
            self._take(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        try:
            return self._take(timeout)
        except TimeoutError:
            raise subprocess.TimeoutExpired(self.args, timeout or 0) from None

    async def ended(self) -> int:
        """Wait for its end without blocking."""
        if self.returncode is None:
            self._answers.setblocking(False)
            self._end(await asyncio.get_running_loop().sock_recv(self._answers, 64))
        return self.wait()

    def _take(self, timeout: float | None) -> int:
        if self.returncode is None:
            self._answers.settimeout(timeout)
            self._end(self._answers.recv(64))
        assert self.returncode is not None
        return self.returncode

    def _end(self, answer: bytes) -> None:
        self.returncode = int(answer)
        self._answers.close()


def can_fork(environment: Mapping[str, str], stdin: str = "") -> bool:
    """Whether a fork would be what a process that is started anew is."""
    early = {name: value for name, value in environment.items() if name.startswith(_EARLY)}
    usual = {"LANG": _LANG, "PYTHONPATH": str(ROOT)}
    return early == usual and len(stdin) < _LONGEST_INPUT and _namespaces() == _HOME


def fork(
    module: str,
    words: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    streams: Sequence[int],
) -> Fork:
    """`python -m module words`, with the three streams. Raises OSError."""
    assert _namespaces() == _HOME, "a fork would be on another machine, so to speak"
    task = {
        "module": module,
        "words": list(words),
        "environment": dict(environment),
        "directory": str(directory),
    }
    message = json.dumps(task).encode()
    assert len(message) < MESSAGE
    answers = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    answers.connect(_nursery())
    socket.send_fds(answers, [message], streams)
    return Fork([module, *words], answers)


async def run_fork(
    start: Callable[[Sequence[int]], Fork], *, stdin: str, timeout: float
) -> tuple[int, bytes, bytes]:
    """To its end what is started with these streams: status, stdout and stderr; killed after
    `timeout` seconds."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        read, write = os.pipe()
        try:
            os.write(write, stdin.encode())
            started = start((read, out.fileno(), err.fileno()))
        finally:
            os.close(read)
            os.close(write)
        try:
            async with asyncio.timeout(timeout):
                code = await started.ended()
        finally:
            if started.returncode is None:
                started.kill()
                started.wait(10)
        return code, _content(out), _content(err)


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


@cache
def _nursery() -> str:
    """Where it is asked."""
    place = tempfile.TemporaryDirectory(prefix="prefetch-")
    path = f"{place.name}/nursery"
    environment = {
        "PATH": os.environ["PATH"],
        "LANG": _LANG,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "support.nursery", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()

    def end() -> None:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
        place.cleanup()

    atexit.register(end)
    return path
