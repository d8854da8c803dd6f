"""Programs that tests start: the command line, the upstream as a process, Debian's registry."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from support.forking import ROOT, Fork, can_fork, fork, run_fork

_STARTING_SECONDS = 30.0
_POLL_SECONDS = 0.02


def free_port() -> int:
    """A loopback port that was free a moment ago, for programs that cannot take port 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Result:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.stdout)


class CommandLine:
    """`python -m prefetch --data-dir …`, in an environment of its own.

    HOME, the XDG directories and the temporary directory lie in `home`; nothing else is taken
    from the environment, so neither credentials nor proxies of the machine get in.
    """

    def __init__(self, home: Path, data_dir: Path) -> None:
        self.home = home
        self.data_dir = data_dir

    @property
    def cache(self) -> Path:
        """The OCI layout that a sync fills."""
        return self.data_dir / "cache"

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "TMPDIR": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / ".config"),
            "XDG_DATA_HOME": str(self.home / ".local/share"),
            "XDG_RUNTIME_DIR": str(self.home / ".run"),
            "PYTHONPATH": str(ROOT),
            **(extra or {}),
        }

    def arguments(self, *words: str | Path, data_dir: Path | None = None) -> list[str]:
        """The whole command, to be started by other means."""
        return [sys.executable, "-m", "prefetch", *self._options(*words, data_dir=data_dir)]

    def _options(self, *words: str | Path, data_dir: Path | None = None) -> list[str]:
        return ["--data-dir", str(data_dir or self.data_dir), *map(str, words)]

    async def start(
        self,
        *words: str | Path,
        data_dir: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> asyncio.subprocess.Process:
        """Start it and return at once, with all three streams piped."""
        return await asyncio.create_subprocess_exec(
            *self.arguments(*words, data_dir=data_dir),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment(env),
            cwd=self.home,
        )

    def serve(
        self,
        *words: str | Path,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> tuple[Fork | subprocess.Popen[bytes], Path]:
        """Start what goes on for long, with nothing to read; also returns the file that all it
        writes goes to. `prefix` runs it under a program."""
        log, environment = self.home / f"serve-{time.monotonic_ns()}.log", self.environment(env)
        with open(os.devnull, "rb") as nothing, log.open("wb") as file:
            if not prefix and self._starts_as_usual() and can_fork(environment):
                streams = nothing.fileno(), file.fileno(), file.fileno()
                options = self._options(*words)
                return self._fork(options, environment, streams), log
            command = [*prefix, *self.arguments(*words)]
            process = subprocess.Popen(
                command, stdin=nothing, stdout=file, stderr=file, env=environment, cwd=self.home
            )
            return process, log

    def _fork(
        self, options: Sequence[str], environment: Mapping[str, str], streams: Sequence[int]
    ) -> Fork:
        return fork(
            "prefetch", options, environment=environment, directory=self.home, streams=streams
        )

    async def __call__(
        self,
        *words: str | Path,
        stdin: str = "",
        data_dir: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> Result:
        """Run it to its end; killed, and TimeoutError, after `timeout` seconds."""
        environment = self.environment(env)
        if self._starts_as_usual() and can_fork(environment, stdin):
            options = self._options(*words, data_dir=data_dir)
            code, out, err = await run_fork(
                partial(self._fork, options, environment), stdin=stdin, timeout=timeout
            )
            return Result(code, out.decode(), err.decode())
        process = await self.start(*words, data_dir=data_dir, env=env)
        return await finish(process, stdin=stdin, timeout=timeout)

    def _starts_as_usual(self) -> bool:
        kind = type(self)
        return (kind.arguments, kind.start) == (CommandLine.arguments, CommandLine.start)


async def until_answers(
    ask: Callable[[], Awaitable[Result]],
    process: subprocess.Popen[bytes],
    log: Path,
    *,
    seconds: float,
) -> None:
    """Wait until `ask` exits 0; RuntimeError with the log if the process ends before."""
    async with asyncio.timeout(seconds):
        while (await ask()).code:
            if process.poll() is not None:
                raise RuntimeError(f"it ended: {log.read_text()}")
            await asyncio.sleep(0.05)


async def finish(
    process: asyncio.subprocess.Process, *, stdin: str = "", timeout: float = 60
) -> Result:
    """Wait for a started process and read what it wrote; it does not outlive the waiting."""
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate(stdin.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Result(process.returncode, out.decode(), err.decode())


async def run(*command: str | Path, env: Mapping[str, str] | None = None) -> Result:
    """Run any program to its end."""
    process = await asyncio.create_subprocess_exec(
        *(str(word) for word in command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=None if env is None else {"PATH": os.environ["PATH"], **env},
    )
    return await finish(process)


class UpstreamProcess:
    """The scripted upstream in a process of its own, asked and scripted over HTTP."""

    def __init__(self, process: Fork, address: str) -> None:
        self._process = process
        self.address = address
        self.url = f"http://{address}"

    def ask(self, path: str, body: Any = None, *, method: str | None = None) -> Any:
        """GET `/_demo/<path>`, or POST `body` there; blocks for a moment."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/_demo/{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    @property
    def pulls(self) -> int:
        return int(self.ask("counts")["pulls"])

    def counts(self) -> dict[str, int]:
        """Requests by `METHOD kind`."""
        return dict(self.ask("counts")["counts"])

    def requests(self) -> list[dict[str, Any]]:
        return list(self.ask("log")["requests"])

    def references(self) -> list[str]:
        """Every tag that it has, as `127.0.0.1:port/repository:tag`."""
        return [f"{self.address}/{each['repository']}:{each['tag']}" for each in self.ask("images")]

    def reset(self) -> None:
        self.ask("reset", {})

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=10)


async def start_upstream(directory: Path, specification: Mapping[str, Any]) -> UpstreamProcess:
    """Start `python -m prefetch.demo` and wait until it listens."""
    directory.mkdir(parents=True, exist_ok=True)
    spec, port_file = directory / "spec.json", directory / "port"
    spec.write_text(json.dumps(specification))
    process = fork(
        "prefetch.demo",
        ["--port-file", str(port_file), "--spec", str(spec)],
        environment=os.environ,
        directory=directory,
        streams=(0, 1, 2),
    )
    await _until(port_file.exists, process)
    return UpstreamProcess(process, port_file.read_text())


@dataclass(frozen=True, slots=True)
class DockerRegistry:
    """Debian's registry while it runs; `storage` is its root directory."""

    address: str
    storage: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=10)


async def start_docker_registry(
    directory: Path, users: Mapping[str, str] | None = None
) -> DockerRegistry:
    """Start `docker-registry` on a free port; `users` maps names to passwords."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(directory / "storage")},
            "delete": {"enabled": True},
        },
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if users:
        passwords = directory / "htpasswd"
        passwords.write_text(_htpasswd(users))
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(passwords)}}
    path = directory / "config.yml"
    path.write_text(json.dumps(config))  # YAML has JSON within it
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", path],
            stdout=log,
            stderr=log,
            env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
        )
    await _until(lambda: _listens(port), process)
    return DockerRegistry(f"127.0.0.1:{port}", directory / "storage", process)


def _htpasswd(users: Mapping[str, str]) -> str:
    lines = [
        subprocess.run(
            ["htpasswd", "-nbB", "-C", "4", name, password],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for name, password in users.items()
    ]
    return "\n".join(lines) + "\n"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def _until(ready: Callable[[], bool], process: Fork | subprocess.Popen[bytes]) -> None:
    """Wait for a program to be ready; RuntimeError if it ends first, TimeoutError if it hangs."""
    async with asyncio.timeout(_STARTING_SECONDS):
        while not ready():
            if process.poll() is not None:
                raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
            await asyncio.sleep(_POLL_SECONDS)
