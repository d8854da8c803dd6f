"""`prefetch serve` as a process, over the data directory that a sync has filled."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bcrypt

from prefetch.demo.images import Image
from prefetch.demo.upstream import Upstream
from support.forking import Fork
from support.processes import CommandLine, DockerRegistry, Result

_STARTING_SECONDS = 30.0
_STOPPING_SECONDS = 40.0
_POLL_SECONDS = 0.02
_LISTENING = re.compile(r"listening on (https?)://(\S+:\d+)")


class Cache:
    """The embedded registry while it runs; `address` is `127.0.0.1:port`.

    `trust` says whom to believe, where it serves over TLS.
    """

    def __init__(
        self,
        process: Fork | subprocess.Popen[bytes],
        log: Path,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._process = process
        self._log = log
        self._trust = trust
        self.scheme = self.address = ""
        self.killed = False

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.address}"

    @property
    def pid(self) -> int:
        """The server's process: with several workers, their supervisor's."""
        return self._process.pid

    async def kill(self) -> None:
        """End it with SIGKILL, as if the machine had failed."""
        self.killed = True
        self._process.kill()
        await asyncio.to_thread(self._process.wait)

    @property
    def log(self) -> str:
        """What it has written until now."""
        return self._log.read_text(errors="replace")

    async def ready(self) -> None:
        """Wait until it listens and `/readyz` says 200.

        Raises RuntimeError with its words if it ends, or is not ready within 30 s.
        """
        try:
            async with asyncio.timeout(_STARTING_SECONDS):
                while (found := _LISTENING.search(self.log)) is None:
                    if self._process.poll() is not None:
                        code = self._process.returncode
                        raise RuntimeError(f"it ended with {code}: {self.log}")
                    await asyncio.sleep(_POLL_SECONDS)
                self.scheme, self.address = found[1], found[2]
                while not await asyncio.to_thread(self._says_ready):
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise RuntimeError(f"it is not ready: {self.log}") from None

    async def stop(self) -> Result:
        """End it with SIGTERM; killed if that takes too long."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            code = await asyncio.to_thread(self._process.wait, _STOPPING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = await asyncio.to_thread(self._process.wait)
        return Result(code, "", self.log)

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (names in lower case) and body of a GET; blocks for a moment."""
        request = urllib.request.Request(f"{self.url}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30, context=self._trust) as answer:
                return _taken_apart(answer)
        except urllib.error.HTTPError as error:
            with error:
                return _taken_apart(error)

    def _says_ready(self) -> bool:
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Warm:
    """A running cache with `library/<name>:1.0` of docker.io for each of `images`, whole.

    Nobody listens at `upstream` (`127.0.0.1:port`) any more.
    """

    cache: Cache
    upstream: str
    images: Mapping[str, Image]


ServeFactory = Callable[..., Awaitable[Cache]]


async def start_cache(
    cli: CommandLine,
    *words: str | Path,
    config: Path | None = None,
    listen: str = "127.0.0.1:0",
    trust: ssl.SSLContext | None = None,
) -> Cache:
    """Start `prefetch serve` on a free port, wait until it is ready; `words` are more options."""
    configured = () if config is None else ("--config", config)
    process, log = cli.serve(*configured, "serve", "--listen", listen, *words)
    cache = Cache(process, log, trust)
    try:
        await cache.ready()
    except BaseException:
        await cache.stop()
        raise
    return cache


def write_config(path: Path, source: Upstream | DockerRegistry) -> Path:
    """A `prefetch.yaml` in which a registry on loopback is docker.io, for every platform."""
    registries = {"docker.io": {"endpoint": source.url}}
    # YAML has JSON within it.
    path.write_text(json.dumps({"platforms": ["all"], "registries": registries}))
    return path


def write_users(path: Path, passwords: Mapping[str, str]) -> Path:
    """A `serve.htpasswd_file` of these names and passwords."""
    hashed = {
        name: bcrypt.hashpw(each.encode(), bcrypt.gensalt(4)) for name, each in passwords.items()
    }
    path.write_text("".join(f"{name}:{found.decode()}\n" for name, found in hashed.items()))
    return path


def _taken_apart(answer: Any) -> tuple[int, dict[str, str], bytes]:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return answer.status, headers, answer.read()
