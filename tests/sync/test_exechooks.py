"""Programs as hooks: real ones, well-behaved and otherwise."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from prefetch.sync.exechooks import execute
from prefetch.sync.hooks import Attempt, ExecHook, Message

MESSAGE = Message("msg_1", "run_failed", '{"text": "it failed"}', "it failed")
ENVIRON = {**os.environ, "HUB_TOKEN": "hush", "LD_PRELOAD_X": "hush", "LANG": "C.UTF-8"}


async def ran(script: str, *arguments: str, timeout: float = 10.0) -> Attempt:
    hook = ExecHook("ops", (sys.executable, "-c", script, *arguments), timeout=timeout)
    return await execute(hook, MESSAGE, environ=ENVIRON)


async def test_it_gets_the_document_and_a_minimal_environment(tmp_path: Path) -> None:
    script = (
        "import json, os, sys; json.dump([sys.stdin.read(), sys.argv[2:], dict(os.environ)], "
        "open(sys.argv[1], 'w')); print('thanks'); print('a lot', file=sys.stderr)"
    )
    attempt = await ran(script, str(tmp_path / "got"), "$(no shell)")
    assert (attempt.taken, attempt.said) == (True, "exit status 0")
    assert attempt.output is not None
    assert sorted(attempt.output.split()) == ["a", "lot", "thanks"]
    body, arguments, environment = json.loads((tmp_path / "got").read_text())
    assert (body, arguments) == (MESSAGE.body, ["$(no shell)"])
    ours = {k: v for k, v in environment.items() if k.startswith("PREFETCH_")}
    assert ours == {
        "PREFETCH_EVENT": "run_failed",
        "PREFETCH_NOTICE_ID": "msg_1",
        "PREFETCH_TEXT": "it failed",
    }
    # Python adds LC_CTYPE for itself.
    assert environment.keys() - ours.keys() <= {"PATH", "HOME", "LANG", "TZ", "LC_CTYPE"}


async def test_what_does_not_end_well_is_tried_again() -> None:
    failed = await ran("raise SystemExit(3)")
    assert failed == Attempt(taken=False, said="exit status 3")
    killed = await ran("import os; os.kill(os.getpid(), 9)")
    assert killed == Attempt(taken=False, said="killed by SIGKILL")
    hook = ExecHook("ops", ("/nonexistent/hook",))
    missing = await execute(hook, MESSAGE, environ=ENVIRON)
    assert missing == Attempt(taken=False, said="cannot be run: No such file or directory")


async def test_one_that_takes_too_long_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, time; p = subprocess.Popen(['sleep', '60']); "
        "open(sys.argv[1], 'w').write(str(p.pid)); print('on my way', flush=True); time.sleep(60)"
    )
    began = asyncio.get_running_loop().time()
    attempt = await ran(script, str(tmp_path / "pid"), timeout=3)
    assert asyncio.get_running_loop().time() - began < 10
    said = "killed: it took longer than 3 s"
    assert attempt == Attempt(taken=False, said=said, output="on my way")
    await gone(int((tmp_path / "pid").read_text()))


async def gone(pid: int) -> None:
    """Wait until a process is gone, or at least dead."""
    async with asyncio.timeout(10):
        while True:
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except FileNotFoundError:
                return
            if state == "Z":
                return
            await asyncio.sleep(0.05)


async def test_one_that_prints_without_end_and_reads_nothing_is_not_held_up() -> None:
    script = "import sys; [sys.stdout.write('x' * 65536) for _ in range(160)]"
    attempt = await ran(script)
    assert attempt.taken
    assert attempt.output == "x" * 4096


async def test_what_it_leaves_running_is_not_waited_for() -> None:
    began = asyncio.get_running_loop().time()
    attempt = await ran("import subprocess; subprocess.Popen(['sleep', '3']); print('hi')")
    assert attempt.taken
    assert asyncio.get_running_loop().time() - began < 2.5
