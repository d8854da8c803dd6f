"""A signal ends a command also while its sources, or its configuration, are still being read."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import pytest

from support.processes import CommandLine, Result, finish

# Of a second; the rest is for a machine that is busy.
PROMPT_SECONDS = 5.0
SETTLING_SECONDS = 0.5
SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


async def interrupted(cli: CommandLine, number: signal.Signals, *words: str | Path) -> Result:
    """Start it, wait until it is reading, which it does on a thread, and send it the signal."""
    process = await cli.start(*words)
    async with asyncio.timeout(30):
        while process.returncode is None and threads(process.pid) < 2:
            await asyncio.sleep(0.05)
    await asyncio.sleep(SETTLING_SECONDS)
    assert process.returncode is None, await process.communicate()
    process.send_signal(number)
    started = time.monotonic()
    async with asyncio.timeout(PROMPT_SECONDS):
        # Its input stays open: only the signal ends it.
        assert process.stdout is not None
        assert process.stderr is not None
        out, err = await asyncio.gather(process.stdout.read(), process.stderr.read())
        code = await process.wait()
    assert time.monotonic() - started < PROMPT_SECONDS
    return Result(code, out.decode(), err.decode())


def threads(pid: int) -> int:
    """How many a process has (proc(5), `/proc/pid/task`)."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


@pytest.fixture
def pipe(cli: CommandLine) -> Path:
    path = cli.home / "pipe"
    os.mkfifo(path)
    return path


@SIGNALS
async def test_a_sync_whose_input_does_not_end(cli: CommandLine, number: signal.Signals) -> None:
    done = await interrupted(cli, number, "sync", "-", "-o", "json")
    assert done.code == 128 + number
    document = json.loads(done.stdout)
    assert (document["run_id"], document["outcome"]) == (None, "interrupted")
    assert document["images"] == document["errors"] == document["budgets"] == []
    assert document["totals"]["requests"] == 0
    assert done.stderr == ""
    assert not cli.data_dir.exists()


@SIGNALS
@pytest.mark.parametrize("words", [("plan",), ("check",), ("sync", "-o", "text")])
async def test_a_pipe_that_nobody_writes_to(
    cli: CommandLine, pipe: Path, words: tuple[str, ...], number: signal.Signals
) -> None:
    done = await interrupted(cli, number, *words, pipe)
    assert done.code == 128 + number
    assert done.stderr == ""


@pytest.mark.parametrize(
    "words", [("plan", "--image", "nginx"), ("images",), ("budget",), ("freeze",)], ids=" ".join
)
async def test_a_configuration_that_does_not_come(
    cli: CommandLine, pipe: Path, words: tuple[str, ...]
) -> None:
    done = await interrupted(cli, signal.SIGTERM, "--config", pipe, *words)
    assert (done.code, done.stdout, done.stderr) == (143, "", "")


async def test_a_source_that_takes_long_to_parse(cli: CommandLine) -> None:
    source = cli.home / "long.yaml"
    source.write_text(f"images: [{'a, ' * 900_000}]\n")
    done = await interrupted(cli, signal.SIGINT, "sync", source, "-o", "json")
    assert done.code == 130
    assert json.loads(done.stdout)["outcome"] == "interrupted"


async def test_a_pipe_is_a_source_as_a_file_is(cli: CommandLine, pipe: Path) -> None:
    process = await cli.start("check", pipe, "-o", "json")
    await asyncio.to_thread(pipe.write_text, "127.0.0.1:1/app:1\nA b\n")
    done = await finish(process)
    assert done.code == 1
    assert [each["reference"] for each in done.json["images"]] == ["127.0.0.1:1/app:1"]
    assert [(each["source"], each["line"]) for each in done.json["errors"]] == [(str(pipe), 2)]


@pytest.mark.parametrize("option", ["--ca-file", "--cert-file"])
async def test_a_certificate_is_no_pipe(cli: CommandLine, pipe: Path, option: str) -> None:
    words = ("probe", "--cache-url", "https://127.0.0.1:1", option, pipe)
    key = ("--key-file", pipe) if option == "--cert-file" else ()
    done = await cli(*words, *key, timeout=20)
    assert done.code == 2
    assert "not a regular file" in done.stderr


async def test_a_registrys_certificate_is_no_pipe(cli: CommandLine, pipe: Path) -> None:
    config = cli.home / "prefetch.yaml"
    config.write_text(f"registries: {{'127.0.0.1:1': {{ca_file: {pipe}}}}}\n")
    words = ("--config", config, "plan", "--image", "127.0.0.1:1/a")
    done = await cli(*words, timeout=20)
    assert done.code != 0
    assert "ca_file: cannot use" in done.stderr + done.stdout
    assert "not a regular file" in done.stderr + done.stdout
